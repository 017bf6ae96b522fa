// f32 as a sum of small numbers, which tile registers multiply. Two formats:
//
// bf16   x = high + middle + low. Each part is what is left, rounded to the 8 bits of bf16 (half away from zero: one
//        addition and one mask). 24 bits are three times 8, so three parts are exact, unless bf16 cannot hold one:
//        above 2^127 `high` would round to infinity, infinities and NaN have no rest, and rests below 2^-126 are
//        flushed. Rounding rather than cutting makes the parts that a product leaves out (middle x low and smaller)
//        2^-24 of it at most, and of either sign; cut parts would leave out up to 2^-21, always of the same sign.
// fp16   s x = high + low, both fp16 (11 bits, round to nearest even). s is a power of two that brings the largest |x|
//        that shares it to between 2^14 and 2^15. What is lost is at most 2^-23 of x, or 2^-40 of that largest |x|:
//        fp16 is denormal below 2^-14, and its last bit is 2^-24. AMX-FP16 multiplies denormals as they are, so `low`
//        needs no scale of its own. Products leave low x low out, 2^-22 of the whole. A product alone loses up to
//        2^-21 so, eight times what f32 does, but of either sign: beside the rounding of 64 terms it does not show.
//
// Values lie in pairs, as tile products want them: 16 pairs of 32 bits are one row of a tile.
#pragma once
#include "common/base.h"
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

SC_OPEN

enum { PAIRS = 16 };  // pairs in a row of a tile register, and its rows

// GCC's and clang's own vectors: any instruction set, and no intrinsics but those for fp16.
typedef uint32_t bits16 __attribute__((vector_size(64)));
typedef int32_t signed16 __attribute__((vector_size(64)));
typedef float floats16 __attribute__((vector_size(64)));

SC_INLINE void largest(bits16 &top, const bits16 &sizes) {  // no sign bits: compared as signed numbers, which AVX2 can
    top = (signed16)sizes > (signed16)top ? sizes : top;
}
SC_INLINE uint32_t largest_lane(const bits16 &tops) {
    uint32_t top = 0;
    for (int i = 0; i < PAIRS; ++i) top = tops[i] > top ? tops[i] : top;
    return top;
}
SC_INLINE bits16 all_lanes(uint32_t bits) { return bits16{} + bits; }

// The bits of the largest |x|; `top` is that of others.
SC_INLINE uint32_t largest_of(const float *from, int64_t step, int64_t count, uint32_t top) {
    int64_t done = 0;
    if (step == 1) {
        bits16 tops = all_lanes(top);
        for (; done + PAIRS <= count; done += PAIRS) {
            bits16 bits;
            __builtin_memcpy(&bits, from + done, sizeof bits);
            largest(tops, bits & 0x7fffffffu);
        }
        top = largest_lane(tops);
    }
    for (; done < count; ++done) {
        uint32_t bits;
        __builtin_memcpy(&bits, from + done * step, sizeof bits);
        bits &= 0x7fffffffu;
        top = bits > top ? bits : top;
    }
    return top;
}

// A format: parts of a number, sweeps over the channels (or positions) of a sum (amx/products.h), whether numbers are
// scaled first. `take` rounds what is left to the next part, in the upper halves of 32 bits.
template <int COUNT>
struct bf16 {
    enum { PARTS = COUNT, SWEEPS = COUNT > 1 ? 2 : 1, SCALED = 0 };
    SC_INLINE_MEMBER static bits16 take(floats16 &rest) {
        const bits16 part = ((bits16)rest + 0x8000u) & 0xffff0000u;
        rest -= (floats16)part;
        return part;
    }
};

