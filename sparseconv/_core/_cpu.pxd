# The kernels are linked into _cpu alone; the other modules reach them through these functions.
from libc.stdint cimport int64_t

from ._kernels cimport (
    sc_bias_task, sc_compress_task, sc_gradient_task, sc_groups_gradient_task, sc_groups_task, sc_lists_task,
    sc_nm_task, sc_rows_task, sc_stochastic_task, sc_table, sc_topk_task, sc_transposable_task, sc_weights_task,
    topk_result,
)

cdef const sc_table *active_table() noexcept nogil
cdef int call_rows(const sc_table *table, sc_rows_task *task, int threads) except -1 nogil
cdef int call_gradient(const sc_table *table, sc_gradient_task *task, int threads) except -1 nogil
cdef int call_groups(const sc_table *table, sc_groups_task *task, int threads) except -1 nogil
cdef int call_groups_gradient(const sc_table *table, sc_groups_gradient_task *task, int threads) except -1 nogil
cdef int call_lists(const sc_table *table, sc_lists_task *task, int step, int threads) except -1 nogil
cdef int call_weights(const sc_table *table, sc_weights_task *task, int threads) except -1 nogil
cdef int call_bias_gradient(sc_bias_task *task, int threads) except -1 nogil
cdef int call_count_blocks(const sc_compress_task *task, int threads) except -1 nogil
cdef int call_compress(const sc_compress_task *task, int threads) except -1 nogil
cdef int call_expand(const sc_compress_task *task, int threads) except -1 nogil
cdef int call_nm_mask(sc_nm_task *task, int threads) except -1 nogil
cdef int call_transposable_mask(sc_transposable_task *task, int threads) except -1 nogil
cdef int call_stochastic_prune(sc_stochastic_task *task, int threads) except -1 nogil
cdef int call_topk(sc_topk_task *task, int64_t k, topk_result *result, int threads) except -1 nogil
cdef int call_above_mask(sc_topk_task *task, int threads) except -1 nogil
cdef int64_t packed_bytes(const sc_rows_task *task) noexcept nogil
cdef int64_t rows_scratch(const sc_table *table, const sc_rows_task *task) noexcept nogil
cdef int64_t gradient_scratch(const sc_table *table, const sc_gradient_task *task) noexcept nogil
cdef void *address(object array, int flags) except? NULL
