// backward_weight of narrow groups, dense.
//
//   gradient[k, c, outer tap, j] = sum over images, rows and columns m of
//                                     A[row, m, k] * B[row_table[row][outer tap], m + j - shift, c of k's group]
//
// A is the gradient of the output, whose 16 channels k that follow one another are the lanes (groups/lanes.h); B is the
// input. Loop order, outermost first:
//   item     part of the chunks, share of the vectors: sums of its own, which store_groups_gradient adds up in order
//   chunk    some output rows, few enough for L2
//   vector   packed first, if need be
//   strand, outer taps and channels of the group: as many sums as registers hold, over the whole chunk
//   row, columns: several at a time where an input has to be spread, which all taps of a strand then share
// Chunks and parts depend on sizes alone, so threads do not change a bit. A chain of additions is as long as a chunk;
// the sums of chunks are added up as common/long_sums.h says.
//
// Columns and rows outside the image are left out, not multiplied.
//
// Registers: avx512 up to 24 sums, four vectors of A and one of B; depthwise 9 to 12 sums and a window of nine inputs.
// avx2 and neon: 6 sums.
//
// Tried (Zen 5, one thread, batch 16, interleaved with oneDNN 3.12; of its speed):
// - each input loaded for every tap instead of once, rows at the edges in sweeps of their own: 128,56 3x3 1.55 -> 1.17,
//   32,112 1.6 -> 1.09;
// - not asking for the next chunk: 128,56 3x3 1.55 -> 1.12, 32,112 1.6 -> 1.1;
// - chunks that L2 (1 MB) keeps, of 128, 256 and 384 KB of both operands: 512,14 3x3 0.76, 0.96, 0.47, 672,14 5x5/2
//   2.1, 2.3, 2.7; up to 256 positions, however many channels there are: 0.84 and 5.6; up to 4096: 0.68 and 4.5;
// - seven columns of A in registers instead of a window: 32,112 1.5 -> 1.2, 7 x 7 maps as before;
// - packing both operands where pixels lie 2 or 4 KB apart, in few sets of the caches: 1024,7 0.56 -> 0.45.
// 7 x 7 maps of many channels stay at 0.5 to 0.8, 14 x 14 with stride 2 at 0.6: there both operands come from the last
// cache, a line of each pixel at a time.
//
// One file: one driver, whose loops share their scratch memory.
#pragma once
#include "common/long_sums.h"
#include "groups/groups.h"

SC_OPEN

enum {
    GROUP_SUMS = f32x16::accumulators > 12 ? 24 : 6,
    GROUP_OUTER = f32x16::accumulators > 12 ? 3 : 1,      // outer taps of a depthwise sweep
    GROUP_CHANNELS = GROUP_SUMS / SC_MAX_TAPS,            // channels of a group in a sweep of others
    GROUP_POSITIONS = f32x16::accumulators > 12 ? 4 : 2,  // columns of A side by side there
};

// A row of A, and rows of B that it meets, or null; of other than depthwise sweeps the first one.
struct group_pair {
    const float *a;
    const float *b[3];
};

// One strand over some pairs of rows.
struct group_gradient_sweep {
    const group_pair *pairs;
    int64_t count;
    int64_t a_offset, b_offset;  // of column 0 of the strand and of the vector
    int64_t a_ahead, b_ahead;    // where the next chunk is asked for
    int64_t begin, end;        // columns m of the strand
    int64_t shift, in_count;
    int64_t a_pitch, b_pitch;  // from one column of the strand to the next
    float *sums;
    int64_t outer_pitch;       // to the next outer tap
    int channel;               // first one of the group
};

