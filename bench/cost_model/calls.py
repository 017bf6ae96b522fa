"""What a call does: the kernel and the blocks that the library would take on a CPU, counted."""

import dataclasses
import math
from functools import cache
from typing import Any, NamedTuple

from sparseconv._core import operations
from sparseconv._core.arrays import FLOAT, contiguous
from sparseconv.benchmark.layers import Layer

from . import gradient, rows
from .processors import Processor

PASSES = ("forward", "backward_data", "backward_weight")
BATCH = 16  # of all stored times
CONSTANTS = {"rows": rows.CONSTANTS, "gradient": gradient.CONSTANTS}


class Work(NamedTuple):
    """What a call does: how often, by the names of `CONSTANTS[family]`."""

    family: str
    kernel: str
    counts: dict[str, float]
    items: int  # independent pieces of work, which threads share
    bytes: float  # that go to memory or come from there, if no cache keeps them
    threads: int


@cache
def _operation(layer: Layer, which: str, batch: int, processor: Processor) -> Any:
    """The library's own prepared operation, channels last; it keeps the kernels that are bound for this CPU."""
    x = contiguous((batch, *layer.in_size, layer.in_c), FLOAT)
    y = contiguous((batch, *layer.out_size, layer.out_c), FLOAT)
    weight = contiguous(layer.weight_shape, FLOAT)
    options = {"layout": "NHWC", "out": None, **layer.options}
    if which == "backward_weight":
        return operations.conv_backward_weight(2, x, y, kernel_size=layer.kernel, **options)
    if which == "forward":
        made = operations.conv(2, x, weight, **options)
    else:
        made = operations.conv_backward_data(2, y, weight, input_shape=x.shape, **options)
    return dataclasses.replace(made, looks_at_weights=False)  # they have no zeros


def work(layer: Layer, which: str, zeros: float, processor: Processor, threads: int = 1, batch: int = BATCH) -> Work:
    """What a call with `skip="auto"` does on a CPU.

    `zeros` is the share of zeros, at random places, of x, and in backward_data of the gradient of y. The layer has no
    groups, and its own batch is not looked at.
    """
    if which not in PASSES:
        raise ValueError(f"pass: got {which!r}, expected {', '.join(PASSES)}")
    if not 0 <= zeros <= 1:
        raise ValueError(f"zeros: got {zeros}, expected a share from 0 to 1")
    if min(threads, batch) < 1:
        raise ValueError(f"threads, batch: got {threads} and {batch}, expected at least 1")
    if layer.groups != 1:
        raise ValueError(f"layer: got {layer}, expected one without groups")
    layer = dataclasses.replace(layer, batch=None)
    density = round(1.0 - zeros, 9)  # 0.15 for 0.85: the library compares with such numbers
    operands = {"x": density, "grad_output": 1.0 if which == "backward_weight" else density, "weight": 1.0}
    with processor.simulated():
        kernel = _operation(layer, which, batch, processor).decide(operands, threads, 0.0)[1]
    problem = layer.problem(batch)
    if problem.pointwise:  # all positions are one long row
        size = 1, batch * math.prod(problem.in_size)
        problem = dataclasses.replace(problem, batch=1, in_size=size, out_size=size)
    if which == "backward_weight":
        family, counted = "gradient", gradient.count(problem, density, kernel, processor)
    else:
        family, counted = "rows", rows.count(problem, which == "backward_data", density, kernel, processor)
    return Work(family, kernel.kernel, *counted, kernel.threads)
