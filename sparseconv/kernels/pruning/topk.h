// Top-K: the sweeps over an array that find its K-th largest magnitude (pruning/topk_search.h says which), and the mask
// of the K largest ones.
//
// A sweep reads the array once: 40 MB at the 42 GB/s of one Zen 4 core are 0.95 ms, and the 7 cycles of a vector (three
// comparisons, two counts, one compressed store) are 1.2 ms. Few elements are inside the bracket, and they go through a
// room of the thread's own into the array that the next sweep reads.
#pragma once
#include "arrays/mask.h"
#include "common/tile.h"

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

// Items: SC_TOPK_ITEM elements each.
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

SC_INLINE void store_bools(uint8_t *bools, uint32_t bits) {
    const uint64_t eights[2] = {eight_bools(bits & 0xff), eight_bools(bits >> 8)};
    __builtin_memcpy(bools, eights, 16);
}

SC_INLINE void mask_above(const float *data, int64_t count, f32x16 limit, uint8_t *mask) {
    int64_t i = 0;
    for (; i + 16 <= count; i += 16) store_bools(mask + i, above(load(data + i), limit));
    if (i == count) return;
    uint8_t last[16];
    store_bools(last, above(load_partial(data + i, (int)(count - i)), limit));
    __builtin_memcpy(mask + i, last, (uint64_t)(count - i));
}

// mask[i]: whether element i is above `high`, or one of the kept ties. These are the first in memory: all of them in
// the items before tie_item, in that item the first tie_count, behind it none.
static void topk_mask(const sc_topk_task *whole, int64_t begin, int64_t end, void *) {
    const sc_topk_task task = *whole;
    const f32x16 low = splat(&task.low), high = splat(&task.high);
    for (int64_t item = begin; item < end; ++item) {
        if (item % 16 == 0 && task.interrupt.poll(task.interrupt.context)) return;
        const item_range range = elements_of(task, item);
        const bool all_ties = item < task.tie_item;
        mask_above(task.data + range.first, range.end - range.first, all_ties ? low : high, task.mask + range.first);
        if (item != task.tie_item) continue;
        int64_t ties = task.tie_count;
        for (int64_t i = range.first; ties; i += 16) {
            const int64_t left = range.end - i;
            const f32x16 a = left < 16 ? load_partial(task.data + i, (int)left) : load(task.data + i);
            uint32_t tied = above(a, low) & ~above(a, high);
            for (; tied && ties; tied &= tied - 1, --ties) task.mask[i + __builtin_ctz(tied)] = 1;
        }
    }
}

static int64_t topk_items(const sc_topk_task *task) { return ceil_div(task->count, SC_TOPK_ITEM); }

SC_CLOSE
