// backward_weight: the loops around the gradient kernels.
//
//   gradient[a, b, outer tap, j] = sum over images, rows and columns m of
//                                     A[row, m, a] * B[row_table[row][outer tap], m + j - shift, b]
//
// A is the operand whose zeros are skipped (x, or grad_output), one channel at a time; B is read as lanes.
//
// Loop order, outermost first:
//   item         (group, lane_blocks x lane_vectors vectors of b, channel_block channels of a): its part of the
//                gradient stays in scratch from the first position to the last, so no two threads ever add
//                to the same element and no partial gradients are summed
//   outer strand   its rows of A, over all images (or all rows: see below)
//   chunk        some of them (gradient/scratch.h), and the rows of B that they meet (gradient/partners.h); packed
//                (gradient/pack.h) as channel tile: [row][window][a] where memory has pixels, else [a][row][window]
//   lane block   B's rows for the chunk, packed as lane tile [row][window][b], L1-sized, unless they lie like that
//                in memory: pixels of 64 lanes and more that are one lane block
//   strand, outer taps, channel a: T = outer taps x taps x vectors accumulators in registers sum over the
//                chunk, then are added to the scratch gradient, which is emptied before its chains are long
//                (common/long_sums.h): more accurate than one chain over all positions
//
// A row's window holds its columns and the `in` columns that any tap reaches beyond them, so every row stands
// alone and rows that follow one another on both sides are one run: 7 x 7 maps fill 64-position words.
// With one outer dimension, rows fall apart into outer strands as columns do into strands: rows of A that meet rows of
// B which follow one another in the tile. A skipping kernel sweeps all taps of an outer strand together. Rows outside
// the image are then rows of zeros in the tile.
// The order of the sum depends on chunk_rows and segment alone, so threads do not change a bit.
//
// Lanes read in place: what a second thread copies is copied by both, so the copy weighs twice there. Zen 5, batch 8,
// 60% zeros, ms on one and two threads, before and after: 64,64,56 1x1 1.24 0.82, 1.09 0.74; 256,64,56 1x1 5.01 2.86,
// 4.49 2.51; 256,128,56 1x1 6.65 3.76, 6.50 3.39. Lanes at 16 bytes behind a cache line are copied as before: each
// load would meet two lines.
#pragma once
#include "gradient/dense.h"
#include "gradient/pack.h"
#include "gradient/partners.h"
#include "gradient/points.h"
#include "gradient/scratch.h"
#include "gradient/share.h"
#include "gradient/skip.h"

SC_OPEN

// One strand of one lane block and the channels that it needs over the chunk, with the outer taps of an outer strand,
// or with `tap` alone.
static void gradient_taps(const sc_gradient_task &task, const sc_strand *outer, const gradient_chunk &chunk,
                          const gradient_scratch &scratch, const sc_strand &strand, int64_t window, int64_t tap,
                          const weight_tile &shape, const float *lanes, int64_t channels, float *tile,
                          bool careful, read_ahead &ahead) {
    const int64_t *partner = scratch.partner + (outer ? 0 : tap * task.chunk_rows);
    int64_t begin, end;
    segment_range(task, chunk, strand, begin, end);
    gradient_sweep sweep = {};
    sweep.channel_pitch = gradient_scratch::pixels(task) ? 1 : scratch.channel_pitch;
    sweep.position_pitch = gradient_scratch::pixels(task) ? scratch.pixel_pitch : 1;
    sweep.channels = scratch.needed_list, sweep.channel_count = channels, sweep.taps = strand.taps;
    sweep.window = window, sweep.columns = end - begin;
    sweep.b_first = strand.shift - begin, sweep.b_end = strand.in_count + strand.shift - begin;
    sweep.live_pitch = scratch.live_pitch, sweep.lists = scratch.lists, sweep.ahead = &ahead;
    sweep.sums = tile + shape.strand_offset(outer ? outer->first_tap : tap, strand.taps_before);
    sweep.outer = outer ? outer->taps : 1;
    sweep.b_outer_pitch = window * shape.vectors * 16;
    sweep.sums_outer_pitch = shape.strand_offset(outer ? outer->tap_step : 1, 0);
    sweep.a = scratch.channels, sweep.live = scratch.live, sweep.runs = scratch.runs;
    sweep.b = lanes + (strand.window_shift - strand.shift) * shape.vectors * 16;
    for (int64_t row = 0, rows; row < chunk.rows; row += rows) {
        rows = 1;
        if (partner[row] < 0) continue;
        while (row + rows < chunk.rows && partner[row + rows] == partner[row] + rows) ++rows;
        const int64_t positions = (rows - 1) * window + sweep.columns;
        scratch.runs[sweep.run_count++] = {row * window, partner[row] * window, rows, positions};
    }
    if (sweep.run_count == 0) return;
    if (careful) gradient_careful(sweep, shape.vectors, spikes(task));
    else if (spikes(task)) gradient_skip_kernel<nonzeros::ones>(shape.vectors)(sweep);
    else if (reads_lists(task)) gradient_skip_kernel<nonzeros::lists>(shape.vectors)(sweep);
    else if (skips(task)) gradient_skip_kernel<nonzeros::words>(shape.vectors)(sweep);
    else gradient_dense_kernel(shape.vectors)(sweep);
}

