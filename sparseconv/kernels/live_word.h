// The zero test of the skipping kernels.
#pragma once
#include <stdint.h>

#include "base.h"

SC_OPEN

// The nonzero elements of x[0 .. count), count <= 64, as bits.
SC_INLINE uint64_t live_word(const float *x, int count) {
    if (count == 64) {
        return nonzero(load(x)) | (uint64_t)nonzero(load(x + 16)) << 16 | (uint64_t)nonzero(load(x + 32)) << 32 |
               (uint64_t)nonzero(load(x + 48)) << 48;
    }
    uint64_t word = 0;
    int i = 0;
    for (; i + 16 <= count; i += 16) word |= (uint64_t)nonzero(load(x + i)) << i;
    if (i < count) word |= (uint64_t)nonzero(load_partial(x + i, count - i)) << i;
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
