"""Which kernel runs, and why: densities, the cost model, and the calls it leads to.

`choose` decides, `rows_call` and `gradient_call` bind the decision to kernel structs; both are cheap and what depends
on sizes and strides alone is found again in a cache. `plan` shows the decision to the user.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import NamedTuple

import numpy as np

from . import _conv, _cpu, blocking, blocking_tiles, geometry, layout
from .layout import Strides
from .problem import Problem

SAMPLED_RUNS = 128  # of 64 elements: the standard error of a density is below 0.006 for independent zeros
SPARSE = 0.15  # density from which on the row kernels take longer words
SERIAL_MACS = 400_000  # about 10 us of work, what waking a thread costs


# Time of one multiply-add in a skipping kernel over that in a dense one. A skipping kernel reads its second operand
# from memory: free on Zen 4, whose AVX-512 units do one multiply-add for each 64-byte load, dear on Intel's, which do
# two. Zen 4: both kernels in turn in one process. Intel: the prototypes on Granite Rapids (0.63 of dense speed at no
# zeros).
SLOPES = {"amx": 1.1, "avx512": 1.1, "avx2": 1.07, "neon": 1.2, "scalar": 1.1}
INTEL_SLOPE = 1.5


@dataclass(frozen=True)
class Choice:
    """A decision: what is skipped, and why."""

    skip: str
    density: dict[str, float]
    speedup: float
    reason: str


@dataclass(frozen=True)
class Plan:
    """What a call would run, and why.

    Attributes
    ----------
    operation : str
        Name of the public function.
    problem : str
        The sizes as a short text; the same text names tests and benchmarks.
    kernel : str
        "rows_skip", "rows_dense", "rows_tiles" (forward, backward_data), "gradient_skip", "gradient_dense",
        "gradient_tiles" (backward_weight; "tiles" are dense kernels on the tile registers of AMX),
        "reference" (float64) or "none" (an empty result).
    skip : str
        The operand whose zeros are skipped, or "none".
    density : dict
        Measured (sampled) density of each operand that could be skipped.
    speedup : float
        Expected time of the dense kernel divided by that of the chosen one.
    reason : str
        The decision in words.
    tiles : dict
        Loop blocking; kernels/problem.h explains the names.
    isa : str
        Instruction set.
    threads : int
        Number of threads.
    scratch_bytes : int
        Memory that the call needs beside its arrays, over all threads.
    """

    operation: str
    problem: str
    kernel: str
    skip: str
    density: dict[str, float]
    speedup: float
    reason: str
    tiles: dict[str, int]
    isa: str
    threads: int
    scratch_bytes: int

    def __str__(self) -> str:
        densities = ", ".join(f"{name} {value:.2f}" for name, value in self.density.items()) or "not measured"
        return (
            f"{self.operation} {self.problem}\n"
            f"  kernel   {self.kernel} on {self.isa}, {self.threads} thread(s)\n"
            f"  skip     {self.skip}: {self.reason}\n"
            f"  density  {densities}\n"
            f"  expected {self.speedup:.2f} x the dense kernel\n"
            f"  tiles    {', '.join(f'{name} {value}' for name, value in self.tiles.items())}\n"
            f"  scratch  {self.scratch_bytes / 2**20:.2f} MB"
        )


def density(array: np.ndarray, runs: int = SAMPLED_RUNS) -> float:
    """Estimated share of nonzero elements, from scattered runs of at most 64 elements."""
    runs = max(1, min(runs, array.size // 2048))  # about 3% of a small array
    nonzero, seen = _conv.sampled_nonzero(array, runs) if array.size else (0, 1)
    return nonzero / seen


class Candidate(NamedTuple):
    """A skipping kernel that could run: the operand it skips, and its costs in units of dense vector multiply-adds.

    `work` is what it would do without zeros (lanes that are only padding count), `fixed` what stays when all is zero.
    """

    operand: str
    array: np.ndarray
    work: float
    fixed: float


def choose(skip: str, dense: float, candidates: list[Candidate]) -> Choice:
    """The operand to skip, or "none"; `dense` is the cost of the dense kernel."""
    if skip == "none":
        return Choice("none", {}, 1.0, "asked for")
    slope = INTEL_SLOPE if _cpu.vendor() == "intel" else SLOPES[_cpu.current()]
    known = {one.operand: density(one.array) for one in candidates if skip in ("auto", one.operand)}
    times = {
        one.operand: one.work * slope * known[one.operand] + one.fixed for one in candidates if one.operand in known
    }
    best = min(times, key=times.__getitem__)
    speedup = dense / times[best]
    if skip != "auto":
        return Choice(skip, known, speedup, "asked for")
    if speedup <= 1:
        why = f"skipping {best} (density {known[best]:.2f}) would take {1 / speedup:.2f} of the dense time"
        return Choice("none", known, 1.0, why)
    return Choice(best, known, speedup, f"density {known[best]:.2f} of {best}")


class Dense(NamedTuple):
    """The dense kernel that would run: bf16 parts of a float32 on tile registers (0: vectors), speed beside vectors."""

    parts: int
    gain: float

    @property
    def kind(self) -> str:
        """As in the names of kernels, and of variants of `rows_call`."""
        return "tiles" if self.parts else "dense"

    def explained(self, choice: Choice) -> Choice:
        """The choice, with the reason for tiles if it is the dense kernel."""
        if choice.skip != "none" or not self.parts:
            return choice
        products = {3: 6, 2: 3, 1: 1}[self.parts]
        why = f"{choice.reason}; on tile registers, {products} bf16 product(s) for one of float32"
        return dataclasses.replace(choice, reason=why)


VECTORS = Dense(0, 1.0)


def dense_rows(problem: Problem, backward: bool, precision: str) -> Dense:
    """The dense kernel of forward or backward_data on the instruction set in use."""
    return _dense(precision, lambda: blocking_tiles.rows_gain(problem, backward, precision))


def dense_gradient(problem: Problem, precision: str) -> Dense:
    """The dense kernel of backward_weight on the instruction set in use."""
    return _dense(precision, lambda: blocking_tiles.gradient_gain(problem, precision))


def _dense(precision: str, gain: Callable[[], float]) -> Dense:
    if not _cpu.has_tiles():
        return VECTORS
    tiles = Dense(blocking_tiles.PARTS[precision], gain())
    return tiles if tiles.gain > 1 else VECTORS


def threads_for(problem: Problem, wanted: int) -> int:
    """As many threads as the work is worth."""
    return max(1, min(wanted, problem.macs // SERIAL_MACS))


def _merged(problem: Problem, source: Strides, target: Strides) -> tuple[Problem, Strides, Strides]:
    """A pointwise problem as one long row of all positions (over all images too, where memory allows it)."""
    if not problem.pointwise:
        return problem, source, target
    rows = source.merged(problem.in_size), target.merged(problem.in_size)
    if None in rows:
        return problem, source, target
    source, target = rows
    length = int(np.prod(problem.in_size, dtype=np.int64))
    batch = problem.batch
    if batch > 1 and source.image == length * source.spatial[0] and target.image == length * target.spatial[0]:
        length, batch = length * batch, 1
    one = (1,)
    flat = dataclasses.replace(
        problem, batch=batch, in_size=(length,), out_size=(length,), kernel=one, stride=one, padding=(0,), dilation=one
    )
    return flat, source, target


class Prepared(NamedTuple):
    """A kernel bound to sizes and strides: the struct, its blocking, and the fixed part of its cost per dense work."""

    task: _conv.Rows | _conv.Gradient
    tiles: dict[str, int]
    fixed: float


@lru_cache(maxsize=2048)
def rows_call(
    problem: Problem, backward: bool, source: Strides, target: Strides, weight: tuple[int, ...], relu: bool,
    variant: str, threads: int, isa: str, parts: int = 0,
) -> Prepared:  # fmt: skip
    """The forward or backward_data kernel for arrays with these strides; `isa` is part of the key.

    `variant` is "dense", "tiles" (dense, of so many bf16 `parts`), "skip", or "sparse": the skipping kernel with tiles
    for a density of at most SPARSE.
    """
    channels, lanes = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    group = lanes
    flat, source, target = _merged(problem, source, target)
    if flat.dims != problem.dims:
        weight = (*weight[:2], 1)
    if backward:
        channels, lanes = lanes, channels
    used = geometry.backward_map(flat) if backward else geometry.forward_map(flat)
    source_size, target_size = (flat.out_size, flat.in_size) if backward else (flat.in_size, flat.out_size)
    if variant == "tiles":
        tiles = blocking_tiles.rows(flat, used, channels, lanes, parts, backward, threads)
    else:
        tiles = blocking.rows(flat, used, channels, lanes, variant, backward, threads)
    task = _conv.Rows(
        used, layout.view(source, source_size), layout.view(target, target_size),
        layout.weight_view(weight, flat.kernel, group, not backward),
        batch=flat.batch, groups=flat.groups, channels=channels, lanes=lanes, relu=relu,
        dense=variant in ("dense", "tiles"), **tiles,
    )  # fmt: skip
    # One word of channels costs about 25 cycles (window moved, bits tested, one branch mispredicted) beside its
    # multiply-adds; measured 0.09 for a tile of 384 vectors, 0.23 for 96, 0.55 for 18.
    tile = min(channels, tiles["channel_block"]) * max(1, used.most_taps) * tiles["lane_vectors"]
    return Prepared(task, tiles, 0.03 + 25 / (tile + 20))


@lru_cache(maxsize=2048)
def gradient_call(
    problem: Problem, scalar: str, dense: bool, x: Strides, grad_output: Strides, weight: tuple[int, ...], threads: int,
    isa: str, parts: int = 0,
) -> Prepared:  # fmt: skip
    """The backward_weight kernel with `scalar` as scalars, the other operand as lanes; `isa` is part of the key.

    `parts`: of the dense kernel on tile registers, 0 on vectors.
    """
    in_channels, out_channels = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    flat, x, grad_output = _merged(problem, x, grad_output)
    if flat.dims != problem.dims:
        weight = (*weight[:2], 1)
    x_view, grad_view = layout.view(x, flat.in_size), layout.view(grad_output, flat.out_size)
    by_grad = scalar == "grad_output"
    if by_grad:
        used, a, b, channels, lanes = geometry.forward_map(flat), grad_view, x_view, out_channels, in_channels
    else:
        used, a, b, channels, lanes = geometry.backward_map(flat), x_view, grad_view, in_channels, out_channels
    if parts:
        tiles = blocking_tiles.gradient(flat, used, channels, lanes, parts, threads)
    else:
        tiles = blocking.gradient(flat, used, channels, lanes, dense, threads)
    task = _conv.Gradient(
        used, a, b, layout.weight_view(weight, flat.kernel, out_channels, not by_grad),
        batch=flat.batch, groups=flat.groups, channels=channels, lanes=lanes, dense=dense, **tiles,
    )  # fmt: skip
    # A run of positions costs about 100 cycles (accumulators stored, branches mispredicted) beside its multiply-adds.
    taps = max(1, used.most_taps) * tiles["outer_group"]
    run = min(tiles["chunk_rows"], used.shape[0]) * tiles["segment"] * taps * tiles["lane_vectors"]
    return Prepared(task, tiles, 0.05 + 100 / run)


def gradient_work(problem: Problem, scalar: str) -> float:
    """Vector multiply-adds of one position and tap: channels of the scalar operand x vectors of the other one."""
    in_channels, out_channels = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    channels, lanes = (out_channels, in_channels) if scalar == "grad_output" else (in_channels, out_channels)
    return channels * ceil(lanes / 16)


def plan(operation: str, *args: object, **keywords: object) -> Plan:
    """What a call would run, and why; nothing is computed.

    Parameters
    ----------
    operation : str
        Name of a public function: "conv2d", "conv2d_backward_weight", "conv_transpose1d", "linear", ...
    *args, **keywords
        The arguments of that function. They are checked as the call itself would.

    Returns
    -------
    Plan
        Kernel, measured densities, expected speed-up over the dense kernel, tiles, memory; ``print`` shows it.

    Raises
    ------
    ValueError
        If there is no such operation; and whatever the operation would raise.

    Examples
    --------
    >>> import numpy as np, sparseconv as sc
    >>> x, w = np.zeros((1, 64, 56, 56), np.float32), np.ones((64, 64, 3, 3), np.float32)
    >>> sc.plan("conv2d", x, w, padding=1).kernel
    'rows_skip'
    """
    from . import prepare  # planning is below prepare: it is what prepare asks

    match = re.fullmatch(r"(conv(?:_transpose)?)([123])d(_backward_data|_backward_weight)?", operation)
    if match:
        name, dims, rest = match.groups()
        if "layout" not in keywords:
            keywords["layout"] = f"NC{layout.SPATIAL[int(dims)]}"
        return getattr(prepare, name + (rest or ""))(int(dims), *args, **keywords).plan(operation)
    if operation in ("linear", "linear_backward_data", "linear_backward_weight"):
        return getattr(prepare, operation)(*args, **keywords).plan(operation)
    raise ValueError(f"operation: got {operation!r}, expected the name of a convolution or linear function")
