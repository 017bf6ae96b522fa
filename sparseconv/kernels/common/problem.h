// What a kernel is told: plain structs, filled once by the Cython layer, never changed by a kernel.
//
// A convolution of any number of spatial dimensions is a set of *rows* (runs along the innermost dimension).
// The outer dimensions only decide which rows meet: for every output row and every outer tap, one input row
// or none (sc_map::row_table). Along the row, stride and dilation are resolved into *strands* in which both
// sides advance one column at a time (sc_strand). Kernels therefore know neither dimensions, stride, dilation
// nor padding: every geometry is a table.
//
// One map serves three uses (`in` is gathered, `out` is written or, for backward_weight, paired):
//   forward          out = y,  in = x
//   backward_data    out = dx, in = grad_output
//   backward_weight  out = the operand whose zeros are skipped, in = the operand read as lanes
//
// Offsets and strides are in elements, not bytes.
#pragma once
#include <stddef.h>

#include "../include/sparseconv.h"  // views, and the tasks that others can fill

// Which kernel a task is for: what Python chooses, by these names, and what drivers and the tables of families go by.
// Kernels of an sc_rows_task come first, those of an sc_gradient_task last.
enum sc_kernel_id {
    SC_ROWS_SKIP,        // forward and backward_data: skips zeros of `in`
    SC_ROWS_SPIKES,      // the same of an `in` of zeros and ones, which is nothing but `known`: adds weights
    SC_ROWS_DENSE,       // skips nothing
    SC_ROWS_TILES,       // skips nothing, on tile registers
    SC_ROWS_OUTPUT,      // computes what is needed of `out` alone
    SC_WEIGHTS_SKIP,     // skips zeros of the weights
    SC_GROUPS_DENSE,     // narrow groups
    SC_GRADIENT_GROUPS,  // backward_weight of narrow groups
    SC_GRADIENT_SKIP,    // backward_weight: skips zeros of `a`
    SC_GRADIENT_SPIKES,  // the same of an `a` of zeros and ones, which is nothing but `known`
    SC_GRADIENT_POINTS,  // the same for one tap and contiguous channels on both sides
    SC_GRADIENT_DENSE,
    SC_GRADIENT_TILES,
    SC_KERNELS_END
};
constexpr const char *SC_KERNEL_NAMES[SC_KERNELS_END] = {
    "rows_skip", "rows_spikes", "rows_dense", "rows_tiles", "rows_output", "weights_skip", "groups_dense",
    "gradient_groups", "gradient_skip", "gradient_spikes", "gradient_points", "gradient_dense", "gradient_tiles",
};

// A number of a task that Python fills by its name: all of them are int64_t. A list ends with a field without a name.
struct sc_field {
    const char *name;
    size_t place;
};
#define SC_FIELD(TASK, NAME) {#NAME, offsetof(TASK, NAME)}

// A kernel as the runtime knows it: what it does, how the work falls into items that do not meet, and how many bytes of
// scratch memory each thread needs.
template <class Task>
struct sc_kernel {
    void (*run)(const Task *, int64_t begin, int64_t end, void *scratch);
    int64_t (*items)(const Task *);
    int64_t (*scratch)(const Task *);
};

// A unit-stride, undilated piece of a row correlation:
//   out column  out_start + m * out_step,  0 <= m < out_count
//   in column   in_start  + i * in_step,   0 <= i < in_count
//   out[m] += sum_j weight[first_tap + j * tap_step] * in[m + j - shift],  0 <= j < taps
// Long kernels are cut into strands of at most SC_MAX_TAPS taps. `opens` and `closes` mark the first and the
// last strand that writes a given set of output columns. No strand is without taps, or meets nothing.
typedef struct {
    int64_t in_start, in_step, in_count;
    int64_t out_start, out_step, out_count;
    int64_t shift, taps, first_tap, tap_step;
    int64_t taps_before;            // taps of earlier groups: where this strand's weights lie in a weight tile
    int64_t opens, closes;
    int64_t new_columns;            // 0: the same columns on both sides as the strand before
    int64_t window_shift, window;   // largest shift and number of extra `in` columns over strands with equal columns
} sc_strand;

// Output columns that no strand has, zeros but for a bias: start + i * step + w, 0 <= w < width, 0 <= i < count, as far
// as there are such columns.
typedef struct {
    int64_t start, width, step, count;
} sc_gap;

