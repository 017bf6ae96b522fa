"""Array layouts: which axis is which, and where that puts rows, columns and channels in memory.

The only Python that knows the 16 of the blocked layouts. ``NCHW16c`` is (N, ceil(C/16), H, W, 16): its channel c
lies in block c // 16, lane c % 16; lanes behind the last channel are padding.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from . import _conv, caches, hints
from .arrays import Form

BLOCK = 16
SPATIAL = {0: "", 1: "W", 2: "HW", 3: "DHW"}


class Strides(NamedTuple):
    """Where an array's elements lie, in elements; hashable, so that plans can be found again by it."""

    image: int
    spatial: tuple[int, ...]
    channel: int
    block: int

    @property
    def contiguous_channels(self) -> bool:
        """Whether the channels of a pixel lie side by side."""
        return self.channel == 1 and self.block == BLOCK

    def merged(self, size: tuple[int, ...]) -> Strides | None:
        """The same elements with all spatial dimensions as one row, or None where memory does not allow it."""
        steps = zip(self.spatial, self.spatial[1:], size[1:], strict=False)
        if all(outer == inner * length for outer, inner, length in steps):
            return self._replace(spatial=self.spatial[-1:])
        return None


class Layout(NamedTuple):
    """A layout of arrays with `dims` spatial dimensions; `kind` is "first", "last" or "blocked" channels."""

    name: str
    dims: int
    kind: str

    @property
    def rank(self) -> int:
        return self.dims + (3 if self.kind == "blocked" else 2)

    def shape(self, batch: int, channels: int, size: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of an array of so many channels."""
        if self.kind == "first":
            return (batch, channels, *size)
        if self.kind == "last":
            return (batch, *size, channels)
        return (batch, -(-channels // BLOCK), *size, BLOCK)

    def size(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The spatial part of a shape."""
        return shape[1:-1] if self.kind == "last" else shape[2 : 2 + self.dims]

    def channels(self, shape: tuple[int, ...]) -> int:
        """The channels that a shape has room for."""
        if self.kind == "blocked":
            return shape[1] * BLOCK
        return shape[-1] if self.kind == "last" else shape[1]

    @property
    def channel_axes(self) -> tuple[int, ...]:
        return {"first": (1,), "last": (self.dims + 1,), "blocked": (1, self.dims + 2)}[self.kind]

    def strides(self, form: Form) -> Strides:
        """Strides of arrays of this form in this layout, in elements."""
        steps = form.steps
        if self.kind == "first":
            return Strides(steps[0], steps[2:], steps[1], BLOCK * steps[1])
        if self.kind == "last":
            return Strides(steps[0], steps[1:-1], steps[-1], BLOCK * steps[-1])
        return Strides(steps[0], steps[2:-1], steps[-1], steps[1])

    def per_channel(self, values: np.ndarray) -> np.ndarray:
        """One value per channel in a shape that all arrays in this layout can take on; padding lanes are zeros."""
        if self.kind == "last":
            return values
        if self.kind == "first":
            return values.reshape(-1, *[1] * self.dims)
        padded = np.zeros(-(-values.size // BLOCK) * BLOCK, values.dtype)
        padded[: values.size] = values
        return padded.reshape(-1, *[1] * self.dims, BLOCK)

    def over_channels(self, mask: np.ndarray, ndim: int) -> np.ndarray:
        """A mask of pixels with channel axes of size 1, if it has none; bits as they are. Rows have any `ndim`."""
        if mask.dtype == np.uint8 or mask.ndim == ndim:
            return mask
        return mask[..., np.newaxis] if self.kind == "last" else np.expand_dims(mask, self.channel_axes)

    def pads(self, channels: int) -> bool:
        """Whether an array of so many channels has lanes that are none."""
        return self.kind == "blocked" and channels % BLOCK != 0

    def clear_padding(self, array: np.ndarray, channels: int) -> None:
        """Zeros in the lanes of a blocked array that are no channels."""
        if self.pads(channels):
            array[:, -1, ..., channels % BLOCK :] = 0


def parse(name: str, dims: int) -> Layout:
    """The layout of that name for `dims` spatial dimensions; ValueError if there is none."""
    known = _known(dims)
    if not isinstance(name, str) or name not in known:  # lists cannot be looked for
        hint = hints.word(name, tuple(known), similar=False)  # NHCW is as near to the one as to the other
        raise ValueError(f"layout: got {name!r}, expected one of {', '.join(map(repr, known))}{hint}")
    return _made(name, dims)


@lru_cache(maxsize=64)
def _made(name: str, dims: int) -> Layout:
    return Layout(name, dims, _known(dims)[name])


def others(layout: Layout) -> list[Layout]:
    """The other layouts of as many spatial dimensions."""
    return [Layout(name, layout.dims, kind) for name, kind in _known(layout.dims).items() if name != layout.name]


def names(dims: int) -> list[str]:
    """Names of the layouts for `dims` spatial dimensions."""
    return list(_known(dims))


def _known(dims: int) -> dict[str, str]:
    """Names and kinds of the layouts for `dims` spatial dimensions."""
    spatial = SPATIAL[dims]
    return {f"NC{spatial}": "first", f"N{spatial}C": "last", f"NC{spatial}16c": "blocked"} if dims else {"NC": "last"}


def find(name: str) -> Layout:
    """The layout of that name, of whatever number of spatial dimensions."""
    for dims in SPATIAL:
        try:
            return parse(name, dims)
        except ValueError:
            continue
    raise ValueError(f"layout: got {name!r}, expected 'NC' or a layout of 1d, 2d or 3d arrays")


@caches.kept(4096)
def view(strides: Strides, size: tuple[int, ...]) -> _conv.View:
    """The C view of an array with these strides."""
    offsets = np.zeros(1, np.int64)
    for step, length in zip(strides.spatial[:-1], size[:-1], strict=True):
        offsets = (offsets[:, None] + np.arange(length, dtype=np.int64) * step).ravel()
    return _conv.View(strides.image, offsets, strides.spatial[-1], strides.channel, strides.block)


@caches.kept(4096)
def weight_view(
    strides: tuple[int, ...], kernel: tuple[int, ...], group: int, lanes_first: bool, offset: int = 0
) -> _conv.WeightView:
    """The C view of weights (out channel, in channel, *kernel) with these strides in elements.

    `group` is the number of out channels in a group; `lanes_first` says that out channels are the lanes.
    The first weight that is used lies `offset` elements behind the array's first one.
    """
    offsets = np.zeros(1, np.int64)
    for step, length in zip(strides[2:-1], kernel[:-1], strict=True):
        offsets = (offsets[:, None] + np.arange(length, dtype=np.int64) * step).ravel()
    flat = bool((offsets == np.arange(math.prod(kernel[:-1])) * kernel[-1] * strides[-1]).all())
    lane, channel = (strides[0], strides[1]) if lanes_first else (strides[1], strides[0])
    return _conv.WeightView(group * strides[0], lane, channel, strides[-1], (offsets + offset).tolist(), flat)
