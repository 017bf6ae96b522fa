// The input rows of a chunk, made ready before the sweeps: pixels packed where they are not contiguous, and the nonzero
// channels of each as words, with or without their values.
#pragma once
#include "common/live_word.h"
#include "common/mask_words.h"
#include "rows/scratch.h"

SC_OPEN

// Which input columns a chunk makes ready: all from the first to the last that it meets, or, where it meets less than
// half of them (strides larger than the kernel), those alone. Returns how many pieces they are, and their number.
static int64_t find_columns(const sc_rows_task &task, const row_chunk &chunk, const row_scratch &scratch,
                            int64_t &columns) {
    const sc_map &map = task.map;
    ready_columns *ready = scratch.ready;
    int64_t pieces = 0, met = 0;
    for (int64_t p = 0; p < map.strand_count; ++p) {
        const sc_strand &strand = map.strands[p];
        int64_t begin, end;
        chunk.range(strand, begin, end);
        const int64_t low = larger(0, begin - strand.shift);
        const int64_t high = smaller(strand.in_count, end + strand.taps - 1 - strand.shift);
        scratch.places[p] = {-1, 1};
        if (begin >= end || low >= high) continue;
        ready_columns *last = pieces ? ready + pieces - 1 : nullptr;
        const bool same = last && last->start == strand.in_start && last->step == strand.in_step;
        if (same && low <= last->high && high >= last->low) {
            last->low = smaller(last->low, low), last->high = larger(last->high, high);
        } else {
            ready[pieces++] = {strand.in_start, strand.in_step, low, high, 0};
        }
        scratch.places[p].first = pieces - 1;
    }
    for (int64_t i = 0; i < pieces; ++i) ready[i].first = met, met += ready[i].count();
    columns = chunk.in_columns;
    const bool all = 2 * met > columns;
    for (int64_t p = 0; p < map.strand_count; ++p) {
        const sc_strand &strand = map.strands[p];
        ready_place &place = scratch.places[p];
        if (place.first < 0) continue;
        const ready_columns &piece = ready[place.first];
        if (all) place = {strand.in_start - chunk.in_column, strand.in_step};
        else place = {piece.first - piece.low, 1};
    }
    if (!all) return columns = met, pieces;
    ready[0] = {chunk.in_column, 1, 0, columns, 0};
    return 1;
}

// The ready columns of a chunk.
struct ready_rows {
    int64_t pitch;    // floats from one pixel to the next
    int64_t columns;  // of an input row
    bool packed;

    // What a sweep of a strand over a row reads.
    template <class Sweep>
    SC_INLINE_MEMBER void point(Sweep &sweep, const sc_strand &strand, const ready_place &place,
                                const row_source &source) const {
        const int64_t first = packed ? place.first : strand.in_start, step = packed ? place.step : strand.in_step;
        sweep.in = source.pixels + first * pitch, sweep.in_pitch = step * pitch, sweep.in_count = strand.in_count;
    }
};

// Some pixels and what is found in them: words, [block of channels][pixel].
struct found_pixels {
    const float *pixel;
    int64_t step, count, channels, block;
    uint64_t *words;
    int64_t pitch;  // words a block
    // Where values are packed: those of a block of channels lie side by side, `first` pixels before these at most; and
    // where those of each word begin.
    float *values;
    int64_t first;
    int32_t *begins;

    // Calls pack(channel, channels, word, values) for each word.
    template <class Pack>
    SC_INLINE_MEMBER void each(Pack pack) const {
        const float *from = pixel;
        for (int64_t i = 0; i < count; ++i, from += step) {
            for (int64_t channel = 0, at = i; channel < channels; channel += block, at += pitch) {
                int32_t begin = (int32_t)(channel * pitch + first * block);
                if (i) begin = begins[at - 1] + __builtin_popcountll(words[at - 1]);
                begins[at] = begin;
                pack(from + channel, (int)smaller(block, channels - channel), words[at], values + begin);
            }
        }
    }
};

