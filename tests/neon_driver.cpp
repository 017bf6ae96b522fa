// Runs recorded calls on the tables of two instruction sets and compares every bit: see test_neon.py, which writes
// cases.h (one function per call, ending in `check`) and the file of arrays that it refers to.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

#include "poisoned_run.h"

namespace sparseconv {

namespace neon { extern const sc_table table; }
namespace scalar { extern const sc_table table; }

static int failures = 0;

static void expect(bool good, const char *name, const char *table, const char *what) {
    if (good) return;
    printf("%s on %s: %s\n", name, table, what);
    ++failures;
}

static int go_on(void *) { return 0; }

static bool run(const sc_table &table, sc_bias_task &task) {
    return work(table.bias_gradient, task, ceil_div(task.channels, 64), 0);
}

static void give_mask(sc_rows_task &task, void *mask) { task.mask = (uint16_t *)mask; }
template <class Task>
static void give_mask(Task &, void *) {}

// Both tables must turn `before`, the memory around the result, into `after`; `target` is the member of the task that
// points to the result, `first` floats behind the start of that memory. If there is a mask, they must write that, too.
template <class Task>
static void check(const char *name, Task &task, float *&target, int64_t first, const float *before, const float *after,
                  int64_t floats, const std::vector<uint8_t> &mask = {}) {
    const int64_t bytes = floats * (int64_t)sizeof(float);
    std::vector<char> results[2];
    int64_t nonzero = 0;
    task.interrupt = {go_on, nullptr};
    for (const sc_table *table : {&neon::table, &scalar::table}) {
        block memory(bytes);
        memcpy(memory.data(), before, (size_t)bytes);
        target = (float *)memory.data() + first;
        block bits((int64_t)mask.size());
        give_mask(task, mask.empty() ? nullptr : bits.data());
        expect(run(*table, task), name, table->name, "memory around the scratch was written");
        expect(memory.intact(), name, table->name, "memory around the result was written");
        expect(!memcmp(memory.data(), after, (size_t)bytes), name, table->name, "not what was expected");
        expect(bits.intact(), name, table->name, "memory around the mask was written");
        expect(!memcmp(bits.data(), mask.data(), mask.size()), name, table->name, "not the mask that was expected");
        results[table == &scalar::table].assign(memory.data(), memory.data() + bytes);
    }
    expect(results[0] == results[1], name, "neon", "not the bits of scalar");
    for (int64_t i = 0; i < floats; ++i) nonzero += after[i] != before[i] && after[i] != 0;
    printf("%s: %lld of %lld nonzero\n", name, (long long)nonzero, (long long)floats);
}

// --- masks ---

static bool same(float a, float b) { return a == b || (a != a && b != b); }

static void check_masks() {
    static const uint32_t special[] = {0x00000000, 0x80000000, 0x7fc00000, 0xffc00000, 0x7f800000, 0xff800000, 0x00000001,
                                       0x80000001, 0x3f800000, 0xbf800000, 0x007fffff, 0x7f7fffff, 0x00000000};
    uint32_t state = 1;
    for (int64_t size = 0; size < 140; ++size) {
        std::vector<float> x((size_t)size);
        for (float &value : x) {
            state = state * 1664525u + 1013904223u;
            memcpy(&value, &special[(state >> 16) % (sizeof special / sizeof *special)], sizeof value);
        }
        const int64_t bytes = (size + 7) / 8;
        block masks[2] = {block(bytes), block(bytes)}, relu_masks[2] = {block(bytes), block(bytes)};
        block relus[2] = {block(4 * size), block(4 * size)}, bools[2] = {block(size), block(size)};
        block anys[2] = {block(size / 3), block(size / 3)};
        int64_t counts[2], vectors[2][3];
        for (int i = 0; i < 2; ++i) {
            const sc_table &table = i ? scalar::table : neon::table;
            counts[i] = table.count_above(x.data(), size, 0);
            table.mask_nonzero(x.data(), size, (uint8_t *)masks[i].data());
            table.mask_relu(x.data(), size, (float *)relus[i].data(), (uint8_t *)relu_masks[i].data());
            table.mask_unpack((const uint8_t *)masks[i].data(), size, (uint8_t *)bools[i].data());
            table.mask_any((const uint8_t *)bools[i].data(), size / 3, 3, (uint8_t *)anys[i].data());
            for (int w = 0; w < 3; ++w) vectors[i][w] = table.mask_live_vectors(x.data(), size, w == 0 ? 1 : w == 1 ? 16 : 21);
            for (const block *one : {&masks[i], &relu_masks[i], &relus[i], &bools[i], &anys[i]}) {
                expect(one->intact(), "masks", table.name, "memory around a result was written");
            }
        }
        expect(counts[0] == counts[1], "count_above", "neon", "not the count of scalar");
        expect(!memcmp(vectors[0], vectors[1], sizeof vectors[0]), "mask_live_vectors", "neon", "not the counts of scalar");
        expect(!memcmp(masks[0].data(), masks[1].data(), (size_t)bytes), "mask_nonzero", "neon", "not the bits of scalar");
        expect(!memcmp(anys[0].data(), anys[1].data(), (size_t)(size / 3)), "mask_any", "neon", "not the bytes of scalar");
        expect(!memcmp(relu_masks[0].data(), relu_masks[1].data(), (size_t)bytes), "mask_relu", "neon", "not the bits of scalar");
        for (int64_t i = 0; i < size; ++i) {
            const float value = x[(size_t)i], relu = ((const float *)relus[0].data())[i];
            expect(bools[0].data()[i] == (value != 0) && bools[1].data()[i] == (value != 0), "mask_unpack", "neon", "wrong");
            expect(same(relu, value != value || value > 0 ? value : 0), "mask_relu", "neon", "not max(x, 0)");
            expect(same(relu, ((const float *)relus[1].data())[i]), "mask_relu", "neon", "not the values of scalar");
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
        for (int64_t i = 0; i < size; ++i) x[(size_t)i] = i / 16 >> i % 16 & 1 ? (float)(i + 1) : 0;
        const int64_t blocks = ceil_div(size, SC_COMPRESSED_BLOCK), items = ceil_div(size, SC_COMPRESSED_ITEM);
        for (const sc_table *table : {&neon::table, &scalar::table}) {
            std::vector<int64_t> known((size_t)blocks + 1), found((size_t)blocks + 1);
            block bits(ceil_div(size, 8)), dense(4 * size);
            sc_compress_task task = {x.data(), size, (uint8_t *)bits.data(), nullptr, known.data(), 1};
            table->count_blocks(&task, 0, items, nullptr);
            for (int64_t i = 0; i < blocks; ++i) known[(size_t)i + 1] += known[(size_t)i];
            block packed(4 * known.back()), loose(4 * (size + 16)), slack(4 * (known.back() + 16));
            task.packed = (float *)packed.data();
            for (int64_t item = items - 1; item >= 0; --item) table->compress_blocks(&task, item, item + 1, nullptr);
            task.packed = (float *)loose.data(), task.offsets = found.data(), task.counted = 0;
            table->compress_blocks(&task, 0, items, nullptr);
            expect(known == found, "compress_blocks", table->name, "offsets are not the counts");
            expect(!memcmp(packed.data(), loose.data(), (size_t)known.back() * 4), "compress_blocks", table->name,
                   "counted or not makes a difference");
            memcpy(slack.data(), packed.data(), (size_t)known.back() * 4);
            task.packed = (float *)slack.data(), task.dense = (float *)dense.data();
            for (int64_t item = items - 1; item >= 0; --item) table->expand_blocks(&task, item, item + 1, nullptr);
            expect(!memcmp(dense.data(), x.data(), (size_t)size * 4), "expand_blocks", table->name,
                   "not what was packed");
            for (const block *one : {&bits, &packed, &loose, &slack, &dense}) {
                expect(one->intact(), "compress_blocks", table->name, "memory around a result was written");
            }
        }
    }
    printf("compressed: done\n");
}

// --- pruning masks ---

// A mask of `size` bytes, made in guarded memory.
template <class Task>
static std::vector<char> pruned(const sc_table &table, Task task, void (*entry)(const Task *, int64_t, int64_t, void *),
                                int64_t items, int64_t scratch_bytes, int64_t size, const char *name) {
    block mask(size);
    task.mask = (uint8_t *)mask.data();
    task.interrupt = {go_on, nullptr};
    expect(work(entry, task, items, scratch_bytes), name, table.name, "memory around the scratch was written");
    expect(mask.intact(), name, table.name, "memory around the mask was written");
    return std::vector<char>(mask.data(), mask.data() + size);
}

static void check_pruning() {
    const int64_t rows = 35, columns = 70, size = rows * columns;
    std::vector<double> wide((size_t)size);
    uint32_t state = 1;
    for (double &value : wide) {
        state = state * 1664525u + 1013904223u;
        value = (int32_t)state / (state >> 8 & 1 ? 2147483648.0 : 1e12);
    }
    const std::vector<float> single(wide.begin(), wide.end());
    const sc_magnitudes weights[] = {{single.data(), nullptr}, {nullptr, wide.data()}};
    for (const sc_magnitudes &weight : weights) {
        for (int64_t m : {4, 8, 16, 32}) {
            std::vector<char> masks[2][3];
            for (const sc_table *table : {&neon::table, &scalar::table}) {
                std::vector<char> *to = masks[table == &scalar::table];
                const int64_t across = ceil_div(columns, m);
                sc_nm_task nm = {weight, nullptr, columns, 1, rows * across, m / 2, m, {}};
                to[0] = pruned(*table, nm, table->nm_mask, ceil_div(nm.groups, 16), table->nm_mask_scratch(&nm), size,
                               "nm_mask");
                for (int64_t method : {SC_GREEDY, SC_EXACT}) {
                    sc_transposable_task task = {weight, 1.0, nullptr, rows, columns, m / 2, m, method, 0, 0, {}};
                    to[method == SC_EXACT ? 2 : 1] =
                        pruned(*table, task, table->transposable_mask, ceil_div(ceil_div(rows, m) * across, 16),
                               table->transposable_mask_scratch(&task), size, "transposable_mask");
                }
            }
            for (int i = 0; i < 3; ++i) {
                int64_t kept = 0;
                for (char one : masks[0][i]) kept += one;
                expect(masks[0][i] == masks[1][i], "pruning masks", "neon", "not those of scalar");
                expect(kept > size / 3 && kept < size * 2 / 3, "pruning masks", "neon", "not about half");
            }
        }
    }
    printf("pruning masks: done\n");
}

// --- stochastic pruning ---

// Both types, pruned and only measured, at sizes around those of vectors, batches and items.
static void check_stochastic() {
    for (int64_t size : {1, 15, 16, 17, 31, 32, 33, 64, 95, 1000, SC_STOCHASTIC_ITEM + 37}) {
        std::vector<float> single((size_t)size);
        uint32_t state = 1;
        for (float &value : single) {
            state = state * 1664525u + 1013904223u;
            value = state >> 28 ? (int32_t)state / 1073741824.0f : state & 64 ? NAN : -0.0f;
        }
        const std::vector<double> wide(single.begin(), single.end());
        const int64_t items = ceil_div(size, SC_STOCHASTIC_ITEM);
        for (int64_t bytes : {4, 8}) {
            for (bool writes : {false, true}) {
                std::vector<char> found[2];
                for (const sc_table *table : {&neon::table, &scalar::table}) {
                    block out(bytes * size), sums(8 * items), nonzeros(8 * items);
                    sc_stochastic_task task = {{bytes == 4 ? single.data() : nullptr, bytes == 4 ? nullptr : wide.data()},
                                               writes ? out.data() : nullptr, size, 0x0123456789abcdefull, 1.5,
                                               (double *)sums.data(), (int64_t *)nonzeros.data(), {go_on, nullptr}};
                    for (int64_t i = items - 1; i >= 0; --i) table->stochastic_prune(&task, i, i + 1, nullptr);
                    std::vector<char> &all = found[table == &scalar::table];
                    for (const block *one : {&sums, &nonzeros, &out}) {
                        expect(one->intact(), "stochastic_prune", table->name, "memory around a result was written");
                    }
                    all.insert(all.end(), sums.data(), sums.data() + 8 * items);
                    all.insert(all.end(), nonzeros.data(), nonzeros.data() + 8 * items);
                    if (writes) all.insert(all.end(), out.data(), out.data() + bytes * size);
                    const int64_t live = *(const int64_t *)nonzeros.data();
                    expect(size < 1000 || !writes || (live > size / 5 && live < items * size * 4 / 5),
                           "stochastic_prune", table->name, "pruned nothing or all");
                }
                expect(found[0] == found[1], "stochastic_prune", "neon", "not the bits of scalar");
            }
        }
    }
    printf("stochastic pruning: done\n");
}

static void check_float_state() {
    volatile float tiny = 1e-39f, one = 1;
    expect(tiny * one > 0, "float_state", "neon", "denormals are zero before");
    {
        const float_state_scope flushed(float_state() | flush_denormals);
        expect(!(tiny * one > 0), "float_state", "neon", "denormals are not flushed");
    }
    expect(tiny * one > 0, "float_state", "neon", "denormals are zero after");
    printf("float_state: done\n");
}

#include "cases.h"

}  // namespace sparseconv

int main(int argc, char **argv) {
    using namespace sparseconv;
    FILE *file = argc > 1 ? fopen(argv[1], "rb") : nullptr;
    if (!file) return 2;
    fseek(file, 0, SEEK_END);
    std::vector<float> data((size_t)ftell(file) / sizeof(float));
    rewind(file);
    if (fread(data.data(), sizeof(float), data.size(), file) != data.size()) return 2;
    fclose(file);
    check_float_state();
    check_masks();
    check_compressed();
    check_pruning();
    check_stochastic();
    run_cases(data.data());
    printf("%d failures\n", failures);
    return failures != 0;
}