// The columns of one row for which all taps are inside, of R outer taps. Each input is loaded once: the window of T of
// them turns through fixed registers. Few taps have several sums each, since one multiply-add waits four cycles for the
// one before it.
template <int R, int T, int U>
SC_INLINE void depthwise_columns(f32x16 (&acc)[R][T][U], const float *a, int64_t a_pitch, const float *const (&b)[R],
                                 int64_t b_pitch, int64_t columns, int64_t a_ahead, int64_t b_ahead) {
    constexpr int BLOCK = T == 3 ? 3 : 4;
    int64_t at = 0;
    for (; columns >= BLOCK; columns -= BLOCK, a += BLOCK * a_pitch) {
        f32x16 window[R][T];
        SC_UNROLL for (int r = 0; r < R; ++r) {
            SC_UNROLL for (int j = 0; j + 1 < T; ++j) window[r][j] = load(b[r] + at + j * b_pitch);
        }
        SC_UNROLL for (int k = 0; k < BLOCK; ++k, at += b_pitch) {
            const f32x16 av = load(a + k * a_pitch);
            __builtin_prefetch(a + k * a_pitch + a_ahead, 0, 2);
            __builtin_prefetch(b[R - 1] + at + b_ahead, 0, 2);
            if (R > 1) __builtin_prefetch(b[R > 1 ? R - 2 : 0] + at + b_ahead, 0, 2);
            SC_UNROLL for (int r = 0; r < R; ++r) {
                window[r][(k + T - 1) % T] = load(b[r] + at + (T - 1) * b_pitch);
                SC_UNROLL for (int j = 0; j < T; ++j) {
                    acc[r][j][k % U] = fma(window[r][(k + j) % T], av, acc[r][j][k % U]);
                }
            }
        }
    }
    for (; columns > 0; --columns, a += a_pitch, at += b_pitch) {
        const f32x16 av = load(a);
        SC_UNROLL for (int r = 0; r < R; ++r) {
            SC_UNROLL for (int j = 0; j < T; ++j) acc[r][j][0] = fma(load(b[r] + at + j * b_pitch), av, acc[r][j][0]);
        }
    }
}

// Depthwise, R outer taps at once; where a row does not meet all of them, one after the other.
template <int R, int T>
static void group_gradient_depthwise(const group_gradient_sweep &sweep) {
    constexpr int most = GROUP_SUMS / 2 / (R * T), U = most >= 4 && T == 1 ? 4 : most >= 2 && T < 3 ? 2 : 1;
    f32x16 acc[R][T][U];
    SC_UNROLL for (int r = 0; r < R; ++r) {
        SC_UNROLL for (int j = 0; j < T; ++j) {
            SC_UNROLL for (int u = 0; u < U; ++u) acc[r][j][u] = zero();
        }
    }
    // columns whose taps are all inside
    const int64_t first = smaller(sweep.end, larger(sweep.begin, sweep.shift));
    const int64_t last = larger(first, smaller(sweep.end, sweep.in_count - (T - 1) + sweep.shift));
    const int64_t offset = (first - sweep.shift) * sweep.b_pitch;
    for (int64_t row = 0; row < sweep.count; ++row) {
        const group_pair &pair = sweep.pairs[row];
        const float *const a = pair.a + sweep.a_offset, *b[R];
        bool all = true;
        SC_UNROLL for (int r = 0; r < R; ++r) all = all && pair.b[r], b[r] = pair.b[r] + sweep.b_offset;
        const auto edge = [&](int64_t m) {
            const f32x16 av = load(a + m * sweep.a_pitch);
            SC_UNROLL for (int j = 0; j < T; ++j) {
                const int64_t i = m + j - sweep.shift;
                if (i < 0 || i >= sweep.in_count) continue;
                SC_UNROLL for (int r = 0; r < R; ++r) {
                    if (all || pair.b[r]) acc[r][j][0] = fma(load(b[r] + i * sweep.b_pitch), av, acc[r][j][0]);
                }
            }
        };
        for (int64_t m = sweep.begin; m < first; ++m) edge(m);
        const float *from = a + first * sweep.a_pitch;
        if (all) {
            const float *inside[R];
            SC_UNROLL for (int r = 0; r < R; ++r) inside[r] = b[r] + offset;
            depthwise_columns<R, T, U>(acc, from, sweep.a_pitch, inside, sweep.b_pitch, last - first, sweep.a_ahead,
                                       sweep.b_ahead);
        } else {
            SC_UNROLL for (int r = 0; r < R; ++r) {
                if (!pair.b[r]) continue;
                f32x16 sums[1][T][U];
                const float *const inside[1] = {b[r] + offset};
                SC_UNROLL for (int j = 0; j < T; ++j) {
                    SC_UNROLL for (int u = 0; u < U; ++u) sums[0][j][u] = acc[r][j][u];
                }
                depthwise_columns<1, T, U>(sums, from, sweep.a_pitch, inside, sweep.b_pitch, last - first,
                                           sweep.a_ahead, sweep.b_ahead);
                SC_UNROLL for (int j = 0; j < T; ++j) {
                    SC_UNROLL for (int u = 0; u < U; ++u) acc[r][j][u] = sums[0][j][u];
                }
            }
        }
        for (int64_t m = last; m < sweep.end; ++m) edge(m);
    }
    SC_UNROLL for (int r = 0; r < R; ++r) {
        SC_UNROLL for (int j = 0; j < T; ++j) {
            f32x16 sum = acc[r][j][0];
            SC_UNROLL for (int u = 1; u < U; ++u) sum = add(sum, acc[r][j][u]);
            float *const sums = sweep.sums + r * sweep.outer_pitch + j * 16;
            store(sums, add(load(sums), sum));
        }
    }
}