// The nonzero channels of `count` pixels, and their values. Functions of their own, in which nothing that a word might
// overwrite is read again: within find_sources, 256,64,56 1x1 at 80% zeros took 1.17 times as long.
SC_ALONE static void find_words(const found_pixels pixels, f32x16 threshold) {
    const float *pixel = pixels.pixel;
    const int64_t channels = pixels.channels, block = pixels.block, pitch = pixels.pitch;
    for (int64_t i = 0; i < pixels.count; ++i, pixel += pixels.step) {
        uint64_t *word = pixels.words + i;
        for (int64_t first = 0; first < channels; first += block, word += pitch) {
            *word = live_word(pixel + first, (int)smaller(block, channels - first), threshold);
        }
    }
}
SC_ALONE static void find_values(const found_pixels pixels, f32x16 threshold) {
    pixels.each([&](const float *x, int count, uint64_t &word, float *values) {
        word = packed_word(x, count, threshold, values);
    });
}
SC_ALONE static void find_known_values(const found_pixels pixels) {
    pixels.each([&](const float *x, int count, uint64_t word, float *values) { pack_word(x, count, word, values); });
}

// Makes the chunk's input rows ready: packs those whose pixels are not contiguous and finds their nonzero channels.
// Doing so ahead of the sweeps reads memory in order and without branches; a sweep that tested zeros itself would wait
// for memory in every mispredicted branch.
static ready_rows find_sources(const sc_rows_task &task, const row_chunk &chunk, int64_t group,
                               const row_scratch &scratch) {
    const sc_map &map = task.map;
    const bool packed = packs_pixels(task);
    const int64_t channel = group * task.channels, blocks = skips(task) ? ceil_div(task.channels, task.word) : 0;
    const int64_t pitch = packed ? packed_pitch(task) : task.in.column_stride;
    const f32x16 threshold = splat(&task.threshold);
    const row_span span(map, chunk.first, chunk.rows);
    for (int64_t i = 0; i < span.rows; ++i) scratch.slots[i] = -1;
    for (int64_t tap = 0; tap < map.outer_taps; ++tap) scratch.met_count[tap] = 0;
    int64_t used = 0, columns;
    const int64_t pieces = find_columns(task, chunk, scratch, columns);
    for (int64_t i = 0; i < chunk.rows; ++i) {
        const int64_t image = (chunk.first + i) / map.out_rows, row = (chunk.first + i) % map.out_rows;
        scratch.ends[i] = {-1, -1};
        for (int64_t tap = 0; tap < map.outer_taps; ++tap) {
            row_source &source = scratch.sources[i * map.outer_taps + tap];
            source = {};
            const int64_t in = map.row_table[row * map.outer_taps + tap];
            if (in < 0) continue;
            scratch.met[tap * task.chunk_rows + scratch.met_count[tap]++] = i;
            if (scratch.ends[i].open < 0) scratch.ends[i].open = tap;
            scratch.ends[i].close = tap;
            int64_t &slot = scratch.slots[image * map.in_rows + in - span.first];
            const bool seen = slot >= 0;
            if (!seen) slot = used++;
            float *pixels = scratch.pixels + slot * columns * pitch;
            uint64_t *live = scratch.live + slot * columns * blocks;
            if (spikes(task)) source.pixels = pixels;  // nobody reads them
            else source.pixels = packed ? pixels : row_of(task.in, image, in) + channel;
            int32_t *begins = scratch.begins + slot * columns * blocks;
            float *values = scratch.values + slot * columns * packed_values(task);
            source.live = live, source.begins = begins, source.values = values;
            if (seen) continue;
            for (const ready_columns *piece = scratch.ready; piece < scratch.ready + pieces; ++piece) {
                const int64_t column = piece->start + piece->low * piece->step, count = piece->count();
                float *copies = pixels + piece->first * pitch;
                if (packed) {
                    load_pixels(copies, pitch, task.in, row_of(task.in, image, in), channel, channel + task.channels,
                                column, piece->step, count);
                }
                if (!skips(task)) continue;
                const float *memory = row_of(task.in, image, in) + channel + column * task.in.column_stride;
                const int64_t step = packed ? pitch : piece->step * task.in.column_stride;
                const found_pixels found = {packed ? copies : memory, step, count, task.channels, task.word,
                                            live + piece->first, columns, values, piece->first, begins + piece->first};
                if (task.known.data) {
                    known_words(task.known, mask_columns(task.known, image, in, column, piece->step, count),
                                {channel, task.channels, task.word}, spikes(task) ? nullptr : found.pixel, step,
                                found.words, columns);
                    if (packs_values(task)) find_known_values(found);
                } else if (packs_values(task)) {
                    find_values(found, threshold);
                } else {
                    find_words(found, threshold);
                }
            }
        }
    }
    return {pitch, columns, packed};
}

SC_CLOSE
