// Between weights of any strides and the tiles that kernels work on.
//
//   weight tile  [outer tap][strand] then [channel][tap][lane] (skipping) or [tap][channel][lane] (dense)
//
// The elements (channel, outer tap, inner tap) of a tile are taken in the order that memory has them in, from the
// largest stride to the smallest, so that runs are as long as memory offers: in forward, all elements of OIHW weights
// are one run, and the channels of each tap are a run where channels are innermost ("channels last"). 16 elements of a
// run and 16 lanes go through one transpose in registers. Lanes that lie side by side need none.
//
// Lanes of one vector are often whole pages apart, so the lines of later blocks are asked for while one is transposed,
// those of the next run, too: two blocks ahead, and six ahead into L2.
//
// Measured (Zen 5, one thread, 512 x 512 3x3, tiles of 64 x 64, all tiles in turn, ms; before, each run was read along
// channels, then taps, and whatever did not lie along taps one float at a time):
//                                   packed for forward    written by backward_weight
//   K C R S (contiguous)              0.45 -> 0.34          0.40 -> 0.47
//   K R S C ("channels last")         3.48 -> 0.48         13.0  -> 0.58 (0.85 without asking for lines to write)
//   C K R S (as for backward_data)    0.89 -> 0.46          0.94 -> 0.65
//   R S C K                           0.60 -> 0.21          0.74 -> 0.20
//   C R K S (lanes between taps)      2.0  -> 0.95          2.8  -> 1.6: runs of three floats, a transpose for each
// Out of memory instead of L3, K R S C takes 0.55 (0.70 without the lines six blocks ahead), K C R S 0.42. Asking for
// lanes side by side 16 or 32 elements ahead instead of 8 changes nothing.
#pragma once
#include "common/tile.h"

SC_OPEN

// Lane blocks of one group, balanced: no block of one vector beside blocks of four.
struct lane_blocks {
    int64_t vectors, count;
    SC_INLINE_MEMBER lane_blocks(int64_t lanes, int64_t most)
        : vectors(ceil_div(lanes, 16)), count(ceil_div(vectors, most)) {}
    SC_INLINE_MEMBER int64_t begin(int64_t block) const { return part_begin(vectors, count, block); }
};

// The place of (channel, outer tap, inner tap) in a weight tile of `channels` channels and `vectors` lane vectors.
struct weight_tile {
    const sc_map &map;
    int64_t channels, vectors;
    bool dense;

    SC_INLINE_MEMBER int64_t floats() const { return channels * map.outer_taps * map.inner_taps * vectors * 16; }
    SC_INLINE_MEMBER int64_t strand_offset(int64_t outer_tap, int64_t taps_before) const {
        return (outer_tap * map.inner_taps + taps_before) * channels * vectors * 16;
    }
    SC_INLINE_MEMBER int64_t offset(int64_t channel, int64_t outer_tap, int64_t inner_tap) const {
        const sc_tap &tap = map.taps[inner_tap];
        const int64_t place = dense ? tap.index * channels + channel : channel * tap.taps + tap.index;
        return strand_offset(outer_tap, tap.taps_before) + place * vectors * 16;
    }
};

// One of the three dimensions of the elements, walked so that addresses grow.
struct weight_axis {
    int64_t count, stride;
    int64_t first, step;  // of the index: from 0 up, or down to 0 where the stride is negative
    bool even;            // whether all steps are equal; those between the outer taps of 3d kernels may not be

    SC_INLINE_MEMBER weight_axis(int64_t length, int64_t distance, bool equal = true)
        : count(length), stride(distance < 0 ? -distance : distance), first(distance < 0 ? length - 1 : 0),
          step(distance < 0 ? -1 : 1), even(equal) {}
    SC_INLINE_MEMBER bool next(int64_t &index) const {  // true: begins again
        index += step;
        const bool over = (uint64_t)index >= (uint64_t)count;
        if (over) index = first;
        return over;
    }
    SC_INLINE_MEMBER bool outside(const weight_axis &other) const {
        return count == 1 || (other.count > 1 && stride >= other.stride);
    }
};

struct element {
    int64_t at[3];
};

// The elements of a tile in the order of memory.
struct weight_walk {
    enum { CHANNEL, OUTER_TAP, INNER_TAP };
    const weight_tile &tile;
    const sc_weight_view &view;
    weight_axis axes[3];
    int order[3] = {CHANNEL, OUTER_TAP, INNER_TAP};  // from the largest stride to the smallest
    int run_axis = 2;                                // the first of `order` that runs go along
    int64_t run, runs, stride;                       // elements of a run, which are `stride` apart
    element index;                                   // of the element that is next

