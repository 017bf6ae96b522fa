// Asking for memory that the next chunk will read, a few cache lines at a time, while this chunk is computed.
//
// At 90% zeros a gradient kernel computes for about as long as its operands take to arrive from memory. Requests in one
// burst would only wait for one another, so each channel of a sweep makes some.
#pragma once
#include "common/tile.h"

SC_OPEN

struct read_ahead {
    // Equal rows, a fixed distance apart, of pixels with contiguous channels. Distances and widths are in floats.
    struct pixels {
        const float *row;
        int64_t row_step, rows, columns, column_step, width;
    } streams[2];
    int64_t count, column, line, lines;  // streams; how far the row at hand is; cache lines at a time

    // One row.
    SC_INLINE_MEMBER void add(const sc_view &view, const float *row, int64_t columns, int64_t channel,
                              int64_t channels) {
        if (channels_contiguous(view)) streams[count++] = {row + channel, 0, 1, columns, view.column_stride, channels};
    }

    // Rows [first, first + some) of those that `rows` names, over all images; of the first image only, if the
    // distance to the next one is another.
    struct named {
        int64_t start, step, count;
    };
    SC_INLINE_MEMBER void add_rows(const sc_view &view, const named &rows, int64_t first, int64_t some, int64_t columns,
                                   int64_t channel, int64_t channels) {
        if (!channels_contiguous(view) || rows.count == 0 || some <= 0) return;
        const int64_t row = first % rows.count;
        const float *from = row_of(view, first / rows.count, rows.start + row * rows.step) + channel;
        const int64_t step = rows.count > 1 ? view.rows[rows.start + rows.step] - view.rows[rows.start] : 0;
        if (step == 0 || view.image_stride != rows.count * step) some = smaller(some, rows.count - row);
        streams[count++] = {from, step, some, columns, view.column_stride, channels};
    }

    // All of it in `calls` calls of some().
    SC_INLINE_MEMBER void spread(int64_t calls) {
        int64_t all = 0;
        for (int64_t i = 0; i < count; ++i) {
            pixels &stream = streams[i];
            if (stream.column_step == stream.width) stream.width *= stream.columns, stream.columns = 1;
            all += streams[i].rows * streams[i].columns * ceil_div(streams[i].width, 16);
        }
        lines = ceil_div(all, larger(1, calls));
    }
    __attribute__((noinline)) void some() {
        for (int64_t left = lines; left > 0 && count > 0;) {
            pixels &stream = streams[count - 1];
            if (stream.rows == 0) {
                --count;
                continue;
            }
            const float *next = stream.row + column * stream.column_step + line;
            const int64_t end = smaller(stream.width, line + 16 * left);
            for (; line < end; line += 16, next += 16, --left) __builtin_prefetch(next, 0, 2);
            if (line < stream.width) continue;
            line = 0;
            if (++column < stream.columns) continue;
            column = 0, stream.row += stream.row_step, --stream.rows;
        }
    }
};

SC_CLOSE
