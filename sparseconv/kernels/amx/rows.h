// forward and backward_data on tile registers: the dense kernel of instruction sets that have them.
//
// The sum is that of rows/rows.h. Both operands are split into bf16 or fp16 parts (amx/split.h); a tile product sums 32
// channels for 16 rows (positions, or pieces of images) and 16 lanes. Of scaled parts the scale of x is that of the
// chunk, those of weights are one per lane; the last store takes them away before it adds the bias.
//
// Loop order, outermost first, and what each level re-uses:
//   item         (group, chunk, share of the lane blocks). All input rows that the chunk meets are split once
//                (amx/planes.h): planes [32 channels][part][pixel][16 pairs] (L2)
//   lane block   up to lane_vectors vectors: its weights as tiles [vector][32 channels][tap][part] (amx/weights.h)
//   sweep        `channel_block` channels: their weights are what the sweep reads again and again
//   strand of a row: a span of rows as one long row (amx/long_rows.h), or a row of 16 pieces (amx/pieces.h)
//   two row tiles, two lane vectors: 2 x 2 tiles of sums stay in registers over the channels and taps of the sweep
//
// `channel_block` and `lane_vectors` make two orders of it (_core/amx.py chooses):
// - 32 channels and two vectors: the weights of a 3x3 sweep are 36 KB (two fp16 parts) or 54 KB (three bf16 parts) and
//   stay in L1 while all positions of the chunk go by. The price are four sums that are loaded and stored once a sweep:
//   8 tile moves beside 108 products of fp16 parts, or 216 of bf16 parts in two sweeps. In layers of one tap all
//   channels are one sweep: 288 channels have 36 KB, sums are complete before they leave registers, and results go
//   past the caches.
// - all channels and four vectors: sums never move, but all weights of the block come from L2 for every 32 positions.
//   On Granite Rapids this was the faster one of bf16 in 3x3 layers with maps wider than 14.
// What 16 pieces save, and cost, is said in amx/pieces.h. Steps that no row of a tile meets are left out: on the left
// and on the right one of the two row tiles goes alone.
//
// The first order is that of a prototype, which was 1.5 times (bf16, 7 x 7 and 14 x 14 maps and 1x1 layers) to 3 times
// (fp16) as fast as oneDNN's float32 on one core of Granite Rapids. This code has run on emulated tiles alone: that it
// is as fast is not known, nor are chunk sizes tuned. What is counted and tested is tile loads, stores and products.
//
// Pairs are channels c and c + 16 of 32, on both sides; channels behind the last one are zeros. Columns `in_step` apart
// are rows of a tile `in_step` lines apart.
//
// Where tile products would not be as accurate as f32 (amx/split.h: infinities, NaN, numbers near the ends of the
// range), the lane block of the chunk is left to the vector kernel. Chunks and lane blocks do not depend on the number
// of threads. The order of the sum for one output (small products and high x high of bf16 parts, sweep, strand, 32
// channels, outer tap, tap, part) depends on nothing but the problem and the blocks of the task.
#pragma once
#include "amx/long_rows.h"
#include "amx/planes.h"
#include "amx/sweep.h"
#include "amx/weights.h"
#include "common/epilogue.h"
#include "common/mask_words.h"
#include "rows/chunk.h"

SC_OPEN

