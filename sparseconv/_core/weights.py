"""The family of kernels/weights/: forward and backward_data from lists of nonzero weights.

Its blocks, its costs, the lists that a call needs, and whether they pay at all.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import numpy as np

from .. import packed
from ..packed import PackedWeight
from . import _conv, _cpu, _masks, _weights, lines, processor
from .blocking import STREAM_BYTES, VECTOR_BYTES, ceil_div, even
from .bound import Bound
from .problem import Problem

SPARSE = 0.25  # density of weights from which on blocks of channels are longer
MOST_DENSITY = 0.7  # no shape gains from skipping weights that are denser
LOOK_MACS = 10_000_000  # less work is not worth a look at plain weights: 1 us of 100
LOOK_RUNS = 16  # of 64 weights: a density to within 0.016
PACK_CYCLES = 3  # to pack a weight of a plain array for forward,
PACK_BACKWARD_CYCLES = 6  # and for backward_data: 0.7 ns, and 1.2 to 1.8 ns
# Where all lines are done in one step, lists are read once: then rather from L2, in one piece.
ONE_STEP_BYTES = 256 * 1024
L1_PLACES = 1024  # packed places, of 64 bytes, from which on a nonzero's column comes from L2: 2 cycles (Zen 5)
# The packed columns of a block of channels, and the percentage of nonzeros they are chosen for: most of L1, and more
# where few nonzeros leave so little to do for a sum that moving it weighs more than reads from L2. Zen 4, of oneDNN's
# speed at 90% zeros, 8 and 24 channels of 256,256,14 (14 and 41 KB): 4.6 and 5.4; at 50% 12 and 24 channels: 1.36 and
# 1.19.
COLUMN_BYTES, SPARSE_COLUMN_BYTES = (24 * 1024, 50), (40 * 1024, 10)
FEW_POSITIONS = 1024  # short columns of 16 lines can waste most of the lanes: all widths are tried
MOST_COLUMNS = 16  # that are computed together, fewer where registers are


class Blocking(NamedTuple):
    """Tables, blocks and costs of weights/weights.h, in cycles per 16 useful multiply-adds of the dense problem."""

    tables: lines.Lines | None  # of the chosen number of columns alone
    sizes: dict[str, int]
    percent: int  # of nonzeros that the blocks are for
    steps: int
    slope: float  # cost of the multiply-adds if no weight is zero
    fixed: float  # of what zeros do not save

    @property
    def cost(self) -> float:
        """At the density that the blocks are for."""
        return self.slope * self.percent / 100 + self.fixed


def blocking(problem: Problem, channels: int, filters: int, sparse: bool, backward: bool, threads: int) -> Blocking:
    """Blocking of weights/weights.h; `channels` and `filters` are one group's.

    The number of columns that are computed together is the one for which the cost model says the least.
    """
    count, classes = lines.phases(problem, backward), len(lines.tap_classes(problem, backward))
    columns = problem.in_size[-1] if backward else problem.out_size[-1]
    most = min(MOST_COLUMNS, _cpu.registers()[0], ceil_div(columns, count))
    few = problem.batch * prod(problem.in_size if backward else problem.out_size) <= FEW_POSITIONS
    tried = [_blocking(problem, tile, channels, filters, sparse, backward, classes)
             for tile in range(1 if few else max(1, most // 2), most + 1)]  # fmt: skip
    best = min(tried, key=lambda blocks: blocks.cost * (1 + 0.001 * blocks.sizes["tile"]))
    wanted = 4 * threads if threads > 1 else 1
    chunk_steps = even(best.steps, ceil_div(best.steps, wanted))
    chunks = problem.groups * ceil_div(best.steps, chunk_steps)
    sizes = best.sizes | {
        "chunk_steps": chunk_steps,
        "shares": min(ceil_div(filters, 16), ceil_div(threads, chunks)),
    }
    return best._replace(tables=lines.lines(problem, backward, sizes["tile"]), sizes=sizes)


def _blocking(
    problem: Problem, tile: int, channels: int, filters: int, sparse: bool, backward: bool, classes: int
) -> Blocking:
    room, percent = SPARSE_COLUMN_BYTES if sparse else COLUMN_BYTES
    taps, outer = prod(problem.kernel) / classes, prod(problem.kernel[:-1])
    unit = packed.block_channels(prod(problem.kernel))
    width, segments = lines.width(problem, backward, tile), lines.segments(problem, backward, tile)
    fits = room / (max(1, width) * VECTOR_BYTES * max(1, outer / classes))
    size = problem.in_size if backward else problem.out_size
    rows = prod(size[:-1])
    steps = ceil_div(problem.batch * segments * rows, 16)
    if steps == 1 and channels * width * VECTOR_BYTES * outer <= ONE_STEP_BYTES:
        fits = channels
    channel_block = unit * even(ceil_div(channels, unit), max(1, round(fits / unit)))
    count = lines.phases(problem, backward)
    # Zen 4, in cycles: a multiply-add 1.07 (L1), the value and the place of a nonzero 1.7; a sum is loaded and stored
    # in 2.7 for each block of channels; a packed vector takes 6, and 3 to reach L1 for each outer tap; a result 8.
    useful = problem.batch * rows * size[-1] / 16
    waste = steps * count * tile / useful
    line = 1.07 * processor.vector_cycles() + (2 if steps == 1 and channels * width * outer > L1_PLACES else 0)
    packs = channels * width / (filters * tile * count) * (6 + 3 * outer)
    fixed = packs + 8 + 2.7 * ceil_div(channels, channel_block)
    every = channels * taps
    result = 4 * problem.batch * prod(size) * filters * problem.groups
    sizes = {"tile": tile, "segments": segments, "channel_block": channel_block}
    sizes["stream"] = int(result >= STREAM_BYTES)
    if problem.batch * prod(size) == 1:  # weights/lone.h: a nonzero 1.3, an element of `in` 2, a list's end 25
        return Blocking(None, sizes, percent, steps, 16 * 1.3, 16 * (2 * every / filters + 25) / every)
    return Blocking(None, sizes, percent, steps, waste * (line + 1.7 / tile), waste * fixed / every)


def bound(
    problem: Problem, geometry: _conv.Map, views: tuple[_conv.View, _conv.View], counts: tuple[int, int],
    epilogue: _conv.Epilogue, blocks: Blocking, threads: int,
) -> Bound:  # fmt: skip
    """The kernel for so many (channels, filters) of a group."""
    channels, filters = counts
    assert blocks.tables is not None
    sizes = {name: size for name, size in blocks.sizes.items() if name != "stream"}
    task = _weights.Weights(
        geometry, *views, epilogue=epilogue, batch=problem.batch, groups=problem.groups, channels=channels,
        filters=filters, **blocks.tables._asdict() | sizes,
    )  # fmt: skip
    each, fixed = blocks.slope / processor.dense_cycles(), blocks.fixed / processor.dense_cycles()
    return Bound("weights_skip", threads, task, blocks.sizes, each, fixed, masks_result=False)


def density(weight: np.ndarray | PackedWeight, most_runs: int) -> float:
    """A sample of a plain weight's density (runs of weights may not end where a kernel does); that of a packed one."""
    if isinstance(weight, PackedWeight):
        return weight.density
    if weight.flags.c_contiguous:
        return _masks.sampled_density(weight.reshape(-1), LOOK_RUNS)
    return _masks.sampled_density(weight, most_runs)


def packing_cost(problem: Problem, backward: bool, weight: np.ndarray | PackedWeight) -> float:
    """What packing a plain weight costs beside the dense kernel, which takes each weight for 16 positions at a time."""
    if isinstance(weight, PackedWeight):
        return 0.0
    positions = problem.batch * prod(problem.in_size if backward else problem.out_size)
    cycles = PACK_BACKWARD_CYCLES if backward else PACK_CYCLES
    return cycles * 16 / positions / processor.dense_cycles()


def nonzeros(problem: Problem, backward: bool, weight: np.ndarray | PackedWeight, threads: int) -> _weights.Lists:
    """The nonzeros of the weights: kept by a packed weight, made for the call from an array."""
    classes = lines.tap_classes(problem, backward)
    if isinstance(weight, PackedWeight):
        return weight.lists(backward, classes)
    return packed.nonzero_lists(weight, problem.groups, backward, classes, threads)