// All of an item's positions in the rows of an outer strand, or in all rows. Returns false if the call was interrupted.
static bool gradient_over(const sc_gradient_task &task, const gradient_share &share, const needed_channels &needed,
                          const gradient_rows &rows, const gradient_scratch &scratch, bool careful,
                          long_sums &sums) {
    const sc_map &map = task.map;
    const int64_t channel = share.group * task.channels + share.channel, channels = share.channels;
    const int64_t first_lane = share.blocks.begin(share.first_block) * 16;
    const int64_t end_lane = smaller(share.blocks.begin(share.end_block) * 16, task.lanes);
    const int64_t sweeps = rows.strand ? 1 : map.outer_taps;  // of a strand
    int64_t calls = 0;  // of kernels, each for some channels
    for (int64_t block = 0; block < needed.blocks; ++block) {
        calls += skips(task) ? needed.count(block) * map.strand_count
                             : ceil_div(needed.count(block), f32x16::dense_pixels) * map.inner_taps;
    }
    if (calls == 0) return true;
    gradient_chunk chunk;
    for (chunk.first = 0; chunk.first < task.batch * rows.count; chunk.first += task.chunk_rows) {
        chunk.rows = smaller(task.chunk_rows, task.batch * rows.count - chunk.first);
        if (task.interrupt.poll(task.interrupt.context)) return false;
        const int64_t slots =
            rows.strand ? stack_partners(task, rows, chunk, scratch) : find_partners(task, rows, chunk, scratch);
        for (chunk.segment = 0; chunk.segment < task.segments; ++chunk.segment) {
            read_ahead ahead = next_reads(task, rows, chunk, channel, channels, share.group * task.lanes + first_lane,
                                          end_lane - first_lane);
            ahead.spread(calls * sweeps);
            for (int64_t p = 0, next; p < map.strand_count; p = next) {  // strands with equal columns share both tiles
                const sc_strand &strand = map.strands[p];
                for (next = p + 1; next < map.strand_count && !map.strands[next].new_columns;) ++next;
                int64_t begin, end;
                segment_range(task, chunk, strand, begin, end);
                if (begin >= end) continue;
                const int64_t window = end - begin + strand.window;
                const auto pack = spikes(task)                     ? find_masked_words
                                  : reads_lists(task)                    ? pack_lists
                                  : gradient_scratch::pixels(task) ? pack_pixels
                                                                   : pack_channels;
                for (int64_t first, last = 0; needed.next(first, last, channels);) {
                    pack(task, rows, chunk, scratch, strand, window, channel, first, last);
                }
                for (int64_t block = share.first_block; block < share.end_block; ++block) {
                    const int64_t some = needed.list(block - share.first_block, scratch.needed_list);
                    if (some == 0) continue;
                    const weight_tile shape = share.shape(task, block);
                    const int64_t lane = share.blocks.begin(block) * 16;
                    const float *lanes =
                        pack_lanes(task, chunk, scratch, strand, window, slots, share.group * task.lanes + lane,
                                   smaller(shape.vectors * 16, task.lanes - lane), shape.vectors * 16);
                    float *tile = share.tile(scratch.gradient, block);
                    for (int64_t i = 0; i < (next - p) * sweeps; ++i) {
                        const sc_strand &along = map.strands[p + i / sweeps];
                        gradient_taps(task, rows.strand, chunk, scratch, along, window, i % sweeps, shape, lanes, some,
                                      tile, careful, ahead);
                    }
                }
            }
            sums.added();
        }
    }
    return true;
}

