// forward and backward_data: the loops around the row kernels.
//
//   out[n, row, m, k] = end( bias[k] + sum over outer taps, strands, channels c, taps j of
//                            in[n, row_table[row][tap], m + j - shift, c] * weight[k, c, tap, j] )
//
// `end` is common/epilogue.h. backward_data is the same sum with grad_output as `in` and the transposed weights (map
// and views say so).
//
// Loop order, outermost first, and what each level re-uses:
//   item         (group, chunk of output rows, share of the lane blocks): independent, no thread meets another
//   lane block   up to lane_vectors vectors of output channels; the chunk's outputs lie in a contiguous tile (L2)
//   channel block, outer tap, strand: one weight tile of channel_block x taps x lane block, kept in L1 and swept over
//   row          every row of the chunk: rows/skip.h or rows/dense.h
//
// Outputs are summed in the tile and leave it in the sweep that completes them: straight into memory where pixels
// are contiguous (NHWC), through a transpose otherwise. There a mask's words, found before the first sweep, clear what
// is not needed: cleared in memory afterwards, without streaming stores, 256,64,56 1x1 took 1.5 (floats) and 1.16
// (bits) of the time without a mask, now 1.14 and 1.04; skipping 80% of grad_output 2.8 and 1.8, now 1.45 and 1.1.
// Inputs whose pixels are not contiguous are packed, a chunk at a time. The order of the sum for one output (channel
// block, outer tap, strand, column, channel) depends on channel_block alone, so neither chunks nor threads change a
// bit.
//
// Joined (task.joined; the dense kernel, where processor.py says so): row comes before outer tap and strand, so that a
// tile of sums stays in L1 over all of them, and input rows are swept over once for a channel block. The order of the
// sum is the same. The weights of all taps then come from L2, but those of one outer tap and 256 channels are more than
// L1, too.
//
// Input rows are made ready in rows/sources.h; what a work item keeps is in rows/scratch.h.
#pragma once
#include "common/mask_words.h"
#include "rows/chunk.h"
#include "rows/dense.h"
#include "rows/skip.h"
#include "rows/sources.h"

SC_OPEN

SC_INLINE weight_tile tile_shape(const sc_rows_task &task, const lane_block &block, int64_t channel) {
    return {task.map, smaller(task.channel_block, task.channels - channel), block.vectors, !skips(task)};
}

// Where the weights of one lane block and channel block lie if they are packed ahead.
SC_INLINE float *packed_tile(const sc_rows_task &task, const lane_block &block, int64_t channel) {
    const int64_t taps = task.map.outer_taps * task.map.inner_taps * 16, all = ceil_div(task.lanes, 16);
    return task.packed + taps * ((block.group * all + block.vector) * task.channels + channel * block.vectors);
}

// The weights of one lane block and channel block, for all taps.
static void pack_tile(const sc_rows_task &task, const lane_block &block, int64_t channel, float *tile) {
    const sc_weight_view &view = task.weight;
    const int64_t lane = block.vector * 16;
    float *data = view.data + block.group * view.group_stride + lane * view.lane_stride + channel * view.channel_stride;
    move_weights<true>(tile, tile_shape(task, block, channel), view, data, task.lanes - lane);
}

static void pack_weights(const sc_rows_task *task, int64_t begin, int64_t end, void *) {
    for_each_weight_tile(*task, begin, end, [task](const lane_block &block, int64_t, int64_t channel) {
        pack_tile(*task, block, channel, packed_tile(*task, block, channel));
    });
}

// Which channels of `out` a chunk needs, of an item's share [begin, end) of the lane blocks:
// [lane block][64 lanes of it][row][column].
struct needed_words {
    uint64_t *words;
    int64_t begin, end, parts, rows, columns;

    SC_INLINE_MEMBER needed_words(const sc_rows_task &task, const row_chunk &chunk, const row_scratch &scratch,
                                  int64_t begin, int64_t end)
        : words(scratch.needed), begin(begin), end(end), parts(ceil_div(task.lane_vectors, 4)), rows(chunk.rows),
          columns(chunk.columns) {}
    SC_INLINE_MEMBER uint64_t *of(int64_t index, int64_t row, int64_t part = 0) const {
        return words + (((index - begin) * parts + part) * rows + row) * columns;
    }
    SC_INLINE_MEMBER int64_t lanes_pitch() const { return rows * columns; }

