// The table of all kernels of an instruction set: the only symbol that an isa/*.cpp exports. What a family has is said
// by its own table, beside its tasks (common/problem.h, arrays/arrays.h, pruning/pruning.h).
#pragma once
#include "arrays/arrays.h"
#include "common/problem.h"
#include "pruning/pruning.h"

// Dense kernels on tile registers, for SC_ROWS_TILES and SC_GRADIENT_TILES.
struct sc_tile_table {
    int64_t (*works)();  // nonzero if a product of known result comes out right
    sc_rows_table rows;
    sc_gradient_table gradient;
    int64_t fp16;  // 1: two parts of an f32 are fp16 numbers and as accurate as f32; 0: bf16
};

// What fits into the registers, and what follows from that.
struct sc_limits {
    int64_t accumulators;                 // f32x16 accumulators beside the operands
    int64_t dense_pixels, dense_vectors;  // register tile of the dense kernels
    int64_t point_vectors;                // of a lane block of gradient/points.h
    double slope;                         // of the skipping kernels' cost: simd/avx512.h
};

typedef struct sc_table {
    const char *name;
    sc_limits limits;
    sc_rows_table rows, outputs;  // forward and backward_data; where only some outputs are needed
    sc_gradient_table gradient;   // backward_weight
    sc_groups_table groups;       // all three, of narrow groups
    sc_weights_table weights;     // forward and backward_data from lists of nonzero weights
    sc_arrays_table arrays;
    sc_pruning_table pruning;
    const sc_tile_table *tiles;   // null where there are no tile registers
} sc_table;
