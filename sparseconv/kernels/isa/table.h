// Tables of entry points per instruction set: the only symbol that an isa/*.cpp exports.
#pragma once
#include "common/problem.h"

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

    // The same where only some outputs are needed: tasks with `outputs`. Items and scratch are those above.
    void (*pack_outputs_weights)(const sc_rows_task *, int64_t begin, int64_t end, void *scratch);
    void (*outputs)(const sc_rows_task *, int64_t begin, int64_t end, void *scratch);

    // backward_weight. Items: groups * lane superblocks * channel blocks.
    void (*gradient)(const sc_gradient_task *, int64_t begin, int64_t end, void *scratch);
    int64_t (*gradient_scratch)(const sc_gradient_task *);
    int64_t (*gradient_needed)(const sc_gradient_task *);  // (channel, lane block) pairs that `pairs` needs

    // narrow groups. Items of pack_groups: vectors; of groups: chunks * shares.
    void (*pack_groups)(const sc_groups_task *, int64_t begin, int64_t end, void *scratch);
    int64_t (*pack_groups_bytes)(const sc_groups_task *);  // of task.packed
    void (*groups)(const sc_groups_task *, int64_t begin, int64_t end, void *scratch);
    int64_t (*groups_scratch)(const sc_groups_task *);
    // Items of groups_gradient: parts * shares; of store_groups_gradient: vectors.
    void (*groups_gradient)(const sc_groups_gradient_task *, int64_t begin, int64_t end, void *scratch);
    int64_t (*groups_gradient_scratch)(const sc_groups_gradient_task *);
    int64_t (*groups_gradient_sums_bytes)(const sc_groups_gradient_task *);  // of task.sums
    void (*store_groups_gradient)(const sc_groups_gradient_task *, int64_t begin, int64_t end, void *scratch);

    // lists of nonzero weights, counted first, then filled. Items: groups * blocks of item_rows rows
    void (*count_lists)(const sc_lists_task *, int64_t begin, int64_t end, void *scratch);
    void (*fill_lists)(const sc_lists_task *, int64_t begin, int64_t end, void *scratch);

    // forward and backward_data from lists of nonzero weights. Items: groups * chunks * shares
    void (*weights)(const sc_weights_task *, int64_t begin, int64_t end, void *scratch);
    int64_t (*weights_scratch)(const sc_weights_task *);

    // bias gradient. Items: blocks of 64 channels.
    void (*bias_gradient)(const sc_bias_task *, int64_t begin, int64_t end, void *scratch);

    // densities: elements whose magnitude is not at most the threshold
    int64_t (*count_above)(const float *data, int64_t count, float threshold);

    // masks, arrays/mask.h: 8 elements per byte, lowest bit first
    void (*mask_nonzero)(const float *data, int64_t count, uint8_t *bits);
    void (*mask_relu)(const float *data, int64_t count, float *out, uint8_t *bits);
    void (*mask_unpack)(const uint8_t *bits, int64_t count, uint8_t *bools);
    int64_t (*mask_live_vectors)(const float *data, int64_t count, int64_t width);
    void (*mask_any)(const uint8_t *bools, int64_t count, int64_t width, uint8_t *any);

    // packed nonzeros, arrays/compress.h. Items: SC_COMPRESSED_ITEM elements; where nothing was counted, one after the
    // other.
    void (*count_blocks)(const sc_compress_task *, int64_t begin, int64_t end, void *scratch);
    void (*compress_blocks)(const sc_compress_task *, int64_t begin, int64_t end, void *scratch);
    void (*expand_blocks)(const sc_compress_task *, int64_t begin, int64_t end, void *scratch);

    // pruning masks, pruning/nm.h and pruning/transposable.h. Items: sixteen groups, sixteen blocks.
    void (*nm_mask)(const sc_nm_task *, int64_t begin, int64_t end, void *scratch);
    int64_t (*nm_mask_scratch)(const sc_nm_task *);
    void (*transposable_mask)(const sc_transposable_task *, int64_t begin, int64_t end, void *scratch);
    int64_t (*transposable_mask_scratch)(const sc_transposable_task *);

    // Top-K, pruning/topk.h. Items: SC_TOPK_ITEM elements. topk_mask needs no scratch memory.
    void (*topk_narrow)(const sc_topk_task *, int64_t begin, int64_t end, void *scratch);
    int64_t (*topk_scratch)(const sc_topk_task *);
    void (*topk_mask)(const sc_topk_task *, int64_t begin, int64_t end, void *scratch);
    // gradients, pruning/stochastic.h. Items: SC_STOCHASTIC_ITEM elements.
    void (*stochastic_prune)(const sc_stochastic_task *, int64_t begin, int64_t end, void *scratch);

    const sc_tile_table *tiles;  // null where there are no tile registers
} sc_table;
