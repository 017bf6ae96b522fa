"""The family of kernels/amx/: blocks of the dense kernels on tile registers, and what these are expected to gain.

Blocks are as those of rows.py and gradient.py, but with sizes of operands that are split into parts of 2 bytes, which
are bf16 or, on "amx_fp16", fp16 numbers (kernels/amx/split.h).
Chunks and lane blocks are what falls back to the vector kernels together, so here they do not depend on the number of
threads at all.

Sizes are those of a prototype and have not been tuned (one core of Granite Rapids, 48 KB of L1, 2 MB of L2). What the
kernels of bf16 reached there with all channels in one sweep is in docs/numbers.md. Short sweeps, pieces of images and
everything with fp16 have run on emulated tile registers alone.
"""

from __future__ import annotations

from math import ceil, gcd, prod
from typing import NamedTuple

from . import _conv, _cpu, geometry
from .blocking import GRADIENT_BYTES, PACKED_SHARE, STREAM_BYTES, ceil_div, even, in_columns, packed_share
from .problem import Problem

PARTS = {"highest": 3, "high": 2, "medium": 1}  # bf16 parts of a float32
FP16_PARTS = {"highest": 2, "high": 2, "medium": 1}  # with AMX-FP16: two are fp16 numbers
FP16_TERMS = 64  # a product of fp16 parts can be wrong by 8 units of float32's rounding, which sums of fewer terms show


class Gains(NamedTuple):
    """How many times as fast as the dense vector kernel full tiles are; `rows` and `gradient` are of several taps."""

    rows: float
    rows_one_tap: float  # of many lanes
    gradient: float
    gradient_one_tap: float


# Granite Rapids, "highest", 11 layers of 3x3 and 8 of 1x1, batch 16, dense, means of the ratios of what `amx` and
# `avx512` made of oneDNN's time: 3x3 forward 1.32 / 0.93, backward_data 1.36 / 0.95, backward_weight 1.51 / 1.15; 1x1
# backward_weight 0.91 / 1.13. With 1.87 for full tiles single 3x3 layers should gain 1.79, 1.71, 1.47, 1.15 (56, 28, 14
# and 7 columns), and gained 1.7, 1.86, 1.48, 1.19, if 0.93 is right for each; since then those of 14 and 7 columns have
# another order (below), and should gain 1.86: a prototype of it gained 1.63 and 2.1.
# Rows of one tap are a prototype's, too, over 1.03 for avx512: oneDNN's time over its own was 0.94, 1.3, 1.24, 1.71,
# 1.45, 1.51 (256,64,56; 64,256,56; 512,128,28; 128,512,28; 1024,256,14; 256,1024,14). Few lanes make little of what
# was split for them: 1.67 x lanes / (lanes + ONE_TAP_LANES) gives 0.94, 1.40, 1.20, 1.52, 1.40, 1.59. What the library
# did before, 1.04 / 1.03 forward and 0.95 / 1.05 backward_data, is why these layers were left to vectors; whether it
# now does what the prototype did is not measured. "high" and "medium" (three products, one) have not been measured but
# in a prototype (rows 2.6); the others are guesses between.
ONE_TAP_LANES = 50
GAINS = {
    "highest": Gains(1.87, 1.67, 1.5, 0.8), "high": Gains(2.6, 2.0, 2.0, 1.07), "medium": Gains(4.0, 3.0, 3.0, 1.6),
}  # fmt: skip
# With AMX-FP16 two parts are two fp16 numbers, and three products do what six do of bf16. Not measured: these are the
# gains above times 1.5, by which at least a prototype was faster with fp16 parts than with three of bf16, everything
# else being equal (the same CPU, forward, batch 16, 3x3 of 56, 28, 14 and 7 columns 1.51, 1.73, 1.93, 2.07, of 56
# columns and 256 channels 1.58). The prototype of one tap: 1.57, 2.0, 1.95, 2.68, 2.56, 2.98 in the order above.
FP16_GAINS = {
    "highest": Gains(2.8, 2.7, 2.25, 1.2), "high": Gains(2.8, 2.7, 2.25, 1.2), "medium": GAINS["medium"],
}  # fmt: skip
# To pack 16 weights, and to split them into parts: in multiply-adds of the vector kernel. The first is that of
# weights.PACK_CYCLES, the second an estimate from the instructions of amx/split.h.
PACK_CYCLES, SPLIT_CYCLES = 4, 12
USUAL_MET = 0.9  # share of products that are no padding in 3x3 layers of 14 x 14, with which gains were found
SUMMED = 32  # channels (rows) or positions (gradient) that one tile product sums
TILE = 16
LANE_VECTORS = 4  # of a lane block where sums stay in registers, and of backward_weight
CHUNK_BYTES = 768 * 1024  # split operands of a chunk
FEW_CHUNKS, FEW_POSITIONS = 8, 256  # smaller chunks where there would be fewer, for threads to share, but not too small
# The other order of amx/rows.h: sweeps of 32 channels, whose weights stay in L1, or of all channels of one tap; lane
# blocks are what 2 x 2 tiles take. A prototype won with it on Granite Rapids, over the library with sums in registers
# (times oneDNN, 3x3, 64,64,56, 128,128,28, 256,256,14, 512,512,7, 256,256,56): with fp16 parts everywhere, with three
# bf16 parts 1.29, 1.40, 1.52, 1.96, 1.42 for 1.58, 1.73, 1.38, 1.11, 1.76, so on small maps alone.
SWEPT_VECTORS = 2
SMALL_MAP = 14  # columns, at most
MOST_PIECES = 16  # of an image
# Split inputs of a chunk of pieces. Rows beyond the chunk that its taps meet are split for it, too, so more than above.
# Where each chunk splits the weights, a chunk is all rows of 7 x 7 x 512 with three parts, as the prototype had them.
PIECES_BYTES, HEAVY_PIECES_BYTES = 1536 * 1024, 2560 * 1024


