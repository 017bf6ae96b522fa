// forward and backward_data where only some outputs are needed: one row.
//
//   sums[m][i] += sum over taps j, channels c of in[m + j - shift, c] * weight[k, c, j],  k = the i-th needed channel
//
// The scalar loop is over the bits of a word that says which channels of an output pixel are needed. Nothing is
// broadcast: the pixel's patch of `in`, S taps x Q vectors of channels, is the operand that all its needed channels
// share, and stays in registers where it fits; each needed channel multiplies it with its own S * Q vectors of
// weights, which come from the tile. The lanes of a sum are added up four channels at a time. A channel that is not
// needed costs its bit.
//
// Neighbouring columns share S - 1 of their S taps: the window turns through fixed registers as in rows/skip.h.
// Padding is zeros there: weights that are not finite, which would make NaN of them, are left to outputs_careful.
//
// Why 64 channels a word and S * Q of 6 to 8 vectors, which at most fill a third of the registers: the weights of a
// word then are 24 to 32 KB, L1. Called alone with all of it in L1 or L2 (Zen 4, cycles of which a multiply-add
// takes one): 3 taps x 4 vectors x 32 channels take 1.34 cycles a multiply-add at 80% zeros, 1.5 at 90%, x 64
// channels (48 KB) 1.35 and 1.45, 3 x 8 x 16 1.4 and 1.7, x 64 (96 KB) 1.7 and 1.8, 1 x 8 x 64 1.37 and 1.6, 1 x 16
// x 32 1.6 and 2.1. Words with equally many bits are no faster, so mispredicted branches are hidden here too.
//
// Tried (Zen 4, one thread, batch 16, oneDNN's time / ours at 50, 70, 80, 90% zeros in the mask, interleaved
// pairs):
// - patches of 24 vectors and words of 16 channels: 256,256,14 1.24 1.81 2.38 3.27 against 1.45 2.29 3.13 5.00 now;
// - columns at the edge tap by tap, so that padding is never multiplied: 512,512,7 2.5 against 2.8 at 80%;
// - the mask found and the results written lane block by lane block instead of pixel by pixel: 256,64,56 1x1 1.39
//   against 1.88 at 80%;
// - channel by channel instead: its weights held in registers, its needed positions (words along rows) read from a
//   packed tile, results transposed: 64,64,56 1.34 1.92 2.42 3.36 against 1.52 2.33 3.10 4.63, 512,512,7 1.17 1.59
//   1.99 2.51 against 1.52 2.29 3.05 4.67, 512,128,28 1x1 .87 1.10 1.22 1.34 against 1.34 1.88 2.23 2.65: few
//   positions of a row are needed, so weights come from L2 for little work, and packing and transposing cost as
//   much as the sums.
#pragma once
#include "common/tile.h"

SC_OPEN

struct outputs_sweep {
    const float *in;  // column 0 of the strand, first channel of the block; whole vectors
    int64_t in_pitch, in_count;
    int64_t begin, end;  // output columns m of the strand
    int64_t shift, taps, vectors;
    const float *weights;    // [channel of out][tap][vectors * 16 channels of in]
    const uint64_t *needed;  // of m = begin
    int64_t needed_pitch;
    float *sums;  // of m = begin, side by side; up to 3 floats behind them have zeros added
    int64_t sums_pitch;
};

// `next` loses its lowest bit, which is returned.
SC_INLINE int next_bit(uint64_t &word) {
    const int bit = __builtin_ctzll(word);
    word &= word - 1;
    return bit;
}

// A patch in registers: the window, whose tap 0 is in slot `turn`. each() gives its vectors and their places in the
// order of the weights.
template <int S, int Q>
struct held_patch {
    const f32x16 (&window)[S][Q];
    const int turn;
    template <class Use>
    SC_INLINE_MEMBER void each(const Use &use) const {
        SC_UNROLL for (int i = 0; i < S * Q; ++i) use(window[(turn + i / Q) % S][i % Q], i);
    }
};

// A patch in memory: `taps` pixels.
struct read_patch {
    const float *pixel;
    int64_t pitch, taps, vectors;
    template <class Use>
    SC_INLINE_MEMBER void each(const Use &use) const {
        for (int64_t tap = 0; tap < taps; ++tap) {
            for (int64_t q = 0; q < vectors; ++q) use(load(pixel + tap * pitch + q * 16), tap * vectors + q);
        }
    }
};

// P needed channels together.
template <int P, class Patch>
SC_INLINE void sum_some(const Patch &patch, const float *weights, int64_t pitch, uint64_t &word, float *to) {
    const float *w[P];
    f32x16 acc[4];
    SC_UNROLL for (int p = 0; p < P; ++p) w[p] = weights + next_bit(word) * pitch;
    SC_UNROLL for (int p = 0; p < 4; ++p) acc[p] = zero();
    patch.each([&](f32x16 x, int64_t i) __attribute__((always_inline)) {
        SC_UNROLL for (int p = 0; p < P; ++p) acc[p] = fma(x, load(w[p] + i * 16), acc[p]);
    });
    add_sums(to, acc[0], acc[1], acc[2], acc[3]);
}

