"""What each operation makes of the forms of its arrays and of its options: a prepared operation, or an error.

Everything that can be seen without an array's address or elements is checked here, once for all calls of equal forms
and options: call.py keeps the operations. Names are those of the public functions, for any number of dimensions.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from . import checks, gradient, rows, spiking, without_kernel
from .arrays import Form
from .gradient import Gradient
from .layout import Layout, parse
from .operands import GRAD_OUTPUT, INPUT, Operand
from .problem import Problem
from .rows import Rows
from .spiking import Spiking
from .without_kernel import WithoutKernel

FORWARD = ("auto", "none", "input", "weight", "output")
BACKWARD_DATA = ("auto", "none", "grad_output", "weight", "output")
BACKWARD_WEIGHT = ("auto", "none", "input", "grad_output")
PRECISIONS = ("highest", "high", "medium")

Operation = Rows | Gradient | Spiking | WithoutKernel


class Options:
    """The options that all convolutions share, checked."""

    def __init__(
        self, dims: int, skips: tuple[str, ...], *, layout: str, skip: str = "auto", precision: str = "highest",
        stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: Any = 1, hint: str | None = None,
    ) -> None:  # fmt: skip
        self.dims = dims
        self.order: Layout = parse(layout, dims)
        self.skip: str = checks.word("skip", skip, skips)
        self.precision: str = checks.word("precision", precision, PRECISIONS)
        self.groups: int = checks.whole("groups", groups, 1)
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.hints = hint == "output_mask"  # no public function has it: see `rows.prepared`

    def problem(
        self, batch: int, in_channels: int, out_channels: int, in_size: tuple, kernel: tuple, **more: Any
    ) -> Problem:
        """The convolution with these sizes and this call's geometry."""
        return checks.problem(
            self.dims, batch, in_channels, out_channels, in_size, kernel, self.stride, self.padding, self.dilation,
            self.groups, **more,
        )  # fmt: skip

    def needed(
        self, output_mask: Form | None, shape: tuple[int, ...], dtype: np.dtype, residual: Form | None = None
    ) -> Form | None:
        """The form of a mask for results of forward or backward_data of this shape."""
        if output_mask is None and self.skip == "output":
            raise ValueError("output_mask: got None, expected a mask with skip='output'")
        if residual is not None and self.skip == "output":
            raise ValueError("residual: got one with skip='output', expected none: no kernel for it adds one")
        return checks.mask("output_mask", output_mask, shape, dtype, self.order.channel_axes)

    def rows(
        self, problem: Problem, source: Form, weight: Form, result: Form, *, backward: bool, relu: bool = False,
        **more: Any,
    ) -> Rows | WithoutKernel:  # fmt: skip
        """forward or backward_data of float32; `more` is what `rows.prepared` says."""
        if problem.empty:
            channels = problem.in_channels if backward else problem.out_channels
            return without_kernel.without_sums(problem, result, self.order, channels, relu)
        return rows.prepared(
            problem, self.order, source, weight, result, backward=backward, relu=relu, skip=self.skip,
            precision=self.precision, hints=self.hints, **more,
        )  # fmt: skip

    def reference(self, name: str, problem: Problem, result: Form, **more: Any) -> WithoutKernel:
        """float64 runs on the NumPy oracle."""
        more |= {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}
        more["skip"] = self.skip
        return without_kernel.reference(name.format(self.dims), problem, result, layout=self.order.name, **more)