def parts(precision: str, terms: float) -> int:
    """Parts of a float32 where sums have so many terms."""
    few = terms < FP16_TERMS and precision == "highest"
    return (FP16_PARTS if _cpu.has_fp16_tiles() and not few else PARTS)[precision]


def _gains(precision: str, terms: float) -> Gains:
    return (FP16_GAINS if _of_fp16(parts(precision, terms)) else GAINS)[precision]


def _of_fp16(parts: int) -> bool:
    """Whether parts are fp16 numbers: of that format there are always two."""
    return parts == 2 and _cpu.has_fp16_tiles()


def row_terms(problem: Problem, backward: bool) -> int:
    """Terms of a sum of forward or backward_data away from the border."""
    channels = (problem.out_channels if backward else problem.in_channels) // problem.groups
    return channels * prod(problem.kernel) // (prod(problem.stride) if backward else 1)


def gradient_terms(problem: Problem) -> int:
    """Terms of a sum of backward_weight."""
    return problem.batch * prod(problem.out_size)


def rows_gain(problem: Problem, backward: bool, precision: str) -> float:
    """Speed of amx/rows.h relative to the vector kernel; channels and positions that only fill tiles count."""
    channels, lanes = _channels(problem, backward)
    size = problem.in_size if backward else problem.out_size
    terms = row_terms(problem, backward)
    gains = _gains(precision, terms)
    if prod(problem.kernel) == 1:
        gain = gains.rows_one_tap * lanes / (lanes + ONE_TAP_LANES)
    else:
        gain = gains.rows
    cut = pieces(problem, channels, lanes, parts(precision, terms), backward)
    gain *= _fill(channels, SUMMED) * (_pieces_share(problem, cut, backward) if cut else _rows_share(problem, backward))
    if not backward:  # all columns are split, also those between windows
        gain *= min(1.0, 2 * problem.pairs(-1) / problem.in_size[-1])
    # Weights are packed by both kernels, and here they are split, too, for all positions together.
    positions = problem.batch * prod(size)
    return (positions + PACK_CYCLES) / (positions / gain + PACK_CYCLES + SPLIT_CYCLES)


