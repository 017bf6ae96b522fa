// What a work item of backward_weight walks over, and where its operands are packed: the rows of A that are summed
// together, a chunk of them, and the scratch memory of a chunk.
#pragma once
#include "common/long_sums.h"
#include "common/weight_tile.h"
#include "gradient/share.h"
#include "gradient/sweep.h"

SC_OPEN

SC_INLINE bool spikes(const sc_gradient_task &task) { return task.kernel == SC_GRADIENT_SPIKES; }
SC_INLINE bool skips(const sc_gradient_task &task) { return task.kernel == SC_GRADIENT_SKIP || spikes(task); }
SC_INLINE bool reads_lists(const sc_gradient_task &task) { return task.kernel == SC_GRADIENT_SKIP && task.listed; }

// The rows m of an outer strand that meet any row.
SC_INLINE int64_t first_met(const sc_strand &outer) { return larger(0, outer.shift - outer.taps + 1); }
SC_INLINE int64_t count_met(const sc_strand &outer) {
    return larger(0, smaller(outer.out_count, outer.in_count + outer.shift) - first_met(outer));
}

// The rows of A that are summed together: those of one outer strand, or all of them, as far as they meet any row of B.
struct gradient_rows {
    const sc_strand *strand;  // or null
    const int64_t *list;  // then which rows
    int64_t first, start, step, count;  // in each image; m of an outer strand begins with `first`, in row `start`

    SC_INLINE_MEMBER gradient_rows(const sc_gradient_task &task, int64_t index)
        : strand(task.outer_group > 1 ? task.map.outer_strands + index : nullptr), list(task.map.met_rows),
          first(strand ? first_met(*strand) : 0), start(strand ? strand->out_start + first * strand->out_step : 0),
          step(strand ? strand->out_step : 1), count(strand ? count_met(*strand) : task.map.met_row_count) {}
    static int64_t strands(const sc_gradient_task &task) {
        return task.outer_group > 1 ? task.map.outer_strand_count : 1;
    }
    SC_INLINE_MEMBER int64_t image(int64_t index) const { return index / count; }
    SC_INLINE_MEMBER int64_t row(int64_t index) const {
        return strand ? start + index % count * step : list[index % count];
    }
    SC_INLINE_MEMBER bool regular(const sc_map &map) const { return strand || count == map.out_rows; }
    SC_INLINE_MEMBER const float *of(const sc_view &view, int64_t index) const {
        return row_of(view, image(index), row(index));
    }
};

// A chunk: consecutive rows of A over all images, and one segment of the columns of each strand.
struct gradient_chunk {
    int64_t first, rows, segment;
};

// Columns [begin, end) of `out` in a strand, without those that no strand with these columns meets with any tap. None
// if they end before they begin.
SC_INLINE void segment_range(const sc_gradient_task &task, const gradient_chunk &chunk, const sc_strand &strand,
                             int64_t &begin, int64_t &end) {
    begin = larger(strand.window_shift - strand.window, chunk.segment * task.segment);
    end = smaller(smaller(strand.out_count, strand.in_count + strand.window_shift), (chunk.segment + 1) * task.segment);
}

SC_INLINE int64_t window_floats(const sc_gradient_task &task) {
    int64_t window = 0;
    for (int64_t p = 0; p < task.map.strand_count; ++p) window = larger(window, task.map.strands[p].window);
    return task.segment + window;
}

struct gradient_scratch {
    int64_t *slots;             // B: where an input row has been put, by its distance from the lowest one
    int64_t *order;             // B: which input row a slot holds, or -1 for zeros
    int64_t *partner;           // [outer tap][row]: slot of B for a row of A, or -1
    gradient_run *runs;         // of the tap at hand
    uint64_t *needed;           // of needed_channels
    int64_t *needed_list;       // A: channels that the lane block at hand needs
    float *gradient;            // weight tiles, one per lane block
    float *long_gradient;       // of long_sums
    float *channels;            // A: [channel][row][window], or [row][window][channel] where pixels() says so
    uint64_t *live;             // A: [channel][position / 64]: nonzero positions as bits, for the skipping kernels
    gradient_lists lists;       // A, for the kernel that reads them; then `channels` is there for repair_not_finite()
    float *lanes;               // B: [slot][window][lane]
    int64_t channel_pitch, pixel_pitch, live_pitch, long_floats;

