"""Dense kernels of many narrow groups (kernels/groups/groups.h): when they are taken, their blocks and structs.

Lanes are channels of several groups there. The kernels of wider groups fill the lanes of one group after the other, so
they waste what a group does not fill, and begin anew for each group.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from . import _conv, blocking
from .blocking import ceil_div, even
from .bound import Bound
from .layout import BLOCK, Strides
from .problem import Problem

MAX_CHANNELS = 64  # SC_MAX_GROUP_CHANNELS
# The wider groups, by channels of their narrower side, whose rows and whose gradients are taken: of 32 channels
# backward_weight has 96 sums per outer tap, which the kernels of wide groups share better.
MOST_ROWS, MOST_GRADIENT = 32, 16
CHUNK_COLUMNS = 2048  # outputs of a vector that are finished together where something is packed: 128 KB, L2
CHUNK_FLOATS = 16 * 1024  # outputs of all vectors otherwise: some 10 us, between which a call can be interrupted
# That a sum of a gradient goes over at a time: what it meets stays in L1, and its rounding errors are few. 256 are as
# fast.
GRADIENT_POSITIONS = 128
AHEAD_BYTES = 16 * 1024 * 1024  # inputs from here on are asked for ahead of their use: no cache keeps them
PART_MACS = 2_000_000  # a part of a gradient is worth adding up if it has so many multiply-adds
MAX_PARTS = 16


def spread(channels: int, lanes: int) -> int:
    """How lanes find their channels: kernels/groups/lanes.h says what the numbers mean."""
    if channels == lanes and lanes in (1, 2, 4, 8):
        return lanes
    return BLOCK if lanes % BLOCK == 0 else 0


def sides(problem: Problem, backward: bool) -> tuple[int, int]:
    """Channels of a group on the side that is read and on that of the lanes."""
    both = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    return both[::-1] if backward else both


def rows_gain(problem: Problem, backward: bool) -> float:
    """Time of the dense kernel of wide groups over that of this family's; 0 where it is not for such groups."""
    return _gain(problem.groups, *sides(problem, backward), MOST_ROWS)


def gradient_gain(problem: Problem) -> float:
    """The same of backward_weight."""
    return _gain(problem.groups, *sides(problem, backward=False), MOST_GRADIENT)


def _gain(groups: int, channels: int, lanes: int, most: int) -> float:
    if groups == 1 or min(channels, lanes) > most or max(channels, lanes) > MAX_CHANNELS:
        return 0.0
    # Zen 5: what is left beside the wasted lanes, between 1.1 and 1.6; other CPUs were not timed.
    return 1.3 * BLOCK * ceil_div(lanes, BLOCK) / lanes


