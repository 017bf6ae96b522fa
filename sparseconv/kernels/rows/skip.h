// forward and backward_data, skipping zeros of `in`: one row.
//
// Walks along the input columns. The outputs that a column reaches, `S` taps wide, are a sliding window of S x Q
// accumulators; at each column one output enters, S - 1 stay, one leaves: its sum so far is added, and it is stored.
// The row is unrolled by S so that the window turns through fixed registers. For each column the nonzero channels of a
// block of up to 64 are one word; for each set bit the scalar is broadcast once and feeds S * Q multiply-adds whose
// other operand comes from the weight tile. A zero costs nothing but its bit: exact, since x * w = 0 adds nothing (and
// where w is Inf or NaN the product is left out, as documented).
//
// Registers: S * Q accumulators + 1 broadcast; weights are memory operands (T = S * Q of them per nonzero).
// The only branch that is hard to predict is the end of the bit loop, once per word.
//
// Tried (Zen 4, one thread, batch 8, dense-equivalent GF/s at 90% zeros, 2026-11; best of many calls, but one variant
// after the other on a machine that others used too: differences below 10% mean little):
// - zeros tested here instead of ahead (rows/rows.h): 430 against 690 for 64,64,56, 250 against 493 for 512,512,7, 71
//   against 343 for 1x1 256->64 at 56: each mispredicted branch waits for memory;
// - before that, prefetching the inputs of later columns: 64,64,56 423 -> 430, 256,256,14 365 -> 428 (kept: they now
//   come from L2, but the broadcast still needs them);
// - ReLU, partial vectors and pitches looked up in `row` for every column: 345 against 405 for 256,256,14 (hence PLAIN
//   and the local copies);
// - Q = 2 with 64 channels instead of 4 with 32 (the same 24 KB of weights): 613 against 592, 95% 957 against 792, 50%
//   172 against 180. A tile of 48 KB (Q = 4, 64 channels) does the same from 85% on and keeps T = 12, which CPUs with
//   two 64-byte multiply-adds per cycle need; Q = 8 in 48 KB loses everywhere.
// - at stride 2 (two taps and one), Q = 8 instead of 4: 128,128,56 at 50% 122 against 150, at 80% 220 against 283;
// - chunks of fewer columns, so that inputs of many channels stay in L2: 256,64,56 1x1 252 against 260, 512,512,7
//   351 to 511 against 560 at 90%, since weights are read more often.
// - the scalar taken through a general register (vpbroadcastd) instead of by a broadcasting load: 1.4% faster on the
//   mean of seven layers and passes, but on Intel's CPUs it would take the place of a multiply-add.
//
// Sums of a sweep begin with zero, and what was summed before is added as they leave; before it was loaded as they
// entered. So chains are of at most 3 taps and a block of channels instead of all. Expected: 1% slower at 90% zeros,
// and errors a third. Measured (Zen 5, pairs in turns): 37 cells of this kernel, dense.h and weights/skip.h 1.015 times
// as fast on average (0.97 to 1.18); worst error of positive numbers 84 -> 19 roundings, of normal ones 6.9 -> 2.5.
//
// What bounds it on Zen 4 (3.7 GHz, 118 GF/s; sums and inputs in L2, 3 taps x 4 vectors), in cycles, from this kernel
// called alone, minima of hundreds of runs on a machine that others used too:
// - a nonzero takes 13.6 of loads alone (12 weights, and the broadcast counts for more than one), 14.4 as compiled;
// - a word takes 13 more to load and store four vectors of sums (a 64-byte store is two cycles), and 6 more;
// - mispredicted branches take nothing: words with equally many bits are no faster;
// - a weight tile of 48 KB adds 20 a word for reads from L2, and halves the words.
// At 90% zeros that is 75% of the peak for 32-channel words in L1 and 64-channel words in L2 alike; 28 columns with 2
// of padding, finding words, and inputs from beyond L2 leave 60%. A larger L1 would help, more registers would not.
//
// What bounds it on Intel (Emerald Rapids, AVX-512, one thread, 2026-12-01; this kernel called alone, 64 channels x 3
// taps x 4 vectors, sums and inputs in L2, in cycles):
// - a multiply-add takes 0.64 with weights from L1, 1.3 from L2, so what streams through L1 beside a tile of 48 KB is
//   dear; a word without bits takes 20: 16 for its four sums, and what is asked for ahead;
// - mispredicted branches hardly showed: 80.5 a word of 6.4 random bits, 76.8 of six bits each. But 1000 words that are
//   repeated are learned by this CPU; gradient/skip.h, with other words each time, found about 20 cycles a word.
// So where each word is read more than once, what is not zero is packed side by side when words are found: one or two
// lines a word instead of four, and nothing to ask for. Expected by counting lines: a fifth. This kernel alone,
// dense-equivalent GF/s at 50, 70, 80, 90, 95 and 99% zeros: before 220, 353, 504, 883, 1356, 2487, packed 264, 418,
// 618, 1006, 1668, 3304; not asking for lines ahead has 226, 363, 521, 948, 1462, 3205 of that. Whole calls, pairs in
// turns, batch 16, time before over after at 50, 90 and 99%: 64,64,56 0.99, 1.04, 1.06; 128,128,28 1.02, 1.09, 1.16;
// 256,256,14 1.08, 1.16, 1.69; 512,512,7 1.05, 1.08, 1.15; 128,256,28/2 1.00, 1.11, 1.22; 256,1024,14 1x1 1.04, 1.08,
// 1.11. AVX2: 1.05, 1.09, 1.26 on the mean of six layers.
// Tried there and lost:
// - values of all words of a pixel one behind the other: at 50% nothing is gained, since a word's begin anywhere;
// - values of a word at the place of its first channel: 0.90 at 50% for 256,256,14, whose lines share few sets of L1;
// - one tap and one lane block, packed: 0.93 to 0.98 for 256,64,56 and 64,64,56 1x1, since each word is read once;
// - asking for the next chunk's inputs, into L2, in bursts of 64 columns: within 3% in eight layers; column by column
//   it pays in some layers of one tap (_core/processor.py);
// - words of 128 channels at one sweep (weights from L2) at 90% zeros: 0.83 to 0.92 for three taps, 1.00 for one.
#pragma once
#include "common/live_word.h"
#include "rows/sweep.h"

