# cython: language_level=3, freethreading_compatible=True, binding=True
"""What the arrays of a prepared call must be like, looked at without making Python objects; and calls for C."""

from cpython.object cimport PyObject
from libc.stdint cimport uintptr_t
from libc.stdlib cimport calloc, free

from sparseconv cimport SC_CALL_CAPSULE

from ._kernels cimport sc_call

cdef extern from "Python.h":
    ctypedef struct Py_buffer:
        void *buf
        int ndim, readonly
        Py_ssize_t itemsize
        char *format
        Py_ssize_t *shape
        Py_ssize_t *strides
    int PyBUF_RECORDS_RO
    int PyObject_CheckBuffer(object)
    int PyObject_GetBuffer(object, Py_buffer *, int) except -1
    void PyBuffer_Release(Py_buffer *)
    ctypedef void (*destructor "PyCapsule_Destructor")(PyObject *) noexcept
    object PyCapsule_New(void *, const char *, destructor)
    void *PyCapsule_GetPointer(PyObject *, const char *)
    int PyCapsule_SetContext(object, void *) except -1
    void *PyCapsule_GetContext(PyObject *)
    void Py_INCREF(object)
    void Py_DECREF(PyObject *)

cdef extern from *:
    """
    #define SC_PLACE(name) offsetof(sc_operands, name)
    """
    size_t X "SC_PLACE(x)"
    size_t WEIGHT "SC_PLACE(weight)"
    size_t BIAS "SC_PLACE(bias)"
    size_t GRAD_OUTPUT "SC_PLACE(grad_output)"
    size_t INPUT_MASK "SC_PLACE(input_mask)"
    size_t GRAD_OUTPUT_MASK "SC_PLACE(grad_output_mask)"
    size_t OUTPUT_MASK "SC_PLACE(output_mask)"
    size_t BITS "SC_PLACE(bits)"
    size_t RESIDUAL "SC_PLACE(residual)"

cdef enum:
    MOST_DIMENSIONS = 64  # of a NumPy array


cdef class Form:
    """An array but for its address and its elements, as the buffer protocol tells it."""

    cdef int ndim
    cdef char kind
    cdef Py_ssize_t itemsize, low, high  # bytes in front of the first element, and behind it
    cdef Py_ssize_t shape[MOST_DIMENSIONS]
    cdef Py_ssize_t strides[MOST_DIMENSIONS]

    def __init__(self, array):
        cdef Py_buffer buffer
        cdef int axis
        PyObject_GetBuffer(array, &buffer, PyBUF_RECORDS_RO)
        self.ndim, self.itemsize, self.kind = buffer.ndim, buffer.itemsize, buffer.format[0]
        self.low, self.high = 0, buffer.itemsize
        for axis in range(buffer.ndim):
            self.shape[axis], self.strides[axis] = buffer.shape[axis], buffer.strides[axis]
            if buffer.shape[axis] and buffer.strides[axis] < 0:
                self.low += (buffer.shape[axis] - 1) * buffer.strides[axis]
            elif buffer.shape[axis]:
                self.high += (buffer.shape[axis] - 1) * buffer.strides[axis]
        PyBuffer_Release(&buffer)

    cdef uintptr_t address(self, array, bint writes) except? 1:
        """Where an array of this form begins; 0 if it is another one, or not aligned, or not to be written to."""
        cdef Py_buffer buffer
        cdef int axis
        if not PyObject_CheckBuffer(array):
            return 0
        PyObject_GetBuffer(array, &buffer, PyBUF_RECORDS_RO)
        cdef uintptr_t address = <uintptr_t>buffer.buf
        cdef bint good = buffer.ndim == self.ndim and buffer.format[0] == self.kind and buffer.format[1] == 0
        good = good and buffer.itemsize == self.itemsize and address % self.itemsize == 0
        good = good and not (writes and buffer.readonly)
        if good:
            for axis in range(self.ndim):
                if buffer.shape[axis] != self.shape[axis] or buffer.strides[axis] != self.strides[axis]:
                    good = False
                    break
        PyBuffer_Release(&buffer)
        return address if good else 0


cdef class Forms:
    """The forms of a call's operands and of its result."""

    cdef list operands  # (form, index among the arrays, name)
    cdef Form result

    def __init__(self, dict operands, tuple names, result):
        """`operands` in the order in which `fit` gives them back, `names` in the order in which it gets them."""
        self.operands = [(Form(array), names.index(name), name) for name, array in operands.items()]
        self.result = Form(result)

    def fit(self, tuple arrays, out):
        """The operands by name if all are as they should be; None where one is not, or a closer look is needed.

        `out` may be None. Where memory may overlap only the first and the last bytes are compared.
        """
        cdef dict fitting = {}
        cdef object name, array
        cdef uintptr_t address, low = 0, high = 0
        cdef Form form
        cdef Py_ssize_t index
        if out is not None:
            address = self.result.address(out, True)
            if address == 0:
                return None
            low, high = address + self.result.low, address + self.result.high
        if len(arrays) != len(self.operands):
            return None
        for form, index, name in self.operands:
            array = arrays[index]
            address = form.address(array, False)
            if address == 0 or (address + form.low < high and low < address + form.high):
                return None
            fitting[name] = array
        return fitting


PLACES = {
    "x": X, "weight": WEIGHT, "bias": BIAS, "grad_output": GRAD_OUTPUT, "input_mask": INPUT_MASK,
    "grad_output_mask": GRAD_OUTPUT_MASK, "output_mask": OUTPUT_MASK, "bits": BITS, "residual": RESIDUAL,
}


cdef void destroy(PyObject *capsule) noexcept:
    free(PyCapsule_GetPointer(capsule, SC_CALL_CAPSULE))
    Py_DECREF(<PyObject *>PyCapsule_GetContext(capsule))


def capsule(task, lists, float threshold, *, str source, str weight="", str bias="", str residual="", str known="",
            str needed="", str bits=""):
    """An sc_call of a bound kernel: which of sc_operands are its arrays. It keeps the kernel's tables."""
    owned = (task, lists)  # first: a capsule that has no owner yet cannot be destroyed
    cdef sc_call *call = <sc_call *>calloc(1, sizeof(sc_call))
    if call == NULL:
        raise MemoryError("no memory for a call")
    try:
        call.source, call.weight, call.bias = PLACES[source], PLACES.get(weight, 0), PLACES.get(bias, 0)
        call.residual = PLACES.get(residual, 0)
        call.known, call.needed, call.bits = PLACES.get(known, 0), PLACES.get(needed, 0), PLACES.get(bits, 0)
        task.bind(<size_t>call, threshold, lists)
        made = PyCapsule_New(call, SC_CALL_CAPSULE, destroy)
    except:
        free(call)
        raise
    Py_INCREF(owned)
    PyCapsule_SetContext(made, <void *>owned)
    return made
