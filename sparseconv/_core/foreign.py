"""Arrays of other libraries, as views of their memory.

An object shows its memory through *doors*: DLPack, ``__array_interface__`` and the buffer protocol. For an operand the
first door that opens is enough. What a result is written to has to stand more: each look must find the same memory,
because some objects hand out a fresh copy every time, and no door may say "read-only" but DLPack's, whose older form
has no word for "writable" and says so of everything. Whatever a door raises becomes a TypeError that names the argument
and what to pass in its place. In the place of a result nothing will do that is a copy.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

CPU_DEVICES = (1, 3)  # DLPack kDLCPU, and pinned host memory
# Before 2.1 NumPy gives no writable array of memory that it is shown by DLPack alone.
READS_DLPACK = "; NumPy 2.1 or newer writes through DLPack" if np.__version__.startswith("2.0.") else ""
EXPECTED = "expected an array (NumPy, buffer protocol, __array_interface__ or DLPack)"
# What makes an array of objects that are none, by a method or property of their class.
MAKES_ARRAY = {
    "to_numpy": ".to_numpy()",
    "numpy": ".numpy()",
    "toarray": ".toarray()",
    "todense": ".todense()",
    "compute": ".compute()",
    "__array__": None,  # by NumPy
    "data": ".data",
}
FLOATS = ("float32", "float64", "float", "double")  # the last two in the words of tinygrad
ASSIGN = ": pass such an array, and assign that"  # to what cannot take a result itself
# What stands for an array while its library looks at a function: the first part of its module and the end of its name.
TRACED = {
    ("jax", "Tracer"): "JAX traces has no memory yet, so use sparseconv.jax, or call through jax.pure_callback",
    ("jaxlib", "Tracer"): "JAX traces has no memory yet, so use sparseconv.jax, or call through jax.pure_callback",
    ("tensorflow", "SymbolicTensor"): "TensorFlow traces has no memory yet, so call through tf.numpy_function",
    ("keras", "KerasTensor"): "Keras traces has no memory yet, so call with the arrays that a model runs on",
}


class Compressed:
    """What is no array, but whose mask can be had: compressed.CompressedArray and spikes.Spikes."""

    shape: tuple[int, ...]

    @property
    def _instead(self) -> str:
        """What makes an array of it, and which functions take it as it is, for messages."""
        raise NotImplementedError

    @property
    def mask(self) -> np.ndarray:
        """One bit per element, in C order."""
        raise NotImplementedError


class _Elsewhere(Exception):
    """The array is on this DLPack device."""


def shared(name: str, value: Any) -> np.ndarray:
    """`value` as an ndarray of any dtype, sharing its memory; a TypeError if it is no array on the CPU."""
    if (array := _at_once(name, value)) is not None:
        return array
    errors: list[Exception] = []
    for door in DOORS:
        (array,) = _looks(door, value, errors, 1)
        if array is not None:
            return array
    raise _refusal(name, value, errors)


def writable(name: str, value: Any) -> np.ndarray:
    """The same of an array that a result is written to: memory that is `value`'s own and may be written to."""
    if (array := _at_once(name, value, result=True)) is not None:
        plain = type(value) is _tensor_class() or isinstance(value, (np.ndarray, memoryview))
        again = array if plain else _at_once(name, value, result=True)  # a kind of tensor may make its elements
        if again is None or (again is not array and not _same(array, again)):
            raise _copies(name, value)
        return array
    views: dict[Door, np.ndarray] = {}
    errors: list[Exception] = []
    copies = False
    for door in DOORS:
        array, again = _looks(door, value, errors, 2)
        if array is None or again is None:
            continue
        if _same(array, again) and _addressed(door, value):
            views[door] = array
        else:
            copies = True
    if not views and not copies:
        raise _refusal(name, value, errors, result=True)
    if copies or len({_address(array) for array in views.values() if array.size}) > 1:
        raise _copies(name, value)
    first = next(iter(views.values()))
    said = [array for door, array in views.items() if door is not _by_dlpack]
    own = _own_view(value, first, call=not said or not all(array.flags.writeable for array in said))
    if own is not None:
        said = [own] if own.flags.writeable else [own, *said]
    for array in said or [first]:
        if not array.flags.writeable:
            raise ValueError(
                f"{name}: got a read-only array ({_kind(value)}), expected a writable one (a NumPy array, or no {name})"
                + ("" if said else READS_DLPACK)
            )
    return said[0] if said else first


