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
//   outer pass   its rows of A, over all images (or all rows: see below)
//   chunk        some of them, packed as channel tile: [row][window][a] where memory has pixels, else [a][row][window]
//   lane block   B's rows for the chunk, packed as lane tile [row][window][b], L1-sized
//   pass, outer taps, channel a: T = outer taps x taps x vectors accumulators in registers sum over the
//                chunk, then are added to the scratch gradient: two-level summation, hence also more accurate than
//                one long chain
//
// A row's window holds its columns and the `in` columns that any tap reaches beyond them, so every row stands
// alone and rows that follow one another on both sides are one run: 7 x 7 maps fill 64-position words.
// With one outer dimension, rows fall apart into outer passes as columns do into passes: rows of A that meet rows of B
// which follow one another in the tile. A skipping kernel sweeps all taps of an outer pass together. Rows outside the
// image are then rows of zeros in the tile.
// The order of the sum depends on chunk_rows and segment alone, so threads do not change a bit.
#pragma once
#include "gradient_share.h"
#include "kernel_gradient_dense.h"
#include "kernel_gradient_points.h"
#include "kernel_gradient_skip.h"
#include "live_word.h"
#include "mask_words.h"
#include "tile.h"

SC_OPEN

SC_INLINE int64_t window_floats(const sc_gradient_task &task) {
    int64_t window = 0;
    for (int64_t p = 0; p < task.map.pass_count; ++p) window = larger(window, task.map.passes[p].window);
    return task.segment + window;
}

// The rows of A that are summed together: those of one outer pass, or all of them.
struct gradient_rows {
    const sc_pass *pass;  // or null
    int64_t start, step, count;  // in each image

    SC_INLINE_MEMBER gradient_rows(const sc_gradient_task &task, int64_t index)
        : pass(task.outer_group > 1 ? task.map.outer_passes + index : nullptr), start(pass ? pass->out_start : 0),
          step(pass ? pass->out_step : 1), count(pass ? pass->out_count : task.map.out_rows) {}
    static int64_t passes(const sc_gradient_task &task) {
        return task.outer_group > 1 ? task.map.outer_pass_count : 1;
    }
    SC_INLINE_MEMBER int64_t image(int64_t index) const { return index / count; }
    SC_INLINE_MEMBER int64_t row(int64_t index) const { return start + index % count * step; }
    SC_INLINE_MEMBER const float *of(const sc_view &view, int64_t index) const {
        return row_of(view, image(index), row(index));
    }
};

struct gradient_scratch {
    int64_t *slots;             // B: where an input row has been put, by its distance from the lowest one
    int64_t *order;             // B: which input row a slot holds, or -1 for zeros
    int64_t *partner;           // [outer tap][row]: slot of B for a row of A, or -1
    gradient_run *runs;         // of the tap at hand
    uint64_t *needed;           // of needed_channels
    int64_t *needed_list;       // A: channels that the lane block at hand needs
    float *gradient;            // weight tiles, one per lane block
    float *channels;            // A: [channel][row][window], or [row][window][channel] where pixels() says so
    uint64_t *live;             // A: [channel][position / 64]: nonzero positions as bits, for the skipping kernels
    float *lanes;               // B: [slot][window][lane]
    int64_t channel_pitch, pixel_pitch, live_pitch;

