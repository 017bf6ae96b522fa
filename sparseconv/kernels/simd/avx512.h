// f32x16 on AVX-512 (x86-64-v4): one zmm register.
//
// Every simd/<isa>.h defines the same names; nothing else in kernels/ knows an instruction set. What they mean:
//   accumulators   f32x16 values that stay in registers beside one broadcast (avx512: 32 registers, 28 + spare)
//   registers      how many f32x16 values all vector registers hold
//   row_pixels     columns of a tile of rows/dense.h, beside dense_vectors; dense_pixels are those of gradient/dense.h
//   point_vectors  of a lane block of gradient/points.h: sums of 64 channels stay in L1 beside what streams through
//   slope          time of a multiply-add in a skipping kernel, one of whose operands is in memory, over that in a
//                  dense one. 1.16, and avx2's 1.07: both kernels in turn in one process on Zen 4; others are guesses
//   load_partial / store_partial   the first n lanes, 0 <= n <= 16; memory behind them is not touched
//   store_stream   past the caches, for results that no cache would hold; p is 64-byte aligned. end_streams() before
//                  other threads may read them
//   spread<M>(p, c)  lane i gets p[i / M * M + c], M a power of two: of each M lanes the c-th. 16 floats may be read
//   fma_from(a, p, c)  a * load(p) + c, which GCC would make a register of for all multiply-adds that use it
//   hold           a stays in its register: GCC would rather load it once more for each multiply-add that uses it
//   splat          one float from memory in all lanes
//   nonzero        bit i set if lane i is not zero: -0.0 is zero, NaN is not (unordered compare)
//   above(a, t)    bit i set unless the magnitude of lane i of a is at most that of t: NaN is above all
//   expand         lane i gets the next value of `packed` if bit i is set, else 0; 16 floats may be read in all
//   compress       the lanes whose bit is set, one after the other; 16 floats may be written in all
//   keep           the lanes whose bit is set, 0 in the others
//   maximum(a, b)  b where either is NaN, so that maximum(zero, x) keeps NaN
//   add_sums       to[0 .. 4) += the sums over all lanes of four vectors
//   transpose      16 x 16
// For stochastic pruning, whose results are the same on all of them, bit for bit:
//   multiply       rounded once
//   outward(a, t)  lanes of a whose magnitude is below t move away from zero, to t; NaN stays
//   keep_above(a, b, t)  lane i of b where bit i of above(a, t) is set, else 0
//   f64x16         sums; add_magnitudes(sums, a) adds the magnitude of each lane
//   u64x8          random words in the making. chains: how many states of four fit into registers
//   count_from     n, n + 1, ... n + 7
//   splat_word     one number in all lanes
//   product        of the lower halves of the lanes, as 64 bits
//   mix(a, b, c)   (a >> 32) ^ b ^ c
//   fractions(a, b)  lower halves of lanes of a and b in turn; their upper 23 bits k become (k + 1/2) / 2^23
#pragma once
#include <immintrin.h>
#include <stdint.h>

#include "common/base.h"

SC_OPEN

struct f32x16 {
    static constexpr int accumulators = 28, dense_pixels = 6, dense_vectors = 4, point_vectors = 6;
    static constexpr int registers = 32, row_pixels = 7;
    static constexpr double slope = 1.16;
    __m512 v;
};

SC_INLINE f32x16 zero() { return {_mm512_setzero_ps()}; }
SC_INLINE f32x16 load(const float *p) { return {_mm512_loadu_ps(p)}; }
SC_INLINE void store(float *p, f32x16 a) { _mm512_storeu_ps(p, a.v); }
SC_INLINE void store_stream(float *p, f32x16 a) { _mm512_stream_ps(p, a.v); }
SC_INLINE void end_streams() { _mm_sfence(); }
SC_INLINE __mmask16 first_lanes(int n) { return (__mmask16)((1u << n) - 1); }
SC_INLINE f32x16 load_partial(const float *p, int n) { return {_mm512_maskz_loadu_ps(first_lanes(n), p)}; }
SC_INLINE void store_partial(float *p, f32x16 a, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), a.v); }
SC_INLINE f32x16 splat(const float *p) { return {_mm512_set1_ps(*p)}; }
template <int M>
SC_INLINE f32x16 spread(const float *p, int c) {
    if constexpr (M == 1) return load(p);
    if constexpr (M == 16) return splat(p + c);
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i order = _mm512_add_epi32(_mm512_and_si512(lanes, _mm512_set1_epi32(-M)), _mm512_set1_epi32(c));
    return {_mm512_permutexvar_ps(order, _mm512_loadu_ps(p))};
}
SC_INLINE void hold(f32x16 &a) { asm("" : "+v"(a.v)); }
SC_INLINE f32x16 add(f32x16 a, f32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
SC_INLINE f32x16 fma(f32x16 a, f32x16 b, f32x16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
SC_INLINE f32x16 fma_from(f32x16 a, const float *p, f32x16 c) {
    asm("vfmadd231ps %2, %1, %0" : "+v"(c.v) : "v"(a.v), "m"(*(const __m512_u *)p));
    return c;
}
SC_INLINE f32x16 maximum(f32x16 a, f32x16 b) { return {_mm512_max_ps(a.v, b.v)}; }
SC_INLINE uint32_t nonzero(f32x16 a) { return _mm512_cmp_ps_mask(a.v, _mm512_setzero_ps(), _CMP_NEQ_UQ); }
SC_INLINE uint32_t above(f32x16 a, f32x16 t) { return _mm512_cmp_ps_mask(_mm512_abs_ps(a.v), t.v, _CMP_NLE_UQ); }

SC_INLINE f32x16 keep(f32x16 a, uint32_t bits) { return {_mm512_maskz_mov_ps((__mmask16)bits, a.v)}; }
SC_INLINE f32x16 expand(const float *packed, uint32_t bits) {
    return {_mm512_maskz_expand_ps((__mmask16)bits, _mm512_loadu_ps(packed))};
}
// In a register and stored whole: vcompressps to memory is microcode on Zen 4.
SC_INLINE void compress(float *packed, f32x16 a, uint32_t bits) {
    _mm512_storeu_ps(packed, _mm512_maskz_compress_ps((__mmask16)bits, a.v));
}

SC_INLINE void add_sums(float *to, f32x16 a, f32x16 b, f32x16 c, f32x16 d) {
    const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a.v, b.v), _mm512_unpackhi_ps(a.v, b.v));
    const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c.v, d.v), _mm512_unpackhi_ps(c.v, d.v));
    const __m512d low = _mm512_castps_pd(ab), high = _mm512_castps_pd(cd);
    const __m512 quarters = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(low, high)),
                                          _mm512_castpd_ps(_mm512_unpackhi_pd(low, high)));  // a b c d in each
    const __m256 halves = _mm256_add_ps(_mm512_castps512_ps256(quarters),
                                        _mm512_castps512_ps256(_mm512_shuffle_f32x4(quarters, quarters, 0xee)));
    const __m128 sums = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1));
    _mm_storeu_ps(to, _mm_add_ps(_mm_loadu_ps(to), sums));
}

