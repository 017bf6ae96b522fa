"""The family of kernels/outputs/: backward_data of the outputs that a mask needs. Its tasks are those of rows.py."""

from __future__ import annotations

from math import ceil

from . import _cpu, processor
from .blocking import VECTOR_BYTES, ceil_div, even

# The vectors of a patch (one tap x 8, three taps x 2), its weights for up to 64 channels, and the outputs that are
# finished together. The head of outputs/row.h has the figures.
PATCH_VECTORS = 8
READ_VECTORS = 8  # of each tap, where registers hold no patch
TILE_BYTES = 32 * 1024
CHUNK_COLUMNS = 512


def holds_patch() -> bool:
    """Whether registers hold a patch of outputs/row.h beside four sums."""
    accumulators, _, _ = _cpu.registers()
    return accumulators >= PATCH_VECTORS + 4


def tile(channels: int, vectors: int, taps: int) -> tuple[int, int]:
    """(lane vectors, channels) of a block of weights."""
    in_vectors = even(ceil_div(channels, 16), PATCH_VECTORS // taps if holds_patch() else READ_VECTORS)
    fits = TILE_BYTES // (taps * in_vectors * VECTOR_BYTES)
    return even(vectors, min(4, max(1, fits // 16))), 16 * in_vectors


def costs(channels: int, taps: int) -> tuple[float, float]:
    """(for each needed output, fixed) of a kernel of sums over so many channels and taps, as of `Bound`.

    Lanes added up, the mask read and zeros written weigh more where an output is a short sum. Zen 4: 0.1 for 3x3
    layers, 0.25 for one tap of 64 channels; 1.35 is AVX2, which loads five vectors for four multiply-adds. Beside two
    512-bit multiply-adds a cycle they weigh more; Zen 5, one tap of 64, 128, 256 channels and nine of 64: 0.77, 0.46,
    0.3, 0.23. With Zen 4's, "auto" took 1.2 times the dense time for half of 256 channels from 64.
    """
    each, vectors = processor.slope() * (1 if holds_patch() else 1.35), ceil(channels / 16) * taps
    short = 1 / (2 + vectors) if processor.vector_cycles() == 1 else 3 / (0.5 + vectors)
    return each, 0.1 + short
