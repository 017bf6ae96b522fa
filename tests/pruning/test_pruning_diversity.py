"""Numbers of masks: those of the paper, and the exact ones."""

import itertools
import math

import numpy as np
import pytest

from sparseconv.pruning import mask_diversity, unstructured_to_nm


def test_numbers_of_an_8x8_block():
    """Hubara et al.'s formulas for 64 weights."""
    assert f"{mask_diversity(64):.1e}" == "1.8e+18"
    assert f"{mask_diversity(64, 4, 8):.1e}" == "5.8e+14"
    assert f"{mask_diversity(64, 2, 4):.1e}" == "2.8e+12"
    assert f"{mask_diversity(64, 4, 8, transposable=True):.2e}" == "1.76e+13"
    assert f"{mask_diversity(64, 2, 4, transposable=True):.1e}" == "4.3e+08"
    assert mask_diversity(16, 2, 4, transposable=True) == 144


def test_exact_numbers_of_an_8x8_block():
    """The formula counts too many; by the right numbers 4:8 transposable has fewer masks than 2:4."""
    assert mask_diversity(16, 2, 4, transposable=True, exact=True) == 90
    assert mask_diversity(64, 2, 4, transposable=True, exact=True) == 90**4
    assert mask_diversity(64, 4, 8, transposable=True, exact=True) == 116_963_796_250
    assert mask_diversity(64, 4, 8, transposable=True) > mask_diversity(64, 2, 4)
    assert mask_diversity(64, 4, 8, transposable=True, exact=True) < mask_diversity(64, 2, 4)


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_exact_numbers_by_counting(m):
    matrices = np.array(list(itertools.product((0, 1), repeat=m * m))).reshape(-1, m, m)
    for n in range(1, m + 1):
        full = (matrices.sum(axis=1) == n).all(axis=1) & (matrices.sum(axis=2) == n).all(axis=1)
        assert mask_diversity(m * m, n, m, transposable=True, exact=True) == full.sum()


def test_exact_numbers_of_larger_blocks():
    """The sequences A008300 and A058527 of the On-Line Encyclopedia of Integer Sequences."""
    for m, n, number in ((6, 3, 297_200), (5, 2, 2040), (8, 1, 40320), (8, 7, 40320), (10, 5, 6736218287430460752)):
        assert mask_diversity(m * m, n, m, transposable=True, exact=True) == number


def test_exact_is_the_formula_elsewhere():
    for pattern in ((), (2, 4), (3, 8)):
        assert mask_diversity(96, *pattern, exact=True) == mask_diversity(96, *pattern)
    assert mask_diversity(7) == math.comb(7, 3)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: mask_diversity(0), "size: got 0"),
        (lambda: mask_diversity(64, 2), "m: got None"),
        (lambda: mask_diversity(64, None, 4), "n: got None"),
        (lambda: mask_diversity(64, 5, 4), "n: got 5, expected at most m = 4"),
        (lambda: mask_diversity(64, transposable=True), "transposable: got True, expected n and m"),
        (lambda: mask_diversity(63, 2, 4), "size: got 63, expected a multiple of m = 4"),
        (lambda: mask_diversity(24, 2, 4, transposable=True), r"size: got 24, expected a multiple of m \* m = 16"),
        (lambda: mask_diversity(64.0), "size: got 64.0"),
        (lambda: unstructured_to_nm(1.0, 8), r"sparsity: got 1.0, expected at least 0 and less than 1"),
        (lambda: unstructured_to_nm(-0.1, 8), "sparsity: got -0.1"),
        (lambda: unstructured_to_nm(float("nan"), 8), "sparsity: got nan"),
        (lambda: unstructured_to_nm(0.5, 0), "m: got 0"),
        (lambda: unstructured_to_nm(0.5, 8, 1.0), "probability: got 1.0"),
        (lambda: unstructured_to_nm("0.5", 8), "sparsity: got '0.5'"),
    ],
)
def test_errors(call, message):
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        call()


@pytest.mark.parametrize("m", [4, 8, 16, 32])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.8, 0.9, 0.95, 0.999])
def test_unstructured_to_nm(sparsity, m):
    """n covers more than 95% of groups of independent zeros, n - 1 does not: counted."""
    n = unstructured_to_nm(sparsity, m)
    nonzeros = (np.random.default_rng(m).random((200_000, m)) >= sparsity).sum(axis=1)
    assert (nonzeros <= n).mean() > 0.945
    assert n == 1 or (nonzeros <= n - 1).mean() < 0.955
    assert unstructured_to_nm(sparsity, m, 0.5) <= n <= unstructured_to_nm(sparsity, m, 0.999)
