"""The gradient with respect to the input, on every instruction set."""

import numpy as np
import pytest
from cases import CASES, FEW_CASES, SKIPS, SPARSITIES, call, cases, in_layout, operands, oracle, sparse_ints
from comparisons import assert_exact, check_drawn, check_exact, check_floats, check_out
from hypothesis import given
from hypothesis import strategies as st

import sparseconv
from sparseconv import reference


@pytest.mark.parametrize("case", CASES, ids=str)
def test_exact(isa, case):
    check_exact(sparseconv, case, "backward_data")


@given(
    case=cases(),
    sparsity=st.sampled_from(SPARSITIES),
    skip=st.sampled_from(SKIPS["backward_data"]),
    seed=st.integers(0, 99),
)
def test_any_geometry(isa, case, sparsity, skip, seed):
    check_drawn(sparseconv, case, "backward_data", sparsity, skip, seed)


@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_floats(isa, case):
    check_floats(sparseconv, case, "backward_data")


@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_out(isa, case):
    check_out(sparseconv, case, "backward_data")


@pytest.mark.parametrize("remainder", [0, 1, 2])
def test_input_beyond_the_last_window(isa, remainder):
    """With a stride several input sizes have the same output size; the rows behind the last window get zeros."""
    grad_output, weight = sparse_ints((2, 17, 3, 4), 0.3, 1), sparse_ints((17, 18, 2, 2), 0.1, 2)
    shape = (2, 18, 8 + remainder, 11 + remainder)
    expected = reference.conv2d_backward_data(grad_output, weight, shape, stride=3)
    out = np.full(shape, np.nan, np.float32)
    for skip in SKIPS["backward_data"]:
        sparseconv.conv2d_backward_data(grad_output, weight, shape, stride=3, skip=skip, out=out)
        assert_exact(out, expected, f"skip={skip!r}")


@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_float64(case):
    first, second = (array.astype(np.float64) + 1e-10 for array in operands(case, "backward_data", 0.0))
    actual = call(sparseconv, case, "backward_data", *in_layout(case, "backward_data", first, second))
    expected = oracle(case, "backward_data", first, second)
    np.testing.assert_allclose(actual, expected, rtol=1e-13, atol=1e-12, strict=True)


@pytest.mark.parametrize("channel", [0, 15, 16, 63, 64, 79])
def test_single_nonzero(isa, channel):
    """One nonzero gradient anywhere gives a mirrored copy of the weights around it."""
    weight = sparse_ints((80, 17, 3, 3), 0, 1)
    for row, column in ((0, 0), (1, 16), (2, 33), (0, 34)):
        grad_output = np.zeros((1, 80, 3, 35), np.float32)
        grad_output[0, channel, row, column] = 2
        expected = reference.conv2d_backward_data(grad_output, weight, (1, 17, 3, 35), padding=1)
        for skip in SKIPS["backward_data"]:
            actual = sparseconv.conv2d_backward_data(grad_output, weight, (1, 17, 3, 35), padding=1, skip=skip)
            assert_exact(actual, expected, f"{row},{column} skip={skip!r}")


@pytest.mark.parametrize("layout", ["NCW", "NWC"])
@pytest.mark.parametrize("skip", ["none", "grad_output"])
def test_gaps_of_long_rows(isa, skip, layout):
    """Columns that no gradient reaches are zeros in every piece of a row, of which there are many here."""
    grads, weight = sparse_ints((1, 16, 20000), 0.5, 1), sparse_ints((16, 24, 1), 0, 2)
    expected = np.zeros((1, 24, 60000), np.float32)
    expected[..., ::3] = np.einsum("nkw,kc->ncw", grads, weight[..., 0])
    axes = (0, 1, 2) if layout == "NCW" else (0, 2, 1)
    grads, expected = np.ascontiguousarray(grads.transpose(axes)), expected.transpose(axes)
    out = np.full(expected.shape, np.nan, np.float32)
    shape, words = expected.shape, {"stride": 3, "layout": layout, "skip": skip, "out": out}
    sparseconv.conv1d_backward_data(grads, weight, shape, **words)
    assert_exact(out, expected)
