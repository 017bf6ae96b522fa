// f32x16 in plain C++: 16 floats, for machines without one of the other instruction sets and as the yardstick that
// they are tested against. simd/avx512.h says what each name means.
// Here a multiply-add rounds twice (a fused one is a library call on baseline x86-64, some 20 times slower), so its
// last bits may differ from the other instruction sets'; on data whose sums are exact all of them agree.
#pragma once
#include <stdint.h>

#include "common/base.h"

SC_OPEN

// Four lanes, in the vector notation of GCC and clang: SSE2's registers on baseline x86-64, plain floats where a CPU
// has none. Before, they were loops over 16 lanes, which GCC 12 made vectors of with -O3 only, and then of shuffles:
// 1.80 MB of code instead of 0.93, 109 s to compile instead of 31. Times on Zen 4, one thread, before over after:
// forward 64,64,28 4.9 dense, 2.6 at 50% zeros, 2.3 at 90%; backward_weight there 4.3, 4.2, 3.5; 128,64,28 1x1 1.4 to
// 4.6.
typedef float quad __attribute__((vector_size(16)));
typedef int32_t quad_bits __attribute__((vector_size(16)));

struct f32x16 {
    static constexpr int accumulators = 6, dense_pixels = 2, dense_vectors = 1, point_vectors = 4;
    static constexpr int registers = 4, row_pixels = 2;
    static constexpr double slope = 1.1;
    quad q[4];
    float operator[](int i) const { return q[i / 4][i % 4]; }
};