// Complete sums of up to 32 columns of one row: scales, bias, mask, epilogue, and into memory. `unscale`: for each lane
// what brings sums of scaled parts back, or null.
static void finish_positions(const sc_rows_task &task, const lane_block &block, const float *unscale, float *sums,
                             int64_t sums_row, int64_t row, int64_t column, int64_t column_step, int64_t count) {
    const int64_t first = block.group * task.lanes + block.vector * 16;
    const int64_t image = row / task.map.out_rows, out_row = row % task.map.out_rows;
    const sc_epilogue &end = task.epilogue;
    const bool direct = in_vectors(task.out, end);
    const int64_t out_pitch = direct ? column_step * task.out.column_stride : sums_row;
    float *out = direct ? row_of(task.out, image, out_row) + column * task.out.column_stride + first : sums;
    const bool stream = past_caches(task.out, end) && ((uintptr_t)out | out_pitch * sizeof(float)) % 64 == 0;
    const float *residual = nullptr;
    if (direct && end.residual.data) {
        residual = row_of(end.residual, image, out_row) + column * end.residual.column_stride + first;
    }
    for (int64_t part = 0; part < block.lanes; part += 64) {
        uint64_t needed[2 * PAIRS];
        const int64_t lanes_end = smaller(block.vectors * 16, part + 64);
        if (task.needed.data) {
            const mask_columns columns(task.needed, image, out_row, column, column_step, count);
            mask_words(task.needed, columns, first + part, (int)smaller(64, block.lanes - part), needed);
        }
        for (int64_t i = 0; i < count; ++i) {
            for (int64_t lane = part; lane < lanes_end; lane += 16) {
                const int lanes = (int)smaller(16, block.lanes - lane);
                f32x16 sum = load(sums + i * sums_row + lane);
                if (unscale) sum = multiply(sum, load(unscale + lane));
                if (end.bias) sum = add(sum, load_partial(end.bias + first + lane, lanes));
                if (task.needed.data) sum = keep(sum, needed[i] >> (lane - part) & 0xffff);
                if (residual) {
                    sum = with_residual(sum, residual + i * column_step * end.residual.column_stride + lane, lanes);
                }
                float *to = out + i * out_pitch + lane;
                if (direct) {
                    const f32x16 result = finished(sum, end.relu);
                    store_result(to, result, lanes, stream);
                    if (end.bits) end.bits[(to - task.out.data) / 16] = (uint16_t)nonzero(result);
                } else {
                    store(to, sum);
                }
            }
        }
    }
    if (direct) return;
    finish_tile(end, task.out, sums, sums_row,
                {image, out_row, first, first + block.lanes, column, column_step, count});
}

// What one sweep adds to one lane block of a chunk.
struct sweep_share {
    int64_t channel_tile, channel_tiles;
    bool first, last;       // of the sweeps that add to these sums
    bool rest, high;        // the products (tile_sweep)
};

// One lane block of a chunk.
struct tile_lanes {
    const lane_block &block;
    const lane_weights &weights;
    const float *unscale;
};

// What is the same for all strands of a sweep, and for this one.
template <class Format>
SC_INLINE tile_sweep sweep_of(const sc_rows_task &task, const tile_lanes &lanes, const sweep_share &share,
                              const sc_strand &strand, const tile_row_scratch &scratch) {
    tile_sweep sweep = {};
    sweep.in_part = scratch.plane, sweep.in_channels = Format::PARTS * scratch.plane;
    sweep.weight_vector = weight_tile_pairs(task);
    sweep.weight_channels = all_taps(task.map) * Format::PARTS * TILE_PAIRS;
    sweep.in = scratch.planes + share.channel_tile * sweep.in_channels;
    sweep.weights = lanes.weights.tiles + share.channel_tile * sweep.weight_channels;
    sweep.steps = scratch.steps, sweep.channel_tiles = share.channel_tiles;
    sweep.rest = share.rest, sweep.last = share.high;
    sweep.opens = share.first && strand.opens, sweep.closes = share.last && strand.closes;
    return sweep;
}

