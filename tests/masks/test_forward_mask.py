"""`output_mask` of forward, transposed and linear functions: regions of interest."""

import numpy as np
import pytest
from cases import CASES, FEW_CASES, TRANSPOSED_CASES, call, operands, oracle, sparse_ints, to_layout
from comparisons import assert_exact
from output_masks import BLOCK_CASES, KINDS, as_kind, assert_masked, forward_input, times_mask

import sparseconv as sc
from sparseconv import masks, reference

SKIPS = ("auto", "none", "input", "weight", "output")
ALL = (*CASES[::4], *TRANSPOSED_CASES[::3], *BLOCK_CASES[::2])
DENSITIES = (0.0, 0.1, 0.5, 1.0)


def layer(case, density, relu=True, residual=False):
    """Operands in the layout of the case, options, the mask as floats, and what must come out."""
    x, weight = operands(case, "forward", 0.4)
    words = {"bias": sparse_ints((case.out_c,), 0.2, 9)}
    words |= {"activation": "relu"} if relu else {}
    if residual:
        words["residual"] = 5 * sparse_ints(case.out_shape, 0.3, 8)
    whole = oracle(case, "forward", x, weight, **words)
    if residual:
        words["residual"] = to_layout(words["residual"], case.layout, pad=np.nan)
    floats = to_layout(forward_input(case.out_shape, density, 3), case.layout, pad=np.nan)
    return to_layout(x, case.layout, pad=np.nan), weight, words, floats, times_mask(whole, floats)


@pytest.mark.parametrize("case", ALL, ids=str)
def test_exact(isa, case):
    for index, density in enumerate(DENSITIES):
        x, weight, words, floats, expected = layer(case, density, relu=index % 2 == 0)
        for number, skip in enumerate(SKIPS):
            mask = as_kind(floats, KINDS[(index + number) % 3])
            for threads in (1, 3):
                y = call(sc, case, "forward", x, weight, skip=skip, output_mask=mask, num_threads=threads, **words)
                assert_exact(y, expected, f"{skip} {density}")
                assert_masked(y, floats)
        if density == 1.0 and expected.size > 200:
            assert np.mean(expected != 0) > 0.2


@pytest.mark.parametrize("case", [*FEW_CASES, *ALL[::5]], ids=str)
def test_residuals_and_returned_masks(isa, case):
    x, weight, words, floats, expected = layer(case, 0.3, residual=True)
    for skip in SKIPS[:4]:
        given = {"skip": skip, "output_mask": as_kind(floats, "bits"), **words}
        y, bits = call(sc, case, "forward", x, weight, return_mask=True, **given)
        assert_exact(y, expected, skip)
        np.testing.assert_array_equal(bits, masks.nonzero_mask(y))
    x, weight, words, floats, expected = layer(case, 0.3)
    for skip in SKIPS:
        given = {"skip": skip, "output_mask": as_kind(floats, "bool"), **words}
        y, bits = call(sc, case, "forward", x, weight, return_mask=True, **given)
        assert_exact(y, expected, skip)
        np.testing.assert_array_equal(bits, masks.nonzero_mask(y))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NCHW16c"])
def test_pixels(isa, layout):
    """One value for all channels of a pixel."""
    rng = np.random.default_rng(0)
    x, weight = sparse_ints((2, 20, 9, 8), 0.3, 1), sparse_ints((40, 20, 3, 3), 0, 2)
    pixels = rng.random((2, 9, 8)) < 0.2
    expected = to_layout(sc.conv2d(x, weight, padding=1) * pixels[:, None], layout)
    assert 0.1 < np.mean(expected != 0) < 0.3
    for skip in SKIPS:
        y = sc.conv2d(to_layout(x, layout), weight, padding=1, layout=layout, output_mask=pixels, skip=skip)
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("shape", [(7, 30), (2, 3, 17), (40,)])
def test_linear(isa, shape):
    x, weight, bias = sparse_ints(shape, 0.3, 1), sparse_ints((33, shape[-1]), 0, 2), sparse_ints((33,), 0, 3)
    kept = np.random.default_rng(0).random((*shape[:-1], 33)) < 0.3
    expected = (x @ weight.T + bias) * kept
    assert np.mean(expected != 0) > 0.15
    for skip in SKIPS:
        for mask in (kept, masks.pack(kept), kept.astype(np.float32)):
            np.testing.assert_array_equal(sc.linear(x, weight, bias, skip=skip, output_mask=mask), expected)


def test_spikes(isa):
    spikes = np.random.default_rng(0).random((2, 32, 9, 8)) < 0.2
    weight = sparse_ints((48, 32, 3, 3), 0, 2)
    kept = np.random.default_rng(1).random((2, 48, 9, 8)) < 0.3
    expected = sc.conv2d(spikes.astype(np.float32), weight, padding=1) * kept
    for skip in SKIPS:
        for x in (spikes, sc.pack_spikes(spikes)):
            np.testing.assert_array_equal(sc.conv2d(x, weight, padding=1, output_mask=kept, skip=skip), expected)
    assert np.mean(expected != 0) > 0.2


