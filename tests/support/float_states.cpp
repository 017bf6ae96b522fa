// The floating-point control registers of all threads of a process, for tests. x86-64, Linux.
#include <signal.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>

#include "runtime/float_state.h"

namespace {

std::atomic<uint64_t> seen{0};
std::atomic<bool> answered{false};

// The register as it was in the code that the signal interrupts: the handler itself runs with a new one.
void answer(int, siginfo_t *, void *context) {
    seen = static_cast<ucontext_t *>(context)->uc_mcontext.fpregs->mxcsr;
    answered = true;
}

}  // namespace

extern "C" {

uint64_t state() { return sparseconv::float_state(); }
void set_state(uint64_t value) { sparseconv::set_float_state(value); }

// The state of another thread of this process, or ~0 where it does not answer within a second.
uint64_t state_of(int thread) {
    struct sigaction action = {}, before;
    action.sa_sigaction = answer;
    action.sa_flags = SA_SIGINFO | SA_RESTART;
    sigaction(SIGRTMIN + 5, &action, &before);
    answered = false;
    uint64_t result = ~(uint64_t)0;
    if (!syscall(SYS_tgkill, getpid(), thread, SIGRTMIN + 5)) {
        for (int patience = 0; !answered && patience < 1000; ++patience) usleep(1000);
        if (answered) result = seen;
    }
    sigaction(SIGRTMIN + 5, &before, nullptr);
    return result;
}
}
