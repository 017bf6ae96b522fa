# cython: language_level=3, freethreading_compatible=True, binding=True
"""Calls of the dense kernels of narrow groups; thin classes like those of _conv.pyx."""

from libc.stdint cimport int64_t

from ._conv cimport TASK_BYTES, Epilogue, Map, View, WeightView, bind_epilogue, fill, filled, hold, released
from ._cpu cimport address, check, convolutions, signals
from ._kernels cimport (
    SC_GRADIENT_GROUPS, SC_GROUPS_DENSE, SC_GROUPS_FIELDS, SC_GROUPS_GRADIENT_FIELDS, sc_bytes, sc_call,
    sc_groups_gradient_task, sc_groups_task, sc_table,
)

cdef extern from "Python.h":
    int PyBUF_STRIDED_RO, PyBUF_STRIDED


cdef class Groups:
    """A forward or backward_data call, ready but for its arrays (sc_groups_task)."""

    cdef sc_groups_task c
    cdef const sc_table *table
    cdef tuple kept

    def __cinit__(self):
        hold(TASK_BYTES)

    def __init__(self, Map map not None, View source not None, View target not None, WeightView weight not None, *,
                 Epilogue epilogue not None, phases, phase_strands, **numbers):
        self.kept, self.table = (map, source, target, weight, epilogue), convolutions().active()
        self.c.map, self.c.in_, self.c.out, self.c.weight = map.c, source.c, target.c, weight.c
        self.c.epilogue = epilogue.c
        self.c.phases = <const int64_t *>filled(phases)  # one by one: what is not stored is not freed
        self.c.phase_strands = <const int64_t *>filled(phase_strands)
        fill(&self.c, SC_GROUPS_FIELDS, numbers)

    def __dealloc__(self):
        hold(-TASK_BYTES)
        released(self.c.phases)
        released(self.c.phase_strands)

    @property
    def scratch_bytes(self):
        """Memory beside the arrays: (packed weights, once; scratch, per thread)."""
        cdef sc_bytes bytes = convolutions().groups_bytes(self.table, &self.c)
        return bytes.once, bytes.each

    def bind(self, size_t call, float threshold, lists):
        """As _conv.Rows.bind."""
        cdef sc_call *to = <sc_call *>call
        to.kernel, to.table, to.task.groups = SC_GROUPS_DENSE, self.table, self.c

    def run(self, source, weight, bias, target, int threads, float threshold=0, bits=None, needed=None, known=None,
            residual=None):
        """As Rows.run; every element is computed, whatever `threshold`, `needed` and `known` say."""
        cdef sc_groups_task task = self.c
        bind_epilogue(&task.epilogue, bias, residual, bits)
        task.in_.data = <float *>address(source, PyBUF_STRIDED_RO)
        task.weight.data = <float *>address(weight, PyBUF_STRIDED_RO)
        task.out.data = <float *>address(target, PyBUF_STRIDED)
        with nogil:
            check(convolutions().groups(self.table, &task, threads, signals))


cdef class GroupsGradient:
    """A backward_weight call, ready but for its arrays (sc_groups_gradient_task)."""

    cdef sc_groups_gradient_task c
    cdef const sc_table *table
    cdef tuple kept

    def __cinit__(self):
        hold(TASK_BYTES)

    def __dealloc__(self):
        hold(-TASK_BYTES)

    def __init__(self, Map map not None, View a not None, View b not None, WeightView gradient not None, **numbers):
        self.kept, self.table = (map, a, b, gradient), convolutions().active()
        self.c.map, self.c.a, self.c.b, self.c.gradient = map.c, a.c, b.c, gradient.c
        fill(&self.c, SC_GROUPS_GRADIENT_FIELDS, numbers)

    @property
    def scratch_bytes(self):
        """Memory beside the arrays: (sums, once; scratch, per thread)."""
        cdef sc_bytes bytes = convolutions().groups_gradient_bytes(self.table, &self.c)
        return bytes.once, bytes.each

    def needed(self, pairs):
        """As Gradient.needed: a mask of the result saves nothing."""
        return 1.0

    def bind(self, size_t call, float threshold, lists):
        """As _conv.Rows.bind."""
        cdef sc_call *to = <sc_call *>call
        to.kernel, to.table, to.task.groups_gradient = SC_GRADIENT_GROUPS, self.table, self.c

    def run(self, a, b, gradient, int threads, float threshold=0, needed=None, needed_pairs=None, known=None):
        """As Gradient.run; every element is computed, whatever `threshold`, the masks and `known` say."""
        cdef sc_groups_gradient_task task = self.c
        task.a.data = <float *>address(a, PyBUF_STRIDED_RO)
        task.b.data = <float *>address(b, PyBUF_STRIDED_RO)
        task.gradient.data = <float *>address(gradient, PyBUF_STRIDED)
        with nogil:
            check(convolutions().groups_gradient(self.table, &task, threads, signals))
