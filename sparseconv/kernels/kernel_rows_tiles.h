// forward and backward_data on tile registers: the dense kernel of instruction sets that have them.
//
// The sum is that of kernel_rows.h. Both operands are split into bf16 parts (split.h); a tile product sums 32 channels
// for 16 positions and 16 lanes.
//
// Loop order, outermost first, and what each level re-uses:
//   item         (group, chunk of output rows, share of the lane blocks), as in kernel_rows.h. All input rows that the
//                chunk meets are split once, into planes [32 channels][part][slot][column][16 pairs] (L2)
//   lane block   up to lane_vectors vectors: its weights as tiles [vector][32 channels][tap][part]
//   part of rows (row_parts.h), pass: one long row of positions, 32 at a time
//   two lane vectors: 2 x 2 tiles of sums stay in registers over all channels and taps of the pass
//
// Pairs are channels c and c + 16 of 32, on both sides; channels behind the last one are zeros. Rows stand `in_pitch`
// columns apart, with zeros between them that serve as the padding of both neighbours, so positions between two rows
// are computed too, and dropped. Columns `in_step` apart are rows of a tile `in_step` lines apart.
//
// Where tile products would not be as accurate as f32 (split.h: infinities, NaN, numbers near the ends of the range),
// the lane block of the chunk is left to the vector kernel. Chunks and lane blocks do not depend on the number of
// threads. The order of the sum for one output (pass, 32 channels, outer tap, tap, part) depends on nothing but the
// problem.
#pragma once
#include "mask_words.h"
#include "row_chunk.h"
#include "row_parts.h"
#include "tile_products.h"

SC_OPEN

enum { TILE_CHANNELS = 2 * PAIRS };  // that one tile product sums

SC_INLINE int64_t channel_tiles(const sc_rows_task &task) { return ceil_div(task.channels, TILE_CHANNELS); }
SC_INLINE int64_t all_taps(const sc_map &map) { return map.outer_taps * map.inner_taps; }

// --- weights ---

// Weights of one lane block: tiles [vector][32 channels][outer tap][tap][part], and the largest |w| of each lane.
struct lane_weights {
    uint32_t *tiles, *tops;
};

