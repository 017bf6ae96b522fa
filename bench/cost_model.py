"""The time of a layer on paper: from multiply-adds, zeros and bytes.

    python bench/cost_model.py                                  # fits to stored times; errors on unseen layers
    python bench/cost_model.py --predict "256,256,14x14,3x3/1" --zeros .7 --threads 16
    python bench/cost_model.py --network resnet50 --cores 16 32 64     # extrapolated, not measured
    python bench/cost_model.py --cluster resnet50 --cores 16           # the same with all-reduces between machines

    time = sum over what a kernel does of (how often) x (cycles each) / clock

*How often* is counted: `work` asks the library for the kernel and the blocks that it would take on that CPU, whichever
CPU this runs on, and counts what the loops of kernels/rows/ and kernels/gradient/ do. *Cycles each* are the constants
below, fitted to the logarithms of stored times (bench/results/*/layers.csv; for Zen 4 the tables of docs/numbers.md).
Each is drawn weakly towards what the instruction set or the head of a kernel says, so that a constant which the layers
at hand hardly show stays where it can be believed. docs/cost_model.md has the results.

Tried, without fewer errors on unseen layers: words weighed by the chance that they have another number of bits than
the one before; a constant of its own for words in rows of one tap (worse, 78% instead of 91% of ResNet-50 from other
networks on Zen 4); what oneDNN writes between two of our calls counted into what L3 has to hold.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np

from sparseconv._core import _cpu, geometry, operations
from sparseconv._core.arrays import FLOAT, contiguous
from sparseconv._core.blocking import ceil_div
from sparseconv._core.problem import Problem
from sparseconv._core.processor import PACK_CYCLES
from sparseconv.benchmark.layers import NETWORKS, Layer, parse

ROOT = Path(__file__).resolve().parents[1]
PASSES = ("forward", "backward_data", "backward_weight")
BATCH = 16  # of all stored times
LINE = 64  # bytes


# --- CPUs ---


class Processor(NamedTuple):
    """What has to be known of a CPU beside the fitted constants. All of it is AVX-512."""

    name: str
    family: int  # of AMD; the library asks for it
    hertz: float
    madds: float  # vectors of 16 floats that can be multiplied and added in a cycle
    l1: float  # bytes
    l2: float
    l3: tuple[float, float]  # up to so much is read again from L3 in the next call, and nothing from so much on
    cores_of_l3: int
    memory: float  # bytes/s of a socket: ASSUMED


# Clocks: Zen 4's is that of rows/skip.h, Zen 5's was measured with a chain of additions. L3: the machines that were
# timed share theirs with others, so the limits are where times turn, not what is printed on the CPU. Memory: twelve
# channels of DDR5-4800 and DDR5-6000 move 461 and 576 GB/s at most; three quarters of that are assumed.
PROCESSORS = {
    "zen4": Processor("Zen 4", 25, 3.7e9, 1, 32 << 10, 1 << 20, (14e6, 24e6), 8, 345e9),
    "zen5": Processor("Zen 5", 26, 4.3e9, 2, 48 << 10, 1 << 20, (12e6, 20e6), 8, 430e9),
}


@contextmanager
def as_if(cpu: str) -> Iterator[None]:
    """The library decides as it would on that CPU."""
    answers = {
        "vendor": "amd",
        "family": PROCESSORS[cpu].family,
        "current": "avx512",
        "registers": (28, 6, 4),
        "slope": 1.16,
        "point_vectors": 6,
        "has_tiles": False,
    }
    with patch.multiple(_cpu, **{name: lambda value=value: value for name, value in answers.items()}):
        yield


# --- constants ---


class Constant(NamedTuple):
    """Cycles of something that a kernel does, and where it is expected (a number, or by the CPU)."""

    meaning: str
    expected: float | Callable[[Processor], float]

    def says(self, processor: Processor) -> float:
        return self.expected(processor) if callable(self.expected) else self.expected


def _a_vector(processor: Processor) -> float:
    """Each multiply-add of a vector takes this at least; in the kernels that is reached to about 90%."""
    return 1.1 / processor.madds


CONSTANTS = {
    # kernels/rows/: forward and backward_data
    "rows": {
        "skip_madds": Constant("multiply-add of 16 floats, weights from L1, skipping", _a_vector),
        "dense_madds": Constant("the same, dense: weights in registers", _a_vector),
        "far_weights": Constant("more for one whose weight tile is larger than L1", 0.3),
        "nonzeros": Constant("nonzero found and broadcast, for one block of lanes", 0.8),
        "words": Constant("word of up to 64 channels, whose end is mispredicted", 25),
        "sums": Constant("vector of partial sums read and written", 2),
        "looked": Constant("16 elements compared with zero", 4),
        "l3_lines": Constant("line that was in L2 no more", 6),
        "memory_lines": Constant("line from memory", 8),
        "streamed": Constant("line written past the caches (results of 8 MB and more)", 1),
        "stored": Constant("line written through the caches", 6),
        "gaps": Constant("line of zeros between strided results", 4),
        "packed": Constant("weights packed: times processor.PACK_CYCLES", 1),
    },
    # kernels/gradient/: backward_weight
    "gradient": {
        "skip_madds": Constant("multiply-add of 16 floats, lanes from L1, skipping", _a_vector),
        "dense_madds": Constant("the same, dense: lanes in registers", _a_vector),
        "point_madds": Constant("the same, sums in L1: a load and a store more", lambda cpu: 2.35 / cpu.madds),
        "nonzeros": Constant("nonzero found and broadcast, for one block of lanes", 0.8),
        "words": Constant("word of 64 positions, whose end is mispredicted", 20),
        "point_words": Constant("word of 64 channels, whose end is mispredicted", 10),
        "point_lanes": Constant("vector of lanes read for a word of channels", 5),
        "sums": Constant("vector of sums added to the gradient, skipping", 6),
        "dense_sums": Constant("the same, dense, and for a chunk of channel words", 1.5),
        "far_sums": Constant("more where the gradient is larger than L2", 6),
        "lanes": Constant("vector of lanes copied", 6),
        "scalars": Constant("16 scalars copied, compared with zero, their bits transposed", 16),
        "other_scalars": Constant("16 scalars copied (dense) or compared (words of channels)", 3),
        "memory_scalars": Constant("line of the scalars from memory", 5),
        "memory_lanes": Constant("line of the lanes from memory", 5),
    },
}


# --- what a layer makes a kernel do ---


class Work(NamedTuple):
    """What a call does: how often, by the names of `CONSTANTS[family]`."""

    family: str
    kernel: str
    counts: dict[str, float]
    items: int  # independent pieces of work, which threads share
    bytes: float  # that go to memory or come from there, if no cache keeps them
    threads: int


@cache
def _operation(layer: Layer, which: str, batch: int, cpu: str) -> Any:
    """The library's own prepared operation, channels last; it keeps the kernels that are bound for this CPU."""
    layer = dataclasses.replace(layer, batch=None)
    x = contiguous((batch, *layer.in_size, layer.in_c), FLOAT)
    y = contiguous((batch, *layer.out_size, layer.out_c), FLOAT)
    weight = contiguous(layer.weight_shape, FLOAT)
    options = {"layout": "NHWC", **layer.options}
    if which == "backward_weight":
        return operations.conv_backward_weight(2, x, y, out=None, kernel_size=layer.kernel, **options)
    if which == "forward":
        made = operations.conv(2, x, weight, out=None, **options)
    else:
        made = operations.conv_backward_data(2, y, weight, out=None, input_shape=x.shape, **options)
    return dataclasses.replace(made, looks_at_weights=False)  # they have no zeros


