"""From public arguments to a prepared pass: one checked preparation per operation, for any number of dimensions.

Each function takes the arguments of the public function of the same name (conv.py, transpose.py, linear.py), checks
all of them before anything is written, and returns a `Call` to run or to look at.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import arrays, checks, cpu, passes
from .layout import Layout, parse
from .passes import Call
from .problem import Problem

FORWARD = ("auto", "none", "input")
BACKWARD_DATA = ("auto", "none", "grad_output")
BACKWARD_WEIGHT = ("auto", "none", "input", "grad_output")
PRECISIONS = ("highest", "high", "medium")


class Options:
    """The keywords that all convolutions share, checked."""

    def __init__(
        self, dims: int, skips: tuple[str, ...], *, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
        groups: Any = 1, layout: str, skip: str = "auto", precision: str = "highest", num_threads: Any = None,
    ) -> None:  # fmt: skip
        self.dims = dims
        self.order: Layout = parse(layout, dims)
        self.skip: str = checks.word("skip", skip, skips)
        self.precision: str = checks.word("precision", precision, PRECISIONS)
        self.threads: int = cpu.checked_threads(num_threads)
        self.groups: int = checks.whole("groups", groups, 1)
        self.stride, self.padding, self.dilation = stride, padding, dilation

    def problem(
        self, batch: int, in_channels: int, out_channels: int, in_size: tuple, kernel: tuple, **more: Any
    ) -> Problem:
        """The convolution with these sizes and this call's geometry."""
        return checks.problem(
            self.dims, batch, in_channels, out_channels, in_size, kernel, self.stride, self.padding, self.dilation,
            self.groups, **more,
        )  # fmt: skip

    def reference(self, problem: Problem, name: str, out: np.ndarray, *args: Any, **more: Any) -> Call:
        """float64 runs on the NumPy oracle."""
        from . import reference  # 4 ms that float32 users need not spend

        function = getattr(reference, name.format(self.dims))
        more |= {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}
        more["layout"] = self.order.name

        def execute() -> np.ndarray:
            out[...] = function(*args, **more)
            return out

        return passes.without_kernel(problem, "reference", "float64 is computed in NumPy", execute)


def conv(
    dims: int, x: Any, weight: Any, bias: Any = None, *, activation: Any = None, out: Any = None, **options: Any
) -> Call:
    """conv*d."""
    call = Options(dims, FORWARD, **options)
    checks.word("activation", activation, (None, "relu"))
    x, weight = checks.tensor("x", x, call.order), checks.weights(weight, dims)
    in_channels = weight.shape[1] * call.groups
    checks.channels("x", x, call.order, in_channels)
    bias = _bias(bias, weight.shape[0])
    dtype = checks.same_dtype(x=x, weight=weight, bias=bias)
    problem = call.problem(x.shape[0], in_channels, weight.shape[0], call.order.size(x.shape), weight.shape[2:])
    shape = call.order.shape(problem.batch, problem.out_channels, problem.out_size)
    out = passes.result(out, shape, dtype, {"x": x, "weight": weight, "bias": bias})
    if dtype == np.float64:
        return call.reference(problem, "conv{}d", out, x, weight, bias, activation=activation)
    return passes.rows(
        problem, False, x, weight, bias, activation == "relu", out, call.order, call.skip, "input", call.threads,
        call.precision,
    )  # fmt: skip


def conv_backward_data(
    dims: int, grad_output: Any, weight: Any, input_shape: Any, *, out: Any = None, **options: Any
) -> Call:
    """conv*d_backward_data."""
    call = Options(dims, BACKWARD_DATA, **options)
    grad_output, weight = checks.tensor("grad_output", grad_output, call.order), checks.weights(weight, dims)
    dtype = checks.same_dtype(grad_output=grad_output, weight=weight)
    shape = checks.full_shape("input_shape", input_shape, call.order)
    in_channels, size = weight.shape[1] * call.groups, call.order.size(shape)
    checks.sizes("input_shape", shape, call.order.shape(shape[0], in_channels, size))
    problem = call.problem(shape[0], in_channels, weight.shape[0], size, weight.shape[2:])
    expected = call.order.shape(problem.batch, problem.out_channels, problem.out_size)
    checks.sizes("grad_output", grad_output.shape, expected)
    out = passes.result(out, shape, dtype, {"grad_output": grad_output, "weight": weight})
    if dtype == np.float64:
        return call.reference(problem, "conv{}d_backward_data", out, grad_output, weight, shape)
    return passes.rows(
        problem, True, grad_output, weight, None, False, out, call.order, call.skip, "grad_output", call.threads,
        call.precision,
    )  # fmt: skip


