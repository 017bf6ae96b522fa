# cython: language_level=3, freethreading_compatible=True, binding=True
"""The kernels of masks and of packed nonzeros on contiguous memory; masks.py and compressed.py check and shape."""

from libc.stdint cimport int64_t, uint8_t

from ._cpu cimport active_table, address, call_compress, call_count_blocks, call_expand
from ._kernels cimport SC_COMPRESSED_BLOCK, SC_COMPRESSED_ITEM, sc_compress_task

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


def any_of(bools, int64_t count, int64_t width, found):
    cdef const uint8_t *data = <const uint8_t *>address(bools, PyBUF_ANY_CONTIGUOUS)
    cdef uint8_t *to = <uint8_t *>address(found, PyBUF_ANY_CONTIGUOUS | PyBUF_WRITABLE)
    with nogil:
        active_table().mask_any(data, count, width, to)


def live_vectors(array, int64_t count, int64_t width):
    cdef const float *data = <const float *>address(array, PyBUF_ANY_CONTIGUOUS)
    with nogil:
        count = active_table().mask_live_vectors(data, count, width)
    return count


# What kernels/problem.h says of packed nonzeros: elements of a block, and of what one thread does at a time.
COMPRESSED_BLOCK = SC_COMPRESSED_BLOCK
COMPRESSED_ITEM = SC_COMPRESSED_ITEM


def count_blocks(array, int64_t count, offsets, int threads):
    cdef sc_compress_task task
    task.dense = <float *>address(array, PyBUF_ANY_CONTIGUOUS)
    task.count = count
    task.offsets = <int64_t *>address(offsets, PyBUF_ANY_CONTIGUOUS | PyBUF_WRITABLE)
    with nogil:
        call_count_blocks(&task, threads)


def compress(array, int64_t count, bits, packed, offsets, bint counted, int threads):
    cdef sc_compress_task task
    task.dense = <float *>address(array, PyBUF_ANY_CONTIGUOUS)
    task.count = count
    task.bits = <uint8_t *>address(bits, PyBUF_ANY_CONTIGUOUS | PyBUF_WRITABLE)
    task.packed = <float *>address(packed, PyBUF_ANY_CONTIGUOUS | PyBUF_WRITABLE)
    task.offsets = <int64_t *>address(offsets, PyBUF_ANY_CONTIGUOUS | PyBUF_WRITABLE)
    task.counted = counted
    with nogil:
        call_compress(&task, threads)


def expand(bits, packed, offsets, array, int64_t count, int threads):
    cdef sc_compress_task task
    task.dense = <float *>address(array, PyBUF_ANY_CONTIGUOUS | PyBUF_WRITABLE)
    task.count = count
    task.bits = <uint8_t *>address(bits, PyBUF_ANY_CONTIGUOUS)
    task.packed = <float *>address(packed, PyBUF_ANY_CONTIGUOUS)
    task.offsets = <int64_t *>address(offsets, PyBUF_ANY_CONTIGUOUS)
    with nogil:
        call_expand(&task, threads)