    struct sizes {
        int64_t slots, order, partner, runs, needed, needed_list, gradient, long_gradient, channels, live, lists;
        int64_t lanes, channel_pitch, pixel_pitch, live_pitch, list_pitch;
        int64_t total() const {
            return slots + order + partner + runs + needed + needed_list + gradient + long_gradient + channels + live +
                   lists + lanes;
        }
    };
    // Whether the channels of a position stay side by side, as they are in memory.
    static bool pixels(const sc_gradient_task &task) { return channels_contiguous(task.a); }
    // Rows of B that a chunk can meet.
    static int64_t most_slots(const sc_gradient_task &task) {
        const sc_map &map = task.map;
        int64_t slots = smaller(task.chunk_rows * map.outer_taps, task.batch * map.in_rows);
        for (int64_t p = 0; task.outer_group > 1 && p < map.outer_strand_count; ++p) {
            const sc_strand &outer = map.outer_strands[p];  // each image of the chunk brings the rows around it
            const int64_t images = smaller(task.batch, task.chunk_rows / larger(1, count_met(outer)) + 2);
            slots = larger(p ? slots : 0, task.chunk_rows + images * (larger(1, outer.taps) - 1));
        }
        return larger(slots, smaller(map.outer_taps, task.batch * map.in_rows));
    }
    // Rows of a chunk for which there is room where outer taps take turns, so that any of them can meet another row.
    static int64_t careful_rows(const sc_gradient_task &task) {
        return larger(1, smaller(task.chunk_rows, most_slots(task) / task.map.outer_taps));
    }
    static sizes measure(const sc_gradient_task &task) {
        const sc_map &map = task.map;
        const int64_t window = window_floats(task), pairs = task.chunk_rows * map.outer_taps;
        const int64_t pitch = (task.chunk_rows * window + 15 + 63) / 64 * 64;  // whole words, and whole vectors stored
        const int64_t words = pitch / 64 + 1;                                  // one is read behind the last
        const int64_t taps = map.outer_taps * map.inner_taps;
        const int64_t in_rows = task.batch * map.in_rows, slots = most_slots(task);
        sizes size = {};
        size.slots = line(2 * in_rows), size.order = line(2 * slots), size.partner = line(2 * pairs);
        size.runs = line(8 * task.chunk_rows);
        size.needed = line(2 * needed_channels::size(task)), size.needed_list = line(2 * task.channel_block);
        size.gradient = line(task.lane_blocks * task.channel_block * taps * task.lane_vectors * 16);
        const int64_t chunks = ceil_div(task.batch * map.out_rows, task.chunk_rows) * task.segments;
        size.long_gradient = long_sums::size(size.gradient, chunks, SHORT_CHAIN);
        size.channel_pitch = pitch, size.live_pitch = words;
        size.pixel_pitch = line(task.channel_block) + 16;  // pixels a power of two apart would share few sets of L1
        if (pixels(task)) size.channels = task.chunk_rows * window * size.pixel_pitch + 16;
        else size.channels = task.channel_block * pitch;
        if (spikes(task)) size.channels = 0;
        size.live = skips(task) ? line(2 * task.channel_block * words) : 0;
        // Whole vectors are stored. An odd number of lines: the first ones of all lists are in all sets of L1.
        size.list_pitch = reads_lists(task) ? ((task.chunk_rows * window + 17 + 15) / 16 | 1) * 16 : 0;
        size.lists = 2 * task.channel_block * size.list_pitch;
        size.lanes = line(slots * window * task.lane_vectors * 16 + 16);
        return size;
    }
    gradient_scratch(const sc_gradient_task &task, void *memory) {
        const sizes size = measure(task);
        float *next = (float *)memory;
        slots = (int64_t *)next, next += size.slots;
        order = (int64_t *)next, next += size.order;
        partner = (int64_t *)next, next += size.partner;
        runs = (gradient_run *)next, next += size.runs;
        needed = (uint64_t *)next, next += size.needed;
        needed_list = (int64_t *)next, next += size.needed_list;
        gradient = next, next += size.gradient;
        long_gradient = next, next += size.long_gradient, long_floats = size.long_gradient;
        channels = next, next += size.channels;
        live = (uint64_t *)next, next += size.live;
        lists = {next, next + size.lists / 2, size.list_pitch}, next += size.lists;
        lanes = next;
        channel_pitch = size.channel_pitch, pixel_pitch = size.pixel_pitch, live_pitch = size.live_pitch;
    }
};

SC_CLOSE