struct fp16 {
    enum { PARTS = 2, SWEEPS = 1, SCALED = 1 };
    SC_INLINE_MEMBER static bits16 take(floats16 &rest) {  // |rest| <= 2^15
#if defined(__AVX512F__)
        const __mmask16 every = 0xffff;  // GCC 12 warns of what it makes of the plain ones
        const __m256i half = _mm512_maskz_cvtps_ph(every, (__m512)rest, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        rest -= (floats16)_mm512_maskz_cvtph_ps(every, half);
        return (bits16)_mm512_maskz_cvtepu16_epi32(every, half) << 16;
#else
        // Added to 1.5 x 2^13 of its power of two, or of 2^-14, and taken away again, a number has 11 bits, or 24
        // behind the point. Those of a denormal are the last ones of 0.5 + |x|.
        const bits16 power = (bits16)rest & 0x7f800000u, least = all_lanes(113u << 23);
        const floats16 whole = (floats16)(((signed16)power > (signed16)least ? power : least) + (13u << 23)) * 1.5f;
        const floats16 part = rest + whole - whole;
        rest -= part;
        const bits16 sign = (bits16)part & 0x80000000u, size = (bits16)part ^ sign;
        const bits16 denormal = (bits16)((floats16)size + 0.5f) - (126u << 23), normal = (size - (112u << 23)) >> 13;
        return sign | ((signed16)size < (signed16)least ? denormal : normal) << 16;
#endif
    }
};

// Runs `kernel` with the format of a task: of two parts, that of the instruction set.
template <class Two, class Task, class Kernel>
SC_INLINE void with_format(const Task &task, Kernel kernel) {
    if (task.parts == 3) kernel(bf16<3>());
    else if (task.parts == 2) kernel(Two());
    else kernel(bf16<1>());
}

// Splits 16 lanes at a time, and keeps what must be known of them: the largest |x| of each lane, as its bits.
template <class Format>
struct splitter {
    bits16 top = {};
    SC_INLINE_MEMBER explicit splitter(const bits16 & = bits16{}) {}
    SC_INLINE_MEMBER void split(const float *from, bits16 (&part)[Format::PARTS]) {
        floats16 rest;
        __builtin_memcpy(&rest, from, sizeof rest);
        largest(top, (bits16)rest & 0x7fffffffu);
        SC_UNROLL for (int i = 0; i < Format::PARTS; ++i) part[i] = Format::take(rest);
    }
    SC_INLINE_MEMBER bool loses() const { return false; }
    SC_INLINE_MEMBER bits16 fit_tops() const { return top; }
};

// The |x| of operands that tile products must not be made of (tiles_are_accurate).
enum : uint32_t { UNFIT = 0x7fffffff };

// Exponents of what brings numbers with a largest |x| of these bits below 2^15, and back. Both are numbers of f32 for
// any |x| of 2^-112 and more; tiles are not used for others.
template <class Bits>
SC_INLINE Bits fp16_exponent(const Bits &top) {
    const Bits exponent = top >> 23;
    return exponent < 15 ? exponent - exponent + 15 : exponent;
}
template <class Bits>
SC_INLINE Bits fp16_scale(const Bits &top) { return (268 - fp16_exponent(top)) << 23; }
template <class Bits>
SC_INLINE Bits fp16_unscale(const Bits &top) { return (fp16_exponent(top) - 14) << 23; }

SC_INLINE void set_unscale(float *to, uint32_t top) {
    const uint32_t bits = fp16_unscale(top);
    __builtin_memcpy(to, &bits, sizeof bits);
}

// With a scale for each lane, for the largest |x| given. Nonzero values below 2^-16 of that have less than 24 bits. A
// sum made of them alone would be wrong in more than its last bits, so they are counted: up to one in 256, and one
// more, carry no weight. Of 100,000 normal numbers one in 20,000 is so small, of log-normal ones whose logarithms have
// a standard deviation of 1.5 one in 1000.
template <>
struct splitter<fp16> {
    floats16 scale;
    bits16 least;  // |x| from which on a number keeps 24 bits
    bits16 top = {}, small = {}, nonzero = {};
    SC_INLINE_MEMBER explicit splitter(const bits16 &tops = bits16{}) {
        const bits16 bits = fp16_scale(tops), normal = all_lanes(0x00800000);
        scale = (floats16)bits, least = tops - (16u << 23);
        least = (signed16)least > (signed16)normal ? least : normal;
    }
    SC_INLINE_MEMBER void split(const float *from, bits16 (&part)[2]) {
        floats16 rest;
        __builtin_memcpy(&rest, from, sizeof rest);
        const bits16 sizes = (bits16)rest & 0x7fffffffu;
        largest(top, sizes);
        const bits16 there = (bits16)((signed16)sizes >= (signed16)all_lanes(0x00800000));  // -1 each
        nonzero -= there, small -= there & (bits16)((signed16)sizes < (signed16)least);
        rest *= scale;
        part[0] = fp16::take(rest), part[1] = fp16::take(rest);
    }
    SC_INLINE_MEMBER bool loses() const {  // all lanes together
        int64_t few = 0, all = 0;
        for (int i = 0; i < PAIRS; ++i) few += small[i], all += nonzero[i];
        return few > all / 256 + 1;
    }
    SC_INLINE_MEMBER bits16 fit_tops() const { return small > (nonzero >> 8) + 1 ? all_lanes(UNFIT) : top; }
};

// 16 pairs (first[i], second[i]) of each part, parts `plane` pairs apart.
template <class Format>
SC_INLINE void split_pairs(const float *first, const float *second, uint32_t *to, int64_t plane,
                           splitter<Format> &lanes) {
    bits16 low[Format::PARTS], high[Format::PARTS];
    lanes.split(first, low), lanes.split(second, high);
    SC_UNROLL for (int i = 0; i < Format::PARTS; ++i) {
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
// - with infinities or NaN, or where `high` would round to infinity (2^127 and above), or what is UNFIT;
// - where a product of rounded parts or a partial sum could overflow although the sum does not: beyond 2^100;
// - where parts are flushed that matter. A flush loses less than 2^-126, each term of a sum has at most six of them
//   (one for each product of parts; lost low parts of an operand are no more), so beside sums of 2^-90 and more they
//   are below 2^-33 of a term: nothing beside f32's 2^-24. Of fp16 results alone can be flushed.
SC_INLINE bool tiles_are_accurate(const magnitudes &a, const magnitudes &b) {
    if (a.highest >= 0x7f000000 || b.highest >= 0x7f000000) return false;
    if (a.highest == 0 || b.highest == 0) return true;
    return a.most() + b.most() <= 100 && a.least() >= -90 && b.least() >= -90 && a.least() + b.least() >= -90;
}

SC_CLOSE
