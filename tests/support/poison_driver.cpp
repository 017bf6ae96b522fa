// The real runtime/threads.cpp as test_poison.py asks it: what scratch memory holds when a call and its items see it.
#include "runtime/threads.h"

namespace {

struct seen {
    uint32_t bits;
    int64_t words;
    std::atomic<int64_t> items{0}, other{0};
};

int64_t others(const char *memory, int64_t words, uint32_t bits) {
    int64_t count = 0;
    for (int64_t i = 0; i < words; ++i) count += reinterpret_cast<const uint32_t *>(memory)[i] != bits;
    return count;
}

// Counts words that are not `bits`, and leaves behind none that are.
void look(const void *context, int64_t, int64_t, void *scratch) {
    seen &all = *static_cast<seen *>(const_cast<void *>(context));
    all.other += others(static_cast<char *>(scratch), all.words, all.bits), ++all.items;
    for (int64_t i = 0; i < all.words; ++i) static_cast<uint32_t *>(scratch)[i] = ~all.bits;
}

int no_signals() { return 0; }

}  // namespace

// A call of `items` items with `words` words of scratch memory each: how many words of them did not hold `bits`,
// those of the lease and of all items together; -1 if items are missing.
extern "C" int64_t words_without(uint32_t bits, int64_t words, int64_t items, int threads) {
    sparseconv::interruption interrupt(no_signals);
    const sparseconv::scratch_lease lease(4 * words);
    if (!lease.memory()) return -1;
    const int64_t other = others(lease.memory(), words, bits);
    seen all;
    all.bits = bits, all.words = words;
    sparseconv::parallel(look, &all, items, threads, 4 * words, lease.memory(), interrupt);
    return all.items == items ? other + all.other : -1;
}

extern "C" int64_t poison(uint32_t bits) { return sparseconv::poison_scratch(bits); }
