// forward and backward_data from lists of nonzero weights: the inner kernels.
//
//   sums[filter][m][lane] += sum over the nonzeros of the filter: value * x[offset + m][lane],  0 <= m < T
//
// T neighbouring output columns of one filter, 16 lines each, are the accumulators. A nonzero is broadcast and
// multiplied with T packed columns, contiguous in memory, wherever its tap and channel put them.
#pragma once
#include "common/tile.h"

SC_OPEN

// One sweep: a block of channels, all filters of a share.
struct filter_sweep {
    const float *x;            // packed columns of the first channel of the block
    const int64_t *offsets;    // by a nonzero's index, from x
    const sc_nonzero *nonzeros;
    const int64_t *starts;     // of the first filter and first list of the block
    int64_t starts_pitch, blocks;
    const float *bias;         // what the sums are added to, by filter; null: to those in memory
    float *sums;               // [filter][T][16]
    int64_t filters;
};

// One nonzero with T columns. Every multiply-add loads 64 bytes, of which Zen 4 does one per cycle: 1.07 cycles each,
// and 1.7 for the nonzero's value and place. With 14 columns that makes 1.19 cycles, with 7 columns 1.23.
struct single_nonzeros {
    static constexpr int step = 1;
    template <int T>
    SC_INLINE_MEMBER static void multiply(const filter_sweep &sweep, const sc_nonzero *one, f32x16 (&sum)[T]) {
        const float *x = sweep.x + sweep.offsets[one->index];
        const f32x16 value = splat(&one->value);
        SC_UNROLL for (int m = 0; m < T; ++m) sum[m] = fma(value, load(x + m * 16), sum[m]);
    }
};

// Three nonzeros, an inner row of taps that meet neighbouring columns: each column is loaded once for all three, which
// makes 1.03 cycles for a multiply-add.
template <bool BACKWARD>
struct whole_rows {
    static constexpr int step = 3;
    template <int T>
    SC_INLINE_MEMBER static void multiply(const filter_sweep &sweep, const sc_nonzero *one, f32x16 (&sum)[T]) {
        const sc_nonzero &first = one[BACKWARD ? 2 : 0], &last = one[BACKWARD ? 0 : 2];
        const float *x = sweep.x + sweep.offsets[first.index];
        const f32x16 a = splat(&first.value), b = splat(&one[1].value), c = splat(&last.value);
        SC_UNROLL for (int m = 0; m < T + 2; ++m) {
            f32x16 column = load(x + m * 16);
            hold(column);
            if (m < T) sum[m] = fma(a, column, sum[m]);
            if (m >= 1 && m <= T) sum[m - 1] = fma(b, column, sum[m - 1]);
            if (m >= 2) sum[m - 2] = fma(c, column, sum[m - 2]);
        }
    }
};

// A sum of few columns would wait for its last multiply-add (4 cycles) at each nonzero: several sums are kept, of every
// second or fourth nonzero. 1024 x 1024 at 90% zeros, 16 positions, each a lane now: 11.2 -> 3 cycles for each
// nonzero (Zen 5).
template <class Nonzeros, int T>
constexpr int chains() {
    constexpr int room = f32x16::accumulators / T, wanted = 8 / T;
    constexpr int least = room < wanted ? room : wanted;
    return Nonzeros::step > 1 || least < 2 ? 1 : least < 4 ? 2 : 4;
}

template <class Nonzeros, int T>
SC_ALONE static void weights_skip(const filter_sweep &sweep) {
    constexpr int CHAINS = chains<Nonzeros, T>();
    const int64_t *starts = sweep.starts;
    float *sums = sweep.sums;
    // Where a list ends is read one filter ahead, so that the end of the loop does not wait for a load behind all the
    // multiply-adds: 1.55 -> 1.50 cycles for each of them at 90% zeros.
    const sc_nonzero *next = sweep.nonzeros + starts[0], *next_end = sweep.nonzeros + starts[sweep.blocks];
    for (int64_t filter = 0; filter < sweep.filters; ++filter, sums += T * 16) {
        const sc_nonzero *one = next, *end = next_end;
        if (filter + 1 < sweep.filters) starts += sweep.starts_pitch;
        next = sweep.nonzeros + starts[0], next_end = sweep.nonzeros + starts[sweep.blocks];
        SC_PIN(next);
        SC_PIN(next_end);
        for (int line = 0; line < 4; ++line) __builtin_prefetch(next + 8 * line);  // long lists are far apart
        if (!sweep.bias && one == end) continue;
        f32x16 sum[CHAINS][T];  // of this block of channels alone, as in rows/skip.h
        SC_UNROLL for (int i = 0; i < CHAINS * T; ++i) sum[i / T][i % T] = zero();
        if constexpr (CHAINS > 1) {
            for (; end - one >= CHAINS; one += CHAINS) {
                SC_UNROLL for (int c = 0; c < CHAINS; ++c) Nonzeros::multiply(sweep, one + c, sum[c]);
            }
        }
        for (; one < end; one += Nonzeros::step) Nonzeros::multiply(sweep, one, sum[0]);
        if constexpr (CHAINS == 4) {
            SC_UNROLL for (int m = 0; m < T; ++m) sum[0][m] = add(sum[0][m], sum[2][m]);
            SC_UNROLL for (int m = 0; m < T; ++m) sum[1][m] = add(sum[1][m], sum[3][m]);
        }
        if constexpr (CHAINS > 1) {
            SC_UNROLL for (int m = 0; m < T; ++m) sum[0][m] = add(sum[0][m], sum[1][m]);
        }
        if (sweep.bias) {
            const f32x16 bias = splat(sweep.bias + filter);
            SC_UNROLL for (int m = 0; m < T; ++m) sum[0][m] = add(sum[0][m], bias);
        } else {
            SC_UNROLL for (int m = 0; m < T; ++m) sum[0][m] = add(sum[0][m], load(sums + m * 16));
        }
        SC_UNROLL for (int m = 0; m < T; ++m) store(sums + m * 16, sum[0][m]);
    }
}

typedef void (*weights_kernel)(const filter_sweep &);

template <class Nonzeros, int T = f32x16::accumulators < 16 ? f32x16::accumulators : 16>
SC_INLINE weights_kernel weights_kernel_for(int64_t tile) {
    if constexpr (T > 1) {
        if (tile < T) return weights_kernel_for<Nonzeros, T - 1>(tile);
    }
    return weights_skip<Nonzeros, T>;
}

SC_CLOSE
