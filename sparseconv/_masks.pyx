# cython: language_level=3, freethreading_compatible=True, binding=True
"""The mask kernels on contiguous memory; masks.py checks and shapes."""

from libc.stdint cimport int64_t, uint8_t

from ._cpu cimport active_table

cdef extern from "Python.h":
    ctypedef struct Py_buffer:
        void *buf
    int PyBUF_ANY_CONTIGUOUS, PyBUF_WRITABLE
    int PyObject_GetBuffer(object, Py_buffer *, int) except -1
    void PyBuffer_Release(Py_buffer *)


cdef void *address(object array, int flags) except? NULL:
    cdef Py_buffer buffer
    PyObject_GetBuffer(array, &buffer, flags)
    cdef void *data = buffer.buf
    PyBuffer_Release(&buffer)
    return data


def count_nonzero(array, int64_t count):
    cdef const float *data = <const float *>address(array, PyBUF_ANY_CONTIGUOUS)
    with nogil:
        count = active_table().count_nonzero(data, count)
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
