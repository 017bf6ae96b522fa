"""Arrays of other libraries, one row a kind: how one is made, and what a call makes of it as an operand and as `out`.

`python tests/support/array_kinds.py` prints what is true of the kinds that are installed. Each group of them gets a
process of its own, since imports set up threads, signal handlers and fork hooks, and not all agree with each other.
One table of all kinds.
"""

import array
import ctypes
import io
import json
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

import sparseconv as sc
from sparseconv import reference
from sparseconv._core import arrays

IMAGES, ROWS, FLAT = (1, 3, 5, 5), (15, 5), (75,)
SHARED, COPIED = "shared", "copied"
WRITTEN, LOST = "written", "lost"  # a copy may be what the caller made, such as a slice of a file
READ_ONLY = "got a read-only array"
ASSIGN = "pass such an array, and assign that"
OTHER, FILL, POKE = 5, 16, 7  # 8-bit floats have the last two, and operands neither


def whole(library, values):
    """The values of an array that NumPy can read."""
    return np.array(values)


def straight(library, call, values):
    return call(values)


class Kind(NamedTuple):
    """`operand` and `out` are one of the words above, or a part of the error that refuses it."""

    make: Callable[[Any, np.ndarray], Any]  # from the library and a C-contiguous float32 array
    operand: str = SHARED
    out: str = WRITTEN
    read: Callable[[Any, Any], np.ndarray] | None = whole  # its values, as the library itself sees them
    shape: tuple[int, ...] = IMAGES
    within: Callable[[Any, Callable, Any], Any] = straight  # how the library calls a function
    poke: Callable[[Any, float], None] | None = None  # changes the first element, where a call must not


OWNERS: dict[int, tuple[Any, Any]] = {}  # by the identity of an array: itself, and what it was taken from


def taken(own, take, read, *words):
    """A kind of array that is taken from another object, whose values count."""

    def make(library, values):
        owner = own(library, values)
        view = take(owner)
        OWNERS[id(view)] = view, owner
        return view

    return Kind(make, *words, read=lambda library, view: read(library, OWNERS[id(view)][1]))


class Group(NamedTuple):
    """Kinds of one library, and in which environment it is imported."""

    kinds: dict[str, Kind]
    module: str
    needs: tuple[str, ...] = ()
    environment: dict[str, str] | None = None


# --- plain Python and NumPy ---


def mapped(values):
    """A file of these bytes, in memory."""
    with tempfile.TemporaryFile() as file:
        file.write(values.tobytes())
        file.flush()
        return mmap.mmap(file.fileno(), 0)


def memmap(mode, load=False):
    def make(library, values):
        path = os.path.join(tempfile.mkdtemp(dir=TEMPORARY), "x.npy")
        np.save(path, values)
        if load:
            return np.load(path, mmap_mode=mode)
        start = os.path.getsize(path) - values.nbytes
        return np.memmap(path, np.float32, mode, start, values.shape)

    return make


def poke_file(values, number):
    np.memmap(values.filename, np.float32, "r+", values.offset)[0] = number


def of_bytes(library, values):
    return np.frombuffer(values, np.float32).copy()


def numbers(values):
    return array.array("f", values.ravel().tolist())


def in_c(values):
    kind = ctypes.c_float
    for length in reversed(values.shape):
        kind = kind * length
    return kind.from_buffer_copy(values)


def channels_last(values):
    """(N, C, H, W) as it lies in memory with channels last."""
    return np.ascontiguousarray(values.transpose(0, 2, 3, 1))


TO_FLOATS = "expected float32 or float64: pass x.astype(np.float32)"
FROM_BYTES = "if these are the bytes of floats, pass np.frombuffer({}, np.float32).reshape(shape)"
BYTES = FROM_BYTES.format("x"), FROM_BYTES.format("out")

