# What _weights.pyx needs of _conv.pyx.
from libc.stdint cimport int64_t

from sparseconv cimport sc_view

from ._kernels cimport sc_call, sc_epilogue, sc_field, sc_map, sc_weight_view

# What a bound kernel takes beside its tables: its struct, and the Python objects that come and go with it. Measured as
# the growth of a process by 2000 small problems in three passes: 8 KB for each pass, small tables included.
cdef enum:
    TASK_BYTES = 8192

cdef void hold(int64_t bytes) noexcept
cdef int fill(void *task, const sc_field *fields, dict numbers) except -1
cdef void *filled(values) except NULL
cdef void released(const void *table) noexcept


cdef class Map:
    cdef sc_map c


cdef class View:
    cdef sc_view c


cdef class WeightView:
    cdef sc_weight_view c


cdef class Epilogue:
    cdef sc_epilogue c
    cdef View residual


cdef class Task:
    cdef sc_call c
    cdef tuple kept
    cdef int use(self, str kernel, tuple kept) except -1
    cdef int settle(self, sc_call *to, float threshold, lists) except -1
