// The floating-point control register of this thread. Kernels run with denormals flushed to zero (inputs and results):
// they are the most frequent reason for "this convolution is 50 times slower" reports across libraries.
#pragma once
#include <stdint.h>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace sparseconv {

inline uint64_t float_state() {
#if defined(__x86_64__)
    return _mm_getcsr();
#elif defined(__aarch64__)
    uint64_t state;
    asm volatile("mrs %0, fpcr" : "=r"(state));
    return state;
#else
    return 0;
#endif
}

inline void set_float_state(uint64_t state) {
#if defined(__x86_64__)
    _mm_setcsr((unsigned)state);
#elif defined(__aarch64__)
    asm volatile("msr fpcr, %0" : : "r"(state));
#else
    (void)state;
#endif
}

#if defined(__x86_64__)
constexpr uint64_t usual_float_state = 0x1f80;  // MXCSR: nothing traps, rounding to nearest, denormals are numbers
constexpr uint64_t flush_denormals = 0x8040;    // FTZ and DAZ
#else
constexpr uint64_t usual_float_state = 0;
constexpr uint64_t flush_denormals = 1u << 24;  // FPCR: FZ
#endif
// Of kernels, whatever the caller's is: else its threads would round in one way and those of a pool in another, and
// what kernels do with infinities and padding would trap.
constexpr uint64_t kernel_float_state = usual_float_state | flush_denormals;

// Sets a state for as long as it lives, then restores what was set before.
class float_state_scope {
public:
    explicit float_state_scope(uint64_t state) : before_(float_state()) { set_float_state(state); }
    ~float_state_scope() { set_float_state(before_); }
    float_state_scope(const float_state_scope &) = delete;
    float_state_scope &operator=(const float_state_scope &) = delete;

private:
    uint64_t before_;
};

}  // namespace sparseconv
