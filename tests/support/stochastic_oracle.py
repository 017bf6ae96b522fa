"""Stochastic pruning written anew in NumPy: Philox4x32, the rule that draws from it, and tests of random numbers."""

from statistics import NormalDist

import numpy as np


def philox(counter, key, rounds=7):
    """Four arrays of 32-bit words from a counter of four and a key of two words."""
    a, b, c, d = (np.asarray(one, np.uint64) for one in np.broadcast_arrays(*counter))
    half, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    for number in range(rounds):
        first, second = a * np.uint64(0xD2511F53), c * np.uint64(0xCD9E8D57)
        bumped = [
            np.uint64((word + number * step) % 2**32) for word, step in zip(key, (0x9E3779B9, 0xBB67AE85), strict=True)
        ]
        a, b, c, d = (second >> half) ^ b ^ bumped[0], second & low, (first >> half) ^ d ^ bumped[1], first & low
    return a, b, c, d


def words(size, key, start=0):
    """The random words of elements `start` and on."""
    i = np.arange(start, start + size)
    counters, places = np.unique(i // 32 * 8 + i % 16 // 2, return_inverse=True)
    output = np.stack(philox((counters % 2**32, counters >> 32, 0, 0), (key % 2**32, key >> 32)))
    return output[i % 2 + i // 16 % 2 * 2, places].astype(np.uint32)


def uniform(size, key):
    """The random numbers of `size` elements: (k + 1/2) / 2^23, which float32 holds exactly."""
    return ((words(size, key) >> 9).astype(np.float32) + np.float32(0.5)) * np.float32(2**-23)


def expected(g, tau, key):
    """The rule as it is documented; elements in the order of memory."""
    flat = g.ravel(order="K")
    tau, r = flat.dtype.type(tau), uniform(flat.size, key).astype(flat.dtype)
    drawn = np.where(np.abs(flat) > r * tau, np.copysign(tau, flat), 0)
    return np.where(np.abs(flat) < tau, drawn, flat)


def key_of(seed):
    return int(np.random.default_rng(seed).integers(2**64, dtype=np.uint64))


def second_key_of(seed):
    return int(np.random.default_rng(seed).integers(2**64, size=2, dtype=np.uint64)[1])


# Statistical tests: seeds are fixed, so a test passes or fails for good. Whoever changes one meets a false alarm with
# this probability at most: limits are those of a normal distribution, divided among all numbers that a test looks at
# (Bonferroni).
ALARM = 1e-6


def limit(numbers):
    """What standard normal numbers exceed, any of so many, with a probability of ALARM."""
    return NormalDist().inv_cdf(1 - ALARM / (2 * numbers))


def assert_normal(scores):
    scores = np.atleast_1d(scores)
    assert np.isfinite(scores).all()
    assert np.abs(scores).max() < limit(scores.size), scores
