// backward_weight, skipping zeros of A: one tap group of one channel after the other.
//
// For a channel, 64 positions are one word. Each set bit broadcasts A at that position; B's window of S consecutive
// positions x Q vectors lies contiguously in the tile and feeds S * Q multiply-adds as memory operands. The S * Q
// accumulators stay in registers over the whole run of rows. Positions behind a row's columns are zero in A, so a
// run of short rows is one long row.
#pragma once
#include "gradient_sweep.h"

SC_OPEN

template <int S, int Q>
static void gradient_skip(const gradient_sweep &sweep) {
    static_assert(S * Q <= f32x16::accumulators, "the gradient of one channel must stay in registers");
    const int64_t positions = (sweep.rows - 1) * sweep.window + sweep.columns;
    for (int64_t channel = 0; channel < sweep.channels; ++channel) {
        const float *a = sweep.a + channel * sweep.channel_pitch;
        const uint64_t *words = sweep.live + channel * sweep.live_pitch;
        f32x16 acc[S][Q];
        SC_UNROLL for (int s = 0; s < S; ++s) SC_UNROLL for (int q = 0; q < Q; ++q) acc[s][q] = zero();
        for (int64_t first = 0; first < positions; first += 64) {
            uint64_t live = *words++ >> sweep.live_shift;
            if (sweep.live_shift) live |= *words << (64 - sweep.live_shift);
            if (positions - first < 64) live &= (1ull << (positions - first)) - 1;
            for (; live; live &= live - 1) {
                const int64_t position = first + __builtin_ctzll(live);
                const f32x16 av = splat(a + position);
                const float *b = sweep.b + position * (Q * 16);
                SC_UNROLL for (int s = 0; s < S; ++s) {
                    SC_UNROLL for (int q = 0; q < Q; ++q) acc[s][q] = fma(av, load(b + (s * Q + q) * 16), acc[s][q]);
                }
            }
        }
        float *sums = sweep.sums + channel * (S * Q * 16);
        SC_UNROLL for (int i = 0; i < S * Q; ++i) store(sums + i * 16, add(load(sums + i * 16), acc[i / Q][i % Q]));
    }
}

template <int Q>
static void gradient_skip_taps(const gradient_sweep &sweep) {
    constexpr int most = f32x16::accumulators / Q;
    if constexpr (most >= 1) { if (sweep.taps == 1) gradient_skip<1, Q>(sweep); }
    if constexpr (most >= 2) { if (sweep.taps == 2) gradient_skip<2, Q>(sweep); }
    if constexpr (most >= 3) { if (sweep.taps == 3) gradient_skip<3, Q>(sweep); }
}

SC_INLINE gradient_kernel gradient_skip_kernel(int64_t vectors) {
    static constexpr gradient_kernel kernels[] = {
        gradient_skip_taps<1>, gradient_skip_taps<2>, gradient_skip_taps<3>, gradient_skip_taps<4>,
        gradient_skip_taps<5>, gradient_skip_taps<6>, gradient_skip_taps<7>, gradient_skip_taps<8>};
    return kernels[vectors - 1];
}

SC_CLOSE