def conv(
    dims: int, x: Form, weight: Form, bias: Form | None = None, residual: Form | None = None,
    input_mask: Form | None = None, output_mask: Form | None = None, *, out: Form | None, activation: Any = None,
    **options: Any,
) -> Operation:  # fmt: skip
    call = Options(dims, FORWARD, **options)
    checks.word("activation", activation, (None, "relu"))
    checks.tensor("x", x, call.order)
    checks.weights(weight, dims)
    in_channels = weight.shape[1] * call.groups
    checks.channels("x", x, call.order, in_channels, weight.shape, 1, call.groups)
    checks.bias(bias, weight.shape[0])
    spikes = checks.spikes(x, input_mask, weight=weight)
    dtype = checks.same_dtype(x=None if spikes else x, weight=weight, bias=bias, residual=residual)
    problem = call.problem(x.shape[0], in_channels, weight.shape[0], call.order.size(x.shape), weight.shape[2:])
    shape = call.order.shape(problem.batch, problem.out_channels, problem.out_size)
    checks.residual(residual, shape)
    result = checks.result(out, shape, dtype)
    known = checks.mask("input_mask", input_mask, x.shape, dtype, call.order.channel_axes)
    needed = call.needed(output_mask, shape, dtype, residual)
    if dtype == np.float64:
        return call.reference("conv{}d", problem, result, activation=activation)

    def made(source: Form, operand: Operand, known: Form | None) -> Rows | WithoutKernel:
        return call.rows(
            problem, source, weight, result, backward=False, operand=operand, known=known, needed=needed,
            relu=activation == "relu", residual=residual,
        )  # fmt: skip

    return spiking.prepared(x, call.skip, made) if spikes else made(x, INPUT, known)


def conv_backward_data(
    dims: int, grad_output: Form, weight: Form, output_mask: Form | None = None, grad_output_mask: Form | None = None,
    *, out: Form | None, input_shape: Any, **options: Any,
) -> Operation:  # fmt: skip
    call = Options(dims, BACKWARD_DATA, **options)
    checks.tensor("grad_output", grad_output, call.order)
    checks.weights(weight, dims)
    checks.same_dtype(grad_output=grad_output, weight=weight)
    shape = checks.full_shape("input_shape", input_shape, call.order)
    in_channels, size = weight.shape[1] * call.groups, call.order.size(shape)
    checks.input_shape(shape, call.order, shape[0], in_channels, weight.shape, 1, call.groups)
    problem = call.problem(shape[0], in_channels, weight.shape[0], size, weight.shape[2:])
    expected = call.order.shape(problem.batch, problem.out_channels, problem.out_size)
    checks.gradient("grad_output", grad_output.shape, expected, call.order, "input_shape")
    return _backward_data(
        "conv{}d", call, problem, shape, grad_output, weight, output_mask, grad_output_mask, out, backward=True
    )


def conv_backward_weight(
    dims: int, x: Form, grad_output: Form, output_mask: Form | None = None, input_mask: Form | None = None,
    grad_output_mask: Form | None = None, *, out: Form | None, kernel_size: Any, **options: Any,
) -> Operation:  # fmt: skip
    call = Options(dims, BACKWARD_WEIGHT, **options)
    checks.tensor("x", x, call.order)
    checks.tensor("grad_output", grad_output, call.order)
    spikes = checks.spikes(x, input_mask, grad_output=grad_output)
    checks.same_dtype(x=None if spikes else x, grad_output=grad_output)
    kernel, shape = _weight_shape(kernel_size, call, inner=x, outer=grad_output)
    checks.channels("x", x, call.order, shape[1] * call.groups, None, 1, call.groups)
    problem = call.problem(x.shape[0], shape[1] * call.groups, shape[0], call.order.size(x.shape), kernel)
    expected = call.order.shape(problem.batch, problem.out_channels, problem.out_size)
    checks.gradient("grad_output", grad_output.shape, expected, call.order, "the shape of x")
    return _backward_weight(
        "conv{}d", call, problem, shape, x, grad_output, output_mask, input_mask, grad_output_mask, out
    )


