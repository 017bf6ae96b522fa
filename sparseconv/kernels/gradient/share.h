// A work item of backward_weight: the part of the gradient that it owns from the first position to the last.
#pragma once
#include "common/weight_tile.h"
#include "gradient/mask.h"

SC_OPEN

// Items: groups * lane superblocks * channel blocks.
SC_INLINE int64_t gradient_items(const sc_gradient_task *task) {
    const int64_t supers = ceil_div(lane_blocks(task->lanes, task->lane_vectors).count, task->lane_blocks);
    return task->groups * supers * ceil_div(task->channels, task->channel_block);
}

struct gradient_share {
    lane_blocks blocks;
    int64_t group, channel, channels;  // of A, within the group
    int64_t first_block, end_block;    // of B
    int64_t tile_floats;               // between the sums of two lane blocks

    SC_INLINE_MEMBER gradient_share(const sc_gradient_task &task, int64_t item)
        : blocks(task.lanes, task.lane_vectors) {
        const int64_t supers = ceil_div(blocks.count, task.lane_blocks);
        const int64_t channel_blocks = ceil_div(task.channels, task.channel_block);
        channel = item % channel_blocks * task.channel_block, group = item / channel_blocks / supers;
        channels = smaller(task.channel_block, task.channels - channel);
        first_block = item / channel_blocks % supers * task.lane_blocks;
        end_block = smaller(blocks.count, first_block + task.lane_blocks);
        tile_floats = task.channel_block * task.map.outer_taps * task.map.inner_taps * task.lane_vectors * 16;
    }

    SC_INLINE_MEMBER weight_tile shape(const sc_gradient_task &task, int64_t block) const {
        return {task.map, channels, blocks.begin(block + 1) - blocks.begin(block), false};
    }
    SC_INLINE_MEMBER float *tile(float *gradient, int64_t block) const {
        return gradient + (block - first_block) * tile_floats;
    }
    SC_INLINE_MEMBER int64_t floats() const { return (end_block - first_block) * tile_floats; }  // in whole vectors
    SC_INLINE_MEMBER void clear(float *gradient) const {
        for (int64_t i = 0; i < floats(); i += 16) store(gradient + i, zero());
    }
};

// Whether none of these floats, in whole vectors, is Inf or NaN: 0 times a finite number is 0, else NaN. Read just
// before they are stored: a loop of its own over the gradient took 4% of 512,512,7 at 80% zeros.
static bool all_finite(const float *values, int64_t count) {
    f32x16 ends[4] = {zero(), zero(), zero(), zero()};
    int64_t i = 0;
    for (; i + 64 <= count; i += 64) {
        SC_UNROLL for (int j = 0; j < 4; ++j) ends[j] = fma(load(values + i + 16 * j), zero(), ends[j]);
    }
    for (; i < count; i += 16) ends[0] = fma(load(values + i), zero(), ends[0]);
    return !nonzero(add(add(ends[0], ends[1]), add(ends[2], ends[3])));
}

// The channels of an item that its lane blocks need; blocks are counted from the item's first one.
struct needed_channels {
    uint64_t *words;       // [lane block][channel / 64], channels as bits; last, those that any block needs
    int64_t pitch, blocks; // words of a lane block, and lane blocks

    static int64_t size(const sc_gradient_task &task) {
        return (task.lane_blocks + 1) * ceil_div(task.channel_block, 64);
    }
    needed_channels(const sc_gradient_task &task, const gradient_share &share, uint64_t *memory)
        : words(memory), pitch(ceil_div(share.channels, 64)), blocks(share.end_block - share.first_block) {
        uint64_t *anywhere = words + blocks * pitch;
        for (int64_t i = 0; i < pitch; ++i) anywhere[i] = 0;
        for (int64_t block = share.first_block; block < share.end_block; ++block) {
            const int64_t lane = share.blocks.begin(block) * 16;
            const int64_t lanes = smaller(share.blocks.begin(block + 1) * 16, task.lanes) - lane;
            for (int64_t i = 0; i < pitch; ++i) {
                const int count = (int)smaller(64, share.channels - 64 * i);
                *memory = needed_word(task, share.group, share.channel + 64 * i, count, lane, lanes);
                anywhere[i] |= *memory++;
            }
        }
    }

