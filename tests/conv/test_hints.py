"""Errors name the likely cause, and nothing where there is none."""

import numpy as np
import pytest

import sparseconv as sc


def ones(*shape):
    return np.ones(shape, np.float32)


X, LAST, W, GRAD = ones(2, 64, 28, 26), ones(2, 28, 26, 64), ones(128, 64, 3, 3), ones(2, 28, 26, 128)
NHWC = {"layout": "NHWC"}


def error_of(function, *arguments, **options):
    with pytest.raises((TypeError, ValueError)) as raised:
        function(*arguments, **options)
    return str(raised.value)


LAYOUTS = {
    "forward": (sc.conv2d, (LAST, W), {}, "NHWC"),
    "named": (sc.conv2d, (X, W), NHWC, "NCHW"),
    "blocked": (sc.conv2d, (ones(2, 4, 28, 28, 16), W), {}, "NCHW16c"),
    "not blocked": (sc.conv2d, (X, W), {"layout": "NCHW16c"}, "NCHW"),
    "1d": (sc.conv1d, (ones(1, 10, 4), ones(3, 4, 3)), {}, "NWC"),
    "3d": (sc.conv3d, (ones(1, 5, 6, 7, 4), ones(3, 4, 3, 3, 3)), {}, "NDHWC"),
    "transposed": (sc.conv_transpose2d, (LAST, ones(64, 8, 3, 3)), {}, "NHWC"),
    "out": (sc.conv2d, (ones(1, 64, 64, 64), W), {"out": ones(1, 62, 62, 128)}, "NHWC"),
    "result": (sc.conv2d_backward_data, (ones(2, 128, 28, 26), W, LAST.shape), {"padding": 1}, "NHWC"),
    "both": (sc.conv2d_backward_data, (GRAD, W, LAST.shape), {"padding": 1}, "NHWC"),
    "gradient": (sc.conv2d_backward_data, (GRAD, W, X.shape), {"padding": 1}, "NHWC"),
    "weights": (sc.conv2d_backward_weight, (LAST, GRAD, 3), {"padding": 1}, "NHWC"),
    "gradient of x": (
        sc.conv_transpose2d_backward_data, (GRAD, ones(64, 128, 3, 3), LAST.shape), {"padding": 1}, "NHWC"
    ),
    "mask": (sc.conv2d, (ones(1, 64, 64, 64), W), {"out": ones(1, 62, 62, 128), "input_mask": None}, "NHWC"),
}  # fmt: skip


@pytest.mark.parametrize("case", LAYOUTS)
def test_another_layout(case):
    function, arguments, options, layout = LAYOUTS[case]
    message = error_of(function, *arguments, **options)
    assert message.endswith(f"; did you mean layout={layout!r}?")
    assert message.count("did you mean") == 1