def conv_transpose(
    dims: int, x: Form, weight: Form, bias: Form | None = None, residual: Form | None = None,
    input_mask: Form | None = None, output_mask: Form | None = None, *, out: Form | None, output_padding: Any = 0,
    activation: Any = None, **options: Any,
) -> Operation:  # fmt: skip
    call = Options(dims, FORWARD, **options)
    checks.word("activation", activation, (None, "relu"))
    checks.tensor("x", x, call.order)
    checks.weights(weight, dims)
    channels = weight.shape[1] * call.groups
    checks.channels("x", x, call.order, weight.shape[0], weight.shape, 0, call.groups)
    checks.bias(bias, channels)
    dtype = checks.same_dtype(x=x, weight=weight, bias=bias, residual=residual)
    size = call.order.size(x.shape)
    target = checks.transposed_size(size, weight.shape[2:], output_padding, call.stride, call.padding, call.dilation)
    problem = call.problem(x.shape[0], channels, weight.shape[0], target, weight.shape[2:], out_size=size)
    shape = call.order.shape(x.shape[0], channels, target)
    checks.residual(residual, shape)
    result = checks.result(out, shape, dtype)
    known = checks.mask("input_mask", input_mask, x.shape, dtype, call.order.channel_axes)
    needed = call.needed(output_mask, shape, dtype, residual)
    if dtype == np.float64:
        extra = {"output_padding": output_padding, "activation": activation}
        return call.reference("conv_transpose{}d", problem, result, **extra)
    relu = activation == "relu"
    return call.rows(
        problem, x, weight, result, backward=True, operand=INPUT, known=known, needed=needed, relu=relu,
        residual=residual,
    )  # fmt: skip


def conv_transpose_backward_data(
    dims: int, grad_output: Form, weight: Form, output_mask: Form | None = None, grad_output_mask: Form | None = None,
    *, out: Form | None, input_shape: Any, **options: Any,
) -> Operation:  # fmt: skip
    call = Options(dims, BACKWARD_DATA, **options)
    checks.tensor("grad_output", grad_output, call.order)
    checks.weights(weight, dims)
    channels = weight.shape[1] * call.groups
    checks.channels("grad_output", grad_output, call.order, channels, weight.shape, 1, call.groups)
    checks.same_dtype(grad_output=grad_output, weight=weight)
    shape = checks.full_shape("input_shape", input_shape, call.order)
    size = call.order.size(shape)
    checks.input_shape(shape, call.order, grad_output.shape[0], weight.shape[0], weight.shape, 0, call.groups)
    target = call.order.size(grad_output.shape)
    problem = call.problem(shape[0], channels, weight.shape[0], target, weight.shape[2:], out_size=size)
    checks.transposed_gradient(size, weight.shape[2:], target, call.stride, call.padding, call.dilation)
    return _backward_data(
        "conv_transpose{}d", call, problem, shape, grad_output, weight, output_mask, grad_output_mask, out,
        backward=False,
    )  # fmt: skip


def conv_transpose_backward_weight(
    dims: int, grad_output: Form, x: Form, output_mask: Form | None = None, input_mask: Form | None = None,
    grad_output_mask: Form | None = None, *, out: Form | None, kernel_size: Any, **options: Any,
) -> Operation:  # fmt: skip
    call = Options(dims, BACKWARD_WEIGHT, **options)
    checks.tensor("x", x, call.order)
    checks.tensor("grad_output", grad_output, call.order)
    checks.same_dtype(x=x, grad_output=grad_output)
    kernel, shape = _weight_shape(kernel_size, call, inner=grad_output, outer=x)
    channels, size = shape[1] * call.groups, call.order.size(x.shape)
    target = call.order.size(grad_output.shape)
    checks.sizes("x", x.shape, call.order.shape(x.shape[0], shape[0], size))
    checks.sizes("grad_output", grad_output.shape, call.order.shape(x.shape[0], channels, target))
    problem = call.problem(x.shape[0], channels, shape[0], target, kernel, out_size=size)
    checks.transposed_gradient(size, kernel, target, call.stride, call.padding, call.dilation)
    return _backward_weight(
        "conv_transpose{}d", call, problem, shape, x, grad_output, output_mask, input_mask, grad_output_mask, out,
        swapped=True,
    )  # fmt: skip