    static bool equal_steps(const sc_weight_view &view, int64_t taps) {
        const int64_t *at = view.outer_taps;
        for (int64_t tap = 2; tap < taps; ++tap) {
            if (at[tap] - at[tap - 1] != at[1] - at[0]) return false;
        }
        return true;
    }
    weight_walk(const weight_tile &shape, const sc_weight_view &weight)
        : tile(shape), view(weight),
          axes{{shape.channels, weight.channel_stride},
               {shape.map.outer_taps, shape.map.outer_taps > 1 ? weight.outer_taps[1] - weight.outer_taps[0] : 0,
                equal_steps(weight, shape.map.outer_taps)},
               {shape.map.inner_taps, weight.tap_stride}} {
        for (int turn = 0; turn < 3; ++turn) {  // bubble sort
            const int place = turn & 1, dimension = order[place];
            if (axes[dimension].outside(axes[order[place + 1]])) continue;
            order[place] = order[place + 1], order[place + 1] = dimension;
        }
        const weight_axis &inner = axes[order[2]];
        run = inner.even ? inner.count : 1, stride = inner.stride;
        if (!inner.even) run_axis = 3;
        for (int place = 1; place >= 0; --place) {
            const weight_axis &axis = axes[order[place]];
            if (axis.count > 1 && !(axis.even && inner.even && axis.stride == run * stride)) break;
            run *= axis.count, run_axis = place;
        }
        runs = axes[0].count * axes[1].count * axes[2].count / run;
        for (int i = 0; i < 3; ++i) index.at[i] = axes[i].first;
    }
    SC_INLINE_MEMBER int64_t address() const {
        return index.at[CHANNEL] * view.channel_stride + view.outer_taps[index.at[OUTER_TAP]] +
               index.at[INNER_TAP] * view.tap_stride;
    }
    // The places of the next elements in the tile. Behind the last element comes the first one.
    void next(int64_t (&places)[16], int elements) {
        switch (order[0] * 3 + order[1]) {  // indices that are known stay in registers
            case CHANNEL * 3 + OUTER_TAP: return next<CHANNEL, OUTER_TAP, INNER_TAP>(places, elements);
            case CHANNEL * 3 + INNER_TAP: return next<CHANNEL, INNER_TAP, OUTER_TAP>(places, elements);
            case OUTER_TAP * 3 + CHANNEL: return next<OUTER_TAP, CHANNEL, INNER_TAP>(places, elements);
            case OUTER_TAP * 3 + INNER_TAP: return next<OUTER_TAP, INNER_TAP, CHANNEL>(places, elements);
            case INNER_TAP * 3 + CHANNEL: return next<INNER_TAP, CHANNEL, OUTER_TAP>(places, elements);
            default: return next<INNER_TAP, OUTER_TAP, CHANNEL>(places, elements);
        }
    }
    template <int FIRST, int SECOND, int THIRD>
    SC_INLINE_MEMBER void next(int64_t (&places)[16], int elements) {
        const weight_axis first = axes[FIRST], second = axes[SECOND], third = axes[THIRD];
        element here = index;
        for (int i = 0; i < elements; ++i) {
            places[i] = tile.offset(here.at[CHANNEL], here.at[OUTER_TAP], here.at[INNER_TAP]);
            if (third.next(here.at[THIRD]) && second.next(here.at[SECOND])) first.next(here.at[FIRST]);
        }
        index = here;
    }
    void next_run() {
        for (int place = run_axis - 1; place >= 0 && axes[order[place]].next(index.at[order[place]]);) --place;
    }
};

// Lanes side by side: one element after the other.
template <bool LOAD>
static void move_lanes(float *tile, weight_walk &walk, float *data, int64_t lanes) {
    enum { AHEAD = 8 };
    const int64_t vectors = walk.tile.vectors;
    int64_t places[16];
    for (int64_t step = 0; step < walk.runs; ++step) {
        float *memory = data + walk.address();
        for (int64_t done = 0; done < walk.run; ++done, memory += walk.stride) {
            if (done % 16 == 0) walk.next(places, (int)smaller(16, walk.run - done));
            float *place = tile + places[done % 16];
            for (int64_t vector = 0; vector < vectors; ++vector) {
                float *from = memory + vector * 16, *to = place + vector * 16;
                const int count = (int)larger(0, smaller(16, lanes - 16 * vector));
                if (LOAD) {
                    if (count && done + AHEAD < walk.run) __builtin_prefetch(from + AHEAD * walk.stride);
                    store(to, count == 16 ? load(from) : load_partial(from, count));
                } else if (count == 16) {
                    store(from, load(to));
                } else {
                    store_partial(from, load(to), count);
                }
            }
        }
    }
}

