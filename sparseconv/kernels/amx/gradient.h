// backward_weight on tile registers: the dense kernel of instruction sets that have them.
//
// The sum is that of gradient/gradient.h. Both operands are split into bf16 or fp16 parts (amx/split.h); a tile product
// sums 32 positions for 16 channels of A and 16 lanes of B. Of scaled parts each channel and each lane has a scale of
// its own in each chunk, which is taken away when the sums of the chunk are added to the gradient.
//
// Loop order, outermost first:
//   item         (group, lane_blocks x lane_vectors vectors of b, channel_block channels of a), as in
//                gradient/gradient.h: its part of the gradient stays in scratch from the first position to the last
//   chunk, strands with the same columns: A as tiles [16 channels][part][32 positions][channel][16 pairs]
//   lane block   B as lines [vector][part][position][16 lanes of pairs]
//   two times 16 channels, two lane vectors, strand, outer tap, tap: 2 x 2 tiles of sums over the chunk, then added to
//                the scratch gradient (common/long_sums.h)
//
// Pairs are positions p and p + 16 of 32. B has such a line for every p, not just for the first 16 of 32, so that a
// tile of it can begin anywhere: that is what taps want, and all loads stay aligned. Rows are strung together to spans
// (amx/long_rows.h), each a run of whole 32s in A, with zeros behind its last position.
//
// Where tile products would not be as accurate as f32 (amx/split.h), blocks of 32 channels x a lane block are computed
// once more by the vector kernel. They do not depend on the number of threads, nor does the order of any sum.
#pragma once
#include "amx/long_rows.h"
#include "amx/products.h"
#include "common/long_sums.h"
#include "gradient/scratch.h"

SC_OPEN

enum { TILE_POSITIONS = 2 * PAIRS, UNIT_CHANNELS = 2 * PAIRS };

// Upper bounds of what a chunk holds.
struct gradient_extent {
    long_rows::sizes spans;
    int64_t positions;  // of A: whole 32s for every span
    int64_t lines;      // of B: all slots, and what tiles reach behind them

    SC_INLINE_MEMBER gradient_extent(const sc_gradient_task &task)
        : spans(long_rows::measure(task.map, task.batch, task.chunk_rows)) {
        int64_t window = 0;
        for (int64_t p = 0; p < task.map.strand_count; ++p) window = larger(window, task.map.strands[p].window);
        window += task.segment;
        positions = task.chunk_rows * window + spans.most_spans * TILE_POSITIONS;
        lines = spans.slots * window + TILE_POSITIONS;
    }
};

struct tile_gradient_scratch {
    int64_t *tables;         // of long_rows
    uint64_t *needed;        // of needed_channels
    float *gradient;         // weight tiles, one per lane block
    float *long_gradient;    // of long_sums
    uint32_t *channel_tops;  // largest |a| of each channel, or UNFIT
    uint32_t *lane_tops;     // the same of |b| of each lane, one vector after the other
    float *channel_unscale;  // of scaled parts: what brings a channel's sums over the chunk back
    float *lane_unscale;     // and a lane's, of one lane block
    float *channels;         // A: 16 channels before they are split, [channel][position]
    uint32_t *channel_tiles; // A: [16 channels][part][32 positions][channel][16 pairs]
    float *lanes;            // B: [position][lane], before it is split
    uint32_t *lines;         // B: [vector][part][position][16 lanes of pairs]
    float *sums;             // 2 x 2 tiles
    void *vectors;           // what the vector kernel needs
    int64_t long_floats;

