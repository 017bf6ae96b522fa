// Whether this process may use the AMX-BF16 tile registers: the CPU has them, the OS saves them, and Linux has allowed
// it. And whether they have AMX-FP16's product, which needs no other permission.
#pragma once
#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>
#endif

namespace sparseconv {

inline bool amx_permitted() {
#if defined(__x86_64__) && defined(__linux__)
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return false;
    const unsigned tile = 1u << 24, bf16 = 1u << 22;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & (tile | bf16)) != (tile | bf16)) return false;
    uint32_t low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    const uint32_t tile_state = 3u << 17;  // XTILECFG and XTILEDATA
    if ((low & tile_state) != tile_state) return false;
    // Linux gives the 8 KB of tile data only to processes that ask, and may refuse: kernels before 5.16 do not know the
    // call, containers may filter it, and a signal stack may be too small. Threads and forked children inherit it.
    const long request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
    return false;
#endif
}

// What the CPU tells of AMX-FP16. Some hypervisors hide it, and the instruction works all the same.
inline bool amx_fp16_told() {
#if defined(__x86_64__) && defined(__linux__)
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) &&
           (a >> 21 & 1);
#else
    return false;
#endif
}

// While it lasts, a TDPFP16PS that the CPU does not know is skipped rather than ending the process. Any other illegal
// instruction, of whatever thread, goes to the handler of before; where that is the system's, it is put back, and the
// instruction met once more.
class fp16_guard {
#if defined(__x86_64__) && defined(__linux__)
    sigset_t blocked;

    static struct sigaction &before() {
        static struct sigaction action;
        return action;
    }
    static void skip(int signal, siginfo_t *info, void *context) {
        greg_t &next = ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
        const unsigned char *code = (const unsigned char *)next;
        const struct sigaction &other = before();
        if (code[0] == 0xc4 && code[1] == 0xe2 && (code[2] & 0x87) == 0x03 && code[3] == 0x5c) next += 5;
        else if (other.sa_handler == SIG_DFL || other.sa_handler == SIG_IGN) sigaction(SIGILL, &other, nullptr);
        else if (other.sa_flags & SA_SIGINFO) other.sa_sigaction(signal, info, context);
        else other.sa_handler(signal);
    }

public:
    fp16_guard() {
        struct sigaction action;
        memset(&action, 0, sizeof action);
        action.sa_sigaction = skip, action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        sigset_t illegal;
        sigemptyset(&illegal), sigaddset(&illegal, SIGILL);
        sigaction(SIGILL, &action, &before());
        pthread_sigmask(SIG_UNBLOCK, &illegal, &blocked);  // Linux ends who blocks the signal that his code raises
    }
    ~fp16_guard() {
        pthread_sigmask(SIG_SETMASK, &blocked, nullptr);
        sigaction(SIGILL, &before(), nullptr);
    }
    fp16_guard(const fp16_guard &) = delete;
    fp16_guard &operator=(const fp16_guard &) = delete;
#endif
};

}  // namespace sparseconv
