"""Random arrays: which elements are zero, and how the others lie in memory."""

import math
import sys

import numpy as np
from awkward import guarded
from cases import to_layout
from fuzz_places import moved

CANARY = -7777.0
DENSITIES = (1.0, 0.7, 0.5, 0.3, 0.1, 0.03)


def chance(rng, share):
    return rng.random() < share


def one_of(rng, values):
    return values[rng.integers(len(values))]


def keep(rng, shape):
    """Which elements are not zero: all, scattered ones, whole channels, rows or blocks, one, none."""
    pattern = one_of(rng, ("all", "random", "random", "random", "random", "channels", "rows", "blocks", "one", "none"))
    if pattern in ("one", "none") and chance(rng, 0.6):
        pattern = "random"
    density = one_of(rng, DENSITIES)
    if pattern == "all":
        return np.ones(shape, bool)
    if pattern == "random":
        return rng.random(shape) < density
    if pattern in ("channels", "rows"):
        axis = min(1, len(shape) - 1) if pattern == "channels" else len(shape) - 1
        kept = rng.random(shape[:axis] + shape[axis + 1 :]) < max(density, 0.3)
        return np.broadcast_to(np.expand_dims(kept, axis), shape)
    kept = np.zeros(shape, bool)
    if pattern == "blocks":
        kept[tuple(slice(size // 3, max(size // 3 + 1, -(-2 * size // 3))) for size in shape)] = True
    elif pattern == "one" and kept.size:
        kept.reshape(-1)[rng.integers(kept.size)] = True
    return kept


def numbers(rng, shape, whole, dtype):
    """Integers of -4 to 4, or normal floats; none is zero."""
    if whole:
        return (rng.integers(1, 5, shape) * rng.choice((-1, 1), shape)).astype(dtype)
    made = rng.standard_normal(shape).astype(np.float32).astype(dtype)
    return np.where(np.abs(made) < 1e-6, dtype.type(1), made)


def sparse(rng, shape, whole, dtype):
    """The same with zeros, some of which may be -0.0."""
    zeros = rng.choice((0.0, -0.0), shape).astype(dtype) if chance(rng, 0.2) else dtype.type(0)
    return np.where(keep(rng, shape), numbers(rng, shape, whole, dtype), zeros)


def memory(rng, shape, dtype, *, result=False, rows=False, canary=CANARY):
    """An array of memory that has never been written, and the buffer that it is a view of, full of `canary`.

    Any order of the axes, gaps between elements, and (not of a `result`) axes that run backwards; any place of the
    first element within a cache line. With `rows`, all axes but the last are steps of one row.
    """
    order, steps = np.arange(len(shape)), [1] * len(shape)
    plain = chance(rng, 0.35)
    if not plain and not rows and chance(rng, 0.4):
        order = rng.permutation(len(shape))
    if not plain and not (rows and len(shape) > 2):
        steps = [one_of(rng, (1, 1, 1, 2, 3)) if math.prod(shape) < 20_000 else 1 for _ in shape]
    elif rows and chance(rng, 0.3):
        steps[-1] = 2
    whole = [shape[axis] * step for axis, step in zip(order, steps, strict=True)]
    size, dtype = math.prod(whole), np.dtype(dtype)
    line = 64 // dtype.itemsize
    buffer = np.full(size + 2 * line, canary, dtype)
    start = -buffer.ctypes.data % 64 // dtype.itemsize + rng.integers(line)
    view = buffer[start : start + size].reshape(whole)[(..., *(slice(None, None, step) for step in steps))]
    if not plain and not result and chance(rng, 0.3):
        view = view[(..., *(slice(None, None, one_of(rng, (1, -1))) for _ in shape))]
    return buffer, view.transpose(np.argsort(order))


def placed(rng, array):
    """The same elements somewhere else in memory: at any address and strides, or between pages that trap accesses."""
    if sys.platform != "win32" and chance(rng, 0.06):
        return moved(guarded(array, at_end=chance(rng, 0.7)))
    if array.dtype != bool and array.size and chance(rng, 0.04):  # elements at no multiple of their size
        bytes_ = np.zeros(array.nbytes + 8, np.uint8)
        view = np.ndarray(array.shape, array.dtype, bytes_, offset=int(rng.integers(1, 8)))
    else:
        canary = np.nan if array.dtype.kind == "f" else 1
        view = memory(rng, array.shape, array.dtype, canary=canary)[1]
    view[...] = array
    view.flags.writeable = chance(rng, 0.7)
    return moved(view)


def axis_in(layout, axis, ndim):
    """Where axis `axis` of a channels-first array is in the layout; of a blocked one not the channels."""
    if axis > 1 and layout.endswith("C"):
        return axis - 1
    return ndim - 1 if axis == 1 and layout.endswith("C") else axis


def operand(rng, shape, layout, whole, dtype, pad=np.nan, altered=None):
    """Channels-first elements, and the array that is passed, in `layout` (None: as it is)."""
    plain = sparse(rng, shape, whole, dtype)
    plain = altered(rng, plain) if altered else plain
    axis = int(rng.integers(len(shape))) if shape and plain.size and chance(rng, 0.06) else None
    if axis is None or (axis == 1 and layout and layout.endswith("16c")):
        given = to_layout(plain, layout, pad) if layout else plain
        return plain, placed(rng, given), False
    plain = np.repeat(plain.take([0], axis), shape[axis], axis)  # the same elements again and again, once in memory
    given = to_layout(plain, layout, pad) if layout else plain
    axis = axis_in(layout, axis, len(shape)) if layout else axis
    return plain, np.broadcast_to(placed(rng, given.take([0], axis)), given.shape), True


def alike(rng, array):
    """An array of the same shape, strides and dtype, with other elements."""
    low, high = np.lib.array_utils.byte_bounds(array)
    buffer, start = np.zeros(high - low + 128, np.uint8), array.ctypes.data - low
    start += (array.ctypes.data - start - buffer.ctypes.data) % 64  # the same place within a cache line
    view = np.ndarray(array.shape, array.dtype, buffer, start, array.strides)
    view[...] = rng.integers(0, 2, array.shape) if array.dtype == bool else rng.integers(0, 5, array.shape)
    return moved(view)


def packed_bits(bools):
    return np.packbits(np.ascontiguousarray(bools), bitorder="little")


def as_mask(rng, live, dtype, channel_axes, compress):
    """A mask in any of its forms, and what it says as bools; one value per pixel where there are `channel_axes`."""
    kind = one_of(rng, ("float", "bool", "bits", "compressed", "pixels", "pixels"))
    if kind == "pixels" and not channel_axes:
        kind = "bool"
    if kind == "bits":
        return placed(rng, packed_bits(live)), live
    if kind == "pixels":
        shown = live.any(axis=channel_axes, keepdims=chance(rng, 0.5))
        live = np.broadcast_to(live.any(axis=channel_axes, keepdims=True), live.shape)
        kind = one_of(rng, ("float", "bool"))
    else:
        shown = live
    if kind == "bool":
        return placed(rng, shown), live
    floats = np.where(shown, rng.choice((1.0, -2.0, 0.5), shown.shape), rng.choice((0.0, -0.0), shown.shape))
    floats = placed(rng, floats.astype(dtype))
    return (compress(floats) if kind == "compressed" else floats), live
