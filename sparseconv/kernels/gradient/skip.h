// backward_weight, skipping zeros of A: one channel after the other.
//
// For a channel, 64 positions are one word. Each set bit broadcasts A at that position; for each of R outer taps, B's
// window of S consecutive positions x Q vectors lies contiguously in the tile and feeds S * Q multiply-adds as memory
// operands. The R * S * Q accumulators stay in registers over the whole chunk. Positions behind a row's columns
// are zero in A, so a run of short rows is one long row.
//
// Why all outer taps of a 3 x 3 kernel at once (R = 3, Q = 2: 18 accumulators) and not one after the other (R = 1,
// Q = 4: 12): each word's mispredicted branch and each accumulator's way to memory and back serve more multiply-adds.
// Why Q = 1 below 15% density: the lane tile (28 KB) then holds four times the positions. A channel's visit to it does
// density x 28 KB / 64 x R x S multiply-adds, whatever Q is, and moves R x S x Q accumulators (load, add, store: about
// 3 cycles each on Zen 4): 128,128,28 at 90% 496 -> 558 GF/s, at 95% 695 -> 798, 64,64,56 at 90% 368 -> 404.
//
// Tried (Zen 4, one thread, dense-equivalent GF/s at 90% zeros, 2026-11; best of many calls, but one variant after the
// other on a machine that others used too: differences below 10% mean little):
// - R = 1, Q = 4: 64,64,56 316, 256,256,14 417, 512,512,7 306 (batch 8); R = 3, Q = 2: 367, 440, 284. The last is short
//   of positions (392): its gradient goes through L2 more often than it is worth; at batch 16 it is 412.
// - accumulators stored after every run of rows instead of once per chunk: 512,512,7 237 against 257;
// - without SC_PIN GCC 12 keeps one base address for each of the 18 operands, in vector registers for want of others:
//   256,256,14 390 against 440;
// - 20 KB of lanes instead of 28: 10 to 20% slower; 40 KB: faster for 64,64,56 (+8%), slower for 1x1.
// - lists of (position, value), one per channel, written straight from NHWC memory, instead of words of bits: building
//   them takes 0.6 (95% zeros) to 3.8 (50%) cycles an element from L3, a transpose of values 0.4 to 1.2; the sweep
//   itself is no faster, its mispredicted branches are hidden behind waiting multiply-adds. 128,128,28: -5%.
// - values transposed to [channel][position] for the scalars to be neighbours, instead of bits only: 512,128,28 1x1 at
//   75% 164 against 183, 64,64,56 428 against 445, 128,128,28 592 against 568.
#pragma once
#include "gradient/sweep.h"

SC_OPEN

// SPIKES: A has zeros and ones, and no values (as in rows/skip.h).
template <int R, int S, int Q, bool SPIKES>
static void gradient_skip(const gradient_sweep &sweep) {
    static_assert(R * S * Q <= f32x16::accumulators, "the gradient of one channel must stay in registers");
    const int64_t a_pitch = sweep.position_pitch, b_pitch = sweep.b_outer_pitch;
    for (int64_t index = 0; index < sweep.channel_count; ++index) {
        const int64_t channel = sweep.channels[index];
        sweep.ahead->some();
        f32x16 acc[R][S * Q];
        SC_UNROLL for (int r = 0; r < R; ++r) SC_UNROLL for (int i = 0; i < S * Q; ++i) acc[r][i] = zero();
        for (const gradient_run *run = sweep.runs; run < sweep.runs + sweep.run_count; ++run) {
            const float *a_run = sweep.a + channel * sweep.channel_pitch + run->a * a_pitch;
            const float *b_run = sweep.b + run->b * (Q * 16);
            const uint64_t *words = sweep.live + channel * sweep.live_pitch + run->a / 64;
            const int64_t positions = run->positions, shift = run->a % 64;
            for (int64_t first = 0; first < positions; first += 64) {
                uint64_t live = *words++ >> shift;
                if (shift) live |= *words << (64 - shift);
                if (positions - first < 64) live &= (1ull << (positions - first)) - 1;
                for (; live; live &= live - 1) {
                    const int64_t position = first + __builtin_ctzll(live);
                    const f32x16 av = SPIKES ? zero() : splat(a_run + position * a_pitch);
                    const float *b = b_run + position * (Q * 16);
                    SC_UNROLL for (int r = 0; r < R; ++r, b += b_pitch) {
                        SC_PIN(b);
                        SC_UNROLL for (int i = 0; i < S * Q; ++i) {
                            const f32x16 bv = load(b + i * 16);
                            acc[r][i] = SPIKES ? add(acc[r][i], bv) : fma(av, bv, acc[r][i]);
                        }
                    }
                }
            }
        }
        SC_UNROLL for (int r = 0; r < R; ++r) {
            float *sums = sweep.sums + r * sweep.sums_outer_pitch + channel * (S * Q * 16);
            SC_UNROLL for (int i = 0; i < S * Q; ++i) store(sums + i * 16, add(load(sums + i * 16), acc[r][i]));
        }
    }
}