SC_OPEN

// Where the scalars of a word's bits are: each at its channel, side by side, or nowhere. Of zeros and ones
// (SC_ROWS_SPIKES) only the words are read, and weights are added: the same bits, since 1 w + s is rounded once as
// w + s is.
enum class scalars { in_place, packed, ones };

// acc[tap][vector] for the S taps of one column; the output of tap 0 is in slot `turn`, that of tap j in turn - j.
template <int S, int Q, scalars FROM>
SC_INLINE void skip_column(f32x16 (&acc)[S][Q], int turn, const float *x, const float *weights, uint64_t live) {
    constexpr bool SPIKES = FROM == scalars::ones;
    for (; live; live &= live - 1) {
        const int64_t channel = __builtin_ctzll(live);
        const f32x16 xv = SPIKES ? zero() : splat(FROM == scalars::packed ? x++ : x + channel);
        const float *w = weights + channel * (S * Q * 16);
        SC_UNROLL for (int tap = 0; tap < S; ++tap) {
            SC_UNROLL for (int q = 0; q < Q; ++q) {
                f32x16 &sum = acc[(turn - tap + S) % S][q];
                const f32x16 wv = load(w + (tap * Q + q) * 16);
                sum = SPIKES ? add(sum, wv) : fma(xv, wv, sum);
            }
        }
    }
}

// How sums leave. PLAIN: as they are, in whole vectors, as in every sweep but the last one of a row.
enum class leaving { plain, stream, finish };

