// forward and backward_data without skipping: one row, as a register-tiled outer product.
//
// A tile of P output columns x Q lane vectors stays in registers over all taps and channels of the weight tile; each
// step loads Q weight vectors once and broadcasts P scalars: P * Q multiply-adds for P + Q loads. The columns of a
// row are dealt out evenly (14 = 5 + 5 + 4, not 6 + 6 + 2), since a narrow tile is bound by its loads. Where a tap
// meets padding at the first or the last column of a tile, that column is left out: of a 3 x 3 kernel on 7 columns
// that is a tenth of the work. Where it meets more padding, the columns that meet none are taken one by one. Padding is
// never multiplied, so a weight that is Inf gives the same whichever tile a column is in.
//
// Registers: avx512 6 x 4 accumulators + 4 weights + 1 broadcast; avx2 and neon 6 x 1 (of two and four registers).
//
// Tried (Zen 4, one thread, batch 16, GF/s, interleaved; the first on a machine that others used too):
// - blocks of 32, 64, 128 and 256 channels: 512,512,7 102, 107, 108, 111, 1024,256,14 1x1 77, 103, 105, 104: fewer
//   loads and stores of sums are worth more than weights in L1;
// - asking for the next row's pixels: 512,512,14 backward_data 109 -> 116, but 512,512,7 118 -> 114 and 256,512,14/2
//   104 -> 99.
#pragma once
#include "rows/sweep.h"

SC_OPEN

// Adds one tap of columns [FROM, TO) of a tile.
template <int FROM, int TO, int P, int Q>
SC_INLINE void dense_tap(f32x16 (&acc)[P][Q], const float *const (&x)[P], const float *w, int channels) {
    for (int channel = 0; channel < channels; ++channel, w += Q * 16) {
        f32x16 wv[Q];
        SC_UNROLL for (int q = 0; q < Q; ++q) wv[q] = load(w + q * 16);
        SC_UNROLL for (int p = FROM; p < TO; ++p) {
            const f32x16 xv = splat(x[p] + channel);
            SC_UNROLL for (int q = 0; q < Q; ++q) acc[p][q] = fma(xv, wv[q], acc[p][q]);
        }
    }
}

// The same of one column.
template <int Q>
SC_INLINE void dense_column(f32x16 (&acc)[Q], const float *x, const float *w, int channels) {
    for (int channel = 0; channel < channels; ++channel, w += Q * 16) {
        const f32x16 xv = splat(x + channel);
        SC_UNROLL for (int q = 0; q < Q; ++q) acc[q] = fma(xv, load(w + q * 16), acc[q]);
    }
}

template <int P, int Q>
SC_INLINE void dense_tile(const row_sweep &row, int64_t first) {
    f32x16 acc[P][Q];  // of this sweep alone, as in rows/skip.h
    SC_UNROLL for (int p = 0; p < P; ++p) SC_UNROLL for (int q = 0; q < Q; ++q) acc[p][q] = zero();
    if (row.results.residual) {
        SC_UNROLL for (int p = 0; p < P; ++p) row.results.prefetch<Q>(first + p - row.begin);
    }
    const int64_t taps = row.in_count ? row.taps : 0;  // a row that meets none only moves its sums
    for (int64_t tap = 0; tap < taps; ++tap) {
        bool inside[P];
        const float *x[P], *w = row.weights + tap * row.channels * (Q * 16);
        const int64_t column = first + tap - row.shift;
        SC_UNROLL for (int p = 0; p < P; ++p) {
            inside[p] = (uint64_t)(column + p) < (uint64_t)row.in_count;
            x[p] = row.in + (column + p) * row.in_pitch;
        }
        const bool first_in = inside[0], last_in = inside[P - 1];
        if (first_in && last_in) {
            dense_tap<0, P, P, Q>(acc, x, w, row.channels);
        } else if (P > 1 && inside[P > 1] && last_in) {
            dense_tap<1, P, P, Q>(acc, x, w, row.channels);
        } else if (P > 1 && first_in && inside[P > 1 ? P - 2 : 0]) {
            dense_tap<0, P - 1, P, Q>(acc, x, w, row.channels);
        } else {
            SC_UNROLL for (int p = 0; p < P; ++p) {
                if (inside[p]) dense_column(acc[p], x[p], w, row.channels);
            }
        }
    }
    SC_UNROLL for (int p = 0; p < P; ++p) {
        const float *from = row.from + (first + p - row.begin) * row.from_pitch;
        float *to = row.to + (first + p - row.begin) * row.to_pitch;
        SC_UNROLL for (int q = 0; q < Q; ++q) acc[p][q] = add(acc[p][q], load(from + 16 * q));
        if (row.results.amends()) row.results.amend(acc[p], first + p - row.begin);
        row.results.leave(acc[p], to);
    }
}

// A tile of `size` columns, P at most.
template <int P, int Q>
SC_INLINE void dense_tile_of(const row_sweep &row, int64_t first, int64_t size) {
    if (size == P) dense_tile<P, Q>(row, first);
    else if constexpr (P > 1) dense_tile_of<P - 1, Q>(row, first, size);
}

template <int Q>
static void rows_dense(const row_sweep &row) {
    // One vector of lanes, as in narrow groups: with 12 columns a weight is loaded half as often.
    constexpr int most = Q == 1 && f32x16::accumulators > 12 ? 12 : f32x16::dense_pixels;
    const int64_t columns = row.end - row.begin, tiles = (columns + most - 1) / most;
    int64_t first = row.begin;
    for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t size = columns / tiles + (tile < columns % tiles);
        dense_tile_of<most, Q>(row, first, size);
        first += size;
    }
}

SC_INLINE row_kernel dense_kernel(int64_t vectors) {
    if constexpr (f32x16::dense_vectors == 4) {
        static constexpr row_kernel kernels[] = {rows_dense<1>, rows_dense<2>, rows_dense<3>, rows_dense<4>};
        return kernels[vectors - 1];
    } else {
        return rows_dense<1>;
    }
}

SC_CLOSE
