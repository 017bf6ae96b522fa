// f32x16 in plain C++: 16 floats, for machines without one of the other instruction sets and as the yardstick that
// they are tested against. simd/avx512.h says what each name means.
// Here a multiply-add rounds twice (a fused one is a library call on baseline x86-64, some 20 times slower), so its
// last bits may differ from the other instruction sets'; on data whose sums are exact all of them agree.
#pragma once
#include <stdint.h>

#include "common/base.h"

SC_OPEN

struct f32x16 {
    static constexpr int accumulators = 6, dense_pixels = 2, dense_vectors = 1, point_vectors = 4;
    static constexpr int registers = 4, row_pixels = 2;
    static constexpr double slope = 1.1;
    float lane[16];
};

SC_INLINE f32x16 zero() { return {}; }
SC_INLINE f32x16 load_partial(const float *p, int n) {
    f32x16 a = {};
    for (int i = 0; i < n; ++i) a.lane[i] = p[i];
    return a;
}
SC_INLINE void store_partial(float *p, f32x16 a, int n) {
    for (int i = 0; i < n; ++i) p[i] = a.lane[i];
}
SC_INLINE f32x16 load(const float *p) { return load_partial(p, 16); }
SC_INLINE void store(float *p, f32x16 a) { store_partial(p, a, 16); }
SC_INLINE void store_stream(float *p, f32x16 a) { store(p, a); }
SC_INLINE void end_streams() {}
SC_INLINE f32x16 splat(const float *p) {
    f32x16 a;
    for (float &lane : a.lane) lane = *p;
    return a;
}
template <int M>
SC_INLINE f32x16 spread(const float *p, int c) {
    f32x16 a;
    for (int i = 0; i < 16; ++i) a.lane[i] = M == 1 ? p[i] : p[i / M * M + c];
    return a;
}
SC_INLINE void hold(f32x16 &) {}
SC_INLINE f32x16 add(f32x16 a, f32x16 b) {
    for (int i = 0; i < 16; ++i) a.lane[i] += b.lane[i];
    return a;
}
SC_INLINE f32x16 fma(f32x16 a, f32x16 b, f32x16 c) {
    for (int i = 0; i < 16; ++i) c.lane[i] += a.lane[i] * b.lane[i];
    return c;
}
SC_INLINE f32x16 fma_from(f32x16 a, const float *p, f32x16 c) { return fma(a, load(p), c); }
SC_INLINE f32x16 maximum(f32x16 a, f32x16 b) {
    for (int i = 0; i < 16; ++i) a.lane[i] = a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i];
    return a;
}
SC_INLINE uint32_t nonzero(f32x16 a) {
    uint32_t bits = 0;
    for (int i = 0; i < 16; ++i) bits |= (uint32_t)(a.lane[i] != 0) << i;
    return bits;
}
SC_INLINE uint32_t above(f32x16 a, f32x16 t) {
    uint32_t bits = 0;
    for (int i = 0; i < 16; ++i) bits |= (uint32_t)!(__builtin_fabsf(a.lane[i]) <= t.lane[i]) << i;
    return bits;
}
SC_INLINE f32x16 keep(f32x16 a, uint32_t bits) {
    for (int i = 0; i < 16; ++i) a.lane[i] = bits >> i & 1 ? a.lane[i] : 0;
    return a;
}
SC_INLINE f32x16 expand(const float *packed, uint32_t bits) {
    f32x16 a;
    for (int i = 0; i < 16; ++i) {
        const uint32_t set = bits >> i & 1;
        a.lane[i] = set ? *packed : 0;
        packed += set;
    }
    return a;
}
SC_INLINE void compress(float *packed, f32x16 a, uint32_t bits) {
    for (int i = 0; i < 16; ++i) {
        *packed = a.lane[i];
        packed += bits >> i & 1;
    }
}
SC_INLINE float sum_of(f32x16 a) {
    float sum = 0;
    for (float lane : a.lane) sum += lane;
    return sum;
}
SC_INLINE void add_sums(float *to, f32x16 a, f32x16 b, f32x16 c, f32x16 d) {
    to[0] += sum_of(a), to[1] += sum_of(b), to[2] += sum_of(c), to[3] += sum_of(d);
}
SC_INLINE f32x16 multiply(f32x16 a, f32x16 b) {
    for (int i = 0; i < 16; ++i) a.lane[i] *= b.lane[i];
    return a;
}
SC_INLINE f32x16 outward(f32x16 a, f32x16 t) {
    for (int i = 0; i < 16; ++i) {
        const float magnitude = __builtin_fabsf(a.lane[i]);
        a.lane[i] = __builtin_copysignf(t.lane[i] > magnitude ? t.lane[i] : magnitude, a.lane[i]);
    }
    return a;
}
SC_INLINE f32x16 keep_above(f32x16 a, f32x16 b, f32x16 t) {
    for (int i = 0; i < 16; ++i) b.lane[i] = __builtin_fabsf(a.lane[i]) <= t.lane[i] ? 0 : b.lane[i];
    return b;
}

struct f64x16 {
    double lane[16];
};
SC_INLINE f64x16 add_magnitudes(f64x16 sums, f32x16 a) {
    for (int i = 0; i < 16; ++i) sums.lane[i] += (double)__builtin_fabsf(a.lane[i]);
    return sums;
}
SC_INLINE void store(double *p, f64x16 a) {
    for (int i = 0; i < 16; ++i) p[i] = a.lane[i];
}

struct u64x8 {
    static constexpr int chains = 1;
    uint64_t lane[8];
};
SC_INLINE u64x8 count_from(uint64_t n) {
    u64x8 a;
    for (uint64_t &lane : a.lane) lane = n++;
    return a;
}
SC_INLINE u64x8 splat_word(uint64_t n) {
    u64x8 a;
    for (uint64_t &lane : a.lane) lane = n;
    return a;
}
SC_INLINE u64x8 product(u64x8 a, u64x8 b) {
    for (int i = 0; i < 8; ++i) a.lane[i] = (uint64_t)(uint32_t)a.lane[i] * (uint32_t)b.lane[i];
    return a;
}
SC_INLINE u64x8 mix(u64x8 a, u64x8 b, u64x8 c) {
    for (int i = 0; i < 8; ++i) a.lane[i] = a.lane[i] >> 32 ^ b.lane[i] ^ c.lane[i];
    return a;
}
SC_INLINE float fraction_of(uint64_t word) { return ((float)(int32_t)((uint32_t)word >> 9) + 0.5f) * 0x1p-23f; }
SC_INLINE f32x16 fractions(u64x8 a, u64x8 b) {
    f32x16 both;
    for (int i = 0; i < 8; ++i) {
        both.lane[2 * i] = fraction_of(a.lane[i]), both.lane[2 * i + 1] = fraction_of(b.lane[i]);
    }
    return both;
}

SC_INLINE void transpose(f32x16 (&m)[16]) {
    for (int i = 0; i < 16; ++i) {
        for (int j = 0; j < i; ++j) {
            float kept = m[i].lane[j];
            m[i].lane[j] = m[j].lane[i], m[j].lane[i] = kept;
        }
    }
}

SC_CLOSE
