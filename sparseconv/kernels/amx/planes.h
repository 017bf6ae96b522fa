// The input rows of a chunk as amx/rows.h reads them: split into parts, one plane for each. Where parts are scaled, a
// chunk has one scale, so its rows are read twice. And the scratch memory that planes, weights and sums have.
//
// Rows of a tile are 16 neighbouring positions, or one position of 16 pieces (amx/pieces.h). In the first case all rows
// are one long row: they stand `in_pitch` columns apart, with zeros between them that serve as the padding of both
// neighbours, so positions between two rows are computed too, and dropped. In the second there are no zeros, since no
// tap of the padding is multiplied; columns of the pieces are neighbours.
#pragma once
#include "amx/long_rows.h"
#include "amx/pieces.h"
#include "amx/weights.h"
#include "common/epilogue.h"
#include "rows/chunk.h"

SC_OPEN

// How the rows of a chunk lie in scratch memory: columns [first, end) of `in`, zeros around them that a row shares with
// the next one.
struct row_pitches {
    int64_t in_step, out_step;    // columns from one position of a strand to the next
    int64_t first, end;           // columns of `in`
    int64_t left;                 // zeros in front of the first row
    int64_t in_pitch, out_pitch;  // columns, and positions, from one row to the next
    int64_t side_by_side;         // pixels of a column: 1, or those of 16 pieces
    int64_t out_first, out_last;  // columns of `out` where strands begin, the lowest and the highest
    bool keeps_sums;              // several sweeps add to a sum, so all sums of the chunk are kept in memory

    SC_INLINE_MEMBER row_pitches(const sc_rows_task &task, const row_chunk &chunk)
        : in_step(1), out_step(1), side_by_side(task.pieces ? (int64_t)PAIRS : 1),
          out_first(chunk.column + chunk.columns), out_last(chunk.column),
          keeps_sums(task.channel_block < task.channels) {
        const sc_map &map = task.map;
        int64_t low = INT64_MAX, high = INT64_MIN, positions = 1;  // columns that taps reach, padding included
        for (int64_t p = 0; p < map.strand_count; ++p) {
            const sc_strand &strand = map.strands[p];
            int64_t begin, count;
            chunk.range(strand, begin, count);
            count -= begin, out_step = strand.out_step;
            keeps_sums = keeps_sums || !strand.opens || !strand.closes;
            positions = larger(positions, count);
            const int64_t out_column = strand.out_start + begin * out_step;
            if (count > 0) out_first = smaller(out_first, out_column), out_last = larger(out_last, out_column);
            if (strand.taps == 0 || count <= 0) continue;
            in_step = strand.in_step;
            const int64_t column = strand.in_start + (begin - strand.shift) * in_step;
            low = smaller(low, column);
            high = larger(high, column + (count + strand.taps - 2) * in_step + 1);
        }
        if (low > high) low = high = 0;
        first = smaller(map.in_columns, larger(0, low)), end = larger(first, smaller(map.in_columns, high));
        left = task.pieces ? 0 : larger(0, first - low);
        out_pitch = larger(positions, ceil_div(end - first + larger(left, larger(0, high - end)), in_step));
        in_pitch = task.pieces ? end - first : out_pitch * in_step;
        // results that leave through transposes want 16 columns at a time
        keeps_sums = keeps_sums || (task.pieces && !in_vectors(task.out, task.epilogue));
    }

    // Places for the sums of long rows that are kept. Each ends with its own whole tile: what a tile has behind the
    // last position must not be another row's.
    SC_INLINE_MEMBER int64_t sums(int64_t rows, int64_t spans) const {
        return (rows * out_pitch + spans * PAIRS) * out_step + spans * larger(0, out_last - out_first);
    }
};

SC_INLINE int64_t common_divisor(int64_t a, int64_t b) {
    for (int64_t rest; b; b = rest) rest = a % b, a = b;
    return a;
}

// One tap that a strand meets: where its values lie, for row tile 0, in pairs; and the row tiles that meet it.
struct tile_step {
    int64_t in, weights, begin, end;
};