SC_INLINE int64_t weight_tile_pairs(const sc_rows_task &task) {  // of one lane vector
    return channel_tiles(task) * all_taps(task.map) * task.parts * TILE_PAIRS;
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

template <int PARTS>
static void split_weights(const sc_rows_task &task, const lane_block &block, const lane_weights &to, float *floats) {
    const sc_weight_view &view = task.weight;
    const int64_t taps = all_taps(task.map), pitch = block.vectors * 16;
    static const float zeros[16] = {};
    bits16 tops[SC_MAX_LANE_VECTORS] = {};
    for (int64_t channel = 0; channel < task.channels; channel += TILE_CHANNELS) {
        const int64_t channels = smaller(TILE_CHANNELS, task.channels - channel), lane = block.vector * 16;
        const weight_tile shape = {task.map, channels, block.vectors, true};
        float *data = view.data + block.group * view.group_stride + lane * view.lane_stride;
        move_weights<true>(floats, shape, view, data + channel * view.channel_stride, task.lanes - lane);
        for (int64_t vector = 0; vector < block.vectors; ++vector) {
            uint32_t *tile = to.tiles + vector * weight_tile_pairs(task) +
                             channel / TILE_CHANNELS * taps * PARTS * TILE_PAIRS;
            for (int64_t tap = 0; tap < taps; ++tap, tile += PARTS * TILE_PAIRS) {
                const float *from = floats + tap * channels * pitch + vector * 16;
                for (int64_t c = 0; c < PAIRS; ++c) {
                    const float *low = c < channels ? from + c * pitch : zeros;
                    const float *high = c + PAIRS < channels ? from + (c + PAIRS) * pitch : zeros;
                    split_pairs<PARTS>(low, high, tile + c * PAIRS, TILE_PAIRS, tops[vector]);
                }
            }
        }
    }
    __builtin_memcpy(to.tops, tops, (size_t)block.vectors * sizeof *tops);
}

static void split_weights(const sc_rows_task &task, const lane_block &block, const lane_weights &to, float *floats) {
    if (task.parts == 3) split_weights<3>(task, block, to, floats);
    else if (task.parts == 2) split_weights<2>(task, block, to, floats);
    else split_weights<1>(task, block, to, floats);
}

static void pack_weight_tiles(const sc_rows_task *whole, int64_t begin, int64_t end, void *scratch) {
    const sc_rows_task &task = *whole;
    const lane_blocks blocks(task.lanes, task.lane_vectors);
    for (int64_t item = begin; item < end; ++item) {
        const lane_block block = lane_block_of(task, blocks, item / blocks.count, item % blocks.count);
        split_weights(task, block, packed_weights(task, block), (float *)scratch);
    }
}

static int64_t pack_weight_tiles_bytes(const sc_rows_task *task) {
    return weight_floats(*task) * (int64_t)sizeof(float);
}

// --- inputs ---

// How the rows of a chunk lie in scratch memory: columns [first, end) of `in`, zeros around them that a row shares with
// the next one.
struct row_pitches {
    int64_t in_step, out_step;    // columns from one position of a pass to the next
    int64_t first, end;           // columns of `in`
    int64_t left;                 // zeros in front of the first row
    int64_t in_pitch, out_pitch;  // columns, and positions, from one row to the next
    bool at_once;                 // every output is complete after one pass

    SC_INLINE_MEMBER row_pitches(const sc_rows_task &task, const row_chunk &chunk)
        : in_step(1), out_step(1), at_once(true) {
        const sc_map &map = task.map;
        int64_t low = INT64_MAX, high = INT64_MIN, positions = 1;  // columns that taps reach, padding included
        for (int64_t p = 0; p < map.pass_count; ++p) {
            const sc_pass &pass = map.passes[p];
            int64_t begin, count;
            chunk.range(pass, begin, count);
            count -= begin, out_step = pass.out_step;
            at_once = at_once && pass.opens && pass.closes;
            positions = larger(positions, count);
            if (pass.taps == 0 || count <= 0) continue;
            in_step = pass.in_step;
            const int64_t column = pass.in_start + (begin - pass.shift) * in_step;
            low = smaller(low, column);
            high = larger(high, column + (count + pass.taps - 2) * in_step + 1);
        }
        if (low > high) low = high = 0;
        first = smaller(map.in_columns, larger(0, low)), end = larger(first, smaller(map.in_columns, high));
        left = larger(0, first - low);
        out_pitch = larger(positions, ceil_div(end - first + larger(left, larger(0, high - end)), in_step));
        in_pitch = out_pitch * in_step;
    }
};

struct tile_row_scratch {
    int64_t *tables;       // of row_parts
    int64_t *steps;        // [step][2], the steps of a pass
    float *pixels;         // 16 columns before they are split: [column][channel]
    float *weights;        // 32 channels of a lane block before they are split
    lane_weights lane;     // of a lane block that is not packed ahead
    uint32_t *planes;      // [32 channels][part][position][16 pairs]
    float *sums;           // [position][lane]: 32 positions, or all of the chunk where passes take turns
    void *vectors;         // what the vector kernel needs
    int64_t plane;         // pairs in a plane

    struct sizes {  // in floats, whole cache lines
        int64_t tables, steps, pixels, weights, tiles, tops, planes, sums, vectors, plane;
        int64_t total() const {
            return tables + steps + pixels + weights + tiles + tops + planes + sums + vectors;
        }
    };
    static int64_t line(int64_t floats) { return (floats + 15) / 16 * 16; }
    static sizes measure(const sc_rows_task &task) {
        const sc_map &map = task.map;
        const row_parts::sizes parts = row_parts::measure(map, task.batch, task.chunk_rows);
        int64_t columns = 0, positions = 2 * PAIRS;
        for (int64_t segment = 0; segment < task.segments; ++segment) {
            const row_pitches pitch(task, row_chunk(task, segment));
            // behind the last row: its zeros, and positions that fill up the last tiles
            const int64_t fill = (2 * PAIRS + SC_MAX_TAPS) * pitch.in_step;
            columns = larger(columns, pitch.left + parts.slots * pitch.in_pitch + fill);
            if (pitch.at_once) continue;
            positions = larger(positions, (task.chunk_rows * pitch.out_pitch + 2 * PAIRS) * pitch.out_step);
        }
        const sc_rows_task vectors = vector_task(task);
        return {line(2 * parts.total()), line(4 * all_taps(map)), line(16 * channel_tiles(task) * TILE_CHANNELS),
                line(weight_floats(task)), task.pack_ahead ? 0 : task.lane_vectors * weight_tile_pairs(task),
                task.pack_ahead ? 0 : task.lane_vectors * PAIRS,
                channel_tiles(task) * task.parts * columns * PAIRS,
                line(positions * task.lane_vectors * 16 + 16),
                line(vector_table.rows_scratch(&vectors) / (int64_t)sizeof(float) + 16), columns * PAIRS};
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
        vectors.parts = 0, vectors.stream = 0, vectors.dense = 1, vectors.pack_ahead = 0;
        vectors.lane_vectors = task.lane_vectors <= vector_table.dense_vectors ? task.lane_vectors : 1;
        vectors.channel_block = smaller(task.channels, SC_MAX_CHANNEL_BLOCK);
        vectors.lane_groups = lane_blocks(task.lanes, vectors.lane_vectors).count;
        return vectors;
    }
};

static int64_t tile_rows_scratch_bytes(const sc_rows_task *task) {
    return tile_row_scratch::measure(*task).total() * (int64_t)sizeof(float);
}

// Splits `columns` pixels of all channels. `to`: the first pixel in the first plane.
template <int PARTS>
static void split_pixels(const float *pixels, int64_t pitch, int64_t columns, int64_t channels, uint32_t *to,
                         int64_t plane, magnitudes &range) {
    for (int64_t column = 0; column < columns; ++column, pixels += pitch, to += PAIRS) {
        bits16 tops = {};
        for (int64_t channel = 0; channel < channels; channel += TILE_CHANNELS) {
            uint32_t *place = to + channel / TILE_CHANNELS * PARTS * plane;
            split_pairs<PARTS>(pixels + channel, pixels + channel + PAIRS, place, plane, tops);
        }
        uint32_t top = 0;
        for (int i = 0; i < PAIRS; ++i) top = tops[i] > top ? tops[i] : top;
        range.add(top);
    }
}

static void clear_columns(const sc_rows_task &task, const tile_row_scratch &scratch, int64_t column, int64_t columns) {
    for (int64_t i = 0; i < channel_tiles(task) * task.parts; ++i) {
        __builtin_memset(scratch.planes + i * scratch.plane + column * PAIRS, 0, (size_t)(columns * ROW_BYTES));
    }
}

// All input rows of the chunk as planes; returns what is known of their pixels.
template <int PARTS>
static magnitudes split_rows(const sc_rows_task &task, int64_t group, const row_pitches &pitch, const row_parts &parts,
                             const tile_row_scratch &scratch) {
    const int64_t channels = channel_tiles(task) * TILE_CHANNELS, channel = group * task.channels;
    const bool direct = channels_contiguous(task.in) && channels == task.channels;
    magnitudes range;
    if (!direct) {
        for (int64_t i = 0; i < 16 * channels; i += 16) store(scratch.pixels + i, zero());
    }
    clear_columns(task, scratch, 0, pitch.left);
    for (int64_t slot = 0; slot < parts.slots; ++slot) {
        const int64_t row = parts.order[slot], first = pitch.left + slot * pitch.in_pitch;
        const int64_t columns = row < 0 ? 0 : pitch.end - pitch.first;
        clear_columns(task, scratch, first + columns, pitch.in_pitch - columns);
        if (row < 0) continue;
        uint32_t *to = scratch.planes + first * PAIRS;
        const float *from = row_of(task.in, row / task.map.in_rows, row % task.map.in_rows);
        if (direct) {
            const int64_t step = task.in.column_stride;
            split_pixels<PARTS>(from + pitch.first * step + channel, step, columns, channels, to, scratch.plane, range);
            continue;
        }
        for (int64_t done = 0; done < columns; done += 16) {
            const int64_t count = smaller(16, columns - done);
            load_pixels(scratch.pixels, channels, task.in, from, channel, channel + task.channels,
                        pitch.first + done, 1, count);
            split_pixels<PARTS>(scratch.pixels, channels, count, channels, to + done * PAIRS, scratch.plane, range);
        }
    }
    return range;
}

// --- sweeps ---

// One tap that a part meets: where its values lie, for position 0, in pairs.
struct tile_step {
    int64_t in, weights;
};

// One pass over a part.
struct tile_sweep {
    const uint32_t *in, *weights;  // first planes; tiles of the first vector
    const tile_step *steps;
    int64_t step_count, channel_tiles;
    int64_t in_channels, in_part, in_step;       // pairs from 32 channels, parts and positions to the next
    int64_t weight_channels, weight_vector;      // and of the weights
    bool opens;
};

template <class Multiply>
SC_INLINE void for_each_step(const tile_sweep &sweep, int64_t position, int64_t vector, Multiply multiply) {
    const uint32_t *in = sweep.in + position * sweep.in_step, *weights = sweep.weights + vector * sweep.weight_vector;
    const int64_t row_bytes = sweep.in_step * (int64_t)sizeof(uint32_t);
    for (int64_t c = 0; c < sweep.channel_tiles; ++c, in += sweep.in_channels, weights += sweep.weight_channels) {
        for (int64_t i = 0; i < sweep.step_count; ++i) {
            const tile_operand rows = {in + sweep.steps[i].in, PAIRS * sweep.in_step, sweep.in_part, row_bytes};
            multiply(rows, tile_operand{weights + sweep.steps[i].weights, sweep.weight_vector, TILE_PAIRS, ROW_BYTES});
        }
    }
}

template <int PARTS, int P, int Q>
SC_ALONE static void sum_block(const tile_sweep &sweep, int64_t position, int64_t vector, float *sums,
                               int64_t sums_row) {
    if (sweep.opens) zero_sums<P, Q>();
    else load_sums<P, Q>(sums, sums_row, PAIRS * sums_row);
    if constexpr (PARTS > 1) for_each_step(sweep, position, vector, multiply_rest<PARTS, P, Q>);
    for_each_step(sweep, position, vector, multiply_high<P, Q>);
    store_sums<P, Q>(sums, sums_row, PAIRS * sums_row);
}

// 32 positions, or the last 16, of all lane vectors.
template <int PARTS>
static void sum_positions(const tile_sweep &sweep, int64_t position, bool two, int64_t vectors, float *sums,
                          int64_t sums_row) {
    for (int64_t vector = 0; vector < vectors; vector += 2) {
        float *to = sums + vector * 16;
        if (vector + 1 < vectors) {
            if (two) sum_block<PARTS, 2, 2>(sweep, position, vector, to, sums_row);
            else sum_block<PARTS, 1, 2>(sweep, position, vector, to, sums_row);
        } else {
            if (two) sum_block<PARTS, 2, 1>(sweep, position, vector, to, sums_row);
            else sum_block<PARTS, 1, 1>(sweep, position, vector, to, sums_row);
        }
    }
}

// Complete sums of neighbouring positions of one row: bias, activation, and into memory.
static void finish_positions(const sc_rows_task &task, const lane_block &block, float *sums, int64_t sums_row,
                             int64_t row, int64_t column, int64_t column_step, int64_t count) {
    const int64_t first = block.group * task.lanes + block.vector * 16, pitch = block.vectors * 16;
    const bool direct = channels_contiguous(task.out);
    sc_view view = task.out;
    view.column_stride *= column_step;
    float *out = row_of(view, row / task.map.out_rows, row % task.map.out_rows) + column * task.out.column_stride;
    for (int64_t i = 0; i < count; ++i) {
        for (int64_t lane = 0; lane < pitch; lane += 16) {
            const int lanes = (int)smaller(16, block.lanes - lane);
            f32x16 sum = load(sums + i * sums_row + lane);
            if (task.bias) sum = add(sum, load_partial(task.bias + first + lane, lanes));
            if (task.relu) sum = maximum(zero(), sum);
            if (direct) store_partial(out + i * view.column_stride + first + lane, sum, lanes);
            else store(sums + i * sums_row + lane, sum);
        }
    }
    if (task.needed.data) {
        const mask_columns columns(task.needed, row / task.map.out_rows, row % task.map.out_rows, column, column_step,
                                   count);
        keep_needed(task.needed, columns, first, block.lanes, direct ? out + first : sums,
                    direct ? view.column_stride : sums_row);
    }
    if (!direct) store_pixels(sums, sums_row, view, out, first, first + block.lanes, 0, count);
}

// One pass over one part, and what it completes.
template <int PARTS>
static void sweep_part(const sc_rows_task &task, const row_chunk &chunk, const row_pitches &pitch,
                       const row_parts &parts, int64_t index, const sc_pass &pass, const lane_block &block,
                       const lane_weights &weights, int64_t sums_first, const tile_row_scratch &scratch) {
    const sc_map &map = task.map;
    int64_t begin, end;
    chunk.range(pass, begin, end);
    if (begin >= end) return;
    tile_step *steps = (tile_step *)scratch.steps;
    tile_sweep sweep = {};
    for (int64_t outer = 0; outer < map.outer_taps && pass.taps; ++outer) {
        const int64_t slot = parts.bases[index * map.outer_taps + outer];
        for (int64_t tap = 0; tap < pass.taps && slot >= 0; ++tap) {
            const int64_t column = pass.in_start + (begin + tap - pass.shift) * pass.in_step - pitch.first;
            const int64_t place = outer * map.inner_taps + pass.taps_before + tap;
            steps[sweep.step_count++] = {(pitch.left + slot * pitch.in_pitch + column) * PAIRS,
                                         place * PARTS * TILE_PAIRS};
        }
    }
    sweep.in = scratch.planes, sweep.in_part = scratch.plane, sweep.in_channels = PARTS * scratch.plane;
    sweep.in_step = pitch.in_step * PAIRS;
    sweep.weights = weights.tiles, sweep.weight_vector = weight_tile_pairs(task);
    sweep.weight_channels = all_taps(map) * PARTS * TILE_PAIRS;
    sweep.steps = steps, sweep.channel_tiles = channel_tiles(task), sweep.opens = pass.opens;

    const row_part &part = parts.parts[index];
    const int64_t lanes = block.vectors * 16, out_column = pass.out_start + begin * pass.out_step;
    const int64_t sums_row = pitch.at_once ? lanes : pass.out_step * lanes;
    const int64_t positions = (part.rows - 1) * pitch.out_pitch + end - begin;
    for (int64_t position = 0; position < positions; position += 2 * PAIRS) {
        float *sums = scratch.sums;
        if (!pitch.at_once) sums += (sums_first + position * pass.out_step + out_column - chunk.column) * lanes;
        sum_positions<PARTS>(sweep, position, positions - position > PAIRS, block.vectors, sums, sums_row);
        const int64_t last = smaller(positions, position + 2 * PAIRS);
        for (int64_t at = position, next; pass.closes && at < last; at = next) {
            const int64_t row = at / pitch.out_pitch, m = at % pitch.out_pitch;
            next = smaller(last, (row + 1) * pitch.out_pitch);
            const int64_t count = smaller(next - at, end - begin - m);
            if (count <= 0) continue;
            finish_positions(task, block, sums + (at - position) * sums_row, sums_row, part.first + row * part.step,
                             out_column + m * pass.out_step, pass.out_step, count);
        }
    }
}

template <int PARTS>
static void sweep_lane_block(const sc_rows_task &task, const row_chunk &chunk, const row_pitches &pitch,
                             const row_parts &parts, const lane_block &block, const lane_weights &weights,
                             const tile_row_scratch &scratch) {
    const tiles_in_use tiles;
    int64_t rows = 0;
    for (int64_t index = 0; index < parts.count; rows += parts.parts[index++].rows) {
        for (int64_t p = 0; p < task.map.pass_count; ++p) {
            sweep_part<PARTS>(task, chunk, pitch, parts, index, task.map.passes[p], block, weights,
                              rows * pitch.out_pitch * pitch.out_step, scratch);
        }
    }
}

// The vector kernel computes the lane block of this chunk.
static void leave_to_vectors(const sc_rows_task &task, int64_t chunk, int64_t chunks, const lane_block &block,
                             void *memory) {
    const sc_rows_task vectors = tile_row_scratch::vector_task(task);
    const lane_blocks blocks(task.lanes, vectors.lane_vectors);
    int64_t index = 0;
    while (blocks.begin(index) < block.vector) ++index;
    for (; index < blocks.count && blocks.begin(index) < block.vector + block.vectors; ++index) {
        const int64_t item = (block.group * chunks + chunk) * blocks.count + index;
        vector_table.rows(&vectors, item, item + 1, memory);
    }
}

template <int PARTS>
static void tile_rows_item(const sc_rows_task &task, int64_t item, row_parts &parts, const tile_row_scratch &scratch) {
    const int64_t chunks = ceil_div(task.batch * task.map.out_rows, task.chunk_rows) * task.segments;
    const int64_t share = item % task.lane_groups, index = item / task.lane_groups % chunks;
    const int64_t group = item / task.lane_groups / chunks;
    const row_chunk chunk(task, index);
    const row_pitches pitch(task, chunk);
    const lane_blocks blocks(task.lanes, task.lane_vectors);
    parts.find(chunk.first, chunk.rows);
    const magnitudes in = split_rows<PARTS>(task, group, pitch, parts, scratch);
    const int64_t end = part_begin(blocks.count, task.lane_groups, share + 1);
    for (int64_t i = part_begin(blocks.count, task.lane_groups, share); i < end; ++i) {
        if (task.interrupt.poll(task.interrupt.context)) return;
        const lane_block block = lane_block_of(task, blocks, group, i);
        const lane_weights weights = task.pack_ahead ? packed_weights(task, block) : scratch.lane;
        if (!task.pack_ahead) split_weights(task, block, weights, scratch.weights);
        magnitudes range;
        for (int64_t lane = 0; lane < block.vectors * 16; ++lane) range.add(weights.tops[lane]);
        if (tiles_are_accurate(in, range)) {
            sweep_lane_block<PARTS>(task, chunk, pitch, parts, block, weights, scratch);
        } else {
            leave_to_vectors(task, index, chunks, block, scratch.vectors);
        }
    }
}

static void tile_rows(const sc_rows_task *task, int64_t begin, int64_t end, void *memory) {
    const tile_row_scratch scratch(*task, memory);
    row_parts parts(task->map, row_parts::measure(task->map, task->batch, task->chunk_rows), scratch.tables);
    for (int64_t item = begin; item < end; ++item) {
        if (task->parts == 3) tile_rows_item<3>(*task, item, parts, scratch);
        else if (task->parts == 2) tile_rows_item<2>(*task, item, parts, scratch);
        else tile_rows_item<1>(*task, item, parts, scratch);
    }
}

SC_CLOSE
