// Weights of forward and backward_data as the tiles that amx/rows.h multiplies, split into parts. Where parts are
// scaled, each lane has a scale of its own, so weights are read twice.
#pragma once
#include "amx/products.h"
#include "rows/chunk.h"

SC_OPEN

enum { TILE_CHANNELS = 2 * PAIRS };  // that one tile product sums

SC_INLINE int64_t channel_tiles(const sc_rows_task &task) { return ceil_div(task.channels, TILE_CHANNELS); }

// Weights of one lane block: tiles [vector][32 channels][outer tap][tap][part], and the largest |w| of each lane, or
// UNFIT.
struct lane_weights {
    uint32_t *tiles, *tops;
};

SC_INLINE int64_t weight_tile_pairs(const sc_rows_task &task) {  // of one lane vector
    return channel_tiles(task) * all_taps(task.map) * task.parts * TILE_PAIRS;
}

static int64_t packed_weight_tiles_bytes(const sc_rows_task *task) {
    return task->groups * ceil_div(task->lanes, 16) * (weight_tile_pairs(*task) + PAIRS) * (int64_t)sizeof(uint32_t);
}

// If they are packed ahead: all tiles, then all tops.
static lane_weights packed_weights(const sc_rows_task &task, const lane_block &block) {
    const int64_t vectors = ceil_div(task.lanes, 16), vector = block.group * vectors + block.vector;
    uint32_t *packed = (uint32_t *)task.packed;
    return {packed + vector * weight_tile_pairs(task),
            packed + task.groups * vectors * weight_tile_pairs(task) + vector * PAIRS};
}

SC_INLINE int64_t weight_floats(const sc_rows_task &task) {  // 32 channels of one lane block, before they are split
    return TILE_CHANNELS * all_taps(task.map) * task.lane_vectors * 16;
}

// 32 channels of a lane block in turn, `floats` [tap][channel][lane]: visit(first channel, channels).
template <class Visit>
SC_INLINE void for_each_channel_tile(const sc_rows_task &task, const lane_block &block, float *floats, Visit visit) {
    const sc_weight_view &view = task.weight;
    const int64_t lane = block.vector * 16;
    float *data = view.data + block.group * view.group_stride + lane * view.lane_stride;
    for (int64_t channel = 0; channel < task.channels; channel += TILE_CHANNELS) {
        const int64_t channels = smaller(TILE_CHANNELS, task.channels - channel);
        const weight_tile shape = {task.map, channels, block.vectors, true};
        move_weights<true>(floats, shape, view, data + channel * view.channel_stride, task.lanes - lane);
        visit(channel, channels);
    }
}

// The largest |w| of each lane, as its bits.
static void find_tops(const sc_rows_task &task, const lane_block &block, float *floats, bits16 *tops) {
    const int64_t vectors = block.vectors, rows = all_taps(task.map);
    for (int64_t vector = 0; vector < vectors; ++vector) tops[vector] = bits16{};
    for_each_channel_tile(task, block, floats, [&](int64_t, int64_t channels) {
        const float *from = floats;
        for (int64_t i = 0; i < rows * channels; ++i) {
            for (int64_t vector = 0; vector < vectors; ++vector, from += 16) {
                bits16 bits;
                __builtin_memcpy(&bits, from, sizeof bits);
                largest(tops[vector], bits & 0x7fffffffu);
            }
        }
    });
}

template <class Format>
static void split_weights(const sc_rows_task &task, const lane_block &block, const lane_weights &to, float *floats) {
    enum { PARTS = Format::PARTS };
    const int64_t taps = all_taps(task.map), pitch = block.vectors * 16;
    static const float zeros[16] = {};
    bits16 tops[SC_MAX_LANE_VECTORS] = {};
    if constexpr (Format::SCALED) find_tops(task, block, floats, tops);
    splitter<Format> lanes[SC_MAX_LANE_VECTORS];
    for (int64_t vector = 0; vector < block.vectors; ++vector) lanes[vector] = splitter<Format>(tops[vector]);
    for_each_channel_tile(task, block, floats, [&](int64_t channel, int64_t channels) {
        for (int64_t vector = 0; vector < block.vectors; ++vector) {
            uint32_t *tile = to.tiles + vector * weight_tile_pairs(task) +
                             channel / TILE_CHANNELS * taps * PARTS * TILE_PAIRS;
            for (int64_t tap = 0; tap < taps; ++tap, tile += PARTS * TILE_PAIRS) {
                const float *from = floats + tap * channels * pitch + vector * 16;
                for (int64_t c = 0; c < PAIRS; ++c) {
                    const float *low = c < channels ? from + c * pitch : zeros;
                    const float *high = c + PAIRS < channels ? from + (c + PAIRS) * pitch : zeros;
                    split_pairs(low, high, tile + c * PAIRS, TILE_PAIRS, lanes[vector]);
                }
            }
        }
    });
    for (int64_t vector = 0; vector < block.vectors; ++vector) {
        const bits16 fit = lanes[vector].fit_tops();
        __builtin_memcpy(to.tops + vector * PAIRS, &fit, sizeof fit);
    }
}

template <class Two>
static void pack_weight_tiles(const sc_rows_task *whole, int64_t begin, int64_t end, void *scratch) {
    const sc_rows_task &task = *whole;
    const lane_blocks blocks(task.lanes, task.lane_vectors);
    for (int64_t item = begin; item < end; ++item) {
        const lane_block block = lane_block_of(task, blocks, item / blocks.count, item % blocks.count);
        const lane_weights to = packed_weights(task, block);
        with_format<Two>(task, [&](auto format) {
            split_weights<decltype(format)>(task, block, to, (float *)scratch);
        });
    }
}

static int64_t pack_weight_tiles_scratch(const sc_rows_task *task) {
    return weight_floats(*task) * (int64_t)sizeof(float);
}

SC_CLOSE
