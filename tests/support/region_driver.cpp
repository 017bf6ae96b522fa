// Many short regions of runtime/threads.cpp at the same time, for ThreadSanitizer: every item is done once, what a
// worker writes is there when the region ends, and scratch memory belongs to one thread.
#include <stdio.h>
#include <stdlib.h>

#include <vector>

#include "runtime/threads.h"

namespace {

using namespace sparseconv;

int no_signals() { return 0; }

struct region {
    std::vector<int64_t> *counts;  // plain integers: a race is seen
    int64_t scratch_bytes;
};

void work(const void *context, int64_t begin, int64_t end, void *scratch) {
    const region &all = *static_cast<const region *>(context);
    char *const memory = static_cast<char *>(scratch);
    for (int64_t byte = 0; byte < all.scratch_bytes; byte += 64) memory[byte] = (char)begin;
    for (int64_t item = begin; item < end; ++item) ++(*all.counts)[(size_t)item];
}

// How many of `regions` regions went wrong; another number of threads, items and bytes in each.
int64_t wrong_regions(int64_t regions, unsigned seed, int most_threads) {
    int64_t wrong = 0;
    for (int64_t i = 0; i < regions; ++i) {
        seed = seed * 1664525u + 1013904223u;
        const int64_t items = 1 + (seed >> 8) % 40, bytes = 64 * (1 + (seed >> 16) % 30);
        const int threads = 1 + (int)((seed >> 24) % (unsigned)most_threads);
        interruption interrupt(no_signals);
        std::vector<int64_t> counts((size_t)items);
        const region all = {&counts, bytes};
        const scratch_lease lease(bytes);
        const status done = parallel(work, &all, items, threads, bytes, lease.memory(), interrupt);
        bool good = done == SC_OK;
        for (const int64_t count : counts) good = good && count == 1;
        wrong += !good;
        if (i % 1000 == 0) set_default_threads(1 + (int)(seed % 5)), sparseconv_get_num_threads();
    }
    return wrong;
}

}  // namespace

// Arguments: how many regions each caller makes, how many callers, and how many threads a region has at most.
int main(int argc, char **argv) {
    if (argc != 4) return 2;
    const int64_t regions = atoll(argv[1]);
    const int callers = atoi(argv[2]), threads = atoi(argv[3]);
    std::atomic<int64_t> wrong{0};
    std::vector<std::thread> all;
    for (int caller = 0; caller < callers; ++caller) {
        all.emplace_back([&wrong, regions, caller, threads] {
            wrong += wrong_regions(regions, (unsigned)caller + 1, threads);
        });
    }
    for (std::thread &one : all) one.join();
    printf("%lld regions, %lld wrong\n", (long long)(regions * callers), (long long)wrong.load());
    return wrong != 0;
}