def work(layer: Layer, which: str, zeros: float, cpu: str, threads: int = 1, batch: int = BATCH) -> Work:
    """What a call with `skip="auto"` does on a CPU.

    Parameters
    ----------
    layer
        Without groups.
    which
        A pass.
    zeros
        Share of zeros of x, in backward_data of the gradient of y; at random places.
    cpu
        A key of `PROCESSORS`.
    threads
        That share the call.
    batch
        Images.
    """
    if which not in PASSES:
        raise ValueError(f"pass: got {which!r}, expected {', '.join(PASSES)}")
    if cpu not in PROCESSORS:
        raise ValueError(f"cpu: got {cpu!r}, expected {', '.join(PROCESSORS)}")
    if not 0 <= zeros <= 1:
        raise ValueError(f"zeros: got {zeros}, expected a share from 0 to 1")
    if min(threads, batch) < 1:
        raise ValueError(f"threads, batch: got {threads} and {batch}, expected at least 1")
    if layer.groups != 1:
        raise ValueError(f"layer: got {layer}, expected one without groups")
    density = round(1.0 - zeros, 9)  # 0.15 for 0.85: the library compares with such numbers
    operands = {"x": density, "grad_output": 1.0 if which == "backward_weight" else density, "weight": 1.0}
    with as_if(cpu):
        kernel = _operation(layer, which, batch, cpu).decide(operands, threads, 0.0)[1]
    problem = layer.problem(batch) if layer.batch is None else dataclasses.replace(layer, batch=None).problem(batch)
    count = _gradient_work if which == "backward_weight" else _rows_work
    return count(problem, which == "backward_data", density, kernel, PROCESSORS[cpu])


def beyond(wanted: float, cache: float) -> float:
    """Share of so many bytes, read again and again, that a cache of this size has not."""
    return max(0.0, 1 - cache / wanted) if wanted else 0.0


def from_memory(bytes_read: float, processor: Processor, threads: int) -> float:
    """Share of what a call reads that the L3 caches of its cores do not keep from call to call."""
    caches = max(1, threads / processor.cores_of_l3)
    low, high = (caches * size for size in processor.l3)
    return min(1.0, max(0.0, (bytes_read - low) / (high - low)))


