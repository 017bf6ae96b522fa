// forward and backward_data of narrow groups, dense.
//
//   out[n, row, column, k] = end( bias[k] + sum over outer taps, strands, channels c of k's group, taps j of
//                                 in[n, row_table[row][tap], m + j - shift, c] * weight[k, c, tap, j] )
//
// Lanes are 16 channels k that follow one another (groups/lanes.h): depthwise, that is one multiply-add per tap and
// vector. Loop order, outermost first:
//   item     chunk of output rows, share of the vectors
//   vector   one at a time only where something is packed or stored through a transpose
//   row, phase, columns: up to P neighbouring outputs of a phase
//   vector   otherwise: pixels are read along their channels, a few streams side by side, whatever their number
//   outer tap and strand: the steps of these outputs, found once for all vectors
//   channel of the group: its taps stay in registers, each input is read (and spread) once for all outputs it reaches
// A sum is complete before the next one begins: none is loaded and added to, and bias, ReLU and bits cost nothing.
// The order of a sum is that of steps, channels and columns, which neither chunks nor threads change.
//
// Padding is never multiplied: input columns outside the image are left out, with all their outputs.
//
// Registers: P outputs, up to three weights and one input; P = 8 on avx512 (eight chains hide the four cycles of a
// multiply-add at two per cycle), 4 of two or four registers on avx2 and neon.
//
// Zeros are not looked for: 16 channels are seldom zeros together (at 80% zeros 3% of the vectors), and one test saves
// three multiply-adds, less than a branch that is mispredicted.
//
// Tried (Zen 5, one thread, batch 16, interleaved with oneDNN 3.12; of its speed):
// - asking for the next input row, in the order in which the vectors will read it: 64,112 3x3/2 0.60 -> 0.77, 144,56/2
//   0.56 -> 0.78, but where the last cache holds the input 192,28/2 0.97 -> 0.83, 576,14/2 0.96 -> 0.88: only for
//   inputs past the caches. In the order of memory: 0.60 and 0.66;
// - groups of 32 channels, which fill two vectors: 1024,14/2 0.72 -> 1.10, 1024,7 0.81 -> 1.09 of the kernel of wide
//   groups, since an input that is broadcast is used for three taps at once.
//
// One file: one driver, whose loops share their scratch memory.
#pragma once
#include "common/epilogue.h"
#include "groups/lanes.h"

SC_OPEN

enum { GROUP_COLUMNS = f32x16::accumulators > 12 ? 8 : f32x16::dense_pixels > 4 ? 4 : 2 };

// One outer tap and strand of some outputs.
struct group_step {
    const float *in;     // the first input column that they can reach, for vector offset 0
    int64_t weights;     // behind a vector's bias
    int64_t in_pitch;    // from one input column to the next
    int taps, low, high; // input columns low <= i < high are there
};

// P neighbouring outputs of a phase, of some vectors.
struct group_outputs {
    const group_step *steps;
    int64_t count;
    bool whole;             // all steps have all their columns
    int64_t in_offset;      // from what the steps say to these outputs
    int channels;
    const float *weights;   // bias and weights of the first vector
    int64_t weights_pitch;  // to the next vector
    const int64_t *in_offsets, *out_offsets;  // of each vector
    int64_t vectors;
    float *out;
    int64_t out_pitch;
    bool relu, stream;
    uint16_t *bits;
    const float *origin;
    const float *residual;  // or null
    int64_t residual_pitch;
    const int64_t *residual_offsets;  // of each vector
    int64_t twice;  // the vector, counted from the first one, whose first `done` lanes are another one's as well
    int done;
    // input of the next row, which is asked for meanwhile
    const float *next[2];
    int next_count, next_columns;
    int64_t next_pitch;
};

// The lanes from `done` on.
SC_INLINE void store_behind(float *to, f32x16 result, int done) {
    float lanes[16];
    store(lanes, result);
    for (int lane = done; lane < 16; ++lane) to[lane] = lanes[lane];
}