    struct sizes {
        int64_t slots, order, partner, runs, needed, needed_list, gradient, channels, live, lanes;
        int64_t channel_pitch, pixel_pitch, live_pitch;
        int64_t total() const {
            return slots + order + partner + runs + needed + needed_list + gradient + channels + live + lanes;
        }
    };
    static int64_t line(int64_t floats) { return (floats + 15) / 16 * 16; }
    // Whether the channels of a position stay side by side, as they are in memory.
    static bool pixels(const sc_gradient_task &task) { return channels_contiguous(task.a); }
    static sizes measure(const sc_gradient_task &task) {
        const sc_map &map = task.map;
        const int64_t window = window_floats(task), pairs = task.chunk_rows * map.outer_taps;
        const int64_t pitch = (task.chunk_rows * window + 15 + 63) / 64 * 64;  // whole words, and whole vectors stored
        const int64_t words = pitch / 64 + 1;                                  // one is read behind the last
        const int64_t taps = map.outer_taps * map.inner_taps;
        const int64_t in_rows = task.batch * map.in_rows;
        int64_t slots = smaller(pairs, in_rows);
        for (int64_t p = 0; task.outer_group > 1 && p < map.outer_pass_count; ++p) {
            const sc_pass &outer = map.outer_passes[p];  // each image of the chunk brings the rows around it
            const int64_t images = smaller(task.batch, task.chunk_rows / larger(1, outer.out_count) + 2);
            slots = larger(p ? slots : 0, task.chunk_rows + images * (larger(1, outer.taps) - 1));
        }
        sizes size = {};
        size.slots = line(2 * in_rows), size.order = line(2 * slots), size.partner = line(2 * pairs);
        size.runs = line(8 * task.chunk_rows);
        size.needed = line(2 * needed_channels::size(task)), size.needed_list = line(2 * task.channel_block);
        size.gradient = line(task.lane_blocks * task.channel_block * taps * task.lane_vectors * 16);
        size.channel_pitch = pitch, size.live_pitch = words;
        size.pixel_pitch = line(task.channel_block) + 16;  // pixels a power of two apart would share few sets of L1
        size.channels = pixels(task) ? task.chunk_rows * window * size.pixel_pitch + 16 : task.channel_block * pitch;
        size.live = task.dense ? 0 : line(2 * task.channel_block * words);
        size.lanes = line(slots * window * task.lane_vectors * 16 + 16);
        return size;
    }
    gradient_scratch(const sc_gradient_task &task, void *memory) {
        const sizes size = measure(task);
        float *next = (float *)memory;
        slots = (int64_t *)next, next += size.slots;
        order = (int64_t *)next, next += size.order;
        partner = (int64_t *)next, next += size.partner;
        runs = (gradient_run *)next, next += size.runs;
        needed = (uint64_t *)next, next += size.needed;
        needed_list = (int64_t *)next, next += size.needed_list;
        gradient = next, next += size.gradient;
        channels = next, next += size.channels;
        live = (uint64_t *)next, next += size.live;
        lanes = next;
        channel_pitch = size.channel_pitch, pixel_pitch = size.pixel_pitch, live_pitch = size.live_pitch;
    }
};

// A chunk: consecutive rows of A over all images, and one segment of the columns of each pass.
struct gradient_chunk {
    int64_t first, rows, segment;
};

// Columns [begin, end) of `out` in a pass.
SC_INLINE void segment_range(const sc_gradient_task &task, const gradient_chunk &chunk, const sc_pass &pass,
                             int64_t &begin, int64_t &end) {
    begin = smaller(pass.out_count, chunk.segment * task.segment);
    end = smaller(pass.out_count, begin + task.segment);
}

// The rows of B that the chunk meets, in the order in which the outer taps meet them. Returns their number.
static int64_t find_partners(const sc_gradient_task &task, const gradient_chunk &chunk,
                             const gradient_scratch &scratch) {
    const sc_map &map = task.map;
    int64_t used = 0;
    for (int64_t tap = 0; tap < map.outer_taps; ++tap) {
        for (int64_t i = 0; i < chunk.rows; ++i) {
            const int64_t image = (chunk.first + i) / map.out_rows, row = (chunk.first + i) % map.out_rows;
            const int64_t in = map.row_table[row * map.outer_taps + tap];
            int64_t slot = -1;
            if (in >= 0) {
                int64_t &known = scratch.slots[image * map.in_rows + in];
                if (known < 0) scratch.order[used] = image * map.in_rows + in, known = used++;
                slot = known;
            }
            scratch.partner[tap * task.chunk_rows + i] = slot;
        }
    }
    for (int64_t slot = 0; slot < used; ++slot) scratch.slots[scratch.order[slot]] = -1;
    return used;
}

