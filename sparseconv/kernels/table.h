// Tables of entry points per instruction set: the only symbol that an isa_*.cpp exports.
#pragma once
#include "problem.h"

// Dense kernels on tile registers, for tasks with `parts`; items are those of sc_table.
typedef struct {
    int64_t (*works)();  // nonzero if a product of known result comes out right
    void (*pack_weights)(const sc_rows_task *, int64_t begin, int64_t end, void *scratch);
    int64_t (*pack_weights_scratch)(const sc_rows_task *);
    void (*rows)(const sc_rows_task *, int64_t begin, int64_t end, void *scratch);
    int64_t (*rows_scratch)(const sc_rows_task *);
    void (*gradient)(const sc_gradient_task *, int64_t begin, int64_t end, void *scratch);
    int64_t (*gradient_scratch)(const sc_gradient_task *);
} sc_tile_table;

typedef struct {
    const char *name;
    int64_t accumulators;        // f32x16 accumulators that fit in registers beside the operands
    int64_t dense_pixels, dense_vectors;  // register tile of the dense kernels

    // forward and backward_data. Items of pack_weights: groups * lane blocks * channel blocks.
    // Items of rows: groups * chunks * lane groups.
    void (*pack_weights)(const sc_rows_task *, int64_t begin, int64_t end, void *scratch);
    void (*rows)(const sc_rows_task *, int64_t begin, int64_t end, void *scratch);
    int64_t (*rows_scratch)(const sc_rows_task *);

    // backward_weight. Items: groups * lane superblocks * channel blocks.
    void (*gradient)(const sc_gradient_task *, int64_t begin, int64_t end, void *scratch);
    int64_t (*gradient_scratch)(const sc_gradient_task *);

    // bias gradient. Items: blocks of 64 channels.
    void (*bias_gradient)(const sc_bias_task *, int64_t begin, int64_t end, void *scratch);

    // densities
    int64_t (*count_nonzero)(const float *data, int64_t count);

    // masks, kernel_mask.h: 8 elements per byte, lowest bit first
    void (*mask_nonzero)(const float *data, int64_t count, uint8_t *bits);
    void (*mask_relu)(const float *data, int64_t count, float *out, uint8_t *bits);
    void (*mask_unpack)(const uint8_t *bits, int64_t count, uint8_t *bools);
    int64_t (*mask_live_vectors)(const float *data, int64_t count, int64_t width);

    // pruning masks, kernel_nm.h and kernel_transposable.h. Items: sixteen groups, sixteen blocks.
    void (*nm_mask)(const sc_nm_task *, int64_t begin, int64_t end, void *scratch);
    int64_t (*nm_mask_scratch)(const sc_nm_task *);
    void (*transposable_mask)(const sc_transposable_task *, int64_t begin, int64_t end, void *scratch);
    int64_t (*transposable_mask_scratch)(const sc_transposable_task *);

    const sc_tile_table *tiles;  // null where there are no tile registers
} sc_table;
