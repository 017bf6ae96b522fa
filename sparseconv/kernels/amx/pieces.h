// Images, or equal pieces of them, side by side in tiles: 16 pieces, for one position of all of them, are the rows of a
// tile. A chunk is some rows of 16 pieces.
//
// Nothing is wasted on short rows, where positions of long rows (amx/long_rows.h) fill tiles up: 7 x 7 images take 49
// tiles of 16 images, and 64 tiles of positions. And a tap that meets padding meets it in all rows of the tile, so it
// is left out: of a 3x3 kernel on 7 x 7 maps a share of 0.18. Where images are cut, only columns know that. The price:
// chunks have fewer rows, so more rows are split for two of them.
#pragma once
#include "amx/split.h"
#include "common/tile.h"

SC_OPEN

struct image_pieces {
    const sc_map &map;
    int64_t pieces, rows;    // of an image, and `out` rows of a piece
    int64_t count;           // of all images
    int64_t in_step;         // `in` rows from one piece of an image to the next
    int64_t *order = nullptr;  // [slot]: the `in` row of an image's first piece, which can lie outside
    int64_t *bases = nullptr;  // [row of the chunk][outer tap]: slot, or -1 where no piece meets anything
    int64_t slots = 0;
    int64_t first_piece = 0;  // of the chunk

    SC_INLINE_MEMBER explicit image_pieces(const sc_rows_task &task)
        : map(task.map), pieces(task.pieces), rows(pieces ? map.out_rows / pieces : 0), count(task.batch * pieces),
          in_step(0) {
        // With several pieces there is one outer dimension at most, and rows are whole periods of it.
        if (pieces > 1 && map.outer_strand_count) {
            in_step = rows * map.outer_strands->in_step / map.outer_strands->out_step;
        }
    }

    struct sizes {  // int64_t numbers that the arrays take
        int64_t order, bases;
        SC_INLINE_MEMBER int64_t total() const { return order + bases; }
    };
    sizes measure(int64_t chunk_rows) const {
        int64_t slots = 0;
        for (int64_t first = 0; first < rows; first += chunk_rows) {
            const int64_t end = smaller(rows, first + chunk_rows);
            int64_t low = INT64_MAX, high = INT64_MIN;
            for (int64_t row = first; row < end; ++row) {
                for (int64_t tap = 0; tap < map.outer_taps; ++tap) {
                    int64_t in;
                    if (!meets(row, tap, in)) continue;
                    low = smaller(low, in), high = larger(high, in);
                }
            }
            if (high >= low) slots = larger(slots, smaller(high - low + 1, (end - first) * map.outer_taps));
        }
        return {slots, smaller(rows, chunk_rows) * map.outer_taps};
    }
    SC_INLINE_MEMBER void use(const sizes &size, int64_t *memory) { order = memory, bases = memory + size.order; }

    // The slots of the rows [first, first + chunk_rows) of 16 pieces. Rows that several taps meet have one.
    void find(int64_t piece, int64_t first, int64_t chunk_rows) {
        slots = 0, first_piece = piece;
        for (int64_t i = 0; i < chunk_rows * map.outer_taps; ++i) {
            int64_t in, slot = -1;
            if (meets(first + i / map.outer_taps, i % map.outer_taps, in)) {
                for (slot = slots - 1; slot >= 0 && order[slot] != in;) --slot;
                if (slot < 0) order[slot = slots++] = in;
            }
            bases[i] = slot;
        }
    }

    // The row of `in`, over all images, that the i-th piece of the chunk has in a slot; or -1.
    SC_INLINE_MEMBER int64_t source(int64_t slot, int64_t i) const {
        const int64_t piece = first_piece + i;
        if (piece >= count) return -1;
        const int64_t row = order[slot] + piece % pieces * in_step;
        return row < 0 || row >= map.in_rows ? -1 : piece / pieces * map.in_rows + row;
    }
    SC_INLINE_MEMBER int64_t used() const { return smaller(PAIRS, count - first_piece); }

private:
    // The `in` row that a row of an image's first piece meets, or would meet: what any piece meets says it.
    SC_INLINE_MEMBER bool meets(int64_t row, int64_t tap, int64_t &in) const {
        for (int64_t piece = 0; piece < pieces; ++piece) {
            in = map.row_table[(piece * rows + row) * map.outer_taps + tap] - piece * in_step;
            if (in + piece * in_step >= 0) return true;
        }
        return false;
    }
};

SC_CLOSE