PYTHON = {
    "array.array": Kind(lambda _, values: numbers(values), shape=FLAT),
    "array.array of ints": Kind(
        lambda _, values: array.array("i", map(int, values)), "convert it from int32 to float32 first", ASSIGN,
        shape=FLAT,
    ),
    "memoryview": Kind(lambda _, values: memoryview(numbers(values)).cast("B").cast("f", values.shape)),
    "memoryview, read-only": Kind(
        lambda _, values: memoryview(values.tobytes()).cast("f", values.shape), out=READ_ONLY
    ),
    "ctypes array": Kind(lambda _, values: in_c(values)),
    "bytes": Kind(lambda _, values: values.tobytes(), BYTES[0], READ_ONLY, of_bytes),
    "bytearray": Kind(lambda _, values: bytearray(values.tobytes()), *BYTES, of_bytes),
    "mmap": Kind(lambda _, values: mapped(values), *BYTES, of_bytes),
    "mmap, as a view of floats": Kind(lambda _, values: memoryview(mapped(values)).cast("f", values.shape)),
    "list": Kind(lambda _, values: values.tolist(), "pass np.asarray(values, np.float32)", ASSIGN),
}  # fmt: skip
NUMPY = {
    "ndarray": Kind(lambda _, values: values),
    "ndarray, channels last": Kind(lambda _, values: channels_last(values).transpose(0, 3, 1, 2)),
    "ndarray, Fortran order": Kind(lambda _, values: np.asfortranarray(values)),
    "ndarray, backwards": Kind(lambda _, values: values[..., ::-1].copy()[..., ::-1], out="got negative strides"),
    "ndarray, read-only": Kind(lambda _, values: np.frombuffer(values.tobytes(), np.float32).reshape(values.shape),
                               out=READ_ONLY),
    "recarray": Kind(lambda _, values: values.view(np.recarray)),
    "matrix": Kind(lambda _, values: np.asmatrix(values), shape=ROWS),
    "masked array": Kind(lambda _, values: np.ma.masked_array(values, values > 90), "use .filled(0)", "a masked array"),
    "memmap r+": Kind(memmap("r+")),
    "memmap c": Kind(memmap("c")),
    "memmap r": Kind(memmap("r"), out=READ_ONLY, poke=poke_file),
    "load with mmap_mode r": Kind(memmap("r", load=True), out=READ_ONLY, poke=poke_file),
    "float16": Kind(lambda _, values: values.astype(np.float16), TO_FLOATS, ASSIGN),
    "int64": Kind(lambda _, values: values.astype(np.int64), TO_FLOATS, ASSIGN),
    "other byte order": Kind(
        lambda _, values: values.astype(values.dtype.newbyteorder()), "pass it through .astype", ASSIGN
    ),
}  # fmt: skip
ML_DTYPES = {
    name: Kind(lambda library, values, name=name: values.astype(getattr(library, name)), TO_FLOATS, ASSIGN)
    for name in ("bfloat16", "float8_e4m3fn")
}

# --- frameworks ---

TO_DETACH = "pass tensor.detach(), or use sparseconv.torch, which differentiates"


def torch_read(torch, tensor):
    return tensor.detach().to_dense().resolve_neg().float().numpy().copy()


def torch_negative(torch, values):
    pairs = torch.from_numpy(np.stack([values, -values], -1))
    return torch.view_as_complex(pairs).conj().imag


def torch_fake(torch, values):
    return import_module("torch._subclasses.fake_tensor").FakeTensorMode().from_tensor(torch.from_numpy(values))


def torch_kind(change, *words, **more):
    return Kind(lambda torch, values: change(torch.from_numpy(values)), *words, **{"read": torch_read} | more)


TORCH = {
    "Tensor": torch_kind(lambda x: x),
    "Tensor, channels_last": Kind(
        lambda torch, values: torch.from_numpy(values).contiguous(memory_format=torch.channels_last)
    ),
    "Tensor, made in inference_mode": Kind(
        lambda torch, values: torch.inference_mode()(torch.clone)(torch.from_numpy(values))
    ),
    "Parameter that requires no grad": Kind(
        lambda torch, values: torch.nn.Parameter(torch.from_numpy(values), False), read=torch_read
    ),
    "Tensor that requires grad": torch_kind(lambda x: x.requires_grad_(), TO_DETACH, TO_DETACH),
    "Tensor that requires grad, computed": torch_kind(lambda x: x.requires_grad_() * 1, TO_DETACH, TO_DETACH),
    "Parameter": Kind(
        lambda torch, values: torch.nn.Parameter(torch.from_numpy(values)), TO_DETACH, TO_DETACH, torch_read
    ),
    "bfloat16": torch_kind(lambda x: x.bfloat16(), "has dtype torch.bfloat16, expected an array", ASSIGN),
    "bfloat16 that requires grad": torch_kind(
        lambda x: x.bfloat16().requires_grad_(), "pass tensor.detach().float(), or use sparseconv.torch", ASSIGN
    ),
    "float16": torch_kind(lambda x: x.half(), "convert it from float16 to float32 first", ASSIGN),
    "float8_e4m3fn": Kind(
        lambda torch, values: torch.from_numpy(values).to(torch.float8_e4m3fn), "pass tensor.float()", ASSIGN,
        torch_read,
    ),
    "int8": torch_kind(lambda x: x.char(), "convert it from int8 to float32 first", ASSIGN),
    "sparse_coo": torch_kind(lambda x: x.to_sparse(), "pass tensor.to_dense()", ASSIGN),
    "mkldnn": torch_kind(lambda x: x.to_mkldnn(), "pass tensor.to_dense()", ASSIGN),
    "negative view": Kind(torch_negative, "is_neg), expected an array", ASSIGN, torch_read),
    "meta": torch_kind(lambda x: x.to("meta"), "can't convert meta device type tensor", "meta device", read=None),
    "FakeTensor": Kind(torch_fake, "so use sparseconv.torch", "so use sparseconv.torch", None),
    "under vmap": torch_kind(
        lambda x: x[None], "so use sparseconv.torch", "so use sparseconv.torch",
        within=lambda torch, call, x: torch.func.vmap(call)(x),
    ),
}  # fmt: skip

