// What gradient/gradient.h asks of a gradient kernel: for one strand, group of outer taps and lane block, add
// the runs of rows of a chunk.
#pragma once
#include "common/problem.h"
#include "common/read_ahead.h"

SC_OPEN

// Consecutive rows of A that meet consecutive rows of B; for kernels one row of `positions`.
struct gradient_run {
    int64_t a, b;  // where it begins, in positions
    int64_t rows, positions;
};

// A's nonzeros, [channel][nonzero] in ascending order of positions, `pitch` elements a channel. END stands behind the
// last one of a channel.
struct gradient_lists {
    static constexpr uint32_t END = UINT32_MAX;
    float *values;
    float *positions;  // bits of uint32_t, stored by compress()
    int64_t pitch;

    static int64_t position(const float *place) {
        uint32_t bits;
        __builtin_memcpy(&bits, place, sizeof bits);
        return bits;
    }
    static void set_position(float *place, uint32_t bits) { __builtin_memcpy(place, &bits, sizeof bits); }
};

struct gradient_sweep {
    const float *a;  // [channel][position] or [position][channel]
    int64_t channel_pitch, position_pitch;  // one of them is 1
    const uint64_t *live;  // [channel]: its nonzero positions as bits, live_pitch words a channel; for skipping kernels
    int64_t live_pitch;
    gradient_lists lists;  // for the kernel that reads them instead
    const float *b;  // [position][vectors * 16]; position a of A meets position b at tap 0
    float *sums;     // [channel][tap][vectors * 16]
    const int64_t *channels;  // those to be summed, ascending
    int64_t channel_count;
    int64_t outer, b_outer_pitch, sums_outer_pitch;  // outer taps of the group, and what lies between two of them
    const gradient_run *runs;
    int64_t run_count;
    int64_t window, columns, taps;
    int64_t b_first, b_end;  // column m meets b column m + tap if that lies between; outside are zeros
    read_ahead *ahead;
};

typedef void (*gradient_kernel)(const gradient_sweep &);

SC_CLOSE
