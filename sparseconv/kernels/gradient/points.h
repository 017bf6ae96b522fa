// backward_weight of pointwise kernels where few elements of A are not zero: one position after the other.
//
//   gradient[a, b] = sum over positions of A[position, a] * B[position, b]
//
// The nonzero channels of A at a position are words of 64 bits. For each set bit the scalar is broadcast once and
// multiplies B's lanes of that position, which stay in Q registers; the sums are in memory, a tile of 64 channels x Q
// vectors in L1. A multiply-add therefore costs a load and a store (two cycles on Zen 4, one on Intel's servers, both
// half of the peak), and in return nothing else is left: no packing on either side, no accumulators to move.
// gradient/skip.h needs one load for a multiply-add, but a pointwise kernel gives a nonzero only Q of them, and
// one channel only 28 KB / Q / 64 positions between two ways of its accumulators to memory.
//
// Measured (Zen 4, sums in L1, called alone, minima, others on the machine): 2.35 cycles a multiply-add at 50% zeros,
// 3.2 at 80%, 3.5 at 90%. What is above the two cycles of the store grows with Q and goes away (2.6) when every word
// has equally many bits, so it is the mispredicted end of the bit loop; that positions update the same sums one after
// the other costs nothing.
//
// Both operands need contiguous channels. Work items, and what an item owns, are those of gradient/gradient.h; an
// element is summed in the order of positions, in chains of POINTS_CHAIN of them or a little more (common/long_sums.h).
// Chunks do not depend on the number of threads, so threads do not change a bit.
#pragma once
#include "common/live_word.h"
#include "common/long_sums.h"
#include "common/mask_words.h"
#include "gradient/share.h"

SC_OPEN

enum { POINTS_CHAIN = 2048 };  // positions, of which few count: at most 40%, mostly 10%

// Some positions of one row, neighbours on both sides.
struct points_row {
    const float *a, *b;  // the first channel of the word, the first lane of the block
    int64_t live;        // place of the first column in A's mask
    int64_t columns;
};

struct points_sweep {
    const points_row *rows;
    int64_t row_count, a_step, b_step;
    int64_t a_offset, b_offset;  // of the channels and lanes of this sweep
    const uint64_t *live;        // one word a position
    uint64_t needed;             // the channels of a word that the lane block needs
    float *sums;                 // [channel][Q * 16]
    int last_lanes;              // lanes of the last vector that B has
};

template <int Q>
static void gradient_points(const points_sweep &sweep) {
    const uint64_t *live = sweep.live;
    float *sums = sweep.sums;
    const int64_t a_step = sweep.a_step, b_step = sweep.b_step;
    const bool whole = sweep.last_lanes == 16;
    const uint64_t needed = sweep.needed;
    for (const points_row *row = sweep.rows; row < sweep.rows + sweep.row_count; ++row) {
        const float *a = row->a + sweep.a_offset, *b = row->b + sweep.b_offset;
        for (int64_t column = 0; column < row->columns; ++column, a += a_step, b += b_step) {
            SC_UNROLL for (int q = 0; q < Q; ++q) __builtin_prefetch(b + 8 * b_step + q * 16);
            uint64_t word = *live++ & needed;
            if (!word) continue;
            f32x16 lanes[Q];
            SC_UNROLL for (int q = 0; q < Q; ++q) {
                lanes[q] = q < Q - 1 || whole ? load(b + q * 16) : load_partial(b + q * 16, sweep.last_lanes);
            }
            for (; word; word &= word - 1) {
                const int channel = __builtin_ctzll(word);
                const f32x16 av = splat(a + channel);
                float *sum = sums + channel * (Q * 16);
                SC_UNROLL for (int q = 0; q < Q; ++q) store(sum + q * 16, fma(av, lanes[q], load(sum + q * 16)));
            }
        }
    }
}

SC_INLINE void sweep_points(int64_t vectors, const points_sweep &sweep) {
    static constexpr void (*kernels[])(const points_sweep &) = {
        gradient_points<1>, gradient_points<2>, gradient_points<3>, gradient_points<4>, gradient_points<5>,
        gradient_points<6>};
    static_assert(sizeof(kernels) / sizeof(*kernels) <= f32x16::accumulators, "B's lanes must stay in registers");
    kernels[vectors - 1](sweep);
}

struct points_scratch {
    float *gradient;   // [lane block][channel][lane]
    float *long_gradient;  // of long_sums
    uint64_t *needed;  // of needed_channels
    uint64_t *live;    // [word of channels][position]
    points_row *rows;  // of the chunk
    int64_t long_floats;

    static constexpr int64_t word_channels = 64;
    struct sizes {
        int64_t gradient, long_gradient, needed, live, rows, live_pitch;
        int64_t total() const { return gradient + long_gradient + needed + live + rows; }
    };
    static int64_t chunks_of_a_chain(const sc_gradient_task &task) {
        return larger(1, POINTS_CHAIN / (task.chunk_rows * task.segment));
    }
    static sizes measure(const sc_gradient_task &task) {
        sizes size = {};
        size.live_pitch = task.chunk_rows * task.segment;
        size.gradient = line(task.lane_blocks * task.channel_block * task.lane_vectors * 16);
        const int64_t chunks = ceil_div(task.batch * task.map.out_rows, task.chunk_rows) * task.segments;
        size.long_gradient = long_sums::size(size.gradient, chunks, chunks_of_a_chain(task));
        size.needed = line(2 * needed_channels::size(task));
        size.live = line(2 * size.live_pitch * ceil_div(task.channel_block, word_channels));
        size.rows = line(task.chunk_rows * (int64_t)(sizeof(points_row) / sizeof(float)));
        return size;
    }
    points_scratch(const sc_gradient_task &task, void *memory) {
        const sizes size = measure(task);
        gradient = (float *)memory;
        long_gradient = gradient + size.gradient, long_floats = size.long_gradient;
        needed = (uint64_t *)(long_gradient + size.long_gradient);
        live = needed + size.needed / 2;
        rows = (points_row *)(live + size.live / 2);
    }
};