// One strand of one span.
template <class Format>
static void sweep_span(const sc_rows_task &task, const tile_chunk &rows, int64_t index, const sc_strand &strand,
                       const tile_lanes &lanes, const sweep_share &share, int64_t sums_first,
                       const tile_row_scratch &scratch) {
    const sc_map &map = task.map;
    const row_pitches &pitch = rows.pitch;
    const long_row &span = rows.spans.spans[index];
    int64_t begin, end;
    rows.chunk.range(strand, begin, end);
    if (begin >= end) return;
    const int64_t positions = (span.rows - 1) * pitch.out_pitch + end - begin;
    tile_sweep sweep = sweep_of<Format>(task, lanes, share, strand, scratch);
    for (int64_t outer = 0; outer < map.outer_taps && strand.taps; ++outer) {
        const int64_t slot = rows.spans.bases[index * map.outer_taps + outer];
        for (int64_t tap = 0; tap < strand.taps && slot >= 0; ++tap) {
            const int64_t column = strand.in_start + (begin + tap - strand.shift) * strand.in_step - pitch.first;
            const int64_t place = outer * map.inner_taps + strand.taps_before + tap;
            scratch.steps[sweep.step_count++] = {(pitch.left + slot * pitch.in_pitch + column) * PAIRS,
                                                 place * Format::PARTS * TILE_PAIRS, 0, positions};
        }
    }
    sweep.in_tile = PAIRS * pitch.in_step * PAIRS, sweep.in_row_bytes = pitch.in_step * ROW_BYTES;

    const int64_t width = lanes.block.vectors * 16, out_column = strand.out_start + begin * strand.out_step;
    tile_sums sums = {scratch.sums, PAIRS * width, width, pitch.keeps_sums};
    if (sums.kept) {
        sums.data += (sums_first + out_column - pitch.out_first) * width;
        sums.tile *= strand.out_step, sums.row *= strand.out_step;
    }
    sweep_tiles<Format>(sweep, ceil_div(positions, PAIRS), lanes.block.vectors, sums, [&](int64_t tile, float *data) {
        const int64_t position = tile * PAIRS, last = smaller(positions, position + 2 * PAIRS);
        for (int64_t at = position, next; at < last; at = next) {
            const int64_t row = at / pitch.out_pitch, m = at % pitch.out_pitch;
            next = smaller(last, (row + 1) * pitch.out_pitch);
            const int64_t count = smaller(next - at, end - begin - m);
            if (count <= 0) continue;
            finish_positions(task, lanes.block, lanes.unscale, data + (at - position) * sums.row, sums.row,
                             span.first + row * span.step, out_column + m * strand.out_step, strand.out_step, count);
        }
    });
}

// One strand of one row of 16 pieces: a row tile for each column.
template <class Format>
static void sweep_pieces(const sc_rows_task &task, const tile_chunk &rows, int64_t row, const sc_strand &strand,
                         const tile_lanes &lanes, const sweep_share &share, const tile_row_scratch &scratch) {
    const sc_map &map = task.map;
    const row_pitches &pitch = rows.pitch;
    int64_t begin, end;
    rows.chunk.range(strand, begin, end);
    if (begin >= end) return;
    tile_sweep sweep = sweep_of<Format>(task, lanes, share, strand, scratch);
    for (int64_t outer = 0; outer < map.outer_taps && strand.taps; ++outer) {
        const int64_t slot = rows.pieces.bases[row * map.outer_taps + outer];
        for (int64_t tap = 0; tap < strand.taps && slot >= 0; ++tap) {
            const int64_t left = strand.shift - tap - begin;  // row tiles whose tap meets padding
            const int64_t column = strand.in_start - left * strand.in_step - pitch.first;
            const int64_t place = outer * map.inner_taps + strand.taps_before + tap;
            scratch.steps[sweep.step_count++] = {(slot * pitch.in_pitch + column) * TILE_PAIRS,
                                                 place * Format::PARTS * TILE_PAIRS, left, left + strand.in_count};
        }
    }
    sweep.in_tile = pitch.in_step * TILE_PAIRS, sweep.in_row_bytes = ROW_BYTES;

    const int64_t width = lanes.block.vectors * 16, out_column = strand.out_start + begin * strand.out_step;
    const int64_t column_step = strand.out_step, count = end - begin;
    tile_sums sums = {scratch.sums, PAIRS * width, width, pitch.keeps_sums};
    if (sums.kept) {
        sums.data += (row * rows.chunk.columns + out_column - rows.chunk.column) * PAIRS * width;
        sums.tile *= column_step;
    }
    const int64_t together = in_vectors(task.out, task.epilogue) ? 2 : PAIRS;  // columns
    sweep_tiles<Format>(sweep, count, lanes.block.vectors, sums, [&](int64_t tile, float *data) {
        const int64_t last = smaller(count, tile + 2), first = (last - 1) / together * together;
        if (last % together && last < count) return;
        for (int64_t i = 0; i < rows.pieces.used(); ++i) {
            finish_positions(task, lanes.block, lanes.unscale, data + (first - tile) * sums.tile + i * sums.row,
                             sums.tile, rows.out_row(i, row), out_column + first * column_step, column_step,
                             last - first);
        }
    });
}

