// What a work item of the rows kernels is about: a chunk of output rows, and its lane blocks one after the other.
#pragma once
#include "common/weight_tile.h"

SC_OPEN

// Some neighbouring vectors of output channels of one group.
struct lane_block {
    int64_t group, vector, vectors;
    int64_t lanes;  // those of them that are channels
};

SC_INLINE lane_block lane_block_of(const sc_rows_task &task, const lane_blocks &blocks, int64_t group, int64_t index) {
    const int64_t vector = blocks.begin(index), vectors = blocks.begin(index + 1) - vector;
    return {group, vector, vectors, smaller(vectors * 16, task.lanes - vector * 16)};
}

SC_INLINE int64_t all_taps(const sc_map &map) { return map.outer_taps * map.inner_taps; }

// Items of packing ahead: lane blocks of all groups, and where they are packed by channel blocks these, too.
SC_INLINE int64_t weight_lane_blocks(const sc_rows_task *task) {
    return task->groups * lane_blocks(task->lanes, task->lane_vectors).count;
}
SC_INLINE int64_t weight_tiles(const sc_rows_task *task) {
    return weight_lane_blocks(task) * ceil_div(task->channels, task->channel_block);
}

// Items of all row kernels: groups * chunks * lane groups.
SC_INLINE int64_t rows_items(const sc_rows_task *task) {
    const int64_t chunks = ceil_div(task->batch * task->map.out_rows, task->chunk_rows) * task->segments;
    return task->groups * chunks * task->lane_groups;
}

// Calls pack(lane block, its index in the group, first channel) for items of packing ahead: lane block x channel block.
template <class Pack>
SC_INLINE void for_each_weight_tile(const sc_rows_task &task, int64_t begin, int64_t end, Pack pack) {
    const lane_blocks blocks(task.lanes, task.lane_vectors);
    const int64_t channel_blocks = ceil_div(task.channels, task.channel_block);
    for (int64_t item = begin; item < end; ++item) {
        const int64_t group = item / channel_blocks / blocks.count, index = item / channel_blocks % blocks.count;
        pack(lane_block_of(task, blocks, group, index), index, item % channel_blocks * task.channel_block);
    }
}

// A chunk: consecutive output rows (over all images) and one segment of their columns.
struct row_chunk {
    int64_t first, rows;           // rows first .. first + rows of batch * out_rows
    int64_t column, columns;       // of `out`
    int64_t in_column, in_columns; // of `in`, all that this segment can meet

    template <class Task>
    SC_INLINE_MEMBER row_chunk(const Task &task, int64_t index) {
        const sc_map &map = task.map;
        first = index / task.segments * task.chunk_rows;
        rows = smaller(task.chunk_rows, task.batch * map.out_rows - first);
        column = index % task.segments * task.segment;
        columns = smaller(task.segment, map.out_columns - column);
        in_column = map.in_columns;
        int64_t in_end = 0;
        for (int64_t p = 0; p < map.strand_count; ++p) {
            const sc_strand &strand = map.strands[p];
            int64_t begin, end;
            range(strand, begin, end);
            const int64_t low = larger(0, begin - strand.shift);
            const int64_t high = smaller(strand.in_count, end + strand.taps - 1 - strand.shift);
            if (begin >= end || low >= high) continue;
            in_column = smaller(in_column, strand.in_start + low * strand.in_step);
            in_end = larger(in_end, strand.in_start + (high - 1) * strand.in_step + 1);
        }
        in_columns = larger(0, in_end - in_column);
    }

    // Calls fill(column, step, count) for the output columns of the chunk that no strand has: along the longer side of
    // the gaps.
    template <class Fill>
    SC_INLINE_MEMBER void each_gap(const sc_map &map, Fill fill) const {
        for (const sc_gap *gap = map.gaps; gap < map.gaps + map.gap_count; ++gap) {
            const int64_t end = column + columns;
            const int64_t low = larger(0, ceil_div(column - gap->start - gap->width + 1, gap->step));
            const int64_t high = smaller(gap->count, ceil_div(end - gap->start, gap->step));
            if (gap->width < high - low) {
                for (int64_t start = gap->start; start < gap->start + gap->width; ++start) {
                    const int64_t begin = larger(0, ceil_div(column - start, gap->step));
                    const int64_t count = smaller(gap->count, ceil_div(end - start, gap->step)) - begin;
                    fill(start + begin * gap->step, gap->step, count);
                }
                continue;
            }
            for (int64_t i = low; i < high; ++i) {
                const int64_t start = gap->start + i * gap->step, begin = larger(column, start);
                fill(begin, 1, smaller(end, start + gap->width) - begin);
            }
        }
    }

    // output columns m of a strand that lie in this segment
    SC_INLINE_MEMBER void range(const sc_strand &strand, int64_t &begin, int64_t &end) const {
        begin = larger(0, ceil_div(column - strand.out_start, strand.out_step));
        end = smaller(strand.out_count, ceil_div(column + columns - strand.out_start, strand.out_step));
    }
};

// The input rows (over all images) that the output rows [first, first + count) can meet.
struct row_span {
    int64_t first, rows;

    SC_INLINE_MEMBER row_span(const sc_map &map, int64_t first_row, int64_t count) {
        int64_t low = INT64_MAX, high = -1;
        for (int64_t row = first_row; row < first_row + count; ++row) {
            for (int64_t tap = 0; tap < map.outer_taps; ++tap) {
                const int64_t in = map.row_table[row % map.out_rows * map.outer_taps + tap];
                if (in < 0) continue;
                low = smaller(low, row / map.out_rows * map.in_rows + in);
                high = larger(high, row / map.out_rows * map.in_rows + in);
            }
        }
        first = low, rows = high < 0 ? 0 : high - low + 1;
    }
};

SC_CLOSE