template <int M>
SC_INLINE f32x16 group_input(const float *pixel, int channel) {
    if constexpr (M == 0) return load(pixel + channel * 16);
    else return spread<M>(pixel, channel);
}

template <int M, int P, int T, bool WHOLE>
SC_INLINE void group_taps(f32x16 (&acc)[P], const group_step &step, const float *in, const float *w, int channels) {
    for (int channel = 0; channel < (M == 1 ? 1 : channels); ++channel, w += T * 16) {
        f32x16 wv[T];
        SC_UNROLL for (int j = 0; j < T; ++j) wv[j] = load(w + 16 * j);
        SC_UNROLL for (int i = 0; i < P + T - 1; ++i) {
            if (!WHOLE && (i < step.low || i >= step.high)) continue;
            const f32x16 xv = group_input<M>(in + i * step.in_pitch, channel);
            SC_UNROLL for (int j = 0; j < T; ++j) {
                if (i - j >= 0 && i - j < P) acc[i - j] = fma(xv, wv[j], acc[i - j]);
            }
        }
    }
}

template <int M, int P, bool WHOLE>
SC_INLINE void group_steps(const group_outputs &outputs) {
    const float *weights = outputs.weights;
    for (int64_t vector = 0; vector < outputs.vectors; ++vector, weights += outputs.weights_pitch) {
        f32x16 acc[P];
        SC_UNROLL for (int p = 0; p < P; ++p) acc[p] = load(weights);
        const int64_t offset = outputs.in_offsets[vector];
        for (int64_t i = 0; i < outputs.count; ++i) {
            const group_step &step = outputs.steps[i];
            const float *in = step.in + outputs.in_offset + offset, *w = weights + 16 + step.weights;
            if (step.taps == 3) group_taps<M, P, 3, WHOLE>(acc, step, in, w, outputs.channels);
            else if (step.taps == 2) group_taps<M, P, 2, WHOLE>(acc, step, in, w, outputs.channels);
            else group_taps<M, P, 1, WHOLE>(acc, step, in, w, outputs.channels);
        }
        for (int n = 0; n < outputs.next_count; ++n) {
            const float *next = outputs.next[n] + offset;
            for (int done = 0; done < outputs.next_columns; done += P, next += P * outputs.next_pitch) {
                SC_UNROLL for (int p = 0; p < P; ++p) __builtin_prefetch(next + p * outputs.next_pitch, 0, 2);
            }
        }
        float *out = outputs.out + outputs.out_offsets[vector];
        if (outputs.residual) {
            const float *residual = outputs.residual + outputs.residual_offsets[vector];
            SC_UNROLL for (int p = 0; p < P; ++p) {
                acc[p] = with_residual(acc[p], residual + p * outputs.residual_pitch, 16);
            }
        }
        SC_UNROLL for (int p = 0; p < P; ++p) acc[p] = finished(acc[p], outputs.relu);
        if (vector == outputs.twice) {
            SC_UNROLL for (int p = 0; p < P; ++p) store_behind(out + p * outputs.out_pitch, acc[p], outputs.done);
            continue;
        }
        SC_UNROLL for (int p = 0; p < P; ++p) store_result(out + p * outputs.out_pitch, acc[p], 16, outputs.stream);
        if (!outputs.bits) continue;
        SC_UNROLL for (int p = 0; p < P; ++p) {
            outputs.bits[(out - outputs.origin + p * outputs.out_pitch) / 16] = (uint16_t)nonzero(acc[p]);
        }
    }
}

template <int M, int P>
static void group_outputs_of(const group_outputs &outputs) {
    if (outputs.whole) group_steps<M, P, true>(outputs);
    else group_steps<M, P, false>(outputs);
}

typedef void (*group_kernel)(const group_outputs &);

