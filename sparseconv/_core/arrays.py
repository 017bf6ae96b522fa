"""Arrays in and out: anything that shares CPU memory becomes a NumPy view, results are 64-byte aligned."""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import numpy as np

from . import _cpu, foreign

ALIGNMENT = 64
INT64_MAX = 2**63 - 1
FLOAT, BYTE = np.dtype(np.float32), np.dtype(np.uint8)
DTYPES = (FLOAT, np.dtype(np.float64))
SPIKE_DTYPES = (np.dtype(np.bool_), BYTE)  # bools, or one bit for each element
MASK_DTYPES = (*DTYPES, *SPIKE_DTYPES)


class Form(NamedTuple):
    """An array but for its address and its elements; hashable, so that what depends on no more is found again by it."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return self.dtype.itemsize

    @property
    def steps(self) -> tuple[int, ...]:
        """The strides in elements."""
        size = self.itemsize
        return tuple([step // size for step in self.strides])

    @property
    def c_contiguous(self) -> bool:
        """Whether elements lie in C order without gaps; the step of a dimension of one element does not matter."""
        expected = self.itemsize
        for length, step in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if length != 1 and step != expected:
                return False
            expected *= length
        return True

    def as_row(self) -> Form | None:
        """(..., features) as (1, positions, features), or None where memory does not allow it."""
        row = (1, math.prod(self.shape[:-1]), self.shape[-1])
        if 0 in row:
            return contiguous(row, self.dtype)
        *leading, (_, feature) = zip(self.shape, self.strides, strict=True)
        leading = [(length, step) for length, step in leading if length != 1]
        for (_, outer), (length, inner) in itertools.pairwise(leading):
            if outer != inner * length:
                return None
        return Form(row, (0, leading[-1][1] if leading else 0, feature), self.dtype)


def form(array: np.ndarray) -> Form:
    """The form of an array."""
    return Form(array.shape, array.strides, array.dtype)


def contiguous(shape: tuple[int, ...], dtype: np.dtype) -> Form:
    """The form of a C-contiguous array."""
    steps = [dtype.itemsize]
    for length in reversed(shape[1:]):
        steps.append(steps[-1] * length)
    return Form(shape, tuple(reversed(steps)), dtype)


def take(name: str, value: Any) -> np.ndarray:
    """`value` as a native float32 or float64 ndarray, sharing its memory.

    Accepts NumPy arrays, objects with the buffer protocol, `__array_interface__` or DLPack on the CPU. Anything else,
    lists included, is a TypeError: converting it would hide a copy.
    """
    array = value if type(value) is np.ndarray else foreign.shared(name, value)
    if array.dtype not in DTYPES:
        raise _no_floats(name, array, foreign.conversion(name, value, array, result=False))
    return array


def take_operand(name: str, value: Any) -> np.ndarray:
    """The same, but `x` may be bools: zeros and ones, for the functions that know them."""
    array = value if type(value) is np.ndarray else foreign.shared(name, value)
    if array.dtype not in DTYPES and (name != "x" or array.dtype != np.bool_):
        raise _no_floats(name, array, foreign.conversion(name, value, array, result=False))
    return array


def take_out(out: Any) -> np.ndarray:
    """The same of an array for a result: memory that cannot be a passing copy, and writable where that can be known."""
    array = out if type(out) is np.ndarray else foreign.writable("out", out)
    if array.dtype not in DTYPES:
        raise _no_floats("out", array, foreign.conversion("out", out, array, result=True))
    return array


def _no_floats(name: str, array: np.ndarray, instead: str) -> TypeError:
    return TypeError(f"{name}: got dtype {array.dtype!s}, expected float32 or float64{instead}")


def take_mask(name: str, value: Any) -> np.ndarray:
    """`value` as an ndarray of floats, bools or bits (uint8), sharing its memory as in `take`; or compressed."""
    if type(value) is np.ndarray:
        array = value
    else:
        array = value.mask if isinstance(value, foreign.Compressed) else foreign.shared(name, value)
    if array.dtype not in MASK_DTYPES:
        raise TypeError(f"{name}: got dtype {array.dtype!s}, expected float32, float64, bool, or uint8 for a bit mask")
    return array


def take_any(name: str, value: Any) -> np.ndarray:
    """`value` as an ndarray of any dtype: shared as in `take`, or a copy of a list."""
    return np.asarray(value) if isinstance(value, (np.ndarray, list, tuple)) else foreign.shared(name, value)


def addressable(array: np.ndarray) -> np.ndarray:
    """The array itself if its elements lie at whole multiples of their size, and bits side by side, else a copy."""
    flags = array.flags
    if flags.aligned and (flags.c_contiguous or array.dtype != np.uint8):
        return array
    return np.array(array, order="C")  # not ascontiguousarray, which gives an array without dimensions one


def in_rows(array: np.ndarray) -> np.ndarray:
    """The array itself if it is addressable and all its dimensions but the last are steps of one row, else a copy."""
    array = addressable(array)
    if array.ndim <= 2 or array.flags.c_contiguous or form(array).as_row():
        return array
    return np.ascontiguousarray(array)


def memory_axes(array: np.ndarray) -> tuple[int, ...]:
    """The axes in the order of memory, or as they are where memory has gaps, overlaps or runs backwards."""
    given = tuple(range(array.ndim))
    if array.flags.c_contiguous:
        return given
    by_stride = tuple(sorted(given, key=lambda axis: -array.strides[axis]))
    return by_stride if array.transpose(by_stride).flags.c_contiguous else given


def inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    """The order of axes that undoes this one."""
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))


def check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """`out` as an array that a result can be written to, or a ValueError or TypeError."""
    array = take_out(out)
    check_form(array, shape, dtype)
    check_memory(array, inputs)
    return array


def check_form(out: Form | np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Whether a result fits into arrays of this form."""
    if out.dtype != dtype:
        raise TypeError(f"out: got dtype {out.dtype!s}, expected {dtype!s}, the dtype of the inputs")
    if out.shape != shape:
        raise ValueError(f"out: got shape {out.shape}, expected {shape}")
    steps = [step for step, length in zip(out.strides, shape, strict=True) if length > 1]
    if any(step < 0 for step in steps):
        raise ValueError(f"out: got negative strides {out.strides}, expected positive ones")
    if 0 not in shape and any(step % out.itemsize or step == 0 for step in steps):
        raise ValueError(f"out: got strides {out.strides}, expected distinct, aligned elements")


