"""NaN, infinities and denormals among the operands of a product: what docs/semantics.md says must come out."""

import numpy as np
from fuzz_arrays import one_of

KINDS = ((np.nan,), (np.inf, -np.inf), ("denormal",), (np.nan, np.inf, -np.inf, "denormal", -0.0))


def strange(rng, array):
    """The array with a few elements that are NaN, infinite or denormal; at least one, if it has any."""
    tiny = np.finfo(array.dtype).smallest_subnormal * array.dtype.type(5)
    values = np.array([tiny if value == "denormal" else value for value in one_of(rng, KINDS)], array.dtype)
    there = rng.random(array.shape) < one_of(rng, (0.01, 0.1))
    if there.size:
        there.reshape(-1)[rng.integers(there.size)] = True
    drawn = rng.choice(np.concatenate([values, -values]), array.shape)
    return np.where(there, drawn, array)


def flushed(array):
    """What float32 kernels see: denormals are zeros."""
    return np.where(np.abs(array) < np.finfo(array.dtype).tiny, array.dtype.type(0), array)


def readings(plain, pass_, skip, threshold):
    """Which of the two operands has zeros that contribute nothing, even against infinity: every answer that is right.

    None stands for a dense kernel.
    """
    if plain[0].dtype == np.float64:
        return (None,)
    finite_weights = pass_ == "backward_weight" or np.isfinite(plain[1]).all()
    second = 1 if finite_weights else None
    if skip == "auto":
        return (0,) if threshold else (None, 0, second)
    if skip in ("weight", "grad_output") and (skip == "weight" or pass_ == "backward_weight"):
        return (second,)
    return (None if skip in ("none", "output") else 0,)


def beyond_numbers(compute, first, second, skipped):
    """What the sums of products with NaN and infinity are: NaN, an infinity, or 0 where no such product counts."""
    factors = []
    for place, array in enumerate((first, second)):
        zeros = np.zeros(array.shape, bool) if place == skipped else array == 0
        signs = {"up": array == np.inf, "down": array == -np.inf, "plus": array > 0, "minus": array < 0}
        nan = np.isnan(array)
        factors.append(signs | {"nan": nan, "zero": zeros, "any": nan | zeros | signs["plus"] | signs["minus"]})

    def met(*pairs):
        (a, b), counts = factors, 0
        for one, other in pairs:
            if a[one].any() and b[other].any():
                counts = counts + compute(a[one].astype(np.float64), b[other].astype(np.float64))
        return np.asarray(counts) > 0

    up = met(("up", "plus"), ("down", "minus"), ("plus", "up"), ("minus", "down"))
    down = met(("up", "minus"), ("down", "plus"), ("plus", "down"), ("minus", "up"))
    nan = met(("nan", "any"), ("any", "nan"), ("up", "zero"), ("down", "zero"), ("zero", "up"), ("zero", "down"))
    return np.where(nan | (up & down), np.nan, np.where(up, np.inf, np.where(down, -np.inf, 0.0)))
