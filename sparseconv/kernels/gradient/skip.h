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
//
// Lists on Intel. Emerald Rapids, avx512, one thread, batch 16, the whole call without Python, GF/s at 50, 80, 90, 95
// and 99% zeros: 256,256,14 with words 241 468 687 965 1339, with lists and the same blocks 260 520 819 1100 1535, and
// with chunks of whole images (gradient.py) 273 566 910 1240 1868. What costs there is what streams through L1 beside
// the tile, whose loads bound the multiply-adds (1.6 a cycle from L1, 0.8 from L2). In pixels each scalar of a channel
// is in a line of its own, 14 KB for 224 positions; in a list they are in a few. Then prefetches for the next chunk do
// no harm either: 5 lines a channel at 90%, the kernel alone, words 1061 -> 972, values side by side 1308 -> 1305. And
// a list has one end, each word of bits has one, mispredicted for about 20 cycles: 16% at 90% zeros. (Benchmarks that
// repeat a few thousand words do not see that: this CPU learns them.) Tried there:
// - values side by side, but positions as words of bits: 50% +3%, 90% -4%, 99% -10 to -40% (9 accumulators);
// - lists written nonzero by nonzero instead of by compress(): 1x1 layers at 50% 8 to 20% slower, 99% the same;
// - two positions in one load: 5% slower; two sets of accumulators: nothing;
// - the next position loaded behind the multiply-adds instead of before: 7% slower;
// - nothing asked for ahead: 256,256,14 +5% at 90%, 64,64,56 -10%. A line costs 4 cycles where each was asked for by a
//   loop over pixels; now whole rows are, +2 to +7% at 90%.
#pragma once
#include "gradient/sweep.h"

SC_OPEN

// Where the kernel finds A's nonzeros: as bits, their values where they are; in lists of both; or as bits alone, since
// all values are ones (as in rows/skip.h).
enum class nonzeros { words, lists, ones };

// One nonzero of A; `b` is where tap 0 of the first outer tap meets it.
template <int R, int S, int Q, nonzeros FROM>
SC_INLINE void gradient_multiply(f32x16 (&acc)[R][S * Q], const float *value, const float *b, int64_t b_pitch) {
    const f32x16 av = FROM == nonzeros::ones ? zero() : splat(value);
    SC_UNROLL for (int r = 0; r < R; ++r, b += b_pitch) {
        SC_PIN(b);
        SC_UNROLL for (int i = 0; i < S * Q; ++i) {
            const f32x16 bv = load(b + i * 16);
            acc[r][i] = FROM == nonzeros::ones ? add(acc[r][i], bv) : fma(av, bv, acc[r][i]);
        }
    }
}

template <int R, int S, int Q, nonzeros FROM>
static void gradient_skip(const gradient_sweep &sweep) {
    static_assert(R * S * Q <= f32x16::accumulators, "the gradient of one channel must stay in registers");
    const int64_t a_pitch = sweep.position_pitch, b_pitch = sweep.b_outer_pitch;
    for (int64_t index = 0; index < sweep.channel_count; ++index) {
        const int64_t channel = sweep.channels[index];
        sweep.ahead->some();
        f32x16 acc[R][S * Q];
        SC_UNROLL for (int r = 0; r < R; ++r) SC_UNROLL for (int i = 0; i < S * Q; ++i) acc[r][i] = zero();
        const float *value = sweep.lists.values + channel * sweep.lists.pitch;
        const float *position = sweep.lists.positions + channel * sweep.lists.pitch;
        int64_t at = FROM == nonzeros::lists ? gradient_lists::position(position) : 0;
        for (const gradient_run *run = sweep.runs; run < sweep.runs + sweep.run_count; ++run) {
            const int64_t positions = run->positions, shift = run->a % 64;
            if (FROM == nonzeros::lists) {
                const float *b_run = sweep.b + (run->b - run->a) * (Q * 16);
                for (; at < run->a; ++value) at = gradient_lists::position(++position);  // this outer tap meets none
                for (const int64_t end = run->a + positions; at < end; ++value) {
                    const float *b = b_run + at * (Q * 16);
                    at = gradient_lists::position(++position);
                    gradient_multiply<R, S, Q, FROM>(acc, value, b, b_pitch);
                }
                continue;
            }
            const float *a_run = sweep.a + channel * sweep.channel_pitch + run->a * a_pitch;
            const float *b_run = sweep.b + run->b * (Q * 16);
            const uint64_t *words = sweep.live + channel * sweep.live_pitch + run->a / 64;
            for (int64_t first = 0; first < positions; first += 64) {
                uint64_t live = *words++ >> shift;
                if (shift) live |= *words << (64 - shift);
                if (positions - first < 64) live &= (1ull << (positions - first)) - 1;
                for (; live; live &= live - 1) {
                    const int64_t position = first + __builtin_ctzll(live);
                    const float *b = b_run + position * (Q * 16);
                    gradient_multiply<R, S, Q, FROM>(acc, a_run + position * a_pitch, b, b_pitch);
                }
            }
        }
        SC_UNROLL for (int r = 0; r < R; ++r) {
            float *sums = sweep.sums + r * sweep.sums_outer_pitch + channel * (S * Q * 16);
            SC_UNROLL for (int i = 0; i < S * Q; ++i) store(sums + i * 16, add(load(sums + i * 16), acc[r][i]));
        }
    }
}

template <int R, int Q, nonzeros FROM>
SC_INLINE void gradient_skip_taps(const gradient_sweep &sweep) {
    // blocking.py asks for no other: with more vectors only up to 4 taps together
    constexpr int most = smaller(R > 1 && Q > 2 ? Q > 4 ? 0 : 4 / R : 3, f32x16::accumulators / (R * Q));
    if constexpr (most >= 1) { if (sweep.taps == 1) gradient_skip<R, 1, Q, FROM>(sweep); }
    if constexpr (most >= 2) { if (sweep.taps == 2) gradient_skip<R, 2, Q, FROM>(sweep); }
    if constexpr (most >= 3) { if (sweep.taps == 3) gradient_skip<R, 3, Q, FROM>(sweep); }
}

template <int Q, nonzeros FROM>
static void gradient_skip_outer(const gradient_sweep &sweep) {
    if (sweep.outer == 1) gradient_skip_taps<1, Q, FROM>(sweep);
    else if (sweep.outer == 2) gradient_skip_taps<2, Q, FROM>(sweep);
    else gradient_skip_taps<3, Q, FROM>(sweep);
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

template <nonzeros FROM>
SC_INLINE gradient_kernel gradient_skip_kernel(int64_t vectors) {
    static constexpr gradient_kernel kernels[] = {
        gradient_skip_outer<1, FROM>, gradient_skip_outer<2, FROM>, gradient_skip_outer<3, FROM>,
        gradient_skip_outer<4, FROM>, gradient_skip_outer<5, FROM>, gradient_skip_outer<6, FROM>,
        gradient_skip_outer<7, FROM>, gradient_skip_outer<8, FROM>};
    return kernels[vectors - 1];
}

SC_CLOSE
