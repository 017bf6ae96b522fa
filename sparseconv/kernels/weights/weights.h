// forward and backward_data, skipping zeros of the weights: the loops around weights/skip.h.
//
//   out[line, p + m * phases, f] = end( bias[f] + sum over the nonzeros (value, channel c, outer tap, tap) of filter f
//                                       of value * in[row_table[row of line][outer tap], column of (p, tap, m), c] )
//
// A weight is a scalar here, so vectors must hold 16 outputs that meet it alike: 16 *lines*, segments of output rows,
// each of which is a lane's own. All lines stand in one list (image, segment, row), cut into 16 equal pieces; at step i
// every lane is at the i-th line of its piece. With 16 images a lane is an image.
//
// Loop order, outermost first, and what each level re-uses:
//   item           (group, chunk of steps, share of the filters): independent, no thread meets another
//   step           the input rows that its outer taps meet lie packed in slots, [slot][channel][place][lane]; a slot is
//                  kept as long as the next steps meet the same 16 rows (L2)
//   phase          output columns that meet input columns at the same distances
//   class          taps that can meet this phase and these rows
//   channel block  its columns of all slots, L1
//   filter         its nonzeros in the block, in order; sums of all filters lie in [filter][m][lane], L2
//
// The order of the sum for one output (class, channel block, channel, tap) depends on channel_block alone. Of up to
// four columns, which have few sums to keep a CPU busy, nonzeros go in turns to two or four of them. Padding is
// packed as zeros: times a finite weight they add nothing. Weights with Inf or NaN are for other kernels. One output
// position has a kernel of its own, weights/lone.h.
#pragma once
#include "common/epilogue.h"
#include "weights/lane_lines.h"
#include "weights/lists.h"
#include "weights/lone.h"
#include "weights/skip.h"

SC_OPEN

// What a work item keeps in its scratch memory.
struct weights_scratch {
    float *x;          // [slot][channel][place][lane]
    float *sums;       // [filter][m][lane]
    float *bias;       // of the share's filters
    int64_t *offsets;  // [channel of a block][tap], from the block's first channel
    int64_t *keys;     // [slot][lane]: which row lies there
    int64_t *slots;    // [outer tap]
    int64_t *live;     // [slot]: 0 if no lane has a row there

    // floats of each part, rounded to cache lines
    struct sizes {
        int64_t x, sums, bias, offsets, keys, slots;
        int64_t total() const { return x + sums + bias + offsets + keys + 2 * slots; }
    };
    static sizes measure(const sc_weights_task &task) {
        const int64_t outer = task.map.outer_taps, filters = ceil_div(task.filters, task.shares);
        const int64_t x = outer * task.channels * task.width * 16;
        return {is_lone(task) ? met_floats(task) : x, filters * task.tile * 16, line(filters),
                line(2 * task.channel_block * outer * task.map.inner_taps), outer * 32, line(2 * outer)};
    }

    weights_scratch(const sc_weights_task &task, void *memory) {
        const sizes size = measure(task);
        float *next = (float *)memory;
        x = next, next += size.x;
        sums = next, next += size.sums;
        bias = next, next += size.bias;
        offsets = (int64_t *)next, next += size.offsets;
        keys = (int64_t *)next, next += size.keys;
        slots = (int64_t *)next, next += size.slots;
        live = (int64_t *)next;
    }
};

static int64_t weights_scratch_bytes(const sc_weights_task *task) {
    return weights_scratch::measure(*task).total() * (int64_t)sizeof(float);
}

// Where each lane is at one step.
struct lane_places {
    int64_t image[16], segment[16], row[16];  // row -1: the list of lines is at its end

    SC_INLINE_MEMBER lane_places(const sc_weights_task &task, int64_t step, int64_t steps) {
        const int64_t rows = task.map.out_rows, lines = task.batch * task.segments * rows;
        for (int lane = 0; lane < 16; ++lane) {
            const int64_t line = lane * steps + step;
            row[lane] = line < lines ? line % rows : -1;
            image[lane] = line / rows / task.segments, segment[lane] = line / rows % task.segments;
        }
    }
};

static void pack_slot(const sc_weights_task &task, int64_t group, const lane_places &places, int64_t tap, float *to) {
    static const float zeros[16] = {};
    lane_line lines[16];
    for (int lane = 0; lane < 16; ++lane) {
        const int64_t row = places.row[lane];
        const int64_t in = row < 0 ? -1 : task.map.row_table[row * task.map.outer_taps + tap];
        lines[lane].row = in < 0 ? nullptr : row_of(task.in, places.image[lane], in);
        lines[lane].column = places.segment[lane] * task.in_advance;
    }
    const line_columns columns = {task.map.in_columns, task.width, task.columns, task.column_places};
    gather_lines(to, task.in, lines, columns, group * task.channels, (group + 1) * task.channels, zeros);
}

