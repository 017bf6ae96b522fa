// f32x16 on AVX2 + FMA (x86-64-v3): two ymm registers. simd/avx512.h says what each name means.
// 16 ymm registers: 6 accumulators take 12, an operand 2, a broadcast 1.
#pragma once
#include <immintrin.h>
#include <stdint.h>

#include "common/base.h"

SC_OPEN

struct f32x16 {
    static constexpr int accumulators = 6, dense_pixels = 6, dense_vectors = 1, point_vectors = 4;
    static constexpr int registers = 8, row_pixels = 6;
    static constexpr double slope = 1.07;
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
template <int M>
SC_INLINE f32x16 spread(const float *p, int c) {
    if constexpr (M == 1) return load(p);
    if constexpr (M == 16) return splat(p + c);
    if constexpr (M == 8) return {_mm256_broadcast_ss(p + c), _mm256_broadcast_ss(p + 8 + c)};
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 0, 1, 2, 3);
    const __m256i order = _mm256_add_epi32(_mm256_and_si256(lanes, _mm256_set1_epi32(-M)), _mm256_set1_epi32(c));
    return {_mm256_permutevar_ps(_mm256_loadu_ps(p), order), _mm256_permutevar_ps(_mm256_loadu_ps(p + 8), order)};
}
SC_INLINE void hold(f32x16 &) {}  // has no register to spare
SC_INLINE f32x16 add(f32x16 a, f32x16 b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
SC_INLINE f32x16 fma(f32x16 a, f32x16 b, f32x16 c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
SC_INLINE f32x16 fma_from(f32x16 a, const float *p, f32x16 c) { return fma(a, load(p), c); }
SC_INLINE f32x16 maximum(f32x16 a, f32x16 b) {
    return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
}
SC_INLINE uint32_t sign_bits(__m256 low, __m256 high) {
    return (uint32_t)_mm256_movemask_ps(low) | (uint32_t)_mm256_movemask_ps(high) << 8;
}
SC_INLINE uint32_t nonzero(f32x16 a) {
    __m256 none = _mm256_setzero_ps();
    return sign_bits(_mm256_cmp_ps(a.low, none, _CMP_NEQ_UQ), _mm256_cmp_ps(a.high, none, _CMP_NEQ_UQ));
}
SC_INLINE uint32_t above(f32x16 a, f32x16 t) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 low = _mm256_andnot_ps(sign, a.low), high = _mm256_andnot_ps(sign, a.high);
    return sign_bits(_mm256_cmp_ps(low, t.low, _CMP_NLE_UQ), _mm256_cmp_ps(high, t.high, _CMP_NLE_UQ));
}

// For each set of 8 bits, where every lane comes from, as bytes: 2 KB each. A lane of `expand` whose bit is not set is
// negative; `compress` leaves the lanes behind the last to anything.
struct lane_orders {
    int8_t expand[256][8], compress[256][8];
    constexpr lane_orders() : expand(), compress() {
        for (int bits = 0; bits < 256; ++bits) {
            int count = 0;
            for (int lane = 0; lane < 8; ++lane) {
                const bool set = bits >> lane & 1;
                expand[bits][lane] = set ? (int8_t)count : (int8_t)-1;
                if (set) compress[bits][count++] = (int8_t)lane;
            }
        }
    }
};
alignas(64) constexpr lane_orders orders;

SC_INLINE __m256 keep8(__m256 a, uint32_t bits) {
    const __m256i places = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i set = _mm256_and_si256(_mm256_set1_epi32((int)bits), places);
    return _mm256_and_ps(a, _mm256_castsi256_ps(_mm256_cmpeq_epi32(set, places)));
}
SC_INLINE f32x16 keep(f32x16 a, uint32_t bits) { return {keep8(a.low, bits), keep8(a.high, bits >> 8)}; }
SC_INLINE __m256i lane_order(const int8_t *bytes) {
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)bytes));
}
SC_INLINE __m256 expand8(const float *packed, uint32_t bits) {
    const __m256i order = lane_order(orders.expand[bits]);
    const __m256 spread = _mm256_permutevar8x32_ps(_mm256_loadu_ps(packed), order);
    return _mm256_blendv_ps(spread, _mm256_setzero_ps(), _mm256_castsi256_ps(order));
}
SC_INLINE f32x16 expand(const float *packed, uint32_t bits) {
    const uint32_t low = bits & 0xff, high = bits >> 8 & 0xff;
    return {expand8(packed, low), expand8(packed + __builtin_popcount(low), high)};
}
SC_INLINE void compress(float *packed, f32x16 a, uint32_t bits) {
    const uint32_t low = bits & 0xff, high = bits >> 8 & 0xff;
    _mm256_storeu_ps(packed, _mm256_permutevar8x32_ps(a.low, lane_order(orders.compress[low])));
    packed += __builtin_popcount(low);
    _mm256_storeu_ps(packed, _mm256_permutevar8x32_ps(a.high, lane_order(orders.compress[high])));
}