enum { SC_MAX_JOINED = 16, SC_MAX_TAPS = 3, SC_MAX_LANE_VECTORS = 8, SC_MAX_CHANNEL_BLOCK = 256 };

// Where an inner tap lies in a weight tile: its group of taps (shared by all strands with these taps) and its place.
typedef struct {
    int64_t taps_before, taps, index;
} sc_tap;

typedef struct {
    int64_t out_rows, out_columns, in_rows, in_columns;
    int64_t outer_taps, inner_taps;
    const int64_t *row_table;  // [out_rows][outer_taps] -> in row or -1
    const int64_t *met_rows;   // those of `out` that meet any, ascending
    int64_t met_row_count;
    const sc_strand *outer_strands;  // with one outer dimension the same for rows: `column` is to be read as row
    int64_t outer_strand_count;     // else 0
    const sc_strand *strands;
    int64_t strand_count;
    const sc_gap *gaps;
    int64_t gap_count;
    const sc_tap *taps;  // [inner_taps]
} sc_map;

// Which elements of a tensor count: those that are not zero. Offsets and strides of the view, whose own data is not
// used, are in elements, whatever an element is; bits are numbered from the lowest one of the first byte.
enum { SC_MASK_FLOATS, SC_MASK_BYTES, SC_MASK_BITS };
typedef struct {
    sc_view view;
    const void *data;  // or NULL: there is no mask
    int64_t kind;
} sc_mask;

// Weights as a kernel sees them: a lane dimension (vector lanes), a channel dimension (the scalar operand's
// channels), outer taps and inner taps; both channel dimensions within one group.
typedef struct {
    float *data;
    int64_t group_stride, lane_stride, channel_stride, tap_stride;
    const int64_t *outer_taps;  // offset of each outer tap
    int64_t flat_taps;          // 1: outer tap t begins inner_taps * tap_stride elements behind outer tap t - 1
} sc_weight_view;

// What becomes of the finished sums of forward and backward_data: act( sum + bias + residual ), see common/epilogue.h
typedef struct {
    const float *bias;  // (channels of `out`,) or NULL
    sc_view residual;   // of the shape of `out`, which it may be itself; without data: there is none
    int64_t relu;
    int64_t stream;     // 1: the result is bigger than the caches
    uint16_t *bits;     // NULL, or with relu where the bits of the nonzero results go, in the order of memory. Only for
                        // contiguous channels, whose pixels and groups begin at multiples of 16 elements
} sc_epilogue;

// What rows/dense.h asks of memory before it is used: nothing, weights, or weights and the next tile's pixels, too.
enum { SC_AHEAD_NOTHING, SC_AHEAD_WEIGHTS, SC_AHEAD_PIXELS };

// forward and backward_data
typedef struct {
    sc_map map;
    sc_view in, out;
    sc_mask needed;    // of `out`: where it has none, the result is zero
    sc_mask known;     // of `in`: its nonzero elements, if they are known
    int64_t batch, groups;
    int64_t channels;  // of `in`, per group
    int64_t lanes;     // channels of `out`, per group
    sc_weight_view weight;
    sc_epilogue epilogue;
    float threshold;   // skipping kernels take magnitudes of up to this for zeros
    int64_t kernel;    // SC_ROWS_*
    // blocking
    int64_t parts;             // of an f32 on tile registers, bf16 but for sc_tile_table.fp16; 0 for other kernels
    int64_t lane_vectors;      // at most so many 16-lane vectors in a lane block
    int64_t channel_block;     // channels in a weight tile; on tile registers those that a sweep takes
    int64_t word;              // channels of a word of bits in skipping kernels: channel_block, or a part of it
    int64_t packs_values;      // 1: what is not zero is copied, side by side for each word; only whole vectors but for
                               // the last word
    int64_t reads_ahead;       // 1: skipping kernels ask for what the next chunk reads, not for what they read soon
    int64_t chunk_rows;        // output rows that are finished before the next ones are begun
    int64_t segment, segments; // long rows are cut into segments of so many columns; then chunk_rows is 1
    int64_t in_segment;        // at most so many columns of `in` are made ready for one segment
    int64_t lane_groups;       // work items per chunk, each with its share of lane blocks
    int64_t pack_ahead;        // 1: all weights are packed once before the first item, 0: tile by tile, where needed
    int64_t ahead;             // SC_AHEAD_*, for the dense kernel
    int64_t joined;            // 1: all taps are added to an output together; SC_MAX_JOINED strands x outer taps
    int64_t pieces;            // on tile registers: images are cut into so many pieces of equal numbers of rows, and 16
                               // pieces share a tile; 0: 16 neighbouring positions of long rows do
    float *packed;             // where they are packed ahead
    sc_interrupt interrupt;
} sc_rows_task;

