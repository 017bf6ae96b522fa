// What becomes of finished sums, in forward and backward_data:
//
//   y = act( sum + bias + residual ), zeros where a mask does not need it; the bits of what is not zero
//
// The first sums of a result are added to the bias (`begin_with_bias`) as later ones are to what was summed before,
// which costs nothing; outputs/outputs.h, whose sums lie packed, adds it at the end. The rest comes in the last store.
// The arithmetic is `with_residual` and `finished`, for all kernels alike: a further step of an epilogue belongs there,
// and its operand into sc_epilogue. How vectors get to memory differs, since lanes do:
//   row_results      lanes are channels, which lie side by side in memory: Q vectors of an output (rows/, amx/)
//   finish_tile      lanes are channels, which do not: a tile of sums goes through transposes (rows/, groups/, amx/)
//   groups/groups.h  lanes are channels, of which one vector at a time is finished for some outputs
//   weights/         lanes are outputs: they are turned into channels or columns first (weights/lane_lines.h), or are
//                    one (weights/lone.h)
//
// The residual is read in the last store, not as what sums begin with. So it comes after the sum, as in a network that
// adds it later, and takes part in no order of a sum; it is read once, when its line is about to be written; and as
// every result is stored once, it may be the result itself. As what sums begin with, it would have to be read as well,
// and where channels do not lie side by side it would need a transpose of its own, and room in the tile.
//
// Time of the call without a residual is 1 (Zen 4, one thread, batch 8, channels last; minima of turns): the residual
// here, and added afterwards by another sweep over memory, in place and together with ReLU.
//                        no zeros       50%            80%
//   64,256,56 1x1        1.07  1.21     1.10  1.28     1.21  1.60
//   128,512,28 1x1       1.03  1.11     1.07  1.17     1.21  1.33
//   256,1024,14 1x1      1.07  1.08     1.10  1.11     1.13  1.26
//   64,64,56 3x3         1.02  1.03     1.01  1.05     1.03  1.09
#pragma once
#include "common/tile.h"

SC_OPEN

SC_INLINE void begin_with_bias(const sc_epilogue &end, int64_t first, int64_t channels, float *to) {
    for (int64_t i = 0; i < channels; ++i) to[i] = end.bias ? end.bias[first + i] + 0.0f : 0;  // flushes denormals
}

// NaN stays.
SC_INLINE f32x16 finished(f32x16 sum, bool relu) { return relu ? maximum(zero(), sum) : sum; }
SC_INLINE float finished(float sum, bool relu) { return relu && sum < 0 ? 0 : sum; }

SC_INLINE f32x16 with_residual(f32x16 sum, const float *residual, int lanes) {
    return add(sum, lanes == 16 ? load(residual) : load_partial(residual, lanes));
}

SC_INLINE void store_result(float *to, f32x16 result, int lanes, bool stream) {
    if (lanes != 16) store_partial(to, result, lanes);
    else if (stream) store_stream(to, result);
    else store(to, result);
}

// Whether results leave as vectors of channels: where those of a pixel lie side by side.
SC_INLINE bool in_vectors(const sc_view &out, const sc_epilogue &end) {
    return channels_contiguous(out) && (!end.residual.data || channels_contiguous(end.residual));
}
// Whether lines that leave are not in a cache anyway.
SC_INLINE bool past_caches(const sc_view &out, const sc_epilogue &end) {
    return end.stream && end.residual.data != out.data;
}

// Neighbouring outputs that leave as vectors of channels. All zeros but for `last_lanes`: partial sums.
struct row_results {
    bool relu;
    bool stream;     // past the caches; then no vector is partial, and `to` is aligned
    int last_lanes;  // lanes of the last vector of an output that memory takes
    const float *residual;  // of the first output, or null
    int64_t residual_pitch;
    const uint64_t *needed;  // null, or the lanes of the first output that are needed as bits; the others are cleared
    int64_t needed_pitch, needed_lanes_pitch;  // words to the next column, and to the next 64 lanes
    uint16_t *bits;       // null, or with ReLU where the bits of the nonzero results go; then no vector is partial
    const float *origin;  // the result that the first bit belongs to

    // Whether sums are more than stored.
    SC_INLINE_MEMBER bool finishes() const { return relu || amends() || last_lanes != 16; }
    SC_INLINE_MEMBER int lanes(int vector, int vectors) const { return vector + 1 == vectors ? last_lanes : 16; }

    // Clears what is not needed of output i.
    template <int Q>
    SC_INLINE_MEMBER void clear(f32x16 (&sums)[Q], int64_t i) const {
        const uint64_t *words = needed + i * needed_pitch;
        uint64_t word = *words;
        SC_UNROLL for (int q = 0; q < Q; ++q, word >>= 16) {
            if (q == 4) word = words[needed_lanes_pitch];
            sums[q] = keep(sums[q], word & 0xffff);
        }
    }

