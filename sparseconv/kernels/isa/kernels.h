// All kernels, and the table of them: what an isa/*.cpp compiles for its instruction set.
#pragma once
#include "arrays/bias.h"
#include "arrays/compress.h"
#include "arrays/mask.h"
#include "gradient/gradient.h"
#include "groups/gradient.h"
#include "groups/groups.h"
#include "isa/table.h"
#include "outputs/outputs.h"
#include "pruning/nm.h"
#include "pruning/stochastic.h"
#include "pruning/topk.h"
#include "pruning/transposable.h"
#include "rows/rows.h"
#include "weights/lists.h"
#include "weights/weights.h"

#define SC_TEXT_(name) #name
#define SC_TEXT(name) SC_TEXT_(name)

namespace sparseconv { namespace SC_ISA {

// The only symbol of the translation unit. Constant: nothing runs when the library is loaded.
extern const sc_table table;
constexpr sc_table table = {
    SC_TEXT(SC_ISA), f32x16::accumulators, f32x16::dense_pixels, f32x16::dense_vectors,
    pack_weights, rows, rows_scratch_bytes,
    pack_outputs_weights, outputs,
    gradient, gradient_scratch_bytes, gradient_needed,
    pack_groups, pack_groups_bytes, groups, groups_scratch_bytes,
    groups_gradient, groups_gradient_scratch_bytes, groups_gradient_sums_bytes, store_groups_gradient,
    count_lists, fill_lists,
    weights, weights_scratch_bytes,
    bias_gradient,
    count_above, mask_nonzero, mask_relu, mask_unpack, mask_live_vectors, mask_any,
    count_blocks, compress_blocks, expand_blocks,
    nm_mask, nm_mask_scratch,
    transposable_mask, transposable_mask_scratch,
    topk_narrow, topk_scratch, topk_mask,
    stochastic_prune,
    nullptr,
};

}}