constexpr sc_field SC_ROWS_FIELDS[] = {
    SC_FIELD(sc_rows_task, batch), SC_FIELD(sc_rows_task, groups), SC_FIELD(sc_rows_task, channels),
    SC_FIELD(sc_rows_task, lanes), SC_FIELD(sc_rows_task, parts), SC_FIELD(sc_rows_task, lane_vectors),
    SC_FIELD(sc_rows_task, channel_block), SC_FIELD(sc_rows_task, word), SC_FIELD(sc_rows_task, packs_values),
    SC_FIELD(sc_rows_task, reads_ahead), SC_FIELD(sc_rows_task, chunk_rows), SC_FIELD(sc_rows_task, segment),
    SC_FIELD(sc_rows_task, segments), SC_FIELD(sc_rows_task, in_segment), SC_FIELD(sc_rows_task, lane_groups),
    SC_FIELD(sc_rows_task, pack_ahead), SC_FIELD(sc_rows_task, ahead),
    SC_FIELD(sc_rows_task, joined), SC_FIELD(sc_rows_task, pieces), {},
};

// Three families fill it: rows/rows.h, outputs/outputs.h (SC_ROWS_OUTPUT), amx/rows.h (SC_ROWS_TILES).
struct sc_rows_table {
    sc_kernel<sc_rows_task> pack, rows;
    int64_t (*packed_bytes)(const sc_rows_task *);  // of task.packed, where weights are packed ahead
};

// backward_weight: weight gradient of channels `a` (scalar operand, map.out) by lanes `b` (map.in)
typedef struct {
    sc_map map;
    sc_view a, b;
    sc_mask known;            // of a: its nonzero elements, if they are known
    int64_t batch, groups;
    int64_t channels, lanes;  // of a and of b, per group
    sc_weight_view gradient;
    float threshold;        // as above, for elements of a
    // The output_mask, or null. Both in C order, one byte each; `pair_*` are the strides of `needed_pairs`, that of
    // channels or of lanes is 1.
    const uint8_t *needed;        // [out channel][in channel of the group][tap]: 0 where the gradient is not needed
    const uint8_t *needed_pairs;  // [out channel][in channel of the group]: 0 where no tap is needed; or null
    int64_t pair_group, pair_lane, pair_channel;
    int64_t kernel;         // SC_GRADIENT_*, but for that of narrow groups
    int64_t parts;          // as above
    int64_t outer_group;    // outer taps that are swept together, those of an outer strand; 1: one after the other
    int64_t listed;         // 1: SC_GRADIENT_SKIP reads lists of nonzeros, 0: words of bits, and values where they are
    int64_t lane_vectors;   // vectors in a lane block
    int64_t lane_blocks;    // lane blocks in a work item
    int64_t channel_block;  // channels of a in a work item
    int64_t chunk_rows, segment, segments;
    sc_interrupt interrupt;
} sc_gradient_task;

constexpr sc_field SC_GRADIENT_FIELDS[] = {
    SC_FIELD(sc_gradient_task, batch), SC_FIELD(sc_gradient_task, groups), SC_FIELD(sc_gradient_task, channels),
    SC_FIELD(sc_gradient_task, lanes), SC_FIELD(sc_gradient_task, pair_group), SC_FIELD(sc_gradient_task, pair_lane),
    SC_FIELD(sc_gradient_task, pair_channel), SC_FIELD(sc_gradient_task, parts),
    SC_FIELD(sc_gradient_task, outer_group), SC_FIELD(sc_gradient_task, listed),
    SC_FIELD(sc_gradient_task, lane_vectors), SC_FIELD(sc_gradient_task, lane_blocks),
    SC_FIELD(sc_gradient_task, channel_block), SC_FIELD(sc_gradient_task, chunk_rows),
    SC_FIELD(sc_gradient_task, segment), SC_FIELD(sc_gradient_task, segments), {},
};

