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
    check_bias_and_activation,
    check_drawn,
    check_exact,
    check_floats,
    prepared,
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
