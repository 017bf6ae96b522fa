"""Arrays of other libraries, imitated: what real ones do, and what may go wrong. Those are in test_array_kinds.py.

One file: each imitation is a class of a few lines.
"""

import array
import ctypes
import mmap
import sys
import types

import numpy as np
import pytest
from comparisons import assert_exact

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
    "sequence": (range(4), r"got range, .*: pass np\.asarray\(values, np\.float32\)"),
    "narrow": (of("Tensor", dtype="bfloat16", numpy=lambda self: X), "convert it from bfloat16 to float32 first"),
    "method": (of("OrtValue", data_type=lambda self: "tensor(bfloat16)"), "convert it from bfloat16 to float32 first"),
    "type": (of("Constant", get_element_type=lambda self: "<Type: 'f8e4m3'>"), "convert it from f8e4m3 to float32"),
    "float": (of("Tensor", dtype="dtypes.float", numpy=lambda self: X), r"pass value\.numpy\(\)"),
    "stop gradient": (of("Tensor", stop_gradient=False, numpy=lambda self: X), r"pass value\.detach\(\)"),
    "sparse tensor": (of("Tensor", is_sparse=lambda self: True, numpy=None), r"pass value\.to_dense\(\)"),
    "symbolic": (
        of("SymbolicTensor", "tensorflow.python", __array__=lambda self: None),
        r"call through tf\.numpy_function",
    ),
    "keras": (of("KerasTensor", "keras.src", __array__=lambda self: None), "what Keras traces has no memory yet"),
}


@pytest.mark.parametrize("kind", INSTEAD)
def test_what_to_pass_instead(kind):
    value, message = INSTEAD[kind]
    with pytest.raises(TypeError, match=f"^x: .*{message}"):
        forward(value)


ASSIGN = r"pass such an array, and assign that$"
AS_OUT = {
    **dict.fromkeys(("list", "path", "variable", "frame", "lazy", "sparse", "dataset", "narrow", "float"), ASSIGN),
    **{name: INSTEAD[name][1] for name in ("module", "tracer", "view", "stop gradient", "symbolic")},
}


@pytest.mark.parametrize("kind", AS_OUT)
def test_what_to_pass_as_out_instead(kind):
    """No copy, which would take the result with it."""
    with pytest.raises(TypeError, match=f"^out: .*{AS_OUT[kind]}"):
        forward(out=INSTEAD[kind][0])


def test_what_cannot_show_itself_cannot_be_converted():
    """MLX's arrays under vmap, which NumPy cannot read either."""

    class Traced(OldCapsules):
        def __dlpack__(self, **options):
            raise ValueError("not during function transformations")

        def __array__(self):
            raise ValueError("not during function transformations")

    with pytest.raises(TypeError, match=r"not during function transformations; expected an array \([^)]*\)$"):
        forward(Traced())


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, np.bool_])
def test_other_dtypes(dtype):
    message = rf"got dtype {np.dtype(dtype)}, expected float32 or float64: "
    if dtype is not np.bool_:  # zeros and ones are an input
        with pytest.raises(TypeError, match=rf"^x: {message}pass x\.astype\(np\.float32\)$"):
            forward(X.astype(dtype))
    with pytest.raises(TypeError, match=f"^out: {message}{ASSIGN}"):
        forward(out=X.astype(dtype))


def test_other_dtypes_of_foreign_arrays():
    """By the name that they have there: a buffer may call 16-bit floats integers."""

    class Constant(Warp):
        def get_element_type(self):
            return "<Type: 'float16'>"

    for value, name in ((Constant(X.astype(np.uint16)), "float16"), (array.array("i", range(4)), "int32")):
        with pytest.raises(TypeError, match=rf"^x: got dtype u?int\d\d, .*: convert it from {name} to float32 first$"):
            forward(value)
        with pytest.raises(TypeError, match=rf"^out: got dtype u?int\d\d, .*: {ASSIGN}"):
            forward(out=value)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, mmap.mmap])
def test_bytes(kind):
    """They may be those of floats, and then nothing is converted; the words lead to an array that is taken."""
    if kind is mmap.mmap:
        value = mmap.mmap(-1, X.nbytes)
        value[:] = X.tobytes()
    else:
        value = kind(X.tobytes())
    match = r"^x: got dtype uint8, .*: if these are the bytes of floats, pass np\.frombuffer\(x, np\.float32\)\.reshape"
    with pytest.raises(TypeError, match=match):
        forward(value)
    assert_exact(forward(np.frombuffer(value, np.float32).reshape(X.shape)), Y)


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
