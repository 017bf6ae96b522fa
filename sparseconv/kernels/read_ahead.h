// Asking for memory that the next chunk will read, a few cache lines at a time, while this chunk is computed.
//
// At 90% zeros a gradient kernel computes for about as long as its operands take to arrive from memory. Requests in one
// burst would only wait for one another, so each channel of a sweep makes some.
#pragma once
#include "tile.h"

SC_OPEN

// Rows that follow one another in memory, over all images too, with pixels of contiguous channels.
SC_INLINE bool adjacent_rows(const sc_view &view, int64_t rows, int64_t columns) {
    return channels_contiguous(view) && (rows == 1 || view.rows[1] - view.rows[0] == columns * view.column_stride) &&
           view.image_stride == rows * columns * view.column_stride;
}

struct read_ahead {
    struct pixels {
        const float *next;
        int64_t step, width, left;  // floats between pixels, floats of each that are read, pixels
    } streams[2];
    int64_t count, line, lines;  // streams; floats of the current pixel that are asked for; lines at a time

    SC_INLINE_MEMBER void add(const sc_view &view, const float *row, int64_t channel, int64_t channels, int64_t left) {
        if (channels_contiguous(view)) streams[count++] = {row + channel, view.column_stride, channels, left};
    }
    // All of it in `calls` calls of some().
    SC_INLINE_MEMBER void spread(int64_t calls) {
        int64_t all = 0;
        for (int64_t i = 0; i < count; ++i) all += streams[i].left * ceil_div(streams[i].width, 16);
        lines = ceil_div(all, larger(1, calls));
    }
    __attribute__((noinline)) void some() {
        for (int64_t done = 0; done < lines && count > 0;) {
            pixels &stream = streams[count - 1];
            if (stream.left == 0) {
                --count;
                continue;
            }
            __builtin_prefetch(stream.next + line, 0, 2);
            ++done, line += 16;
            if (line >= stream.width) line = 0, stream.next += stream.step, --stream.left;
        }
    }
};

SC_CLOSE
