// The zero test of the skipping kernels.
#pragma once
#include <stdint.h>

#include "common/base.h"

SC_OPEN

// The elements of x[0 .. count), count <= 64, whose magnitude is not at most `threshold` (in all lanes), as bits. With
// a threshold of zero these are the nonzero ones.
SC_INLINE uint64_t live_word(const float *x, int count, f32x16 threshold) {
    if (count == 64) {
        return above(load(x), threshold) | (uint64_t)above(load(x + 16), threshold) << 16 |
               (uint64_t)above(load(x + 32), threshold) << 32 | (uint64_t)above(load(x + 48), threshold) << 48;
    }
    uint64_t word = 0;
    int i = 0;
    for (; i + 16 <= count; i += 16) word |= (uint64_t)above(load(x + i), threshold) << i;
    if (i < count) word |= (uint64_t)above(load_partial(x + i, count - i), threshold) << i;
    return word;
}

// The same, and these elements side by side: `values` takes whole vectors.
SC_INLINE uint64_t packed_word(const float *x, int count, f32x16 threshold, float *values) {
    uint64_t word = 0;
    const auto pack = [&](f32x16 elements, int i) {
        const uint32_t bits = above(elements, threshold);
        compress(values, elements, bits);
        values += __builtin_popcount(bits), word |= (uint64_t)bits << i;
    };
    if (count == 64) {
        SC_UNROLL for (int i = 0; i < 64; i += 16) pack(load(x + i), i);
        return word;
    }
    int i = 0;
    for (; i + 16 <= count; i += 16) pack(load(x + i), i);
    if (i < count) pack(load_partial(x + i, count - i), i);
    return word;
}

// Those of the elements of x[0 .. count), count <= 64, whose bits are set, side by side, as above.
SC_INLINE void pack_word(const float *x, int count, uint64_t word, float *values) {
    for (int i = 0; i < count; i += 16) {
        const uint32_t bits = word >> i & 0xffff;
        compress(values, count - i >= 16 ? load(x + i) : load_partial(x + i, count - i), bits);
        values += __builtin_popcount(bits);
    }
}

// Bit j of row i becomes bit i of row j: blocks of 32, 16, .. 1 bits on either side of the diagonal change places.
SC_INLINE void transpose_bits(uint64_t (&rows)[64]) {
    uint64_t mask = 0x00000000ffffffff;
    for (int size = 32; size; size /= 2, mask ^= mask << size) {
        for (int begin = 0; begin < 64; begin += 2 * size) {
            for (int i = begin; i < begin + size; ++i) {
                const uint64_t change = (rows[i] >> size ^ rows[i + size]) & mask;
                rows[i] ^= change << size, rows[i + size] ^= change;
            }
        }
    }
}

SC_CLOSE
