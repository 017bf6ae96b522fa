// For tests, in front of runtime/threads.cpp: behind the pages of scratch memory lies one that traps every access.
#pragma once
#include <stdlib.h>
#include <sys/mman.h>

#include <condition_variable>  // and what else of the standard library may say free()
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

static constexpr size_t trapped_page = 4096;  // so much is scratch memory rounded to, as well

static void *trapped_alloc(size_t, size_t bytes) {
    void *memory = mmap(nullptr, bytes + 2 * trapped_page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return nullptr;
    char *first = (char *)memory + trapped_page;
    *(size_t *)memory = bytes + 2 * trapped_page;
    mprotect(first + bytes, trapped_page, PROT_NONE);
    return first;
}

// Of scratch memory, and of what malloc gave, which never begins with a page; inlined, GCC 12 warns of its size.
__attribute__((noinline)) static void trapped_free(void *memory) {
    if (!memory || (size_t)memory % trapped_page) return free(memory);
    char *first = (char *)memory - trapped_page;
    munmap(first, *(size_t *)first);
}

#define aligned_alloc trapped_alloc
#define free trapped_free
