"""Transposed convolutions (the gradient of a convolution used as a layer) and their two backward passes.

conv_transpose2d runs the backward_data kernel, its backward_data the forward kernel, and its backward_weight the
backward_weight kernel with x and grad_output in each other's place.
"""

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
        Layout1d,
        Layout2d,
        Layout3d,
        Mask,
        Operand,
        PaddingTransposed,
        Precision,
        Shape,
        Size,
        SkipBackwardData,
        SkipBackwardWeight,
        SkipForward,
        Weight,
    )


if TYPE_CHECKING:

    @overload
    def conv_transpose2d(
        x: Array, weight: Weight, bias: Array | None = None, *, stride: Size = 1, padding: PaddingTransposed = 0,
        output_padding: Size = 0, dilation: Size = 1, groups: int = 1, layout: Layout2d = "NCHW",
        activation: Activation | None = None, residual: Array | None = None, skip: SkipForward = "auto",
        threshold: float = 0.0, input_mask: Mask | None = None, output_mask: Mask | None = None,
        return_mask: Literal[False] = False, precision: Precision = "highest", num_threads: int | None = None,
        out: Array | None = None,
    ) -> np.ndarray: ...  # fmt: skip

    @overload
    def conv_transpose2d(
        x: Array, weight: Weight, bias: Array | None = None, *, stride: Size = 1, padding: PaddingTransposed = 0,
        output_padding: Size = 0, dilation: Size = 1, groups: int = 1, layout: Layout2d = "NCHW",
        activation: Activation, residual: Array | None = None, skip: SkipForward = "auto", threshold: float = 0.0,
        input_mask: Mask | None = None, output_mask: Mask | None = None, return_mask: Literal[True],
        precision: Precision = "highest", num_threads: int | None = None, out: Array | None = None,
    ) -> tuple[np.ndarray, Bits]: ...  # fmt: skip

    @overload
    def conv_transpose2d(
        x: Array, weight: Weight, bias: Array | None = None, *, stride: Size = 1, padding: PaddingTransposed = 0,
        output_padding: Size = 0, dilation: Size = 1, groups: int = 1, layout: Layout2d = "NCHW",
        activation: Activation | None = None, residual: Array | None = None, skip: SkipForward = "auto",
        threshold: float = 0.0, input_mask: Mask | None = None, output_mask: Mask | None = None, return_mask: bool,
        precision: Precision = "highest", num_threads: int | None = None, out: Array | None = None,
    ) -> np.ndarray | tuple[np.ndarray, Bits]: ...  # fmt: skip


def conv_transpose2d(
    x: Array, weight: Weight, bias: Array | None = None, *, stride: Size = 1, padding: PaddingTransposed = 0,
    output_padding: Size = 0, dilation: Size = 1, groups: int = 1, layout: Layout2d = "NCHW",
    activation: Activation | None = None, residual: Array | None = None, skip: SkipForward = "auto",
    threshold: float = 0.0, input_mask: Mask | None = None, output_mask: Mask | None = None, return_mask: bool = False,
    precision: Precision = "highest", num_threads: int | None = None, out: Array | None = None,
) -> np.ndarray | tuple[np.ndarray, Bits]:  # fmt: skip
    """Two-dimensional transposed convolution that skips the zeros of `x`.

    Parameters
    ----------
    x : (N, C, H, W) float32 or float64
        Input, in `layout`.
    weight : (C, K/groups, R, S), same dtype, or PackedWeight
        As in PyTorch: input channels first.
    bias : (K,), same dtype, optional
    output_padding : int or (int, int)
        Columns added behind the result, fewer than the larger of stride and dilation.
    stride, padding, dilation, groups, layout, activation, residual, precision, num_threads, out
        As in `sparseconv.conv2d`; padding takes columns away from the result, and "same" is not defined.
    skip : {"auto", "none", "input", "weight", "output"}
        What is exploited.
    threshold, input_mask, output_mask, return_mask
        As in `sparseconv.conv2d`.

    Returns
    -------
    (N, K, OH, OW) ndarray
        OH = (H - 1) stride - padding before - padding after + dilation (R - 1) + output_padding + 1.
    mask : uint8 ndarray
        With `return_mask`, as `sparseconv.conv2d`.

    Raises
    ------
    TypeError, ValueError
        As `sparseconv.conv2d`.
    """
    return checked(
        operations.conv_transpose, 2,
        {
            "x": x, "weight": weight, "bias": bias, "residual": residual, "input_mask": input_mask,
            "output_mask": output_mask,
        },
        stride=stride, padding=padding, output_padding=output_padding, dilation=dilation, groups=groups, layout=layout,
        activation=activation, skip=skip, threshold=threshold, return_mask=return_mask, precision=precision,
        num_threads=num_threads, out=out,
    ).run()  # fmt: skip


