// A work item of backward_weight: the part of the gradient that it owns from the first position to the last.
#pragma once
#include "tile.h"

SC_OPEN

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
    SC_INLINE_MEMBER void clear(float *gradient) const {
        for (int64_t i = 0; i < (end_block - first_block) * tile_floats; i += 16) store(gradient + i, zero());
    }
};

static void store_gradient(const sc_gradient_task &task, const gradient_share &share, float *gradient) {
    const sc_weight_view &view = task.gradient;
    float *corner = view.data + share.group * view.group_stride + share.channel * view.channel_stride;
    for (int64_t block = share.first_block; block < share.end_block; ++block) {
        const int64_t lane = share.blocks.begin(block) * 16;
        move_weights<false>(share.tile(gradient, block), share.shape(task, block), view,
                            corner + lane * view.lane_stride, task.lanes - lane);
    }
}

SC_CLOSE
