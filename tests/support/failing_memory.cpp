// To be preloaded (LD_PRELOAD, glibc): allocations can be counted, and one of them made to fail, wherever it is in the
// process; or among those alone that code of one library makes, directly or through the C++ library. The library that
// is tested is one with "sparseconv" in its path.
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <unwind.h>

#include <atomic>

extern "C" {
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void __libc_free(void *);
}

namespace {

std::atomic<long> count{0}, failing{0}, live{0};
std::atomic<bool> counting{false};
std::atomic<uintptr_t> site{0};  // of the one that failed
uintptr_t first = 0, last = 0;   // code that counts; all of it if `last` is 0
constexpr int CRASHED_HERE = 77, CRASHED_ELSEWHERE = 78;
constexpr int DEEPEST = 6;       // calls between that code and malloc: operator new, a container

struct walk {
    int depth = 0;
    uintptr_t found = 0;
};

_Unwind_Reason_Code visit(_Unwind_Context *context, void *argument) {
    walk &seen = *static_cast<walk *>(argument);
    const uintptr_t at = _Unwind_GetIP(context);
    if (at >= first && at < last) {
        seen.found = at;
        return _URC_END_OF_STACK;
    }
    return ++seen.depth > DEEPEST ? _URC_END_OF_STACK : _URC_NO_REASON;
}

bool fails(void *caller) {
    if (!counting.load(std::memory_order_relaxed)) return false;
    uintptr_t at = (uintptr_t)caller;
    if (last) {
        walk seen;
        _Unwind_Backtrace(visit, &seen);
        if (!seen.found) return false;
        at = seen.found;
    }
    if (++count != failing.load(std::memory_order_relaxed)) return false;
    site = at;
    errno = ENOMEM;
    return true;
}

// Whose code a crash is in: that of the package, if it is on the stack above Python's interpreter loop.
_Unwind_Reason_Code blame(_Unwind_Context *context, void *argument) {
    Dl_info where;
    if (!dladdr((void *)_Unwind_GetIP(context), &where)) return _URC_NO_REASON;
    if (where.dli_fname && strstr(where.dli_fname, "sparseconv")) *static_cast<int *>(argument) = CRASHED_HERE;
    const bool loop = where.dli_sname && !strcmp(where.dli_sname, "_PyEval_EvalFrameDefault");
    return loop ? _URC_END_OF_STACK : _URC_NO_REASON;
}

void crash(int) {
    int code = CRASHED_ELSEWHERE;
    _Unwind_Backtrace(blame, &code);
    _exit(code);
}

void *counted(void *memory) {
    if (memory) live += (long)malloc_usable_size(memory);
    return memory;
}

}  // namespace

extern "C" {

void *malloc(size_t size) { return fails(__builtin_return_address(0)) ? nullptr : counted(__libc_malloc(size)); }
void *calloc(size_t number, size_t size) {
    return fails(__builtin_return_address(0)) ? nullptr : counted(__libc_calloc(number, size));
}
void *realloc(void *old, size_t size) {
    if (fails(__builtin_return_address(0))) return nullptr;
    const long before = old ? (long)malloc_usable_size(old) : 0;
    void *memory = __libc_realloc(old, size);
    if (memory || !size) live -= before;
    return counted(memory);
}
void *memalign(size_t alignment, size_t size) {
    return fails(__builtin_return_address(0)) ? nullptr : counted(__libc_memalign(alignment, size));
}
void *aligned_alloc(size_t alignment, size_t size) {
    return fails(__builtin_return_address(0)) ? nullptr : counted(__libc_memalign(alignment, size));
}
int posix_memalign(void **memory, size_t alignment, size_t size) {
    if (fails(__builtin_return_address(0))) return ENOMEM;
    *memory = counted(__libc_memalign(alignment, size));
    return *memory ? 0 : ENOMEM;
}
void free(void *memory) {
    if (memory) live -= (long)malloc_usable_size(memory);
    __libc_free(memory);
}

// From now on allocations count, and number `n` of them fails (0: none).
void begin(long n) {
    count = 0, failing = n, site = 0;
    counting = true;
}
// No longer; how many there were.
long end() {
    counting = false;
    return count;
}
void only(uintptr_t from, uintptr_t to) { first = from, last = to; }
uintptr_t failed_site() { return site; }
long live_bytes() { return live; }

// A crash ends the process with CRASHED_HERE or CRASHED_ELSEWHERE.
void tell_crashes() {
    signal(SIGSEGV, crash);
    signal(SIGBUS, crash);
    signal(SIGABRT, crash);
}
}
