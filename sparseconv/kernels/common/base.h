// The macros of this folder; SC_ISA is set by each isa/*.cpp.
#pragma once
#include <stdint.h>

#define SC_INLINE static inline __attribute__((always_inline, unused))
// GCC 12 keeps acc[..] arrays of data-dependent loops in memory unless every loop over them is unrolled.
#define SC_UNROLL _Pragma("GCC unroll 32")
#define SC_INLINE_MEMBER inline __attribute__((always_inline))
// A loop that must have the registers to itself, and that tests/kernels/test_codegen.py finds by its name.
#define SC_ALONE __attribute__((noinline))
// An address that the compiler must keep as it is: from `base + constant` GCC makes one register per constant, then
// runs out of them (18 base addresses for 18 accumulators, spilled to vector registers and back in the inner loop).
#define SC_PIN(pointer) asm("" : "+r"(pointer))
#define SC_OPEN namespace sparseconv { namespace SC_ISA { namespace {
#define SC_CLOSE }}}

SC_OPEN

SC_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// What kernels say that need no scratch memory.
template <class Task>
SC_INLINE int64_t no_scratch(const Task *) { return 0; }

SC_CLOSE
