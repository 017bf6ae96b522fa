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
    return task.groups * task.channels * ceil_div(task.lanes, 16) * 64 * task.map.outer_taps * task.map.inner_taps;
}

int run_rows(const sc_table &table, sc_rows_task &task, int threads, int (*signals)()) {
    interruption interrupt(signals);
    task.interrupt = {interruption::poll, &interrupt};
    const int64_t packed = rows_packed_bytes(task), scratch = table.rows_scratch(&task);
    const scratch_lease lease(packed + scratch);
    if (!lease.memory()) return NO_MEMORY;
    char *own = lease.memory() + packed;
    if (task.pack_ahead) {
        task.packed = reinterpret_cast<float *>(lease.memory());
        const int64_t lane_blocks = ceil_div(ceil_div(task.lanes, 16), task.lane_vectors);
        const int64_t tiles = task.groups * lane_blocks * ceil_div(task.channels, task.channel_block);
        const int packers = packed < 1 << 18 ? 1 : threads;  // waking a thread costs more than packing 256 KB
        const status result = spread(table.pack_weights, task, tiles, packers, 0, own, interrupt);
        if (result != OK) return result;
    }
    const int64_t chunks = ceil_div(task.batch * task.map.out_rows, task.chunk_rows) * task.segments;
    return spread(table.rows, task, task.groups * chunks * task.lane_groups, threads, scratch, own, interrupt);
}

int run_gradient(const sc_table &table, sc_gradient_task &task, int threads, int (*signals)()) {
    interruption interrupt(signals);
    task.interrupt = {interruption::poll, &interrupt};
    const int64_t lane_blocks = ceil_div(ceil_div(task.lanes, 16), task.lane_vectors);
    const int64_t supers = ceil_div(lane_blocks, task.lane_blocks);
    const int64_t items = task.groups * supers * ceil_div(task.channels, task.channel_block);
    const int64_t scratch = table.gradient_scratch(&task);
    const scratch_lease lease(scratch);
    if (!lease.memory()) return NO_MEMORY;
    return spread(table.gradient, task, items, threads, scratch, lease.memory(), interrupt);
}

int run_bias_gradient(const sc_table &table, sc_bias_task &task, int threads, int (*signals)()) {
    interruption interrupt(signals);
    task.interrupt = {interruption::poll, &interrupt};
    const scratch_lease lease(64);  // the kernel needs none; the lease marks the call
    return spread(table.bias_gradient, task, ceil_div(task.channels, 64), threads, 0, lease.memory(), interrupt);
}

}  // namespace sparseconv