struct sc_gradient_table {
    sc_kernel<sc_gradient_task> gradient;
    int64_t (*needed)(const sc_gradient_task *);  // (channel, lane block) pairs that `pairs` needs
};

// Convolutions of many narrow groups, dense: 16 lanes are channels of `out` that follow one another, of any groups.
// kernels/groups/lanes.h says how lanes find the channels of `in` that their groups have.
enum { SC_MAX_GROUP_CHANNELS = 64 };  // of either side, in one group

// forward and backward_data
typedef struct {
    sc_map map;
    sc_view in, out;
    int64_t batch, groups;
    int64_t channels;  // of `in`, per group
    int64_t lanes;     // of `out`, per group
    sc_weight_view weight;
    sc_epilogue epilogue;     // `mask` for `out` that is written in place
    int64_t spread, overlap;  // see groups/lanes.h
    int64_t in_place;   // 1: vectors of `in` are read where they are; 0: pixels are packed
    int64_t out_place;  // 1: vectors of `out` are stored where they belong, those of a residual read there; 0: through
                        // a tile and a transpose
    // A phase is the output columns of the strands with one out_start:
    //   map.strands[phase_strands[i]], phases[phase] <= i < phases[phase + 1]
    const int64_t *phases, *phase_strands;
    int64_t phase_count, most_strands;  // most strands of a phase
    // blocking
    int64_t chunk_rows, segment, segments, in_segment;  // as in sc_rows_task
    int64_t shares;     // work items per chunk, each with its share of the vectors
    int64_t ahead;      // 1: the next row of `in` is asked for while one is computed
    float *packed;      // [vector]: bias and weights
    sc_interrupt interrupt;
} sc_groups_task;

constexpr sc_field SC_GROUPS_FIELDS[] = {
    SC_FIELD(sc_groups_task, batch), SC_FIELD(sc_groups_task, groups), SC_FIELD(sc_groups_task, channels),
    SC_FIELD(sc_groups_task, lanes), SC_FIELD(sc_groups_task, spread), SC_FIELD(sc_groups_task, overlap),
    SC_FIELD(sc_groups_task, in_place), SC_FIELD(sc_groups_task, out_place), SC_FIELD(sc_groups_task, phase_count),
    SC_FIELD(sc_groups_task, most_strands), SC_FIELD(sc_groups_task, chunk_rows), SC_FIELD(sc_groups_task, segment),
    SC_FIELD(sc_groups_task, segments), SC_FIELD(sc_groups_task, in_segment), SC_FIELD(sc_groups_task, shares),
    SC_FIELD(sc_groups_task, ahead), {},
};

// backward_weight: lanes are channels of `a`, the gradient of the output; `b` is the input.
typedef struct {
    sc_map map;
    sc_view a, b;
    int64_t batch, groups;
    int64_t channels, lanes;  // of b and of a, per group
    sc_weight_view gradient;
    int64_t spread, overlap;
    int64_t a_place, b_place;  // 1: read where it is
    int64_t a_ahead, b_ahead;  // floats from a chunk to the next one, which is asked for meanwhile; 0: it is not
    // blocking
    int64_t chunk_rows, segment, segments, in_segment;
    int64_t sum_parts;  // of the chunks, summed apart and added up in this order
    int64_t shares;     // work items per part, each with its share of the vectors
    float *sums;     // [part][vector][weights of a vector]
    sc_interrupt interrupt;
} sc_groups_gradient_task;

constexpr sc_field SC_GROUPS_GRADIENT_FIELDS[] = {
    SC_FIELD(sc_groups_gradient_task, batch), SC_FIELD(sc_groups_gradient_task, groups),
    SC_FIELD(sc_groups_gradient_task, channels), SC_FIELD(sc_groups_gradient_task, lanes),
    SC_FIELD(sc_groups_gradient_task, spread), SC_FIELD(sc_groups_gradient_task, overlap),
    SC_FIELD(sc_groups_gradient_task, a_place), SC_FIELD(sc_groups_gradient_task, b_place),
    SC_FIELD(sc_groups_gradient_task, a_ahead), SC_FIELD(sc_groups_gradient_task, b_ahead),
    SC_FIELD(sc_groups_gradient_task, chunk_rows), SC_FIELD(sc_groups_gradient_task, segment),
    SC_FIELD(sc_groups_gradient_task, segments), SC_FIELD(sc_groups_gradient_task, in_segment),
    SC_FIELD(sc_groups_gradient_task, sum_parts), SC_FIELD(sc_groups_gradient_task, shares), {},
};

