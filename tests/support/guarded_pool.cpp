// runtime/threads.h for tests: every item has scratch memory of which it knows nothing, in guarded memory. It shows
// that kernels need no more than they ask for, and nothing that an earlier item left behind.
#include <vector>

#include "guarded_memory.h"
#include "runtime/threads.h"

namespace sparseconv {

bool interruption::check() {
    if (std::this_thread::get_id() == caller_ && signals_ && signals_()) stopped_ = true;
    return stopped_;
}

static std::unique_ptr<block> leased;

scratch_lease::scratch_lease(int64_t bytes) : bytes_(bytes) {
    leased.reset(new block(bytes));
    memory_ = leased->data();
}
scratch_lease::~scratch_lease() { leased.reset(); }

// What no call of these tests says otherwise: something was written outside of the memory that was for it.
static constexpr status OVERRUN = SC_BAD_OPERANDS;

// What the caller leased in front of `mine` is for all items together, packed weights; the rest of it is not used here.
status parallel(void (*work)(const void *, int64_t, int64_t, void *), const void *context, int64_t items, int threads,
                int64_t scratch_bytes, void *mine, interruption &interrupt) {
    std::atomic<int64_t> next{0};
    std::atomic<bool> good{true};
    const auto serve = [&] {
        block scratch(scratch_bytes);
        const float_state_scope fixed(kernel_float_state);
        for (int64_t item; !interrupt.check() && (item = next++) < items;) {
            scratch.refill();
            work(context, item, item + 1, scratch.data());
        }
        if (!scratch.intact()) good = false;
    };
    std::vector<std::thread> workers;
    for (int thread = 1; thread < threads; ++thread) workers.emplace_back(serve);
    serve();
    for (std::thread &worker : workers) worker.join();
    good = good && leased->intact() && leased->untouched((const char *)mine);
    return !good ? OVERRUN : interrupt.check() ? SC_INTERRUPTED : SC_OK;
}

}  // namespace sparseconv

int sparseconv_get_num_threads() { return 1; }