struct tile_row_scratch {
    int64_t *tables;       // of long_rows, or of image_pieces
    tile_step *steps;      // those of a strand
    float *pixels;         // 16 columns before they are split: [column][channel]
    float *weights;        // 32 channels of a lane block before they are split
    lane_weights lane;     // of a lane block that is not packed ahead
    uint32_t *planes;      // [32 channels][part][position][16 pairs]
    float *sums;           // [row tile][its row][lane]: two tiles, or all of the chunk's (row_pitches.keeps_sums)
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
        const image_pieces pieces(task);
        int64_t tables, slots, most_spans = 0, columns = 0, positions = 2 * PAIRS;  // columns: with those of pieces
        if (task.pieces) {
            const image_pieces::sizes size = pieces.measure(task.chunk_rows);
            tables = size.total(), slots = size.order;
        } else {
            const long_rows::sizes size = long_rows::measure(map, task.batch, task.chunk_rows);
            tables = size.total(), slots = size.slots, most_spans = size.most_spans;
        }
        for (int64_t segment = 0; segment < task.segments; ++segment) {
            const row_chunk chunk(task, segment);
            const row_pitches pitch(task, chunk);
            // behind the last row: its zeros, and positions that fill up the last tiles
            const int64_t fill = task.pieces ? 0 : (2 * PAIRS + SC_MAX_TAPS) * pitch.in_step;
            columns = larger(columns, (pitch.left + slots * pitch.in_pitch + fill) * pitch.side_by_side);
            int64_t kept = 0;
            if (pitch.keeps_sums && task.pieces) kept = task.chunk_rows * chunk.columns * PAIRS;
            else if (pitch.keeps_sums) kept = pitch.sums(task.chunk_rows, most_spans);
            positions = larger(positions, kept);
        }
        const sc_rows_task vectors = vector_task(task);
        return {line(2 * tables), line(all_taps(map) * (int64_t)(sizeof(tile_step) / sizeof(float))),
                line(16 * channel_tiles(task) * TILE_CHANNELS), line(weight_floats(task)),
                task.pack_ahead ? 0 : task.lane_vectors * weight_tile_pairs(task),
                task.pack_ahead ? 0 : task.lane_vectors * PAIRS,
                channel_tiles(task) * task.parts * columns * PAIRS,
                line(positions * task.lane_vectors * 16 + 16),
                line(vector_table.rows.rows.scratch(&vectors) / (int64_t)sizeof(float) + 16), columns * PAIRS};
    }
    tile_row_scratch(const sc_rows_task &task, void *memory) {
        const sizes size = measure(task);
        float *next = (float *)memory;
        tables = (int64_t *)next, next += size.tables;
        steps = (tile_step *)next, next += size.steps;
        pixels = next, next += size.pixels;
        weights = next, next += size.weights;
        lane.tiles = (uint32_t *)next, next += size.tiles;
        lane.tops = (uint32_t *)next, next += size.tops;
        planes = (uint32_t *)next, next += size.planes;
        sums = next, next += size.sums;
        vectors = next, plane = size.plane;
    }

    // The same call for the vector kernel, an item for each chunk and lane block of its own. The rows of a chunk are
    // whole chunks of it, whatever piece they are of.
    static sc_rows_task vector_task(const sc_rows_task &task) {
        sc_rows_task vectors = task;
        vectors.kernel = SC_ROWS_DENSE, vectors.parts = 0, vectors.epilogue.stream = 0, vectors.pack_ahead = 0;
        vectors.pieces = 0;
        if (task.pieces) vectors.chunk_rows = common_divisor(task.chunk_rows, task.map.out_rows / task.pieces);
        vectors.lane_vectors = task.lane_vectors <= vector_table.limits.dense_vectors ? task.lane_vectors : 1;
        vectors.channel_block = smaller(task.channels, SC_MAX_CHANNEL_BLOCK);
        vectors.lane_groups = lane_blocks(task.lanes, vectors.lane_vectors).count;
        return vectors;
    }
};

// Splits `columns` pixels of all channels. `to`: the first pixel in the first plane, `step` pairs to the next.
template <class Format>
static void split_pixels(const float *pixels, int64_t pitch, int64_t columns, int64_t channels, uint32_t *to,
                         int64_t step, int64_t plane, splitter<Format> &lanes, magnitudes &range) {
    for (int64_t column = 0; column < columns; ++column, pixels += pitch, to += step) {
        lanes.top = bits16{};
        for (int64_t channel = 0; channel < channels; channel += TILE_CHANNELS) {
            uint32_t *place = to + channel / TILE_CHANNELS * Format::PARTS * plane;
            split_pairs(pixels + channel, pixels + channel + PAIRS, place, plane, lanes);
        }
        range.add(largest_lane(lanes.top));
    }
}

// What a chunk is made of: its rows, and how they lie in scratch memory.
struct tile_chunk {
    const row_chunk &chunk;
    const row_pitches &pitch;
    const long_rows &spans;
    const image_pieces &pieces;  // these or those

