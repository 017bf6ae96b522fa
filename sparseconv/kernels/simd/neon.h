// f32x16 on NEON (aarch64 baseline): four q registers. simd/avx512.h says what each name means.
// 32 q registers: 6 accumulators take 24, an operand 4, a broadcast 1.
#pragma once
#include <arm_neon.h>
#include <stdint.h>

#include "common/base.h"

SC_OPEN

struct f32x16 {
    static constexpr int accumulators = 6, dense_pixels = 6, dense_vectors = 1, point_vectors = 4;
    static constexpr int registers = 8, row_pixels = 6;
    static constexpr double slope = 1.2;
    float32x4_t q[4];
};

SC_INLINE f32x16 zero() {
    float32x4_t none = vdupq_n_f32(0);
    return {{none, none, none, none}};
}
SC_INLINE f32x16 load(const float *p) {
    return {{vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}};
}
SC_INLINE void store(float *p, f32x16 a) { SC_UNROLL for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, a.q[i]); }
SC_INLINE void store_stream(float *p, f32x16 a) { store(p, a); }
SC_INLINE void end_streams() {}
SC_INLINE f32x16 load_partial(const float *p, int n) {
    float whole[16] = {};
    for (int i = 0; i < n; ++i) whole[i] = p[i];
    return load(whole);
}
SC_INLINE void store_partial(float *p, f32x16 a, int n) {
    float whole[16];
    store(whole, a);
    for (int i = 0; i < n; ++i) p[i] = whole[i];
}
SC_INLINE f32x16 splat(const float *p) {
    float32x4_t v = vld1q_dup_f32(p);
    return {{v, v, v, v}};
}
template <int M>
SC_INLINE f32x16 spread(const float *p, int c) {
    if constexpr (M == 1) return load(p);
    f32x16 a;
    if constexpr (M == 2) {
        SC_UNROLL for (int i = 0; i < 4; ++i) {
            const float32x4_t v = vld1q_f32(p + 4 * i);
            a.q[i] = c ? vtrn2q_f32(v, v) : vtrn1q_f32(v, v);
        }
    } else {
        SC_UNROLL for (int i = 0; i < 4; ++i) a.q[i] = vld1q_dup_f32(p + 4 * i / M * M + c);
    }
    return a;
}
SC_INLINE void hold(f32x16 &) {}  // loads are instructions anyway
SC_INLINE f32x16 add(f32x16 a, f32x16 b) {
    SC_UNROLL for (int i = 0; i < 4; ++i) a.q[i] = vaddq_f32(a.q[i], b.q[i]);
    return a;
}
SC_INLINE f32x16 fma(f32x16 a, f32x16 b, f32x16 c) {
    SC_UNROLL for (int i = 0; i < 4; ++i) c.q[i] = vfmaq_f32(c.q[i], a.q[i], b.q[i]);
    return c;
}
SC_INLINE f32x16 fma_from(f32x16 a, const float *p, f32x16 c) { return fma(a, load(p), c); }
SC_INLINE f32x16 maximum(f32x16 a, f32x16 b) {  // fmax gives NaN if either is: for a = zero that is b
    SC_UNROLL for (int i = 0; i < 4; ++i) a.q[i] = vmaxq_f32(a.q[i], b.q[i]);
    return a;
}
SC_INLINE uint32_t unset_bits(uint32x4_t a, uint32x4_t b, uint32x4_t c, uint32x4_t d) {
    // narrow the four comparisons to 16 bytes, keep one bit in each, add the bits up within each half
    uint16x8_t low = vcombine_u16(vmovn_u32(a), vmovn_u32(b)), high = vcombine_u16(vmovn_u32(c), vmovn_u32(d));
    const uint8x8_t place = vcreate_u8(0x8040201008040201ull);
    uint32_t below = vaddv_u8(vand_u8(vmvn_u8(vmovn_u16(low)), place));
    uint32_t above = vaddv_u8(vand_u8(vmvn_u8(vmovn_u16(high)), place));
    return below | above << 8;
}
SC_INLINE uint32_t nonzero(f32x16 a) {
    return unset_bits(vceqzq_f32(a.q[0]), vceqzq_f32(a.q[1]), vceqzq_f32(a.q[2]), vceqzq_f32(a.q[3]));
}
SC_INLINE uint32_t above(f32x16 a, f32x16 t) {
    return unset_bits(vcaleq_f32(a.q[0], t.q[0]), vcaleq_f32(a.q[1], t.q[1]), vcaleq_f32(a.q[2], t.q[2]),
                      vcaleq_f32(a.q[3], t.q[3]));
}

