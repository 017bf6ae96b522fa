"""Mutants that change no result, looked at one by one: (header, line, what becomes of the line), and why."""

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
}  # fmt: skip
