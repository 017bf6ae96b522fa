#include "run.h"

#include "threads.h"

namespace sparseconv {

namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <class Task>
struct bound {  // a table entry with its task, as parallel() takes them
    void (*entry)(const Task *, int64_t, int64_t, void *);
    const Task *task;
    static void work(const void *self, int64_t begin, int64_t end, void *scratch) {
        const bound *call = static_cast<const bound *>(self);
        call->entry(call->task, begin, end, scratch);
    }
};

template <class Task>
status spread(void (*entry)(const Task *, int64_t, int64_t, void *), const Task &task, int64_t items, int threads,
              int64_t scratch_bytes, void *scratch, interruption &interrupt) {
    const bound<Task> call = {entry, &task};
    return parallel(bound<Task>::work, &call, items, threads, scratch_bytes, scratch, interrupt);
}

}  // namespace

int64_t rows_packed_bytes(const sc_rows_task &task) {
    if (!task.pack_ahead) return 0;
    const int64_t vectors = task.groups * ceil_div(task.lanes, 16), taps = task.map.outer_taps * task.map.inner_taps;
    if (task.parts) return vectors * (taps * ceil_div(task.channels, 32) * task.parts * 1024 + 64);
    return vectors * task.channels * 64 * taps;
}

int64_t rows_scratch_bytes(const sc_table &table, const sc_rows_task &task) {
    return task.parts ? table.tiles->rows_scratch(&task) : table.rows_scratch(&task);
}

int64_t gradient_scratch_bytes(const sc_table &table, const sc_gradient_task &task) {
    return task.parts ? table.tiles->gradient_scratch(&task) : table.gradient_scratch(&task);
}

int run_rows(const sc_table &table, sc_rows_task &task, int threads, int (*signals)()) {
    interruption interrupt(signals);
    task.interrupt = {interruption::poll, &interrupt};
    const int64_t packed = rows_packed_bytes(task), scratch = rows_scratch_bytes(table, task);
    const scratch_lease lease(packed + scratch);
    if (!lease.memory()) return NO_MEMORY;
    char *own = lease.memory() + packed;
    if (task.pack_ahead) {
        task.packed = reinterpret_cast<float *>(lease.memory());
        const int64_t lane_blocks = ceil_div(ceil_div(task.lanes, 16), task.lane_vectors);
        const int64_t tiles = task.groups * lane_blocks * ceil_div(task.channels, task.channel_block);
        const int packers = packed < 1 << 18 ? 1 : threads;  // waking a thread costs more than packing 256 KB
        const auto pack_weights = task.parts ? table.tiles->pack_weights : table.pack_weights;
        const int64_t pack_scratch = task.parts ? table.tiles->pack_weights_scratch(&task) : 0;
        const status result = spread(pack_weights, task, tiles, packers, pack_scratch, own, interrupt);
        if (result != OK) return result;
    }
    const int64_t chunks = ceil_div(task.batch * task.map.out_rows, task.chunk_rows) * task.segments;
    const auto rows = task.parts ? table.tiles->rows : table.rows;
    return spread(rows, task, task.groups * chunks * task.lane_groups, threads, scratch, own, interrupt);
}

int run_gradient(const sc_table &table, sc_gradient_task &task, int threads, int (*signals)()) {
    interruption interrupt(signals);
    task.interrupt = {interruption::poll, &interrupt};
    const int64_t lane_blocks = ceil_div(ceil_div(task.lanes, 16), task.lane_vectors);
    const int64_t supers = ceil_div(lane_blocks, task.lane_blocks);
    const int64_t items = task.groups * supers * ceil_div(task.channels, task.channel_block);
    const int64_t scratch = gradient_scratch_bytes(table, task);
    const scratch_lease lease(scratch);
    if (!lease.memory()) return NO_MEMORY;
    const auto gradient = task.parts ? table.tiles->gradient : table.gradient;
    return spread(gradient, task, items, threads, scratch, lease.memory(), interrupt);
}

int run_bias_gradient(const sc_table &table, sc_bias_task &task, int threads, int (*signals)()) {
    interruption interrupt(signals);
    task.interrupt = {interruption::poll, &interrupt};
    const scratch_lease lease(64);  // the kernel needs none; the lease marks the call
    return spread(table.bias_gradient, task, ceil_div(task.channels, 64), threads, 0, lease.memory(), interrupt);
}

int run_nm_mask(const sc_table &table, sc_nm_task &task, int threads, int (*signals)()) {
    interruption interrupt(signals);
    task.interrupt = {interruption::poll, &interrupt};
    const int64_t scratch = table.nm_mask_scratch(&task);
    const scratch_lease lease(scratch);
    if (!lease.memory()) return NO_MEMORY;
    return spread(table.nm_mask, task, ceil_div(task.groups, 16), threads, scratch, lease.memory(), interrupt);
}

int run_transposable_mask(const sc_table &table, sc_transposable_task &task, int threads, int (*signals)()) {
    interruption interrupt(signals);
    task.interrupt = {interruption::poll, &interrupt};
    const int64_t scratch = table.transposable_mask_scratch(&task);
    const scratch_lease lease(scratch);
    if (!lease.memory()) return NO_MEMORY;
    const int64_t items = ceil_div(ceil_div(task.rows, task.m) * ceil_div(task.columns, task.m), 16);
    return spread(table.transposable_mask, task, items, threads, scratch, lease.memory(), interrupt);
}

}  // namespace sparseconv