struct sc_groups_table {
    sc_kernel<sc_groups_task> pack, rows;
    int64_t (*packed_bytes)(const sc_groups_task *);  // of task.packed
    sc_kernel<sc_groups_gradient_task> gradient, store_gradient;
    int64_t (*sums_bytes)(const sc_groups_gradient_task *);  // of task.sums
};

// A nonzero weight: its value, and its place channel * taps + tap among the weights of its filter.
typedef struct {
    float value;
    uint32_t index;
} sc_nonzero;

// The nonzero weights of every filter of one direction: filters are out channels in forward and in channels in
// backward_data, channels the others. Taps that meet the same outputs (backward_data with strides: every other row and
// column) form a class with lists of its own. The list of (class, filter) lies in
//   nonzeros[start[block]] .. nonzeros[start[block + 1]],  start = starts + (class * filters + filter) * (blocks + 1)
// for channels block * block_channels and on, a power of two; behind each list are records that may hold anything.
typedef struct {
    sc_nonzero *nonzeros;
    int64_t *starts;
    int64_t groups, filters, channels;  // filters over all groups, channels of one group
    int64_t taps, inner_taps;
    int64_t whole_rows;  // 1: nonzeros come in threes, the inner taps of one channel and outer tap
    int64_t classes;
    const int64_t *class_ends;  // [classes]: taps of class i are class_taps[class_ends[i - 1] .. class_ends[i])
    const int64_t *class_taps;  // [taps]
    int64_t block_channels, blocks;
} sc_lists;

// Making them from weights in C order: filter f of a group begins at data + group * group_stride + f * filter_stride.
typedef struct {
    sc_lists lists;
    const float *data;
    int64_t group_stride, filter_stride, channel_stride;
    int64_t item_filters; // of a work item, 32 at most
    int64_t *not_finite;  // [items]: how many Inf and NaN were met
    int64_t *not_whole;   // [items]: 0 if inner rows have three taps, and each of them only zeros or only nonzeros
    sc_interrupt interrupt;
} sc_lists_task;

// forward and backward_data, skipping zeros of the weights. 16 output lines are computed side by side, one per lane; a
// line is a segment of `tile` output columns (of every phase) of an output row. Phases are the output columns that meet
// input columns at the same distances: with dilation every other column forward, with stride backwards.
typedef struct {
    sc_map map;
    sc_view in, out;
    int64_t batch, groups;
    int64_t channels, filters;  // of `in` and of `out`, per group
    sc_lists lists;
    sc_epilogue epilogue;  // without `mask`
    // columns: phase p of a segment has output columns p + m * phases, 0 <= m < tile, behind the segment's first one
    int64_t phases, tile, segments;
    int64_t in_advance;         // input columns from one segment to the next
    int64_t width;              // columns of a packed row: all that a segment meets, and no others
    const int64_t *columns;     // [width]: which ones, ascending, from the segment's first one
    const int64_t *column_places;  // [width]: where they lie in the packed row
    const int64_t *tap_places;  // [phases][inner_taps]: where the column lies that m = 0 meets, or -1
    // blocking
    int64_t channel_block;      // channels that are swept together, a multiple of lists.block_channels
    int64_t chunk_steps;        // steps (one line of each lane) of a work item
    int64_t shares;             // work items per chunk, each with its share of the filters
    sc_interrupt interrupt;
} sc_weights_task;

constexpr sc_field SC_WEIGHTS_FIELDS[] = {
    SC_FIELD(sc_weights_task, batch), SC_FIELD(sc_weights_task, groups), SC_FIELD(sc_weights_task, channels),
    SC_FIELD(sc_weights_task, filters), SC_FIELD(sc_weights_task, phases), SC_FIELD(sc_weights_task, tile),
    SC_FIELD(sc_weights_task, segments), SC_FIELD(sc_weights_task, in_advance), SC_FIELD(sc_weights_task, width),
    SC_FIELD(sc_weights_task, channel_block), SC_FIELD(sc_weights_task, chunk_steps),
    SC_FIELD(sc_weights_task, shares), {},
};

struct sc_weights_table {
    sc_kernel<sc_lists_task> count, fill;  // lists are counted first, then filled
    sc_kernel<sc_weights_task> rows;
};
