"""Arrays for a layer, with zeros at random places or as a training step left them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparseconv.benchmark.layers import Layer

__all__ = ["PASSES", "SPARSE_OPERANDS", "Operands", "random_operands"]

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

    def sparsity(self, operand: str) -> float:
        """Fraction of zeros of "input" or "grad_output"."""
        array = self.x if operand == "input" else self.grad_output
        return 1 - np.count_nonzero(array) / array.size


def random_operands(layer: Layer, sparsities: dict[str, float], *, batch: int, layout: str) -> Operands:
    """Uniformly distributed operands, of which some have zeros at independent places.

    Parameters
    ----------
    layer
    sparsities
        Fraction of zeros, from 0 to 1, of "input", "grad_output" or both.
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
        array = rng.random(shape, np.float32)
        return np.multiply(array, array >= sparsities.get(name, 0), out=array)  # one number decides both: fast

    return Operands(
        layer,
        layout,
        x=values("input", image_shape(layer.in_c, layer.in_size)),
        weight=values("weight", layer.weight_shape),
        grad_output=values("grad_output", image_shape(layer.out_c, layer.out_size)),
    )