WEIGHTS = {
    "tensorflow": (sc.conv2d, ones(3, 3, 64, 128), NHWC, "(3, 2, 0, 1)"),
    "tensorflow 5x5": (sc.conv2d, ones(5, 5, 64, 128), NHWC, "(3, 2, 0, 1)"),
    "tensorflow, one result": (sc.conv2d, ones(3, 3, 64, 1), NHWC, "(3, 2, 0, 1)"),
    "channels last": (sc.conv2d, ones(128, 3, 3, 64), NHWC, "(0, 3, 1, 2)"),
    "turned": (sc.conv2d, ones(64, 128, 3, 3), NHWC, "(1, 0, 2, 3)"),
    "transposed": (sc.conv_transpose2d, ones(128, 64, 3, 3), NHWC, "(1, 0, 2, 3)"),
    "transposed tensorflow": (sc.conv_transpose2d, ones(3, 3, 128, 64), NHWC, "(3, 2, 0, 1)"),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_weights_in_another_order(case):
    """What the hint says to pass is right."""
    function, weight, options, axes = WEIGHTS[case]
    message = error_of(function, LAST, weight, **options)
    assert f"then pass weight.transpose{axes})?" in message
    turned = weight.transpose(tuple(map(int, axes[1:-1].split(", "))))
    assert function(LAST, turned, **options).shape[0] == 2


def test_depthwise_weights_of_tensorflow():
    weight = ones(3, 3, 64, 1)
    message = error_of(sc.conv2d, LAST, weight, layout="NHWC")
    hint = "is the weight depthwise, (*kernel, channels, 1) (then pass weight.transpose(2, 3, 0, 1), groups=64)"
    assert hint in message
    assert sc.conv2d(LAST, weight.transpose(2, 3, 0, 1), groups=64, layout="NHWC").shape == (2, 26, 24, 64)


GROUPS = {
    "depthwise": (ones(64, 1, 3, 3), 1, 64),
    "two": (ones(128, 32, 3, 3), 1, 2),
    "whole": (ones(64, 64, 3, 3), 64, 1),
}


@pytest.mark.parametrize("case", GROUPS)
def test_groups(case):
    weight, given, meant = GROUPS[case]
    for function, more in ((sc.conv2d, ()), (sc.conv2d_backward_data, (LAST.shape,))):
        first = LAST if not more else ones(2, 26, 24, len(weight))
        message = error_of(function, first, weight, *more, groups=given, layout="NHWC")
        assert f"; did you mean groups={meant}" in message
        function(first, weight, *more, groups=meant, layout="NHWC")


def test_no_idea():
    """A hint that does not hold is worse than none."""
    for x, weight in (
        (ones(1, 7, 9, 9), ones(8, 5, 3, 3)),
        (ones(1, 3, 9, 9), ones(8, 5, 3, 2)),
        (ones(1, 64, 9, 9), ones(8, 60, 64, 3)),
    ):
        message = error_of(sc.conv2d, x, weight)
        assert message.endswith("channels as the other operands have")


@pytest.mark.parametrize("x, layout, dims", [
    (X[0], "NCHW", 2), (LAST[0], "NHWC", 2), (X[0, :, 0], "NCW", 1), (ones(64, 5, 5, 5), "NCDHW", 3),
])  # fmt: skip
def test_an_image_without_a_batch(x, layout, dims):
    weight = ones(8, 64, *[3] * dims)
    function = getattr(sc, f"conv{dims}d")
    assert error_of(function, x, weight, layout=layout).endswith("; a single image is a batch of one: x[None]")
    function(x[None], weight, layout=layout)
    gradient = error_of(getattr(sc, f"conv{dims}d_backward_weight"), x[None], x, 3, layout=layout)
    assert gradient.endswith("; a single image is a batch of one: grad_output[None]")
    assert "grad_output[None]" in error_of(sc.grad_bias, x, layout=layout)


def test_shapes_of_other_operands():
    assert error_of(sc.conv2d, X, W[..., 0, 0]).endswith("; of a kernel of one tap: weight[:, :, None, None]")
    assert error_of(sc.conv1d, X[:, :, 0], W[..., 0, 0]).endswith("weight[:, :, None]")
    assert error_of(sc.conv2d, X, W, ones(1, 128, 1, 1)).endswith("; pass bias.reshape(-1)")
    assert error_of(sc.conv2d, X, W, ones(1, 12, 1, 1)).endswith("(out channels,)")
    assert error_of(sc.linear, ones(5, 7), ones(7, 3)).endswith("; is the weight (in, out) (then pass weight.T)?")
    assert error_of(sc.linear, ones(5, 7), ones(6, 3)).endswith("expected (5, 3)")


def test_backward_with_other_options():
    message = error_of(sc.conv2d_backward_data, ones(2, 128, 28, 26), W, X.shape)
    ask = ", stride, padding and dilation: are they those of the forward call?"
    assert message.endswith(f"which follows from input_shape{ask}")
    message = error_of(sc.conv2d_backward_weight, X, ones(2, 128, 28, 26), 3)
    assert message.endswith(f"which follows from the shape of x{ask}")
    message = error_of(sc.conv2d_backward_data, ones(2, 128, 28, 26), W, X, padding=1)
    assert message == "input_shape: got ndarray, expected the 4 sizes of an array in NCHW: pass its shape"


WORDS = [
    ({"layout": "nhwc"}, "'NHWC'"), ({"layout": "channels_last"}, "'NHWC'"),
    ({"padding": "SAME"}, "'same'"), ({"padding": "VALID"}, "'valid'"), ({"activation": "ReLU"}, "'relu'"),
    ({"skip": "x"}, "'input'"), ({"skip": "weights"}, "'weight'"), ({"skip": "Auto"}, "'auto'"),
    ({"precision": "hihgest"}, "'highest'"),
]  # fmt: skip


@pytest.mark.parametrize("options, near", WORDS)
def test_words(options, near):
    assert error_of(sc.conv2d, X, W, **options).endswith(f"; did you mean {near}?")


@pytest.mark.parametrize("options", [{"layout": "NHCW"}, {"padding": "full"}, {"activation": np.maximum}, {"skip": 1}])
def test_words_like_no_other(options):
    assert "did you mean" not in error_of(sc.conv2d, X, W, **options)


def test_padding_of_other_libraries():
    assert "; (before, after) pairs are a tuple for each of 2" in error_of(sc.conv2d, X, W, padding=(1, 1, 1, 1))


def test_arrays_in_the_place_of_numbers():
    """NumPy's own error of their `__index__` names no argument."""
    message = error_of(sc.conv2d_backward_weight, X, ones(2, 128, 26, 24), W)
    assert message == "kernel_size: got ndarray of shape (128, 64, 3, 3), expected a whole number: pass weight.shape"
    message = error_of(sc.conv2d_backward_weight, X, ones(2, 128, 26, 24), sc.pack_weight(W))
    assert message.startswith("kernel_size: got PackedWeight of shape (128, 64, 3, 3), expected a whole number: pass")
    for name in ("stride", "padding", "dilation"):
        message = error_of(sc.conv2d, X, W, **{name: np.array([1, 1])})
        assert message == f"{name}: got ndarray of shape (2,), expected a whole number or a tuple of them"
    assert error_of(sc.conv2d, X, W, groups=1.0) == "groups: got 1.0, expected a whole number"
    assert sc.conv2d(X, W, stride=np.int64(2)).shape == (2, 128, 13, 12)


def test_names_of_the_package():
    with pytest.raises(AttributeError, match=r"no attribute 'conv2D'") as raised:
        sc.conv2D  # noqa: B018
    assert (raised.value.name, raised.value.obj) == ("conv2D", sc)  # what Python's "did you mean" needs
    with pytest.raises(AttributeError, match=r"no attribute 'jax': import sparseconv\.jax first$"):
        sc.__getattr__("jax")


# --- plan ---


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose1d", "linear_backward_data"])
def test_plan_takes_functions(name):
    arguments = {
        "conv2d": (X, W),
        "conv_transpose1d": (X[:, :, 0], W[:, :, 0].swapaxes(0, 1).copy()),
        "linear_backward_data": (ones(9, 128), W[..., 0, 0].copy()),
    }[name]
    assert sc.plan(getattr(sc, name), *arguments) == sc.plan(name, *arguments)
    assert sc.plan(getattr(sc, name), *arguments).operation == name


@pytest.mark.parametrize("operation, error", [
    (X, "^operation: got ndarray, expected a convolution or linear function of sparseconv, or its name, in front of"),
    (np.sum, "^operation: got 'sum', expected a convolution"),
    (sc.grad_bias, "^operation: got 'grad_bias', expected a convolution"),
    (sc.reference.conv2d, "^operation: got 'conv2d', expected a convolution or linear function of sparseconv"),
    ("conv2", r"did you mean 'conv2d'\?$"),
    ("conv", "^operation: got 'conv', expected"),
    (None, "^operation: got NoneType, expected"),
    (2, "^operation: got int, expected"),
])  # fmt: skip
def test_plan_of_what_is_no_operation(operation, error):
    with pytest.raises((TypeError, ValueError), match=error):
        sc.plan(operation, X, W)


def test_plan_names_the_function_in_errors():
    with pytest.raises(TypeError, match=r"^conv2d: missing a required argument: 'weight'"):
        sc.plan("conv2d", X)
    with pytest.raises(TypeError, match=r"^conv2d: got an unexpected keyword argument 'pading'"):
        sc.plan("conv2d", X, W, pading=1)


def test_plan_says_where_a_layout_is_a_guess():
    """As many channels as columns: both layouts fit, and a call takes the array for channels first."""
    both, weight = ones(1, 64, 9, 64), ones(8, 64, 3, 3)
    notice = "x of shape (1, 64, 9, 64) fits layout='NHWC' as well as 'NCHW': name the one that is meant"
    assert notice in sc.plan("conv2d", both, weight).reason
    assert notice in str(sc.plan("conv2d", both, weight))
    gradient = sc.plan("conv2d_backward_data", ones(1, 8, 7, 8), ones(8, 64, 3, 3), (1, 64, 9, 10))
    assert "grad_output of shape (1, 8, 7, 8) fits" in gradient.reason
    assert "fits layout='NWC'" in sc.plan("conv1d", ones(1, 64, 64), ones(8, 64, 3)).reason
    assert "fits" not in sc.plan("conv2d", both, weight, layout="NCHW").reason  # it is named
    assert "fits" not in sc.plan("conv2d", ones(1, 64, 64, 9), weight).reason  # as many rows do not matter
    assert "fits" not in sc.plan("conv2d", ones(1, 9, 64, 64).transpose(0, 3, 1, 2), weight).reason  # a view on purpose
    assert "fits" not in sc.plan("linear", ones(64, 64), ones(8, 64)).reason
