// Between tensors of any layout and columns of 16 lanes, each of which follows a line of its own.
//
//   gather_lines   [channel][place][lane] from 16 input rows
//   scatter_lines  16 output rows from [filter][m][lane]
// Both move 16 x 16 blocks through a register transpose, along channels where those of a pixel lie side by side, else
// along columns. A lane without a row reads zeros and writes nothing.
#pragma once
#include "common/epilogue.h"

SC_OPEN

// One lane's row in memory: the address of its column 0 and channel 0, or null, and the first column of its segment.
struct lane_line {
    float *row;
    int64_t column;
};

// Which columns every lane meets.
struct line_columns {
    int64_t total;           // columns of a row
    int64_t width;           // those of a segment
    const int64_t *columns;  // [width]: from its first one, ascending
    const int64_t *places;   // [width]
};

// The first `count` elements at `from`, `step` apart, of which those before `skip` do not exist: zeros.
static f32x16 load_line(const float *from, int64_t step, int skip, int count) {
    if (step == 1 && skip == 0) return load_partial(from, count);
    float line[16] = {};
    for (int i = skip; i < count; ++i) line[i] = from[i * step];
    return load(line);
}

static void gather_pixels(float *to, const sc_view &view, const lane_line *lines, const line_columns &columns,
                          int64_t first, int64_t end, const float *zeros) {
    f32x16 block[16];
    for (int64_t i = 0; i < columns.width; ++i) {
        const float *pixels[16];
        for (int lane = 0; lane < 16; ++lane) {
            const int64_t column = lines[lane].column + columns.columns[i];
            const bool there = lines[lane].row && column >= 0 && column < columns.total;
            pixels[lane] = there ? lines[lane].row + column * view.column_stride : nullptr;
        }
        float *place = to + columns.places[i] * 16;
        for (int64_t channel = first; channel < end;) {
            const int run = channel_run(view, channel, end);
            const int64_t offset = channel_offset(view, channel);
            for (int lane = 0; lane < 16; ++lane) {  // 16 streams are more than CPUs follow by themselves
                if (pixels[lane]) __builtin_prefetch(pixels[lane] + offset + 2 * view.column_stride);
            }
            if (run == 16) {
                SC_UNROLL for (int lane = 0; lane < 16; ++lane) {
                    block[lane] = load(pixels[lane] ? pixels[lane] + offset : zeros);
                }
            } else {
                SC_UNROLL for (int lane = 0; lane < 16; ++lane) {
                    block[lane] = load_partial(pixels[lane] ? pixels[lane] + offset : zeros, run);
                }
            }
            transpose(block);
            for (int j = 0; j < run; ++j) store(place + (channel - first + j) * columns.width * 16, block[j]);
            channel += run;
        }
    }
}

static void gather_channels(float *to, const sc_view &view, const lane_line *lines, const line_columns &columns,
                            int64_t first, int64_t end) {
    f32x16 block[16];
    for (int64_t begin = 0, end_of_run; begin < columns.width; begin = end_of_run) {
        const int64_t from_column = columns.columns[begin];  // and the others that lie within 16 columns
        for (end_of_run = begin + 1; end_of_run < columns.width; ++end_of_run) {
            if (columns.columns[end_of_run] - from_column >= 16) break;
        }
        const int count = (int)(columns.columns[end_of_run - 1] - from_column + 1);
        int least = 16, skip[16], limit[16];  // the columns of each lane that there are
        for (int lane = 0; lane < 16; ++lane) {
            const int64_t column = lines[lane].column + from_column;
            skip[lane] = lines[lane].row ? (int)smaller(16, larger(0, -column)) : 16;
            limit[lane] = lines[lane].row ? (int)smaller(count, larger(0, columns.total - column)) : 0;
            least = (int)smaller(least, skip[lane]);
        }
        for (int64_t channel = first; channel < end; ++channel, to += columns.width * 16) {
            for (int lane = 0; lane < 16; ++lane) {
                const int there = limit[lane] - least;
                if (there <= 0) {
                    block[lane] = zero();
                    continue;
                }
                const float *from = lines[lane].row + channel_offset(view, channel);
                from += (lines[lane].column + from_column + least) * view.column_stride;
                block[lane] = load_line(from, view.column_stride, skip[lane] - least, there);
            }
            transpose(block);
            for (int64_t k = begin; k < end_of_run; ++k) {
                const int64_t i = columns.columns[k] - from_column;
                store(to + columns.places[k] * 16, i < least ? zero() : block[i - least]);
            }
        }
        to -= (end - first) * columns.width * 16;
    }
}

// Absolute channels [first, end) of the columns of 16 lines; `zeros` are 16 of them.
static void gather_lines(float *to, const sc_view &view, const lane_line *lines, const line_columns &columns,
                         int64_t first, int64_t end, const float *zeros) {
    if (view.channel_stride == 1) gather_pixels(to, view, lines, columns, first, end, zeros);
    else gather_channels(to, view, lines, columns, first, end);
}

