# What kernels/*.h declare, for Cython: what is not in include/sparseconv.h, which __init__.pxd declares.
from libc.stdint cimport int64_t, uint8_t, uint16_t

from sparseconv cimport sc_signals, sc_view

cdef extern from "kernels/common/problem.h" nogil:
    ctypedef struct sc_pass:
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
        const sc_pass *outer_passes
        int64_t outer_pass_count
        const sc_pass *passes
        int64_t pass_count
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
        uint16_t *mask

    ctypedef struct sc_rows_task:
        sc_map map
        sc_view in_ "in"
        sc_view out
        sc_mask needed, live
        int64_t batch, groups, channels, lanes
        sc_weight_view weight
        sc_epilogue epilogue
        int64_t dense, outputs, parts
        float threshold
        int64_t lane_vectors, channel_block, chunk_rows, segment, segments, in_segment, lane_groups, pack_ahead

    ctypedef struct sc_gradient_task:
        sc_map map
        sc_view a, b
        sc_mask live
        int64_t batch, groups, channels, lanes
        sc_weight_view gradient
        float threshold
        const uint8_t *mask
        const uint8_t *pairs
        int64_t pair_group, pair_lane, pair_channel
        int64_t dense, parts, points, outer_group, lane_vectors, lane_blocks, channel_block
        int64_t chunk_rows, segment, segments

    ctypedef struct sc_groups_task:
        sc_map map
        sc_view in_ "in"
        sc_view out
        int64_t batch, groups, channels, lanes
        sc_weight_view weight
        sc_epilogue epilogue
        int64_t spread, overlap, in_place, out_place
        const int64_t *phases
        const int64_t *phase_passes
        int64_t phase_count, most_passes, chunk_rows, segment, segments, in_segment, shares, ahead

    ctypedef struct sc_groups_gradient_task:
        sc_map map
        sc_view a, b
        int64_t batch, groups, channels, lanes
        sc_weight_view gradient
        int64_t spread, overlap, a_place, b_place, a_ahead, b_ahead
        int64_t chunk_rows, segment, segments, in_segment, parts, shares

    ctypedef struct sc_nonzero:
        float value

    ctypedef struct sc_lists:
        sc_nonzero *nonzeros
        int64_t *starts
        int64_t groups, rows, channels, taps, inner_taps, whole_rows, classes
        const int64_t *class_ends
        const int64_t *class_taps
        int64_t block_channels, blocks

    ctypedef struct sc_lists_task:
        sc_lists lists
        const float *data
        int64_t group_stride, row_stride, channel_stride, item_rows
        int64_t *not_finite
        int64_t *not_whole

    ctypedef struct sc_weights_task:
        sc_map map
        sc_view in_ "in"
        sc_view out
        int64_t batch, groups, channels, filters
        sc_lists lists
        sc_epilogue epilogue
        int64_t phases, tile, segments, in_advance, width
        const int64_t *columns
        const int64_t *column_places
        const int64_t *tap_places
        int64_t channel_block, chunk_steps, shares

cdef extern from "kernels/isa/table.h" nogil:
    ctypedef struct sc_tile_table:
        pass

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

    enum: SC_CALL_ROWS, SC_CALL_GRADIENT, SC_CALL_GROUPS, SC_CALL_GROUPS_GRADIENT, SC_CALL_WEIGHTS

    ctypedef union sc_call_task:
        sc_rows_task rows
        sc_gradient_task gradient
        sc_groups_task groups
        sc_groups_gradient_task groups_gradient
        sc_weights_task weights

    ctypedef struct sc_call:
        const sc_table *table
        int64_t kind
        size_t source, weight, bias, residual, live, needed, mask
        sc_call_task task

    ctypedef struct sc_convolutions:
        const sc_table *(*active)() noexcept nogil
        int (*rows)(const sc_table *, sc_rows_task *, int, sc_signals) noexcept nogil
        int (*gradient)(const sc_table *, sc_gradient_task *, int, sc_signals) noexcept nogil
        int (*groups)(const sc_table *, sc_groups_task *, int, sc_signals) noexcept nogil
        int (*groups_gradient)(const sc_table *, sc_groups_gradient_task *, int, sc_signals) noexcept nogil
        int (*weights)(const sc_table *, sc_weights_task *, int, sc_signals) noexcept nogil
        int (*count_lists)(const sc_table *, sc_lists_task *, int, sc_signals) noexcept nogil
        int (*fill_lists)(const sc_table *, sc_lists_task *, int, sc_signals) noexcept nogil
        sc_bytes (*rows_bytes)(const sc_table *, const sc_rows_task *) noexcept nogil
        sc_bytes (*gradient_bytes)(const sc_table *, const sc_gradient_task *) noexcept nogil
        sc_bytes (*groups_bytes)(const sc_table *, const sc_groups_task *) noexcept nogil
        sc_bytes (*groups_gradient_bytes)(const sc_table *, const sc_groups_gradient_task *) noexcept nogil
        sc_bytes (*weights_bytes)(const sc_table *, const sc_weights_task *) noexcept nogil
        int64_t (*gradient_needed)(const sc_table *, const sc_gradient_task *) noexcept nogil
