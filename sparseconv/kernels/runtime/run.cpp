#include "runtime/run.h"

#include <string.h>

#include <utility>

#include "pruning/topk_search.h"
#include "runtime/dispatch.h"
#include "runtime/threads.h"

namespace sparseconv {

namespace {

constexpr int64_t PACK_ALONE = 1 << 18;  // waking a thread costs more than packing 256 KB

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <class Task>
struct bound {  // a kernel with its task, as parallel() takes them
    const sc_kernel<Task> *kernel;
    const Task *task;
    static void work(const void *self, int64_t begin, int64_t end, void *scratch) {
        const bound *call = static_cast<const bound *>(self);
        call->kernel->run(call->task, begin, end, scratch);
    }
};

template <class Task>
status spread(const sc_kernel<Task> &kernel, const Task &task, int threads, void *scratch, interruption &interrupt) {
    const bound<Task> call = {&kernel, &task};
    const int64_t bytes = kernel.scratch(&task);
    return parallel(bound<Task>::work, &call, kernel.items(&task), threads, bytes, scratch, interrupt);
}

// Bytes that the caller leases for itself; at least a line, since the lease marks the call.
int64_t leased(int64_t bytes) { return std::max<int64_t>(bytes, 64); }

// A call of one kernel.
template <class Task>
int run_kernel(const sc_kernel<Task> &kernel, Task *task, int threads, sc_signals signals) {
    interruption interrupt(signals);
    task->interrupt = {interruption::poll, &interrupt};
    const scratch_lease lease(leased(kernel.scratch(task)));
    if (!lease.memory()) return SC_NO_MEMORY;
    return spread(kernel, *task, threads, lease.memory(), interrupt);
}

// The same as an entry of sc_api, and of sc_convolutions: of a kernel that is found in the table.
template <auto FAMILY, auto KERNEL, class Task>
int run(Task *task, int threads, sc_signals signals) {
    return run_kernel(active()->*FAMILY.*KERNEL, task, threads, signals);
}

template <auto FAMILY, auto KERNEL, class Task>
int run_bound(const sc_table *table, Task *task, int threads, sc_signals signals) {
    return run_kernel(table->*FAMILY.*KERNEL, task, threads, signals);
}

// A call that packs weights first: into the memory in front of its scratch, which the task gets to know as `packed`.
template <class Task>
status pack(const sc_kernel<Task> &packing, Task &task, int64_t bytes, int threads, const scratch_lease &lease,
            interruption &interrupt) {
    task.packed = reinterpret_cast<float *>(lease.memory());
    return spread(packing, task, bytes < PACK_ALONE ? 1 : threads, lease.memory() + bytes, interrupt);
}

// Copies of numbers must keep denormals, which the pool flushes: they would even count as zeros.
struct exact_copy {
    const sc_kernel<sc_compress_task> *kernel;
    const sc_compress_task *task;
    static void work(const void *self, int64_t begin, int64_t end, void *scratch) {
        const float_state_scope exact(usual_float_state);
        const exact_copy *call = static_cast<const exact_copy *>(self);
        call->kernel->run(call->task, begin, end, scratch);
    }
};

template <sc_kernel<sc_compress_task> sc_arrays_table::*KERNEL>
int copy(const sc_compress_task *task, int threads, sc_signals signals) {
    interruption interrupt(signals);
    const scratch_lease lease(leased(0));
    const sc_kernel<sc_compress_task> &kernel = active()->arrays.*KERNEL;
    const exact_copy call = {&kernel, task};
    return parallel(exact_copy::work, &call, kernel.items(task), threads, 0, lease.memory(), interrupt);
}

int count_blocks(const sc_compress_task *task, int threads, sc_signals signals) {
    task->offsets[0] = 0;
    const int result = copy<&sc_arrays_table::count_blocks>(task, threads, signals);
    const int64_t blocks = ceil_div(task->count, SC_COMPRESSED_BLOCK);
    for (int64_t i = 0; result == SC_OK && i < blocks; ++i) task->offsets[i + 1] += task->offsets[i];
    return result;
}

int compress(const sc_compress_task *task, int threads, sc_signals signals) {
    if (!task->counted) task->offsets[0] = 0, threads = 1;
    return copy<&sc_arrays_table::compress_blocks>(task, threads, signals);
}

// --- convolutions ---

const sc_rows_table &rows_of(const sc_table *table, const sc_rows_task *task) {
    return task->kernel == SC_ROWS_TILES    ? table->tiles->rows
           : task->kernel == SC_ROWS_OUTPUT ? table->outputs
                                            : table->rows;
}
const sc_gradient_table &gradient_of(const sc_table *table, const sc_gradient_task *task) {
    return task->kernel == SC_GRADIENT_TILES ? table->tiles->gradient : table->gradient;
}

// For each kind of task: what it needs beside its arrays, a run, and which of the arrays it takes.

sc_bytes bytes_of(const sc_table *table, const sc_rows_task *task) {
    const sc_rows_table &kernels = rows_of(table, task);
    return {task->pack_ahead ? kernels.packed_bytes(task) : 0, kernels.rows.scratch(task)};
}
sc_bytes bytes_of(const sc_table *table, const sc_gradient_task *task) {
    return {0, gradient_of(table, task).gradient.scratch(task)};
}
sc_bytes bytes_of(const sc_table *table, const sc_groups_task *task) {
    return {table->groups.packed_bytes(task), table->groups.rows.scratch(task)};
}
sc_bytes bytes_of(const sc_table *table, const sc_groups_gradient_task *task) {
    return {table->groups.sums_bytes(task), table->groups.gradient.scratch(task)};
}
sc_bytes bytes_of(const sc_table *table, const sc_weights_task *task) { return {0, table->weights.rows.scratch(task)}; }

int run_task(const sc_table *table, sc_rows_task *task, int threads, sc_signals signals) {
    interruption interrupt(signals);
    task->interrupt = {interruption::poll, &interrupt};
    const sc_rows_table &kernels = rows_of(table, task);
    const sc_bytes bytes = bytes_of(table, task);
    const scratch_lease lease(bytes.once + bytes.each);
    if (!lease.memory()) return SC_NO_MEMORY;
    if (task->pack_ahead) {
        const status result = pack(kernels.pack, *task, bytes.once, threads, lease, interrupt);
        if (result != SC_OK) return result;
    }
    return spread(kernels.rows, *task, threads, lease.memory() + bytes.once, interrupt);
}

int run_task(const sc_table *table, sc_gradient_task *task, int threads, sc_signals signals) {
    return run_kernel(gradient_of(table, task).gradient, task, threads, signals);
}

int run_task(const sc_table *table, sc_groups_task *task, int threads, sc_signals signals) {
    interruption interrupt(signals);
    task->interrupt = {interruption::poll, &interrupt};
    const sc_bytes bytes = bytes_of(table, task);
    const scratch_lease lease(bytes.once + bytes.each);
    if (!lease.memory()) return SC_NO_MEMORY;
    const status result = pack(table->groups.pack, *task, bytes.once, threads, lease, interrupt);
    if (result != SC_OK) return result;
    return spread(table->groups.rows, *task, threads, lease.memory() + bytes.once, interrupt);
}

int run_task(const sc_table *table, sc_groups_gradient_task *task, int threads, sc_signals signals) {
    interruption interrupt(signals);
    task->interrupt = {interruption::poll, &interrupt};
    const sc_bytes bytes = bytes_of(table, task);
    const scratch_lease lease(bytes.once + bytes.each);
    if (!lease.memory()) return SC_NO_MEMORY;
    task->sums = reinterpret_cast<float *>(lease.memory());
    char *own = lease.memory() + bytes.once;
    const status result = spread(table->groups.gradient, *task, threads, own, interrupt);
    if (result != SC_OK) return result;
    return spread(table->groups.store_gradient, *task, bytes.once < PACK_ALONE ? 1 : threads, own, interrupt);
}

int run_task(const sc_table *table, sc_weights_task *task, int threads, sc_signals signals) {
    return run_kernel(table->weights.rows, task, threads, signals);
}

float *floats(void *array) { return static_cast<float *>(array); }
const uint8_t *bytes(const void *array) { return static_cast<const uint8_t *>(array); }

template <class Task>  // forward and backward_data
void point_rows(Task *task, const sc_arrays &to) {
    task->in.data = floats(to.source), task->out.data = floats(to.out);
    task->epilogue.bias = floats(to.bias), task->epilogue.residual.data = floats(to.residual);
    task->epilogue.bits = static_cast<uint16_t *>(to.bits);
}
void point(sc_rows_task *task, const sc_arrays &to) {
    point_rows(task, to);
    task->weight.data = floats(to.weight), task->known.data = to.known, task->needed.data = to.needed;
}
void point(sc_groups_task *task, const sc_arrays &to) { point_rows(task, to), task->weight.data = floats(to.weight); }
void point(sc_weights_task *task, const sc_arrays &to) { point_rows(task, to); }
void point(sc_gradient_task *task, const sc_arrays &to) {
    task->a.data = floats(to.source), task->b.data = floats(to.weight), task->gradient.data = floats(to.out);
    task->known.data = to.known, task->needed = bytes(to.needed), task->needed_pairs = bytes(to.needed_pairs);
}
void point(sc_groups_gradient_task *task, const sc_arrays &to) {
    task->a.data = floats(to.source), task->b.data = floats(to.weight), task->gradient.data = floats(to.out);
}

// What `function` makes of a call's task; the one place that knows which one of the union it is.
template <class Call, class Function>
auto with_task(Call *call, const Function &function) {
    switch (call->kernel) {
    case SC_WEIGHTS_SKIP: return function(&call->task.weights);
    case SC_GROUPS_DENSE: return function(&call->task.groups);
    case SC_GRADIENT_GROUPS: return function(&call->task.groups_gradient);
    }
    return call->kernel < SC_WEIGHTS_SKIP ? function(&call->task.rows) : function(&call->task.gradient);
}

sc_bytes bytes_of_call(const sc_call *call) {
    return with_task(call, [=](const auto *task) { return bytes_of(call->table, task); });
}
void point_call(sc_call *call, const sc_arrays *to) {
    with_task(call, [=](auto *task) { point(task, *to); });
}
int run_call(sc_call *call, int threads, sc_signals signals) {
    return with_task(call, [=](auto *task) { return run_task(call->table, task, threads, signals); });
}
int64_t gradient_needed(const sc_table *table, const sc_gradient_task *task) { return table->gradient.needed(task); }

// --- prepared calls ---

bool aligned(const void *address, size_t bytes) { return reinterpret_cast<uintptr_t>(address) % bytes == 0; }

bool aligned(const sc_mask &mask) { return mask.kind != SC_MASK_FLOATS || aligned(mask.data, sizeof(float)); }
bool masks_aligned(const sc_rows_task *task) { return aligned(task->known) && aligned(task->needed); }
bool masks_aligned(const sc_gradient_task *task) { return aligned(task->known); }
bool masks_aligned(const void *) { return true; }

// The arrays, found in the caller's struct, which may be an older and shorter one.
int run_prepared(const sc_call *prepared, const sc_operands *given, int threads, sc_signals signals) {
    sc_operands operands;
    memset(&operands, 0, sizeof operands);
    memcpy(&operands, given, std::min(given->size, sizeof operands));
    bool good = true;
    const auto found = [&](size_t place, size_t bytes) {
        void *address = nullptr;
        if (!place) return address;
        memcpy(&address, reinterpret_cast<const char *>(&operands) + place, sizeof address);
        good = good && address && aligned(address, bytes);
        return address;
    };
    sc_arrays arrays = {};
    arrays.source = found(prepared->source, sizeof(float)), arrays.weight = found(prepared->weight, sizeof(float));
    arrays.bias = found(prepared->bias, sizeof(float)), arrays.residual = found(prepared->residual, sizeof(float));
    arrays.known = found(prepared->known, 1), arrays.needed = found(prepared->needed, 1);
    arrays.bits = found(prepared->bits, 1), arrays.out = found(offsetof(sc_operands, out), sizeof(float));
    sc_call call = *prepared;
    point_call(&call, &arrays);
    good = good && with_task(&call, [](const auto *task) { return masks_aligned(task); });
    return good ? run_call(&call, threads, signals) : SC_BAD_OPERANDS;
}

// --- Top-K ---

// A Top-K: sweeps over an array until topk_search knows the K-th largest, then the mask.
struct topk_call {
    const sc_pruning_table &kernels;
    sc_topk_task &task;
    const int threads;
    char *const scratch;  // of a thread
    interruption &interrupt;
    int64_t sweeps;

