"""An x of zeros and ones, as bools or bits: every function that takes it, against the float32 array of the same."""

import re

import numpy as np
import pytest
from cases import to_layout

import sparseconv as sc
from sparseconv import masks, reference
from sparseconv._core import spiking
from sparseconv._core.gradient import Gradient
from sparseconv._core.rows import Rows

LAYOUTS = ("NCHW", "NHWC", "NCHW16c")
# batch, channels, filters, size, kernel, options
CASES = (
    (2, 32, 48, (9, 8), (3, 3), {"padding": 1}),
    (1, 70, 20, (7, 11), (3, 3), {"stride": 2, "padding": (1, 2)}),
    (3, 16, 16, (5, 6), (1, 1), {}),
    (1, 65, 33, (12, 9), (2, 3), {"dilation": 2, "padding": 2}),
    (2, 24, 36, (8, 8), (5, 2), {"groups": 2, "padding": "same"}),
    (1, 3, 7, (6, 7), (3, 1), {}),
    (2, 12, 12, (7, 7), (3, 3), {"groups": 12, "padding": 1}),
    (1, 5, 40, (4, 130), (1, 7), {"stride": (1, 3), "padding": (0, 3)}),
)


def spikes_of(case, density, layout="NCHW", seed=0):
    batch, channels, _, size, *_ = case
    rng = np.random.default_rng((seed, channels, *size))
    return to_layout(rng.random((batch, channels, *size)) < density, layout)


def whole_numbers(shape, seed=1):
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(np.float32)


