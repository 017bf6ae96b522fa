// What amx/rows.h does for each strand of a row: 2 x 2 tiles of sums stay in registers over the channels and taps of a
// sweep.
#pragma once
#include "amx/planes.h"
#include "amx/products.h"

SC_OPEN

// One strand of a row, over the channels of one sweep.
struct tile_sweep {
    const uint32_t *in, *weights;  // planes of the first channels; tiles of the first vector
    const tile_step *steps;
    int64_t step_count, channel_tiles;
    int64_t in_channels, in_part, in_tile;       // pairs from 32 channels, parts and row tiles to the next
    int64_t in_row_bytes;                        // bytes from a row of a tile to the next
    int64_t weight_channels, weight_vector;      // pairs, of the weights
    bool rest, last;                             // the products that the sweep adds: small ones, high x high
    bool opens, closes;
};

// Where sums lie: floats from one row tile, and one row of it, to the next. `kept`: all of them have a place.
struct tile_sums {
    float *data;
    int64_t tile, row;
    bool kept;
};

template <class Format, int BEGIN, int END, int Q, bool LAST>
SC_INLINE void multiply_step(const tile_operand &rows, const tile_operand &lanes) {
    if constexpr (LAST) multiply_last<Format, BEGIN, END, Q>(rows, lanes);
    else multiply_rest<Format, BEGIN, END, Q>(rows, lanes);
}

// The steps that both row tiles meet, or one of them.
template <class Format, int Q, bool LAST>
SC_INLINE void multiply_steps(const tile_sweep &sweep, int64_t tile, bool two, int64_t vector) {
    const uint32_t *in = sweep.in + tile * sweep.in_tile, *weights = sweep.weights + vector * sweep.weight_vector;
    for (int64_t c = 0; c < sweep.channel_tiles; ++c, in += sweep.in_channels, weights += sweep.weight_channels) {
        for (int64_t i = 0; i < sweep.step_count; ++i) {
            const tile_step &step = sweep.steps[i];
            const tile_operand rows = {in + step.in, sweep.in_tile, sweep.in_part, sweep.in_row_bytes};
            const tile_operand lanes = {weights + step.weights, sweep.weight_vector, TILE_PAIRS, ROW_BYTES};
            const bool first = step.begin <= tile && tile < step.end;
            const bool second = two && step.begin <= tile + 1 && tile + 1 < step.end;
            if (first && second) multiply_step<Format, 0, 2, Q, LAST>(rows, lanes);
            else if (first) multiply_step<Format, 0, 1, Q, LAST>(rows, lanes);
            else if (second) multiply_step<Format, 1, 2, Q, LAST>(rows, lanes);
        }
    }
}

template <class Format, int Q>
SC_ALONE static void sum_block(const tile_sweep &sweep, int64_t tile, bool two, int64_t vector, float *sums,
                               int64_t sums_row, int64_t sums_tile) {
    if (sweep.opens) zero_sums<2, Q>();
    else if (two) load_sums<2, Q>(sums, sums_row, sums_tile);
    else load_sums<1, Q>(sums, sums_row, sums_tile);
    if constexpr (Format::SWEEPS > 1) {
        if (sweep.rest) multiply_steps<Format, Q, false>(sweep, tile, two, vector);
    }
    if (sweep.last) multiply_steps<Format, Q, true>(sweep, tile, two, vector);
    if (two) store_sums<2, Q>(sums, sums_row, sums_tile);
    else store_sums<1, Q>(sums, sums_row, sums_tile);
}

// `count` row tiles, two at a time, of all lane vectors; then finish(first of the two, sums).
template <class Format, class Finish>
SC_INLINE void sweep_tiles(const tile_sweep &sweep, int64_t count, int64_t vectors, const tile_sums &sums,
                           Finish finish) {
    for (int64_t tile = 0; tile < count; tile += 2) {
        const bool two = tile + 1 < count;
        float *data = sums.data + (sums.kept ? tile * sums.tile : 0);
        for (int64_t vector = 0; vector < vectors; vector += 2) {
            if (vector + 1 < vectors) {
                sum_block<Format, 2>(sweep, tile, two, vector, data + vector * 16, sums.row, sums.tile);
            } else {
                sum_block<Format, 1>(sweep, tile, two, vector, data + vector * 16, sums.row, sums.tile);
            }
        }
        if (sweep.closes) finish(tile, data);
    }
}

SC_CLOSE