TO_TRACE = "use sparseconv.jax, or call through jax.pure_callback"


def jax_deleted(jax, values):
    made = jax.numpy.array(values)
    made.delete()
    return made


def jax_kind(*words, **more):
    return Kind(lambda jax, values: jax.numpy.array(values), *words, **more)


JAX = {
    "Array": jax_kind(out=READ_ONLY),
    "Array, transposed": Kind(
        lambda jax, values: jax.numpy.array(channels_last(values)).transpose(0, 3, 1, 2), out=READ_ONLY
    ),
    "Array, as NumPy sees it": taken(lambda jax, values: jax.numpy.array(values), np.asarray, whole, SHARED, READ_ONLY),
    "bfloat16": Kind(
        lambda jax, values: jax.numpy.array(values, "bfloat16"), "convert it from bfloat16 to float32 first", ASSIGN
    ),
    "float16": Kind(
        lambda jax, values: jax.numpy.array(values, "float16"), "convert it from float16 to float32 first", READ_ONLY
    ),
    "deleted": Kind(jax_deleted, "whose memory was deleted or donated", "whose memory was deleted or donated", None),
    "under jit": jax_kind(TO_TRACE, TO_TRACE, within=lambda jax, call, x: jax.jit(call)(x)),
    "under grad": jax_kind(TO_TRACE, TO_TRACE, within=lambda jax, call, x: jax.grad(lambda x: call(x).sum())(x)),
    "under vmap": jax_kind(TO_TRACE, TO_TRACE, within=lambda jax, call, x: jax.vmap(call)(x)),
}


def tensorflow_read(tf, values):
    return tf.identity(tf.cast(values, tf.float32)).numpy().copy()


TENSORFLOW = {
    "EagerTensor": Kind(lambda tf, values: tf.constant(values), out=READ_ONLY, read=tensorflow_read),
    "Variable": Kind(lambda tf, values: tf.Variable(values), "pass value.numpy()", ASSIGN, tensorflow_read),
    "bfloat16": Kind(
        lambda tf, values: tf.cast(values, tf.bfloat16), "convert it from bfloat16 to float32 first", ASSIGN,
        tensorflow_read,
    ),
    "under tf.function": Kind(
        lambda tf, values: tf.constant(values), "call through tf.numpy_function", "call through tf.numpy_function",
        tensorflow_read, within=lambda tf, call, x: tf.function(call, autograph=False)(x),
    ),
}  # fmt: skip


def keras_read(keras, values):
    return np.array(keras.ops.convert_to_numpy(values))


def keras_kinds(backend, out):
    kinds = {
        "Variable": Kind(lambda keras, values: keras.Variable(values), "pass value.numpy()", ASSIGN, keras_read),
        "tensor": Kind(lambda keras, values: keras.ops.convert_to_tensor(values), out=out, read=keras_read),
        "KerasTensor": Kind(
            lambda keras, values: keras.KerasTensor(values.shape), "has no memory yet", "has no memory yet", None
        ),
    }
    environment = {"KERAS_BACKEND": backend} | QUIET
    return Group(kinds, "keras", needs=(backend,), environment=environment)


def paddle_read(paddle, tensor):
    if tensor.is_sparse():
        tensor = tensor.to_dense()
    return tensor.astype("float32").numpy()


