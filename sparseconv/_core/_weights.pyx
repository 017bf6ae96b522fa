# cython: language_level=3, freethreading_compatible=True, binding=True
"""Calls that skip zero weights, and lists of the others, which they read; thin classes like those of _conv.pyx."""

from _thread import allocate_lock

from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc, realloc

from ._conv cimport Epilogue, Map, Task, View, fill, filled, released
from ._cpu cimport address, check, convolutions, signals
from ._kernels cimport (
    SC_WEIGHTS_FIELDS, sc_call, sc_lists, sc_lists_task, sc_nonzero, sc_table, sc_weights_task,
)

cdef extern from "Python.h":
    int PyBUF_STRIDED_RO
    ctypedef void *PyThread_type_lock
    PyThread_type_lock PyThread_allocate_lock()
    void PyThread_free_lock(PyThread_type_lock)
    int PyThread_acquire_lock(PyThread_type_lock, int) nogil
    void PyThread_release_lock(PyThread_type_lock)
    unsigned long PyThread_get_thread_ident()

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

    def __init__(self, *, groups, filters, channels, taps, inner_taps, class_ends, class_taps, block_channels,
                 group_stride, filter_stride, channel_stride, item_filters):
        cdef sc_lists *c = &self.c
        c.groups, c.filters, c.channels, c.classes = groups, filters, channels, len(class_ends)
        c.taps, c.inner_taps = taps, inner_taps
        c.class_ends = <const int64_t *>filled(class_ends)  # one by one: what is not stored is not freed
        c.class_taps = <const int64_t *>filled(class_taps)
        c.block_channels, c.blocks = block_channels, -(-channels // block_channels)
        self.items = groups * -(-(filters // groups) // item_filters)
        c.starts = <int64_t *>malloc(c.classes * c.filters * (c.blocks + 1) * sizeof(int64_t))
        self.filling.not_finite = <int64_t *>malloc(self.items * sizeof(int64_t))
        self.filling.not_whole = <int64_t *>malloc(self.items * sizeof(int64_t))
        if c.starts == NULL or self.filling.not_finite == NULL or self.filling.not_whole == NULL:
            raise MemoryError("no memory for the lists of nonzero weights")
        self.filling.group_stride, self.filling.filter_stride = group_stride, filter_stride
        self.filling.channel_stride, self.filling.item_filters = channel_stride, item_filters

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
        cdef int64_t starts = self.c.classes * self.c.filters * (self.c.blocks + 1)
        return self.capacity * sizeof(sc_nonzero) + starts * sizeof(int64_t)

    def fill(self, weight, int threads):
        """Makes the lists of these weights, a C-contiguous array; memory is taken anew only if they do not fit."""
        self.finite = False  # whatever ends this early
        cdef sc_lists_task task = self.filling
        cdef const sc_table *table = convolutions().active()
        cdef int64_t lists = self.c.classes * self.c.filters, place = 0, count, i, block
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


cdef class Weights(Task):
    """A forward or backward_data call that skips zero weights (sc_weights_task): it has lists in their place."""

    def __init__(self, Map map not None, View source not None, View target not None, *, Epilogue epilogue not None,
                 columns, column_places, tap_places, **numbers):
        self.use("weights_skip", (map, source, target, epilogue))
        cdef sc_weights_task *c = &self.c.task.weights
        c.map, c.in_, c.out, c.epilogue = map.c, source.c, target.c, epilogue.c
        c.columns = <const int64_t *>filled(columns)  # one by one: what is not stored is not freed
        c.column_places = <const int64_t *>filled(column_places)
        c.tap_places = <const int64_t *>filled(tap_places)
        fill(c, SC_WEIGHTS_FIELDS, numbers)

    def __dealloc__(self):
        released(self.c.task.weights.columns)
        released(self.c.task.weights.column_places)
        released(self.c.task.weights.tap_places)

    cdef int settle(self, sc_call *to, float threshold, lists) except -1:
        to.task.weights.lists = (<Lists?>lists).c
        return 0


cdef class User:
    """A thread in one of a guard's lists, and how often."""

    cdef unsigned long thread
    cdef int64_t times
    cdef User next


cdef User found(User first, unsigned long thread):
    while first is not None and first.thread != thread:
        first = first.next
    return first


cdef User without(User first, User one):
    """The list without one of its own."""
    if first is one:
        return one.next
    cdef User before = first
    while before.next is not one:
        before = before.next
    before.next = one.next
    return first


cdef class Ticket:
    """What a thread waits with for a change; it can be used again."""

    cdef object acquire, release  # of a lock that is held: signal handlers may end the wait for it
    cdef Ticket next

    def __cinit__(self):
        lock = allocate_lock()
        lock.acquire()
        self.acquire, self.release = lock.acquire, lock.release


cdef class Guard:
    """Who uses memory that one thread at a time may change: ``with guard:`` reads, ``with guard.writing:`` writes.

    Writers wait for readers, and readers for writers, also for those that wait already: else a steady stream of calls
    would keep an update out for ever. Nobody waits for himself, which would never end: a signal handler runs in the
    middle of the call that it interrupts. A thread that reads may read again; all else of that kind is a RuntimeError.

    It is compiled because no signal handler can run, and raise, between its lines: it never counts a reader that does
    not begin, or one too long. For the same reason nothing takes memory at the end of a use, or while `mutex` is held.
    """

    cdef PyThread_type_lock mutex
    cdef unsigned long writer  # a thread; 0: nobody
    cdef User readers, next_writers
    cdef Ticket waiting
    cdef str name, left

    def __cinit__(self):
        self.mutex = PyThread_allocate_lock()
        if self.mutex == NULL:
            raise MemoryError("no memory for a lock")

    def __init__(self, str name not None):
        """`name` is what messages call that which is guarded."""
        self.name, self.left = name, ""

    def __dealloc__(self):
        if self.mutex != NULL:
            PyThread_free_lock(self.mutex)

    @property
    def writing(self):
        """What a writer enters."""
        return Writing(self)

    def __enter__(self):
        cdef unsigned long me = PyThread_get_thread_ident()
        cdef User own, reader = User()
        cdef Ticket turn = None
        while True:
            self.lock()
            own = found(self.readers, me)
            if own is not None:
                own.times += 1
                self.unlock()
                return self
            if not self.left and self.writer == 0 and (
                self.next_writers is None or found(self.next_writers, me) is not None
            ):
                reader.thread, reader.times, reader.next = me, 1, self.readers
                self.readers = reader
                self.unlock()
                return self
            if self.left or self.writer == me:
                self.unlock()
                if self.left:
                    raise RuntimeError(f"{self.name}: {self.left}")
                raise RuntimeError(f"{self.name}: got a call in the middle of its own update (from a signal "
                                   "handler?), expected one before or behind it")
            turn = self.unlock_to_wait(turn)

    def __exit__(self, kind, value, trace):
        self.lock()
        cdef User own = found(self.readers, PyThread_get_thread_ident())
        own.times -= 1
        if not own.times:
            self.readers = without(self.readers, own)
            self.changed()
        self.unlock()

    cdef begin_writing(self):
        cdef unsigned long me = PyThread_get_thread_ident()
        cdef User own = User()
        cdef Ticket turn = None
        cdef bint waits = False  # in next_writers
        own.thread = me
        try:
            while True:
                self.lock()
                if self.writer == me or found(self.readers, me) is not None:
                    self.unlock()
                    raise RuntimeError(f"{self.name}: got an update in the middle of a call that uses it (from a "
                                       "signal handler?), expected one before or behind it")
                if self.writer == 0 and self.readers is None:
                    self.writer = me
                    self.unlock()
                    return
                if not waits:
                    waits, own.next, self.next_writers = True, self.next_writers, own
                turn = self.unlock_to_wait(turn)
        finally:
            if waits:
                self.lock()
                self.next_writers = without(self.next_writers, own)
                if self.writer != me:
                    self.changed()
                self.unlock()

    cdef end_writing(self, bint whole):
        self.lock()
        self.writer = 0
        if whole:
            self.left = ""
        self.changed()
        self.unlock()

    cdef Ticket unlock_to_wait(self, Ticket turn):
        """Until something has changed, or not at all without a ticket: then it must be looked at again with one."""
        if turn is None:
            self.unlock()
            return Ticket()
        turn.next, self.waiting = self.waiting, turn
        self.unlock()
        turn.acquire()  # a handler's exception ends the wait
        return turn

    cdef changed(self):
        cdef Ticket turn = self.waiting, next
        self.waiting = None
        while turn is not None:
            next, turn.next = turn.next, None
            turn.release()
            turn = next

    cdef void lock(self) noexcept:
        if not PyThread_acquire_lock(self.mutex, 0):
            with nogil:
                PyThread_acquire_lock(self.mutex, 1)

    cdef void unlock(self) noexcept:
        PyThread_release_lock(self.mutex)

    def after_fork(self):
        """In a child process: no other thread of the parent goes on here."""
        cdef unsigned long me = PyThread_get_thread_ident()
        cdef PyThread_type_lock mutex = PyThread_allocate_lock()
        if mutex == NULL:
            raise MemoryError("no memory for a lock")
        self.mutex, self.waiting = mutex, None  # another thread of the parent may have the old one
        self.readers, self.next_writers = found(self.readers, me), found(self.next_writers, me)
        if self.readers is not None:
            self.readers.next = None
        if self.next_writers is not None:
            self.next_writers.next = None
        if self.writer != 0 and self.writer != me:
            self.writer = 0
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
