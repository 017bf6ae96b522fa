"""Bad calls: the exception, the argument it names, and `out` untouched.

One file: the tables of bad calls that the larger one of tests/fuzz does not have.
"""

import subprocess
import sys

import numpy as np
import pytest

import sparseconv

SENTINEL = -7777.0
OVERLAP = r"(?is)out.*overlap|overlap.*out"


def ones(*shape):
    return np.ones(shape, np.float32)


# One valid call of each kind of function: positional arrays and arguments in their order.
X, W, BIAS, GRAD = ones(2, 4, 5, 6), ones(6, 4, 3, 3), ones(6), ones(2, 6, 3, 4)
VALID = {
    "conv1d": {"x": X[:, :, 0], "weight": W[:, :, 0], "bias": BIAS},
    "conv2d": {"x": X, "weight": W, "bias": BIAS},
    "conv3d": {"x": X[:, :, None], "weight": W[:, :, None], "bias": BIAS},
    "conv2d_backward_data": {"grad_output": GRAD, "weight": W, "input_shape": X.shape},
    "conv3d_backward_data": {"grad_output": GRAD[:, :, None], "weight": W[:, :, None], "input_shape": (2, 4, 1, 5, 6)},
    "conv2d_backward_weight": {"x": X, "grad_output": GRAD, "kernel_size": 3},
    "conv1d_backward_weight": {"x": X[:, :, 0], "grad_output": GRAD[:, :, 0], "kernel_size": 3},
    "conv_transpose2d": {"x": GRAD, "weight": W, "bias": ones(4)},
    "conv_transpose1d": {"x": GRAD[:, :, 0], "weight": W[:, :, 0], "bias": ones(4)},
    "conv_transpose2d_backward_data": {"grad_output": X, "weight": W, "input_shape": GRAD.shape},
    "conv_transpose2d_backward_weight": {"x": GRAD, "grad_output": X, "kernel_size": (3, 3)},
    "linear": {"x": ones(5, 4), "weight": ones(6, 4), "bias": BIAS},
    "linear_backward_data": {"grad_output": ones(5, 6), "weight": ones(6, 4)},
    "linear_backward_weight": {"x": ones(5, 4), "grad_output": ones(5, 6)},
    "grad_bias": {"grad_output": GRAD},
}
CONVOLUTIONS = [name for name in VALID if name.startswith("conv")]
POSITIONAL = ("x", "grad_output", "weight", "bias", "input_shape", "kernel_size")


def run(name, arguments):
    """Call with the arrays by position, the rest by keyword."""
    order = [word for word in VALID[name] if word in arguments]
    rest = {word: value for word, value in arguments.items() if word not in order}
    return getattr(sparseconv, name)(*(arguments[word] for word in order), **rest)


def check(name, error, fragment, **changes):
    """The call fails as it should, with and without `out`, and writes nothing."""
    arguments = VALID[name] | changes
    with pytest.raises(error, match=f"(?is){fragment}"):
        run(name, arguments)
    if "out" in changes:
        return
    out = np.full(run(name, VALID[name]).shape, SENTINEL, np.float32)
    with pytest.raises(error):
        run(name, arguments | {"out": out})
    assert (out == SENTINEL).all()


def test_the_valid_calls_are_valid():
    for name, arguments in VALID.items():
        assert run(name, arguments).size


# --- arrays: the same for every array argument of every function ---


class Device:
    """An array that lives on a GPU, as far as DLPack says."""

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, **_):
        raise AssertionError("the data of a device must not be asked for")


ARRAYS = [
    (name, word)
    for name, arguments in VALID.items()
    for word, value in arguments.items()
    if isinstance(value, np.ndarray)
]
BAD_ARRAYS = {
    "none": (lambda array: None, TypeError, ""),
    "string": (lambda array: "array", TypeError, ""),
    "number": (lambda array: 1.0, (TypeError, ValueError), ""),
    "object": (lambda array: array.astype(object), TypeError, ".*float32"),
    "int32": (lambda array: array.astype(np.int32), TypeError, ".*float32"),
    "bool": (lambda array: array.astype(bool), TypeError, ".*float32"),
    "float16": (lambda array: array.astype(np.float16), TypeError, ".*float32"),
    "longdouble": (lambda array: array.astype(np.longdouble), TypeError, ".*float32"),
    "complex64": (lambda array: array.astype(np.complex64), TypeError, ".*float32"),
    "structured": (lambda array: array.view([("value", "f4")]), TypeError, ".*float32"),
    "big-endian": (lambda array: array.astype(">f4"), (TypeError, ValueError), ".*byte order"),
    "device": (lambda array: Device(), (TypeError, ValueError), ".*device"),
}


