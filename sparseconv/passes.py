"""The three passes on checked arrays: choose a kernel, run it, or say what would run.

A pass is prepared by its function here and holds everything that the call needs; `run` does it, `plan` shows it.
conv.py, transpose.py and linear.py are faces of these three.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import _cpu, arrays, planning
from .layout import Layout
from .planning import Candidate, Choice, Plan
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
    out: np.ndarray, layout: Layout, skip: str, scalar: str, threads: int, precision: str,
) -> Call:  # fmt: skip
    """forward (y from x) or backward_data (the gradient of x from that of y); `scalar` names `source` in `skip`."""
    if problem.empty:
        return without_kernel(problem, "none", "nothing to sum", lambda: _constant(out, bias, relu, layout))
    source, weight = arrays.addressable(source), arrays.addressable(weight)
    threads = planning.threads_for(problem, threads)
    key = (problem, backward, layout.strides(source), layout.strides(out), _steps(weight), relu)
    call = planning.rows_call(*key, "skip", threads, _cpu.current())
    unskipped = planning.dense_rows(problem, backward, precision)
    choice = planning.choose(skip, 1.0 / unskipped.gain, [Candidate(scalar, source, 1.0, call.fixed)])
    choice, dense = unskipped.explained(choice), choice.skip == "none"
    if dense:
        call = planning.rows_call(*key, unskipped.kind, threads, _cpu.current(), unskipped.parts)
    elif choice.density[scalar] <= planning.SPARSE:
        call = planning.rows_call(*key, "sparse", threads, _cpu.current())
    task, tiles, _ = call

    def execute() -> np.ndarray:
        task.run(source, weight, bias, out, threads)
        layout.clear_padding(out, problem.in_channels if backward else problem.out_channels)
        return out

    kernel = f"rows_{unskipped.kind if dense else 'skip'}"
    return Call(problem, kernel, choice, tiles, threads, task.scratch_bytes, execute)


def gradient(
    problem: Problem, x: np.ndarray, grad_output: np.ndarray, out: np.ndarray, layout: Layout, skip: str, threads: int,
    precision: str, names: dict[str, str] | None = None,
) -> Call:  # fmt: skip
    """backward_weight; `names` gives the public names of "input" and "grad_output" where they differ."""
    if problem.empty:
        return without_kernel(problem, "none", "nothing to sum", lambda: _constant(out, None, False, layout))
    x, grad_output = arrays.addressable(x), arrays.addressable(grad_output)
    names = names or {"input": "input", "grad_output": "grad_output"}
    threads = planning.threads_for(problem, threads)
    strides = (layout.strides(x), layout.strides(grad_output), _steps(out), threads, _cpu.current())
    work = {role: planning.gradient_work(problem, role) for role in names}
    calls = {role: planning.gradient_call(problem, role, False, *strides) for role in names}
    operands = {"input": x, "grad_output": grad_output}
    scalar = min(work, key=work.__getitem__)  # of the dense kernel: where fewer lanes are padding
    unskipped = planning.dense_gradient(problem, precision)
    choice = planning.choose(
        skip,
        work[scalar] / unskipped.gain,
        [Candidate(name, operands[role], work[role], work[role] * calls[role].fixed) for role, name in names.items()],
    )
    choice, dense = unskipped.explained(choice), choice.skip == "none"
    if not dense:
        scalar = next(role for role, name in names.items() if name == choice.skip)
    if dense:
        task, tiles, _ = planning.gradient_call(problem, scalar, True, *strides, unskipped.parts)
    else:
        task, tiles, _ = calls[scalar]
    a, b = (grad_output, x) if scalar == "grad_output" else (x, grad_output)

    def execute() -> np.ndarray:
        task.run(a, b, out, threads)
        return out

    kernel = f"gradient_{unskipped.kind if dense else 'skip'}"
    return Call(problem, kernel, choice, tiles, threads, task.scratch_bytes, execute)


def result(out: object, shape: tuple[int, ...], dtype: np.dtype, inputs: dict[str, np.ndarray | None]) -> np.ndarray:
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
