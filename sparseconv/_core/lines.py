"""Tables of weights/weights.h: which columns the lines of 16 lanes need, packed, and where taps meet them.

A line is a segment of an output row; its columns fall apart into phases that meet input columns at the same distances.
With stride s, dilation d, padding p and g = gcd(s, d), phase q of forward has the outputs ``o = q + m d/g``, which
tap t meets at ``(q s + t d - p) + m s d/g``. In backward_data phase q has the outputs ``c = q + m s d/g``, and those
taps t for which ``q + p - t d`` is a multiple of s meet them at ``(q + p - t d)/s + m d/g``.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from math import gcd
from typing import NamedTuple

import numpy as np

from . import _conv, caches
from .problem import Problem


class Lines(NamedTuple):
    """Fields of sc_weights_task (kernels/common/problem.h) for segments of `tile` columns in each phase."""

    phases: int
    tile: int
    segments: int
    in_advance: int
    columns: np.ndarray
    column_places: np.ndarray
    width: int
    tap_places: np.ndarray


def phases(problem: Problem, backward: bool) -> int:
    """Number of phases along the innermost dimension."""
    stride, dilation = problem.stride[-1], problem.dilation[-1]
    size = problem.in_size[-1] if backward else problem.out_size[-1]
    step = (stride if backward else 1) * dilation // gcd(stride, dilation)
    return min(step, size)


def segments(problem: Problem, backward: bool, tile: int) -> int:
    """Segments of `tile` columns in each phase."""
    columns = problem.in_size[-1] if backward else problem.out_size[-1]
    return -(-columns // (tile * phases(problem, backward)))


class _Starts(NamedTuple):
    """The input columns that m = 0 of each phase meets with each tap."""

    column: np.ndarray  # [phase, tap], where `meets`
    meets: np.ndarray
    known: np.ndarray  # all of them, those with the same remainder of `step` one after the other, ascending
    step: int  # of the input, as m grows by one


def _starts(problem: Problem, backward: bool) -> _Starts:
    stride, dilation, padding = problem.stride[-1], problem.dilation[-1], problem.padding[-1]
    phase = np.arange(phases(problem, backward))[:, None]
    tap = np.arange(problem.kernel[-1]) * dilation
    if backward:
        column, rest = np.divmod(phase + padding - tap, stride)
        meets = rest == 0
    else:
        column = phase * stride + tap - padding
        meets = np.ones(column.shape, bool)
    step = (dilation if backward else stride * dilation) // gcd(stride, dilation)
    known = np.unique(column[meets])
    return _Starts(column, meets, known[np.argsort(known % step, kind="stable")], step)


def _places(starts: _Starts, tile: int) -> np.ndarray:
    """The place of each known start in a packed row.

    Columns that belong together (same remainder) and overlap, or follow one another, are packed in one piece.
    """
    distance = np.diff(starts.known)
    together = (np.diff(starts.known % starts.step) == 0) & (distance <= tile * starts.step)
    return np.concatenate([[0], np.cumsum(np.where(together, distance // starts.step, tile))])


def width(problem: Problem, backward: bool, tile: int) -> int:
    """Columns of a packed row."""
    starts = _starts(problem, backward)
    return int(_places(starts, tile)[-1]) + tile if starts.known.size else 0


def lines(problem: Problem, backward: bool, tile: int) -> Lines:
    """Segments of `tile` columns in each phase, one step of which is a column's distance to the next of its phase."""
    starts = _starts(problem, backward)
    tap_places = np.full(starts.meets.shape, -1, np.int64)
    columns = column_places = np.zeros(0, np.int64)
    if starts.known.size:
        places, order = _places(starts, tile), np.argsort(starts.known)
        tap_places[starts.meets] = places[order][np.searchsorted(starts.known[order], starts.column[starts.meets])]
        each = np.arange(tile)
        columns, first = np.unique(starts.known[:, None] + each * starts.step, return_index=True)
        column_places = (places[:, None] + each).ravel()[first]
    return Lines(
        phases(problem, backward), tile, segments(problem, backward, tile), tile * starts.step,
        columns, column_places, columns.size, tap_places.ravel(),
    )  # fmt: skip


class Classes(tuple):
    """Groups of taps, whose memory is counted: kernels may be as large as maps."""

    def __init__(self, groups: Iterable[tuple[int, ...]]) -> None:
        self.held = _conv.Held(40 * sum(map(len, self)))  # a place in the tuple, and a number


@caches.kept(1024)
def tap_classes(problem: Problem, backward: bool) -> tuple[tuple[int, ...], ...]:
    """Taps (outer and inner ones, in C order) that can meet the same outputs, in groups."""
    if not backward:
        steps = (1,) * problem.dims
    else:
        steps = tuple(s // gcd(s, d) for s, d in zip(problem.stride, problem.dilation, strict=True))
    classes: dict[tuple[int, ...], list[int]] = {}
    for index, taps in enumerate(product(*map(range, problem.kernel))):
        classes.setdefault(tuple(tap % step for tap, step in zip(taps, steps, strict=True)), []).append(index)
    return Classes(map(tuple, classes.values()))
