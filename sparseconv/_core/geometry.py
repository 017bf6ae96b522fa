"""Turns stride, dilation, padding and outer dimensions into the tables that kernels read (kernels/common/problem.h).

A row of a convolution with stride s and dilation d falls apart into independent pieces in which both sides advance
by one column at a time. With g = gcd(s, d) and L = lcm(s, d), outputs o = o0 + m d/g and taps t = t0 + j s/g meet the
inputs ``o s + t d - p = (o0 s + t0 d - p) + (m + j) L``: for every (o0, t0) a unit-stride, undilated correlation of
fewer taps. Each input column belongs to at most one (o0, t0), so no zero is tested twice. Seen from the inputs the
same pieces, taps reversed, are backward_data.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import gcd, prod
from typing import NamedTuple

import numpy as np

from . import _conv, caches
from .problem import Problem

MAX_TAPS = 3  # SC_MAX_TAPS
# Strands share packed columns up to so many extra ones: more would not leave room for the columns themselves.
MAX_WINDOW = 64
# A large dilation leaves few columns to a piece. From this number of pieces on, and where one has fewer columns than
# this, each tap is a strand of its own over all columns instead: as many strands as taps, not as the dilation.
FEW_PIECES, FEW_COLUMNS, MANY_PIECES = 3, 6, 64


class Gap(NamedTuple):
    """One sc_gap."""

    start: int
    width: int
    step: int
    count: int  # type: ignore[assignment]  # tuples have a method of the name


class Strand(NamedTuple):
    """One sc_strand; kernels/common/problem.h says what the fields mean."""

    in_start: int
    in_step: int
    in_count: int
    out_start: int
    out_step: int
    out_count: int
    shift: int
    taps: int
    first_tap: int
    tap_step: int
    taps_before: int

    @property
    def met(self) -> tuple[int, int]:
        """The columns m, from the first on to the one behind the last, that meet an input column with any tap."""
        end = min(self.out_count, self.in_count + self.shift) if self.in_count else 0
        return max(0, self.shift - self.taps + 1), end

    @property
    def columns(self) -> tuple[int, ...]:
        """What must be equal for two strands to share packed columns."""
        return (self.in_start, self.in_step, self.in_count, self.out_start, self.out_step, self.out_count)


@caches.kept(1024)
def forward_map(problem: Problem) -> _conv.Map:
    """Rows and strands with y as `out` and x as `in`."""
    return _map(problem, backward=False)


@caches.kept(1024)
def backward_map(problem: Problem) -> _conv.Map:
    """Rows and strands with x (or its gradient) as `out` and y (or its gradient) as `in`."""
    return _map(problem, backward=True)


def _map(problem: Problem, backward: bool) -> _conv.Map:
    out_size, in_size = (problem.in_size, problem.out_size) if backward else (problem.out_size, problem.in_size)
    columns, table = strands(problem, -1, backward), row_table(problem, backward)
    return _conv.Map(
        out_rows=prod(out_size[:-1]),
        out_columns=out_size[-1],
        in_rows=prod(in_size[:-1]),
        in_columns=in_size[-1],
        outer_taps=prod(problem.kernel[:-1]),
        inner_taps=problem.kernel[-1],
        row_table=table.ravel(),
        met_rows=np.flatnonzero((table >= 0).any(axis=1)),
        outer_strands=_with_windows(strands(problem, 0, backward)) if problem.dims == 2 else [],
        strands=_with_windows(columns),
        gaps=_gaps(columns, out_size[-1]),
        taps=_tap_places(problem, backward),
    )


def row_table(problem: Problem, backward: bool) -> np.ndarray:
    """For every outer position of `out` and every outer tap, the outer position of `in`, or -1: (rows, taps) int64."""
    rows = np.zeros((1, 1), np.int64)
    for dim in range(problem.dims - 1):
        tap = np.arange(problem.kernel[dim])
        if backward:
            position = np.arange(problem.in_size[dim])[:, None] + problem.padding[dim] - tap * problem.dilation[dim]
            meets = position % problem.stride[dim] == 0
            position, limit = position // problem.stride[dim], problem.out_size[dim]
        else:
            position = np.arange(problem.out_size[dim])[:, None] * problem.stride[dim]
            position = position + tap * problem.dilation[dim] - problem.padding[dim]
            meets, limit = True, problem.in_size[dim]
        position = np.where(meets & (position >= 0) & (position < limit), position, -1)
        outer, inner = rows[:, None, :, None], position[None, :, None, :]
        joined = np.where((outer < 0) | (inner < 0), -1, outer * limit + inner)
        rows = joined.reshape(joined.shape[0] * joined.shape[1], -1)
    return rows


class _Pieces(NamedTuple):
    """How a dimension falls apart: steps of outputs, of inputs and of taps within a piece."""

    out_step: int
    in_step: int
    tap_step: int


def _pieces(problem: Problem, dim: int) -> _Pieces:
    stride, dilation = problem.stride[dim], problem.dilation[dim]
    common = gcd(stride, dilation)
    count = dilation // common
    columns = -(-problem.out_size[dim] // count)
    # Rows keep their pieces: kernels string rows together that meet others a fixed distance apart.
    last = dim in (-1, problem.dims - 1)
    if last and (count > MANY_PIECES or (count >= FEW_PIECES and columns < FEW_COLUMNS)):
        return _Pieces(1, stride, problem.kernel[dim])
    return _Pieces(count, stride * count, stride // common)


def _tap_groups(problem: Problem, dim: int) -> Iterator[tuple[int, int, int, int]]:
    """(t0, j0, taps, taps before) of the pieces of at most MAX_TAPS taps into which the kernel is cut along `dim`."""
    before, step = 0, _pieces(problem, dim).tap_step
    for t0 in range(min(step, problem.kernel[dim])):
        total = len(range(t0, problem.kernel[dim], step))
        pieces = -(-total // MAX_TAPS)
        j0 = 0
        for piece in range(pieces):
            taps = total // pieces + (piece < total % pieces)
            yield t0, j0, taps, before
            j0, before = j0 + taps, before + taps


def _columns(start: int, step: int, size: int) -> int:
    return max(0, -(-(size - start) // step))


def strands(problem: Problem, dim: int, backward: bool) -> list[Strand]:
    """The strands along a dimension."""
    return list((_backward_strands if backward else _forward_strands)(problem, dim))


def _forward_strands(problem: Problem, dim: int) -> Iterator[Strand]:
    stride, dilation, padding = problem.stride[dim], problem.dilation[dim], problem.padding[dim]
    in_size, out_size = problem.in_size[dim], problem.out_size[dim]
    out_step, step, tap_step = _pieces(problem, dim)
    groups = sorted(_tap_groups(problem, dim), key=lambda group: (group[0] * dilation - padding) % step)
    for o0 in range(min(out_step, out_size)):
        for t0, j0, taps, before in groups:
            base = o0 * stride + t0 * dilation - padding
            in_start = base % step
            made = Strand(
                in_start, step, _columns(in_start, step, in_size),
                o0, out_step, _columns(o0, out_step, out_size),
                (in_start - base) // step - j0, taps, t0 + j0 * tap_step, tap_step, before,
            )  # fmt: skip
            if made.met[0] < made.met[1]:
                yield made


def _backward_strands(problem: Problem, dim: int) -> Iterator[Strand]:
    stride, dilation, padding = problem.stride[dim], problem.dilation[dim], problem.padding[dim]
    in_size, out_size = problem.in_size[dim], problem.out_size[dim]
    in_step, step, tap_step = _pieces(problem, dim)
    groups = sorted(_tap_groups(problem, dim), key=lambda group: (group[0] * dilation - padding) % step)
    for o0 in range(min(in_step, out_size)):
        for t0, j0, taps, before in groups:
            base = o0 * stride + t0 * dilation - padding
            out_start, last = base % step, j0 + taps - 1
            made = Strand(
                o0, in_step, _columns(o0, in_step, out_size),
                out_start, step, _columns(out_start, step, in_size),
                last - (out_start - base) // step, taps, t0 + last * tap_step, -tap_step, before,
            )  # fmt: skip
            if made.met[0] < made.met[1]:
                yield made


def _gaps(columns: list[Strand], size: int) -> list[Gap]:
    """Output columns that belong to no strand. All strands have the same step."""
    step = columns[0].out_step if columns else 1
    reached = sorted({one.out_start for one in columns})
    ends = [*reached, min(step, size)]
    starts = [0, *(start + 1 for start in reached)]
    return [
        Gap(start, end - start, step, _columns(start, step, size))
        for start, end in zip(starts, ends, strict=True) if start < end
    ]  # fmt: skip


def _with_windows(pieces: list[Strand]) -> list[tuple[int, ...]]:
    """The strands with the fields that depend on their neighbours: opens, closes, new_columns, window_shift, window."""
    ends: dict[int, list[int]] = {}  # first and last strand of the same output columns
    for index, one in enumerate(pieces):
        ends.setdefault(one.out_start, [index, index])[1] = index
    rows: list[tuple[int, ...]] = []
    for together in _sharing(pieces):
        shift = max(one.shift for one in together)
        window = max(one.taps - 1 - one.shift for one in together) + shift
        for place, one in enumerate(together):
            first, last = ends[one.out_start]
            rows.append((*one, len(rows) == first, len(rows) == last, place == 0, shift, window))
    return rows


def _sharing(pieces: list[Strand]) -> list[list[Strand]]:
    """Neighbours with equal columns, as far as what they meet lies close together."""
    found: list[list[Strand]] = []
    low = high = 0
    for one in pieces:
        before, after = one.shift, one.taps - 1 - one.shift
        if found and one.columns == found[-1][0].columns and max(low, before) + max(high, after) <= MAX_WINDOW:
            found[-1].append(one)
            low, high = max(low, before), max(high, after)
        else:
            found.append([one])
            low, high = before, after
    return found


def _tap_places(problem: Problem, backward: bool) -> list[tuple[int, int, int]]:
    """(taps before, taps, index) of every inner tap in a weight tile."""
    places = [(0, 0, 0)] * problem.kernel[-1]
    step = _pieces(problem, -1).tap_step
    for t0, j0, taps, before in _tap_groups(problem, -1):
        for index in range(taps):
            j = j0 + (taps - 1 - index if backward else index)
            places[t0 + j * step] = (before, taps, index)
    return places