    // In the order of memory: pixel by pixel where channels are contiguous, or row by row. Several pixels of
    // bits, or of one word, are neighbours enough.
    void find(const sc_rows_task &task, const row_chunk &chunk, int64_t group) const {
        const lane_blocks blocks(task.lanes, task.lane_vectors);
        const bool pixels = channels_contiguous(task.needed.view);
        const bool wide = task.needed.kind == SC_MASK_FLOATS && (end - begin) * parts > 1;
        const int64_t together = !pixels ? columns : wide ? 1 : 64;
        for (int64_t row = 0; row < rows; ++row) {
            const int64_t out = chunk.first + row, image = out / task.map.out_rows, out_row = out % task.map.out_rows;
            for (int64_t column = 0; column < columns; column += together) {
                const int64_t count = smaller(together, columns - column);
                const mask_columns some(task.needed, image, out_row, chunk.column + column, 1, count);
                for (int64_t index = begin; index < end; ++index) {
                    const lane_block block = lane_block_of(task, blocks, group, index);
                    const int64_t lane = group * task.lanes + block.vector * 16;
                    for (int64_t part = 0; 64 * part < block.lanes; ++part) {
                        mask_words(task.needed, some, lane + 64 * part, (int)smaller(64, block.lanes - 64 * part),
                                   of(index, row, part) + column);
                    }
                }
            }
        }
    }
};

// Output columns column + m * step, begin <= m < end, of a row of the chunk for a sweep that is added to the bias
// (`opens`) or their sums, and completes them (`closes`) or not. `needed` are the words of the lane block's first row,
// if there is a mask.
SC_INLINE void open_and_close(const sc_rows_task &task, const row_chunk &chunk, const row_scratch &scratch,
                              const lane_block &block, const float *bias, const uint64_t *needed, int64_t row,
                              int64_t column, int64_t step, bool opens, bool closes, row_sweep &sweep) {
    const sc_map &map = task.map;
    const int64_t pitch = block.vectors * 16, first = column + sweep.begin * step;
    const int64_t place = row * chunk.columns + first - chunk.column;
    float *sums = scratch.sums + place * pitch;
    sweep.from = opens ? bias : sums, sweep.from_pitch = opens ? 0 : step * pitch;
    sweep.to = sums, sweep.to_pitch = step * pitch;
    row_results &results = sweep.results;
    results = {}, results.last_lanes = 16;
    results.needed = closes && needed ? needed + place : nullptr;
    results.needed_pitch = step, results.needed_lanes_pitch = chunk.rows * chunk.columns;
    const sc_epilogue &end = task.epilogue;
    if (!closes || !in_vectors(task.out, end)) return;
    const int64_t image = (chunk.first + row) / map.out_rows, out_row = (chunk.first + row) % map.out_rows;
    const int64_t lane = block.group * task.lanes + block.vector * 16;
    sweep.to = row_of(task.out, image, out_row) + lane + first * task.out.column_stride;
    sweep.to_pitch = step * task.out.column_stride;
    results.relu = end.relu, results.origin = task.out.data, results.bits = end.bits;
    results.last_lanes = (int)(block.lanes - (block.vectors - 1) * 16);
    results.stream = past_caches(task.out, end) && results.last_lanes == 16 &&
                     ((uintptr_t)sweep.to | sweep.to_pitch * sizeof(float)) % 64 == 0;
    if (!end.residual.data) return;
    results.residual = row_of(end.residual, image, out_row) + lane + first * end.residual.column_stride;
    results.residual_pitch = step * end.residual.column_stride;
}

SC_INLINE row_kernel kernel_of(const sc_rows_task &task, const lane_block &block) {
    if (spikes(task)) return skip_kernel<scalars::ones>(block.vectors);
    if (packs_values(task)) return skip_kernel<scalars::packed>(block.vectors);
    return skips(task) ? skip_kernel<scalars::in_place>(block.vectors) : dense_kernel(block.vectors, task.ahead);
}

// What the next chunk reads where this one reads column 0 of a strand, for a row and an outer tap; null: nothing.
SC_INLINE const float *next_reads(const sc_rows_task &task, const row_chunk &chunk, const sc_strand &strand,
                                  int64_t row, int64_t tap) {
    const sc_map &map = task.map;
    const int64_t next = chunk.first + row + (task.segments > 1 ? 0 : chunk.rows);
    if (next >= task.batch * map.out_rows) return nullptr;
    const int64_t in = map.row_table[next % map.out_rows * map.outer_taps + tap];
    if (in < 0) return nullptr;
    const int64_t moved = task.segments > 1 ? chunk.columns * strand.in_step / strand.out_step : 0;
    return row_of(task.in, next / map.out_rows, in) + (strand.in_start + moved) * task.in.column_stride;
}

