// The team of an OpenMP runtime that another library has loaded, PyTorch's for one. Its threads wait for work by
// spinning, on the very cores that a pool of our own would need: a region of ours on two threads that alternates with
// an operator of PyTorch takes 1.5 times the sum of both alone, and 1.03 to 1.06 times on PyTorch's own team.
//
// Nothing is linked. The runtime is looked for among the libraries of the process, and is called by the entries that
// compilers call: GOMP_parallel (libgomp; libomp and libiomp5 have it, too, but not on macOS), else __kmpc_fork_call.
// Of several runtimes it is PyTorch's: what the loader would give libtorch_cpu, so a runtime that was loaded in front
// of everything (LD_PRELOAD) counts. Without PyTorch it is the first one.
//
// A forked child has no team: libgomp waits there for ever for threads that its parent had.
#pragma once

namespace sparseconv {

struct openmp_runtime {
    // Calls region(context, number) on the calling thread, which is number 0, and on as many others as the runtime
    // gives, `threads - 1` or fewer: inside of another parallel region often none. Returns when all have ended.
    void run(void (*region)(void *context, int number), void *context, int threads) const;
    int max_threads() const { return max_threads_(); }  // of the calling thread: what torch.set_num_threads sets
    const char *path() const { return path_; }

    // GOMP_parallel, or the three of libomp.
    void (*gomp_parallel_)(void (*)(void *), void *, unsigned, unsigned);
    void (*fork_call_)(void *, int, void (*)(int *, int *, ...), ...);
    int (*global_thread_num_)(void *);
    void (*push_num_threads_)(void *, int, int);
    int (*thread_num_)();
    int (*max_threads_)();
    const char *path_;
    bool final_;  // nothing that is loaded later can be a better one
};

// The runtime whose team may be used now, or null. Found once; until then it is looked for whenever libraries have
// been loaded since the last time.
const openmp_runtime *openmp();
// The one that says how many threads to use: in a forked child still that of its parent.
const openmp_runtime *openmp_counted();
// Whether there is none because this process is the forked child of one that had it.
bool openmp_forked();

}  // namespace sparseconv
