// f32x16 on AVX2 + FMA (x86-64-v3): two ymm registers. simd_avx512.h says what each name means.
// 16 ymm registers: 6 accumulators take 12, an operand 2, a broadcast 1.
#pragma once
#include <immintrin.h>
#include <stdint.h>

#include "base.h"

SC_OPEN

struct f32x16 {
    static constexpr int accumulators = 6, dense_pixels = 6, dense_vectors = 1;
    __m256 low, high;
};

SC_INLINE f32x16 zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
SC_INLINE f32x16 load(const float *p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
SC_INLINE void store(float *p, f32x16 a) { _mm256_storeu_ps(p, a.low), _mm256_storeu_ps(p + 8, a.high); }
SC_INLINE void store_stream(float *p, f32x16 a) { _mm256_stream_ps(p, a.low), _mm256_stream_ps(p + 8, a.high); }
SC_INLINE void end_streams() { _mm_sfence(); }
SC_INLINE __m256i first_lanes(int n) {  // n may be negative or above 8
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
SC_INLINE f32x16 load_partial(const float *p, int n) {
    return {_mm256_maskload_ps(p, first_lanes(n)), _mm256_maskload_ps(p + 8, first_lanes(n - 8))};
}
SC_INLINE void store_partial(float *p, f32x16 a, int n) {
    _mm256_maskstore_ps(p, first_lanes(n), a.low), _mm256_maskstore_ps(p + 8, first_lanes(n - 8), a.high);
}
SC_INLINE f32x16 splat(const float *p) {
    __m256 v = _mm256_broadcast_ss(p);
    return {v, v};
}
SC_INLINE void hold(f32x16 &) {}  // has no register to spare
SC_INLINE f32x16 add(f32x16 a, f32x16 b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
SC_INLINE f32x16 fma(f32x16 a, f32x16 b, f32x16 c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
SC_INLINE f32x16 maximum(f32x16 a, f32x16 b) {
    return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
}
SC_INLINE uint32_t nonzero(f32x16 a) {
    __m256 none = _mm256_setzero_ps();
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(a.low, none, _CMP_NEQ_UQ)) |
           (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(a.high, none, _CMP_NEQ_UQ)) << 8;
}

SC_INLINE void transpose8(__m256 (&m)[8]) {
    __m256 a[8], b[8];
    SC_UNROLL for (int i = 0; i < 4; ++i) {
        a[2 * i] = _mm256_unpacklo_ps(m[2 * i], m[2 * i + 1]);
        a[2 * i + 1] = _mm256_unpackhi_ps(m[2 * i], m[2 * i + 1]);
    }
    SC_UNROLL for (int i = 0; i < 2; ++i) {
        SC_UNROLL for (int j = 0; j < 2; ++j) {
            b[4 * i + 2 * j] = _mm256_shuffle_ps(a[4 * i + j], a[4 * i + 2 + j], 0x44);
            b[4 * i + 2 * j + 1] = _mm256_shuffle_ps(a[4 * i + j], a[4 * i + 2 + j], 0xee);
        }
    }
    SC_UNROLL for (int j = 0; j < 4; ++j) {
        m[j] = _mm256_permute2f128_ps(b[j], b[4 + j], 0x20);
        m[4 + j] = _mm256_permute2f128_ps(b[j], b[4 + j], 0x31);
    }
}

// Four 8 x 8 transposes; the off-diagonal blocks change places.
SC_INLINE void transpose(f32x16 (&m)[16]) {
    __m256 block[8], other[8];
    SC_UNROLL for (int i = 0; i < 8; ++i) block[i] = m[i].low;
    transpose8(block);
    SC_UNROLL for (int i = 0; i < 8; ++i) m[i].low = block[i];
    SC_UNROLL for (int i = 0; i < 8; ++i) block[i] = m[8 + i].high;
    transpose8(block);
    SC_UNROLL for (int i = 0; i < 8; ++i) m[8 + i].high = block[i];
    SC_UNROLL for (int i = 0; i < 8; ++i) block[i] = m[i].high, other[i] = m[8 + i].low;
    transpose8(block), transpose8(other);
    SC_UNROLL for (int i = 0; i < 8; ++i) m[8 + i].low = block[i], m[i].high = other[i];
}

SC_CLOSE
