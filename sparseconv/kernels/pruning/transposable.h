// Transposable N:M masks: n kept elements in every row and every column of m x m blocks, so that a matrix and its
// transpose are both N:M sparse.
#pragma once
#include "pruning/transposable_entropy.h"
#include "pruning/transposable_exact.h"
#include "pruning/transposable_greedy.h"

SC_OPEN

// Items: sixteen blocks each.
static void transposable_mask(const sc_transposable_task *whole, int64_t begin, int64_t end, void *scratch) {
    const sc_transposable_task &task = *whole;
    const int64_t m = task.m, n = task.n, count = m * m * BLOCK_LANES;
    float *magnitude = (float *)scratch, *relaxed = magnitude + 2 * count, *dual = magnitude + 3 * count;
    int32_t *keys = (int32_t *)(magnitude + count);
    double *exact = (double *)scratch;
    block_masks masks;
    for (int64_t item = begin; item < end; ++item) {
        if (task.interrupt.poll(task.interrupt.context)) return;
        if (task.method == SC_EXACT) {
            load_lanes(exact, task, item);
            if (n == 2 && m == 4) exact_masks_2_4(masks, exact);
            else exact_masks(masks, exact, m, n);
        } else {
            load_lanes(magnitude, task, item);
            const bool entropy = task.method == SC_ENTROPY;
            if (entropy) relaxed_masks(relaxed, dual, magnitude, m, n, (float)task.sharpness, task.iterations);
            greedy_masks(masks, keys, entropy ? relaxed : magnitude, magnitude, m, n);
        }
        store_masks(masks, task, item);
    }
}

static int64_t transposable_mask_scratch(const sc_transposable_task *task) {
    return task->m * task->m * BLOCK_LANES * (int64_t)sizeof(float) * (task->method == SC_GREEDY ? 2 : 4);
}

static int64_t transposable_mask_items(const sc_transposable_task *task) {
    return ceil_div(ceil_div(task->rows, task->m) * ceil_div(task->columns, task->m), BLOCK_LANES);
}

SC_CLOSE
