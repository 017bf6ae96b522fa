"""sparseconv.prepare: what it gives is what the function gives, bit for bit; what does not go in; calls for C.

One file: calls for Python and for C are prepared alike.
"""

import ctypes
import threading

import numpy as np
import pytest
from task_structs import structs

import sparseconv as sc
from sparseconv._core import _prepared, caches

RNG = np.random.default_rng(0)


def ints(*shape, zeros=0.5):
    """Small whole numbers, whose sums are exact in any order."""
    values = RNG.integers(-3, 4, shape).astype(np.float32)
    return np.where(RNG.random(shape) < zeros, np.float32(0), values)


X, W, B = ints(2, 20, 9, 7), ints(24, 20, 3, 3, zeros=0), ints(24, zeros=0)
DY = ints(2, 24, 9, 7)
CALLS = {
    "conv2d": ((X, W, B), {"padding": 1, "activation": "relu"}),
    "conv2d_backward_data": ((DY, W, X.shape), {"padding": 1}),
    "conv2d_backward_weight": ((X, DY, 3), {"padding": 1}),
    "conv1d": ((ints(2, 20, 17), ints(24, 20, 3, zeros=0)), {"stride": 2}),
    "conv3d": ((ints(1, 20, 4, 5, 6), ints(24, 20, 1, 3, 3, zeros=0)), {"padding": (0, 1, 1)}),
    "conv_transpose2d": ((DY, W), {"stride": 2, "output_padding": 1}),
    "conv_transpose2d_backward_data": ((ints(2, 20, 19, 15), W, DY.shape), {"stride": 2}),
    "conv_transpose2d_backward_weight": ((DY, ints(2, 20, 19, 15), 3), {"stride": 2}),
    "linear": ((ints(5, 3, 20), ints(24, 20, zeros=0), B), {}),
    "linear_backward_data": ((ints(5, 3, 24), ints(24, 20, zeros=0)), {}),
    "linear_backward_weight": ((ints(5, 3, 20), ints(5, 3, 24)), {}),
}


def split(arguments):
    """The arrays of a call, and what is not one."""
    return tuple(one for one in arguments if isinstance(one, np.ndarray))


def others(arrays):
    """Other numbers in the same forms."""
    made = []
    for array in arrays:
        copy = np.empty_like(array)
        copy[...] = ints(*array.shape, zeros=0.3)
        made.append(copy)
    return tuple(made)


@pytest.mark.parametrize("name", CALLS)
def test_same_as_the_function(isa, name):
    arguments, options = CALLS[name]
    arrays = split(arguments)
    prepared = sc.prepare(name, *arguments, **options)
    for given in (arrays, others(arrays)):
        rest = iter(given)
        again = [next(rest) if isinstance(one, np.ndarray) else one for one in arguments]
        expected = getattr(sc, name)(*again, **options)
        np.testing.assert_array_equal(prepared(*given), expected)
        out = np.full_like(expected, np.nan)
        assert prepared(*given, out=out) is out
        np.testing.assert_array_equal(out, expected)
        named = dict(zip(prepared.operands, given, strict=True))
        np.testing.assert_array_equal(prepared(**named), expected)
    assert prepared.shape == expected.shape


def test_masks_and_returned_mask():
    mask = sc.masks.nonzero_mask(X)
    prepared = sc.prepare(sc.conv2d, X, W, padding=1, activation="relu", input_mask=mask, return_mask=True)
    assert prepared.operands == ("x", "weight", "input_mask")
    for x in (X, others((X,))[0]):
        y, bits = prepared(x, W, input_mask=sc.masks.nonzero_mask(x))
        expected = sc.conv2d(x, W, padding=1, activation="relu", return_mask=True)
        np.testing.assert_array_equal(y, expected[0])
        np.testing.assert_array_equal(bits, expected[1])
    needed = sc.prepare("conv2d_backward_data", DY, W, X.shape, padding=1, output_mask=X)
    np.testing.assert_array_equal(
        needed(DY, W, output_mask=X), sc.conv2d_backward_data(DY, W, X.shape, padding=1, output_mask=X)
    )