// All strands of all rows.
template <class Format>
static void sweep_rows(const sc_rows_task &task, const tile_chunk &rows, const tile_lanes &lanes,
                       const sweep_share &share, const tile_row_scratch &scratch) {
    const sc_map &map = task.map;
    for (int64_t row = 0; task.pieces && row < rows.chunk.rows; ++row) {
        for (int64_t p = 0; p < map.strand_count; ++p) {
            sweep_pieces<Format>(task, rows, row, map.strands[p], lanes, share, scratch);
        }
    }
    for (int64_t index = 0, before = 0; !task.pieces && index < rows.spans.count; ++index) {
        for (int64_t p = 0; p < map.strand_count; ++p) {
            sweep_span<Format>(task, rows, index, map.strands[p], lanes, share, before, scratch);
        }
        before += rows.pitch.sums(rows.spans.spans[index].rows, 1);
    }
}

// All small products come first, so that few additions round to 2^-24 of what sums become (amx/products.h). Where one
// sweep takes all channels both kinds follow each other in registers.
template <class Format>
static void sweep_lane_block(const sc_rows_task &task, const tile_chunk &rows, const tile_lanes &lanes,
                             const tile_row_scratch &scratch) {
    const tiles_in_use tiles;
    const int64_t all = channel_tiles(task), most = smaller(all, ceil_div(task.channel_block, TILE_CHANNELS));
    const int turns = most < all ? (int)Format::SWEEPS : 1;
    for (int turn = 0; turn < turns; ++turn) {
        for (int64_t c = 0; c < all; c += most) {
            const int64_t count = smaller(most, all - c);
            sweep_rows<Format>(task, rows, lanes, {c, count, turn == 0 && c == 0, turn + 1 == turns && c + count == all,
                                                   turn == 0, turn + 1 == turns}, scratch);
        }
    }
}

// Output columns that no strand has.
static void fill_gaps(const sc_rows_task &task, const tile_chunk &rows, const lane_block &block, float *sums) {
    const int64_t lanes = block.vectors * 16;
    rows.each_out_rows([&](int64_t first, int64_t count) {
        for (int64_t row = first; row < first + count; ++row) {
            rows.chunk.each_gap(task.map, [&](int64_t column, int64_t step, int64_t columns) {
                for (int64_t done = 0; done < columns; done += 2 * PAIRS) {
                    const int64_t some = smaller(2 * PAIRS, columns - done);
                    for (int64_t i = 0; i < some * lanes; i += 16) store(sums + i, zero());
                    finish_positions(task, block, nullptr, sums, lanes, row, column + done * step, step, some);
                }
            });
        }
    });
}

