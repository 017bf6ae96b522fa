// Which rows of B the rows of A in a chunk meet, and so which rows of both the next chunk will read.
//
// Each row of B that is met gets a slot of the lane tile. Where the slots of successive rows of A follow one another,
// the kernels sum over all of them as over one long row.
#pragma once
#include "common/read_ahead.h"
#include "gradient/scratch.h"

SC_OPEN

// The rows of B that the chunk meets, in the order in which the outer taps meet them. Returns their number.
static int64_t find_partners(const sc_gradient_task &task, const gradient_rows &rows, const gradient_chunk &chunk,
                             const gradient_scratch &scratch) {
    const sc_map &map = task.map;
    int64_t used = 0;
    for (int64_t tap = 0; tap < map.outer_taps; ++tap) {
        for (int64_t i = 0; i < chunk.rows; ++i) {
            const int64_t image = rows.image(chunk.first + i), row = rows.row(chunk.first + i);
            const int64_t in = map.row_table[row * map.outer_taps + tap];
            int64_t slot = -1;
            if (in >= 0) {
                int64_t &known = scratch.slots[image * map.in_rows + in];
                if (known < 0) scratch.order[used] = image * map.in_rows + in, known = used++;
                slot = known;
            }
            scratch.partner[tap * task.chunk_rows + i] = slot;
        }
    }
    for (int64_t slot = 0; slot < used; ++slot) scratch.slots[scratch.order[slot]] = -1;
    return used;
}

// The same for an outer strand: for each image all rows from the first to the last that any tap meets, those outside
// the image as zeros. Only the partners of the first tap are needed.
static int64_t stack_partners(const sc_gradient_task &task, const gradient_rows &rows, const gradient_chunk &chunk,
                              const gradient_scratch &scratch) {
    const sc_strand &outer = *rows.strand;
    int64_t used = 0;
    for (int64_t i = 0; i < chunk.rows;) {
        const int64_t image = rows.image(chunk.first + i), first = (chunk.first + i) % rows.count;
        const int64_t some = smaller(chunk.rows - i, rows.count - first);
        for (int64_t k = 0; k < some; ++k) scratch.partner[i + k] = used + k;
        const int64_t begin = rows.first + first - outer.shift;
        for (int64_t in = begin; in < begin + some + outer.taps - 1; ++in) {
            const bool inside = in >= 0 && in < outer.in_count;
            scratch.order[used++] = inside ? image * task.map.in_rows + outer.in_start + in * outer.in_step : -1;
        }
        i += some;
    }
    return used;
}

// The rows of B that some rows of A meet: those of an outer strand, or all of them.
struct partner_rows {
    int64_t start, step, count;  // in each image

    SC_INLINE_MEMBER partner_rows(const sc_map &map, const gradient_rows &rows)
        : start(rows.strand ? rows.strand->in_start : 0), step(rows.strand ? rows.strand->in_step : 1),
          count(rows.strand ? rows.strand->in_count : map.in_rows) {}
    // How many of them, over all images, the rows of A before `index` have met.
    SC_INLINE_MEMBER int64_t met(const sc_map &map, const gradient_rows &rows, int64_t index) const {
        for (int64_t i = index - 1; i >= larger(0, index - rows.count); --i) {
            int64_t last = -1;
            if (rows.strand) {
                const int64_t first = rows.first + i % rows.count - rows.strand->shift;
                last = smaller(count - 1, first + rows.strand->taps - 1);
            }
            for (int64_t tap = 0; !rows.strand && tap < map.outer_taps; ++tap) {
                last = larger(last, map.row_table[rows.row(i) * map.outer_taps + tap]);
            }
            if (last >= 0) return rows.image(i) * count + last + 1;
        }
        return 0;
    }
};

// What the next chunk (or, of long rows, the next segment) will read, to be asked for while this one is summed.
static read_ahead next_reads(const sc_gradient_task &task, const gradient_rows &rows, const gradient_chunk &chunk,
                             int64_t channel, int64_t channels, int64_t lane, int64_t lanes) {
    const sc_map &map = task.map;
    read_ahead ahead = {};
    const int64_t all_rows = task.batch * rows.count, next = chunk.first + chunk.rows;
    if (task.segments == 1 && next < all_rows && rows.regular(map)) {
        const int64_t some = smaller(task.chunk_rows, all_rows - next);
        if (!spikes(task)) {
            ahead.add_rows(task.a, {rows.start, rows.step, rows.count}, next, some, map.out_columns, channel, channels);
        }
        const partner_rows partners(map, rows);
        const int64_t met = partners.met(map, rows, next);
        ahead.add_rows(task.b, {partners.start, partners.step, partners.count}, met,
                       partners.met(map, rows, next + some) - met, map.in_columns, lane, lanes);
    } else if (all_rows == 1 && chunk.segment + 1 < task.segments && map.strand_count == 1) {
        const sc_strand &strand = map.strands[0];
        int64_t begin, end;
        segment_range(task, {chunk.first, chunk.rows, chunk.segment + 1}, strand, begin, end);
        if (begin >= end) return ahead;
        const int64_t out = strand.out_start + begin * strand.out_step, in = strand.in_start + begin * strand.in_step;
        if (!spikes(task)) {
            ahead.add(task.a, row_of(task.a, 0, 0) + out * task.a.column_stride, (end - begin) * strand.out_step,
                      channel, channels);
        }
        ahead.add(task.b, row_of(task.b, 0, 0) + in * task.b.column_stride, (end - begin) * strand.in_step, lane,
                  lanes);
    } else if (task.listed && task.segments > 1 && map.strand_count == 1 && rows.strand && rows.regular(map)) {
        // Segments of several rows. Emerald Rapids, GF/s at 50, 90 and 99% zeros without and with it: 64,64,224
        // 211 503 727, 215 559 836; 128,128,112 233 697 1321, 248 794 1590. Not measured where lists are not read.
        const bool same = chunk.segment + 1 < task.segments;  // rows
        const gradient_chunk then = {same ? chunk.first : next, smaller(task.chunk_rows, all_rows - next),
                                     same ? chunk.segment + 1 : 0};
        const int64_t some = same ? chunk.rows : then.rows;
        const sc_strand &strand = map.strands[0];
        int64_t begin, end;
        segment_range(task, then, strand, begin, end);
        if (begin >= end || some <= 0) return ahead;
        const int64_t out = strand.out_start + begin * strand.out_step;
        ahead.add_rows(task.a, {rows.start, rows.step, rows.count}, then.first, some, (end - begin) * strand.out_step,
                       channel + out * task.a.column_stride, channels);
        const partner_rows partners(map, rows);
        const int64_t met = larger(0, partners.met(map, rows, then.first) - (rows.strand->taps - 1));
        const int64_t first = larger(0, begin - strand.window_shift);
        const int64_t columns = smaller(end - begin + strand.window, strand.in_count - first);
        ahead.add_rows(task.b, {partners.start, partners.step, partners.count}, met,
                       partners.met(map, rows, then.first + some) - met, columns * strand.in_step,
                       lane + (strand.in_start + first * strand.in_step) * task.b.column_stride, lanes);
    }
    return ahead;
}

SC_CLOSE
