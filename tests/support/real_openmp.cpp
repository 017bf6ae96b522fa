// Compiled with -fopenmp: brings the compiler's own OpenMP runtime into a process, and calls back from its regions.
#include <omp.h>

extern "C" {
void in_region(void (*call)(int), int threads) {
#pragma omp parallel num_threads(threads)
    call(omp_get_thread_num());
}
int max_threads() { return omp_get_max_threads(); }
void set_max_threads(int count) { omp_set_num_threads(count); }
void set_levels(int levels) { omp_set_max_active_levels(levels); }
}
