// What run.cpp does, on one thread, with scratch memory of just the size that was asked for, full of garbage before
// each item and with canaries around it.
#pragma once
#include <stdlib.h>
#include <string.h>

#include <memory>

#include "float_state.h"
#include "table.h"

namespace sparseconv {

// A block between canaries, its bytes 0x7f: as floats 3e38, as indices far outside of everything.
class block {
public:
    explicit block(int64_t bytes)
        : bytes_(bytes), memory_((char *)aligned_alloc(64, (size_t)(bytes + 63) / 64 * 64 + 2 * edge)) {
        memset(memory_.get(), canary, edge);
        memset(memory_.get() + edge, garbage, (size_t)bytes);
        memset(memory_.get() + edge + bytes, canary, edge);
    }
    char *data() const { return memory_.get() + edge; }
    void refill() { memset(data(), garbage, (size_t)bytes_); }
    bool intact() const { return all(memory_.get(), edge, canary) && all(data() + bytes_, edge, canary); }

private:
    static constexpr int64_t edge = 4096;
    static constexpr char canary = 0x55, garbage = 0x7f;
    static bool all(const char *from, int64_t bytes, char value) {
        for (int64_t i = 0; i < bytes; ++i) {
            if (from[i] != value) return false;
        }
        return true;
    }
    struct release { void operator()(char *p) const { free(p); } };
    int64_t bytes_;
    std::unique_ptr<char, release> memory_;
};

// --- whole calls, item after item ---

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Every item begins with scratch memory of which it knows nothing.
template <class Task>
static bool work(void (*entry)(const Task *, int64_t, int64_t, void *), const Task &task, int64_t items,
                 int64_t bytes) {
    block scratch(bytes);
    const float_state_scope flushed(float_state() | flush_denormals);
    for (int64_t item = 0; item < items; ++item) {
        scratch.refill();
        entry(&task, item, item + 1, scratch.data());
    }
    return scratch.intact();
}

static bool run(const sc_table &table, sc_rows_task &task) {
    const int64_t vectors = ceil_div(task.lanes, 16), lane_blocks = ceil_div(vectors, task.lane_vectors);
    const int64_t taps = task.map.outer_taps * task.map.inner_taps;
    const int64_t chunks = ceil_div(task.batch * task.map.out_rows, task.chunk_rows) * task.segments;
    const int64_t tiles = task.groups * lane_blocks * ceil_div(task.channels, task.channel_block);
    int64_t bytes = task.groups * vectors * task.channels * 64 * taps;
    if (task.parts) bytes = task.groups * vectors * (taps * ceil_div(task.channels, 32) * task.parts * 1024 + 64);
    if (task.outputs) bytes = 64 * (task.groups * task.lanes * ceil_div(task.channels, 16) * taps + tiles);
    block packed(task.pack_ahead ? bytes : 0);
    bool good = true;
    if (task.pack_ahead) {
        task.packed = (float *)packed.data();
        if (task.parts) good = work(table.tiles->pack_weights, task, tiles, table.tiles->pack_weights_scratch(&task));
        else good = work(task.outputs ? table.pack_outputs_weights : table.pack_weights, task, tiles, 0);
    }
    const int64_t items = task.groups * chunks * task.lane_groups;
    if (task.parts) good = work(table.tiles->rows, task, items, table.tiles->rows_scratch(&task)) && good;
    else good = work(task.outputs ? table.outputs : table.rows, task, items, table.rows_scratch(&task)) && good;
    return packed.intact() && good;
}

static bool run(const sc_table &table, sc_gradient_task &task) {
    const int64_t blocks = ceil_div(ceil_div(task.lanes, 16), task.lane_vectors);
    const int64_t supers = ceil_div(blocks, task.lane_blocks);
    const int64_t items = task.groups * supers * ceil_div(task.channels, task.channel_block);
    if (task.parts) return work(table.tiles->gradient, task, items, table.tiles->gradient_scratch(&task));
    return work(table.gradient, task, items, table.gradient_scratch(&task));
}

}  // namespace sparseconv
