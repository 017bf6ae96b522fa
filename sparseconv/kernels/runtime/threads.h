// Who computes: a pool of threads, one per process, our own, started by the first call that wants it; or, where that is
// asked for, the team of an OpenMP runtime that another library brought (runtime/openmp_team.h). We bring none
// ourselves: it hangs in forked children, cannot be judged by TSan, and is missing or doubled on some systems.
//
// - Items are dealt out as one contiguous share per thread, the caller taking part. Who is done goes on with what the
//   others have not begun, so a team may be smaller or slower than expected. Which thread does an item never changes
//   its result, since items are independent and their inner order is fixed.
// - A call from inside the pool (a signal handler may make one in the middle of another call), or while another
//   thread's call has it, runs alone in its caller: no queue, no deadlock.
// - Before a fork the workers are joined, so that no thread is lost; if a call is running at that moment the child
//   gets a new pool instead. Parent and child start workers when they need them.
// - Each thread keeps its scratch memory (grow-only, freed when the thread ends), so calls do not page-fault it anew.
#pragma once
#include <stdint.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "../include/sparseconv.h"
#include "runtime/float_state.h"

namespace sparseconv {

using status = sc_status;

// One call's way to be interrupted: the calling thread looks for signals every 50 ms, the others for its verdict.
class interruption {
public:
    explicit interruption(int (*signals)())
        : signals_(signals),
          caller_(std::this_thread::get_id()),
          caller_state_(float_state()),
          next_(clock::now() + interval) {}
    bool check();
    static int poll(void *self) { return static_cast<interruption *>(self)->check(); }
    static constexpr std::chrono::milliseconds interval{50};

private:
    using clock = std::chrono::steady_clock;
    int (*signals_)();
    std::thread::id caller_;
    uint64_t caller_state_;  // signal handlers must not see flushed denormals
    clock::time_point next_;
    std::atomic<bool> stopped_{false};
};

// This thread's scratch memory for the length of a call; a call inside that call gets memory of its own.
class scratch_lease {
public:
    explicit scratch_lease(int64_t bytes);
    ~scratch_lease();
    scratch_lease(const scratch_lease &) = delete;
    scratch_lease &operator=(const scratch_lease &) = delete;
    char *memory() const { return static_cast<char *>(memory_); }  // 64-byte aligned, or null

private:
    void *memory_;
    int64_t bytes_;
};

// For tests: from now on scratch memory is filled with these 32 bits before each call and each item of it (0: no more).
// Returns how often that has been done since this was last asked.
int64_t poison_scratch(uint32_t bits);

// Calls work(context, begin, end, scratch) for items of [0, items) on up to `threads` threads. The caller brings its
// scratch memory, `scratch_bytes` at least; the others have their own.
status parallel(void (*work)(const void *context, int64_t begin, int64_t end, void *scratch), const void *context,
                int64_t items, int threads, int64_t scratch_bytes, void *scratch, interruption &interrupt);

// The default number of threads is, in this order: what was set, what the runtime says whose team is borrowed, and
// this one, process-wide.
void set_default_threads(int count);
bool threads_are_chosen();
void follow_threads();  // forgets what was set

// Whether calls that begin from now on borrow the team of an OpenMP runtime, if one is there.
void borrow_threads(bool borrow);
bool threads_are_borrowed();

}  // namespace sparseconv

// The default number of threads, process-wide. Exported: threadpoolctl finds and sets it by these names.
extern "C" {
__attribute__((visibility("default"))) int sparseconv_get_num_threads();
__attribute__((visibility("default"))) void sparseconv_set_num_threads(int count);
}