template <int M>
SC_INLINE group_kernel group_kernel_of(int64_t columns) {
    if constexpr (GROUP_COLUMNS == 8) {
        static constexpr group_kernel kernels[] = {
            group_outputs_of<M, 1>, group_outputs_of<M, 2>, group_outputs_of<M, 3>, group_outputs_of<M, 4>,
            group_outputs_of<M, 5>, group_outputs_of<M, 6>, group_outputs_of<M, 7>, group_outputs_of<M, 8>,
        };
        return kernels[columns - 1];
    } else if constexpr (GROUP_COLUMNS == 4) {
        static constexpr group_kernel kernels[] = {
            group_outputs_of<M, 1>, group_outputs_of<M, 2>, group_outputs_of<M, 3>, group_outputs_of<M, 4>,
        };
        return kernels[columns - 1];
    } else {
        static constexpr group_kernel kernels[] = {group_outputs_of<M, 1>, group_outputs_of<M, 2>};
        return kernels[columns - 1];
    }
}

SC_INLINE group_kernel group_kernel_for(int64_t spread, int64_t columns) {
    switch (spread) {
        case 1: return group_kernel_of<1>(columns);
        case 2: return group_kernel_of<2>(columns);
        case 4: return group_kernel_of<4>(columns);
        case 8: return group_kernel_of<8>(columns);
        case 16: return group_kernel_of<16>(columns);
        default: return group_kernel_of<0>(columns);
    }
}

SC_INLINE int64_t packed_group_pitch(const sc_groups_task &task, const narrow_lanes &lanes) {
    return 16 + lanes.weights(task.map);
}

static int64_t pack_groups_bytes(const sc_groups_task *task) {
    const narrow_lanes lanes(*task);
    return lanes.vectors * packed_group_pitch(*task, lanes) * (int64_t)sizeof(float);
}

// Bias and weights of vectors [begin, end).
static void pack_groups(const sc_groups_task *task, int64_t begin, int64_t end, void *) {
    const narrow_lanes lanes(*task);
    for (int64_t vector = begin; vector < end; ++vector) {
        float *to = task->packed + vector * packed_group_pitch(*task, lanes);
        const int64_t first = lanes.first(vector), count = smaller(16, lanes.total - first);
        store(to, zero());
        begin_with_bias(task->epilogue, first, count, to);
        move_group_weights<true>(to + 16, task->map, task->weight, lanes, vector, 0);
    }
}

// What a work item keeps in its scratch memory.
struct group_scratch {
    const float **sources;  // [row][outer tap]: column 0 of the input row, or null
    int64_t *slots;         // where an input row has been packed, by its distance from the lowest one of the chunk
    int64_t *offsets;       // of each vector in a row of `in`, then of `out`, then of a residual
    group_step *steps;      // [outer tap][strand of the phase]
    float *pixels;          // [slot][column][packed pixel]
    float *sums;            // [row][column][lane]

    struct sizes {  // in floats, rounded to cache lines
        int64_t sources, slots, offsets, steps, pixels, sums;
        int64_t total() const { return sources + slots + offsets + steps + pixels + sums; }
    };
    static sizes measure(const sc_groups_task &task, const narrow_lanes &lanes) {
        const sc_map &map = task.map;
        const int64_t pairs = task.chunk_rows * map.outer_taps, in_rows = task.batch * map.in_rows;
        const int64_t pixels = smaller(pairs, in_rows) * task.in_segment * lanes.packed_pitch();
        const int64_t steps = map.outer_taps * task.most_strands * (int64_t)sizeof(group_step) / 4;
        const int64_t columns = task.chunk_rows * task.segment;
        return {line(2 * pairs), line(2 * in_rows), line(6 * lanes.vectors), line(steps),
                task.in_place ? 0 : line(pixels), task.out_place ? 0 : 16 * columns + 16};
    }