SC_INLINE bool same_rows(const int64_t *a, const int64_t *b) {
    int64_t other = 0;
    for (int lane = 0; lane < 16; ++lane) other |= a[lane] ^ b[lane];
    return other == 0;
}

// Finds the slots of the rows that each outer tap meets at this step; those of earlier steps that no tap meets any more
// are filled with the missing ones.
static void find_slots(const sc_weights_task &task, int64_t group, const lane_places &places,
                       const weights_scratch &scratch) {
    const sc_map &map = task.map;
    constexpr int64_t wanted = -1;
    for (int strand = 0; strand < 2; ++strand) {  // first those that are there, so that they are not given away
        for (int64_t tap = 0; tap < map.outer_taps; ++tap) {
            int64_t key[16], any = 0;
            for (int lane = 0; lane < 16; ++lane) {
                const int64_t row = places.row[lane];
                const int64_t in = row < 0 ? -1 : map.row_table[row * map.outer_taps + tap];
                const int64_t image_row = places.image[lane] * map.in_rows + in;
                key[lane] = in < 0 ? -1 : image_row * task.segments + places.segment[lane];
                any |= in >= 0;
            }
            if (strand && scratch.slots[tap] != wanted) continue;
            int64_t slot = 0;
            while (slot < map.outer_taps && !same_rows(scratch.keys + slot * 16, key)) ++slot;
            if (slot == map.outer_taps && strand) {
                slot = 0;
                for (int64_t other = 0; other < map.outer_taps;) {
                    if (scratch.slots[other] == slot) ++slot, other = 0;
                    else ++other;
                }
                __builtin_memcpy(scratch.keys + slot * 16, key, sizeof key);
                scratch.live[slot] = any;
                pack_slot(task, group, places, tap, scratch.x + slot * task.channels * task.width * 16);
            }
            scratch.slots[tap] = slot == map.outer_taps ? wanted : slot;
        }
    }
}

// Where the nonzeros of a block of channels meet the packed columns of this phase.
static void find_offsets(const sc_weights_task &task, int64_t phase, const weights_scratch &scratch) {
    const sc_map &map = task.map;
    const int64_t pitch = task.width * 16;
    int64_t *offset = scratch.offsets;
    for (int64_t outer = 0; outer < map.outer_taps; ++outer) {
        const int64_t slot = scratch.slots[outer] * task.channels * pitch;
        for (int64_t tap = 0; tap < map.inner_taps; ++tap) {
            offset[outer * map.inner_taps + tap] = slot + task.tap_places[phase * map.inner_taps + tap] * 16;
        }
    }
    const int64_t taps = task.lists.taps;
    for (int64_t i = taps; i < task.channel_block * taps; ++i) offset[i] = offset[i - taps] + pitch;
}

// Whether a class of taps meets this phase in any lane.
static bool class_meets(const sc_weights_task &task, int64_t phase, int64_t list, const weights_scratch &scratch) {
    const sc_lists &lists = task.lists;
    for (int64_t i = list ? lists.class_ends[list - 1] : 0; i < lists.class_ends[list]; ++i) {
        const int64_t inner = task.map.inner_taps, outer = lists.class_taps[i] / inner;
        const int64_t place = task.tap_places[phase * inner + lists.class_taps[i] % inner];
        if (scratch.live[scratch.slots[outer]] && place >= 0) return true;
    }
    return false;
}

// Whole rows of nonzeros are for a kernel of their own, if their taps meet neighbouring columns (not with strides).
template <class Vector>
SC_INLINE weights_kernel kernel_for(const sc_weights_task &task, int64_t phase) {
    if constexpr (Vector::accumulators >= 16) {  // fewer registers are none to hold columns
        if (task.lists.whole_rows) {
            const int64_t *places = task.tap_places + phase * 3, step = places[1] - places[0];
            if (step == 1 && places[2] - places[1] == 1) return weights_kernel_for<whole_rows<false>>(task.tile);
            if (step == -1 && places[2] - places[1] == -1) return weights_kernel_for<whole_rows<true>>(task.tile);
        }
    }
    return weights_kernel_for<single_nonzeros>(task.tile);
}

