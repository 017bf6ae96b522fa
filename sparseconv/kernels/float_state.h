// Flushes denormals to zero on this thread for as long as it lives (inputs and results), then restores what was set.
// Denormals are the most frequent reason for "this convolution is 50 times slower" reports across libraries.
#pragma once
#include <stdint.h>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace sparseconv {

class flush_denormals {
public:
#if defined(__x86_64__)
    flush_denormals() : saved_(_mm_getcsr()) { _mm_setcsr((unsigned)saved_ | 0x8040); }  // FTZ and DAZ
    ~flush_denormals() { _mm_setcsr((unsigned)saved_); }
#elif defined(__aarch64__)
    flush_denormals() {
        asm volatile("mrs %0, fpcr" : "=r"(saved_));
        asm volatile("msr fpcr, %0" : : "r"(saved_ | 1u << 24));  // FZ
    }
    ~flush_denormals() { asm volatile("msr fpcr, %0" : : "r"(saved_)); }
#endif
    flush_denormals(const flush_denormals &) = delete;
    flush_denormals &operator=(const flush_denormals &) = delete;

private:
    uint64_t saved_ = 0;
};

}  // namespace sparseconv
