"""The three passes: everything of a call that does not depend on what its arrays contain, and how it then runs.

A pass is made once for arrays of given forms (prepare.py) and kept. `decide` looks at the arrays of a call and says
what runs, `run` does it. A `Call` is a pass with its arrays. conv.py, transpose.py and linear.py are faces of these.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from math import inf
from typing import Any, NamedTuple

import numpy as np

from .. import masks, packed
from ..packed import PackedWeight
from . import _cpu, _weights, binding, caches, lines, processor, reduction
from .arrays import Form
from .binding import Epilogue, Mask, Prepared
from .choice import (
    NOTHING,
    WEIGHT_MACS,
    WEIGHT_PAYS,
    Candidate,
    Choice,
    Plan,
    choose,
    no_choice,
    packing_cost,
    threads_for,
    weight_density,
)
from .layout import BLOCK, Layout
from .problem import Problem
from .reduction import Reduced

Operands = dict[str, Any]  # arrays, and packed weights, by their public names, in the order of the public function
KNOWN_ZEROS = {"input": "input_mask", "grad_output": "grad_output_mask"}  # masks that say what is there anyway
BOUND = 16  # numbers of threads and instruction sets for which a pass keeps its kernels at hand


@dataclass(frozen=True)
class Rows:
    """forward (y from x) or backward_data (the gradient of x from that of y)."""

    problem: Problem
    result: Form
    layout: Layout
    backward: bool
    skip: str
    scalar: str  # what `skip` calls the source
    mask_in_order: bool  # the kernels write whole vectors in the order of the result's mask
    pads: bool  # the result has lanes that are no channels
    weighs: bool  # the work is worth a look at plain weights
    kernels: Callable[[int, str], Callable[[str], Prepared]]  # by threads and instruction set, and by variant

    def decide(self, operands: Operands, threads: int, threshold: float) -> tuple[Choice, Prepared]:
        """What to skip in these arrays, and the kernel for it."""
        kernels = self.kernels(threads_for(self.problem, threads), _cpu.current())
        if self.skip == "none":
            return NOTHING, kernels("dense")
        source = next(iter(operands.values()))
        kernel = kernels("skip")
        candidates = {self.scalar: (operands.get(KNOWN_ZEROS[self.scalar], source), kernel.each, kernel.fixed)}
        if "output_mask" in operands:
            output = kernels("output")
            candidates["output"] = operands["output_mask"], output.each, output.fixed
        weight = operands["weight"]
        if self.skip == "weight" or (self.skip == "auto" and (self.weighs or isinstance(weight, PackedWeight))):
            self._consider_weight(candidates, operands, kernels)
        skip = self.scalar if threshold and self.skip == "auto" else self.skip
        choice = choose(skip, kernel.dense, candidates, threshold)
        if choice.skip == "weight":
            skipping = kernels("sparse weight" if choice.density["weight"] <= binding.WEIGHT_SPARSE else "weight")
            lists = self._lists(weight, skipping.threads)
            if lists.finite:
                return choice, skipping._replace(lists=lists)
            choice = no_choice("Inf or NaN among the weights")
        if choice.skip == "none":
            return choice, kernels("dense")
        if choice.skip == "output":
            return choice, kernels("output")
        return choice, kernels("sparse") if choice.density[self.scalar] <= kernel.sparse else kernel

    def _consider_weight(
        self, candidates: dict[str, Candidate], operands: Operands, kernels: Callable[[str], Prepared]
    ) -> None:
        """Adds what `choose` asks of skipping zero weights, where that may pay."""
        weight = operands["weight"]
        is_packed = isinstance(weight, PackedWeight)
        density = weight.density if is_packed else weight_density(weight)
        if density > WEIGHT_PAYS and self.skip == "auto":
            return
        kernel = kernels("sparse weight" if density <= binding.WEIGHT_SPARSE else "weight")
        packing = 0 if is_packed else packing_cost(self.problem, self.backward) / processor.dense_cycles()
        masked = "output_mask" in operands
        masking = 7 * binding.masking_cost(self.problem, self.backward) if masked else 0.0  # in NumPy
        candidates["weight"] = density, kernel.each, kernel.fixed + packing + masking

    def _lists(self, weight: np.ndarray | PackedWeight, threads: int) -> _weights.Lists:
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
        source, weight = next(iter(operands.values())), operands["weight"]
        bias = kernel.bias(operands.get("bias"))
        needed, residual, mask = operands.get("output_mask"), operands.get("residual"), None
        if kernel.lists:
            kernel.task.run(source, kernel.lists, bias, out, kernel.threads, residual)
        else:
            if return_mask and self.mask_in_order and not kernel.tiles["parts"]:
                mask = np.empty(-(-out.size // 8), np.uint8)
            dense = weight.dense if isinstance(weight, PackedWeight) else weight
            live = operands.get(KNOWN_ZEROS[self.scalar])
            kernel.task.run(source, dense, bias, out, kernel.threads, threshold, mask, needed, live, residual)
        if needed is not None and not kernel.masks_result:
            masks.keep(out, self.layout.over_channels(needed, out.ndim))
        if self.pads:
            self.layout.clear_padding(out, self.problem.in_channels if self.backward else self.problem.out_channels)
        return mask


# What `skip` calls an operand, its mask of known zeros, its role; `each`, `fixed` and `dense` of its skipping kernel.
OperandCosts = tuple[str, str, str, float, float, float]


@dataclass(frozen=True)
class Gradient:
    """backward_weight."""

    problem: Problem
    result: Form
    skip: str
    roles: dict[str, str]  # "input" and "grad_output", by what `skip` calls them: themselves, or each other
    reduced: Reduced
    # By threads and instruction set: the kernels by role and variant, and the costs of each operand's skipping kernel.
    kernels: Callable[[int, str], tuple[Callable[[str, str], Prepared], tuple[OperandCosts, ...]]]

    def decide(self, operands: Operands, threads: int, threshold: float) -> tuple[Choice, Prepared]:
        """What to skip in these arrays, and the kernel for it."""
        _, pairs = self._needed(operands)
        choice, kernel = self._decide(operands, pairs, threads, threshold)
        if "output_mask" in operands:
            choice = choice._replace(needed=1.0 if pairs is None else kernel.task.needed(pairs))
        return choice, kernel

    def _needed(self, operands: Operands) -> tuple[np.ndarray | None, np.ndarray | None]:
        """The elements and the (out channel, in channel) pairs that output_mask, if there is one, needs."""
        if "output_mask" not in operands:
            return None, None
        needed = self.reduced.of_weight(masks.bools(operands["output_mask"], self.result.shape))
        return needed, masks.needed_pairs(needed)

    def _decide(
        self, operands: Operands, pairs: np.ndarray | None, threads: int, threshold: float
    ) -> tuple[Choice, Prepared]:
        kernels, costs = self.kernels(threads_for(self.problem, threads), _cpu.current())
        candidates, dense, least = {}, "", inf
        for (name, known, role, each, fixed, by_dense), array in zip(costs, operands.values(), strict=False):
            if pairs is not None:
                share = binding.needed_share(kernels(role, "skip"), pairs)
                each, fixed = share * each, share * fixed
                by_dense *= binding.needed_share(kernels(role, "dense"), pairs)
            candidates[name] = operands.get(known, array), each, fixed
            if by_dense < least:
                dense, least = role, by_dense
        skip = "input" if threshold and self.skip == "auto" else self.skip
        choice = choose(skip, least, candidates, threshold)
        if choice.skip == "none":
            return choice, kernels(dense, "dense")
        kernel = kernels(self.roles[choice.skip], "skip")
        if choice.density[choice.skip] <= kernel.sparse:
            kernel = kernels(kernel.scalar, "sparse")
        return choice, kernel

    def run(self, operands: Operands, out: np.ndarray, threads: int, threshold: float, return_mask: bool) -> None:
        """Writes the result to `out`."""
        needed, pairs = self._needed(operands)
        _, kernel = self._decide(operands, pairs, threads, threshold)
        x, grad_output, *_ = operands.values()
        a, b = (grad_output, x) if kernel.scalar == "grad_output" else (x, grad_output)
        live = operands.get(KNOWN_ZEROS[self.roles[kernel.scalar]])
        if self.reduced.cut:
            out.fill(0)  # also the taps that meet nothing
        kernel.task.run(a, b, out, kernel.threads, threshold, needed, pairs, live)
        if needed is not None and not kernel.masks_result:
            out[~masks.bools(operands["output_mask"], self.result.shape)] = 0


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
        return no_choice(self.reason), Prepared(self.kernel, "", 1, None, {}, 0.0, 0.0)

    def run(self, operands: Operands, out: np.ndarray, threads: int, threshold: float, return_mask: bool) -> None:
        """Writes the result to `out`."""
        out[...] = self.compute(operands, threshold)


def run(
    made: Rows | Gradient | WithoutKernel, operands: Operands, out: np.ndarray, threads: int, threshold: float,
    return_mask: bool = False, guard: _weights.Guard | None = None,
) -> Any:  # fmt: skip
    """Does a checked call, whose parts `Call` names; returns the result, and its mask if that is wanted."""
    if guard is None:
        mask = made.run(operands, out, threads, threshold, return_mask)
    else:
        with guard:
            mask = made.run(operands, out, threads, threshold, return_mask)
    if caches.full:
        caches.empty()
    if not return_mask:
        return out
    return out, masks.nonzero_mask(out) if mask is None else mask


class Call(NamedTuple):
    """One checked call: a pass and its arrays."""

    made: Rows | Gradient | WithoutKernel
    operands: Operands
    out: np.ndarray
    threads: int
    threshold: float
    return_mask: bool = False
    guard: _weights.Guard | None = None  # of a packed weight, which must not change meanwhile

    def run(self) -> Any:
        """Does it; returns the result, and its mask if that is wanted."""
        return run(*self)

    def decide(self) -> tuple[Choice, Prepared]:
        """What it would skip, and the kernel for it."""
        with self.guard or contextlib.nullcontext():
            decided = self.made.decide(self.operands, self.threads, self.threshold)
        if caches.full:
            caches.empty()
        return decided

    def plan(self, operation: str, decided: tuple[Choice, Prepared] | None = None) -> Plan:
        """Says what it would do, if that is not decided yet."""
        choice, kernel = decided or self.decide()
        once, each = kernel.task.scratch_bytes if kernel.task else (0, 0)
        reason = f"{choice.reason}; {kernel.note}" if kernel.note else choice.reason
        return Plan(
            operation, str(self.made.problem), kernel.name, choice.skip, choice.density, choice.speedup, reason,
            kernel.tiles, _cpu.current(), kernel.threads, once + kernel.threads * each,
        )  # fmt: skip


def rows(
    problem: Problem, layout: Layout, source: Form, weight: Form, result: Form, *, backward: bool, skip: str,
    scalar: str, precision: str, relu: bool = False, residual: Form | None = None, needed: Form | None = None,
    live: Form | None = None,
) -> Rows | WithoutKernel:  # fmt: skip
    """forward or backward_data for arrays of these forms; `scalar` is what `skip` calls the source."""
    channels = problem.in_channels if backward else problem.out_channels
    if problem.empty:
        return WithoutKernel(problem, result, "none", "nothing to sum", partial(_without_sums, layout, channels, relu))
    source, target = layout.strides(source), layout.strides(result)
    added = residual and layout.strides(residual)
    in_vectors = target.contiguous_channels and (added is None or added.contiguous_channels)
    mask_in_order = relu and channels // problem.groups % BLOCK == 0 and in_vectors and result.c_contiguous
    masks_of = _mask(layout, needed), _mask(layout, live)
    bound_to = problem, backward, source, target, weight.steps, *masks_of, Epilogue(relu, added), precision
    kernels = partial(binding.rows_kernels, *bound_to)
    pads = layout.pads(channels)
    weighs = problem.met_macs >= WEIGHT_MACS
    return Rows(
        problem, result, layout, backward, skip, scalar, mask_in_order, pads, weighs, lru_cache(BOUND)(kernels)
    )


def gradient(
    problem: Problem, layout: Layout, x: Form, grad_output: Form, result: Form, *, names: tuple[str, str], skip: str,
    precision: str, live: tuple[Form | None, Form | None],
) -> Gradient | WithoutKernel:  # fmt: skip
    """backward_weight for arrays of these forms; `names` is what `skip` calls them."""
    if problem.empty:
        return WithoutKernel(problem, result, "none", "nothing to sum", lambda operands, threshold: 0)
    roles = dict(zip(names, ("input", "grad_output"), strict=True))
    live_masks = _mask(layout, live[0]), _mask(layout, live[1])
    x_places = layout.strides(x), live_masks[0] and live_masks[0].strides
    grad_places = layout.strides(grad_output), live_masks[1] and live_masks[1].strides
    made = reduction.simplified(Reduced(problem, x_places, grad_places, result.steps))
    found = zip(live_masks, (made.x[1], made.y[1]), strict=True)
    masks_of = tuple(mask and mask._replace(strides=strides) for mask, strides in found)
    steps = made.x[0], made.y[0], made.weight, made.offset

    @lru_cache(BOUND)
    def kernels(threads: int, isa: str) -> tuple[Callable[[str, str], Prepared], tuple[OperandCosts, ...]]:
        bound = binding.gradient_kernels(made.problem, *steps, masks_of, precision, threads, isa)
        costs = []
        for name, role in roles.items():
            kernel = bound(role, "skip")
            costs.append((name, KNOWN_ZEROS[name], role, kernel.each, kernel.fixed, kernel.dense))
        return bound, tuple(costs)

    return Gradient(problem, result, skip, roles, made, kernels)


def _mask(layout: Layout, mask: Form | None) -> Mask | None:
    """Where a mask of this form in this layout has its elements."""
    return None if mask is None else Mask(layout.strides(mask), mask.dtype.char)


def _without_sums(
    layout: Layout, channels: int, relu: bool, operands: Operands, threshold: float
) -> np.ndarray | np.float32:
    """What is left of a convolution when no input reaches any output: bias and residual."""
    left = _flushed(layout.per_channel(operands["bias"])) if "bias" in operands else np.float32(0)
    with np.errstate(all="ignore"):  # as in the kernels
        if "residual" in operands:
            left = _flushed(left + _flushed(operands["residual"]))
            layout.clear_padding(left, channels)
        return np.maximum(left, 0) if relu else left


def _flushed(array: np.ndarray) -> np.ndarray:
    """Denormals as kernels take them."""
    return np.where(np.abs(array) < np.finfo(array.dtype).tiny, array.dtype.type(0), array)