// P columns of A and the inputs that they meet, of C channels.
template <int M, int C, int T, int P, bool WHOLE>
SC_INLINE void group_gradient_columns(f32x16 (&acc)[C][T], const float *a, int64_t a_pitch, const float *b,
                                      int64_t b_pitch, int channel, int low, int high) {
    f32x16 av[P];
    SC_UNROLL for (int p = 0; p < P; ++p) av[p] = load(a + p * a_pitch);
    SC_UNROLL for (int i = 0; i < P + T - 1; ++i) {
        if (!WHOLE && (i < low || i >= high)) continue;
        SC_UNROLL for (int c = 0; c < C; ++c) {
            const f32x16 bv = group_input<M>(b + i * b_pitch, channel + c);
            SC_UNROLL for (int j = 0; j < T; ++j) {
                if (i - j >= 0 && i - j < P) acc[c][j] = fma(bv, av[i - j], acc[c][j]);
            }
        }
    }
}

template <int M, int C, int T>
static void group_gradient_channels(const group_gradient_sweep &sweep) {
    f32x16 acc[C][T];
    SC_UNROLL for (int c = 0; c < C; ++c) {
        SC_UNROLL for (int j = 0; j < T; ++j) acc[c][j] = zero();
    }
    for (int64_t row = 0; row < sweep.count; ++row) {
        const float *a_row = sweep.pairs[row].a + sweep.a_offset, *b_row = sweep.pairs[row].b[0] + sweep.b_offset;
        for (int64_t m = sweep.begin; m < sweep.end;) {
            const float *a = a_row + m * sweep.a_pitch, *b = b_row + (m - sweep.shift) * sweep.b_pitch;
            const int64_t columns = sweep.end - m;
            const int low = (int)larger(0, smaller(99, sweep.shift - m));
            const int high = (int)larger(0, smaller(99, sweep.in_count - (m - sweep.shift)));
            constexpr int P = GROUP_POSITIONS;
            if (columns >= P && low == 0 && high >= P + T - 1) {
                if (sweep.a_ahead) {
                    SC_UNROLL for (int p = 0; p < P; ++p) {
                        __builtin_prefetch(a + p * sweep.a_pitch + sweep.a_ahead, 0, 2);
                        __builtin_prefetch(b + p * sweep.b_pitch + sweep.b_ahead, 0, 2);
                    }
                }
                group_gradient_columns<M, C, T, P, true>(acc, a, sweep.a_pitch, b, sweep.b_pitch, sweep.channel, 0, 0);
                m += P;
            } else if (columns >= P) {
                group_gradient_columns<M, C, T, P, false>(acc, a, sweep.a_pitch, b, sweep.b_pitch, sweep.channel, low,
                                                          high);
                m += P;
            } else {
                group_gradient_columns<M, C, T, 1, false>(acc, a, sweep.a_pitch, b, sweep.b_pitch, sweep.channel, low,
                                                          high);
                m += 1;
            }
        }
    }
    SC_UNROLL for (int c = 0; c < C; ++c) {
        SC_UNROLL for (int j = 0; j < T; ++j) {
            float *const sums = sweep.sums + (c * T + j) * 16;
            store(sums, add(load(sums), acc[c][j]));
        }
    }
}