    struct sizes {  // in floats, whole cache lines
        int64_t tables, needed, gradient, long_gradient, channel_tops, lane_tops, channel_unscale, lane_unscale;
        int64_t channels, channel_tiles, lanes, lines, sums, vectors;
        int64_t total() const {
            return tables + needed + gradient + long_gradient + channel_tops + lane_tops + channel_unscale +
                   lane_unscale + channels + channel_tiles + lanes + lines + sums + vectors;
        }
    };
    static int64_t channel_pitch(int64_t steps) { return steps * TILE_POSITIONS + 16; }  // load_channels fills vectors
    static sizes measure(const sc_gradient_task &task) {
        const gradient_extent extent(task);
        const int64_t tiles = ceil_div(task.channel_block, PAIRS), lanes = task.lane_vectors * 16;
        const int64_t steps = ceil_div(extent.positions, TILE_POSITIONS);
        const sc_gradient_task vectors = vector_task(task);
        const int64_t taps = task.map.outer_taps * task.map.inner_taps;
        const int64_t gradient = task.lane_blocks * task.channel_block * taps * lanes;
        const int64_t chunks = ceil_div(task.batch * task.map.out_rows, task.chunk_rows) * task.segments;
        return {line(2 * extent.spans.total()), line(2 * needed_channels::size(task)),
                gradient, long_sums::size(gradient, chunks, SHORT_CHAIN), line(task.channel_block),
                task.lane_blocks * lanes, line(task.channel_block), lanes, PAIRS * channel_pitch(steps),
                tiles * task.parts * steps * TILE_PAIRS, (extent.lines + PAIRS) * lanes,
                task.lane_vectors * task.parts * extent.lines * PAIRS, 4 * TILE_PAIRS,
                line(vector_table.gradient.gradient.scratch(&vectors) / (int64_t)sizeof(float) + 16)};
    }
    tile_gradient_scratch(const sc_gradient_task &task, void *memory) {
        const sizes size = measure(task);
        float *next = (float *)memory;
        tables = (int64_t *)next, next += size.tables;
        needed = (uint64_t *)next, next += size.needed;
        gradient = next, next += size.gradient;
        long_gradient = next, next += size.long_gradient, long_floats = size.long_gradient;
        channel_tops = (uint32_t *)next, next += size.channel_tops;
        lane_tops = (uint32_t *)next, next += size.lane_tops;
        channel_unscale = next, next += size.channel_unscale;
        lane_unscale = next, next += size.lane_unscale;
        channels = next, next += size.channels;
        channel_tiles = (uint32_t *)next, next += size.channel_tiles;
        lanes = next, next += size.lanes;
        lines = (uint32_t *)next, next += size.lines;
        sums = next, next += size.sums;
        vectors = next;
    }

    // The same call for the vector kernel, an item for each UNIT_CHANNELS channels and lane block of its own.
    static sc_gradient_task vector_task(const sc_gradient_task &task) {
        sc_gradient_task vectors = task;
        vectors.kernel = SC_GRADIENT_DENSE, vectors.parts = 0, vectors.outer_group = 1;
        vectors.lane_blocks = 1, vectors.channel_block = UNIT_CHANNELS;
        vectors.lane_vectors = task.lane_vectors <= vector_table.limits.dense_vectors ? task.lane_vectors : 1;
        return vectors;
    }
};

static int64_t tile_gradient_scratch_bytes(const sc_gradient_task *task) {
    return tile_gradient_scratch::measure(*task).total() * (int64_t)sizeof(float);
}

// Columns of a chunk that strands with the same columns share.
struct gradient_columns {
    const sc_strand &strand;  // one of these strands
    int64_t begin, count; // columns m of `out`
    int64_t window;       // positions from one row to the next
};

SC_INLINE int64_t span_steps(const long_row &span, const gradient_columns &columns) {
    return ceil_div((span.rows - 1) * columns.window + columns.count, TILE_POSITIONS);
}

// A's channels [channel, channel + channels) of the chunk, but for 64s of which none is needed; returns the number of
// 32s of positions.
template <class Format>
static int64_t split_channels(const sc_gradient_task &task, const long_rows &spans, const gradient_columns &columns,
                              int64_t channel, int64_t channels, const needed_channels &needed,
                              const tile_gradient_scratch &scratch) {
    const sc_map &map = task.map;
    int64_t steps = 0;
    for (int64_t index = 0; index < spans.count; ++index) steps += span_steps(spans.spans[index], columns);
    const int64_t pitch = scratch.channel_pitch(steps);
    for (int64_t first = 0; first < channels; first += PAIRS) {
        if (!needed.anywhere(first)) continue;
        const int64_t count = smaller(PAIRS, channels - first);
        for (int64_t i = 0; i < PAIRS * pitch; i += 16) store(scratch.channels + i, zero());
        float *to = scratch.channels;
        for (int64_t index = 0; index < spans.count; ++index) {
            const long_row &span = spans.spans[index];
            for (int64_t i = 0; i < span.rows; ++i) {
                const int64_t row = span.first + i * span.step;
                load_channels(to + i * columns.window, pitch, task.a,
                              row_of(task.a, row / map.out_rows, row % map.out_rows), channel + first,
                              channel + first + count,
                              columns.strand.out_start + columns.begin * columns.strand.out_step,
                              columns.strand.out_step, columns.count);
            }
            to += span_steps(span, columns) * TILE_POSITIONS;
        }
        uint32_t *tiles = scratch.channel_tiles + first * Format::PARTS * steps * PAIRS;
        for (int64_t c = 0; c < count; ++c) {
            const float *from = scratch.channels + c * pitch;
            uint32_t top = 0;
            if constexpr (Format::SCALED) {
                top = largest_of(from, 1, steps * TILE_POSITIONS, 0);
                set_unscale(scratch.channel_unscale + first + c, top);
            }
            splitter<Format> lanes(all_lanes(top));
            for (int64_t step = 0; step < steps; ++step, from += TILE_POSITIONS) {
                split_pairs(from, from + PAIRS, tiles + step * TILE_PAIRS + c * PAIRS, steps * TILE_PAIRS, lanes);
            }
            uint32_t &tops = scratch.channel_tops[first + c];
            top = lanes.loses() ? (uint32_t)UNFIT : largest_lane(lanes.top);
            tops = top > tops ? top : tops;
        }
    }
    return steps;
}

