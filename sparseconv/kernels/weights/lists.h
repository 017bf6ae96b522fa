// Lists of nonzero weights for weights/weights.h: for each filter (out channel in forward, in channel in backward_data)
// its nonzeros in the order (class of taps, channel, tap).
//
// Two sweeps over the weights, items (filters) side by side: count_lists counts the nonzeros of each block of channels,
// fill_lists appends the records at running places. Neither has a branch on a weight: every weight is written to the
// end of its list, which then grows by one or by nothing. Hence the record behind each list. In backward_data, where a
// filter's weights are `taps` floats here and there, the filters of an item take turns, so that memory is read in
// order.
#pragma once
#include "common/tile.h"

SC_OPEN

SC_INLINE uint32_t bits_of(float value) {
    uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    return bits;
}
// By the bits, so that denormals count as zeros whatever the floating-point mode: the kernels flush them.
SC_INLINE bool is_live(float value) { return (bits_of(value) & 0x7fffffff) > 0x007fffff; }

// The filters of one work item, and where their weights lie.
struct list_filters {
    static constexpr int64_t most = 32;
    const sc_lists &lists;
    const sc_lists_task &task;
    int64_t first, count;  // over all groups
    const float *data;     // of the first filter

    SC_INLINE_MEMBER list_filters(const sc_lists_task &whole, int64_t item) : lists(whole.lists), task(whole) {
        const int64_t filters = lists.filters / lists.groups, items = ceil_div(filters, task.item_filters);
        const int64_t filter = item % items * task.item_filters;
        first = item / items * filters + filter;
        count = smaller(task.item_filters, filters - filter);
        data = task.data + item / items * task.group_stride + filter * task.filter_stride;
    }
    // Whether a filter's weights lie side by side, in the order of its one list.
    SC_INLINE_MEMBER bool flat() const { return task.channel_stride == lists.taps && lists.classes == 1; }
    // All weights of the item, each filter having its turn: visit(filter, channel, data, count) with all taps of a
    // channel, or, if there is but one tap, with up to 16 channels, transposed.
    template <class Visit>
    SC_INLINE_MEMBER void walk(const Visit &visit) const {
        float turned[most][16];
        f32x16 block[16];
        for (int64_t channel = 0; lists.taps == 1 && channel < lists.channels; channel += 16) {
            const int channels = (int)smaller(16, lists.channels - channel);
            const float *next = data + channel * task.channel_stride;
            for (int64_t filter = 0; filter < count; filter += 16) {
                const int filters = (int)smaller(16, count - filter);
                load_block_transposed(block, next + filter * task.filter_stride, task.channel_stride, channels,
                                      task.filter_stride, filters);
                for (int i = 0; i < filters; ++i) store(turned[filter + i], block[i]);
            }
            for (int64_t filter = 0; filter < count; ++filter) visit(filter, channel, turned[filter], channels);
        }
        for (int64_t channel = 0; lists.taps > 1 && channel < lists.channels; ++channel) {
            const float *next = data + channel * task.channel_stride;
            for (int64_t filter = 0; filter < count; ++filter, next += task.filter_stride) {
                visit(filter, channel, next, lists.taps);
            }
        }
    }
    SC_INLINE_MEMBER int64_t *starts(int64_t list, int64_t filter) const {
        return lists.starts + (list * lists.filters + first + filter) * (lists.blocks + 1);
    }
};

// What count_lists wants to know of its weights, beside their number.
struct list_counts {
    bool finite = true, whole_rows = true;

    // The nonzeros of neighbouring weights. Words of 48 begin with an inner row of three, if there are such rows.
    SC_INLINE_MEMBER int64_t count(const float *data, int64_t weights) {
        int64_t found = 0;
        for (int64_t done = 0; done < weights; done += 48) {
            const int length = (int)smaller(48, weights - done);
            uint64_t word = 0;
            for (int i = 0; i < length; i += 16) {
                const f32x16 values = load_partial(data + done + i, (int)smaller(16, length - i));
                word |= (uint64_t)nonzero(values) << i;
                finite = finite && !nonzero(fma(values, zero(), zero()));  // NaN, from Inf and from NaN
            }
            const uint64_t all = word & word >> 1 & word >> 2 & 0x249249249249;
            whole_rows = whole_rows && word == (all | all << 1 | all << 2);
            found += __builtin_popcountll(word);
        }
        return found;
    }
};