// How many of the first lanes' runs, up to 16 elements each with no gap between them, have 16 elements at least until
// the end of the last lane: they are moved as whole vectors, the next lane's elements after them.
SC_INLINE int whole_lanes(const weight_walk &walk, int64_t apart, int count) {
    if (walk.stride != 1 || walk.run != apart || apart > 16) return 0;
    return count * apart < 16 ? 0 : (int)((count * apart - 16) / apart) + 1;
}

// One vector of lanes, `apart` floats from each other, of the elements of a run. `next` is what comes behind it.
template <bool LOAD>
static void move_run(float *tile, weight_walk &walk, float *memory, int64_t apart, int count, const float *next) {
    f32x16 block[16];
    int64_t places[16];
    const int whole = whole_lanes(walk, apart, count);
    for (int64_t done = 0; done < walk.run; done += 16) {
        const int elements = (int)smaller(16, walk.run - done);
        float *const from = memory + done * walk.stride;
        walk.next(places, elements);
        const auto later = [&](int64_t blocks) {  // lines of this run, or of the next one
            const int64_t ahead = done + 16 * blocks;
            return ahead < walk.run ? from + 16 * blocks * walk.stride : next + (ahead - line(walk.run));
        };
        const float *near = later(2), *far = later(6);
        for (int i = 0; i < count; ++i) __builtin_prefetch(near + i * apart, !LOAD);
        for (int i = 0; LOAD && i < count; ++i) __builtin_prefetch(far + i * apart, 0, 2);  // not into L1
        if (LOAD) {
            load_block_transposed(block, from, apart, count, walk.stride, elements);
            for (int i = 0; i < elements; ++i) store(tile + places[i], block[i]);
        } else {
            for (int i = 0; i < 16; ++i) block[i] = i < elements ? load(tile + places[i]) : zero();
            if (whole) {
                transpose(block);
                for (int i = 0; i < whole; ++i) store(from + i * apart, block[i]);
                for (int i = whole; i < count; ++i) store_partial(from + i * apart, block[i], elements);
            } else {
                store_block_transposed(block, from, apart, count, walk.stride, elements);
            }
        }
    }
}

// Lanes apart. Vectors have their turns outermost where a lane's elements lie together, else run by run.
template <bool LOAD>
static void move_blocks(float *tile, weight_walk &walk, float *data, int64_t lanes) {
    const int64_t vectors = walk.tile.vectors, apart = walk.view.lane_stride;
    const bool by_vector = weight_axis(vectors * 16, apart).outside(walk.axes[walk.order[0]]);
    for (int64_t step = 0; step < vectors * walk.runs; ++step) {
        const int64_t vector = by_vector ? step / walk.runs : step % vectors;
        const int count = (int)larger(0, smaller(16, lanes - 16 * vector));
        const bool again = !by_vector && vector + 1 < vectors;  // this run, for the next vector
        const element begin = walk.index;
        float *memory = data + vector * 16 * apart + walk.address();
        const float *next = memory + 16 * apart;
        if (!again) {
            walk.next_run();
            next = data + (by_vector ? (step + 1) / walk.runs : 0) * 16 * apart + walk.address();
            walk.index = begin;
        }
        move_run<LOAD>(tile + vector * 16, walk, memory, apart, count, next);
        if (again) walk.index = begin;
    }
}

// Moves the weights of one tile, `data` pointing at its first lane and channel; lanes behind `lanes` are zeros in
// the tile.
template <bool LOAD>
static void move_weights(float *tile, const weight_tile &shape, const sc_weight_view &view, float *data,
                         int64_t lanes) {
    weight_walk walk(shape, view);
    if (view.lane_stride == 1) move_lanes<LOAD>(tile, walk, data, lanes);
    else move_blocks<LOAD>(tile, walk, data, lanes);
}

SC_CLOSE
