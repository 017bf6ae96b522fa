"""What multiply-adds cost on this CPU: the one place that asks who made it. Costs of an instruction set are its own.

`_cpu.slope` and `_cpu.point_vectors` come from the headers of kernels/simd/, where a new instruction set has to say
them.
"""

from __future__ import annotations

from . import _cpu

# In place of the instruction set's: Intel's cores do two 512-bit multiply-adds a cycle, so the loads of a skipping
# kernel cost, which Zen 4 hides. The prototypes on Granite Rapids had 0.63 of dense speed at no zeros.
INTEL_SLOPE = 1.5
# The same of row kernels on AVX-512, with what else a nonzero takes: of one tap, and of several, times the root of the
# longest strand over the mean one, since a nonzero feeds fewer multiply-adds where strands differ (stride 2). Cycles to
# read 16 floats, find what is not zero and pack it. Emerald Rapids, skipping over dense time at 30 to 60% zeros, as
# slope x density + fixed: 3x3 layers 1.27 to 1.45 and 0.07 to 0.16, stride 2 1.57 and 0.2, one tap 1.0 to 1.3 and 0.12
# to 0.23 with values packed, of 128 and 64 filters 1.13 and 0.32, 1.43 and 0.58 (four accumulators: a nonzero takes 3
# cycles). With AVX2, where multiply-adds load less, speed-ups were 1.24 times what INTEL_SLOPE promised.
INTEL_ONE_TAP_SLOPE, INTEL_TAPS_SLOPE, INTEL_AVX2_SLOPE = 1.1, 1.33, 1.2
INTEL_ONE_TAP_CYCLES, INTEL_WORD_CYCLES = 3.0, 12.0
WORD_CYCLES = 6.0  # Zen 4
# The kernel that skips zero weights has its costs in its blocking, in cycles; this is what a dense kernel takes. With
# it, the choices for nine layers at 30 to 90% zeros are within 2% of the best (Zen 4, oneDNN's peak being 1 cycle).
DENSE_CYCLES = 0.95
# Cycles to pack a weight for a kernel with lanes of channels: forward, backward_data of one tap, and of more: what
# counts where few positions use it. Zen 5, from L2: 0.75, 0.9, 4; from memory 1.2 and 1.7.
PACK_CYCLES = (0.75, 0.9, 2.5)
# L1 that holds words of 64 channels, 3 taps and 4 vectors whole. Intel's cores lose about 20 cycles at the mispredicted
# end of a word, beside multiply-adds at 1.4 a cycle: half as many words are worth more than the rest of L1. Granite
# Rapids, avx512, batch 16, 3x3, words of 32 and of 64 channels, times oneDNN at 80 and 90% zeros: 64,64,56 2.04 and
# 2.27, 2.73 and 3.37; 128,128,28 2.16 and 2.34, 3.01 and 3.60; 256,256,14 1.93 and 2.12, 2.40 and 3.09; 512,512,7 2.17
# and 2.47, 2.84 and 3.62; at 50% the same. Zen 5 has as much L1 and loses: a multiply-add with such a tile takes 0.9
# cycles there in the place of 0.53 (bench/cost_model).
LONG_WORD_L1_BYTES = 48 * 1024
# What skipping row kernels do on Intel's cores, where what streams through L1 is dear: a multiply-add with weights from
# L1 takes 0.64 cycles, from L2 1.3 (Emerald Rapids, 2026-12-01; kernels/rows/skip.h has the figures). They read values
# packed side by side from so many uses of a word on: with one, packing costs what it saves. And a sweep takes several
# words of 64 channels where nonzeros are so few that loads and stores of sums outweigh weights from L2: (density,
# words). Time with one word over that with 2 and 4, mean of six layers: 93% zeros 1.01 and 0.95, 95% 1.04 and 1.02, 97%
# 1.10 and 1.13, 99% 1.17 and 1.32; the three of three taps alone 0.99 and 0.97 at 95%, 1.05 and 1.06 at 97%.
PACKED_USES = 2
# Inputs of a chunk, up to half of 2 MB of L2, that are asked for while the chunk before it is computed, in layers of
# one tap and at most two lane blocks: before over after at 50, 90 and 99% zeros 64,64,56 1.08, 1.11, 1.16; 256,64,56
# 1.02, 1.06, 1.24; 64,256,56 1.06, 1.06, 1.01. With chunks of 2 MB 512,128,28 lost, 0.74, 0.82 and 0.94; layers of
# three taps, or of eight lane blocks, had 0.91 to 1.04.
AHEAD_BYTES = 1 << 20
WORDS_TOGETHER = ((0.03, 4), (0.055, 2))
# The dense kernel of backward_weight with one vector of lanes over that with four, on AVX-512 (elsewhere it has one
# anyway), for masks of its result. Zen 4: 1.08, 0.99 and 1.01 (256,256,14, 64,64,56, 128,128,28). Two multiply-adds a
# cycle with a latency of 4 want 8 sums under way, and six channels are 6: 1.33 by this count, not measured.
ONE_VECTOR_COST, TWO_UNITS_ONE_VECTOR_COST = 1.08, 1.35
# At least for a nonzero in a skipping kernel. In rows of one tap the loop over bits bounds it: sums of the next column
# are others. In rows of several taps the next nonzero often waits for the same sums, in gradients always. Zen 5: rows
# of one and two accumulators 1.6 and 2.2 cycles, of three (three taps) 3.0; gradients of two and four 3.9 and 4.1.
# Before this was known, "auto" took twice the dense time for 1x1 layers of 16 and 32 filters at 40% zeros.
ONE_TAP_CYCLES, TAPS_CYCLES, GRADIENT_CYCLES = 2.0, 3.0, 4.0
# The last one, and what is left of slope(), where a gradient is summed from lists (Emerald Rapids, 2026-12-01, avx512):
# 256,256,14 and 64,64,56 at 99 to 50% zeros over the dense kernel: 0.09 and 0.1 + 1.2 x density, 1x1 with 64 lanes
# 0.38 + 1.65 x density, with 512 lanes 0.25 + 1.19 x density.
LISTED_CYCLES, LISTED_SLOPE = 3.0, 0.8