// B's lanes [lane, lane + lanes) of the chunk; returns the number of positions that have lines.
template <class Format>
static int64_t split_lanes(const sc_gradient_task &task, const long_rows &spans, const gradient_columns &columns,
                           int64_t lane, int64_t lanes, int64_t vectors, uint32_t *tops,
                           const tile_gradient_scratch &scratch) {
    const sc_map &map = task.map;
    const sc_strand &strand = columns.strand;
    const int64_t pitch = vectors * 16, window = columns.window;
    const int64_t first = columns.begin - strand.window_shift;  // `in` column at the start of the window
    const int64_t low = smaller(larger(0, -first), window);
    const int64_t high = larger(low, smaller(window, strand.in_count - first));
    for (int64_t slot = 0; slot < spans.slots; ++slot) {
        const int64_t row = spans.order[slot];
        float *to = scratch.lanes + slot * window * pitch;
        const int64_t data = row < 0 ? 0 : low, end = row < 0 ? 0 : high;
        for (int64_t i = 0; i < data * pitch; i += 16) store(to + i, zero());
        for (int64_t i = end * pitch; i < window * pitch; i += 16) store(to + i, zero());
        if (row < 0) continue;
        load_pixels(to + low * pitch, pitch, task.b, row_of(task.b, row / map.in_rows, row % map.in_rows), lane,
                    lane + lanes, strand.in_start + (first + low) * strand.in_step, strand.in_step, high - low);
    }
    const int64_t lines = spans.slots * window + TILE_POSITIONS;
    const int64_t floats = (lines + PAIRS) * pitch;
    for (int64_t i = spans.slots * window * pitch; i < floats; i += 16) store(scratch.lanes + i, zero());
    for (int64_t vector = 0; vector < vectors; ++vector) {
        bits16 top = {}, all;
        uint32_t *to = scratch.lines + vector * Format::PARTS * lines * PAIRS;
        const float *from = scratch.lanes + vector * 16;
        if constexpr (Format::SCALED) {
            for (int64_t i = 0; i < spans.slots * window; ++i) {
                bits16 bits;
                __builtin_memcpy(&bits, from + i * pitch, sizeof bits);
                largest(top, bits & 0x7fffffffu);
            }
            for (int i = 0; i < PAIRS; ++i) set_unscale(scratch.lane_unscale + vector * PAIRS + i, top[i]);
        }
        splitter<Format> values(top);
        for (int64_t i = 0; i < lines; ++i, from += pitch, to += PAIRS) {
            split_pairs(from, from + PAIRS * pitch, to, lines * PAIRS, values);
        }
        __builtin_memcpy(&all, tops + vector * PAIRS, sizeof all);
        largest(all, values.fit_tops());
        __builtin_memcpy(tops + vector * PAIRS, &all, sizeof all);
    }
    return lines;
}

// Both operands of a chunk, split.
struct split_chunk {
    int64_t steps;  // 32s of A
    int64_t lines;  // positions of B
};

// `offset`: the position of B that position 0 of A meets in the same slot.
struct tap_place {
    int64_t outer, offset;
};

template <class Format, class Multiply>
SC_INLINE void for_each_step(const long_rows &spans, const gradient_columns &columns, const split_chunk &split,
                             const tap_place &tap, int64_t tile, int64_t vector, const tile_gradient_scratch &scratch,
                             Multiply multiply) {
    enum { PARTS = Format::PARTS };
    const uint32_t *a = scratch.channel_tiles + tile * PARTS * split.steps * TILE_PAIRS;
    const uint32_t *b = scratch.lines + vector * PARTS * split.lines * PAIRS;
    for (int64_t index = 0; index < spans.count; ++index) {
        const int64_t steps = span_steps(spans.spans[index], columns);
        const int64_t slot = spans.bases[index * spans.map.outer_taps + tap.outer];
        const uint32_t *lines = b + (slot * columns.window + tap.offset) * PAIRS;
        for (int64_t step = 0; step < steps && slot >= 0; ++step) {
            const int64_t part = split.steps * TILE_PAIRS;
            multiply(tile_operand{a + step * TILE_PAIRS, PARTS * part, part, ROW_BYTES},
                     tile_operand{lines + step * TILE_POSITIONS * PAIRS, PARTS * split.lines * PAIRS,
                                  split.lines * PAIRS, ROW_BYTES});
        }
        a += steps * TILE_PAIRS;
    }
}