@pytest.mark.parametrize("kind", BAD_ARRAYS)
@pytest.mark.parametrize("name, word", ARRAYS)
def test_bad_array(name, word, kind):
    if kind == "none" and word == "bias":
        pytest.skip("no bias is fine")
    if kind == "bool" and word == "x" and "transpose" not in name:
        pytest.skip("zeros and ones are an input")
    if kind == "longdouble" and np.dtype(np.longdouble) == np.float64:
        pytest.skip("long double is double here")
    make, error, fragment = BAD_ARRAYS[kind]
    check(name, error, rf"\b{word}\b{fragment}", **{word: make(VALID[name][word])})


@pytest.mark.parametrize("name, word", [pair for pair in ARRAYS if pair[0] != "grad_bias"])
def test_bad_rank(name, word):
    array = VALID[name][word]
    ranks = [np.float32(1).reshape(()), array[..., None, None, None], array[0]]
    if name.startswith("linear") and word in ("x", "grad_output"):  # any rank but 0 is right
        ranks = ranks[:1]
    for bad in ranks:
        check(name, ValueError, rf"\b{word}\b", **{word: bad})


@pytest.mark.parametrize("name, word", [pair for pair in ARRAYS if pair[0] != "grad_bias"])
def test_mixed_precision(name, word):
    check(name, TypeError, "float64", **{word: VALID[name][word].astype(np.float64)})


@pytest.mark.parametrize("name", VALID)
def test_bad_out(name):
    good = run(name, VALID[name])
    read_only = good.copy()
    read_only.flags.writeable = False
    backwards = np.zeros_like(good)[..., ::-1]
    table = (
        (TypeError, "array", [1.0]),
        ((TypeError, ValueError), "", good.astype(np.float64)),
        ((TypeError, ValueError), "", good.astype(np.float16)),
        ((TypeError, ValueError), "", good.astype(np.int32)),
        ((TypeError, ValueError), "byte order", good.astype(">f4")),
        ((TypeError, ValueError), "", good.astype(object)),
        ((TypeError, ValueError), "device", Device()),
        (ValueError, "shape|dim|rank", good[None]),
        (ValueError, "shape|dim|rank", good[..., :-1].copy()),
        (ValueError, "shape|dim|rank", np.zeros((*good.shape[:-1], good.shape[-1] + 1), np.float32)),
        (ValueError, "read-?only|writ", read_only),
        (ValueError, "stride", backwards),
    )
    for error, fragment, out in table:
        before = np.array(out).tobytes() if isinstance(out, np.ndarray) else None
        with pytest.raises(error, match=rf"(?is)\bout\b.*({fragment})"):
            run(name, VALID[name] | {"out": out})
        if before is not None:
            assert np.array(out).tobytes() == before


def test_overlapping_out():
    """Any shared element counts, whichever operand it belongs to."""
    buffer = np.ones(2000, np.float32)
    x, weight, bias = buffer[:400].reshape(2, 8, 5, 5), buffer[500:1076].reshape(8, 8, 3, 3), buffer[1200:1208]
    before = buffer.tobytes()
    for start in (0, 1, 399, 101, 1075, 900, 1207):
        out = buffer[start : start + 400].reshape(2, 8, 5, 5)
        with pytest.raises(ValueError, match=OVERLAP):
            sparseconv.conv2d(x, weight, bias, padding=1, out=out)
    for function, arrays in (
        (sparseconv.conv2d_backward_data, (x, weight, x.shape)),
        (sparseconv.conv_transpose2d, (x, weight)),
        (sparseconv.conv_transpose2d_backward_data, (x, weight, x.shape)),
    ):
        with pytest.raises(ValueError, match=OVERLAP):
            function(*arrays, padding=1, out=buffer[399:799].reshape(x.shape))
    for function in (sparseconv.conv2d_backward_weight, sparseconv.conv_transpose2d_backward_weight):
        for start in (0, 399):
            with pytest.raises(ValueError, match=OVERLAP):
                grads = np.ones(x.shape, np.float32)
                function(x, grads, 3, padding=1, out=buffer[start : start + 576].reshape(8, 8, 3, 3))
    square = buffer[:64].reshape(8, 8)
    for function in (sparseconv.linear, sparseconv.linear_backward_data, sparseconv.linear_backward_weight):
        with pytest.raises(ValueError, match=OVERLAP):
            function(square, np.ones((8, 8), np.float32), out=square)
    with pytest.raises(ValueError, match=OVERLAP):
        sparseconv.grad_bias(square, layout="NC", out=square[0])
    assert buffer.tobytes() == before


