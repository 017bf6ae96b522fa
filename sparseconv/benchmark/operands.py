"""Arrays for a layer, with zeros at random places."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparseconv.benchmark.layers import Layer

__all__ = ["PASSES", "SPARSE_OPERANDS", "Operands", "random_operands", "scattered"]

SPARSE_OPERANDS = {
    "forward": ("input",),
    "backward_data": ("grad_output",),
    "backward_weight": ("input", "grad_output"),
}
PASSES = tuple(SPARSE_OPERANDS)


@dataclass(frozen=True)
class Operands:
    """What the three passes of a layer read; `x` and `grad_output` in `layout`."""

    layer: Layer
    layout: str
    x: np.ndarray
    weight: np.ndarray
    grad_output: np.ndarray


def random_operands(layer: Layer, sparsity: float, *, zeros_in: str, batch: int, layout: str) -> Operands:
    """Normally distributed operands; in one of them, this fraction is zero, at independent places.

    Parameters
    ----------
    layer
    sparsity
        From 0 to 1.
    zeros_in
        "input" or "grad_output".
    batch
        For a layer that has none of its own.
    layout
        "NHWC" or "NCHW".
    """
    rng = np.random.default_rng(0)
    batch = layer.batch or batch

    def image_shape(channels: int, size: tuple[int, int]) -> tuple[int, ...]:
        return (batch, *size, channels) if layout == "NHWC" else (batch, channels, *size)

    def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
        array = rng.standard_normal(shape, np.float32)
        return scattered(array, sparsity, rng) if name == zeros_in else array

    return Operands(
        layer,
        layout,
        x=values("input", image_shape(layer.in_c, layer.in_size)),
        weight=values("weight", layer.weight_shape),
        grad_output=values("grad_output", image_shape(layer.out_c, layer.out_size)),
    )


def scattered(array: np.ndarray, sparsity: float, rng: np.random.Generator) -> np.ndarray:
    """Set this fraction of the array to zero, in place, at independent places, and return it."""
    array[rng.random(array.shape, np.float32) < sparsity] = 0
    return array
