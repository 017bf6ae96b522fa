"""Arrays for a layer, with zeros at random places or as a training step left them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sparseconv.benchmark.layers import Layer

__all__ = ["MASKS", "PASSES", "SPARSE_OPERANDS", "ZEROS_IN", "Operands", "random_operands"]

SPARSE_OPERANDS = {
    "forward": ("input",),
    "backward_data": ("grad_output",),
    "backward_weight": ("input", "grad_output"),
}
PASSES = tuple(SPARSE_OPERANDS)

# The values of --zeros-in, the passes that have such zeros, and what has them there. "input" and "grad_output" are what
# training leaves in each pass; they differ in backward_weight alone.
ZEROS_IN = {
    "input": {"forward": "input", "backward_data": "grad_output", "backward_weight": "input"},
    "grad_output": {"forward": "input", "backward_data": "grad_output", "backward_weight": "grad_output"},
    "output": {"backward_data": "output"},
    "weight": {"forward": "weight", "backward_data": "weight"},
    "channel": {"forward": "channel", "backward_data": "channel"},
    "filters": {"backward_weight": "filters"},
}
MASKS = ("output", "filters")  # of these, zeros of a mask: results that are not needed

# Which array has the zeros. The mask of an output is that array itself: behind a ReLU, backward_data's is the input.
_ARRAYS = {
    "input": "x",
    "output": "x",
    "grad_output": "grad_output",
    "weight": "weight",
    "channel": "weight",
    "filters": "weight",
}
_SLICES = {"channel": 2, "filters": 1}  # zeros that fill slices: as many axes of the weight choose one


@dataclass(frozen=True)
class Operands:
    """What the three passes of a layer read; `x` and `grad_output` in `layout`."""

    layer: Layer
    layout: str
    x: np.ndarray
    weight: np.ndarray
    grad_output: np.ndarray

    def sparsity(self, operand: str) -> float:
        """Fraction of zeros of "input", "grad_output", "weight", or of a mask."""
        array = getattr(self, _ARRAYS[operand])
        return 1 - np.count_nonzero(array) / array.size


def random_operands(layer: Layer, sparsities: dict[str, float], *, batch: int, layout: str) -> Operands:
    """Uniformly distributed operands, of which some have zeros at independent places.

    Parameters
    ----------
    layer
    sparsities
        Fraction of zeros, from 0 to 1, of "input", "grad_output", "weight", or several of them. "output" is "input", as
        a mask. "channel" and "filters" are the weight, with zeros in exactly that part of its slices, each of one
        channel to one filter, or of its filters.
    batch
        For a layer that has none of its own.
    layout
        "NHWC" or "NCHW".
    """
    rng = np.random.default_rng(0)
    scattered = {_ARRAYS[operand]: share for operand, share in sparsities.items() if operand not in _SLICES}
    batch = layer.batch or batch

    def image_shape(channels: int, size: tuple[int, int]) -> tuple[int, ...]:
        return (batch, *size, channels) if layout == "NHWC" else (batch, channels, *size)

    def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
        array = rng.random(shape, np.float32)
        return np.multiply(array, array >= scattered.get(name, 0), out=array)  # one number decides both: fast

    def weights() -> np.ndarray:
        array = values("weight", layer.weight_shape)
        for operand in sparsities.keys() & _SLICES.keys():
            slices = array.reshape(math.prod(array.shape[: _SLICES[operand]]), -1)  # a view
            slices[rng.permutation(len(slices))[: round(sparsities[operand] * len(slices))]] = 0
        return array

    return Operands(
        layer,
        layout,
        x=values("x", image_shape(layer.in_c, layer.in_size)),
        weight=weights(),
        grad_output=values("grad_output", image_shape(layer.out_c, layer.out_size)),
    )