SC_INLINE f32x16 multiply(f32x16 a, f32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
SC_INLINE f32x16 outward(f32x16 a, f32x16 t) {
    const __m512 magnitude = _mm512_max_ps(t.v, _mm512_abs_ps(a.v));
    return {_mm512_or_ps(magnitude, _mm512_and_ps(a.v, _mm512_set1_ps(-0.0f)))};
}
SC_INLINE f32x16 keep_above(f32x16 a, f32x16 b, f32x16 t) { return keep(b, above(a, t)); }

struct f64x16 {
    __m512d low, high;
};
SC_INLINE f64x16 add_magnitudes(f64x16 sums, f32x16 a) {
    const __m512 magnitude = _mm512_abs_ps(a.v);
    return {_mm512_add_pd(sums.low, _mm512_cvtps_pd(_mm512_castps512_ps256(magnitude))),
            _mm512_add_pd(sums.high, _mm512_cvtps_pd(_mm512_extractf32x8_ps(magnitude, 1)))};
}
SC_INLINE void store(double *p, f64x16 a) { _mm512_storeu_pd(p, a.low), _mm512_storeu_pd(p + 8, a.high); }

struct u64x8 {
    static constexpr int chains = 2;
    __m512i v;
};
SC_INLINE u64x8 splat_word(uint64_t n) { return {_mm512_set1_epi64((long long)n)}; }
SC_INLINE u64x8 count_from(uint64_t n) {
    return {_mm512_add_epi64(splat_word(n).v, _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7))};
}
SC_INLINE u64x8 product(u64x8 a, u64x8 b) { return {_mm512_mul_epu32(a.v, b.v)}; }
SC_INLINE u64x8 mix(u64x8 a, u64x8 b, u64x8 c) {
    return {_mm512_ternarylogic_epi64(_mm512_srli_epi64(a.v, 32), b.v, c.v, 0x96)};
}
SC_INLINE f32x16 fractions(u64x8 a, u64x8 b) {
    const __m512i words = _mm512_mask_blend_epi32(0xaaaa, a.v, _mm512_slli_epi64(b.v, 32));
    const __m512i bits = _mm512_or_si512(_mm512_srli_epi32(words, 9), _mm512_set1_epi32(0x3f800000));  // 1 + k / 2^23
    return {_mm512_sub_ps(_mm512_castsi512_ps(bits), _mm512_set1_ps(1 - 0x1p-24f))};
}

SC_INLINE void transpose(f32x16 (&m)[16]) {
    __m512 a[16], b[16];
    SC_UNROLL for (int i = 0; i < 8; ++i) {  // pairs of rows: 2 x 2 blocks
        a[2 * i] = _mm512_unpacklo_ps(m[2 * i].v, m[2 * i + 1].v);
        a[2 * i + 1] = _mm512_unpackhi_ps(m[2 * i].v, m[2 * i + 1].v);
    }
    SC_UNROLL for (int i = 0; i < 4; ++i) {  // fours of rows: 4 x 4 blocks
        SC_UNROLL for (int j = 0; j < 2; ++j) {
            __m512d low = _mm512_castps_pd(a[4 * i + j]), high = _mm512_castps_pd(a[4 * i + 2 + j]);
            b[4 * i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
            b[4 * i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
        }
    }
    SC_UNROLL for (int i = 0; i < 2; ++i) {  // eights of rows: the 128-bit quarters
        SC_UNROLL for (int j = 0; j < 4; ++j) {
            a[8 * i + j] = _mm512_shuffle_f32x4(b[8 * i + j], b[8 * i + 4 + j], 0x88);
            a[8 * i + 4 + j] = _mm512_shuffle_f32x4(b[8 * i + j], b[8 * i + 4 + j], 0xdd);
        }
    }
    SC_UNROLL for (int j = 0; j < 4; ++j) {
        m[j].v = _mm512_shuffle_f32x4(a[j], a[8 + j], 0x88);
        m[4 + j].v = _mm512_shuffle_f32x4(a[4 + j], a[12 + j], 0x88);
        m[8 + j].v = _mm512_shuffle_f32x4(a[j], a[8 + j], 0xdd);
        m[12 + j].v = _mm512_shuffle_f32x4(a[4 + j], a[12 + j], 0xdd);
    }
}

SC_CLOSE