def _sizes(problem: Problem) -> tuple[int, int, int]:
    """Bytes of x, y and the weight."""
    x = 4 * problem.batch * problem.in_channels * math.prod(problem.in_size)
    y = 4 * problem.batch * problem.out_channels * math.prod(problem.out_size)
    return x, y, 4 * math.prod(problem.kernel) * problem.in_channels * problem.out_channels


class _Sweep(NamedTuple):
    """A strand (geometry.py) swept along a row: columns that are read, results that move, taps."""

    read: int
    moved: int
    taps: int


def _sweeps(problem: Problem, backward: bool) -> tuple[int, list[_Sweep]]:
    """How often rows are swept (an outer tap each), and the sweeps of one row. Pointwise layers are one long row."""
    if problem.pointwise:
        positions = problem.batch * math.prod(problem.in_size)
        return 1, [_Sweep(positions, positions, 1)]
    sweeps = []
    for strand in geometry.strands(problem, -1, backward):
        begin, end = strand.met
        low, high = max(0, begin - strand.shift), min(strand.in_count, end + strand.taps - 1 - strand.shift)
        sweeps.append(_Sweep(high - low, end - begin, strand.taps))
    return problem.batch * problem.pairs(0), sweeps


def _rows_work(problem: Problem, backward: bool, density: float, kernel: Any, processor: Processor) -> Work:
    """forward and backward_data: kernels/rows/rows.h."""
    blocks, skips = kernel.blocking, kernel.kernel == "rows_skip"
    x, y, weight = _sizes(problem)
    taps = math.prod(problem.kernel)
    channels, lanes = problem.in_channels, problem.out_channels
    source, target, in_size, out_size = x, y, problem.in_size, problem.out_size
    if backward:
        channels, lanes, source, target, in_size, out_size = lanes, channels, y, x, out_size, in_size
    vectors, block = ceil_div(lanes, 16), min(channels, blocks["channel_block"])
    lane_blocks, channel_blocks = ceil_div(vectors, blocks["lane_vectors"]), ceil_div(channels, block)
    rows, sweeps = _sweeps(problem, backward)
    all_rows = 1 if problem.pointwise else problem.batch * out_size[0]
    chunks = ceil_div(all_rows, blocks["chunk_rows"]) * blocks["segments"]
    read, moved = sum(sweep.read for sweep in sweeps), sum(sweep.moved for sweep in sweeps)
    multiplied = sum(sweep.read * sweep.taps for sweep in sweeps)
    # What is looked at of the source: rows that any result meets, those between two chunks twice.
    overlap, seen = 1.0, source
    if not problem.pointwise:
        table = geometry.row_table(problem, backward)
        seen = source * len(np.unique(table[table >= 0])) / in_size[0]
        step = 1 / problem.stride[0] if backward else problem.stride[0]
        overlap += (problem.kernel[0] - 1) / (blocks["chunk_rows"] * step) if chunks > 1 else 0
    words = rows * read * channel_blocks * lane_blocks
    looked = seen / LINE * overlap * blocks["lane_groups"]
    if not skips and problem.one_tap and not backward:
        seen /= problem.stride[1]  # only the pixels that are multiplied
    counts = {
        "sums": rows * moved * channel_blocks * vectors,
        "packed": PACK_CYCLES[0 if not backward else 1 if taps == 1 else 2]
        * (taps * channels * vectors * 16 * (1 if blocks["pack_ahead"] else chunks)),
        "gaps": target / LINE * (1 - 1 / math.prod(problem.stride)) if backward and problem.one_tap else 0.0,
        "streamed": target / LINE * blocks["stream"],
        "stored": target / LINE * (1 - blocks["stream"]),
    }
    tile = rows * moved if problem.one_tap else all_rows * out_size[-1]  # results that are summed, at most a chunk's
    tile /= chunks
    far = chunks * taps * channels * vectors * beyond(weight, processor.l2)  # packed weights, by each chunk
    far += 2 * counts["sums"] * beyond(tile * blocks["lane_vectors"] * LINE, 0.8 * processor.l2)
    if skips:
        counts["skip_madds"] = density * rows * multiplied * channels * vectors
        most = max(sweep.taps for sweep in sweeps)
        held = block * most * blocks["lane_vectors"] * LINE + 6e3  # and what a row has of inputs and sums
        counts["far_weights"] = counts["skip_madds"] * beyond(held, processor.l1)
        counts["nonzeros"] = density * rows * read * channels * lane_blocks
        counts["words"], counts["looked"] = words, looked
        touched = words * block / 16 * (1 - (1 - density) ** 16)  # lines of the source with a nonzero
        far += touched * beyond(seen * overlap / chunks, processor.l2)
    else:
        counts["dense_madds"] = problem.met_macs / lanes * vectors
    counts["l3_lines"] = far
    share = from_memory(seen + weight + target * (1 - blocks["stream"]), processor, kernel.threads)
    counts["memory_lines"] = ((looked * LINE if skips else seen) + weight) / LINE * share
    items = chunks * blocks["lane_groups"]
    return Work("rows", kernel.kernel, counts, items, share * (seen + weight) + target, kernel.threads)