template <int R, int Q, bool SPIKES>
SC_INLINE void gradient_skip_taps(const gradient_sweep &sweep) {
    // blocking.py asks for no other: with more vectors only up to 4 taps together
    constexpr int most = smaller(R > 1 && Q > 2 ? Q > 4 ? 0 : 4 / R : 3, f32x16::accumulators / (R * Q));
    if constexpr (most >= 1) { if (sweep.taps == 1) gradient_skip<R, 1, Q, SPIKES>(sweep); }
    if constexpr (most >= 2) { if (sweep.taps == 2) gradient_skip<R, 2, Q, SPIKES>(sweep); }
    if constexpr (most >= 3) { if (sweep.taps == 3) gradient_skip<R, 3, Q, SPIKES>(sweep); }
}

template <int Q, bool SPIKES>
static void gradient_skip_outer(const gradient_sweep &sweep) {
    if (sweep.outer == 1) gradient_skip_taps<1, Q, SPIKES>(sweep);
    else if (sweep.outer == 2) gradient_skip_taps<2, Q, SPIKES>(sweep);
    else gradient_skip_taps<3, Q, SPIKES>(sweep);
}

// The same tap by tap, without columns that meet padding: there B's tile has zeros, and Inf or NaN times zero is NaN.
// For channels whose sums are not finite, so it is short, not fast.
static void gradient_careful(const gradient_sweep &sweep, int64_t vectors, bool spikes) {
    static constexpr float one = 1;
    for (int64_t i = 0; i < sweep.channel_count * sweep.taps * vectors; ++i) {
        const int64_t channel = sweep.channels[i / vectors / sweep.taps], tap = i / vectors % sweep.taps;
        const int64_t begin = larger(0, sweep.b_first - tap), end = smaller(sweep.columns, sweep.b_end - tap);
        const uint64_t *live = sweep.live + channel * sweep.live_pitch;
        f32x16 sum = zero();
        for (const gradient_run *run = sweep.runs; run < sweep.runs + sweep.run_count; ++run) {
            for (int64_t row = 0; row < run->rows; ++row) {
                for (int64_t column = begin; column < end; ++column) {
                    const int64_t place = row * sweep.window + column, position = run->a + place;
                    if (!(live[position / 64] >> position % 64 & 1)) continue;
                    const int64_t at = channel * sweep.channel_pitch + position * sweep.position_pitch;
                    const float *a = spikes ? &one : sweep.a + at;
                    const float *b = sweep.b + ((run->b + place + tap) * vectors + i % vectors) * 16;
                    sum = fma(splat(a), load(b), sum);
                }
            }
        }
        float *to = sweep.sums + ((channel * sweep.taps + tap) * vectors + i % vectors) * 16;
        store(to, add(load(to), sum));
    }
}

template <bool SPIKES>
SC_INLINE gradient_kernel gradient_skip_kernel_of(int64_t vectors) {
    static constexpr gradient_kernel kernels[] = {
        gradient_skip_outer<1, SPIKES>, gradient_skip_outer<2, SPIKES>, gradient_skip_outer<3, SPIKES>,
        gradient_skip_outer<4, SPIKES>, gradient_skip_outer<5, SPIKES>, gradient_skip_outer<6, SPIKES>,
        gradient_skip_outer<7, SPIKES>, gradient_skip_outer<8, SPIKES>};
    return kernels[vectors - 1];
}
SC_INLINE gradient_kernel gradient_skip_kernel(int64_t vectors) { return gradient_skip_kernel_of<false>(vectors); }
SC_INLINE gradient_kernel gradient_spikes_kernel(int64_t vectors) { return gradient_skip_kernel_of<true>(vectors); }

SC_CLOSE