// For each set of 4 bits, where every byte of a register comes from, and how many are set. vqtbl1q gives 0 for 255.
struct byte_orders {
    uint8_t expand[16][16], compress[16][16], count[16];
    constexpr byte_orders() : expand(), compress(), count() {
        for (int bits = 0; bits < 16; ++bits) {
            for (int lane = 0; lane < 4; ++lane) {
                const bool set = bits >> lane & 1;
                for (int byte = 0; byte < 4; ++byte) {
                    expand[bits][4 * lane + byte] = set ? (uint8_t)(4 * count[bits] + byte) : (uint8_t)255;
                    if (set) compress[bits][4 * count[bits] + byte] = (uint8_t)(4 * lane + byte);
                }
                if (set) ++count[bits];
            }
        }
    }
};
alignas(64) constexpr byte_orders orders;

SC_INLINE float32x4_t reordered(float32x4_t a, const uint8_t *order) {
    return vreinterpretq_f32_u8(vqtbl1q_u8(vreinterpretq_u8_f32(a), vld1q_u8(order)));
}
SC_INLINE f32x16 keep(f32x16 a, uint32_t bits) {
    const uint32_t lanes[4] = {1, 2, 4, 8};
    const uint32x4_t places = vld1q_u32(lanes);
    SC_UNROLL for (int i = 0; i < 4; ++i) {
        const uint32x4_t set = vtstq_u32(vdupq_n_u32(bits >> 4 * i), places);
        a.q[i] = vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(a.q[i]), set));
    }
    return a;
}
SC_INLINE f32x16 expand(const float *packed, uint32_t bits) {
    f32x16 a;
    SC_UNROLL for (int i = 0; i < 4; ++i) {
        const uint32_t quarter = bits >> 4 * i & 15;
        a.q[i] = reordered(vld1q_f32(packed), orders.expand[quarter]);
        packed += orders.count[quarter];
    }
    return a;
}
SC_INLINE void compress(float *packed, f32x16 a, uint32_t bits) {
    SC_UNROLL for (int i = 0; i < 4; ++i) {
        const uint32_t quarter = bits >> 4 * i & 15;
        vst1q_f32(packed, reordered(a.q[i], orders.compress[quarter]));
        packed += orders.count[quarter];
    }
}

SC_INLINE float32x4_t add_quarters(f32x16 a) {
    return vaddq_f32(vaddq_f32(a.q[0], a.q[1]), vaddq_f32(a.q[2], a.q[3]));
}
SC_INLINE void add_sums(float *to, f32x16 a, f32x16 b, f32x16 c, f32x16 d) {
    const float32x4_t ab = vpaddq_f32(add_quarters(a), add_quarters(b));
    const float32x4_t cd = vpaddq_f32(add_quarters(c), add_quarters(d));
    vst1q_f32(to, vaddq_f32(vld1q_f32(to), vpaddq_f32(ab, cd)));
}

SC_INLINE f32x16 multiply(f32x16 a, f32x16 b) {
    SC_UNROLL for (int i = 0; i < 4; ++i) a.q[i] = vmulq_f32(a.q[i], b.q[i]);
    return a;
}
SC_INLINE f32x16 outward(f32x16 a, f32x16 t) {
    SC_UNROLL for (int i = 0; i < 4; ++i) {
        const float32x4_t moved = vbslq_f32(vdupq_n_u32(0x80000000u), a.q[i], t.q[i]);  // the sign of a
        a.q[i] = vbslq_f32(vcagtq_f32(t.q[i], a.q[i]), moved, a.q[i]);
    }
    return a;
}
SC_INLINE f32x16 keep_above(f32x16 a, f32x16 b, f32x16 t) {
    SC_UNROLL for (int i = 0; i < 4; ++i) {
        b.q[i] = vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(b.q[i]), vcaleq_f32(a.q[i], t.q[i])));
    }
    return b;
}

