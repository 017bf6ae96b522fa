"""The three passes on checked arrays: choose a kernel, run it, or say what would run.

A pass is prepared by its function here and holds everything that the call needs; `run` does it, `plan` shows it.
conv.py, transpose.py and linear.py are faces of these three.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import _cpu, arrays, plan
from .layout import Layout
from .plan import Choice, Plan
from .problem import Problem


@dataclass(frozen=True)
class Call:
    """One prepared pass."""

    problem: Problem
    kernel: str
    choice: Choice
    tiles: dict[str, int]
    threads: int
    scratch: tuple[int, int]
    execute: Callable[[], np.ndarray]

    def run(self) -> np.ndarray:
        """Does it; returns the result."""
        return self.execute()

    def plan(self, operation: str) -> Plan:
        """Says what it would do."""
        once, each = self.scratch
        return Plan(
            operation, str(self.problem), self.kernel, self.choice.skip, self.choice.density, self.choice.speedup,
            self.choice.reason, self.tiles, _cpu.current(), self.threads, once + self.threads * each,
        )  # fmt: skip


def without_kernel(problem: Problem, kernel: str, reason: str, execute: Callable[[], np.ndarray]) -> Call:
    """A call that NumPy serves: float64, or a result that no sum reaches."""
    return Call(problem, kernel, Choice("none", {}, 1.0, reason), {}, 1, (0, 0), execute)


def rows(
    problem: Problem, backward: bool, source: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, relu: bool,
    out: np.ndarray, layout: Layout, skip: str, scalar: str, threads: int,
) -> Call:  # fmt: skip
    """forward (y from x) or backward_data (the gradient of x from that of y); `scalar` names `source` in `skip`."""
    if problem.empty:
        return without_kernel(problem, "none", "nothing to sum", lambda: _constant(out, bias, relu, layout))
    source, weight = arrays.addressable(source), arrays.addressable(weight)
    choice = plan.choose(problem, "rows", skip, {scalar: source})
    threads = plan.threads_for(problem, threads)
    dense = choice.skip == "none"
    task, tiles = plan.rows_call(
        problem, backward, layout.strides(source), layout.strides(out), _steps(weight), relu, dense, threads, _cpu.current()
    )

    def execute() -> np.ndarray:
        task.run(source, weight, bias, out, threads)
        layout.clear_padding(out, problem.in_channels if backward else problem.out_channels)
        return out

    return Call(problem, "rows_dense" if dense else "rows_skip", choice, tiles, threads, task.scratch_bytes, execute)


def gradient(
    problem: Problem, x: np.ndarray, grad_output: np.ndarray, out: np.ndarray, layout: Layout, skip: str, threads: int,
    names: dict[str, str] | None = None,
) -> Call:  # fmt: skip
    """backward_weight; `names` gives the public names of "input" and "grad_output" where they differ."""
    if problem.empty:
        return without_kernel(problem, "none", "nothing to sum", lambda: _constant(out, None, False, layout))
    x, grad_output = arrays.addressable(x), arrays.addressable(grad_output)
    names = names or {"input": "input", "grad_output": "grad_output"}
    choice = plan.choose(problem, "gradient", skip, {names["input"]: x, names["grad_output"]: grad_output})
    threads = plan.threads_for(problem, threads)
    skipped = {names["input"]: "input", names["grad_output"]: "grad_output", "none": "none"}[choice.skip]
    task, tiles = plan.gradient_call(
        problem, skipped, layout.strides(x), layout.strides(grad_output), _steps(out), threads, _cpu.current()
    )
    a, b = (grad_output, x) if skipped == "grad_output" else (x, grad_output)

    def execute() -> np.ndarray:
        task.run(a, b, out, threads)
        return out

    kernel = "gradient_dense" if skipped == "none" else "gradient_skip"
    return Call(problem, kernel, choice, tiles, threads, task.scratch_bytes, execute)


def result(
    out: object, shape: tuple[int, ...], dtype: np.dtype, inputs: dict[str, np.ndarray | None]
) -> np.ndarray:
    """`out` if it fits, or new memory for the result."""
    return arrays.empty(shape, dtype) if out is None else arrays.check_out(out, shape, dtype, inputs)


def returning(call: Call, result: np.ndarray) -> Call:
    """The same call; `run` returns `result`, whose memory it writes in another shape."""

    def execute() -> np.ndarray:
        call.execute()
        return result

    return dataclasses.replace(call, execute=execute)


def _steps(weight: np.ndarray) -> tuple[int, ...]:
    return tuple(step // weight.itemsize for step in weight.strides)


def _constant(out: np.ndarray, bias: np.ndarray | None, relu: bool, layout: Layout) -> np.ndarray:
    """What is left of a convolution when no input reaches any output: the bias."""
    out[...] = 0
    if bias is not None:
        value = np.maximum(bias, 0) if relu else bias
        if layout.kind == "blocked":
            padded = np.zeros(out.shape[1] * out.shape[-1], out.dtype)
            padded[: value.size] = value
            out[...] = padded.reshape(out.shape[1], *([1] * layout.dims), out.shape[-1])
        else:
            out[...] = value if layout.kind == "last" else value.reshape(-1, *([1] * layout.dims))
    return out
