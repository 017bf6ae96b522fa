// What rows/rows.h asks of a row kernel: sweep one weight tile over one row.
#pragma once
#include "common/problem.h"

SC_OPEN

// One sweep of a weight tile over one row.
struct row_sweep {
    const float *in;  // column 0 of the pass, first channel of the block
    const uint64_t *live;  // its nonzero channels as bits; for skipping kernels
    int64_t in_pitch, live_pitch, in_count;
    int64_t begin, end;  // output columns m of the pass
    int64_t shift, taps;
    int channels;
    const float *weights;
    const float *from;  // partial sums of m = begin, or the bias with from_pitch 0
    int64_t from_pitch;
    float *to;
    int64_t to_pitch;
    int last_lanes;  // lanes of the last vector that `to` takes
    bool relu;
    const uint64_t *needed;  // null, or the lanes of m = begin that are needed as bits; the others are cleared
    int64_t needed_pitch, needed_lanes_pitch;  // words to the next column, and to the next 64 lanes
    uint16_t *mask;       // null, or with ReLU where the bits of the nonzero results go; then no vector is partial
    const float *origin;  // the result that the first bit belongs to
    bool stream;  // what leaves goes past the caches; then no vector is partial, and `to` is aligned
};

// Clears what is not needed of output column m.
template <int Q>
SC_INLINE void mask_sums(const row_sweep &row, int64_t m, f32x16 (&sums)[Q]) {
    const uint64_t *words = row.needed + (m - row.begin) * row.needed_pitch;
    uint64_t word = *words;
    SC_UNROLL for (int q = 0; q < Q; ++q, word >>= 16) {
        if (q == 4) word = words[row.needed_lanes_pitch];
        sums[q] = keep(sums[q], word & 0xffff);
    }
}

// Stores one vector of a finished or partial sum of the output at `to`, then its bits: before the store GCC 12 has no
// registers left for the two halves of a comparison (AVX2), and spills.
SC_INLINE void finish(const row_sweep &row, float *to, int vector, int vectors, f32x16 sum) {
    if (row.relu) sum = maximum(zero(), sum);
    if (vector + 1 == vectors && row.last_lanes != 16) store_partial(to + 16 * vector, sum, row.last_lanes);
    else if (row.stream) store_stream(to + 16 * vector, sum);
    else store(to + 16 * vector, sum);
    if (row.mask) row.mask[(to - row.origin) / 16 + vector] = (uint16_t)nonzero(sum);
}

typedef void (*row_kernel)(const row_sweep &);

SC_CLOSE