def _channels(problem: Problem, backward: bool) -> tuple[int, int]:
    """Those that are summed and those of the result, of a group."""
    counts = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    return counts[::-1] if backward else counts


def _rows_share(problem: Problem, backward: bool) -> float:
    """Share of the products of long rows that is a result's."""
    images = problem.batch if problem.pointwise else 1
    size = problem.in_size if backward else problem.out_size
    return _positions(problem, size, images, TILE) * _met(problem, backward)


def _pieces_share(problem: Problem, pieces: int, backward: bool) -> float:
    """The same where 16 pieces share tiles: padding is left out, above and below that of whole images."""
    return _fill(problem.batch * pieces, TILE) * (_met_of(problem, 0, backward) if pieces > 1 else 1.0)


def short_sweeps(problem: Problem, parts: int, pieces: int) -> bool:
    """Whether the weights of a sweep stay in L1, or are all channels' of one tap."""
    return prod(problem.kernel) == 1 or _of_fp16(parts) or pieces > 0


def pieces(problem: Problem, channels: int, lanes: int, parts: int, backward: bool) -> int:
    """In how many pieces images are cut of which 16 share a tile, or 0: tiles are positions of long rows.

    By cycles, of which a tile product takes 16, for 32 channels: products of tiles, and splitting what a chunk meets.
    """
    size = problem.in_size if backward else problem.out_size
    small = size[-1] <= SMALL_MAP
    if problem.dims > 2 or problem.pointwise or not (small or _of_fp16(parts)):
        return 0
    met = problem.batch * prod(problem.pairs(dim) for dim in range(problem.dims))
    products = met * ceil_div(lanes, TILE) * (parts * (parts + 1) // 2)
    columns = problem.batch * prod(problem.out_size if backward else problem.in_size)
    split = columns * 2 * SPLIT_CYCLES
    weights = SUMMED * prod(problem.kernel) * ceil_div(lanes, TILE) * SPLIT_CYCLES if _heavy(problem, parts) else 0
    chunks = ceil_div(columns, _most_columns(problem, columns, channels, parts))
    costs = {0: products / _rows_share(problem, backward) + split + chunks * weights}
    for count in range(1, MOST_PIECES + 1):
        if not _cuts(problem, size, count, backward):
            continue
        chunk = _piece_rows(problem, size, count, channels, parts, backward)
        if not chunk:
            continue
        rows = size[0] // count if problem.dims == 2 else 1
        again = rows / chunk * _met_rows(problem, chunk, backward) * count / _in_rows(problem, backward)
        chunks = ceil_div(problem.batch * count, TILE) * ceil_div(rows, chunk)
        costs[count] = products / _pieces_share(problem, count, backward) + split * max(1.0, again) + chunks * weights
    return min(costs, key=costs.__getitem__)


def _heavy(problem: Problem, parts: int) -> bool:
    """Whether each chunk splits the weights: then chunks are fewer and larger."""
    return packed_share(problem) * parts / 2 > PACKED_SHARE


def _position_bytes(channels: int, parts: int) -> int:
    return ceil_div(channels, SUMMED) * SUMMED * 2 * parts


def _most_columns(problem: Problem, columns: int, channels: int, parts: int) -> int:
    """Columns of `in` in a chunk of long rows, of so many in all images."""
    most = (2 if _heavy(problem, parts) else 1) * CHUNK_BYTES // _position_bytes(channels, parts)
    return max(SUMMED, min(most, max(FEW_POSITIONS, columns // FEW_CHUNKS)))


def _cuts(problem: Problem, size: tuple[int, ...], pieces: int, backward: bool) -> bool:
    """Whether images fall into so many equal pieces whose rows meet the same taps."""
    rows = size[0] if problem.dims == 2 else 1
    return rows % pieces == 0 and (not backward or pieces == 1 or rows // pieces % problem.stride[0] == 0)


def _in_rows(problem: Problem, backward: bool) -> int:
    """Rows of an image of `in`."""
    return (problem.out_size if backward else problem.in_size)[0] if problem.dims == 2 else 1


def _met_rows(problem: Problem, rows: int, backward: bool) -> int:
    """Rows of `in` that so many rows of one piece meet."""
    if problem.dims != 2:
        return 1
    reach, stride = problem.dilation[0] * (problem.kernel[0] - 1), problem.stride[0]
    met = ceil_div(rows + reach, stride) if backward else (rows - 1) * stride + reach + 1
    return min(_in_rows(problem, backward), met)


def _piece_rows(
    problem: Problem, size: tuple[int, ...], pieces: int, channels: int, parts: int, backward: bool
) -> int:  # fmt: skip
    """Rows of a chunk of 16 pieces; 0: not even one has room."""
    width = (problem.out_size if backward else problem.in_size)[-1]
    row_bytes = TILE * width * _position_bytes(channels, parts)
    most = (HEAVY_PIECES_BYTES if _heavy(problem, parts) else PIECES_BYTES) // row_bytes
    rows = size[0] // pieces if problem.dims == 2 else 1
    fits = next((count for count in range(rows, 0, -1) if _met_rows(problem, count, backward) <= most), 0)
    return even(rows, fits) if fits else 0


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
    return prod(_met_of(problem, dim, backward) for dim in range(problem.dims))


def _met_of(problem: Problem, dim: int, backward: bool) -> float:
    multiplied = sum(one.out_count * one.taps for one in geometry.strands(problem, dim, backward))
    return problem.pairs(dim) / multiplied


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
    cut = pieces(problem, channels, lanes, parts, backward)
    short = short_sweeps(problem, parts, cut)
    lane_vectors = even(vectors, SWEPT_VECTORS if short else LANE_VECTORS)
    out_rows, out_columns, in_rows, width = rows_map.shape
    all_rows = problem.batch * out_rows
    reach = max(1, width // out_columns)
    if cut:
        size = problem.in_size if backward else problem.out_size
        segment, chunk_rows = out_columns, _piece_rows(problem, size, cut, channels, parts, backward)
        if not chunk_rows:
            most = PIECES_BYTES // (TILE * _position_bytes(channels, parts) * _met_rows(problem, 1, backward))
            segment, chunk_rows = even(out_columns, max(1, most // reach)), 1
        all_chunks = ceil_div(problem.batch * cut, TILE) * ceil_div(out_rows // cut, chunk_rows)
    else:
        most = _most_columns(problem, all_rows * width, channels, parts)
        if width > most:
            segment = min(out_columns, ceil_div(even(out_columns, max(1, most // reach)), SUMMED) * SUMMED)
            chunk_rows = 1
        else:
            segment = out_columns
            chunk_rows = even(all_rows, max(1, int(most / width * min(1, out_rows / in_rows))))
            if chunk_rows > out_rows:
                chunk_rows -= chunk_rows % out_rows
        all_chunks = ceil_div(all_rows, chunk_rows)
    segments = ceil_div(out_columns, segment)
    chunks = problem.groups * all_chunks * segments
    shares = threads // gcd(threads, chunks) if cut else ceil_div(4 * threads if threads > 1 else 1, chunks)
    result_bytes = 4 * all_rows * out_columns * lanes * problem.groups
    return {
        "parts": parts,
        "lane_vectors": lane_vectors,
        "channel_block": SUMMED if short and rows_map.all_taps > 1 else channels,
        "word": channels,
        "packs_values": 0,
        "reads_ahead": 0,
        "chunk_rows": chunk_rows,
        "segment": segment,
        "segments": segments,
        "in_segment": min(width, in_columns(problem, segment, backward)),
        "lane_groups": min(ceil_div(vectors, lane_vectors), shares),
        "pack_ahead": int(chunks > 1 and not _heavy(problem, parts)),
        "ahead": 0,
        "joined": 0,
        "pieces": cut,
        "stream": int(rows_map.all_taps == 1 and result_bytes >= STREAM_BYTES),
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
    kind = "fp16" if _of_fp16(parts) else "bf16"
    return f"on tile registers, {products} {kind} product(s) for one of float32" if parts else ""