// Sweeps the weights of one channel block, outer tap and strand over all rows of the chunk that the tap meets. Columns
// that meet padding with all taps of the strand are swept only to begin or to complete them.
static void sweep_chunk(const sc_rows_task &task, const row_chunk &chunk, const row_scratch &scratch,
                        const ready_rows &ready, const lane_block &block, const float *bias, const uint64_t *needed,
                        const float *tile, int64_t channel, int64_t tap, int64_t p, bool asks) {
    const sc_strand &strand = task.map.strands[p];
    const weight_tile shape = tile_shape(task, block, channel);
    const row_kernel kernel = kernel_of(task, block);
    int64_t begin, end;
    chunk.range(strand, begin, end);
    if (begin >= end) return;
    const int64_t first_met = larger(begin, strand.shift - strand.taps + 1);
    const int64_t end_met = smaller(end, strand.in_count + strand.shift);
    row_sweep sweep = {};
    sweep.shift = strand.shift, sweep.taps = strand.taps, sweep.channels = (int)shape.channels;
    sweep.weights = tile + shape.strand_offset(tap, strand.taps_before);
    sweep.live_pitch = scratch.places[p].step, sweep.ahead_pitch = strand.in_step * task.in.column_stride;
    sweep.near = !task.reads_ahead;
    sweep.word = (int)task.word, sweep.words = (int)ceil_div(shape.channels, larger(1, task.word));
    sweep.word_pitch = ready.columns;
    const int64_t *met = scratch.met + tap * task.chunk_rows;
    for (int64_t i = 0; i < scratch.met_count[tap]; ++i) {
        const int64_t row = met[i];
        const bool opens = channel == 0 && tap == scratch.ends[row].open && strand.opens;
        const bool last = channel + shape.channels == task.channels && tap == scratch.ends[row].close;
        const bool closes = last && strand.closes;
        sweep.begin = opens || closes ? begin : first_met, sweep.end = opens || closes ? end : end_met;
        if (sweep.begin >= sweep.end) continue;
        const row_source &source = scratch.sources[row * task.map.outer_taps + tap];
        ready.point(sweep, strand, scratch.places[p], source);
        const int64_t word = channel / larger(1, task.word) * ready.columns + scratch.places[p].first;
        sweep.live = source.live + word, sweep.begins = source.begins + word;
        sweep.ahead = asks ? next_reads(task, chunk, strand, row, tap) : nullptr;
        if (sweep.ahead) sweep.ahead += block.group * task.channels + channel;
        if (packs_values(task)) sweep.in = source.values;
        else sweep.in += channel;
        const bool more = i + 1 < scratch.met_count[tap] && source.pixels;
        if (more) sweep.next_row = scratch.sources[met[i + 1] * task.map.outer_taps + tap].pixels - source.pixels;
        else sweep.next_row = 0;
        if (first_met >= end_met) sweep.in_count = 0;
        open_and_close(task, chunk, scratch, block, bias, needed, row, strand.out_start, strand.out_step, opens, closes,
                       sweep);
        kernel(sweep);
    }
}

// The same for all outer taps and all strands that have the outputs of strand p, the first of them, in one sweep.
static void sweep_joined(const sc_rows_task &task, const row_chunk &chunk, const row_scratch &scratch,
                         const ready_rows &ready, const lane_block &block, const float *bias, const uint64_t *needed,
                         const float *tile, int64_t channel, int64_t p) {
    const sc_map &map = task.map;
    const sc_strand &strand = map.strands[p];
    const weight_tile shape = tile_shape(task, block, channel);
    const row_kernel kernel = kernel_of(task, block);
    const bool opens = channel == 0, closes = channel + shape.channels == task.channels;
    row_sweep sweep = {};
    chunk.range(strand, sweep.begin, sweep.end);
    if (sweep.begin >= sweep.end) return;
    sweep.channels = (int)shape.channels;
    row_input pieces[SC_MAX_JOINED];
    alignas(64) float between[f32x16::accumulators * 16];
    sweep.more = pieces + 1, sweep.between = between;
    for (int64_t row = 0; row < chunk.rows; ++row) {
        int64_t count = 0;
        for (int64_t tap = 0; tap < map.outer_taps; ++tap) {
            const row_source &source = scratch.sources[row * map.outer_taps + tap];
            for (int64_t i = p; i < map.strand_count && source.pixels; ++i) {
                const sc_strand &other = map.strands[i];
                if (other.out_start != strand.out_start) continue;
                ready.point(sweep, other, scratch.places[i], source);
                pieces[count++] = {sweep.in + channel, tile + shape.strand_offset(tap, other.taps_before),
                                   sweep.in_pitch, sweep.in_count, other.shift, other.taps};
                if (other.closes) break;
            }
        }
        if (count == 0) continue;
        sweep.in = pieces[0].in, sweep.in_pitch = pieces[0].in_pitch, sweep.in_count = pieces[0].in_count;
        sweep.weights = pieces[0].weights, sweep.shift = pieces[0].shift, sweep.taps = pieces[0].taps;
        sweep.more_count = count - 1;
        open_and_close(task, chunk, scratch, block, bias, needed, row, strand.out_start, strand.out_step, opens, closes,
                       sweep);
        kernel(sweep);
    }
}

