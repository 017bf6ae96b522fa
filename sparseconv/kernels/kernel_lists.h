// Lists of nonzero weights for kernel_weights.h: for each row (out channel in forward, in channel in backward_data) its
// nonzeros in the order (class of taps, channel, tap).
//
// Two passes over the weights, items (rows) side by side: count_lists counts the nonzeros of each block of channels,
// fill_lists appends the records at running places. Neither has a branch on a weight: every weight is written to the
// end of its list, which then grows by one or by nothing. Hence the record behind each list. Several rows of an item
// take turns at each channel, so that in backward_data, where a row's weights are `taps` floats here and there, memory
// is read in order.
#pragma once
#include "tile.h"

SC_OPEN

SC_INLINE uint32_t bits_of(float value) {
    uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    return bits;
}
// By the bits, so that denormals count as zeros whatever the floating-point mode: the kernels flush them.
SC_INLINE bool is_live(float value) { return (bits_of(value) & 0x7fffffff) > 0x007fffff; }
SC_INLINE bool is_finite(float value) { return (bits_of(value) & 0x7f800000) != 0x7f800000; }

// The rows of one work item, and where their weights lie.
struct list_rows {
    const sc_lists &lists;
    const sc_lists_task &task;
    int64_t first, count;  // over all groups
    const float *data;     // of the first row

    SC_INLINE_MEMBER list_rows(const sc_lists_task &whole, int64_t item) : lists(whole.lists), task(whole) {
        const int64_t rows = lists.rows / lists.groups, items = ceil_div(rows, task.item_rows);
        const int64_t row = item % items * task.item_rows;
        first = item / items * rows + row;
        count = smaller(task.item_rows, rows - row);
        data = task.data + item / items * task.group_stride + row * task.row_stride;
    }
    SC_INLINE_MEMBER int64_t *starts(int64_t list, int64_t row) const {
        return lists.starts + (list * lists.rows + first + row) * (lists.blocks + 1);
    }
};

// starts[block] = nonzeros of that block
static void count_lists(const sc_lists_task *task, int64_t begin, int64_t end, void *) {
    const sc_lists &lists = task->lists;
    for (int64_t item = begin; item < end; ++item) {
        const list_rows rows(*task, item);
        int64_t not_finite = 0;
        if (task->interrupt.poll(task->interrupt.context)) return;
        for (int64_t row = 0; row < rows.count; ++row) {
            for (int64_t list = 0; list < lists.classes; ++list) {
                for (int64_t block = 0; block < lists.blocks; ++block) rows.starts(list, row)[block] = 0;
            }
        }
        for (int64_t channel = 0; channel < lists.channels; ++channel) {
            for (int64_t row = 0; row < rows.count; ++row) {
                const float *data = rows.data + row * task->row_stride + channel * task->channel_stride;
                int64_t tap = 0;
                for (int64_t list = 0; list < lists.classes; ++list) {
                    int32_t count = 0, wrong = 0;
                    for (; tap < lists.class_ends[list]; ++tap) {
                        const float value = data[lists.class_taps[tap]];
                        count += is_live(value), wrong += !is_finite(value);
                    }
                    rows.starts(list, row)[channel / lists.block_channels] += count;
                    not_finite += wrong;
                }
            }
        }
        task->not_finite[item] = not_finite;
    }
}

static void fill_lists(const sc_lists_task *task, int64_t begin, int64_t end, void *) {
    const sc_lists &lists = task->lists;
    constexpr int64_t together = 32;  // at most so many rows take turns
    for (int64_t item = begin; item < end; ++item) {
        const list_rows rows(*task, item);
        if (task->interrupt.poll(task->interrupt.context)) return;
        for (int64_t list = 0; list < lists.classes; ++list) {
            const int64_t first = list ? lists.class_ends[list - 1] : 0, taps = lists.class_ends[list] - first;
            for (int64_t done = 0; done < rows.count; done += together) {
                const int64_t count = smaller(together, rows.count - done);
                sc_nonzero *next[together];
                for (int64_t row = 0; row < count; ++row) next[row] = lists.nonzeros + *rows.starts(list, done + row);
                for (int64_t channel = 0; channel < lists.channels; ++channel) {
                    const float *data = rows.data + done * task->row_stride + channel * task->channel_stride;
                    for (int64_t row = 0; row < count; ++row, data += task->row_stride) {
                        sc_nonzero *one = next[row];
                        for (int64_t i = 0; i < taps; ++i) {
                            const int64_t tap = lists.class_taps[first + i];
                            const float value = data[tap];
                            *one = {value, (uint32_t)(channel * lists.taps + tap)};
                            one += is_live(value);
                        }
                        next[row] = one;
                    }
                }
            }
        }
    }
}

SC_CLOSE