def test_interleaved_out_is_no_overlap():
    """Arrays that share a buffer but no element are fine."""
    buffer = np.ones((2, 8, 5, 10), np.float32)
    weight = ones(8, 8, 3, 3)
    expected = sparseconv.conv2d(buffer[..., :5], weight, padding=1)
    sparseconv.conv2d(buffer[..., :5], weight, padding=1, out=buffer[..., 5:])
    np.testing.assert_array_equal(buffer[..., 5:], expected)


# --- options which all convolutions have ---

COMMON = (
    ("stride", 0, ValueError),
    ("stride", -1, ValueError),
    ("stride", (1, 2, 3, 4), ValueError),
    ("stride", (), ValueError),
    ("stride", 1.5, TypeError),
    ("stride", "2", (TypeError, ValueError)),
    ("stride", None, TypeError),
    ("dilation", 0, ValueError),
    ("dilation", -2, ValueError),
    ("dilation", (1, 2, 3, 4), ValueError),
    ("dilation", 1.0, TypeError),
    ("padding", -1, ValueError),
    ("padding", ((1, -1),) * 4, ValueError),
    ("padding", (0, 0, 0, 0), ValueError),
    ("padding", "full", ValueError),
    ("padding", 0.5, TypeError),
    ("padding", None, TypeError),
    ("groups", 0, ValueError),
    ("groups", -1, ValueError),
    ("groups", 5, ValueError),
    ("groups", 1.0, TypeError),
    ("layout", "CHWN", ValueError),
    ("layout", "NC", ValueError),
    ("layout", "NCHW8c", ValueError),
    ("layout", "nchw", ValueError),
    ("layout", None, (TypeError, ValueError)),
    ("skip", "everything", ValueError),
    ("precision", "low", ValueError),
    ("precision", None, ValueError),
    ("skip", "", ValueError),
    ("skip", "Input", ValueError),
    ("skip", 1, (TypeError, ValueError)),
)
THREADS = (("num_threads", 0, ValueError), ("num_threads", -2, ValueError), ("num_threads", 1.5, TypeError))


@pytest.mark.parametrize("word, value, error", COMMON + THREADS)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_bad_option(name, word, value, error):
    # A bad number of groups contradicts other arguments as well; RULES has the cases where nothing else is wrong.
    fragment = "groups|channels|input_shape|bias" if word == "groups" else rf"\b{word}\b"
    check(name, error, fragment, **{word: value})


@pytest.mark.parametrize(
    "word, value, error", [row for row in COMMON if row[0] in ("skip", "precision")] + list(THREADS)
)
@pytest.mark.parametrize("name", ["linear", "linear_backward_data", "linear_backward_weight"])
def test_bad_option_of_linear(name, word, value, error):
    check(name, error, rf"\b{word}\b", **{word: value})


