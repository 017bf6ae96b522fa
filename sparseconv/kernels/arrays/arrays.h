// What is done with arrays beside convolutions: their table, and in the unit of an instruction set their kernels.
#pragma once
#include "common/problem.h"

struct sc_arrays_table {
    sc_kernel<sc_bias_task> bias_gradient;

    int64_t (*count_above)(const float *data, int64_t count, float threshold);
    void (*mask_nonzero)(const float *data, int64_t count, uint8_t *bits);
    void (*mask_relu)(const float *data, int64_t count, float *out, uint8_t *bits);
    void (*mask_unpack)(const uint8_t *bits, int64_t count, uint8_t *bools);
    int64_t (*mask_live_vectors)(const float *data, int64_t count, int64_t width);
    void (*mask_any)(const uint8_t *bools, int64_t count, int64_t width, uint8_t *any);

    sc_kernel<sc_compress_task> count_blocks, compress_blocks, expand_blocks;
};

#if defined(SC_KERNELS)
#include "arrays/bias.h"
#include "arrays/compress.h"
#include "arrays/mask.h"

SC_OPEN

static constexpr sc_arrays_table arrays_table = {
    {bias_gradient, bias_gradient_items, no_scratch},
    count_above, mask_nonzero, mask_relu, mask_unpack, mask_live_vectors, mask_any,
    {count_blocks, compress_items, no_scratch},
    {compress_blocks, compress_items, no_scratch},
    {expand_blocks, compress_items, no_scratch},
};

SC_CLOSE
#endif
