// The input rows of a chunk as amx/rows.h reads them: split into parts, one plane for each, in which all rows are one
// long row. Where parts are scaled, a chunk has one scale, so its rows are read twice. And the scratch memory that
// planes, weights and sums have.
//
// Rows stand `in_pitch` columns apart, with zeros between them that serve as the padding of both neighbours, so
// positions between two rows are computed too, and dropped.
#pragma once
#include "amx/long_rows.h"
#include "amx/weights.h"
#include "rows/chunk.h"

SC_OPEN

// How the rows of a chunk lie in scratch memory: columns [first, end) of `in`, zeros around them that a row shares with
// the next one.
struct row_pitches {
    int64_t in_step, out_step;    // columns from one position of a strand to the next
    int64_t first, end;           // columns of `in`
    int64_t left;                 // zeros in front of the first row
    int64_t in_pitch, out_pitch;  // columns, and positions, from one row to the next
    bool at_once;                 // every output is complete after one strand

    SC_INLINE_MEMBER row_pitches(const sc_rows_task &task, const row_chunk &chunk)
        : in_step(1), out_step(1), at_once(true) {
        const sc_map &map = task.map;
        int64_t low = INT64_MAX, high = INT64_MIN, positions = 1;  // columns that taps reach, padding included
        for (int64_t p = 0; p < map.strand_count; ++p) {
            const sc_strand &strand = map.strands[p];
            int64_t begin, count;
            chunk.range(strand, begin, count);
            count -= begin, out_step = strand.out_step;
            at_once = at_once && strand.opens && strand.closes;
            positions = larger(positions, count);
            if (strand.taps == 0 || count <= 0) continue;
            in_step = strand.in_step;
            const int64_t column = strand.in_start + (begin - strand.shift) * in_step;
            low = smaller(low, column);
            high = larger(high, column + (count + strand.taps - 2) * in_step + 1);
        }
        if (low > high) low = high = 0;
        first = smaller(map.in_columns, larger(0, low)), end = larger(first, smaller(map.in_columns, high));
        left = larger(0, first - low);
        out_pitch = larger(positions, ceil_div(end - first + larger(left, larger(0, high - end)), in_step));
        in_pitch = out_pitch * in_step;
    }
};

struct tile_row_scratch {
    int64_t *tables;       // of long_rows
    int64_t *steps;        // [step][2], the steps of a strand
    float *pixels;         // 16 columns before they are split: [column][channel]
    float *weights;        // 32 channels of a lane block before they are split
    lane_weights lane;     // of a lane block that is not packed ahead
    uint32_t *planes;      // [32 channels][part][position][16 pairs]
    float *sums;           // [position][lane]: 32 positions, or all of the chunk where strands take turns
    void *vectors;         // what the vector kernel needs
    int64_t plane;         // pairs in a plane

    struct sizes {  // in floats, whole cache lines
        int64_t tables, steps, pixels, weights, tiles, tops, planes, sums, vectors, plane;
        int64_t total() const {
            return tables + steps + pixels + weights + tiles + tops + planes + sums + vectors;
        }
    };
    static sizes measure(const sc_rows_task &task) {
        const sc_map &map = task.map;
        const long_rows::sizes spans = long_rows::measure(map, task.batch, task.chunk_rows);
        int64_t columns = 0, positions = 2 * PAIRS;
        for (int64_t segment = 0; segment < task.segments; ++segment) {
            const row_pitches pitch(task, row_chunk(task, segment));
            // behind the last row: its zeros, and positions that fill up the last tiles
            const int64_t fill = (2 * PAIRS + SC_MAX_TAPS) * pitch.in_step;
            columns = larger(columns, pitch.left + spans.slots * pitch.in_pitch + fill);
            if (pitch.at_once) continue;
            positions = larger(positions, (task.chunk_rows * pitch.out_pitch + 2 * PAIRS) * pitch.out_step);
        }
        const sc_rows_task vectors = vector_task(task);
        return {line(2 * spans.total()), line(4 * all_taps(map)), line(16 * channel_tiles(task) * TILE_CHANNELS),
                line(weight_floats(task)), task.pack_ahead ? 0 : task.lane_vectors * weight_tile_pairs(task),
                task.pack_ahead ? 0 : task.lane_vectors * PAIRS,
                channel_tiles(task) * task.parts * columns * PAIRS,
                line(positions * task.lane_vectors * 16 + 16),
                line(vector_table.rows.rows.scratch(&vectors) / (int64_t)sizeof(float) + 16), columns * PAIRS};
    }
    tile_row_scratch(const sc_rows_task &task, void *memory) {
        const sizes size = measure(task);
        float *next = (float *)memory;
        tables = (int64_t *)next, next += size.tables;
        steps = (int64_t *)next, next += size.steps;
        pixels = next, next += size.pixels;
        weights = next, next += size.weights;
        lane.tiles = (uint32_t *)next, next += size.tiles;
        lane.tops = (uint32_t *)next, next += size.tops;
        planes = (uint32_t *)next, next += size.planes;
        sums = next, next += size.sums;
        vectors = next, plane = size.plane;
    }

