// All kernels, and the table of them: what an isa_*.cpp compiles for its instruction set.
#pragma once
#include "kernel_bias.h"
#include "kernel_compress.h"
#include "kernel_gradient.h"
#include "kernel_groups.h"
#include "kernel_groups_gradient.h"
#include "kernel_lists.h"
#include "kernel_mask.h"
#include "kernel_nm.h"
#include "kernel_outputs.h"
#include "kernel_rows.h"
#include "kernel_stochastic.h"
#include "kernel_topk.h"
#include "kernel_transposable.h"
#include "kernel_weights.h"
#include "table.h"

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
