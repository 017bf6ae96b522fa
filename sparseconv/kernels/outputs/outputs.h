// forward and backward_data where only some outputs are needed: the loops around outputs/row.h.
//
//   out[n, row, m, k] = needed[n, row, m, k] ? end( bias[k] + sum over outer taps, strands, channels c, taps j of
//                       in[n, row_table[row][tap], m + j - shift, c] * weight[k, c, tap, j] ) : 0
//
// Made for backward_data behind a ReLU: the mask is that of the forward input, and what it does not let through need
// not be computed. In networks with batch normalisation, whose gradients have no zeros, nothing else can be skipped. In
// forward the mask is a region of interest. `end` is ReLU or nothing: with a residual no call comes here.
//
// Loop order, outermost first, and what each level re-uses:
//   item           (group, chunk of output rows, share of the lane blocks), as in rows/rows.h
//   channel block  Q vectors of channels of `in`, which for the chunk's rows stay in L2
//   lane block     the output channels of one word
//   outer tap, strand: one weight tile of lane block x taps x channel block, kept in L1 and swept over every row
// An output's sum over the lanes of a channel block is added to its place in the tile of sums, which holds the needed
// ones of a lane block side by side. At the end they are expanded: zeros come between them. The order of the sum for
// one output depends on channel_block alone.
#pragma once
#include "common/mask_words.h"
#include "outputs/row.h"
#include "rows/rows.h"

SC_OPEN

SC_INLINE int64_t vectors_of(const sc_rows_task &task, int64_t channel) {
    return ceil_div(smaller(task.channel_block, task.channels - channel), 16);
}

// Floats before the weights of a tile; the first one is 0 if all of them are finite.
enum { OUTPUTS_HEAD = 16 };

// The place of a tile if weights are packed ahead: [group][channel block][lane block].
SC_INLINE float *packed_outputs_tile(const sc_rows_task &task, const lane_block &block, int64_t index,
                                     int64_t channel) {
    const int64_t taps = task.map.outer_taps * task.map.inner_taps, all = packed_pitch(task) * task.lanes;
    const int64_t channel_blocks = ceil_div(task.channels, task.channel_block);
    const int64_t lane_blocks = ceil_div(ceil_div(task.lanes, 16), task.lane_vectors);
    const int64_t tiles = (block.group * channel_blocks + channel / task.channel_block) * lane_blocks + index;
    const int64_t rows = channel * task.lanes + block.vector * 256 * vectors_of(task, channel);
    return task.packed + OUTPUTS_HEAD * tiles + taps * (block.group * all + rows);
}

// The tile of one lane block and channel block, for all taps: rows of weights whose lanes are channels of `in`.
static void pack_outputs_tile(const sc_rows_task &task, const lane_block &block, int64_t channel, float *tile) {
    sc_weight_view view = task.weight;
    view.lane_stride = task.weight.channel_stride, view.channel_stride = task.weight.lane_stride;
    const weight_tile shape = {task.map, block.lanes, vectors_of(task, channel), false};
    float *data = view.data + block.group * view.group_stride + block.vector * 16 * view.channel_stride;
    data += channel * view.lane_stride;
    move_weights<true>(tile + OUTPUTS_HEAD, shape, view, data, task.channels - channel);
    f32x16 ends = zero();  // 0 times a finite number is 0, else NaN
    const float *weights = tile + OUTPUTS_HEAD;
    for (int64_t i = 0; i < shape.floats(); i += 16) ends = fma(load(weights + i), zero(), ends);
    store(tile, zero());
    if (nonzero(ends)) *tile = 1;
}

static void pack_outputs_weights(const sc_rows_task *task, int64_t begin, int64_t end, void *) {
    for_each_weight_tile(*task, begin, end, [task](const lane_block &block, int64_t index, int64_t channel) {
        pack_outputs_tile(*task, block, channel, packed_outputs_tile(*task, block, index, channel));
    });
}

// A chunk's share of the lane blocks, and where their words and sums are.
struct outputs_share {
    const sc_rows_task &task;
    const row_chunk &chunk;
    const row_scratch &scratch;
    lane_blocks blocks;
    int64_t group, begin, end;  // lane blocks
    needed_words words;

