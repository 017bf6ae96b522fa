// What rows/rows.h asks of a row kernel: sweep one weight tile over one row.
#pragma once
#include "common/epilogue.h"

SC_OPEN

// What row_sweep says of one input row and strand.
struct row_input {
    const float *in, *weights;
    int64_t in_pitch, in_count, shift, taps;
};

// One sweep of a weight tile over one row.
struct row_sweep {
    const float *in;  // column 0 of the strand, first channel of the block
    const uint64_t *live;  // its nonzero channels as bits; for skipping kernels
    int64_t in_pitch, live_pitch, in_count;
    const int32_t *begins;  // where in `in` the nonzero channels of a word lie side by side, if they do, as `live`
    int word, words;     // skipping kernels: channels of a word, and words of a column
    int64_t word_pitch;  // from a column's word to its next one
    const float *ahead;  // skipping kernels: null, or what the next chunk has in the place of `in`, in memory
    int64_t ahead_pitch;
    bool near;           // whether they ask for `in` of later columns
    int64_t begin, end;  // output columns m of the strand
    int64_t shift, taps;
    int64_t next_row;  // floats from `in` to that of the row that is swept next, or 0
    int channels;
    const float *weights;
    const row_input *more;  // for dense kernels: what is added to the same outputs then, piece by piece
    int64_t more_count;
    float *between;  // the sums of a tile meanwhile
    const float *from;  // what the sums of m = begin are added to: partial ones, or the bias with from_pitch 0
    int64_t from_pitch;
    float *to;
    int64_t to_pitch;
    row_results results;  // of m = begin and on
};

typedef void (*row_kernel)(const row_sweep &);

SC_CLOSE
