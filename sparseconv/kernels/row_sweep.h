// What kernel_rows.h asks of a row kernel: sweep one weight tile over one row.
#pragma once
#include "problem.h"

SC_OPEN

// One sweep of a weight tile over one row.
struct row_sweep {
    const float *in;  // column 0 of the pass, first channel of the block
    int64_t in_pitch, in_count;
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
};

SC_INLINE f32x16 started(const row_sweep &row, int64_t m, int vector) {
    return load(row.from + (m - row.begin) * row.from_pitch + 16 * vector);
}

SC_INLINE void finished(const row_sweep &row, int64_t m, int vector, int vectors, f32x16 sum) {
    if (row.relu) sum = maximum(zero(), sum);
    float *to = row.to + (m - row.begin) * row.to_pitch + 16 * vector;
    if (vector + 1 == vectors && row.last_lanes != 16) store_partial(to, sum, row.last_lanes);
    else store(to, sum);
}

typedef void (*row_kernel)(const row_sweep &);

SC_CLOSE
