// Replays the kernel calls that call_recorder.py writes down, and compares every bit. Besides, compares the small
// functions of the table with those of scalar. Flags say what there is:
//   -DSC_TESTED=neon        the table that is tested
//   -DSC_ISAS=neon,scalar   all that are linked, best first
//   -DSC_WITHOUT_AVX512     a table that dispatch.cpp names, and that is left empty here
#include <stdio.h>
#include <string.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "runtime/dispatch.h"
#include "runtime/float_state.h"
#include "guarded_memory.h"
#include "runtime/run.h"

namespace sparseconv {

#define SC_LIST(...) SC_LIST_(__VA_ARGS__)
#define SC_LIST_(...) #__VA_ARGS__

namespace SC_TESTED { extern const sc_table table; }
namespace scalar { extern const sc_table table; }
namespace tested = SC_TESTED;
#ifdef SC_WITHOUT_AVX512
namespace avx512 { extern const sc_table table = {}; }
#endif
#ifdef SC_WITHOUT_AVX2
namespace avx2 { extern const sc_table table = {}; }
#endif

static std::atomic<int> failures{0};

static void expect(bool good, const char *name, const char *table, const char *what) {
    if (good) return;
    printf("%s on %s: %s\n", name, table, what);
    ++failures;
}

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// --- recorded calls ---

static int64_t kernel_of(const sc_rows_task &task) { return task.kernel; }
static int64_t kernel_of(const sc_gradient_task &task) { return task.kernel; }
static int64_t kernel_of(const sc_groups_task &) { return SC_GROUPS_DENSE; }
static int64_t kernel_of(const sc_groups_gradient_task &) { return SC_GRADIENT_GROUPS; }
static int64_t kernel_of(const sc_weights_task &) { return SC_WEIGHTS_SKIP; }

// Convolutions are told the table, as lists are; other entries of the interface take the one in use.
template <class Task, Task sc_call_task::*TASK>
static int run(const sc_table &table, void *task, int threads) {
    sc_call call = {};
    call.table = &table, call.task.*TASK = *(Task *)task;
    call.kernel = kernel_of(*(Task *)task);
    return sparseconv_api()->convolutions->run(&call, threads, nullptr);
}
template <class Task, int (*sc_convolutions::*CALL)(const sc_table *, Task *, int, sc_signals)>
static int run(const sc_table &table, void *task, int threads) {
    return (sparseconv_api()->convolutions->*CALL)(&table, (Task *)task, threads, nullptr);
}
template <class Task, int (*sc_api::*CALL)(Task *, int, sc_signals)>
static int run(const sc_table &table, void *task, int threads) {
    set_active(&table);
    return (sparseconv_api()->*CALL)((Task *)task, threads, nullptr);
}

// The record has k in a field that the call fills, and in another where the magnitude goes.
static int run_topk(const sc_table &table, void *record, int threads) {
    sc_topk_task task = *(sc_topk_task *)record;
    float *const magnitude = task.kept;
    sc_topk_result found;
    set_active(&table);
    const int done = sparseconv_api()->topk(&task, task.tie_count, &found, threads, nullptr);
    *magnitude = found.magnitude;
    return done;
}

static const struct {
    const char *kind;
    int (*run)(const sc_table &, void *task, int threads);
} runs[] = {
    {"Rows", run<sc_rows_task, &sc_call_task::rows>},
    {"Gradient", run<sc_gradient_task, &sc_call_task::gradient>},
    {"Groups", run<sc_groups_task, &sc_call_task::groups>},
    {"GroupsGradient", run<sc_groups_gradient_task, &sc_call_task::groups_gradient>},
    {"Weights", run<sc_weights_task, &sc_call_task::weights>},
    {"count_lists", run<sc_lists_task, &sc_convolutions::count_lists>},
    {"fill_lists", run<sc_lists_task, &sc_convolutions::fill_lists>},
    {"bias_gradient", run<sc_bias_task, &sc_api::bias_gradient>},
    {"nm_mask", run<sc_nm_task, &sc_api::nm_mask>},
    {"transposable_mask", run<sc_transposable_task, &sc_api::transposable_mask>},
    {"topk", run_topk},
    {"above_mask", run<sc_topk_task, &sc_api::above_mask>},
    {"stochastic_prune", run<sc_stochastic_task, &sc_api::stochastic_prune>},
};

static int replay(const char *kind, const sc_table &table, void *task, int threads) {
    for (const auto &one : runs) {
        if (!strcmp(one.kind, kind)) return one.run(table, task, threads);
    }
    return -1;
}

struct pointer { int64_t slot, target; };
struct result { int64_t before, after, bytes; };

// Replays the call that these words describe, in offsets into the image of memory; returns where the next one begins.
static const int64_t *replay(const int64_t *word, char *image, const sc_table &table, int threads) {
    const char *name = image + word[0], *kind = image + word[1];
    char *task = image + word[2];
    const int64_t pointers = word[3], results = word[4];
    const pointer *pointer_of = (const pointer *)(word + 5);
    const result *result_of = (const result *)(pointer_of + pointers);
    std::vector<block> memory;
    for (int64_t i = 0; i < results; ++i) {
        memory.emplace_back(result_of[i].bytes);
        memcpy(memory[i].data(), image + result_of[i].before, (size_t)result_of[i].bytes);
    }
    for (int64_t p = 0; p < pointers; ++p) {
        char *address = image + pointer_of[p].target;
        for (int64_t i = 0; i < results; ++i) {
            const int64_t inside = pointer_of[p].target - result_of[i].before;
            if (inside >= 0 && inside < result_of[i].bytes) address = memory[i].data() + inside;
        }
        memcpy(image + pointer_of[p].slot, &address, sizeof address);
    }
    expect(replay(kind, table, task, threads) == 0, name, table.name, "not done, or memory around the scratch written");
    for (int64_t i = 0; i < results; ++i) {
        expect(memory[i].intact(), name, table.name, "memory around the result was written");
        expect(!memcmp(memory[i].data(), image + result_of[i].after, (size_t)result_of[i].bytes), name, table.name,
               "not what was expected");
    }
    return (const int64_t *)(result_of + results);
}

// --- masks ---

static bool same(float a, float b) { return a == b || (a != a && b != b); }

static void check_masks() {
    static const uint32_t special[] = {0x00000000, 0x80000000, 0x7fc00000, 0xffc00000, 0x7f800000, 0xff800000,
                                       0x00000001, 0x80000001, 0x3f800000, 0xbf800000, 0x007fffff, 0x7f7fffff,
                                       0x00000000};
    static const int64_t widths[] = {1, 16, 21};
    uint32_t state = 1;
    for (int64_t size = 0; size < 140; ++size) {
        std::vector<float> x((size_t)size);
        x.reserve(1);  // no null pointer
        for (float &value : x) {
            state = state * 1664525u + 1013904223u;
            memcpy(&value, &special[(state >> 16) % (sizeof special / sizeof *special)], sizeof value);
        }
        const int64_t bytes = (size + 7) / 8;
        block masks[2] = {block(bytes), block(bytes)}, relu_masks[2] = {block(bytes), block(bytes)};
        block relus[2] = {block(4 * size), block(4 * size)}, bools[2] = {block(size), block(size)};
        block anys[2] = {block(size / 3), block(size / 3)};
        int64_t counts[2][2], vectors[2][3];
        for (int i = 0; i < 2; ++i) {
            const sc_table &table = i ? scalar::table : tested::table;
            for (int t = 0; t < 2; ++t) counts[i][t] = table.arrays.count_above(x.data(), size, (float)t);
            table.arrays.mask_nonzero(x.data(), size, (uint8_t *)masks[i].data());
            table.arrays.mask_relu(x.data(), size, (float *)relus[i].data(), (uint8_t *)relu_masks[i].data());
            table.arrays.mask_unpack((const uint8_t *)masks[i].data(), size, (uint8_t *)bools[i].data());
            table.arrays.mask_any((const uint8_t *)bools[i].data(), size / 3, 3, (uint8_t *)anys[i].data());
            for (int w = 0; w < 3; ++w) vectors[i][w] = table.arrays.mask_live_vectors(x.data(), size, widths[w]);
            for (const block *one : {&masks[i], &relu_masks[i], &relus[i], &bools[i], &anys[i]}) {
                expect(one->intact(), "masks", table.name, "memory around a result was written");
            }
        }
        const auto same_bytes = [](const void *a, const void *b, int64_t count, const char *name) {
            expect(!memcmp(a, b, (size_t)count), name, tested::table.name, "not what scalar writes");
        };
        same_bytes(counts[0], counts[1], sizeof counts[0], "count_above");
        same_bytes(vectors[0], vectors[1], sizeof vectors[0], "mask_live_vectors");
        same_bytes(masks[0].data(), masks[1].data(), bytes, "mask_nonzero");
        same_bytes(anys[0].data(), anys[1].data(), size / 3, "mask_any");
        same_bytes(relu_masks[0].data(), relu_masks[1].data(), bytes, "mask_relu");
        for (int64_t i = 0; i < size; ++i) {
            const float value = x[(size_t)i], relu = ((const float *)relus[0].data())[i];
            const bool unpacked = bools[0].data()[i] == (value != 0) && bools[1].data()[i] == (value != 0);
            expect(unpacked, "mask_unpack", tested::table.name, "wrong");
            const bool right = same(relu, value != value || value > 0 ? value : 0);
            expect(right, "mask_relu", tested::table.name, "not max(x, 0)");
            const bool equal = same(relu, ((const float *)relus[1].data())[i]);
            expect(equal, "mask_relu", tested::table.name, "not the values of scalar");
        }
    }
    printf("masks: done\n");
}

// --- packed nonzeros ---

// Every set of 16 lanes in turn, at sizes around those of vectors and blocks: packed with and without counting first,
// and expanded again.
static void check_compressed() {
    for (int64_t size : {0, 1, 15, 16, 17, 63, 4095, 4096, 4097, 8211, 65536, 65536 * 16 + 5}) {
        std::vector<float> x((size_t)size);
        x.reserve(1);  // no null pointer
        for (int64_t i = 0; i < size; ++i) x[(size_t)i] = i / 16 >> i % 16 & 1 ? (float)(i + 1) : 0;
        const int64_t blocks = ceil_div(size, SC_COMPRESSED_BLOCK), items = ceil_div(size, SC_COMPRESSED_ITEM);
        for (const sc_table *table : {&tested::table, &scalar::table}) {
            std::vector<int64_t> known((size_t)blocks + 1), found((size_t)blocks + 1);
            block bits(ceil_div(size, 8)), dense(4 * size);
            sc_compress_task task = {x.data(), size, (uint8_t *)bits.data(), nullptr, known.data(), 1};
            table->arrays.count_blocks.run(&task, 0, items, nullptr);
            for (int64_t i = 0; i < blocks; ++i) known[(size_t)i + 1] += known[(size_t)i];
            block packed(4 * known.back()), loose(4 * (size + 16)), slack(4 * (known.back() + 16));
            task.packed = (float *)packed.data();
            for (int64_t item = items - 1; item >= 0; --item) {
                table->arrays.compress_blocks.run(&task, item, item + 1, nullptr);
            }
            task.packed = (float *)loose.data(), task.offsets = found.data(), task.counted = 0;
            table->arrays.compress_blocks.run(&task, 0, items, nullptr);
            expect(known == found, "compress_blocks", table->name, "offsets are not the counts");
            expect(!memcmp(packed.data(), loose.data(), (size_t)known.back() * 4), "compress_blocks", table->name,
                   "counted or not makes a difference");
            memcpy(slack.data(), packed.data(), (size_t)known.back() * 4);
            task.packed = (float *)slack.data(), task.dense = (float *)dense.data();
            for (int64_t item = items - 1; item >= 0; --item) {
                table->arrays.expand_blocks.run(&task, item, item + 1, nullptr);
            }
            expect(!memcmp(dense.data(), x.data(), (size_t)size * 4), "expand_blocks", table->name,
                   "not what was packed");
            for (const block *one : {&bits, &packed, &loose, &slack, &dense}) {
                expect(one->intact(), "compress_blocks", table->name, "memory around a result was written");
            }
        }
    }
    printf("compressed: done\n");
}

// --- the rest ---

static void check_float_state() {
    volatile float tiny = 1e-39f, one = 1;
    expect(tiny * one > 0, "float_state", tested::table.name, "denormals are zero before");
    {
        const float_state_scope fixed(kernel_float_state);
        expect(!(tiny * one > 0), "float_state", tested::table.name, "denormals are not flushed");
    }
    expect(tiny * one > 0, "float_state", tested::table.name, "denormals are zero after");
    printf("float_state: done\n");
}

static void check_dispatch() {
    int count = 0;
    std::string linked;
    for (const isa *one = isas(&count), *end = one + count; one < end; ++one) {
        if (one->table->arrays.mask_unpack) linked += (linked.empty() ? "" : ",") + std::string(one->table->name);
    }
    expect(linked == SC_LIST(SC_ISAS), "isas", linked.c_str(), "are others than " SC_LIST(SC_ISAS));
    expect(isas(&count)[count - 1].table == &scalar::table, "isas", "scalar", "not the last one");
#ifdef __aarch64__
    expect(active() == &tested::table, "active", tested::table.name, "not chosen");
#endif
    printf("dispatch: done\n");
}

// All of a file; aligned as the memory that it is an image of.
static char *contents(const char *path, int64_t *bytes) {
    FILE *file = fopen(path, "rb");
    if (!file) exit(2);
    fseek(file, 0, SEEK_END);
    const size_t size = (size_t)ftell(file);
    rewind(file);
    char *all = (char *)aligned_alloc(64, (size + 63) / 64 * 64);
    if (fread(all, 1, size, file) != size) exit(2);
    if (bytes) *bytes = (int64_t)size;
    fclose(file);
    return all;
}

}  // namespace sparseconv