SC_INLINE f32x16 zero() { return {}; }
SC_INLINE f32x16 load_partial(const float *p, int n) {
    f32x16 a = {};
    for (int i = 0; i < n; ++i) a.q[i / 4][i % 4] = p[i];
    return a;
}
SC_INLINE void store_partial(float *p, f32x16 a, int n) {
    for (int i = 0; i < n; ++i) p[i] = a[i];
}
SC_INLINE f32x16 load(const float *p) {
    f32x16 a;
    SC_UNROLL for (int i = 0; i < 4; ++i) __builtin_memcpy(&a.q[i], p + 4 * i, sizeof(quad));
    return a;
}
SC_INLINE void store(float *p, f32x16 a) {
    SC_UNROLL for (int i = 0; i < 4; ++i) __builtin_memcpy(p + 4 * i, &a.q[i], sizeof(quad));
}
SC_INLINE void store_stream(float *p, f32x16 a) { store(p, a); }
SC_INLINE void end_streams() {}
SC_INLINE f32x16 splat(const float *p) {
    const quad all = {*p, *p, *p, *p};
    return {{all, all, all, all}};
}
template <int M>
SC_INLINE f32x16 spread(const float *p, int c) {
    if (M == 1) return load(p);
    float lanes[16];
    for (int i = 0; i < 16; ++i) lanes[i] = p[i / M * M + c];
    return load(lanes);
}
SC_INLINE void hold(f32x16 &) {}
SC_INLINE f32x16 add(f32x16 a, f32x16 b) {
    SC_UNROLL for (int i = 0; i < 4; ++i) a.q[i] += b.q[i];
    return a;
}
SC_INLINE f32x16 fma(f32x16 a, f32x16 b, f32x16 c) {
    SC_UNROLL for (int i = 0; i < 4; ++i) c.q[i] += a.q[i] * b.q[i];
    return c;
}
SC_INLINE f32x16 fma_from(f32x16 a, const float *p, f32x16 c) { return fma(a, load(p), c); }
// Lanes of a where `chosen` is all ones, of b where it is zero.
SC_INLINE quad select(quad_bits chosen, quad a, quad b) {
    return (quad)((chosen & (quad_bits)a) | (~chosen & (quad_bits)b));
}
SC_INLINE quad_bits all_bits_of(uint32_t bits, int quarter) {
    const quad_bits one = {1, 2, 4, 8}, lanes = one << (4 * quarter);
    const int32_t word = (int32_t)bits;
    return ((quad_bits){word, word, word, word} & lanes) == lanes;
}
SC_INLINE quad magnitude(quad a) { return (quad)((quad_bits)a & 0x7fffffff); }
// A bit for each lane of what comparisons of the four quarters gave.
SC_INLINE uint32_t gathered(const quad_bits (&set)[4]) {
    quad_bits all = {};
    SC_UNROLL for (int i = 0; i < 4; ++i) {
        const quad_bits one = {1, 2, 4, 8};
        all |= set[i] & (one << (4 * i));
    }
    return (uint32_t)(all[0] | all[1] | all[2] | all[3]);
}
SC_INLINE f32x16 maximum(f32x16 a, f32x16 b) {
    SC_UNROLL for (int i = 0; i < 4; ++i) a.q[i] = select(a.q[i] > b.q[i], a.q[i], b.q[i]);
    return a;
}
SC_INLINE uint32_t nonzero(f32x16 a) {
    quad_bits set[4];
    SC_UNROLL for (int i = 0; i < 4; ++i) set[i] = a.q[i] != 0;
    return gathered(set);
}
SC_INLINE uint32_t above(f32x16 a, f32x16 t) {
    quad_bits set[4];
    SC_UNROLL for (int i = 0; i < 4; ++i) set[i] = ~(magnitude(a.q[i]) <= t.q[i]);
    return gathered(set);
}
SC_INLINE f32x16 keep(f32x16 a, uint32_t bits) {
    SC_UNROLL for (int i = 0; i < 4; ++i) a.q[i] = select(all_bits_of(bits, i), a.q[i], quad{});
    return a;
}
SC_INLINE f32x16 expand(const float *packed, uint32_t bits) {
    float lanes[16];
    for (int i = 0; i < 16; ++i) {
        const uint32_t set = bits >> i & 1;
        lanes[i] = set ? *packed : 0;
        packed += set;
    }
    return load(lanes);
}
SC_INLINE void compress(float *packed, f32x16 a, uint32_t bits) {
    for (int i = 0; i < 16; ++i) {
        *packed = a[i];
        packed += bits >> i & 1;
    }
}
SC_INLINE float sum_of(f32x16 a) {
    float sum = 0;
    for (int i = 0; i < 16; ++i) sum += a[i];
    return sum;
}
SC_INLINE void add_sums(float *to, f32x16 a, f32x16 b, f32x16 c, f32x16 d) {
    to[0] += sum_of(a), to[1] += sum_of(b), to[2] += sum_of(c), to[3] += sum_of(d);
}
SC_INLINE f32x16 multiply(f32x16 a, f32x16 b) {
    SC_UNROLL for (int i = 0; i < 4; ++i) a.q[i] *= b.q[i];
    return a;
}
SC_INLINE f32x16 outward(f32x16 a, f32x16 t) {
    SC_UNROLL for (int i = 0; i < 4; ++i) {
        const quad size = magnitude(a.q[i]), larger = select(t.q[i] > size, t.q[i], size);
        a.q[i] = (quad)((quad_bits)magnitude(larger) | ((quad_bits)a.q[i] & INT32_MIN));
    }
    return a;
}
SC_INLINE f32x16 keep_above(f32x16 a, f32x16 b, f32x16 t) {
    SC_UNROLL for (int i = 0; i < 4; ++i) b.q[i] = select(magnitude(a.q[i]) <= t.q[i], quad{}, b.q[i]);
    return b;
}

struct f64x16 {
    double lane[16];
};
SC_INLINE f64x16 add_magnitudes(f64x16 sums, f32x16 a) {
    for (int i = 0; i < 16; ++i) sums.lane[i] += (double)__builtin_fabsf(a[i]);
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
    float both[16];
    for (int i = 0; i < 8; ++i) both[2 * i] = fraction_of(a.lane[i]), both[2 * i + 1] = fraction_of(b.lane[i]);
    return load(both);
}

SC_INLINE void transpose(f32x16 (&m)[16]) {
    float rows[16][16];
    for (int i = 0; i < 16; ++i) store(rows[i], m[i]);
    for (int i = 0; i < 16; ++i) {
        for (int j = 0; j < i; ++j) {
            const float kept = rows[i][j];
            rows[i][j] = rows[j][i], rows[j][i] = kept;
        }
    }
    for (int i = 0; i < 16; ++i) m[i] = load(rows[i]);
}

SC_CLOSE
