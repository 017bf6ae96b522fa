# cython: language_level=3, freethreading_compatible=True, binding=True
"""Calls that skip zero weights, and lists of the others, which they read; thin classes like those of _conv.pyx."""

from _thread import allocate_lock, get_ident

from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc, realloc

from ._conv cimport TASK_BYTES, Epilogue, Map, View, bind_epilogue, filled, hold, released
from ._cpu cimport address, check, convolutions, signals
from ._kernels cimport (
    SC_CALL_WEIGHTS, sc_bytes, sc_call, sc_lists, sc_lists_task, sc_nonzero, sc_table, sc_weights_task,
)

cdef extern from "Python.h":
    int PyBUF_STRIDED_RO, PyBUF_STRIDED

# The record behind each list, and a cache line: lists of equal length would meet in few cache sets as they are filled.
cdef enum:
    BEHIND_LIST = 9


cdef class Lists:
    """The nonzero weights of one direction (sc_lists), with memory of their own. Made by packed.py.

    They are to be used only if `finite`: then they are complete, and no weight is Inf or NaN.
    """

    cdef sc_lists c
    cdef sc_lists_task filling
    cdef int64_t items, capacity
    cdef readonly int64_t count  # nonzeros
    cdef readonly bint finite

    def __init__(self, *, groups, rows, channels, taps, inner_taps, class_ends, class_taps, block_channels,
                 group_stride, row_stride, channel_stride, item_rows):
        cdef sc_lists *c = &self.c
        c.groups, c.rows, c.channels, c.classes = groups, rows, channels, len(class_ends)
        c.taps, c.inner_taps = taps, inner_taps
        c.class_ends, c.class_taps = <const int64_t *>filled(class_ends), <const int64_t *>filled(class_taps)
        c.block_channels, c.blocks = block_channels, -(-channels // block_channels)
        self.items = groups * -(-(rows // groups) // item_rows)
        c.starts = <int64_t *>malloc(c.classes * c.rows * (c.blocks + 1) * sizeof(int64_t))
        self.filling.not_finite = <int64_t *>malloc(self.items * sizeof(int64_t))
        self.filling.not_whole = <int64_t *>malloc(self.items * sizeof(int64_t))
        if c.starts == NULL or self.filling.not_finite == NULL or self.filling.not_whole == NULL:
            raise MemoryError("no memory for the lists of nonzero weights")
        self.filling.group_stride, self.filling.row_stride = group_stride, row_stride
        self.filling.channel_stride, self.filling.item_rows = channel_stride, item_rows

    def __dealloc__(self):
        free(self.c.nonzeros)
        free(self.c.starts)
        released(self.c.class_ends)
        released(self.c.class_taps)
        free(self.filling.not_finite)
        free(self.filling.not_whole)

    @property
    def nbytes(self):
        """Bytes of the lists."""
        cdef int64_t starts = self.c.classes * self.c.rows * (self.c.blocks + 1)
        return self.capacity * sizeof(sc_nonzero) + starts * sizeof(int64_t)

    def fill(self, weight, int threads):
        """Makes the lists of these weights, a C-contiguous array; memory is taken anew only if they do not fit."""
        self.finite = False  # whatever ends this early
        cdef sc_lists_task task = self.filling
        cdef const sc_table *table = convolutions().active()
        cdef int64_t lists = self.c.classes * self.c.rows, place = 0, count, i, block
        cdef int64_t *starts = self.c.starts
        cdef sc_nonzero *memory
        task.data = <const float *>address(weight, PyBUF_STRIDED_RO)
        task.lists = self.c
        with nogil:
            check(convolutions().count_lists(table, &task, threads, signals))
            for i in range(lists):
                for block in range(self.c.blocks):
                    count = starts[block]
                    starts[block] = place
                    place += count
                starts[self.c.blocks] = place
                place += BEHIND_LIST
                starts += self.c.blocks + 1
        if place > self.capacity:
            memory = <sc_nonzero *>realloc(self.c.nonzeros, place * sizeof(sc_nonzero))
            if memory == NULL:
                raise MemoryError("no memory for the lists of nonzero weights")
            self.c.nonzeros, self.capacity = memory, place
            task.lists = self.c
        with nogil:
            check(convolutions().fill_lists(table, &task, threads, signals))
        self.count, self.finite, self.c.whole_rows = place - BEHIND_LIST * lists, True, True
        for i in range(self.items):
            self.finite = self.finite and task.not_finite[i] == 0
            self.c.whole_rows = self.c.whole_rows and task.not_whole[i] == 0


cdef class Weights:
    """A forward or backward_data call that skips zero weights, ready but for its arrays (sc_weights_task)."""

    cdef sc_weights_task c
    cdef const sc_table *table
    cdef tuple kept

    def __cinit__(self):
        hold(TASK_BYTES)

    def __init__(self, Map map not None, View source not None, View target not None, *, Epilogue epilogue not None,
                 batch, groups, channels, filters, phases, tile, segments, in_advance, columns, column_places, width,
                 tap_places, channel_block, chunk_steps, shares):
        self.kept, self.table = (map, source, target, epilogue), convolutions().active()
        self.c.map, self.c.in_, self.c.out = map.c, source.c, target.c
        self.c.batch, self.c.groups, self.c.channels, self.c.filters = batch, groups, channels, filters
        self.c.epilogue = epilogue.c
        self.c.phases, self.c.tile, self.c.segments = phases, tile, segments
        self.c.in_advance, self.c.width = in_advance, width
        self.c.columns = <const int64_t *>filled(columns)
        self.c.column_places = <const int64_t *>filled(column_places)
        self.c.tap_places = <const int64_t *>filled(tap_places)
        self.c.channel_block, self.c.chunk_steps, self.c.shares = channel_block, chunk_steps, shares

    def __dealloc__(self):
        hold(-TASK_BYTES)
        released(self.c.columns)
        released(self.c.column_places)
        released(self.c.tap_places)

    @property
    def scratch_bytes(self):
        """Memory beside the arrays and lists: (0, scratch per thread)."""
        cdef sc_bytes bytes = convolutions().weights_bytes(self.table, &self.c)
        return bytes.once, bytes.each

    def bind(self, size_t call, float threshold, Lists lists not None):
        """As _conv.Rows.bind; the call needs the lists, too."""
        cdef sc_call *to = <sc_call *>call
        to.kind, to.table, to.task.weights = SC_CALL_WEIGHTS, self.table, self.c
        to.task.weights.lists = lists.c

    def run(self, source, Lists lists not None, bias, target, int threads, residual=None):
        cdef sc_weights_task task = self.c
        task.lists = lists.c
        task.in_.data = <float *>address(source, PyBUF_STRIDED_RO)
        bind_epilogue(&task.epilogue, bias, residual, None)
        task.out.data = <float *>address(target, PyBUF_STRIDED)
        with nogil:
            check(convolutions().weights(self.table, &task, threads, signals))


cdef class Guard:
    """Who uses memory that one thread at a time may change: ``with guard:`` reads, ``with guard.writing:`` writes.

    Writers wait for readers, and readers for writers, also for those that wait already: else a steady stream of calls
    would keep an update out for ever. Nobody waits for himself, which would never end: a signal handler runs in the
    middle of the call that it interrupts. A thread that reads may read again; all else of that kind is a RuntimeError.

    It is compiled because no signal handler can run, and raise, between its lines: it never counts a reader that does
    not begin, or one too long.
    """

    cdef object mutex
    cdef object writer  # a thread
    cdef dict readers  # by thread, how often
    cdef list next_writers  # threads
    cdef list waiting  # locks of those who wait for a change
    cdef str name, left

    def __init__(self, str name not None):
        """`name` is what messages call that which is guarded."""
        self.name, self.mutex, self.left, self.writer = name, allocate_lock(), "", None
        self.readers, self.next_writers, self.waiting = {}, [], []

    @property
    def writing(self):
        """What a writer enters."""
        return Writing(self)

    def __enter__(self):
        cdef object me = get_ident()
        while True:
            with self.mutex:
                if me in self.readers:
                    self.readers[me] += 1
                    return self
                if self.left:
                    raise RuntimeError(f"{self.name}: {self.left}")
                if self.writer is None and (not self.next_writers or me in self.next_writers):
                    self.readers[me] = 1
                    return self
                if self.writer == me:
                    raise RuntimeError(f"{self.name}: got a call in the middle of its own update (from a signal "
                                       "handler?), expected one before or behind it")
                turn = self.ticket()
            turn.acquire()

    def __exit__(self, kind, value, trace):
        cdef object me = get_ident()
        with self.mutex:
            self.readers[me] -= 1
            if not self.readers[me]:
                del self.readers[me]
                self.changed()

    cdef begin_writing(self):
        cdef object me = get_ident()
        cdef bint waits = False  # in next_writers
        try:
            while True:
                with self.mutex:
                    if me in self.readers or self.writer == me:
                        raise RuntimeError(f"{self.name}: got an update in the middle of a call that uses it (from a "
                                           "signal handler?), expected one before or behind it")
                    if self.writer is None and not self.readers:
                        self.writer = me
                        return
                    if not waits:
                        waits = True
                        self.next_writers.append(me)
                    turn = self.ticket()
                turn.acquire()  # a handler's exception ends the wait
        finally:
            if waits:
                with self.mutex:
                    self.next_writers.remove(me)
                    if self.writer != me:
                        self.changed()

    cdef end_writing(self, whole):
        with self.mutex:
            self.writer = None
            if whole:
                self.left = ""
            self.changed()

    cdef ticket(self):
        turn = allocate_lock()
        turn.acquire()
        self.waiting.append(turn)
        return turn

    cdef changed(self):
        for turn in self.waiting:
            turn.release()
        self.waiting = []

    def after_fork(self):
        """In a child process: no other thread of the parent goes on here."""
        cdef object me = get_ident()
        self.mutex, self.waiting = allocate_lock(), []
        self.next_writers = [one for one in self.next_writers if one == me]
        self.readers = {me: self.readers[me]} if me in self.readers else {}
        if self.writer is not None and self.writer != me:
            self.writer = None
            self.left = "got a process that was forked in the middle of an update, expected another update first"


cdef class Writing:
    """The writer's side of a Guard."""

    cdef Guard guard

    def __init__(self, Guard guard not None):
        self.guard = guard

    def __enter__(self):
        self.guard.begin_writing()
        return self

    def __exit__(self, kind, value, trace):
        self.guard.end_writing(kind is None)
