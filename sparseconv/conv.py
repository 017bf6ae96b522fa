"""Convolutions: forward, backward_data and backward_weight in one, two and three dimensions.

The two-dimensional functions are documented in full; the others differ in the number of spatial dimensions alone.
Overloads are seen by type checkers alone: to make them would take 1% of the time of the import.
The file is long because signatures are written out: users, editors and type checkers read them.
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
        Input,
        Layout1d,
        Layout2d,
        Layout3d,
        Mask,
        Operand,
        Padding,
        Precision,
        SavedInput,
        Shape,
        Size,
        SkipBackwardData,
        SkipBackwardWeight,
        SkipForward,
        Weight,
    )


if TYPE_CHECKING:

    @overload
    def conv2d(
        x: Input, weight: Weight, bias: Array | None = None, *, stride: Size = 1, padding: Padding = 0,
        dilation: Size = 1, groups: int = 1, layout: Layout2d = "NCHW", activation: Activation | None = None,
        residual: Array | None = None, skip: SkipForward = "auto", threshold: float = 0.0,
        input_mask: Mask | None = None, output_mask: Mask | None = None, return_mask: Literal[False] = False,
        precision: Precision = "highest", num_threads: int | None = None, out: Array | None = None,
    ) -> np.ndarray: ...  # fmt: skip

    @overload
    def conv2d(
        x: Input, weight: Weight, bias: Array | None = None, *, stride: Size = 1, padding: Padding = 0,
        dilation: Size = 1, groups: int = 1, layout: Layout2d = "NCHW", activation: Activation,
        residual: Array | None = None, skip: SkipForward = "auto", threshold: float = 0.0,
        input_mask: Mask | None = None, output_mask: Mask | None = None, return_mask: Literal[True],
        precision: Precision = "highest", num_threads: int | None = None, out: Array | None = None,
    ) -> tuple[np.ndarray, Bits]: ...  # fmt: skip

    @overload
    def conv2d(
        x: Input, weight: Weight, bias: Array | None = None, *, stride: Size = 1, padding: Padding = 0,
        dilation: Size = 1, groups: int = 1, layout: Layout2d = "NCHW", activation: Activation | None = None,
        residual: Array | None = None, skip: SkipForward = "auto", threshold: float = 0.0,
        input_mask: Mask | None = None, output_mask: Mask | None = None, return_mask: bool,
        precision: Precision = "highest", num_threads: int | None = None, out: Array | None = None,
    ) -> np.ndarray | tuple[np.ndarray, Bits]: ...  # fmt: skip


def conv2d(
    x: Input, weight: Weight, bias: Array | None = None, *, stride: Size = 1, padding: Padding = 0, dilation: Size = 1,
    groups: int = 1, layout: Layout2d = "NCHW", activation: Activation | None = None, residual: Array | None = None,
    skip: SkipForward = "auto", threshold: float = 0.0, input_mask: Mask | None = None, output_mask: Mask | None = None,
    return_mask: bool = False, precision: Precision = "highest", num_threads: int | None = None,
    out: Array | None = None,
) -> np.ndarray | tuple[np.ndarray, Bits]:  # fmt: skip
    """Two-dimensional convolution (cross-correlation, as in every CNN framework) that skips zeros of `x` or `weight`.

    Parameters
    ----------
    x : (N, C, H, W) float32 or float64, or zeros and ones as bool or `sparseconv.Spikes`
        Input. Zeros and ones are added up instead of multiplied; `weight` is float32 then. Any array that shares CPU
        memory: NumPy, the buffer protocol, ``__array_interface__`` or DLPack. Any strides; where the channels of a
        pixel lie side by side (NHWC memory, also as a view in NCHW) nothing is copied.
    weight : (K, C/groups, R, S), same dtype, or PackedWeight
        Filters, in this order in every layout; any strides.
    bias : (K,), same dtype, optional
    stride, dilation : int or (int, int)
    padding : int, (int, int), ((before, after), (before, after)), "same" or "valid"
        Zeros around the input. "same" gives ceil(input / stride) outputs, the odd zero behind.
    groups : int
        Groups of channels that do not meet; groups = C is a depthwise convolution (computed densely: its zeros are not
        skipped).
    layout : {"NCHW", "NHWC", "NCHW16c"}
        Of `x` and the result. "NCHW16c" is (N, ceil(C/16), H, W, 16).
    activation : {None, "relu"}
        Fused into the last store. NaN stays NaN.
    residual : array like the result, optional
        Added before the activation: ``activation(conv + bias + residual)``, in the last store, as the addition of a
        residual network. Shape, layout and dtype of the result, any strides. It may be `out` itself, which is then
        overwritten.
    skip : {"auto", "none", "input", "weight", "output"}
        What is exploited. "output" computes only what `output_mask` needs. "auto" measures the densities of `x` and
        `weight` on samples and takes the kernel that a cost model says is faster; `plan` shows the decision. Weights
        that are used more often are better packed once: `pack_weight`.
    threshold : float
        Elements of the operand that `skip` names ("auto": `x`) with ``abs(v) <= threshold`` count as zeros, as if they
        had been set to zero before; NaN never does. At least 0, rounded to the dtype of `x` first. Above 0 that operand
        is skipped at any density, and skip="none" is an error. For weights it costs a copy, and packing in the call.
    input_mask : array like `x`, or bit mask, optional
        Which elements of `x` are not zero, if that is known, as `return_mask` of the layer before told: zeros are then
        not looked for again. An array whose nonzeros count, bools, uint8 bits as of `sparseconv.masks.nonzero_mask`
        (flat: one bit per element of `x`, in C order of its shape), or a `CompressedArray`. Arrays and bools may leave
        out the channels, (N, H, W), or have size 1 there: then a pixel's value stands for all of them. No mask may
        leave out nonzeros: that is not checked, and what then counts depends on the kernel.
    output_mask : array like the result, or bit mask, optional
        Which results are needed, in one of the forms of `input_mask`; the others are zero, whatever bias and residual
        are: a region of interest, the blocks of masked pre-training. Few of them are computed alone; with more, with
        zeros in `x`, or with a residual the kernel may compute all and clear the rest.
    return_mask : bool
        Whether to return the bit mask of the result as well; only with activation="relu".
    precision : {"highest", "high", "medium"}
        What dense kernels on AMX may do: "highest" is as accurate as float32, "high" about 16 bits (twice as many as
        bfloat16 has), "medium" bfloat16's 8. All other kernels always compute in float32.
    num_threads : int, optional
        Default `sparseconv.cpu.num_threads()`. The result does not depend on it, bit for bit.
    out : array like the result, optional
        Written and returned. Must not overlap an input, but may be `residual`, element by element.

    Returns
    -------
    (N, K, OH, OW) ndarray
        In `layout`; C-contiguous and 64-byte aligned unless `out` is given.
    mask : uint8 ndarray
        With `return_mask`: ``sparseconv.masks.nonzero_mask(y)``. Where the channels of the result lie side by side,
        without gaps between pixels, and those of a group fill vectors of 16, it is written in the last store.

    Raises
    ------
    TypeError
        An operand that is no array in CPU memory, or not float32 or float64, or dtypes that differ.
    ValueError
        Shapes, sizes or words that do not fit; the message names the argument, what was got and what was expected.

    See Also
    --------
    conv2d_backward_data, conv2d_backward_weight, sparseconv.grad_bias, sparseconv.pack_weight, sparseconv.plan

    Notes
    -----
    Costs N K OH OW (C/groups) R S multiply-adds times the density of what is skipped. A skipped zero contributes
    exactly 0 even where the other operand is Inf or NaN (weights with Inf or NaN are left to dense kernels); dense
    kernels follow IEEE (0 * Inf is NaN). -0.0 is a zero, NaN and Inf are not. Denormals are flushed to zero (float32).
    On AMX, operands with Inf, NaN or numbers near the ends of the range are left to the float32 kernels. float64 is
    computed densely in NumPy: correct, slow.

    The method is SparseTrain's (Gong et al., PACT 2020): zeros are found in the dense array and whole rows of vector
    multiply-adds are left out for each; layouts and loops are our own.

    Examples
    --------
    >>> import numpy as np, sparseconv as sc
    >>> x = np.maximum(np.random.default_rng(0).standard_normal((1, 8, 8, 32), np.float32), 0)
    >>> w = np.ones((16, 32, 3, 3), np.float32)
    >>> sc.conv2d(x, w, padding=1, layout="NHWC").shape
    (1, 8, 8, 16)
    """
    return checked(
        operations.conv, 2,
        {
            "x": x, "weight": weight, "bias": bias, "residual": residual, "input_mask": input_mask,
            "output_mask": output_mask,
        },
        stride=stride, padding=padding, dilation=dilation, groups=groups, layout=layout, activation=activation,
        skip=skip, threshold=threshold, return_mask=return_mask, precision=precision, num_threads=num_threads, out=out,
    ).run()  # fmt: skip


def conv2d_backward_data(
    grad_output: Array, weight: Weight, input_shape: Shape, *, stride: Size = 1, padding: Padding = 0,
    dilation: Size = 1, groups: int = 1, layout: Layout2d = "NCHW", skip: SkipBackwardData = "auto",
    threshold: float = 0.0, output_mask: Mask | None = None, grad_output_mask: Mask | None = None,
    precision: Precision = "highest", num_threads: int | None = None, out: Array | None = None,
) -> np.ndarray:  # fmt: skip
    """Gradient of `conv2d` with respect to its input, skipping zeros of `grad_output` or outputs that nobody needs.

    Parameters
    ----------
    grad_output : (N, K, OH, OW) float32 or float64
        Gradient of the convolution's result, in `layout`.
    weight : (K, C/groups, R, S), same dtype, or PackedWeight
    input_shape : sequence of int
        Shape of the result: that of the forward input, in `layout`.
    stride, padding, dilation, groups, layout, precision, num_threads, out
        As in `conv2d`.
    skip : {"auto", "none", "grad_output", "weight", "output"}
        What is exploited. "output" computes only what `output_mask` needs; "auto" takes the fastest of all.
    output_mask : array like the result, or bit mask, optional
        Where it is zero the result is zero, whatever `skip` says: the gradient times the mask. Behind a ReLU that is
        all that its backward pass leaves, so the forward input itself is a mask: pass `x` if it came out of a ReLU.
        Dropout and pooling in between do not matter; behind LeakyReLU, GELU, SiLU or an addition it would be wrong.
        Also a bool array, a `CompressedArray`, or uint8 bits as `return_mask` of `conv2d`, `sparseconv.masks.relu` and
        `sparseconv.masks.nonzero_mask` give them, which are 32 times smaller; or one value per pixel, as `input_mask`
        of `conv2d`.
    grad_output_mask : array like `grad_output`, or bit mask, optional
        As `input_mask` of `conv2d`, of `grad_output`.
    threshold : float
        As in `conv2d`; with "auto" for `grad_output`, and an error with "output".

    Returns
    -------
    (N, C, H, W) ndarray
        In `layout`.

    Raises
    ------
    TypeError, ValueError
        As `conv2d`.

    Notes
    -----
    Gradients are sparse behind a ReLU without batch normalisation, and most of all behind ReLU and max-pooling. Costs
    and semantics are those of `conv2d` with `grad_output` in the place of `x`.
    """
    return checked(
        operations.conv_backward_data, 2,
        {
            "grad_output": grad_output, "weight": weight, "output_mask": output_mask,
            "grad_output_mask": grad_output_mask,
        },
        input_shape=input_shape, stride=stride, padding=padding, dilation=dilation, groups=groups, layout=layout,
        skip=skip, threshold=threshold, precision=precision, num_threads=num_threads, out=out,
    ).run()  # fmt: skip


def conv2d_backward_weight(
    x: SavedInput, grad_output: Operand, kernel_size: Size, *, stride: Size = 1, padding: Padding = 0,
    dilation: Size = 1, groups: int = 1, layout: Layout2d = "NCHW", skip: SkipBackwardWeight = "auto",
    threshold: float = 0.0, output_mask: Mask | None = None, input_mask: Mask | None = None,
    grad_output_mask: Mask | None = None, precision: Precision = "highest", num_threads: int | None = None,
    out: Array | None = None,
) -> np.ndarray:  # fmt: skip
    """Gradient of `conv2d` with respect to its weight, skipping the zeros of `x` or of `grad_output`.

    Parameters
    ----------
    x : (N, C, H, W) float32 or float64, or zeros and ones as bool or `sparseconv.Spikes`
        The forward input, in `layout`. May be a `sparseconv.CompressedArray`, which is expanded for the length of the
        call: only one layer at a time takes the memory of its dense array.
    grad_output : (N, K, OH, OW), same dtype
        Gradient of the convolution's result, in `layout`. May be a CompressedArray, too.
    kernel_size : int, (R, S) or (K, C/groups, R, S)
        The whole weight shape is needed only for blocked layouts whose channels do not fill their last block;
        without it all lanes count as channels.
    stride, padding, dilation, groups, layout, precision, num_threads
        As in `conv2d`.
    skip : {"auto", "none", "input", "grad_output"}
        What is exploited; "auto" takes the sparser operand.
    threshold : float
        As in `conv2d`, for the operand that `skip` names; with "auto" for `x`.
    input_mask, grad_output_mask : array like `x` or `grad_output`, or bit mask, optional
        As `input_mask` of `conv2d`, of either operand.
    output_mask : array like the result, optional
        Which elements are needed; the others are zero. A bool array, an array of the operands' dtype (nonzero counts),
        or a bit mask (`sparseconv.masks`).
    out : (K, C/groups, R, S), optional
        Written and returned.

    Returns
    -------
    (K, C/groups, R, S) ndarray

    Raises
    ------
    TypeError, ValueError
        As `conv2d`.

    Notes
    -----
    Sums run over N OH OW positions in two levels, so their error is far below that of one chain of float32 additions.

    With `output_mask`, time is saved where 16 to 128 neighbouring filters need nothing of an input channel, or as many
    neighbouring input channels nothing of a filter: pruned filters, input channels and blocks, not scattered elements.
    "auto" takes the mask into account. Needed elements have the bits that the same kernel gives without a mask.
    """
    return checked(
        operations.conv_backward_weight, 2,
        {
            "x": x, "grad_output": grad_output, "output_mask": output_mask, "input_mask": input_mask,
            "grad_output_mask": grad_output_mask,
        },
        kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation, groups=groups, layout=layout,
        skip=skip, threshold=threshold, precision=precision, num_threads=num_threads, out=out,
    ).run()  # fmt: skip


if TYPE_CHECKING:

    @overload
    def conv1d(
        x: Input, weight: Weight, bias: Array | None = None, *, stride: Size = 1, padding: Padding = 0,
        dilation: Size = 1, groups: int = 1, layout: Layout1d = "NCW", activation: Activation | None = None,
        residual: Array | None = None, skip: SkipForward = "auto", threshold: float = 0.0,
        input_mask: Mask | None = None, output_mask: Mask | None = None, return_mask: Literal[False] = False,
        precision: Precision = "highest", num_threads: int | None = None, out: Array | None = None,
    ) -> np.ndarray: ...  # fmt: skip

    @overload
    def conv1d(
        x: Input, weight: Weight, bias: Array | None = None, *, stride: Size = 1, padding: Padding = 0,
        dilation: Size = 1, groups: int = 1, layout: Layout1d = "NCW", activation: Activation,
        residual: Array | None = None, skip: SkipForward = "auto", threshold: float = 0.0,
        input_mask: Mask | None = None, output_mask: Mask | None = None, return_mask: Literal[True],
        precision: Precision = "highest", num_threads: int | None = None, out: Array | None = None,
    ) -> tuple[np.ndarray, Bits]: ...  # fmt: skip

    @overload
    def conv1d(
        x: Input, weight: Weight, bias: Array | None = None, *, stride: Size = 1, padding: Padding = 0,
        dilation: Size = 1, groups: int = 1, layout: Layout1d = "NCW", activation: Activation | None = None,
        residual: Array | None = None, skip: SkipForward = "auto", threshold: float = 0.0,
        input_mask: Mask | None = None, output_mask: Mask | None = None, return_mask: bool,
        precision: Precision = "highest", num_threads: int | None = None, out: Array | None = None,
    ) -> np.ndarray | tuple[np.ndarray, Bits]: ...  # fmt: skip


def conv1d(
    x: Input, weight: Weight, bias: Array | None = None, *, stride: Size = 1, padding: Padding = 0, dilation: Size = 1,
    groups: int = 1, layout: Layout1d = "NCW", activation: Activation | None = None, residual: Array | None = None,
    skip: SkipForward = "auto", threshold: float = 0.0, input_mask: Mask | None = None, output_mask: Mask | None = None,
    return_mask: bool = False, precision: Precision = "highest", num_threads: int | None = None,
    out: Array | None = None,
) -> np.ndarray | tuple[np.ndarray, Bits]:  # fmt: skip
    """One-dimensional convolution: `conv2d` for x (N, C, W) and weight (K, C/groups, S).

    Layouts are "NCW", "NWC" or "NCW16c"; sizes per dimension are one number. All else is as in `conv2d`.
    """
    return checked(
        operations.conv, 1,
        {
            "x": x, "weight": weight, "bias": bias, "residual": residual, "input_mask": input_mask,
            "output_mask": output_mask,
        },
        stride=stride, padding=padding, dilation=dilation, groups=groups, layout=layout, activation=activation,
        skip=skip, threshold=threshold, return_mask=return_mask, precision=precision, num_threads=num_threads, out=out,
    ).run()  # fmt: skip


def conv1d_backward_data(
    grad_output: Array, weight: Weight, input_shape: Shape, *, stride: Size = 1, padding: Padding = 0,
    dilation: Size = 1, groups: int = 1, layout: Layout1d = "NCW", skip: SkipBackwardData = "auto",
    threshold: float = 0.0, output_mask: Mask | None = None, grad_output_mask: Mask | None = None,
    precision: Precision = "highest", num_threads: int | None = None, out: Array | None = None,
) -> np.ndarray:  # fmt: skip
    """Gradient of `conv1d` with respect to its input: `conv2d_backward_data` with one dimension.

    Layouts are "NCW", "NWC" or "NCW16c"; sizes per dimension are one number. All else is as in `conv2d_backward_data`.
    """
    return checked(
        operations.conv_backward_data, 1,
        {
            "grad_output": grad_output, "weight": weight, "output_mask": output_mask,
            "grad_output_mask": grad_output_mask,
        },
        input_shape=input_shape, stride=stride, padding=padding, dilation=dilation, groups=groups, layout=layout,
        skip=skip, threshold=threshold, precision=precision, num_threads=num_threads, out=out,
    ).run()  # fmt: skip


def conv1d_backward_weight(
    x: SavedInput, grad_output: Operand, kernel_size: Size, *, stride: Size = 1, padding: Padding = 0,
    dilation: Size = 1, groups: int = 1, layout: Layout1d = "NCW", skip: SkipBackwardWeight = "auto",
    threshold: float = 0.0, output_mask: Mask | None = None, input_mask: Mask | None = None,
    grad_output_mask: Mask | None = None, precision: Precision = "highest", num_threads: int | None = None,
    out: Array | None = None,
) -> np.ndarray:  # fmt: skip
    """Gradient of `conv1d` with respect to its weight: `conv2d_backward_weight` with one dimension.

    Layouts are "NCW", "NWC" or "NCW16c"; sizes per dimension are one number.
    All else is as in `conv2d_backward_weight`.
    """
    return checked(
        operations.conv_backward_weight, 1,
        {
            "x": x, "grad_output": grad_output, "output_mask": output_mask, "input_mask": input_mask,
            "grad_output_mask": grad_output_mask,
        },
        kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation, groups=groups, layout=layout,
        skip=skip, threshold=threshold, precision=precision, num_threads=num_threads, out=out,
    ).run()  # fmt: skip


if TYPE_CHECKING:

    @overload
    def conv3d(
        x: Input, weight: Weight, bias: Array | None = None, *, stride: Size = 1, padding: Padding = 0,
        dilation: Size = 1, groups: int = 1, layout: Layout3d = "NCDHW", activation: Activation | None = None,
        residual: Array | None = None, skip: SkipForward = "auto", threshold: float = 0.0,
        input_mask: Mask | None = None, output_mask: Mask | None = None, return_mask: Literal[False] = False,
        precision: Precision = "highest", num_threads: int | None = None, out: Array | None = None,
    ) -> np.ndarray: ...  # fmt: skip

    @overload
    def conv3d(
        x: Input, weight: Weight, bias: Array | None = None, *, stride: Size = 1, padding: Padding = 0,
        dilation: Size = 1, groups: int = 1, layout: Layout3d = "NCDHW", activation: Activation,
        residual: Array | None = None, skip: SkipForward = "auto", threshold: float = 0.0,
        input_mask: Mask | None = None, output_mask: Mask | None = None, return_mask: Literal[True],
        precision: Precision = "highest", num_threads: int | None = None, out: Array | None = None,
    ) -> tuple[np.ndarray, Bits]: ...  # fmt: skip

    @overload
    def conv3d(
        x: Input, weight: Weight, bias: Array | None = None, *, stride: Size = 1, padding: Padding = 0,
        dilation: Size = 1, groups: int = 1, layout: Layout3d = "NCDHW", activation: Activation | None = None,
        residual: Array | None = None, skip: SkipForward = "auto", threshold: float = 0.0,
        input_mask: Mask | None = None, output_mask: Mask | None = None, return_mask: bool,
        precision: Precision = "highest", num_threads: int | None = None, out: Array | None = None,
    ) -> np.ndarray | tuple[np.ndarray, Bits]: ...  # fmt: skip


def conv3d(
    x: Input, weight: Weight, bias: Array | None = None, *, stride: Size = 1, padding: Padding = 0, dilation: Size = 1,
    groups: int = 1, layout: Layout3d = "NCDHW", activation: Activation | None = None, residual: Array | None = None,
    skip: SkipForward = "auto", threshold: float = 0.0, input_mask: Mask | None = None, output_mask: Mask | None = None,
    return_mask: bool = False, precision: Precision = "highest", num_threads: int | None = None,
    out: Array | None = None,
) -> np.ndarray | tuple[np.ndarray, Bits]:  # fmt: skip
    """Three-dimensional convolution: `conv2d` for x (N, C, D, H, W) and weight (K, C/groups, T, R, S).

    Layouts are "NCDHW", "NDHWC" or "NCDHW16c"; sizes per dimension are one number or three. All else is as in `conv2d`.
    """
    return checked(
        operations.conv, 3,
        {
            "x": x, "weight": weight, "bias": bias, "residual": residual, "input_mask": input_mask,
            "output_mask": output_mask,
        },
        stride=stride, padding=padding, dilation=dilation, groups=groups, layout=layout, activation=activation,
        skip=skip, threshold=threshold, return_mask=return_mask, precision=precision, num_threads=num_threads, out=out,
    ).run()  # fmt: skip


def conv3d_backward_data(
    grad_output: Array, weight: Weight, input_shape: Shape, *, stride: Size = 1, padding: Padding = 0,
    dilation: Size = 1, groups: int = 1, layout: Layout3d = "NCDHW", skip: SkipBackwardData = "auto",
    threshold: float = 0.0, output_mask: Mask | None = None, grad_output_mask: Mask | None = None,
    precision: Precision = "highest", num_threads: int | None = None, out: Array | None = None,
) -> np.ndarray:  # fmt: skip
    """Gradient of `conv3d` with respect to its input: `conv2d_backward_data` with three dimensions.

    Layouts are "NCDHW", "NDHWC" or "NCDHW16c"; sizes per dimension are one number or three.
    All else is as in `conv2d_backward_data`.
    """
    return checked(
        operations.conv_backward_data, 3,
        {
            "grad_output": grad_output, "weight": weight, "output_mask": output_mask,
            "grad_output_mask": grad_output_mask,
        },
        input_shape=input_shape, stride=stride, padding=padding, dilation=dilation, groups=groups, layout=layout,
        skip=skip, threshold=threshold, precision=precision, num_threads=num_threads, out=out,
    ).run()  # fmt: skip


def conv3d_backward_weight(
    x: SavedInput, grad_output: Operand, kernel_size: Size, *, stride: Size = 1, padding: Padding = 0,
    dilation: Size = 1, groups: int = 1, layout: Layout3d = "NCDHW", skip: SkipBackwardWeight = "auto",
    threshold: float = 0.0, output_mask: Mask | None = None, input_mask: Mask | None = None,
    grad_output_mask: Mask | None = None, precision: Precision = "highest", num_threads: int | None = None,
    out: Array | None = None,
) -> np.ndarray:  # fmt: skip
    """Gradient of `conv3d` with respect to its weight: `conv2d_backward_weight` with three dimensions.

    Layouts are "NCDHW", "NDHWC" or "NCDHW16c"; sizes per dimension are one number or three.
    All else is as in `conv2d_backward_weight`.
    """
    return checked(
        operations.conv_backward_weight, 3,
        {
            "x": x, "grad_output": grad_output, "output_mask": output_mask, "input_mask": input_mask,
            "grad_output_mask": grad_output_mask,
        },
        kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation, groups=groups, layout=layout,
        skip=skip, threshold=threshold, precision=precision, num_threads=num_threads, out=out,
    ).run()  # fmt: skip
