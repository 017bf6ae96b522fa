// What a work item of rows/rows.h and outputs/outputs.h keeps in its scratch memory.
#pragma once
#include "rows/chunk.h"

SC_OPEN

SC_INLINE bool spikes(const sc_rows_task &task) { return task.kernel == SC_ROWS_SPIKES; }
SC_INLINE bool skips(const sc_rows_task &task) { return task.kernel == SC_ROWS_SKIP || spikes(task); }
SC_INLINE bool only_needed(const sc_rows_task &task) { return task.kernel == SC_ROWS_OUTPUT; }

// Inputs are read as they are, or packed: [column][channel], for outputs/outputs.h with zeros up to whole vectors.
SC_INLINE bool packs_pixels(const sc_rows_task &task) {
    if (spikes(task)) return false;  // there are none
    return !channels_contiguous(task.in) || (only_needed(task) && task.channels % 16);
}
SC_INLINE int64_t packed_pitch(const sc_rows_task &task) {
    return only_needed(task) ? ceil_div(task.channels, 16) * 16 : task.channels;
}

// Whether what is not zero is copied; and floats of a column, in which all of its words have room.
SC_INLINE bool packs_values(const sc_rows_task &task) { return task.kernel == SC_ROWS_SKIP && task.packs_values; }
SC_INLINE int64_t packed_values(const sc_rows_task &task) {
    return packs_values(task) ? ceil_div(task.channels, task.word) * task.word : 0;
}

// An input row: its first ready column (or, if it is read in place, column 0), and the bits of the first ready column
// in the first channel block. Null where no row meets.
struct row_source {
    const float *pixels;
    const uint64_t *live;
    const float *values;  // the values of its words, which begin at `begins`, if they are packed
    const int32_t *begins;
};

// Input columns start + i * step, low <= i < high, which are made ready one after the other from place `first` on.
struct ready_columns {
    int64_t start, step, low, high, first;
    SC_INLINE_MEMBER int64_t count() const { return high - low; }
};

// Where column 0 of a strand would be among the ready columns, and the distance of the next one.
struct ready_place {
    int64_t first, step;
};

// The outer taps that a row of the chunk meets: the first and the last one, or -1.
struct row_ends {
    int64_t open, close;
};

// What a work item keeps in its scratch memory.
struct row_scratch {
    row_source *sources;  // [row][outer tap]
    int64_t *met;         // [outer tap][row]: the rows that meet an input row with this tap, side by side
    int64_t *met_count;   // [outer tap]
    row_ends *ends;       // [row]
    ready_columns *ready; // of all input rows alike
    ready_place *places;  // [strand]
    int64_t *slots;       // where an input row has been put, by its distance from the lowest one of the chunk
    float *pixels;        // [slot][place][channel]: inputs whose pixels are not contiguous, or what is not zero of them
    uint64_t *live;       // [slot][word][place]: nonzero channels as bits, for the skipping kernels
    float *values;        // [slot][block of channels]: what is not zero, word after word, if values are packed
    int32_t *begins;      // [slot][block of channels][place]: where the values of a word begin
    uint64_t *needed;     // channels of `out` that are needed as bits, see needed_words
    float *tile;          // weights of one lane block and channel block, unless packed ahead
    float *sums;          // [row][column][lane]; for outputs/outputs.h of all lane blocks of the item

    // floats of each part, rounded to cache lines
    struct sizes {
        int64_t sources, met, met_count, ends, ready, places, slots, pixels, live, values, begins, needed, tile, sums;
        int64_t total() const {
            return sources + met + met_count + ends + ready + places + slots + pixels + live + values + begins +
                   needed + tile + sums;
        }
    };
    static sizes measure(const sc_rows_task &task) {  // upper bounds: memory that is not touched costs nothing
        const sc_map &map = task.map;
        const int64_t pairs = task.chunk_rows * map.outer_taps, in_rows = task.batch * map.in_rows;
        const int64_t columns = smaller(pairs, in_rows) * task.in_segment;
        const int64_t weights = map.outer_taps * map.inner_taps * task.lane_vectors * 16;
        const int64_t all = lane_blocks(task.lanes, task.lane_vectors).count;
        const int64_t share = ceil_div(all, task.lane_groups), blocks = only_needed(task) ? share : 1;
        const int64_t outputs = task.chunk_rows * task.segment;
        return {line(8 * pairs), line(2 * pairs), line(2 * map.outer_taps), line(4 * task.chunk_rows),
                line(10 * larger(1, map.strand_count)), line(4 * map.strand_count), line(2 * in_rows),
                packs_pixels(task) ? line(columns * packed_pitch(task)) : 0,
                skips(task) ? line(2 * columns * ceil_div(task.channels, task.word)) : 0,
                packs_values(task) ? line(columns * packed_values(task) + 16) : 0,
                packs_values(task) ? line(columns * ceil_div(task.channels, task.word)) : 0,
                only_needed(task) || task.needed.data ? line(2 * outputs * share * ceil_div(task.lane_vectors, 4)) : 0,
                task.pack_ahead ? 0 : smaller(task.channel_block, packed_pitch(task)) * weights + 16,
                line(outputs * blocks * task.lane_vectors * 16 + 16)};
    }

    row_scratch(const sc_rows_task &task, void *memory) {
        const sizes size = measure(task);
        float *next = (float *)memory;
        sources = (row_source *)next, next += size.sources;
        met = (int64_t *)next, next += size.met;
        met_count = (int64_t *)next, next += size.met_count;
        ends = (row_ends *)next, next += size.ends;
        ready = (ready_columns *)next, next += size.ready;
        places = (ready_place *)next, next += size.places;
        slots = (int64_t *)next, next += size.slots;
        pixels = next, next += size.pixels;
        live = (uint64_t *)next, next += size.live;
        values = next, next += size.values;
        begins = (int32_t *)next, next += size.begins;
        needed = (uint64_t *)next, next += size.needed;
        tile = next, next += size.tile;
        sums = next;
    }
};

static int64_t rows_scratch_bytes(const sc_rows_task *task) {
    return row_scratch::measure(*task).total() * (int64_t)sizeof(float);
}

SC_CLOSE
