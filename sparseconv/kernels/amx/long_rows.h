// Rows of a chunk that tile kernels treat as one long row.
//
// A tile takes 16 positions at a fixed distance. Rows are short (7 columns), so `out` rows are strung together to a
// span: for every outer tap, the rows of `in` that they meet lie one after the other in scratch memory, rows outside
// the image as rows of zeros. A span then knows one number per outer tap: the place (slot) of what its first row
// meets. Slots are shared between taps and spans wherever the order allows it; 3 x 3 with stride 1 stores every row
// once. With stride 2, backward_data's even and odd rows meet different taps: then a span takes every second row.
#pragma once
#include "common/tile.h"

SC_OPEN

struct long_row {
    int64_t first, step, rows;  // rows first, first + step, ... of batch * out_rows
};

struct long_rows {
    const sc_map &map;
    int64_t *slot_of;  // [image][in row]: its latest slot, or -1
    int64_t *order;    // [slot]: which row of `in` (over all images) it holds, or -1 for zeros
    int64_t *bases;    // [span][outer tap]: slot of its first row, or -1 where the tap meets none of its rows
    long_row *spans;
    int64_t slots = 0, count = 0;

    // int64_t numbers that the arrays take, and the most slots and spans that there can be
    struct sizes {
        int64_t slot_of, order, bases, spans, slots, most_spans;
        SC_INLINE_MEMBER int64_t total() const { return slot_of + order + bases + spans; }
    };
    static sizes measure(const sc_map &map, int64_t batch, int64_t chunk_rows) {
        int64_t slots = chunk_rows * map.outer_taps, most_spans = chunk_rows;
        if (stacked(map)) {
            most_spans = smaller(chunk_rows, smaller(batch, chunk_rows / map.out_rows + 2));
            slots = smaller(slots, chunk_rows + most_spans * (map.outer_taps - 1) * map.outer_strands->in_step);
        }
        return {batch * map.in_rows, slots, most_spans * map.outer_taps, 3 * most_spans, slots, most_spans};
    }

    long_rows(const sc_map &geometry, const sizes &size, int64_t *memory) : map(geometry) {
        slot_of = memory, order = slot_of + size.slot_of, bases = order + size.order;
        spans = (long_row *)(bases + size.bases);
        for (int64_t i = 0; i < size.slot_of; ++i) slot_of[i] = -1;
    }

    // Finds the spans of the rows [first, first + rows) of batch * out_rows.
    void find(int64_t first, int64_t rows) {
        slots = 0, count = 0;
        const int64_t end = first + rows, step = period();
        for (int64_t row = first, image_end; row < end; row = image_end) {
            image_end = smaller(end, (row / map.out_rows + 1) * map.out_rows);
            for (int64_t phase = row; phase < smaller(row + step, image_end); ++phase) {
                for (int64_t next = phase; next < image_end; next += spans[count++].rows * step) {
                    add(next, step, image_end);
                }
            }
        }
        for (int64_t slot = 0; slot < slots; ++slot) {
            if (order[slot] >= 0) slot_of[order[slot]] = -1;
        }
    }

    // The row of `in`, over all images, that a row meets, or -1.
    SC_INLINE_MEMBER int64_t source(int64_t row, int64_t tap) const {
        const int64_t in = map.row_table[row % map.out_rows * map.outer_taps + tap];
        return in < 0 ? -1 : row / map.out_rows * map.in_rows + in;
    }

private:
    // With one outer dimension and stride 1, outer taps meet rows a fixed distance (`in_step`) apart.
    static bool stacked(const sc_map &map) {
        return map.outer_strand_count > 0 && map.outer_strands->in_step == map.outer_strands->out_step;
    }

    // The distance of rows that meet the same taps.
    int64_t period() const {
        int64_t least = 0;
        for (int64_t tap = 0; tap < map.outer_taps; ++tap) {
            for (int64_t row = 0, last = -1; row < map.out_rows; ++row) {
                if (source(row, tap) < 0) continue;
                if (last >= 0 && (least == 0 || row - last < least)) least = row - last;
                last = row;
            }
        }
        return larger(1, least);
    }

    // A span ends before a row that some tap meets out of turn: not a fixed distance behind the row before, or after a
    // row outside the image that came after one inside.
    int64_t length(int64_t first, int64_t step, int64_t end) const {
        int64_t rows = 1, distance = 0;
        for (int64_t row = first + step; row < end; row += step, ++rows) {
            for (int64_t tap = 0; tap < map.outer_taps; ++tap) {
                const int64_t before = source(row - step, tap), here = source(row, tap);
                if (here < 0) continue;
                if (before >= 0) {
                    if (distance == 0) distance = here - before;
                    if (here - before != distance) return rows;
                } else {
                    for (int64_t i = first; i < row; i += step) {
                        if (source(i, tap) >= 0) return rows;
                    }
                }
            }
        }
        return rows;
    }

    void add(int64_t first, int64_t step, int64_t end) {
        const long_row span = spans[count] = {first, step, length(first, step, end)};
        const int64_t taps = map.outer_taps;
        const bool downwards = stacked(map) ? map.outer_strands->tap_step < 0 : descending(span);
        for (int64_t i = 0; i < taps; ++i) {  // in the order of the rows that they meet: later taps add to the end
            const int64_t tap = downwards ? taps - 1 - i : i;
            bases[count * taps + tap] = place(span, tap);
        }
    }

    bool descending(const long_row &span) const {
        for (int64_t i = 0; i < span.rows; ++i) {
            int64_t last = -1;
            for (int64_t tap = 0; tap < map.outer_taps; ++tap) {
                const int64_t in = source(span.first + i * span.step, tap);
                if (in >= 0 && last >= 0) return in < last;
                if (in >= 0) last = in;
            }
        }
        return false;
    }

    // Slots for what a tap meets: those that hold it already, continued at the end, or new ones.
    int64_t place(const long_row &span, int64_t tap) {
        int64_t inside = 0;
        while (inside < span.rows && source(span.first + inside * span.step, tap) < 0) ++inside;
        if (inside == span.rows) return -1;
        const int64_t known = slot_of[source(span.first + inside * span.step, tap)];
        int64_t base = known < inside ? slots : known - inside;
        for (int64_t i = 0; i < span.rows && base + i < slots; ++i) {
            if (order[base + i] != source(span.first + i * span.step, tap)) base = slots;
        }
        for (int64_t i = slots - base; i < span.rows; ++i) {
            const int64_t in = source(span.first + i * span.step, tap);
            order[slots] = in;
            if (in >= 0) slot_of[in] = slots;
            ++slots;
        }
        return base;
    }
};

SC_CLOSE