def _backward_data(
    name: str, call: Options, problem: Problem, shape: tuple[int, ...], grad_output: Form, weight: Form,
    output_mask: Form | None, grad_output_mask: Form | None, out: Form | None, *, backward: bool,
) -> Operation:  # fmt: skip
    """How both backward_data functions end, once the sizes of the gradient and of its result are checked."""
    dtype = weight.dtype
    result = checks.result(out, shape, dtype)
    needed = call.needed(output_mask, shape, dtype)
    known = checks.mask("grad_output_mask", grad_output_mask, grad_output.shape, dtype, call.order.channel_axes)
    if dtype == np.float64:
        return call.reference(f"{name}_backward_data", problem, result, input_shape=shape)
    return call.rows(
        problem, grad_output, weight, result, backward=backward, operand=GRAD_OUTPUT, needed=needed, known=known
    )


def _backward_weight(
    name: str, call: Options, problem: Problem, shape: tuple[int, ...], x: Form, grad_output: Form,
    output_mask: Form | None, input_mask: Form | None, grad_output_mask: Form | None, out: Form | None, *,
    swapped: bool = False,
) -> Operation:  # fmt: skip
    """The same of backward_weight; with `swapped`, the kernels take x and grad_output in each other's place."""
    dtype = grad_output.dtype
    result = checks.result(out, shape, dtype)
    checks.mask("output_mask", output_mask, shape, dtype)
    x_known = checks.mask("input_mask", input_mask, x.shape, dtype, call.order.channel_axes)
    grad_known = checks.mask("grad_output_mask", grad_output_mask, grad_output.shape, dtype, call.order.channel_axes)
    if dtype == np.float64:
        return call.reference(f"{name}_backward_weight", problem, result, kernel_size=shape)
    if problem.empty:
        return WithoutKernel(problem, result, "none", "nothing to sum", lambda operands, threshold: 0)

    def made(scalars: Form, operand: Operand, known: Form | None) -> Gradient:
        sides = (operand, scalars, known), (GRAD_OUTPUT, grad_output, grad_known)
        names, forms, all_known = zip(*(sides[::-1] if swapped else sides), strict=True)
        return gradient.prepared(
            problem, call.order, *forms, result, names=names, skip=call.skip, precision=call.precision, known=all_known
        )

    return made(x, INPUT, x_known) if x.dtype == dtype else spiking.prepared(x, call.skip, made)


def linear(
    dims: int, x: Form, weight: Form, bias: Form | None = None, residual: Form | None = None,
    input_mask: Form | None = None, output_mask: Form | None = None, *, out: Form | None, activation: Any = None,
    **options: Any,
) -> Operation:  # fmt: skip
    checks.features("x", x)
    checks.weights(weight, 0)
    turned = "; is the weight (in, out) (then pass weight.T)?" if x.shape[-1] == weight.shape[0] else ""
    checks.sizes("x", x.shape, (*x.shape[:-1], weight.shape[1]), turned)
    spikes = checks.spikes(x, input_mask, weight=weight)
    result = _linear_result(out, (*x.shape[:-1], weight.shape[0]), x=None if spikes else x, weight=weight)
    options |= {"activation": activation, "layout": "NWC"}
    known = _row_mask("input_mask", input_mask, x)
    needed = _row_mask("output_mask", output_mask, result)
    checks.residual(residual, result.shape)
    added = None if residual is None else residual.as_row()
    operation = conv(1, x.as_row(), _pointwise(weight), bias, added, known, needed, out=result.as_row(), **options)
    return _linear_operation("linear", operation, result, options)


