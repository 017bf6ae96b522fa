"""One handler for XLA's foreign function interface: what a compiled JAX program calls to run a function of sparseconv.

The interface is a stable C ABI (jaxlib/include/xla/ffi/api/c_api.h, version 0.1 and later). Its structs are declared
here with ctypes, as far as the handler reads them, so nothing is compiled and JAX need not be there at installation.
The handler gets memory and the text of a `Target`, and calls the public function with the operands as NumPy views and
the result as ``out=``: nothing is copied. Kernels release the GIL, the handler itself takes some 10 us.
"""

from __future__ import annotations

import ctypes
import json
import signal
import threading
from ctypes import POINTER, Structure, c_char, c_char_p, c_int, c_int64, c_size_t, c_uint32, c_void_p
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np

import sparseconv

NAME = "sparseconv"
OPTIONS = "target"  # the attribute that carries the text of a Target
API_VERSION = 0, 1  # the oldest that has what is read here
METADATA = 1  # type of the extension that asks for the version
EXECUTE = 3  # stage
INVALID_ARGUMENT, CANCELLED, RESOURCE_EXHAUSTED = 3, 1, 8
DTYPES: dict[int, np.dtype] = {11: np.dtype(np.float32), 12: np.dtype(np.float64)}


class _Extension(Structure):
    _fields_ = [("struct_size", c_size_t), ("type", c_int), ("next", c_void_p)]


class _Version(Structure):
    _fields_ = [("struct_size", c_size_t), ("extension", c_void_p), ("major", c_int), ("minor", c_int)]


class _Metadata(Structure):
    _fields_ = [("struct_size", c_size_t), ("version", _Version), ("traits", c_uint32)]


class _MetadataExtension(Structure):
    _fields_ = [("base", _Extension), ("metadata", POINTER(_Metadata))]


class _Buffer(Structure):
    _fields_ = [
        ("struct_size", c_size_t), ("extension", c_void_p), ("dtype", c_int), ("data", c_void_p), ("rank", c_int64),
        ("dims", POINTER(c_int64)),
    ]  # fmt: skip


class _Buffers(Structure):
    _fields_ = [
        ("struct_size", c_size_t), ("extension", c_void_p), ("size", c_int64), ("types", POINTER(c_int)),
        ("values", POINTER(POINTER(_Buffer))),
    ]  # fmt: skip


class _Span(Structure):
    _fields_ = [("data", c_void_p), ("length", c_size_t)]


class _Attributes(Structure):
    _fields_ = [
        ("struct_size", c_size_t), ("extension", c_void_p), ("size", c_int64), ("types", POINTER(c_int)),
        ("names", POINTER(POINTER(_Span))), ("values", POINTER(POINTER(_Span))),
    ]  # fmt: skip


class _ErrorArguments(Structure):
    _fields_ = [("struct_size", c_size_t), ("extension", c_void_p), ("message", c_char_p), ("code", c_int)]


_CREATE_ERROR = ctypes.CFUNCTYPE(c_void_p, POINTER(_ErrorArguments))


class _Api(Structure):
    _fields_ = [
        ("struct_size", c_size_t), ("extension", c_void_p), ("version", _Version), ("internal", c_void_p),
        ("create_error", _CREATE_ERROR),
    ]  # fmt: skip


class _CallFrame(Structure):
    _fields_ = [
        ("struct_size", c_size_t), ("extension", c_void_p), ("api", POINTER(_Api)), ("context", c_void_p),
        ("stage", c_int), ("operands", _Buffers), ("results", _Buffers), ("attributes", _Attributes),
    ]  # fmt: skip


class Target(NamedTuple):
    """A public function, what its array arguments are called, and its other arguments; hashable."""

    function: str
    operands: tuple[str, ...]
    options: tuple[tuple[str, Any], ...]

    def text(self) -> str:
        """What the handler reads."""
        return json.dumps(self)

    def keywords(self) -> dict[str, Any]:
        """The arguments that are no arrays."""
        return dict(self.options)


@lru_cache(maxsize=1024)
def _read(text: bytes) -> tuple[Any, tuple[str, ...], dict[str, Any]]:
    """The function of a Target's text, its operands' names and its options."""
    function, operands, options = json.loads(text)
    return getattr(sparseconv, function), tuple(operands), {name: _plain(value) for name, value in options}


def _plain(value: Any) -> Any:
    """Tuples again where JSON has lists."""
    return tuple(map(_plain, value)) if isinstance(value, list) else value


def _array(buffer: _Buffer) -> np.ndarray:
    """The memory of a buffer, which XLA hands over in C order."""
    shape, dtype = tuple(buffer.dims[: buffer.rank]), DTYPES[buffer.dtype]
    size = dtype.itemsize
    for length in shape:
        size *= length
    memory: Any = (c_char * size).from_address(buffer.data or 0) if size else None
    return np.ndarray(shape, dtype, memory)


def _run(frame: _CallFrame) -> None:
    """Does one call."""
    (span,) = (frame.attributes.values[i].contents for i in range(frame.attributes.size))
    function, names, options = _read(ctypes.string_at(span.data, span.length))
    values = frame.operands.values
    operands = {name: _array(values[i].contents) for i, name in enumerate(names)}
    function(**operands, **options, out=_array(frame.results.values[0].contents))


def _error(frame: _CallFrame, code: int, message: str) -> int:
    """An error of XLA's, which owns it from then on."""
    arguments = _ErrorArguments(ctypes.sizeof(_ErrorArguments), None, message.encode(), code)
    return frame.api.contents.create_error(ctypes.byref(arguments))


@ctypes.CFUNCTYPE(c_void_p, POINTER(_CallFrame))
def handler(pointer: Any) -> int | None:
    """What XLA calls: to ask for the version at registration, then for each execution."""
    frame = pointer.contents
    if frame.extension:
        extension = ctypes.cast(frame.extension, POINTER(_MetadataExtension)).contents
        if extension.base.type == METADATA:
            version = extension.metadata.contents.version
            version.major, version.minor = API_VERSION
            extension.metadata.contents.traits = 0
            return None
    try:
        if frame.stage == EXECUTE:
            _run(frame)
    except KeyboardInterrupt:
        # XLA makes a JaxRuntimeError of it, which programs may catch: so it comes again, once XLA has returned.
        again = threading.Timer(0.05, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
        again.daemon = True
        again.start()
        return _error(frame, CANCELLED, "sparseconv: interrupted")
    except MemoryError as error:
        return _error(frame, RESOURCE_EXHAUSTED, f"sparseconv: {error}")
    except Exception as error:  # nothing may leave a callback of C
        return _error(frame, INVALID_ARGUMENT, f"sparseconv: {type(error).__name__}: {error}")
    return None


jax.ffi.register_ffi_target(NAME, jax.ffi.pycapsule(handler), platform="cpu")


def call(target: Target, shape: tuple[int, ...], dtype: Any, *operands: Any) -> jax.Array:
    """The result of a Target's function, of this shape, as part of a JAX program."""
    result = jax.ShapeDtypeStruct(shape, dtype)
    # "sequential" is right for any operands; layers.py folds what it can into the batch before it comes to this.
    return jax.ffi.ffi_call(NAME, result, vmap_method="sequential")(*operands, **{OPTIONS: target.text()})