def _gradient_work(problem: Problem, _: bool, density: float, kernel: Any, processor: Processor) -> Work:
    """backward_weight: kernels/gradient/gradient.h and points.h."""
    blocks, by_grad = kernel.blocking, kernel.scalar == "grad_output"
    x, y, weight = _sizes(problem)
    if problem.one_tap:
        x /= math.prod(problem.stride)  # all that is met
    taps = math.prod(problem.kernel)
    scalars, lanes = (problem.out_channels, problem.in_channels)[:: 1 if by_grad else -1]
    scalar_bytes, lane_bytes = (y, x)[:: 1 if by_grad else -1]
    vectors = ceil_div(lanes, 16)
    lane_blocks, pieces = ceil_div(vectors, blocks["lane_vectors"]), ceil_div(scalars, blocks["channel_block"])
    shares = ceil_div(lane_blocks, blocks["lane_blocks"])
    density = 1.0 if by_grad else density
    counts: dict[str, float] = defaultdict(float)
    if kernel.kernel == "gradient_points":
        positions = problem.batch * math.prod(problem.out_size)
        words = positions * ceil_div(scalars, 64)
        counts["point_madds"] = density * positions * scalars * vectors
        counts["point_words"], counts["point_lanes"] = words * lane_blocks, words * vectors
        counts["other_scalars"] = positions * scalars / 16 * shares
        rows = 1 if problem.pointwise else problem.batch * problem.out_size[0]
        moved = ceil_div(rows, blocks["chunk_rows"]) * blocks["segments"] * scalars * vectors
        counts["dense_sums"] = moved
    else:
        moved = _positions_work(problem, not by_grad, density, kernel, (scalars, vectors), counts)
    gradient = blocks["channel_block"] * taps * blocks["lane_vectors"] * LINE * blocks["lane_blocks"]
    counts["far_sums"] = moved * beyond(gradient, processor.l2)
    share = from_memory(x + y + weight, processor, kernel.threads)
    counts["memory_scalars"], counts["memory_lanes"] = share * scalar_bytes / LINE, share * lane_bytes / LINE
    return Work("gradient", kernel.kernel, dict(counts), shares * pieces, share * (x + y) + weight, kernel.threads)


def _positions_work(
    problem: Problem, backward: bool, density: float, kernel: Any, sizes: tuple[int, int], counts: dict[str, float]
) -> float:
    """Adds what the kernels do that sum over positions; returns how many vectors of sums go to the gradient."""
    blocks, skips = kernel.blocking, kernel.kernel == "gradient_skip"
    scalars, vectors = sizes
    lane_blocks, pieces = ceil_div(vectors, blocks["lane_vectors"]), ceil_div(scalars, blocks["channel_block"])
    shares, segments = ceil_div(lane_blocks, blocks["lane_blocks"]), blocks["segments"]
    if problem.pointwise:
        strands = [((0, 0), problem.batch * math.prod(problem.in_size), 1)]
        outer = [(1, 1, 1)]
    else:
        found = geometry.strands(problem, -1, backward)
        strands = [((one.in_start, one.out_start), one.met[1] - one.met[0], one.taps) for one in found]
        if blocks["outer_group"] > 1:  # (rows, how often each is swept, taps together)
            found = geometry.strands(problem, 0, backward)
            outer = [(problem.batch * (one.met[1] - one.met[0]), 1, one.taps) for one in found]
        else:
            table = geometry.row_table(problem, backward)
            met = int((table >= 0).any(axis=1).sum())
            outer = [(problem.batch * met, int((table >= 0).sum()) / met, 1)]
    moved = 0.0
    for rows, sweeps, together in outer:
        chunks = ceil_div(rows, blocks["chunk_rows"]) * segments
        reach = together if blocks["outer_group"] > 1 or problem.pointwise else problem.kernel[0]
        for _, columns, taps in strands:
            counts["skip_madds"] += skips * density * rows * sweeps * columns * together * taps * scalars * vectors
            counts["nonzeros"] += skips * density * rows * sweeps * columns * scalars * lane_blocks
            window = 0 if problem.pointwise else taps - 1
            length = min(blocks["chunk_rows"], rows) * (min(blocks["segment"], columns) + window)
            counts["words"] += skips * chunks * sweeps * max(1, ceil_div(length, 64)) * scalars * lane_blocks
            moved += chunks * reach * taps * scalars * vectors
        for place in dict.fromkeys(place for place, _, _ in strands):  # strands with equal columns share both tiles
            columns, taps = map(max, zip(*((c, t) for at, c, t in strands if at == place), strict=True))
            counts["scalars" if skips else "other_scalars"] += rows * columns * scalars / 16 * shares
            above = chunks / segments * (reach - 1)
            counts["lanes"] += (rows + above) * (columns + segments * (taps - 1)) * vectors * pieces
    if not skips:
        counts["dense_madds"] = problem.met_macs / problem.out_channels / problem.in_channels * scalars * vectors
    counts["sums" if skips else "dense_sums"] += moved
    return moved


