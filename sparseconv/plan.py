"""Which kernel runs, and why: densities, the cost model, and the calls it leads to.

`choose` decides, `rows_call` and `gradient_call` bind the decision to kernel structs; both are cheap and what depends
on sizes and strides alone is found again in a cache. `plan` shows the decision to the user.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from . import _conv, _cpu, blocking, geometry, layout
from .layout import Strides
from .problem import Problem

SAMPLED_RUNS = 128  # of 64 elements: the standard error of a density is below 0.006 for independent zeros
SERIAL_MACS = 400_000  # about 10 us of work, what waking a thread costs


@dataclass(frozen=True)
class Cost:
    """Time of a skipping kernel relative to the dense one: fixed + slope * density."""

    fixed: float
    slope: float


# Measured with bench/compare.py, 3x3 and 1x1 layers of ResNet-50 and VGG16, one thread; `narrow` is for passes of one
# tap, where a nonzero feeds fewer multiply-adds.
COSTS = {
    ("avx512", "rows"): {"wide": Cost(0.03, 1.05), "narrow": Cost(0.06, 1.2)},
    ("avx512", "gradient"): {"wide": Cost(0.05, 1.1), "narrow": Cost(0.1, 1.2)},
    ("avx2", "rows"): {"wide": Cost(0.05, 1.2), "narrow": Cost(0.08, 1.3)},
    ("avx2", "gradient"): {"wide": Cost(0.08, 1.3), "narrow": Cost(0.12, 1.4)},
    ("neon", "rows"): {"wide": Cost(0.05, 1.3), "narrow": Cost(0.08, 1.4)},
    ("neon", "gradient"): {"wide": Cost(0.08, 1.3), "narrow": Cost(0.12, 1.4)},
    ("scalar", "rows"): {"wide": Cost(0.05, 1.2), "narrow": Cost(0.08, 1.2)},
    ("scalar", "gradient"): {"wide": Cost(0.05, 1.2), "narrow": Cost(0.08, 1.2)},
}


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
        "rows_skip", "rows_dense" (forward, backward_data), "gradient_skip", "gradient_dense" (backward_weight),
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


def choose(problem: Problem, kind: str, skip: str, operands: dict[str, np.ndarray]) -> Choice:
    """The operand to skip. `kind` is "rows" or "gradient"; `operands` are those that could be skipped, by name."""
    if skip == "none":
        return Choice("none", {}, 1.0, "asked for")
    known = {name: density(array) for name, array in operands.items() if skip in ("auto", name)}
    costs = COSTS[_cpu.current(), kind]["narrow" if problem.kernel[-1] < 2 * problem.stride[-1] else "wide"]
    times = {name: costs.fixed + costs.slope * value for name, value in known.items()}
    best = min(times, key=times.__getitem__)
    if skip != "auto":
        return Choice(skip, known, 1 / times[best], "asked for")
    if times[best] >= 1:
        return Choice("none", known, 1.0, f"{best} is too dense for skipping to pay")
    return Choice(best, known, 1 / times[best], f"density {known[best]:.2f} of {best}")


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


@lru_cache(maxsize=2048)
def rows_call(
    problem: Problem, backward: bool, source: Strides, target: Strides, weight: tuple[int, ...], relu: bool, dense: bool,
    threads: int, isa: str,
) -> tuple[_conv.Rows, dict[str, int]]:  # fmt: skip
    """The forward or backward_data kernel for arrays with these strides, and its blocking; `isa` is part of the key."""
    channels, lanes = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    group = lanes
    flat, source, target = _merged(problem, source, target)
    if flat.dims != problem.dims:
        weight = (*weight[:2], 1)
    if backward:
        channels, lanes = lanes, channels
    used = geometry.backward_map(flat) if backward else geometry.forward_map(flat)
    source_size, target_size = (flat.out_size, flat.in_size) if backward else (flat.in_size, flat.out_size)
    tiles = blocking.rows(flat, used, channels, lanes, dense, backward, threads)
    task = _conv.Rows(
        used, layout.view(source, source_size), layout.view(target, target_size),
        layout.weight_view(weight, flat.kernel, group, not backward),
        batch=flat.batch, groups=flat.groups, channels=channels, lanes=lanes, relu=relu, dense=dense, **tiles,
    )  # fmt: skip
    return task, tiles


@lru_cache(maxsize=2048)
def gradient_call(
    problem: Problem, skip: str, x: Strides, grad_output: Strides, weight: tuple[int, ...], threads: int, isa: str
) -> tuple[_conv.Gradient, dict[str, int]]:
    """The backward_weight kernel for arrays with these strides, and its blocking; `isa` is part of the key."""
    in_channels, out_channels = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    flat, x, grad_output = _merged(problem, x, grad_output)
    if flat.dims != problem.dims:
        weight = (*weight[:2], 1)
    x_view, grad_view = layout.view(x, flat.in_size), layout.view(grad_output, flat.out_size)
    by_grad = skip == "grad_output"
    if by_grad:
        used, a, b, channels, lanes = geometry.forward_map(flat), grad_view, x_view, out_channels, in_channels
    else:
        used, a, b, channels, lanes = geometry.backward_map(flat), x_view, grad_view, in_channels, out_channels
    dense = skip == "none"
    tiles = blocking.gradient(flat, used, channels, lanes, dense, threads)
    task = _conv.Gradient(
        used, a, b, layout.weight_view(weight, flat.kernel, out_channels, not by_grad),
        batch=flat.batch, groups=flat.groups, channels=channels, lanes=lanes, dense=dense, **tiles,
    )  # fmt: skip
    return task, tiles




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
    from . import prepare  # plan is below prepare: it is what prepare asks

    match = re.fullmatch(r"(conv(?:_transpose)?)([123])d(_backward_data|_backward_weight)?", operation)
    if match:
        name, dims, rest = match.groups()
        if "layout" not in keywords:
            keywords["layout"] = f"NC{layout.SPATIAL[int(dims)]}"
        return getattr(prepare, name + (rest or ""))(int(dims), *args, **keywords).plan(operation)
    if operation in ("linear", "linear_backward_data", "linear_backward_weight"):
        return getattr(prepare, operation)(*args, **keywords).plan(operation)
    raise ValueError(f"operation: got {operation!r}, expected the name of a convolution or linear function")