def conv_transpose2d_backward_data(
    grad_output: Array, weight: Weight, input_shape: Shape, *, stride: Size = 1, padding: PaddingTransposed = 0,
    dilation: Size = 1, groups: int = 1, layout: Layout2d = "NCHW", skip: SkipBackwardData = "auto",
    threshold: float = 0.0, output_mask: Mask | None = None, grad_output_mask: Mask | None = None,
    precision: Precision = "highest", num_threads: int | None = None, out: Array | None = None,
) -> np.ndarray:  # fmt: skip
    """Gradient of `conv_transpose2d` with respect to its input: a convolution of `grad_output`.

    Parameters
    ----------
    grad_output : (N, K, OH, OW) float32 or float64
    weight : (C, K/groups, R, S), same dtype, or PackedWeight
    input_shape : sequence of int
        Shape of the result in `layout`; output_padding follows from it and from the shape of `grad_output`.
    stride, padding, dilation, groups, layout, precision, num_threads, out
        As in `conv_transpose2d`.
    skip : {"auto", "none", "grad_output", "weight", "output"}
        What is exploited.
    threshold, output_mask, grad_output_mask
        As in `sparseconv.conv2d_backward_data`.

    Returns
    -------
    (N, C, H, W) ndarray
    """
    return checked(
        operations.conv_transpose_backward_data, 2,
        {
            "grad_output": grad_output, "weight": weight, "output_mask": output_mask,
            "grad_output_mask": grad_output_mask,
        },
        input_shape=input_shape, stride=stride, padding=padding, dilation=dilation, groups=groups, layout=layout,
        skip=skip, threshold=threshold, precision=precision, num_threads=num_threads, out=out,
    ).run()  # fmt: skip


def conv_transpose2d_backward_weight(
    x: Operand, grad_output: Operand, kernel_size: Size, *, stride: Size = 1, padding: PaddingTransposed = 0,
    dilation: Size = 1, groups: int = 1, layout: Layout2d = "NCHW", skip: SkipBackwardWeight = "auto",
    threshold: float = 0.0, output_mask: Mask | None = None, input_mask: Mask | None = None,
    grad_output_mask: Mask | None = None, precision: Precision = "highest", num_threads: int | None = None,
    out: Array | None = None,
) -> np.ndarray:  # fmt: skip
    """Gradient of `conv_transpose2d` with respect to its weight.

    Parameters
    ----------
    x : (N, C, H, W) float32 or float64
    grad_output : (N, K, OH, OW), same dtype
        Both may be compressed, as in `sparseconv.conv2d_backward_weight`.
    kernel_size : int, (R, S) or (C, K/groups, R, S)
    stride, padding, dilation, groups, layout, precision, num_threads, out
        As in `conv_transpose2d`.
    skip : {"auto", "none", "input", "grad_output"}
        What is exploited.
    threshold, output_mask, input_mask, grad_output_mask
        As in `sparseconv.conv2d_backward_weight`.

    Returns
    -------
    (C, K/groups, R, S) ndarray
    """
    return checked(
        operations.conv_transpose_backward_weight, 2,
        {
            "x": x, "grad_output": grad_output, "output_mask": output_mask, "input_mask": input_mask,
            "grad_output_mask": grad_output_mask,
        },
        kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation, groups=groups, layout=layout,
        skip=skip, threshold=threshold, precision=precision, num_threads=num_threads, out=out,
    ).run()  # fmt: skip


if TYPE_CHECKING:

    @overload
    def conv_transpose1d(
        x: Array, weight: Weight, bias: Array | None = None, *, stride: Size = 1, padding: PaddingTransposed = 0,
        output_padding: Size = 0, dilation: Size = 1, groups: int = 1, layout: Layout1d = "NCW",
        activation: Activation | None = None, residual: Array | None = None, skip: SkipForward = "auto",
        threshold: float = 0.0, input_mask: Mask | None = None, output_mask: Mask | None = None,
        return_mask: Literal[False] = False, precision: Precision = "highest", num_threads: int | None = None,
        out: Array | None = None,
    ) -> np.ndarray: ...  # fmt: skip

    @overload
    def conv_transpose1d(
        x: Array, weight: Weight, bias: Array | None = None, *, stride: Size = 1, padding: PaddingTransposed = 0,
        output_padding: Size = 0, dilation: Size = 1, groups: int = 1, layout: Layout1d = "NCW", activation: Activation,
        residual: Array | None = None, skip: SkipForward = "auto", threshold: float = 0.0,
        input_mask: Mask | None = None, output_mask: Mask | None = None, return_mask: Literal[True],
        precision: Precision = "highest", num_threads: int | None = None, out: Array | None = None,
    ) -> tuple[np.ndarray, Bits]: ...  # fmt: skip

    @overload
    def conv_transpose1d(
        x: Array, weight: Weight, bias: Array | None = None, *, stride: Size = 1, padding: PaddingTransposed = 0,
        output_padding: Size = 0, dilation: Size = 1, groups: int = 1, layout: Layout1d = "NCW",
        activation: Activation | None = None, residual: Array | None = None, skip: SkipForward = "auto",
        threshold: float = 0.0, input_mask: Mask | None = None, output_mask: Mask | None = None, return_mask: bool,
        precision: Precision = "highest", num_threads: int | None = None, out: Array | None = None,
    ) -> np.ndarray | tuple[np.ndarray, Bits]: ...  # fmt: skip


