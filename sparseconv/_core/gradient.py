"""backward_weight (the gradient of the weight from x and from that of y): the decision, the kernels, their blocks.

`Gradient` is the prepared operation. Its own kernels are those of kernels/gradient/; groups.py and amx.py bring others.
Either operand can be the one whose elements are looked at one by one (the scalars); the other one lies in the lanes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import ceil, inf, sqrt
from typing import NamedTuple

import numpy as np

from .. import masks
from . import _conv, _cpu, amx, geometry, groups, layout, processor, reduction, tuned
from .arrays import Form
from .blocking import GRADIENT_BYTES, VECTOR_BYTES, ceil_div, even
from .bound import AllKernels, Bound, Kernels, Mask, merged
from .choice import Candidate, Choice, choose, threads_for
from .layout import Layout, Strides
from .operands import SPIKES, Operand, Operands
from .problem import Problem
from .reduction import Reduced

SPARSE = 0.15  # density from which on the kernels take more lanes and fewer positions
LISTED_SPARSE = 0.04  # the same with lists
# Density up to which gradient/points.h is faster than lists, times sqrt(channels x lanes): its sums are the whole
# gradient, which has to stay in L2. Emerald Rapids, density at which both take equally long: 256,64,56 and 64,256,56
# 0.3, 512,128,28 0.2, 128,512,28 0.13, 1024,256,14 0.08, 256,1024,14 0.015.
LISTED_POINTS = 40
NARROW_SLOPE = 1.17  # what is left of slope() in 3x3 layers with six accumulators: 1.25 on Zen 4, avx2
LISTING = 1.3  # time to list an element, over that of a multiply-add of a dense kernel
UNMASKED = 0.07  # of a kernel's time no mask saves: packing; Zen 4 0.05 (256,256,14) to 0.12 (512,512,7)
LANE_TILE_BYTES = 28 * 1024  # most of L1
# The same of a dense kernel with one vector of lanes, whose channels come in lines of their own, one for each position:
# as many bytes as the lanes. Both leave a few KB of L1 free. Zen 4 (32 KB of L1), avx2, GF/s with 28 and 14 KB:
# 512,512,7 82 104, 256,512,14/2 68 85, 256,256,14 90 108, 256,64,56 1x1 84 91, 128,128,28 103 109; but 64,64,56 106
# 100, so not with up to 64 channels. Four vectors (avx512) have 7 KB of channels beside 28: 24 KB and less are 0 to
# 10% slower.
L1_BYTES, L1_FREE_BYTES = 32 * 1024, 4 * 1024  # the first where the CPU does not say
# The same where kernels read lists of nonzeros (Intel, 48 KB of L1): little else streams through it. Emerald Rapids,
# 64,64,56, 3 and 4 rows (36 and 44 KB), GF/s at 80, 90 and 99% zeros: 428 686 1176, 451 698 1271.
LISTED_TILE_BYTES = 44 * 1024
MIN_CHANNELS = 8  # of a work item
LANE_BLOCKS = 8  # lane blocks that a work item has at least, if there are as many
WORD = 64  # channels that gradient/points.h takes together
POINTS_SLOPE = 2.35  # time of a multiply-add there over a dense one; Zen 4 and Zen 5
POINTS_BYTES = 256 * 1024  # of its scalar operand, read once for its words and once for each lane block: L2


# --- the operation ---


@dataclass(frozen=True)
class Gradient:
    """backward_weight of arrays of certain forms.

    The kernels know a convolution's `x` and `grad_output`. Of a transposed convolution these are the public
    grad_output and x: `x` and `grad_output` say what they are called.
    """

    problem: Problem
    result: Form
    skip: str
    x: Operand
    grad_output: Operand
    reduced: Reduced
    kernels: AllKernels  # by whether grad_output is the scalar operand, name, and whether they are for few nonzeros

    def scalar(self, kernel: Bound) -> Operand:
        """The operand that a kernel takes element by element."""
        return self.grad_output if kernel.scalar == "grad_output" else self.x

    def lanes(self, kernel: Bound) -> Operand:
        """The other one."""
        return self.x if kernel.scalar == "grad_output" else self.grad_output

    def skipping(self, by_grad: bool) -> str:
        """The kernel that skips zeros of an operand."""
        return "gradient_spikes" if self.x is SPIKES and not by_grad else "gradient_skip"

    def decide(self, operands: Operands, threads: int, threshold: float) -> tuple[Choice, Bound]:
        """What to skip in these arrays, and the kernel for it."""
        _, pairs = self._needed(operands)
        choice, kernel = self._decide(operands, pairs, threads, threshold)
        if "output_mask" in operands:
            choice = choice._replace(needed=1.0 if pairs is None else kernel.task.needed(pairs))
        return choice, kernel

    def _needed(self, operands: Operands) -> tuple[np.ndarray | None, np.ndarray | None]:
        """The elements and the (out channel, in channel) pairs that output_mask, if there is one, needs."""
        if "output_mask" not in operands:
            return None, None
        needed = self.reduced.of_weight(masks.bools(operands["output_mask"], self.result.shape))
        return needed, masks.needed_pairs(needed)

    def _decide(
        self, operands: Operands, pairs: np.ndarray | None, threads: int, threshold: float
    ) -> tuple[Choice, Bound]:
        kernels = self.kernels(threads_for(self.problem, threads), _cpu.current())
        candidates: dict[str, Candidate] = {}
        dense, dense_by_grad, least = "gradient_dense", False, inf
        for by_grad, operand in ((False, self.x), (True, self.grad_output)):
            if by_grad and self.x is SPIKES:
                continue  # x has no values for the lanes
            kernel = kernels(by_grad, self.skipping(by_grad), False)
            each, fixed, by_dense, name = kernel.each, kernel.fixed, kernel.dense, "gradient_dense"
            if pairs is not None:
                share = needed_share(kernel, pairs)
                each, fixed = share * each, share * fixed
                by_dense, name = self._masked_dense(kernels, by_grad, pairs)
            array = operands[operand.known if operand.known in operands else operand.name]
            candidates[operand.skip] = array, each, fixed
            if by_dense < least:
                dense, dense_by_grad, least = name, by_grad, by_dense
        skip = "input" if threshold and self.skip == "auto" else self.skip
        choice = choose(skip, least, candidates, threshold)
        if choice.skip == "none":
            return choice, kernel if self.x is SPIKES else kernels(dense_by_grad, dense, False)
        by_grad = choice.skip == self.grad_output.skip
        kernel = kernels(by_grad, self.skipping(by_grad), False)
        if choice.density[choice.skip] <= kernel.sparse:
            kernel = kernels(by_grad, self.skipping(by_grad), True)
        return choice, kernel

    def _masked_dense(self, kernels: Kernels, by_grad: bool, pairs: np.ndarray) -> tuple[float, str]:
        """The least cost of a dense kernel where these pairs are needed, and which one has it.

        Work is left out where no lane of a block is needed: a mask of small blocks leaves few such blocks of 64 lanes.
        """
        wide = kernels(by_grad, "gradient_dense", False)
        least = wide.dense * needed_share(wide, pairs), "gradient_dense"
        same = wide.kernel == "gradient_dense" and wide.blocking["lane_vectors"] == 1
        if same or wide.kernel == "gradient_groups" or self.skip not in ("auto", "none"):
            return least
        narrow = kernels(by_grad, "gradient_narrow", False)
        # Whether lanes fit the mask costs a look at all pairs: not where even those that do would be no gain.
        if narrow.dense * (UNMASKED + (1 - UNMASKED) * np.count_nonzero(pairs) / pairs.size) >= least[0]:
            return least
        return min(least, (narrow.dense * needed_share(narrow, pairs), "gradient_narrow"))

    def run(
        self, operands: Operands, out: np.ndarray, threads: int, threshold: float, return_mask: bool,
        decided: Bound | None = None,
    ) -> None:  # fmt: skip
        """Writes the result to `out`; `decided` is the kernel, if that is settled."""
        needed, pairs = self._needed(operands)
        kernel = decided or self._decide(operands, pairs, threads, threshold)[1]
        scalar, lanes = self.scalar(kernel), self.lanes(kernel)
        if self.reduced.cut:
            out.fill(0)  # also the taps that meet nothing
        kernel.task.run(
            operands[scalar.name], operands[lanes.name], None, out, kernel.threads, threshold, None, needed,
            operands.get(scalar.known), None, pairs,
        )  # fmt: skip
        if needed is not None and not kernel.masks_result:
            out[~masks.bools(operands["output_mask"], self.result.shape)] = 0


def prepared(
    problem: Problem, layout: Layout, x: Form, grad_output: Form, result: Form, *, names: tuple[Operand, Operand],
    skip: str, precision: str, known: tuple[Form | None, Form | None],
) -> Gradient:  # fmt: skip
    """The operation for arrays of these forms; `names` says what x and grad_output are called."""
    known_masks = [mask and Mask(layout.strides(mask), mask.dtype.char) for mask in known]
    x_places, grad_places = [
        (layout.strides(form), mask and mask.strides)
        for form, mask in zip((x, grad_output), known_masks, strict=True)
    ]  # fmt: skip
    reduced = reduction.simplified(Reduced(problem, x_places, grad_places, result.steps))
    x_known, grad_known = [
        mask and mask._replace(strides=strides)
        for mask, strides in zip(known_masks, (reduced.x[1], reduced.y[1]), strict=True)
    ]
    sides = Sides(
        reduced.problem, reduced.x[0], reduced.y[0], x_known, grad_known, reduced.weight, reduced.offset, precision
    )
    return Gradient(problem, result, skip, *names, reduced, AllKernels(partial(bound, sides)))


# --- its kernels ---


class Sides(NamedTuple):
    """backward_weight but for its arrays: all that its kernels depend on."""

    problem: Problem
    x: Strides
    grad_output: Strides
    x_known: Mask | None
    grad_known: Mask | None
    weight: tuple[int, ...]
    offset: int
    precision: str


def bound(sides: Sides, threads: int, by_grad: bool, kernel: str, sparse: bool) -> Bound:
    """A kernel for these arrays, by whether grad_output is the scalar operand; `sparse` as in rows.py.

    "gradient_dense" stands for the dense kernel that is the fastest one: it can be "gradient_tiles" or
    "gradient_groups". The skipping kernel for few nonzeros is "gradient_points" where one tap meets contiguous
    channels; otherwise it has more positions and fewer lanes. "gradient_narrow" is the dense vector kernel with one
    vector of lanes, for masks of small blocks.
    """
    problem = sides.problem
    in_channels, out_channels = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    flat, places = merged(problem, (sides.x, sides.grad_output, sides.x_known, sides.grad_known))
    x, grad_output, x_known, grad_known = places
    weight = sides.weight if flat.dims == problem.dims else (*sides.weight[:2], 1)
    x_view, grad_view = layout.view(x, flat.in_size), layout.view(grad_output, flat.out_size)
    if by_grad:
        pairing, a, b, channels, lanes = geometry.forward_map(flat), grad_view, x_view, out_channels, in_channels
    else:
        pairing, a, b, channels, lanes = geometry.backward_map(flat), x_view, grad_view, in_channels, out_channels
    tile_gain = max(1.0, amx.gradient_gain(problem, sides.precision)) if _cpu.has_tiles() else 1.0
    group_gain = groups.gradient_gain(problem)
    work = channels * ceil(lanes / 16)
    if kernel == "gradient_dense" and group_gain > tile_gain:
        weights = layout.weight_view(weight, flat.kernel, out_channels, True, sides.offset)
        both = geometry.forward_map(flat), (grad_output, x), (grad_view, x_view)
        return groups.gradient(flat, *both, weights, work / group_gain, threads)
    can_be_points = flat.one_tap and x.contiguous_channels and grad_output.contiguous_channels
    if kernel == "gradient_skip" and sparse and can_be_points:
        kernel = "gradient_points"
        sizes = points_blocking(flat, pairing, channels, lanes, threads)
    elif kernel == "gradient_dense" and tile_gain > 1:
        kernel = "gradient_tiles"
        parts = amx.parts(sides.precision, amx.gradient_terms(problem))
        sizes = amx.gradient(flat, pairing, channels, lanes, parts, threads)
    else:
        sizes = blocking(flat, pairing, channels, lanes, kernel, sparse, threads)
    known = grad_known and grad_known.bound(flat.out_size) if by_grad else x_known and x_known.bound(flat.in_size)
    lane, channel = (1, in_channels) if by_grad else (in_channels, 1)
    narrow = kernel == "gradient_narrow"
    task = _conv.Gradient(
        "gradient_dense" if narrow else kernel, pairing, a, b,
        layout.weight_view(weight, flat.kernel, out_channels, not by_grad, sides.offset),
        known=known, batch=flat.batch, groups=flat.groups, channels=channels, lanes=lanes,
        pair_group=out_channels * in_channels, pair_lane=lane, pair_channel=channel, **sizes,
    )  # fmt: skip
    # A run of positions costs about 100 cycles (accumulators stored, branches mispredicted) beside its multiply-adds.
    taps = max(1, pairing.most_taps) * sizes["outer_group"]
    run = min(sizes["chunk_rows"], pairing.shape[0]) * sizes["segment"] * taps * sizes["lane_vectors"]
    # Summing in memory saves all packing, which few lanes share, and costs twice the time per multiply-add. Zen 4, GF/s
    # of points and skip: 64 lanes at 70% zeros 138 and 126, at 80% 187 and 144; 128 lanes at 80% 190 and 202, at 90%
    # 322 and 260; 512 lanes at 90% 318 and 314, at 95% 454 and 370; the same, stride 2, 80%: 181 and 173, 90%: 272 and
    # 203.
    listed, even = bool(sizes["listed"]), _even(kernel)
    few = LISTED_SPARSE if even else SPARSE
    if can_be_points:
        few = LISTED_POINTS / sqrt(channels * lanes) - 0.02 if even else 0.05 + 1.2 / ceil(lanes / 16)
        few = min(0.4, few * (1 if flat.pointwise else 1.7))
    cycles = processor.LISTED_CYCLES if listed else processor.GRADIENT_CYCLES
    slope = processor.nonzero_slope(taps * sizes["lane_vectors"], cycles)
    if can_be_points:  # sums in memory wait for nothing
        slope = min(slope, POINTS_SLOPE * processor.slope())
    if listed:
        slope *= processor.LISTED_SLOPE
        fixed = work * (0.05 + 60 / run) + LISTING * channels / pairing.all_taps
    elif _cpu.registers()[2] == 1 and pairing.all_taps > 1:
        # Six accumulators are one outer tap's. Strands of one tap, at stride 2, are visited as often as those of two,
        # for half of the multiply-adds. Zen 4, avx2, 70 and 50% zeros, time over the dense kernel's and, in brackets,
        # as expected without and with this: 128,128,28 0.47 0.73 (0.45 0.68, 0.49 0.76), 64,128,56/2 0.72 0.91 (0.49
        # 0.71, 0.65 0.90), 128,256,28/2 0.89 1.14 (0.50 0.72, 0.68 0.93), 256,512,14/2 1.04 1.28 (0.55 0.76, 0.76
        # 1.00).
        apart = pairing.most_taps / max(1.0, pairing.mean_taps)
        slope *= NARROW_SLOPE
        fixed = work * (0.05 + 80 * apart**3 / run)
    else:
        fixed = work * (0.05 + 100 / run)
    factors = tuned.factors("gradient_one_tap" if pairing.all_taps == 1 else "gradient")
    each, fixed = factors.each * work * slope, factors.fixed * fixed
    dense = work * processor.one_vector_cost() if narrow else work / max(tile_gain, group_gain)
    return Bound(
        "gradient_dense" if narrow else kernel, threads, task, sizes, each, fixed, dense, few, amx.note(sizes["parts"]),
        scalar="grad_output" if by_grad else "input",
    )  # fmt: skip


def needed_share(kernel: Bound, pairs: np.ndarray) -> float:
    """Share of a kernel's work that is left where only these (out channel, in channel) pairs are needed."""
    return UNMASKED + (1 - UNMASKED) * kernel.task.needed(pairs)


