// Masks as words: for each column of a row, which of up to 64 channels count.
//
// Where the channels of a pixel lie side by side, a word is a run of them. Elsewhere runs along the row are read, one a
// channel, and 64 of them are transposed.
#pragma once
#include "common/live_word.h"
#include "common/tile.h"

SC_OPEN

SC_INLINE uint64_t low_bits(int count) { return count >= 64 ? ~0ull : (1ull << count) - 1; }

// Eight bytes that are 0 or 1, as bools are, as bits. Of any other byte only the lowest bit counts here, elsewhere all
// of them: a test for != 0 would cost 1x1 layers with bool masks 2 to 5%, at worst 11%, of their time.
SC_INLINE uint64_t bits_of_bytes(const uint8_t *bytes) {
    uint64_t eight;
    __builtin_memcpy(&eight, bytes, 8);
    return (eight & 0x0101010101010101) * 0x0102040810204080 >> 56;
}

SC_INLINE bool mask_bit(const sc_mask &mask, int64_t place) {
    if (mask.kind == SC_MASK_FLOATS) return ((const float *)mask.data)[place] != 0;
    const uint8_t *bytes = (const uint8_t *)mask.data;
    return mask.kind == SC_MASK_BYTES ? bytes[place] != 0 : bytes[place / 8] >> place % 8 & 1;
}

// `count` <= 64 neighbouring elements. No byte beyond them is read.
static uint64_t mask_run(const sc_mask &mask, int64_t place, int count) {
    if (mask.kind == SC_MASK_FLOATS) return live_word((const float *)mask.data + place, count, zero());
    const uint8_t *bytes = (const uint8_t *)mask.data;
    uint64_t word = 0;
    if (mask.kind == SC_MASK_BYTES) {
        int i = 0;
        for (; i + 8 <= count; i += 8) word |= bits_of_bytes(bytes + place + i) << i;
        for (; i < count; ++i) word |= (uint64_t)(bytes[place + i] != 0) << i;
        return word;
    }
    bytes += place / 8;
    const int shift = place % 8, used = (shift + count + 7) / 8;
    if (used >= 8) __builtin_memcpy(&word, bytes, 8);
    else for (int i = 0; i < used; ++i) word |= (uint64_t)bytes[i] << 8 * i;
    word >>= shift;
    if (used > 8) word |= (uint64_t)bytes[8] << (64 - shift);
    return word & low_bits(count);
}

// The same of elements at any distance.
static uint64_t mask_steps(const sc_mask &mask, int64_t place, int64_t step, int count) {
    if (step == 1) return mask_run(mask, place, count);
    uint64_t word = 0;
    for (int i = 0; i < count; ++i) word |= (uint64_t)mask_bit(mask, place + i * step) << i;
    return word;
}

// Some columns of a row, equally far apart.
struct mask_columns {
    int64_t place, step, count;

    SC_INLINE_MEMBER mask_columns(const sc_mask &mask, int64_t image, int64_t row, int64_t column, int64_t column_step,
                                  int64_t count)
        : place(image * mask.view.image_stride + mask.view.rows[row] + column * mask.view.column_stride),
          step(column_step * mask.view.column_stride), count(count) {}
    SC_INLINE_MEMBER mask_columns(int64_t place, int64_t step, int64_t count)
        : place(place), step(step), count(count) {}
};

// words[i] = channels [channel, channel + channels), 64 at most, of the i-th column. A call for each word took 8% of
// backward_data of needed outputs, 256,64,56 1x1.
SC_INLINE void mask_words(const sc_mask &mask, const mask_columns &columns, int64_t channel, int channels,
                          uint64_t *words) {
    if (channels_contiguous(mask.view)) {
        const int64_t place = columns.place + channel;
        if (mask.kind == SC_MASK_BITS && channels == 64 && (place | columns.step) % 8 == 0) {
            const uint8_t *bytes = (const uint8_t *)mask.data + place / 8;
            for (int64_t i = 0; i < columns.count; ++i) __builtin_memcpy(words + i, bytes + i * columns.step / 8, 8);
            return;
        }
        for (int64_t i = 0; i < columns.count; ++i) words[i] = mask_run(mask, place + i * columns.step, channels);
        return;
    }
    const bool pixels = !mask.view.channel_stride && !mask.view.block_stride;  // one value for all channels
    for (int64_t done = 0; done < columns.count; done += 64) {
        const int count = (int)smaller(64, columns.count - done);
        const int64_t place = columns.place + done * columns.step;
        if (pixels) {
            const uint64_t bits = mask_steps(mask, place, columns.step, count);
            for (int i = 0; i < count; ++i) words[done + i] = bits >> i & 1 ? low_bits(channels) : 0;
            continue;
        }
        uint64_t bits[64] = {};
        for (int c = 0; c < channels; ++c) {
            bits[c] = mask_steps(mask, place + channel_offset(mask.view, channel + c), columns.step, count);
        }
        transpose_bits(bits);
        for (int i = 0; i < count; ++i) words[done + i] = bits[i];
    }
}

// Reads the values that a mask speaks of: where zeros are looked for, reading ahead comes with it, and without it
// sweeps wait for memory: backward_weight of 256,64,56 1x1 at 80% zeros took 2.1 times as long, with prefetches 1.9.
// Whole vectors, since memory answers a number a cache line more slowly: 21 to 26 GB/s for 28 to 31 on Zen 4, forward
// of the same layer 1.21 of the time without a mask for 1.06.
SC_INLINE void read_pixels(const float *pixel, int64_t step, int64_t columns, int64_t channels) {
    for (int64_t i = 0; i < columns; ++i, pixel += step) {
        int64_t c = 0;
        for (; c + 16 <= channels; c += 16) asm volatile("" : : "r"(nonzero(load(pixel + c))));
        if (c < channels) asm volatile("" : : "r"(*(const int *)(pixel + c)));
    }
}

// The words of blocks of channels of some columns, [block][column], `pitch` words a block. Values are read a pixel at a
// time between words, if masks are in that order, too: finding words takes no time while memory is waited for.
struct channel_blocks {
    int64_t channel, channels, block;  // the first one, how many, how many in a block
};
// `pixel` is null where the mask is all that there is.
SC_INLINE void known_words(const sc_mask &mask, const mask_columns &columns, const channel_blocks &blocks,
                        const float *pixel, int64_t step, uint64_t *words, int64_t pitch) {
    const int64_t together = channels_contiguous(mask.view) ? 1 : columns.count;
    for (int64_t done = 0; done < columns.count; done += together) {
        const mask_columns some(columns.place + done * columns.step, columns.step, together);
        for (int64_t first = 0, block = 0; first < blocks.channels; first += blocks.block, ++block) {
            mask_words(mask, some, blocks.channel + first, (int)smaller(blocks.block, blocks.channels - first),
                       words + block * pitch + done);
        }
        if (pixel) read_pixels(pixel + done * step, step, together, blocks.channels);
    }
}

SC_CLOSE
