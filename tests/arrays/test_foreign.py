"""Arrays of other libraries: imitations of what real ones do, then the real ones where they are installed."""

import ctypes
import subprocess
import sys
import types
from importlib.util import find_spec

import numpy as np
import pytest
from helpers import assert_exact

import sparseconv as sc

X = np.arange(75, dtype=np.float32).reshape(1, 3, 5, 5) % 4
W = np.ones((3, 3, 3, 3), np.float32)
Y = sc.conv2d(X, W, padding=1)


def forward(x=X, **options):
    return sc.conv2d(x, W, padding=1, **options)


def read_only(array):
    view = array.view()
    view.flags.writeable = False
    return view


# --- imitations: each has the protocols of a real library, over memory that the test can read ---


class Imitation:
    def __init__(self, memory=None):
        self.memory = np.full(X.shape, 99, np.float32) if memory is None else memory


class OldCapsules(Imitation):
    """DLPack without a version, which has no word for "writable": NumPy reads it as read-only."""

    def __dlpack__(self, **options):
        return self.memory.__dlpack__()

    def __dlpack_device__(self):
        return self.memory.__dlpack_device__()


class Warp(OldCapsules):
    """Writable through its array interface."""

    @property
    def __array_interface__(self):
        return self.memory.__array_interface__


class SaysReadOnly(Warp):
    """The same with DLPack's flag "read-only"."""

    def __dlpack__(self, **options):
        return read_only(self.memory).__dlpack__(max_version=(1, 0))


class OrtValue(OldCapsules):
    """Writable through `numpy()` alone."""

    def numpy(self):
        return self.memory


class Tensor(OldCapsules):
    """`numpy()` is a copy, as TensorFlow's."""

    def numpy(self):
        return self.memory.copy()


class Memory((((ctypes.c_float * 5) * 5) * 3) * 1):
    """The buffer protocol, with shape and type, which Python's classes can only inherit before version 3.12."""

    @property
    def memory(self):
        return np.asarray(memoryview(self))

    @classmethod
    def of(cls, values):
        made = cls()
        made.memory[...] = values
        return made


class MLX(Memory):
    """DLPack says read-only, the buffer protocol writable."""

    def __dlpack__(self, **options):
        return self.memory.__dlpack__()

    def __dlpack_device__(self):
        return (1, 0)


class JAX(Memory):
    """Read-only, though the buffer protocol of this imitation does not say so."""

    @property
    def __array_interface__(self):
        return read_only(self.memory).__array_interface__


class ReadOnlyInterface(Imitation):
    """Read-only by its array interface, writable through DLPack."""

    def __dlpack__(self, **options):
        return self.memory.__dlpack__(**options)

    def __dlpack_device__(self):
        return (1, 0)

    @property
    def __array_interface__(self):
        return read_only(self.memory).__array_interface__


class Compressed(Imitation):
    """blosc2: every look decompresses, and "data" is no address but an array."""

    @property
    def __array_interface__(self):
        fresh = self.memory.copy()
        return {"shape": fresh.shape, "typestr": "<f4", "version": 3, "data": fresh}


class FreshAddress(Imitation):
    """The same, by address."""

    kept = ()

    @property
    def __array_interface__(self):
        fresh = self.memory.copy()
        self.kept = (*self.kept, fresh)
        return fresh.__array_interface__


class FreshCapsules(Imitation):
    """The same through DLPack."""

    def __dlpack__(self, **options):
        return self.memory.copy().__dlpack__(**options)

    def __dlpack_device__(self):
        return (1, 0)


class Staging(Imitation):
    """Through one door a buffer that is always the same, through the other one's memory."""

    def __init__(self):
        super().__init__()
        self.staging = self.memory.copy()

    def __dlpack__(self, **options):
        return self.staging.__dlpack__(**options)

    def __dlpack_device__(self):
        return (1, 0)

    @property
    def __array_interface__(self):
        return self.memory.__array_interface__


class HalfFresh(ReadOnlyInterface):
    """Its own memory through DLPack, a copy through the interface: one of them is not what it seems."""

    @property
    def __array_interface__(self):
        self.fresh = self.memory.copy(), getattr(self, "fresh", None)
        return self.fresh[0].__array_interface__