# --- the fit ---


class Cell(NamedTuple):
    """A stored time."""

    cpu: str
    which: str
    layer: str
    zeros: float
    seconds: float


def stored_cells(cpu: str, path: Path) -> list[Cell]:
    """The cells of a file of `sparseconv bench --csv`, as on a machine that does nothing else.

    oneDNN's time does not depend on zeros. So all cells of a layer and pass are brought to its fastest one: a minute in
    which the machine was slow is in both times of a cell.
    """
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    peers: dict[tuple[str, str], float] = {}
    for row in rows:
        key = row["pass"], row["layer"]
        peers[key] = min(float(row["peer_seconds"]), peers.get(key, math.inf))
    return [
        Cell(cpu, row["pass"], row["layer"], float(row["sparsity"]),
             peers[row["pass"], row["layer"]] / float(row["speedup"]))
        for row in rows
    ]  # fmt: skip


def page_cells(cpu: str, page: Path) -> list[Cell]:
    """The same of the tables of docs/numbers.md: oneDNN's best speed, and ratios."""
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        from website.performance import table
    finally:
        sys.path.remove(str(ROOT / "docs"))
    text = page.read_text(encoding="utf-8").partition("\n## Layer by layer\n")[2]
    cells = []
    for which in PASSES:
        head, *rows = table(text.partition(f"\n### {which}\n")[2])
        shares = [float(word.rstrip("%")) / 100 for word in head[2:]]
        for layer, gflops, *ratios in rows:
            peer = 2e-9 * parse(layer).problem(BATCH).macs / float(gflops)
            cells += [Cell(cpu, which, layer, z, peer / float(r)) for z, r in zip(shares, ratios, strict=True)]
    return cells


def cells_of(cpu: str) -> list[Cell]:
    """All stored times of the layers of the networks."""
    if cpu == "zen4":
        return page_cells(cpu, ROOT / "docs" / "numbers.md")
    return stored_cells(cpu, ROOT / "bench" / "results" / cpu / "layers.csv")


def other_cells(cpu: str) -> list[Cell]:
    """Stored times of layers of no network, at other zeros: nothing is ever fitted to them."""
    path = ROOT / "bench" / "results" / cpu / "other_layers.csv"
    return stored_cells(cpu, path) if path.exists() else []


def outdated(cell: Cell) -> bool:
    """Whether the library does other things today than when the cell was timed.

    Zen 4's times are of 2026-11-21. Until 2026-11-29 backward_weight also packed rows that no window reaches, three
    pixels of four in strided 1x1 layers.
    """
    return cell.cpu == "zen4" and cell.which == "backward_weight" and " 1x1/2" in cell.layer


PULL = 1.0  # a constant e times away from what is expected of it weighs as much as an error of NOISE in one cell
NOISE = 0.15
CALL_SECONDS = 10e-6  # docs/numbers.md, "What a call costs"
Constants = dict[str, dict[str, float]]  # by family


@cache
def _work_of(cell: Cell) -> Work:
    return work(parse(cell.layer), cell.which, cell.zeros, cell.cpu)


def fit(cells: Iterable[Cell]) -> Constants:
    """The constants, in cycles, of the CPU of these cells."""
    fitted: Constants = {}
    cells = [cell for cell in cells if not outdated(cell)]
    for family, constants in CONSTANTS.items():
        chosen = [(cell, _work_of(cell)) for cell in cells if _work_of(cell).family == family]
        if not chosen:
            continue
        processor = PROCESSORS[chosen[0][0].cpu]
        counts = np.array([[done.counts.get(name, 0.0) for name in constants] for _, done in chosen])
        seconds = np.array([cell.seconds - CALL_SECONDS for cell, _ in chosen])
        expected = np.log([constant.says(processor) for constant in constants.values()])
        fitted[family] = dict(
            zip(constants, np.exp(_least_squares(counts / processor.hertz, seconds, expected)).tolist(), strict=True)
        )
    return fitted