def forms(spikes):
    """The same zeros and ones in every form that functions take."""
    return {"bools": spikes, "bits": sc.Spikes(masks.pack(spikes), spikes.shape), "packed": sc.pack_spikes(spikes)}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_is_exact(isa, case, layout):
    channels, filters, kernel, options = case[1], case[2], case[4], case[5]
    spikes = spikes_of(case, 0.3, layout)
    weight = whole_numbers((filters, channels // options.get("groups", 1), *kernel))
    bias = whole_numbers(filters, 2)
    expected = reference.conv2d(spikes.astype(np.float64), weight.astype(np.float64), bias.astype(np.float64),
                                layout=layout, **options)  # fmt: skip
    assert np.mean(expected != 0) > 0.5 or layout == "NCHW16c"
    for x in forms(spikes).values():
        for skip in ("auto", "input", "none", "weight"):
            for threads in (1, 3):
                y = sc.conv2d(x, weight, bias, layout=layout, skip=skip, num_threads=threads, **options)
                assert y.dtype == np.float32
                np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_backward_weight_is_exact(isa, case, layout):
    batch, channels, filters, size, kernel, options = case
    spikes = spikes_of(case, 0.3, layout)
    shape = (filters, channels // options.get("groups", 1), *kernel)
    plain = np.zeros((batch, channels, *size))
    out = reference.conv2d(plain, np.zeros(shape), **options).shape
    grad = to_layout(whole_numbers(out), layout)
    expected = reference.conv2d_backward_weight(
        spikes.astype(np.float64), grad.astype(np.float64), shape, layout=layout, **options
    )
    assert np.mean(expected != 0) > 0.5
    needed = np.random.default_rng(3).random(shape) < 0.5
    for x in forms(spikes).values():
        for skip in ("auto", "input", "none", "grad_output"):
            for threads in (1, 3):
                given = {"layout": layout, "skip": skip, "num_threads": threads, **options}
                np.testing.assert_array_equal(sc.conv2d_backward_weight(x, grad, shape, **given), expected)
                masked = sc.conv2d_backward_weight(x, grad, shape, output_mask=needed, **given)
                np.testing.assert_array_equal(masked, expected * needed)


@pytest.mark.parametrize("density", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("case", CASES[:6], ids=str)
def test_bits_are_those_of_floats(isa, case, density):
    channels, filters, kernel, options = case[1], case[2], case[4], case[5]
    rng = np.random.default_rng(5)
    spikes = spikes_of(case, density, "NHWC")
    floats = spikes.astype(np.float32)
    weight = rng.standard_normal((filters, channels // options.get("groups", 1), *kernel), np.float32)
    residual = None
    for activation in (None, "relu"):
        given = {"layout": "NHWC", "skip": "input", "activation": activation, "residual": residual, **options}
        y = sc.conv2d(floats, weight, **given)
        residual = rng.standard_normal(y.shape, np.float32)
        np.testing.assert_array_equal(sc.conv2d(spikes, weight, **given), y)
        given |= {"residual": residual}
        if activation:
            given |= {"return_mask": True}
        ours, theirs = (sc.conv2d(x, weight, **given) for x in (sc.pack_spikes(spikes), floats))
        for one, other in zip(ours, theirs, strict=True) if activation else ((ours, theirs),):
            np.testing.assert_array_equal(one, other)
    grad = rng.standard_normal(y.shape, np.float32)
    given = {"layout": "NHWC", "skip": "input", **options}
    ours, theirs = (sc.conv2d_backward_weight(x, grad, weight.shape, **given) for x in (spikes, floats))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)  # one tap: floats have a kernel of their own
    if np.prod(kernel) > 1:
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("shape", [(6, 70), (2, 3, 33), (40,)])
def test_linear(isa, shape):
    spikes = np.random.default_rng(0).random(shape) < 0.3
    weight, bias = whole_numbers((37, shape[-1])), whole_numbers(37, 2)
    expected = spikes.astype(np.float32) @ weight.T + bias
    grad = whole_numbers(expected.shape, 3)
    gradient = grad.reshape(-1, 37).T @ spikes.reshape(-1, shape[-1]).astype(np.float32)
    assert np.mean(gradient != 0) > 0.2
    for x in forms(spikes).values():
        for skip in ("auto", "input", "none"):
            np.testing.assert_array_equal(sc.linear(x, weight, bias, skip=skip), expected)
            np.testing.assert_array_equal(sc.linear_backward_weight(x, grad, skip=skip), gradient)


@pytest.mark.parametrize("dims", [1, 3])
def test_other_dimensions(isa, dims):
    rng = np.random.default_rng(0)
    spikes = rng.random((2, 20, *(7, 6, 5)[:dims])) < 0.3
    weight = whole_numbers((24, 20, *(3,) * dims))
    forward, backward = getattr(sc, f"conv{dims}d"), getattr(sc, f"conv{dims}d_backward_weight")
    oracle = getattr(reference, f"conv{dims}d")(spikes.astype(np.float64), weight.astype(np.float64), padding=1)
    grad = whole_numbers(oracle.shape, 4)
    gradient = backward(spikes.astype(np.float32), grad, 3, padding=1)
    for x in forms(spikes).values():
        np.testing.assert_array_equal(forward(x, weight, padding=1, skip="input"), oracle)
        np.testing.assert_array_equal(backward(x, grad, 3, padding=1, skip="input"), gradient)
    assert np.mean(oracle != 0) > 0.5


def views(spikes):
    """Bools of the same values in memory of other orders, with gaps, and backwards."""
    yield np.asfortranarray(spikes)
    yield np.repeat(spikes, 2, axis=3)[..., ::2]
    yield np.ascontiguousarray(spikes[..., ::-1])[..., ::-1]
    yield np.ascontiguousarray(spikes.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    yield np.pad(spikes, ((0, 0), (1, 2), (0, 1), (3, 0)), constant_values=True)[:, 1:-2, :-1, 3:]


def test_memory_of_any_order(isa):
    case = CASES[0]
    spikes = spikes_of(case, 0.3)
    weight = whole_numbers((48, 32, 3, 3))
    expected = sc.conv2d(spikes.astype(np.float32), weight, padding=1)
    grad = whole_numbers(expected.shape, 3)
    gradient = sc.conv2d_backward_weight(spikes.astype(np.float32), grad, 3, padding=1)
    for view in views(spikes):
        np.testing.assert_array_equal(view, spikes)
        for skip in ("input", "none"):
            np.testing.assert_array_equal(sc.conv2d(view, weight, padding=1, skip=skip), expected)
            np.testing.assert_array_equal(sc.conv2d_backward_weight(view, grad, 3, padding=1, skip=skip), gradient)


def test_bits_behind_the_last_one_are_nobodys(isa):
    spikes = spikes_of(CASES[5], 0.4)
    bits = masks.pack(spikes)
    assert spikes.size % 8
    bits[-1] |= 0x80
    weight = whole_numbers((7, 3, 3, 1))
    expected = sc.conv2d(spikes, weight)
    for skip in ("input", "none"):
        np.testing.assert_array_equal(sc.conv2d(sc.Spikes(bits, spikes.shape), weight, skip=skip), expected)


def test_weights_that_are_not_finite(isa):
    """A zero leaves the product out, as for floats; a one takes Inf and NaN along."""
    spikes = spikes_of(CASES[0], 0.3, "NHWC")
    weight = whole_numbers((48, 32, 3, 3))
    weight[3, 5, 1, 1], weight[7, 2, 0, 0], weight[7, 3, 2, 2] = np.nan, np.inf, -np.inf
    given = {"layout": "NHWC", "padding": 1, "skip": "input"}
    y = sc.conv2d(spikes, weight, **given)
    np.testing.assert_array_equal(y, sc.conv2d(spikes.astype(np.float32), weight, **given))
    assert 0 < np.mean(np.isfinite(y)) < 1
    grad = whole_numbers(y.shape, 2)
    grad[0, 0, 0, 5], grad[1, 4, 4, 9] = np.inf, np.nan
    ours, theirs = (sc.conv2d_backward_weight(x, grad, 3, **given) for x in (spikes, spikes.astype(np.float32)))
    np.testing.assert_array_equal(ours, theirs)
    assert 0 < np.mean(np.isfinite(ours)) < 1


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_none_and_all(isa, density):
    spikes = np.full((2, 40, 6, 6), bool(density))
    weight = whole_numbers((24, 40, 3, 3))
    expected = reference.conv2d(spikes.astype(np.float64), weight.astype(np.float64))
    for skip in ("auto", "input"):
        np.testing.assert_array_equal(sc.conv2d(spikes, weight, skip=skip), expected)


def test_plans(isa):
    weight = whole_numbers((64, 64, 3, 3))
    rng = np.random.default_rng(0)
    few, many = (sc.pack_spikes(rng.random((2, 14, 14, 64)) < density) for density in (0.05, 1.0))
    given = {"layout": "NHWC", "padding": 1}
    plan = sc.plan("conv2d", few, weight, **given)
    assert (plan.kernel, plan.skip) == ("rows_spikes", "input")
    assert plan.density["input"] == pytest.approx(0.05, abs=0.02)
    dense = sc.plan("conv2d", few, weight, skip="none", **given)
    assert dense.kernel not in ("rows_spikes", "rows_skip")
    assert sc.plan("conv2d", many, weight, **given).skip == "none"
    grad = np.ones((2, 14, 14, 64), np.float32)
    plan = sc.plan("conv2d_backward_weight", few, grad, 3, **given)
    assert (plan.kernel, plan.skip) == ("gradient_spikes", "input")
    grad[..., :62] = 0
    assert sc.plan("conv2d_backward_weight", many, grad, 3, **given).skip == "grad_output"


def test_plan_of_a_shape_that_fits_two_layouts():
    spikes, weight = np.ones((1, 8, 8, 8), bool), np.ones((4, 8, 3, 3), np.float32)
    for x in forms(spikes).values():
        assert sc.plan("conv2d", x, weight).kernel in ("rows_spikes", "rows_dense", "rows_tiles", "groups_dense")


def test_packed_weights(isa):
    spikes = spikes_of(CASES[0], 0.2)
    weight = whole_numbers((48, 32, 3, 3)) * (np.random.default_rng(1).random((48, 32, 3, 3)) < 0.1)
    expected = sc.conv2d(spikes.astype(np.float32), weight, padding=1)
    packed = sc.pack_weight(weight.astype(np.float32))
    for skip in ("auto", "input", "weight"):
        np.testing.assert_array_equal(sc.conv2d(spikes, packed, padding=1, skip=skip), expected)


def test_prepared_calls():
    case = CASES[0]
    weight = whole_numbers((48, 32, 3, 3))
    for make in (lambda spikes: spikes, sc.pack_spikes):
        prepared = sc.prepare("conv2d", make(spikes_of(case, 0.2)), weight, padding=1)
        for seed in (1, 2):
            spikes = spikes_of(case, 0.3, seed=seed)
            expected = sc.conv2d(spikes.astype(np.float32), weight, padding=1)
            np.testing.assert_array_equal(prepared(make(spikes), weight), expected)
        with pytest.raises(ValueError, match="capsule: got an x of zeros and ones, expected float32"):
            prepared.capsule()


def test_prepared_calls_know_the_shape():
    """As many bits, and a result of the same shape."""
    rng, weight = np.random.default_rng(0), whole_numbers((20, 3, 1, 1))
    tall, wide = (sc.pack_spikes(rng.random(shape) < 0.3) for shape in ((1, 3, 8, 7), (1, 3, 7, 8)))
    prepared = sc.prepare("conv2d", tall, weight, stride=2)
    out = np.full((1, 20, 4, 4), np.float32(7))
    message = re.escape("x: got shape (1, 3, 7, 8), expected (1, 3, 8, 7), as it was prepared with")
    with pytest.raises(ValueError, match=f"^{message}$"):
        prepared(wide, weight, out=out)
    assert (out == 7).all()
    np.testing.assert_array_equal(prepared(tall, weight), sc.conv2d(tall.to_dense(), weight, stride=2))


def test_one_decision(isa, monkeypatch):
    """Another one for the same call could ask for a kernel of floats, which would read beyond bools and bits."""
    spikes, weight = spikes_of(CASES[0], 0.05), whole_numbers((48, 32, 3, 3))
    grad = whole_numbers((2, 48, 9, 8))
    expected = sc.conv2d(spikes, weight, padding=1), sc.conv2d_backward_weight(spikes, grad, 3, padding=1)
    for kind in (Rows, Gradient):
        name = "decide" if kind is Rows else "_decide"
        decide, asked = getattr(kind, name), []

        def counted(self, *rest, decide=decide, asked=asked):
            asked.append(self)
            assert len(asked) == 1
            return decide(self, *rest)

        monkeypatch.setattr(kind, name, counted)
        given = {"padding": 1, "skip": "input"}
        for x in (spikes, sc.pack_spikes(spikes)):
            asked.clear()
            if kind is Rows:
                np.testing.assert_array_equal(sc.conv2d(x, weight, **given), expected[0])
            else:
                np.testing.assert_array_equal(sc.conv2d_backward_weight(x, grad, 3, **given), expected[1])
            assert asked


def test_other_libraries_bools():
    torch = pytest.importorskip("torch")
    spikes = spikes_of(CASES[0], 0.3)
    weight = whole_numbers((48, 32, 3, 3))
    np.testing.assert_array_equal(
        sc.conv2d(torch.from_numpy(spikes), weight, padding=1), sc.conv2d(spikes, weight, padding=1)
    )


def test_nothing_to_sum():
    weight, bias = np.ones((4, 3, 1, 1), np.float32), np.arange(4, dtype=np.float32)
    spikes = np.ones((0, 3, 5, 5), bool)
    assert sc.conv2d(spikes, weight, bias).shape == (0, 4, 5, 5)
    assert not sc.conv2d_backward_weight(spikes, np.ones((0, 4, 5, 5), np.float32), 1).any()


def test_spikes_as_a_mask():
    spikes = spikes_of(CASES[0], 0.3)
    x, weight = np.where(spikes, np.float32(2), np.float32(0)), whole_numbers((48, 32, 3, 3))
    np.testing.assert_array_equal(
        sc.conv2d(x, weight, padding=1, input_mask=sc.pack_spikes(spikes)), sc.conv2d(x, weight, padding=1)
    )


def test_the_class():
    spikes = spikes_of(CASES[5], 0.4)
    made = sc.pack_spikes(spikes.astype(np.float32) * 3)
    assert (made.shape, made.ndim, made.nbytes) == (spikes.shape, 4, -(-spikes.size // 8))
    np.testing.assert_array_equal(made.to_dense(), spikes)
    bits = masks.pack(spikes)
    assert np.shares_memory(sc.Spikes(bits, spikes.shape).bits, bits)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x, w: sc.conv2d(x, w.astype(np.float64)), TypeError, "weight: got dtype float64, expected float32"),
        (lambda x, w: sc.conv2d(x, w, input_mask=x), ValueError, "input_mask: got one with an x of zeros and ones"),
        (lambda x, w: sc.conv2d(x, w, threshold=0.5), ValueError, "threshold: got 0.5, expected 0 with an x of zeros"),
        (lambda x, w: sc.conv_transpose2d(x, w.swapaxes(0, 1)), TypeError, "x: got dtype bool, expected float32"),
        (lambda x, w: sc.conv_transpose2d(sc.pack_spikes(x), w), TypeError, "x: got a Spikes, expected an array (to"),
        (lambda x, w: sc.conv2d(x, w.astype(bool)), TypeError, "weight: got dtype bool, expected float32"),
        (lambda x, w: sc.conv2d(x.view(np.uint8), w), TypeError, "x: got dtype uint8, expected float32 or float64"),
        (lambda x, w: sc.conv2d(x[:, :2], w), ValueError, "x: got shape"),
        (lambda x, w: sc.conv2d_backward_weight(x, x, 3), TypeError, "grad_output: got dtype bool, expected"),
        (lambda x, w: sc.Spikes(masks.pack(x), (3, 3)), ValueError, "bits: got shape"),
        (lambda x, w: sc.Spikes(x, x.shape), TypeError, "bits: got dtype bool, expected uint8"),
        (lambda x, w: sc.Spikes(masks.pack(x), (1, -1)), ValueError, "shape: got -1"),
        (lambda x, w: sc.Spikes(masks.pack(x), 75), TypeError, "shape: got int, expected a tuple"),
    ],
)
def test_errors(call, error, message):
    x, weight = np.zeros((1, 3, 5, 5), bool), np.ones((4, 3, 3, 3), np.float32)
    with pytest.raises(error) as raised:
        call(x, weight)
    assert str(raised.value).startswith(message)


def test_no_floats_are_made(monkeypatch):
    """Bits stay bits: where they are added, no array of floats comes into being."""

    def never(*arguments):
        raise AssertionError("x was converted")

    monkeypatch.setattr(spiking.Spiking, "_with_floats", never)
    spikes = sc.pack_spikes(spikes_of(CASES[0], 0.05))
    y = sc.conv2d(spikes, whole_numbers((48, 32, 3, 3)), padding=1)
    sc.conv2d_backward_weight(spikes, y, 3, padding=1)
    assert np.mean(y != 0) > 0.5
