/* To be preloaded: threads cannot be started, but for the first THREADS_LEFT ones. RLIMIT_NPROC does not bind root. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

static atomic_int refused, left = -1;

int threads_refused(void) { return refused; }
void threads_left(int count) { left = count; }

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument) {
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
    if (left == 0) return ++refused, EAGAIN;
    if (left > 0) --left;
    return real(thread, attributes, start, argument);
}