def conv_transpose1d(
    x: Array, weight: Weight, bias: Array | None = None, *, stride: Size = 1, padding: PaddingTransposed = 0,
    output_padding: Size = 0, dilation: Size = 1, groups: int = 1, layout: Layout1d = "NCW",
    activation: Activation | None = None, residual: Array | None = None, skip: SkipForward = "auto",
    threshold: float = 0.0, input_mask: Mask | None = None, output_mask: Mask | None = None, return_mask: bool = False,
    precision: Precision = "highest", num_threads: int | None = None, out: Array | None = None,
) -> np.ndarray | tuple[np.ndarray, Bits]:  # fmt: skip
    """`conv_transpose2d` with one spatial dimension; layouts "NCW", "NWC" or "NCW16c"."""
    return checked(
        operations.conv_transpose, 1,
        {
            "x": x, "weight": weight, "bias": bias, "residual": residual, "input_mask": input_mask,
            "output_mask": output_mask,
        },
        stride=stride, padding=padding, output_padding=output_padding, dilation=dilation, groups=groups, layout=layout,
        activation=activation, skip=skip, threshold=threshold, return_mask=return_mask, precision=precision,
        num_threads=num_threads, out=out,
    ).run()  # fmt: skip


def conv_transpose1d_backward_data(
    grad_output: Array, weight: Weight, input_shape: Shape, *, stride: Size = 1, padding: PaddingTransposed = 0,
    dilation: Size = 1, groups: int = 1, layout: Layout1d = "NCW", skip: SkipBackwardData = "auto",
    threshold: float = 0.0, output_mask: Mask | None = None, grad_output_mask: Mask | None = None,
    precision: Precision = "highest", num_threads: int | None = None, out: Array | None = None,
) -> np.ndarray:  # fmt: skip
    """`conv_transpose2d_backward_data` with one spatial dimension; layouts "NCW", "NWC" or "NCW16c"."""
    return checked(
        operations.conv_transpose_backward_data, 1,
        {
            "grad_output": grad_output, "weight": weight, "output_mask": output_mask,
            "grad_output_mask": grad_output_mask,
        },
        input_shape=input_shape, stride=stride, padding=padding, dilation=dilation, groups=groups, layout=layout,
        skip=skip, threshold=threshold, precision=precision, num_threads=num_threads, out=out,
    ).run()  # fmt: skip


def conv_transpose1d_backward_weight(
    x: Operand, grad_output: Operand, kernel_size: Size, *, stride: Size = 1, padding: PaddingTransposed = 0,
    dilation: Size = 1, groups: int = 1, layout: Layout1d = "NCW", skip: SkipBackwardWeight = "auto",
    threshold: float = 0.0, output_mask: Mask | None = None, input_mask: Mask | None = None,
    grad_output_mask: Mask | None = None, precision: Precision = "highest", num_threads: int | None = None,
    out: Array | None = None,
) -> np.ndarray:  # fmt: skip
    """`conv_transpose2d_backward_weight` with one spatial dimension; layouts "NCW", "NWC" or "NCW16c"."""
    return checked(
        operations.conv_transpose_backward_weight, 1,
        {
            "x": x, "grad_output": grad_output, "output_mask": output_mask, "input_mask": input_mask,
            "grad_output_mask": grad_output_mask,
        },
        kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation, groups=groups, layout=layout,
        skip=skip, threshold=threshold, precision=precision, num_threads=num_threads, out=out,
    ).run()  # fmt: skip


