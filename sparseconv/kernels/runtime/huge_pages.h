// Memory that is about to be written for the first time, in large pages.
#pragma once
#include <stdint.h>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace sparseconv {

// Asks the kernel for large pages where memory is not there yet; what is there stays as it is. Where there are none, or
// the administrator allows none, nothing happens. Whole pages of [address, address + bytes) alone: what lies beside
// them belongs to others. Returns whether the kernel agreed.
inline bool ask_for_huge_pages(uint64_t address, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    const uint64_t begin = (address + page - 1) / page * page, end = (address + (uint64_t)bytes) / page * page;
    return begin < end && madvise((void *)(uintptr_t)begin, end - begin, MADV_HUGEPAGE) == 0;
#else
    return (void)address, (void)bytes, false;
#endif
}

}  // namespace sparseconv
