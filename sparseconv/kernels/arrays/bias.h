// The bias gradient: grad_output summed over images, rows and columns, pairwise.
//
// BIAS_CHAIN columns are added up one after the other, over the ends of rows. Two such sums make one of the next level,
// two of these one of the level above, and so on, as a binary counter carries. The error of a sum of n columns is at
// most that of BIAS_CHAIN + log2(n) additions, for long rows, many rows and many images alike. A carry costs an
// addition per BIAS_CHAIN columns. In one chain per row, 4 million columns of 0.1 were off by 4%.
#pragma once
#include "common/tile.h"

SC_OPEN

enum { BIAS_CHANNELS = 64, BIAS_CHAIN = 32, BIAS_LEVELS = 60 };

struct bias_sums {
    float chain[BIAS_CHANNELS] = {};  // of columns that no level has yet
    int64_t length = 0, carried = 0;  // columns in it, chains in all levels
    float levels[BIAS_LEVELS][BIAS_CHANNELS];  // 2^i chains each, where bit i of `carried` is set

    SC_INLINE_MEMBER void add_column(const float *column, int64_t channels) {
        for (int64_t c = 0; c < channels; c += 16) store(chain + c, add(load(chain + c), load(column + c)));
    }
    void carry() {
        int level = 0;
        for (; carried >> level & 1; ++level) add_to_chain(levels[level]);
        for (int c = 0; c < BIAS_CHANNELS; ++c) levels[level][c] = chain[c], chain[c] = 0;
        ++carried, length = 0;
    }
    // The sums of all columns, in `chain`.
    void finish() {
        for (int level = 0; carried >> level; ++level) {
            if (carried >> level & 1) add_to_chain(levels[level]);
        }
    }

private:
    void add_to_chain(const float *sums) {
        for (int c = 0; c < BIAS_CHANNELS; c += 16) store(chain + c, add(load(chain + c), load(sums + c)));
    }
};

static void bias_gradient(const sc_bias_task *whole, int64_t begin, int64_t end, void *) {
    const sc_bias_task &task = *whole;
    for (int64_t item = begin; item < end; ++item) {
        const int64_t first = item * BIAS_CHANNELS, channels = smaller(BIAS_CHANNELS, task.channels - first);
        bias_sums sums;
        float tile[16 * BIAS_CHANNELS + 16];
        for (int64_t row = 0; row < task.batch * task.rows; ++row) {
            if (row % 16 == 0 && task.interrupt.poll(task.interrupt.context)) return;
            const float *from = row_of(task.in, row / task.rows, row % task.rows);
            for (int64_t column = 0; column < task.columns; column += 16) {
                if (column % 65536 == 65520 && task.interrupt.poll(task.interrupt.context)) return;
                const int64_t count = smaller(16, task.columns - column);
                load_pixels(tile, BIAS_CHANNELS, task.in, from, first, first + channels, column, 1, count);
                for (int64_t i = 0; i < count; ++i) sums.add_column(tile + i * BIAS_CHANNELS, channels);
                sums.length += count;
                if (sums.length > BIAS_CHAIN - 16) sums.carry();
            }
        }
        sums.finish();
        for (int64_t c = 0; c < channels; ++c) task.out[first + c] = sums.chain[c];
    }
}

static int64_t bias_gradient_items(const sc_bias_task *task) { return ceil_div(task->channels, BIAS_CHANNELS); }

SC_CLOSE