    SC_INLINE_MEMBER outputs_share(const sc_rows_task &task, const row_chunk &chunk, const row_scratch &scratch,
                                   int64_t group, int64_t share)
        : task(task), chunk(chunk), scratch(scratch), blocks(task.lanes, task.lane_vectors), group(group),
          begin(part_begin(blocks.count, task.lane_groups, share)),
          end(part_begin(blocks.count, task.lane_groups, share + 1)), words(task, chunk, scratch, begin, end) {}
    SC_INLINE_MEMBER lane_block block(int64_t index) const { return lane_block_of(task, blocks, group, index); }
    SC_INLINE_MEMBER int64_t sums_pitch() const { return (blocks.begin(end) - blocks.begin(begin)) * 16; }
    SC_INLINE_MEMBER const uint64_t *needed(int64_t index, int64_t row) const { return words.of(index, row); }
    SC_INLINE_MEMBER float *sums(int64_t index, int64_t row) const {
        return scratch.sums + row * chunk.columns * sums_pitch() + (blocks.begin(index) - blocks.begin(begin)) * 16;
    }
};

// Sweeps the weights of one channel block, lane block, outer tap and strand over all rows of the chunk.
static void sweep_outputs(const outputs_share &share, const ready_rows &ready, int64_t index, const float *tile,
                          int64_t channel, int64_t tap, int64_t p) {
    const sc_rows_task &task = share.task;
    const sc_strand &strand = task.map.strands[p];
    const row_chunk &chunk = share.chunk;
    const lane_block block = share.block(index);
    const weight_tile shape = {task.map, block.lanes, vectors_of(task, channel), false};
    const outputs_kernel kernel = *tile == 0 ? outputs_row_kernel(shape.vectors) : outputs_careful;
    outputs_sweep sweep = {};
    chunk.range(strand, sweep.begin, sweep.end);
    sweep.begin = larger(sweep.begin, strand.shift - strand.taps + 1);
    sweep.end = smaller(sweep.end, strand.in_count + strand.shift);
    if (sweep.begin >= sweep.end) return;
    sweep.shift = strand.shift, sweep.taps = strand.taps, sweep.vectors = shape.vectors;
    sweep.weights = tile + OUTPUTS_HEAD + shape.strand_offset(tap, strand.taps_before);
    sweep.needed_pitch = strand.out_step, sweep.sums_pitch = strand.out_step * share.sums_pitch();
    const int64_t first = strand.out_start + sweep.begin * strand.out_step - chunk.column;
    for (int64_t i = 0; i < share.scratch.met_count[tap]; ++i) {
        const int64_t row = share.scratch.met[tap * task.chunk_rows + i];
        ready.point(sweep, strand, share.scratch.places[p], share.scratch.sources[row * task.map.outer_taps + tap]);
        sweep.in += channel;
        sweep.needed = share.needed(index, row) + first;
        sweep.sums = share.sums(index, row) + first * share.sums_pitch();
        kernel(sweep);
    }
}

// The needed sums of one lane block of a pixel, and zeros between them; the last vector first: in place it lies behind
// all that is still to be read. ENDS: with the bias, if there is one, and ReLU, as forward wants it.
template <bool ENDS>
SC_INLINE void expand_pixel(const float *packed, uint64_t word, const lane_block &block, const float *bias, bool relu,
                            float *to, bool whole, bool stream) {
    for (int64_t vector = block.vectors - 1; vector >= 0; --vector) {
        const float *from = packed + __builtin_popcountll(word & low_bits((int)(16 * vector)));
        const uint32_t needed = word >> 16 * vector & 0xffff;
        const int lanes = (int)smaller(16, block.lanes - 16 * vector);
        f32x16 sums = expand(from, needed);
        if (ENDS && bias) {
            const float *own = bias + 16 * vector;
            sums = keep(add(sums, lanes == 16 ? load(own) : load_partial(own, lanes)), needed);
        }
        if (ENDS) sums = finished(sums, relu);
        if (stream) store_stream(to + 16 * vector, sums);
        else if (whole || lanes == 16) store(to + 16 * vector, sums);
        else store_partial(to + 16 * vector, sums, lanes);
    }
}

