"""The family of kernels/amx/: blocks of the dense kernels on tile registers, and what these are expected to gain.

Blocks are as those of rows.py and gradient.py, but with sizes of operands that are split into parts of 2 bytes, which
are bf16 or, on "amx_fp16", fp16 numbers (kernels/amx/split.h).
Chunks and lane blocks are what falls back to the vector kernels together, so here they do not depend on the number of
threads at all.

Sizes are those of a prototype and have not been tuned (one core of Granite Rapids, 2 MB of L2). What the kernels of
bf16 reach there is in docs/numbers.md; those of fp16 have run on emulated tile registers alone.
"""

from __future__ import annotations

from math import ceil, prod
from typing import NamedTuple

from . import _conv, _cpu, geometry
from .blocking import GRADIENT_BYTES, PACKED_SHARE, ceil_div, even, in_columns, packed_share
from .problem import Problem

PARTS = {"highest": 3, "high": 2, "medium": 1}  # bf16 parts of a float32
FP16_PARTS = {"highest": 2, "high": 2, "medium": 1}  # with AMX-FP16: two are fp16 numbers
FP16_TERMS = 64  # a product of fp16 parts can be wrong by 8 units of float32's rounding, which sums of fewer terms show


class Gains(NamedTuple):
    """How many times as fast as the dense vector kernel full tiles are; `rows` and `gradient` are of several taps."""

    rows: float
    rows_one_tap: float
    gradient: float
    gradient_one_tap: float


# Granite Rapids, "highest", 11 layers of 3x3 and 8 of 1x1, batch 16, dense, means of the ratios of what `amx` and
# `avx512` made of oneDNN's time: 3x3 forward 1.32 / 0.93, backward_data 1.36 / 0.95, backward_weight 1.51 / 1.15; 1x1
# 1.04 / 1.03, 0.95 / 1.05, 0.91 / 1.13. With 1.87 for full tiles single 3x3 layers should gain 1.79, 1.71, 1.47, 1.15
# (56, 28, 14 and 7 columns), and gained 1.7, 1.86, 1.48, 1.19, if 0.93 is right for each. In 1x1 layers tiles wait for
# their operands, which L1 does not hold, so vectors do them. "high" and "medium" (three products, one) have not been
# measured but in a prototype (rows 2.6); the others are those of "highest" in the ratio that the prototype aimed at.
GAINS = {
    "highest": Gains(1.87, 0.95, 1.5, 0.8), "high": Gains(2.6, 1.35, 2.0, 1.07), "medium": Gains(4.0, 2.0, 3.0, 1.6),
}  # fmt: skip
# With AMX-FP16 two parts are two fp16 numbers, and three products do what six do of bf16. Not measured: these are the
# gains above times 1.5, by which at least a prototype was faster with fp16 parts than with three of bf16, everything
# else being equal (the same CPU, forward, batch 16, 3x3 of 56, 28, 14 and 7 columns 1.51, 1.73, 1.93, 2.07, of 56
# columns and 256 channels 1.58; six 1x1 layers 1.54 to 1.97).
FP16_GAINS = {
    "highest": Gains(2.8, 1.43, 2.25, 1.2), "high": Gains(2.8, 1.43, 2.25, 1.2), "medium": GAINS["medium"],
}  # fmt: skip
# To pack 16 weights, and to split them into parts: in multiply-adds of the vector kernel. The first is that of
# weights.PACK_CYCLES, the second an estimate from the instructions of amx/split.h.
PACK_CYCLES, SPLIT_CYCLES = 4, 12
USUAL_MET = 0.9  # share of products that are no padding in 3x3 layers of 14 x 14, with which gains were found
LANE_VECTORS = 4  # also what the vector kernel takes over
SUMMED = 32  # channels (rows) or positions (gradient) that one tile product sums
TILE = 16
CHUNK_BYTES = 768 * 1024  # split operands of a chunk
FEW_CHUNKS, FEW_POSITIONS = 8, 256  # smaller chunks where there would be fewer, for threads to share, but not too small


def parts(precision: str, terms: float) -> int:
    """Parts of a float32 where sums have so many terms."""
    few = terms < FP16_TERMS and precision == "highest"
    return (FP16_PARTS if _cpu.has_fp16_tiles() and not few else PARTS)[precision]


def _gains(precision: str, terms: float) -> Gains:
    fp16 = _cpu.has_fp16_tiles() and parts(precision, terms) == 2
    return (FP16_GAINS if fp16 else GAINS)[precision]


def row_terms(problem: Problem, backward: bool) -> int:
    """Terms of a sum of forward or backward_data away from the border."""
    channels = (problem.out_channels if backward else problem.in_channels) // problem.groups
    return channels * prod(problem.kernel) // (prod(problem.stride) if backward else 1)


def gradient_terms(problem: Problem) -> int:
    """Terms of a sum of backward_weight."""
    return problem.batch * prod(problem.out_size)


def rows_gain(problem: Problem, backward: bool, precision: str) -> float:
    """Speed of amx/rows.h relative to the vector kernel; channels and positions that only fill tiles count."""
    channels = (problem.out_channels if backward else problem.in_channels) // problem.groups
    size = problem.in_size if backward else problem.out_size
    images = problem.batch if problem.pointwise else 1
    gains = _gains(precision, row_terms(problem, backward))
    gain = gains.rows_one_tap if prod(problem.kernel) == 1 else gains.rows
    gain *= _fill(channels, SUMMED) * _positions(problem, size, images, TILE) * _met(problem, backward)
    if not backward:  # all columns are split, also those between windows
        gain *= min(1.0, 2 * problem.pairs(-1) / problem.in_size[-1])
    # Weights are packed by both kernels, and here they are split, too, for all positions together.
    positions = problem.batch * prod(size)
    return (positions + PACK_CYCLES) / (positions / gain + PACK_CYCLES + SPLIT_CYCLES)


