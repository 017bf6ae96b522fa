// The greedy transposable mask: from the largest to the smallest, an element is kept if both its row and its column
// have fewer than n kept ones (the KEEP rule); rows and columns that stay short are filled up by insert-remove moves;
// then pairs of rows exchange kept columns as long as that gains.
//
// On normal weights at 4:8 the KEEP rule alone reaches 0.988 of the optimum, all three steps 0.998. The exchanges take
// a third of the time then, the sort a quarter, the KEEP rule a fifth.
#pragma once
#include "pruning/transposable_lanes.h"

SC_OPEN

// Sorting keys: the leading bits of the magnitude, then the place, so that equal ones keep their order and the sort
// carries no second array. Nine bits of the magnitude are lost; the exchanges look at all of them.
enum { PLACE_BITS = 10, PLACE_MASK = (1 << PLACE_BITS) - 1, MAX_SWEEPS = 16 };

static void make_keys(int32_t *__restrict keys, const float *__restrict magnitude, int64_t m) {
    for (int64_t row = 0; row < m; ++row) {
        for (int64_t column = 0; column < m; ++column) {
            const int32_t place = PLACE_MASK - (int32_t)(row * SC_MAX_BLOCK + column);
            const float *from = magnitude + (row * m + column) * BLOCK_LANES;
            int32_t *to = keys + (row * m + column) * BLOCK_LANES;
            for (int l = 0; l < BLOCK_LANES; ++l) {
                int32_t bits;
                __builtin_memcpy(&bits, from + l, sizeof bits);
                to[l] = (bits << 1 & ~PLACE_MASK) | place;  // below 2^31, since magnitudes are at most 1
            }
        }
    }
}

SC_INLINE void order_lanes(int32_t *__restrict first, int32_t *__restrict second) {
    for (int l = 0; l < BLOCK_LANES; ++l) {
        const int32_t a = first[l], b = second[l], larger = a > b ? a : b, smaller = a > b ? b : a;
        first[l] = larger, second[l] = smaller;
    }
}

// Largest first in every lane: Batcher's merge exchange (Knuth, The Art of Computer Programming 3, algorithm 5.2.2 M),
// about count * log2(count)^2 / 4 exchanges. Runs instead of a test per element: 75 -> 104 M weights/s at 4:8.
static void sort_keys(int32_t *keys, int64_t count) {
    int64_t top = 1;
    while (2 * top < count) top *= 2;
    for (int64_t p = top; p; p /= 2) {
        int64_t q = top, r = 0, distance = p;
        for (;;) {
            for (int64_t start = r; start + distance < count; start += 2 * p) {
                const int64_t end = start + p + distance < count ? start + p : count - distance;
                for (int64_t i = start; i < end; ++i) {
                    order_lanes(keys + i * BLOCK_LANES, keys + (i + distance) * BLOCK_LANES);
                }
            }
            if (q == p) break;
            distance = q - p, q /= 2, r = p;
        }
    }
}

// Kept elements of the rows and columns of one block.
struct block_counts {
    uint8_t row[SC_MAX_BLOCK], column[SC_MAX_BLOCK];
};

static void keep_largest(block_masks &masks, block_counts &counts, const int32_t *keys, int64_t m, int64_t n,
                         int lane) {
    counts = {};
    for (int64_t row = 0; row < m; ++row) masks.kept[row][lane] = 0;
    for (int64_t i = 0; i < m * m; ++i) {
        const int place = PLACE_MASK - (keys[i * BLOCK_LANES + lane] & PLACE_MASK);
        const int row = place / SC_MAX_BLOCK, column = place % SC_MAX_BLOCK;
        const bool room = (counts.row[row] < n) & (counts.column[column] < n);
        counts.row[row] += room, counts.column[column] += room;
        masks.kept[row][lane] |= (uint32_t)room << column;
    }
}

