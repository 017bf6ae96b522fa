# cython: language_level=3, boundscheck=False
"""A layer for Cython: a prepared call runs on raw pointers, without the GIL.

Build it with ``python setup.py build_ext --inplace`` in this folder; docs/c_api.md shows its use.
"""

cimport sparseconv
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int64_t
from libc.string cimport memset

cdef const sparseconv.sc_api *api = sparseconv.import_api()


cdef int raised(int status) except -1:
    if status == sparseconv.SC_NO_MEMORY:
        raise MemoryError("no memory for scratch buffers")
    if status != sparseconv.SC_OK:
        raise ValueError(f"operands: got status {status}, expected arrays as the call was prepared with")
    return 0


def convolve(capsule, const float[:, :, :, :] images, const float[:, :, :, :] weight, float[:, :, :, :] out,
             int threads=1):
    """Runs a call of conv2d that was prepared for one image on every image in turn; the GIL is released once."""
    cdef const sparseconv.sc_call *call = <const sparseconv.sc_call *>PyCapsule_GetPointer(
        capsule, sparseconv.SC_CALL_CAPSULE
    )
    cdef sparseconv.sc_operands operands
    cdef int status = sparseconv.SC_OK
    cdef Py_ssize_t image
    if out.shape[0] != images.shape[0]:
        raise ValueError(f"out: got {out.shape[0]} images, expected {images.shape[0]}")
    memset(&operands, 0, sizeof(operands))
    operands.size = sizeof(operands)
    operands.weight = &weight[0, 0, 0, 0]
    with nogil:
        for image in range(images.shape[0]):
            operands.x, operands.out = &images[image, 0, 0, 0], &out[image, 0, 0, 0]
            status = api.run(call, &operands, threads, NULL)
            if status != sparseconv.SC_OK:
                break
    raised(status)


def kth_largest(const float[::1] values, int64_t k, int threads=1):
    """The k-th largest magnitude."""
    cdef sparseconv.sc_topk_task task
    cdef sparseconv.sc_topk_result result
    cdef int status
    memset(&task, 0, sizeof(task))
    if not 1 <= k <= values.shape[0]:
        raise ValueError(f"k: got {k}, expected 1 to {values.shape[0]}")
    task.data, task.count = &values[0], values.shape[0]
    with nogil:
        status = api.topk(&task, k, &result, threads, NULL)
    raised(status)
    return result.magnitude