def linear_backward_data(
    dims: int, grad_output: Form, weight: Form, output_mask: Form | None = None, grad_output_mask: Form | None = None,
    *, out: Form | None, **options: Any,
) -> Operation:  # fmt: skip
    checks.features("grad_output", grad_output)
    checks.weights(weight, 0)
    checks.sizes("grad_output", grad_output.shape, (*grad_output.shape[:-1], weight.shape[0]))
    shape = (*grad_output.shape[:-1], weight.shape[1])
    result = _linear_result(out, shape, grad_output=grad_output, weight=weight)
    row = result.as_row()
    needed = _row_mask("output_mask", output_mask, result)
    known = _row_mask("grad_output_mask", grad_output_mask, grad_output)
    options |= {"input_shape": row.shape, "layout": "NWC"}
    operation = conv_backward_data(1, grad_output.as_row(), _pointwise(weight), needed, known, out=row, **options)
    return _linear_operation("linear_backward_data", operation, result, options)


def linear_backward_weight(
    dims: int, x: Form, grad_output: Form, output_mask: Form | None = None, input_mask: Form | None = None,
    grad_output_mask: Form | None = None, *, out: Form | None, **options: Any,
) -> Operation:  # fmt: skip
    checks.features("x", x)
    checks.features("grad_output", grad_output)
    checks.sizes("grad_output", grad_output.shape, (*x.shape[:-1], *grad_output.shape[-1:]))
    spikes = checks.spikes(x, input_mask, grad_output=grad_output)
    dtype = checks.same_dtype(x=None if spikes else x, grad_output=grad_output)
    result = checks.result(out, (grad_output.shape[-1], x.shape[-1]), dtype)
    options |= {"kernel_size": 1, "layout": "NWC"}
    checks.mask("output_mask", output_mask, result.shape, result.dtype)
    known = _row_mask("input_mask", input_mask, x), _row_mask("grad_output_mask", grad_output_mask, grad_output)
    rows = x.as_row(), grad_output.as_row()
    operation = conv_backward_weight(1, *rows, None, *known, out=_pointwise(result), **options)
    return _linear_operation("linear_backward_weight", operation, result, options)


def _row_mask(name: str, mask: Form | None, masked: Form) -> Form | None:
    """A mask of an array (..., features) as one of a row; bits are as they are."""
    made = checks.mask(name, mask, masked.shape, masked.dtype, (masked.ndim - 1,))
    return mask if made is None or mask.dtype == np.uint8 else made.as_row()


def _linear_result(out: Form | None, shape: tuple[int, ...], **operands: Form | None) -> Form:
    """The form of a linear function's result, whose rows must be reachable as one."""
    result = checks.result(out, shape, checks.same_dtype(**operands))
    if result.as_row() is None:
        raise ValueError(f"out: got strides {result.strides}, expected dimensions before the last that lie in one row")
    return result


def _linear_operation(name: str, row: Operation, result: Form, options: dict[str, Any]) -> Operation:
    """A convolution of one row as the operation of operands and a result of any dimensions with the same memory."""
    if result.dtype == np.float64:
        given = {name: options[name] for name in ("activation", "skip") if name in options}
        return without_kernel.reference(name, row.problem, result, **given)
    return dataclasses.replace(row, result=result)


def _pointwise(weight: Form) -> Form:
    """(out, in) as (out, in, one tap)."""
    return Form((*weight.shape, 1), (*weight.strides, weight.itemsize), weight.dtype)


def _weight_shape(kernel_size: Any, call: Options, inner: Form, outer: Form) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(kernel, shape of the weight gradient); channel counts from the arrays unless a whole weight shape is given."""
    kernel, given = checks.kernel_and_channels(kernel_size, call.dims)
    if given is None:
        channels = call.order.channels(inner.shape)
        if channels % call.groups:
            raise ValueError(f"groups: got {call.groups}, expected a divisor of {channels} channels")
        given = (call.order.channels(outer.shape), channels // call.groups)
    return kernel, (*given, *kernel)
