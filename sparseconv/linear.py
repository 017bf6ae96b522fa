"""Linear layers, as pointwise convolutions of one row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

import numpy as np

from ._core import operations
from ._core.call import checked

if TYPE_CHECKING:
    from .typing import (
        Activation,
        Array,
        Bits,
        Input,
        Mask,
        Operand,
        Precision,
        SavedInput,
        SkipBackwardData,
        SkipBackwardWeight,
        SkipForward,
        Weight,
    )


if TYPE_CHECKING:

    @overload
    def linear(
        x: Input, weight: Weight, bias: Array | None = None, *, activation: Activation | None = None,
        residual: Array | None = None, skip: SkipForward = "auto", threshold: float = 0.0,
        input_mask: Mask | None = None, output_mask: Mask | None = None, return_mask: Literal[False] = False,
        precision: Precision = "highest", num_threads: int | None = None, out: Array | None = None,
    ) -> np.ndarray: ...  # fmt: skip

    @overload
    def linear(
        x: Input, weight: Weight, bias: Array | None = None, *, activation: Activation, residual: Array | None = None,
        skip: SkipForward = "auto", threshold: float = 0.0, input_mask: Mask | None = None,
        output_mask: Mask | None = None, return_mask: Literal[True], precision: Precision = "highest",
        num_threads: int | None = None, out: Array | None = None,
    ) -> tuple[np.ndarray, Bits]: ...  # fmt: skip

    @overload
    def linear(
        x: Input, weight: Weight, bias: Array | None = None, *, activation: Activation | None = None,
        residual: Array | None = None, skip: SkipForward = "auto", threshold: float = 0.0,
        input_mask: Mask | None = None, output_mask: Mask | None = None, return_mask: bool,
        precision: Precision = "highest", num_threads: int | None = None, out: Array | None = None,
    ) -> np.ndarray | tuple[np.ndarray, Bits]: ...  # fmt: skip


def linear(
    x: Input, weight: Weight, bias: Array | None = None, *, activation: Activation | None = None,
    residual: Array | None = None, skip: SkipForward = "auto", threshold: float = 0.0, input_mask: Mask | None = None,
    output_mask: Mask | None = None, return_mask: bool = False, precision: Precision = "highest",
    num_threads: int | None = None, out: Array | None = None,
) -> np.ndarray | tuple[np.ndarray, Bits]:  # fmt: skip
    """``x @ weight.T + bias``, skipping zeros of `x` or `weight`.

    Parameters
    ----------
    x : (..., features in) float32 or float64, or zeros and ones as bool or `sparseconv.Spikes`
    weight : (features out, features in), same dtype, or PackedWeight
    bias : (features out,), same dtype, optional
    activation, residual, skip, threshold, return_mask, precision, num_threads, out
        As in `sparseconv.conv2d`.
    input_mask : array like `x`, or bit mask, optional
        As in `sparseconv.conv2d`.
    output_mask : array like the result, or bit mask, optional
        As in `sparseconv.conv2d`.

    Returns
    -------
    (..., features out) ndarray
    mask : uint8 ndarray
        With `return_mask`, as `sparseconv.conv2d`.
    """
    return checked(
        operations.linear, 0,
        {
            "x": x, "weight": weight, "bias": bias, "residual": residual, "input_mask": input_mask,
            "output_mask": output_mask,
        },
        activation=activation, skip=skip, threshold=threshold, return_mask=return_mask, precision=precision,
        num_threads=num_threads, out=out,
    ).run()  # fmt: skip


def linear_backward_data(
    grad_output: Array, weight: Weight, *, skip: SkipBackwardData = "auto", threshold: float = 0.0,
    output_mask: Mask | None = None, grad_output_mask: Mask | None = None, precision: Precision = "highest",
    num_threads: int | None = None, out: Array | None = None,
) -> np.ndarray:  # fmt: skip
    """``grad_output @ weight``: the gradient of `linear` with respect to its input, skipping what `skip` says.

    Parameters
    ----------
    grad_output : (..., features out) float32 or float64
    weight : (features out, features in), same dtype, or PackedWeight
    skip, output_mask, grad_output_mask
        As in `sparseconv.conv2d_backward_data`.
    threshold : float
        As in `sparseconv.conv2d_backward_data`.
    precision, num_threads, out
        As in `sparseconv.conv2d`.

    Returns
    -------
    (..., features in) ndarray
    """
    return checked(
        operations.linear_backward_data, 0,
        {
            "grad_output": grad_output, "weight": weight, "output_mask": output_mask,
            "grad_output_mask": grad_output_mask,
        },
        skip=skip, threshold=threshold, precision=precision, num_threads=num_threads, out=out,
    ).run()  # fmt: skip


def linear_backward_weight(
    x: SavedInput, grad_output: Operand, *, skip: SkipBackwardWeight = "auto", threshold: float = 0.0,
    output_mask: Mask | None = None, input_mask: Mask | None = None, grad_output_mask: Mask | None = None,
    precision: Precision = "highest", num_threads: int | None = None, out: Array | None = None,
) -> np.ndarray:  # fmt: skip
    """The gradient of `linear` with respect to its weight, skipping zeros of `x` or `grad_output`.

    Parameters
    ----------
    x : (..., features in) float32 or float64, or zeros and ones as bool or `sparseconv.Spikes`
    grad_output : (..., features out), same dtype
        Both may be compressed, as in `sparseconv.conv2d_backward_weight`.
    skip : {"auto", "none", "input", "grad_output"}
    threshold, output_mask, input_mask, grad_output_mask
        As in `sparseconv.conv2d_backward_weight`.
    precision, num_threads, out
        As in `sparseconv.conv2d`.

    Returns
    -------
    (features out, features in) ndarray
    """
    return checked(
        operations.linear_backward_weight, 0,
        {
            "x": x, "grad_output": grad_output, "output_mask": output_mask, "input_mask": input_mask,
            "grad_output_mask": grad_output_mask,
        },
        skip=skip, threshold=threshold, precision=precision, num_threads=num_threads, out=out,
    ).run()  # fmt: skip