def test_strides_and_layouts():
    nhwc = np.ascontiguousarray(X.transpose(0, 2, 3, 1))
    view = nhwc.transpose(0, 3, 1, 2)
    prepared = sc.prepare("conv2d", view, W, padding=1)
    np.testing.assert_array_equal(prepared(view, W), sc.conv2d(X, W, padding=1))
    with pytest.raises(ValueError, match=r"^x: got strides .*, expected .*, as it was prepared with"):
        prepared(X, W)


@pytest.mark.parametrize("skip", ["auto", "none", "input", "weight"])
def test_what_is_skipped(isa, skip):
    pruned = np.where(RNG.random(W.shape) < 0.8, np.float32(0), W)
    prepared = sc.prepare("conv2d", X, pruned, padding=1, skip=skip)
    np.testing.assert_array_equal(prepared(X, pruned), sc.conv2d(X, pruned, padding=1))
    assert prepared.plan().skip == sc.plan("conv2d", X, pruned, padding=1, skip=skip).skip


def test_auto_decides_anew():
    """By the arrays of each call, not by those of the preparation."""
    x, w = np.ones((1, 64, 28, 28), np.float32), np.ones((64, 64, 3, 3), np.float32)
    prepared = sc.prepare("conv2d", x, w, padding=1)
    assert prepared.plan().skip == "none"
    assert prepared.plan(np.zeros_like(x), w).skip == "input"
    assert prepared.plan(x=np.zeros_like(x), weight=w).density["input"] == 0


def test_threshold():
    for skip in ("auto", "input", "weight"):
        prepared = sc.prepare("conv2d", X, W, threshold=1.5, skip=skip)
        for x in (X, others((X,))[0]):
            np.testing.assert_array_equal(prepared(x, W), sc.conv2d(x, W, threshold=1.5, skip=skip))


def test_packed_weights_are_updated():
    pruned = [np.where(RNG.random(W.shape) < 0.9, np.float32(0), W * factor) for factor in (1, 2)]
    packed = sc.pack_weight(pruned[0])
    prepared = sc.prepare("conv2d", X, packed, padding=1, skip="weight")
    np.testing.assert_array_equal(prepared(X, packed), sc.conv2d(X, pruned[0], padding=1))
    packed.update(pruned[1])
    np.testing.assert_array_equal(prepared(X, packed), sc.conv2d(X, pruned[1], padding=1))
    np.testing.assert_array_equal(prepared(X, sc.pack_weight(pruned[0])), sc.conv2d(X, pruned[0], padding=1))
    with pytest.raises(TypeError, match=r"^weight: got ndarray, expected a PackedWeight"):
        prepared(X, W)
    with pytest.raises(TypeError, match=r"^weight: got PackedWeight, expected an array"):
        sc.prepare("conv2d", X, W)(X, packed)


@pytest.mark.parametrize("dtype, options", [(np.float64, {}), (np.float32, {"skip": "weight", "threshold": 1})])
def test_packed_weights_that_are_used_as_arrays(dtype, options):
    """NumPy computes float64; a threshold for weights makes a copy of them."""
    x, weights = X.astype(dtype), [W.astype(dtype), 2 * W.astype(dtype)]
    packed = sc.pack_weight(weights[0])
    prepared = sc.prepare("conv2d", x, packed, padding=1, **options)
    for weight in weights:
        expected = sc.conv2d(x, weight, padding=1, **options)
        packed.update(weight)
        np.testing.assert_array_equal(prepared(x, packed), expected)
        np.testing.assert_array_equal(prepared(x, weight), expected)


