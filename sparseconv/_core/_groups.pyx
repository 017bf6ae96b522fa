# cython: language_level=3, freethreading_compatible=True, binding=True
"""Calls of the dense kernels of narrow groups; thin classes like those of _conv.pyx."""

from libc.stdint cimport int64_t

from ._conv cimport TASK_BYTES, Epilogue, Map, View, WeightView, bind_epilogue, filled, hold, released
from ._cpu cimport address, check, convolutions, signals
from ._kernels cimport (
    SC_CALL_GROUPS, SC_CALL_GROUPS_GRADIENT, sc_bytes, sc_call, sc_groups_gradient_task, sc_groups_task, sc_table,
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
                 Epilogue epilogue not None, batch, groups, channels, lanes, spread, overlap, in_place, out_place,
                 phases, phase_passes, most_passes, chunk_rows, segment, segments, in_segment, shares, ahead):
        self.kept, self.table = (map, source, target, weight, epilogue), convolutions().active()
        self.c.map, self.c.in_, self.c.out, self.c.weight = map.c, source.c, target.c, weight.c
        self.c.batch, self.c.groups, self.c.channels, self.c.lanes = batch, groups, channels, lanes
        self.c.epilogue, self.c.spread, self.c.overlap = epilogue.c, spread, overlap
        self.c.in_place, self.c.out_place = in_place, out_place
        self.c.phases = <const int64_t *>filled(phases)  # one by one: what is not stored is not freed
        self.c.phase_passes = <const int64_t *>filled(phase_passes)
        self.c.phase_count, self.c.most_passes = len(phases) - 1, most_passes
        self.c.chunk_rows, self.c.segment, self.c.segments = chunk_rows, segment, segments
        self.c.in_segment, self.c.shares, self.c.ahead = in_segment, shares, ahead

    def __dealloc__(self):
        hold(-TASK_BYTES)
        released(self.c.phases)
        released(self.c.phase_passes)

    @property
    def scratch_bytes(self):
        """Memory beside the arrays: (packed weights, once; scratch, per thread)."""
        cdef sc_bytes bytes = convolutions().groups_bytes(self.table, &self.c)
        return bytes.once, bytes.each

    def bind(self, size_t call, float threshold, lists):
        """As _conv.Rows.bind."""
        cdef sc_call *to = <sc_call *>call
        to.kind, to.table, to.task.groups = SC_CALL_GROUPS, self.table, self.c

    def run(self, source, weight, bias, target, int threads, float threshold=0, mask=None, needed=None, live=None,
            residual=None):
        """As Rows.run; every element is computed, whatever `threshold`, `needed` and `live` say."""
        cdef sc_groups_task task = self.c
        bind_epilogue(&task.epilogue, bias, residual, mask)
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

    def __init__(self, Map map not None, View a not None, View b not None, WeightView gradient not None, *,
                 batch, groups, channels, lanes, spread, overlap, a_place, b_place, a_ahead, b_ahead, chunk_rows,
                 segment, segments, in_segment, parts, shares):
        self.kept, self.table = (map, a, b, gradient), convolutions().active()
        self.c.map, self.c.a, self.c.b, self.c.gradient = map.c, a.c, b.c, gradient.c
        self.c.batch, self.c.groups, self.c.channels, self.c.lanes = batch, groups, channels, lanes
        self.c.spread, self.c.overlap, self.c.a_place, self.c.b_place = spread, overlap, a_place, b_place
        self.c.a_ahead, self.c.b_ahead = a_ahead, b_ahead
        self.c.chunk_rows, self.c.segment, self.c.segments = chunk_rows, segment, segments
        self.c.in_segment, self.c.parts, self.c.shares = in_segment, parts, shares

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
        to.kind, to.table, to.task.groups_gradient = SC_CALL_GROUPS_GRADIENT, self.table, self.c

    def run(self, a, b, gradient, int threads, float threshold=0, mask=None, pairs=None, live=None):
        """As Gradient.run; every element is computed, whatever `threshold`, `mask`, `pairs` and `live` say."""
        cdef sc_groups_gradient_task task = self.c
        task.a.data = <float *>address(a, PyBUF_STRIDED_RO)
        task.b.data = <float *>address(b, PyBUF_STRIDED_RO)
        task.gradient.data = <float *>address(gradient, PyBUF_STRIDED)
        with nogil:
            check(convolutions().groups_gradient(self.table, &task, threads, signals))
