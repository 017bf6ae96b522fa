# What kernels/*.h declare, for Cython.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint64_t

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

    ctypedef struct sc_view:
        float *data
        int64_t image_stride, column_stride, channel_stride, block_stride
        const int64_t *rows

    ctypedef struct sc_mask:
        sc_view view
        const void *data
        int64_t kind

    ctypedef struct sc_weight_view:
        float *data
        int64_t group_stride, lane_stride, channel_stride, tap_stride
        const int64_t *outer_taps
        int64_t flat_taps

    ctypedef struct sc_rows_task:
        sc_map map
        sc_view in_ "in"
        sc_view out
        sc_mask needed, live
        int64_t batch, groups, channels, lanes
        sc_weight_view weight
        const float *bias
        int64_t relu, stream, dense, outputs, parts
        float threshold
        uint16_t *mask
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
        const float *bias
        int64_t relu, stream
        uint16_t *mask
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
        const float *bias
        int64_t relu, stream, phases, tile, segments, in_advance, width
        const int64_t *columns
        const int64_t *column_places
        const int64_t *tap_places
        int64_t channel_block, chunk_steps, shares

    ctypedef struct sc_bias_task:
        sc_view in_ "in"
        int64_t batch, rows, columns, channels
        float *out

    enum: SC_COMPRESSED_BLOCK, SC_COMPRESSED_ITEM
    ctypedef struct sc_compress_task:
        float *dense
        int64_t count
        uint8_t *bits
        float *packed
        int64_t *offsets
        int64_t counted

    ctypedef struct sc_magnitudes:
        const float *single
        const double *wide

    ctypedef struct sc_nm_task:
        sc_magnitudes weight
        uint8_t *mask
        int64_t length, inner, groups, n, m

    enum: SC_STOCHASTIC_ITEM
    ctypedef struct sc_stochastic_task:
        sc_magnitudes gradient
        void *out
        int64_t count
        uint64_t key
        double threshold
        double *sums
        int64_t *nonzeros

    enum sc_transposable_method:
        SC_GREEDY, SC_ENTROPY, SC_EXACT

    ctypedef struct sc_transposable_task:
        sc_magnitudes weight
        double scale
        uint8_t *mask
        int64_t rows, columns, n, m, method, iterations
        double sharpness

    ctypedef struct sc_topk_task:
        const float *data
        int64_t count
        float high
        uint8_t *mask

cdef extern from "kernels/isa/table.h" nogil:
    ctypedef struct sc_tile_table:
        pass

    ctypedef struct sc_table:
        const char *name
        int64_t accumulators, dense_pixels, dense_vectors
        int64_t (*count_above)(const float *, int64_t, float) noexcept nogil
        void (*mask_nonzero)(const float *, int64_t, uint8_t *) noexcept nogil
        void (*mask_relu)(const float *, int64_t, float *, uint8_t *) noexcept nogil
        void (*mask_unpack)(const uint8_t *, int64_t, uint8_t *) noexcept nogil
        int64_t (*mask_live_vectors)(const float *, int64_t, int64_t) noexcept nogil
        void (*mask_any)(const uint8_t *, int64_t, int64_t, uint8_t *) noexcept nogil
        int64_t (*gradient_needed)(const sc_gradient_task *) noexcept nogil
        int64_t (*pack_groups_bytes)(const sc_groups_task *) noexcept nogil
        int64_t (*groups_scratch)(const sc_groups_task *) noexcept nogil
        int64_t (*groups_gradient_scratch)(const sc_groups_gradient_task *) noexcept nogil
        int64_t (*groups_gradient_sums_bytes)(const sc_groups_gradient_task *) noexcept nogil
        int64_t (*weights_scratch)(const sc_weights_task *) noexcept nogil
        const sc_tile_table *tiles

cdef extern from "kernels/runtime/dispatch.h" namespace "sparseconv" nogil:
    ctypedef struct isa_entry "sparseconv::isa":
        const sc_table *table
        bint (*supported)() noexcept nogil
    const isa_entry *isas(int *count)
    const sc_table *active()
    void set_active(const sc_table *)
    const char *vendor()

cdef extern from "kernels/runtime/run.h" namespace "sparseconv" nogil:
    int run_rows(const sc_table &, sc_rows_task &, int, int (*)() noexcept)
    int run_gradient(const sc_table &, sc_gradient_task &, int, int (*)() noexcept)
    int run_groups(const sc_table &, sc_groups_task &, int, int (*)() noexcept)
    int run_groups_gradient(const sc_table &, sc_groups_gradient_task &, int, int (*)() noexcept)
    int run_lists(const sc_table &, sc_lists_task &, int, int, int (*)() noexcept)
    int run_weights(const sc_table &, sc_weights_task &, int, int (*)() noexcept)
    int run_bias_gradient(const sc_table &, sc_bias_task &, int, int (*)() noexcept)
    int run_count_blocks(const sc_table &, const sc_compress_task &, int, int (*)() noexcept)
    int run_compress(const sc_table &, const sc_compress_task &, int, int (*)() noexcept)
    int run_expand(const sc_table &, const sc_compress_task &, int, int (*)() noexcept)
    int run_nm_mask(const sc_table &, sc_nm_task &, int, int (*)() noexcept)
    int run_transposable_mask(const sc_table &, sc_transposable_task &, int, int (*)() noexcept)
    ctypedef struct topk_result:
        float magnitude
        int64_t passes
    int run_topk(const sc_table &, sc_topk_task &, int64_t, topk_result &, int, int (*)() noexcept)
    int run_above_mask(const sc_table &, sc_topk_task &, int, int (*)() noexcept)
    int run_stochastic_prune(const sc_table &, sc_stochastic_task &, int, int (*)() noexcept)
    int64_t rows_packed_bytes(const sc_rows_task &)
    int64_t rows_scratch_bytes(const sc_table &, const sc_rows_task &)
    int64_t gradient_scratch_bytes(const sc_table &, const sc_gradient_task &)
