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

from . import _conv, _cpu, lines, masks, packed, planning
from .arrays import Form
from .layout import BLOCK, Layout, Strides
from .packed import PackedWeight
from .planning import Candidate, Choice, Mask, Plan, Prepared
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
    needed: Mask | None
    live: Mask | None  # of the source
    mask_in_order: bool  # the kernels write whole vectors in the order of the result's mask

    def decide(self, operands: Operands, threads: int, threshold: float) -> tuple[Choice, Prepared]:
        """What to skip in these arrays, and the kernel for it."""
        source, weight, *_ = operands.values()
        kernels = planning.rows_kernels(
            self.problem, self.backward, self.source, self.target, self.weight, self.needed, self.live, self.relu,
            self.precision, planning.threads_for(self.problem, threads), _cpu.current(),
        )  # fmt: skip
        kernel = kernels("skip")
        seen = operands.get(f"{self.scalar}_mask", source)
        masking = planning.masking_cost(self.problem, self.backward) if self.needed else 0.0
        candidates = {self.scalar: Candidate(seen, kernel.each, kernel.fixed + masking)}
        if self.needed:
            output = kernels("output")
            candidates["output"] = Candidate(operands["output_mask"], output.each, output.fixed)
        self._consider_weight(candidates, weight, kernels)
        skip = self.scalar if threshold and self.skip == "auto" else self.skip
        choice = planning.choose(skip, 1.0 / kernel.tile_gain + masking, candidates, threshold)
        if choice.skip == "weight":
            skipping = kernels("sparse weight" if choice.density["weight"] <= planning.WEIGHT_SPARSE else "weight")
            lists = self._lists(weight, skipping.threads)
            if lists.finite:
                return choice, skipping._replace(lists=lists)
            choice = planning.no_choice("Inf or NaN among the weights")
        if choice.skip == "none":
            return choice, kernels("tiles" if kernel.tile_gain > 1 else "dense")
        if choice.skip == "output":
            return choice, kernels("output")
        return choice, kernels("sparse") if choice.density[self.scalar] <= kernel.sparse else kernel

    def _consider_weight(
        self, candidates: dict[str, Candidate], weight: np.ndarray | PackedWeight, kernels: Callable[[str], Prepared]
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
        masking = 7 * planning.masking_cost(self.problem, self.backward) if self.needed else 0.0  # in NumPy
        candidates["weight"] = Candidate(density, kernel.each, kernel.fixed + packing + masking)

    def _lists(self, weight: np.ndarray | PackedWeight, threads: int) -> _conv.Lists:
        """The nonzeros of the weights: kept by a packed weight, made for the call from an array."""
        classes = lines.tap_classes(self.problem, self.backward)
        if isinstance(weight, PackedWeight):
            return weight.lists(self.backward, classes)
        return packed.nonzero_lists(weight, self.problem.groups, self.backward, classes, threads)

    def run(
        self, operands: Operands, out: np.ndarray, threads: int, threshold: float, return_mask: bool
    ) -> np.ndarray | None:
        """Writes the result to `out`; returns its mask, if it is wanted and the kernel can write it."""
        _, kernel = self.decide(operands, threads, threshold)
        source, weight, *_ = operands.values()
        bias = np.ascontiguousarray(operands["bias"]) if "bias" in operands else None
        needed, mask = operands.get("output_mask"), None
        if kernel.lists:
            kernel.task.run(source, kernel.lists, bias, out, kernel.threads)
            if needed is not None:
                masks.keep(out, needed)
        else:
            if return_mask and self.mask_in_order and not kernel.tiles["parts"]:
                mask = np.empty(-(-out.size // 8), np.uint8)
            dense = weight.dense if isinstance(weight, PackedWeight) else weight
            live = operands.get(f"{self.scalar}_mask")
            kernel.task.run(source, dense, bias, out, kernel.threads, threshold, mask, needed, live)
        self.layout.clear_padding(out, self.problem.in_channels if self.backward else self.problem.out_channels)
        return mask


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
    live: tuple[Mask | None, Mask | None]  # of x and of grad_output

    def decide(self, operands: Operands, threads: int, threshold: float) -> tuple[Choice, Prepared]:
        """What to skip in these arrays, and the kernel for it."""
        pairs = _needed_pairs(operands)
        choice, kernel = self._decide(operands, pairs, threads, threshold)
        if "output_mask" in operands:
            choice = choice._replace(needed=1.0 if pairs is None else kernel.task.needed(pairs))
        return choice, kernel

    def _decide(
        self, operands: Operands, pairs: np.ndarray | None, threads: int, threshold: float
    ) -> tuple[Choice, Prepared]:
        kernels = planning.gradient_kernels(
            self.problem, self.x, self.grad_output, self.weight, self.live, self.precision,
            planning.threads_for(self.problem, threads), _cpu.current(),
        )  # fmt: skip
        candidates = {}
        for (name, role), array in zip(self.roles.items(), operands.values(), strict=False):
            kernel = kernels(role, "skip")
            work = self.work[role]
            if pairs is not None:
                work *= planning.needed_share(kernel, pairs)
            seen = operands.get(f"{name}_mask", array)
            candidates[name] = Candidate(seen, work * kernel.each, work * kernel.fixed)
        variant = "tiles" if kernel.tile_gain > 1 else "dense"  # the gain is that of either role
        dense, least = self.dense, self.work[self.dense]
        if pairs is not None:
            masked = {
                role: work * planning.needed_share(kernels(role, variant), pairs) for role, work in self.work.items()
            }
            dense = min(masked, key=masked.__getitem__)
            least = masked[dense]
        skip = "input" if threshold and self.skip == "auto" else self.skip
        choice = planning.choose(skip, least / kernel.tile_gain, candidates, threshold)
        if choice.skip == "none":
            return choice, kernels(dense, variant)
        kernel = kernels(self.roles[choice.skip], "skip")
        if choice.density[choice.skip] <= kernel.sparse:
            kernel = kernels(self.roles[choice.skip], "sparse")
        return choice, kernel

    def run(self, operands: Operands, out: np.ndarray, threads: int, threshold: float, return_mask: bool) -> None:
        """Writes the result to `out`."""
        pairs = _needed_pairs(operands)
        _, kernel = self._decide(operands, pairs, threads, threshold)
        x, grad_output, *_ = operands.values()
        a, b = (grad_output, x) if kernel.scalar == "grad_output" else (x, grad_output)
        name = next(name for name, role in self.roles.items() if role == kernel.scalar)
        live = operands.get(f"{name}_mask")
        kernel.task.run(a, b, out, kernel.threads, threshold, operands.get("output_mask"), pairs, live)


@dataclass(frozen=True)
class WithoutKernel:
    """What NumPy does: float64, or a result that no sum reaches."""

    problem: Problem
    result: Form
    kernel: str
    reason: str
    compute: Callable[[Operands, float], Any]  # of operands and threshold

    def decide(self, operands: Operands, threads: int, threshold: float) -> tuple[Choice, Prepared]:
        """The same for all arrays."""
        return planning.no_choice(self.reason), Prepared(self.kernel, "", 1, None, {}, 0.0, 0.0)

    def run(self, operands: Operands, out: np.ndarray, threads: int, threshold: float, return_mask: bool) -> None:
        """Writes the result to `out`."""
        out[...] = self.compute(operands, threshold)


class Call(NamedTuple):
    """One checked call: a pass and its arrays."""

    made: Rows | Gradient | WithoutKernel
    operands: Operands
    out: np.ndarray
    threads: int
    threshold: float
    return_mask: bool = False

    def run(self) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Does it; returns the result, and its mask if that is wanted."""
        mask = self.made.run(self.operands, self.out, self.threads, self.threshold, self.return_mask)
        if not self.return_mask:
            return self.out
        return self.out, masks.nonzero_mask(self.out) if mask is None else mask

    def plan(self, operation: str) -> Plan:
        """Says what it would do."""
        choice, kernel = self.made.decide(self.operands, self.threads, self.threshold)
        once, each = kernel.task.scratch_bytes if kernel.task else (0, 0)
        reason = f"{choice.reason}; {kernel.note}" if kernel.note else choice.reason
        return Plan(
            operation, str(self.made.problem), kernel.name, choice.skip, choice.density, choice.speedup, reason,
            kernel.tiles, _cpu.current(), kernel.threads, once + kernel.threads * each,
        )  # fmt: skip


def rows(
    problem: Problem, layout: Layout, source: Form, weight: Form, result: Form, *, backward: bool, skip: str,
    scalar: str, precision: str, relu: bool = False, needed: Form | None = None, live: Form | None = None,
) -> Rows | WithoutKernel:  # fmt: skip
    """forward or backward_data for arrays of these forms; `scalar` is what `skip` calls the source."""
    if problem.empty:
        return WithoutKernel(problem, result, "none", "nothing to sum", partial(_only_bias, layout, relu))
    target = layout.strides(result)
    lanes = (problem.in_channels if backward else problem.out_channels) // problem.groups
    mask_in_order = relu and lanes % BLOCK == 0 and target.contiguous_channels and result.c_contiguous
    return Rows(
        problem, result, layout, backward, relu, skip, scalar, precision, layout.strides(source), target, weight.steps,
        _mask(layout, needed), _mask(layout, live), mask_in_order,
    )  # fmt: skip


def gradient(
    problem: Problem, layout: Layout, x: Form, grad_output: Form, result: Form, *, skip: str, precision: str,
    live: tuple[Form | None, Form | None] = (None, None), roles: dict[str, str] | None = None,
) -> Gradient | WithoutKernel:  # fmt: skip
    """backward_weight for arrays of these forms; `roles` says which is which where `skip` calls them otherwise."""
    if problem.empty:
        return WithoutKernel(problem, result, "none", "nothing to sum", lambda operands, threshold: 0)
    roles = roles or {"input": "input", "grad_output": "grad_output"}
    work = {role: planning.gradient_work(problem, role) for role in roles.values()}
    dense = min(work, key=work.__getitem__)  # where fewer lanes are padding
    steps = layout.strides(x), layout.strides(grad_output), result.steps
    masks_of = _mask(layout, live[0]), _mask(layout, live[1])
    return Gradient(problem, result, skip, precision, roles, work, dense, *steps, masks_of)


def _mask(layout: Layout, mask: Form | None) -> Mask | None:
    """Where a mask of this form in this layout has its elements."""
    return None if mask is None else Mask(layout.strides(mask), mask.dtype.char)


def _needed_pairs(operands: Operands) -> np.ndarray | None:
    """The (out channel, in channel) pairs that output_mask needs, if there is one that leaves any out."""
    mask = operands.get("output_mask")
    return None if mask is None else masks.needed_pairs(mask)


def _only_bias(layout: Layout, relu: bool, operands: Operands, threshold: float) -> np.ndarray | int:
    """What is left of a convolution when no input reaches any output."""
    if "bias" not in operands:
        return 0
    bias = operands["bias"]
    return layout.per_channel(np.maximum(bias, 0) if relu else bias)