def _at_once(name: str, value: Any, *, result: bool = False) -> np.ndarray | None:
    """The memory of NumPy's arrays and torch's tensors: 1 us where DLPack takes 4. None of all others.

    Tensors that stand for their negative (`is_neg`) are refused here, which torch exports through DLPack as they are.
    """
    kind, tensor = type(value), _tensor_class()
    if kind is tensor or (tensor is not None and isinstance(value, tensor)):
        try:
            return value.numpy()
        except (RuntimeError, TypeError) as error:
            raise _refused_tensor(name, value, error, result) from error
    if kind is memoryview:
        return np.asarray(value)
    if isinstance(value, np.ndarray):
        if isinstance(value, np.ma.MaskedArray):
            raise TypeError(f"{name}: got a masked array, expected an array without a mask (use .filled(0))")
        return np.asarray(value)
    return None


def _tensor_class() -> type | None:
    """That of PyTorch, if it is there; not yet, while another thread imports it."""
    return getattr(sys.modules.get("torch"), "Tensor", None)


def _refused_tensor(name: str, tensor: Any, error: Exception, result: bool) -> TypeError:
    """What is in the way of sharing a tensor's memory, and what makes one without."""
    facts, steps = [], []
    if tensor.requires_grad:
        facts.append("requires grad")
        steps.append(".detach()")
    copied = len(steps)
    if str(tensor.layout) != "torch.strided":
        facts.append(f"is stored as {tensor.layout}")
        steps.append(".to_dense()")
    elif tensor.is_neg():
        facts.append("stands for the negative of its memory (is_neg)")
        steps.append(".resolve_neg()")
    if tensor.device.type != "cpu":
        facts.append(f"is on device {tensor.device}")
        steps.append(".cpu()")
    if str(tensor.dtype) not in ("torch.float32", "torch.float64", "torch.bool", "torch.uint8"):
        facts.append(f"has dtype {tensor.dtype}")
        steps.append(".float()")
    if not facts or tensor.device.type == "meta":  # nothing that a method of the tensor could mend
        return TypeError(
            f"{name}: got {_kind(tensor)} that cannot share its memory: {_line(error)}; {EXPECTED}: what PyTorch "
            "traces or maps has none, so use sparseconv.torch"
        )
    if result and len(steps) > copied:
        instead = ASSIGN
    else:
        instead = f": pass tensor{''.join(steps)}"
        if tensor.requires_grad:
            instead += ", or use sparseconv.torch, which differentiates"
    return TypeError(f"{name}: got a tensor that {' and '.join(facts)}, {EXPECTED}{instead}")


def _by_dlpack(value: Any) -> np.ndarray | None:
    if getattr(value, "__dlpack__", None) is None:
        return None
    device, number = value.__dlpack_device__()
    if device not in CPU_DEVICES:
        raise _Elsewhere(int(device), int(number))
    return np.from_dlpack(value)


class _Interface:
    """An array interface alone, so that NumPy does not try what else an object has; it keeps the object alive."""

    def __init__(self, value: Any, interface: Any) -> None:
        self.value, self.__array_interface__ = value, interface


def _by_interface(value: Any) -> np.ndarray | None:
    interface = getattr(value, "__array_interface__", None)
    return None if interface is None else np.asarray(_Interface(value, interface))


def _by_buffer(value: Any) -> np.ndarray | None:
    try:
        buffer = memoryview(value)
    except TypeError as error:
        if "bytes-like object" in str(error):  # what Python says of a class without the protocol
            return None
        raise
    return np.asarray(buffer)


Door = Callable[[Any], np.ndarray | None]
DOORS: tuple[Door, ...] = (_by_dlpack, _by_interface, _by_buffer)


def _looks(door: Door, value: Any, errors: list[Exception], times: int) -> list[np.ndarray | None]:
    """What is seen through a door, all of it alive at a time; None if there is no such door, or not that one.

    An object of which one door says that NumPy has no word for its elements may label them as others elsewhere, such as
    8-bit floats as uint8, which would be a bit mask here. Then only floats are believed.
    """
    try:
        arrays = [door(value) for _ in range(times)]
    except MemoryError:
        raise
    except Exception as error:
        errors.append(error)
        return [None] * times
    trusted = not errors or isinstance(errors[0], _Elsewhere)
    if arrays[0] is None or trusted or arrays[0].dtype in (np.float32, np.float64):
        return arrays
    return [None] * times


