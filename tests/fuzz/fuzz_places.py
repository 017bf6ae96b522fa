"""Where in memory the arrays of a random call lie: against pages that trap every access, or at each offset of a line.

Within `arrays_at(place)` all arrays that a call is drawn with are moved there: operands, masks, bias, residual,
compressed arrays, packed weights, `out`. Strides, elements, and what lies between them stay as they were drawn.
"""

import contextlib
import ctypes
import dataclasses
import mmap

import numpy as np
from awkward import _mprotect

GUARDS = ("end", "start")
OFFSETS = range(16)  # the floats of a cache line

current = None  # where arrays are moved to


class Guarded:
    """Flush to a page that traps, at the end of the array or at its start. Writes to inputs trap as well."""

    def __init__(self, at_end):
        self.at_end = at_end

    def room(self, size, shift, itemsize):
        """Bytes to write to, an index from which `size` of them are to be used, and what protects the others then.

        The address there is `shift` bytes beyond a multiple of `itemsize`, as it was.
        """
        page = mmap.PAGESIZE
        body = -(-(size + shift) // page) * page
        memory = np.frombuffer(mmap.mmap(-1, body + 2 * page), np.uint8)
        start = page + shift
        if self.at_end:
            start = page + body - size
            start -= (start - shift) % itemsize
        address = memory.ctypes.data

        def protect(writable):
            _mprotect(address, page, 0)
            _mprotect(address + page + body, page, 0)
            if not writable:
                _mprotect(address + page, body, mmap.PROT_READ)

        return memory, start, protect


class AtOffset:
    """Over the 16 steps each array begins at each float of a cache line, and two of them rarely at the same one.

    Bytes begin at each byte of a float, too.
    """

    def __init__(self, step):
        self.step, self.count = step, 0

    def room(self, size, shift, itemsize):
        place = (self.step * (2 * self.count + 1) + self.count) % len(OFFSETS)
        self.count += 1
        offset = {1: 4 * place + self.step % 4, 4: 4 * place, 8: 8 * place % 64}[itemsize]
        memory = np.empty(size + 64 + 64 + itemsize, np.uint8)
        return memory, -memory.ctypes.data % 64 + offset + shift, lambda writable: None


def extent(view):
    """How many bytes a view spans, and how many of them lie before its first element."""
    steps = [(length - 1) * stride for length, stride in zip(view.shape, view.strides, strict=True)]
    before = -sum(step for step in steps if step < 0)
    return before + sum(step for step in steps if step > 0) + view.itemsize, before


def span_moved(place, view, writable):
    """The bytes that the view spans as they lie in another place, and the same view of them."""
    if not view.size:
        return np.empty(0, view.dtype), view
    size, before = extent(view)
    address = view.__array_interface__["data"][0]
    memory, start, protect = place.room(size, address % view.itemsize, view.itemsize)
    ctypes.memmove(memory.ctypes.data + start, address - before, size)
    protect(writable)
    view = np.ndarray(view.shape, view.dtype, memory, start + before, view.strides)
    view.flags.writeable = writable
    return memory[start : start + size], view


def is_moved():
    """Whether arrays are to lie in a certain place."""
    return current is not None


def moved(array):
    """An input of a call, or the parts of one that is compressed, in the place where arrays are to lie now."""
    if current is None:
        return array
    if isinstance(array, np.ndarray):
        return span_moved(current, array, False)[1]
    parts = ("bits", "packed", "offsets")
    return dataclasses.replace(array, **{name: moved(getattr(array, name)) for name in parts})


def weight_moved(packed):
    """A packed weight whose dense memory lies there; it is written by updates."""
    if current is not None:
        packed._dense = span_moved(current, packed._dense, True)[1]
        packed.dense = packed._dense.view()
        packed.dense.flags.writeable = False
    return packed


def result_moved(buffer, view):
    """`out`, and the memory around its elements, of which nothing is left outside of those that it spans."""
    if current is None or not view.size:
        return buffer, view
    span, view = span_moved(current, view, True)
    return span.view(view.dtype), view


@contextlib.contextmanager
def arrays_at(place):
    """`place` is one of GUARDS, one of OFFSETS, or None: wherever they happen to lie."""
    global current
    if place is not None:
        current = Guarded(place == "end") if place in GUARDS else AtOffset(place)
    try:
        yield
    finally:
        current = None


@contextlib.contextmanager
def results_at(place):
    """Masks and bits that the package makes meanwhile have memory against pages that trap, too."""
    if place not in GUARDS:
        yield
        return
    empty = np.empty

    def guarded_empty(shape, dtype=float, **options):
        array = empty(shape, dtype, **options)
        if not array.size or array.dtype not in (np.uint8, np.bool_):  # some of the others are resized
            return array
        return span_moved(Guarded(place == "end"), array, True)[1]

    np.empty = guarded_empty
    try:
        yield
    finally:
        np.empty = empty
