"""Arrays in and out: anything that shares CPU memory becomes a NumPy view, results are 64-byte aligned."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

ALIGNMENT = 64
INT64_MAX = 2**63 - 1
CPU_DEVICES = (1, 3)  # DLPack kDLCPU, and pinned host memory
DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def take(name: str, value: Any) -> np.ndarray:
    """`value` as a native float32 or float64 ndarray, sharing its memory.

    Accepts NumPy arrays, objects with the buffer protocol, `__array_interface__` or DLPack on the CPU. Anything else,
    lists included, is a TypeError: converting it would hide a copy.
    """
    array = value if type(value) is np.ndarray else _shared(name, value)
    if array.dtype not in DTYPES:
        hint = ""
        if array.dtype.newbyteorder("=") in DTYPES:
            hint = " in native byte order: pass it through .astype(dtype.newbyteorder('='))"
        raise TypeError(f"{name}: got dtype {array.dtype!s}, expected float32 or float64{hint}")
    return array


def _shared(name: str, value: Any) -> np.ndarray:
    if isinstance(value, np.ndarray):
        if isinstance(value, np.ma.MaskedArray):
            raise TypeError(f"{name}: got a masked array, expected an array without a mask (use .filled(0))")
        return np.asarray(value)
    if hasattr(value, "__dlpack__"):
        device = value.__dlpack_device__()
        if device[0] not in CPU_DEVICES:
            raise TypeError(f"{name}: got an array on device {tuple(map(int, device))}, expected one in CPU memory")
        try:
            return np.from_dlpack(value)
        except (BufferError, RuntimeError) as error:
            raise TypeError(f"{name}: got {type(value).__name__} that cannot share its memory: {error}") from error
    if hasattr(value, "__array_interface__"):
        return np.asarray(value)
    try:
        return np.asarray(memoryview(value))
    except TypeError:
        raise TypeError(
            f"{name}: got {type(value).__name__}, expected an array (NumPy, buffer protocol, __array_interface__ or "
            "DLPack)"
        ) from None


def addressable(array: np.ndarray) -> np.ndarray:
    """The array itself if its elements lie at whole multiples of their size, else a copy."""
    if array.flags.aligned and all(step % array.itemsize == 0 for step in array.strides):
        return array
    return np.ascontiguousarray(array).copy() if array.flags.c_contiguous else np.ascontiguousarray(array)


def check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype, inputs: dict[str, np.ndarray | None]) -> np.ndarray:
    """`out` as an array that a result can be written to, or a ValueError or TypeError."""
    array = take("out", out)
    if array.dtype != dtype:
        raise TypeError(f"out: got dtype {array.dtype!s}, expected {dtype!s}, the dtype of the inputs")
    if array.shape != shape:
        raise ValueError(f"out: got shape {array.shape}, expected {shape}")
    if not array.flags.writeable:
        raise ValueError("out: got a read-only array, expected a writable one")
    steps = [step for step, length in zip(array.strides, array.shape, strict=True) if length > 1]
    if any(step < 0 for step in steps):
        raise ValueError(f"out: got negative strides {array.strides}, expected positive ones")
    if array.size and (not array.flags.aligned or any(step % array.itemsize or step == 0 for step in steps)):
        raise ValueError(f"out: got strides {array.strides}, expected distinct, aligned elements")
    for name, other in inputs.items():
        if other is not None and _overlap(array, other):
            raise ValueError(f"out: got an array that overlaps {name}, expected memory of its own")
    return array


def _overlap(a: np.ndarray, b: np.ndarray) -> bool:
    if not np.may_share_memory(a, b):
        return False
    try:
        return np.shares_memory(a, b, max_work=10_000)
    except np.exceptions.TooHardError:
        return True


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A new C-contiguous array whose first element is 64-byte aligned."""
    size = math.prod(shape)
    if size * dtype.itemsize > INT64_MAX:
        raise ValueError(
            f"result: its shape {shape} has a product that overflows int64, expected less than 2**63 bytes"
        )
    spare = ALIGNMENT // dtype.itemsize
    memory = np.empty(size + spare, dtype)
    start = -(memory.ctypes.data // dtype.itemsize) % spare
    return memory[start : start + size].reshape(shape)