# Emerald Rapids, 2026-12-01, 3x3: of 64 channels weights arrive in time (64,64,56 21.4 ms, asked for 21.7), of more
# they do not (256,256,14 20.5 ms, asked for 18.9).
MOST_CHANNELS_IN_TIME = 64


def _wide() -> bool:
    """Whether vectors are of 512 bits."""
    return _cpu.current() in ("amx_fp16", "amx", "avx512")


def prefers_long_words() -> bool:
    """Whether words of 64 channels pay at any number of nonzeros, and not only where these are few."""
    return _cpu.vendor() == "intel" and _cpu.l1_bytes() >= LONG_WORD_L1_BYTES


def prefers_lists() -> bool:
    """Whether gradients are faster from lists of nonzeros than from words of bits, and L1 holds the blocks for them.

    Measured on Intel Emerald Rapids, 2026-12-01, avx512: kernels/gradient/skip.h.
    """
    return prefers_long_words() and _wide()


def packs_values(uses: int) -> bool:
    """Whether skipping row kernels read copies of what is not zero, where so many sweeps read each word."""
    return _cpu.vendor() == "intel" and uses >= PACKED_USES


def reads_ahead(chunk_bytes: int) -> bool:
    """Whether skipping row kernels ask for the inputs of the next chunk, of that size, instead of the next columns'."""
    return _cpu.vendor() == "intel" and chunk_bytes <= AHEAD_BYTES


def words_together(density: float) -> int:
    """How many words of channels one sweep of a skipping row kernel takes."""
    if _cpu.vendor() != "intel":
        return 1
    return next((words for most, words in WORDS_TOGETHER if density <= most), 1)


def joins_taps(lane_vectors: int, channels: int) -> bool:
    """Whether the dense kernel of rows adds all taps to an output before it takes the next one: the same sums.

    kernels/rows/rows.h and dense.h have the figures of Intel's CPUs, with 2 MB of L2 for the weights of all taps.
    Zen 4 (32 KB of L1), one thread, ms, rows by themselves and joined: with few channels sums are most of what moves,
    3,32,112/2 2.70 and 1.60 (avx2 3.25 and 1.75), 3,64,56 2.49 and 2.16, 16,16,56 2.64 and 2.40; with several vectors
    128,128,56/2 35.8 and 33.8, 64,128,56/2 18.8 and 17.6, 32,32,56 8.79 and 8.43, others within 2%. One vector of 64
    channels loses: 64,16,56 9.1 and 9.7, backward_data of 3,64,112 36.6 and 38.8.
    """
    if _cpu.vendor() == "intel" and _wide():
        return True
    return lane_vectors > 1 or channels <= 16