    // The same call for the vector kernel, an item for each chunk and lane block of its own.
    static sc_rows_task vector_task(const sc_rows_task &task) {
        sc_rows_task vectors = task;
        vectors.kernel = SC_ROWS_DENSE, vectors.parts = 0, vectors.epilogue.stream = 0, vectors.pack_ahead = 0;
        vectors.lane_vectors = task.lane_vectors <= vector_table.limits.dense_vectors ? task.lane_vectors : 1;
        vectors.channel_block = smaller(task.channels, SC_MAX_CHANNEL_BLOCK);
        vectors.lane_groups = lane_blocks(task.lanes, vectors.lane_vectors).count;
        return vectors;
    }
};

// Splits `columns` pixels of all channels. `to`: the first pixel in the first plane.
template <class Format>
static void split_pixels(const float *pixels, int64_t pitch, int64_t columns, int64_t channels, uint32_t *to,
                         int64_t plane, splitter<Format> &lanes, magnitudes &range) {
    for (int64_t column = 0; column < columns; ++column, pixels += pitch, to += PAIRS) {
        lanes.top = bits16{};
        for (int64_t channel = 0; channel < channels; channel += TILE_CHANNELS) {
            uint32_t *place = to + channel / TILE_CHANNELS * Format::PARTS * plane;
            split_pairs(pixels + channel, pixels + channel + PAIRS, place, plane, lanes);
        }
        range.add(largest_lane(lanes.top));
    }
}

// The largest |x| of all input rows of the chunk, as its bits.
static uint32_t largest_of_rows(const sc_rows_task &task, int64_t group, const row_pitches &pitch,
                                const long_rows &spans) {
    const sc_view &in = task.in;
    const int64_t begin = group * task.channels, columns = pitch.end - pitch.first;
    uint32_t top = 0;
    for (int64_t slot = 0; slot < spans.slots; ++slot) {
        const int64_t row = spans.order[slot];
        if (row < 0) continue;
        const float *from = row_of(in, row / task.map.in_rows, row % task.map.in_rows);
        from += pitch.first * in.column_stride;
        if (channels_contiguous(in)) {
            for (int64_t i = 0; i < columns; ++i) {
                top = largest_of(from + begin + i * in.column_stride, 1, task.channels, top);
            }
        } else {
            for (int64_t channel = begin; channel < begin + task.channels; ++channel) {
                top = largest_of(from + channel_offset(in, channel), in.column_stride, columns, top);
            }
        }
    }
    return top;
}

static void clear_columns(const sc_rows_task &task, const tile_row_scratch &scratch, int64_t column, int64_t columns) {
    for (int64_t i = 0; i < channel_tiles(task) * task.parts; ++i) {
        __builtin_memset(scratch.planes + i * scratch.plane + column * PAIRS, 0, (size_t)(columns * ROW_BYTES));
    }
}

// What splitting the input rows of a chunk has found.
struct split_input {
    uint32_t top;      // the largest |x|, where parts are scaled
    magnitudes range;  // of pixels
};

// All input rows of the chunk as planes.
template <class Format>
static split_input split_rows(const sc_rows_task &task, int64_t group, const row_pitches &pitch,
                              const long_rows &spans, const tile_row_scratch &scratch) {
    const int64_t channels = channel_tiles(task) * TILE_CHANNELS, channel = group * task.channels;
    const bool direct = channels_contiguous(task.in) && channels == task.channels;
    split_input found = {Format::SCALED ? largest_of_rows(task, group, pitch, spans) : 0, {}};
    splitter<Format> lanes(all_lanes(found.top));
    if (!direct) {
        for (int64_t i = 0; i < 16 * channels; i += 16) store(scratch.pixels + i, zero());
    }
    clear_columns(task, scratch, 0, pitch.left);
    for (int64_t slot = 0; slot < spans.slots; ++slot) {
        const int64_t row = spans.order[slot], first = pitch.left + slot * pitch.in_pitch;
        const int64_t columns = row < 0 ? 0 : pitch.end - pitch.first;
        clear_columns(task, scratch, first + columns, pitch.in_pitch - columns);
        if (row < 0) continue;
        uint32_t *to = scratch.planes + first * PAIRS;
        const float *from = row_of(task.in, row / task.map.in_rows, row % task.map.in_rows);
        if (direct) {
            const int64_t step = task.in.column_stride;
            split_pixels(from + pitch.first * step + channel, step, columns, channels, to, scratch.plane, lanes,
                         found.range);
            continue;
        }
        for (int64_t done = 0; done < columns; done += 16) {
            const int64_t count = smaller(16, columns - done);
            load_pixels(scratch.pixels, channels, task.in, from, channel, channel + task.channels,
                        pitch.first + done, 1, count);
            split_pixels(scratch.pixels, channels, count, channels, to + done * PAIRS, scratch.plane, lanes,
                         found.range);
        }
    }
    // Pixels share the scale, so sums of small ones alone would lose bits, too.
    if (lanes.loses() || (Format::SCALED && found.range.most() - found.range.least() > 16)) found.range.add(UNFIT);
    return found;
}

SC_CLOSE
