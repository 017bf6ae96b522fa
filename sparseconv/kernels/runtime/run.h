// Whole calls: what the Cython layer asks for. Kernels of the active instruction set, spread over the pool.
#pragma once
#include "isa/table.h"

namespace sparseconv {

// `signals` is called on the calling thread every 50 ms; nonzero stops the call. All return a `status`.
int run_rows(const sc_table &table, sc_rows_task &task, int threads, int (*signals)());
int run_gradient(const sc_table &table, sc_gradient_task &task, int threads, int (*signals)());
int run_groups(const sc_table &table, sc_groups_task &task, int threads, int (*signals)());
int run_groups_gradient(const sc_table &table, sc_groups_gradient_task &task, int threads, int (*signals)());
// Step 0 counts the nonzeros, step 1 fills the lists.
int run_lists(const sc_table &table, sc_lists_task &task, int step, int threads, int (*signals)());
int run_weights(const sc_table &table, sc_weights_task &task, int threads, int (*signals)());
int run_bias_gradient(const sc_table &table, sc_bias_task &task, int threads, int (*signals)());
int run_nm_mask(const sc_table &table, sc_nm_task &task, int threads, int (*signals)());
int run_transposable_mask(const sc_table &table, sc_transposable_task &task, int threads, int (*signals)());
int run_stochastic_prune(const sc_table &table, sc_stochastic_task &task, int threads, int (*signals)());

// The k-th largest magnitude of task.data[0 .. task.count), in how many passes it was found, and, if there is
// task.mask, the mask of the k largest ones. The magnitude is NaN, and nothing else is done, where any element is.
struct topk_result {
    float magnitude;
    int64_t passes;
};
int run_topk(const sc_table &table, sc_topk_task &task, int64_t k, topk_result &result, int threads,
             int (*signals)());
// The mask of the elements that are above task.high.
int run_above_mask(const sc_table &table, sc_topk_task &task, int threads, int (*signals)());

// Compressing: in one thread at once, in several after counting, which sets the offsets (arrays/compress.h).
int run_count_blocks(const sc_table &table, const sc_compress_task &task, int threads, int (*signals)());
int run_compress(const sc_table &table, const sc_compress_task &task, int threads, int (*signals)());
int run_expand(const sc_table &table, const sc_compress_task &task, int threads, int (*signals)());

// Bytes of memory that a call needs beside its arrays: packed weights, once, and scratch, per thread.
int64_t rows_packed_bytes(const sc_rows_task &task);
int64_t rows_scratch_bytes(const sc_table &table, const sc_rows_task &task);
int64_t gradient_scratch_bytes(const sc_table &table, const sc_gradient_task &task);

}  // namespace sparseconv
