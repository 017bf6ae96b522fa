// backward_weight without skipping: P channels of A x Q vectors of B in registers, an outer product per position.
// Each position loads Q vectors and broadcasts P scalars; one tap after the other, since neighbouring taps share no
// register. Registers as in rows/dense.h.
//
// The P scalars of a position need not come from P rows of a transposed tile: where memory has the channels of a pixel
// side by side, so has the tile, and packing is a copy. Nor are they neighbours: output_mask may leave out some.
#pragma once
#include "gradient/sweep.h"

SC_OPEN

template <int P, int Q>
SC_INLINE void gradient_tile(const gradient_sweep &sweep, int64_t first, int64_t tap) {
    f32x16 acc[P][Q];
    SC_UNROLL for (int p = 0; p < P; ++p) SC_UNROLL for (int q = 0; q < Q; ++q) acc[p][q] = zero();
    // columns whose partner at this tap is not padding
    const int64_t begin = smaller(sweep.columns, larger(0, sweep.b_first - tap));
    const int64_t end = larger(begin, smaller(sweep.columns, sweep.b_end - tap));
    const int64_t a_position = sweep.position_pitch;
    int64_t channels[P];  // offsets of the scalars
    SC_UNROLL for (int p = 0; p < P; ++p) channels[p] = sweep.channels[first + p] * sweep.channel_pitch;
    for (const gradient_run *run = sweep.runs; run < sweep.runs + sweep.run_count; ++run) {
        for (int64_t row = 0; row < run->rows; ++row) {
            const float *a = sweep.a + (run->a + row * sweep.window + begin) * a_position;
            const float *b = sweep.b + (run->b + row * sweep.window + begin + tap) * (Q * 16);
            for (int64_t column = begin; column < end; ++column, a += a_position, b += Q * 16) {
                f32x16 bv[Q];
                SC_UNROLL for (int q = 0; q < Q; ++q) bv[q] = load(b + q * 16);
                SC_UNROLL for (int p = 0; p < P; ++p) {
                    const f32x16 av = splat(a + channels[p]);
                    SC_UNROLL for (int q = 0; q < Q; ++q) acc[p][q] = fma(av, bv[q], acc[p][q]);
                }
            }
        }
    }
    SC_UNROLL for (int p = 0; p < P; ++p) {
        float *sums = sweep.sums + (sweep.channels[first + p] * sweep.taps + tap) * (Q * 16);
        SC_UNROLL for (int q = 0; q < Q; ++q) store(sums + q * 16, add(load(sums + q * 16), acc[p][q]));
    }
}

template <int Q>
__attribute__((noinline)) static void gradient_dense(const gradient_sweep &sweep) {
    constexpr int most = f32x16::dense_pixels;
    const int64_t tiles = (sweep.channel_count + most - 1) / most;
    for (int64_t tap = 0; tap < sweep.taps; ++tap) {
        int64_t first = 0;
        for (int64_t tile = 0; tile < tiles; ++tile) {
            sweep.ahead->some();
            const int64_t size = sweep.channel_count / tiles + (tile < sweep.channel_count % tiles);
            if (size == 1) gradient_tile<1, Q>(sweep, first, tap);
            else if (size == 2) gradient_tile<2, Q>(sweep, first, tap);
            if constexpr (most > 2) {
                if (size == 3) gradient_tile<3, Q>(sweep, first, tap);
                else if (size == 4) gradient_tile<4, Q>(sweep, first, tap);
                else if (size == 5) gradient_tile<5, Q>(sweep, first, tap);
                else if (size == 6) gradient_tile<6, Q>(sweep, first, tap);
            }
            first += size;
        }
    }
}

SC_INLINE gradient_kernel gradient_dense_kernel(int64_t vectors) {
    if constexpr (f32x16::dense_vectors == 4) {
        static constexpr gradient_kernel kernels[] = {gradient_dense<1>, gradient_dense<2>,
                                                      gradient_dense<3>, gradient_dense<4>};
        return kernels[vectors - 1];
    } else {
        return gradient_dense<1>;
    }
}

SC_CLOSE