# --- their blocks ---


def blocking(
    problem: Problem, pairing: _conv.Map, channels: int, lanes: int, kernel: str, sparse: bool, threads: int
) -> dict[str, int]:
    """Blocks of gradient/gradient.h; `channels` and `lanes` are one group's."""
    accumulators, _, dense_vectors = _cpu.registers()
    dense = kernel in ("gradient_dense", "gradient_narrow")
    taps = max(1, pairing.most_taps)
    vectors = ceil_div(lanes, 16)
    outer_group, span = 1, 0
    if not dense and accumulators >= 2 * taps * max(2, pairing.most_outer_taps):  # of two vectors at least
        outer_group = max(1, pairing.most_outer_taps)
        span = outer_group - 1
    if dense:
        most_vectors = 1 if kernel == "gradient_narrow" else dense_vectors
    else:
        together = taps * outer_group
        most = 8 if together == 1 else 4 if outer_group == 1 or together <= 4 else 2
        most_vectors = 1 if sparse and together >= 9 else min(accumulators // together, most)
    lane_vectors = even(vectors, most_vectors)
    blocks = ceil_div(vectors, lane_vectors)
    per_channel = pairing.all_taps * lane_vectors * VECTOR_BYTES
    # A is packed once for lane_blocks blocks, B, which is copied alone, once for channel_block channels: several lane
    # blocks come first.
    fits = GRADIENT_BYTES // (per_channel * min(blocks, LANE_BLOCKS))
    channel_block = even(channels, max(16, min(256, fits)))
    lane_blocks = even(blocks, max(1, GRADIENT_BYTES // (per_channel * channel_block)))
    if threads > 1:
        channel_block, lane_blocks = _shared(
            problem.groups, channels, blocks, channel_block, lane_blocks, lane_vectors, threads, MIN_CHANNELS
        )
    # Chunks decide where chains of additions end, so dense kernels have those of most lanes.
    chunk_vectors = even(vectors, dense_vectors) if dense else lane_vectors
    if _even(kernel):
        segment, chunk_rows = _even_chunk(pairing, LISTED_TILE_BYTES // (chunk_vectors * VECTOR_BYTES), span)
    else:
        halves = dense and dense_vectors == 1 and channels > 64  # not of a block: threads may not change chunks
        tile_bytes = ((_cpu.l1_bytes() or L1_BYTES) - L1_FREE_BYTES) // 2 if halves else LANE_TILE_BYTES
        segment, chunk_rows = _chunk(pairing, tile_bytes // (chunk_vectors * VECTOR_BYTES), span)
    return {
        "parts": 0,
        "outer_group": outer_group,
        "listed": int(_even(kernel) and kernel == "gradient_skip"),
        "lane_vectors": lane_vectors,
        "lane_blocks": lane_blocks,
        "channel_block": channel_block,
        "chunk_rows": chunk_rows,
        "segment": segment,
        "segments": ceil_div(pairing.most_columns, segment),
    }


def _shared(
    groups: int, channels: int, blocks: int, channel_block: int, lane_blocks: int, lane_vectors: int, threads: int,
    fewest: int,
) -> tuple[int, int]:
    """(channel_block, lane_blocks), at most the ones given, such that threads have equally many items.

    Not fewer than `fewest` channels (or words of them) are a block.

    What several threads do is weighed, per multiply-add: to copy a vector of lanes takes about 4 cycles, shared by the
    channels of a block, to find a nonzero 2, shared by the lanes. Zen 5, two threads, 60% zeros, time of one thread
    over theirs: 256,256,14 in 3 items 1.39, in 2 1.94; halves of the channels and of the lanes: 128,512,28 1x1 1.81
    1.74, 256,1024,14 1x1 1.84 1.85, but 64,256,56 1x1 1.59 1.77, where copies are shared by 32 channels.
    """
    best, least = (channel_block, lane_blocks), inf
    for supers in range(ceil_div(blocks, lane_blocks), blocks + 1):
        for pieces in range(ceil_div(channels, channel_block), ceil_div(channels, fewest) + 1):
            items = groups * supers * pieces
            if items % threads and items < 4 * threads:
                continue
            block, together = ceil_div(channels, pieces), ceil_div(blocks, supers)
            cost = 4 / block + 2 / (together * lane_vectors) + (block < WORD)
            if cost < least and ceil_div(channels, block) == pieces and ceil_div(blocks, together) == supers:
                best, least = (block, together), cost
            break  # more pieces cost more
    if least == inf:  # too few channels: as many items as there can be
        return min(channel_block, fewest), 1
    return best


def points_blocking(
    problem: Problem, pairing: _conv.Map, channels: int, lanes: int, threads: int
) -> dict[str, int]:
    """Blocks of gradient/points.h."""
    vectors = ceil_div(lanes, 16)
    lane_vectors = even(vectors, _cpu.point_vectors())
    blocks = ceil_div(vectors, lane_vectors)
    words = ceil_div(channels, WORD)
    per_word = min(channels, WORD) * lane_vectors * VECTOR_BYTES
    word_block = even(words, max(1, GRADIENT_BYTES // (per_word * blocks)))
    # Chunks decide where chains of additions end, so they are those of one thread.
    positions = max(WORD, POINTS_BYTES // (4 * min(channels, word_block * WORD)))
    lane_blocks = even(blocks, max(1, GRADIENT_BYTES // (per_word * word_block)))
    if threads > 1:
        word_block, lane_blocks = _shared(
            problem.groups, words, blocks, word_block, lane_blocks, lane_vectors, threads, fewest=1
        )
    channel_block = min(channels, word_block * WORD)
    out_rows, columns = problem.batch * pairing.shape[0], pairing.most_columns
    segment = even(columns, positions)
    return {
        "parts": 0,
        "outer_group": 1,
        "listed": 0,
        "lane_vectors": lane_vectors,
        "lane_blocks": lane_blocks,
        "channel_block": channel_block,
        "chunk_rows": even(out_rows, max(1, positions // segment)) if segment == columns else 1,
        "segment": segment,
        "segments": ceil_div(columns, segment),
    }


def _chunk(pairing: _conv.Map, positions: int, span: int) -> tuple[int, int]:
    """(columns, rows) of a chunk whose lane tile, `span` rows taller and a window wider, has `positions` at most."""
    columns, window = pairing.most_columns, pairing.most_window
    best = (min(columns, max(8, positions // (span + 1) - window)), 1)
    parts = max(1, ceil_div(columns, max(8, positions)))
    while parts <= ceil_div(columns, 8):
        segment = ceil_div(columns, parts)
        images = 1 + span / pairing.most_rows if span else 1  # each image brings its own `span` rows
        rows = int((positions / (segment + window) - span) / images) if span else positions // (segment + window)
        if rows >= 1 and segment * rows > 1.05 * best[0] * best[1]:
            best = (segment, rows)
        parts = ceil_div(columns, segment - 1) if segment > 1 else parts + 1  # of the next shorter segment
    return best


def _even(kernel: str) -> bool:
    """Whether chunks are those for lists: also of spikes, which have none, since their bits are those of floats."""
    return kernel in ("gradient_skip", "gradient_spikes") and processor.prefers_lists()


def _even_chunk(pairing: _conv.Map, positions: int, span: int) -> tuple[int, int]:
    """The same for lists: whole images, or equal parts of one, and whole rows, unless half as many positions more fit.

    A chunk that ends within an image repeats `span` rows, and its lists are read in two runs. Emerald Rapids, GF/s at
    80, 90 and 99% zeros: 256,256,14, 10 and 14 rows 520 819 1535, 566 892 1868; 17 rows 532 830 1771. 64,64,56, 8 rows
    of half the columns, and 4 whole ones: 420 632 1234, 451 698 1271.
    """
    columns, window = pairing.most_columns, pairing.most_window
    image = max(1, pairing.most_rows)
    best, most = (min(columns, max(8, positions // (span + 1) - window)), 1), 0.0
    parts = max(1, ceil_div(columns, max(8, positions)))
    while parts <= ceil_div(columns, 8):
        segment = ceil_div(columns, parts)
        fit = positions // (segment + window)  # rows of the tile
        if fit >= image + span:
            rows = fit // (image + span) * image
        else:
            rows = max((part for part in range(1, fit - span + 1) if image % part == 0), default=0)
            if rows < 0.6 * (fit - span):
                rows = fit - span
        if rows > 0 and segment * rows > most:
            best, most = (segment, rows), 1.5 * segment * rows
        parts = ceil_div(columns, segment - 1) if segment > 1 else parts + 1  # of the next shorter segment
    return best