    group_scratch(const sc_groups_task &task, const narrow_lanes &lanes, void *memory) {
        const sizes size = measure(task, lanes);
        float *next = (float *)memory;
        sources = (const float **)next, next += size.sources;
        slots = (int64_t *)next, next += size.slots;
        offsets = (int64_t *)next, next += size.offsets;
        steps = (group_step *)next, next += size.steps;
        pixels = next, next += size.pixels;
        sums = next;
    }
};

static int64_t groups_scratch_bytes(const sc_groups_task *task) {
    return group_scratch::measure(*task, narrow_lanes(*task)).total() * (int64_t)sizeof(float);
}

// Where the input rows of a chunk are, for one vector that is packed, or for all of them.
static void find_group_sources(const sc_map &map, const sc_view &view, int64_t channels, bool in_place,
                               const row_chunk &chunk, const narrow_lanes &lanes, int64_t vector, const float **sources,
                               int64_t *slots, float *packed) {
    const row_span span(map, chunk.first, in_place ? 0 : chunk.rows);
    const int64_t pitch = lanes.packed_pitch();
    for (int64_t i = 0; i < span.rows; ++i) slots[i] = -1;
    int64_t used = 0;
    for (int64_t i = 0; i < chunk.rows; ++i) {
        const int64_t image = (chunk.first + i) / map.out_rows, row = (chunk.first + i) % map.out_rows;
        for (int64_t tap = 0; tap < map.outer_taps; ++tap) {
            const float *&source = sources[i * map.outer_taps + tap];
            const int64_t in = map.row_table[row * map.outer_taps + tap];
            source = nullptr;
            if (in < 0) continue;
            source = row_of(view, image, in);
            if (in_place) continue;
            int64_t &slot = slots[image * map.in_rows + in - span.first];
            float *pixels = packed + (slot < 0 ? used : slot) * chunk.in_columns * pitch;
            if (slot < 0) {
                slot = used++;
                pack_group_pixels(pixels, view, source, lanes, vector, channels, chunk.in_column, chunk.in_columns);
            }
            source = pixels - chunk.in_column * pitch;
        }
    }
}

// Two at most of the input rows that output row `out` meets and the one before it does not. Returns their number.
SC_INLINE int64_t new_group_rows(const sc_groups_task &task, int64_t out, const float *(&rows)[2]) {
    const sc_map &map = task.map;
    if (out >= task.batch * map.out_rows) return 0;
    const int64_t row = out % map.out_rows, *met = map.row_table + row * map.outer_taps;
    int64_t seen = -1, count = 0;
    for (int64_t tap = 0; row > 0 && tap < map.outer_taps; ++tap) seen = larger(seen, met[tap - map.outer_taps]);
    for (int64_t tap = 0; tap < map.outer_taps && count < 2; ++tap) {
        if (met[tap] > seen) rows[count++] = row_of(task.in, out / map.out_rows, met[tap]);
    }
    return count;
}

// The steps of `columns` outputs of a phase, from `column` on. Returns their number.
static int64_t find_group_steps(const sc_groups_task &task, const group_scratch &scratch, int64_t row,
                                const int64_t *strands, int64_t strand_count, int64_t pitch, int64_t column,
                                int64_t columns) {
    const sc_map &map = task.map;
    const weight_tile shape = {map, task.channels, 1, false};
    int64_t count = 0;
    for (int64_t tap = 0; tap < map.outer_taps; ++tap) {
        const float *source = scratch.sources[row * map.outer_taps + tap];
        if (!source) continue;
        for (int64_t p = 0; p < strand_count; ++p) {
            const sc_strand &strand = map.strands[strands[p]];
            const int64_t in = column - strand.shift;
            const int64_t low = larger(0, -in), high = smaller(columns + strand.taps - 1, strand.in_count - in);
            if (low >= high) continue;
            group_step &step = scratch.steps[count++];
            step.in_pitch = strand.in_step * pitch;
            step.in = source + strand.in_start * pitch + in * step.in_pitch;
            step.weights = shape.strand_offset(tap, strand.taps_before);
            step.taps = (int)strand.taps, step.low = (int)low, step.high = (int)high;
        }
    }
    return count;
}