// Arguments: the image of memory, the words, a number of threads, and how many callers make all calls at the same time.
// With more than one thread, calls alone are replayed, on the tested table.
int main(int argc, char **argv) {
    using namespace sparseconv;
    if (argc != 5) return 2;
    const int threads = atoi(argv[3]), callers = atoi(argv[4]);
    int64_t image_bytes, word_bytes, calls = 0;
    char *const image = contents(argv[1], &image_bytes);
    const int64_t *words = (const int64_t *)contents(argv[2], &word_bytes), *end = words + word_bytes / 8;
    if (threads == 1) {
        check_float_state();
        check_dispatch();
        check_masks();
        check_compressed();
        for (const int64_t *word = words; word < end;) word = replay(word, image, scalar::table, threads);
    }
    std::vector<std::thread> others;
    for (int caller = 1; caller < callers; ++caller) {
        others.emplace_back([=] {  // on an image of its own, since addresses are written into tasks
            char *const own = contents(argv[1], nullptr);
            for (const int64_t *word = words; word < end;) word = replay(word, own, tested::table, threads);
            free(own);
        });
    }
    for (const int64_t *word = words; word < end; ++calls) word = replay(word, image, tested::table, threads);
    for (std::thread &other : others) other.join();
    free(image);
    free((void *)words);
    printf("%lld calls, %d failures\n", (long long)calls, failures.load());
    return failures != 0;
}