    // Over task.data: what all its items counted, in `result`.
    status sweep(bracket tried, int sweep_threads, sc_topk_count &result) {
        int64_t taken = 0;
        task.low = value_of(tried.low), task.high = value_of(tried.high), task.taken = &taken;
        const int64_t items = kernels.topk_narrow.items(&task);
        const status done = spread(kernels.topk_narrow, task, sweep_threads, scratch, interrupt);
        result = {};
        for (int64_t item = 0; done == SC_OK && item < items; ++item) {
            result.reached += task.counts[item].reached, result.inside += task.counts[item].inside;
            result.nan |= task.counts[item].nan;
        }
        ++sweeps;
        return done;
    }

    // What one sweep keeps in `spare` the next one reads, while `other` takes what that one keeps.
    status find(topk_search &search, int32_t *samples, float *spare, float *other, int64_t room, bool &nan) {
        const float *const data = task.data;
        while (!search.found()) {
            if (search.sortable()) {
                nan = !search.sort(samples);
                return SC_OK;
            }
            const bracket tried = search.next(samples, room);
            task.data = search.data, task.count = search.count;
            task.kept = spare, task.room = tried.high - tried.low > 1 ? room : 0;  // of one value no copies are needed
            sc_topk_count counted;
            const status done = sweep(tried, task.data == data ? threads : 1, counted);  // later sweeps are short
            nan = counted.nan;
            if (done != SC_OK || nan) return done;
            search.learn(tried, counted.reached, counted.inside, spare, counted.inside <= task.room);
            if (search.data == spare) std::swap(spare, other);
        }
        return SC_OK;
    }

