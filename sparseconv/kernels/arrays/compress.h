// Packed nonzeros: an array as a bit mask (arrays/mask.h), its nonzero elements one after the other, and for each block
// of SC_COMPRESSED_BLOCK elements how many come before it, so that blocks are packed and expanded in any order.
//
// One vector at a time: 16 bits, and as many values behind the last ones. Both directions wait for memory alone. An
// item is ITEM_BLOCKS blocks (256 KB): less is not worth waking a thread.
//
// Threads can write their values side by side only if they know where: count_blocks reads the array ahead of them. One
// thread needs no such sweep and is 1.5 (13 MB, in L3) to 2 times (100 MB) as fast without it, as fast as two threads
// with it; so compressed.py counts for three threads and more. Tried and left out: threads that pack without counting,
// each into a room of its own, and move their values together afterwards. With two threads on AVX-512 that was 1.0 to
// 1.6 times as fast as counting, on AVX2 0.7 to 1.1 times, and one thread has the more to move the more there are.
#pragma once
#include "arrays/mask.h"
#include "common/tile.h"

SC_OPEN

enum { ITEM_BLOCKS = SC_COMPRESSED_ITEM / SC_COMPRESSED_BLOCK };

struct block_range {
    int64_t first, end;
};

SC_INLINE block_range blocks_of(const sc_compress_task &task, int64_t begin, int64_t end) {
    const int64_t blocks = (task.count + SC_COMPRESSED_BLOCK - 1) / SC_COMPRESSED_BLOCK;
    return {begin * ITEM_BLOCKS, smaller(end * ITEM_BLOCKS, blocks)};
}

SC_INLINE int64_t end_of(const sc_compress_task &task, int64_t block) {
    return smaller((block + 1) * SC_COMPRESSED_BLOCK, task.count);
}

// offsets[block + 1]: the nonzeros of each block
static void count_blocks(const sc_compress_task *whole, int64_t begin, int64_t end, void *) {
    const sc_compress_task task = *whole;
    const block_range blocks = blocks_of(task, begin, end);
    for (int64_t block = blocks.first; block < blocks.end; ++block) {
        const int64_t first = block * SC_COMPRESSED_BLOCK;
        task.offsets[block + 1] = count_above(task.dense + first, end_of(task, block) - first, 0);
    }
}

static void compress_blocks(const sc_compress_task *whole, int64_t begin, int64_t end, void *) {
    const sc_compress_task task = *whole;  // its own, so that stores of bytes do not make the compiler read it again
    const block_range blocks = blocks_of(task, begin, end);
    for (int64_t block = blocks.first; block < blocks.end; ++block) {
        float *to = task.packed + task.offsets[block];
        // Whole vectors are stored as long as that does not reach the next block, which another thread may have done.
        const float *const limit = task.packed + (task.counted ? task.offsets[block + 1] : task.count + 16);
        const int64_t last = end_of(task, block);
        for (int64_t i = block * SC_COMPRESSED_BLOCK; i < last; i += 16) {
            const int64_t left = last - i;
            const f32x16 a = left < 16 ? load_partial(task.dense + i, (int)left) : load(task.dense + i);
            const uint32_t live = nonzero(a);
            store_bits(task.bits + i / 8, live, left);
            if (limit - to >= 16) {
                compress(to, a, live);
            } else {
                float vector[16];
                compress(vector, a, live);
                store_partial(to, load(vector), (int)(limit - to));
            }
            to += __builtin_popcount(live);
        }
        if (!task.counted) task.offsets[block + 1] = to - task.packed;
    }
}

template <bool STREAM>
SC_INLINE void expand_block(const sc_compress_task &task, int64_t block) {
    const float *from = task.packed + task.offsets[block];
    const int64_t last = end_of(task, block);
    for (int64_t i = block * SC_COMPRESSED_BLOCK; i < last; i += 16) {
        const int64_t left = last - i;
        const uint32_t live = task.bits[i / 8] | (left > 8 ? (uint32_t)task.bits[i / 8 + 1] << 8 : 0);
        const f32x16 a = expand(from, live);
        if (left < 16) store_partial(task.dense + i, a, (int)left);
        else if (STREAM) store_stream(task.dense + i, a);
        else store(task.dense + i, a);
        from += __builtin_popcount(live);
    }
}

static void expand_blocks(const sc_compress_task *whole, int64_t begin, int64_t end, void *) {
    const sc_compress_task task = *whole;
    const block_range blocks = blocks_of(task, begin, end);
    // Past the caches where they would not hold the result: 1.2 to 1.5 times as fast at 100 MB, 0.7 times at 13 MB.
    const bool stream = task.count >= SC_COMPRESSED_STREAM && (uintptr_t)task.dense % 64 == 0;
    for (int64_t block = blocks.first; block < blocks.end; ++block) {
        if (stream) expand_block<true>(task, block);
        else expand_block<false>(task, block);
    }
    if (stream) end_streams();
}

// Where nothing was counted they are to be done one after the other.
static int64_t compress_items(const sc_compress_task *task) { return ceil_div(task->count, SC_COMPRESSED_ITEM); }

SC_CLOSE
