# cython: language_level=3, freethreading_compatible=True, binding=True
"""The kernels of pruning on C-contiguous memory; the modules of pruning/ check and shape."""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from sparseconv cimport (
    SC_ENTROPY, SC_EXACT, SC_GREEDY, SC_STOCHASTIC_ITEM, sc_magnitudes, sc_nm_task, sc_stochastic_task,
    sc_topk_result, sc_topk_task, sc_transposable_task,
)

from ._cpu cimport address, api, check, signals

cdef extern from "Python.h":
    int PyBUF_SIMPLE, PyBUF_WRITABLE

METHODS = {"exact": SC_EXACT, "greedy": SC_GREEDY, "entropy": SC_ENTROPY}


cdef sc_magnitudes magnitudes(array) except *:
    """The memory of a float32 or float64 array."""
    cdef sc_magnitudes found
    cdef void *data = address(array, PyBUF_SIMPLE)
    found.single = NULL
    found.wide = NULL
    if array.dtype.itemsize == 8:
        found.wide = <double *>data
    else:
        found.single = <float *>data
    return found


def nm_mask(weight, mask, int64_t length, int64_t inner, int64_t groups, int64_t n, int64_t m, int threads):
    cdef sc_nm_task task
    task.weight = magnitudes(weight)
    task.mask = <uint8_t *>address(mask, PyBUF_WRITABLE)
    task.length, task.inner, task.groups, task.n, task.m = length, inner, groups, n, m
    with nogil:
        check(api().nm_mask(&task, threads, signals))


def transposable_mask(weight, double scale, mask, int64_t n, int64_t m, str method, int64_t iterations,
                      double sharpness, int threads):
    cdef sc_transposable_task task
    task.weight = magnitudes(weight)
    task.scale = scale
    task.mask = <uint8_t *>address(mask, PyBUF_WRITABLE)
    task.rows, task.columns = weight.shape
    task.n, task.m = n, m
    task.method, task.iterations, task.sharpness = METHODS[method], iterations, sharpness
    with nogil:
        check(api().transposable_mask(&task, threads, signals))


def topk(x, int64_t count, int64_t k, mask, int threads):
    """(The k-th largest magnitude, or NaN where any element is; sweeps over memory); fills `mask` unless it is None."""
    cdef sc_topk_task task
    cdef sc_topk_result result
    task.data = <float *>address(x, PyBUF_SIMPLE)
    task.count = count
    task.mask = NULL
    if mask is not None:
        task.mask = <uint8_t *>address(mask, PyBUF_WRITABLE)
    with nogil:
        check(api().topk(&task, k, &result, threads, signals))
    return result.magnitude, result.sweeps


def above_mask(x, int64_t count, float threshold, mask, int threads):
    """Fills `mask` with whether magnitudes are above a threshold; NaN is."""
    cdef sc_topk_task task
    task.data = <float *>address(x, PyBUF_SIMPLE)
    task.count = count
    task.high = threshold
    task.mask = <uint8_t *>address(mask, PyBUF_WRITABLE)
    with nogil:
        check(api().above_mask(&task, threads, signals))


# Elements of what one thread does at a time (include/sparseconv.h): as many sums and counts are given back.
STOCHASTIC_ITEM = SC_STOCHASTIC_ITEM


def stochastic_prune(gradient, out, double threshold, uint64_t key, sums, nonzeros, int threads):
    cdef sc_stochastic_task task
    task.gradient = magnitudes(gradient)
    task.out = NULL if out is None else address(out, PyBUF_WRITABLE)
    task.count, task.threshold, task.key = gradient.size, threshold, key
    task.sums = <double *>address(sums, PyBUF_WRITABLE)
    task.nonzeros = <int64_t *>address(nonzeros, PyBUF_WRITABLE)
    with nogil:
        check(api().stochastic_prune(&task, threads, signals))
