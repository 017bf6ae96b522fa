# The kernels are linked into _cpu alone; the other modules reach them through these functions.
from libc.stdint cimport int64_t

from ._kernels cimport sc_bias_task, sc_gradient_task, sc_rows_task, sc_table

cdef const sc_table *active_table() noexcept nogil
cdef int call_rows(sc_rows_task *task, int threads) except -1 nogil
cdef int call_gradient(sc_gradient_task *task, int threads) except -1 nogil
cdef int call_bias_gradient(sc_bias_task *task, int threads) except -1 nogil
cdef int64_t packed_bytes(const sc_rows_task *task) noexcept nogil
cdef void *address(object array, int flags) except? NULL
