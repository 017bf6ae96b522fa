// An OpenMP runtime of a few lines, for tests: what sparseconv calls of libgomp, or with FAKE_KMPC of libomp. It gives
// as many threads as it is told to, counts what it did, and does not survive a call in a forked child.
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "runtime/float_state.h"

static thread_local int number = 0, wanted = 0;
static const pid_t home = getpid();

extern "C" {
int fake_max = 2, fake_limit = 1024, fake_late = 0;  // late: milliseconds until the other threads come
std::atomic<int> fake_regions{0}, fake_asked{0}, fake_team{0}, fake_changed{0};
int fake_count(int which) {
    std::atomic<int> *all[] = {&fake_regions, &fake_asked, &fake_team, &fake_changed};
    return *all[which];
}
void fake_set(int max, int limit, int late) { fake_max = max, fake_limit = limit, fake_late = late; }

int omp_get_thread_num() { return number; }
int omp_get_max_threads() { return fake_max; }
}

template <class Body>
static void region(Body body, int asked) {
    if (getpid() != home) _exit(99);  // libgomp would wait for ever
    ++fake_regions, fake_asked = asked;
    int size = asked ? asked : fake_max;
    if (size > fake_limit) size = fake_limit;
    if (number) size = 1;  // inside of a region
    fake_team = size;
    const auto member = [&](int own) {
        const uint64_t before = sparseconv::float_state();
        const int outer = number;
        number = own;
        body();
        number = outer;
        if (sparseconv::float_state() != before) ++fake_changed;
    };
    std::vector<std::thread> others;
    for (int own = 1; own < size; ++own) {
        others.emplace_back([&member, own] {
            if (fake_late) usleep(fake_late * 1000);
            member(own);
        });
    }
    member(0);
    for (std::thread &other : others) other.join();
}

extern "C" {
#ifndef FAKE_KMPC
void GOMP_parallel(void (*body)(void *), void *data, unsigned threads, unsigned) {
    region([=] { body(data); }, (int)threads);
}
#else
int __kmpc_global_thread_num(void *) { return 0; }
void __kmpc_push_num_threads(void *, int, int count) { wanted = count; }
void __kmpc_fork_call(void *where, int count, void (*body)(int *, int *, ...), void *data) {
    if (!where || count != 1) abort();
    const int threads = wanted;
    wanted = 0;
    region(
        [=] {
            int global = number, bound = 0;
            reinterpret_cast<void (*)(int *, int *, void *)>(body)(&global, &bound, data);
        },
        threads);
}
#endif
}