def _least_squares(counts: np.ndarray, seconds: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Logarithms of the constants: least squares of log(counts @ constants / seconds) by Levenberg and Marquardt."""
    pull, found, damping = NOISE / PULL, expected.copy(), 1e-2

    def errors(logs: np.ndarray) -> np.ndarray:
        return np.concatenate([np.log(counts @ np.exp(logs) / seconds), pull * (logs - expected)])

    now = errors(found)
    for _ in range(200):
        parts = counts * np.exp(found)
        slopes = np.vstack([parts / parts.sum(1, keepdims=True), pull * np.eye(len(found))])
        square = slopes.T @ slopes
        step = np.linalg.solve(square + damping * np.diag(np.diag(square)), -slopes.T @ now)
        after = errors(found + np.clip(step, -1, 1))
        if after @ after < now @ now:
            found, now, damping = found + np.clip(step, -1, 1), after, max(damping / 3, 1e-9)
        elif damping > 1e9:
            break
        else:
            damping *= 3
    return found


@cache
def fitted(cpu: str) -> Constants:
    """The constants from all stored cells."""
    return fit(cells_of(cpu))


class Prediction(NamedTuple):
    """The seconds of a call, their reasons, and what bounds them."""

    seconds: float
    parts: dict[str, float]  # on one core
    cores: float  # that the items keep busy, on average
    bound: str  # "cores", or "memory": that of the socket; of one core it is one of the parts


def predict(done: Work, constants: Constants, cpu: str, memory: float | None = None) -> Prediction:
    """The time of a call: measured territory on one thread, extrapolated on more.

    Threads share items, so the slowest one decides: a call takes ceil(items / threads) of them. What goes to memory
    cannot be faster than a socket's memory (`memory`, bytes/s, in place of the assumed one).
    """
    processor = PROCESSORS[cpu]
    parts = {
        name: count * constants[done.family][name] / processor.hertz for name, count in done.counts.items() if count
    }
    total, slowest = sum(parts.values()), ceil_div(done.items, done.threads) / done.items
    moving = done.bytes / (memory or processor.memory) if done.threads > 1 else 0.0
    waking = CALL_SECONDS if done.threads > 1 else 0.0
    bound = "memory" if moving > total * slowest else "cores"
    return Prediction(CALL_SECONDS + waking + max(total * slowest, moving), parts, 1 / slowest, bound)


# --- how well it fits ---


def network_layers(*names: str) -> set[str]:
    return {layer for name in names for layer in NETWORKS[name]}


def splits(cpu: str) -> Iterator[tuple[str, list[Cell], list[Cell]]]:
    """(what is unseen, cells to fit to, unseen cells), several times."""
    cells = cells_of(cpu)
    known = network_layers("vgg16", "resnet34")
    yield "ResNet-50", [c for c in cells if c.layer in known], [c for c in cells if c.layer not in known]
    known = network_layers("resnet50")
    yield "VGG16, ResNet-34", [c for c in cells if c.layer in known], [c for c in cells if c.layer not in known]
    layers = list(dict.fromkeys(cell.layer for cell in cells))
    unseen, folds = [], 6
    for fold in range(folds):  # each layer once
        left_out = set(layers[fold::folds])
        constants = [cell for cell in cells if cell.layer not in left_out]
        unseen.append((constants, [cell for cell in cells if cell.layer in left_out]))
    for known_cells, tested in unseen:
        yield "each layer once", known_cells, tested
    shares = (0.0, 0.5, 0.9)
    yield "zeros", [c for c in cells if c.zeros in shares], [c for c in cells if c.zeros not in shares]
    if others := other_cells(cpu):
        yield "other layers", cells, others


class Errors(NamedTuple):
    """Of unseen cells."""

    cells: int
    within: float  # share of them within 15%
    median: float
    most: float  # of nine in ten
    worst: float


def errors(ratios: Iterable[float]) -> Errors:
    """Of predicted over measured times; 0.15 is 15% too much, or as many times too little."""
    values = np.abs(np.log(list(ratios)))
    off = np.exp(values) - 1
    return Errors(
        len(off), float(np.mean(off <= 0.15)), float(np.median(off)), float(np.quantile(off, 0.9)), float(off.max())
    )


@cache
def unseen(cpu: str) -> dict[str, list[tuple[Cell, float]]]:
    """Unseen cells and predicted over measured times, by what is unseen."""
    found: dict[str, list[tuple[Cell, float]]] = defaultdict(list)
    for what, known, tested in splits(cpu):
        constants = fit(known)
        for cell in tested:
            if not outdated(cell):
                found[what].append((cell, predict(_work_of(cell), constants, cpu).seconds / cell.seconds))
    return dict(found)


def kernel_size(cell: Cell) -> str:
    return parse(cell.layer).kernel_text


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """A table as docs/cost_model.md has it."""
    head = list(head)
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)] + [""]


def constant_table() -> list[str]:
    """Expected and fitted constants of all CPUs."""
    rows = []
    for family, constants in CONSTANTS.items():
        for name, constant in constants.items():
            numbers = [
                f"{fitted(cpu)[family][name]:.2f} ({constant.says(processor):.3g})"
                for cpu, processor in PROCESSORS.items()
            ]
            rows.append([family, f"`{name}`", constant.meaning, *numbers])
    return markdown(["kernels", "constant", "of a", *(one.name for one in PROCESSORS.values())], rows)


def error_rows(cpu: str) -> dict[str, Errors]:
    """Errors by what is unseen, those of the cells that the constants were fitted to first."""
    cells = [cell for cell in cells_of(cpu) if not outdated(cell)]
    seen = [predict(_work_of(cell), fitted(cpu), cpu).seconds / cell.seconds for cell in cells]
    return {"nothing": errors(seen)} | {
        what: errors(ratio for _, ratio in pairs) for what, pairs in unseen(cpu).items()
    }


def error_table() -> list[str]:
    """Errors by what is unseen."""
    rows = [
        [PROCESSORS[cpu].name, what, f"{one.cells}", f"{one.within:.0%}", f"{one.median:.1%}", f"{one.most:.0%}",
         f"{one.worst:.0%}"]
        for cpu in PROCESSORS for what, one in error_rows(cpu).items()
    ]  # fmt: skip
    return markdown(["CPU", "unseen", "cells", "within 15%", "median", "90% below", "worst"], rows)


def pass_table(what: str = "each layer once") -> list[str]:
    """Errors of unseen cells by pass and size of the kernel: share within 15%, and what 90% and all are below."""
    rows = []
    for which in PASSES:
        for kernel in ("3x3", "1x1"):
            row = [f"{which}, {kernel}"]
            for cpu in PROCESSORS:
                pairs = unseen(cpu).get(what, [])
                some = [ratio for cell, ratio in pairs if cell.which == which and kernel_size(cell) == kernel]
                one = errors(some) if some else None
                row += [f"{one.within:.0%}", f"{one.median:.1%}, {one.most:.0%}, {one.worst:.0%}"] if one else ["", ""]
            rows.append(row)
    head = [word for one in PROCESSORS.values() for word in (f"{one.name}: within 15%", "median, 90%, worst")]
    return markdown(["unseen layers", *head], rows)


def worst_lines(cpu: str, count: int = 5) -> list[str]:
    """Unseen cells that are furthest off."""
    pairs = sorted(unseen(cpu)["each layer once"], key=lambda pair: -abs(math.log(pair[1])))[:count]
    return [
        f"{PROCESSORS[cpu].name}, {cell.which}, {cell.layer}, {cell.zeros:.0%} zeros, {_work_of(cell).kernel}: "
        f"predicted {ratio:.2f} of {1e3 * cell.seconds:.2f} ms"
        for cell, ratio in pairs
    ]


def save_picture(path: Path) -> None:
    """How many layers that were left out of the fit are predicted how well, a panel for each CPU."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    panels, shares = figure.subplots(1, len(PROCESSORS), sharey=True), np.linspace(0, 1, 101)
    for cpu, panel in zip(PROCESSORS, panels, strict=True):
        for which in PASSES:
            logs = [math.log(ratio) for cell, ratio in unseen(cpu)["each layer once"] if cell.which == which]
            panel.plot(100 * np.exp(np.quantile(logs, shares)) - 100, 100 * shares, label=which)
        panel.axvspan(100 / 1.15 - 100, 15, color="0.5", alpha=0.2, linewidth=0)
        panel.set(title=PROCESSORS[cpu].name, xlabel="predicted above measured, %", xlim=(-45, 45), ylim=(0, 100))
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("unseen cells, %")
    panels[0].legend(loc="lower right", fontsize="small")
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "sparseconv"}):
        figure.savefig(path, metadata={"Date": None})