    // Calls visit(row of `in` over all images, or -1 for zeros; its first pixel in a plane).
    template <class Visit>
    SC_INLINE_MEMBER void each_in_row(Visit visit) const {
        if (pieces.pieces) {
            for (int64_t slot = 0; slot < pieces.slots; ++slot) {
                for (int64_t i = 0; i < PAIRS; ++i) visit(pieces.source(slot, i), slot * pitch.in_pitch * PAIRS + i);
            }
        } else {
            for (int64_t slot = 0; slot < spans.slots; ++slot) {
                visit(spans.order[slot], pitch.left + slot * pitch.in_pitch);
            }
        }
    }
    // Calls visit(first row of `out` over all images, rows) for rows that follow one another.
    template <class Visit>
    SC_INLINE_MEMBER void each_out_rows(Visit visit) const {
        if (!pieces.pieces) visit(chunk.first, chunk.rows);
        for (int64_t i = 0; pieces.pieces && i < pieces.used(); ++i) visit(out_row(i, 0), chunk.rows);
    }
    // The row of `out`, over all images, that is `row` of the chunk in its i-th piece.
    SC_INLINE_MEMBER int64_t out_row(int64_t i, int64_t row) const {
        return (pieces.first_piece + i) * pieces.rows + chunk.first + row;
    }
};

// The largest |x| of all input rows of the chunk, as its bits.
static uint32_t largest_of_rows(const sc_rows_task &task, int64_t group, const tile_chunk &rows) {
    const sc_view &in = task.in;
    const int64_t begin = group * task.channels, columns = rows.pitch.end - rows.pitch.first;
    uint32_t top = 0;
    rows.each_in_row([&](int64_t row, int64_t) {
        if (row < 0) return;
        const float *from = row_of(in, row / task.map.in_rows, row % task.map.in_rows);
        from += rows.pitch.first * in.column_stride;
        if (channels_contiguous(in)) {
            for (int64_t i = 0; i < columns; ++i) {
                top = largest_of(from + begin + i * in.column_stride, 1, task.channels, top);
            }
        } else {
            for (int64_t channel = begin; channel < begin + task.channels; ++channel) {
                top = largest_of(from + channel_offset(in, channel), in.column_stride, columns, top);
            }
        }
    });
    return top;
}

// Zeros: `columns` pixels of all planes, `step` pixels apart.
static void clear_columns(const sc_rows_task &task, const tile_row_scratch &scratch, int64_t pixel, int64_t step,
                          int64_t columns) {
    for (int64_t i = 0; i < channel_tiles(task) * task.parts; ++i) {
        uint32_t *to = scratch.planes + i * scratch.plane + pixel * PAIRS;
        if (step == 1) __builtin_memset(to, 0, (size_t)(columns * ROW_BYTES));
        else for (int64_t c = 0; c < columns; ++c) __builtin_memset(to + c * step * PAIRS, 0, ROW_BYTES);
    }
}

// What splitting the input rows of a chunk has found.
struct split_input {
    uint32_t top;      // the largest |x|, where parts are scaled
    magnitudes range;  // of pixels
};

// All input rows of the chunk as planes.
template <class Format>
static split_input split_rows(const sc_rows_task &task, int64_t group, const tile_chunk &rows,
                              const tile_row_scratch &scratch) {
    const row_pitches &pitch = rows.pitch;
    const int64_t channels = channel_tiles(task) * TILE_CHANNELS, channel = group * task.channels;
    const int64_t used = pitch.end - pitch.first, step = pitch.side_by_side;
    const bool direct = channels_contiguous(task.in) && channels == task.channels;
    split_input found = {Format::SCALED ? largest_of_rows(task, group, rows) : 0, {}};
    splitter<Format> lanes(all_lanes(found.top));
    if (!direct) {
        for (int64_t i = 0; i < 16 * channels; i += 16) store(scratch.pixels + i, zero());
    }
    clear_columns(task, scratch, 0, 1, pitch.left);
    rows.each_in_row([&](int64_t row, int64_t first) {
        const int64_t columns = row < 0 ? 0 : used;
        clear_columns(task, scratch, first + columns * step, step, pitch.in_pitch - columns);
        if (row < 0) return;
        uint32_t *to = scratch.planes + first * PAIRS;
        const float *from = row_of(task.in, row / task.map.in_rows, row % task.map.in_rows);
        if (direct) {
            const int64_t pixel = task.in.column_stride;
            split_pixels(from + pitch.first * pixel + channel, pixel, columns, channels, to, step * PAIRS,
                         scratch.plane, lanes, found.range);
            return;
        }
        for (int64_t done = 0; done < columns; done += 16) {
            const int64_t count = smaller(16, columns - done);
            load_pixels(scratch.pixels, channels, task.in, from, channel, channel + task.channels,
                        pitch.first + done, 1, count);
            split_pixels(scratch.pixels, channels, count, channels, to + done * step * PAIRS, step * PAIRS,
                         scratch.plane, lanes, found.range);
        }
    });
    // Pixels share the scale, so sums of small ones alone would lose bits, too.
    if (lanes.loses() || (Format::SCALED && found.range.most() - found.range.least() > 16)) found.range.add(UNFIT);
    return found;
}

SC_CLOSE