// All needed channels of a pixel, `pitch` floats of weights each.
template <class Patch>
SC_INLINE void sum_needed(const Patch &patch, const float *weights, int64_t pitch, uint64_t word, float *to) {
    int count = __builtin_popcountll(word);
    for (; count >= 4; count -= 4, to += 4) sum_some<4>(patch, weights, pitch, word, to);
    if (count == 3) sum_some<3>(patch, weights, pitch, word, to);
    else if (count == 2) sum_some<2>(patch, weights, pitch, word, to);
    else if (count == 1) sum_some<1>(patch, weights, pitch, word, to);
}

// Column m, read from memory: all of its taps together, or those that do not meet padding one by one.
static void outputs_column(const outputs_sweep &row, int64_t m) {
    const int64_t i = m - row.begin, first = m - row.shift, vectors = row.vectors;
    const bool inside = first >= 0 && first + row.taps <= row.in_count;
    const int64_t together = inside ? row.taps : 1;
    for (int64_t tap = 0; tap < row.taps; tap += together) {
        if ((uint64_t)(first + tap) >= (uint64_t)row.in_count) continue;
        const read_patch patch = {row.in + (first + tap) * row.in_pitch, row.in_pitch, together, vectors};
        sum_needed(patch, row.weights + tap * vectors * 16, row.taps * vectors * 16, row.needed[i * row.needed_pitch],
                   row.sums + i * row.sums_pitch);
    }
}

// Column by column. What it is for: registers that do not hold a patch (each vector of it is then loaded once for up to
// four channels), and weights that are not finite, which padding must not meet.
static void outputs_careful(const outputs_sweep &row) {
    for (int64_t m = row.begin; m < row.end; ++m) {
        const float *ahead = row.in + (m - row.shift + row.taps + 3) * row.in_pitch;
        for (int64_t q = 0; q < row.vectors; ++q) __builtin_prefetch(ahead + q * 16);
        outputs_column(row, m);
    }
}

template <int S, int Q>
static void outputs_held(const outputs_sweep &row) {
    static_assert(S * Q + 4 <= f32x16::accumulators, "the patch must stay in registers");
    const int64_t in_pitch = row.in_pitch, in_count = row.in_count;
    const int64_t needed_pitch = row.needed_pitch, sums_pitch = row.sums_pitch;
    const float *weights = row.weights;
    const uint64_t *needed = row.needed;
    float *sums = row.sums;
    f32x16 window[S][Q];
    int64_t column = row.begin - row.shift;  // the next one to enter
    const float *in = row.in + column * in_pitch;
    const auto enter = [&](f32x16 (&slot)[Q]) __attribute__((always_inline)) {
        const bool inside = (uint64_t)column < (uint64_t)in_count;
        SC_UNROLL for (int q = 0; q < Q; ++q) {
            slot[q] = inside ? load(in + q * 16) : zero();
            __builtin_prefetch(in + 4 * in_pitch + q * 16);
        }
        ++column, in += in_pitch;
    };
    SC_UNROLL for (int s = 0; s < S - 1; ++s) enter(window[s]);
    for (int64_t m = row.begin; m < row.end; m += S) {
        SC_UNROLL for (int turn = 0; turn < S; ++turn) {
            if (m + turn >= row.end) break;
            enter(window[(turn + S - 1) % S]);
            sum_needed(held_patch<S, Q>{window, turn}, weights, S * Q * 16, *needed, sums);
            needed += needed_pitch, sums += sums_pitch;
        }
    }
}

template <int Q>
static void outputs_taps(const outputs_sweep &row) {
    constexpr int most = (f32x16::accumulators - 4) / Q;
    if constexpr (most >= 1) { if (row.taps == 1) return outputs_held<1, Q>(row); }
    if constexpr (most >= 2) { if (row.taps == 2) return outputs_held<2, Q>(row); }
    if constexpr (most >= 3) { if (row.taps == 3) return outputs_held<3, Q>(row); }
    outputs_careful(row);
}

typedef void (*outputs_kernel)(const outputs_sweep &);

SC_INLINE outputs_kernel outputs_row_kernel(int64_t vectors) {
    static constexpr outputs_kernel kernels[] = {
        outputs_taps<1>, outputs_taps<2>, outputs_taps<3>, outputs_taps<4>, outputs_taps<5>, outputs_taps<6>,
        outputs_taps<7>, outputs_taps<8>, outputs_taps<9>, outputs_taps<10>, outputs_taps<11>, outputs_taps<12>,
        outputs_taps<13>, outputs_taps<14>, outputs_taps<15>, outputs_taps<16>};
    return kernels[vectors - 1];
}

SC_CLOSE
