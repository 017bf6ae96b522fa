"""The gradients with respect to weight and bias, on every instruction set."""

import numpy as np
import pytest
from cases import (
    CASES,
    FEW_CASES,
    LAYOUTS,
    SKIPS,
    SPARSITIES,
    assert_not_vacuous,
    call,
    cases,
    in_layout,
    operands,
    oracle,
    sparse_floats,
    sparse_ints,
    to_layout,
)
from comparisons import assert_exact, assert_within_bound, check_drawn, check_exact, check_floats, check_out
from hypothesis import given
from hypothesis import strategies as st

import sparseconv
from sparseconv import reference


@pytest.mark.parametrize("case", CASES, ids=str)
def test_exact(isa, case):
    check_exact(sparseconv, case, "backward_weight")


@given(
    case=cases(),
    sparsity=st.sampled_from(SPARSITIES),
    skip=st.sampled_from(SKIPS["backward_weight"]),
    seed=st.integers(0, 99),
)
def test_any_geometry(isa, case, sparsity, skip, seed):
    check_drawn(sparseconv, case, "backward_weight", sparsity, skip, seed)


@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_floats(isa, case):
    check_floats(sparseconv, case, "backward_weight")


@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_out(isa, case):
    check_out(sparseconv, case, "backward_weight")


@pytest.mark.parametrize("sparse", ["input", "grad_output"])
def test_one_operand_sparse(isa, sparse):
    """Each operand alone is sparse, and the zeros of either one, or none, are exploited."""
    x = sparse_ints((2, 33, 5, 17), 0.8 if sparse == "input" else 0, 1)
    grad_output = sparse_ints((2, 40, 5, 17), 0.8 if sparse == "grad_output" else 0, 2)
    expected = reference.conv2d_backward_weight(x, grad_output, 3, padding=1)
    assert_not_vacuous(expected)
    for skip in SKIPS["backward_weight"]:
        actual = sparseconv.conv2d_backward_weight(x, grad_output, 3, padding=1, skip=skip)
        assert_exact(actual, expected, f"skip={skip!r}")


def test_ways_to_say_the_kernel_size():
    x, grad_output = sparse_ints((2, 6, 5, 7), 0.3, 1), sparse_ints((2, 4, 3, 5), 0.3, 2)
    expected = reference.conv2d_backward_weight(x, grad_output, 3, groups=2)
    for kernel_size in (3, np.int64(3), (3, 3), [3, 3], (4, 3, 3, 3)):
        assert_exact(sparseconv.conv2d_backward_weight(x, grad_output, kernel_size, groups=2), expected)


def test_blocked_without_channel_counts(isa):
    """Without the full shape of the weight all lanes of a blocked layout are channels."""
    x, grad_output = sparse_ints((2, 32, 5, 7), 0.3, 1), sparse_ints((2, 48, 3, 5), 0.3, 2)
    expected = reference.conv2d_backward_weight(x, grad_output, 3)
    blocked = to_layout(x, "NCHW16c"), to_layout(grad_output, "NCHW16c")
    assert_exact(sparseconv.conv2d_backward_weight(*blocked, 3, layout="NCHW16c"), expected)


@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_float64(case):
    first, second = (array.astype(np.float64) + 1e-10 for array in operands(case, "backward_weight", 0.0))
    actual = call(sparseconv, case, "backward_weight", *in_layout(case, "backward_weight", first, second))
    expected = oracle(case, "backward_weight", first, second)
    np.testing.assert_allclose(actual, expected, rtol=1e-13, atol=1e-11, strict=True)


def test_empty_batch_gives_zeros(isa):
    out = np.full((5, 3, 3, 3), np.nan, np.float32)
    x, grad_output = np.zeros((0, 3, 4, 4), np.float32), np.zeros((0, 5, 2, 2), np.float32)
    for skip in SKIPS["backward_weight"]:
        sparseconv.conv2d_backward_weight(x, grad_output, 3, skip=skip, out=out)
        assert_exact(out, np.zeros_like(out), f"skip={skip!r}")


@pytest.mark.parametrize("channels", [1, 15, 16, 17, 33, 64])
def test_grad_bias(isa, channels):
    for ndim, layouts in LAYOUTS.items():
        grads = sparse_ints((3, channels, *(2, 3, 35)[-ndim:]), 0.4, ndim)
        expected = grads.sum((0, *range(2, grads.ndim)))
        for layout in layouts[: 3 if channels % 16 == 0 else 2]:
            actual = sparseconv.grad_bias(to_layout(grads, layout), layout=layout)
            assert_exact(actual, expected, layout)
    rows = sparse_ints((35, channels), 0.4, 5)
    out = np.full(channels, 99, np.float32)
    assert sparseconv.grad_bias(rows, layout="NC", out=out) is out
    assert_exact(out, rows.sum(0))


def test_grad_bias_floats(isa):
    grads = sparse_floats((3, 17, 20, 20), 0.3, 1)
    wide = grads.astype(np.float64)
    magnitude = np.abs(wide).sum((0, 2, 3))
    assert_within_bound(sparseconv.grad_bias(grads), wide.sum((0, 2, 3)), magnitude, 1200)
    np.testing.assert_allclose(sparseconv.grad_bias(wide), wide.sum((0, 2, 3)), rtol=1e-12, strict=True)


def test_grad_bias_of_an_empty_batch():
    assert_exact(sparseconv.grad_bias(np.zeros((0, 5, 2, 2), np.float32)), np.zeros(5, np.float32))
