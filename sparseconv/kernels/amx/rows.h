// forward and backward_data on tile registers: the dense kernel of instruction sets that have them.
//
// The sum is that of rows/rows.h. Both operands are split into bf16 or fp16 parts (amx/split.h); a tile product sums 32
// channels for 16 positions and 16 lanes. Of scaled parts the scale of x is that of the chunk, those of weights are one
// per lane; the last store takes them away before it adds the bias.
//
// Loop order, outermost first, and what each level re-uses:
//   item         (group, chunk of output rows, share of the lane blocks), as in rows/rows.h. All input rows that the
//                chunk meets are split once (amx/planes.h): planes [32 channels][part][slot][column][16 pairs] (L2)
//   lane block   up to lane_vectors vectors: its weights as tiles [vector][32 channels][tap][part] (amx/weights.h)
//   span of rows (amx/long_rows.h), strand: one long row of positions, 32 at a time
//   two lane vectors: 2 x 2 tiles of sums stay in registers over all channels and taps of the strand
//
// Pairs are channels c and c + 16 of 32, on both sides; channels behind the last one are zeros. Columns `in_step` apart
// are rows of a tile `in_step` lines apart.
//
// Where tile products would not be as accurate as f32 (amx/split.h: infinities, NaN, numbers near the ends of the
// range), the lane block of the chunk is left to the vector kernel. Chunks and lane blocks do not depend on the number
// of threads. The order of the sum for one output (strand, 32 channels, outer tap, tap, part) depends on nothing but
// the problem.
#pragma once
#include "amx/long_rows.h"
#include "amx/planes.h"
#include "amx/products.h"
#include "amx/weights.h"
#include "common/epilogue.h"
#include "common/mask_words.h"
#include "rows/chunk.h"

SC_OPEN

// One tap that a span meets: where its values lie, for position 0, in pairs.
struct tile_step {
    int64_t in, weights;
};

// One strand over a span.
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

template <class Format, int P, int Q>
SC_ALONE static void sum_block(const tile_sweep &sweep, int64_t position, int64_t vector, float *sums,
                               int64_t sums_row) {
    if (sweep.opens) zero_sums<P, Q>();
    else load_sums<P, Q>(sums, sums_row, PAIRS * sums_row);
    if constexpr (Format::SWEEPS > 1) for_each_step(sweep, position, vector, multiply_rest<Format, P, Q>);
    for_each_step(sweep, position, vector, multiply_last<Format, P, Q>);
    store_sums<P, Q>(sums, sums_row, PAIRS * sums_row);
}

// 32 positions, or the last 16, of all lane vectors.
template <class Format>
static void sum_positions(const tile_sweep &sweep, int64_t position, bool two, int64_t vectors, float *sums,
                          int64_t sums_row) {
    for (int64_t vector = 0; vector < vectors; vector += 2) {
        float *to = sums + vector * 16;
        if (vector + 1 < vectors) {
            if (two) sum_block<Format, 2, 2>(sweep, position, vector, to, sums_row);
            else sum_block<Format, 1, 2>(sweep, position, vector, to, sums_row);
        } else {
            if (two) sum_block<Format, 2, 1>(sweep, position, vector, to, sums_row);
            else sum_block<Format, 1, 1>(sweep, position, vector, to, sums_row);
        }
    }
}

// Complete sums of neighbouring positions of one row: scales, bias, epilogue, and into memory. `unscale`: for each lane
// what brings sums of scaled parts back, or null.
static void finish_positions(const sc_rows_task &task, const lane_block &block, const float *unscale, float *sums,
                             int64_t sums_row, int64_t row, int64_t column, int64_t column_step, int64_t count) {
    const int64_t first = block.group * task.lanes + block.vector * 16, pitch = block.vectors * 16;
    const int64_t image = row / task.map.out_rows, out_row = row % task.map.out_rows;
    const sc_epilogue &end = task.epilogue;
    const bool direct = in_vectors(task.out, end);
    const int64_t out_pitch = direct ? column_step * task.out.column_stride : sums_row;
    float *out = direct ? row_of(task.out, image, out_row) + column * task.out.column_stride + first : sums;
    const float *residual = nullptr;
    if (direct && end.residual.data) {
        residual = row_of(end.residual, image, out_row) + column * end.residual.column_stride + first;
    }
    for (int64_t i = 0; i < count; ++i) {
        for (int64_t lane = 0; lane < pitch; lane += 16) {
            const int lanes = (int)smaller(16, block.lanes - lane);
            f32x16 sum = load(sums + i * sums_row + lane);
            if (unscale) sum = multiply(sum, load(unscale + lane));
            if (end.bias) sum = add(sum, load_partial(end.bias + first + lane, lanes));
            if (residual) {
                sum = with_residual(sum, residual + i * column_step * end.residual.column_stride + lane, lanes);
            }
            if (direct) store_result(out + i * out_pitch + lane, finished(sum, end.relu), lanes, false);
            else store(out + i * out_pitch + lane, sum);
        }
    }
    if (task.needed.data) {
        const mask_columns columns(task.needed, image, out_row, column, column_step, count);
        keep_needed(task.needed, columns, first, block.lanes, out, out_pitch);
    }
    if (direct) return;
    finish_tile(end, task.out, sums, sums_row,
                {image, out_row, first, first + block.lanes, column, column_step, count});
}