def check_memory(out: np.ndarray, inputs: dict[str, np.ndarray]) -> None:
    """Whether the memory of `out` may be written to, whatever its form."""
    flags = out.flags
    if not flags.writeable:
        raise ValueError("out: got a read-only array, expected a writable one")
    if not flags.aligned:
        raise ValueError(f"out: got an address that is no multiple of {out.itemsize}, expected aligned elements")
    for name, other in inputs.items():
        if np.may_share_memory(out, other) and _overlap(out, other):
            if name == "residual" and _same(out, other):
                continue
            own = "memory of its own" if name != "residual" else "the residual itself or memory of its own"
            raise ValueError(f"out: got an array that overlaps {name}, expected {own}")


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether arrays of one shape are the same memory, element by element."""
    steps = zip(a.shape, a.strides, b.strides, strict=True)
    first, second = (array.__array_interface__["data"][0] for array in (a, b))
    return first == second and all(one == other for size, one, other in steps if size > 1)


def _overlap(a: np.ndarray, b: np.ndarray) -> bool:
    try:
        return np.shares_memory(a, b, max_work=10_000)  # type: ignore[arg-type]  # its stub knows 0 and -1 alone
    except np.exceptions.TooHardError:
        return True


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A new C-contiguous array whose first element is 64-byte aligned."""
    size = math.prod(shape) * dtype.itemsize
    if size > INT64_MAX:
        raise ValueError(
            f"result: its shape {shape} has a product that overflows int64, expected less than 2**63 bytes"
        )
    memory = np.empty(size + ALIGNMENT, BYTE)
    array = np.ndarray(shape, dtype, memory, -_cpu.address_of(memory) % ALIGNMENT)
    if not array.flags.writeable:  # NumPy asks for less, in silence, where there is no memory to ask for more
        raise MemoryError("no memory for a result")
    return array