def paddle_parameter(paddle, values):
    parameter = paddle.create_parameter(values.shape, "float32")
    parameter.set_value(values)
    return parameter


PADDLE = {
    "Tensor": Kind(lambda paddle, values: paddle.to_tensor(values), read=paddle_read),
    "Tensor, transposed": Kind(
        lambda paddle, values: paddle.to_tensor(channels_last(values)).transpose([0, 3, 1, 2]), read=paddle_read
    ),
    "Tensor that requires grad": Kind(
        lambda paddle, values: paddle.to_tensor(values, stop_gradient=False), "pass value.detach()",
        "pass value.detach()", paddle_read,
    ),
    "Parameter": Kind(paddle_parameter, "pass value.detach()", "pass value.detach()", paddle_read),
    "Parameter, detached": Kind(
        lambda paddle, values: paddle_parameter(paddle, values).detach(), read=paddle_read
    ),
    "bfloat16": Kind(
        lambda paddle, values: paddle.to_tensor(values).astype("bfloat16"), "convert it from bfloat16 to float32 first",
        ASSIGN, paddle_read,
    ),
    "float16": Kind(
        lambda paddle, values: paddle.to_tensor(values).astype("float16"), "convert it from float16 to float32 first",
        ASSIGN, paddle_read,
    ),
    "sparse": Kind(
        lambda paddle, values: paddle.to_tensor(values).to_sparse_coo(4), "pass value.to_dense()", ASSIGN, paddle_read
    ),
}  # fmt: skip


def mlx_read(mx, values):
    return np.array(values.astype(mx.float32) + 0)


MLX = {
    "array": Kind(lambda mx, values: mx.array(values), read=mlx_read),
    "array, not evaluated yet": Kind(lambda mx, values: mx.array(values) + 0, read=mlx_read),
    "array, transposed": Kind(
        lambda mx, values: mx.array(channels_last(values)).transpose(0, 3, 1, 2), read=mlx_read
    ),
    "bfloat16": Kind(
        lambda mx, values: mx.array(values).astype(mx.bfloat16), "convert it from bfloat16 to float32 first", ASSIGN,
        mlx_read,
    ),
    "float16": Kind(
        lambda mx, values: mx.array(values).astype(mx.float16), "convert it from float16 to float32 first", ASSIGN,
        mlx_read,
    ),
    "under vmap": Kind(
        lambda mx, values: mx.array(values), "during function transformations", "during function transformations",
        mlx_read, within=lambda mx, call, x: mx.vmap(call)(x),
    ),
    "under compile": Kind(
        lambda mx, values: mx.array(values), "during function transformations", "during function transformations",
        mlx_read, within=lambda mx, call, x: mx.compile(call)(x),
    ),
}  # fmt: skip


def openvino_constant(values, kind="f32", **options):
    openvino = import_module("openvino")
    return import_module("openvino.opset13").constant(values, getattr(openvino.Type, kind), **options)


def openvino_result(ov, values):
    """What a compiled model hands over."""
    operations = import_module("openvino.opset13")
    parameter = operations.parameter(values.shape, np.float32)
    model = ov.Model([operations.result(operations.negative(parameter))], [parameter])
    return ov.compile_model(model, "CPU")(-values)[0]


def openvino_read(ov, values):
    return np.array(values.data)


OPENVINO = {
    "Tensor": Kind(lambda ov, values: ov.Tensor(values), "pass value.data", "pass value.data", openvino_read),
    "Tensor.data": taken(lambda ov, values: ov.Tensor(values), lambda x: x.data, openvino_read),
    "Tensor.data of shared memory": taken(
        lambda ov, values: ov.Tensor(values, shared_memory=True), lambda x: x.data, openvino_read
    ),
    "result of a model": Kind(openvino_result),
    "Constant": Kind(lambda ov, values: openvino_constant(values), out=READ_ONLY, read=openvino_read),
    "Constant of shared memory": Kind(
        lambda ov, values: openvino_constant(values, shared_memory=True), out=READ_ONLY, read=openvino_read
    ),
    "Constant.data": taken(
        lambda ov, values: openvino_constant(values), lambda x: x.data, openvino_read, SHARED, READ_ONLY
    ),
    "Constant of bf16": Kind(
        lambda ov, values: openvino_constant(values, "bf16"), "convert it from bfloat16 to float32 first", ASSIGN,
        openvino_read,
    ),
    "Constant of f16": Kind(
        lambda ov, values: openvino_constant(values, "f16"), "convert it from float16 to float32 first", ASSIGN,
        openvino_read,
    ),
    "Tensor.data of f16": Kind(
        lambda ov, values: ov.Tensor(values.astype(np.float16)).data, "got dtype float16", ASSIGN
    ),
}  # fmt: skip