typedef void (*group_gradient_kernel)(const group_gradient_sweep &);

template <int R>
SC_INLINE group_gradient_kernel depthwise_gradient(int64_t taps) {
    return taps == 3 ? group_gradient_depthwise<R, 3> : taps == 2 ? group_gradient_depthwise<R, 2>
                                                                  : group_gradient_depthwise<R, 1>;
}

template <int M, int C>
SC_INLINE group_gradient_kernel channels_gradient(int64_t taps) {
    return taps == 3 ? group_gradient_channels<M, C, 3> : taps == 2 ? group_gradient_channels<M, C, 2>
                                                                    : group_gradient_channels<M, C, 1>;
}

// The channels of one sweep when `left` are left.
SC_INLINE int64_t sweep_channels(int64_t left) {
    int64_t channels = GROUP_CHANNELS;
    while (channels > left) channels /= 2;
    return channels;
}

template <int M>
SC_INLINE group_gradient_kernel channels_gradient_of(int64_t channels, int64_t taps) {
    if constexpr (GROUP_CHANNELS == 8) {
        if (channels == 8 && (M == 0 || M >= 8)) return channels_gradient<M, M == 0 || M >= 8 ? 8 : 2>(taps);
        if (channels == 4 && M != 2) return channels_gradient<M, M != 2 ? 4 : 2>(taps);
    }
    return channels >= 2 ? channels_gradient<M, 2>(taps) : channels_gradient<M, 1>(taps);
}

SC_INLINE group_gradient_kernel group_gradient_kernel_for(int64_t spread, int64_t channels, int64_t taps) {
    switch (spread) {
        case 2: return channels_gradient_of<2>(channels, taps);
        case 4: return channels_gradient_of<4>(channels, taps);
        case 8: return channels_gradient_of<8>(channels, taps);
        case 16: return channels_gradient_of<16>(channels, taps);
        default: return channels_gradient_of<0>(channels, taps);
    }
}

SC_INLINE group_gradient_kernel depthwise_gradient_for(int64_t outer_taps, int64_t taps) {
    if constexpr (GROUP_OUTER == 3) {
        if (outer_taps == 3) return depthwise_gradient<3>(taps);
        if (outer_taps == 2) return depthwise_gradient<2>(taps);
    }
    return depthwise_gradient<1>(taps);
}

// Rows of a chunk that meet rows of B at some of `outer` outer taps, from `tap` on, and their pairs.
struct group_rows {
    const group_pair *pairs;
    int64_t count, tap, outer;
};

struct group_gradient_scratch {
    const float **sources;  // [row][outer tap]: rows of B
    int64_t *slots;
    group_pair *pairs;
    group_rows *lists;
    float *a;               // [row][column][lane]
    float *b;               // [slot][column][packed pixel]
    float *longer;          // long_sums of a share of the vectors

    struct sizes {  // in floats, rounded to cache lines
        int64_t sources, slots, pairs, lists, a, b, longer;
        int64_t total() const { return sources + slots + pairs + lists + a + b + longer; }
    };
    static int64_t chunks(const sc_groups_gradient_task &task) {
        return ceil_div(task.batch * task.map.out_rows, task.chunk_rows) * task.segments;
    }
    static int64_t long_size(const sc_groups_gradient_task &task, const narrow_lanes &lanes) {
        const int64_t floats = ceil_div(lanes.vectors, task.shares) * lanes.weights(task.map);
        return long_sums::size(floats, ceil_div(chunks(task), task.sum_parts), SHORT_CHAIN);
    }
    static sizes measure(const sc_groups_gradient_task &task, const narrow_lanes &lanes) {
        const sc_map &map = task.map;
        const int64_t pairs = task.chunk_rows * map.outer_taps, in_rows = task.batch * map.in_rows;
        const int64_t pixels = smaller(pairs, in_rows) * task.in_segment * lanes.packed_pitch();
        return {line(2 * pairs), line(2 * in_rows), line((pairs + 1) * (int64_t)sizeof(group_pair) / 4),
                line(map.outer_taps * (int64_t)sizeof(group_rows) / 4),
                task.a_place ? 0 : 16 * task.chunk_rows * task.segment, task.b_place ? 0 : line(pixels),
                long_size(task, lanes)};
    }

