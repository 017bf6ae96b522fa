// Whole calls: kernels of the active instruction set, or of the one that a call was bound to, spread over the pool.
#pragma once
#include "isa/table.h"

// Bytes of memory that a call needs beside its arrays: once for all threads (packed weights), and for each thread.
struct sc_bytes {
    int64_t once, each;
};

// What the modules of convolutions call. A task is bound to the table that its block sizes were made for.
struct sc_convolutions {
    const sc_table *(*active)();
    int (*rows)(const sc_table *, sc_rows_task *, int threads, sc_signals);
    int (*gradient)(const sc_table *, sc_gradient_task *, int threads, sc_signals);
    int (*groups)(const sc_table *, sc_groups_task *, int threads, sc_signals);
    int (*groups_gradient)(const sc_table *, sc_groups_gradient_task *, int threads, sc_signals);
    int (*weights)(const sc_table *, sc_weights_task *, int threads, sc_signals);
    int (*count_lists)(const sc_table *, sc_lists_task *, int threads, sc_signals);
    int (*fill_lists)(const sc_table *, sc_lists_task *, int threads, sc_signals);
    sc_bytes (*rows_bytes)(const sc_table *, const sc_rows_task *);
    sc_bytes (*gradient_bytes)(const sc_table *, const sc_gradient_task *);
    sc_bytes (*groups_bytes)(const sc_table *, const sc_groups_task *);
    sc_bytes (*groups_gradient_bytes)(const sc_table *, const sc_groups_gradient_task *);
    sc_bytes (*weights_bytes)(const sc_table *, const sc_weights_task *);
    int64_t (*gradient_needed)(const sc_table *, const sc_gradient_task *);
};

// A prepared call: a task, and which of sc_operands are its arrays, as offsets in bytes; 0: there is none.
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

// The interface that everybody has: include/sparseconv.h. Exported for programs without Python.
extern "C" __attribute__((visibility("default"))) const sc_api *sparseconv_api();