def test_a_mask_of_one_row():
    """Of a linear layer without leading dimensions: one value, and no dimension."""
    weight, grad, mask = ints(24, 20, zeros=0), ints(24), np.array(True)
    prepared = sc.prepare("linear_backward_data", grad, weight, output_mask=mask)
    np.testing.assert_array_equal(prepared(grad, weight, mask), sc.linear_backward_data(grad, weight))
    assert not prepared(grad, weight, np.array(False)).any()
    memory = np.zeros(8, np.uint8)
    mask = np.ndarray((), np.float32, memory, 1)  # at no multiple of its size: kernels get a copy
    mask[...] = 2
    prepared = sc.prepare("linear_backward_data", grad, weight, output_mask=mask)
    np.testing.assert_array_equal(prepared(grad, weight, mask), sc.linear_backward_data(grad, weight))


def test_compressed_operand():
    prepared = sc.prepare("conv2d_backward_weight", X, DY, 3, padding=1)
    expected = sc.conv2d_backward_weight(X, DY, 3, padding=1)
    np.testing.assert_array_equal(prepared(sc.compress(X), DY), expected)


def test_float64():
    prepared = sc.prepare("conv2d", X.astype(float), W.astype(float))
    np.testing.assert_array_equal(prepared(X.astype(float), W.astype(float)), sc.conv2d(X, W))
    assert prepared.plan().kernel == "reference"


def test_isa_is_switched_in_between():
    prepared = sc.prepare("conv2d", X, W, B, padding=1)
    for name in sc.cpu.available_isas():
        with sc.cpu.use_isa(name):
            np.testing.assert_array_equal(prepared(X, W, B), sc.conv2d(X, W, B, padding=1))
            assert prepared.plan(X, W, B).isa == name