// One row of a chunk, for vectors [begin, end).
static void group_row(const sc_groups_task &task, const row_chunk &chunk, const group_scratch &scratch,
                      const narrow_lanes &lanes, int64_t row, int64_t begin, int64_t end) {
    const sc_map &map = task.map;
    const int64_t pitch = task.in_place ? task.in.column_stride : lanes.packed_pitch();
    const int64_t out_row = chunk.first + row;
    group_outputs outputs = {};
    outputs.channels = (int)task.channels, outputs.twice = -1;
    outputs.weights_pitch = packed_group_pitch(task, lanes), outputs.vectors = end - begin;
    outputs.weights = task.packed + begin * outputs.weights_pitch;
    outputs.in_offsets = scratch.offsets + begin, outputs.out_offsets = scratch.offsets + lanes.vectors + begin;
    outputs.steps = scratch.steps;
    float *out = scratch.sums + (row * chunk.columns - chunk.column) * 16;
    int64_t out_pitch = 16;
    const sc_epilogue &epilogue = task.epilogue;
    const float *residual = nullptr;
    if (task.out_place) {
        const int64_t image = out_row / map.out_rows;
        out = row_of(task.out, image, out_row % map.out_rows), out_pitch = task.out.column_stride;
        outputs.relu = epilogue.relu, outputs.bits = epilogue.bits, outputs.origin = task.out.data;
        if (epilogue.residual.data) {
            residual = row_of(epilogue.residual, image, out_row % map.out_rows);
            outputs.residual_offsets = scratch.offsets + 2 * lanes.vectors + begin;
            if (lanes.overlap) {  // where the residual is the result, some of it has been overwritten by then
                outputs.twice = lanes.vectors - 1 - begin, outputs.done = (int)(16 * lanes.vectors - lanes.total);
            }
        }
    }
    const auto place = [&](int64_t column, int64_t step) {
        outputs.out = out + column * out_pitch, outputs.out_pitch = step * out_pitch;
        if (!residual) return;
        outputs.residual = residual + column * epilogue.residual.column_stride;
        outputs.residual_pitch = step * epilogue.residual.column_stride;
    };
    const float *next[2];
    outputs.next_pitch = pitch;
    if (task.ahead) outputs.next_count = (int)new_group_rows(task, out_row + 1, next);
    const int64_t apart = task.out.column_stride | task.out.block_stride;
    outputs.stream = task.out_place && past_caches(task.out, epilogue) && !lanes.overlap &&
                     ((uintptr_t)out | apart * 4) % 64 == 0;
    for (int64_t phase = 0; phase < task.phase_count; ++phase) {
        const int64_t *strands = task.phase_strands + task.phases[phase];
        const int64_t strand_count = task.phases[phase + 1] - task.phases[phase];
        int64_t first, last;
        chunk.range(map.strands[strands[0]], first, last);
        if (first >= last) continue;
        const sc_strand &any = map.strands[strands[0]];
        // Outputs whose taps are all inside the image: their steps are the same but for the column.
        int64_t whole_first = first, whole_last = last, base = -1;
        for (int64_t p = 0; p < strand_count; ++p) {
            const sc_strand &strand = map.strands[strands[p]];
            whole_first = larger(whole_first, strand.shift);
            whole_last = smaller(whole_last, strand.in_count + strand.shift - (strand.taps - 1));
        }
        const int64_t tiles = ceil_div(last - first, GROUP_COLUMNS);
        for (int64_t tile = 0; tile < tiles; ++tile) {
            const int64_t columns = (last - first) / tiles + (tile < (last - first) % tiles);
            const int64_t column = first + part_begin(last - first, tiles, tile);
            outputs.whole = column >= whole_first && column + columns <= whole_last;
            outputs.in_offset = (column - base) * any.in_step * pitch;
            if (!outputs.whole || base < 0) {
                outputs.count = find_group_steps(task, scratch, row, strands, strand_count, pitch, column, columns);
                outputs.in_offset = 0, base = outputs.whole ? column : -1;
            }
            // this share of all tiles' columns of the next row
            const int64_t part = phase * tiles + tile, parts = task.phase_count * tiles;
            const int64_t ahead = part_begin(map.in_columns, parts, part);
            outputs.next_columns = (int)(part_begin(map.in_columns, parts, part + 1) - ahead);
            for (int n = 0; n < outputs.next_count; ++n) outputs.next[n] = next[n] + ahead * pitch;
            place(any.out_start + column * any.out_step, any.out_step);
            group_kernel_for(task.spread, columns)(outputs);
        }
    }
    outputs.count = 0, outputs.whole = true, outputs.in_offset = 0, outputs.next_count = 0;
    chunk.each_gap(map, [&](int64_t column, int64_t step, int64_t count) {
        for (int64_t done = 0, columns; done < count; done += columns) {
            columns = smaller(GROUP_COLUMNS, count - done);
            place(column + done * step, step);
            group_kernel_for(task.spread, columns)(outputs);
        }
    });
}