struct f64x16 {
    float64x2_t d[8];
};
SC_INLINE f64x16 add_magnitudes(f64x16 sums, f32x16 a) {
    SC_UNROLL for (int i = 0; i < 4; ++i) {
        const float32x4_t magnitude = vabsq_f32(a.q[i]);
        sums.d[2 * i] = vaddq_f64(sums.d[2 * i], vcvt_f64_f32(vget_low_f32(magnitude)));
        sums.d[2 * i + 1] = vaddq_f64(sums.d[2 * i + 1], vcvt_high_f64_f32(magnitude));
    }
    return sums;
}
SC_INLINE void store(double *p, f64x16 a) { SC_UNROLL for (int i = 0; i < 8; ++i) vst1q_f64(p + 2 * i, a.d[i]); }

struct u64x8 {
    static constexpr int chains = 1;
    uint64x2_t q[4];
};
SC_INLINE u64x8 splat_word(uint64_t n) {
    const uint64x2_t v = vdupq_n_u64(n);
    return {{v, v, v, v}};
}
SC_INLINE u64x8 count_from(uint64_t n) {
    const uint64x2_t first = vaddq_u64(vdupq_n_u64(n), vcombine_u64(vcreate_u64(0), vcreate_u64(1)));
    u64x8 a;
    SC_UNROLL for (int i = 0; i < 4; ++i) a.q[i] = vaddq_u64(first, vdupq_n_u64((uint64_t)(2 * i)));
    return a;
}
SC_INLINE u64x8 product(u64x8 a, u64x8 b) {
    SC_UNROLL for (int i = 0; i < 4; ++i) a.q[i] = vmull_u32(vmovn_u64(a.q[i]), vmovn_u64(b.q[i]));
    return a;
}
SC_INLINE u64x8 mix(u64x8 a, u64x8 b, u64x8 c) {
    SC_UNROLL for (int i = 0; i < 4; ++i) a.q[i] = veorq_u64(vshrq_n_u64(a.q[i], 32), veorq_u64(b.q[i], c.q[i]));
    return a;
}
SC_INLINE f32x16 fractions(u64x8 a, u64x8 b) {
    f32x16 both;
    SC_UNROLL for (int i = 0; i < 4; ++i) {
        const uint32x4_t words = vreinterpretq_u32_u64(vsliq_n_u64(a.q[i], b.q[i], 32));
        const uint32x4_t bits = vorrq_u32(vshrq_n_u32(words, 9), vdupq_n_u32(0x3f800000));  // 1 + k / 2^23
        both.q[i] = vsubq_f32(vreinterpretq_f32_u32(bits), vdupq_n_f32(1 - 0x1p-24f));
    }
    return both;
}

SC_INLINE void transpose4(float32x4_t (&m)[4]) {
    float32x4x2_t a = vtrnq_f32(m[0], m[1]), b = vtrnq_f32(m[2], m[3]);
    m[0] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
    m[1] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
    m[2] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
    m[3] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
}

SC_INLINE void transpose(f32x16 (&m)[16]) {
    f32x16 t[16];
    for (int row = 0; row < 4; ++row) {
        for (int column = 0; column < 4; ++column) {
            float32x4_t block[4];
            SC_UNROLL for (int i = 0; i < 4; ++i) block[i] = m[4 * row + i].q[column];
            transpose4(block);
            SC_UNROLL for (int i = 0; i < 4; ++i) t[4 * column + i].q[row] = block[i];
        }
    }
    for (int i = 0; i < 16; ++i) m[i] = t[i];
}

SC_CLOSE
