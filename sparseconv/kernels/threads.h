// The thread pool: one per process, our own, started by the first call that wants it. No OpenMP (it hangs in forked
// children, cannot be judged by TSan, and is missing or doubled on some systems).
//
// - Items are dealt out as one contiguous range per thread, the caller taking part; which thread does an item never
//   changes its result, since items are independent and their inner order is fixed.
// - A call from inside the pool, or while another thread's call has it, runs alone in its caller: no queue, no deadlock.
// - Before a fork the workers are joined; parent and child start new ones when they need them.
// - Each thread keeps its scratch memory (grow-only, freed when the thread ends), so calls do not page-fault it anew.
#pragma once
#include <stdint.h>

#include <atomic>
#include <chrono>
#include <thread>

namespace sparseconv {

enum status { OK = 0, NO_MEMORY = 1, INTERRUPTED = 2 };

// One call's way to be interrupted: the calling thread looks for signals every 50 ms, the others for its verdict.
class interruption {
public:
    explicit interruption(int (*signals)()) : signals_(signals), caller_(std::this_thread::get_id()), next_(now() + interval) {}
    bool check();
    static int poll(void *self) { return static_cast<interruption *>(self)->check(); }
    static constexpr std::chrono::milliseconds interval{50};

private:
    using clock = std::chrono::steady_clock;
    static clock::time_point now() { return clock::now(); }
    int (*signals_)();
    std::thread::id caller_;
    clock::time_point next_;
    std::atomic<bool> stopped_{false};
};

// At least `bytes` bytes of this thread's scratch memory, 64-byte aligned, or null.
void *scratch_memory(int64_t bytes);

// Calls work(context, begin, end, scratch) for parts of [0, items) on up to `threads` threads, each with its own
// scratch memory, in which the first `reserved` bytes of the caller's are left alone.
status parallel(void (*work)(const void *context, int64_t begin, int64_t end, void *scratch), const void *context,
                int64_t items, int threads, int64_t scratch_bytes, int64_t reserved, interruption &interrupt);

}  // namespace sparseconv

// The default number of threads, process-wide. Exported: threadpoolctl finds and sets it by these names.
extern "C" {
__attribute__((visibility("default"))) int sparseconv_get_num_threads();
__attribute__((visibility("default"))) void sparseconv_set_num_threads(int count);
}
