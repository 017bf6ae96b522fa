"""Mutants that change no result, looked at one by one, by `Mutant.key` (header, line, new line), and why."""

EQUIVALENT: dict[tuple[str, str, str], str] = {
    ("arrays/bias.h", "for (int64_t item = begin; item < end; ++item) {",
     "for (int64_t item = begin; item <= end; ++item) {"): "the item behind the last one has no channels",
    ("arrays/bias.h", "if (sums.length > BIAS_CHAIN - 16) sums.carry();", "if (true) sums.carry();"):
        "chains of 16 columns in the place of 32: a pairwise sum all the same",
    ("gradient/points.h", "size.rows = line(task.chunk_rows * (int64_t)(sizeof(points_row) / sizeof(float)));",
     "size.rows = line(task.chunk_rows * (int64_t)(sizeof(points_row) * sizeof(float)));"):
        "more scratch memory than needed",
    ("pruning/topk_search.h", "return std::count(samples, samples + taken, key) > 2 + taken / 32;",
     "return std::count(samples, samples + taken, key) >= 2 + taken / 32;"):
        "where the next bracket begins, a guess: its elements are counted whatever it is",
    ("weights/lists.h", "const uint64_t all = word & word >> 1 & word >> 2 & 0x249249249249;",
     "const uint64_t all = word & word >> 0 & word >> 2 & 0x249249249249;"):
        "rows without their middle are then made whole, which differs from `word` all the same",
    ("weights/lists.h",
     "SC_INLINE_MEMBER bool flat() const { return task.channel_stride == lists.taps && lists.classes == 1; }",
     "SC_INLINE_MEMBER bool flat() const { return task.channel_stride == lists.taps && lists.classes == 0; }"):
        "`flat` is the quick way to lists that `walk` makes as well",
    ("arrays/compress.h", "float vector[16];", "float vector[17];"): "an array is longer than needed",
    ("arrays/compress.h", "if (!task.counted) task.offsets[block + 1] = to - task.packed;",
     "if (true) task.offsets[block + 1] = to - task.packed;"): "counted already: what is written stands there",
    ("arrays/mask.h", "for (; i + 64 <= count; i += 64) {",
     "for (; i + 65 <= count; i += 64) {"): "the last 64 elements are then counted as the rest is",
    ("arrays/mask.h", "store_bits(bits + i / 8, nonzero(kept), 16);",
     "store_bits(bits + i / 8, nonzero(kept), 17);"): "more than eight bits are two bytes, whatever their number",
    ("arrays/mask.h", "const int64_t end = first + width < count ? first + width : count;",
     "const int64_t end = first + width <= count ? first + width : count;"): "where they are equal, so are both ends",
    ("common/tile.h", "} else if (column_count == 16) {",
     "} else if (false) {"): "what loads part of a vector also loads a whole one",
    ("common/weight_tile.h",
     "case CHANNEL * 3 + OUTER_TAP: return next<CHANNEL, OUTER_TAP, INNER_TAP>(places, elements);",
     "case CHANNEL * 4 + OUTER_TAP: return next<CHANNEL, OUTER_TAP, INNER_TAP>(places, elements);"): "CHANNEL is 0",
    ("common/weight_tile.h", "const float *next = memory + 16 * apart;",
     "const float *next = memory - 16 * apart;"): "what is asked for ahead",
    ("gradient/points.h", "size.live = line(2 * size.live_pitch * ceil_div(task.channel_block, word_channels));",
     "size.live = line(3 * size.live_pitch * ceil_div(task.channel_block, word_channels));"):
        "more scratch memory than needed",
    ("outputs/outputs.h", "enum { OUTPUTS_HEAD = 16 };",
     "enum { OUTPUTS_HEAD = 17 };"): "17 floats in front of a tile, of which the first is read",
    ("outputs/outputs.h", "((uintptr_t)pixel | task.out.column_stride * sizeof(float)) % 64 == 0;",
     "((uintptr_t)pixel | task.out.column_stride * sizeof(float)) % 64 == 1;"): "results are stored, not streamed",
    ("pruning/transposable_exact.h", "double pair[4][6][BLOCK_LANES], best[BLOCK_LANES];",
     "double pair[4][7][BLOCK_LANES], best[BLOCK_LANES];"): "an array is longer than needed",
    ("rows/rows.h", "const bool wide = task.needed.kind == SC_MASK_FLOATS && (end - begin) * parts > 1;",
     "const bool wide = task.needed.kind != SC_MASK_FLOATS && (end - begin) * parts > 1;"):
        "how many pixels of a mask are read together",
    ("rows/rows.h", "if (!finish_block(task, chunk, scratch, ready, block, words, asks)) return;",
     "if (false) return;"): "every further block asks as well, and ends at once",
    ("simd/avx2.h", "__m256d v[4];", "__m256d v[5];"): "an array is longer than needed",
    ("simd/avx2.h", "__m256 a[8], b[8];", "__m256 a[9], b[8];"): "an array is longer than needed",
    ("weights/weights.h", "const int64_t x = outer * task.channels * task.width * 16;",
     "const int64_t x = outer * task.channels * task.width * 17;"): "more scratch memory than needed",
    ("weights/weights.h", "lane_line lines[16]; (2)", "lane_line lines[17];"): "an array is longer than needed",
    ("groups/gradient.h", "int64_t lists = 0; (2)",
     "int64_t lists = 1;"): "the first vector of a share sets it",
    ("rows/sources.h", "scratch.places[p] = {-1, 1};",
     "scratch.places[p] = {-1, 0};"): "of a strand that meets nothing: it reads nothing",
    ("weights/lone.h", "} else if (channels_contiguous(task.in)) {",
     "} else if (false) {"): "`channel_offset` says the same",
    ("arrays/bias.h", "++carried, length = 0;", "++carried, length = 1;"):
        "chains of 16 columns in the place of 32 behind the first: a pairwise sum all the same",
    ("arrays/compress.h", "for (int64_t block = blocks.first; block < blocks.end; ++block) { (3)",
     "for (int64_t block = blocks.first; block <= blocks.end; ++block) {"):
        "the next item expands that block to the same values; the block behind the last one has no elements",
    ("common/long_sums.h", "return all_chunks > chunks ? 2 * floats : 0;",
     "return all_chunks >= chunks ? 2 * floats : 0;"): "one sum is moved to a second place, which held zero, and back",
    ("common/weight_tile.h", "if (axes[dimension].outside(axes[order[place + 1]])) continue;",
     "if (axes[dimension].outside(axes[order[place + 0]])) continue;"):
        "axes are never sorted: elements are moved in another order, runs are shorter",
    ("gradient/pack.h", "for (int64_t m = chunk.rows * window; m < scratch.channel_pitch; ++m) to[m] = 0;", ";"):
        "bits of positions behind the last row are cut off where words are read",
    ("gradient/partners.h", "const int64_t all_rows = task.batch * rows.count, next = chunk.first + chunk.rows;",
     "const int64_t all_rows = task.batch + rows.count, next = chunk.first + chunk.rows;"): "what is asked for ahead",
    ("groups/gradient.h", "if (columns >= P && low == 0 && high >= P + T - 1) {",
     "if (columns >= P && low == 0 && high >= P + T - 0) {"):
        "the next branch looks at each column and leaves none out",
    ("groups/groups.h",
     "for (int64_t tap = 0; row > 0 && tap < map.outer_taps; ++tap) seen = larger(seen, met[tap - map.outer_taps]);",
     "for (int64_t tap = 0; row > 0 && tap <= map.outer_taps; ++tap) seen = larger(seen, met[tap - map.outer_taps]);"):
        "which rows are asked for ahead",
    ("outputs/outputs.h", "sweep.begin = larger(sweep.begin, strand.shift - strand.taps + 1);",
     "sweep.begin = larger(sweep.begin, strand.shift - strand.taps - 1);"):
        "two more columns that meet padding alone: zeros times finite weights are added, or nothing",
    ("outputs/row.h", "const float *ahead = row.in + (m - row.shift + row.taps + 3) * row.in_pitch;",
     "const float *ahead = row.in + (m - row.shift - row.taps + 3) * row.in_pitch;"): "what is asked for ahead",
    ("outputs/row.h",
     "outputs_taps<7>, outputs_taps<8>, outputs_taps<9>, outputs_taps<10>, outputs_taps<11>, outputs_taps<12>,",
     "outputs_taps<7>, outputs_taps<7>, outputs_taps<9>, outputs_taps<10>, outputs_taps<11>, outputs_taps<12>,"):
        "AVX2 has no registers for patches of more than two vectors: all of these are `outputs_careful`",
    ("pruning/transposable_greedy.h", "float best = -4;", "float best = -3;"): "no gain is below -1",
    ("pruning/transposable_greedy.h", "while (2 * top < count) top *= 2;", "while (2 * top <= count) top *= 2;"):
        "the network of twice as many keys, whose exchanges behind the end are left out: no two keys are equal",
    ("simd/avx2.h", "const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 0, 1, 2, 3);",
     "const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 0, 1, 3, 3);"):
        "rounded down to a multiple of 2 or of 4, which 2 and 3 have in common",
    ("weights/skip.h", "f32x16 column = load(x + m * 16);", "f32x16 column = load(x - m * 16);"):
        "of `whole_rows`, for which AVX2 has too few registers",
    ("weights/weights.h", "if (slot == map.outer_taps && strand) {", "if (true) {"):
        "all rows are packed again at each step, each into a slot that no tap has",
    ("weights/weights.h",
     "for (int strand = 0; strand < 2; ++strand) {  // first those that are there, so that they are not given away",
     "for (int strand = 0; strand < 3; ++strand) {  // first those that are there, so that they are not given away"):
        "the second time around all taps have got their slots",
    ("weights/weights.h", "sweep.starts = lists.starts, sweep.starts_pitch = 0, sweep.blocks = 0;",
     "sweep.starts = lists.starts, sweep.starts_pitch = 1, sweep.blocks = 0;"):
        "with no blocks a list ends where it begins, wherever that is",
    ("arrays/mask.h", "for (; done + 8 <= width; done += 8) {", "for (; done + 8 <= width; done += 7) {"):
        "of eight bytes one is looked at twice",
    ("common/tile.h", "if (row_stride == 1 && column_stride != 1) {",
     "if (row_stride == 1 && column_stride != 2) {"): "which way a block is read",
    ("groups/gradient.h", "const float *b[3];", "const float *b[2];"): "AVX2 takes one outer tap at a time",
    ("common/tile.h", "store_partial(to + done, rest, (int)smaller(16, pitch - done));",
     "store_partial(to + done, rest, (int)smaller(17, pitch - done));"): "of a vector 17 lanes are 16",
    ("gradient/partners.h",
     "} else if (all_rows == 1 && chunk.segment + 1 < task.segments && map.strand_count == 1) {",
     "} else if (all_rows == 1 && chunk.segment - 1 < task.segments && map.strand_count == 1) {"):
        "what is asked for ahead",
    ("gradient/partners.h", "if (rows.strand) {", "if (false) {"): "which rows are asked for ahead",
    ("groups/gradient.h", "GROUP_SUMS = f32x16::accumulators > 12 ? 24 : 6,",
     "GROUP_SUMS = f32x16::accumulators > 13 ? 24 : 6,"): "AVX2 has 6",
    ("outputs/row.h", "for (int64_t m = row.begin; m < row.end; m += S) {",
     "for (int64_t m = row.begin; m <= row.end; m += S) {"): "the first turn behind the end leaves at once",
    ("pruning/topk_search.h", "static constexpr int64_t most_samples = 1 << 13;",
     "static constexpr int64_t most_samples = 1 << 12;"): "fewer samples: another guess of the next bracket",
    ("common/epilogue.h", "if (to_step == 1 && from_step == 1) {  // both lie along columns: one transpose for both",
     "if (to_step == 0 && from_step == 1) {  // both lie along columns: one transpose for both"):
        "the way of all other strides takes two transposes",
    ("weights/lists.h", "const uint64_t all = word & word >> 1 & word >> 2 & 0x249249249249;",
     "const uint64_t all = word & word >> 2 & word >> 2 & 0x249249249249;"):
        "rows without their middle are then made whole, which differs from `word` all the same",
    ("weights/weights.h", "const int64_t *places = task.tap_places + phase * 3, step = places[1] - places[0];",
     "const int64_t *places = task.tap_places - phase * 3, step = places[1] - places[0];"):
        "AVX2 has no registers for whole rows",
    ("arrays/compress.h", "if (limit - to >= 16) {", "if (false) {"): "parts of vectors are stored as whole ones are",
    ("common/live_word.h",
     "if (i < count) word |= (uint64_t)above(load_partial(x + i, count - i), threshold) << i;",
     "if (i <= count) word |= (uint64_t)above(load_partial(x + i, count - i), threshold) << i;"):
        "a vector of no element has no bit, and 64 elements do not come here",
    ("gradient/gradient.h", "int64_t needed = 0;", "int64_t needed = 1;"):
        "one pair more in an estimate, by which nothing but the kernel is chosen",
    ("pruning/topk_search.h",
     "const uint64_t hash = (uint64_t)(i + 1) * 0x9e3779b97f4a7c15ull;  // Fibonacci hashing: Knuth, TAOCP 3, 6.4",
     "const uint64_t hash = (uint64_t)(i + 2) * 0x9e3779b97f4a7c15ull;  // Fibonacci hashing: Knuth, TAOCP 3, 6.4"):
        "other samples: another guess of the next bracket",
    ("simd/avx2.h",
     "static constexpr int accumulators = 6, dense_pixels = 6, dense_vectors = 1, point_vectors = 4;",
     "static constexpr int accumulators = 6, dense_pixels = 6, dense_vectors = 0, point_vectors = 4;"):
        "a block of lanes is one vector at least",
    ("weights/weights.h", "row[lane] = line < lines ? line % rows : -1;",
     "row[lane] = line < lines ? line % rows : -2;"): "negative is negative",
    ("groups/groups.h", "((uintptr_t)out | apart * 4) % 64 == 0;", "((uintptr_t)out | apart * 5) % 64 == 0;"):
        "results are stored, not streamed",
    ("pruning/transposable_exact.h", "distance_[source] = 0;", "distance_[source] = 1;"):
        "all distances are from there, and are compared with each other alone",
    ("pruning/transposable.h", "for (int64_t item = begin; item < end; ++item) {",
     "for (int64_t item = begin; item <= end; ++item) {"):
        "the item behind the last one has no blocks, that of another thread is made alike",
    ("simd/avx2.h", "expand[bits][lane] = set ? (int8_t)count : (int8_t)-1;",
     "expand[bits][lane] = set ? (int8_t)count : (int8_t)-2;"): "negative is negative",
}  # fmt: skip
