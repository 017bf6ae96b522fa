"""What backward_weight does, and how often: kernels/gradient/gradient.h and points.h."""

import math
from typing import Any

from sparseconv._core import geometry
from sparseconv._core.blocking import ceil_div
from sparseconv._core.problem import Problem

from .processors import LINE, Processor, beyond

# What takes time, and the cycles that it is expected to take; those of multiply-adds hold where a cycle does one.
CONSTANTS = {
    "skip_madds": ("multiply-add of 16 floats, lanes from L1, skipping", 1.1),
    "dense_madds": ("the same, dense: lanes in registers", 1.1),
    "point_madds": ("the same, sums in L1: a load and a store more", 2.35),
    "nonzeros": ("nonzero found and broadcast, for one block of lanes", 0.8),
    "words": ("word of 64 positions, whose end is mispredicted", 20),
    "point_words": ("word of 64 channels, whose end is mispredicted", 10),
    "point_lanes": ("vector of lanes read for a word of channels", 5),
    "sums": ("vector of sums added to the gradient, skipping", 6),
    "dense_sums": ("the same, dense, and for a chunk of channel words", 1.5),
    "far_sums": ("more where the gradient is larger than L2", 6),
    "lanes": ("vector of lanes copied", 6),
    "scalars": ("16 scalars copied, compared with zero, their bits transposed", 16),
    "other_scalars": ("16 scalars copied (dense) or compared (words of channels)", 3),
    "memory_scalars": ("line of the scalars from memory", 5),
    "memory_lanes": ("line of the lanes from memory", 5),
}


def count(problem: Problem, density: float, kernel: Any, processor: Processor) -> tuple[dict[str, float], int, float]:
    """How often a call does what the constants are for, its independent items, and its bytes from and to memory.

    `density` is the share of nonzeros of x.
    """
    blocks, by_grad = kernel.blocking, kernel.scalar == "grad_output"
    taps = math.prod(problem.kernel)
    met = 1 / math.prod(problem.stride) if problem.one_tap else 1  # share of x that any window reaches
    x = problem.in_channels, 4 * problem.batch * problem.in_channels * math.prod(problem.in_size) * met  # bytes
    y = problem.out_channels, 4 * problem.batch * problem.out_channels * math.prod(problem.out_size)
    (scalars, scalar_bytes), (lanes, lane_bytes) = (y, x) if by_grad else (x, y)
    weight = 4 * taps * scalars * lanes
    vectors = ceil_div(lanes, 16)
    density = 1.0 if by_grad else density
    if kernel.kernel == "gradient_points":
        counts = _points(problem, density, blocks, scalars, vectors)
    else:
        counts = _positions(problem, not by_grad, density, kernel, scalars, vectors)
    gradient = blocks["channel_block"] * taps * blocks["lane_vectors"] * LINE * blocks["lane_blocks"]
    moved = counts["sums" if kernel.kernel == "gradient_skip" else "dense_sums"]
    lost = processor.not_in_l3(scalar_bytes + lane_bytes + weight, kernel.threads)
    counts |= {
        "far_sums": moved * beyond(gradient, processor.l2),
        "memory_scalars": lost * scalar_bytes / LINE,
        "memory_lanes": lost * lane_bytes / LINE,
    }
    items = _shares(blocks, vectors) * ceil_div(scalars, blocks["channel_block"])
    return counts, items, lost * (scalar_bytes + lane_bytes) + weight


def _shares(blocks: Any, vectors: int) -> int:
    """How often the scalars are copied: each time for some blocks of lanes."""
    return ceil_div(ceil_div(vectors, blocks["lane_vectors"]), blocks["lane_blocks"])


def _points(problem: Problem, density: float, blocks: Any, scalars: int, vectors: int) -> dict[str, float]:
    """The kernel that goes through the channels of one position after the other."""
    positions = problem.batch * math.prod(problem.out_size)
    words = positions * ceil_div(scalars, 64)
    chunks = ceil_div(problem.batch * problem.out_size[0], blocks["chunk_rows"]) * blocks["segments"]
    return {
        "point_madds": density * positions * scalars * vectors,
        "point_words": words * ceil_div(vectors, blocks["lane_vectors"]),
        "point_lanes": words * vectors,
        "dense_sums": chunks * scalars * vectors,
        "other_scalars": positions * scalars / 16 * _shares(blocks, vectors),
    }


def _positions(
    problem: Problem, backward: bool, density: float, kernel: Any, scalars: int, vectors: int
) -> dict[str, float]:
    """The kernels that go through the positions of one channel after the other."""
    blocks = kernel.blocking
    strands = [(one, one.met[1] - one.met[0]) for one in geometry.strands(problem, -1, backward)]  # and columns
    # (rows, how often each is swept, taps of a sweep, rows of lanes that a row meets)
    if blocks["outer_group"] > 1:
        groups = geometry.strands(problem, 0, backward)
        outer = [(problem.batch * (one.met[1] - one.met[0]), 1.0, one.taps, one.taps) for one in groups]
    else:
        table = geometry.row_table(problem, backward) >= 0
        swept = int(table.any(axis=1).sum())
        outer = [(problem.batch * swept, int(table.sum()) / swept, 1, problem.kernel[0])]
    madds = nonzeros = words = sums = copied_scalars = copied_lanes = 0.0
    for rows, sweeps, together, reach in outer:
        chunks = ceil_div(rows, blocks["chunk_rows"]) * blocks["segments"]
        for strand, columns in strands:
            met = density * rows * sweeps * columns * scalars
            madds += met * together * strand.taps * vectors
            nonzeros += met
            length = min(blocks["chunk_rows"], rows) * (min(blocks["segment"], columns) + strand.taps - 1)
            words += chunks * sweeps * max(1, ceil_div(length, 64)) * scalars
            sums += chunks * reach * strand.taps * scalars * vectors
        for place in {(strand.in_start, strand.out_start) for strand, _ in strands}:  # these share both copies
            sharing = [(s.taps, columns) for s, columns in strands if (s.in_start, s.out_start) == place]
            taps, columns = map(max, zip(*sharing, strict=True))
            copied_scalars += rows * columns * scalars / 16
            above = chunks / blocks["segments"] * (reach - 1)
            copied_lanes += (rows + above) * (columns + blocks["segments"] * (taps - 1)) * vectors
    copied_scalars *= _shares(blocks, vectors)
    copied_lanes *= ceil_div(scalars, blocks["channel_block"])
    if kernel.kernel == "gradient_dense":
        madds = problem.met_macs / problem.out_channels / problem.in_channels * scalars * vectors
        return {"dense_madds": madds, "dense_sums": sums, "other_scalars": copied_scalars, "lanes": copied_lanes}
    lane_blocks = ceil_div(vectors, blocks["lane_vectors"])
    counts = {"skip_madds": madds, "nonzeros": nonzeros * lane_blocks, "words": words * lane_blocks}
    return counts | {"sums": sums, "scalars": copied_scalars, "lanes": copied_lanes}
