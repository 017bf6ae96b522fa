#include "threads.h"

#include <pthread.h>
#include <stdlib.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

namespace sparseconv {

bool interruption::check() {
    if (std::this_thread::get_id() == caller_ && clock::now() >= next_) {
        const float_state_scope as_called(caller_state_);
        if (signals_()) stopped_ = true;
        next_ = clock::now() + interval;
    }
    return stopped_.load(std::memory_order_relaxed);
}

namespace {

std::atomic<uint32_t> poison_bits{0};
std::atomic<int64_t> poisoned{0};

// Scratch memory for a call, or an item of it, which must not care what an earlier one has left there.
void poison(void *memory, int64_t bytes) {
    const uint32_t bits = poison_bits.load(std::memory_order_relaxed);
    if (!bits) return;
    for (int64_t i = 0; i < bytes / 4; ++i) static_cast<uint32_t *>(memory)[i] = bits;
    poisoned.fetch_add(1, std::memory_order_relaxed);
}

// What a thread keeps. Behind a pthread key: a thread_local of a loaded module is allocated at its first use, and
// where that fails glibc ends the process.
struct kept {
    void *memory;
    int64_t bytes;
    int depth;  // calls that this thread is in the middle of
};

// This thread's, or null where there is no memory for it.
kept *local() {
    static pthread_key_t key;
    static const int failed = pthread_key_create(&key, [](void *mine) {
        free(static_cast<kept *>(mine)->memory);
        free(mine);
    });
    if (failed) return nullptr;
    kept *mine = static_cast<kept *>(pthread_getspecific(key));
    if (mine) return mine;
    mine = static_cast<kept *>(calloc(1, sizeof(kept)));
    if (mine && pthread_setspecific(key, mine)) free(mine), mine = nullptr;
    return mine;
}

struct job {
    void (*work)(const void *, int64_t, int64_t, void *);
    const void *context;
    int64_t items, scratch_bytes;
    int parts;
    interruption *interrupt;
    std::atomic<bool> left_over{false};  // some worker had no memory: the caller does its part
    std::vector<char> undone;

    void run(int part, void *scratch) {
        const int64_t each = items / parts, rest = items % parts;
        const int64_t begin = part * each + (part < rest ? part : rest), end = begin + each + (part < rest);
        const float_state_scope flushed(float_state() | flush_denormals);
        for (int64_t item = begin; item < end && !interrupt->check(); ++item) {
            poison(scratch, scratch_bytes);
            work(context, item, item + 1, scratch);
        }
    }

    void run_in_worker(int part) {
        const scratch_lease lease(scratch_bytes > 0 ? scratch_bytes : 64);
        if (lease.memory()) run(part, lease.memory());
        else undone[part] = 1, left_over = true;
    }

    status finish(void *scratch) {
        for (int part = 1; left_over && part < parts; ++part) {
            if (undone[part]) run(part, scratch);
        }
        return interrupt->check() ? INTERRUPTED : OK;
    }
};

class pool {
public:
    status run(job &work, void *scratch) {
        std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
        if (!turn.owns_lock()) {
            work.parts = 1;
            work.run(0, scratch);
            return work.finish(scratch);
        }
        work.parts = 1 + start(work.parts - 1);
        {
            std::lock_guard<std::mutex> lock(mutex_);
            job_ = &work, waiting_ = work.parts - 1;
            for (int part = 1; part < work.parts; ++part) workers_[part - 1]->wanted = true;
        }
        for (int part = 1; part < work.parts; ++part) workers_[part - 1]->wake.notify_one();
        work.run(0, scratch);
        std::unique_lock<std::mutex> lock(mutex_);
        while (!done_.wait_for(lock, interruption::interval, [this] { return waiting_ == 0; })) {
            lock.unlock();
            work.interrupt->check();
            lock.lock();
        }
        job_ = nullptr;
        lock.unlock();
        return work.finish(scratch);
    }

    // Before a fork. A running call is not waited for: it may itself wait for the forking thread (Python's GIL).
    void prepare_fork() {
        const kept *mine = local();
        quiet_ = mine && mine->depth == 0 && turn_.try_lock();
        if (quiet_) stop();
    }
    // After it, in parent and child; false: the pool's state is unknown in the child.
    bool after_fork() {
        if (quiet_) turn_.unlock();
        return quiet_;
    }

private:
    struct worker {
        pool *home;
        int part;
        pthread_t thread;
        std::condition_variable wake;  // its own: those that are not wanted sleep on
        bool wanted = false;
    };