def ort_bfloat16(ort, values):
    upper = (values.view(np.uint32) >> 16).astype(np.uint16)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(upper, 16)


ONNXRUNTIME = {
    "OrtValue": Kind(
        lambda ort, values: ort.OrtValue.ortvalue_from_numpy(values), read=lambda ort, value: value.numpy().copy()
    ),
    "float16": Kind(
        lambda ort, values: ort.OrtValue.ortvalue_from_numpy(values.astype(np.float16)),
        "convert it from float16 to float32 first", ASSIGN, lambda ort, value: value.numpy().copy(),
    ),
    "bfloat16": Kind(ort_bfloat16, "convert it from bfloat16 to float32 first", ASSIGN, None),
}  # fmt: skip


def tinygrad_tensor(tinygrad, values):
    return tinygrad.Tensor(values).to(None).contiguous().realize()


def tinygrad_read(tinygrad, tensor):
    return tensor.numpy().astype(np.float32)


TINYGRAD = {
    "Tensor": Kind(tinygrad_tensor, "pass value.numpy()", ASSIGN, tinygrad_read),
    "Tensor.numpy()": taken(tinygrad_tensor, lambda x: x.numpy(), tinygrad_read, COPIED, LOST),
    "Tensor.data()": taken(tinygrad_tensor, lambda x: x.data(), tinygrad_read, COPIED, LOST),
    "float16": Kind(
        lambda tinygrad, values: tinygrad_tensor(tinygrad, values).half().realize(),
        "convert it from half to float32 first", ASSIGN, tinygrad_read,
    ),
}  # fmt: skip


def warp_kind(dtype, *words, **options):
    def make(wp, values):
        wp.config.quiet = True
        if dtype == "bfloat16":
            return wp.full(values.shape, values.flat[0], getattr(wp, dtype), device="cpu")
        if dtype == "float16":
            values = values.astype(np.float16)
        return wp.array(values, dtype=getattr(wp, dtype), device="cpu", **options)

    return Kind(make, *words, read=None if dtype == "bfloat16" else lambda wp, values: values.numpy().copy())


WARP = {
    "array": warp_kind("float32"),
    "array that requires grad": warp_kind("float32", requires_grad=True),
    "float16": warp_kind("float16", "convert it from float16 to float32 first", ASSIGN),
    "bfloat16": warp_kind("bfloat16", "convert it from bfloat16 to float32 first", ASSIGN),
}

# --- containers and files ---


def pyarrow_read_only(pa, values):
    values.flags.writeable = False
    return pa.Tensor.from_numpy(values)


PYARROW = {
    "Tensor": Kind(lambda pa, values: pa.Tensor.from_numpy(values), read=lambda pa, x: x.to_numpy().copy()),
    "Tensor, read-only": Kind(pyarrow_read_only, out=READ_ONLY, read=lambda pa, x: x.to_numpy().copy()),
    "FixedShapeTensorArray": Kind(
        lambda pa, values: pa.FixedShapeTensorArray.from_numpy_ndarray(values), out=READ_ONLY,
        read=lambda pa, x: x.to_numpy_ndarray().copy(),
    ),
    "FloatArray": Kind(
        lambda pa, values: pa.array(values), out=READ_ONLY, read=lambda pa, x: x.to_numpy().copy(), shape=FLAT
    ),
    "Buffer": Kind(lambda pa, values: pa.py_buffer(values), *BYTES, of_bytes),
}  # fmt: skip


def dataset(h5py, values):
    return h5py.File(io.BytesIO(), "w").create_dataset("values", data=values)


H5PY = {
    "Dataset": Kind(dataset, "pass np.asarray(value)", ASSIGN),
    "slice": taken(dataset, lambda x: x[:], whole, COPIED, LOST),
}
ZARR = {
    "Array": Kind(lambda zarr, values: zarr.array(values), "pass np.asarray(value)", ASSIGN),
    "slice": taken(lambda zarr, values: zarr.array(values), lambda x: x[:], whole, COPIED, LOST),
}


