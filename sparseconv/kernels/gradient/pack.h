// Both operands of backward_weight as the inner kernels read them: A's channels with the words of their nonzero
// positions, and B's rows as a tile of lanes.
#pragma once
#include "common/live_word.h"
#include "common/mask_words.h"
#include "gradient/scratch.h"

SC_OPEN

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
                              const gradient_scratch &scratch, const sc_strand &strand, int64_t window, int64_t channel,
                              int64_t first, int64_t last) {
    int64_t begin, end;
    segment_range(task, chunk, strand, begin, end);
    for (int64_t i = first * scratch.live_pitch; i < last * scratch.live_pitch; ++i) scratch.live[i] = 0;
    for (int64_t i = 0; i < chunk.rows; ++i) {
        for (int64_t column = begin; column < end; column += 64) {
            const mask_columns columns(task.known, rows.image(chunk.first + i), rows.row(chunk.first + i),
                                       strand.out_start + column * strand.out_step, strand.out_step,
                                       smaller(64, end - column));
            const int64_t position = i * window + column - begin, shift = position % 64;
            for (int64_t c = first; c < last; c += 64) {
                uint64_t bits[64] = {};
                mask_words(task.known, columns, channel + c, (int)smaller(64, last - c), bits);
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
                        const gradient_scratch &scratch, const sc_strand &strand, int64_t window, int64_t channel,
                        int64_t first, int64_t last) {
    int64_t begin, end;
    segment_range(task, chunk, strand, begin, end);
    for (int64_t i = 0; i < chunk.rows; ++i) {
        load_pixels(scratch.channels + i * window * scratch.pixel_pitch + first, scratch.pixel_pitch, task.a,
                    rows.of(task.a, chunk.first + i), channel + first, channel + last,
                    strand.out_start + begin * strand.out_step, strand.out_step, end - begin);
    }
    if (!skips(task)) return;
    if (task.known.data) return find_masked_words(task, rows, chunk, scratch, strand, window, channel, first, last);
    find_position_words(scratch, chunk.rows * window, window, end - begin, first, last, splat(&task.threshold));
}

// A's channels [first, last) as [channel][row][window], zeros behind the columns, and their nonzero positions.
static void pack_channels(const sc_gradient_task &task, const gradient_rows &rows, const gradient_chunk &chunk,
                          const gradient_scratch &scratch, const sc_strand &strand, int64_t window, int64_t channel,
                          int64_t first, int64_t last) {
    int64_t begin, end;
    segment_range(task, chunk, strand, begin, end);
    for (int64_t i = 0; i < chunk.rows; ++i) {
        load_channels(scratch.channels + first * scratch.channel_pitch + i * window, scratch.channel_pitch, task.a,
                      rows.of(task.a, chunk.first + i), channel + first, channel + last,
                      strand.out_start + begin * strand.out_step, strand.out_step, end - begin);
        for (int64_t c = first; c < last; ++c) {
            float *to = scratch.channels + c * scratch.channel_pitch + i * window;
            for (int64_t m = end - begin; m < window; ++m) to[m] = 0;
        }
    }
    const f32x16 threshold = splat(&task.threshold);
    for (int64_t c = first; c < last; ++c) {
        float *to = scratch.channels + c * scratch.channel_pitch;
        for (int64_t m = chunk.rows * window; m < scratch.channel_pitch; ++m) to[m] = 0;
        if (!skips(task) || task.known.data) continue;
        uint64_t *live = scratch.live + c * scratch.live_pitch;
        for (int64_t word = 0; word < scratch.live_pitch - 1; ++word) {
            live[word] = live_word(to + 64 * word, 64, threshold);
        }
        live[scratch.live_pitch - 1] = 0;
    }
    if (task.known.data && skips(task)) {
        find_masked_words(task, rows, chunk, scratch, strand, window, channel, first, last);
    }
}

// The nonzeros of A's channels [first, last) as lists, 16 positions at a time, without a branch that depends on zeros.
// Pixels are read where memory has them and go through a transpose in registers. 64 channels after one another: the
// tails of their lists are 128 lines of L1; those of 256 would be 512 beside the pixels (1024,256,14 1x1 at 50%: 8%
// slower).
static void pack_lists(const sc_gradient_task &task, const gradient_rows &rows, const gradient_chunk &chunk,
                       const gradient_scratch &scratch, const sc_strand &strand, int64_t window, int64_t channel,
                       int64_t first, int64_t last) {
    const bool pixels = gradient_scratch::pixels(task), known = task.known.data;
    if (!pixels) pack_channels(task, rows, chunk, scratch, strand, window, channel, first, last);
    else if (known) find_masked_words(task, rows, chunk, scratch, strand, window, channel, first, last);
    const f32x16 threshold = splat(&task.threshold);
    const int64_t step = strand.out_step * task.a.column_stride, positions = chunk.rows * window;
    int64_t begin, end;
    segment_range(task, chunk, strand, begin, end);
    for (int64_t word = first; word < last; word += 64) {
        const int64_t word_end = smaller(last, word + 64);
        int32_t ends[64] = {};
        const float *next = nullptr;
        int64_t row = 0, column = window;
        for (int64_t base = 0; base < positions; base += 16) {
            float numbers[16];
            for (int i = 0; i < 16; ++i) gradient_lists::set_position(numbers + i, (uint32_t)(base + i));
            const f32x16 places = load(numbers);
            const float *pixel[16];  // of channel 0; null behind a row's columns
            for (int64_t i = 0; i < 16 && pixels; ++i, ++column, next += step) {
                if (column == window && row < chunk.rows) {
                    next = rows.of(task.a, chunk.first + row++) + channel;
                    next += strand.out_start * task.a.column_stride + begin * step, column = 0;
                }
                pixel[i] = column < end - begin ? next : nullptr;
            }
            for (int64_t c = word; c < word_end; c += 16) {
                const int some = (int)smaller(16, word_end - c);
                f32x16 block[16];
                if (pixels) {
                    SC_UNROLL for (int i = 0; i < 16; ++i) {
                        if (!pixel[i]) block[i] = zero();
                        else block[i] = some == 16 ? load(pixel[i] + c) : load_partial(pixel[i] + c, some);
                    }
                    transpose(block);
                }
                SC_UNROLL for (int k = 0; k < 16; ++k) {
                    if (k >= some) break;
                    const int64_t at = c + k;
                    const uint64_t *live = scratch.live + at * scratch.live_pitch + base / 64;
                    const float *row = scratch.channels + at * scratch.channel_pitch + base;
                    const f32x16 values = pixels ? block[k] : load(row);
                    const uint32_t bits = known ? *live >> base % 64 & 0xffff : above(values, threshold);
                    const int64_t to = at * scratch.lists.pitch + ends[at - word];
                    compress(scratch.lists.values + to, values, bits);
                    compress(scratch.lists.positions + to, places, bits);
                    ends[at - word] += __builtin_popcount(bits);
                }
            }
        }
        for (int64_t c = word; c < word_end; ++c) {
            float *end_place = scratch.lists.positions + c * scratch.lists.pitch + ends[c - word];
            gradient_lists::set_position(end_place, gradient_lists::END);
        }
    }
}

// Where B lies in memory as the lane tile has it: one row, pixels that a lane block fills, whole cache lines and no
// padding. Then nothing is copied. `row` is where the columns from `first` on are, `low` and `high` as in pack_lanes.
static const float *lanes_in_place(const sc_gradient_task &task, const sc_strand &strand, const float *row,
                                   int64_t first,
                                   int64_t low, int64_t high, int64_t window, int64_t lanes, int64_t pitch) {
    if (lanes != pitch || low != 0 || high != window || !channels_contiguous(task.b)) return nullptr;
    const int64_t step = strand.in_step * task.b.column_stride;
    const float *tile = row + strand.in_start * task.b.column_stride + first * step;
    return step == pitch && reinterpret_cast<uintptr_t>(tile) % 64 == 0 ? tile : nullptr;
}

// B as [slot][window][lane], zeros where the window leaves the row; returns where this tile is.
static const float *pack_lanes(const sc_gradient_task &task, const gradient_chunk &chunk,
                               const gradient_scratch &scratch, const sc_strand &strand, int64_t window, int64_t slots,
                               int64_t lane, int64_t lanes, int64_t pitch) {
    const sc_map &map = task.map;
    int64_t begin, end;
    segment_range(task, chunk, strand, begin, end);
    const int64_t first = begin - strand.window_shift;  // `in` column at the start of the window
    const int64_t low = smaller(larger(0, -first), window);
    const int64_t high = larger(low, smaller(window, strand.in_count - first));
    if (slots == 1 && scratch.order[0] >= 0) {
        const float *row = row_of(task.b, scratch.order[0] / map.in_rows, scratch.order[0] % map.in_rows) + lane;
        if (const float *tile = lanes_in_place(task, strand, row, first, low, high, window, lanes, pitch)) return tile;
    }
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
                   lane + lanes, strand.in_start + (first + low) * strand.in_step, strand.in_step, high - low);
    }
    return scratch.lanes;
}

SC_CLOSE