def conv_backward_weight(
    dims: int, x: Any, grad_output: Any, kernel_size: Any, *, out: Any = None, **options: Any
) -> Call:
    """conv*d_backward_weight."""
    call = Options(dims, BACKWARD_WEIGHT, **options)
    x, grad_output = checks.tensor("x", x, call.order), checks.tensor("grad_output", grad_output, call.order)
    dtype = checks.same_dtype(x=x, grad_output=grad_output)
    kernel, shape = _weight_shape(kernel_size, call, inner=x, outer=grad_output)
    checks.channels("x", x, call.order, shape[1] * call.groups)
    problem = call.problem(x.shape[0], shape[1] * call.groups, shape[0], call.order.size(x.shape), kernel)
    expected = call.order.shape(problem.batch, problem.out_channels, problem.out_size)
    checks.sizes("grad_output", grad_output.shape, expected)
    out = passes.result(out, shape, dtype, {"x": x, "grad_output": grad_output})
    if dtype == np.float64:
        return call.reference(problem, "conv{}d_backward_weight", out, x, grad_output, shape)
    return passes.gradient(problem, x, grad_output, out, call.order, call.skip, call.threads, call.precision)


def conv_transpose(
    dims: int, x: Any, weight: Any, bias: Any = None, *, output_padding: Any = 0, activation: Any = None,
    out: Any = None, **options: Any,
) -> Call:  # fmt: skip
    """conv_transpose*d: backward_data of the convolution with the same weight."""
    call = Options(dims, FORWARD, **options)
    checks.word("activation", activation, (None, "relu"))
    x, weight = checks.tensor("x", x, call.order), checks.weights(weight, dims)
    channels = weight.shape[1] * call.groups
    checks.channels("x", x, call.order, weight.shape[0])
    bias = _bias(bias, channels)
    dtype = checks.same_dtype(x=x, weight=weight, bias=bias)
    size = call.order.size(x.shape)
    target = checks.transposed_size(size, weight.shape[2:], output_padding, call.stride, call.padding, call.dilation)
    problem = call.problem(x.shape[0], channels, weight.shape[0], target, weight.shape[2:], out_size=size)
    out = passes.result(
        out, call.order.shape(x.shape[0], channels, target), dtype, {"x": x, "weight": weight, "bias": bias}
    )
    if dtype == np.float64:
        extra = {"output_padding": output_padding, "activation": activation}
        return call.reference(problem, "conv_transpose{}d", out, x, weight, bias, **extra)
    return passes.rows(
        problem, True, x, weight, bias, activation == "relu", out, call.order, call.skip, "input", call.threads,
        call.precision,
    )  # fmt: skip


def conv_transpose_backward_data(
    dims: int, grad_output: Any, weight: Any, input_shape: Any, *, out: Any = None, **options: Any
) -> Call:
    """conv_transpose*d_backward_data: the convolution of grad_output with the same weight."""
    call = Options(dims, BACKWARD_DATA, **options)
    grad_output, weight = checks.tensor("grad_output", grad_output, call.order), checks.weights(weight, dims)
    channels = weight.shape[1] * call.groups
    checks.channels("grad_output", grad_output, call.order, channels)
    dtype = checks.same_dtype(grad_output=grad_output, weight=weight)
    shape = checks.full_shape("input_shape", input_shape, call.order)
    size = call.order.size(shape)
    checks.sizes("input_shape", shape, call.order.shape(grad_output.shape[0], weight.shape[0], size))
    target = call.order.size(grad_output.shape)
    problem = call.problem(shape[0], channels, weight.shape[0], target, weight.shape[2:], out_size=size)
    checks.transposed_gradient(size, weight.shape[2:], target, call.stride, call.padding, call.dilation)
    out = passes.result(out, shape, dtype, {"grad_output": grad_output, "weight": weight})
    if dtype == np.float64:
        return call.reference(problem, "conv_transpose{}d_backward_data", out, grad_output, weight, shape)
    return passes.rows(
        problem, False, grad_output, weight, None, False, out, call.order, call.skip, "grad_output", call.threads,
        call.precision,
    )  # fmt: skip