template <int S, int Q, leaving HOW, scalars FROM>
static void rows_skip(const row_sweep &row) {
    static_assert(S * Q <= f32x16::accumulators, "the window must stay in registers");
    f32x16 acc[S][Q];  // of this sweep alone: sums of sums lose fewer digits than one long chain
    SC_UNROLL for (int s = 0; s < S; ++s) SC_UNROLL for (int q = 0; q < Q; ++q) acc[s][q] = zero();
    const int64_t begin = row.begin, end = row.end, last = end + S - 1, shift = row.shift;
    const int64_t in_count = row.in_count, in_pitch = row.in_pitch;
    const int64_t live_pitch = row.live_pitch, from_pitch = row.from_pitch, to_pitch = row.to_pitch;
    const float *weights = row.weights, *from = row.from;
    int64_t in_offset = (begin - shift) * in_pitch, live_offset = (begin - shift) * live_pitch;
    float *to = row.to;
    const int near = FROM == scalars::in_place && row.near ? row.channels : 0, far = row.ahead ? row.channels : 0;
    const int word = row.word, words = row.words;
    int64_t ahead_offset = (begin - shift) * row.ahead_pitch;
    const int64_t word_pitch = row.word_pitch;
    const bool amends = row.results.amends();
    for (int64_t entering = begin; entering < last; entering += S) {
        SC_UNROLL for (int turn = 0; turn < S; ++turn) {
            const int64_t m = entering + turn;
            if (m >= last) break;
            SC_UNROLL for (int q = 0; q < Q; ++q) acc[turn][q] = zero();
            if ((uint64_t)(m - shift) < (uint64_t)in_count) {
                const float *in = row.in + in_offset;
                for (int line = 0; line < near; line += 16) __builtin_prefetch(in + 4 * in_pitch + line);
                for (int line = 0; line < far; line += 16) __builtin_prefetch(row.ahead + ahead_offset + line, 0, 2);
                const uint64_t *live = row.live + live_offset;
                const int32_t *begins = row.begins + live_offset;
                if (FROM == scalars::packed) in = row.in + *begins;
                skip_column<S, Q, FROM>(acc, turn, in, weights, *live);
                for (int64_t next = 1; next < words; ++next) {
                    const int64_t channel = next * word;
                    const float *x = FROM == scalars::packed ? row.in + begins[next * word_pitch] : in + channel;
                    skip_column<S, Q, FROM>(acc, turn, x, weights + channel * (S * Q * 16), live[next * word_pitch]);
                }
            }
            in_offset += in_pitch, live_offset += live_pitch, ahead_offset += row.ahead_pitch;
            if (m - (S - 1) >= begin) {
                f32x16 (&sum)[Q] = acc[(turn + 1) % S];
                SC_UNROLL for (int q = 0; q < Q; ++q) sum[q] = add(sum[q], load(from + 16 * q));
                from += from_pitch;
                if constexpr (HOW == leaving::finish) {
                    if (amends) row.results.amend(sum, m - (S - 1) - begin);
                    row.results.leave(sum, to);
                } else {
                    SC_UNROLL for (int q = 0; q < Q; ++q) {
                        if (HOW == leaving::plain) store(to + 16 * q, sum[q]);
                        else store_stream(to + 16 * q, sum[q]);
                    }
                }
                to += to_pitch;
            }
        }
    }
}

template <int S, int Q, scalars FROM>
SC_INLINE void rows_skip_ends(const row_sweep &row) {
    if (row.results.finishes()) rows_skip<S, Q, leaving::finish, FROM>(row);
    else if (row.results.stream) rows_skip<S, Q, leaving::stream, FROM>(row);
    else rows_skip<S, Q, leaving::plain, FROM>(row);
}

template <int Q, scalars FROM>
static void rows_skip_taps(const row_sweep &row) {
    constexpr int most = f32x16::accumulators / Q;
    if constexpr (most >= 1) { if (row.taps <= 1) rows_skip_ends<1, Q, FROM>(row); }
    if constexpr (most >= 2) { if (row.taps == 2) rows_skip_ends<2, Q, FROM>(row); }
    if constexpr (most >= 3) { if (row.taps == 3) rows_skip_ends<3, Q, FROM>(row); }
}

template <scalars FROM>
SC_INLINE row_kernel skip_kernel(int64_t vectors) {
    static constexpr row_kernel kernels[] = {rows_skip_taps<1, FROM>, rows_skip_taps<2, FROM>, rows_skip_taps<3, FROM>,
                                             rows_skip_taps<4, FROM>, rows_skip_taps<5, FROM>, rows_skip_taps<6, FROM>,
                                             rows_skip_taps<7, FROM>, rows_skip_taps<8, FROM>};
    return kernels[vectors - 1];
}

SC_CLOSE
