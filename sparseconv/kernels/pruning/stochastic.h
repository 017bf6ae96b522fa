// Stochastic pruning of gradients: |g| >= tau stays; below, g becomes sign(g) tau if |g| > r tau, else 0, with r from
// pruning/philox.h uniform in (0, 1), so that its expected value is g. In one expression, since r < 1:
//   |g| > r tau (or NaN)  ->  sign(g) max(|g|, tau),  else 0
//
// The same sweep sums up |g|, whose mean is what the next threshold is made of. The sums are those of sixteen lanes of
// an item, in double, added up in the order of lanes: the same for all instruction sets and numbers of threads, as are
// the random numbers, which belong to places in the array.
//
// Expected of 32 elements on AVX-512: 46 instructions for the random numbers (7 rounds of 6, 4 for fractions), 32 for
// the rule and the sums, two per cycle: 40 cycles, 2.9 G elements/s at 3.6 GHz or 23 GB/s in place, about what memory
// gives. Measured (Zen 4, one core): 2.2 with AVX-512, 1.7 with AVX2, in L2 and in memory alike, in place and not,
// where np.copyto has 3.2 in memory; without the sums 2.5, with ten rounds 1.7, one chain of rounds at a time 1.8.
// Rules written as loops over sixteen lanes were as fast, or 2 to 10 times slower where GCC 12 took them for branches.
#pragma once
#include "common/base.h"
#include "common/problem.h"
#include "pruning/philox.h"

SC_OPEN

enum { VECTOR = 16 };

struct lane_sums {  // of float64: the sums that f64x16 has of float32
    double lane[VECTOR];
};
SC_INLINE void store(double *to, const lane_sums &sums) {
    for (int l = 0; l < VECTOR; ++l) to[l] = sums.lane[l];
}

// Up to sixteen elements: adds their magnitudes to `sums`, writes what is left of them if `prunes`. Returns how many
// are not zero then.
template <bool prunes, bool whole>
SC_INLINE int prune_vector(const float *from, float *to, const float *fraction, float tau, int n, f64x16 &sums) {
    const f32x16 g = whole ? load(from) : load_partial(from, n);
    sums = add_magnitudes(sums, g);
    if (!prunes) return __builtin_popcount(nonzero(g));
    const f32x16 limit = splat(&tau), drawn = multiply(load(fraction), limit);
    const f32x16 left = keep_above(g, outward(g, limit), drawn);
    if (whole) store(to, left);
    else store_partial(to, left, n);
    return __builtin_popcount(above(g, drawn));
}

template <bool prunes, bool whole>
SC_INLINE int prune_vector(const double *from, double *to, const float *fraction, double tau, int n, lane_sums &sums) {
    int live = 0;
    for (int l = 0; l < n; ++l) {
        const double g = from[l], magnitude = __builtin_fabs(g);
        sums.lane[l] += magnitude;
        const bool stays = !(magnitude <= (prunes ? (double)fraction[l] * tau : 0));
        if (prunes) to[l] = stays ? __builtin_copysign(tau > magnitude ? tau : magnitude, g) : 0;
        live += stays;
    }
    return live;
}

template <bool prunes, bool whole, class T, class Sums>
SC_INLINE int prune_batch(const T *from, T *to, const float *fractions, T tau, int64_t n, Sums &sums) {
    int live = 0;
    SC_UNROLL for (int i = 0; i < PHILOX_NUMBERS; i += VECTOR) {
        if (!whole && i >= n) break;
        const int lanes = whole || n - i > VECTOR ? VECTOR : (int)(n - i);
        live += prune_vector<prunes, whole>(from + i, to + i, fractions + i, tau, lanes, sums);
    }
    return live;
}

template <bool prunes, class Sums, class T>
static void stochastic_items(const sc_stochastic_task &task, const T *from, int64_t begin, int64_t end) {
    const philox_keys keys(task.key);
    const T tau = (T)task.threshold;
    T *to = prunes ? (T *)task.out : (T *)from;  // never written to in the second case
    alignas(64) float fractions[PHILOX_NUMBERS];
    for (int64_t item = begin; item < end; ++item) {
        if (task.interrupt.poll(task.interrupt.context)) return;
        const int64_t first = item * SC_STOCHASTIC_ITEM, left = task.count - first;
        const int64_t last = left < SC_STOCHASTIC_ITEM ? task.count : first + SC_STOCHASTIC_ITEM;
        Sums sums = {};
        int64_t live = 0, i = first;
        for (; i + PHILOX_NUMBERS <= last; i += PHILOX_NUMBERS) {
            if (prunes) philox(fractions, (uint64_t)i, keys);
            live += prune_batch<prunes, true>(from + i, to + i, fractions, tau, PHILOX_NUMBERS, sums);
        }
        if (i < last) {
            if (prunes) philox(fractions, (uint64_t)i, keys);
            live += prune_batch<prunes, false>(from + i, to + i, fractions, tau, last - i, sums);
        }
        double lanes[VECTOR], sum = 0;
        store(lanes, sums);
        for (double lane : lanes) sum += lane;
        task.sums[item] = sum, task.nonzeros[item] = live;
    }
}

// Items: SC_STOCHASTIC_ITEM elements each.
static void stochastic_prune(const sc_stochastic_task *task, int64_t begin, int64_t end, void *) {
    const sc_magnitudes &gradient = task->gradient;
    if (gradient.single && task->out) stochastic_items<true, f64x16>(*task, gradient.single, begin, end);
    else if (gradient.single) stochastic_items<false, f64x16>(*task, gradient.single, begin, end);
    else if (task->out) stochastic_items<true, lane_sums>(*task, gradient.wide, begin, end);
    else stochastic_items<false, lane_sums>(*task, gradient.wide, begin, end);
}

static int64_t stochastic_prune_items(const sc_stochastic_task *task) {
    return ceil_div(task->count, SC_STOCHASTIC_ITEM);
}

SC_CLOSE
