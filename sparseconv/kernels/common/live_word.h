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