@pytest.mark.parametrize("name", ["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "linear"])
@pytest.mark.parametrize("activation, error", [("gelu", ValueError), ("", ValueError), (1, (TypeError, ValueError))])
def test_bad_activation(name, activation, error):
    check(name, error, "activation", activation=activation)


WRONG_SKIPS = [
    ("conv2d", "grad_output"),
    ("conv2d_backward_data", "input"),
    ("conv_transpose2d", "grad_output"),
    ("conv_transpose2d_backward_data", "input"),
    ("linear", "grad_output"),
    ("linear_backward_data", "input"),
]


@pytest.mark.parametrize("name, skip", WRONG_SKIPS)
def test_skip_of_an_operand_of_another_pass(name, skip):
    check(name, ValueError, "skip", skip=skip)


# --- one line per rule: function, exception, fragment of the message, what is changed ---

HUGE = 2**62
RULES = (
    ("conv2d", ValueError, "channels", {"x": ones(2, 3, 5, 6)}),
    ("conv2d", ValueError, "channels", {"x": ones(2, 8, 5, 6)}),
    ("conv2d", ValueError, "kernel", {"x": ones(2, 4, 2, 6)}),
    ("conv2d", ValueError, "kernel", {"dilation": (1, 3)}),
    ("conv2d", ValueError, "kernel", {"weight": ones(6, 4, 8, 3), "padding": 1}),
    ("conv2d", ValueError, "kernel|weight", {"weight": ones(6, 4, 0, 3)}),
    ("conv2d", ValueError, "bias", {"bias": ones(5)}),
    ("conv2d", ValueError, "bias", {"bias": ones(6, 1)}),
    ("conv2d", ValueError, "bias", {"bias": ones(1)}),
    ("conv2d", ValueError, "groups", {"x": ones(2, 16, 5, 6), "groups": 4}),
    ("conv2d", ValueError, "groups|channels", {"groups": 2}),
    ("conv2d", ValueError, "channels", {"layout": "NHWC"}),
    ("conv2d", ValueError, r"\bx\b", {"layout": "NCHW16c"}),
    ("conv2d", ValueError, r"\bx\b", {"layout": "NCHW16c", "x": ones(2, 1, 5, 6, 8)}),
    ("conv2d", ValueError, r"\bx\b", {"layout": "NCHW16c", "x": ones(2, 2, 5, 6, 16)}),
    ("conv2d", ValueError, "layout", {"layout": "NCDHW"}),
    ("conv1d", ValueError, "layout", {"layout": "NCHW"}),
    ("conv3d", ValueError, "layout", {"layout": "NCHW"}),
    ("conv2d", ValueError, "padding", {"padding": ((1, 1),)}),
    ("conv2d", (TypeError, ValueError), "padding", {"padding": ((1, 1, 1), (1, 1, 1))}),
    ("conv2d", ValueError, "padding", {"padding": ((-1, 2), (0, 0))}),
    ("conv1d", ValueError, "padding", {"padding": (1, 2)}),
    ("conv2d", (ValueError, OverflowError), "padding|int64|overflow|large", {"padding": HUGE}),
    ("conv2d", (ValueError, OverflowError), "dilation|kernel|int64|overflow|large", {"dilation": HUGE}),
    ("conv2d_backward_data", ValueError, "groups", {"input_shape": (2, 16, 5, 6), "groups": 4}),
    ("conv_transpose2d", ValueError, "groups", {"bias": None, "groups": 4}),
    ("conv_transpose2d_backward_data", ValueError, "groups", {"grad_output": ones(2, 16, 5, 6), "groups": 4}),
    ("conv2d_backward_weight", ValueError, "groups", {"groups": 4}),
    ("conv2d_backward_data", ValueError, "input_shape", {"input_shape": (2, 4, 5)}),
    ("conv2d_backward_data", ValueError, "grad_output|input_shape", {"input_shape": (3, 4, 5, 6)}),
    ("conv2d_backward_data", ValueError, "input_shape|channels", {"input_shape": (2, 5, 5, 6)}),
    ("conv2d_backward_data", ValueError, "grad_output|input_shape", {"input_shape": (2, 4, 6, 6)}),
    ("conv2d_backward_data", ValueError, "input_shape", {"input_shape": (2, 4, -5, 6)}),
    ("conv2d_backward_data", TypeError, "input_shape", {"input_shape": (2, 4, 5.0, 6)}),
    ("conv2d_backward_data", (TypeError, ValueError), "input_shape", {"input_shape": None}),
    ("conv2d_backward_data", ValueError, "grad_output|channels", {"grad_output": ones(2, 5, 3, 4)}),
    ("conv2d_backward_data", ValueError, "grad_output", {"grad_output": ones(2, 6, 3, 5)}),
    ("conv2d_backward_data", ValueError, "grad_output", {"stride": 2}),
    ("conv2d_backward_weight", ValueError, "grad_output", {"grad_output": ones(3, 6, 3, 4)}),
    ("conv2d_backward_weight", ValueError, "grad_output", {"grad_output": ones(2, 6, 4, 4)}),
    ("conv2d_backward_weight", ValueError, "grad_output|kernel_size", {"kernel_size": 2}),
    ("conv2d_backward_weight", ValueError, "kernel_size", {"kernel_size": 0}),
    ("conv2d_backward_weight", ValueError, "kernel_size", {"kernel_size": -3}),
    ("conv2d_backward_weight", ValueError, "kernel_size", {"kernel_size": (3, 3, 3)}),
    ("conv2d_backward_weight", ValueError, "kernel_size|channels", {"kernel_size": (6, 5, 3, 3)}),
    ("conv2d_backward_weight", ValueError, "grad_output|kernel_size|channels", {"kernel_size": (5, 4, 3, 3)}),
    ("conv2d_backward_weight", TypeError, "kernel_size", {"kernel_size": 3.0}),
    ("conv2d_backward_weight", TypeError, "kernel_size", {"kernel_size": None}),
    ("conv2d_backward_weight", ValueError, "kernel", {"kernel_size": 9}),
    ("conv_transpose2d", ValueError, "padding", {"padding": "same"}),
    ("conv_transpose2d_backward_data", ValueError, "padding", {"padding": "same"}),
    ("conv_transpose2d_backward_weight", ValueError, "padding", {"padding": "same"}),
    ("conv_transpose2d", ValueError, "output_padding", {"output_padding": 1}),
    ("conv_transpose2d", ValueError, "output_padding", {"output_padding": (2, 1), "stride": 2}),
    ("conv_transpose2d", ValueError, "output_padding", {"output_padding": -1}),
    ("conv_transpose2d", ValueError, "output_padding", {"output_padding": (0, 0, 0)}),
    ("conv_transpose2d", TypeError, "output_padding", {"output_padding": 0.5}),
    ("conv_transpose2d", ValueError, "padding|output", {"padding": 3}),
    ("conv_transpose2d", ValueError, "channels", {"x": ones(2, 5, 3, 4)}),
    ("conv_transpose2d", ValueError, "bias", {"bias": ones(6)}),
    ("conv_transpose2d_backward_data", ValueError, "grad_output|channels", {"grad_output": ones(2, 5, 5, 6)}),
    ("conv_transpose2d_backward_data", ValueError, "grad_output|input_shape", {"grad_output": ones(2, 4, 6, 6)}),
    ("conv_transpose2d_backward_data", ValueError, "input_shape|channels", {"input_shape": (2, 5, 3, 4)}),
    ("conv_transpose2d_backward_weight", ValueError, "grad_output", {"grad_output": ones(3, 4, 5, 6)}),
    ("conv_transpose2d_backward_weight", ValueError, "grad_output|kernel_size", {"kernel_size": 2}),
    ("linear", ValueError, "x|weight", {"x": ones(5, 3)}),
    ("linear", ValueError, "bias", {"bias": ones(4)}),
    ("linear", ValueError, "weight", {"weight": ones(6, 4, 1)}),
    ("linear_backward_data", ValueError, "grad_output|weight", {"grad_output": ones(5, 5)}),
    ("linear_backward_weight", ValueError, "grad_output", {"grad_output": ones(4, 6)}),
    ("linear_backward_weight", ValueError, "grad_output", {"grad_output": ones(5, 1, 6)}),
    ("grad_bias", ValueError, "layout", {"layout": "HW"}),
    ("grad_bias", ValueError, "grad_output", {"layout": "NCW"}),
    ("grad_bias", ValueError, "grad_output", {"layout": "NCHW16c"}),
    ("grad_bias", ValueError, "grad_output", {"grad_output": ones(2, 3)}),
    ("grad_bias", ValueError, "num_threads", {"num_threads": 0}),
)


@pytest.mark.parametrize("name, error, fragment, changes", RULES, ids=lambda value: str(value)[:40] if value else "")
def test_rule(name, error, fragment, changes):
    check(name, error, fragment, **changes)


# --- sizes beyond int64: nothing is allocated, nothing wraps around ---


def endless(*shape):
    """An array of any size in four bytes."""
    return np.broadcast_to(np.float32(0), shape)


TOO_LARGE = (
    lambda: sparseconv.conv2d(endless(2**30, 1, 1, 1), endless(2**34, 1, 1, 1)),
    lambda: sparseconv.conv2d(ones(1, 1, 1, 1), ones(1, 1, 1, 1), padding=2**31),
    lambda: sparseconv.conv2d(ones(1, 1, 1, 1), ones(1, 1, 1, 1), padding=2**62),
    lambda: sparseconv.conv2d(ones(1, 1, 1, 1), ones(1, 1, 1, 1), padding=2**63),
    lambda: sparseconv.conv2d(ones(1, 1, 1, 1), ones(1, 1, 2, 2), dilation=2**63 - 1),
    lambda: sparseconv.conv_transpose2d(ones(1, 1, 9, 9), ones(1, 1, 1, 1), stride=2**60),
    lambda: sparseconv.conv_transpose2d(ones(1, 1, 2, 2), ones(1, 1, 2, 2), dilation=2**62),
    lambda: sparseconv.conv2d_backward_weight(endless(1, 2**30, 1, 1), endless(1, 2**33, 1, 1), 1),
    lambda: sparseconv.conv2d_backward_data(endless(2**31, 1, 1, 1), endless(1, 2**32, 1, 1), (2**31, 2**32, 1, 1)),
    lambda: sparseconv.linear(endless(2**33, 1), endless(2**30, 1)),
    lambda: sparseconv.linear_backward_data(endless(2**33, 1), endless(1, 2**30)),
    lambda: sparseconv.linear_backward_weight(endless(1, 2**33), endless(1, 2**30)),
)


@pytest.mark.parametrize("bad_call", TOO_LARGE, ids=map(str, range(len(TOO_LARGE))))
def test_sizes_beyond_int64(bad_call):
    with pytest.raises(ValueError, match=r"(?i)int64|overflow|too large|kernel"):
        bad_call()


# --- what looks odd and is right ---


def test_legal_oddities():
    x, weight = ones(2, 4, 5, 6), ones(6, 4, 3, 3)
    assert sparseconv.conv2d(x, weight, stride=np.int32(2), padding=np.int64(1)).shape == (2, 6, 3, 3)
    assert sparseconv.conv2d(x, weight, stride=[2, 1], padding=[[0, 1], [2, 3]]).shape == (2, 6, 2, 9)
    assert sparseconv.conv2d(x, ones(6, 4, 1, 1), dilation=2**40).shape == (2, 6, 5, 6)
    assert sparseconv.conv2d(x, weight, num_threads=1000).shape == (2, 6, 3, 4)
    assert sparseconv.conv2d(x[:0], weight).shape == (0, 6, 3, 4)
    assert sparseconv.linear(ones(4), ones(6, 4)).shape == (6,)
    assert sparseconv.conv_transpose2d(x, ones(4, 2, 1, 1), dilation=3, output_padding=2).shape == (2, 2, 7, 8)


@pytest.mark.parametrize("stride", ["2**40", "(1, 2**62)"])
def test_strides_beyond_the_image(stride):
    """A stride of any size is one output per dimension; the time does not grow with it."""
    code = (
        "import numpy as np, sparseconv; x, weight = np.ones((2, 4, 5, 6), 'f4'), np.ones((6, 4, 3, 3), 'f4'); "
        f"y = sparseconv.conv2d(x, weight, stride={stride}); assert y.shape[3] == 1 and (y == 36).all(); "
        f"dx = sparseconv.conv2d_backward_data(y, weight, x.shape, stride={stride}); assert dx.shape == x.shape; "
        f"dw = sparseconv.conv2d_backward_weight(x, y, 3, stride={stride}); assert dw.shape == weight.shape"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=20)


def test_stride_beyond_int64():
    code = (
        "import numpy as np, sparseconv; x, weight = np.ones((2, 4, 5, 6), 'f4'), np.ones((6, 4, 3, 3), 'f4')\n"
        "try: sparseconv.conv2d(x, weight, stride=2**70)\n"
        "except (ValueError, OverflowError): pass"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=20)