// One strand over one span, and what it completes.
template <class Format>
static void sweep_span(const sc_rows_task &task, const row_chunk &chunk, const row_pitches &pitch,
                       const long_rows &spans, int64_t index, const sc_strand &strand, const lane_block &block,
                       const lane_weights &weights, const float *unscale, int64_t sums_first,
                       const tile_row_scratch &scratch) {
    const sc_map &map = task.map;
    int64_t begin, end;
    chunk.range(strand, begin, end);
    if (begin >= end) return;
    tile_step *steps = (tile_step *)scratch.steps;
    tile_sweep sweep = {};
    for (int64_t outer = 0; outer < map.outer_taps && strand.taps; ++outer) {
        const int64_t slot = spans.bases[index * map.outer_taps + outer];
        for (int64_t tap = 0; tap < strand.taps && slot >= 0; ++tap) {
            const int64_t column = strand.in_start + (begin + tap - strand.shift) * strand.in_step - pitch.first;
            const int64_t place = outer * map.inner_taps + strand.taps_before + tap;
            steps[sweep.step_count++] = {(pitch.left + slot * pitch.in_pitch + column) * PAIRS,
                                         place * Format::PARTS * TILE_PAIRS};
        }
    }
    sweep.in = scratch.planes, sweep.in_part = scratch.plane, sweep.in_channels = Format::PARTS * scratch.plane;
    sweep.in_step = pitch.in_step * PAIRS;
    sweep.weights = weights.tiles, sweep.weight_vector = weight_tile_pairs(task);
    sweep.weight_channels = all_taps(map) * Format::PARTS * TILE_PAIRS;
    sweep.steps = steps, sweep.channel_tiles = channel_tiles(task), sweep.opens = strand.opens;

    const long_row &span = spans.spans[index];
    const int64_t lanes = block.vectors * 16, out_column = strand.out_start + begin * strand.out_step;
    const int64_t sums_row = pitch.at_once ? lanes : strand.out_step * lanes;
    const int64_t positions = (span.rows - 1) * pitch.out_pitch + end - begin;
    for (int64_t position = 0; position < positions; position += 2 * PAIRS) {
        float *sums = scratch.sums;
        if (!pitch.at_once) sums += (sums_first + position * strand.out_step + out_column - chunk.column) * lanes;
        sum_positions<Format>(sweep, position, positions - position > PAIRS, block.vectors, sums, sums_row);
        const int64_t last = smaller(positions, position + 2 * PAIRS);
        for (int64_t at = position, next; strand.closes && at < last; at = next) {
            const int64_t row = at / pitch.out_pitch, m = at % pitch.out_pitch;
            next = smaller(last, (row + 1) * pitch.out_pitch);
            const int64_t count = smaller(next - at, end - begin - m);
            if (count <= 0) continue;
            finish_positions(task, block, unscale, sums + (at - position) * sums_row, sums_row,
                             span.first + row * span.step, out_column + m * strand.out_step, strand.out_step, count);
        }
    }
}

template <class Format>
static void sweep_lane_block(const sc_rows_task &task, const row_chunk &chunk, const row_pitches &pitch,
                             const long_rows &spans, const lane_block &block, const lane_weights &weights,
                             const float *unscale, const tile_row_scratch &scratch) {
    const tiles_in_use tiles;
    int64_t rows = 0;
    for (int64_t index = 0; index < spans.count; rows += spans.spans[index++].rows) {
        for (int64_t p = 0; p < task.map.strand_count; ++p) {
            sweep_span<Format>(task, chunk, pitch, spans, index, task.map.strands[p], block, weights, unscale,
                              rows * pitch.out_pitch * pitch.out_step, scratch);
        }
    }
}

