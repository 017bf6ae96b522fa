"""How big the tiles are: loop blocking for each kernel, from the problem and the register file, not from the caller.

Numbers that depend on `threads` do not touch the order of any sum (chunks and shares of the row kernels, channel blocks
of the gradient kernels), so results are the same for every number of threads. Sizes assume 32 KB of L1 and about half
a MB of L2 per core. The figures beside them are runs one after the other, good to about 10%.
"""

from __future__ import annotations

from math import gcd, inf, prod
from typing import NamedTuple

from .. import packed
from . import _conv, _cpu, lines, processor
from .problem import Problem

MAX_LANE_VECTORS = 8  # SC_MAX_LANE_VECTORS
MAX_CHANNEL_BLOCK = 256  # SC_MAX_CHANNEL_BLOCK
VECTOR_BYTES = 64
# The weight tile of a skipping row kernel: most of L1, and more where so few of its rows are used that longer words
# (fewer loads and stores of sums) outweigh reads from L2. Zen 4 (32 KB of L1), 3 x 3
# layers of ResNet, dense-equivalent GF/s with 24 and 48 KB: 60% zeros 216 and 203, 80% 363 and 361, 90% 592 and 645,
# 95% 792 and 1037. One tap: 64 channels x 8 vectors are 32 KB; 24 KB (48 channels, broken words) lose 5 to 20%.
WEIGHT_TILE_BYTES = {"skip": 24 * 1024, "sparse": 48 * 1024, "pointwise": 32 * 1024}
ALL_TAPS_BYTES = 16 * 1024 * 1024  # of a lane block and channel block with all outer taps, which are packed together
LANE_TILE_BYTES = 28 * 1024  # the lane tile of a gradient kernel: most of L1
# The part of the gradient that a work item keeps: more means packing less often, and it is only streamed through L2.
# All threads together never have more than the whole gradient. Zen 5, 512,512,14/2, two threads, parts of 1 and 2 MB:
# 3.55 and 3.05 ms.
GRADIENT_BYTES = 2 * 1024 * 1024
PACKED_SHARE = 0.15  # weights are packed ahead of a call up to this share of its operands, else tile by tile
MIN_CHANNELS = 8  # of a work item of a gradient kernel
LANE_BLOCKS = 8  # lane blocks that a work item of a gradient kernel has at least, if there are as many
WORD = 64  # channels that gradient/points.h takes together
POINTS_BYTES = 256 * 1024  # of its scalar operand, read once for its words and once for each lane block: L2
STREAM_BYTES = 8 * 1024 * 1024  # results from here on go past the caches: no L2 keeps them for whoever reads them
# outputs/outputs.h: vectors of a patch (one tap x 8, three taps x 2), its weights for up to 64 channels, and the
# outputs that are finished together. The head of outputs/row.h has the figures.
PATCH_VECTORS = 8
READ_VECTORS = 8  # of each tap, where registers hold no patch
OUTPUT_TILE_BYTES = 32 * 1024
OUTPUT_COLUMNS = 512
# The same where all lines are done in one step, so that lists are read once: then rather from L2, in one piece.
ONE_STEP_BYTES = 256 * 1024
L1_PLACES = 1024  # packed places, of 64 bytes, from which on a nonzero's column comes from L2: 2 cycles (Zen 5)
# The packed columns of a block of channels in weights/weights.h, and the percentage of nonzeros they are chosen for:
# most of L1, and more where few nonzeros leave so little to do for a sum that moving it weighs more than reads from L2.
# Zen 4, of oneDNN's speed at 90% zeros, 8 and 24 channels of 256,256,14 (14 and 41 KB): 4.6 and 5.4; at 50% 12 and 24
# channels: 1.36 and 1.19.
WEIGHT_X_BYTES = {"weight": (24 * 1024, 50), "sparse weight": (40 * 1024, 10)}
FEW_POSITIONS = 1024  # short columns of 16 lines can waste most of the lanes: all tiles are tried
MAX_WEIGHT_TILE = 16  # columns that are computed together, fewer where registers are
MIN_SEGMENT = 64  # columns that are worth an item of their own
CHUNK_COLUMNS = 1024  # outputs that are finished together by the row kernels
HEAVY_COLUMNS = 4096  # where each chunk packs the weights again; backward_data of 512,512,14/2 at 90%: 2.1 -> 3.2


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def even(total: int, most: int) -> int:
    """The largest part when `total` is cut into as few, as equal parts of at most `most` as possible."""
    return ceil_div(total, ceil_div(total, max(1, most))) if total else 1


def shared(total: int, most: int, wanted: int) -> int:
    """The same, but in a number of parts that is a multiple of `wanted`, so that threads have equally many."""
    parts = ceil_div(ceil_div(total, max(1, most)), wanted) * wanted
    return ceil_div(total, parts) if total else 1


