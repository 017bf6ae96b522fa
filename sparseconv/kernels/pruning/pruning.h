// Which weights, activations and gradients go: the table, and in the unit of an instruction set the kernels.
#pragma once
#include "common/problem.h"

struct sc_pruning_table {
    sc_kernel<sc_nm_task> nm_mask;
    sc_kernel<sc_transposable_task> transposable_mask;
    sc_kernel<sc_topk_task> topk_narrow, topk_mask;
    sc_kernel<sc_stochastic_task> stochastic_prune;
};

#if defined(SC_KERNELS)
#include "pruning/nm.h"
#include "pruning/stochastic.h"
#include "pruning/topk.h"
#include "pruning/transposable.h"

SC_OPEN

static constexpr sc_pruning_table pruning_table = {
    {nm_mask, nm_mask_items, nm_mask_scratch},
    {transposable_mask, transposable_mask_items, transposable_mask_scratch},
    {topk_narrow, topk_items, topk_scratch},
    {topk_mask, topk_items, no_scratch},
    {stochastic_prune, stochastic_prune_items, no_scratch},
};

SC_CLOSE
#endif