// Finished sums into memory: straight, or through the tile where pixels are not contiguous.
template <bool ENDS>
static void finish_outputs(const outputs_share &share) {
    const sc_rows_task &task = share.task;
    const row_chunk &chunk = share.chunk;
    const bool direct = channels_contiguous(task.out);
    const int64_t first = share.group * task.lanes + share.blocks.begin(share.begin) * 16, pitch = share.sums_pitch();
    const int64_t end = share.group * task.lanes + smaller(task.lanes, share.blocks.begin(share.end) * 16);
    for (int64_t row = 0; row < chunk.rows; ++row) {
        const int64_t image = (chunk.first + row) / task.map.out_rows, out = (chunk.first + row) % task.map.out_rows;
        float *memory = row_of(task.out, image, out);
        float *sums = share.sums(share.begin, row), *pixel = memory + chunk.column * task.out.column_stride + first;
        const bool stream = task.epilogue.stream && (end - first) % 16 == 0 &&
                            ((uintptr_t)pixel | task.out.column_stride * sizeof(float)) % 64 == 0;
        for (int64_t column = 0; column < chunk.columns; ++column) {
            for (int64_t index = share.begin; index < share.end; ++index) {
                const lane_block block = share.block(index);
                const uint64_t word = share.needed(index, row)[column];
                const int64_t lane = (share.blocks.begin(index) - share.blocks.begin(share.begin)) * 16;
                const float *bias = task.epilogue.bias ? task.epilogue.bias + first + lane : nullptr;
                float *packed = sums + column * pitch + lane, *to = pixel + column * task.out.column_stride + lane;
                if (direct) expand_pixel<ENDS>(packed, word, block, bias, task.epilogue.relu, to, false, stream);
                else expand_pixel<ENDS>(packed, word, block, bias, task.epilogue.relu, packed, true, false);
            }
        }
        const row_piece piece = {image, out, first, end, chunk.column, 1, chunk.columns};
        if (!direct) finish_tile(task.epilogue, task.out, sums, pitch, piece);
    }
}

static void outputs_item(const sc_rows_task &task, int64_t item, const row_scratch &scratch) {
    const sc_map &map = task.map;
    const int64_t chunks = ceil_div(task.batch * map.out_rows, task.chunk_rows) * task.segments;
    const row_chunk chunk(task, item / task.lane_groups % chunks);
    const outputs_share share(task, chunk, scratch, item / task.lane_groups / chunks, item % task.lane_groups);
    const ready_rows ready = find_sources(task, chunk, share.group, scratch);
    share.words.find(task, chunk, share.group);
    const int64_t all = chunk.rows * chunk.columns * share.sums_pitch();
    for (int64_t i = 0; i < all; i += 16) store(scratch.sums + i, zero());
    for (int64_t channel = 0; channel < task.channels; channel += task.channel_block) {
        for (int64_t index = share.begin; index < share.end; ++index) {
            if (task.interrupt.poll(task.interrupt.context)) return;
            const lane_block block = share.block(index);
            const float *tile = scratch.tile;
            if (task.pack_ahead) tile = packed_outputs_tile(task, block, index, channel);
            else pack_outputs_tile(task, block, channel, scratch.tile);
            for (int64_t tap = 0; tap < map.outer_taps; ++tap) {
                for (int64_t p = 0; p < map.strand_count; ++p) {
                    sweep_outputs(share, ready, index, tile, channel, tap, p);
                }
            }
        }
    }
    if (task.epilogue.bias || task.epilogue.relu) finish_outputs<true>(share);
    else finish_outputs<false>(share);
}

static void outputs(const sc_rows_task *task, int64_t begin, int64_t end, void *memory) {
    const row_scratch scratch(*task, memory);
    for (int64_t item = begin; item < end; ++item) outputs_item(*task, item, scratch);
    if (task->epilogue.stream) end_streams();
}

static int64_t packed_outputs_bytes(const sc_rows_task *task) {
    const int64_t taps = all_taps(task->map), weights = task->groups * task->lanes * packed_pitch(*task) * taps;
    return (weights + OUTPUTS_HEAD * weight_tiles(task)) * (int64_t)sizeof(float);
}

static constexpr sc_rows_table outputs_table = {
    {pack_outputs_weights, weight_tiles, no_scratch}, {outputs, rows_items, rows_scratch_bytes}, packed_outputs_bytes,
};

SC_CLOSE