// What scatter_lines writes: output columns offset + m * step, 0 <= m < tile, behind the first one of each segment.
struct out_columns {
    int64_t total, offset, step, tile;
    bool stream;
};

template <bool ADDS>
static void scatter_pixels(const float *from, const sc_view &view, const lane_line *lines,
                           const sc_epilogue &epilogue, const float *const *residuals, const out_columns &columns,
                           int64_t first, int64_t end) {
    const sc_view &residual = epilogue.residual;
    f32x16 block[16];
    for (int64_t m = 0; m < columns.tile; ++m) {
        float *pixels[16];
        const float *others[16];
        for (int lane = 0; lane < 16; ++lane) {
            const int64_t column = lines[lane].column + columns.offset + m * columns.step;
            const bool there = lines[lane].row && column < columns.total;
            pixels[lane] = there ? lines[lane].row + column * view.column_stride : nullptr;
            if (ADDS) others[lane] = there ? residuals[lane] + column * residual.column_stride : nullptr;
        }
        for (int64_t filter = first; filter < end;) {
            int run = channel_run(view, filter, end);
            if (ADDS) run = (int)smaller(run, channel_run(residual, filter, end));
            const float *sums = from + ((filter - first) * columns.tile + m) * 16;
            const int64_t offset = channel_offset(view, filter);
            for (int i = 0; i < 16; ++i) block[i] = i < run ? load(sums + i * columns.tile * 16) : zero();
            if (epilogue.relu && !ADDS) {
                SC_UNROLL for (int i = 0; i < 16; ++i) block[i] = finished(block[i], true);
            }
            transpose(block);
            if (ADDS) {
                const int64_t place = channel_offset(residual, filter);
                for (int lane = 0; lane < 16; ++lane) {
                    if (!others[lane]) continue;
                    block[lane] = add(block[lane], load_line(others[lane] + place, residual.channel_stride, 0, run));
                }
            }
            if (epilogue.relu && ADDS) {
                SC_UNROLL for (int lane = 0; lane < 16; ++lane) block[lane] = finished(block[lane], true);
            }
            for (int lane = 0; lane < 16; ++lane) {
                if (pixels[lane]) store_result(pixels[lane] + offset, block[lane], run, columns.stream);
            }
            filter += run;
        }
    }
}

static void scatter_channels(const float *from, const sc_view &view, const lane_line *lines,
                             const sc_epilogue &epilogue, const float *const *residuals, const out_columns &columns,
                             int64_t first, int64_t end) {
    const sc_view &residual = epilogue.residual;
    const int64_t step = columns.step * view.column_stride;
    f32x16 block[16];
    for (int64_t filter = first; filter < end; ++filter, from += columns.tile * 16) {
        for (int m = 0; m < 16; ++m) {
            block[m] = m < columns.tile ? load(from + m * 16) : zero();
            if (epilogue.relu && !residual.data) block[m] = finished(block[m], true);
        }
        transpose(block);
        for (int lane = 0; lane < 16; ++lane) {
            const int64_t column = lines[lane].column + columns.offset;
            const int64_t count = smaller(columns.tile, ceil_div(columns.total - column, columns.step));
            if (!lines[lane].row || count <= 0) continue;
            float *to = lines[lane].row + channel_offset(view, filter) + column * view.column_stride;
            if (residual.data) {
                const float *other = residuals[lane] + channel_offset(residual, filter);
                other += column * residual.column_stride;
                const f32x16 values = load_line(other, columns.step * residual.column_stride, 0, (int)count);
                block[lane] = finished(add(block[lane], values), epilogue.relu);
            }
            if (step == 1) {
                store_partial(to, block[lane], (int)count);
            } else {
                float line[16];
                store(line, block[lane]);
                for (int64_t m = 0; m < count; ++m) to[m * step] = line[m];
            }
        }
    }
}

// Absolute channels [first, end) of `view` from [filter][m][lane]. `residuals` are the rows of the residual that the
// lanes are at, null where there is none.
static void scatter_lines(const float *from, const sc_view &view, const lane_line *lines, const sc_epilogue &epilogue,
                          const float *const *residuals, const out_columns &columns, int64_t first, int64_t end) {
    if (view.channel_stride == 1 && epilogue.residual.data) {
        scatter_pixels<true>(from, view, lines, epilogue, residuals, columns, first, end);
    } else if (view.channel_stride == 1) {
        scatter_pixels<false>(from, view, lines, epilogue, residuals, columns, first, end);
    } else {
        scatter_channels(from, view, lines, epilogue, residuals, columns, first, end);
    }
}

SC_CLOSE
