"""forward (y from x) and backward_data (the gradient of x from that of y): the decision, the kernels, their blocks.

`Rows` is the prepared operation. Its own kernels are those of kernels/rows/; outputs.py, weights.py, groups.py and
amx.py bring others for the same passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import ceil, gcd, prod
from typing import NamedTuple

import numpy as np

from .. import masks
from ..packed import PackedWeight
from . import _conv, _cpu, amx, geometry, groups, layout, outputs, processor, reduction, tuned, weights
from .arrays import Form
from .blocking import PACKED_SHARE, STREAM_BYTES, VECTOR_BYTES, ceil_div, even, in_columns, packed_share, shared
from .bound import AllKernels, Bound, Epilogue, Kernels, Mask, Place, merged, moved, packing, strides_of
from .choice import NOTHING, SAMPLED_RUNS, Candidate, Choice, choose, no_choice, threads_for
from .layout import BLOCK, Layout, Strides
from .operands import SPIKES, Operand, Operands
from .problem import Problem

SPARSE = 0.15  # density from which on the row kernels take longer words
MAX_LANE_VECTORS = 8  # SC_MAX_LANE_VECTORS
MAX_CHANNEL_BLOCK = 256  # SC_MAX_CHANNEL_BLOCK
MAX_JOINED = 16  # SC_MAX_JOINED
# The weight tile of a skipping row kernel: most of L1, and more where so few of its rows are used that longer words
# (fewer loads and stores of sums) outweigh reads from L2, or always (processor.py). Zen 4 (32 KB of L1), 3 x 3 layers
# of ResNet, dense-equivalent GF/s with 24 and 48 KB: 60% zeros 216 and 203, 80% 363 and 361, 90% 592 and 645,
# 95% 792 and 1037. One tap: 64 channels x 8 vectors are 32 KB; 24 KB (48 channels, broken words) lose 5 to 20%.
WEIGHT_TILE_BYTES, SPARSE_WEIGHT_TILE_BYTES, ONE_TAP_WEIGHT_TILE_BYTES = 24 * 1024, 48 * 1024, 32 * 1024
ALL_TAPS_BYTES = 16 * 1024 * 1024  # of a lane block and channel block with all outer taps, which are packed together
WORD = 64  # bits of a word: at most so many channels
WITHOUT_BITS = ("rows_output",)  # kernels that write no mask of the result
MIN_SEGMENT = 64  # columns that are worth an item of their own
CHUNK_COLUMNS = 1024  # outputs that are finished together
HEAVY_COLUMNS = 4096  # where each chunk packs the weights again; backward_data of 512,512,14/2 at 90%: 2.1 -> 3.2


# --- the operation ---


@dataclass(frozen=True)
class Rows:
    """forward or backward_data of arrays of certain forms."""

    problem: Problem
    result: Form
    layout: Layout
    backward: bool
    skip: str
    source: Operand
    mask_in_order: bool  # the kernels write whole vectors in the order of the result's mask
    pads: bool  # the result has lanes that are no channels
    looks_at_weights: bool  # the work is worth a look at plain weights
    skipping: str  # the kernel that skips zeros of the source
    clears: bool  # with a residual no kernel takes a mask of the result, which is cleared afterwards
    kernels: AllKernels  # by name, and whether they are for few nonzeros
    hints: bool  # output_mask is a hint: results that it does not need may be anything

    @property
    def channels(self) -> int:
        """Of the result."""
        return self.problem.in_channels if self.backward else self.problem.out_channels

    def decide(self, operands: Operands, threads: int, threshold: float) -> tuple[Choice, Bound]:
        """What to skip in these arrays, and the kernel for it."""
        kernels = self.kernels(threads_for(self.problem, threads), _cpu.current())
        if self.skip == "none":
            return NOTHING, kernels("rows_dense", False)
        kernel, (source, name, known) = kernels(self.skipping, False), self.source
        array = operands[known if known in operands else source]
        candidates: dict[str, Candidate] = {name: (array, kernel.each, kernel.fixed)}
        if "output_mask" in operands and not self.clears:
            output = kernels("rows_output", False)
            candidates["output"] = operands["output_mask"], output.each, output.fixed
        weight = operands["weight"]
        if self.skip == "weight" or (
            self.skip == "auto" and (self.looks_at_weights or isinstance(weight, PackedWeight))
        ):
            density = weights.density(weight, SAMPLED_RUNS)
            if density <= weights.MOST_DENSITY or self.skip == "weight":
                candidates["weight"] = self._weights_candidate(density, operands, kernels)
        skip = name if threshold and self.skip == "auto" else self.skip
        choice = choose(skip, kernel.dense, candidates, threshold)
        if choice.skip == "weight":
            skipping = kernels("weights_skip", choice.density["weight"] <= weights.SPARSE)
            lists = weights.nonzeros(self.problem, self.backward, weight, skipping.threads)
            if lists.finite:
                return choice, skipping._replace(lists=lists)
            choice = no_choice("Inf or NaN among the weights")
        if choice.skip == "none":
            return choice, kernel if self.source is SPIKES else kernels("rows_dense", False)
        if choice.skip == "output":
            return choice, kernels("rows_output", False)
        density = choice.density[name]
        if density > kernel.sparse:
            return choice, kernel
        return choice, kernels(self.skipping, True, processor.words_together(density))

    def _weights_candidate(self, density: float, operands: Operands, kernels: Kernels) -> Candidate:
        """What `choose` asks of skipping zero weights."""
        kernel = kernels("weights_skip", density <= weights.SPARSE)
        packs = weights.packing_cost(self.problem, self.backward, operands["weight"])
        masks_in_numpy = "output_mask" in operands and not self.hints
        masking = 7 * masking_cost(self.problem, self.backward) if masks_in_numpy else 0.0
        return density, kernel.each, kernel.fixed + packs + masking

    def run(
        self, operands: Operands, out: np.ndarray, threads: int, threshold: float, return_mask: bool,
        decided: Bound | None = None,
    ) -> np.ndarray | None:  # fmt: skip
        """Writes the result to `out`; returns its mask, if it is wanted and the kernel can write it.

        `decided` is the kernel, if that is settled.
        """
        kernel = decided or self.decide(operands, threads, threshold)[1]
        (source, _, known), weight, bits = self.source, operands["weight"], None
        needed, bias = operands.get("output_mask"), operands.get("bias")
        if self.hints and kernel.kernel != "rows_output":
            needed = None
        clears = needed is not None and (self.clears or not kernel.masks_result)
        if bias is not None:
            bias = kernel.spread_bias(bias)
        if kernel.lists:
            weight = None
        elif isinstance(weight, PackedWeight):
            weight = weight.dense
        if return_mask and self.writes_mask(kernel) and not clears:
            bits = np.empty(-(-out.size // 8), np.uint8)
        kernel.task.run(
            operands[source], weight, bias, out, kernel.threads, threshold, bits, None if clears else needed,
            operands.get(known), operands.get("residual"), None, kernel.lists,
        )  # fmt: skip
        if clears:
            masks.keep(out, self.layout.over_channels(needed, out.ndim))
        if self.pads:
            self.layout.clear_padding(out, self.channels)
        return bits

    def writes_mask(self, kernel: Bound) -> bool:
        """Whether a kernel writes the mask of its result."""
        return self.mask_in_order and kernel.lists is None and kernel.kernel not in WITHOUT_BITS


def prepared(
    problem: Problem, layout: Layout, source: Form, weight: Form, result: Form, *, backward: bool, skip: str,
    operand: Operand, precision: str, relu: bool = False, residual: Form | None = None, needed: Form | None = None,
    known: Form | None = None, hints: bool = False,
) -> Rows:  # fmt: skip
    """The operation for arrays of these forms; `operand` says what the source is called.

    With `hints` what `needed` does not need may be anything: the mask is read only where that pays.
    """
    places = layout.strides(source), layout.strides(result)
    added = residual and layout.strides(residual)
    in_kernel = needed if residual is None else None
    in_vectors = places[1].contiguous_channels and (added is None or added.contiguous_channels)
    channels = problem.in_channels if backward else problem.out_channels
    mask_in_order = relu and channels // problem.groups % BLOCK == 0 and in_vectors and result.c_contiguous
    sides = Sides(
        problem, backward, *places, in_kernel and Mask(layout.strides(in_kernel), in_kernel.dtype.char),
        known and Mask(layout.strides(known), known.dtype.char), weight.steps, Epilogue(relu, added), precision, hints,
    )  # fmt: skip
    looks = problem.met_macs >= weights.LOOK_MACS and operand is not SPIKES
    skipping = "rows_spikes" if operand is SPIKES else "rows_skip"
    return Rows(
        problem, result, layout, backward, skip, operand, mask_in_order, layout.pads(channels), looks,
        skipping, added is not None, AllKernels(partial(bound, sides)), hints,
    )  # fmt: skip


# --- its kernels ---


class Sides(NamedTuple):
    """A pass of rows but for its arrays: all that its kernels depend on."""

    problem: Problem
    backward: bool
    source: Strides
    target: Strides
    needed: Mask | None
    known: Mask | None
    weight: tuple[int, ...]
    epilogue: Epilogue
    precision: str
    hints: bool


class Flat(NamedTuple):
    """The same as kernels see it: a simpler problem of the same memory, with rows as long as can be."""

    simplified: Problem
    problem: Problem  # pointwise ones as one row
    geometry: _conv.Map
    strides: tuple[Strides, Strides, Strides | None]  # of source, target, residual
    views: tuple[_conv.View, _conv.View]
    needed: _conv.Mask | None
    known: _conv.Mask | None
    weight: _conv.WeightView
    counts: tuple[int, int]  # channels of source and target, of a group
    target_size: tuple[int, ...]
    spread: tuple[int, int]


def flat(sides: Sides, *, only_drop: bool) -> Flat:
    """`only_drop`: weights stay where they are, as lists want it."""
    backward = sides.backward
    places = sides.source, sides.target, sides.needed, sides.known, sides.epilogue.residual
    x, y = ([1, 2, 4], [0, 3]) if backward else ([0, 3], [1, 2, 4])  # the places of arrays with the shapes of x and y
    simplify = reduction.dropped if only_drop else reduction.simplified
    reduced = simplify(reduction.Reduced(
        sides.problem, *(tuple(strides_of(places[index]) for index in side) for side in (x, y)), sides.weight
    ))  # fmt: skip
    strides = dict(zip((*x, *y), (*reduced.x, *reduced.y), strict=True))
    simplified, weight = reduced.problem, reduced.weight
    here: list[Place] = [moved(place, strides[index]) for index, place in enumerate(places)]
    problem, (source, target, needed, known, residual) = merged(simplified, tuple(here))
    if problem.dims != simplified.dims:
        weight = (*weight[:2], 1)
    counts = simplified.in_channels // simplified.groups, simplified.out_channels // simplified.groups
    sizes = problem.in_size, problem.out_size
    if backward:
        sizes = sizes[::-1]
    return Flat(
        simplified, problem, geometry.backward_map(problem) if backward else geometry.forward_map(problem),
        (source, target, residual), (layout.view(source, sizes[0]), layout.view(target, sizes[1])),
        needed and needed.bound(sizes[1]), known and known.bound(sizes[0]),
        layout.weight_view(weight, problem.kernel, counts[1], not backward, reduced.offset),
        counts[::-1] if backward else counts, sizes[1], reduced.spread if backward else (1, 1),
    )  # fmt: skip


def bound(sides: Sides, threads: int, kernel: str, sparse: bool, words: int = 1) -> Bound:
    """A kernel for these arrays; with `sparse` blocks are for few nonzeros: SPARSE, or that of weights.py.

    A sweep of a skipping kernel takes `words` words of channels at most.

    "rows_dense" stands for the dense kernel that is the fastest one: it can be "rows_tiles" or "groups_dense".
    """
    if sides.hints and kernel != "rows_output":
        sides = sides._replace(needed=None)
    backward, layer = sides.backward, flat(sides, only_drop=kernel == "weights_skip")
    problem, (channels, lanes) = layer.problem, layer.counts
    if kernel == "weights_skip":
        blocks = weights.blocking(problem, channels, lanes, sparse, backward, threads)
        end = sides.epilogue.bound(layer.strides[2], layer.target_size, blocks.sizes["stream"])
        return weights.bound(problem, layer.geometry, layer.views, layer.counts, end, blocks, threads)
    tile_gain = max(1.0, amx.rows_gain(layer.simplified, backward, sides.precision)) if _cpu.has_tiles() else 1.0
    group_gain = groups.rows_gain(layer.simplified, backward)
    if kernel == "rows_dense" and group_gain > tile_gain:
        epilogue = partial(sides.epilogue.bound, layer.strides[2], layer.target_size)
        task = problem, backward, layer.geometry, layer.strides, layer.views, layer.weight, epilogue
        return groups.rows(*task, threads)._replace(spread=layer.spread)
    if kernel == "rows_dense" and tile_gain > 1:
        kernel = "rows_tiles"
        parts = amx.parts(sides.precision, amx.row_terms(layer.simplified, backward))
        sizes = amx.rows(problem, layer.geometry, channels, lanes, parts, backward, threads)
    else:
        sizes = blocking(problem, layer.geometry, channels, lanes, kernel, sparse, backward, threads, words)
    numbers = {name: size for name, size in sizes.items() if name != "stream"}
    task = _conv.Rows(
        kernel, layer.geometry, *layer.views, layer.weight, needed=layer.needed, known=layer.known,
        epilogue=sides.epilogue.bound(layer.strides[2], layer.target_size, sizes["stream"]),
        batch=problem.batch, groups=problem.groups, channels=channels, lanes=lanes, **numbers,
    )  # fmt: skip
    packs = packing(layer.simplified, backward)
    if kernel == "rows_output":
        each, fixed = outputs.costs(channels, layer.geometry.all_taps)
        return Bound(kernel, threads, task, sizes, each, fixed + packs, spread=layer.spread)
    # One word of channels costs about 25 cycles (window moved, bits tested, one branch mispredicted) beside its
    # multiply-adds; measured (Zen 4) 0.09 for a tile of 384 vectors, 0.23 for 96, 0.55 for 18. To find it takes about 6
    # for each vector of floats, which are read for that alone (Zen 5: 3 to 11, from L2 and from memory).
    accumulators = max(1, layer.geometry.most_taps) * sizes["lane_vectors"]
    factors = tuned.factors("rows_one_tap" if layer.geometry.all_taps == 1 else "rows")
    each = factors.each * processor.rows_slope(accumulators, layer.geometry.most_taps, layer.geometry.mean_taps)
    fed = max(1.0, layer.geometry.mean_taps) * sizes["lane_vectors"]  # 3 taps, stride 2: 2 and 1; 7 taps: 3, 2 and 2
    tile = min(channels, sizes["word"]) * fed * processor.vector_cycles()
    floats = problem.batch * channels * problem.groups * prod(problem.out_size if backward else problem.in_size)
    finding = processor.word_cycles() * floats / (problem.macs * processor.vector_cycles())
    if kernel == "rows_spikes":
        finding = 0.0
    masking = masking_cost(layer.simplified, backward) if layer.needed else 0.0
    alone = layer.geometry.all_taps == 1 and channels <= sizes["channel_block"]  # sums are never moved
    fixed = 0.03 + (25 / (tile + 20) if processor.word_costs(alone) else 0.0) + finding
    fixed = factors.fixed * fixed + masking + packs  # the last two are the dense kernel's, too
    dense = masking + ((1 + packs) / group_gain if group_gain > tile_gain else 1 / tile_gain + packs)
    return Bound(
        kernel, threads, task, sizes, each, fixed, dense, SPARSE,
        amx.note(sizes["parts"]),
        spread=layer.spread,
    )  # fmt: skip


def masking_cost(problem: Problem, backward: bool) -> float:
    """What a kernel loses that computes all outputs and stores zeros for those that a mask does not need.

    The mask goes through the caches, so it weighs the more the shorter sums are. Zen 4, dense kernels with float masks:
    0.02 in 3x3 layers, in 1x1 layers of 256, 128 and 64 channels 0.03, 0.06 and 0.15 (0.04 with bits).
    """
    channels = problem.out_channels if backward else problem.in_channels
    return 0.5 / (ceil(channels // problem.groups / 16) * prod(problem.kernel))


# --- their blocks ---


def blocking(
    problem: Problem, rows_map: _conv.Map, channels: int, lanes: int, kernel: str, sparse: bool, backward: bool,
    threads: int, words: int = 1,
) -> dict[str, int]:  # fmt: skip
    """Blocks of rows/rows.h and outputs/outputs.h; `channels` and `lanes` are one group's."""
    accumulators, _, dense_vectors = _cpu.registers()
    taps, vectors, wide = max(1, rows_map.most_taps), ceil_div(lanes, 16), CHUNK_COLUMNS
    if kernel == "rows_output":
        lane_vectors, channel_block = outputs.tile(channels, vectors, taps)
        wide = outputs.CHUNK_COLUMNS
    else:
        if kernel == "rows_dense":
            lane_vectors, channel_block = even(vectors, dense_vectors), even(channels, MAX_CHANNEL_BLOCK)
        else:
            lane_vectors = even(vectors, min(MAX_LANE_VECTORS, accumulators // taps, 4 if taps > 1 else 8))
            room = SPARSE_WEIGHT_TILE_BYTES if sparse or processor.prefers_long_words() else WEIGHT_TILE_BYTES
            fits = (room if taps > 1 else ONE_TAP_WEIGHT_TILE_BYTES) // (taps * lane_vectors * VECTOR_BYTES)
            channel_block = channels if channels <= 16 else min(64, max(16, fits // 16 * 16))
        # Kernels can have thousands of taps.
        most_channels = max(1, ALL_TAPS_BYTES // (rows_map.all_taps * lane_vectors * VECTOR_BYTES))
        channel_block = min(channel_block, most_channels)
    out_rows, out_columns, _, width = rows_map.shape
    all_rows = problem.batch * out_rows
    lane_blocks = ceil_div(vectors, lane_vectors)
    word, packs, ahead = min(channel_block, WORD), False, False
    if kernel in ("rows_skip", "rows_spikes") and word == WORD:
        channel_block = WORD * max(1, min(words, ceil_div(channels, WORD), most_channels // WORD))
    if kernel == "rows_skip" and (word % 16 == 0 or word == channels):  # whole vectors but for the last word
        packs = processor.packs_values(lane_blocks * prod(problem.kernel[:-1]))
    wanted = 4 * threads if threads > 1 else 1
    heavy = packed_share(problem) > PACKED_SHARE  # each chunk packs the weights: threads share lane blocks, not rows
    together = HEAVY_COLUMNS if heavy else wide
    if all_rows == 1 and threads > 1:
        # One long row is cut into two pieces for each thread, so that one that is held up has half a part to give. Each
        # piece reads the weights, and would pack heavy ones: there threads share lane blocks, and each finds the words
        # of its sources. Zen 5, batch 8, two threads, before (four pieces, heavy or not) and after: 2048,512,7 1x1 2.38
        # and 1.28 ms, 512,2048,7 2.26 and 1.19, 1024,512,14 2.87 and 2.65, 512,256,28 backward_data 3.42 and 3.13 (with
        # one piece for each thread 2.67 and 3.21); 512,512,7 3x3 2.64 and 2.45.
        by_lanes = heavy and lane_blocks >= threads
        parts = 1 if by_lanes else ceil_div(2 * threads, problem.groups)
        segment, chunk_rows = min(out_columns, max(MIN_SEGMENT, shared(out_columns, together, parts))), 1
    elif out_columns > 2 * together:
        segment, chunk_rows = even(out_columns, together), 1
    else:
        # Where lane blocks are too few for all threads, several pack the same weights.
        pieces = ceil_div(threads, problem.groups * lane_blocks) if heavy else ceil_div(wanted, problem.groups)
        most = max(1, all_rows // pieces)
        segment, chunk_rows = out_columns, shared(all_rows, min(ceil_div(together, out_columns), most), pieces)
    if kernel == "rows_skip" and taps == 1 and lane_blocks <= 2:
        ahead = processor.reads_ahead(4 * chunk_rows * segment * channels)
    segments = ceil_div(out_columns, segment)
    chunks = problem.groups * ceil_div(all_rows, chunk_rows) * segments
    # Pixels come from memory where few outputs take them.
    far = rows_map.all_taps == 1 or (not backward and max(problem.stride) > 1 and not heavy)
    return {
        "parts": 0,
        "lane_vectors": lane_vectors,
        "channel_block": channel_block,
        "word": word,
        "packs_values": int(packs),
        "reads_ahead": int(ahead),
        "chunk_rows": chunk_rows,
        "segment": segment,
        "segments": segments,
        # where less than half of the columns are met, these alone are made ready
        "in_segment": min(width, in_columns(problem, segment, backward), 2 * segment * problem.kernel[-1]),
        "lane_groups": _lane_groups(lane_blocks, chunks, threads),
        "pack_ahead": int(chunks > 1 and not heavy),
        "ahead": processor.dense_ahead(far, rows_map.all_taps, channel_block) if kernel == "rows_dense" else 0,
        "joined": int(
            kernel == "rows_dense"
            and 1 < rows_map.all_taps <= MAX_JOINED
            and processor.joins_taps(lane_vectors, channel_block)
        ),
        "pieces": 0,
        "stream": int(4 * problem.batch * out_rows * out_columns * lanes * problem.groups >= STREAM_BYTES),
    }


def _lane_groups(lane_blocks: int, chunks: int, threads: int) -> int:
    """In how many shares of equal work the lane blocks of a chunk go, each of which finds the chunk's words anew.

    As many as threads are enough. Zen 5, two threads, forward at 60% zeros, time of one
    thread over theirs with 2, 4 and 8 shares: 256,256,28/2 1.91 1.83 -, 512,512,14/2 1.95 1.93 1.84, 2048,512,7 1x1
    1.89 1.82 -.
    """
    if threads == 1 or chunks >= 4 * threads:
        return 1
    return min(lane_blocks, threads // gcd(threads, chunks))
