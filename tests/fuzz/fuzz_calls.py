"""Random calls of the public functions: `drawn(seed, index)` makes the same call each time."""


import numpy as np
from fuzz_arrays import (
    chance,
    one_of,
)
from fuzz_convolutions import convolution, linear
from fuzz_functions import channel_mask, compress, grad_bias, nm_mask, of_masks, stochastic, topk, transposable
from fuzz_results import Vacuous

FAMILIES = (
    *[convolution] * 28, *[linear] * 5, *[grad_bias] * 3, *[of_masks] * 3, *[compress] * 2, topk, topk, channel_mask,
    nm_mask, transposable, stochastic,
)  # fmt: skip


def drawn(seed, index):
    """Call number `index` of a seed. Drawn anew until it proves something."""
    for attempt in range(100):
        rng = np.random.default_rng((seed, index, attempt))
        make = one_of(rng, FAMILIES)
        try:
            call = make(rng)
        except Vacuous:
            continue
        if not call.forced or chance(rng, 0.2):
            return call
    raise AssertionError(f"seed {seed}, index {index}: nothing but vacuous calls")