class CachedCopy(Imitation):
    """A copy that is kept: the interface holds an array and no address."""

    def __init__(self):
        super().__init__()
        self.cache = self.memory.copy()

    @property
    def __array_interface__(self):
        return {"shape": X.shape, "typestr": "<f4", "version": 3, "data": self.cache}


class Constant(Memory):
    """openvino: writable through the buffer protocol, read-only by its own name."""

    @property
    def data(self):
        return read_only(self.memory)


class FlatBytes(bytearray):
    """Its buffer protocol knows bytes, its array interface shape and type."""

    @property
    def memory(self):
        return np.frombuffer(self, np.float32).reshape(X.shape)

    @property
    def __array_interface__(self):
        return self.memory.__array_interface__


class Unlocked(ReadOnlyInterface):
    """The same, but it offers a writable view itself."""

    @property
    def data(self):
        return self.memory


class OtherData(ReadOnlyInterface):
    """A writable `data` that is something else."""

    @property
    def data(self):
        return self.memory.copy()


WRITABLE = {
    "warp": Warp,
    "flag": SaysReadOnly,
    "ortvalue": OrtValue,
    "own name": Unlocked,
    "mlx": lambda values: MLX.of(values),
    "bytes": lambda values: FlatBytes(values.tobytes()),
}
READ_ONLY = {
    "capsule": OldCapsules,
    "tensorflow": Tensor,
    "interface": ReadOnlyInterface,
    "another's name": OtherData,
    "jax": lambda values: JAX.of(values),
    "openvino": lambda values: Constant.of(values),
}


@pytest.mark.parametrize("kind", WRITABLE)
def test_out_is_writable_by_another_door(kind):
    out = WRITABLE[kind](np.full(X.shape, 99, np.float32))
    assert_exact(forward(out=out), Y)
    assert_exact(out.memory, Y)
    assert_exact(forward(WRITABLE[kind](X.copy())), Y)


@pytest.mark.parametrize("kind", READ_ONLY)
def test_out_is_read_only(kind):
    out = READ_ONLY[kind](np.full(X.shape, 99, np.float32))
    with pytest.raises(ValueError, match=r"^out: got a read-only array \(\w+\), expected a writable one"):
        forward(out=out)
    assert (out.memory == 99).all()
    assert_exact(forward(READ_ONLY[kind](X.copy())), Y)


@pytest.mark.parametrize("kind", [Compressed, FreshAddress, FreshCapsules, HalfFresh, Staging, CachedCopy])
def test_out_that_shows_copies(kind):
    """They would lose the result; as operands they are fine."""
    out = kind()
    with pytest.raises(TypeError, match=rf"^out: got {kind.__name__}, which shows a copy.*expected.*NumPy array"):
        forward(out=out)
    assert (out.memory == 99).all()
    if kind not in (Staging, CachedCopy):
        assert_exact(forward(kind(X)), Y)


OUTS = {
    "grad_bias": lambda out: sc.grad_bias(X, out=out),
    "linear": lambda out: sc.linear(X[0, 0], np.ones((3, 5), np.float32), out=out),
    "relu": lambda out: sc.masks.relu(X, out=out),
    "decompress": lambda out: sc.decompress(sc.compress(X), out=out),
    "stochastic_prune": lambda out: sc.pruning.stochastic_prune(X, 0.5, rng=0, out=out),
}


@pytest.mark.parametrize("name", OUTS)
def test_every_out(name):
    """The rule is that of all functions with `out`."""
    shape = {"grad_bias": (3,), "linear": (5, 3)}.get(name, X.shape)
    with pytest.raises(TypeError, match=r"^out: got Compressed, which shows a copy"):
        OUTS[name](Compressed(np.zeros(shape, np.float32)))
    with pytest.raises(ValueError, match=r"^out: got a read-only array"):
        OUTS[name](OldCapsules(np.zeros(shape, np.float32)))
    out = Warp(np.full(shape, 99, np.float32))
    OUTS[name](out)
    assert not (out.memory == 99).any()


def test_empty_out():
    """No elements, no memory: nothing can be lost."""
    empty = np.empty((0, 3, 5, 5), np.float32)
    assert forward(empty, out=Warp(empty.copy())).shape == empty.shape


# --- protocols that raise ---

ERRORS = (AttributeError, TypeError, RuntimeError, SystemError, BufferError, KeyError, NotImplementedError, OSError)


