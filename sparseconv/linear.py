"""Linear layers, as pointwise convolutions of one row."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._core import prepare


def linear(
    x: Any, weight: Any, bias: Any = None, *, activation: str | None = None, skip: str = "auto", threshold: float = 0.0,
    input_mask: Any = None, return_mask: bool = False, precision: str = "highest", num_threads: int | None = None,
    out: Any = None,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """``x @ weight.T + bias``, skipping zeros of `x` or `weight`.

    Parameters
    ----------
    x : (..., features in) float32 or float64
    weight : (features out, features in), same dtype, or PackedWeight
    bias : (features out,), same dtype, optional
    activation, skip, threshold, return_mask, precision, num_threads, out
        As in `sparseconv.conv2d`.
    input_mask : array like `x`, or bit mask, optional
        As in `sparseconv.conv2d`.

    Returns
    -------
    (..., features out) ndarray
    mask : uint8 ndarray
        With `return_mask`, as `sparseconv.conv2d`.
    """
    return prepare.linear(
        x, weight, bias, activation=activation, skip=skip, threshold=threshold, input_mask=input_mask,
        return_mask=return_mask, precision=precision, num_threads=num_threads, out=out,
    ).run()  # fmt: skip


def linear_backward_data(
    grad_output: Any, weight: Any, *, skip: str = "auto", threshold: float = 0.0, output_mask: Any = None,
    grad_output_mask: Any = None, precision: str = "highest", num_threads: int | None = None, out: Any = None,
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
    return prepare.linear_backward_data(
        grad_output, weight, skip=skip, threshold=threshold, output_mask=output_mask, grad_output_mask=grad_output_mask,
        precision=precision, num_threads=num_threads, out=out,
    ).run()  # fmt: skip


def linear_backward_weight(
    x: Any, grad_output: Any, *, skip: str = "auto", threshold: float = 0.0, output_mask: Any = None,
    input_mask: Any = None, grad_output_mask: Any = None, precision: str = "highest", num_threads: int | None = None,
    out: Any = None,
) -> np.ndarray:  # fmt: skip
    """The gradient of `linear` with respect to its weight, skipping zeros of `x` or `grad_output`.

    Parameters
    ----------
    x : (..., features in) float32 or float64
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
    return prepare.linear_backward_weight(
        x, grad_output, skip=skip, threshold=threshold, output_mask=output_mask, input_mask=input_mask,
        grad_output_mask=grad_output_mask, precision=precision, num_threads=num_threads, out=out,
    ).run()  # fmt: skip