// The same for an outer pass: for each image all rows from the first to the last that any tap meets, those outside the
// image as zeros. Only the partners of the first tap are needed.
static int64_t stack_partners(const sc_gradient_task &task, const gradient_rows &rows, const gradient_chunk &chunk,
                              const gradient_scratch &scratch) {
    const sc_pass &outer = *rows.pass;
    int64_t used = 0;
    for (int64_t i = 0; i < chunk.rows;) {
        const int64_t image = rows.image(chunk.first + i), first = (chunk.first + i) % rows.count;
        const int64_t some = smaller(chunk.rows - i, rows.count - first);
        for (int64_t k = 0; k < some; ++k) scratch.partner[i + k] = used + k;
        for (int64_t in = first - outer.shift; in < first - outer.shift + some + outer.taps - 1; ++in) {
            const bool inside = in >= 0 && in < outer.in_count;
            scratch.order[used++] = inside ? image * task.map.in_rows + outer.in_start + in * outer.in_step : -1;
        }
        i += some;
    }
    return used;
}

// Nonzero positions of channels [begin, end) from pixels in [row][window][channel] order, `columns` of each window.
static void find_position_words(const gradient_scratch &scratch, int64_t positions, int64_t window, int64_t columns,
                                int64_t begin, int64_t end, f32x16 threshold) {
    for (int64_t first = begin; first < end; first += 64) {
        const int some = (int)smaller(64, end - first);
        int64_t column = 0;
        for (int64_t word = 0; word < scratch.live_pitch; ++word) {  // the last one is read, but no position
            uint64_t bits[64] = {};
            for (int64_t i = 0; i < smaller(64, positions - 64 * word); ++i) {
                const float *pixel = scratch.channels + (64 * word + i) * scratch.pixel_pitch;
                if (column < columns) bits[i] = live_word(pixel + first, some, threshold);
                if (++column == window) column = 0;
            }
            if (64 * word < positions) transpose_bits(bits);
            for (int c = 0; c < some; ++c) scratch.live[(first + c) * scratch.live_pitch + word] = bits[c];
        }
    }
}

// The same of channels [first, last) from A's mask, whatever the order of its elements.
static void find_masked_words(const sc_gradient_task &task, const gradient_rows &rows, const gradient_chunk &chunk,
                              const gradient_scratch &scratch, const sc_pass &pass, int64_t window, int64_t channel,
                              int64_t first, int64_t last) {
    int64_t begin, end;
    segment_range(task, chunk, pass, begin, end);
    for (int64_t i = first * scratch.live_pitch; i < last * scratch.live_pitch; ++i) scratch.live[i] = 0;
    for (int64_t i = 0; i < chunk.rows; ++i) {
        for (int64_t column = begin; column < end; column += 64) {
            const mask_columns columns(task.live, rows.image(chunk.first + i), rows.row(chunk.first + i),
                                       pass.out_start + column * pass.out_step, pass.out_step,
                                       smaller(64, end - column));
            const int64_t position = i * window + column - begin, shift = position % 64;
            for (int64_t c = first; c < last; c += 64) {
                uint64_t bits[64] = {};
                mask_words(task.live, columns, channel + c, (int)smaller(64, last - c), bits);
                transpose_bits(bits);
                uint64_t *live = scratch.live + c * scratch.live_pitch + position / 64;
                for (int64_t k = 0; k < smaller(64, last - c); ++k, live += scratch.live_pitch) {
                    live[0] |= bits[k] << shift;
                    if (shift) live[1] |= bits[k] >> (64 - shift);
                }
            }
        }
    }
}

// A's channels [first, last) as [row][window][channel]; what lies behind a row's columns is never read.
static void pack_pixels(const sc_gradient_task &task, const gradient_rows &rows, const gradient_chunk &chunk,
                        const gradient_scratch &scratch, const sc_pass &pass, int64_t window, int64_t channel,
                        int64_t first, int64_t last) {
    int64_t begin, end;
    segment_range(task, chunk, pass, begin, end);
    for (int64_t i = 0; i < chunk.rows; ++i) {
        load_pixels(scratch.channels + i * window * scratch.pixel_pitch + first, scratch.pixel_pitch, task.a,
                    rows.of(task.a, chunk.first + i), channel + first, channel + last,
                    pass.out_start + begin * pass.out_step, pass.out_step, end - begin);
    }
    if (task.dense) return;
    if (task.live.data) return find_masked_words(task, rows, chunk, scratch, pass, window, channel, first, last);
    find_position_words(scratch, chunk.rows * window, window, end - begin, first, last, splat(&task.threshold));
}