def test_threads():
    """Many at a time, each with arrays of its own; the number of threads is that of the time of the call."""
    prepared = sc.prepare("conv2d", X, W, padding=1)
    inputs = [others((X,))[0] for _ in range(8)]
    expected = [sc.conv2d(x, W, padding=1) for x in inputs]
    wrong = []

    def work(x, result):
        for _ in range(30):
            if not np.array_equal(prepared(x, W), result):
                wrong.append(x)

    workers = [threading.Thread(target=work, args=pair) for pair in zip(inputs, expected, strict=True)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
    before = sc.cpu.num_threads()
    x, w = np.ones((4, 64, 28, 28), np.float32), np.ones((64, 64, 3, 3), np.float32)
    default, fixed = sc.prepare("conv2d", x, w), sc.prepare("conv2d", x, w, num_threads=1)
    try:
        sc.cpu.set_num_threads(3)
        assert (default.plan(x, w).threads, fixed.plan(x, w).threads) == (3, 1)
    finally:
        sc.cpu.set_num_threads(before)


BAD = [
    (lambda: (X[:1], W, B), {}, ValueError, r"^x: got shape \(1, 20, 9, 7\), expected \(2, 20, 9, 7\)"),
    (lambda: (X, W[:, :, :2], B), {}, ValueError, r"^weight: got shape"),
    (lambda: (X, W, B[:5]), {}, ValueError, r"^bias: got shape \(5,\), expected \(24,\)"),
    (lambda: (X.astype(float), W, B), {}, TypeError, r"^x: got dtype float64, expected float32"),
    (lambda: (X[..., ::-1], W, B), {}, ValueError, r"^x: got strides"),
    (lambda: (X, W), {}, TypeError, r"^bias: got none, expected 3: x, weight, bias"),
    (lambda: (X, W, B, B), {}, TypeError, r"^operands: got 4, expected 3: x, weight, bias"),
    (lambda: (X, W, B), {"padding": 1}, TypeError, r"^padding: got it as an operand, expected 3"),
    (lambda: (X, W, B), {"x": X}, TypeError, r"^x: got it twice, expected 3"),
    (lambda: (X.tolist(), W, B), {}, TypeError, r"^x: got list"),
    (lambda: (X, W, B), {"out": np.empty((2, 24, 9, 6), np.float32)}, ValueError, r"^out: got shape"),
    (lambda: (X, W, B), {"out": np.empty((2, 24, 9, 7))}, TypeError, r"^out: got dtype float64"),
]


@pytest.mark.parametrize("operands, named, kind, message", BAD)
def test_bad_input(operands, named, kind, message):
    """Nothing is written before an error."""
    prepared = sc.prepare("conv2d", X, W, B, padding=1)
    named = dict(named)
    out = named.setdefault("out", np.full(prepared.shape, 7, np.float32))
    before = out.copy()
    with pytest.raises(kind, match=message):
        prepared(*operands(), **named)
    np.testing.assert_array_equal(out, before)


def test_bad_out():
    x = ints(1, 24, 5, 5)
    prepared = sc.prepare("conv2d", x, W[:, :1], groups=24, padding=1)
    with pytest.raises(ValueError, match=r"^out: got an array that overlaps x"):
        prepared(x, W[:, :1], out=x)
    fixed = np.zeros_like(x)
    fixed.flags.writeable = False
    with pytest.raises(ValueError, match=r"^out: got a read-only array"):
        prepared(x, W[:, :1], out=fixed)
    memory = np.zeros(x.nbytes + 1, np.uint8)
    crooked = np.ndarray(x.shape, np.float32, memory, 1)
    with pytest.raises(ValueError, match=r"^out: got an address"):
        prepared(x, W[:, :1], out=crooked)
    crooked[...] = x  # of an operand it is copied
    np.testing.assert_array_equal(prepared(crooked, W[:, :1]), prepared(x, W[:, :1]))
    next_to_it = np.zeros((2, *x.shape), np.float32)
    next_to_it[0] = x
    prepared(next_to_it[0], W[:, :1], out=next_to_it[1])
    np.testing.assert_array_equal(next_to_it[1], prepared(x, W[:, :1]))


@pytest.mark.parametrize("operation", ["conv4d", "grad_bias", 3])
def test_no_such_operation(operation):
    with pytest.raises((TypeError, ValueError), match=r"^operation: got "):
        sc.prepare(operation, X, W)


def test_errors_of_the_function():
    with pytest.raises(ValueError, match=r"^x: got shape .*, expected 5 channels"):
        sc.prepare("conv2d", X, W[:, :5])
    with pytest.raises(TypeError, match=r"^conv2d: "):
        sc.prepare("conv2d", X)


def test_shown():
    assert repr(sc.prepare("conv2d", X, W)).startswith("PreparedCall('conv2d': x, weight; ")


# --- calls for C ---


class Api:
    """sc_api through ctypes, as any program without Cython may use it."""

    def __init__(self):
        get = ctypes.pythonapi.PyCapsule_GetPointer
        get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
        self.pointer = get
        self.struct = structs()["sc_api"].from_address(get(sc.C_API, b"sparseconv.C_API"))
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
        self.call = kind(self.struct.run)

    def run(self, capsule, threads=1, **arrays):
        operands = structs()["sc_operands"](size=ctypes.sizeof(structs()["sc_operands"]))
        for name, array in arrays.items():
            setattr(operands, name, array if isinstance(array, int) else array.ctypes.data)
        return self.call(self.pointer(capsule, b"sparseconv.call"), ctypes.addressof(operands), threads, None)


@pytest.fixture(scope="module")
def api():
    return Api()


@pytest.mark.parametrize("skip", ["none", "auto", "named"])
@pytest.mark.parametrize("name", CALLS)
def test_capsule(isa, api, name, skip):
    arguments, options = CALLS[name]
    arrays = split(arguments)
    if skip == "named":
        skip = "grad_output" if "data" in name else "input"
    prepared = sc.prepare(name, *arguments, skip=skip, **options)
    capsule = prepared.capsule()
    for given in (arrays, others(arrays)):
        expected = prepared(*given)
        for threads in (1, 3):
            out = np.full_like(expected, np.nan)
            assert api.run(capsule, threads, **dict(zip(prepared.operands, given, strict=True)), out=out) == 0
            np.testing.assert_array_equal(out, expected)


def test_capsule_of_narrow_groups(isa, api):
    w = ints(20, 1, 3, 3, zeros=0)
    forward = sc.prepare("conv2d", X, w, groups=20, padding=1, skip="none")
    assert forward.plan().kernel == "groups_dense"
    out = np.full(forward.shape, np.nan, np.float32)
    assert api.run(forward.capsule(), x=X, weight=w, out=out) == 0
    np.testing.assert_array_equal(out, forward(X, w))
    backward = sc.prepare("conv2d_backward_weight", X, out, (20, 1, 3, 3), groups=20, padding=1, skip="none")
    assert backward.plan().kernel == "gradient_groups"
    gradient = np.full(w.shape, np.nan, np.float32)
    assert api.run(backward.capsule(), x=X, grad_output=out, out=gradient) == 0
    np.testing.assert_array_equal(gradient, backward(X, out))


def test_capsule_with_lists(isa, api):
    """Its lists are its own: an update of the packed weight does not reach it."""
    pruned = np.where(RNG.random(W.shape) < 0.9, np.float32(0), W)
    packed = sc.pack_weight(pruned)
    expected = sc.conv2d(X, pruned, B, padding=1)
    for weight in (pruned, packed):
        prepared = sc.prepare("conv2d", X, weight, B, padding=1, skip="weight")
        capsule = prepared.capsule()
        if weight is packed:
            packed.update(W)
        del prepared
        out = np.full_like(expected, np.nan)
        assert api.run(capsule, x=X, bias=B, out=out) == 0
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("groups", [1, 20])
def test_capsule_with_a_residual(isa, api, groups):
    """In every family, and over itself."""
    w = ints(20, 20 // groups, 3, 3, zeros=0.5)
    residual = ints(*sc.conv2d(X, w, groups=groups, padding=1).shape, zeros=0.3)
    for skip in ("none", "input", "weight"):
        words = {"groups": groups, "padding": 1, "activation": "relu", "skip": skip}
        prepared = sc.prepare("conv2d", X, w, residual=residual, **words)
        expected = prepared(X, w, residual)
        assert (expected != sc.conv2d(X, w, **words)).any()
        out, both = np.full_like(expected, np.nan), residual.copy()
        assert api.run(prepared.capsule(), x=X, weight=w, residual=residual, out=out) == 0
        assert api.run(prepared.capsule(), 3, x=X, weight=w, residual=both, out=both) == 0
        np.testing.assert_array_equal(out, expected)
        np.testing.assert_array_equal(both, expected)


def test_capsule_with_masks(isa, api):
    nhwc, grad = (np.ascontiguousarray(one.transpose(0, 2, 3, 1)) for one in (X, DY))
    w = ints(32, 20, 3, 3, zeros=0)
    options = {"padding": 1, "layout": "NHWC", "activation": "relu", "return_mask": True, "skip": "input"}
    bits = sc.masks.nonzero_mask(nhwc)
    prepared = sc.prepare("conv2d", nhwc, w, input_mask=bits, **options)
    y, expected = prepared(nhwc, w, bits)
    out, mask = np.full_like(y, np.nan), np.zeros_like(expected)
    assert api.run(prepared.capsule(), x=nhwc, weight=w, input_mask=bits, out=out, bits=mask) == 0
    np.testing.assert_array_equal(out, y)
    np.testing.assert_array_equal(mask, expected)
    options = {"padding": 1, "layout": "NHWC", "skip": "output", "output_mask": nhwc}
    needed = sc.prepare("conv2d_backward_data", grad, W, nhwc.shape, **options)
    out = np.full_like(nhwc, np.nan)
    assert api.run(needed.capsule(), grad_output=grad, weight=W, output_mask=nhwc, out=out) == 0
    np.testing.assert_array_equal(out, needed(grad, W, nhwc))


def test_capsule_has_what_it_needs(api):
    """It outlives the call and all that the package keeps."""
    prepared = sc.prepare("conv2d", X, W, padding=1)
    capsule, expected = prepared.capsule(), prepared(X, W)
    del prepared
    caches.empty()
    out = np.full_like(expected, np.nan)
    with sc.cpu.use_isa("scalar"):  # it keeps the one that it was prepared on
        assert api.run(capsule, x=X, weight=W, out=out) == 0
    np.testing.assert_array_equal(out, expected)


def test_capsule_in_many_threads(api):
    """ctypes releases the GIL, so these calls overlap."""
    prepared = sc.prepare("conv2d", X, W, padding=1)
    capsule = prepared.capsule()
    inputs = [others((X,))[0] for _ in range(6)]
    results = [np.full(prepared.shape, np.nan, np.float32) for _ in inputs]
    statuses = []

    def work(x, out):
        for _ in range(50):
            statuses.append(api.run(capsule, 2, x=x, weight=W, out=out))

    workers = [threading.Thread(target=work, args=pair) for pair in zip(inputs, results, strict=True)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert statuses == [0] * 300
    for x, out in zip(inputs, results, strict=True):
        np.testing.assert_array_equal(out, prepared(x, W))


def test_api_says_what_is_in_use(isa, api):
    struct = api.struct
    assert (struct.version, struct.size) == (1, ctypes.sizeof(struct))
    assert ctypes.CFUNCTYPE(ctypes.c_char_p)(struct.isa)().decode() == sc.cpu.isa()
    assert ctypes.CFUNCTYPE(ctypes.c_int)(struct.num_threads)() == sc.cpu.num_threads()


def test_operands_that_are_missing(api):
    prepared = sc.prepare("conv2d", X, W, B, padding=1)
    capsule = prepared.capsule()
    out = np.full(prepared.shape, 7, np.float32)
    whole = {"x": X, "weight": W, "bias": B, "out": out}
    for name in whole:
        for address in (0, whole[name].ctypes.data + 2):
            assert api.run(capsule, **whole | {name: address}) == 3
    assert (out == 7).all()
    assert api.run(capsule, **whole) == 0
    np.testing.assert_array_equal(out, prepared(X, W, B))


def test_calls_that_are_not_for_c():
    blocked = np.zeros((1, 2, 5, 5, 16), np.float32)
    for make, message in (
        (lambda: sc.prepare("conv2d", X.astype(float), W.astype(float)), "got a call without a kernel"),
        (lambda: sc.prepare("conv2d_backward_weight", X, DY, 3, padding=1, output_mask=W), "got output_mask with"),
        (lambda: sc.prepare("conv2d", X, W, activation="relu", return_mask=True), "got return_mask, which"),
        (lambda: sc.prepare("conv_transpose2d", np.ones((2, 3, 1, 1), np.float32), np.ones((3, 4, 5, 5), np.float32),
                            np.ones(4, np.float32), skip="none"), "got bias with a map that"),
        (lambda: sc.prepare("conv2d", X, W, residual=DY, padding=1, output_mask=DY, skip="input"),
         "got output_mask with a residual, expected one of them"),
        (lambda: sc.prepare("conv2d", blocked, ints(20, 32, 3, 3), layout="NCHW16c"), "got 20 channels"),
    ):
        with pytest.raises(ValueError, match=f"^capsule: {message}"):
            make().capsule()


def test_forms_know_all_kinds():
    """The fast comparison sees what the slow one would: each difference, and none else."""
    forms = _prepared.Forms({"input_mask": sc.masks.nonzero_mask(X), "x": X}, ("x", "input_mask"), DY)
    bits, out = sc.masks.nonzero_mask(X), np.empty_like(DY)
    for result in (out, None):
        assert list(forms.fit((X, bits), result).items()) == [("input_mask", bits), ("x", X)]
    for arrays in ((X, bits.astype(bool)), (X[::-1], bits), (X.view(np.int32), bits), (X, bits[1:]), (X,), (X, None)):
        assert not forms.fit(arrays, out)
    assert not forms.fit((X, bits), DY.astype(float))
    assert not forms.fit((X.astype(">f4"), bits), out)