def test_float64_and_nothing_to_sum():
    rng = np.random.default_rng(0)
    x, weight, bias = rng.random((2, 3, 5, 5)), rng.random((4, 3, 3, 3)), rng.random(4)
    kept = rng.random((2, 4, 5, 5)) < 0.5
    y = sc.conv2d(x, weight, bias, padding=1, output_mask=kept)
    np.testing.assert_array_equal(y, reference.conv2d(x, weight, bias, padding=1) * kept)
    empty, kept, bias = np.zeros((2, 3, 0, 5), np.float32), kept[:, :, :1], bias.astype(np.float32)
    given = {"padding": ((1, 2), (1, 1)), "skip": "auto"}
    y = sc.conv2d(empty, weight.astype(np.float32), bias, output_mask=kept, **given)
    np.testing.assert_array_equal(y, bias[:, None, None] * kept)


def test_weights_that_are_not_finite(isa):
    """A result that nobody needs is zero, whatever it would have been."""
    x, weight = sparse_ints((1, 32, 7, 7), 0, 1), sparse_ints((48, 32, 3, 3), 0, 2)
    weight[5, 3, 1, 1], weight[9] = np.nan, np.inf
    kept = np.random.default_rng(1).random((1, 48, 7, 7)) < 0.3
    whole = sc.conv2d(x, weight, padding=1)
    for skip in SKIPS:
        y = sc.conv2d(x, weight, padding=1, output_mask=kept, skip=skip)
        assert np.isfinite(y[~kept]).all() and not y[~kept].any()
        np.testing.assert_array_equal(np.isfinite(y[kept]), np.isfinite(whole[kept]))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [((1, 1), (3, 3), 1), ((1, 1), (2, 2), 2), ((1, 3), (2, 1), 1), ((1, 4), (3, 2), 1)]
)
def test_results_that_are_what_the_kernel_spans(isa, size, kernel, stride, groups):
    """From a map of one row or column: positions of the result become channels, and the bias is spread over them."""
    x, weight = sparse_ints((2, 16 * groups, *size), 0.3, 1), sparse_ints((16 * groups, 12, *kernel), 0, 2)
    bias, given = sparse_ints((12 * groups,), 0, 3), {"stride": stride, "groups": groups}
    expected = reference.conv_transpose2d(x, weight, bias, **given)
    kept = np.random.default_rng(1).random(expected.shape) < 0.3
    expected = expected * kept
    assert np.mean(expected != 0) > 0.15
    for skip in SKIPS:
        y = sc.conv_transpose2d(x, weight, bias, output_mask=kept, skip=skip, **given)
        np.testing.assert_array_equal(y, expected)


def test_few_results_are_computed_alone(isa):
    x, weight = sparse_ints((1, 64, 6, 10, 10), 0, 1), sparse_ints((64, 64, 3, 3, 3), 0, 2)
    kept = np.zeros((1, 6, 10, 10), bool)
    kept[:, 2:4, 3:6, 3:6] = True
    plan = sc.plan("conv3d", x, weight, padding=1, output_mask=kept)
    assert (plan.kernel, plan.skip) == ("rows_output", "output")
    whole = sc.plan("conv3d", x, weight, padding=1, output_mask=~kept)
    assert whole.skip != "output"
    assert plan.speedup > 4


def test_prepared_calls(isa):
    x, weight = sparse_ints((2, 32, 9, 8), 0.3, 1), sparse_ints((48, 32, 3, 3), 0, 2)
    kept = np.random.default_rng(1).random((2, 48, 9, 8)) < 0.1
    prepared = sc.prepare("conv2d", x, weight, padding=1, output_mask=kept)
    assert prepared.operands == ("x", "weight", "output_mask")
    expected = sc.conv2d(x, weight, padding=1) * ~kept
    np.testing.assert_array_equal(prepared(x, weight, ~kept), expected)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"skip": "output"}, "output_mask: got None, expected a mask with skip='output'"),
        ({"output_mask": np.ones((1, 4, 5, 4), bool)}, "output_mask: got shape"),
        (
            {"output_mask": np.ones((1, 4, 5, 5), bool), "residual": np.ones((1, 4, 5, 5), np.float32),
             "skip": "output"},
            "residual: got one with skip='output', expected none",
        ),
    ],
)  # fmt: skip
def test_errors(words, message):
    x, weight = np.ones((1, 3, 5, 5), np.float32), np.ones((4, 3, 3, 3), np.float32)
    out = np.full((1, 4, 5, 5), np.float32(7))
    with pytest.raises(ValueError) as raised:
        sc.conv2d(x, weight, padding=1, out=out, **words)
    assert str(raised.value).startswith(message)
    assert (out == 7).all()
