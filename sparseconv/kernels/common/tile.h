// Between tensors of any layout and the contiguous tiles that kernels work on.
//
//   pixel tile   [column][channel]         load_pixels: NCHW and other layouts -> what NHWC memory already is
//   lane tile    [column][lane block]      finish_tile of common/epilogue.h: sums -> results in any layout
//   channel tile [channel][column]         load_channels: one channel's positions contiguous (backward_weight, NCHW)
// Weights have tiles of their own: common/weight_tile.h.
// All of them move 16 x 16 blocks through one register transpose when either dimension is contiguous in memory.
#pragma once
#include "common/problem.h"

SC_OPEN

SC_INLINE constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
SC_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
SC_INLINE int64_t line(int64_t floats) { return ceil_div(floats, 16) * 16; }  // in whole cache lines
SC_INLINE int64_t part_begin(int64_t total, int64_t parts, int64_t part) {  // balanced: sizes differ by one at most
    return total / parts * part + smaller(part, total % parts);
}

SC_INLINE int64_t channel_offset(const sc_view &view, int64_t channel) {
    return channel / 16 * view.block_stride + channel % 16 * view.channel_stride;
}
// channels lie side by side, whatever 16-block they belong to
SC_INLINE bool channels_contiguous(const sc_view &view) { return view.channel_stride == 1 && view.block_stride == 16; }
static void load_strided_block(f32x16 (&rows)[16], const float *from, int64_t row_stride, int row_count,
                               int64_t column_stride, int column_count) {
    float block[16][16] = {};
    for (int i = 0; i < row_count; ++i) {
        for (int j = 0; j < column_count; ++j) block[i][j] = from[i * row_stride + j * column_stride];
    }
    for (int i = 0; i < 16; ++i) rows[i] = load(block[i]);
}

static void store_edge_block(const f32x16 (&rows)[16], float *to, int64_t row_stride, int row_count,
                             int64_t column_stride, int column_count) {
    if (column_stride == 1) {
        for (int i = 0; i < row_count; ++i) {
            if (column_count == 16) store(to + i * row_stride, rows[i]);
            else store_partial(to + i * row_stride, rows[i], column_count);
        }
    } else {
        float block[16];
        for (int i = 0; i < row_count; ++i) {
            store(block, rows[i]);
            for (int j = 0; j < column_count; ++j) to[i * row_stride + j * column_stride] = block[j];
        }
    }
}

SC_INLINE float *row_of(const sc_view &view, int64_t image, int64_t row) {
    return view.data + image * view.image_stride + view.rows[row];
}

// rows[i][j] = from[i * row_stride + j * column_stride], an up to 16 x 16 block, zeros around it. Blocks with
// contiguous rows stay in registers from the loads through a transpose to the stores.
SC_INLINE void load_block(f32x16 (&rows)[16], const float *from, int64_t row_stride, int row_count,
                          int64_t column_stride, int column_count) {
    if (column_stride != 1) {
        load_strided_block(rows, from, row_stride, row_count, column_stride, column_count);
    } else if (column_count == 16) {
        SC_UNROLL for (int i = 0; i < 16; ++i) rows[i] = i < row_count ? load(from + i * row_stride) : zero();
    } else {
        SC_UNROLL for (int i = 0; i < 16; ++i) {
            rows[i] = i < row_count ? load_partial(from + i * row_stride, column_count) : zero();
        }
    }
}

SC_INLINE void store_block(const f32x16 (&rows)[16], float *to, int64_t row_stride, int row_count,
                           int64_t column_stride, int column_count) {
    if (column_stride == 1 && row_count == 16 && column_count == 16) {
        SC_UNROLL for (int i = 0; i < 16; ++i) store(to + i * row_stride, rows[i]);
    } else {
        store_edge_block(rows, to, row_stride, row_count, column_stride, column_count);
    }
}

// The transposed block, read along whichever dimension is contiguous.
SC_INLINE void load_block_transposed(f32x16 (&columns)[16], const float *from, int64_t row_stride, int row_count,
                                     int64_t column_stride, int column_count) {
    if (row_stride == 1 && column_stride != 1) {
        load_block(columns, from, column_stride, column_count, row_stride, row_count);
    } else {
        load_block(columns, from, row_stride, row_count, column_stride, column_count);
        transpose(columns);
    }
}

