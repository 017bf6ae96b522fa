"""What the tests of `output_mask` of backward_data share: cases, masks of every kind, results under them."""

import functools

import numpy as np
from cases import Case, prepared, to_layout

NAME = "backward_data"
SKIPS = ("auto", "none", "grad_output", "weight", "output")
KINDS = ("float", "bool", "bits")
DENSITIES = (0.0, 0.1, 0.5, 0.9, 1.0)
CANARY = np.float32(-7777)

# Both sides of what outputs/outputs.h cuts a problem into: words of 64 channels of the result, patches of up to 8
# vectors of channels of grad_output, rows in segments of 512 columns, chunks of rows, weights packed ahead or for each.
BLOCK_CASES = (
    Case(1, 300, (3, 7), (3, 3), padding=1),
    Case(300, 1, (2, 3), (3, 3), batch=1, padding=1),
    Case(63, 65, (4, 14), (3, 3), padding=1),
    Case(65, 63, (3, 57), (1, 1), kind=1),
    Case(64, 64, (7, 7), (3, 3), batch=5, padding=1, kind=1),
    Case(130, 64, (2, 14), (3, 3), batch=5, stride=2, padding=1, kind=1),
    Case(300, 130, (2, 2), (1, 1), batch=5, kind=1),
    Case(130, 300, (1, 7), (1, 7), padding=(0, 3)),
    Case(65, 17, (9, 7), (5, 5), padding=2, kind=2),
    Case(17, 64, (9, 9), (7, 7), padding=3, kind=1),
    Case(64, 48, (5, 1), (3, 3), padding=1, kind=1),
    Case(64, 48, (5, 2), (2, 2), padding=((0, 2), (2, 1))),
    Case(65, 16, (5, 14), (3, 2), stride=2, padding="same", kind=1),
    Case(48, 65, (9, 16), (3, 3), stride=3, dilation=2, padding=2, kind=1),
    Case(64, 32, (5, 16), (2, 3), dilation=3, padding="same"),
    Case(130, 96, (5, 7), (3, 3), groups=2, padding=1, kind=1),
    Case(128, 66, (5, 7), (1, 1), groups=2),
    Case(17, 16, (1, 1100), (1, 3), batch=1, padding=(0, 1)),  # rows longer than a segment
    Case(16, 32, (2, 1100), (2, 2), stride=(1, 2), kind=1),
    Case(33, 17, (1500,), (3,), dilation=3, padding=((0, 4),), kind=1),
    Case(40, 16, (24, 57), (1, 1), kind=1),  # one row of all positions
    Case(80, 48, (30, 57), (3, 3), padding=1, kind=1),  # several chunks; weights packed ahead
    Case(130, 34, (40, 29), (3, 3), groups=2, padding=1),
)


def forward_input(shape, density, seed):
    """What a mask is made of: some of the zeros are -0.0, some of the nonzeros NaN, infinite or tiny."""
    rng = np.random.default_rng((seed, 4))
    zeros = rng.choice(np.float32([0.0, -0.0]), shape)
    others = rng.choice(np.float32([1, -2, 0.5, np.nan, np.inf, 1.2e-38]), shape)
    return np.where(rng.random(shape) < density, others, zeros)


def as_kind(floats, kind):
    """The same mask as floats, bools or bits."""
    if kind == "float":
        return floats
    return floats != 0 if kind == "bool" else np.packbits(floats != 0, bitorder="little")


def times_mask(result, floats):
    """What a mask means, written independently of the oracle."""
    return np.where(floats == 0, np.float32(0), result)


@functools.lru_cache(maxsize=1024)
def masked(case, density, sparsity=0.3, seed=0):
    """(grad_output, weight, mask as floats, expected) in the layout of the case; lanes without a channel are needed."""
    first, second, whole = prepared(case, NAME, sparsity, seed)
    floats = to_layout(forward_input(case.x_shape, density, seed), case.layout, pad=np.nan)
    expected = times_mask(whole, floats)
    for array in (floats, expected):
        array.flags.writeable = False
    return first, second, floats, expected


def assert_masked(actual, floats, message=""):
    """+0.0 wherever the mask is zero."""
    assert not np.ascontiguousarray(actual).view(np.uint32)[floats == 0].any(), message


def nhwc_memory(array):
    """Channels last in memory."""
    return np.ascontiguousarray(np.moveaxis(array, 1, -1)).transpose(0, array.ndim - 1, *range(1, array.ndim - 1))
