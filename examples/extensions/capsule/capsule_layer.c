/* A layer in plain C: sparseconv's functions come out of a capsule, nothing is linked.
 *
 * Build it with `python setup.py build_ext --inplace` in this folder; docs/c_api.md shows its use. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "sparseconv.h"

static const sc_api *api;

/* The memory of a float32 array whose elements lie side by side. */
static int floats(PyObject *array, Py_buffer *buffer, int writable) {
    int flags = PyBUF_ANY_CONTIGUOUS | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(array, buffer, flags)) return -1;
    if (buffer->itemsize == sizeof(float) && buffer->format[0] == 'f') return 0;
    PyErr_Format(PyExc_TypeError, "array: got format %s, expected float32", buffer->format);
    PyBuffer_Release(buffer);
    return -1;
}

PyDoc_STRVAR(convolve_doc, "convolve(capsule, x, weight, out, threads): a prepared call of conv2d.");

static PyObject *convolve(PyObject *module, PyObject *arguments) {
    PyObject *capsule, *arrays[3];
    Py_buffer buffers[3];
    int threads, taken = 0, status;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "OOOOi", &capsule, &arrays[0], &arrays[1], &arrays[2], &threads)) return NULL;
    const sc_call *call = (const sc_call *)PyCapsule_GetPointer(capsule, SC_CALL_CAPSULE);
    if (!call) return NULL;
    for (; taken < 3; ++taken) {
        if (floats(arrays[taken], &buffers[taken], taken == 2)) break;
    }
    if (taken == 3) {
        sc_operands operands = {0};
        operands.size = sizeof operands;
        operands.x = (const float *)buffers[0].buf;
        operands.weight = (const float *)buffers[1].buf;
        operands.out = (float *)buffers[2].buf;
        Py_BEGIN_ALLOW_THREADS
        status = api->run(call, &operands, threads, NULL);
        Py_END_ALLOW_THREADS
        if (status == SC_NO_MEMORY) PyErr_NoMemory();
        else if (status != SC_OK) PyErr_Format(PyExc_ValueError, "operands: got status %d, expected 0", status);
    }
    for (int i = 0; i < taken; ++i) PyBuffer_Release(&buffers[i]);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(density_doc, "density(array): the share of elements that are not zero.");

static PyObject *density(PyObject *module, PyObject *array) {
    Py_buffer buffer;
    int64_t count, live;
    (void)module;
    if (floats(array, &buffer, 0)) return NULL;
    count = buffer.len / (Py_ssize_t)sizeof(float);
    Py_BEGIN_ALLOW_THREADS
    live = api->count_above((const float *)buffer.buf, count, 0);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&buffer);
    return PyFloat_FromDouble(count ? (double)live / (double)count : 0.0);
}

static PyMethodDef methods[] = {
    {"convolve", convolve, METH_VARARGS, convolve_doc},
    {"density", density, METH_O, density_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "capsule_layer", "A layer in plain C.", -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_capsule_layer(void) {
    api = sc_import();
    return api ? PyModule_Create(&definition) : NULL;
}