static void groups_item(const sc_groups_task &task, int64_t item, const narrow_lanes &lanes,
                        const group_scratch &scratch) {
    const row_chunk chunk(task, item / task.shares);
    const int64_t share = item % task.shares;
    const int64_t begin = part_begin(lanes.vectors, task.shares, share);
    const int64_t end = part_begin(lanes.vectors, task.shares, share + 1);
    const int64_t together = task.in_place && task.out_place ? end - begin : 1;
    for (int64_t vector = begin; vector < end; vector += together) {
        if (task.interrupt.poll(task.interrupt.context)) return;
        find_group_sources(task.map, task.in, task.groups * task.channels, task.in_place, chunk, lanes, vector,
                           scratch.sources, scratch.slots, scratch.pixels);
        for (int64_t row = 0; row < chunk.rows; ++row) {
            group_row(task, chunk, scratch, lanes, row, vector, vector + together);
        }
        for (int64_t row = 0; row < chunk.rows && !task.out_place; ++row) {
            const int64_t out = chunk.first + row, first = lanes.first(vector);
            finish_tile(task.epilogue, task.out, scratch.sums + row * chunk.columns * 16, 16,
                        {out / task.map.out_rows, out % task.map.out_rows, first, smaller(first + 16, lanes.total),
                         chunk.column, 1, chunk.columns});
        }
    }
}

// Items: chunks * shares.
static void groups(const sc_groups_task *task, int64_t begin, int64_t end, void *memory) {
    const narrow_lanes lanes(*task);
    const group_scratch scratch(*task, lanes, memory);
    for (int64_t vector = 0; vector < lanes.vectors; ++vector) {
        int64_t *offsets = scratch.offsets + vector;
        offsets[0] = task->in_place ? channel_offset(task->in, lanes.other(vector)) : 0;
        offsets[lanes.vectors] = task->out_place ? channel_offset(task->out, lanes.first(vector)) : 0;
        offsets[2 * lanes.vectors] = channel_offset(task->epilogue.residual, lanes.first(vector));
    }
    for (int64_t item = begin; item < end; ++item) groups_item(*task, item, lanes, scratch);
    if (task->epilogue.stream) end_streams();
}

// Items of packing, and of storing the gradient of backward_weight.
template <class Task>
static int64_t group_vectors(const Task *task) { return ceil_div(task->groups * task->lanes, 16); }

static int64_t groups_items(const sc_groups_task *task) {
    return ceil_div(task->batch * task->map.out_rows, task->chunk_rows) * task->segments * task->shares;
}

SC_CLOSE
