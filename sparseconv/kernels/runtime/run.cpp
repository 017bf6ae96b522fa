#include "runtime/run.h"

#include <utility>

#include "pruning/topk_search.h"
#include "runtime/threads.h"

namespace sparseconv {

namespace {

constexpr int64_t PACK_ALONE = 1 << 18;  // waking a thread costs more than packing 256 KB

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

// Copies of numbers must keep denormals, which the pool flushes: they would even count as zeros.
struct exact_copy {
    void (*entry)(const sc_compress_task *, int64_t, int64_t, void *);
    const sc_compress_task *task;
    static void work(const void *self, int64_t begin, int64_t end, void *scratch) {
        const float_state_scope exact(float_state() & ~flush_denormals);
        const exact_copy *call = static_cast<const exact_copy *>(self);
        call->entry(call->task, begin, end, scratch);
    }
};

int copy(void (*entry)(const sc_compress_task *, int64_t, int64_t, void *), const sc_compress_task &task, int threads,
         int (*signals)()) {
    interruption interrupt(signals);
    const scratch_lease lease(64);  // the kernels need none; the lease marks the call
    const exact_copy call = {entry, &task};
    const int64_t items = ceil_div(task.count, SC_COMPRESSED_ITEM);
    return parallel(exact_copy::work, &call, items, threads, 0, lease.memory(), interrupt);
}

}  // namespace

int64_t rows_packed_bytes(const sc_rows_task &task) {
    if (!task.pack_ahead) return 0;
    const int64_t vectors = task.groups * ceil_div(task.lanes, 16), taps = task.map.outer_taps * task.map.inner_taps;
    if (task.outputs) {  // each tile begins with a line that says whether it is finite
        const int64_t blocks = ceil_div(ceil_div(task.lanes, 16), task.lane_vectors);
        const int64_t tiles = task.groups * blocks * ceil_div(task.channels, task.channel_block);
        return 64 * (task.groups * task.lanes * ceil_div(task.channels, 16) * taps + tiles);
    }
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
        const int packers = packed < PACK_ALONE ? 1 : threads;
        const auto pack_weights = task.parts     ? table.tiles->pack_weights
                                  : task.outputs ? table.pack_outputs_weights
                                                 : table.pack_weights;
        const int64_t pack_scratch = task.parts ? table.tiles->pack_weights_scratch(&task) : 0;
        const status result = spread(pack_weights, task, tiles, packers, pack_scratch, own, interrupt);
        if (result != OK) return result;
    }
    const int64_t chunks = ceil_div(task.batch * task.map.out_rows, task.chunk_rows) * task.segments;
    const auto rows = task.parts ? table.tiles->rows : task.outputs ? table.outputs : table.rows;
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

int run_groups(const sc_table &table, sc_groups_task &task, int threads, int (*signals)()) {
    interruption interrupt(signals);
    task.interrupt = {interruption::poll, &interrupt};
    const int64_t packed = table.pack_groups_bytes(&task), scratch = table.groups_scratch(&task);
    const scratch_lease lease(packed + scratch);
    if (!lease.memory()) return NO_MEMORY;
    task.packed = reinterpret_cast<float *>(lease.memory());
    char *own = lease.memory() + packed;
    const int64_t vectors = ceil_div(task.groups * task.lanes, 16);
    const int packers = packed < PACK_ALONE ? 1 : threads;
    const status result = spread(table.pack_groups, task, vectors, packers, 0, own, interrupt);
    if (result != OK) return result;
    const int64_t chunks = ceil_div(task.batch * task.map.out_rows, task.chunk_rows) * task.segments;
    return spread(table.groups, task, chunks * task.shares, threads, scratch, own, interrupt);
}

int run_groups_gradient(const sc_table &table, sc_groups_gradient_task &task, int threads, int (*signals)()) {
    interruption interrupt(signals);
    task.interrupt = {interruption::poll, &interrupt};
    const int64_t sums = table.groups_gradient_sums_bytes(&task), scratch = table.groups_gradient_scratch(&task);
    const scratch_lease lease(sums + scratch);
    if (!lease.memory()) return NO_MEMORY;
    task.sums = reinterpret_cast<float *>(lease.memory());
    char *own = lease.memory() + sums;
    const int64_t vectors = ceil_div(task.groups * task.lanes, 16);
    const status result =
        spread(table.groups_gradient, task, task.parts * task.shares, threads, scratch, own, interrupt);
    if (result != OK) return result;
    return spread(table.store_groups_gradient, task, vectors, sums < PACK_ALONE ? 1 : threads, 0, own, interrupt);
}

int run_lists(const sc_table &table, sc_lists_task &task, int step, int threads, int (*signals)()) {
    interruption interrupt(signals);
    task.interrupt = {interruption::poll, &interrupt};
    const scratch_lease lease(64);  // the kernels need none; the lease marks the call
    const sc_lists &lists = task.lists;
    const int64_t items = lists.groups * ceil_div(lists.rows / lists.groups, task.item_rows);
    return spread(step ? table.fill_lists : table.count_lists, task, items, threads, 0, lease.memory(), interrupt);
}

int run_weights(const sc_table &table, sc_weights_task &task, int threads, int (*signals)()) {
    interruption interrupt(signals);
    task.interrupt = {interruption::poll, &interrupt};
    const int64_t steps = ceil_div(task.batch * task.segments * task.map.out_rows, 16);
    const int64_t scratch = table.weights_scratch(&task);
    const scratch_lease lease(scratch);
    if (!lease.memory()) return NO_MEMORY;
    const int64_t items = task.groups * ceil_div(steps, task.chunk_steps) * task.shares;
    return spread(table.weights, task, items, threads, scratch, lease.memory(), interrupt);
}

int run_bias_gradient(const sc_table &table, sc_bias_task &task, int threads, int (*signals)()) {
    interruption interrupt(signals);
    task.interrupt = {interruption::poll, &interrupt};
    const scratch_lease lease(64);  // the kernel needs none; the lease marks the call
    return spread(table.bias_gradient, task, ceil_div(task.channels, 64), threads, 0, lease.memory(), interrupt);
}

int run_count_blocks(const sc_table &table, const sc_compress_task &task, int threads, int (*signals)()) {
    task.offsets[0] = 0;
    const int result = copy(table.count_blocks, task, threads, signals);
    const int64_t blocks = ceil_div(task.count, SC_COMPRESSED_BLOCK);
    for (int64_t block = 0; result == OK && block < blocks; ++block) task.offsets[block + 1] += task.offsets[block];
    return result;
}

int run_compress(const sc_table &table, const sc_compress_task &task, int threads, int (*signals)()) {
    if (!task.counted) task.offsets[0] = 0, threads = 1;
    return copy(table.compress_blocks, task, threads, signals);
}

int run_expand(const sc_table &table, const sc_compress_task &task, int threads, int (*signals)()) {
    return copy(table.expand_blocks, task, threads, signals);
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

namespace {

// A Top-K: passes over an array until topk_search knows the K-th largest, then the mask.
struct topk_call {
    const sc_table &table;
    sc_topk_task &task;
    const int threads;
    char *const scratch;  // of a thread
    interruption &interrupt;
    int64_t passes;

    // Over task.data: what all its items counted, in `result`.
    status pass(bracket tried, int pass_threads, sc_topk_count &result) {
        int64_t taken = 0;
        task.low = value_of(tried.low), task.high = value_of(tried.high), task.taken = &taken;
        const int64_t items = ceil_div(task.count, SC_TOPK_ITEM), bytes = table.topk_scratch(&task);
        const status done = spread(table.topk_narrow, task, items, pass_threads, bytes, scratch, interrupt);
        result = {};
        for (int64_t item = 0; done == OK && item < items; ++item) {
            result.reached += task.counts[item].reached, result.inside += task.counts[item].inside;
            result.nan |= task.counts[item].nan;
        }
        ++passes;
        return done;
    }

    // What one pass keeps in `spare` the next one reads, while `other` takes what that one keeps.
    status find(topk_search &search, int32_t *samples, float *spare, float *other, int64_t room, bool &nan) {
        const float *const data = task.data;
        while (!search.found()) {
            if (search.sortable()) {
                nan = !search.sort(samples);
                return OK;
            }
            const bracket tried = search.next(samples, room);
            task.data = search.data, task.count = search.count;
            task.kept = spare, task.room = tried.high - tried.low > 1 ? room : 0;  // of one value no copies are needed
            sc_topk_count counted;
            const status done = pass(tried, task.data == data ? threads : 1, counted);  // later passes are short
            nan = counted.nan;
            if (done != OK || nan) return done;
            search.learn(tried, counted.reached, counted.inside, spare, counted.inside <= task.room);
            if (search.data == spare) std::swap(spare, other);
        }
        return OK;
    }

    status mask(const topk_search &search) {
        const int64_t items = ceil_div(task.count, SC_TOPK_ITEM);
        const bracket last = {search.key() - 1, search.key()};
        int64_t tie_item = items, tie_count = search.kept_ties();
        if (search.kept_ties() < search.ties()) {  // where the last one of those that are kept lies
            task.room = 0;
            sc_topk_count counted;
            const status done = pass(last, threads, counted);
            if (done != OK) return done;
            for (tie_item = 0; tie_count > task.counts[tie_item].inside; ++tie_item) {
                tie_count -= task.counts[tie_item].inside;
            }
        }
        task.low = value_of(last.low), task.high = value_of(last.high);
        task.tie_item = tie_item, task.tie_count = tie_count;
        return spread(table.topk_mask, task, items, threads, 0, scratch, interrupt);
    }
};

}  // namespace

int run_topk(const sc_table &table, sc_topk_task &task, int64_t k, topk_result &result, int threads,
             int (*signals)()) {
    interruption interrupt(signals);
    task.interrupt = {interruption::poll, &interrupt};
    const float *const data = task.data;
    const int64_t count = task.count, room = std::min(count, count / 8 + SC_TOPK_ITEM);
    const int64_t counts_bytes = ceil_div(ceil_div(count, SC_TOPK_ITEM) * (int64_t)sizeof(sc_topk_count), 64) * 64;
    const int64_t samples_bytes = topk_search::most_samples * 4, kept_bytes = ceil_div(room, 16) * 64;
    const scratch_lease lease(counts_bytes + samples_bytes + 2 * kept_bytes + table.topk_scratch(&task));
    if (!lease.memory()) return NO_MEMORY;
    task.counts = reinterpret_cast<sc_topk_count *>(lease.memory());
    int32_t *const samples = reinterpret_cast<int32_t *>(lease.memory() + counts_bytes);
    float *const kept = reinterpret_cast<float *>(lease.memory() + counts_bytes + samples_bytes);
    float *const other = kept + kept_bytes / (int64_t)sizeof(float);
    char *const own = lease.memory() + counts_bytes + samples_bytes + 2 * kept_bytes;

    topk_call call = {table, task, threads, own, interrupt, 0};
    topk_search search(data, count, k);
    bool nan = false;
    status done = call.find(search, samples, kept, other, room, nan);
    task.data = data, task.count = count;
    if (done == OK && !nan && task.mask) done = call.mask(search);
    result = {nan ? NAN : value_of(search.key()), call.passes};
    return done;
}

int run_above_mask(const sc_table &table, sc_topk_task &task, int threads, int (*signals)()) {
    interruption interrupt(signals);
    task.interrupt = {interruption::poll, &interrupt};
    const scratch_lease lease(64);  // the kernel needs none; the lease marks the call
    task.low = task.high, task.tie_item = task.tie_count = 0;
    return spread(table.topk_mask, task, ceil_div(task.count, SC_TOPK_ITEM), threads, 0, lease.memory(), interrupt);
}

int run_stochastic_prune(const sc_table &table, sc_stochastic_task &task, int threads, int (*signals)()) {
    interruption interrupt(signals);
    task.interrupt = {interruption::poll, &interrupt};
    const scratch_lease lease(64);  // the kernel needs none; the lease marks the call
    const int64_t items = ceil_div(task.count, SC_STOCHASTIC_ITEM);
    return spread(table.stochastic_prune, task, items, threads, 0, lease.memory(), interrupt);
}

}  // namespace sparseconv
