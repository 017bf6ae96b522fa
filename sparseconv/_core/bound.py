"""Kernels bound to sizes and strides: C structs filled, and what each kernel costs. What all families share.

rows.py, outputs.py, weights.py, gradient.py, groups.py and amx.py bind the kernels of their families.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import numpy as np

from .. import cpu
from . import _conv, _cpu, _weights, caches, layout, processor
from .layout import Strides
from .problem import Problem

MOST_SETTINGS = 16  # numbers of threads and instruction sets for which an operation keeps its kernels at hand


class Mask(NamedTuple):
    """Where the elements of a mask are, in elements, and what they are: see `_conv.Mask`."""

    strides: Strides
    kind: str

    def bound(self, size: tuple[int, ...]) -> _conv.Mask:
        """The C mask of an array of this size."""
        return _conv.Mask(layout.view(self.strides, size), self.kind)


class Epilogue(NamedTuple):
    """What becomes of the finished sums, but for its arrays: see `_conv.Epilogue`."""

    relu: bool = False
    residual: Strides | None = None

    def bound(self, residual: Strides | None, size: tuple[int, ...], stream: int) -> _conv.Epilogue:
        """The C epilogue; the residual is a reduced array of this size."""
        view = None if residual is None else layout.view(residual, size)
        return _conv.Epilogue(relu=self.relu, residual=view, stream=stream)


Place = Strides | Mask | None


def strides_of(place: Place) -> Strides | None:
    return place.strides if isinstance(place, Mask) else place


def moved(place: Place, strides: Strides | None) -> Place:
    """The same kind of array at another place."""
    return place._replace(strides=strides) if isinstance(place, Mask) else strides


def merged(problem: Problem, places: tuple[Place, ...]) -> tuple[Problem, tuple[Place, ...]]:
    """A pointwise problem as one long row of all positions (over all images too, where memory allows it)."""
    if not problem.pointwise:
        return problem, places
    rows = [strides and strides.merged(problem.in_size) for strides in map(strides_of, places)]
    if [row is None for row in rows] != [place is None for place in places]:
        return problem, places
    length = int(np.prod(problem.in_size, dtype=np.int64))
    batch = problem.batch
    if batch > 1 and all(row.image == length * row.spatial[0] for row in rows if row):
        length, batch = length * batch, 1
    one = (1,)
    flat = dataclasses.replace(
        problem, batch=batch, in_size=(length,), out_size=(length,), kernel=one, stride=one, padding=(0,), dilation=one
    )
    return flat, tuple(moved(place, row) for place, row in zip(places, rows, strict=True))


class Bound(NamedTuple):
    """A kernel bound to sizes and strides: the struct, its blocking, and what choosing needs.

    Its cost is `each` times the density, and `fixed`, where the dense kernel for the same operands costs `dense`: in
    units of the work of a dense kernel on vectors, or (backward_weight) of its multiply-adds for one position and tap.
    Up to the density `sparse`, the same kernel with blocks for few nonzeros is better.
    """

    kernel: str  # a name of sc_kernel_id (kernels/common/problem.h)
    threads: int
    task: Any  # a _conv.Task; None where NumPy is the kernel
    blocking: dict[str, int]
    each: float = 0.0
    fixed: float = 0.0
    dense: float = 1.0
    sparse: float = 0.0
    note: str = ""  # what a plan says of it
    lists: _weights.Lists | None = None  # of these weights, "weights_skip" alone
    scalar: str = ""  # backward_weight: the operand whose elements are the scalars
    masks_result: bool = True  # whether it takes a mask of what is needed; if not, results are cleared afterwards
    spread: tuple[int, int] = (1, 1)  # of the bias: copies of all of it, and of each element

    def spread_bias(self, bias: np.ndarray) -> np.ndarray:
        """A bias as the kernel reads it: an element for each of its channels, side by side."""
        if self.spread == (1, 1):
            return np.ascontiguousarray(bias)
        return np.tile(np.repeat(bias, self.spread[1]), self.spread[0])


class Kernels:
    """The kernels of an operation for a number of threads on an instruction set, each bound when it is first asked for.

    Their blocks and code are of that instruction set, even if another thread has switched to another one.
    """

    def __init__(self, bind: Callable[..., Bound], threads: int, isa: str) -> None:
        self._bind, self._threads, self._isa = bind, threads, isa
        self._bound: dict[tuple, Bound] = {}

    def __call__(self, *which: Any) -> Bound:
        """The kernel that `bind` makes for a number of threads and these arguments."""
        found = self._bound.get(which)
        if found is None:
            with cpu.switching, contextlib.nullcontext() if _cpu.current() == self._isa else cpu.use_isa(self._isa):
                found = self._bound[which] = self._bind(self._threads, *which)
            caches.note()
        return found


class AllKernels:
    """The kernels of an operation, by numbers of threads and instruction sets."""

    def __init__(self, bind: Callable[..., Bound]) -> None:
        self._bind = bind
        self._kernels: dict[tuple[int, str], Kernels] = {}

    def __call__(self, threads: int, isa: str) -> Kernels:
        """Those for so many threads on an instruction set."""
        key = threads, isa
        found = self._kernels.get(key)
        if found is None:
            if len(self._kernels) >= MOST_SETTINGS:
                self._kernels.clear()
            found = self._kernels[key] = Kernels(self._bind, threads, isa)
        return found


def packing(problem: Problem, backward: bool) -> float:
    """What packing all weights costs, beside the dense kernel's multiply-adds."""
    positions = problem.batch * prod(problem.in_size if backward else problem.out_size)
    cycles = processor.PACK_CYCLES[0 if not backward else 1 if prod(problem.kernel) == 1 else 2]
    return cycles * 16 / (processor.dense_cycles() * positions)
