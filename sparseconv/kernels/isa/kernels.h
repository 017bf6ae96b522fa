// All kernels, and the table of them: what an isa/*.cpp compiles for its instruction set.
#pragma once
#define SC_KERNELS  // family headers bring their kernels, too
#include "gradient/gradient.h"
#include "groups/gradient.h"
#include "isa/table.h"
#include "outputs/outputs.h"
#include "rows/rows.h"
#include "weights/weights.h"

#define SC_TEXT_(name) #name
#define SC_TEXT(name) SC_TEXT_(name)

namespace sparseconv { namespace SC_ISA {

// The only symbol of the translation unit. Constant: nothing runs when the library is loaded.
extern const sc_table table;
constexpr sc_table table = {
    SC_TEXT(SC_ISA),
    {f32x16::accumulators, f32x16::dense_pixels, f32x16::dense_vectors, f32x16::point_vectors, f32x16::slope},
    rows_table, outputs_table, gradient_table, groups_table, weights_table, arrays_table, pruning_table,
    nullptr,
};

}}
