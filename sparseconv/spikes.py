"""Zeros and ones at one bit each, as spiking networks pass them on: the `x` of kernels that add instead of multiply."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from . import masks
from ._core import arrays, checks, foreign

if TYPE_CHECKING:
    from .typing import Array, Bits, Bools


@dataclass(frozen=True, eq=False)
class Spikes(foreign.Compressed):
    """An array of zeros and ones, one bit each: `x` of forward, backward_weight and linear functions.

    Parameters
    ----------
    bits : (ceil(size / 8),) uint8 array
        One bit for each element in C order of `shape`, lowest bit first, as `sparseconv.masks.pack`,
        `sparseconv.masks.nonzero_mask` and ``return_mask=True`` give them. Its memory is shared.
    shape : tuple of int
        That of the array which the bits stand for.

    Raises
    ------
    TypeError, ValueError
        Bits of another dtype or number than the shape needs.

    Notes
    -----
    A bool array is spikes, too, with eight times the memory, in any strides. Results are those of the float32 array of
    the same zeros and ones, bit for bit where the same kernel's twin runs: ``1 * w + s`` is rounded as ``w + s`` is.

    Examples
    --------
    >>> import numpy as np, sparseconv as sc
    >>> spikes, weight = np.eye(8, dtype=bool).reshape(1, 1, 8, 8), np.ones((1, 1, 3, 3), np.float32)
    >>> x = sc.Spikes(sc.masks.pack(spikes), spikes.shape)
    >>> x.nbytes
    8
    >>> bool((sc.conv2d(x, weight) == sc.conv2d(spikes, weight)).all())
    True
    """

    bits: Bits
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        bits = arrays.take_any("bits", self.bits)
        if bits.dtype != np.uint8:
            raise TypeError(f"bits: got dtype {bits.dtype!s}, expected uint8")
        if not isinstance(self.shape, (tuple, list)):
            raise TypeError(f"shape: got {type(self.shape).__name__}, expected a tuple of int")
        shape = tuple(checks.whole("shape", size, 0) for size in self.shape)
        checks.sizes("bits", bits.shape, (-(-math.prod(shape) // 8),))
        object.__setattr__(self, "bits", np.ascontiguousarray(bits))
        object.__setattr__(self, "shape", shape)

    @property
    def _instead(self) -> str:
        """For messages of functions that take arrays: what makes one, and who takes this as it is."""
        return " (to_dense makes one of bools); only x of forward, backward_weight and linear functions may be spikes"

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the bits."""
        return self.bits.nbytes

    @property
    def mask(self) -> Bits:
        """The bits: as a mask they say where the ones are."""
        return self.bits

    def to_dense(self) -> Bools:
        """The bool array.

        Returns
        -------
        bool ndarray of `shape`
        """
        return masks.unpack(self.bits, self.shape)


def pack_spikes(x: Array) -> Spikes:
    """The nonzero elements of an array as spikes.

    Parameters
    ----------
    x : bool, float32 or float64 array
        A floating-point array should have zeros and ones alone: whatever is not zero becomes one.

    Returns
    -------
    Spikes
    """
    array = arrays.take_any("x", x)
    bits = masks.pack(array) if array.dtype == np.bool_ else masks.nonzero_mask(array)
    return Spikes(bits, array.shape)
