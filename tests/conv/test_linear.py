"""Fully connected layers and their gradients, on every instruction set."""

import numpy as np
import pytest
from cases import SKIPS, SPARSITIES, assert_not_vacuous, sparse_floats, sparse_ints
from comparisons import assert_exact, assert_same_bits, assert_within_bound

import sparseconv
from sparseconv import reference

# leading sizes, inputs, outputs
SHAPES = (
    ((1,), 1, 1),
    ((1,), 64, 16),
    ((3,), 15, 17),
    ((2,), 16, 33),
    ((5,), 17, 15),
    ((7,), 130, 72),
    ((17,), 72, 130),
    ((35,), 33, 3),
    ((), 40, 24),
    ((2, 3), 24, 40),
    ((2, 1, 5), 48, 64),
    ((0,), 17, 16),
    ((2, 0), 16, 17),
    ((64,), 200, 10),
)
FUNCTIONS = {"forward": "linear", "backward_data": "linear_backward_data", "backward_weight": "linear_backward_weight"}


def linear_operands(shape, name, sparsity, make=sparse_ints):
    lead, in_c, out_c = shape
    x, grad_output = make((*lead, in_c), sparsity, 1), make((*lead, out_c), sparsity, 2)
    weight = make((out_c, in_c), 0.1, 3)
    return {"forward": (x, weight), "backward_data": (grad_output, weight), "backward_weight": (x, grad_output)}[name]


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_exact(isa, shape, name):
    function, oracle = getattr(sparseconv, FUNCTIONS[name]), getattr(reference, FUNCTIONS[name])
    for sparsity in SPARSITIES:
        arrays = linear_operands(shape, name, sparsity)
        expected = oracle(*arrays)
        if sparsity == 0 and expected.size > 1 and 0 not in shape[0]:
            assert_not_vacuous(expected)
        for skip in SKIPS[name]:
            assert_exact(function(*arrays, skip=skip), expected, f"sparsity={sparsity} skip={skip!r}")
            out = np.full(expected.shape, 99, np.float32)
            assert function(*arrays, skip=skip, out=out) is out
            assert_exact(out, expected, f"out sparsity={sparsity} skip={skip!r}")


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("shape", [((35,), 130, 33), ((2, 7), 64, 72)], ids=str)
def test_floats(isa, shape, name):
    function, oracle = getattr(sparseconv, FUNCTIONS[name]), getattr(reference, FUNCTIONS[name])
    arrays = linear_operands(shape, name, 0.5, sparse_floats)
    wide = [array.astype(np.float64) for array in arrays]
    exact, magnitude = oracle(*wide), oracle(*map(np.abs, wide))
    lead, in_c, out_c = shape
    terms = {"forward": in_c, "backward_data": out_c, "backward_weight": np.prod(lead)}[name]
    for skip in SKIPS[name]:
        assert_within_bound(function(*arrays, skip=skip), exact, magnitude, terms, f"skip={skip!r}")
    np.testing.assert_allclose(function(*wide), exact, rtol=1e-12, atol=1e-12, strict=True)


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bias_and_activation(isa, shape, activation):
    x, weight = linear_operands(shape, "forward", 0.5)
    bias = sparse_ints((shape[2],), 0.2, 7)
    expected = reference.linear(x, weight, bias, activation=activation)
    for skip in SKIPS["forward"]:
        actual = sparseconv.linear(x, weight, bias, activation=activation, skip=skip)
        assert_exact(actual, expected, f"skip={skip!r}")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_strides(isa, name):
    """Transposed, reversed and gapped operands are used as they are."""
    arrays = linear_operands(((9,), 33, 18), name, 0.4)
    function, expected = getattr(sparseconv, FUNCTIONS[name]), getattr(reference, FUNCTIONS[name])(*arrays)
    for view in (
        lambda array: np.asfortranarray(array),
        lambda array: array[::-1, ::-1].copy()[::-1, ::-1],
        lambda array: np.repeat(array, 2, axis=1)[:, ::2],
        lambda array: np.repeat(array, 3, axis=0)[::3],
    ):
        assert_exact(function(*map(view, arrays)), expected)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_same_bits_for_any_number_of_threads(isa, name):
    arrays = linear_operands(((70,), 130, 72), name, 0.5, sparse_floats)
    function = getattr(sparseconv, FUNCTIONS[name])
    for skip in SKIPS[name]:
        serial = function(*arrays, skip=skip, num_threads=1)
        for num_threads in (2, 3, 4, 7):
            assert_same_bits(function(*arrays, skip=skip, num_threads=num_threads), serial)
