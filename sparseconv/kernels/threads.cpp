#include "threads.h"

#include <pthread.h>
#include <stdlib.h>

#include <condition_variable>
#include <mutex>
#include <system_error>
#include <vector>

#include "float_state.h"

namespace sparseconv {

bool interruption::check() {
    if (std::this_thread::get_id() == caller_ && now() >= next_) {
        if (signals_()) stopped_ = true;
        next_ = now() + interval;
    }
    return stopped_.load(std::memory_order_relaxed);
}

namespace {

struct arena {
    void *memory = nullptr;
    int64_t bytes = 0;
    ~arena() { free(memory); }
};
thread_local arena local;
thread_local bool inside = false;  // this thread is working for the pool right now

struct job {
    void (*work)(const void *, int64_t, int64_t, void *);
    const void *context;
    int64_t items, scratch_bytes, reserved;
    int parts;
    interruption *interrupt;
    std::atomic<int> result{OK};

    void run(int part) {
        const int64_t each = items / parts, rest = items % parts;
        const int64_t begin = part * each + (part < rest ? part : rest), end = begin + each + (part < rest);
        if (begin == end) return;
        const int64_t skipped = part == 0 ? reserved : 0;
        char *scratch = static_cast<char *>(scratch_memory(skipped + scratch_bytes));
        if (!scratch) {
            result = NO_MEMORY;
            return;
        }
        const flush_denormals flush;
        inside = true;
        for (int64_t item = begin; item < end && !interrupt->check(); ++item) work(context, item, item + 1, scratch + skipped);
        inside = false;
    }
};

class pool {
public:
    status run(job &work) {
        std::unique_lock<std::timed_mutex> turn(turn_, std::try_to_lock);
        if (!turn.owns_lock()) {
            work.parts = 1;
            work.run(0);
            return finish(work);
        }
        work.parts = 1 + start(work.parts - 1);
        {
            std::lock_guard<std::mutex> lock(mutex_);
            job_ = &work, ++generation_, waiting_ = work.parts - 1;
        }
        if (work.parts > 1) wake_.notify_all();
        work.run(0);
        std::unique_lock<std::mutex> lock(mutex_);
        while (!done_.wait_for(lock, interruption::interval, [this] { return waiting_ == 0; })) {
            lock.unlock();
            work.interrupt->check();
            lock.lock();
        }
        job_ = nullptr;
        return finish(work);
    }

    // Before a fork: wait for a running call (not for ever: it may need the forking thread), then join the workers.
    void prepare_fork() {
        quiet_ = turn_.try_lock_for(std::chrono::seconds(10));
        if (quiet_) stop();
    }
    bool after_fork() {
        if (quiet_) turn_.unlock();
        return quiet_;
    }

private:
    static status finish(job &work) {
        if (work.result != OK) return NO_MEMORY;
        return work.interrupt->check() ? INTERRUPTED : OK;
    }

    // Makes sure of `wanted` workers; fewer where the system refuses more threads. Returns how many there are to use.
    int start(int wanted) {
        try {
            while ((int)workers_.size() < wanted) {
                const int part = (int)workers_.size() + 1;
                workers_.emplace_back([this, part, seen = generation_] { serve(part, seen); });
            }
        } catch (const std::system_error &) {
        }
        return wanted < (int)workers_.size() ? wanted : (int)workers_.size();
    }

    void stop() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            quit_ = true;
        }
        wake_.notify_all();
        for (std::thread &worker : workers_) worker.join();
        workers_.clear();
        quit_ = false;
    }

    void serve(int part, uint64_t seen) {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            wake_.wait(lock, [&] { return quit_ || generation_ != seen; });
            if (quit_) return;
            seen = generation_;
            job *work = job_;
            if (!work || part >= work->parts) continue;
            lock.unlock();
            work->run(part);
            lock.lock();
            if (--waiting_ == 0) done_.notify_one();
        }
    }

    std::timed_mutex turn_;  // held for the length of a call
    std::mutex mutex_;       // guards what follows
    std::condition_variable wake_, done_;
    std::vector<std::thread> workers_;
    job *job_ = nullptr;
    uint64_t generation_ = 0;
    int waiting_ = 0;
    bool quit_ = false, quiet_ = false;
};

// Never destroyed: workers may wait in it until the process ends.
pool *instance = nullptr;

pool &the_pool() {
    static const bool made = [] {
        instance = new pool;
        pthread_atfork([] { instance->prepare_fork(); }, [] { instance->after_fork(); },
                       [] { if (!instance->after_fork()) instance = new pool; });
        return true;
    }();
    (void)made;
    return *instance;
}

}  // namespace

void *scratch_memory(int64_t bytes) {
    if (local.bytes < bytes) {
        free(local.memory);
        local.bytes = (bytes + 4095) / 4096 * 4096;
        local.memory = aligned_alloc(4096, (size_t)local.bytes);
        if (!local.memory) local.bytes = 0;
    }
    return local.memory;
}

status parallel(void (*work)(const void *, int64_t, int64_t, void *), const void *context, int64_t items, int threads,
                int64_t scratch_bytes, int64_t reserved, interruption &interrupt) {
    if (items <= 0) return OK;
    job call;
    call.work = work, call.context = context, call.items = items;
    call.scratch_bytes = scratch_bytes > 0 ? scratch_bytes : 64, call.reserved = reserved;
    call.parts = threads < items ? threads : (int)items;
    call.interrupt = &interrupt;
    if (call.parts > 1 && !inside) return the_pool().run(call);
    call.parts = 1;
    call.run(0);
    return call.result != OK ? NO_MEMORY : interrupt.check() ? INTERRUPTED : OK;
}

}  // namespace sparseconv

static std::atomic<int> default_threads{1};

int sparseconv_get_num_threads() { return default_threads.load(std::memory_order_relaxed); }
void sparseconv_set_num_threads(int count) { default_threads.store(count < 1 ? 1 : count, std::memory_order_relaxed); }
