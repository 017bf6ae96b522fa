// Whether this process may use the AMX-BF16 tile registers: the CPU has them, the OS saves them, and Linux has allowed
// it.
#pragma once
#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <stdint.h>
#include <sys/syscall.h>
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

}  // namespace sparseconv
