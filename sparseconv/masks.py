"""Bit masks of nonzero elements, densities, and ReLU with its mask.

A mask is a one-dimensional uint8 array, one bit per element in C order of the array's shape, lowest bit first: what
``numpy.packbits(x != 0, bitorder="little")`` gives. It is flat, whatever the shape and memory of the array (`unpack`
makes bools in that shape). Bits behind the last element are zero. -0.0 is zero; NaN is not.
Functions read memory once and run at its speed; arrays that are not contiguous are copied first.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, SupportsIndex

import numpy as np

from ._core import _masks, _pruning, arrays, checks

if TYPE_CHECKING:
    from .typing import Array, Bits, Bools, Shape

__all__ = ["density", "nonzero_mask", "pack", "relu", "unpack", "vector_density"]


def nonzero_mask(x: Array) -> Bits:
    """One bit per element of `x`: whether it is not zero.

    Parameters
    ----------
    x : float32 or float64 array

    Returns
    -------
    (ceil(x.size / 8),) uint8 ndarray
    """
    array = arrays.take("x", x)
    if array.dtype != np.float32:
        return np.packbits(array != 0, bitorder="little")
    bits = np.empty(-(-array.size // 8), np.uint8)
    _masks.nonzero(_plain(array), array.size, bits)
    return bits


def pack(mask: Array) -> Bits:
    """A bit mask from a bool array.

    Parameters
    ----------
    mask : bool array of any shape

    Returns
    -------
    (ceil(mask.size / 8),) uint8 ndarray
    """
    array = arrays.take_any("mask", mask)
    if array.dtype != np.bool_:
        raise TypeError(f"mask: got dtype {array.dtype!s}, expected bool")
    return np.packbits(array, bitorder="little")


def unpack(mask: Array, shape: SupportsIndex | Shape) -> Bools:
    """The bool array that a bit mask stands for.

    Parameters
    ----------
    mask : (ceil(size / 8),) uint8 array
    shape : int or sequence of int
        Shape of the result; `size` is its product.

    Returns
    -------
    bool ndarray of that shape
    """
    array = arrays.take_any("mask", mask)
    if array.dtype != np.uint8:
        raise TypeError(f"mask: got dtype {array.dtype!s}, expected uint8")
    sizes = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    sizes = tuple(checks.whole("shape", one, 0) for one in sizes)
    size = math.prod(sizes)
    checks.sizes("mask", array.shape, (-(-size // 8),))
    bools = np.empty(size, np.bool_)
    _masks.unpack(np.ascontiguousarray(array), size, bools.view(np.uint8))
    return bools.reshape(sizes)


def relu(x: Array, *, out: Array | None = None) -> tuple[np.ndarray, Bits]:
    """``max(x, 0)`` and the bit mask of its nonzero elements, in one pass. NaN stays NaN.

    Parameters
    ----------
    x : float32 or float64 array
    out : array like `x`, optional
        C-contiguous; takes the result. `x` itself is allowed (in place).

    Returns
    -------
    y : ndarray like `x`
        C-contiguous.
    mask : (ceil(x.size / 8),) uint8 ndarray
        ``nonzero_mask(y)``.
    """
    array = arrays.take("x", x)
    inputs = {} if out is x else {"x": array}
    shape, dtype = array.shape, array.dtype
    y = arrays.empty(shape, dtype) if out is None else arrays.check_out(out, shape, dtype, inputs)
    if not y.flags.c_contiguous:
        raise ValueError(f"out: got strides {y.strides}, expected a C-contiguous array")
    if array.dtype != np.float32:
        np.maximum(array, 0, out=y)
        return y, nonzero_mask(y)
    bits = np.empty(-(-array.size // 8), np.uint8)
    _masks.relu(_plain(array), array.size, y, bits)
    return y, bits


def density(x: Array) -> float:
    """Share of elements of `x` that are not zero; 0.0 for an empty array.

    Parameters
    ----------
    x : float32 or float64 array

    Returns
    -------
    float
    """
    array = arrays.take("x", x)
    if array.size == 0:
        return 0.0
    if array.dtype != np.float32:
        return np.count_nonzero(array) / array.size
    return _masks.count_nonzero(_dense(array), array.size) / array.size


def vector_density(x: Array, width: int = 16) -> float:
    """Share of vectors of `width` neighbouring elements (in C order) that are not all zero.

    What a kernel that skips only whole vectors could gain; for ReLU activations it is close to 1.

    Parameters
    ----------
    x : float32 or float64 array
    width : int
        Elements of a vector; the last one may be shorter.

    Returns
    -------
    float
    """
    width = checks.whole("width", width, 1)
    array = _plain(arrays.take("x", x))
    if array.size == 0:
        return 0.0
    width = min(width, array.size)
    vectors = -(-array.size // width)
    if array.dtype != np.float32:
        starts = np.arange(0, array.size, width)
        return np.count_nonzero(np.logical_or.reduceat(array.ravel() != 0, starts)) / vectors
    return _masks.live_vectors(array, array.size, width) / vectors


def bools(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A checked mask of an array of that shape, in any of its forms, as bools; denormals are zeros, as in kernels."""
    if mask.dtype == np.uint8:
        return unpack(mask, shape)
    return mask if mask.dtype == np.bool_ else ~(np.abs(mask) < np.finfo(mask.dtype).tiny)


def above(array: np.ndarray, threshold: float, threads: int) -> np.ndarray:
    """Where magnitudes are above a threshold, as C-contiguous bools; NaN is above all."""
    mask = np.empty(array.shape, np.bool_)
    if array.dtype == np.float32:
        _pruning.above_mask(_plain(array), array.size, threshold, mask, threads)
    else:
        np.logical_not(np.abs(array) <= max(threshold, np.nextafter(np.finfo(array.dtype).tiny, 0)), out=mask)
    return mask


def needed_pairs(mask: np.ndarray) -> np.ndarray | None:
    """(out channel, in channel): whether any tap of the pair is in a C-contiguous bool mask of a weight, as uint8.

    None if all are: nothing can be left out.
    """
    out_channels, in_channels, *kernel = mask.shape
    taps = math.prod(kernel)
    pairs = mask.view(np.uint8).reshape(out_channels, in_channels) if taps == 1 else None
    if pairs is None:
        pairs = np.empty((out_channels, in_channels), np.uint8)
        _masks.any_of(mask.view(np.uint8), pairs.size, taps, pairs)
    return None if pairs.view(np.bool_).all() else pairs


def keep(array: np.ndarray, mask: np.ndarray) -> None:
    """Write zeros into `array` where `mask`, an array of its shape or bits, is zero.

    As words, and with all bits or none: np.copyto with `where` mispredicts a branch for every other element. Zen 5, 1.6
    million elements, half of them needed: 6.5 -> 0.9 ms as bits, 6.9 -> 1.3 as floats.
    """
    words = array.view(f"i{array.itemsize}")
    kept = -(bools(mask, array.shape) != 0).view(np.int8)  # 0 or -1, of which more bytes are as many more bits
    np.bitwise_and(words, kept, out=words)


def _plain(array: np.ndarray) -> np.ndarray:
    """C-contiguous with aligned elements: the array itself or a copy."""
    return arrays.addressable(np.ascontiguousarray(array))


def _dense(array: np.ndarray) -> np.ndarray:
    """The same elements in any order, contiguous: a view where memory has no gaps (NHWC views of NCHW and so on)."""
    return arrays.addressable(array.ravel(order="K"))