# --- extrapolated: cores and machines ---

NOT_MEASURED = "extrapolated, not measured"
PARAMETERS = {"vgg16": 138_357_544, "resnet34": 21_797_672, "resnet50": 25_557_032}  # of ImageNet's networks
LATENCY = 30e-6  # of a message between machines: ASSUMED, as in docs/distributed.md
GBITS = (10, 25, 100)
MACHINES = 16  # of a cluster; 64 move 7% more
ZEROS = (0.0, 0.6, 0.9)


class Step(NamedTuple):
    """Seconds of a network's convolutions but the first, in each pass, and the share of them that memory bounds."""

    seconds: dict[str, float]
    by_memory: float

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    @property
    def backward(self) -> float:
        return self.total - self.seconds["forward"]


def step(name: str, zeros: float, cpu: str, threads: int, batch: int, memory: float | None = None) -> Step:
    """A training step of a network, all of whose convolutions meet as many zeros."""
    if name not in PARAMETERS:
        raise ValueError(f"network: got {name!r}, expected {', '.join(PARAMETERS)}")
    seconds, by_memory = dict.fromkeys(PASSES, 0.0), 0.0
    for text, count in NETWORKS[name].items():
        for which in PASSES:
            call = predict(work(parse(text), which, zeros, cpu, threads, batch), fitted(cpu), cpu, memory)
            seconds[which] += count * call.seconds
            by_memory += count * call.seconds * (call.bound == "memory")
    return Step(seconds, by_memory / sum(seconds.values()))


def all_reduce(size: float, machines: int, bandwidth: float, latency: float = LATENCY) -> float:
    """Seconds of a ring all-reduce of so many bytes; `bandwidth` in bytes/s. The formula of docs/distributed.md."""
    return 2 * (machines - 1) * latency + 2 * (machines - 1) / machines * size / bandwidth


