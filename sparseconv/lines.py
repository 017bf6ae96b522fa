"""Tables of kernel_weights.h: which columns the lines of 16 lanes need, packed, and where taps meet them.

A line is a segment of an output row; its columns fall apart into phases that meet input columns at the same distances.
With stride s, dilation d, padding p and g = gcd(s, d), phase q of forward has the outputs ``o = q + m d/g``, which
tap t meets at ``(q s + t d - p) + m s d/g``. In backward_data phase q has the outputs ``c = q + m s d/g``, and those
taps t for which ``q + p - t d`` is a multiple of s meet them at ``(q + p - t d)/s + m d/g``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from math import gcd
from typing import NamedTuple

from . import _conv, caches
from .problem import Problem


class Lines(NamedTuple):
    """Fields of sc_weights_task (kernels/problem.h) for segments of `tile` columns in each phase."""

    phases: int
    tile: int
    segments: int
    in_advance: int
    first_column: int
    column_places: list[int]
    width: int
    tap_places: list[int]


def phases(problem: Problem, backward: bool) -> int:
    """Number of phases along the innermost dimension."""
    stride, dilation = problem.stride[-1], problem.dilation[-1]
    size = problem.in_size[-1] if backward else problem.out_size[-1]
    step = (stride if backward else 1) * dilation // gcd(stride, dilation)
    return min(step, size)


def lines(problem: Problem, backward: bool, tile: int) -> Lines:
    """Segments of `tile` columns in each phase, one step of which is a column's distance to the next of its phase."""
    stride, dilation = problem.stride[-1], problem.dilation[-1]
    common = gcd(stride, dilation)
    count = phases(problem, backward)
    step = (dilation if backward else stride * dilation) // common  # of the input, as m grows by one
    starts = list(_starts(problem, backward, count))
    # Columns that belong together (same remainder) and overlap, or follow one another, are packed in one piece.
    places, width, last = {}, 0, None
    for start in sorted({one for one in starts if one is not None}, key=lambda one: (one % step, one)):
        if last is not None and start % step == last % step and start - last <= tile * step:
            width -= tile - (start - last) // step
        places[start] = width
        width, last = width + tile, start
    first = min(places, default=0)
    column_places = [-1] * (max(places, default=0) + (tile - 1) * step + 1 - first if places else 0)
    for start, place in places.items():
        for m in range(tile):
            column_places[start - first + m * step] = place + m
    columns = problem.in_size[-1] if backward else problem.out_size[-1]
    return Lines(
        count, tile, -(-columns // (tile * count)), tile * step, first, column_places, width,
        [-1 if one is None else places[one] for one in starts],
    )  # fmt: skip


def _starts(problem: Problem, backward: bool, count: int) -> Iterator[int | None]:
    """The input column that m = 0 of each phase meets with each tap, or None."""
    stride, dilation, padding = problem.stride[-1], problem.dilation[-1], problem.padding[-1]
    for phase, tap in product(range(count), range(problem.kernel[-1])):
        if not backward:
            yield phase * stride + tap * dilation - padding
        elif (phase + padding - tap * dilation) % stride:
            yield None
        else:
            yield (phase + padding - tap * dilation) // stride


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