    // What later outputs take is asked for.
    template <int Q>
    SC_INLINE_MEMBER void add_residual(f32x16 (&sums)[Q], int64_t i) const {
        const float *from = residual + i * residual_pitch;
        prefetch<Q>(i + 4);
        SC_UNROLL for (int q = 0; q < Q; ++q) sums[q] = with_residual(sums[q], from + 16 * q, lanes(q, Q));
    }

    // Asks for the residual of output i.
    template <int Q>
    SC_INLINE_MEMBER void prefetch(int64_t i) const {
        SC_UNROLL for (int q = 0; q < Q; ++q) __builtin_prefetch(residual + i * residual_pitch + 16 * q);
    }

    // What output i has beside its sums, seldom: one test for all of it.
    SC_INLINE_MEMBER bool amends() const { return needed || residual; }
    template <int Q>
    SC_INLINE_MEMBER void amend(f32x16 (&sums)[Q], int64_t i) const {
        if (needed) clear(sums, i);
        if (residual) add_residual(sums, i);
    }

    // An output then, whose first vector goes to `to`. A vector's bits come after its store: before it GCC 12 has no
    // registers left for the two halves of a comparison (AVX2), and spills.
    template <int Q>
    SC_INLINE_MEMBER void leave(const f32x16 (&sums)[Q], float *to) const {
        SC_UNROLL for (int q = 0; q < Q; ++q) {
            const f32x16 result = finished(sums[q], relu);
            store_result(to + 16 * q, result, lanes(q, Q), stream);
            if (bits) bits[(to - origin) / 16 + q] = (uint16_t)nonzero(result);
        }
    }
};

// Some columns of one row, channels [first, last) of them, where they do not lie side by side.
struct row_piece {
    int64_t image, row, first, last, column, step, columns;  // columns column + i * step, 0 <= i < columns

    SC_INLINE_MEMBER float *in(const sc_view &view) const {
        return row_of(view, image, row) + column * view.column_stride;
    }
};

template <bool ADDS>
static void finish_blocks(const sc_epilogue &end, const sc_view &out, const float *sums, int64_t pitch,
                          const row_piece &piece) {
    const sc_view &residual = end.residual;
    const int64_t to_step = piece.step * out.column_stride, from_step = piece.step * residual.column_stride;
    const float lowest = end.relu ? 0 : -__builtin_inff();
    const f32x16 least = splat(&lowest);  // a branch within would keep the block in memory
    f32x16 block[16];
    for (int64_t done = 0; done < piece.columns; done += 16) {
        const int count = (int)smaller(16, piece.columns - done);
        for (int64_t channel = piece.first; channel < piece.last;) {
            int run = channel_run(out, channel, piece.last);
            const float *tile = sums + done * pitch + channel - piece.first;
            if (ADDS) {
                run = (int)smaller(run, channel_run(residual, channel, piece.last));
                const float *from = piece.in(residual) + channel_offset(residual, channel) + done * from_step;
                prefetch_next(residual, from, from_step);
                if (to_step == 1 && from_step == 1) {  // both lie along columns: one transpose for both
                    float *to = piece.in(out) + channel_offset(out, channel) + done;
                    load_block(block, tile, pitch, count, 1, 16);
                    transpose(block);
                    SC_UNROLL for (int i = 0; i < 16; ++i) {
                        if (i < run) block[i] = with_residual(block[i], from + i * residual.channel_stride, count);
                        block[i] = maximum(least, block[i]);
                    }
                    store_block(block, to, out.channel_stride, run, 1, count);
                    channel += run;
                    continue;
                }
                load_block_transposed(block, from, residual.channel_stride, run, from_step, count);
                SC_UNROLL for (int i = 0; i < 16; ++i) {
                    block[i] = i < count ? add(load(tile + i * pitch), block[i]) : zero();
                }
            } else {
                load_block(block, tile, pitch, count, 1, 16);
            }
            SC_UNROLL for (int i = 0; i < 16; ++i) block[i] = maximum(least, block[i]);
            float *to = piece.in(out) + channel_offset(out, channel) + done * to_step;
            store_block_transposed(block, to, out.channel_stride, run, to_step, count);
            channel += run;
        }
    }
}

// A piece of `out` from a tile of sums, [column][lane], `pitch` floats a column. Reads whole vectors: 16 floats behind
// the tile belong to it.
SC_INLINE void finish_tile(const sc_epilogue &end, const sc_view &out, const float *sums, int64_t pitch,
                           const row_piece &piece) {
    if (end.residual.data) finish_blocks<true>(end, out, sums, pitch, piece);
    else finish_blocks<false>(end, out, sums, pitch, piece);
}

SC_CLOSE
