// Bit masks of nonzero elements: element i is bit i % 8 of byte i / 8 (NumPy's bitorder="little"), in memory order.
// Bits behind the last element are zero. All of it runs at the speed of the memory it reads.
#pragma once
#include "common/live_word.h"

SC_OPEN

static int64_t count_above(const float *data, int64_t count, float threshold) {
    const f32x16 limit = splat(&threshold);
    int64_t live = 0, i = 0;
    for (; i + 64 <= count; i += 64) {
        live += __builtin_popcountll(live_word(data + i, 64, limit));
    }
    return live + __builtin_popcountll(live_word(data + i, (int)(count - i), limit));
}

SC_INLINE void store_bits(uint8_t *bits, uint32_t word, int64_t count) {
    bits[0] = (uint8_t)word;
    if (count > 8) bits[1] = (uint8_t)(word >> 8);
}

static void mask_nonzero(const float *data, int64_t count, uint8_t *bits) {
    int64_t i = 0;
    for (; i + 16 <= count; i += 16) store_bits(bits + i / 8, nonzero(load(data + i)), 16);
    if (i < count) store_bits(bits + i / 8, nonzero(load_partial(data + i, (int)(count - i))), count - i);
}

// out = max(data, 0), NaN kept; bits of the elements of out that are not zero.
static void mask_relu(const float *data, int64_t count, float *out, uint8_t *bits) {
    int64_t i = 0;
    for (; i + 16 <= count; i += 16) {
        const f32x16 kept = maximum(zero(), load(data + i));
        store(out + i, kept);
        store_bits(bits + i / 8, nonzero(kept), 16);
    }
    if (i < count) {
        const f32x16 kept = maximum(zero(), load_partial(data + i, (int)(count - i)));
        store_partial(out + i, kept, (int)(count - i));
        store_bits(bits + i / 8, nonzero(kept), count - i);
    }
}

// eight bits as bytes of 0 or 1: one multiplication spreads seven of them
SC_INLINE uint64_t eight_bools(uint64_t bits) {
    return ((bits & 0x7f) * 0x0002040810204081ull & 0x0101010101010101ull) | bits >> 7 << 56;
}

// One byte, 0 or 1, per element. Four bytes of bits at a time, since compilers use vectors for that: 3.2 million
// elements take 52 us (Zen 5), one byte of bits at a time 300 or 375, as the loop happened to lie in memory.
static void mask_unpack(const uint8_t *bits, int64_t count, uint8_t *bools) {
    int64_t i = 0;
    for (; i + 32 <= count; i += 32) {
        uint64_t eights[4];
        SC_UNROLL for (int j = 0; j < 4; ++j) eights[j] = eight_bools(bits[i / 8 + j]);
        __builtin_memcpy(bools + i, eights, 32);
    }
    for (; i + 8 <= count; i += 8) {
        const uint64_t eight = eight_bools(bits[i / 8]);
        __builtin_memcpy(bools + i, &eight, 8);
    }
    for (; i < count; ++i) bools[i] = bits[i / 8] >> i % 8 & 1;
}

// vectors of `width` elements that are not all zero; the last one may be shorter
static int64_t mask_live_vectors(const float *data, int64_t count, int64_t width) {
    int64_t live = 0;
    for (int64_t first = 0; first < count; first += width) {
        const int64_t end = first + width < count ? first + width : count;
        uint32_t any = 0;
        for (int64_t i = first; i < end && !any; i += 16) {
            any = nonzero(load_partial(data + i, end - i < 16 ? (int)(end - i) : 16));
        }
        live += any != 0;
    }
    return live;
}

SC_INLINE void mask_any_of(const uint8_t *bools, int64_t count, int64_t width, uint8_t *any) {
    for (int64_t i = 0; i < count; ++i, bools += width) {
        uint64_t found = 0, eight;
        int64_t done = 0;
        for (; done + 8 <= width; done += 8) {
            __builtin_memcpy(&eight, bools + done, 8);
            found |= eight;
        }
        for (; done < width; ++done) found |= bools[done];
        any[i] = found != 0;
    }
}

// any[i]: whether any of the `width` bytes from bools[i * width] on is not 0
static void mask_any(const uint8_t *bools, int64_t count, int64_t width, uint8_t *any) {
    if (width == 9) mask_any_of(bools, count, 9, any);  // the taps of most layers, in half the time
    else mask_any_of(bools, count, width, any);
}

SC_CLOSE