// The vector kernel computes the lane block of this chunk.
static void leave_to_vectors(const sc_rows_task &task, const tile_chunk &rows, int64_t segment,
                             const lane_block &block, void *memory) {
    const sc_rows_task vectors = tile_row_scratch::vector_task(task);
    const lane_blocks blocks(task.lanes, vectors.lane_vectors);
    const int64_t chunk_rows = vectors.chunk_rows;
    const int64_t chunks = ceil_div(task.batch * task.map.out_rows, chunk_rows) * task.segments;
    rows.each_out_rows([&](int64_t first, int64_t count) {
        for (int64_t row = first; row < first + count; row += chunk_rows) {
            const int64_t chunk = row / chunk_rows * task.segments + segment;
            int64_t index = 0;
            while (blocks.begin(index) < block.vector) ++index;
            for (; index < blocks.count && blocks.begin(index) < block.vector + block.vectors; ++index) {
                const int64_t item = (block.group * chunks + chunk) * blocks.count + index;
                vector_table.rows.rows.run(&vectors, item, item + 1, memory);
            }
        }
    });
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

// Chunks of a group: of long rows, or of some rows of 16 pieces.
SC_INLINE int64_t tile_row_chunks(const sc_rows_task &task) {
    if (!task.pieces) return ceil_div(task.batch * task.map.out_rows, task.chunk_rows) * task.segments;
    const int64_t rows = task.map.out_rows / task.pieces;
    return ceil_div(task.batch * task.pieces, PAIRS) * ceil_div(rows, task.chunk_rows) * task.segments;
}

static int64_t tile_rows_items(const sc_rows_task *task) {
    return task->groups * tile_row_chunks(*task) * task->lane_groups;
}

template <class Format>
static void tile_rows_item(const sc_rows_task &task, int64_t item, long_rows &spans, image_pieces &pieces,
                           const tile_row_scratch &scratch) {
    const int64_t chunks = tile_row_chunks(task);
    const int64_t share = item % task.lane_groups, index = item / task.lane_groups % chunks;
    const int64_t group = item / task.lane_groups / chunks, segment = index % task.segments;
    row_chunk chunk(task, task.pieces ? segment : index);
    if (task.pieces) {
        const int64_t parts = ceil_div(pieces.rows, task.chunk_rows), part = index / task.segments;
        chunk.first = part % parts * task.chunk_rows;
        chunk.rows = smaller(task.chunk_rows, pieces.rows - chunk.first);
        pieces.find(part / parts * PAIRS, chunk.first, chunk.rows);
    } else {
        spans.find(chunk.first, chunk.rows);
    }
    const row_pitches pitch(task, chunk);
    const tile_chunk rows = {chunk, pitch, spans, pieces};
    const lane_blocks blocks(task.lanes, task.lane_vectors);
    const split_input in = split_rows<Format>(task, group, rows, scratch);
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
            sweep_lane_block<Format>(task, rows, {block, weights, Format::SCALED ? unscale : nullptr}, scratch);
            fill_gaps(task, rows, block, scratch.sums);
        } else {
            leave_to_vectors(task, rows, segment, block, scratch.vectors);
        }
    }
}

static int64_t tile_rows_scratch_bytes(const sc_rows_task *task) {
    return tile_row_scratch::measure(*task).total() * (int64_t)sizeof(float);
}

template <class Two>
static void tile_rows(const sc_rows_task *task, int64_t begin, int64_t end, void *memory) {
    const tile_row_scratch scratch(*task, memory);
    long_rows::sizes size = {};
    if (!task->pieces) size = long_rows::measure(task->map, task->batch, task->chunk_rows);
    long_rows spans(task->map, size, scratch.tables);
    image_pieces pieces(*task);
    if (task->pieces) pieces.use(pieces.measure(task->chunk_rows), scratch.tables);
    for (int64_t item = begin; item < end; ++item) {
        with_format<Two>(*task, [&](auto format) {
            tile_rows_item<decltype(format)>(*task, item, spans, pieces, scratch);
        });
    }
    if (task->epilogue.stream) end_streams();
}

// `Two`: the format of two parts.
template <class Two>
static constexpr sc_rows_table tile_rows_table = {
    {pack_weight_tiles<Two>, weight_lane_blocks, pack_weight_tiles_scratch},
    {tile_rows<Two>, tile_rows_items, tile_rows_scratch_bytes}, packed_weight_tiles_bytes,
};

SC_CLOSE
