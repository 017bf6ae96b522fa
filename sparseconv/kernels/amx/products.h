// Products of tiles whose values are split (amx/split.h): the innermost step of both tile drivers.
//
// Of the nine products of three parts by three, six are above 2^-24 of the whole: high x high, high x middle, middle x
// high, middle x middle, high x low, low x high. Two parts make three products (about 16 bits; with fp16 those of f32),
// one part one (8 bits).
//
// A sum takes all its small products first, then high x high in a second sweep: every addition rounds to 2^-24 of what
// the sum has become, and five of six additions happen while it is still 2^-8 of that. (One sweep over all six rounds
// six times as often; maximum errors were twice as large.) 16 tile loads feed 24 tile products where two row tiles meet
// two lane tiles; one sweep would have 14. Of fp16 the small products are 2^-11 of the large one, and two of three: one
// sweep, 8 tile loads for 12 tile products, whose errors were those of f32 in a prototype (0.4 of them and less).
//
// Registers: sums 0..3 (row tile p, lane tile q: 2 p + q), row tiles 4 and 5, lane tiles 6 and 7.
#pragma once
#include "amx/split.h"

SC_OPEN

enum { TILE_PAIRS = PAIRS * PAIRS, ROW_BYTES = 64 };

// Two neighbouring tiles of an operand: where the first begins, and what lies between tiles, parts and rows.
struct tile_operand {
    const uint32_t *pairs;
    int64_t tile, part;  // in pairs
    int64_t row_bytes;
};

// Tiles [BEGIN, END) of the two, into the registers FIRST + tile.
template <int FIRST, int BEGIN, int END>
SC_INLINE void load_part(const tile_operand &from, int part) {
    const uint32_t *pairs = from.pairs + part * from.part;
    if constexpr (BEGIN == 0) tile_load<FIRST>(pairs, from.row_bytes);
    if constexpr (END > 1) tile_load<FIRST + 1>(pairs + from.tile, from.row_bytes);
}

template <class Format, int C, int A, int B>
SC_INLINE void multiply_tiles() {
    if constexpr (Format::SCALED) tile_multiply_fp16<C, A, B>();
    else tile_multiply<C, A, B>();
}

// The row tiles [BEGIN, END) of two, by Q lane tiles.
template <class Format, int BEGIN, int END, int Q>
struct tile_product {
    SC_INLINE_MEMBER static void rows(const tile_operand &from, int part) { load_part<4, BEGIN, END>(from, part); }
    SC_INLINE_MEMBER static void lanes(const tile_operand &from, int part) { load_part<6, 0, Q>(from, part); }
    SC_INLINE_MEMBER static void multiply() {
        if constexpr (BEGIN == 0) multiply_tiles<Format, 0, 4, 6>();
        if constexpr (BEGIN == 0 && Q > 1) multiply_tiles<Format, 1, 4, 7>();
        if constexpr (END > 1) multiply_tiles<Format, 2, 5, 6>();
        if constexpr (END > 1 && Q > 1) multiply_tiles<Format, 3, 5, 7>();
    }
};

// sums += rows x lanes, over 32 values of what is summed, in the only sweep or the last one.
template <class Format, int BEGIN, int END, int Q>
SC_INLINE void multiply_last(const tile_operand &rows, const tile_operand &lanes) {
    typedef tile_product<Format, BEGIN, END, Q> tiles;
    if constexpr (Format::SWEEPS == 1 && Format::PARTS == 2) {
        tiles::rows(rows, 1), tiles::lanes(lanes, 0), tiles::multiply();
        tiles::rows(rows, 0), tiles::multiply();
        tiles::lanes(lanes, 1), tiles::multiply();
    } else {
        tiles::rows(rows, 0), tiles::lanes(lanes, 0), tiles::multiply();
    }
}

// The same of two sweeps in the first one: all products but high x high. Consecutive ones share an operand.
template <class Format, int BEGIN, int END, int Q>
SC_INLINE void multiply_rest(const tile_operand &rows, const tile_operand &lanes) {
    typedef tile_product<Format, BEGIN, END, Q> tiles;
    if constexpr (Format::PARTS == 3) {
        tiles::rows(rows, 2), tiles::lanes(lanes, 0), tiles::multiply();
        tiles::rows(rows, 1), tiles::multiply();
        tiles::lanes(lanes, 1), tiles::multiply();
        tiles::rows(rows, 0), tiles::multiply();
        tiles::lanes(lanes, 2), tiles::multiply();
    } else {
        tiles::rows(rows, 1), tiles::lanes(lanes, 0), tiles::multiply();
        tiles::rows(rows, 0), tiles::lanes(lanes, 1), tiles::multiply();
    }
}

template <int P, int Q>
SC_INLINE void zero_sums() {
    tile_zero<0>();
    if constexpr (Q > 1) tile_zero<1>();
    if constexpr (P > 1) tile_zero<2>();
    if constexpr (P > 1 && Q > 1) tile_zero<3>();
}

// Sums in memory: rows `row` floats apart, row tiles `tile` floats; lane tiles are neighbours.
template <int P, int Q>
SC_INLINE void load_sums(const float *from, int64_t row, int64_t tile) {
    const int64_t bytes = row * (int64_t)sizeof(float);
    tile_load<0>(from, bytes);
    if constexpr (Q > 1) tile_load<1>(from + PAIRS, bytes);
    if constexpr (P > 1) tile_load<2>(from + tile, bytes);
    if constexpr (P > 1 && Q > 1) tile_load<3>(from + tile + PAIRS, bytes);
}

template <int P, int Q>
SC_INLINE void store_sums(float *to, int64_t row, int64_t tile) {
    const int64_t bytes = row * (int64_t)sizeof(float);
    tile_store<0>(to, bytes);
    if constexpr (Q > 1) tile_store<1>(to + PAIRS, bytes);
    if constexpr (P > 1) tile_store<2>(to + tile, bytes);
    if constexpr (P > 1 && Q > 1) tile_store<3>(to + tile + PAIRS, bytes);
}

SC_CLOSE