def _same(array: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays, both alive, are the same memory; without elements there is none."""
    if array.shape != other.shape or array.dtype != other.dtype:
        return False
    if array.size == 0:
        return True
    steps = zip(array.shape, array.strides, other.strides, strict=True)
    return _address(array) == _address(other) and all(a == b for length, a, b in steps if length > 1)


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def _addressed(door: Door, value: Any) -> bool:
    """Whether an array interface names an address: anything else may be a buffer made for the occasion."""
    return door is not _by_interface or type(value.__array_interface__.get("data")) is tuple


def _own_view(value: Any, memory: np.ndarray, *, call: bool) -> np.ndarray | None:
    """The same memory as the object shows it under names of its own: `data`, or `numpy()`, which may take longer."""
    for attribute, read in {"data": lambda told: told, "numpy": lambda told: told()}.items():
        view = _says(value, attribute, read) if call or attribute == "data" else None
        if isinstance(view, memoryview):
            view = np.asarray(view)
        if isinstance(view, np.ndarray) and _same(view, memory):
            return view
    return None


def _copies(name: str, value: Any) -> TypeError:
    return TypeError(
        f"{name}: got {_kind(value)}, which shows a copy of its elements and not always the same memory, expected an "
        "array with memory of its own (pass a NumPy array, and assign that)"
    )


def _refusal(name: str, value: Any, errors: list[Exception], *, result: bool = False) -> TypeError:
    """The error for an object none of whose doors opens."""
    for error in errors:
        if isinstance(error, _Elsewhere):
            return TypeError(f"{name}: got an array on device {error.args}, expected one in CPU memory")
    if isinstance(value, Compressed):
        return TypeError(f"{name}: got a {type(value).__name__}, expected an array{value._instead}")
    if _says(value, "is_deleted", lambda told: told() is True):
        return TypeError(f"{name}: got {_kind(value)} whose memory was deleted or donated, {EXPECTED}")
    for (module, end), what in TRACED.items():
        if _kind(value).endswith(end) and type(value).__module__.partition(".")[0] == module:
            return TypeError(f"{name}: got {_kind(value)}, {EXPECTED}: what {what}")
    why = f" that cannot share its memory: {_line(errors[0])}; " if errors else ", "
    return TypeError(f"{name}: got {_kind(value)}{why}{EXPECTED}{_instead(value, result, bool(errors))}")


def _instead(value: Any, result: bool, failed: bool) -> str:
    """What to pass in the place of a value, if its class tells; what `failed` to show itself will fail NumPy, too."""
    kind = type(value)
    if hasattr(kind, "named_parameters"):
        return ": pass module.weight.detach(), or convert the module (sparseconv.torch)"
    if _says(value, "stop_gradient", bool) is False:  # Paddle's word for "requires grad"
        return ": pass value.detach()"
    dtype = _dtype(value)
    makes = [attribute for attribute in MAKES_ARRAY if hasattr(kind, attribute)]
    if result:
        return ": pass value.data" if makes == ["data"] and dtype in ("", *FLOATS) else ASSIGN
    if isinstance(value, (str, os.PathLike)):
        return ": pass np.load(path), if it is a file of NumPy's"
    if isinstance(value, Sequence):
        return ": pass np.asarray(values, np.float32)"
    if _says(value, "is_sparse", lambda told: told()):  # Paddle's: their numpy() crashes
        return ": pass value.to_dense()"
    if dtype and dtype not in FLOATS:
        return f": convert it from {dtype} to float32 first"
    if makes and makes[0] != "__array__":
        return f": pass value{MAKES_ARRAY[makes[0]]}"
    return ": pass np.asarray(value)" if makes and not failed else ""


def conversion(name: str, value: Any, array: np.ndarray, *, result: bool) -> str:
    """What makes floats of the elements of `value`, which are seen as `array`, or takes a result in its place."""
    dtype = array.dtype
    plain = isinstance(value, np.ndarray)
    if dtype.itemsize == array.ndim == 1 and not plain and not _dtype(value):
        return f": if these are the bytes of floats, pass np.frombuffer({name}, np.float32).reshape(shape)"
    native = dtype.newbyteorder("=") in (np.float32, np.float64)
    if result:
        return f"{' in native byte order' if native else ''}{ASSIGN}"
    if native:
        return " in native byte order: pass it through .astype(dtype.newbyteorder('='))"
    if not plain:
        return f": convert it from {_dtype(value) or dtype} to float32 first"
    return f": pass {name}.astype(np.float32)" if dtype.kind in "biuf" or dtype.isbuiltin == 2 else ""


def _dtype(value: Any) -> str:
    """What an object itself calls the type of its elements, or ""; a buffer may label them otherwise."""
    words: dict[str, Callable[[Any], Any]] = {"dtype": str, "data_type": _called, "get_element_type": _called}
    for attribute, read in words.items():
        if found := re.findall(r"\w+", _says(value, attribute, read) or ""):
            return found[-1]
    return ""


def _called(told: Callable[[], Any]) -> str:
    return str(told())


def _says(value: Any, attribute: str, read: Callable[[Any], Any]) -> Any:
    """What an attribute of an object says, as `read` takes it; None if there is none, or something raises."""
    try:
        return read(getattr(value, attribute))
    except MemoryError:
        raise
    except Exception:
        return None


def _kind(value: Any) -> str:
    return type(value).__name__


def _line(error: Exception) -> str:
    """The first line of what an error says, or its name."""
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
