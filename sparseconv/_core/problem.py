"""One frozen description of a convolution, for any number of spatial dimensions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Problem:
    """A convolution without its arrays: sizes only, all per spatial dimension as tuples.

    It describes all three passes: `in_size` belongs to x, `out_size` to y and grad_output. `padding` is what stands
    before the first column; what stands behind the last one follows from the sizes.
    """

    batch: int
    groups: int
    in_channels: int
    out_channels: int
    in_size: tuple[int, ...]
    out_size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    @cached_property
    def _hash(self) -> int:
        sizes = self.batch, self.groups, self.in_channels, self.out_channels, self.in_size, self.out_size
        return hash((*sizes, self.kernel, self.stride, self.padding, self.dilation))

    def __hash__(self) -> int:
        """Computed once: kernels, geometry and lists of weights are all found by their problem."""
        return self._hash

    @property
    def dims(self) -> int:
        """Number of spatial dimensions."""
        return len(self.kernel)

    def met(self, dim: int, tap: int) -> int:
        """How many outputs meet an input with this tap along a dimension; the others meet padding."""
        stride, offset = self.stride[dim], tap * self.dilation[dim] - self.padding[dim]
        first = max(0, -(offset // stride))
        return max(0, min(self.out_size[dim], -((offset - self.in_size[dim]) // stride)) - first)

    def pairs(self, dim: int) -> int:
        """How many (output, tap) pairs meet an input along a dimension."""
        return sum(self.met(dim, tap) for tap in range(self.kernel[dim]))

    @cached_property
    def met_macs(self) -> int:
        """Multiply-adds of one dense pass without those that meet padding."""
        channels = self.out_channels * self.in_channels // self.groups
        return self.batch * channels * math.prod(map(self.pairs, range(self.dims)))

    @cached_property
    def macs(self) -> int:
        """Multiply-adds of one dense pass, padding counted."""
        taps = math.prod(self.kernel) * self.in_channels // self.groups
        return self.batch * self.out_channels * math.prod(self.out_size) * taps

    @property
    def empty(self) -> bool:
        """Whether there is nothing to sum: some size is zero, or no window meets more than padding."""
        return not (self.met_macs and math.prod(self.in_size))

    @property
    def one_tap(self) -> bool:
        """Whether the kernel is 1 x ... x 1, at whatever stride and padding."""
        return all(k == 1 for k in self.kernel)

    @property
    def pointwise(self) -> bool:
        """Whether every output column meets just the input column of the same number."""
        return (
            self.in_size == self.out_size
            and self.one_tap
            and all(s == 1 for s in self.stride)
            and not any(self.padding)
        )

    def __str__(self) -> str:
        """The problem as a short text, e.g. ``n16c64k64i56x56o56x56k3x3s1x1p1x1`` (g and d only where not 1)."""

        def joined(letter: str, sizes: tuple[int, ...]) -> str:
            return letter + "x".join(map(str, sizes))

        text = f"n{self.batch}" + (f"g{self.groups}" if self.groups > 1 else "")
        text += f"c{self.in_channels}k{self.out_channels}"
        text += joined("i", self.in_size) + joined("o", self.out_size) + joined("k", self.kernel)
        text += joined("s", self.stride) + joined("p", self.padding)
        return text + (joined("d", self.dilation) if any(d > 1 for d in self.dilation) else "")