// All filters of a share at one step and phase. Returns false if the call was interrupted.
static bool finish_phase(const sc_weights_task &task, int64_t group, int64_t first_filter, int64_t filters,
                         int64_t phase, const weights_scratch &scratch) {
    const sc_lists &lists = task.lists;
    const weights_kernel kernel = kernel_for<f32x16>(task, phase);
    filter_sweep sweep = {};
    sweep.nonzeros = lists.nonzeros, sweep.starts_pitch = lists.blocks + 1, sweep.filters = filters;
    sweep.sums = scratch.sums, sweep.bias = scratch.bias;
    const int64_t together = task.channel_block / lists.block_channels;
    bool offsets_found = false;
    for (int64_t list = 0; list < lists.classes; ++list) {
        if (!class_meets(task, phase, list, scratch)) continue;
        if (!offsets_found) find_offsets(task, phase, scratch), offsets_found = true;
        const int64_t row = list * lists.filters + group * task.filters + first_filter;
        for (int64_t block = 0; block < lists.blocks; block += together) {
            if (task.interrupt.poll(task.interrupt.context)) return false;
            const int64_t channel = block * lists.block_channels;
            sweep.x = scratch.x + channel * task.width * 16;
            sweep.offsets = scratch.offsets - channel * lists.taps;
            sweep.starts = lists.starts + row * sweep.starts_pitch + block;
            sweep.blocks = smaller(together, lists.blocks - block);
            kernel(sweep);
            sweep.bias = nullptr;
        }
    }
    if (sweep.bias) {  // nothing reaches these outputs
        sweep.starts = lists.starts, sweep.starts_pitch = 0, sweep.blocks = 0;
        kernel(sweep);
    }
    return true;
}

static void weights_item(const sc_weights_task &task, int64_t item, const weights_scratch &scratch) {
    const sc_map &map = task.map;
    const int64_t steps = ceil_div(task.batch * task.segments * map.out_rows, 16);
    const int64_t chunks = ceil_div(steps, task.chunk_steps);
    const int64_t share = item % task.shares, group = item / task.shares / chunks;
    const int64_t begin = item / task.shares % chunks * task.chunk_steps;
    const int64_t end = smaller(steps, begin + task.chunk_steps);
    const int64_t first_filter = part_begin(task.filters, task.shares, share);
    const int64_t filters = part_begin(task.filters, task.shares, share + 1) - first_filter;
    const int64_t channel = group * task.filters + first_filter;
    if (is_lone(task)) return lone_item(task, group, first_filter, filters, scratch.x, scratch.offsets);
    begin_with_bias(task.epilogue, channel, filters, scratch.bias);
    for (int64_t i = 0; i < map.outer_taps * 16; ++i) scratch.keys[i] = -2;  // no row

    const sc_view &out = task.out, &residual = task.epilogue.residual;
    const int64_t steps_between = out.image_stride | out.column_stride | out.block_stride;  // of pixels
    bool stream = past_caches(out, task.epilogue) && out.channel_stride == 1 && channel % 16 == 0;
    stream = stream && ((uintptr_t)out.data | steps_between * sizeof(float)) % 64 == 0;
    for (int64_t row = 0; stream && row < map.out_rows; ++row) stream = out.rows[row] % 16 == 0;

    for (int64_t step = begin; step < end; ++step) {
        const lane_places places(task, step, steps);
        for (int64_t tap = 0; tap < map.outer_taps; ++tap) scratch.slots[tap] = -1;
        find_slots(task, group, places, scratch);
        for (int64_t phase = 0; phase < task.phases; ++phase) {
            if (!finish_phase(task, group, first_filter, filters, phase, scratch)) return;
            lane_line lines[16];
            const float *residuals[16] = {};
            for (int lane = 0; lane < 16; ++lane) {
                const bool there = places.row[lane] >= 0;
                lines[lane].row = there ? row_of(task.out, places.image[lane], places.row[lane]) : nullptr;
                if (there && residual.data) residuals[lane] = row_of(residual, places.image[lane], places.row[lane]);
                lines[lane].column = places.segment[lane] * task.tile * task.phases;
            }
            const out_columns columns = {map.out_columns, phase, task.phases, task.tile, stream};
            scatter_lines(scratch.sums, task.out, lines, task.epilogue, residuals, columns, channel, channel + filters);
        }
    }
}

static void weights(const sc_weights_task *task, int64_t begin, int64_t end, void *memory) {
    const weights_scratch scratch(*task, memory);
    for (int64_t item = begin; item < end; ++item) weights_item(*task, item, scratch);
    if (task->epilogue.stream) end_streams();
}

static int64_t weights_items(const sc_weights_task *task) {
    const int64_t steps = ceil_div(task->batch * task->segments * task->map.out_rows, 16);
    return task->groups * ceil_div(steps, task->chunk_steps) * task->shares;
}

static constexpr sc_weights_table weights_table = {
    {count_lists, lists_items, no_scratch}, {fill_lists, lists_items, no_scratch},
    {weights, weights_items, weights_scratch_bytes},
};

SC_CLOSE
