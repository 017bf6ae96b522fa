"""sparseconv.jax: the functions under jit, grad and vmap against the oracle, and what goes wrong in words."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

jax = pytest.importorskip("jax")
jnp = pytest.importorskip("jax.numpy")
check_grads = pytest.importorskip("jax.test_util").check_grads

import sparseconv.jax as scj  # noqa: E402
from sparseconv import reference  # noqa: E402
from sparseconv.jax import _ffi, layers  # noqa: E402

LAYERS = [
    ("conv1d", (2, 5, 12), (8, 5, 3), {"stride": 2, "padding": 1}),
    ("conv2d", (2, 9, 10, 32), (48, 32, 3, 3), {"padding": (1, 0), "layout": "NHWC"}),
    ("conv2d", (2, 16, 9, 10), (8, 4, 3, 2), {"padding": "same", "groups": 4}),
    ("conv2d", (2, 2, 6, 7, 16), (20, 32, 1, 1), {"layout": "NCHW16c"}),
    ("conv2d", (2, 9, 9, 7), (6, 7, 3, 3), {"dilation": 2, "padding": ((2, 1), (0, 3)), "layout": "NHWC"}),
    ("conv3d", (1, 4, 5, 6, 3), (8, 3, 2, 3, 3), {"stride": (1, 2, 1), "layout": "NDHWC"}),
    ("conv_transpose1d", (2, 5, 12), (5, 8, 3), {"stride": 3, "output_padding": 1}),
    ("conv_transpose2d", (2, 5, 6, 16), (16, 24, 3, 3), {"stride": 2, "padding": 1, "layout": "NHWC"}),
    ("conv_transpose3d", (1, 4, 3, 4, 5), (4, 6, 2, 2, 2), {"padding": (1, 0, 0)}),
    ("linear", (4, 3, 20), (24, 20), {}),
]
NAMED = pytest.mark.parametrize("name, x_shape, weight_shape, options", LAYERS, ids=lambda one: str(one)[:30])


def integers(seed, shape, low=-3):
    return np.random.default_rng(seed).integers(low, 4, shape).astype(np.float32)


def operands(name, x_shape, weight_shape, options):
    x, weight = integers(0, x_shape, 0), integers(1, weight_shape)
    outputs = weight_shape[1] * options.get("groups", 1) if "transpose" in name else weight_shape[0]
    return x, weight, integers(2, outputs)


def gradients(name, x, weight, grad_output, options):
    """What the oracle says."""
    options = {key: value for key, value in options.items() if key != "output_padding"}
    data, gradient = getattr(reference, f"{name}_backward_data"), getattr(reference, f"{name}_backward_weight")
    if name == "linear":
        return data(grad_output, weight), gradient(x, grad_output)
    return data(grad_output, weight, x.shape, **options), gradient(x, grad_output, weight.shape[2:], **options)


@NAMED
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_layers_and_their_gradients_are_the_oracles(name, x_shape, weight_shape, options, wrap):
    x, weight, bias = operands(name, x_shape, weight_shape, options)
    layer = getattr(scj, name)
    expected = getattr(reference, name)(x, weight, bias, **options, activation="relu")
    y = wrap(lambda x, w, b: layer(x, w, b, **options, activation="relu"))(x, weight, bias)
    np.testing.assert_array_equal(y, expected)
    assert np.mean(expected != 0) > 0.2

    grad_output = integers(3, expected.shape)

    def loss(x, w, b):
        return (layer(x, w, b, **options, activation="relu") * grad_output).sum()

    grad_x, grad_weight, grad_bias = wrap(jax.grad(loss, (0, 1, 2)))(x, weight, bias)
    masked = np.where(expected > 0, grad_output, 0).astype(np.float32)
    expected_x, expected_weight = gradients(name, x, weight, masked, options)
    np.testing.assert_array_equal(grad_x, expected_x)
    expected_weight = expected_weight[: weight.shape[0], : weight.shape[1]]  # without pad lanes
    np.testing.assert_array_equal(grad_weight, expected_weight)
    layout = options.get("layout", "NC" if name == "linear" else f"NC{'DHW'[3 - int(name[-2]):]}")
    sums = reference.grad_bias(masked.reshape(-1, masked.shape[-1]) if name == "linear" else masked, layout=layout)
    np.testing.assert_array_equal(grad_bias, sums[: bias.size])
    assert np.mean(expected_x != 0) > 0.2 and np.mean(expected_weight != 0) > 0.2


@NAMED
def test_derivatives_of_any_order(name, x_shape, weight_shape, options):
    rng = np.random.default_rng(4)
    with jax.enable_x64(True):
        x, weight = rng.standard_normal(x_shape), rng.standard_normal(weight_shape)
        bias = rng.standard_normal(operands(name, x_shape, weight_shape, options)[2].shape)
        if options.get("layout") == "NCHW16c":
            x[:, 1, ..., 8:] = 0
        layer = jax.jit(lambda x, w, b: getattr(scj, name)(x, w, b, **options))
        check_grads(layer, (x, weight, bias), order=2, modes=["rev"], rtol=1e-4)


def test_needed_outputs_alone():
    x, weight, bias = operands(*LAYERS[1])
    options, grad_output = LAYERS[1][3], integers(3, (2, 9, 8, 48))

    def loss(x, **more):
        return (scj.conv2d(x, weight, bias, **options, **more) * grad_output).sum()

    plain, needed = jax.grad(loss)(x), jax.grad(lambda x: loss(x, input_is_relu=True))(x)
    np.testing.assert_array_equal(needed, np.where(x != 0, plain, 0))
    assert np.any(plain[x == 0] != 0)
    # Behind the ReLU nothing is different, in the second derivative neither.
    with jax.enable_x64(True):
        z, weight, bias, grad_output = (np.float64(one) for one in (x - 0.5, weight, bias, grad_output))
        for order in (jax.grad, lambda f: jax.grad(lambda z: (jax.grad(f)(z) ** 2).sum())):
            told, untold = (
                order(lambda z, is_relu=is_relu: loss(jax.nn.relu(z), input_is_relu=is_relu) ** 2)(z)
                for is_relu in (True, False)
            )
            np.testing.assert_allclose(told, untold, rtol=1e-9, atol=1e-9 * np.abs(untold).max())
            assert np.mean(untold != 0) > 0.2


@pytest.mark.parametrize("axes", [(0, None, None), (1, None, None), (0, 0, None), (None, 0, 0), (0, 0, 0)])
@NAMED
def test_vmap_is_one_call_after_the_other(name, x_shape, weight_shape, options, axes):
    arrays = operands(name, x_shape, weight_shape, options)
    mapped = [a if axis is None else np.stack([a, a[::-1], 2 * a], axis) for a, axis in zip(arrays, axes, strict=True)]

    def loss(x, w, b):
        y = getattr(scj, name)(x, w, b, **options, activation="relu")
        return (y * integers(3, y.shape)).sum()

    together = jax.jit(jax.vmap(jax.value_and_grad(loss, (0, 1, 2)), axes))(*mapped)
    for i in range(3):
        single = [m if axis is None else np.take(m, i, axis) for m, axis in zip(mapped, axes, strict=True)]
        alone = jax.value_and_grad(loss, (0, 1, 2))(*single)
        for got, want in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_array_equal(got[i], want)


def test_vmapped_samples_are_one_call():
    x, weight, bias = operands(*LAYERS[1])
    mapped = jax.vmap(lambda x: scj.conv2d(x, weight, bias, **LAYERS[1][3]))
    text = str(jax.make_jaxpr(mapped)(np.stack([x] * 5)))
    assert text.count("ffi_call[") == 1 and "scan" not in text


def test_empty_batches():
    x, weight, bias = operands(*LAYERS[1])
    value, grads = jax.value_and_grad(lambda x, w: scj.conv2d(x, w, bias, layout="NHWC").sum(), (0, 1))(x[:0], weight)
    assert value == 0 and grads[0].shape == x[:0].shape and not np.any(grads[1])


@pytest.mark.parametrize(
    "change, error, words",
    [
        ({"weight": np.ones((8, 5, 3, 3), np.float32)}, ValueError, "x: got shape"),
        ({"x": np.ones((1, 8, 8, 32), np.float16)}, TypeError, "x: got dtype float16"),
        ({"bias": np.ones(3, np.float32)}, ValueError, "bias: got"),
        ({"stride": 0}, ValueError, "stride: got"),
        ({"stride": 1.5}, TypeError, "stride: got 1.5"),
        ({"stride": True}, TypeError, "stride: got True"),
        ({"padding": np.ones(2)}, TypeError, "padding: got"),
        ({"layout": "HWNC"}, ValueError, "layout: got"),
        ({"activation": "gelu"}, ValueError, "activation: got"),
        ({"skip": "bias"}, ValueError, "skip: got"),
        ({"input_is_relu": 1}, TypeError, "input_is_relu: got 1"),
        ({"num_threads": 0}, ValueError, "num_threads: got 0"),
    ],
    ids=str,
)  # fmt: skip
def test_errors_while_tracing(change, error, words):
    given = {"x": np.ones((1, 8, 8, 32), np.float32), "weight": np.ones((8, 32, 3, 3), np.float32), "layout": "NHWC"}
    with pytest.raises(error, match=words):
        jax.jit(lambda: scj.conv2d(**(given | change)))()


def test_a_failing_call_is_an_error_of_jax(monkeypatch):
    def failing(**operands):
        raise MemoryError("no memory for scratch buffers")

    monkeypatch.setattr(_ffi, "_read", lambda text: (failing, ("x", "weight"), {}))
    x, weight, _ = operands(*LAYERS[1])
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"RESOURCE_EXHAUSTED.*no memory for scratch buffers"):
        jax.block_until_ready(jax.jit(lambda x: scj.conv2d(x, weight, layout="NHWC"))(x))


def test_an_interrupt_reaches_the_main_thread(monkeypatch):
    def interrupted(**operands):
        raise KeyboardInterrupt

    monkeypatch.setattr(_ffi, "_read", lambda text: (interrupted, ("x", "weight"), {}))
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # which it is not in background jobs of a shell
    x, weight, _ = operands(*LAYERS[1])
    with pytest.raises(KeyboardInterrupt):
        with pytest.raises(jax.errors.JaxRuntimeError, match=r"CANCELLED.*interrupted"):
            jax.block_until_ready(jax.jit(lambda x: scj.conv2d(x, weight, layout="NHWC"))(x))
        time.sleep(10)
    signal.signal(signal.SIGINT, handler)


def test_forward_mode_is_refused_in_words():
    x, weight, _ = operands(*LAYERS[1])
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: scj.conv2d(x, weight, layout="NHWC"), (x,), (x,))


def test_targets_are_found_by_equal_options():
    assert layers._hashable("padding", [np.int64(1), (2, 3)]) == (1, (2, 3))
    target = _ffi.Target("conv2d", ("x", "weight"), (("padding", ((1, 2), (0, 0))), ("layout", "NHWC")))
    function, names, options = _ffi._read(target.text().encode())
    assert function is __import__("sparseconv").conv2d and names == ("x", "weight") and options == dict(target.options)


def test_the_core_does_not_import_jax():
    script = "import sys, sparseconv\nassert 'jax' not in sys.modules\nimport sparseconv.jax, jax"
    subprocess.run([sys.executable, "-c", script], check=True)