    // Makes sure of `wanted` workers; fewer where the system refuses more threads. Returns how many there are to use.
    // pthread rather than std::thread for the size of the stack: kernels need a few KB, not the default 8 MB.
    int start(int wanted) {
        workers_.reserve(wanted);
        pthread_attr_t attributes;
        if (pthread_attr_init(&attributes)) return smaller(wanted);
        pthread_attr_setstacksize(&attributes, 256 * 1024);
        while ((int)workers_.size() < wanted) {
            std::unique_ptr<worker> one(new (std::nothrow) worker);
            if (!one) break;
            one->home = this, one->part = (int)workers_.size() + 1;
            if (pthread_create(&one->thread, &attributes, serve, one.get())) break;
            workers_.push_back(std::move(one));
        }
        pthread_attr_destroy(&attributes);
        return smaller(wanted);
    }

    int smaller(int wanted) const { return wanted < (int)workers_.size() ? wanted : (int)workers_.size(); }

    void stop() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            quit_ = true;
        }
        for (auto &one : workers_) one->wake.notify_one();
        for (auto &one : workers_) pthread_join(one->thread, nullptr);
        workers_.clear();
        quit_ = false;
    }

    static void *serve(void *argument) {
        worker *self = static_cast<worker *>(argument);
        self->home->serve(*self);
        return nullptr;
    }

    void serve(worker &self) {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            self.wake.wait(lock, [&] { return quit_ || self.wanted; });
            if (quit_) return;
            self.wanted = false;
            job *work = job_;
            lock.unlock();
            work->run_in_worker(self.part);
            lock.lock();
            if (--waiting_ == 0) done_.notify_one();
        }
    }

    std::mutex turn_;   // held for the length of a call
    std::mutex mutex_;  // guards what follows
    std::condition_variable done_;
    std::vector<std::unique_ptr<worker>> workers_;
    job *job_ = nullptr;
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

std::atomic<int> default_threads{1};

}  // namespace

scratch_lease::scratch_lease(int64_t bytes) : memory_(nullptr), bytes_(0) {
    kept *mine = local();
    if (!mine) return;
    memory_ = mine->memory, bytes_ = mine->bytes;
    mine->memory = nullptr, mine->bytes = 0, ++mine->depth;
    if (bytes_ < bytes) {
        free(memory_);
        bytes_ = bytes > 0 ? (bytes + 4095) / 4096 * 4096 : 0;
        memory_ = bytes_ ? aligned_alloc(4096, (size_t)bytes_) : nullptr;
    }
    if (memory_) poison(memory_, bytes + 4096 < bytes_ ? bytes + 4096 : bytes_);  // and what lies behind it
}

scratch_lease::~scratch_lease() {
    kept *mine = local();
    if (!mine) return;
    --mine->depth;
    if (memory_ && mine->bytes < bytes_) {
        free(mine->memory);
        mine->memory = memory_, mine->bytes = bytes_;
    } else {
        free(memory_);
    }
}

status parallel(void (*work)(const void *, int64_t, int64_t, void *), const void *context, int64_t items, int threads,
                int64_t scratch_bytes, void *scratch, interruption &interrupt) {
    if (items <= 0) return OK;
    job call;
    call.work = work, call.context = context, call.items = items, call.interrupt = &interrupt;
    call.scratch_bytes = scratch_bytes;
    call.parts = threads < items ? threads : (int)items;
    const kept *mine = local();
    if (call.parts > 1 && mine && mine->depth == 1) {  // 1: the caller's own lease
        try {
            call.undone.resize(call.parts);
            return the_pool().run(call, scratch);
        } catch (const std::bad_alloc &) {  // then alone
        }
    }
    call.parts = 1;
    call.run(0, scratch);
    return call.finish(scratch);
}

int64_t poison_scratch(uint32_t bits) {
    poison_bits.store(bits, std::memory_order_relaxed);
    return poisoned.exchange(0, std::memory_order_relaxed);
}

}  // namespace sparseconv

int sparseconv_get_num_threads() { return sparseconv::default_threads.load(std::memory_order_relaxed); }
void sparseconv_set_num_threads(int count) {
    sparseconv::default_threads.store(count < 1 ? 1 : count, std::memory_order_relaxed);
}
