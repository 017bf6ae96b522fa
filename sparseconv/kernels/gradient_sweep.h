// What kernel_gradient.h asks of a gradient kernel: for one pass, outer tap and lane block, add a run of rows.
#pragma once
#include "problem.h"

SC_OPEN

struct gradient_sweep {
    const float *a;  // [channel][rows * window], channel_pitch floats a channel
    int64_t channel_pitch;
    const uint64_t *live;  // [channel]: its nonzero positions as bits, live_pitch words a channel; for skipping kernels
    int64_t live_pitch, live_shift;  // position 0 is bit live_shift of the first word
    const float *b;  // [rows * window][vectors * 16], at the position that tap 0 of position 0 meets
    float *sums;     // [channel][tap][vectors * 16]
    int64_t rows, window, columns, taps;
    int channels;
};

typedef void (*gradient_kernel)(const gradient_sweep &);

SC_CLOSE
