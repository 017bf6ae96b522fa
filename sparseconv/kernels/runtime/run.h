// Whole calls: kernels of the active instruction set, or of the one that a call was bound to, spread over the pool.
#pragma once
#include "isa/table.h"

// Bytes of memory that a call needs beside its arrays: once for all threads (packed weights), and for each thread.
struct sc_bytes {
    int64_t once, each;
};

// A call of a convolution: a task, bound to the table that its block sizes were made for. A prepared call also says
// which of sc_operands are its arrays, as offsets in bytes; 0: there is none.
union sc_call_task {
    sc_rows_task rows;
    sc_gradient_task gradient;
    sc_groups_task groups;
    sc_groups_gradient_task groups_gradient;
    sc_weights_task weights;
};
struct sc_call {
    const sc_table *table;
    int64_t kernel;  // an sc_kernel_id, which says what the task is
    size_t source, weight, bias, residual, known, needed, bits;  // of backward_weight: source is a, and weight is b
    sc_call_task task;
};

// The arrays of a call by the same roles; null: there is none.
struct sc_arrays {
    void *source, *weight, *bias, *residual, *known, *needed, *needed_pairs, *bits, *out;
};

// What the modules of convolutions call.
struct sc_convolutions {
    const sc_table *(*active)();
    sc_bytes (*bytes)(const sc_call *);
    void (*point)(sc_call *, const sc_arrays *);  // to these arrays, those that its kernel takes
    int (*run)(sc_call *, int threads, sc_signals);  // which is written to: a copy for each run
    int64_t (*gradient_needed)(const sc_table *, const sc_gradient_task *);
    int (*count_lists)(const sc_table *, sc_lists_task *, int threads, sc_signals);
    int (*fill_lists)(const sc_table *, sc_lists_task *, int threads, sc_signals);
};

// The interface that everybody has: include/sparseconv.h. Exported for programs without Python.
extern "C" __attribute__((visibility("default"))) const sc_api *sparseconv_api();
