// Top-K: the passes over an array that find its K-th largest magnitude (topk_search.h says which), and the mask of the K
// largest ones.
//
// A pass reads the array once: 40 MB at the 42 GB/s of one Zen 4 core are 0.95 ms, and the 7 cycles of a vector (three
// comparisons, two counts, one compressed store) are 1.2 ms. Few elements are inside the bracket, and they go through a
// room of the thread's own into the array that the next pass reads.
#pragma once
#include "kernel_mask.h"
#include "tile.h"

SC_OPEN

struct item_range {
    int64_t first, end;
};

SC_INLINE item_range elements_of(const sc_topk_task &task, int64_t item) {
    return {item * SC_TOPK_ITEM, smaller((item + 1) * SC_TOPK_ITEM, task.count)};
}

// One item: counts what is above the bracket's ends and writes what lies between them to `to`, with 16 floats to spare.
static sc_topk_count narrow_item(const sc_topk_task &task, item_range range, float *to) {
    const float infinity = __builtin_inff();
    const f32x16 low = splat(&task.low), high = splat(&task.high), largest = splat(&infinity);
    const float *const start = to;
    int64_t reached = 0;
    uint32_t nan = 0;
    for (int64_t i = range.first; i < range.end; i += 16) {
        const int64_t left = range.end - i;
        const uint32_t lanes = left < 16 ? (1u << left) - 1 : 0xffff;
        const f32x16 a = left < 16 ? load_partial(task.data + i, (int)left) : load(task.data + i);
        const uint32_t above_low = above(a, low) & lanes, inside = above_low & ~above(a, high);
        compress(to, a, inside);
        to += __builtin_popcount(inside), reached += __builtin_popcount(above_low);
        nan |= above(a, largest);
    }
    return {reached, to - start, nan != 0};
}

// Items: SC_TOPK_ITEM elements each. `kept` may be the array itself if one thread does all items: what is written was
// read before.
static void topk_narrow(const sc_topk_task *whole, int64_t begin, int64_t end, void *scratch) {
    const sc_topk_task task = *whole;
    float *const inside = (float *)scratch;
    for (int64_t item = begin; item < end; ++item) {
        if (item % 16 == 0 && task.interrupt.poll(task.interrupt.context)) return;
        const sc_topk_count count = narrow_item(task, elements_of(task, item), inside);
        task.counts[item] = count;
        const int64_t place = __atomic_fetch_add(task.taken, count.inside, __ATOMIC_RELAXED);
        if (place + count.inside > task.room) continue;  // all are counted; who needs them comes again
        __builtin_memcpy(task.kept + place, inside, (uint64_t)count.inside * sizeof(float));
    }
}

static int64_t topk_scratch(const sc_topk_task *) { return (SC_TOPK_ITEM + 16) * (int64_t)sizeof(float); }

SC_INLINE void store_bools(uint8_t *bools, uint32_t bits, int64_t count) {
    const uint64_t halves[2] = {eight_bools(bits & 0xff), eight_bools(bits >> 8)};
    if (count >= 16) __builtin_memcpy(bools, halves, 16);
    else __builtin_memcpy(bools, halves, (uint64_t)count);
}

// mask[i]: whether element i is above `high`, or a tie (above `low`) that is among the kept ones, the first in memory.
static void topk_mask(const sc_topk_task *whole, int64_t begin, int64_t end, void *) {
    const sc_topk_task task = *whole;
    const f32x16 low = splat(&task.low), high = splat(&task.high);
    for (int64_t item = begin; item < end; ++item) {
        if (item % 16 == 0 && task.interrupt.poll(task.interrupt.context)) return;
        const item_range range = elements_of(task, item);
        int64_t ties = item < task.tie_item ? task.count : item == task.tie_item ? task.tie_count : 0;
        for (int64_t i = range.first; i < range.end; i += 16) {
            const int64_t left = range.end - i;
            const f32x16 a = left < 16 ? load_partial(task.data + i, (int)left) : load(task.data + i);
            const uint32_t larger = above(a, high);
            uint32_t tied = ties ? above(a, low) & ~larger : 0;
            if (left < 16) tied &= (1u << left) - 1;
            while (__builtin_popcount(tied) > ties) tied ^= 1u << (31 - __builtin_clz(tied));
            ties -= __builtin_popcount(tied);
            store_bools(task.mask + i, larger | tied, left);
        }
    }
}

SC_CLOSE