def raising(error, *names):
    """An object whose protocols of these names raise when they are looked at, or called."""

    def fail(self, **options):
        raise error("the framework says no.\nand more")

    members = {name: property(fail) if name == "__array_interface__" else fail for name in names}
    return type("Exotic", (), members)()


def looked_at(error):
    """A property that raises already when it is looked up."""

    def fail(self):
        raise error("the framework says no")

    return type("Exotic", (), {"__dlpack__": property(fail), "__dlpack_device__": property(fail)})()


DLPACK = ("__dlpack__", "__dlpack_device__")
EXOTIC = {
    "dlpack": lambda error: raising(error, *DLPACK),
    "device": lambda error: type("Exotic", (), {"__dlpack_device__": lambda self: (1, 0)} | {
        "__dlpack__": raising(error, "__dlpack__").__class__.__dlpack__})(),
    "interface": lambda error: raising(error, "__array_interface__"),
    "both": lambda error: raising(error, *DLPACK, "__array_interface__"),
    "property": looked_at,
}  # fmt: skip
TAKERS = {
    "x": forward,
    "weight": lambda value: sc.conv2d(X, value),
    "bias": lambda value: sc.conv2d(X, W, value),
    "out": lambda value: forward(out=value),
    "input_mask": lambda value: forward(input_mask=value),
    "output_mask": lambda value: sc.conv2d_backward_data(Y, W, X.shape, padding=1, output_mask=value),
    "grad_output": lambda value: sc.grad_bias(value),
    "mask": lambda value: sc.masks.pack(value),
}


@pytest.mark.parametrize("kind", EXOTIC)
@pytest.mark.parametrize("name", TAKERS)
@pytest.mark.parametrize("error", ERRORS)
def test_whatever_protocols_raise(name, kind, error):
    value = EXOTIC[kind](error)
    if error is AttributeError and kind in ("interface", "property"):  # that is how Python says "there is none"
        expected = rf"^{name}: got Exotic, expected an array"
    else:
        expected = rf"^{name}: got Exotic that cannot share its memory: '?the framework says no.*expected an array"
    with pytest.raises(TypeError, match=expected):
        TAKERS[name](value)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("kind", EXOTIC)
@pytest.mark.parametrize("name", ["x", "out", "input_mask"])
def test_what_passes_through(name, kind, error):
    with pytest.raises(error):
        TAKERS[name](EXOTIC[kind](error))


def test_another_door_opens():
    """DLPack fails or is on another device, the rest works: operands and results are taken there."""

    class Broken(Warp):
        def __dlpack__(self, **options):
            raise RuntimeError("no capsule today")

    class Unified(Warp):
        """An accelerator whose memory is the CPU's, too."""

        def __dlpack_device__(self):
            return (8, 0)

    for kind in (Broken, Unified):
        out = kind()
        forward(kind(X.copy()), out=out)
        assert_exact(out.memory, Y)


def test_elements_that_numpy_has_no_word_for():
    """Warp shows bfloat16 as uint16, others 8-bit floats as uint8, which must not become a bit mask."""

    class Narrow(Imitation):
        dtype = "float8_e4m3"

        def __dlpack__(self, **options):
            raise RuntimeError("Unsupported dtype in DLTensor.")

        def __dlpack_device__(self):
            return (1, 0)

        @property
        def __array_interface__(self):
            return self.memory.__array_interface__

    bits = Narrow(np.zeros(10, np.uint8))
    with pytest.raises(TypeError, match=r"^input_mask: got Narrow .*Unsupported dtype.*from float8_e4m3 to float32"):
        forward(input_mask=bits)
    with pytest.raises(TypeError, match=r"^x: got Narrow .*Unsupported dtype"):
        forward(Narrow(X.astype(np.uint16)))


def test_deleted():
    class Array(Imitation):
        def is_deleted(self):
            return True

        def __dlpack_device__(self):
            return (1, 0)

        def __dlpack__(self, **options):
            raise TypeError("object of type 'NoneType' has no len()")

    with pytest.raises(TypeError, match=r"^x: got Array whose memory was deleted or donated, expected an array"):
        forward(Array())


# --- what to pass instead ---


def of(name, module="somewhere", **members):
    return type(name, (), members | {"__module__": module})()


