"""Writes kernel calls down for call_driver.cpp: C structs, the memory that they point to, and what becomes of it.

The structs are those of this machine: sizes and places of numbers and pointers are the same on every 64-bit one.
"""

import contextlib
import ctypes
from dataclasses import dataclass

import numpy as np
import task_structs
from numpy.lib.array_utils import byte_bounds
from task_structs import Epilogue, Filled, Map, Mask, View, WeightView, forget_plans, table

from sparseconv import cpu
from sparseconv._core import _conv, _pruning, _weights

UNTOUCHED = 77  # in results, before they are written


@dataclass
class Call:
    name: str
    kind: str
    share: float  # of the elements of its results, those that it makes something other than zero


class Recorder:
    """`memory` is an image of memory, and `words` say which calls it is for, as offsets into it."""

    def __init__(self):
        self.name = ""
        self.calls, self.memory, self.words = [], bytearray(), []

    def record(self, kind, told, execute):
        """A kernel call: `execute` does here what the driver must do elsewhere to the arrays that are written."""
        for array in told.written:
            if not any(np.shares_memory(array, other) for other in told.read):
                array.fill(UNTOUCHED)
        before = [memory_of(array) for array in told.written]
        returned = execute()
        after = [memory_of(array) for array in told.written]
        changed = [np.mean((now != old) & (now != 0)) for old, now in zip(before, after, strict=True)]
        self.calls.append(Call(self.name, kind, np.mean(changed)))
        at = [self._place(memory) for memory in before]
        regions = [(old, self._place(now), now.nbytes) for old, now in zip(at, after, strict=True)]
        at += [self._place(memory_of(array)) for array in told.read]
        places = [(byte_bounds(array), place) for array, place in zip(told.written + told.read, at, strict=True)]
        task = self._place(told.struct)
        moved = [(task + slot, image_of(address, places)) for slot, address in pointers(told.struct)]
        texts = [self._place(text.encode() + b"\0") for text in (self.name, kind)]
        for words in (texts, (task, len(moved), len(regions)), *moved, *regions):
            self.words += words
        return returned

    def _place(self, data):
        at = -(-len(self.memory) // 64) * 64 + 64
        self.memory += bytes(at - len(self.memory)) + bytes(data)
        return at


def memory_of(array):
    """A copy of all elements in memory between an array's first and last one."""
    low, high = byte_bounds(array)
    return np.frombuffer(ctypes.string_at(low, high - low), array.dtype)


def pointers(struct, at=0):
    """(place in the struct, address) of the pointers that lead somewhere."""
    for name, kind in struct._fields_:
        value, place = getattr(struct, name), at + getattr(type(struct), name).offset
        if isinstance(value, ctypes.Structure):
            yield from pointers(value, place)
        elif kind is ctypes.c_void_p and value:
            yield place, value


def image_of(address, places):
    """Where in the image an address lies."""
    return next(place + address - low for (low, high), place in places if low <= address < max(high, low + 1))


# --- lists of nonzero weights: what common/problem.h says of them ---

NONZERO = np.dtype([("value", np.float32), ("index", np.uint32)])


def rows_of(weight, fields):
    """Weights as (groups, rows, channels, taps)."""
    groups, rows, channels, taps = (fields[name] for name in ("groups", "filters", "channels", "taps"))
    strides = [4 * fields[name] for name in ("group_stride", "filter_stride", "channel_stride")]
    return np.lib.stride_tricks.as_strided(weight, (groups, rows // groups, channels, taps), (*strides, 4))


def is_live(weight):
    return ~(np.abs(weight) < np.finfo(np.float32).tiny)


def expected_lists(weight, fields):
    """(nonzeros, where blocks start, how many they have); there is one record behind each list."""
    rows = rows_of(weight, fields).reshape(fields["filters"], fields["channels"], fields["taps"])
    index = np.arange(rows[0].size, dtype=np.uint32).reshape(rows[0].shape)
    blocks = np.arange(0, fields["channels"], fields["block_channels"])
    nonzeros, counts = [], []
    for taps in np.split(np.array(fields["class_taps"]), fields["class_ends"][:-1]):
        for row in rows:
            records = np.rec.fromarrays([row[:, taps].ravel(), index[:, taps].ravel()], NONZERO)
            live = is_live(records.value)
            behind = np.full(2, UNTOUCHED, np.uint32).view(NONZERO) if live[-1] else records[-1:]
            nonzeros += [records[live], behind]
            counts.append([*np.add.reduceat(is_live(row[:, taps]).sum(1), blocks), UNTOUCHED])
    counts = np.array(counts, np.int64)
    sizes = np.column_stack([counts[:, :-1], np.ones(len(counts), np.int64)])
    return np.concatenate(nonzeros).view(np.uint32), sizes.cumsum().reshape(sizes.shape) - sizes, counts


def expected_flags(weight, fields):
    """What is found of each work item: whether it is not finite, and whether not made of whole rows of three taps."""
    rows = rows_of(weight, fields)
    torn = np.ones(rows.shape[:2], bool)
    if fields["inner_taps"] == 3 and len(fields["class_ends"]) == 1:
        inner = is_live(rows).reshape(*torn.shape, -1, 3)
        torn = (inner.any(3) != inner.all(3)).any(2)
    items = np.arange(0, rows.shape[1], fields["item_filters"])
    found = {"not_finite": ~np.isfinite(rows).all((2, 3)), "not_whole": torn}
    return {name: np.logical_or.reduceat(bad, items, 1).astype(np.int64) for name, bad in found.items()}


# --- recording ---

CLASSES = {
    "Rows": _conv, "Gradient": _conv, "Groups": _conv, "GroupsGradient": _conv, "Weights": _weights,
}  # fmt: skip
FUNCTIONS = {
    "bias_gradient": _conv, "nm_mask": _pruning, "transposable_mask": _pruning, "above_mask": _pruning,
    "stochastic_prune": _pruning,
}  # fmt: skip


@contextlib.contextmanager
def recording(monkeypatch, isa="scalar"):
    """While it lasts, every kernel call is recorded; the blocking is that of an instruction set.

    "scalar" has six accumulators, as NEON has.
    """
    recorder = Recorder()

    def recorded_class(name):
        class Recorded(getattr(task_structs, name)):
            def run(self, *arguments):
                recorder.record(name, self.told(*arguments), lambda: super(Recorded, self).run(*arguments))

        return Recorded

    def recorded_function(name, original):
        told = getattr(task_structs, name)
        return lambda *arguments: recorder.record(name, told(*arguments), lambda: original(*arguments))

    def recorded_topk(x, count, k, mask, threads, original=_pruning.topk):
        """What it gives back is one more array that is written."""
        magnitude = np.empty(1, np.float32)

        def execute():
            found = original(x, count, k, mask, threads)
            magnitude[0] = found[0]
            return found

        return recorder.record("topk", task_structs.topk(x, count, k, mask, magnitude), execute)

    class Lists(_weights.Lists):
        """The lists of `_weights` are out of sight: `filled` are those that are written down here."""

        def __init__(self, **fields):
            super().__init__(**fields)
            self.fields = fields
            tables = {name: table(fields[name]) for name in ("class_ends", "class_taps")}
            numbers = {name: fields[name] for name in ("groups", "filters", "channels", "taps", "inner_taps")}
            numbers["block_channels"], numbers["classes"] = fields["block_channels"], len(fields["class_ends"])
            numbers["blocks"] = -(-fields["channels"] // fields["block_channels"])
            self.empty = Filled("sc_lists", (), tables, **numbers)

        def fill(self, weight, threads):
            super().fill(weight, threads)
            nonzeros, starts, counts = expected_lists(weight, self.fields)
            flags = expected_flags(weight, self.fields)
            names = ("group_stride", "filter_stride", "channel_stride", "item_filters")
            numbers = {name: self.fields[name] for name in names}
            task = Filled("sc_lists_task", {"lists": self.empty}, {"data": weight}, **numbers)
            expect("count_lists", task, {}, {"lists.starts": counts, **flags})
            expect("fill_lists", task, {"lists.starts": starts}, {"lists.nonzeros": nonzeros})
            whole = not flags["not_whole"].any()
            self.filled = self.empty.call({"nonzeros": nonzeros, "starts": starts}, {}, whole_rows=whole)

    def expect(kind, task, read, expected):
        """A call that is known to write these arrays."""
        written = {name: np.empty_like(array) for name, array in expected.items()}

        def execute():
            for name, array in expected.items():
                np.copyto(written[name], array)

        recorder.record(kind, task.call(read, written), execute)

    with monkeypatch.context() as patch, cpu.use_isa(isa):
        for replacement in (Map, View, Mask, WeightView, Epilogue):
            patch.setattr(_conv, replacement.__name__, replacement)
        patch.setattr(_weights, "Lists", Lists)
        patch.setattr(_pruning, "topk", recorded_topk)
        for name, module in CLASSES.items():
            patch.setattr(module, name, recorded_class(name))
        for name, module in FUNCTIONS.items():
            patch.setattr(module, name, recorded_function(name, getattr(module, name)))
        forget_plans()
        try:
            yield recorder
        finally:
            forget_plans()
