"""Kernels bound to sizes and strides: C structs filled, and what each kernel costs.

`rows_kernels` and `gradient_kernels` depend on no array, and are found again in a cache.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from functools import cache, partial
from math import ceil, prod
from typing import Any, NamedTuple

import numpy as np

from .. import cpu
from . import _conv, _cpu, _weights, blocking, blocking_tiles, caches, geometry, groups, layout, processor, reduction
from .layout import Strides
from .problem import Problem

SPARSE = 0.15  # density from which on the row kernels take longer words
WEIGHT_SPARSE = 0.25  # density of weights from which on blocks of channels are longer
UNMASKED = 0.07  # of a gradient kernel's time no mask saves: packing; Zen 4 0.05 (256,256,14) to 0.12 (512,512,7)


def packing(problem: Problem, backward: bool) -> float:
    """What packing all weights costs, beside the dense kernel's multiply-adds."""
    positions = problem.batch * prod(problem.in_size if backward else problem.out_size)
    cycles = processor.PACK_CYCLES[0 if not backward else 1 if prod(problem.kernel) == 1 else 2]
    return cycles * 16 / (processor.dense_cycles() * positions)


def masking_cost(problem: Problem, backward: bool) -> float:
    """What a kernel loses that computes all outputs and stores zeros for those that a mask does not need.

    The mask goes through the caches, so it weighs the more the shorter sums are. Zen 4, dense kernels with float masks:
    0.02 in 3x3 layers, in 1x1 layers of 256, 128 and 64 channels 0.03, 0.06 and 0.15 (0.04 with bits).
    """
    channels = problem.out_channels if backward else problem.in_channels
    return 0.5 / (ceil(channels // problem.groups / 16) * prod(problem.kernel))


class Mask(NamedTuple):
    """Where the elements of a mask are, in elements, and what they are: see `_conv.Mask`."""

    strides: Strides
    kind: str


class Epilogue(NamedTuple):
    """What becomes of the finished sums, but for its arrays: see `_conv.Epilogue`."""

    relu: bool = False
    residual: Strides | None = None

    def bound(self, residual: Strides | None, size: tuple[int, ...], tiles: dict[str, int]) -> dict[str, Any]:
        """What kernels take for it, `tiles` included; the residual is a reduced array of this size."""
        view = None if residual is None else layout.view(residual, size)
        made = _conv.Epilogue(relu=self.relu, residual=view, stream=tiles["stream"])
        return {"epilogue": made} | {name: value for name, value in tiles.items() if name != "stream"}


Place = Strides | Mask | None


def _merged(problem: Problem, places: tuple[Place, ...]) -> tuple[Problem, tuple[Place, ...]]:
    """A pointwise problem as one long row of all positions (over all images too, where memory allows it)."""
    if not problem.pointwise:
        return problem, places
    rows = [one and one.merged(problem.in_size) for one in map(_strides, places)]
    if [one is None for one in rows] != [one is None for one in places]:
        return problem, places
    length = int(np.prod(problem.in_size, dtype=np.int64))
    batch = problem.batch
    if batch > 1 and all(one.image == length * one.spatial[0] for one in rows if one):
        length, batch = length * batch, 1
    one = (1,)
    flat = dataclasses.replace(
        problem, batch=batch, in_size=(length,), out_size=(length,), kernel=one, stride=one, padding=(0,), dilation=one
    )
    merged = zip(places, rows, strict=True)
    return flat, tuple(_at(given, row) for given, row in merged)


def _strides(place: Place) -> Strides | None:
    return place.strides if isinstance(place, Mask) else place


def _at(place: Place, strides: Strides | None) -> Place:
    """The same kind of array at another place."""
    return place._replace(strides=strides) if isinstance(place, Mask) else strides


def _mask(mask: Mask | None, size: tuple[int, ...]) -> _conv.Mask | None:
    """The C mask of an array of this size."""
    return _conv.Mask(layout.view(mask.strides, size), mask.kind) if mask else None


class Prepared(NamedTuple):
    """A kernel bound to sizes and strides: the struct, its blocking, and what choosing needs.

    Its cost is `each` times the density, and `fixed`, where the dense kernel for the same operands costs `dense`: in
    units of the work of a dense kernel on vectors, or (backward_weight) of its multiply-adds for one position and tap.
    Up to the density `sparse`, the "sparse" variant is better.
    """

    name: str
    scalar: str  # the operand whose elements are the scalars
    threads: int
    task: Any  # of Cython's classes, by the name of the kernel; None where NumPy is it
    tiles: dict[str, int]
    each: float
    fixed: float
    dense: float = 1.0
    sparse: float = 0.0
    note: str = ""  # what a plan says of it
    lists: _weights.Lists | None = None  # of these weights, "weights_skip" alone
    masks_result: bool = True  # whether it takes a mask of what is needed; if not, results are cleared afterwards
    spread: tuple[int, int] = (1, 1)  # of the bias: copies of all of it, and of each element

    def bias(self, given: np.ndarray | None) -> np.ndarray | None:
        """A bias as the kernel reads it: an element for each of its channels, side by side."""
        if given is None or self.spread == (1, 1):
            return given if given is None else np.ascontiguousarray(given)
        return np.tile(np.repeat(given, self.spread[1]), self.spread[0])


def _bound(isa: str, bind: Callable[..., Prepared], *which: str) -> Prepared:
    """A kernel whose tiles and code are of one instruction set, even if another thread has switched to another one."""
    with cpu.switching, contextlib.nullcontext() if _cpu.current() == isa else cpu.use_isa(isa):
        made = bind(*which)
    caches.note()
    return made


@caches.kept(2048)
def rows_kernels(
    problem: Problem, backward: bool, source: Strides, target: Strides, weight: tuple[int, ...], needed: Mask | None,
    live: Mask | None, epilogue: Epilogue, precision: str, threads: int, isa: str,
) -> Callable[[str], Prepared]:  # fmt: skip
    """The forward or backward_data kernels for arrays with these strides, each bound when it is first asked for.

    They are "dense" (on tile registers, where that is faster), "skip", "sparse": the skipping kernel with tiles for a
    density of at most SPARSE, "weight" and "sparse weight", which skip zeros of the weights (WEIGHT_SPARSE), and, where
    there is a mask of what is needed, "output". Tiles depend on the instruction set, so `isa` is part of the key.
    """
    bind = partial(_rows_kernel, problem, backward, source, target, weight, needed, live, epilogue, precision, threads)
    return cache(partial(_bound, isa, bind))


def _rows_kernel(
    problem: Problem, backward: bool, source: Strides, target: Strides, weight: tuple[int, ...], needed: Mask | None,
    live: Mask | None, epilogue: Epilogue, precision: str, threads: int, variant: str,
) -> Prepared:  # fmt: skip
    places = source, target, needed, live, epilogue.residual
    x, y = ([1, 2, 4], [0, 3]) if backward else ([0, 3], [1, 2, 4])  # the places of arrays with the shapes of x and y
    simplify = reduction.dropped if variant.endswith("weight") else reduction.simplified
    made = simplify(reduction.Reduced(
        problem, *(tuple(_strides(places[index]) for index in side) for side in (x, y)), weight
    ))  # fmt: skip
    strides = dict(zip((*x, *y), (*made.x, *made.y), strict=True))
    problem, weight, spread = made.problem, made.weight, made.spread if backward else (1, 1)
    channels, lanes = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    group = lanes
    flat, (source, target, needed, live, residual) = _merged(
        problem, tuple(_at(place, strides[index]) for index, place in enumerate(places))
    )
    if flat.dims != problem.dims:
        weight = (*weight[:2], 1)
    if backward:
        channels, lanes = lanes, channels
    used = geometry.backward_map(flat) if backward else geometry.forward_map(flat)
    source_size, target_size = (flat.out_size, flat.in_size) if backward else (flat.in_size, flat.out_size)
    if variant.endswith("weight"):
        views = layout.view(source, source_size), layout.view(target, target_size)
        bound = partial(epilogue.bound, residual, target_size)
        return _weights_kernel(flat, backward, used, views, channels, lanes, bound, threads, variant)
    tile_gain = max(1.0, blocking_tiles.rows_gain(problem, backward, precision)) if _cpu.has_tiles() else 1.0
    group_gain = groups.rows_gain(problem, backward)
    if variant == "dense" and group_gain > tile_gain:
        weights = layout.weight_view(weight, flat.kernel, group, not backward, made.offset)
        views = layout.view(source, source_size), layout.view(target, target_size)
        strides, bound = (source, target, residual), partial(epilogue.bound, residual, target_size)
        task, tiles = groups.rows(flat, backward, used, strides, views, weights, bound, threads)
        return Prepared("groups_dense", "", threads, task, tiles, 0.0, 0.0, masks_result=False, spread=spread)
    if variant == "dense" and tile_gain > 1:
        variant = "tiles"
        parts = blocking_tiles.PARTS[precision]
        tiles = blocking_tiles.rows(flat, used, channels, lanes, parts, backward, threads)
    else:
        tiles = blocking.rows(flat, used, channels, lanes, variant, backward, threads)
    dense = variant in ("dense", "tiles", "output")
    task = _conv.Rows(
        used, layout.view(source, source_size), layout.view(target, target_size),
        layout.weight_view(weight, flat.kernel, group, not backward, made.offset),
        needed=_mask(needed, target_size), live=_mask(live, source_size), batch=flat.batch, groups=flat.groups,
        channels=channels, lanes=lanes, dense=dense, **epilogue.bound(residual, target_size, tiles),
    )  # fmt: skip
    # One word of channels costs about 25 cycles (window moved, bits tested, one branch mispredicted) beside its
    # multiply-adds; measured 0.09 for a tile of 384 vectors, 0.23 for 96, 0.55 for 18.
    tile = min(channels, tiles["channel_block"]) * max(1, used.most_taps) * tiles["lane_vectors"]
    name, scalar = f"rows_{variant if dense else 'skip'}", "grad_output" if backward else "input"
    packs = packing(problem, backward)
    if variant == "output":
        # Lanes added up, the mask read and zeros written weigh more where an output is a short sum. Zen 4: 0.1 for 3x3
        # layers, 0.25 for one tap of 64 channels; 1.35 is AVX2, which loads five vectors for four multiply-adds.
        fixed = 0.1 + 1 / (2 + ceil(channels / 16) * used.all_taps) + packs
        each = processor.slope() * (1 if blocking.holds_patch() else 1.35)
        return Prepared(name, scalar, threads, task, tiles, each, fixed)
    masking = masking_cost(problem, backward) if needed else 0.0
    fixed = 0.03 + 25 / (tile + 20) + masking + packs
    dense_cost = masking + ((1 + packs) / group_gain if group_gain > tile_gain else 1 / tile_gain + packs)
    return Prepared(
        name, scalar, threads, task, tiles, processor.slope(), fixed, dense_cost, SPARSE, _note(tiles), spread=spread
    )


def _weights_kernel(
    problem: Problem, backward: bool, used: _conv.Map, views: tuple[_conv.View, _conv.View], channels: int,
    filters: int, bound: Callable[[dict[str, int]], dict[str, Any]], threads: int, variant: str,
) -> Prepared:  # fmt: skip
    made = blocking.weights(problem, channels, filters, variant, backward, threads)
    tiles = {name: value for name, value in made.tiles.items() if name != "percent"}
    task = _weights.Weights(
        used, *views, batch=problem.batch, groups=problem.groups, channels=channels, filters=filters,
        **made.tables._asdict() | bound(tiles),
    )  # fmt: skip
    each, fixed = made.slope / processor.dense_cycles(), made.fixed / processor.dense_cycles()
    return Prepared("weights_skip", "weight", threads, task, tiles, each, fixed, masks_result=False)


@caches.kept(2048)
def gradient_kernels(
    problem: Problem, x: Strides, grad_output: Strides, weight: tuple[int, ...], offset: int,
    live: tuple[Mask | None, Mask | None], precision: str, threads: int, isa: str,
) -> Callable[[str, str], Prepared]:  # fmt: skip
    """The backward_weight kernels for arrays with these strides, by scalar operand and variant, as in `rows_kernels`.

    The other operand becomes the lanes. "sparse" is, where channels are contiguous, gradient/points.h for
    pointwise kernels, and otherwise the skipping kernel with more positions and fewer lanes.
    """
    bind = partial(_gradient_kernel, problem, x, grad_output, weight, offset, live, precision, threads)
    return cache(partial(_bound, isa, bind))


def _gradient_kernel(
    problem: Problem, x: Strides, grad_output: Strides, weight: tuple[int, ...], offset: int,
    live: tuple[Mask | None, Mask | None], precision: str, threads: int, scalar: str, variant: str,
) -> Prepared:  # fmt: skip
    in_channels, out_channels = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    flat, (x, grad_output, x_live, grad_live) = _merged(problem, (x, grad_output, *live))
    if flat.dims != problem.dims:
        weight = (*weight[:2], 1)
    x_view, grad_view = layout.view(x, flat.in_size), layout.view(grad_output, flat.out_size)
    by_grad = scalar == "grad_output"
    if by_grad:
        used, a, b, channels, lanes = geometry.forward_map(flat), grad_view, x_view, out_channels, in_channels
    else:
        used, a, b, channels, lanes = geometry.backward_map(flat), x_view, grad_view, in_channels, out_channels
    can_be_points = flat.one_tap and x.contiguous_channels and grad_output.contiguous_channels
    points = can_be_points and variant == "sparse"
    tile_gain = max(1.0, blocking_tiles.gradient_gain(problem, precision)) if _cpu.has_tiles() else 1.0
    group_gain = groups.gradient_gain(problem)
    if variant == "dense" and group_gain > tile_gain:
        weights = layout.weight_view(weight, flat.kernel, out_channels, True, offset)
        both = geometry.forward_map(flat), (grad_output, x), (grad_view, x_view)
        task, tiles = groups.gradient(flat, *both, weights, threads)
        work = channels * ceil(lanes / 16) / group_gain
        return Prepared("gradient_groups", "grad_output", threads, task, tiles, 0.0, 0.0, work, masks_result=False)
    if points:
        tiles = blocking.gradient_points(flat, used, channels, lanes, threads)
    elif variant == "dense" and tile_gain > 1:
        variant = "tiles"
        tiles = blocking_tiles.gradient(flat, used, channels, lanes, blocking_tiles.PARTS[precision], threads)
    else:
        tiles = blocking.gradient(flat, used, channels, lanes, variant, threads)
    dense = variant in ("dense", "tiles")
    pairs = {"pair_group": out_channels * in_channels, "pair_lane": in_channels, "pair_channel": 1}
    if by_grad:
        pairs |= {"pair_lane": 1, "pair_channel": in_channels}
    task = _conv.Gradient(
        used, a, b, layout.weight_view(weight, flat.kernel, out_channels, not by_grad, offset),
        live=_mask(grad_live, flat.out_size) if by_grad else _mask(x_live, flat.in_size),
        batch=flat.batch, groups=flat.groups, channels=channels, lanes=lanes, dense=dense, **tiles, **pairs,
    )  # fmt: skip
    # A run of positions costs about 100 cycles (accumulators stored, branches mispredicted) beside its multiply-adds.
    taps = max(1, used.most_taps) * tiles["outer_group"]
    run = min(tiles["chunk_rows"], used.shape[0]) * tiles["segment"] * taps * tiles["lane_vectors"]
    name = f"gradient_{'points' if points else variant if dense else 'skip'}"
    # Summing in memory saves all packing, which few lanes share, and costs twice the time per multiply-add. Zen 4, GF/s
    # of points and skip: 64 lanes at 70% zeros 138 and 126, at 80% 187 and 144; 128 lanes at 80% 190 and 202, at 90%
    # 322 and 260; 512 lanes at 90% 318 and 314, at 95% 454 and 370; the same, stride 2, 80%: 181 and 173, 90%: 272 and
    # 203.
    sparse = min(0.4, (0.05 + 1.2 / ceil(lanes / 16)) * (1 if flat.pointwise else 1.7)) if can_be_points else SPARSE
    work = channels * ceil(lanes / 16)
    each, fixed = work * processor.slope(), work * (0.05 + 100 / run)
    dense_cost = work / max(tile_gain, group_gain)
    return Prepared(name, scalar, threads, task, tiles, each, fixed, dense_cost, sparse, _note(tiles))


def _note(tiles: dict[str, int]) -> str:
    """What a plan says of tile registers, if they are used."""
    parts = tiles["parts"]
    products = parts * (parts + 1) // 2  # those that are not too small to matter
    return f"on tile registers, {products} bf16 product(s) for one of float32" if parts else ""


def needed_share(kernel: Prepared, pairs: np.ndarray) -> float:
    """Share of a gradient kernel's work that is left where only these (out channel, in channel) pairs are needed."""
    return UNMASKED + (1 - UNMASKED) * kernel.task.needed(pairs)