// Output columns that no strand has.
static void fill_gaps(const sc_rows_task &task, const row_chunk &chunk, const lane_block &block, float *sums) {
    const int64_t lanes = block.vectors * 16;
    for (int64_t row = chunk.first; row < chunk.first + chunk.rows; ++row) {
        chunk.each_gap(task.map, [&](int64_t column, int64_t step, int64_t count) {
            for (int64_t done = 0; done < count; done += 2 * PAIRS) {
                const int64_t some = smaller(2 * PAIRS, count - done);
                for (int64_t i = 0; i < some * lanes; i += 16) store(sums + i, zero());
                finish_positions(task, block, nullptr, sums, lanes, row, column + done * step, step, some);
            }
        });
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
        vector_table.rows.rows.run(&vectors, item, item + 1, memory);
    }
}

// What brings sums of scaled parts back, for each lane of a block.
static void find_unscale(const lane_block &block, uint32_t in_top, const uint32_t *lane_tops, float *unscale) {
    float in;
    set_unscale(&in, in_top);
    for (int64_t lane = 0; lane < block.vectors * 16; ++lane) {
        set_unscale(unscale + lane, lane_tops[lane]);
        unscale[lane] *= in;
    }
}

template <class Format>
static void tile_rows_item(const sc_rows_task &task, int64_t item, long_rows &spans,
                           const tile_row_scratch &scratch) {
    const int64_t chunks = ceil_div(task.batch * task.map.out_rows, task.chunk_rows) * task.segments;
    const int64_t share = item % task.lane_groups, index = item / task.lane_groups % chunks;
    const int64_t group = item / task.lane_groups / chunks;
    const row_chunk chunk(task, index);
    const row_pitches pitch(task, chunk);
    const lane_blocks blocks(task.lanes, task.lane_vectors);
    spans.find(chunk.first, chunk.rows);
    const split_input in = split_rows<Format>(task, group, pitch, spans, scratch);
    const int64_t end = part_begin(blocks.count, task.lane_groups, share + 1);
    for (int64_t i = part_begin(blocks.count, task.lane_groups, share); i < end; ++i) {
        if (task.interrupt.poll(task.interrupt.context)) return;
        const lane_block block = lane_block_of(task, blocks, group, i);
        const lane_weights weights = task.pack_ahead ? packed_weights(task, block) : scratch.lane;
        if (!task.pack_ahead) split_weights<Format>(task, block, weights, scratch.weights);
        magnitudes range;
        for (int64_t lane = 0; lane < block.vectors * 16; ++lane) range.add(weights.tops[lane]);
        if (tiles_are_accurate(in.range, range)) {
            float unscale[SC_MAX_LANE_VECTORS * 16];
            if constexpr (Format::SCALED) find_unscale(block, in.top, weights.tops, unscale);
            sweep_lane_block<Format>(task, chunk, pitch, spans, block, weights, Format::SCALED ? unscale : nullptr,
                                     scratch);
            fill_gaps(task, chunk, block, scratch.sums);
        } else {
            leave_to_vectors(task, index, chunks, block, scratch.vectors);
        }
    }
}

static int64_t tile_rows_scratch_bytes(const sc_rows_task *task) {
    return tile_row_scratch::measure(*task).total() * (int64_t)sizeof(float);
}

template <class Two>
static void tile_rows(const sc_rows_task *task, int64_t begin, int64_t end, void *memory) {
    const tile_row_scratch scratch(*task, memory);
    long_rows spans(task->map, long_rows::measure(task->map, task->batch, task->chunk_rows), scratch.tables);
    for (int64_t item = begin; item < end; ++item) {
        with_format<Two>(*task, [&](auto format) { tile_rows_item<decltype(format)>(*task, item, spans, scratch); });
    }
}

// `Two`: the format of two parts.
template <class Two>
static constexpr sc_rows_table tile_rows_table = {
    {pack_weight_tiles<Two>, weight_lane_blocks, pack_weight_tiles_scratch},
    {tile_rows<Two>, rows_items, tile_rows_scratch_bytes}, packed_weight_tiles_bytes,
};

SC_CLOSE