// The sums of 2 x 2 tiles over the chunk for one tap, to scratch.sums.
template <class Format, int P, int Q>
SC_ALONE static void sum_chunk(const long_rows &spans, const gradient_columns &columns, const split_chunk &split,
                               const tap_place &tap, int64_t tile, int64_t vector,
                               const tile_gradient_scratch &scratch) {
    zero_sums<P, Q>();
    if constexpr (Format::SWEEPS > 1) {
        for_each_step<Format>(spans, columns, split, tap, tile, vector, scratch, multiply_rest<Format, 0, P, Q>);
    }
    for_each_step<Format>(spans, columns, split, tap, tile, vector, scratch, multiply_last<Format, 0, P, Q>);
    store_sums<P, Q>(scratch.sums, 2 * PAIRS, 2 * TILE_PAIRS);
}

// One tap of one lane block over the chunk, for 32s of channels of which it needs any.
template <class Format>
static void add_tap(const long_rows &spans, const gradient_columns &columns, const split_chunk &split,
                    const tap_place &tap, const weight_tile &shape, const uint64_t *needed, float *gradient,
                    int64_t channel_pitch, const tile_gradient_scratch &scratch) {
    const int64_t tiles = ceil_div(shape.channels, PAIRS);
    for (int64_t tile = 0; tile < tiles; tile += 2) {
        const int64_t channels = smaller(2 * PAIRS, shape.channels - tile * PAIRS);
        if (!(uint32_t)(needed[tile * PAIRS / 64] >> tile * PAIRS % 64)) continue;
        for (int64_t vector = 0; vector < shape.vectors; vector += 2) {
            const bool two_tiles = tile + 1 < tiles, two_vectors = vector + 1 < shape.vectors;
            if (two_tiles && two_vectors) sum_chunk<Format, 2, 2>(spans, columns, split, tap, tile, vector, scratch);
            else if (two_tiles) sum_chunk<Format, 2, 1>(spans, columns, split, tap, tile, vector, scratch);
            else if (two_vectors) sum_chunk<Format, 1, 2>(spans, columns, split, tap, tile, vector, scratch);
            else sum_chunk<Format, 1, 1>(spans, columns, split, tap, tile, vector, scratch);
            for (int64_t c = 0; c < channels; ++c) {
                float *to = gradient + (tile * PAIRS + c) * channel_pitch + vector * 16;
                for (int64_t lane = 0; lane < (two_vectors ? 32 : 16); lane += 16) {
                    f32x16 sum = load(scratch.sums + c * 2 * PAIRS + lane);
                    if constexpr (Format::SCALED) {  // one after the other: their product could be flushed
                        sum = multiply(sum, splat(scratch.channel_unscale + tile * PAIRS + c));
                        sum = multiply(sum, load(scratch.lane_unscale + vector * 16 + lane));
                    }
                    store(to + lane, add(load(to + lane), sum));
                }
            }
        }
    }
}

// Passes [first, end), which have the same columns, over one segment of a chunk. False: interrupted.
template <class Format>
static bool add_strands(const sc_gradient_task &task, const gradient_share &share, const needed_channels &needed,
                       const long_rows &spans, const gradient_columns &columns, int64_t first, int64_t end,
                       const tile_gradient_scratch &scratch) {
    const sc_map &map = task.map;
    split_chunk split;
    split.steps = split_channels<Format>(task, spans, columns, share.group * task.channels + share.channel,
                                        share.channels, needed, scratch);
    for (int64_t block = share.first_block; block < share.end_block; ++block) {
        if (task.interrupt.poll(task.interrupt.context)) return false;
        if (needed.count(block - share.first_block) == 0) continue;
        const uint64_t *some = needed.words + (block - share.first_block) * needed.pitch;
        const weight_tile shape = share.shape(task, block);
        const int64_t vectors = shape.vectors, lane = share.blocks.begin(block) * 16;
        split.lines = split_lanes<Format>(task, spans, columns, share.group * task.lanes + lane,
                                         smaller(vectors * 16, task.lanes - lane), vectors,
                                         scratch.lane_tops + (block - share.first_block) * task.lane_vectors * 16,
                                         scratch);
        const tiles_in_use tiles;
        for (int64_t p = first; p < end; ++p) {
            const sc_strand &strand = map.strands[p];
            for (int64_t outer = 0; outer < map.outer_taps; ++outer) {
                for (int64_t tap = 0; tap < strand.taps; ++tap) {
                    float *gradient = share.tile(scratch.gradient, block) +
                                      shape.strand_offset(outer, strand.taps_before) + tap * vectors * 16;
                    const tap_place place = {outer, strand.window_shift - strand.shift + tap};
                    add_tap<Format>(spans, columns, split, place, shape, some, gradient, strand.taps * vectors * 16,
                                   scratch);
                }
            }
        }
    }
    return true;
}

