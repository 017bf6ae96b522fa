// forward and backward_data from lists of nonzero weights: the inner kernel.
//
//   sums[filter][m][lane] += sum over the nonzeros of the filter: value * x[offset + m][lane],  0 <= m < T
//
// T neighbouring output columns of one filter, 16 lines each, are the accumulators. A nonzero is broadcast and
// multiplied with T packed columns, contiguous in memory, wherever its tap and channel put them.
#pragma once
#include "tile.h"

SC_OPEN

// One sweep: a block of channels, all filters of a share.
struct filter_sweep {
    const float *x;            // packed columns of the first channel of the block
    const int64_t *offsets;    // by a nonzero's index, from x
    const sc_nonzero *nonzeros;
    const int64_t *starts;     // of the first filter and first list of the block
    int64_t starts_pitch, blocks;
    const float *bias;         // what the sums begin with, by filter; null: they are in memory
    float *sums;               // [filter][T][16]
    int64_t filters;
};

template <int T>
SC_ALONE static void weights_skip(const filter_sweep &sweep) {
    const int64_t *starts = sweep.starts, *offsets = sweep.offsets;
    float *sums = sweep.sums;
    // Where a list ends is read one filter ahead: a load that had to queue behind the multiply-adds would let the end of
    // the loop, often mispredicted, wait for all of them.
    const sc_nonzero *next = sweep.nonzeros + starts[0], *next_end = sweep.nonzeros + starts[sweep.blocks];
    for (int64_t filter = 0; filter < sweep.filters; ++filter, sums += T * 16) {
        const sc_nonzero *one = next, *end = next_end;
        if (filter + 1 < sweep.filters) starts += sweep.starts_pitch;
        next = sweep.nonzeros + starts[0], next_end = sweep.nonzeros + starts[sweep.blocks];
        SC_PIN(next);
        SC_PIN(next_end);
        f32x16 sum[T];
        if (sweep.bias) {
            const f32x16 bias = splat(sweep.bias + filter);
            SC_UNROLL for (int m = 0; m < T; ++m) sum[m] = bias;
        } else {
            if (one == end) continue;
            SC_UNROLL for (int m = 0; m < T; ++m) sum[m] = load(sums + m * 16);
        }
        for (; one < end; ++one) {
            const float *x = sweep.x + offsets[one->index];
            const f32x16 value = splat(&one->value);
            SC_UNROLL for (int m = 0; m < T; ++m) sum[m] = fma(value, load(x + m * 16), sum[m]);
        }
        SC_UNROLL for (int m = 0; m < T; ++m) store(sums + m * 16, sum[m]);
    }
}

typedef void (*weights_kernel)(const filter_sweep &);

template <int T>
SC_INLINE weights_kernel weights_kernel_for(int64_t tile) {
    if constexpr (T > 1) {
        if (tile < T) return weights_kernel_for<T - 1>(tile);
    }
    return weights_skip<T>;
}

SC_CLOSE
