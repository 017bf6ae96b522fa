"""What forward and backward_data do, and how often: kernels/rows/rows.h."""

import math
from typing import Any

import numpy as np

from sparseconv._core import geometry
from sparseconv._core.blocking import ceil_div
from sparseconv._core.problem import Problem
from sparseconv._core.processor import PACK_CYCLES

from .processors import LINE, Processor, beyond

# What takes time, and the cycles that it is expected to take; those of multiply-adds hold where a cycle does one.
CONSTANTS = {
    "skip_madds": ("multiply-add of 16 floats, weights from L1, skipping", 1.1),
    "dense_madds": ("the same, dense: weights in registers", 1.1),
    "far_weights": ("more for one whose weight tile is larger than L1", 0.3),
    "nonzeros": ("nonzero found and broadcast, for one block of lanes", 0.8),
    "words": ("word of up to 64 channels, whose end is mispredicted", 25),
    "sums": ("vector of partial sums read and written", 2),
    "looked": ("16 elements compared with zero", 4),
    "l3_lines": ("line that was in L2 no more", 6),
    "memory_lines": ("line from memory", 8),
    "streamed": ("line written past the caches (results of 8 MB and more)", 1),
    "stored": ("line written through the caches", 6),
    "gaps": ("line of zeros between strided results", 4),
    "packed": ("weights packed: times processor.PACK_CYCLES", 1),
}


def count(
    problem: Problem, backward: bool, density: float, kernel: Any, processor: Processor
) -> tuple[dict[str, float], int, float]:
    """How often a call does what the constants are for, its independent items, and its bytes from and to memory.

    `density` is the share of nonzeros of what is read, the source: x, or in backward_data the gradient of y.
    """
    blocks, skips = kernel.blocking, kernel.kernel == "rows_skip"
    channels, lanes, in_size, out_size = problem.in_channels, problem.out_channels, problem.in_size, problem.out_size
    if backward:
        channels, lanes, in_size, out_size = lanes, channels, out_size, in_size
    taps = math.prod(problem.kernel)
    source = 4 * problem.batch * channels * math.prod(in_size)  # bytes
    target = 4 * problem.batch * lanes * math.prod(out_size)
    weight = 4 * taps * channels * lanes
    vectors, block = ceil_div(lanes, 16), min(channels, blocks["channel_block"])
    lane_blocks, channel_blocks = ceil_div(vectors, blocks["lane_vectors"]), ceil_div(channels, block)
    word = min(channels, blocks["word"])
    chunks = ceil_div(problem.batch * out_size[0], blocks["chunk_rows"]) * blocks["segments"]

    # Each row is swept once for each outer tap that it meets, strand by strand: pixels of the source are read and
    # multiplied with some taps, and results move through registers.
    sweeps, strands = problem.batch * problem.pairs(0), geometry.strands(problem, -1, backward)
    read = multiplied = moved = 0
    for strand in strands:
        begin, end = strand.met
        columns = min(strand.in_count, end + strand.taps - 1 - strand.shift) - max(0, begin - strand.shift)
        read += sweeps * columns
        multiplied += sweeps * columns * strand.taps
        moved += sweeps * (end - begin)
    sums, words = moved * channel_blocks * vectors, read * ceil_div(channels, word) * lane_blocks

    # Rows of the source that any result meets are looked at, those between two chunks twice.
    table = geometry.row_table(problem, backward)
    seen = source * len(np.unique(table[table >= 0])) / in_size[0]
    rows_of_chunk = blocks["chunk_rows"] * (1 / problem.stride[0] if backward else problem.stride[0])
    overlap = 1 + (problem.kernel[0] - 1) / rows_of_chunk * (chunks > 1)
    looked = seen / LINE * overlap * blocks["lane_groups"]
    if not skips and problem.one_tap and not backward:
        seen /= problem.stride[1]  # only the pixels that are multiplied

    # L2 loses packed weights from chunk to chunk, and sums from tap to tap.
    results = moved if problem.one_tap else problem.batch * math.prod(out_size)
    tile = results / chunks * blocks["lane_vectors"] * LINE
    far = chunks * taps * channels * vectors * beyond(weight, processor.l2)
    far += 2 * sums * beyond(tile, 0.8 * processor.l2)
    if skips:
        madds = density * multiplied * channels * vectors
        most = max(strand.taps for strand in strands)
        held = block * most * blocks["lane_vectors"] * LINE + 6e3  # and what a row has of inputs and sums
        touched = words * word / 16 * (1 - (1 - density) ** 16)  # lines of the source with a nonzero
        far += touched * beyond(seen * overlap / chunks, processor.l2)
        counts = {
            "skip_madds": madds,
            "far_weights": madds * beyond(held, processor.l1),
            "nonzeros": density * read * channels * lane_blocks,
            "words": words,
            "looked": looked,
        }
    else:
        counts = {"dense_madds": problem.met_macs / lanes * vectors}
    lost = processor.not_in_l3(seen + weight + target * (1 - blocks["stream"]), kernel.threads)
    counts |= {
        "sums": sums,
        "l3_lines": far,
        "memory_lines": lost * ((looked * LINE if skips else seen) + weight) / LINE,
        "streamed": target / LINE * blocks["stream"],
        "stored": target / LINE * (1 - blocks["stream"]),
        "gaps": target / LINE * (1 - 1 / math.prod(problem.stride)) * (backward and problem.one_tap),
        "packed": PACK_CYCLES[0 if not backward else 1 if taps == 1 else 2]
        * (taps * channels * vectors * 16 * (1 if blocks["pack_ahead"] else chunks)),
    }
    return counts, chunks * blocks["lane_groups"], lost * (seen + weight) + target