def rows(
    problem: Problem, backward: bool, geometry: _conv.Map, strides: tuple[Strides, Strides, Strides | None],
    views: tuple[_conv.View, _conv.View], weight: _conv.WeightView, epilogue: Callable[[int], _conv.Epilogue],
    threads: int,
) -> Bound:  # fmt: skip
    """The forward or backward_data kernel for arrays with these strides (the last of a residual).

    `epilogue` makes the C epilogue of whether results go past the caches.
    """
    channels, lanes = sides(problem, backward)
    how = spread(channels, lanes)
    source, target, residual = strides
    overlap, (in_place, out_place) = _places(problem.groups, (channels, lanes), how, (source, target))
    if residual and out_place:
        odd = problem.groups * lanes % BLOCK
        whole = residual.contiguous_channels if overlap else residual.channel == 1
        out_place = int(whole and (overlap or not odd or residual.block != BLOCK))
    out_rows, out_columns, in_rows, width = geometry.shape
    all_rows, wanted = problem.batch * out_rows, 4 * threads if threads > 1 else 1
    vectors = ceil_div(problem.groups * lanes, BLOCK)
    together = in_place and out_place
    columns = max(1, CHUNK_FLOATS // (BLOCK * vectors)) if together else CHUNK_COLUMNS
    segment, chunk_rows = _chunk(all_rows, out_columns, columns, CHUNK_COLUMNS, wanted)
    segments = ceil_div(out_columns, segment)
    chunks = ceil_div(all_rows, chunk_rows) * segments
    result = 4 * problem.batch * out_rows * out_columns * lanes * problem.groups
    read = 4 * problem.batch * in_rows * width * channels * problem.groups
    sizes = {
        "spread": how,
        "overlap": overlap,
        "in_place": in_place,
        "out_place": out_place,
        "chunk_rows": chunk_rows,
        "segment": segment,
        "segments": segments,
        "in_segment": min(width, blocking.in_columns(problem, segment, backward)),
        "shares": 1 if overlap else min(vectors, ceil_div(wanted, chunks)),
        "ahead": int(in_place and segments == 1 and read >= AHEAD_BYTES),
        "stream": int(result >= blocking.STREAM_BYTES),
    }
    phases, phase_strands = _phases(geometry.out_starts)
    numbers = {name: size for name, size in sizes.items() if name != "stream"}
    task = _conv.Groups(
        geometry, *views, weight, epilogue=epilogue(sizes["stream"]), batch=problem.batch, groups=problem.groups,
        channels=channels, lanes=lanes, phases=phases, phase_strands=phase_strands, phase_count=len(phases) - 1,
        most_strands=max((end - start for start, end in pairwise(phases)), default=0), **numbers,
    )  # fmt: skip
    return Bound("groups_dense", threads, task, sizes, masks_result=False)


def gradient(
    problem: Problem, geometry: _conv.Map, strides: tuple[Strides, Strides], views: tuple[_conv.View, _conv.View],
    weight: _conv.WeightView, dense: float, threads: int,
) -> Bound:  # fmt: skip
    """The backward_weight kernel for arrays with these strides (grad_output, then x), which costs `dense`."""
    channels, lanes = sides(problem, backward=False)
    how = spread(channels, lanes)
    overlap, (b_place, a_place) = _places(problem.groups, (channels, lanes), how, strides[::-1])
    out_rows, out_columns, _, width = geometry.shape
    all_rows, vectors = problem.batch * out_rows, ceil_div(problem.groups * lanes, BLOCK)
    segment, chunk_rows = _chunk(all_rows, out_columns, GRADIENT_POSITIONS, GRADIENT_POSITIONS, 1)
    segments = ceil_div(out_columns, segment)
    chunks = ceil_div(all_rows, chunk_rows) * segments
    parts = max(1, min(MAX_PARTS, chunks, problem.macs // PART_MACS))
    sizes = {
        "spread": how,
        "overlap": overlap,
        "a_place": a_place,
        "b_place": b_place,
        "a_ahead": _ahead(strides[0], chunk_rows),
        "b_ahead": _ahead(strides[1], chunk_rows * (problem.stride[-2] if problem.dims > 1 else 1)),
        "chunk_rows": chunk_rows,
        "segment": segment,
        "segments": segments,
        "in_segment": min(width, blocking.in_columns(problem, segment, False)),
        "sum_parts": parts,
        "shares": min(vectors, ceil_div(threads, parts)),
    }
    task = _conv.GroupsGradient(
        geometry, *views, weight, batch=problem.batch, groups=problem.groups, channels=channels, lanes=lanes, **sizes
    )
    return Bound(
        "gradient_groups", threads, task, sizes, dense=dense, scalar="grad_output", masks_result=False
    )  # fmt: skip


def _places(
    groups: int, counts: tuple[int, int], how: int, strides: tuple[Strides, Strides]
) -> tuple[int, tuple[int, int]]:
    """(overlap, what is used in place) of the side that is spread and that of the lanes."""
    channels, lanes = counts
    spread_side, lane_side = strides
    total = groups * lanes
    odd = total % BLOCK != 0
    like_lanes = 0 < how < BLOCK  # both sides are read as vectors of the same channels
    rows = [lane_side, spread_side] if like_lanes else [lane_side]
    overlap = odd and total >= BLOCK and all(one.contiguous_channels for one in rows)

    def whole(one: Strides) -> bool:  # vectors can be read and written: in a blocked array the last one has its lanes
        return one.channel == 1 and (not odd or overlap or one.block != BLOCK)

    if how == BLOCK:
        spread_place = spread_side.channel == 1 and (spread_side.block == BLOCK or BLOCK % channels == 0)
    else:
        spread_place = like_lanes and whole(spread_side)
    if how == 0:
        overlap = overlap and whole(lane_side)
    return int(overlap), (int(spread_place), int(whole(lane_side)))


def _ahead(strides: Strides, rows: int) -> int:
    """Floats that so many rows are apart."""
    return rows * (strides.spatial[-2] if len(strides.spatial) > 1 else strides.image)


def _chunk(rows: int, columns: int, most: int, most_columns: int, wanted: int) -> tuple[int, int]:
    """(columns, rows) of a chunk of at most about `most` outputs, where `wanted` chunks are welcome."""
    if columns > most_columns:
        return even(columns, most_columns), 1
    chunk_rows = even(rows, min(max(1, most // columns), max(1, rows // wanted)))
    if wanted > 1 and rows == 1:
        return min(columns, max(64, ceil_div(columns, wanted))), 1
    return columns, chunk_rows


def _phases(starts: list[int]) -> tuple[list[int], list[int]]:
    """(where each phase begins, and the last one ends; the strands of one phase after the other)."""
    strands: dict[int, list[int]] = {}
    for index, start in enumerate(starts):
        strands.setdefault(start, []).append(index)
    ends = [0]
    for some in strands.values():
        ends.append(ends[-1] + len(some))
    return ends, [index for some in strands.values() for index in some]
