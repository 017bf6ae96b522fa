# cython: language_level=3, freethreading_compatible=True, binding=True
"""The mask kernels on contiguous memory; masks.py checks and shapes."""

from libc.stdint cimport int64_t, uint8_t

from ._cpu cimport active_table, address

cdef extern from "Python.h":
    int PyBUF_ANY_CONTIGUOUS, PyBUF_WRITABLE


def count_nonzero(array, int64_t count):
    cdef const float *data = <const float *>address(array, PyBUF_ANY_CONTIGUOUS)
    with nogil:
        count = active_table().count_above(data, count, 0)
    return count


def nonzero(array, int64_t count, bits):
    cdef const float *data = <const float *>address(array, PyBUF_ANY_CONTIGUOUS)
    cdef uint8_t *to = <uint8_t *>address(bits, PyBUF_ANY_CONTIGUOUS | PyBUF_WRITABLE)
    with nogil:
        active_table().mask_nonzero(data, count, to)


def relu(array, int64_t count, out, bits):
    cdef const float *data = <const float *>address(array, PyBUF_ANY_CONTIGUOUS)
    cdef float *result = <float *>address(out, PyBUF_ANY_CONTIGUOUS | PyBUF_WRITABLE)
    cdef uint8_t *to = <uint8_t *>address(bits, PyBUF_ANY_CONTIGUOUS | PyBUF_WRITABLE)
    with nogil:
        active_table().mask_relu(data, count, result, to)


def unpack(bits, int64_t count, bools):
    cdef const uint8_t *data = <const uint8_t *>address(bits, PyBUF_ANY_CONTIGUOUS)
    cdef uint8_t *to = <uint8_t *>address(bools, PyBUF_ANY_CONTIGUOUS | PyBUF_WRITABLE)
    with nogil:
        active_table().mask_unpack(data, count, to)


def live_vectors(array, int64_t count, int64_t width):
    cdef const float *data = <const float *>address(array, PyBUF_ANY_CONTIGUOUS)
    with nogil:
        count = active_table().mask_live_vectors(data, count, width)
    return count
