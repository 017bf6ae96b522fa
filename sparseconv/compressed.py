"""Arrays with many zeros in less memory: a bit mask and the nonzero values, for activations that wait for backward.

The elements are taken in memory order wherever memory has no gaps, so an NCHW view of NHWC memory comes back as one.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from . import cpu, masks
from ._core import _masks, arrays, foreign

if TYPE_CHECKING:
    from .typing import Array, Bits

BLOCK = _masks.COMPRESSED_BLOCK
SLACK = 16  # floats that kernels may read behind the last value
COUNTING_THREADS = 3  # counting before writing is as much work again: two threads gain nothing by it


@dataclass(frozen=True, eq=False, repr=False)
class CompressedArray(foreign.Compressed):
    """A bit mask and the nonzero elements of an array; made by `compress`, and not changed afterwards.

    Attributes
    ----------
    shape : tuple of int
    dtype : dtype
        float32 or float64.
    axes : tuple of int
        The axes of `shape` in the order of memory, slowest first: (0, 2, 3, 1) for an NCHW view of NHWC memory,
        (0, 1, 2, 3) for a C-contiguous array. The other attributes are in this order.
    bits : (ceil(size / 8),) uint8 ndarray
        One bit per element, lowest bit first: whether it is not zero.
    packed : ndarray of `dtype`
        The nonzero elements one after the other, and up to 16 more that mean nothing.
    offsets : (ceil(size / 4096) + 1,) int64 ndarray
        Nonzeros before each block of 4096 elements: those of block b are ``values[offsets[b]:offsets[b + 1]]``, its
        bits ``bits[512 * b:512 * (b + 1)]``.

    Notes
    -----
    Takes ``4 size density + size / 8 + size / 512 + 72`` bytes (float32): of the dense array's ``4 size`` the density
    plus 1/32 plus 1/2048. It is smaller than the dense array if more than 3.2% are zeros.

    The backward_weight functions take it as `x` and as `grad_output`, and expand it for the length of the call.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    axes: tuple[int, ...]
    bits: Bits
    packed: np.ndarray
    offsets: np.ndarray

    def __post_init__(self) -> None:
        for array in (self.bits, self.packed, self.offsets):  # kernels trust them
            array.flags.writeable = False

    def __reduce__(self) -> tuple:
        return CompressedArray, (self.shape, self.dtype, self.axes, self.bits, self.packed, self.offsets)

    @property
    def _instead(self) -> str:
        """For messages of functions that take arrays: what makes one, and who takes this as it is."""
        return " (sparseconv.decompress makes one); only the backward_weight functions take compressed operands"

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements, zeros included."""
        return math.prod(self.shape)

    @property
    def values(self) -> np.ndarray:
        """The nonzero elements, in memory order."""
        return self.packed[: self.offsets[-1]]

    @property
    def density(self) -> float:
        """Share of elements that are not zero; 0.0 for an empty array."""
        return int(self.offsets[-1]) / self.size if self.size else 0.0

    @property
    def nbytes(self) -> int:
        """Bytes of mask, values and offsets."""
        return self.bits.nbytes + self.packed.nbytes + self.offsets.nbytes

    @property
    def mask(self) -> Bits:
        """The bit mask in C order of `shape`, as `sparseconv.masks.nonzero_mask` gives it.

        Nothing is computed where that is the order in memory (`axes` in ascending order). Else the bits are put in
        order anew whenever this is asked for: about 1 ns per element.
        """
        if self.axes == tuple(range(self.ndim)):
            return self.bits
        return masks.pack(self._in_shape(masks.unpack(self.bits, self._memory_shape)))

    def to_dense(self, *, out: Array | None = None, num_threads: int | None = None) -> np.ndarray:
        """`sparseconv.decompress` of this array."""
        threads = cpu.checked_threads(num_threads)
        if out is None:
            dense = arrays.empty(self._memory_shape, self.dtype)
            self._expand(dense, threads)
            return self._in_shape(dense)
        result = arrays.check_out(out, self.shape, self.dtype, {})
        in_memory = result.transpose(self.axes)
        if in_memory.flags.c_contiguous:
            self._expand(in_memory, threads)
        else:
            result[...] = self.to_dense(num_threads=threads)
        return result

    def __repr__(self) -> str:
        return (
            f"CompressedArray(shape={self.shape}, dtype={self.dtype}, density={self.density:.3f}, nbytes={self.nbytes})"
        )

    @property
    def _memory_shape(self) -> tuple[int, ...]:
        return tuple(self.shape[axis] for axis in self.axes)

    def _in_shape(self, in_memory: np.ndarray) -> np.ndarray:
        """A view with the axes of `shape`."""
        return in_memory.transpose(arrays.inverse(self.axes))

    def _expand(self, dense: np.ndarray, threads: int) -> None:
        """Writes all elements to C-contiguous memory."""
        if self.dtype == np.float32:
            _masks.expand(self.bits, self.packed, self.offsets, dense, self.size, threads)
        else:
            dense[...] = 0
            dense[masks.unpack(self.bits, dense.shape)] = self.values


def compress(x: Array, *, num_threads: int | None = None) -> CompressedArray:
    """`x` as a bit mask and its nonzero values.

    Parameters
    ----------
    x : float32 or float64 array
        Any strides. Where its elements fill their memory without gaps, as those of every transposed view do, they are
        kept in the order of memory; others are copied to C order first.
    num_threads : int, optional
        As in `sparseconv.conv2d`; the result does not depend on it.

    Returns
    -------
    CompressedArray

    See Also
    --------
    decompress, sparseconv.masks.nonzero_mask

    Notes
    -----
    Takes the density plus 1/32 plus 1/2048 of the memory of a float32 array: 0.53 of it at 50% zeros, 0.13 at 90%.
    Time is linear in the size and that of memory. One thread reads the array once, and until it is done reserves, but
    does not touch, as much memory as `x` has. Several threads would have to count before they write, reading it twice,
    which does not pay below three: with `num_threads` = 2 one does it alone.

    -0.0 is a zero and comes back as 0.0. All else is kept bit for bit: NaN with its payload, infinities, and denormals,
    whatever the floating-point mode. float64 is done in NumPy: correct, slow.

    Examples
    --------
    >>> import numpy as np, sparseconv as sc
    >>> x = np.maximum(np.random.default_rng(0).standard_normal((16, 8, 8, 32), np.float32), 0)
    >>> c = sc.compress(x)
    >>> c
    CompressedArray(shape=(16, 8, 8, 32), dtype=float32, density=0.503, nbytes=70156)
    >>> (sc.decompress(c) == x).all()
    np.True_
    """
    array = arrays.take("x", x)
    threads = cpu.checked_threads(num_threads)
    axes = arrays.memory_axes(array)
    in_memory = arrays.addressable(np.ascontiguousarray(array.transpose(axes)))
    pack = _pack if array.dtype == np.float32 else _pack_float64
    return CompressedArray(array.shape, array.dtype, axes, *pack(in_memory.reshape(-1), threads))


def decompress(c: CompressedArray, *, out: Array | None = None, num_threads: int | None = None) -> np.ndarray:
    """The array that was compressed.

    Parameters
    ----------
    c : CompressedArray
    out : array of the same shape and dtype, optional
        Written and returned. Best in the memory order of the array that was compressed; else the elements are
        expanded first and copied then.
    num_threads : int, optional
        As in `sparseconv.conv2d`.

    Returns
    -------
    ndarray
        With the shape and the memory order that the array had, without gaps, 64-byte aligned unless `out` is given.

    Notes
    -----
    Time is linear in the size and that of memory. Arrays of 32 MB and more are written past the caches.
    """
    if not isinstance(c, CompressedArray):
        raise TypeError(f"c: got {type(c).__name__}, expected a CompressedArray, as sparseconv.compress gives")
    return c.to_dense(out=out, num_threads=num_threads)


def expanded(value: Any, num_threads: int | None) -> Any:
    """An operand that may be compressed: the dense array if it is."""
    return value.to_dense(num_threads=num_threads) if isinstance(value, CompressedArray) else value


def _pack(flat: np.ndarray, threads: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(bits, packed, offsets) of contiguous float32 elements."""
    size = flat.size
    bits = np.empty(-(-size // 8), np.uint8)
    offsets = np.empty(-(-size // BLOCK) + 1, np.int64)
    if min(threads, size // _masks.COMPRESSED_ITEM) >= COUNTING_THREADS:
        _masks.count_blocks(flat, size, offsets, threads)
        packed = np.empty(offsets[-1] + SLACK, np.float32)
        _masks.compress(flat, size, bits, packed, offsets, True, threads)
    else:
        packed = np.empty(size + SLACK, np.float32)
        _masks.compress(flat, size, bits, packed, offsets, False, threads)
        packed.resize(offsets[-1] + SLACK, refcheck=False)  # pages that were not written are given back
    return bits, packed, offsets


def _pack_float64(flat: np.ndarray, threads: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same in NumPy."""
    live = flat != 0
    blocks = [np.count_nonzero(live[first : first + BLOCK]) for first in range(0, flat.size, BLOCK)]
    return np.packbits(live, bitorder="little"), flat[live], np.array([0, *itertools.accumulate(blocks)], np.int64)
