# cython: language_level=3, freethreading_compatible=True, binding=True
"""The kernels of masks and of packed nonzeros on contiguous memory; masks.py and compressed.py check and shape.

And the samples by which choice.py knows densities, of arrays of any strides.
"""

from libc.math cimport INFINITY, fabsf
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport llabs

from sparseconv cimport SC_COMPRESSED_BLOCK, SC_COMPRESSED_ITEM, sc_compress_task

from ._cpu cimport address, api, check, signals

cdef extern from *:
    """
    static inline int popcount(unsigned char byte) { return __builtin_popcount(byte); }
    """
    int popcount(unsigned char) nogil

cdef extern from "Python.h":
    ctypedef struct Py_buffer:
        void *buf
        int ndim
        Py_ssize_t itemsize
        Py_ssize_t *shape
        Py_ssize_t *strides
    int PyBUF_ANY_CONTIGUOUS, PyBUF_STRIDED_RO, PyBUF_WRITABLE
    int PyObject_GetBuffer(object, Py_buffer *, int) except -1
    void PyBuffer_Release(Py_buffer *)


def count_nonzero(array, int64_t count):
    cdef const float *data = <const float *>address(array, PyBUF_ANY_CONTIGUOUS)
    with nogil:
        count = api().count_above(data, count, 0)
    return count


def nonzero(array, int64_t count, bits):
    cdef const float *data = <const float *>address(array, PyBUF_ANY_CONTIGUOUS)
    cdef uint8_t *to = <uint8_t *>address(bits, PyBUF_ANY_CONTIGUOUS | PyBUF_WRITABLE)
    with nogil:
        api().mask_nonzero(data, count, to)


def relu(array, int64_t count, out, bits):
    cdef const float *data = <const float *>address(array, PyBUF_ANY_CONTIGUOUS)
    cdef float *result = <float *>address(out, PyBUF_ANY_CONTIGUOUS | PyBUF_WRITABLE)
    cdef uint8_t *to = <uint8_t *>address(bits, PyBUF_ANY_CONTIGUOUS | PyBUF_WRITABLE)
    with nogil:
        api().mask_relu(data, count, result, to)


def unpack(bits, int64_t count, bools):
    cdef const uint8_t *data = <const uint8_t *>address(bits, PyBUF_ANY_CONTIGUOUS)
    cdef uint8_t *to = <uint8_t *>address(bools, PyBUF_ANY_CONTIGUOUS | PyBUF_WRITABLE)
    with nogil:
        api().mask_unpack(data, count, to)


def any_of(bools, int64_t count, int64_t width, found):
    cdef const uint8_t *data = <const uint8_t *>address(bools, PyBUF_ANY_CONTIGUOUS)
    cdef uint8_t *to = <uint8_t *>address(found, PyBUF_ANY_CONTIGUOUS | PyBUF_WRITABLE)
    with nogil:
        api().mask_any(data, count, width, to)


def live_vectors(array, int64_t count, int64_t width):
    cdef const float *data = <const float *>address(array, PyBUF_ANY_CONTIGUOUS)
    with nogil:
        count = api().mask_live_vectors(data, count, width)
    return count


def sampled_density(array, int most_runs, float threshold=0):
    """The share of elements above `threshold` in a sample of an array; see `sample`."""
    return sample(array, most_runs, threshold)


