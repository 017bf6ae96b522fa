"""Convolutions whose x is zeros and ones: kernels that add weights, or those of floats where these are faster."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import _masks
from .arrays import FLOAT, Form, inverse
from .bound import Bound
from .choice import Choice
from .gradient import Gradient
from .operands import INPUT, SPIKES, Operand, Operands
from .problem import Problem
from .rows import Rows
from .without_kernel import WithoutKernel

SKIPS = ("auto", "input")  # what the adding kernels can be asked for


@dataclass(frozen=True)
class Spiking:
    """An operation whose x is bools or bits."""

    adding: Rows | Gradient | None  # reads them as they are; None where `skip` asks for something else
    floats: Rows | Gradient  # of x as float32, in the order of its memory
    shape: tuple[int, ...]  # of x
    axes: tuple[int, ...]  # in the order of memory
    result: Form

    @property
    def problem(self) -> Problem:
        """The sizes."""
        return self.floats.problem

    def decide(self, operands: Operands, threads: int, threshold: float) -> tuple[Choice, Bound]:
        """What to skip in these arrays, and the kernel for it."""
        return self._settled(operands, threads, threshold)[2:]

    def _settled(
        self, operands: Operands, threads: int, threshold: float
    ) -> tuple[Rows | Gradient, Operands, Choice, Bound]:
        """Which of the two operations it is, its operands, and what it decided."""
        if self.adding is not None:
            choice, kernel = self.adding.decide(operands, threads, threshold)
            if choice.skip == INPUT.skip:
                return self.adding, operands, choice, kernel
        operands = self._with_floats(operands)
        return self.floats, operands, *self.floats.decide(operands, threads, threshold)

    def run(
        self, operands: Operands, out: np.ndarray, threads: int, threshold: float, return_mask: bool
    ) -> np.ndarray | None:
        """Writes the result to `out`; returns its mask, if it is wanted and the kernel can write it."""
        operation, operands, _, kernel = self._settled(operands, threads, threshold)
        # Not decided anew: another kernel of `adding` than this one would read bools or bits as floats.
        return operation.run(operands, out, threads, threshold, return_mask, kernel)

    def _with_floats(self, operands: Operands) -> Operands:
        spikes = operands[INPUT.name]
        if spikes.dtype == np.uint8:
            bools = np.empty(math.prod(self.shape), np.bool_)
            _masks.unpack(spikes, bools.size, bools.view(np.uint8))
            spikes = bools
        floats = np.empty([self.shape[axis] for axis in self.axes], FLOAT).transpose(inverse(self.axes))
        np.copyto(floats, spikes.reshape(self.shape))  # linear layers have rows of any dimensions
        return operands | {INPUT.name: floats}


def prepared(
    x: Form, skip: str, make: Callable[[Form, Operand, Form | None], Rows | Gradient | WithoutKernel]
) -> Spiking | WithoutKernel:
    """The operation for x of this form; `make` prepares it for a form, what x is called, and what is known of it."""
    axes = tuple(sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis]) if x.shape[axis] > 1 else -math.inf))
    steps, size = [0] * x.ndim, FLOAT.itemsize
    for axis in reversed(axes):
        steps[axis], size = size, size * x.shape[axis]
    floats = make(Form(x.shape, tuple(steps), FLOAT), INPUT, None)
    if isinstance(floats, WithoutKernel):
        return floats
    adding = make(x, SPIKES, x) if skip in SKIPS else None
    assert not isinstance(adding, WithoutKernel)
    return Spiking(adding, floats, x.shape, axes, floats.result)
