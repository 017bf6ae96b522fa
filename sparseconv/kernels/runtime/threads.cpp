#include "runtime/threads.h"

#include <pthread.h>
#include <stdlib.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

#include "runtime/openmp_team.h"

namespace sparseconv {

bool interruption::check() {
    if (std::this_thread::get_id() == caller_ && clock::now() >= next_) {
        const float_state_scope as_called(caller_state_);
        if (signals_ && signals_()) stopped_ = true;
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

// Items that a thread takes one by one, from its own share first. The next free one is a line of its own.
struct share {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
    char apart[48];
};

struct job {
    void (*work)(const void *, int64_t, int64_t, void *);
    const void *context;
    int64_t scratch_bytes;
    void *scratch;  // of the caller
    interruption *interrupt;
    int parts = 0;
    share *shares = nullptr;   // one for each part
    share whole;               // where there is one part only
    std::vector<share> dealt;  // where there are more
    std::atomic<int> busy{0};  // threads beside the caller that may be in the middle of an item

    // One contiguous share of the items for each of `count` parts.
    void deal(int64_t items, int count) {
        if (count > 1) dealt = std::vector<share>(count);
        parts = count, shares = count > 1 ? dealt.data() : &whole;
        const int64_t each = items / count, rest = items % count;
        int64_t begin = 0;
        for (int part = 0; part < count; ++part) {
            shares[part].next.store(begin, std::memory_order_relaxed);
            shares[part].end = begin += each + (part < rest);
        }
    }

    // Takes items until there are none, of the own share and then of the others': whoever is late, or has no memory,
    // or does not come at all, leaves nothing undone. Release and acquire, so that who finds a share empty has seen
    // `busy` of those who emptied it.
    void run(int part, void *memory) {
        const float_state_scope fixed(kernel_float_state);
        for (int visited = 0; visited < parts; ++visited) {
            share &from = shares[(part + visited) % parts];
            while (!interrupt->check()) {
                const int64_t item = from.next.fetch_add(1, std::memory_order_acq_rel);
                if (item >= from.end) break;
                poison(memory, scratch_bytes);
                work(context, item, item + 1, memory);
            }
        }
    }

    void run_in_worker(int part) {
        const scratch_lease lease(scratch_bytes > 0 ? scratch_bytes : 64);
        if (lease.memory()) run(part, lease.memory());
    }

    status finish() { return interrupt->check() ? SC_INTERRUPTED : SC_OK; }

    // In a team that is not ours. The caller must not wait in the runtime, where nobody looks for signals: it stays
    // here until the others are done. Those that come later find nothing to do.
    status run_in(const openmp_runtime &runtime) {
        runtime.run([](void *self, int number) { static_cast<job *>(self)->run_as(number); }, this, parts);
        return finish();
    }

    void run_as(int number) {
        if (number >= parts) return;
        if (number) {
            ++busy;
            run_in_worker(number);
            --busy;
            return;
        }
        run(0, scratch);
        using clock = std::chrono::steady_clock;
        const clock::time_point patient = clock::now() + std::chrono::milliseconds(1);
        while (busy) {
            interrupt->check();
            if (clock::now() > patient) std::this_thread::sleep_for(std::chrono::microseconds(100));
        }
    }
};

class pool {
public:
    status run(job &work) {
        std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
        const int helpers = turn.owns_lock() ? start(work.parts - 1) : 0;
        if (!helpers) {
            work.run(0, work.scratch);
            return work.finish();
        }
        {
            std::lock_guard<std::mutex> lock(mutex_);
            job_ = &work, waiting_ = helpers;
            for (int index = 0; index < helpers; ++index) workers_[index]->wanted = true;
        }
        for (int index = 0; index < helpers; ++index) workers_[index]->wake.notify_one();
        work.run(0, work.scratch);
        std::unique_lock<std::mutex> lock(mutex_);
        for (int index = 0; index < helpers; ++index) {  // nothing is left for those that have not woken yet
            waiting_ -= workers_[index]->wanted;
            workers_[index]->wanted = false;
        }
        while (!done_.wait_for(lock, interruption::interval, [this] { return waiting_ == 0; })) {
            lock.unlock();
            work.interrupt->check();
            lock.lock();
        }
        job_ = nullptr;
        lock.unlock();
        return work.finish();
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
        set_float_state(usual_float_state);  // threads inherit that of their creator
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

std::atomic<bool> borrows{false};  // another runtime's team, where there is one
std::atomic<int> default_threads{1}, chosen_threads{0};

}  // namespace

scratch_lease::scratch_lease(int64_t bytes) : memory_(nullptr), bytes_(0) {
    kept *mine = local();
    if (!mine) return;
    memory_ = mine->memory, bytes_ = mine->bytes;
    mine->memory = nullptr, mine->bytes = 0, ++mine->depth;
    // Poisoned memory is taken anew, so that there is no more of it than this call asks for.
    if (bytes_ < bytes || poison_bits.load(std::memory_order_relaxed)) {
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
    if (items <= 0) return SC_OK;
    job call;
    call.work = work, call.context = context, call.interrupt = &interrupt;
    call.scratch_bytes = scratch_bytes, call.scratch = scratch;
    const int parts = threads < items ? threads : (int)items;
    const kept *mine = local();
    if (parts > 1 && mine && mine->depth == 1) {  // 1: the caller's own lease
        try {
            call.deal(items, parts);
            const openmp_runtime *team = borrows.load(std::memory_order_relaxed) ? openmp() : nullptr;
            return team ? call.run_in(*team) : the_pool().run(call);
        } catch (const std::bad_alloc &) {  // before any item: then alone
        }
    }
    call.deal(items, 1);
    call.run(0, scratch);
    return call.finish();
}

int64_t poison_scratch(uint32_t bits) {
    poison_bits.store(bits, std::memory_order_relaxed);
    return poisoned.exchange(0, std::memory_order_relaxed);
}

void set_default_threads(int count) { default_threads.store(count, std::memory_order_relaxed); }

bool threads_are_chosen() { return chosen_threads.load(std::memory_order_relaxed) != 0; }
void follow_threads() { chosen_threads.store(0, std::memory_order_relaxed); }

void borrow_threads(bool borrow) { borrows.store(borrow, std::memory_order_relaxed); }
bool threads_are_borrowed() { return borrows.load(std::memory_order_relaxed); }

}  // namespace sparseconv

int sparseconv_get_num_threads() {
    using namespace sparseconv;
    if (const int chosen = chosen_threads.load(std::memory_order_relaxed)) return chosen;
    const openmp_runtime *team = borrows.load(std::memory_order_relaxed) ? openmp_counted() : nullptr;
    const int count = team ? team->max_threads() : default_threads.load(std::memory_order_relaxed);
    return count < 1 ? 1 : count > 1024 ? 1024 : count;
}

void sparseconv_set_num_threads(int count) {
    sparseconv::chosen_threads.store(count < 1 ? 1 : count, std::memory_order_relaxed);
}
