"""The three passes: everything of a call that does not depend on what its arrays contain, and how it then runs.

A pass is made once for arrays of given forms (prepare.py) and kept. `decide` looks at the arrays of a call and says
what runs, `run` does it. A `Call` is a pass with its arrays. conv.py, transpose.py and linear.py are faces of these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from . import _conv, _cpu, lines, packed, planning
from .arrays import Form
from .layout import Layout, Strides
from .packed import PackedWeight
from .planning import Choice, Plan, Prepared
from .problem import Problem

Operands = dict[str, Any]  # arrays, and packed weights, by their public names, in the order of the public function


@dataclass(frozen=True)
class Rows:
    """forward (y from x) or backward_data (the gradient of x from that of y)."""

    problem: Problem
    result: Form
    layout: Layout
    backward: bool
    relu: bool
    skip: str
    scalar: str  # what `skip` calls the source
    precision: str
    source: Strides
    target: Strides
    weight: tuple[int, ...]

    def decide(self, operands: Operands, threads: int) -> tuple[Choice, Prepared]:
        """What to skip in these arrays, and the kernel for it."""
        source, weight, *_ = operands.values()
        kernels = planning.rows_kernels(
            self.problem, self.backward, self.source, self.target, self.weight, self.relu, self.precision,
            planning.threads_for(self.problem, threads), _cpu.current(),
        )  # fmt: skip
        kernel = kernels("skip")
        candidates = {self.scalar: (source, 1.0, kernel.fixed)}
        self._consider_weight(candidates, weight, kernels)
        choice = planning.choose(self.skip, 1.0 / kernel.tile_gain, candidates)
        if choice.skip == "weight":
            skipping = kernels("sparse weight" if choice.density["weight"] <= planning.WEIGHT_SPARSE else "weight")
            lists = self._lists(weight, skipping.threads)
            if lists.finite:
                return choice, skipping._replace(lists=lists)
            choice = planning.no_choice("Inf or NaN among the weights")
        if choice.skip == "none":
            return choice, kernels("tiles" if kernel.tile_gain > 1 else "dense")
        return choice, kernels("sparse") if choice.density[self.scalar] <= kernel.sparse else kernel

    def _consider_weight(
        self, candidates: dict, weight: np.ndarray | PackedWeight, kernels: Callable[[str], Prepared]
    ) -> None:
        """Adds what `planning.choose` asks of skipping zero weights, where that may pay at all."""
        is_packed = isinstance(weight, PackedWeight)
        if self.skip == "auto":
            if not is_packed and self.problem.macs < planning.WEIGHT_MACS:
                return
        elif self.skip != "weight":
            return
        density = weight.density if is_packed else planning.weight_density(weight)
        if density > planning.WEIGHT_PAYS and self.skip == "auto":
            return
        kernel = kernels("sparse weight" if density <= planning.WEIGHT_SPARSE else "weight")
        packing = 0 if is_packed else planning.packing_cost(self.problem, self.backward)
        candidates["weight"] = density, kernel.work, kernel.fixed + packing

    def _lists(self, weight: np.ndarray | PackedWeight, threads: int) -> _conv.Lists:
        """The nonzeros of the weights: kept by a packed weight, made for the call from an array."""
        classes = lines.tap_classes(self.problem, self.backward)
        if isinstance(weight, PackedWeight):
            return weight.lists(self.backward, classes)
        return packed.nonzero_lists(weight, self.problem.groups, self.backward, classes, threads)

    def run(self, operands: Operands, out: np.ndarray, threads: int) -> None:
        """Writes the result to `out`."""
        _, kernel = self.decide(operands, threads)
        source, weight, *rest = operands.values()
        if kernel.lists:
            weight = kernel.lists
        elif isinstance(weight, PackedWeight):
            weight = weight.dense
        bias = np.ascontiguousarray(rest[0]) if rest else None
        kernel.task.run(source, weight, bias, out, kernel.threads)
        self.layout.clear_padding(out, self.problem.in_channels if self.backward else self.problem.out_channels)


@dataclass(frozen=True)
class Gradient:
    """backward_weight."""

    problem: Problem
    result: Form
    skip: str
    precision: str
    roles: dict[str, str]  # "input" and "grad_output", by what `skip` calls them
    work: dict[str, float]  # what skipping either of them costs without zeros
    dense: str  # which of them has the dense kernel's scalars
    x: Strides
    grad_output: Strides
    weight: tuple[int, ...]

    def decide(self, operands: Operands, threads: int) -> tuple[Choice, Prepared]:
        """What to skip in these arrays, and the kernel for it."""
        kernels = planning.gradient_kernels(
            self.problem, self.x, self.grad_output, self.weight, self.precision,
            planning.threads_for(self.problem, threads), _cpu.current(),
        )  # fmt: skip
        work, candidates = self.work, {}
        for (name, role), array in zip(self.roles.items(), operands.values(), strict=True):
            kernel = kernels(role, "skip")
            candidates[name] = array, work[role], work[role] * kernel.fixed
        tile_gain = kernel.tile_gain  # of either
        choice = planning.choose(self.skip, work[self.dense] / tile_gain, candidates)
        if choice.skip == "none":
            return choice, kernels(self.dense, "tiles" if tile_gain > 1 else "dense")
        kernel = kernels(self.roles[choice.skip], "skip")
        if choice.density[choice.skip] <= kernel.sparse:
            kernel = kernels(self.roles[choice.skip], "sparse")
        return choice, kernel

    def run(self, operands: Operands, out: np.ndarray, threads: int) -> None:
        """Writes the result to `out`."""
        _, kernel = self.decide(operands, threads)
        x, grad_output = operands.values()
        a, b = (grad_output, x) if kernel.scalar == "grad_output" else (x, grad_output)
        kernel.task.run(a, b, out, kernel.threads)


@dataclass(frozen=True)
class WithoutKernel:
    """What NumPy does: float64, or a result that no sum reaches."""

    problem: Problem
    result: Form
    kernel: str
    reason: str
    compute: Callable[[Operands], Any]

    def decide(self, operands: Operands, threads: int) -> tuple[Choice, Prepared]:
        """The same for all arrays."""
        return planning.no_choice(self.reason), Prepared(self.kernel, "", 1, None, {}, 0.0)

    def run(self, operands: Operands, out: np.ndarray, threads: int) -> None:
        """Writes the result to `out`."""
        out[...] = self.compute(operands)


class Call(NamedTuple):
    """One checked call: a pass and its arrays."""

    made: Rows | Gradient | WithoutKernel
    operands: Operands
    out: np.ndarray
    threads: int

    def run(self) -> np.ndarray:
        """Does it; returns the result."""
        self.made.run(self.operands, self.out, self.threads)
        return self.out

    def plan(self, operation: str) -> Plan:
        """Says what it would do."""
        choice, kernel = self.made.decide(self.operands, self.threads)
        once, each = kernel.task.scratch_bytes if kernel.task else (0, 0)
        reason = f"{choice.reason}; {kernel.note}" if kernel.note else choice.reason
        return Plan(
            operation, str(self.made.problem), kernel.name, choice.skip, choice.density, choice.speedup, reason,
            kernel.tiles, _cpu.current(), kernel.threads, once + kernel.threads * each,
        )  # fmt: skip


def rows(
    problem: Problem, layout: Layout, source: Form, weight: Form, result: Form, *, backward: bool, relu: bool,
    skip: str, scalar: str, precision: str,
) -> Rows | WithoutKernel:  # fmt: skip
    """forward or backward_data for arrays of these forms; `scalar` is what `skip` calls the source."""
    if problem.empty:
        return WithoutKernel(problem, result, "none", "nothing to sum", partial(_only_bias, layout, relu))
    return Rows(
        problem, result, layout, backward, relu, skip, scalar, precision, layout.strides(source),
        layout.strides(result), weight.steps,
    )  # fmt: skip


def gradient(
    problem: Problem, layout: Layout, x: Form, grad_output: Form, result: Form, *, skip: str, precision: str,
    roles: dict[str, str] | None = None,
) -> Gradient | WithoutKernel:  # fmt: skip
    """backward_weight for arrays of these forms; `roles` says which is which where `skip` calls them otherwise."""
    if problem.empty:
        return WithoutKernel(problem, result, "none", "nothing to sum", lambda operands: 0)
    roles = roles or {"input": "input", "grad_output": "grad_output"}
    work = {role: planning.gradient_work(problem, role) for role in roles.values()}
    dense = min(work, key=work.__getitem__)  # where fewer lanes are padding
    steps = layout.strides(x), layout.strides(grad_output), result.steps
    return Gradient(problem, result, skip, precision, roles, work, dense, *steps)


def _only_bias(layout: Layout, relu: bool, operands: Operands) -> np.ndarray | int:
    """What is left of a convolution when no input reaches any output."""
    if "bias" not in operands:
        return 0
    bias = operands["bias"]
    return layout.per_channel(np.maximum(bias, 0) if relu else bias)