SC_INLINE void store_block_transposed(f32x16 (&columns)[16], float *to, int64_t row_stride, int row_count,
                                      int64_t column_stride, int column_count) {
    if (row_stride == 1 && column_stride != 1) {
        store_block(columns, to, column_stride, column_count, row_stride, row_count);
    } else {
        transpose(columns);
        store_block(columns, to, row_stride, row_count, column_stride, column_count);
    }
}

// How many of the channels [channel, end) share one stride, 16 at most: a 16-block, or what is left of it.
SC_INLINE int channel_run(const sc_view &view, int64_t channel, int64_t end) {
    int64_t run = channels_contiguous(view) || view.block_stride == 16 * view.channel_stride ? 16 : 16 - channel % 16;
    return (int)smaller(run, end - channel);
}

// Asks for the 16 x 16 block at the next 16 columns: its lines lie along whichever dimension is contiguous. Without it
// every load waits for memory: so many streams, a channel or a pixel each, are more than CPUs follow by themselves.
SC_INLINE void prefetch_next(const sc_view &view, const float *block, int64_t step) {
    const float *next = block + 16 * step;
    const int64_t apart = view.channel_stride == 1 ? step : view.channel_stride;
    for (int i = 0; i < 16; ++i) __builtin_prefetch(next + i * apart);
}

// load_* and store_* take absolute channels [first, end) of one row, whose address is `from` or `to`.

// load_pixels where memory has that order already.
static void copy_pixels(float *to, int64_t pitch, const float *from, int64_t step, int channels, int64_t columns) {
    for (int64_t column = 0; column < columns; ++column, to += pitch, from += step) {
        int done = 0;
        for (; done + 16 <= channels; done += 16) store(to + done, load(from + done));
        if (done < channels) {
            const f32x16 rest = load_partial(from + done, channels - done);
            store_partial(to + done, rest, (int)smaller(16, pitch - done));
        }
    }
}

// to[column][channel], `pitch` floats a column; zeros where the last 16-block of a column has room for more.
static void load_pixels(float *to, int64_t pitch, const sc_view &view, const float *from, int64_t first, int64_t end,
                        int64_t column, int64_t column_step, int64_t columns) {
    const int64_t step = column_step * view.column_stride;
    if (channels_contiguous(view)) {
        copy_pixels(to, pitch, from + column * view.column_stride + first, step, (int)(end - first), columns);
        return;
    }
    f32x16 block[16];
    for (int64_t done = 0; done < columns; done += 16) {
        const int count = (int)smaller(16, columns - done);
        for (int64_t channel = first; channel < end;) {
            const int run = channel_run(view, channel, end), room = (int)smaller(16, pitch - (channel - first));
            const float *source = from + channel_offset(view, channel) + column * view.column_stride + done * step;
            prefetch_next(view, source, step);
            load_block_transposed(block, source, view.channel_stride, run, step, count);
            store_block(block, to + done * pitch + channel - first, pitch, count, 1, room);
            channel += run;
            if (channel < end) continue;
            // A run that begins within a vector (a group's channels do, in blocks of 16) ends before the last one does.
            const int64_t whole = smaller(pitch, line(end - first)), written = channel - run - first + room;
            for (int64_t i = 0; i < count && written < whole; ++i) {
                store_partial(to + (done + i) * pitch + written, zero(), (int)(whole - written));
            }
        }
    }
}

// to[channel][column], `pitch` floats a channel. Writes whole vectors: up to 15 zeros behind the last column.
static void load_channels(float *to, int64_t pitch, const sc_view &view, const float *from, int64_t first, int64_t end,
                          int64_t column, int64_t column_step, int64_t columns) {
    const int64_t step = column_step * view.column_stride;
    f32x16 block[16];
    for (int64_t done = 0; done < columns; done += 16) {
        const int count = (int)smaller(16, columns - done);
        for (int64_t channel = first; channel < end;) {
            const int run = channel_run(view, channel, end);
            const float *source = from + channel_offset(view, channel) + column * view.column_stride + done * step;
            prefetch_next(view, source, step);
            load_block_transposed(block, source, step, count, view.channel_stride, run);
            for (int i = 0; i < run; ++i) store(to + (channel - first + i) * pitch + done, block[i]);
            channel += run;
        }
    }
}

SC_CLOSE