    group_gradient_scratch(const sc_groups_gradient_task &task, const narrow_lanes &lanes, void *memory) {
        const sizes size = measure(task, lanes);
        float *next = (float *)memory;
        sources = (const float **)next, next += size.sources;
        slots = (int64_t *)next, next += size.slots;
        pairs = (group_pair *)next, next += size.pairs;
        lists = (group_rows *)next, next += size.lists;
        a = next, next += size.a;
        b = next, next += size.b;
        longer = next;
    }
};

static int64_t groups_gradient_scratch_bytes(const sc_groups_gradient_task *task) {
    return group_gradient_scratch::measure(*task, narrow_lanes(*task)).total() * (int64_t)sizeof(float);
}

static int64_t groups_gradient_sums_bytes(const sc_groups_gradient_task *task) {
    const narrow_lanes lanes(*task);
    return task->sum_parts * lanes.vectors * lanes.weights(task->map) * (int64_t)sizeof(float);
}

// Which rows of a chunk meet which rows of B; depthwise, some outer taps are swept together. Returns how many lists.
static int64_t find_group_rows(const sc_groups_gradient_task &task, const row_chunk &chunk,
                               const group_gradient_scratch &scratch) {
    const sc_map &map = task.map;
    group_pair *pair = scratch.pairs;
    int64_t lists = 0;
    for (int64_t tap = 0, outer; tap < map.outer_taps; tap += outer) {
        outer = task.spread == 1 ? smaller(GROUP_OUTER, map.outer_taps - tap) : 1;
        group_rows &list = scratch.lists[lists];
        list = {pair, 0, tap, outer};
        for (int64_t row = 0; row < chunk.rows; ++row) {
            bool any = false;
            for (int64_t r = 0; r < outer; ++r) {
                pair->b[r] = scratch.sources[row * map.outer_taps + tap + r];
                any = any || pair->b[r];
            }
            if (!any) continue;
            const int64_t out = chunk.first + row;
            pair->a = task.a_place ? row_of(task.a, out / map.out_rows, out % map.out_rows)
                                   : scratch.a + (row * chunk.columns - chunk.column) * 16;
            ++pair, ++list.count;
        }
        if (list.count) ++lists;
    }
    return lists;
}

// All sums of one vector over a chunk.
static void group_gradient_chunk(const sc_groups_gradient_task &task, const row_chunk &chunk, const narrow_lanes &lanes,
                                 int64_t vector, const group_rows *lists, int64_t list_count, float *sums) {
    const sc_map &map = task.map;
    const weight_tile shape = {map, task.channels, 1, false};
    const int64_t a_pitch = task.a_place ? task.a.column_stride : 16;
    const int64_t b_pitch = task.b_place ? task.b.column_stride : lanes.packed_pitch();
    const int64_t a_offset = task.a_place ? channel_offset(task.a, lanes.first(vector)) : 0;
    const int64_t b_offset = task.b_place ? channel_offset(task.b, lanes.other(vector)) : 0;
    for (int64_t p = 0; p < map.strand_count; ++p) {
        const sc_strand &strand = map.strands[p];
        group_gradient_sweep sweep = {};
        chunk.range(strand, sweep.begin, sweep.end);
        if (sweep.begin >= sweep.end) continue;
        sweep.shift = strand.shift, sweep.in_count = strand.in_count;
        sweep.a_pitch = strand.out_step * a_pitch, sweep.b_pitch = strand.in_step * b_pitch;
        sweep.a_offset = a_offset + strand.out_start * a_pitch, sweep.b_offset = b_offset + strand.in_start * b_pitch;
        sweep.outer_pitch = shape.strand_offset(1, 0);
        for (int64_t i = 0; i < list_count; ++i) {
            const group_rows &list = lists[i];
            sweep.pairs = list.pairs, sweep.count = list.count;
            sweep.sums = sums + shape.strand_offset(list.tap, strand.taps_before);
            const bool asks = list.tap == 0 && task.a_place && task.b_place;
            sweep.a_ahead = asks ? task.a_ahead : 0, sweep.b_ahead = asks ? task.b_ahead : 0;
            if (task.spread == 1) {
                depthwise_gradient_for(list.outer, strand.taps)(sweep);
                continue;
            }
            for (int64_t channel = 0, some; channel < task.channels; channel += some) {
                some = sweep_channels(task.channels - channel);
                sweep.channel = (int)channel;
                group_gradient_kernel_for(task.spread, some, strand.taps)(sweep);
                sweep.sums += some * strand.taps * 16, sweep.a_ahead = 0;
            }
        }
    }
}