def numba_pinned(numba, values):
    pinned = import_module("numba.cuda").pinned_array(values.shape, np.float32)
    pinned[...] = values
    return pinned


NUMBA = {
    "result of njit": Kind(lambda numba, values: numba.njit(lambda x: x + 0)(values)),
    "typed.List": Kind(
        lambda numba, values: numba.typed.List(values.tolist()), "pass np.asarray(values, np.float32)", ASSIGN,
        lambda numba, values: np.array(list(values)), FLAT,
    ),
    "array of the CUDA simulator": Kind(
        lambda numba, values: import_module("numba.cuda").to_device(values), read=lambda numba, x: x.copy_to_host()
    ),
    "pinned array of the CUDA simulator": Kind(numba_pinned),
}  # fmt: skip
BLOSC2 = {
    "NDArray": Kind(
        lambda blosc2, values: blosc2.asarray(values), COPIED, "which shows a copy of its elements",
        lambda blosc2, values: values[:],
    ),
    "slice": taken(
        lambda blosc2, values: blosc2.asarray(values), lambda x: x[:], lambda blosc2, x: x[:], COPIED, LOST
    ),
}  # fmt: skip
PILLOW = {
    "Image of mode F": Kind(
        lambda pil, values: import_module("PIL.Image").fromarray(values), COPIED, "which shows a copy of its elements",
        shape=ROWS,
    ),
}  # fmt: skip
SCIPY = {
    "csr_array": Kind(
        lambda sparse, values: sparse.csr_array(values), "pass value.toarray()", ASSIGN, lambda _, x: x.toarray(), ROWS
    ),
}
XARRAY = {"DataArray": Kind(lambda xarray, values: xarray.DataArray(values), "pass value.to_numpy()", ASSIGN)}
PANDAS = {
    "DataFrame": Kind(
        lambda pandas, values: pandas.DataFrame(values), "pass value.to_numpy()", ASSIGN, whole, ROWS
    ),
}  # fmt: skip
DASK = {"Array": Kind(lambda dask, values: dask.from_array(values), "pass value.compute()", ASSIGN)}
TVM_FFI = {
    "Tensor": Kind(lambda tvm_ffi, values: tvm_ffi.from_dlpack(values), read=lambda _, x: np.from_dlpack(x).copy()),
}
STRICT = {"Array": Kind(lambda strict, values: strict.asarray(values), read=lambda _, x: np.from_dlpack(x).copy())}

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3"}
GROUPS = {
    "Python": Group(PYTHON, "sys"),
    "NumPy": Group(NUMPY, "numpy"),
    "ml_dtypes": Group(ML_DTYPES, "ml_dtypes"),
    "torch": Group(TORCH, "torch"),
    "JAX": Group(JAX, "jax"),
    "TensorFlow": Group(TENSORFLOW, "tensorflow", environment=QUIET),
    "Keras with TensorFlow": keras_kinds("tensorflow", READ_ONLY),
    "Keras with torch": keras_kinds("torch", WRITTEN),
    "Keras with JAX": keras_kinds("jax", READ_ONLY),
    "Paddle": Group(PADDLE, "paddle"),
    "MLX": Group(MLX, "mlx.core"),
    "OpenVINO": Group(OPENVINO, "openvino"),
    "ONNX Runtime": Group(ONNXRUNTIME, "onnxruntime"),
    # Its own kernels are compiled by Clang; without it, the device that interprets them is as good for us.
    "tinygrad": Group(
        TINYGRAD, "tinygrad", environment={"DEV": "CPU" if shutil.which("clang") else "PYTHON", "CACHELEVEL": "0"}
    ),
    "Warp": Group(WARP, "warp"),
    "TVM-FFI": Group(TVM_FFI, "tvm_ffi"),
    "pyarrow": Group(PYARROW, "pyarrow"),
    "h5py": Group(H5PY, "h5py"),
    "Zarr": Group(ZARR, "zarr"),
    "Numba": Group(NUMBA, "numba", environment={"NUMBA_ENABLE_CUDASIM": "1"}),
    "blosc2": Group(BLOSC2, "blosc2"),
    "array-api-strict": Group(STRICT, "array_api_strict"),
    "Pillow": Group(PILLOW, "PIL"),
    "SciPy": Group(SCIPY, "scipy.sparse"),
    "xarray": Group(XARRAY, "xarray"),
    "pandas": Group(PANDAS, "pandas"),
    "Dask": Group(DASK, "dask.array"),
}

