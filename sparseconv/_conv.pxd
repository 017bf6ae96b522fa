# What _weights.pyx needs of _conv.pyx.
from ._kernels cimport sc_map, sc_view

cdef void *filled(values) except NULL


cdef class Map:
    cdef sc_map c


cdef class View:
    cdef sc_view c
