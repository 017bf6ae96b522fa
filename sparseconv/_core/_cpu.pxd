# The kernels are linked into _cpu alone; the other modules reach them through its interface.
from sparseconv cimport sc_api

from ._kernels cimport sc_convolutions

cdef const sc_api *api() noexcept nogil
cdef const sc_convolutions *convolutions() noexcept nogil
cdef int check(int status) except -1 nogil  # raises what a status says
cdef int signals() noexcept nogil  # for the calls of the interface: looks for Python's signals
cdef void *address(object array, int flags) except? NULL
