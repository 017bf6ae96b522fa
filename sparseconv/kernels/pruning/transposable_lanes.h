// Sixteen m x m blocks of a matrix side by side, one per lane: element (row, column) of all of them is a vector. What a
// mask needs (sort, compare, exchange) is then loops over lanes without branches, which compilers turn into vector code
// for every instruction set.
#pragma once
#include "common/base.h"
#include "common/problem.h"

SC_OPEN

enum { BLOCK_LANES = 16 };

// The masks of the blocks: bit c of kept[r][lane] is the element in row r and column c.
struct block_masks {
    uint32_t kept[SC_MAX_BLOCK][BLOCK_LANES];
};

// Where a block lies in the matrix, and how many of its rows and columns are inside.
struct block_place {
    int64_t first, rows, columns;
};

SC_INLINE int64_t block_count(const sc_transposable_task &task) {
    return (task.rows + task.m - 1) / task.m * ((task.columns + task.m - 1) / task.m);
}

SC_INLINE block_place place_of_block(const sc_transposable_task &task, int64_t block) {
    if (block >= block_count(task)) return {0, 0, 0};
    const int64_t across = (task.columns + task.m - 1) / task.m;
    const int64_t row = block / across * task.m, column = block % across * task.m;
    const int64_t rows = task.rows - row, columns = task.columns - column;
    return {row * task.columns + column, rows < task.m ? rows : task.m, columns < task.m ? columns : task.m};
}

// Scaled magnitudes of blocks 16 * item .. 16 * item + 15 as [row][column][lane]; zeros where there is no element.
template <class Lane, class T>
static void load_lanes(Lane *lanes, const sc_transposable_task &task, const T *weight, int64_t item) {
    const int64_t m = task.m;
    for (int lane = 0; lane < BLOCK_LANES; ++lane) {
        const block_place place = place_of_block(task, item * BLOCK_LANES + lane);
        for (int64_t row = 0; row < m; ++row) {
            const T *from = weight + place.first + row * task.columns;
            const int64_t inside = row < place.rows ? place.columns : 0;
            Lane *to = lanes + row * m * BLOCK_LANES + lane;
            for (int64_t column = 0; column < inside; ++column) {
                to[column * BLOCK_LANES] = (Lane)(__builtin_fabs((double)from[column]) * task.scale);
            }
            for (int64_t column = inside; column < m; ++column) to[column * BLOCK_LANES] = 0;
        }
    }
}

template <class Lane>
static void load_lanes(Lane *lanes, const sc_transposable_task &task, int64_t item) {
    if (task.weight.wide) load_lanes(lanes, task, task.weight.wide, item);
    else load_lanes(lanes, task, task.weight.single, item);
}

static void store_masks(const block_masks &masks, const sc_transposable_task &task, int64_t item) {
    for (int lane = 0; lane < BLOCK_LANES; ++lane) {
        const block_place place = place_of_block(task, item * BLOCK_LANES + lane);
        for (int64_t row = 0; row < place.rows; ++row) {
            uint8_t *to = task.mask + place.first + row * task.columns;
            const uint32_t kept = masks.kept[row][lane];
            for (int64_t column = 0; column < place.columns; ++column) to[column] = kept >> column & 1;
        }
    }
}

SC_CLOSE
