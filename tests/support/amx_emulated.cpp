// The AMX kernels on emulated tile registers, as a library for amx_emulated.py: with the vector kernels of
// SC_VECTOR_ISA, and with guarded memory for scratch.
#include SC_SIMD_HEADER
#include "tiles_emulated.h"
#include "amx/kernels.h"

#include "runtime/dispatch.h"
#include "runtime/run.h"

extern "C" {
int64_t emulated_products = 0, emulated_loads = 0, emulated_sums = 0, emulated_users = 0;
int emulated_fault = 0;   // tile products come out wrong
int emulated_stop = 0;    // what a signal handler says
int emulated_fp16 = 0;    // calls are those of AMX-FP16
}

namespace {

int signals() { return emulated_stop; }

sc_table with(const sc_tile_table &tiles) {
    sc_table copy = sparseconv::SC_VECTOR_ISA::table;
    copy.tiles = &tiles;
    return copy;
}
const sc_table &table() {
    static const sc_table bf16 = with(sparseconv::SC_ISA::tiles), fp16 = with(sparseconv::SC_ISA::fp16_tiles);
    return emulated_fp16 ? fp16 : bf16;
}

const sc_convolutions &calls() { return *sparseconv_api()->convolutions; }

sc_call call_of(const sc_rows_task *task) {
    sc_call call = {};
    call.table = &table(), call.kernel = task->kernel, call.task.rows = *task;
    return call;
}
sc_call call_of(const sc_gradient_task *task) {
    sc_call call = {};
    call.table = &table(), call.kernel = task->kernel, call.task.gradient = *task;
    return call;
}

template <class Task>
int run(const Task *task, int threads) {
    sc_call call = call_of(task);
    return calls().run(&call, threads, signals);
}

template <class Task>
sc_bytes bytes(const Task *task) {
    const sc_call call = call_of(task);
    return calls().bytes(&call);
}

}  // namespace

// What the runtime takes where a call names no table.
namespace sparseconv {
const sc_table *active() { return &table(); }
}

extern "C" {
int emulated_rows(sc_rows_task *task, int threads) { return run(task, threads); }
int emulated_gradient(sc_gradient_task *task, int threads) { return run(task, threads); }
int64_t emulated_rows_scratch(sc_rows_task *task) { return bytes(task).each; }
int64_t emulated_rows_packed(sc_rows_task *task) { return bytes(task).once; }
int64_t emulated_gradient_scratch(sc_gradient_task *task) { return bytes(task).each; }
int64_t emulated_summed() { return sparseconv::SC_ISA::TILE_CHANNELS; }
const sc_tile_table *emulated_tiles() { return table().tiles; }
int64_t emulated_works() { return table().tiles->works(); }
int64_t emulated_size(int which) { return which ? sizeof(sc_gradient_task) : sizeof(sc_rows_task); }
}