// starts[block] = nonzeros of that block
static void count_lists(const sc_lists_task *task, int64_t begin, int64_t end, void *) {
    const sc_lists &lists = task->lists;
    const int shift = __builtin_ctzll(lists.block_channels);
    for (int64_t item = begin; item < end; ++item) {
        const list_filters filters(*task, item);
        list_counts counts;
        if (task->interrupt.poll(task->interrupt.context)) return;
        for (int64_t filter = 0; filter < filters.count; ++filter) {
            for (int64_t list = 0; list < lists.classes; ++list) {
                for (int64_t block = 0; block < lists.blocks; ++block) filters.starts(list, filter)[block] = 0;
            }
        }
        for (int64_t filter = 0; filter < filters.count && filters.flat(); ++filter) {
            const float *data = filters.data + filter * task->filter_stride;
            const int64_t weights = lists.channels * lists.taps, step = lists.block_channels * lists.taps;
            for (int64_t done = 0; done < weights; done += step) {
                filters.starts(0, filter)[done / step] = counts.count(data + done, smaller(step, weights - done));
            }
        }
        if (!filters.flat()) {
            filters.walk([&](int64_t filter, int64_t channel, const float *data, int64_t weights) {
                const int64_t found = counts.count(data, weights), block = channel >> shift;
                if (lists.classes == 1) {
                    filters.starts(0, filter)[block] += found;
                    return;
                }
                int64_t tap = 0;
                for (int64_t list = 0; list < lists.classes; ++list) {
                    for (; tap < lists.class_ends[list]; ++tap) {
                        filters.starts(list, filter)[block] += is_live(data[lists.class_taps[tap]]);
                    }
                }
            });
        }
        task->not_finite[item] = !counts.finite;
        task->not_whole[item] = !(counts.whole_rows && lists.inner_taps == 3 && lists.classes == 1);
    }
}

SC_INLINE sc_nonzero *append(sc_nonzero *to, float value, int64_t index) {
    *to = {value, (uint32_t)index};
    return to + is_live(value);
}

static void fill_lists(const sc_lists_task *task, int64_t begin, int64_t end, void *) {
    const sc_lists &lists = task->lists;
    for (int64_t item = begin; item < end; ++item) {
        const list_filters filters(*task, item);
        if (task->interrupt.poll(task->interrupt.context)) return;
        for (int64_t filter = 0; filter < filters.count && filters.flat(); ++filter) {
            const float *data = filters.data + filter * task->filter_stride;
            sc_nonzero *next = lists.nonzeros + *filters.starts(0, filter);
            for (int64_t i = 0; i < lists.channels * lists.taps; ++i) next = append(next, data[i], i);
        }
        for (int64_t list = 0; list < lists.classes && !filters.flat(); ++list) {
            const int64_t first = list ? lists.class_ends[list - 1] : 0, taps = lists.class_ends[list] - first;
            const int64_t *places = lists.class_taps + first;
            sc_nonzero *next[list_filters::most];
            for (int64_t filter = 0; filter < filters.count; ++filter) {
                next[filter] = lists.nonzeros + *filters.starts(list, filter);
            }
            filters.walk([&](int64_t filter, int64_t channel, const float *data, int64_t weights) {
                sc_nonzero *one = next[filter];
                const int64_t index = channel * lists.taps;
                if (lists.classes == 1) {
                    for (int64_t i = 0; i < weights; ++i) one = append(one, data[i], index + i);
                } else {
                    for (int64_t i = 0; i < taps; ++i) one = append(one, data[places[i]], index + places[i]);
                }
                next[filter] = one;
            });
        }
    }
}

static int64_t lists_items(const sc_lists_task *task) {
    const sc_lists &lists = task->lists;
    return lists.groups * ceil_div(lists.filters / lists.groups, task->item_filters);
}

SC_CLOSE
