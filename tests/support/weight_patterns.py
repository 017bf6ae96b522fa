"""Weights of small integers with zeros in the patterns that pruning leaves."""

import numpy as np
from cases import sparse_ints


def unstructured(shape, density, seed=3):
    return sparse_ints(shape, 1 - density, (seed, 3))


def whole_slices(shape, density, seed=3):
    """All taps of an (out, in) channel pair are zeros, or none is."""
    kept = np.random.default_rng(seed).random(shape[:2]) < density
    return sparse_ints(shape, 0, (seed, 3)) * kept.reshape(*shape[:2], *[1] * (len(shape) - 2)).astype(np.float32)


def of_four(shape, density, seed=3):
    """N:M: a fixed share of each four neighbours along the in channels."""
    order = np.random.default_rng(seed).random((shape[0], -(-shape[1] // 4) * 4, *shape[2:]))
    ranks = order.reshape(shape[0], -1, 4, *shape[2:]).argsort(2).argsort(2).reshape(order.shape)[:, : shape[1]]
    return sparse_ints(shape, 0, (seed, 3)) * (ranks < round(4 * density)).astype(np.float32)


PATTERNS = {"unstructured": unstructured, "slices": whole_slices, "n:m": of_four}