if TYPE_CHECKING:

    @overload
    def conv_transpose3d(
        x: Array, weight: Weight, bias: Array | None = None, *, stride: Size = 1, padding: PaddingTransposed = 0,
        output_padding: Size = 0, dilation: Size = 1, groups: int = 1, layout: Layout3d = "NCDHW",
        activation: Activation | None = None, residual: Array | None = None, skip: SkipForward = "auto",
        threshold: float = 0.0, input_mask: Mask | None = None, output_mask: Mask | None = None,
        return_mask: Literal[False] = False, precision: Precision = "highest", num_threads: int | None = None,
        out: Array | None = None,
    ) -> np.ndarray: ...  # fmt: skip

    @overload
    def conv_transpose3d(
        x: Array, weight: Weight, bias: Array | None = None, *, stride: Size = 1, padding: PaddingTransposed = 0,
        output_padding: Size = 0, dilation: Size = 1, groups: int = 1, layout: Layout3d = "NCDHW",
        activation: Activation, residual: Array | None = None, skip: SkipForward = "auto", threshold: float = 0.0,
        input_mask: Mask | None = None, output_mask: Mask | None = None, return_mask: Literal[True],
        precision: Precision = "highest", num_threads: int | None = None, out: Array | None = None,
    ) -> tuple[np.ndarray, Bits]: ...  # fmt: skip

    @overload
    def conv_transpose3d(
        x: Array, weight: Weight, bias: Array | None = None, *, stride: Size = 1, padding: PaddingTransposed = 0,
        output_padding: Size = 0, dilation: Size = 1, groups: int = 1, layout: Layout3d = "NCDHW",
        activation: Activation | None = None, residual: Array | None = None, skip: SkipForward = "auto",
        threshold: float = 0.0, input_mask: Mask | None = None, output_mask: Mask | None = None, return_mask: bool,
        precision: Precision = "highest", num_threads: int | None = None, out: Array | None = None,
    ) -> np.ndarray | tuple[np.ndarray, Bits]: ...  # fmt: skip


def conv_transpose3d(
    x: Array, weight: Weight, bias: Array | None = None, *, stride: Size = 1, padding: PaddingTransposed = 0,
    output_padding: Size = 0, dilation: Size = 1, groups: int = 1, layout: Layout3d = "NCDHW",
    activation: Activation | None = None, residual: Array | None = None, skip: SkipForward = "auto",
    threshold: float = 0.0, input_mask: Mask | None = None, output_mask: Mask | None = None, return_mask: bool = False,
    precision: Precision = "highest", num_threads: int | None = None, out: Array | None = None,
) -> np.ndarray | tuple[np.ndarray, Bits]:  # fmt: skip
    """`conv_transpose2d` with three spatial dimensions; layouts "NCDHW", "NDHWC" or "NCDHW16c"."""
    return checked(
        operations.conv_transpose, 3,
        {
            "x": x, "weight": weight, "bias": bias, "residual": residual, "input_mask": input_mask,
            "output_mask": output_mask,
        },
        stride=stride, padding=padding, output_padding=output_padding, dilation=dilation, groups=groups, layout=layout,
        activation=activation, skip=skip, threshold=threshold, return_mask=return_mask, precision=precision,
        num_threads=num_threads, out=out,
    ).run()  # fmt: skip


def conv_transpose3d_backward_data(
    grad_output: Array, weight: Weight, input_shape: Shape, *, stride: Size = 1, padding: PaddingTransposed = 0,
    dilation: Size = 1, groups: int = 1, layout: Layout3d = "NCDHW", skip: SkipBackwardData = "auto",
    threshold: float = 0.0, output_mask: Mask | None = None, grad_output_mask: Mask | None = None,
    precision: Precision = "highest", num_threads: int | None = None, out: Array | None = None,
) -> np.ndarray:  # fmt: skip
    """`conv_transpose2d_backward_data` with three spatial dimensions; layouts "NCDHW", "NDHWC" or "NCDHW16c"."""
    return checked(
        operations.conv_transpose_backward_data, 3,
        {
            "grad_output": grad_output, "weight": weight, "output_mask": output_mask,
            "grad_output_mask": grad_output_mask,
        },
        input_shape=input_shape, stride=stride, padding=padding, dilation=dilation, groups=groups, layout=layout,
        skip=skip, threshold=threshold, precision=precision, num_threads=num_threads, out=out,
    ).run()  # fmt: skip


def conv_transpose3d_backward_weight(
    x: Operand, grad_output: Operand, kernel_size: Size, *, stride: Size = 1, padding: PaddingTransposed = 0,
    dilation: Size = 1, groups: int = 1, layout: Layout3d = "NCDHW", skip: SkipBackwardWeight = "auto",
    threshold: float = 0.0, output_mask: Mask | None = None, input_mask: Mask | None = None,
    grad_output_mask: Mask | None = None, precision: Precision = "highest", num_threads: int | None = None,
    out: Array | None = None,
) -> np.ndarray:  # fmt: skip
    """`conv_transpose2d_backward_weight` with three spatial dimensions; layouts "NCDHW", "NDHWC" or "NCDHW16c"."""
    return checked(
        operations.conv_transpose_backward_weight, 3,
        {
            "x": x, "grad_output": grad_output, "output_mask": output_mask, "input_mask": input_mask,
            "grad_output_mask": grad_output_mask,
        },
        kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation, groups=groups, layout=layout,
        skip=skip, threshold=threshold, precision=precision, num_threads=num_threads, out=out,
    ).run()  # fmt: skip
