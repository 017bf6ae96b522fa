# `cimport sparseconv`: the C interface for Cython. include/sparseconv.h says what it means, docs/c_api.md its use.
from libc.stdint cimport int64_t, uint8_t, uint64_t

cdef extern from "sparseconv.h" nogil:
    enum: SC_API_VERSION

    ctypedef enum sc_status:
        SC_OK, SC_NO_MEMORY, SC_INTERRUPTED, SC_BAD_OPERANDS

    ctypedef int (*sc_signals)() noexcept nogil

    ctypedef struct sc_call:
        pass

    ctypedef struct sc_operands:
        size_t size
        const float *x
        const float *weight
        const float *bias
        const float *grad_output
        const void *input_mask
        const void *grad_output_mask
        const void *output_mask
        float *out
        uint8_t *bits
        const float *residual

    ctypedef struct sc_view:
        float *data
        int64_t image_stride, column_stride, channel_stride, block_stride
        const int64_t *rows

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

    ctypedef enum sc_transposable_method:
        SC_GREEDY, SC_ENTROPY, SC_EXACT
    enum: SC_MAX_BLOCK

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

    ctypedef struct sc_topk_result:
        float magnitude
        int64_t sweeps

    ctypedef struct sc_convolutions:
        pass

    ctypedef struct sc_api:
        int64_t version, size
        const sc_convolutions *convolutions
        const char *(*isa)() noexcept nogil
        int (*num_threads)() noexcept nogil
        int (*run)(const sc_call *, const sc_operands *, int threads, sc_signals) noexcept nogil
        int (*bias_gradient)(sc_bias_task *, int threads, sc_signals) noexcept nogil
        int64_t (*count_above)(const float *, int64_t count, float threshold) noexcept nogil
        void (*mask_nonzero)(const float *, int64_t count, uint8_t *bits) noexcept nogil
        void (*mask_relu)(const float *, int64_t count, float *out, uint8_t *bits) noexcept nogil
        void (*mask_unpack)(const uint8_t *bits, int64_t count, uint8_t *bools) noexcept nogil
        int64_t (*mask_live_vectors)(const float *, int64_t count, int64_t width) noexcept nogil
        void (*mask_any)(const uint8_t *bools, int64_t count, int64_t width, uint8_t *any) noexcept nogil
        int (*count_blocks)(const sc_compress_task *, int threads, sc_signals) noexcept nogil
        int (*compress)(const sc_compress_task *, int threads, sc_signals) noexcept nogil
        int (*expand)(const sc_compress_task *, int threads, sc_signals) noexcept nogil
        int (*nm_mask)(sc_nm_task *, int threads, sc_signals) noexcept nogil
        int (*transposable_mask)(sc_transposable_task *, int threads, sc_signals) noexcept nogil
        int (*topk)(sc_topk_task *, int64_t k, sc_topk_result *, int threads, sc_signals) noexcept nogil
        int (*above_mask)(sc_topk_task *, int threads, sc_signals) noexcept nogil
        int (*stochastic_prune)(sc_stochastic_task *, int threads, sc_signals) noexcept nogil

    const char *sc_api_mismatch(const sc_api *)

cdef extern from "sparseconv.h":
    const char *SC_API_CAPSULE
    const char *SC_CALL_CAPSULE
    # To be called once, with the GIL, when a module is imported.
    const sc_api *import_api "sc_import"() except NULL
