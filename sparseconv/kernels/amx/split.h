// f32 as a sum of bf16 numbers, which tile registers multiply: x = high + middle + low.
//
// Each part is what is left, rounded to the 8 bits of bf16 (half away from zero: one addition and one mask). 24 bits
// are three times 8, so three parts are exact, unless bf16 cannot hold one: above 2^127 `high` would round to infinity,
// infinities and NaN have no rest, and rests below 2^-126 are flushed. Rounding rather than cutting makes the
// parts that a product leaves out (middle x low and smaller) 2^-24 of it at most, and of either sign; cut parts would
// leave out up to 2^-21, always of the same sign.
//
// Values lie in pairs, as tile products want them: 16 pairs of 32 bits are one row of a tile.
#pragma once
#include "common/base.h"

SC_OPEN

enum { PAIRS = 16 };  // pairs in a row of a tile register, and its rows

// GCC's and clang's own vectors: any instruction set, and no intrinsics.
typedef uint32_t bits16 __attribute__((vector_size(64)));
typedef int32_t signed16 __attribute__((vector_size(64)));
typedef float floats16 __attribute__((vector_size(64)));

SC_INLINE void largest(bits16 &top, const bits16 &sizes) {  // no sign bits: compared as signed numbers, which AVX2 can
    top = (signed16)sizes > (signed16)top ? sizes : top;
}

// 16 floats as parts in the upper halves of 32 bits. `top` keeps the largest |x| of each lane, as its bits.
template <int PARTS>
SC_INLINE void split(const float *from, bits16 (&part)[PARTS], bits16 &top) {
    floats16 rest;
    __builtin_memcpy(&rest, from, sizeof rest);
    largest(top, (bits16)rest & 0x7fffffffu);
    SC_UNROLL for (int i = 0; i < PARTS; ++i) {
        part[i] = ((bits16)rest + 0x8000u) & 0xffff0000u;
        rest -= (floats16)part[i];
    }
}

// 16 pairs (first[i], second[i]) of each part, parts `plane` pairs apart.
template <int PARTS>
SC_INLINE void split_pairs(const float *first, const float *second, uint32_t *to, int64_t plane, bits16 &top) {
    bits16 low[PARTS], high[PARTS];
    split<PARTS>(first, low, top), split<PARTS>(second, high, top);
    SC_UNROLL for (int i = 0; i < PARTS; ++i) {
        const bits16 pairs = low[i] >> 16 | high[i];
        __builtin_memcpy(to + i * plane, &pairs, sizeof pairs);
    }
}

// What is known of one operand of many sums: of the largest |x| of each sum's values, the largest and the smallest.
// Values that are all zero (or denormal, which is zero here) have no part in it.
struct magnitudes {
    uint32_t lowest = 0x7fffffff, highest = 0;  // the bits of |x|, whose order is that of the numbers
    SC_INLINE_MEMBER void add(uint32_t top) {
        if (top < 0x00800000) return;
        lowest = top < lowest ? top : lowest, highest = top > highest ? top : highest;
    }
    SC_INLINE_MEMBER void add(const bits16 &tops) {
        for (int i = 0; i < PAIRS; ++i) add(tops[i]);
    }
    SC_INLINE_MEMBER int least() const { return (int)(lowest >> 23) - 127; }  // exponents
    SC_INLINE_MEMBER int most() const { return (int)(highest >> 23) - 127; }
};

// Whether tile products of these operands are as accurate as f32. They are not
// - with infinities or NaN, or where `high` would round to infinity (2^127 and above);
// - where a product of rounded parts or a partial sum could overflow although the sum does not: beyond 2^100;
// - where parts are flushed that matter. A flush loses less than 2^-126, each term of a sum has at most six of them
//   (one for each product of parts; lost low parts of an operand are no more), so beside sums of 2^-90 and more they
//   are below 2^-33 of a term: nothing beside f32's 2^-24.
SC_INLINE bool tiles_are_accurate(const magnitudes &a, const magnitudes &b) {
    if (a.highest >= 0x7f000000 || b.highest >= 0x7f000000) return false;
    if (a.highest == 0 || b.highest == 0) return true;
    return a.most() + b.most() <= 100 && a.least() >= -90 && b.least() >= -90 && a.least() + b.least() >= -90;
}

SC_CLOSE