// A's channels [first, last) as [channel][row][window], zeros behind the columns, and their nonzero positions.
static void pack_channels(const sc_gradient_task &task, const gradient_rows &rows, const gradient_chunk &chunk,
                          const gradient_scratch &scratch, const sc_pass &pass, int64_t window, int64_t channel,
                          int64_t first, int64_t last) {
    int64_t begin, end;
    segment_range(task, chunk, pass, begin, end);
    for (int64_t i = 0; i < chunk.rows; ++i) {
        load_channels(scratch.channels + first * scratch.channel_pitch + i * window, scratch.channel_pitch, task.a,
                      rows.of(task.a, chunk.first + i), channel + first, channel + last,
                      pass.out_start + begin * pass.out_step, pass.out_step, end - begin);
        for (int64_t c = first; c < last; ++c) {
            float *to = scratch.channels + c * scratch.channel_pitch + i * window;
            for (int64_t m = end - begin; m < window; ++m) to[m] = 0;
        }
    }
    const f32x16 threshold = splat(&task.threshold);
    for (int64_t c = first; c < last; ++c) {
        float *to = scratch.channels + c * scratch.channel_pitch;
        for (int64_t m = chunk.rows * window; m < scratch.channel_pitch; ++m) to[m] = 0;
        if (task.dense || task.live.data) continue;
        uint64_t *live = scratch.live + c * scratch.live_pitch;
        for (int64_t word = 0; word < scratch.live_pitch - 1; ++word) {
            live[word] = live_word(to + 64 * word, 64, threshold);
        }
        live[scratch.live_pitch - 1] = 0;
    }
    if (task.live.data && !task.dense) {
        find_masked_words(task, rows, chunk, scratch, pass, window, channel, first, last);
    }
}

// B as [slot][window][lane], zeros where the window leaves the row.
static void pack_lanes(const sc_gradient_task &task, const gradient_chunk &chunk, const gradient_scratch &scratch,
                       const sc_pass &pass, int64_t window, int64_t slots, int64_t lane, int64_t lanes, int64_t pitch) {
    const sc_map &map = task.map;
    int64_t begin, end;
    segment_range(task, chunk, pass, begin, end);
    const int64_t first = begin - pass.window_shift;  // `in` column at the start of the window
    const int64_t low = smaller(larger(0, -first), window), high = larger(low, smaller(window, pass.in_count - first));
    for (int64_t slot = 0; slot < slots; ++slot) {
        const int64_t row = scratch.order[slot];
        float *to = scratch.lanes + slot * window * pitch;
        if (row < 0) {
            for (int64_t i = 0; i < window * pitch; i += 16) store(to + i, zero());
            continue;
        }
        for (int64_t i = 0; i < low * pitch; i += 16) store(to + i, zero());
        for (int64_t i = high * pitch; i < window * pitch; i += 16) store(to + i, zero());
        load_pixels(to + low * pitch, pitch, task.b, row_of(task.b, row / map.in_rows, row % map.in_rows), lane,
                   lane + lanes, pass.in_start + (first + low) * pass.in_step, pass.in_step, high - low);
    }
}

// The rows of B that some rows of A meet: those of an outer pass, or all of them.
struct partner_rows {
    int64_t start, step, count;  // in each image

    SC_INLINE_MEMBER partner_rows(const sc_map &map, const gradient_rows &rows)
        : start(rows.pass ? rows.pass->in_start : 0), step(rows.pass ? rows.pass->in_step : 1),
          count(rows.pass ? rows.pass->in_count : map.in_rows) {}
    // How many of them, over all images, the rows of A before `index` have met.
    SC_INLINE_MEMBER int64_t met(const sc_map &map, const gradient_rows &rows, int64_t index) const {
        for (int64_t i = index - 1; i >= larger(0, index - rows.count); --i) {
            int64_t last = -1;
            if (rows.pass) last = smaller(count - 1, i % rows.count - rows.pass->shift + rows.pass->taps - 1);
            for (int64_t tap = 0; !rows.pass && tap < map.outer_taps; ++tap) {
                last = larger(last, map.row_table[rows.row(i) * map.outer_taps + tap]);
            }
            if (last >= 0) return rows.image(i) * count + last + 1;
        }
        return 0;
    }
};