SC_INLINE const sc_strand &the_strand(const sc_map &map) { return map.strands[0]; }  // the one that has the tap

// The chunk's rows that meet a row of B, as far as both sides have columns: those of one segment. Returns their number.
static int64_t find_points(const sc_gradient_task &task, int64_t first, int64_t rows, int64_t segment,
                           const points_scratch &scratch) {
    const sc_map &map = task.map;
    const sc_strand &strand = the_strand(map);
    const int64_t begin = larger(segment * task.segment, strand.shift);  // column m of A meets column m - shift of B
    const int64_t met = smaller(strand.out_count, strand.in_count + strand.shift);
    const int64_t end = smaller(met, (segment + 1) * task.segment);
    int64_t used = 0;
    for (int64_t row = first; row < first + rows && begin < end; ++row) {
        const int64_t image = row / map.out_rows, in = map.row_table[row % map.out_rows];
        if (in < 0) continue;
        const float *a = row_of(task.a, image, row % map.out_rows), *b = row_of(task.b, image, in);
        a += (strand.out_start + begin * strand.out_step) * task.a.column_stride;
        b += (strand.in_start + (begin - strand.shift) * strand.in_step) * task.b.column_stride;
        int64_t live = 0;
        if (task.known.data) {
            const int64_t column = strand.out_start + begin * strand.out_step;
            live = mask_columns(task.known, image, row % map.out_rows, column, 1, 1).place;
        }
        scratch.rows[used++] = {a, b, live, end - begin};
    }
    return used;
}

// Words of the channels [first, first + channels) where they are needed, in the order in which A lies in memory.
static void find_channel_words(const sc_gradient_task &task, int64_t rows, int64_t a_step, int64_t first,
                               int64_t channels, const needed_channels &needed,
                               const points_scratch &scratch) {
    const int64_t pitch = points_scratch::measure(task).live_pitch;
    const f32x16 threshold = splat(&task.threshold);
    uint64_t *live = scratch.live;
    for (int64_t row = 0; row < rows && task.known.data; ++row) {
        const int64_t step = the_strand(task.map).out_step * task.known.view.column_stride;
        const mask_columns columns(scratch.rows[row].live, step, scratch.rows[row].columns);
        known_words(task.known, columns, {first, channels, points_scratch::word_channels}, scratch.rows[row].a + first,
                    a_step, live, pitch);
        live += columns.count;
    }
    for (int64_t row = 0; row < rows && !task.known.data; ++row) {
        const float *a = scratch.rows[row].a + first;
        for (int64_t column = 0; column < scratch.rows[row].columns; ++column, a += a_step, ++live) {
            for (int64_t c = 0; c < channels; c += points_scratch::word_channels) {
                if (!needed.anywhere(c)) continue;
                const int count = (int)smaller(points_scratch::word_channels, channels - c);
                live[c / points_scratch::word_channels * pitch] = live_word(a + c, count, threshold);
            }
        }
    }
}

static void gradient_points_item(const sc_gradient_task &task, const gradient_share &share, void *memory) {
    const sc_map &map = task.map;
    const points_scratch scratch(task, memory);
    const int64_t pitch = points_scratch::measure(task).live_pitch;
    const needed_channels needed(task, share, scratch.needed);
    share.clear(scratch.gradient);
    long_sums sums(scratch.gradient, scratch.long_gradient, scratch.long_floats, share.floats(),
                   points_scratch::chunks_of_a_chain(task));
    const sc_strand &strand = the_strand(map);
    points_sweep sweep = {};
    sweep.rows = scratch.rows;
    sweep.a_step = strand.out_step * task.a.column_stride, sweep.b_step = strand.in_step * task.b.column_stride;
    for (int64_t first = 0; first < task.batch * map.out_rows; first += task.chunk_rows) {
        const int64_t rows = smaller(task.chunk_rows, task.batch * map.out_rows - first);
        for (int64_t segment = 0; segment < task.segments; ++segment) {
            if (task.interrupt.poll(task.interrupt.context)) return;
            sweep.row_count = find_points(task, first, rows, segment, scratch);
            const int64_t channel = share.group * task.channels + share.channel;
            find_channel_words(task, sweep.row_count, sweep.a_step, channel, share.channels, needed, scratch);
            for (int64_t block = share.first_block; block < share.end_block; ++block) {
                const int64_t vector = share.blocks.begin(block), vectors = share.blocks.begin(block + 1) - vector;
                sweep.b_offset = share.group * task.lanes + vector * 16;
                sweep.last_lanes = (int)smaller(16, task.lanes - (vector + vectors - 1) * 16);
                for (int64_t c = 0; c < share.channels; c += points_scratch::word_channels) {
                    sweep.needed = needed.word(block - share.first_block, c);
                    if (!sweep.needed) continue;
                    sweep.a_offset = channel + c;
                    sweep.live = scratch.live + c / points_scratch::word_channels * pitch;
                    sweep.sums = share.tile(scratch.gradient, block) + c * vectors * 16;
                    sweep_points(vectors, sweep);
                }
            }
            sums.added();
        }
    }
    sums.finish();
    store_gradient(task, share, scratch.gradient);
}

SC_CLOSE
