"""Linear layers, as pointwise convolutions of one row."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import prepare


def linear(
    x: Any, weight: Any, bias: Any = None, *, activation: str | None = None, skip: str = "auto",
    precision: str = "highest", num_threads: int | None = None, out: Any = None,
) -> np.ndarray:  # fmt: skip
    """``x @ weight.T + bias``, skipping zeros of `x` or `weight`.

    Parameters
    ----------
    x : (..., features in) float32 or float64
    weight : (features out, features in), same dtype, or PackedWeight
    bias : (features out,), same dtype, optional
    activation, skip, precision, num_threads, out
        As in `sparseconv.conv2d`.

    Returns
    -------
    (..., features out) ndarray
    """
    return prepare.linear(
        x, weight, bias, activation=activation, skip=skip, precision=precision, num_threads=num_threads, out=out
    ).run()


def linear_backward_data(
    grad_output: Any, weight: Any, *, skip: str = "auto", precision: str = "highest", num_threads: int | None = None,
    out: Any = None,
) -> np.ndarray:  # fmt: skip
    """``grad_output @ weight``: the gradient of `linear` with respect to its input, skipping zeros of `grad_output`.

    Parameters
    ----------
    grad_output : (..., features out) float32 or float64
    weight : (features out, features in), same dtype, or PackedWeight
    skip : {"auto", "none", "grad_output", "weight"}
    precision, num_threads, out
        As in `sparseconv.conv2d`.

    Returns
    -------
    (..., features in) ndarray
    """
    return prepare.linear_backward_data(
        grad_output, weight, skip=skip, precision=precision, num_threads=num_threads, out=out
    ).run()


def linear_backward_weight(
    x: Any, grad_output: Any, *, skip: str = "auto", precision: str = "highest", num_threads: int | None = None,
    out: Any = None,
) -> np.ndarray:  # fmt: skip
    """The gradient of `linear` with respect to its weight, skipping zeros of `x` or `grad_output`.

    Parameters
    ----------
    x : (..., features in) float32 or float64
    grad_output : (..., features out), same dtype
    skip : {"auto", "none", "input", "grad_output"}
    precision, num_threads, out
        As in `sparseconv.conv2d`.

    Returns
    -------
    (features out, features in) ndarray
    """
    return prepare.linear_backward_weight(
        x, grad_output, skip=skip, precision=precision, num_threads=num_threads, out=out
    ).run()
