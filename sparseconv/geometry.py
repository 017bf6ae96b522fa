"""Turns stride, dilation, padding and outer dimensions into the tables that kernels read (kernels/problem.h).

A row of a convolution with stride s and dilation d falls apart into independent pieces in which both sides advance
by one column at a time. With g = gcd(s, d) and L = lcm(s, d), outputs o = o0 + m d/g and taps t = t0 + j s/g meet the
inputs ``o s + t d - p = (o0 s + t0 d - p) + (m + j) L``: for every (o0, t0) a unit-stride, undilated correlation of
fewer taps. Each input column belongs to at most one (o0, t0), so no zero is tested twice. Seen from the inputs the
same pieces, taps reversed, are backward_data.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import gcd
from typing import NamedTuple

import numpy as np

from . import _conv, caches
from .problem import Problem

MAX_TAPS = 3  # SC_MAX_TAPS


class Pass(NamedTuple):
    """One sc_pass; kernels/problem.h says what the fields mean."""

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
    def columns(self) -> tuple[int, ...]:
        """What must be equal for two passes to share packed columns."""
        return (self.in_start, self.in_step, self.in_count, self.out_start, self.out_step, self.out_count)


@caches.kept(1024)
def forward_map(problem: Problem) -> _conv.Map:
    """Rows and passes with y as `out` and x as `in`."""
    return _map(problem, backward=False)


@caches.kept(1024)
def backward_map(problem: Problem) -> _conv.Map:
    """Rows and passes with x (or its gradient) as `out` and y (or its gradient) as `in`."""
    return _map(problem, backward=True)


def _map(problem: Problem, backward: bool) -> _conv.Map:
    out_size, in_size = (problem.in_size, problem.out_size) if backward else (problem.out_size, problem.in_size)
    made = _backward_passes if backward else _forward_passes
    return _conv.Map(
        out_rows=int(np.prod(out_size[:-1], dtype=np.int64)),
        out_columns=out_size[-1],
        in_rows=int(np.prod(in_size[:-1], dtype=np.int64)),
        in_columns=in_size[-1],
        outer_taps=int(np.prod(problem.kernel[:-1], dtype=np.int64)),
        inner_taps=problem.kernel[-1],
        row_table=row_table(problem, backward).ravel().tolist(),
        outer_passes=_with_windows(list(made(problem, 0))) if problem.dims == 2 else [],
        passes=_with_windows(list(made(problem, -1))),
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


def _tap_groups(problem: Problem, dim: int) -> Iterator[tuple[int, int, int, int]]:
    """(t0, j0, taps, taps before) of the pieces of at most MAX_TAPS taps into which the kernel is cut along `dim`."""
    before, step = 0, problem.stride[dim] // gcd(problem.stride[dim], problem.dilation[dim])
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


def _forward_passes(problem: Problem, dim: int) -> Iterator[Pass]:
    stride, dilation, padding = problem.stride[dim], problem.dilation[dim], problem.padding[dim]
    in_size, out_size = problem.in_size[dim], problem.out_size[dim]
    common = gcd(stride, dilation)
    step, out_step = stride * dilation // common, dilation // common
    for o0 in range(min(out_step, out_size)):
        for t0, j0, taps, before in _tap_groups(problem, dim):
            base = o0 * stride + t0 * dilation - padding
            in_start = base % step
            yield Pass(
                in_start, step, _columns(in_start, step, in_size),
                o0, out_step, _columns(o0, out_step, out_size),
                (in_start - base) // step - j0, taps, t0 + j0 * (stride // common), stride // common, before,
            )  # fmt: skip


def _backward_passes(problem: Problem, dim: int) -> Iterator[Pass]:
    stride, dilation, padding = problem.stride[dim], problem.dilation[dim], problem.padding[dim]
    in_size, out_size = problem.in_size[dim], problem.out_size[dim]
    common = gcd(stride, dilation)
    step, in_step = stride * dilation // common, dilation // common
    missing = set(range(min(step, in_size)))  # residues of columns that no tap reaches: zeros
    for o0 in range(min(in_step, out_size)):
        for t0, j0, taps, before in _tap_groups(problem, dim):
            base = o0 * stride + t0 * dilation - padding
            out_start = base % step
            if out_start >= in_size:
                continue
            missing.discard(out_start)
            last = j0 + taps - 1
            yield Pass(
                o0, in_step, _columns(o0, in_step, out_size),
                out_start, step, _columns(out_start, step, in_size),
                last - (out_start - base) // step, taps, t0 + last * (stride // common), -(stride // common), before,
            )  # fmt: skip
    for start in sorted(missing):
        yield Pass(0, 1, 0, start, step, _columns(start, step, in_size), 0, 0, 0, 1, 0)


def _with_windows(passes: list[Pass]) -> list[tuple[int, ...]]:
    """The passes with the fields that depend on their neighbours: opens, closes, new_columns, window_shift, window."""
    rows = []
    for index, one in enumerate(passes):
        same_out = [i for i, other in enumerate(passes) if other.out_start == one.out_start]
        same_columns = [other for other in passes if other.columns == one.columns]
        window_shift = max(other.shift for other in same_columns)
        window = max(other.taps - 1 - other.shift for other in same_columns) + window_shift
        new_columns = index == 0 or passes[index - 1].columns != one.columns
        rows.append((*one, index == same_out[0], index == same_out[-1], new_columns, window_shift, max(0, window)))
    return rows


def _tap_places(problem: Problem, backward: bool) -> list[tuple[int, int, int]]:
    """(taps before, taps, index) of every inner tap in a weight tile."""
    places = [(0, 0, 0)] * problem.kernel[-1]
    step = problem.stride[-1] // gcd(problem.stride[-1], problem.dilation[-1])
    for t0, j0, taps, before in _tap_groups(problem, -1):
        for index in range(taps):
            j = j0 + (taps - 1 - index if backward else index)
            places[t0 + j * step] = (before, taps, index)
    return places
