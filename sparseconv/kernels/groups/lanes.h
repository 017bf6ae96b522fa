// Lanes of narrow groups: a vector of 16 lanes is 16 channels that follow one another, whichever groups they are of.
//
// A lane of channel k belongs to group k / lanes; for the c-th channel of its group on the other side (`channels` each)
// it needs channel (k / lanes) * channels + c. How 16 lanes find theirs is the task's `spread`:
//   1, 2, 4, 8   groups of so many channels on both sides: one vector in the order of memory, in which the c-th channel
//                of each group goes to all lanes of the group (spread<M> of simd/<isa>.h)
//   16           `lanes` is a multiple of 16: the lanes are of one group, and one element goes to all of them
//   0            any other counts: pixels are packed as [channel of the group][lane], a vector per channel
//
// Where memory has the lanes side by side, nothing is packed. If the channels are no multiple of 16, the last vector
// of a pixel begins at the 16th channel from the end (`overlap`): it computes some lanes once more, but needs no masks.
#pragma once
#include "rows/chunk.h"

SC_OPEN

// Vectors of the lanes' side.
struct narrow_lanes {
    int64_t total, vectors, lanes, channels, spread;
    bool overlap;

    template <class Task>
    SC_INLINE_MEMBER explicit narrow_lanes(const Task &task)
        : total(task.groups * task.lanes), vectors(ceil_div(total, 16)), lanes(task.lanes), channels(task.channels),
          spread(task.spread), overlap(task.overlap != 0) {}
    SC_INLINE_MEMBER int64_t first(int64_t vector) const {
        return overlap ? smaller(16 * vector, total - 16) : 16 * vector;
    }
    // Its first channel on the other side.
    SC_INLINE_MEMBER int64_t other(int64_t vector) const {
        return spread > 0 && spread < 16 ? first(vector) : first(vector) / lanes * channels;
    }
    // Floats of a packed pixel of the other side.
    SC_INLINE_MEMBER int64_t packed_pitch() const { return spread == 0 ? 16 * channels : spread == 16 ? channels : 16; }
    // Floats of a vector's weights: [outer tap][group of taps][channel][tap][lane], as weight_tile says.
    SC_INLINE_MEMBER int64_t weights(const sc_map &map) const {
        return map.outer_taps * map.inner_taps * channels * 16;
    }
};

// One lane's weights, where they do not lie side by side.
SC_INLINE f32x16 load_strided(const float *from, int64_t stride, int count) {
    float line[16] = {};
    for (int i = 0; i < count; ++i) line[i] = from[i * stride];
    return load(line);
}
SC_INLINE void store_strided(float *to, int64_t stride, f32x16 a, int count) {
    float line[16];
    store(line, a);
    for (int i = 0; i < count; ++i) to[i * stride] = line[i];
}

// Moves the weights of one vector between memory and a tile as narrow_lanes says. Lanes that are no channels are zeros
// in the tile, and lanes below `begin` stay in memory what they are.
template <bool LOAD>
static void move_group_weights(float *tile, const sc_map &map, const sc_weight_view &view, const narrow_lanes &lanes,
                               int64_t vector, int64_t begin) {
    const weight_tile shape = {map, lanes.channels, 1, false};
    const int64_t first = lanes.first(vector);
    float *memory[16];
    for (int lane = 0; lane < 16; ++lane) {
        const int64_t channel = first + lane, group = channel / lanes.lanes;
        const bool there = lane >= begin && channel < lanes.total;
        float *const data = view.data + group * view.group_stride + channel % lanes.lanes * view.lane_stride;
        memory[lane] = there ? data : nullptr;
    }
    weight_walk walk(shape, view);
    f32x16 block[16];
    int64_t places[16];
    for (int64_t step = 0; step < walk.runs; ++step) {
        int64_t offset = walk.address();
        for (int64_t done = 0; done < walk.run; done += 16, offset += 16 * walk.stride) {
            const int count = (int)smaller(16, walk.run - done);
            walk.next(places, count);
            if (LOAD) {
                for (int lane = 0; lane < 16; ++lane) {
                    if (!memory[lane]) block[lane] = zero();
                    else if (walk.stride == 1) block[lane] = load_partial(memory[lane] + offset, count);
                    else block[lane] = load_strided(memory[lane] + offset, walk.stride, count);
                }
                transpose(block);
                for (int i = 0; i < count; ++i) store(tile + places[i], block[i]);
            } else {
                for (int i = 0; i < 16; ++i) block[i] = i < count ? load(tile + places[i]) : zero();
                transpose(block);
                for (int lane = 0; lane < 16; ++lane) {
                    if (!memory[lane]) continue;
                    if (walk.stride == 1) store_partial(memory[lane] + offset, block[lane], count);
                    else store_strided(memory[lane] + offset, walk.stride, block[lane], count);
                }
            }
        }
    }
}

// Pixels of one row for a vector, packed: [column][packed_pitch]. `channels` are those of the whole array.
static void pack_group_pixels(float *to, const sc_view &view, const float *row, const narrow_lanes &lanes,
                              int64_t vector, int64_t channels, int64_t column, int64_t columns) {
    const int64_t pitch = lanes.packed_pitch(), first = lanes.other(vector);
    if (lanes.spread) {
        load_pixels(to, pitch, view, row, first, smaller(channels, first + pitch), column, 1, columns);
        return;
    }
    const int64_t nowhere = INT64_MIN;  // strides may be negative, and so offsets
    int64_t offsets[16 * SC_MAX_GROUP_CHANNELS];  // of each float of a packed pixel
    for (int64_t lane = 0; lane < 16; ++lane) {
        const int64_t channel = lanes.first(vector) + lane, source = channel / lanes.lanes * lanes.channels;
        for (int64_t c = 0; c < lanes.channels; ++c) {
            offsets[c * 16 + lane] = channel < lanes.total ? channel_offset(view, source + c) : nowhere;
        }
    }
    const float *pixel = row + column * view.column_stride;
    for (int64_t i = 0; i < columns; ++i, to += pitch, pixel += view.column_stride) {
        for (int64_t place = 0; place < pitch; ++place) {
            to[place] = offsets[place] == nowhere ? 0 : pixel[offsets[place]];
        }
    }
}

SC_CLOSE
