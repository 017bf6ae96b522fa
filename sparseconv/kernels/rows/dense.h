// forward and backward_data without skipping: one row, as a register-tiled outer product.
//
// A tile of P output columns x Q lane vectors stays in registers over all taps and channels of the weight tile, over
// those of more input rows and strands, too, where sweeps are joined (rows/rows.h). Each step loads Q weight vectors
// once and broadcasts P scalars: P * Q multiply-adds for P + Q loads. The columns of a row are dealt out evenly (20 =
// 7 + 7 + 6, 8 = 4 + 4), since a narrow tile is bound by its loads. Where a tap meets padding at the first or the last
// column of a tile, that column is left out: of a 3 x 3 kernel on 7 columns that is a tenth of the work. Where it meets
// more padding, the columns that meet none are taken one by one. Padding is never multiplied, so a weight that is Inf
// gives the same whichever tile a column is in.
//
// Registers: avx512 6 x 4 accumulators + 4 weights + 1 broadcast, or 7 x 4 + 3 + 1, the fourth weight being an operand
// in memory: 17 loads for 28 multiply-adds instead of 10 for 24, but maps of CNNs are 7, 14, 28 ... wide, and 7 = 4 + 3
// columns load as many weights for half as many multiply-adds. avx2 and neon 6 x 1 (of two and four registers).
//
// What is asked for ahead (task.ahead, see processor.py): weights, eight channels before they are used, since those of
// a tile stream from L2; the next tile's pixels, where they are read once, from memory: with one tap.
//
// Emerald Rapids, 2026-12-01, one thread, batch 16, ms of a call, interleaved (good to 3%), 4 KB pages:
//                         6 x 4   7 x 4   weights ahead   and pixels   joined (rows/rows.h), weights ahead
//   512,512,7              30.2    20.2       18.7           19.4        18.0
//   256,512,14/2           17.2    11.5       10.9           11.5        10.3
//   256,256,14             22.4    21.0       19.8           20.9        19.2
//   1024,2048,14 1x1/2     33.1    23.6       23.5           23.0
//   256,64,56 1x1          15.1    15.3       15.9           11.7
//   512,128,28 1x1         12.3    11.7       11.5           10.9
// Rows of 28 columns and more: 64,64,224 357 with 7 x 4, 347 with 6 x 4; 512,256,28 1x1 21.9 and 20.3.
// With the weights of 64,64,56 and 128,128,28 in L1, for a trial, 4 and 6% less: what a tile waits for L2. No
// difference: all taps of an inner tile as one loop where their pixels lie together; the sums of a tile asked for when
// it begins; chunks of 192 to 4096 columns; blocks of 128 channels; pixels asked for one line in each channel instead
// of one of each pixel in 16 channels.
//
// Tried (Zen 4, one thread, batch 16, GF/s, interleaved; the first on a machine that others used too):
// - blocks of 32, 64, 128 and 256 channels: 512,512,7 102, 107, 108, 111, 1024,256,14 1x1 77, 103, 105, 104: fewer
//   loads and stores of sums are worth more than weights in L1;
// - asking for the next row's pixels: 512,512,14 backward_data 109 -> 116, but 512,512,7 118 -> 114 and 256,512,14/2
//   104 -> 99.
#pragma once
#include "rows/sweep.h"

SC_OPEN

enum { WEIGHTS_AHEAD = 8 };  // channels

