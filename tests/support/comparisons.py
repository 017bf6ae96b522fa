"""Comparisons of results: exact, bit for bit, within the error bound; and checks of a whole case."""

import numpy as np
from cases import SKIPS, SPARSITIES, call, in_layout, operands, oracle, prepared, sparse_floats, sparse_ints

UNIT = 2.0**-24  # unit roundoff of float32


def assert_exact(actual, expected, message=""):
    assert isinstance(actual, np.ndarray), message
    assert actual.dtype == expected.dtype, message
    assert actual.shape == expected.shape, message
    np.testing.assert_array_equal(actual, expected, err_msg=message)


def assert_same_bits(actual, expected, message=""):
    assert actual.shape == expected.shape, message
    np.testing.assert_array_equal(
        np.ascontiguousarray(actual).view(np.uint32), np.ascontiguousarray(expected).view(np.uint32), err_msg=message
    )


def error_bound(magnitude, terms):
    """|error| of a float32 sum of `terms` products in any order; `magnitude` is the sum of their absolute values."""
    return (terms + 1) * UNIT * magnitude


def assert_within_bound(actual, exact, magnitude, terms, message=""):
    """Compare float32 with float64 results under the proven bound, which must itself mean something."""
    bound = error_bound(magnitude, terms)
    assert actual.dtype == np.float32, message
    assert actual.shape == exact.shape, message
    assert bound.max(initial=0) < np.abs(exact).max(initial=1e-300), f"the tolerance exceeds the values {message}"
    excess = np.abs(actual.astype(np.float64) - exact) - bound
    assert np.all(excess <= 0), f"{np.count_nonzero(~(excess <= 0))} results beyond the bound {message}"


def check_exact(module, case, name):
    """One case of one pass, every sparsity, every way of skipping: equal to the oracle."""
    for sparsity in SPARSITIES:
        first, second, expected = prepared(case, name, sparsity)
        for skip in SKIPS[name]:
            actual = call(module, case, name, first, second, skip=skip)
            assert_exact(actual, expected, f"sparsity={sparsity} skip={skip!r}")


def check_drawn(module, case, name, sparsity, skip, seed):
    """One case of one pass as hypothesis draws it: equal to the oracle."""
    first, second = operands(case, name, sparsity, seed)
    expected = oracle(case, name, first, second)
    assert_exact(call(module, case, name, *in_layout(case, name, first, second), skip=skip), expected)


def check_out(module, case, name):
    """Every element of `out` is written, and it is what is returned."""
    first, second, expected = prepared(case, name, 0.5)
    for skip in SKIPS[name]:
        out = np.full(expected.shape, 99, np.float32)
        assert call(module, case, name, first, second, skip=skip, out=out) is out
        assert_exact(out, expected, f"skip={skip!r}")


def check_bias_and_activation(module, case, activation):
    """forward with a bias, every way of skipping: equal to the oracle."""
    first, second = operands(case, "forward", 0.5)
    bias = sparse_ints((case.out_c,), 0.2, 7)
    expected = oracle(case, "forward", first, second, bias=bias, activation=activation)
    first, second = in_layout(case, "forward", first, second)
    for skip in SKIPS["forward"]:
        actual = call(module, case, "forward", first, second, bias=bias, activation=activation, skip=skip)
        assert_exact(actual, expected, f"skip={skip!r}")


def check_floats(module, case, name, seed=0):
    """One case of one pass on random floats: within the error bound of the float64 result."""
    first, second = operands(case, name, 0.5, seed, sparse_floats)
    wide = first.astype(np.float64), second.astype(np.float64)
    exact = oracle(case, name, *wide)
    magnitude = oracle(case, name, *map(np.abs, wide))
    first, second = in_layout(case, name, first, second)
    for skip in SKIPS[name]:
        actual = call(module, case, name, first, second, skip=skip)
        assert_within_bound(actual, exact, magnitude, case.terms(name), f"skip={skip!r}")