// What the next chunk (or, of long rows, the next segment) will read, to be asked for while this one is summed.
static read_ahead next_reads(const sc_gradient_task &task, const gradient_rows &rows, const gradient_chunk &chunk,
                             int64_t channel, int64_t channels, int64_t lane, int64_t lanes) {
    const sc_map &map = task.map;
    read_ahead ahead = {};
    const int64_t all_rows = task.batch * rows.count, next = chunk.first + chunk.rows;
    if (task.segments == 1 && next < all_rows) {
        const int64_t some = smaller(task.chunk_rows, all_rows - next);
        ahead.add_rows(task.a, {rows.start, rows.step, rows.count}, next, some, map.out_columns, channel, channels);
        const partner_rows partners(map, rows);
        const int64_t met = partners.met(map, rows, next);
        ahead.add_rows(task.b, {partners.start, partners.step, partners.count}, met,
                       partners.met(map, rows, next + some) - met, map.in_columns, lane, lanes);
    } else if (all_rows == 1 && chunk.segment + 1 < task.segments && map.pass_count == 1) {
        const sc_pass &pass = map.passes[0];
        int64_t begin, end;
        segment_range(task, {chunk.first, chunk.rows, chunk.segment + 1}, pass, begin, end);
        const int64_t out = pass.out_start + begin * pass.out_step, in = pass.in_start + begin * pass.in_step;
        ahead.add(task.a, row_of(task.a, 0, 0) + out * task.a.column_stride, (end - begin) * pass.out_step, channel,
                  channels);
        ahead.add(task.b, row_of(task.b, 0, 0) + in * task.b.column_stride, (end - begin) * pass.in_step, lane, lanes);
    }
    return ahead;
}

// One pass of one lane block and the channels that it needs over the chunk, with the outer taps of an outer pass, or
// with `tap` alone.
static void gradient_taps(const sc_gradient_task &task, const sc_pass *outer, const gradient_chunk &chunk,
                          const gradient_scratch &scratch, const sc_pass &pass, int64_t window, int64_t tap,
                          const weight_tile &shape, int64_t channels, float *tile, read_ahead &ahead) {
    const int64_t *partner = scratch.partner + (outer ? 0 : tap * task.chunk_rows);
    int64_t begin, end;
    segment_range(task, chunk, pass, begin, end);
    gradient_sweep sweep = {};
    sweep.channel_pitch = gradient_scratch::pixels(task) ? 1 : scratch.channel_pitch;
    sweep.position_pitch = gradient_scratch::pixels(task) ? scratch.pixel_pitch : 1;
    sweep.channels = scratch.needed_list, sweep.channel_count = channels, sweep.taps = pass.taps;
    sweep.window = window, sweep.columns = end - begin;
    sweep.b_first = pass.shift - begin, sweep.b_end = pass.in_count + pass.shift - begin;
    sweep.live_pitch = scratch.live_pitch, sweep.ahead = &ahead;
    sweep.sums = tile + shape.pass_offset(outer ? outer->first_tap : tap, pass.taps_before);
    sweep.outer = outer ? outer->taps : 1;
    sweep.b_outer_pitch = window * shape.vectors * 16;
    sweep.sums_outer_pitch = shape.pass_offset(outer ? outer->tap_step : 1, 0);
    sweep.a = scratch.channels, sweep.live = scratch.live, sweep.runs = scratch.runs;
    sweep.b = scratch.lanes + (pass.window_shift - pass.shift) * shape.vectors * 16;
    for (int64_t row = 0, rows; row < chunk.rows; row += rows) {
        rows = 1;
        if (partner[row] < 0) continue;
        while (row + rows < chunk.rows && partner[row + rows] == partner[row] + rows) ++rows;
        const int64_t positions = (rows - 1) * window + sweep.columns;
        scratch.runs[sweep.run_count++] = {row * window, partner[row] * window, rows, positions};
    }
    if (sweep.run_count == 0) return;
    if (task.dense) gradient_dense_kernel(shape.vectors)(sweep);
    else gradient_skip_kernel(shape.vectors)(sweep);
}