# --- what a call makes of them ---


def small(shape, seed):
    """Integers of -4..4 that all kinds of elements have, few of them zero."""
    values = np.random.default_rng(seed).integers(1, 5, shape) * np.random.default_rng(seed + 1).choice((-1, 1), shape)
    return values.astype(np.float32)


WEIGHTS = {IMAGES: small((3, 3, 3, 3), 10), ROWS: small((5, 5), 11), FLAT: small((75, 75), 12)}


def layer(module, shape, x, weight=None, **options):
    """A layer whose result has the shape of what it is given."""
    weight = WEIGHTS[shape] if weight is None else weight
    if shape == IMAGES:
        return module.conv2d(x, weight, padding=1, **options)
    return module.linear(x, weight, **options)


def expected(values):
    """From the oracle."""
    return layer(reference, values.shape, values)


def exact(result, values):
    return type(result) is np.ndarray and result.dtype == np.float32 and np.array_equal(result, expected(values))


def as_operand(library, kind):
    """What is true of a kind as an operand: one of the words, the error, or what is wrong."""
    values = small(kind.shape, 1)
    given = kind.make(library, values.copy())
    try:
        result = kind.within(library, lambda x: layer(sc, kind.shape, x), given)
    except (TypeError, ValueError) as error:
        return message(error, "x")
    if not exact(result, values):
        return f"wrong: {result}"
    if kind.shape == IMAGES:
        weight = kind.make(library, WEIGHTS[kind.shape].copy())
        if not exact(layer(sc, kind.shape, given, weight), values):
            return "wrong as a weight"
    view = arrays.take("x", given)
    if kind.poke:
        kind.poke(given, POKE)
    else:  # at the address from which a call reads
        ctypes.c_float.from_address(view.ctypes.data).value = POKE
    now = np.asarray(kind.read(library, given))
    if not exact(layer(sc, kind.shape, given), np.array(arrays.take("x", given))):
        return "wrong after a change"
    return SHARED if now.flat[0] == view.flat[0] == POKE and arrays.addressable(view) is view else COPIED


def as_out(library, kind):
    """The same of a kind as `out`."""
    values = small(kind.shape, 2)
    out = kind.make(library, np.full(kind.shape, FILL, np.float32))
    before = None if kind.read is None else np.array(kind.read(library, out))
    try:
        result = kind.within(library, lambda out: layer(sc, kind.shape, values, out=out), out)
    except (TypeError, ValueError) as error:
        if before is not None and not np.array_equal(kind.read(library, out), before):
            return f"refused and touched: {error}"
        return message(error, "out")
    if not exact(result, values):
        return f"wrong: {result}"
    if type(out) is np.ndarray and result is not out:
        return "wrong: another array was returned"
    if not np.may_share_memory(result, arrays.take_out(out)):
        return "wrong: the result is a copy"
    return WRITTEN if exact(np.array(kind.read(library, out)), values) else LOST


def message(error, name):
    """The line of an error that names the argument; frameworks put more around it."""
    lines = [line.strip().removeprefix("TypeError: ") for line in str(error).splitlines()]
    return next((line for line in lines if line.startswith(f"{name}: got ")), f"wrong error: {error}")


# --- processes ---


def missing(group):
    """The first module that is not installed."""
    names = (group.module, *group.needs)
    return next((name for name in names if not find_spec(name.partition(".")[0])), None)


def run(name):
    """What is true of the kinds of a group: {kind: (operand, out)}."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | (GROUPS[name].environment or {}) | {"SPARSECONV_TEST_FOLDER": folder}
        command = [sys.executable, __file__, name]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])


TEMPORARY = os.environ.get("SPARSECONV_TEST_FOLDER")


def main(names):
    if names:
        (name,) = names
        group = GROUPS[name]
        library = import_module(group.module)
        kinds = group.kinds.items()
        print(json.dumps({title: (as_operand(library, kind), as_out(library, kind)) for title, kind in kinds}))
        return
    for name, group in GROUPS.items():
        if module := missing(group):
            print(f"\n{name}: {module} is not installed")
            continue
        package = packages_distributions().get(group.module.partition(".")[0])
        print(f"\n{name} {version(package[0]) if package else sys.version.split()[0]}")
        for title, (operand, out) in run(name).items():
            print(f"  {title}\n    {operand}\n    {out}")


if __name__ == "__main__":
    main(sys.argv[1:])
