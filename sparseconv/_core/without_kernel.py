"""Operations that NumPy does: float64, and results that no sum reaches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from .. import masks
from .arrays import Form
from .bound import Bound
from .choice import Choice, no_choice
from .layout import Layout
from .operands import KNOWN, Operands
from .problem import Problem


@dataclass(frozen=True)
class WithoutKernel:
    """An operation for whose result no kernel runs."""

    problem: Problem
    result: Form
    kernel: str  # what a plan calls it
    reason: str
    compute: Callable[[Operands, float], Any]  # of operands and threshold
    layout: Layout | None = None  # of a result whose output_mask is left to `run`

    def decide(self, operands: Operands, threads: int, threshold: float) -> tuple[Choice, Bound]:
        """The same for all arrays."""
        return no_choice(self.reason), Bound(self.kernel, 1, None, {})

    def run(self, operands: Operands, out: np.ndarray, threads: int, threshold: float, return_mask: bool) -> None:
        """Writes the result to `out`."""
        out[...] = self.compute(operands, threshold)
        if self.layout and "output_mask" in operands:
            masks.keep(out, self.layout.over_channels(operands["output_mask"], out.ndim))


def reference(name: str, problem: Problem, result: Form, **options: Any) -> WithoutKernel:
    """float64, computed by the function of this name of reference.py."""
    from .. import reference  # 4 ms that float32 users need not spend

    function = getattr(reference, name)

    def compute(operands: Operands, threshold: float) -> np.ndarray:
        arrays = {name: array for name, array in operands.items() if name not in KNOWN}
        return function(**arrays, threshold=threshold, **options)

    return WithoutKernel(problem, result, "reference", "float64 is computed in NumPy", compute)


def without_sums(problem: Problem, result: Form, layout: Layout, channels: int, relu: bool) -> WithoutKernel:
    """What is left of a convolution when no input reaches any output: bias and residual."""
    return WithoutKernel(problem, result, "none", "nothing to sum", partial(_left, layout, channels, relu), layout)


def _left(
    layout: Layout, channels: int, relu: bool, operands: Operands, threshold: float
) -> np.ndarray | np.float32:  # fmt: skip
    left = _flushed(layout.per_channel(operands["bias"])) if "bias" in operands else np.float32(0)
    with np.errstate(all="ignore"):  # as in the kernels
        if "residual" in operands:
            left = _flushed(left + _flushed(operands["residual"]))
            layout.clear_padding(left, channels)
        return np.maximum(left, 0) if relu else left


def _flushed(array: np.ndarray) -> np.ndarray:
    """Denormals as kernels take them."""
    return np.where(np.abs(array) < np.finfo(array.dtype).tiny, array.dtype.type(0), array)