def conv_transpose_backward_weight(
    dims: int, x: Any, grad_output: Any, kernel_size: Any, *, out: Any = None, **options: Any
) -> Call:
    """conv_transpose*d_backward_weight: backward_weight with x and grad_output in each other's place."""
    call = Options(dims, BACKWARD_WEIGHT, **options)
    x, grad_output = checks.tensor("x", x, call.order), checks.tensor("grad_output", grad_output, call.order)
    dtype = checks.same_dtype(x=x, grad_output=grad_output)
    kernel, shape = _weight_shape(kernel_size, call, inner=grad_output, outer=x)
    channels, size = shape[1] * call.groups, call.order.size(x.shape)
    target = call.order.size(grad_output.shape)
    checks.sizes("x", x.shape, call.order.shape(x.shape[0], shape[0], size))
    checks.sizes("grad_output", grad_output.shape, call.order.shape(x.shape[0], channels, target))
    problem = call.problem(x.shape[0], channels, shape[0], target, kernel, out_size=size)
    checks.transposed_gradient(size, kernel, target, call.stride, call.padding, call.dilation)
    out = passes.result(out, shape, dtype, {"x": x, "grad_output": grad_output})
    if dtype == np.float64:
        return call.reference(problem, "conv_transpose{}d_backward_weight", out, x, grad_output, shape)
    swapped = {"input": "grad_output", "grad_output": "input"}
    return passes.gradient(problem, grad_output, x, out, call.order, call.skip, call.threads, call.precision, swapped)


def linear(x: Any, weight: Any, bias: Any = None, *, out: Any = None, **options: Any) -> Call:
    """linear: a pointwise convolution of one row."""
    x, weight = _features("x", x), checks.weights(weight, 0)
    checks.sizes("x", x.shape, (*x.shape[:-1], weight.shape[1]))
    shape = (*x.shape[:-1], weight.shape[0])
    target = _linear_out(out, shape, {"x": x, "weight": weight})
    call = conv(1, _row(x), weight[:, :, None], bias, layout="NWC", out=_row(target), **options)
    return passes.returning(call, target)


def linear_backward_data(grad_output: Any, weight: Any, *, out: Any = None, **options: Any) -> Call:
    """linear_backward_data."""
    grad_output, weight = _features("grad_output", grad_output), checks.weights(weight, 0)
    checks.sizes("grad_output", grad_output.shape, (*grad_output.shape[:-1], weight.shape[0]))
    shape = (*grad_output.shape[:-1], weight.shape[1])
    target = _linear_out(out, shape, {"grad_output": grad_output, "weight": weight})
    row = _row(target)
    call = conv_backward_data(1, _row(grad_output), weight[:, :, None], row.shape, layout="NWC", out=row, **options)
    return passes.returning(call, target)


def linear_backward_weight(x: Any, grad_output: Any, *, out: Any = None, **options: Any) -> Call:
    """linear_backward_weight."""
    x, grad_output = _features("x", x), _features("grad_output", grad_output)
    checks.sizes("grad_output", grad_output.shape, (*x.shape[:-1], *grad_output.shape[-1:]))
    target = _linear_out(out, (grad_output.shape[-1], x.shape[-1]), {"x": x, "grad_output": grad_output})
    call = conv_backward_weight(1, _row(x), _row(grad_output), 1, layout="NWC", out=target[:, :, None], **options)
    return passes.returning(call, target)


def _bias(bias: Any, channels: int) -> np.ndarray | None:
    if bias is None:
        return None
    array = checks.shaped("bias", arrays.take("bias", bias), 1, "(out channels,)")
    checks.sizes("bias", array.shape, (channels,))
    return np.ascontiguousarray(array)


def _weight_shape(
    kernel_size: Any, call: Options, inner: np.ndarray, outer: np.ndarray
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(kernel, shape of the weight gradient); channel counts from the arrays unless a whole weight shape is given."""
    kernel, given = checks.kernel_and_channels(kernel_size, call.dims)
    if given is None:
        channels = call.order.channels(inner.shape)
        if channels % call.groups:
            raise ValueError(f"groups: got {call.groups}, expected a divisor of {channels} channels")
        given = (call.order.channels(outer.shape), channels // call.groups)
    return kernel, (*given, *kernel)


def _features(name: str, value: Any) -> np.ndarray:
    """An array whose last dimension are features."""
    array = arrays.take(name, value)
    if array.ndim < 1:
        raise ValueError(f"{name}: got a scalar, expected (..., features)")
    return array


def _row(array: np.ndarray) -> np.ndarray:
    """(..., features) as (1, positions, features): a view where the array allows it."""
    return array.reshape(1, math.prod(array.shape[:-1]), array.shape[-1])


def _linear_out(out: Any, shape: tuple[int, ...], inputs: dict[str, np.ndarray]) -> np.ndarray:
    """The array that a linear function returns; its rows must be reachable as one."""
    dtype = checks.same_dtype(**inputs)
    array = passes.result(out, shape, dtype, inputs)
    if out is not None and not np.may_share_memory(_row(array), array) and array.size:
        raise ValueError(f"out: got strides {array.strides}, expected dimensions before the last that lie in one row")
    return array