// The skipping kernel multiplies a nonzero with all taps of a strand at once, also where some of them meet padding,
// which is zeros in B's tile. That is exact but for Inf and NaN, of which each tap must see only those that it meets.
// So what did not become finite is summed once more. Whether it is does not depend on the number of threads.
static void repair_not_finite(const sc_gradient_task &task, const gradient_share &share, const needed_channels &needed,
                              const gradient_scratch &scratch) {
    needed.keep_not_finite(task, share, scratch.gradient);
    sc_gradient_task careful = task;
    careful.outer_group = 1, careful.listed = 0, careful.chunk_rows = gradient_scratch::careful_rows(task);
    long_sums sums(scratch.gradient, scratch.long_gradient, scratch.long_floats, share.floats(), SHORT_CHAIN);
    if (!gradient_over(careful, share, needed, gradient_rows(careful, 0), scratch, true, sums)) return;
    sums.finish();
    store_gradient(task, share, scratch.gradient);
}

static void gradient_item(const sc_gradient_task &task, const gradient_share &share, void *memory) {
    const gradient_scratch scratch(task, memory);
    const needed_channels needed(task, share, scratch.needed);
    share.clear(scratch.gradient);
    long_sums sums(scratch.gradient, scratch.long_gradient, scratch.long_floats, share.floats(), SHORT_CHAIN);
    for (int64_t i = 0; i < task.batch * task.map.in_rows; ++i) scratch.slots[i] = -1;
    for (int64_t index = 0; index < gradient_rows::strands(task); ++index) {
        const gradient_rows rows(task, index);
        if (!gradient_over(task, share, needed, rows, scratch, false, sums)) return;
    }
    sums.finish();
    if (!store_gradient(task, share, scratch.gradient) && skips(task)) repair_not_finite(task, share, needed, scratch);
}

static int64_t gradient_scratch_bytes(const sc_gradient_task *task) {
    if (task->kernel == SC_GRADIENT_POINTS) return points_scratch::measure(*task).total() * (int64_t)sizeof(float);
    return gradient_scratch::measure(*task).total() * (int64_t)sizeof(float);
}

// How many (channel, lane block) pairs of a whole call are needed.
static int64_t gradient_needed(const sc_gradient_task *task) {
    const lane_blocks blocks(task->lanes, task->lane_vectors);
    int64_t needed = 0;
    for (int64_t group = 0; group < task->groups; ++group) {
        for (int64_t block = 0; block < blocks.count; ++block) {
            const int64_t lane = blocks.begin(block) * 16, end = smaller(blocks.begin(block + 1) * 16, task->lanes);
            for (int64_t channel = 0; channel < task->channels; channel += 64) {
                const int count = (int)smaller(64, task->channels - channel);
                needed += __builtin_popcountll(needed_word(*task, group, channel, count, lane, end - lane));
            }
        }
    }
    return needed;
}

static void gradient(const sc_gradient_task *task, int64_t begin, int64_t end, void *memory) {
    for (int64_t item = begin; item < end; ++item) {
        const gradient_share share(*task, item);
        if (task->kernel == SC_GRADIENT_POINTS) gradient_points_item(*task, share, memory);
        else gradient_item(*task, share, memory);
    }
}

static constexpr sc_gradient_table gradient_table = {
    {gradient, gradient_items, gradient_scratch_bytes}, gradient_needed,
};

SC_CLOSE
