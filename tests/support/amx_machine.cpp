// Which instruction sets kernels/runtime/dispatch.cpp offers on a machine that answers as the arguments say, and how
// often it asked Linux for the tile registers: "amx_machine [tile=0] [bf16=0] [fp16=1] [osxsave=0] [xcr0=LOW]
// [avx512=0] [error=ERRNO] [works=0] [fp16_works=0] [illegal=1] [other=1] [named=1] [threads=N]". All answers are those
// of a machine that has AMX-BF16, and AMX-FP16 without telling, unless an argument differs. illegal: the product is an
// illegal instruction; other: there is another one; named: AMX-FP16 is asked for by name.
#include <cpuid.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "isa/table.h"

static struct {
    int tile = 1, bf16 = 1, fp16 = 0, osxsave = 1, xcr0 = 0x600e7, avx512 = 1, error = 0, works = 1,
        fp16_works = 1, illegal = 0, other = 0, named = 0, threads = 1;
} machine;
static int requests, products, others;

namespace sparseconv {
namespace avx512 { extern const sc_table table; const sc_table table = {"avx512"}; }
namespace avx2 { extern const sc_table table; const sc_table table = {"avx2"}; }
namespace scalar { extern const sc_table table; const sc_table table = {"scalar"}; }
namespace amx {
static int64_t works() { return ++products, machine.works; }
// TDPFP16PS of registers that are not configured is illegal everywhere.
static int64_t fp16_works() {
    ++products;
    if (machine.other) asm volatile("ud2");
    if (machine.illegal) asm volatile(".byte 0xc4, 0xe2, 0x4b, 0x5c, 0xc4");
    return machine.fp16_works && !machine.illegal;
}
extern const sc_tile_table tiles, fp16_tiles;
const sc_tile_table tiles = {works, {}, {}, 0}, fp16_tiles = {fp16_works, {}, {}, 1};
}
}

static int machine_cpuid(unsigned leaf, unsigned *, unsigned *, unsigned *c, unsigned *) {
    *c = leaf == 1 && machine.osxsave ? bit_OSXSAVE : 0;
    return 1;
}
static int machine_cpuid_count(unsigned leaf, unsigned sub, unsigned *a, unsigned *, unsigned *, unsigned *d) {
    *a = leaf != 7 ? 0 : sub ? (machine.fp16 ? 1u << 21 : 0) : 1;
    *d = leaf == 7 ? (machine.tile ? 1u << 24 : 0) | (machine.bf16 ? 1u << 22 : 0) : 0;
    return 1;
}
static long machine_syscall(long number, long request, long feature) {
    if (number != SYS_arch_prctl || request != 0x1023 || feature != 18) abort();
    __atomic_add_fetch(&requests, 1, __ATOMIC_RELAXED);
    usleep(10000);  // so that threads meet
    if (machine.error) return errno = machine.error, -1;
    return 0;
}

// The questions of the header, and its one instruction: a statement asm volatile("xgetbv" : ...).
#define __get_cpuid machine_cpuid
#define __get_cpuid_count machine_cpuid_count
#define syscall machine_syscall
#define __builtin_cpu_supports(feature) (strncmp(feature, "avx512", 6) || machine.avx512)
#define asm
#define volatile(...) (low = machine.xcr0, high = 0)
#include "runtime/amx_usable.h"
#undef asm
#undef volatile
#include "runtime/dispatch.cpp"

static void *ask(void *) {
    int count;
    const sparseconv::isa *all = sparseconv::isas(&count);
    for (int i = 0; i < count; ++i) machine.named ? all[i].by_name() : all[i].supported();
    return (void *)sparseconv::active()->name;
}

// What a program may have installed before: it gets what is not ours.
static void skip_other(int, siginfo_t *, void *context) {
    ++others;
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2;
}

int main(int count, char **arguments) {
    struct { const char *name; int *value; } known[] = {
        {"tile", &machine.tile}, {"bf16", &machine.bf16}, {"osxsave", &machine.osxsave},
        {"xcr0", &machine.xcr0}, {"avx512", &machine.avx512}, {"error", &machine.error},
        {"fp16", &machine.fp16}, {"fp16_works", &machine.fp16_works}, {"illegal", &machine.illegal},
        {"other", &machine.other}, {"named", &machine.named}, {"works", &machine.works}, {"threads", &machine.threads},
    };
    for (int i = 1; i < count; ++i) {
        char *value = strchr(arguments[i], '=');
        if (!value) return 2;
        *value++ = 0;
        bool found = false;
        for (auto &one : known) {
            if (!strcmp(one.name, arguments[i])) *one.value = (int)strtol(value, nullptr, 0), found = true;
        }
        if (!found) return 2;
    }
    if (requests || products) return 3;  // not before anybody wants to know
    struct sigaction mine, after;
    memset(&mine, 0, sizeof mine);
    mine.sa_sigaction = skip_other, mine.sa_flags = SA_SIGINFO;
    sigaction(SIGILL, &mine, nullptr);
    sigset_t illegal, blocked;
    sigemptyset(&illegal), sigaddset(&illegal, SIGILL), pthread_sigmask(SIG_BLOCK, &illegal, nullptr);
    pthread_t threads[16];
    void *names[16];
    for (int i = 0; i < machine.threads; ++i) pthread_create(threads + i, nullptr, ask, nullptr);
    for (int i = 0; i < machine.threads; ++i) pthread_join(threads[i], names + i);
    for (int i = 0; i < machine.threads; ++i) {
        if (strcmp((char *)names[i], sparseconv::active()->name)) return 4;
    }
    int isas;
    const sparseconv::isa *all = sparseconv::isas(&isas);
    for (int i = 0; i < isas; ++i) {
        if (machine.named ? all[i].by_name() : all[i].supported()) printf("%s ", all[i].table->name);
    }
    sigaction(SIGILL, nullptr, &after), pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
    if (after.sa_sigaction != skip_other || !sigismember(&blocked, SIGILL) || others != machine.other) return 5;
    printf("%d %d\n", requests, products);
}
