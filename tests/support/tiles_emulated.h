// The tile registers of kernels/amx/registers.h in plain C++, for any machine: what Intel's manual says that the
// instructions do.
//
// TDPBF16PS, for each row m of A, with denormals as zero, round to nearest even, whatever MXCSR says:
//   for k = 0 .. 15: even[n] = fma(A[m][2 k], B[k][2 n], even[n])
//                    odd[n] = fma(A[m][2 k + 1], B[k][2 n + 1], odd[n])
//   C[m][n] = C[m][n] + (even[n] + odd[n])
// TDPFP16PS does the same with fp16 numbers, whose denormals count.
// With SC_CHAINED all products are added to C one after the other instead, as other hardware might: nothing that is
// tested may depend on it.
//
// Using registers that are not configured ends the program, as it would in hardware. Released ones hold NaN.
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include "common/base.h"

// What the tests ask: tile products since the library was loaded, loads of their operands (registers 4 to 7), loads and
// stores of sums (0 to 3), and threads that hold configured registers.
extern "C" {
extern int64_t emulated_products, emulated_loads, emulated_sums, emulated_users;
extern int emulated_fault;
}

SC_OPEN

struct emulated_tiles {
    float tile[8][16][16];  // or pairs of bf16 or fp16
    bool configured;
};
static thread_local emulated_tiles emulated;

static emulated_tiles &tiles_checked() {
    if (!emulated.configured) fprintf(stderr, "a tile register was used that is not configured\n"), abort();
    return emulated;
}

struct tiles_in_use {
    tiles_in_use() {
        if (emulated.configured) fprintf(stderr, "tile registers were configured twice\n"), abort();
        memset(emulated.tile, 0xff, sizeof emulated.tile);
        emulated.configured = true;
        __atomic_add_fetch(&emulated_users, 1, __ATOMIC_RELAXED);
    }
    ~tiles_in_use() {
        emulated.configured = false;
        __atomic_sub_fetch(&emulated_users, 1, __ATOMIC_RELAXED);
    }
    tiles_in_use(const tiles_in_use &) = delete;
    tiles_in_use &operator=(const tiles_in_use &) = delete;
};

template <int T>
static void tile_zero() { memset(tiles_checked().tile[T], 0, 1024); }
template <int T>
static void tile_load(const void *from, int64_t stride) {
    __atomic_add_fetch(T < 4 ? &emulated_sums : &emulated_loads, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < 16; ++i) memcpy(tiles_checked().tile[T][i], (const char *)from + i * stride, 64);
}
template <int T>
static void tile_store(void *to, int64_t stride) {
    __atomic_add_fetch(&emulated_sums, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < 16; ++i) memcpy((char *)to + i * stride, tiles_checked().tile[T][i], 64);
}

SC_INLINE float flushed(float x) { return __builtin_fabsf(x) < 0x1p-126f ? __builtin_copysignf(0, x) : x; }
// One of a pair.
SC_INLINE float bf16_of(uint32_t pair, bool second) {
    const uint32_t bits = second ? pair & 0xffff0000u : pair << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return flushed(value);
}
SC_INLINE float fp16_of(uint32_t pair, bool second) {
    const uint32_t bits = second ? pair >> 16 : pair & 0xffff, exponent = bits >> 10 & 31, fraction = bits & 1023;
    const uint32_t special = 0x7f800000u | fraction << 13, normal = (exponent + 112) << 23 | fraction << 13;
    float value = (float)fraction * 0x1p-24f;
    if (exponent) memcpy(&value, exponent == 31 ? &special : &normal, sizeof value);
    return bits >> 15 ? -value : value;
}

template <int C, int A, int B, class Half>
static void multiply_emulated(Half half_of) {
    auto &tile = tiles_checked().tile;
    __atomic_add_fetch(&emulated_products, 1, __ATOMIC_RELAXED);
#if defined(__x86_64__)
    const unsigned state = _mm_getcsr();
    _mm_setcsr(0x1f80);  // flushing is done above, for vectors or not
#endif
    float first[16][16], second[16][16];
    for (int k = 0; k < 16; ++k) {
        for (int n = 0; n < 16; ++n) {
            uint32_t pair;
            memcpy(&pair, &tile[B][k][n], sizeof pair);
            first[k][n] = half_of(pair, false), second[k][n] = half_of(pair, true);
        }
    }
    for (int m = 0; m < 16; ++m) {
        float even[16] = {}, odd[16] = {};
#if defined(SC_CHAINED)
        for (int n = 0; n < 16; ++n) even[n] = flushed(tile[C][m][n]);
#endif
        for (int k = 0; k < 16; ++k) {
            uint32_t pair;
            memcpy(&pair, &tile[A][m][k], sizeof pair);
            const float a = half_of(pair, false), b = half_of(pair, true);
            for (int n = 0; n < 16; ++n) {
                even[n] = flushed(__builtin_fmaf(a, first[k][n], even[n]));
#if defined(SC_CHAINED)
                even[n] = flushed(__builtin_fmaf(b, second[k][n], even[n]));
#else
                odd[n] = flushed(__builtin_fmaf(b, second[k][n], odd[n]));
#endif
            }
        }
        for (int n = 0; n < 16; ++n) {
#if defined(SC_CHAINED)
            tile[C][m][n] = even[n] + odd[n];
#else
            tile[C][m][n] = flushed(flushed(tile[C][m][n]) + flushed(even[n] + odd[n]));
#endif
        }
    }
    if (emulated_fault) tile[C][3][5] += 1;
#if defined(__x86_64__)
    _mm_setcsr(state);
#endif
}

template <int C, int A, int B>
static void tile_multiply() {
    multiply_emulated<C, A, B>([](uint32_t pair, bool second) { return bf16_of(pair, second); });
}
template <int C, int A, int B>
static void tile_multiply_fp16() {
    multiply_emulated<C, A, B>([](uint32_t pair, bool second) { return fp16_of(pair, second); });
}

SC_CLOSE