def network_table(name: str, cores: Iterable[int], cpu: str, batch: int, memory: float | None) -> list[str]:
    """Steps on many cores of one socket."""
    rows = []
    for zeros in ZEROS:
        one = step(name, zeros, cpu, 1, batch).total
        for threads in cores:
            done = step(name, zeros, cpu, threads, batch, memory)
            times = [f"{1e3 * seconds:.0f}" for seconds in (done.total, *done.seconds.values())]
            rows.append([f"{zeros:.0%}", f"{threads}", *times, f"{one / done.total:.1f}", f"{done.by_memory:.0%}"])
    head = ["zeros", "cores", "step, ms", *PASSES, "times one core", "bound by memory"]
    title = f"{name}, {PROCESSORS[cpu].name}, batch {batch}, convolutions alone, {NOT_MEASURED}:"
    return [title, "", *markdown(head, rows)]


def cluster_table(name: str, cores: Iterable[int], cpu: str, batch: int, memory: float | None) -> list[str]:
    """Share of a step that is compute, and the images that a machine needs to hide its gradients behind backward."""
    size, rows = 4 * PARAMETERS[name], []
    for threads in cores:
        for zeros in ZEROS:
            done = step(name, zeros, cpu, threads, batch, memory)
            row = [f"{threads}", f"{zeros:.0%}", f"{1e3 * done.total:.0f}", f"{1e3 * done.backward:.0f}"]
            for gbit in GBITS:
                moving = all_reduce(size, MACHINES, gbit / 8 * 1e9)
                hidden, open_ = (done.total / (done.total + more) for more in (max(0, moving - done.backward), moving))
                row.append(f"{hidden:.2f} to {open_:.2f}; {math.ceil(batch * moving / done.backward)}")
            rows.append(row)
    head = ["cores", "zeros", "step, ms", "of it backward", *(f"{gbit} Gbit/s" for gbit in GBITS)]
    times = ", ".join(f"{1e3 * all_reduce(size, MACHINES, gbit / 8 * 1e9):.0f}" for gbit in GBITS)
    title = (
        f"{name}, {MACHINES} machines, {batch} images each, {size / 1e6:.0f} MB of gradients ({times} ms), "
        f"{NOT_MEASURED}:"
    )
    return [title, "", *markdown(head, rows)]


# --- the command ---


def prediction_lines(layer: Layer, zeros: float, cpu: str, threads: int, batch: int, memory: float | None) -> list[str]:
    """What a layer takes in each pass, and of what that is made."""
    how = "on one thread" if threads == 1 else f"on {threads} threads, {NOT_MEASURED}"
    lines = [f"{layer}, {zeros:.0%} zeros, batch {batch}, {PROCESSORS[cpu].name}, {how}"]
    for which in PASSES:
        done = work(layer, which, zeros, cpu, threads, batch)
        call = predict(done, fitted(cpu), cpu, memory)
        total = sum(call.parts.values())
        parts = sorted(call.parts.items(), key=lambda part: -part[1])
        why = ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in parts if seconds >= 0.02 * total)
        bound = f"; {call.cores:.1f} cores busy, bound by {call.bound}" if threads > 1 else ""
        lines.append(f"  {which:15} {1e3 * call.seconds:9.3f} ms  {done.kernel:15} {why}{bound}")
    return lines


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="The time of a layer on paper.")
    parser.add_argument("--cpu", choices=PROCESSORS, default="zen5", help="for what is asked; tables have all")
    parser.add_argument("--predict", metavar="LAYER", help='such as "256,256,14x14,3x3/1"')
    parser.add_argument("--zeros", type=float, default=0.0, help="share of zeros for --predict")
    parser.add_argument("--threads", type=int, default=1, help="for --predict")
    parser.add_argument("--network", choices=PARAMETERS, help="steps on --cores of one socket")
    parser.add_argument("--cluster", choices=PARAMETERS, help="steps on machines of --cores, with all-reduces")
    parser.add_argument("--cores", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--batch", type=int, help=f"images; default: {BATCH}, with --network and --cluster 64")
    parser.add_argument("--bandwidth", type=float, help="of a socket's memory, GB/s, in place of the assumed one")
    parser.add_argument("--plot", type=Path, help="where to save the picture of errors")
    options = parser.parse_args(arguments)
    cpu, batch = options.cpu, 64 if options.batch is None else options.batch
    memory = None if options.bandwidth is None else 1e9 * options.bandwidth
    if memory is not None and memory <= 0:
        parser.error(f"--bandwidth: got {options.bandwidth}, expected GB/s above 0")
    if min(options.cores) < 1:
        parser.error(f"--cores: got {min(options.cores)}, expected at least 1")
    try:
        if options.predict:
            layer = parse(options.predict)
            batch = layer.batch or BATCH if options.batch is None else options.batch
            lines = prediction_lines(layer, options.zeros, cpu, options.threads, batch, memory)
        elif options.network:
            lines = network_table(options.network, options.cores, cpu, batch, memory)
        elif options.cluster:
            lines = cluster_table(options.cluster, options.cores, cpu, batch, memory)
        else:
            lines = [*constant_table(), *error_table(), *pass_table()]
            lines += [line for one in PROCESSORS for line in worst_lines(one)]
    except ValueError as error:
        parser.error(str(error))
    print("\n".join(lines))
    if options.plot:
        save_picture(options.plot)


if __name__ == "__main__":
    main()
