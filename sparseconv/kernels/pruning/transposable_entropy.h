// Entropy-regularised transport, the relaxed mask of TSENOR (Meng, Makni, Mazumder, arXiv 2505.23949): the S that
// maximises sum(S * |W|) + H(S) / sharpness, with rows and columns that sum to n and 0 <= S <= 1, by Dykstra's
// algorithm: scale the rows, scale the columns, clip at 1. Only the clipping needs Dykstra's correction, whose update
// Q := Q * S / min(S * Q, 1) comes down to max(S * Q, 1).
#pragma once
#include "pruning/transposable_lanes.h"

SC_OPEN

// exp(x) for -87 <= x <= 0, to 1e-4: e^x = 2^i * 2^f with a polynomial for 2^f. Only the order of S matters.
SC_INLINE float rough_exp(float x) {
    const float power = x * 1.44269504f + 127;
    const int32_t whole = (int32_t)power;
    const float f = power - (float)whole;
    const int32_t bits = whole << 23;
    float scale;
    __builtin_memcpy(&scale, &bits, sizeof scale);
    return scale * (1 + f * (0.69583354f + f * (0.22606716f + f * 0.07810150f)));
}

SC_INLINE void scale_line(float *line, int64_t step, int64_t m, float n) {
    float factor[BLOCK_LANES] = {};
    for (int64_t k = 0; k < m; ++k) {
        for (int l = 0; l < BLOCK_LANES; ++l) factor[l] += line[k * step + l];
    }
    for (int l = 0; l < BLOCK_LANES; ++l) factor[l] = n / factor[l];
    for (int64_t k = 0; k < m; ++k) {
        for (int l = 0; l < BLOCK_LANES; ++l) line[k * step + l] *= factor[l];
    }
}

static void relaxed_masks(float *__restrict s, float *__restrict q, const float *__restrict magnitude, int64_t m,
                          int64_t n, float sharpness, int64_t iterations) {
    const int64_t count = m * m * BLOCK_LANES, row = m * BLOCK_LANES;
    float peak[BLOCK_LANES] = {};
    for (int64_t i = 0; i < count; i += BLOCK_LANES) {
        for (int l = 0; l < BLOCK_LANES; ++l) peak[l] = magnitude[i + l] > peak[l] ? magnitude[i + l] : peak[l];
    }
    for (int l = 0; l < BLOCK_LANES; ++l) peak[l] = peak[l] > 0 ? peak[l] : 1;
    for (int64_t i = 0; i < count; i += BLOCK_LANES) {
        for (int l = 0; l < BLOCK_LANES; ++l) {
            s[i + l] = rough_exp(sharpness * (magnitude[i + l] / peak[l] - 1)), q[i + l] = 1;
        }
    }
    for (int64_t iteration = 0; iteration < iterations; ++iteration) {
        for (int64_t i = 0; i < m; ++i) scale_line(s + i * row, BLOCK_LANES, m, (float)n);
        for (int64_t j = 0; j < m; ++j) scale_line(s + j * BLOCK_LANES, row, m, (float)n);
        for (int64_t i = 0; i < count; ++i) {
            const float product = s[i] * q[i];
            s[i] = product < 1 ? product : 1, q[i] = product < 1 ? 1 : product;
        }
    }
}

SC_CLOSE
