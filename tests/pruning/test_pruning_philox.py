"""The random numbers of stochastic pruning: known answers of Philox, and what uniform numbers must look like."""

import itertools
import math

import numpy as np
import pytest
from stochastic_oracle import assert_normal, key_of, philox, words

ITEM = 1 << 15  # elements of a work item of the kernel


@pytest.mark.parametrize(
    "rounds, counter, key, output",
    [
        (7, "00000000 00000000 00000000 00000000", "00000000 00000000", "5f6fb709 0d893f64 4f121f81 4f730a48"),
        (7, "ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "5207ddc2 45165e59 4d8ee751 8c52f662"),
        (10, "00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        (10, "ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ],
)
def test_known_answers(rounds, counter, key, output):
    """Philox4x32 gives what its authors' library, Random123, gives; and the kernel draws what this Philox gives."""
    numbers = [[int(word, 16) for word in text.split()] for text in (counter, key, output)]
    assert [int(word) for word in philox(*numbers[:2], rounds)] == numbers[2]


def chi_square_score(counts, expectation):
    """The chi-square statistic of counts as a standard normal number (Wilson and Hilferty, 1931)."""
    freedom = counts.size - 1
    statistic = ((counts - expectation) ** 2 / expectation).sum()
    spread = 2 / (9 * freedom)
    return ((statistic / freedom) ** (1 / 3) - 1 + spread) / math.sqrt(spread)


def centred(size, key, start=0):
    """Random numbers of mean zero and variance one."""
    return (words(size, key, start).astype(np.float64) + 0.5) * (math.sqrt(12) * 2**-32) - math.sqrt(3)


def test_distribution_of_words():
    """Each bit is set half of the time; bytes, pairs of neighbours and moments are those of uniform numbers."""
    size, scores = 1 << 20, []
    for key in (0, 1, key_of(0)):
        drawn = words(size, key)
        bits = [np.count_nonzero(drawn >> bit & 1) for bit in range(32)]
        scores += [(2 * count - size) / math.sqrt(size) for count in bits]
        scores += [
            chi_square_score(np.bincount(drawn >> shift & 255, minlength=256), size / 256) for shift in (9, 16, 24)
        ]
        pairs = (drawn[::2] >> 27) * np.uint32(32) + (drawn[1::2] >> 27)
        scores.append(chi_square_score(np.bincount(pairs, minlength=1024), size / 2 / 1024))
        x = centred(size, key)
        scores += [
            x.sum() / math.sqrt(size),
            (x**2 - 1).sum() / math.sqrt(size * 0.8),
            (x**3).sum() / math.sqrt(size * 27 / 7),
        ]
    assert_normal(scores)


def test_words_of_different_places_and_keys_are_unrelated():
    """Correlations over lags, over parts of a large array, over keys that follow one another or differ in one bit."""
    size, key = 1 << 18, key_of(1)
    x = centred(size, key)
    scores = [
        (x[lag:] * x[:-lag]).sum() / math.sqrt(size - lag) for lag in (1, 2, 3, 8, 15, 16, 17, 31, 32, 33, 64, ITEM)
    ]
    scores += [
        (x * centred(size, key, start)).sum() / math.sqrt(size) for start in (1 << 20, 1 << 34, 1 << 37, 1 << 45)
    ]
    few = x[: 1 << 14]
    others = [key + 1, *(key ^ 1 << bit for bit in range(64))]
    scores += [(few * centred(few.size, other)).sum() / math.sqrt(few.size) for other in others]
    rng = np.random.default_rng(2)
    drawn = np.stack([centred(few.size, int(rng.integers(2**64, dtype=np.uint64))) for _ in range(20)])
    scores += [(one * two).sum() / math.sqrt(few.size) for one, two in itertools.pairwise(drawn)]
    assert_normal(scores)