SC_INLINE void add_sums(float *to, f32x16 a, f32x16 b, f32x16 c, f32x16 d) {
    const __m256 ab = _mm256_hadd_ps(_mm256_add_ps(a.low, a.high), _mm256_add_ps(b.low, b.high));
    const __m256 cd = _mm256_hadd_ps(_mm256_add_ps(c.low, c.high), _mm256_add_ps(d.low, d.high));
    const __m256 halves = _mm256_hadd_ps(ab, cd);
    const __m128 sums = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1));
    _mm_storeu_ps(to, _mm_add_ps(_mm_loadu_ps(to), sums));
}

SC_INLINE f32x16 multiply(f32x16 a, f32x16 b) {
    return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}
SC_INLINE __m256 outward8(__m256 a, __m256 t) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return _mm256_or_ps(_mm256_max_ps(t, _mm256_andnot_ps(sign, a)), _mm256_and_ps(sign, a));
}
SC_INLINE f32x16 outward(f32x16 a, f32x16 t) { return {outward8(a.low, t.low), outward8(a.high, t.high)}; }
SC_INLINE __m256 keep_above8(__m256 a, __m256 b, __m256 t) {
    return _mm256_and_ps(b, _mm256_cmp_ps(_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a), t, _CMP_NLE_UQ));
}
SC_INLINE f32x16 keep_above(f32x16 a, f32x16 b, f32x16 t) {
    return {keep_above8(a.low, b.low, t.low), keep_above8(a.high, b.high, t.high)};
}

struct f64x16 {
    __m256d v[4];
};
SC_INLINE f64x16 add_magnitudes(f64x16 sums, f32x16 a) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    const __m256 low = _mm256_andnot_ps(sign, a.low), high = _mm256_andnot_ps(sign, a.high);
    return {{_mm256_add_pd(sums.v[0], _mm256_cvtps_pd(_mm256_castps256_ps128(low))),
             _mm256_add_pd(sums.v[1], _mm256_cvtps_pd(_mm256_extractf128_ps(low, 1))),
             _mm256_add_pd(sums.v[2], _mm256_cvtps_pd(_mm256_castps256_ps128(high))),
             _mm256_add_pd(sums.v[3], _mm256_cvtps_pd(_mm256_extractf128_ps(high, 1)))}};
}
SC_INLINE void store(double *p, f64x16 a) {
    SC_UNROLL for (int i = 0; i < 4; ++i) _mm256_storeu_pd(p + 4 * i, a.v[i]);
}

struct u64x8 {
    static constexpr int chains = 1;
    __m256i low, high;
};
SC_INLINE u64x8 splat_word(uint64_t n) {
    const __m256i v = _mm256_set1_epi64x((long long)n);
    return {v, v};
}
SC_INLINE u64x8 count_from(uint64_t n) {
    const __m256i v = _mm256_set1_epi64x((long long)n);
    return {_mm256_add_epi64(v, _mm256_setr_epi64x(0, 1, 2, 3)), _mm256_add_epi64(v, _mm256_setr_epi64x(4, 5, 6, 7))};
}
SC_INLINE u64x8 product(u64x8 a, u64x8 b) {
    return {_mm256_mul_epu32(a.low, b.low), _mm256_mul_epu32(a.high, b.high)};
}
SC_INLINE __m256i mix4(__m256i a, __m256i b, __m256i c) {
    return _mm256_xor_si256(_mm256_srli_epi64(a, 32), _mm256_xor_si256(b, c));
}
SC_INLINE u64x8 mix(u64x8 a, u64x8 b, u64x8 c) { return {mix4(a.low, b.low, c.low), mix4(a.high, b.high, c.high)}; }
SC_INLINE __m256 fractions8(__m256i a, __m256i b) {
    const __m256i words = _mm256_blend_epi32(a, _mm256_slli_epi64(b, 32), 0xaa);
    const __m256i bits = _mm256_or_si256(_mm256_srli_epi32(words, 9), _mm256_set1_epi32(0x3f800000));  // 1 + k / 2^23
    return _mm256_sub_ps(_mm256_castsi256_ps(bits), _mm256_set1_ps(1 - 0x1p-24f));
}
SC_INLINE f32x16 fractions(u64x8 a, u64x8 b) { return {fractions8(a.low, b.low), fractions8(a.high, b.high)}; }

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
