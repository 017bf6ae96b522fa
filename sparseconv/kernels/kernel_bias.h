// The bias gradient: grad_output summed over images, rows and columns. Two levels (a row, then all rows), so that the
// error grows with the row length and the number of rows, not with their product.
#pragma once
#include "tile.h"

SC_OPEN

enum { BIAS_CHANNELS = 64 };

static void bias_gradient(const sc_bias_task *whole, int64_t begin, int64_t end, void *) {
    const sc_bias_task &task = *whole;
    for (int64_t item = begin; item < end; ++item) {
        const int64_t first = item * BIAS_CHANNELS, channels = smaller(BIAS_CHANNELS, task.channels - first);
        float total[BIAS_CHANNELS] = {}, tile[16 * BIAS_CHANNELS + 16];
        for (int64_t row = 0; row < task.batch * task.rows; ++row) {
            if (row % 16 == 0 && task.interrupt.poll(task.interrupt.context)) return;
            const float *from = row_of(task.in, row / task.rows, row % task.rows);
            float sum[BIAS_CHANNELS] = {};
            for (int64_t column = 0; column < task.columns; column += 16) {
                const int64_t count = smaller(16, task.columns - column);
                load_pixels(tile, BIAS_CHANNELS, task.in, from, first, first + channels, column, 1, count);
                for (int64_t i = 0; i < count; ++i) {
                    for (int64_t c = 0; c < channels; c += 16) {
                        store(sum + c, add(load(sum + c), load(tile + i * BIAS_CHANNELS + c)));
                    }
                }
            }
            for (int64_t c = 0; c < channels; c += 16) store(total + c, add(load(total + c), load(sum + c)));
        }
        for (int64_t c = 0; c < channels; ++c) task.out[first + c] = total[c];
    }
}

SC_CLOSE
