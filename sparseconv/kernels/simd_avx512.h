// f32x16 on AVX-512 (x86-64-v4): one zmm register.
//
// Every simd_<isa>.h defines the same names; nothing else in kernels/ knows an instruction set. What they mean:
//   accumulators   f32x16 values that stay in registers beside one broadcast (avx512: 32 registers, 28 + spare)
//   load_partial / store_partial   the first n lanes, 0 <= n <= 16; memory behind them is not touched
//   store_stream   past the caches, for results that no cache would hold; p is 64-byte aligned. end_streams() before
//                  other threads may read them
//   hold           a stays in its register: GCC would rather load it once more for each multiply-add that uses it
//   splat          one float from memory in all lanes
//   nonzero        bit i set if lane i is not zero: -0.0 is zero, NaN is not (unordered compare)
//   maximum(a, b)  b where either is NaN, so that maximum(zero, x) keeps NaN
//   transpose      16 x 16
#pragma once
#include <immintrin.h>
#include <stdint.h>

#include "base.h"

SC_OPEN

struct f32x16 {
    static constexpr int accumulators = 28, dense_pixels = 6, dense_vectors = 4;
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
SC_INLINE void hold(f32x16 &a) { asm("" : "+v"(a.v)); }
SC_INLINE f32x16 add(f32x16 a, f32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
SC_INLINE f32x16 fma(f32x16 a, f32x16 b, f32x16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
SC_INLINE f32x16 maximum(f32x16 a, f32x16 b) { return {_mm512_max_ps(a.v, b.v)}; }
SC_INLINE uint32_t nonzero(f32x16 a) { return _mm512_cmp_ps_mask(a.v, _mm512_setzero_ps(), _CMP_NEQ_UQ); }

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
