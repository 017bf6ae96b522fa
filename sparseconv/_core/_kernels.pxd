# What kernels/*.h declare, for Cython: what is not in include/sparseconv.h, which __init__.pxd declares.
from libc.stdint cimport int64_t, uint8_t, uint16_t

from sparseconv cimport sc_signals, sc_view

cdef extern from "kernels/common/problem.h" nogil:
    ctypedef struct sc_strand:
        int64_t in_start, in_step, in_count, out_start, out_step, out_count
        int64_t shift, taps, first_tap, tap_step, taps_before
        int64_t opens, closes, new_columns, window_shift, window

    ctypedef struct sc_gap:
        int64_t start, width, step, count

    ctypedef struct sc_tap:
        int64_t taps_before, taps, index

    ctypedef struct sc_map:
        int64_t out_rows, out_columns, in_rows, in_columns, outer_taps, inner_taps
        const int64_t *row_table
        const int64_t *met_rows
        int64_t met_row_count
        const sc_strand *outer_strands
        int64_t outer_strand_count
        const sc_strand *strands
        int64_t strand_count
        const sc_gap *gaps
        int64_t gap_count
        const sc_tap *taps

    ctypedef struct sc_mask:
        sc_view view
        const void *data
        int64_t kind

    ctypedef struct sc_weight_view:
        float *data
        int64_t group_stride, lane_stride, channel_stride, tap_stride
        const int64_t *outer_taps
        int64_t flat_taps

    ctypedef struct sc_epilogue:
        const float *bias
        sc_view residual
        int64_t relu, stream
        uint16_t *bits

    enum: SC_ROWS_TILES, SC_GRADIENT_TILES, SC_KERNELS_END
    const char *SC_KERNEL_NAMES[SC_KERNELS_END]

    ctypedef struct sc_field:
        const char *name
        size_t place
    const sc_field *SC_ROWS_FIELDS
    const sc_field *SC_GRADIENT_FIELDS
    const sc_field *SC_GROUPS_FIELDS
    const sc_field *SC_GROUPS_GRADIENT_FIELDS
    const sc_field *SC_WEIGHTS_FIELDS

    # Of the tasks only what is not filled by name.
    ctypedef struct sc_rows_task:
        sc_map map
        sc_view in_ "in"
        sc_view out
        sc_mask needed, known
        sc_weight_view weight
        sc_epilogue epilogue
        float threshold
        int64_t kernel

    ctypedef struct sc_gradient_task:
        sc_map map
        sc_view a, b
        sc_mask known
        int64_t groups, channels, lanes, lane_vectors
        sc_weight_view gradient
        float threshold
        const uint8_t *needed
        const uint8_t *needed_pairs
        int64_t kernel

    ctypedef struct sc_groups_task:
        sc_map map
        sc_view in_ "in"
        sc_view out
        sc_weight_view weight
        sc_epilogue epilogue
        const int64_t *phases
        const int64_t *phase_strands

    ctypedef struct sc_groups_gradient_task:
        sc_map map
        sc_view a, b
        sc_weight_view gradient

    ctypedef struct sc_nonzero:
        float value

    ctypedef struct sc_lists:
        sc_nonzero *nonzeros
        int64_t *starts
        int64_t groups, filters, channels, taps, inner_taps, whole_rows, classes
        const int64_t *class_ends
        const int64_t *class_taps
        int64_t block_channels, blocks

    ctypedef struct sc_lists_task:
        sc_lists lists
        const float *data
        int64_t group_stride, filter_stride, channel_stride, item_filters
        int64_t *not_finite
        int64_t *not_whole

    ctypedef struct sc_weights_task:
        sc_map map
        sc_view in_ "in"
        sc_view out
        sc_lists lists
        sc_epilogue epilogue
        const int64_t *columns
        const int64_t *column_places
        const int64_t *tap_places

cdef extern from "kernels/isa/table.h" nogil:
    ctypedef struct sc_tile_table:
        int64_t fp16

    ctypedef struct sc_limits:
        int64_t accumulators, dense_pixels, dense_vectors, point_vectors
        double slope

    ctypedef struct sc_table:
        const char *name
        sc_limits limits
        const sc_tile_table *tiles

cdef extern from "kernels/runtime/run.h" nogil:
    ctypedef struct sc_bytes:
        int64_t once, each

    ctypedef union sc_call_task:
        sc_rows_task rows
        sc_gradient_task gradient
        sc_groups_task groups
        sc_groups_gradient_task groups_gradient
        sc_weights_task weights

    ctypedef struct sc_call:
        const sc_table *table
        int64_t kernel
        size_t source, weight, bias, residual, known, needed, bits
        sc_call_task task

    ctypedef struct sc_arrays:
        void *source
        void *weight
        void *bias
        void *residual
        void *known
        void *needed
        void *needed_pairs
        void *bits
        void *out

    ctypedef struct sc_convolutions:
        const sc_table *(*active)() noexcept nogil
        sc_bytes (*bytes)(const sc_call *) noexcept nogil
        void (*point)(sc_call *, const sc_arrays *) noexcept nogil
        int (*run)(sc_call *, int, sc_signals) noexcept nogil
        int64_t (*gradient_needed)(const sc_table *, const sc_gradient_task *) noexcept nogil
        int (*count_lists)(const sc_table *, sc_lists_task *, int, sc_signals) noexcept nogil
        int (*fill_lists)(const sc_table *, sc_lists_task *, int, sc_signals) noexcept nogil
