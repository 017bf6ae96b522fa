// What output_mask leaves of backward_weight, and its zeros.
//
// A channel of A is left out of the sweeps of a lane block that needs it nowhere: at no lane and no tap. The others are
// summed as without a mask, and what a sweep has summed in vain is cleared at the end. So no sum changes its order, and
// the elements that are needed have the bits that they have without a mask.
//
// A mask that needs all pairs at some tap is read once, row by row ahead of its use; that took .75 ms of the 12 of
// 512,512,7 at 80% zeros without asking for the next row, mostly waiting for the mask (Zen 4, kernels alone: 5.5% more
// than without a mask; now 4%, and 512,2048,7 1x1 8 to 12% more; now 3%).
#pragma once
#include "common/mask_words.h"
#include "common/tile.h"

SC_OPEN

// The channels [channel, channel + count) of A, count <= 64, that any of some lanes needs at any tap, as bits.
static uint64_t needed_word(const sc_gradient_task &task, int64_t group, int64_t channel, int count, int64_t lane,
                            int64_t lanes) {
    if (!task.needed_pairs) return ~0ull >> (64 - count);
    const int64_t channel_step = task.pair_channel, lane_step = task.pair_lane;
    const uint8_t *pairs = task.needed_pairs + group * task.pair_group + channel * channel_step + lane * lane_step;
    uint8_t any[64] = {};
    for (int64_t i = 0; channel_step == 1 && i < lanes; ++i, pairs += lane_step) {
        if (count == 64) {  // known in advance: four registers
            for (int c = 0; c < 64; ++c) any[c] |= pairs[c];
        } else {
            for (int c = 0; c < count; ++c) any[c] |= pairs[c];
        }
    }
    for (int c = 0; channel_step != 1 && c < count; ++c, pairs += channel_step) {  // then lanes are neighbours
        uint64_t eights = 0;
        int64_t i = 0;
        for (; i + 8 <= lanes; i += 8) {
            uint64_t eight;
            __builtin_memcpy(&eight, pairs + i, 8);
            eights |= eight;
        }
        for (; i < lanes; ++i) eights |= pairs[i];
        any[c] = eights != 0;
    }
    uint64_t word = 0;
    for (int c = 0; c < 64; c += 8) word |= bits_of_bytes(any + c) << c;
    return word;
}

// Zeros where the mask is zero. Values are taken as bits, since 0 times NaN is none. Where 16 of them are needed, they
// are not touched.
static void keep_masked(float *values, const uint8_t *mask, int64_t count) {
    int64_t i = 0;
    for (; i + 16 <= count; i += 16) {
        uint64_t eights[2];
        __builtin_memcpy(eights, mask + i, 16);
        if ((eights[0] & eights[1]) == 0x0101010101010101) continue;
        const uint64_t bits = bits_of_bytes(mask + i) | bits_of_bytes(mask + i + 8) << 8;
        store(values + i, keep(load(values + i), (uint32_t)bits));
    }
    for (; i < count; ++i) {
        if (!mask[i]) values[i] = 0;
    }
}

// The same in the part of the result that belongs to some channels and lanes. In the mask the inner ones of both, with
// their taps, are neighbours; mostly they are so in the result.
static void clear_unneeded(const sc_gradient_task &task, int64_t group, int64_t channel, int64_t channels,
                           int64_t lane, int64_t lanes) {
    if (!task.needed) return;
    const sc_weight_view &view = task.gradient;
    const int64_t inner_taps = task.map.inner_taps, taps = task.map.outer_taps * inner_taps;
    const bool by_channel = task.pair_channel == 1;  // channels are the inner ones
    const int64_t outer_count = by_channel ? lanes : channels, inner_count = by_channel ? channels : lanes;
    const int64_t outer_step = by_channel ? view.lane_stride : view.channel_stride;
    const int64_t inner_step = by_channel ? view.channel_stride : view.lane_stride;
    const int64_t mask_step = (by_channel ? task.pair_lane : task.pair_channel) * taps;
    const bool flat = inner_step == taps && (taps == 1 || (view.flat_taps && view.tap_stride == 1));
    const uint8_t *mask = task.needed;
    mask += (group * task.pair_group + channel * task.pair_channel + lane * task.pair_lane) * taps;
    float *corner = view.data + group * view.group_stride + channel * view.channel_stride + lane * view.lane_stride;
    for (int64_t outer = 0; outer < outer_count; ++outer, mask += mask_step, corner += outer_step) {
        for (int64_t i = 0; i < inner_count * taps; i += 64) __builtin_prefetch(mask + mask_step + i);
        if (flat) {
            keep_masked(corner + view.outer_taps[0], mask, inner_count * taps);
            continue;
        }
        for (int64_t i = 0; i < inner_count * taps; ++i) {
            const int64_t tap = i % taps;
            if (mask[i]) continue;
            corner[i / taps * inner_step + view.outer_taps[tap / inner_taps] + tap % inner_taps * view.tap_stride] = 0;
        }
    }
}

SC_CLOSE