// All of an item's positions in the rows of an outer pass, or in all rows. Returns false if the call was interrupted.
static bool gradient_over(const sc_gradient_task &task, const gradient_share &share, const needed_channels &needed,
                          const gradient_rows &rows, const gradient_scratch &scratch) {
    const sc_map &map = task.map;
    const int64_t channel = share.group * task.channels + share.channel, channels = share.channels;
    const int64_t first_lane = share.blocks.begin(share.first_block) * 16;
    const int64_t end_lane = smaller(share.blocks.begin(share.end_block) * 16, task.lanes);
    const int64_t sweeps = rows.pass ? 1 : map.outer_taps;  // of a pass
    int64_t calls = 0;  // of kernels, each for some channels
    for (int64_t block = 0; block < needed.blocks; ++block) {
        calls += task.dense ? ceil_div(needed.count(block), f32x16::dense_pixels) * map.inner_taps
                            : needed.count(block) * map.pass_count;
    }
    if (calls == 0) return true;
    gradient_chunk chunk;
    for (chunk.first = 0; chunk.first < task.batch * rows.count; chunk.first += task.chunk_rows) {
        chunk.rows = smaller(task.chunk_rows, task.batch * rows.count - chunk.first);
        if (task.interrupt.poll(task.interrupt.context)) return false;
        const int64_t slots =
            rows.pass ? stack_partners(task, rows, chunk, scratch) : find_partners(task, chunk, scratch);
        for (chunk.segment = 0; chunk.segment < task.segments; ++chunk.segment) {
            read_ahead ahead = next_reads(task, rows, chunk, channel, channels, share.group * task.lanes + first_lane,
                                          end_lane - first_lane);
            ahead.spread(calls * sweeps);
            for (int64_t p = 0, next; p < map.pass_count; p = next) {  // passes with equal columns share both tiles
                const sc_pass &pass = map.passes[p];
                for (next = p + 1; next < map.pass_count && !map.passes[next].new_columns;) ++next;
                int64_t begin, end;
                segment_range(task, chunk, pass, begin, end);
                if (pass.taps == 0 || begin >= end) continue;
                const int64_t window = end - begin + pass.window;
                const auto pack = gradient_scratch::pixels(task) ? pack_pixels : pack_channels;
                for (int64_t first, last = 0; needed.next(first, last, channels);) {
                    pack(task, rows, chunk, scratch, pass, window, channel, first, last);
                }
                for (int64_t block = share.first_block; block < share.end_block; ++block) {
                    const int64_t some = needed.list(block - share.first_block, scratch.needed_list);
                    if (some == 0) continue;
                    const weight_tile shape = share.shape(task, block);
                    const int64_t lane = share.blocks.begin(block) * 16;
                    pack_lanes(task, chunk, scratch, pass, window, slots, share.group * task.lanes + lane,
                               smaller(shape.vectors * 16, task.lanes - lane), shape.vectors * 16);
                    float *tile = share.tile(scratch.gradient, block);
                    for (int64_t i = 0; i < (next - p) * sweeps; ++i) {
                        gradient_taps(task, rows.pass, chunk, scratch, map.passes[p + i / sweeps], window, i % sweeps,
                                      shape, some, tile, ahead);
                    }
                }
            }
        }
    }
    return true;
}

static void gradient_item(const sc_gradient_task &task, const gradient_share &share, void *memory) {
    const gradient_scratch scratch(task, memory);
    const needed_channels needed(task, share, scratch.needed);
    share.clear(scratch.gradient);
    for (int64_t i = 0; i < task.batch * task.map.in_rows; ++i) scratch.slots[i] = -1;
    for (int64_t index = 0; index < gradient_rows::passes(task); ++index) {
        const gradient_rows rows(task, index);
        if (rows.pass && rows.pass->taps == 0) continue;
        if (!gradient_over(task, share, needed, rows, scratch)) return;
    }
    store_gradient(task, share, scratch.gradient);
}

static int64_t gradient_scratch_bytes(const sc_gradient_task *task) {
    if (task->points) return points_scratch::measure(*task).total() * (int64_t)sizeof(float);
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
        if (task->points) gradient_points_item(*task, share, memory);
        else gradient_item(*task, share, memory);
    }
}

SC_CLOSE