INSTEAD = {
    "list": (X.tolist(), r"got list, .*: pass np\.asarray\(values, np\.float32\)"),
    "none": (None, "got NoneType, expected an array"),
    "path": ("x.npy", r"got str, expected an array .*: pass np\.load\(path\)"),
    "module": (of("Conv2d", named_parameters=lambda self: ()), r"pass module\.weight\.detach\(\), or convert"),
    "tracer": (
        of("DynamicJaxprTracer", "jax._src.interpreters", __array__=lambda self: None),
        r"got DynamicJaxprTracer, .*jax\.pure_callback",
    ),
    "variable": (of("ResourceVariable", numpy=lambda self: X, __array__=lambda self: X), r"pass value\.numpy\(\)"),
    "frame": (of("DataFrame", to_numpy=lambda self: X, compute=lambda self: X), r"pass value\.to_numpy\(\)"),
    "lazy": (of("Array", compute=lambda self: X, __array__=lambda self: X), r"pass value\.compute\(\)"),
    "sparse": (of("csr_array", toarray=lambda self: X), r"pass value\.toarray\(\)"),
    "dataset": (of("Dataset", __array__=lambda self: X), r"pass np\.asarray\(value\)"),
    "view": (of("Tensor", data=property(lambda self: X)), r"pass value\.data"),
    "narrow": (of("Tensor", dtype="bfloat16", numpy=lambda self: X), "convert it from bfloat16 to float32 first"),
}


@pytest.mark.parametrize("kind", INSTEAD)
def test_what_to_pass_instead(kind):
    value, message = INSTEAD[kind]
    with pytest.raises(TypeError, match=f"^x: .*{message}"):
        forward(value)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, np.bool_])
def test_other_dtypes(dtype):
    message = rf"^x: got dtype {np.dtype(dtype)}, expected float32 or float64: pass x\.astype\(np\.float32\)$"
    with pytest.raises(TypeError, match=message):
        forward(X.astype(dtype))


def test_what_to_do_with_a_tensor():
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(X.copy())
    grad = r"^x: got a tensor that requires grad, .*pass tensor\.detach\(\), or use sparseconv\.torch"
    negative = torch.view_as_complex(torch.ones(1, 3, 5, 5, 2)).conj().imag
    for value, message in (
        (x.clone().requires_grad_(), grad),
        (torch.nn.Parameter(x), grad),
        (x.clone().requires_grad_() * 2, grad),
        (x.to_sparse(), r"stored as torch\.sparse_coo, .*pass tensor\.to_dense\(\)"),
        (x.bfloat16(), r"has dtype torch\.bfloat16, .*pass tensor\.float\(\)"),
        (x.bfloat16().requires_grad_(), r"grad and has dtype torch\.bfloat16, .*pass tensor\.detach\(\)\.float\(\)"),
        (negative, r"negative of its memory \(is_neg\), .*pass tensor\.resolve_neg\(\)"),
        (x.to("meta"), r"got Tensor that cannot share its memory"),
    ):
        with pytest.raises(TypeError, match=message):
            forward(value)
    frozen = torch.nn.Parameter(x, requires_grad=False)
    assert_exact(forward(frozen), Y)


def test_out_is_a_tensor_that_makes_its_elements():
    torch = pytest.importorskip("torch")

    class Quantised(torch.Tensor):
        def numpy(self):
            return super().detach().clone().as_subclass(torch.Tensor).numpy()

    out = torch.full(X.shape, 99.0).as_subclass(Quantised)
    assert_exact(forward(torch.from_numpy(X.copy()).as_subclass(Quantised)), Y)
    with pytest.raises(TypeError, match=r"^out: got Quantised, which shows a copy"):
        forward(out=out)
    plain = torch.nn.Parameter(torch.full(X.shape, 99.0), requires_grad=False)
    forward(out=plain)
    assert_exact(plain.numpy(), Y)


def test_torch_that_is_being_imported(monkeypatch):
    """A module without its classes yet, as another thread sees it."""
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    assert_exact(forward(Warp(X.copy())), Y)


# --- the real libraries, each in a process of its own: imports set up signal handlers, threads and fork hooks ---