    // The 64 channels from `channel`, a multiple of 64, on: those that a block needs, and those that any block needs.
    SC_INLINE_MEMBER uint64_t word(int64_t block, int64_t channel) const {
        return words[block * pitch + channel / 64];
    }
    SC_INLINE_MEMBER uint64_t anywhere(int64_t channel) const { return word(blocks, channel); }
    // A block's channels in ascending order; returns their number.
    int64_t list(int64_t block, int64_t *channels) const {
        int64_t found = 0;
        for (int64_t i = 0; i < pitch; ++i) {
            for (uint64_t bits = words[block * pitch + i]; bits; bits &= bits - 1) {
                channels[found++] = 64 * i + __builtin_ctzll(bits);
            }
        }
        return found;
    }
    int64_t count(int64_t block) const {
        int64_t found = 0;
        for (int64_t i = 0; i < pitch; ++i) found += __builtin_popcountll(words[block * pitch + i]);
        return found;
    }
    // Leaves the channels whose sums are not all finite, and clears these sums.
    void keep_not_finite(const sc_gradient_task &task, const gradient_share &share, float *gradient) const {
        const sc_map &map = task.map;
        for (int64_t i = 0; i < pitch; ++i) words[blocks * pitch + i] = 0;
        for (int64_t block = 0; block < blocks; ++block) {
            const weight_tile shape = share.shape(task, share.first_block + block);
            float *tile = share.tile(gradient, share.first_block + block);
            const int64_t floats = shape.vectors * 16;
            const auto each = [&](int64_t channel, auto use) {
                for (int64_t tap = 0; tap < map.outer_taps * map.inner_taps; ++tap) {
                    float *sums = tile + shape.offset(channel, tap / map.inner_taps, tap % map.inner_taps);
                    for (int64_t lane = 0; lane < floats; lane += 16) use(sums + lane);
                }
            };
            for (int64_t i = 0; i < pitch; ++i) {
                uint64_t found = 0;
                for (uint64_t bits = words[block * pitch + i]; bits; bits &= bits - 1) {
                    const int64_t channel = 64 * i + __builtin_ctzll(bits);
                    bool finite = true;
                    each(channel, [&](const float *sums) { finite = finite && all_finite(sums, 16); });
                    if (finite) continue;
                    found |= bits & -bits;
                    each(channel, [](float *sums) { store(sums, zero()); });
                }
                words[block * pitch + i] = found, words[blocks * pitch + i] |= found;
            }
        }
    }
    // The first channels [begin, end) behind `end` that have to be read, in 64s with any that is needed; false: none.
    bool next(int64_t &begin, int64_t &end, int64_t channels) const {
        for (begin = end; begin < channels && !anywhere(begin);) begin += 64;
        for (end = begin; end < channels && anywhere(end);) end += 64;
        end = smaller(end, channels);
        return begin < end;
    }
};

// Returns whether all sums are finite.
static bool store_gradient(const sc_gradient_task &task, const gradient_share &share, float *gradient) {
    const sc_weight_view &view = task.gradient;
    bool finite = true;
    float *corner = view.data + share.group * view.group_stride + share.channel * view.channel_stride;
    for (int64_t block = share.first_block; block < share.end_block; ++block) {
        const int64_t lane = share.blocks.begin(block) * 16;
        const weight_tile shape = share.shape(task, block);
        float *tile = share.tile(gradient, block);
        finite = all_finite(tile, shape.floats()) && finite;
        move_weights<false>(tile, shape, view, corner + lane * view.lane_stride, task.lanes - lane);
        const int64_t end = smaller(share.blocks.begin(block + 1) * 16, task.lanes);
        clear_unneeded(task, share.group, share.channel, share.channels, lane, end - lane);
    }
    return finite;
}

SC_CLOSE