// Adds one tap of columns [FROM, TO) of a tile. `next` floats behind its pixels are those of the next tile.
template <int FROM, int TO, int AHEAD, int P, int Q>
SC_INLINE void dense_tap(f32x16 (&acc)[P][Q], const float *const (&x)[P], const float *w, int channels, int64_t next) {
    constexpr int held = P * Q + Q < f32x16::registers ? Q : Q - 1;
    for (int begin = 0, end = 0; begin < channels; begin = end) {
        end = channels;
        if (AHEAD == SC_AHEAD_PIXELS) {  // a line of each pixel for 16 channels
            SC_UNROLL for (int p = FROM; p < TO; ++p) __builtin_prefetch(x[p] + begin + next, 0, 2);
            end = (int)smaller(channels, begin + 16);
        }
        for (int channel = begin; channel < end; ++channel, w += Q * 16) {
            f32x16 wv[Q];
            SC_UNROLL for (int q = 0; q < Q && AHEAD; ++q) __builtin_prefetch(w + (WEIGHTS_AHEAD * Q + q) * 16);
            SC_UNROLL for (int q = 0; q < held; ++q) wv[q] = load(w + q * 16);
            SC_UNROLL for (int p = FROM; p < TO; ++p) {
                const f32x16 xv = splat(x[p] + channel);
                SC_UNROLL for (int q = 0; q < Q; ++q) {
                    acc[p][q] = q < held ? fma(xv, wv[q], acc[p][q]) : fma_from(xv, w + q * 16, acc[p][q]);
                }
            }
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

// Adds all taps of a piece.
template <int AHEAD, int P, int Q>
SC_INLINE void dense_piece(f32x16 (&acc)[P][Q], const row_input &piece, int channels, int64_t first, int64_t next) {
    const int64_t taps = piece.in_count ? piece.taps : 0;  // a row that meets none only moves its sums
    for (int64_t tap = 0; tap < taps; ++tap) {
        bool inside[P];
        const float *x[P], *w = piece.weights + tap * channels * (Q * 16);
        const int64_t column = first + tap - piece.shift;
        SC_UNROLL for (int p = 0; p < P; ++p) {
            inside[p] = (uint64_t)(column + p) < (uint64_t)piece.in_count;
            x[p] = piece.in + (column + p) * piece.in_pitch;
        }
        const bool first_in = inside[0], last_in = inside[P - 1];
        if (first_in && last_in) {
            dense_tap<0, P, AHEAD>(acc, x, w, channels, next);
        } else if (P > 1 && inside[P > 1] && last_in) {
            dense_tap<1, P, AHEAD>(acc, x, w, channels, next);
        } else if (P > 1 && first_in && inside[P > 1 ? P - 2 : 0]) {
            dense_tap<0, P - 1, AHEAD>(acc, x, w, channels, next);
        } else {
            SC_UNROLL for (int p = 0; p < P; ++p) {
                if (inside[p]) dense_column(acc[p], x[p], w, channels);
            }
        }
    }
}

template <int AHEAD, int P, int Q>
SC_INLINE void dense_tile(const row_sweep &row, int64_t first) {
    if (row.results.residual) {
        SC_UNROLL for (int p = 0; p < P; ++p) row.results.prefetch<Q>(first + p - row.begin);
    }
    const bool last = first + P >= row.end;
    const int64_t next = last ? row.next_row + (row.begin - first) * row.in_pitch : P * row.in_pitch;
    const float *from = row.from + (first - row.begin) * row.from_pitch;
    int64_t from_pitch = row.from_pitch;
    row_input piece = {row.in, row.weights, row.in_pitch, row.in_count, row.shift, row.taps};
    for (const row_input *more = row.more, *end = more + row.more_count;; piece = *more++) {
        f32x16 acc[P][Q];  // of this piece alone, as in rows/skip.h
        SC_UNROLL for (int p = 0; p < P; ++p) SC_UNROLL for (int q = 0; q < Q; ++q) acc[p][q] = zero();
        dense_piece<AHEAD>(acc, piece, row.channels, first, next);
        SC_UNROLL for (int p = 0; p < P; ++p) {
            SC_UNROLL for (int q = 0; q < Q; ++q) acc[p][q] = add(acc[p][q], load(from + p * from_pitch + 16 * q));
        }
        if (more != end) {
            SC_UNROLL for (int p = 0; p < P; ++p) {
                SC_UNROLL for (int q = 0; q < Q; ++q) store(row.between + (p * Q + q) * 16, acc[p][q]);
            }
            from = row.between, from_pitch = Q * 16;
            continue;
        }
        SC_UNROLL for (int p = 0; p < P; ++p) {
            if (row.results.amends()) row.results.amend(acc[p], first + p - row.begin);
            row.results.leave(acc[p], row.to + (first + p - row.begin) * row.to_pitch);
        }
        return;
    }
}

// A tile of `size` columns, P at most. Small ones ask for nothing: they are few, and the code is long enough.
template <int AHEAD, int P, int Q>
SC_INLINE void dense_tile_of(const row_sweep &row, int64_t first, int64_t size) {
    constexpr bool asks = P * Q >= 20;
    if (size == P) dense_tile<asks ? AHEAD : SC_AHEAD_NOTHING, P, Q>(row, first);
    else if constexpr (P > 1) dense_tile_of<AHEAD, P - 1, Q>(row, first, size);
}

template <int Q, int AHEAD = SC_AHEAD_NOTHING>
static void rows_dense(const row_sweep &row) {
    // One vector of lanes, as in narrow groups: with 12 columns a weight is loaded half as often.
    constexpr int most = Q == 1 && f32x16::accumulators > 12 ? 12 : f32x16::row_pixels;
    const int64_t columns = row.end - row.begin;
    int64_t tiles = ceil_div(columns, most);
    if constexpr (f32x16::row_pixels == 7) {  // 6, unless tiles would often have less: 7 = 7, 14 = 7 + 7
        const int64_t sixes = ceil_div(columns, 6);
        if (Q > 1 && 2 * columns > 11 * sixes) tiles = sixes;
    }
    int64_t first = row.begin;
    for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t size = columns / tiles + (tile < columns % tiles);
        dense_tile_of<AHEAD, most, Q>(row, first, size);
        first += size;
    }
}

SC_INLINE row_kernel dense_kernel(int64_t vectors, int64_t ahead) {
    if constexpr (f32x16::dense_vectors == 4) {
        static constexpr row_kernel kernels[] = {rows_dense<1>, rows_dense<2>, rows_dense<3>, rows_dense<4>};
        static constexpr row_kernel ask[] = {rows_dense<4>, rows_dense<4, SC_AHEAD_WEIGHTS>,
                                             rows_dense<4, SC_AHEAD_PIXELS>};
        return vectors == 4 ? ask[ahead] : kernels[vectors - 1];
    } else {
        return rows_dense<1>;
    }
}

SC_CLOSE