cdef double sample(array, int most_runs, float threshold) except -1:
    """The share of elements above `threshold` in runs of up to 64 elements, spread over an array of any strides.

    There are at most `most_runs` of them, and fewer in small arrays, of which they see about 3%. Each run starts at a
    scattered place (multiplicative hashing), so that it does not meet the same channels again and again. Arrays are of
    floats, of bools, or of bytes that hold bits, eight elements each.
    """
    cdef Py_buffer buffer
    PyObject_GetBuffer(array, &buffer, PyBUF_STRIDED_RO)
    cdef int64_t shape[64]
    cdef int64_t strides[64]
    cdef int dims = 0
    cdef int inner = -1
    cdef int axis
    cdef int64_t size = 1
    for axis in range(buffer.ndim):
        size *= buffer.shape[axis]
        if buffer.shape[axis] > 1:
            shape[dims], strides[dims] = buffer.shape[axis], buffer.strides[axis] // buffer.itemsize
            if inner < 0 or llabs(strides[dims]) <= llabs(strides[inner]):
                inner = dims
            dims += 1
    cdef const char *data = <const char *>buffer.buf
    cdef int width = buffer.itemsize
    PyBuffer_Release(&buffer)
    cdef bint bits = width == 1 and array.dtype.char == "B"
    cdef const char *start
    cdef int64_t nonzero = 0, seen = 0, length = 0, place, offset, size_
    cdef unsigned long long state = 0x9e3779b97f4a7c15ull, draw
    cdef int run, dim, i
    if size == 0:
        return 0.0
    if dims == 0:
        dims, inner, shape[0], strides[0] = 1, 0, 1, 1
    cdef int runs = <int>max(1, min(most_runs, size // 2048))
    with nogil:
        for run in range(runs):
            start = data
            for dim in range(dims):
                state = state * 6364136223846793005ull + 1442695040888963407ull
                draw = state >> 33
                size_ = shape[dim]
                if dim == inner:
                    length = 64 if size_ > 64 else size_
                    place = <int64_t>(draw % <unsigned long long>(size_ - length + 1))
                else:
                    place = <int64_t>(draw % <unsigned long long>size_)
                start += place * strides[dim] * width
            offset = strides[inner]
            if bits:
                for i in range(length):
                    nonzero += popcount(<unsigned char>start[i * offset])
            elif width == 1:
                for i in range(length):
                    nonzero += start[i * offset] != 0
            elif offset == 1:
                nonzero += api().count_above(<const float *>start, length, threshold)
            else:
                for i in range(length):
                    nonzero += not fabsf((<const float *>start)[i * offset]) <= threshold
            seen += length * 8 if bits else length
    return nonzero / <double>seen


def cheapest(str skip, dict candidates, int most_runs, float threshold):
    """The operand that is cheapest to skip of those that `skip` names: (densities, it, its cost).

    Candidates are (array, or its density if that is known; cost of all elements; fixed cost), see planning.choose.
    """
    cdef dict densities = {}
    cdef double density, cost, least = INFINITY
    cdef object best = "", operand, array, each, fixed
    cdef bint any_of_them = skip == "auto"
    for operand, (array, each, fixed) in candidates.items():
        if any_of_them or skip == operand:
            density = array if type(array) is float else sample(array, most_runs, threshold)
            densities[operand] = density
            cost = <double>each * density + <double>fixed
            if cost < least:
                best, least = operand, cost
    return densities, best, least


# What include/sparseconv.h says of packed nonzeros: elements of a block, and of what one thread does at a time.
COMPRESSED_BLOCK = SC_COMPRESSED_BLOCK
COMPRESSED_ITEM = SC_COMPRESSED_ITEM


def count_blocks(array, int64_t count, offsets, int threads):
    cdef sc_compress_task task
    task.dense = <float *>address(array, PyBUF_ANY_CONTIGUOUS)
    task.count = count
    task.offsets = <int64_t *>address(offsets, PyBUF_ANY_CONTIGUOUS | PyBUF_WRITABLE)
    with nogil:
        check(api().count_blocks(&task, threads, signals))


def compress(array, int64_t count, bits, packed, offsets, bint counted, int threads):
    cdef sc_compress_task task
    task.dense = <float *>address(array, PyBUF_ANY_CONTIGUOUS)
    task.count = count
    task.bits = <uint8_t *>address(bits, PyBUF_ANY_CONTIGUOUS | PyBUF_WRITABLE)
    task.packed = <float *>address(packed, PyBUF_ANY_CONTIGUOUS | PyBUF_WRITABLE)
    task.offsets = <int64_t *>address(offsets, PyBUF_ANY_CONTIGUOUS | PyBUF_WRITABLE)
    task.counted = counted
    with nogil:
        check(api().compress(&task, threads, signals))


def expand(bits, packed, offsets, array, int64_t count, int threads):
    cdef sc_compress_task task
    task.dense = <float *>address(array, PyBUF_ANY_CONTIGUOUS | PyBUF_WRITABLE)
    task.count = count
    task.bits = <uint8_t *>address(bits, PyBUF_ANY_CONTIGUOUS)
    task.packed = <float *>address(packed, PyBUF_ANY_CONTIGUOUS)
    task.offsets = <int64_t *>address(offsets, PyBUF_ANY_CONTIGUOUS)
    with nogil:
        check(api().expand(&task, threads, signals))