REAL = """
import sys
import numpy as np
import sparseconv as sc

X = np.arange(75, dtype=np.float32).reshape(1, 3, 5, 5) % 4
W = np.ones((3, 3, 3, 3), np.float32)
Y = sc.conv2d(X, W, padding=1)

def forward(x=X, **options):
    return sc.conv2d(x, W, padding=1, **options)

def error_of(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}".partition(chr(10))[0]
    return "no error"
"""


def answer(module, code):
    """What a process prints in which a library of this name is `library`."""
    if not find_spec(module.partition(".")[0]):
        pytest.skip(f"{module} is not installed")
    source = f"{REAL}\nimport importlib\nlibrary = importlib.import_module({module!r})\n{code}"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


REAL_OUTS = {
    "mlx.core": ("library.array(X * 0 + 99)", "np.asarray(memoryview(out))"),
    "onnxruntime": ("library.OrtValue.ortvalue_from_numpy(X * 0 + 99)", "out.numpy()"),
    "warp": ("library.array(X * 0 + 99, dtype=library.float32, device='cpu')", "out.numpy()"),
    "pyarrow": ("library.Tensor.from_numpy(X * 0 + 99)", "out.to_numpy()"),
    "array_api_strict": ("library.asarray(X * 0 + 99)", "np.from_dlpack(out)"),
    "tvm_ffi": ("library.from_dlpack(X * 0 + 99)", "np.from_dlpack(out)"),
    "paddle": ("library.to_tensor(X * 0 + 99)", "out.numpy()"),
}


@pytest.mark.parametrize("module", REAL_OUTS)
def test_real_out(module):
    make, read = REAL_OUTS[module]
    code = f"out = {make}\nforward(out=out)\nprint(np.array_equal({read}, Y), np.array_equal(forward(out), forward(Y)))"
    assert answer(module, code) == "True True"


REFUSED = {
    "blosc2": ("library.asarray(X.copy())", "TypeError: out: got NDArray, which shows a copy"),
    "jax.numpy": ("library.array(X)", "ValueError: out: got a read-only array (ArrayImpl)"),
    "openvino.opset13": ("library.constant(X.copy())", "ValueError: out: got a read-only array (Constant)"),
    "tensorflow": ("library.constant(X)", "ValueError: out: got a read-only array (EagerTensor)"),
}


@pytest.mark.parametrize("module", REFUSED)
def test_real_out_refused(module):
    make, error = REFUSED[module]
    code = f"a = {make}\nassert np.array_equal(forward(a), Y)\nprint(error_of(forward, out=a))"
    assert answer(module, code).startswith(error)


REAL_ERRORS = {
    "jit": ("jax", "jax.jit(forward), X", "got DynamicJaxprTracer, expected an array"),
    "grad": ("jax", "jax.grad(lambda x: forward(x).sum()), X", "Tracer, expected an array"),
    "vmap": ("jax", "jax.vmap(forward), X[None]", "got BatchTracer, expected an array"),
    "deleted": ("jax", "forward, deleted(jax.numpy.array(X))", "got ArrayImpl whose memory was deleted or donated"),
    "bfloat16": ("jax", "forward, jax.numpy.array(X, 'bfloat16')", "convert it from bfloat16 to float32 first"),
    "variable": ("tensorflow", "forward, library.Variable(X)", "pass value.numpy()"),
    "tensor": ("openvino", "forward, library.Tensor(X.copy())", "pass value.data"),
    "mlx": ("mlx.core", "forward, library.array(X).astype(library.bfloat16)", "bfloat16 to float32 first"),
    "dask": ("dask.array", "forward, library.from_array(X)", "pass value.compute()"),
    "zarr": ("zarr", "forward, library.array(X)", "pass np.asarray(value)"),
    "xarray": ("xarray", "forward, library.DataArray(X)", "pass value.to_numpy()"),
    "scipy": ("scipy.sparse", "forward, library.csr_array(X[0, 0])", "pass value.toarray()"),
    "ml_dtypes": ("ml_dtypes", "forward, X.astype(library.bfloat16)", "got dtype bfloat16, expected float32"),
}


@pytest.mark.parametrize("case", REAL_ERRORS)
def test_real_errors(case):
    module, arguments, message = REAL_ERRORS[case]
    code = f"jax = library\ndef deleted(a):\n    a.delete()\n    return a\nprint(error_of({arguments}))"
    printed = answer(module, code)
    assert printed.startswith("TypeError: x: got ")
    assert message in printed