// Fills rows and columns that have fewer than n. If row i and column j are short, (i, j) is kept already; so a kept
// (a, b) of a full row and column is replaced by (i, b) and (a, j). Such a pair always exists: the at least m - n + 1
// rows without column j have kept elements in each of the at least m - n + 1 columns that row i lacks.
static void fill_up(block_masks &masks, block_counts &counts, const float *magnitude, int64_t m, int64_t n, int lane) {
    const auto at = [=](int64_t row, int64_t column) { return magnitude[(row * m + column) * BLOCK_LANES + lane]; };
    for (int64_t i = 0; i < m; ++i) {
        while (counts.row[i] < n) {
            float best = -4;
            int64_t best_row = 0, best_column = 0, best_short = 0;
            for (int64_t j = 0; j < m; ++j) {
                if (counts.column[j] == n) continue;
                for (int64_t a = 0; a < m; ++a) {
                    if (masks.kept[a][lane] >> j & 1) continue;
                    uint32_t moves = masks.kept[a][lane] & ~masks.kept[i][lane];
                    for (; moves; moves &= moves - 1) {
                        const int b = __builtin_ctz(moves);
                        const float gain = at(i, b) + at(a, j) - at(a, b);
                        if (gain > best) best = gain, best_row = a, best_column = b, best_short = j;
                    }
                }
            }
            masks.kept[i][lane] |= 1u << best_column;
            masks.kept[best_row][lane] ^= 1u << best_column | 1u << best_short;
            ++counts.row[i], ++counts.column[best_short];
        }
    }
}

// For every two rows: of the columns that only one of them keeps, the best exchange. Returns whether any lane gained.
// The tests are joined by & and not &&, which would be a branch and no vector code (12 instead of 75 M weights/s).
static uint32_t exchange_rows(block_masks &masks, const float *magnitude, int64_t m) {
    uint32_t gained[BLOCK_LANES] = {}, any = 0;
    for (int64_t upper = 0; upper < m; ++upper) {
        for (int64_t lower = upper + 1; lower < m; ++lower) {
            uint32_t *__restrict kept_upper = masks.kept[upper], *__restrict kept_lower = masks.kept[lower];
            const float *above = magnitude + upper * m * BLOCK_LANES, *below = magnitude + lower * m * BLOCK_LANES;
            // upper - lower, least where upper keeps and largest where lower keeps, and the bits of these columns
            float least[BLOCK_LANES], most[BLOCK_LANES];
            uint32_t give[BLOCK_LANES] = {}, take[BLOCK_LANES] = {};
            for (int l = 0; l < BLOCK_LANES; ++l) least[l] = 4, most[l] = -4;
            for (int64_t column = 0; column < m; ++column) {
                const uint32_t bit = 1u << column;
                const float *a = above + column * BLOCK_LANES, *b = below + column * BLOCK_LANES;
                for (int l = 0; l < BLOCK_LANES; ++l) {
                    const float change = a[l] - b[l];
                    const bool gives = ((kept_upper[l] & ~kept_lower[l] & bit) != 0) & (change < least[l]);
                    const bool takes = ((kept_lower[l] & ~kept_upper[l] & bit) != 0) & (change > most[l]);
                    least[l] = gives ? change : least[l], give[l] = gives ? bit : give[l];
                    most[l] = takes ? change : most[l], take[l] = takes ? bit : take[l];
                }
            }
            for (int l = 0; l < BLOCK_LANES; ++l) {
                const uint32_t exchange = most[l] > least[l] ? give[l] | take[l] : 0;
                kept_upper[l] ^= exchange, kept_lower[l] ^= exchange, gained[l] |= exchange;
            }
        }
    }
    for (int l = 0; l < BLOCK_LANES; ++l) any |= gained[l];
    return any;
}

// The mask that the order of `priority` leads to, improved for `magnitude`; both in [0, 1]. `keys` is scratch.
static void greedy_masks(block_masks &masks, int32_t *keys, const float *priority, const float *magnitude, int64_t m,
                         int64_t n) {
    make_keys(keys, priority, m);
    sort_keys(keys, m * m);
    for (int lane = 0; lane < BLOCK_LANES; ++lane) {
        block_counts counts;
        keep_largest(masks, counts, keys, m, n, lane);
        fill_up(masks, counts, magnitude, m, n, lane);
    }
    // Two or three sweeps at 4:8, four to six at 16:32. Each exchange gains, but for rounding: the bound is for that.
    for (int sweep = 0; sweep < MAX_SWEEPS && exchange_rows(masks, magnitude, m); ++sweep) {}
}

SC_CLOSE
