"""Transposed convolutions and their gradients, on every instruction set."""

import numpy as np
import pytest
from helpers import (
    PASSES,
    SKIPS,
    SPARSITIES,
    TRANSPOSED,
    TRANSPOSED_CASES,
    assert_exact,
    call,
    cases,
    check_exact,
    check_floats,
    in_layout,
    operands,
    oracle,
    prepared,
    sparse_ints,
)
from hypothesis import given
from hypothesis import strategies as st

import sparseconv


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
    first, second = operands(case, name, sparsity, seed)
    expected = oracle(case, name, first, second)
    words = SKIPS[name]
    actual = call(sparseconv, case, name, *in_layout(case, name, first, second), skip=words[skip % len(words)])
    assert_exact(actual, expected)


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("case", TRANSPOSED[:5], ids=str)
def test_floats(isa, case, name):
    check_floats(sparseconv, case, name)


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("case", TRANSPOSED_CASES[1::3], ids=str)
def test_bias_and_activation(isa, case, activation):
    first, second = operands(case, "forward", 0.5)
    bias = sparse_ints((case.out_c,), 0.2, 7)
    expected = oracle(case, "forward", first, second, bias=bias, activation=activation)
    first, second = in_layout(case, "forward", first, second)
    for skip in SKIPS["forward"]:
        actual = call(sparseconv, case, "forward", first, second, bias=bias, activation=activation, skip=skip)
        assert_exact(actual, expected, f"skip={skip!r}")


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("case", TRANSPOSED_CASES[::4], ids=str)
def test_out_and_float64(isa, case, name):
    first, second, expected = prepared(case, name, 0.5)
    out = np.full(expected.shape, 99, np.float32)
    assert call(sparseconv, case, name, first, second, out=out) is out
    assert_exact(out, expected)
    wide = call(sparseconv, case, name, first.astype(np.float64), second.astype(np.float64))
    assert_exact(wide, expected.astype(np.float64))
