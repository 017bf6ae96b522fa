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
# The same for several taps where L1 holds more (processor.py): half as many sums of lanes for as many multiply-adds.
# Emerald Rapids, avx512, times of 8 vectors and 32 KB over these at 50, 80 and 90% zeros: 64,64,56 1.13, 1.14, 1.16;
# 128,128,28 1.08, 1.14, 1.13; 256,256,14 1.23, 1.34, 1.23; 512,512,7 1.22, 1.23, 1.27; 256,256,28/2 1.02, 1.01, 0.97.
# 24 vectors, for words of 32 channels, had less: 1.10, 1.08 and 1.02 on the mean of these. One tap gains nothing: 0.98
# to 1.00 in 512,256,28.
LONG_PATCH_VECTORS, LONG_TILE_BYTES = 12, 48 * 1024
CHUNK_COLUMNS = 512


def holds_patch() -> bool:
    """Whether registers hold a patch of outputs/row.h beside four sums."""
    accumulators, _, _ = _cpu.registers()
    return accumulators >= PATCH_VECTORS + 4


def tile(channels: int, vectors: int, taps: int) -> tuple[int, int]:
    """(lane vectors, channels) of a block of weights."""
    long = taps > 1 and holds_patch() and processor.prefers_long_words()
    patch, room = (LONG_PATCH_VECTORS, LONG_TILE_BYTES) if long else (PATCH_VECTORS, TILE_BYTES)
    in_vectors = even(ceil_div(channels, 16), patch // taps if holds_patch() else READ_VECTORS)
    fits = room // (taps * in_vectors * VECTOR_BYTES)
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