def gradient_gain(problem: Problem, precision: str) -> float:
    """The same of amx/gradient.h."""
    channels = [count // problem.groups for count in (problem.in_channels, problem.out_channels)]
    images = problem.batch if problem.pointwise else 1
    positions = _positions(problem, problem.out_size, images, SUMMED)
    gains = _gains(precision, gradient_terms(problem))
    gain = gains.gradient_one_tap if prod(problem.kernel) == 1 else gains.gradient
    gain *= prod(_fill(count, TILE) for count in channels) * positions
    return gain * min(1.0, _met(problem, backward=False) / USUAL_MET)


def _met(problem: Problem, backward: bool) -> float:
    """Share of what tiles multiply that is no padding; the vector kernels leave padding out."""
    share = 1.0
    for dim in range(problem.dims):
        multiplied = sum(one.out_count * one.taps for one in geometry.strands(problem, dim, backward))
        share *= problem.pairs(dim) / multiplied
    return share


def _fill(used: float, whole: int) -> float:
    return used / (whole * ceil(used / whole))


def _positions(problem: Problem, size: tuple[int, ...], images: int, whole: int) -> float:
    """Share of a tile's positions that are results: one between two rows, and the last tile of an image, are not."""
    used = prod(size) * images
    strung = used if problem.pointwise else used * (1 + 1 / size[-1])
    return used / (whole * ceil(strung / whole))


def rows(
    problem: Problem, rows_map: _conv.Map, channels: int, lanes: int, parts: int, backward: bool, threads: int
) -> dict:
    """Blocking of amx/rows.h."""
    vectors = ceil_div(lanes, TILE)
    lane_vectors = even(vectors, LANE_VECTORS)
    out_rows, out_columns, in_rows, width = rows_map.shape
    all_rows = problem.batch * out_rows
    heavy = packed_share(problem) * parts / 2 > PACKED_SHARE  # each chunk splits the weights: fewer, larger chunks
    position_bytes = ceil_div(channels, SUMMED) * SUMMED * 2 * parts
    most = (2 if heavy else 1) * CHUNK_BYTES // position_bytes  # columns of `in`
    most = max(SUMMED, min(most, max(FEW_POSITIONS, all_rows * width // FEW_CHUNKS)))
    reach = max(1, width // out_columns)
    if width > most:
        segment = min(out_columns, ceil_div(even(out_columns, max(1, most // reach)), SUMMED) * SUMMED)
        chunk_rows = 1
    else:
        segment = out_columns
        chunk_rows = even(all_rows, max(1, int(most / width * min(1, out_rows / in_rows))))
        if chunk_rows > out_rows:
            chunk_rows -= chunk_rows % out_rows
    segments = ceil_div(out_columns, segment)
    chunks = problem.groups * ceil_div(all_rows, chunk_rows) * segments
    return {
        "parts": parts,
        "lane_vectors": lane_vectors,
        "channel_block": channels,
        "word": channels,
        "packs_values": 0,
        "reads_ahead": 0,
        "chunk_rows": chunk_rows,
        "segment": segment,
        "segments": segments,
        "in_segment": min(width, in_columns(problem, segment, backward)),
        "lane_groups": min(ceil_div(vectors, lane_vectors), ceil_div(4 * threads if threads > 1 else 1, chunks)),
        "pack_ahead": int(chunks > 1 and not heavy),
        "ahead": 0,
        "joined": 0,
        "stream": 0,
    }


def gradient(problem: Problem, pair: _conv.Map, channels: int, lanes: int, parts: int, threads: int) -> dict:
    """Blocking of amx/gradient.h."""
    lane_vectors = even(ceil_div(lanes, TILE), LANE_VECTORS)
    blocks = ceil_div(ceil_div(lanes, TILE), lane_vectors)
    per_channel = pair.all_taps * lane_vectors * TILE * 4
    most_channels = min(4 * SUMMED, ceil_div(channels, SUMMED) * SUMMED)
    units = max(1, min(most_channels, GRADIENT_BYTES // per_channel) // SUMMED)
    lane_blocks = even(blocks, max(1, GRADIENT_BYTES // (per_channel * units * SUMMED)))
    items = problem.groups * ceil_div(blocks, lane_blocks) * ceil_div(channels, units * SUMMED)
    if threads > 1 and items < 2 * threads:
        lane_blocks = 1
        wanted = ceil_div(2 * threads, problem.groups * blocks)
        units = max(1, min(units, ceil_div(channels, SUMMED) // wanted))
    position_bytes = (most_channels + 2 * lane_vectors * TILE) * 2 * parts
    positions = max(FEW_POSITIONS, CHUNK_BYTES // position_bytes)
    columns, window = pair.most_columns, pair.most_window
    segment = even(columns, max(SUMMED, positions - window))
    chunk_rows = min(problem.batch * pair.shape[0], max(1, positions // (segment + window)))
    if chunk_rows > pair.shape[0]:
        chunk_rows -= chunk_rows % pair.shape[0]
    return {
        "parts": parts,
        "outer_group": 1,
        "listed": 0,
        "lane_vectors": lane_vectors,
        "lane_blocks": lane_blocks,
        "channel_block": units * SUMMED,
        "chunk_rows": chunk_rows,
        "segment": segment,
        "segments": ceil_div(columns, segment),
    }


def note(parts: int) -> str:
    """What a plan says of tile registers, if they are used."""
    products = parts * (parts + 1) // 2  # those that are not too small to matter
    kind = "fp16" if parts == 2 and _cpu.has_fp16_tiles() else "bf16"
    return f"on tile registers, {products} {kind} product(s) for one of float32" if parts else ""
