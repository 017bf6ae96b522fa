"""Transposed convolutions and their gradients, on every instruction set."""

import numpy as np
import pytest
from cases import PASSES, SKIPS, SPARSITIES, TRANSPOSED, TRANSPOSED_CASES, call, cases, prepared
from comparisons import assert_exact, check_bias_and_activation, check_drawn, check_exact, check_floats
from hypothesis import given
from hypothesis import strategies as st

import sparseconv
from sparseconv import reference


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("case", TRANSPOSED_CASES, ids=str)
def test_exact(isa, case, name):
    check_exact(sparseconv, case, name)


@pytest.mark.parametrize("name", PASSES)
@given(
    case=cases(transposed=True),
    sparsity=st.sampled_from(SPARSITIES),
    skip=st.integers(0, 3),
    seed=st.integers(0, 99),
)
def test_any_geometry(isa, name, case, sparsity, skip, seed):
    check_drawn(sparseconv, case, name, sparsity, SKIPS[name][skip % len(SKIPS[name])], seed)


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("case", TRANSPOSED[:5], ids=str)
def test_floats(isa, case, name):
    check_floats(sparseconv, case, name)


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("case", TRANSPOSED_CASES[1::3], ids=str)
def test_bias_and_activation(isa, case, activation):
    check_bias_and_activation(sparseconv, case, activation)


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("case", TRANSPOSED_CASES[::4], ids=str)
def test_out_and_float64(isa, case, name):
    first, second, expected = prepared(case, name, 0.5)
    out = np.full(expected.shape, 99, np.float32)
    assert call(sparseconv, case, name, first, second, out=out) is out
    assert_exact(out, expected)
    wide = call(sparseconv, case, name, first.astype(np.float64), second.astype(np.float64))
    assert_exact(wide, expected.astype(np.float64))


# (x, kernel, stride, padding, dilation, output_padding): results that are there thanks to output_padding alone
ONLY_BY_OUTPUT_PADDING = [
    ((1, 5), (3, 1), (3, 1), (2, 0), 1, (2, 0)),
    ((1, 1), (1, 1), (4, 5), (1, 2), 1, (3, 4)),
    ((2, 3), (1, 2), (2, 1), ((2, 1), (0, 0)), 1, (1, 0)),
    ((1, 2), (2, 1), (1, 1), (3, 0), (6, 1), (4, 0)),
    ((1, 3), (1, 1), (3, 1), (1, 0), 1, (1, 0)),  # no rows at all
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NCHW16c"])
@pytest.mark.parametrize("size, kernel, stride, padding, dilation, output_padding", ONLY_BY_OUTPUT_PADDING)
def test_both_gradients_take_what_output_padding_made(
    size, kernel, stride, padding, dilation, output_padding, layout, dtype
):
    random = np.random.default_rng(3)
    shape = {"NCHW": (2, 16, *size), "NHWC": (2, *size, 16), "NCHW16c": (2, 1, *size, 16)}[layout]
    x, weight = random.integers(-3, 4, shape).astype(dtype), random.integers(-3, 4, (16, 16, *kernel)).astype(dtype)
    words = {"stride": stride, "padding": padding, "dilation": dilation, "layout": layout}
    y = sparseconv.conv_transpose2d(x, weight, output_padding=output_padding, **words)
    assert_exact(y, reference.conv_transpose2d(x, weight, output_padding=output_padding, **words))
    grad = random.integers(-3, 4, y.shape).astype(dtype)
    needed, mask = x > 0, weight > 0
    for keywords in ({}, {"skip": "grad_output"}, {"output_mask": needed}):
        got = sparseconv.conv_transpose2d_backward_data(grad, weight, x.shape, **words, **keywords)
        assert_exact(got, reference.conv_transpose2d_backward_data(grad, weight, x.shape, **words, **keywords))
        assert sparseconv.plan("conv_transpose2d_backward_data", grad, weight, x.shape, **words, **keywords).kernel
    for keywords in ({}, {"skip": "input"}, {"skip": "grad_output"}, {"output_mask": mask}):
        got = sparseconv.conv_transpose2d_backward_weight(x, grad, kernel, **words, **keywords)
        assert_exact(got, reference.conv_transpose2d_backward_weight(x, grad, kernel, **words, **keywords))
        assert sparseconv.plan("conv_transpose2d_backward_weight", x, grad, kernel, **words, **keywords).kernel
    packed = sparseconv.pack_weight(weight)
    got = sparseconv.conv_transpose2d_backward_data(grad, packed, x.shape, **words)
    assert_exact(got, reference.conv_transpose2d_backward_data(grad, weight, x.shape, **words))


@pytest.mark.parametrize("rows", [0, 3, 4])
def test_gradients_of_other_sizes_are_refused(rows):
    """x has one row, the result 3 - 4 + 0..2 rows: none or one."""
    x, weight = np.ones((1, 2, 1, 5), np.float32), np.ones((2, 3, 3, 1), np.float32)
    words = {"stride": (3, 1), "padding": (2, 0)}
    grad = np.ones((1, 3, rows, 5), np.float32)
    calls = [
        lambda: sparseconv.conv_transpose2d_backward_data(grad, weight, x.shape, **words),
        lambda: sparseconv.conv_transpose2d_backward_weight(x, grad, (3, 1), **words),
    ]
    for compute in calls:
        if rows == 0:
            assert not compute().any()
        else:
            with pytest.raises(ValueError, match=r"grad_output: got size .* expected 0 to 1 for an input of size 1"):
                compute()


def test_padding_beyond_every_output_padding_is_refused():
    x, weight = np.ones((1, 2, 1), np.float32), np.ones((2, 3, 1), np.float32)
    with pytest.raises(ValueError, match=r"padding: got .* expected at most 1 in all"):
        sparseconv.conv_transpose1d(x, weight, stride=2, padding=4)
    with pytest.raises(ValueError, match=r"grad_output: .* padding is larger"):
        sparseconv.conv_transpose1d_backward_data(np.ones((1, 3, 0), np.float32), weight, x.shape, stride=2, padding=4)
