// forward and backward_data of one output position, skipping zeros of the weights: linear layers at batch 1, and
// convolutions that leave one pixel of one image.
//
//   out[f] = end( bias[f] + sum over the nonzeros (value, index) of filter f of value * met[index] )
//
// met[channel * taps + tap] is the element of `in` that a weight meets, zero where that is padding: 4 bytes for each
// weight of a filter, so lists are read from their beginning to their end, whole, and nothing else comes from memory.
// The lanes of weights/weights.h would hold one position and 15 copies of nothing.
//
// A nonzero takes two loads and a scalar multiply-add, one cycle on CPUs with two loads of floats per cycle; four sums
// hide the latency of 4 cycles. The order of a sum depends on its list alone.
#pragma once
#include "common/epilogue.h"
#include "weights/skip.h"

SC_OPEN

static bool is_lone(const sc_weights_task &task) {
    return task.batch * task.map.out_rows * task.map.out_columns == 1;
}
SC_INLINE int64_t met_floats(const sc_weights_task &task) {
    return line(task.channels * task.map.outer_taps * task.map.inner_taps);
}

// What the taps of a group's channels meet. Returns through `reached` (by tap) whether that is no padding.
static void find_met(const sc_weights_task &task, int64_t group, float *met, int64_t *reached) {
    const sc_map &map = task.map;
    const int64_t taps = map.outer_taps * map.inner_taps, first = group * task.channels;
    for (int64_t tap = 0; tap < taps; ++tap) {
        const int64_t row = map.row_table[tap / map.inner_taps], place = task.tap_places[tap % map.inner_taps];
        int64_t index = 0;
        while (index < task.width && task.column_places[index] != place) ++index;
        const int64_t column = place >= 0 ? task.columns[index] : -1;
        reached[tap] = row >= 0 && column >= 0 && column < map.in_columns;
        const float *from = reached[tap] ? row_of(task.in, 0, row) + column * task.in.column_stride : nullptr;
        float *to = met + tap;
        if (!from) {
            for (int64_t i = 0; i < task.channels; ++i) to[i * taps] = 0;
        } else if (channels_contiguous(task.in)) {
            for (int64_t i = 0; i < task.channels; ++i) to[i * taps] = from[first + i];
        } else {
            for (int64_t i = 0; i < task.channels; ++i) to[i * taps] = from[channel_offset(task.in, first + i)];
        }
    }
}

// The list [one, end). Lists of 64 bytes a step are asked for 2 KB ahead: pages end where CPUs stop to follow.
SC_INLINE float sum_list(const sc_nonzero *one, const sc_nonzero *end, const float *met) {
    float sums[4] = {};
    for (; end - one >= 8; one += 8) {
        __builtin_prefetch(one + 256);
        SC_UNROLL for (int i = 0; i < 8; ++i) sums[i % 4] += one[i].value * met[one[i].index];
    }
    for (; one < end; ++one) sums[0] += one->value * met[one->index];
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// A share of a group's filters, [first, first + filters). `reached` has room for all taps.
static void lone_item(const sc_weights_task &task, int64_t group, int64_t first, int64_t filters, float *met,
                      int64_t *reached) {
    const sc_lists &lists = task.lists;
    find_met(task, group, met, reached);
    float *out = row_of(task.out, 0, 0);
    const float *residual = task.epilogue.residual.data ? row_of(task.epilogue.residual, 0, 0) : nullptr;
    for (int64_t i = 0; i < filters; ++i) {
        if (i % 64 == 0 && task.interrupt.poll(task.interrupt.context)) return;
        const int64_t filter = group * task.filters + first + i;
        float sum;
        begin_with_bias(task.epilogue, filter, 1, &sum);
        for (int64_t list = 0; list < lists.classes; ++list) {
            int64_t any = 0;
            for (int64_t tap = list ? lists.class_ends[list - 1] : 0; tap < lists.class_ends[list]; ++tap) {
                any |= reached[lists.class_taps[tap]];
            }
            const int64_t *starts = lists.starts + (list * lists.filters + filter) * (lists.blocks + 1);
            if (any) sum += sum_list(lists.nonzeros + starts[0], lists.nonzeros + starts[lists.blocks], met);
        }
        if (residual) sum += residual[channel_offset(task.epilogue.residual, filter)];
        out[channel_offset(task.out, filter)] = finished(sum, task.epilogue.relu);
    }
}

SC_CLOSE