def dense_ahead(far: bool, taps: int, channels: int) -> int:
    """What the dense kernel of rows asks for before it is used, SC_AHEAD_*; all taps, and channels of a block.

    Pixels where they are `far`, in memory; weights where so many go through L1 that they come from L2 each time.
    Emerald Rapids, 2026-12-01, weights and pixels, too, ms: 128,128,56/2 28.9 and 23.6, 64,128,56/2 13.5 and 12.4,
    128,256,28/2 11.7 and 11.2; but 256,512,14/2 10.0 and 10.5, 256,256,14 18.9 and 19.8. Zen 4, nothing and pixels:
    256,64,56 1x1 17.3 and 15.0, backward_data of 64,256,56 17.6 and 15.0, 512,128,28 16.1 and 15.4, twelve others 1.00
    to 1.09 times as fast; nothing is gained by weights, by pixels of 3x3 layers, or on avx2.
    """
    if not _wide():
        return 0
    if _cpu.vendor() != "intel":
        return 2 if taps == 1 else 0
    if far:
        return 2
    return 1 if channels > MOST_CHANNELS_IN_TIME else 0


def slope() -> float:
    """Time of one multiply-add in a skipping kernel over that in a dense one."""
    return INTEL_SLOPE if _cpu.vendor() == "intel" else _cpu.slope()


def rows_slope(accumulators: int, most_taps: int, mean_taps: float) -> float:
    """Time of a skipping row kernel's multiply-adds for a nonzero over a dense kernel's."""
    if _cpu.vendor() != "intel":
        return nonzero_slope(accumulators, TAPS_CYCLES if most_taps > 1 else ONE_TAP_CYCLES)
    waiting = nonzero_slope(accumulators, TAPS_CYCLES if most_taps > 1 else INTEL_ONE_TAP_CYCLES) / INTEL_SLOPE
    if vector_cycles() == 1:
        return waiting * INTEL_AVX2_SLOPE
    apart = (most_taps / max(1.0, mean_taps)) ** 0.5
    return waiting * (INTEL_TAPS_SLOPE * apart if most_taps > 1 else INTEL_ONE_TAP_SLOPE)


def word_cycles() -> float:
    """Cycles in which a skipping row kernel reads 16 floats and finds which are nonzero."""
    return INTEL_WORD_CYCLES if _cpu.vendor() == "intel" else WORD_CYCLES


def word_costs(alone: bool) -> bool:
    """Whether a word costs something beside its multiply-adds; `alone`, it is all that its results need.

    Emerald Rapids, 64,64,56 1x1: skipping over dense time 0.78 and 0.91 at 60 and 50% zeros; 256,64,56, whose sums are
    moved, 1.15 and 1.29.
    """
    return not (alone and _cpu.vendor() == "intel")


def vector_cycles() -> float:
    """Cycles of a multiply-add of 16 floats with one operand in L1: half of one on CPUs that do two 512-bit ones."""
    two = _cpu.vendor() == "intel" or (_cpu.vendor() == "amd" and _cpu.family() >= 26)
    return 0.55 if two and _wide() else 1.0


def nonzero_slope(accumulators: int, least_cycles: float) -> float:
    """Time of a skipping kernel's multiply-adds for a nonzero, which go to so many accumulators, over a dense kernel's.

    Few of them do not fill the CPU: a nonzero takes that many cycles at least.
    """
    return slope() * max(1.0, least_cycles / (accumulators * vector_cycles()))


def one_vector_cost() -> float:
    """Time of backward_weight's dense kernel with one vector of lanes over its usual one."""
    return ONE_VECTOR_COST if vector_cycles() == 1 else TWO_UNITS_ONE_VECTOR_COST


def dense_cycles() -> float:
    """Cycles of a dense kernel for a multiply-add of 16 floats."""
    return DENSE_CYCLES * vector_cycles()