// Output columns that meet nothing: those between strands, and rows that meet no input row.
static void fill_unmet(const sc_rows_task &task, const row_chunk &chunk, const row_scratch &scratch,
                       const lane_block &block, const float *bias, const uint64_t *needed) {
    const row_kernel kernel = kernel_of(task, block);
    row_sweep sweep = {};
    for (int64_t row = 0; row < chunk.rows; ++row) {
        const auto fill = [&](int64_t column, int64_t step, int64_t count) {
            sweep.begin = 0, sweep.end = count;
            open_and_close(task, chunk, scratch, block, bias, needed, row, column, step, true, true, sweep);
            if (count > 0) kernel(sweep);
        };
        if (scratch.ends[row].open < 0) fill(chunk.column, 1, chunk.columns);
        else chunk.each_gap(task.map, fill);
    }
}

// One lane block of the chunk, from its bias to its place in memory. Returns false if the call was interrupted.
static bool finish_block(const sc_rows_task &task, const row_chunk &chunk, const row_scratch &scratch,
                         const ready_rows &ready, const lane_block &block, const uint64_t *needed, bool asks) {
    const sc_map &map = task.map;
    const int64_t lane = block.group * task.lanes + block.vector * 16, pitch = block.vectors * 16;
    float bias[SC_MAX_LANE_VECTORS * 16] = {};
    begin_with_bias(task.epilogue, lane, block.lanes, bias);
    for (int64_t channel = 0; channel < task.channels; channel += task.channel_block) {
        if (task.interrupt.poll(task.interrupt.context)) return false;
        const float *tile = scratch.tile;
        if (task.pack_ahead) tile = packed_tile(task, block, channel);
        else pack_tile(task, block, channel, scratch.tile);
        for (int64_t p = 0; p < map.strand_count && task.joined; ++p) {
            if (!map.strands[p].opens) continue;
            sweep_joined(task, chunk, scratch, ready, block, bias, needed, tile, channel, p);
        }
        for (int64_t tap = 0; tap < map.outer_taps && !task.joined; ++tap) {
            if (scratch.met_count[tap] == 0) continue;
            for (int64_t p = 0; p < map.strand_count; ++p) {
                sweep_chunk(task, chunk, scratch, ready, block, bias, needed, tile, channel, tap, p,
                            asks && tap == map.outer_taps - 1);
            }
        }
    }
    fill_unmet(task, chunk, scratch, block, bias, needed);
    for (int64_t row = 0; row < chunk.rows && !in_vectors(task.out, task.epilogue); ++row) {
        const int64_t image = (chunk.first + row) / map.out_rows, out = (chunk.first + row) % map.out_rows;
        finish_tile(task.epilogue, task.out, scratch.sums + row * chunk.columns * pitch, pitch,
                    {image, out, lane, lane + block.lanes, chunk.column, 1, chunk.columns});
    }
    return true;
}

static void rows_item(const sc_rows_task &task, int64_t item, const row_scratch &scratch) {
    const int64_t chunks = ceil_div(task.batch * task.map.out_rows, task.chunk_rows) * task.segments;
    const int64_t share = item % task.lane_groups, group = item / task.lane_groups / chunks;
    const row_chunk chunk(task, item / task.lane_groups % chunks);
    const lane_blocks blocks(task.lanes, task.lane_vectors);
    const ready_rows ready = find_sources(task, chunk, group, scratch);
    const int64_t begin = part_begin(blocks.count, task.lane_groups, share);
    const int64_t end = part_begin(blocks.count, task.lane_groups, share + 1);
    const needed_words needed(task, chunk, scratch, begin, end);
    if (task.needed.data) needed.find(task, chunk, group);
    for (int64_t index = begin; index < end; ++index) {
        const lane_block block = lane_block_of(task, blocks, group, index);
        const uint64_t *words = task.needed.data ? needed.of(index, 0) : nullptr;
        const bool asks = task.reads_ahead && skips(task) && index == begin && channels_contiguous(task.in);
        if (!finish_block(task, chunk, scratch, ready, block, words, asks)) return;
    }
}

static void rows(const sc_rows_task *task, int64_t begin, int64_t end, void *memory) {
    const row_scratch scratch(*task, memory);
    for (int64_t item = begin; item < end; ++item) rows_item(*task, item, scratch);
    if (task->epilogue.stream) end_streams();
}

static int64_t packed_weights_bytes(const sc_rows_task *task) {
    return task->groups * ceil_div(task->lanes, 16) * task->channels * all_taps(task->map) * 64;
}

static constexpr sc_rows_table rows_table = {
    {pack_weights, weight_tiles, no_scratch}, {rows, rows_items, rows_scratch_bytes}, packed_weights_bytes,
};

SC_CLOSE