def rows(
    problem: Problem, rows_map: _conv.Map, channels: int, lanes: int, variant: str, backward: bool, threads: int
) -> dict:
    """Blocking of rows/rows.h; `channels` and `lanes` are one group's, `variant` is that of binding.rows_kernels."""
    accumulators, _, dense_vectors = _cpu.registers()
    taps = max(1, rows_map.most_taps)
    vectors = ceil_div(lanes, 16)
    if variant == "dense":
        lane_vectors = even(vectors, dense_vectors)
        channel_block = even(channels, MAX_CHANNEL_BLOCK)
    elif variant == "output":
        in_vectors = even(ceil_div(channels, 16), PATCH_VECTORS // taps if holds_patch() else READ_VECTORS)
        fits = OUTPUT_TILE_BYTES // (taps * in_vectors * VECTOR_BYTES)
        lane_vectors = even(vectors, min(4, max(1, fits // 16)))
        channel_block = 16 * in_vectors
    else:
        lane_vectors = even(vectors, min(MAX_LANE_VECTORS, accumulators // taps, 4 if taps > 1 else 8))
        fits = WEIGHT_TILE_BYTES[variant if taps > 1 else "pointwise"] // (taps * lane_vectors * VECTOR_BYTES)
        channel_block = channels if channels <= 16 else min(64, max(16, fits // 16 * 16))
    if variant != "output":  # kernels of thousands of taps
        channel_block = min(channel_block, max(1, ALL_TAPS_BYTES // (rows_map.all_taps * lane_vectors * VECTOR_BYTES)))
    out_rows, out_columns, _, width = rows_map.shape
    all_rows = problem.batch * out_rows
    lane_blocks = ceil_div(vectors, lane_vectors)
    wanted = 4 * threads if threads > 1 else 1
    wide = OUTPUT_COLUMNS if variant == "output" else CHUNK_COLUMNS
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
    segments = ceil_div(out_columns, segment)
    chunks = problem.groups * ceil_div(all_rows, chunk_rows) * segments
    return {
        "parts": 0,
        "outputs": int(variant == "output"),
        "lane_vectors": lane_vectors,
        "channel_block": channel_block,
        "chunk_rows": chunk_rows,
        "segment": segment,
        "segments": segments,
        # where less than half of the columns are met, these alone are made ready
        "in_segment": min(width, in_columns(problem, segment, backward), 2 * segment * problem.kernel[-1]),
        "lane_groups": _lane_groups(lane_blocks, chunks, threads),
        "pack_ahead": int(chunks > 1 and not heavy),
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


def holds_patch() -> bool:
    """Whether registers hold a patch of outputs/row.h beside four sums."""
    accumulators, _, _ = _cpu.registers()
    return accumulators >= PATCH_VECTORS + 4


def weights(problem: Problem, channels: int, filters: int, variant: str, backward: bool, threads: int) -> Weights:
    """Blocking of weights/weights.h; `channels` and `filters` are one group's.

    `variant` is "weight" or "sparse weight". The number of columns that are computed together is the one for which the
    cost model says the least.
    """
    count, classes = lines.phases(problem, backward), len(lines.tap_classes(problem, backward))
    columns = problem.in_size[-1] if backward else problem.out_size[-1]
    most = min(MAX_WEIGHT_TILE, _cpu.registers()[0], ceil_div(columns, count))
    few = problem.batch * prod(problem.in_size if backward else problem.out_size) <= FEW_POSITIONS
    found = [_weights(problem, tile, channels, filters, variant, backward, classes)
             for tile in range(1 if few else max(1, most // 2), most + 1)]  # fmt: skip
    best = min(found, key=lambda one: one.cost * (1 + 0.001 * one.tiles["tile"]))
    wanted = 4 * threads if threads > 1 else 1
    chunk_steps = even(best.steps, ceil_div(best.steps, wanted))
    chunks = problem.groups * ceil_div(best.steps, chunk_steps)
    tiles = best.tiles | {
        "chunk_steps": chunk_steps,
        "shares": min(ceil_div(filters, 16), ceil_div(threads, chunks)),
    }
    return best._replace(tables=lines.lines(problem, backward, tiles["tile"]), tiles=tiles)


class Weights(NamedTuple):
    """Tables, blocking and costs of weights/weights.h, in cycles per 16 useful multiply-adds of the dense problem."""

    tables: lines.Lines | None  # of the chosen tile alone
    tiles: dict[str, int]
    steps: int
    slope: float  # cost of the multiply-adds if no weight is zero
    fixed: float  # of what zeros do not save

    @property
    def cost(self) -> float:
        """At the density that the tile is for."""
        return self.slope * self.tiles["percent"] / 100 + self.fixed


def _weights(
    problem: Problem, tile: int, channels: int, filters: int, variant: str, backward: bool, classes: int
) -> Weights:
    room, percent = WEIGHT_X_BYTES[variant]
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
    tiles = {"tile": tile, "segments": segments, "channel_block": channel_block, "percent": percent}
    tiles["stream"] = int(result >= STREAM_BYTES)
    if problem.batch * prod(size) == 1:  # weights/lone.h: a nonzero 1.3, an element of `in` 2, a list's end 25
        return Weights(None, tiles, steps, 16 * 1.3, 16 * (2 * every / filters + 25) / every)
    return Weights(None, tiles, steps, waste * (line + 1.7 / tile), waste * fixed / every)


def packed_share(problem: Problem) -> float:
    """Bytes of all packed weights over those of x, weight and y."""
    weights = prod(problem.kernel) * problem.in_channels * problem.out_channels // problem.groups
    activations = problem.in_channels * prod(problem.in_size) + problem.out_channels * prod(problem.out_size)
    return weights / (weights + problem.batch * activations)


def in_columns(problem: Problem, columns: int, backward: bool) -> int:
    """Columns of `in` that `columns` neighbouring columns of `out` can meet."""
    stride, reach = problem.stride[-1], problem.dilation[-1] * (problem.kernel[-1] - 1)
    return (columns + reach) // stride + 2 if backward else (columns - 1) * stride + reach + 1


def gradient(problem: Problem, pair: _conv.Map, channels: int, lanes: int, variant: str, threads: int) -> dict:
    """Blocking of gradient/gradient.h; `channels` and `lanes` are one group's, `variant` as in gradient_kernels."""
    accumulators, _, dense_vectors = _cpu.registers()
    dense = variant == "dense"
    taps = max(1, pair.most_taps)
    vectors = ceil_div(lanes, 16)
    outer_group, span = 1, 0
    if not dense and accumulators >= 2 * taps * max(2, pair.most_outer_taps):  # of two vectors at least
        outer_group = max(1, pair.most_outer_taps)
        span = outer_group - 1
    if dense:
        most_vectors = dense_vectors
    else:
        together = taps * outer_group
        most = 8 if together == 1 else 4 if outer_group == 1 or together <= 4 else 2
        most_vectors = 1 if variant == "sparse" and together >= 9 else min(accumulators // together, most)
    lane_vectors = even(vectors, most_vectors)
    blocks = ceil_div(vectors, lane_vectors)
    per_channel = pair.all_taps * lane_vectors * VECTOR_BYTES
    # A is packed once for lane_blocks blocks, B, which is copied alone, once for channel_block channels: several lane
    # blocks come first.
    room = GRADIENT_BYTES
    channel_block = even(channels, max(16, min(256, room // (per_channel * min(blocks, LANE_BLOCKS)))))
    lane_blocks = even(blocks, max(1, room // (per_channel * channel_block)))
    if threads > 1:
        channel_block, lane_blocks = _shared_gradient(
            problem.groups, channels, blocks, channel_block, lane_blocks, lane_vectors, threads, MIN_CHANNELS
        )
    segment, chunk_rows = _gradient_chunk(pair, LANE_TILE_BYTES // (lane_vectors * VECTOR_BYTES), span)
    return {
        "parts": 0,
        "points": 0,
        "outer_group": outer_group,
        "lane_vectors": lane_vectors,
        "lane_blocks": lane_blocks,
        "channel_block": channel_block,
        "chunk_rows": chunk_rows,
        "segment": segment,
        "segments": ceil_div(pair.most_columns, segment),
    }


def _shared_gradient(
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


def gradient_points(problem: Problem, pair: _conv.Map, channels: int, lanes: int, threads: int) -> dict:
    """Blocking of gradient/points.h."""
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
        word_block, lane_blocks = _shared_gradient(
            problem.groups, words, blocks, word_block, lane_blocks, lane_vectors, threads, fewest=1
        )
    channel_block = min(channels, word_block * WORD)
    out_rows, columns = problem.batch * pair.shape[0], pair.most_columns
    segment = even(columns, positions)
    return {
        "parts": 0,
        "points": 1,
        "outer_group": 1,
        "lane_vectors": lane_vectors,
        "lane_blocks": lane_blocks,
        "channel_block": channel_block,
        "chunk_rows": even(out_rows, max(1, positions // segment)) if segment == columns else 1,
        "segment": segment,
        "segments": ceil_div(columns, segment),
    }


def _gradient_chunk(pair: _conv.Map, positions: int, span: int) -> tuple[int, int]:
    """(columns, rows) of a chunk whose lane tile, `span` rows taller and a window wider, has `positions` at most."""
    columns, window = pair.most_columns, pair.most_window
    best = (min(columns, max(8, positions // (span + 1) - window)), 1)
    parts = max(1, ceil_div(columns, max(8, positions)))
    while parts <= ceil_div(columns, 8):
        segment = ceil_div(columns, parts)
        images = 1 + span / pair.most_rows if span else 1  # each image brings its own `span` rows
        rows = int((positions / (segment + window) - span) / images) if span else positions // (segment + window)
        if rows >= 1 and segment * rows > 1.05 * best[0] * best[1]:
            best = (segment, rows)
        parts = ceil_div(columns, segment - 1) if segment > 1 else parts + 1  # of the next shorter segment
    return best