// The vector kernel computes what tile products could not.
static void repair_with_vectors(const sc_gradient_task &task, const gradient_share &share,
                                const tile_gradient_scratch &scratch) {
    const sc_gradient_task vectors = tile_gradient_scratch::vector_task(task);
    const lane_blocks parts(task.lanes, vectors.lane_vectors);
    const int64_t units = ceil_div(task.channels, UNIT_CHANNELS);
    for (int64_t block = share.first_block; block < share.end_block; ++block) {
        const int64_t vector = share.blocks.begin(block), end = share.blocks.begin(block + 1);
        const uint32_t *tops = scratch.lane_tops + (block - share.first_block) * task.lane_vectors * 16;
        magnitudes lanes;
        for (int64_t i = 0; i < (end - vector) * 16; ++i) lanes.add(tops[i]);
        for (int64_t channel = 0; channel < share.channels; channel += UNIT_CHANNELS) {
            magnitudes channels;
            for (int64_t i = channel; i < smaller(channel + UNIT_CHANNELS, share.channels); ++i) {
                channels.add(scratch.channel_tops[i]);
            }
            if (tiles_are_accurate(channels, lanes)) continue;
            for (int64_t part = 0; part < parts.count; ++part) {
                if (parts.begin(part) < vector || parts.begin(part) >= end) continue;
                const int64_t unit = (share.channel + channel) / UNIT_CHANNELS;
                const int64_t index = (share.group * parts.count + part) * units + unit;
                vector_table.gradient.gradient.run(&vectors, index, index + 1, scratch.vectors);
            }
        }
    }
}

template <class Format>
static void tile_gradient_item(const sc_gradient_task &task, int64_t item, long_rows &spans,
                               const tile_gradient_scratch &scratch) {
    const sc_map &map = task.map;
    const gradient_share share(task, item);
    const int64_t lanes = (share.end_block - share.first_block) * task.lane_vectors * 16;
    const needed_channels needed(task, share, scratch.needed);
    share.clear(scratch.gradient);
    long_sums sums(scratch.gradient, scratch.long_gradient, scratch.long_floats, share.floats(), SHORT_CHAIN);
    for (int64_t i = 0; i < share.channels; ++i) scratch.channel_tops[i] = 0;
    for (int64_t i = 0; i < lanes; ++i) scratch.lane_tops[i] = 0;

    for (int64_t first = 0; first < task.batch * map.out_rows; first += task.chunk_rows) {
        spans.find(first, smaller(task.chunk_rows, task.batch * map.out_rows - first));
        for (int64_t segment = 0; segment < task.segments; ++segment) {
            for (int64_t p = 0, next; p < map.strand_count; p = next) {
                const sc_strand &strand = map.strands[p];
                for (next = p + 1; next < map.strand_count && !map.strands[next].new_columns;) ++next;
                int64_t begin, end;
                segment_range(task, {first, 0, segment}, strand, begin, end);
                if (begin >= end) continue;
                const gradient_columns columns = {strand, begin, end - begin, end - begin + strand.window};
                if (!add_strands<Format>(task, share, needed, spans, columns, p, next, scratch)) return;
            }
            sums.added();
        }
    }
    sums.finish();
    store_gradient(task, share, scratch.gradient);
    repair_with_vectors(task, share, scratch);
}

template <class Two>
static void tile_gradient(const sc_gradient_task *task, int64_t begin, int64_t end, void *memory) {
    const tile_gradient_scratch scratch(*task, memory);
    long_rows spans(task->map, long_rows::measure(task->map, task->batch, task->chunk_rows), scratch.tables);
    for (int64_t item = begin; item < end; ++item) {
        with_format<Two>(*task, [&](auto format) {
            tile_gradient_item<decltype(format)>(*task, item, spans, scratch);
        });
    }
}

template <class Two>
static constexpr sc_gradient_table tile_gradient_table = {
    {tile_gradient<Two>, gradient_items, tile_gradient_scratch_bytes}, nullptr,
};

SC_CLOSE