    status mask(const topk_search &search) {
        const int64_t items = ceil_div(task.count, SC_TOPK_ITEM);
        const bracket last = {search.key() - 1, search.key()};
        int64_t tie_item = items, tie_count = search.kept_ties();
        if (search.kept_ties() < search.ties()) {  // where the last one of those that are kept lies
            task.room = 0;
            sc_topk_count counted;
            const status done = sweep(last, threads, counted);
            if (done != SC_OK) return done;
            for (tie_item = 0; tie_count > task.counts[tie_item].inside; ++tie_item) {
                tie_count -= task.counts[tie_item].inside;
            }
        }
        task.low = value_of(last.low), task.high = value_of(last.high);
        task.tie_item = tie_item, task.tie_count = tie_count;
        return spread(kernels.topk_mask, task, threads, scratch, interrupt);
    }
};

int run_topk(sc_topk_task *whole, int64_t k, sc_topk_result *result, int threads, sc_signals signals) {
    const sc_pruning_table &kernels = active()->pruning;
    sc_topk_task task = *whole;
    interruption interrupt(signals);
    task.interrupt = {interruption::poll, &interrupt};
    const float *const data = task.data;
    const int64_t count = task.count, room = std::min(count, count / 8 + SC_TOPK_ITEM);
    const int64_t counts_bytes = ceil_div(ceil_div(count, SC_TOPK_ITEM) * (int64_t)sizeof(sc_topk_count), 64) * 64;
    const int64_t samples_bytes = topk_search::most_samples * 4, kept_bytes = ceil_div(room, 16) * 64;
    const scratch_lease lease(counts_bytes + samples_bytes + 2 * kept_bytes + kernels.topk_narrow.scratch(&task));
    if (!lease.memory()) return SC_NO_MEMORY;
    task.counts = reinterpret_cast<sc_topk_count *>(lease.memory());
    int32_t *const samples = reinterpret_cast<int32_t *>(lease.memory() + counts_bytes);
    float *const kept = reinterpret_cast<float *>(lease.memory() + counts_bytes + samples_bytes);
    float *const other = kept + kept_bytes / (int64_t)sizeof(float);
    char *const own = lease.memory() + counts_bytes + samples_bytes + 2 * kept_bytes;

    topk_call call = {kernels, task, threads, own, interrupt, 0};
    topk_search search(data, count, k);
    bool nan = false;
    status done = call.find(search, samples, kept, other, room, nan);
    task.data = data, task.count = count;
    if (done == SC_OK && !nan && task.mask) done = call.mask(search);
    *result = {nan ? NAN : value_of(search.key()), call.sweeps};
    return done;
}

int run_above_mask(sc_topk_task *task, int threads, sc_signals signals) {
    task->low = task->high, task->tie_item = task->tie_count = 0;
    return run<&sc_table::pruning, &sc_pruning_table::topk_mask>(task, threads, signals);
}

// --- functions without a status ---

int64_t count_above(const float *data, int64_t count, float threshold) {
    return active()->arrays.count_above(data, count, threshold);
}
void mask_nonzero(const float *data, int64_t count, uint8_t *bits) { active()->arrays.mask_nonzero(data, count, bits); }
void mask_relu(const float *data, int64_t count, float *out, uint8_t *bits) {
    active()->arrays.mask_relu(data, count, out, bits);
}
void mask_unpack(const uint8_t *bits, int64_t count, uint8_t *bools) {
    active()->arrays.mask_unpack(bits, count, bools);
}
int64_t mask_live_vectors(const float *data, int64_t count, int64_t width) {
    return active()->arrays.mask_live_vectors(data, count, width);
}
void mask_any(const uint8_t *bools, int64_t count, int64_t width, uint8_t *any) {
    active()->arrays.mask_any(bools, count, width, any);
}
const char *isa_name() { return active()->name; }

constexpr sc_convolutions convolutions = {
    active, bytes_of_call, point_call, run_call, gradient_needed,
    run_bound<&sc_table::weights, &sc_weights_table::count>, run_bound<&sc_table::weights, &sc_weights_table::fill>,
};

constexpr sc_api api = {
    SC_API_VERSION, sizeof(sc_api), &convolutions, isa_name, sparseconv_get_num_threads, run_prepared,
    run<&sc_table::arrays, &sc_arrays_table::bias_gradient>,
    count_above, mask_nonzero, mask_relu, mask_unpack, mask_live_vectors, mask_any,
    count_blocks, compress, copy<&sc_arrays_table::expand_blocks>,
    run<&sc_table::pruning, &sc_pruning_table::nm_mask>,
    run<&sc_table::pruning, &sc_pruning_table::transposable_mask>,
    run_topk, run_above_mask,
    run<&sc_table::pruning, &sc_pruning_table::stochastic_prune>,
};

}  // namespace

}  // namespace sparseconv

const sc_api *sparseconv_api() { return &sparseconv::api; }