static void groups_gradient_item(const sc_groups_gradient_task &task, int64_t item, const narrow_lanes &lanes,
                                 const group_gradient_scratch &scratch) {
    const sc_map &map = task.map;
    const int64_t part = item / task.shares, share = item % task.shares, weights = lanes.weights(map);
    const int64_t begin = part_begin(lanes.vectors, task.shares, share);
    const int64_t end = part_begin(lanes.vectors, task.shares, share + 1);
    const int64_t chunks = group_gradient_scratch::chunks(task);
    float *sums = task.sums + part * lanes.vectors * weights;
    long_sums all(sums + begin * weights, scratch.longer, group_gradient_scratch::long_size(task, lanes),
                  (end - begin) * weights, SHORT_CHAIN);
    for (float *at = sums + begin * weights; at < sums + end * weights; at += 16) store(at, zero());
    const int64_t last = part_begin(chunks, task.sum_parts, part + 1);
    for (int64_t index = part_begin(chunks, task.sum_parts, part); index < last; ++index) {
        if (task.interrupt.poll(task.interrupt.context)) return;
        const row_chunk chunk(task, index);
        int64_t lists = 0;
        for (int64_t vector = begin; vector < end; ++vector) {
            if (vector == begin || !task.b_place) {
                find_group_sources(map, task.b, task.groups * task.channels, task.b_place, chunk, lanes, vector,
                                   scratch.sources, scratch.slots, scratch.b);
            }
            if (vector == begin) lists = find_group_rows(task, chunk, scratch);  // packed rows do not move
            for (int64_t row = 0; row < chunk.rows && !task.a_place; ++row) {
                const int64_t out = chunk.first + row, first = lanes.first(vector);
                load_pixels(scratch.a + row * chunk.columns * 16, 16, task.a,
                            row_of(task.a, out / map.out_rows, out % map.out_rows), first,
                            smaller(first + 16, lanes.total), chunk.column, 1, chunk.columns);
            }
            group_gradient_chunk(task, chunk, lanes, vector, scratch.lists, lists, sums + vector * weights);
        }
        all.added();
    }
    all.finish();
}

// Items: parts * shares.
static void groups_gradient(const sc_groups_gradient_task *task, int64_t begin, int64_t end, void *memory) {
    const narrow_lanes lanes(*task);
    const group_gradient_scratch scratch(*task, lanes, memory);
    for (int64_t item = begin; item < end; ++item) groups_gradient_item(*task, item, lanes, scratch);
}

// Adds up the parts of vectors [begin, end) and puts them into their places.
static void store_groups_gradient(const sc_groups_gradient_task *task, int64_t begin, int64_t end, void *) {
    const narrow_lanes lanes(*task);
    const int64_t weights = lanes.weights(task->map), pitch = lanes.vectors * weights;
    for (int64_t vector = begin; vector < end; ++vector) {
        float *sums = task->sums + vector * weights;
        for (int64_t i = 0; i < weights && task->sum_parts > 1; i += 16) {
            f32x16 sum = load(sums + i);
            for (int64_t part = 1; part < task->sum_parts; ++part) sum = add(sum, load(sums + part * pitch + i));
            store(sums + i, sum);
        }
        move_group_weights<false>(sums, task->map, task->gradient, lanes, vector, 16 * vector - lanes.first(vector));
    }
}

static int64_t groups_gradient_items(const sc_groups_gradient_task *task) { return task->sum_parts * task->shares; }

static constexpr sc_groups_table groups_table = {
    {pack_groups, group_vectors, no_scratch}, {groups, groups_items, groups_scratch_bytes}, pack_groups_bytes,
    {groups_gradient, groups_gradient_items, groups_gradient_scratch_bytes},
    {store_groups_gradient, group_vectors, no_scratch}, groups_gradient_sums_bytes,
};

SC_CLOSE
