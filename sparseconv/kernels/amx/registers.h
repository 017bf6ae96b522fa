// Tile registers on AMX-BF16 and AMX-FP16: eight of 16 rows of 64 bytes.
//
// tests/support/tiles_emulated.h defines the same names in plain C++; nothing else in kernels/ knows AMX. What they
// mean:
//   tiles_in_use     while it lives, this thread has eight configured tile registers; then none, so that neither a
//                    context switch nor anybody else's code has to carry 8 KB of them
//   tile_zero<T>, tile_load<T>, tile_store<T>   16 rows of 64 bytes, `stride` bytes apart
//   tile_multiply<C, A, B>   C[m][n] += sum over k < 16 of A[m][k].first * B[k][n].first + A[m][k].second *
//                    B[k][n].second: bf16 pairs, f32 sums, round to nearest, denormals are zero whatever MXCSR says
//   tile_multiply_fp16<C, A, B>   the same of fp16 pairs, whose denormals count
//
// No intrinsics: GCC's are macros that paste the register's number, so it cannot be a template argument, and they do
// not tell the compiler that a load reads memory.
#pragma once
#include <stdint.h>

#include "common/base.h"

SC_OPEN

struct tile_configuration {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static constexpr tile_configuration all_tiles{};
static_assert(sizeof all_tiles == 64, "as LDTILECFG reads it");

struct tiles_in_use {
    SC_INLINE_MEMBER tiles_in_use() { asm volatile("ldtilecfg %0" : : "m"(all_tiles)); }
    SC_INLINE_MEMBER ~tiles_in_use() { asm volatile("tilerelease" : : : "memory"); }
    tiles_in_use(const tiles_in_use &) = delete;
    tiles_in_use &operator=(const tiles_in_use &) = delete;
};

template <int T>
SC_INLINE void tile_zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(T));
}
template <int T>
SC_INLINE void tile_load(const void *from, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(T) : "memory");
}
template <int T>
SC_INLINE void tile_store(void *to, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(T) : "memory");
}
template <int C, int A, int B>
SC_INLINE void tile_multiply() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
}
// TDPFP16PS, which assemblers know from 2022 on (binutils 2.40): VEX.128.F2.0F38.W0 5C, with F2 for TDPBF16PS's F3.
template <int C, int A, int B>
SC_INLINE void tile_multiply_fp16() {
    asm volatile(".byte 0xc4, 0xe2, %c0, 0x5c, %c1" : : "i"(0x03 | (~B & 15) << 3), "i"(0xc0 | C << 3 | A));
}

SC_CLOSE
