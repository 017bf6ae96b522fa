#include "runtime/dispatch.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <atomic>

#include "runtime/amx_usable.h"

namespace sparseconv {

#if !defined(SC_WITHOUT_AMX)  // setup.py: the compiler cannot make it
namespace amx { extern const sc_tile_table tiles, fp16_tiles; }
#endif
namespace avx512 { extern const sc_table table; }
namespace avx2 { extern const sc_table table; }
namespace neon { extern const sc_table table; }
namespace scalar { extern const sc_table table; }

namespace {

// __builtin_cpu_supports also asks the OS (XGETBV). The features are those of the psABI levels that the files are
// compiled for, as far as compilers can name them.
#if defined(__x86_64__)
bool has_v3() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
           __builtin_cpu_supports("bmi2");
}
bool has_v4() {
    return has_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}
#endif

bool always() { return true; }

#if defined(__x86_64__) && !defined(SC_WITHOUT_AMX)
constexpr sc_table named(const char *name) {
    sc_table table = {};
    table.name = name;
    return table;
}

// The kernels of avx512, and dense ones on tile registers. Who asks for them fills them: nothing runs when the library
// is loaded.
sc_table amx_table = named("amx"), amx_fp16_table = named("amx_fp16");

void fill(sc_table &to, const sc_tile_table &tiles) {
    const char *name = to.name;
    to = avx512::table;
    to.name = name, to.tiles = &tiles;
}

// Asked once, and not before somebody wants to know: the permission is for the whole process, for good. The product
// is tried because hypervisors are known to offer what they do not have.
bool has_amx() {
    static const bool usable = [] {
        if (!has_v4() || !amx_permitted() || !amx::tiles.works()) return false;
        fill(amx_table, amx::tiles);
        return true;
    }();
    return usable;
}

// The product of AMX-FP16 is tried, whatever the CPU tells of it.
bool tries_amx_fp16() {
    static const bool usable = [] {
        if (!has_amx()) return false;
        const fp16_guard guard;
        if (!amx::fp16_tiles.works()) return false;
        fill(amx_fp16_table, amx::fp16_tiles);
        return true;
    }();
    return usable;
}

bool has_amx_fp16() {
    static const bool usable = amx_fp16_told() && tries_amx_fp16();
    return usable;
}
#endif

// What tests give for the tile registers of a CPU that has none.
sc_table simulated = {};
bool is_simulated() { return simulated.tiles != nullptr; }

const isa all[] = {
    {&simulated, is_simulated, is_simulated},
#if defined(__x86_64__)
#if !defined(SC_WITHOUT_AMX)
    {&amx_fp16_table, has_amx_fp16, tries_amx_fp16},
    {&amx_table, has_amx, has_amx},
#endif
    {&avx512::table, has_v4, has_v4},
    {&avx2::table, has_v3, has_v3},
#elif defined(__aarch64__)
    {&neon::table, always, always},
#endif
    {&scalar::table, always, always},
};
constexpr int total = sizeof all / sizeof *all;

const sc_table *best() {
    for (const isa &candidate : all) {
        if (candidate.supported()) return candidate.table;
    }
    return &scalar::table;
}

std::atomic<const sc_table *> current{nullptr};

}  // namespace

const isa *isas(int *count) {
    *count = is_simulated() ? total : total - 1;
    return all + total - *count;
}

const sc_table *active() {
    const sc_table *table = current.load(std::memory_order_acquire);
    return table ? table : best();
}

void set_active(const sc_table *table) { current.store(table, std::memory_order_release); }

int family() {
#if defined(__x86_64__)
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    const int base = a >> 8 & 15;
    return base == 15 ? base + (a >> 20 & 255) : base;
#else
    return 0;
#endif
}

int64_t l1_bytes() {
#if defined(__x86_64__)
    // "Deterministic cache parameters", which AMD has under a number of its own; each cache is a subleaf.
    const unsigned leaf = __builtin_cpu_is("amd") ? 0x8000001d : 4;
    unsigned a, b, c, d;
    for (unsigned i = 0; i < 16 && __get_cpuid_count(leaf, i, &a, &b, &c, &d) && (a & 31) != 0; ++i) {
        const bool data = (a & 31) == 1, first = (a >> 5 & 7) == 1;
        if (!data || !first) continue;
        const int64_t ways = (b >> 22) + 1, partitions = (b >> 12 & 1023) + 1, line = (b & 4095) + 1;
        return ways * partitions * line * ((int64_t)c + 1);
    }
#endif
    return 0;
}

bool simulate_tiles(const sc_tile_table *tiles) {
    if (active()->tiles || best()->tiles) return false;
    simulated = *best();
    simulated.name = tiles->fp16 ? "amx_fp16" : "amx", simulated.tiles = tiles;
    return true;
}

const char *vendor() {
#if defined(__x86_64__)
    return __builtin_cpu_is("intel") ? "intel" : __builtin_cpu_is("amd") ? "amd" : "other";
#else
    return "other";
#endif
}

}  // namespace sparseconv
