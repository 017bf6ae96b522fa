"""From public arguments to a checked call, for any number of dimensions.

Each operation is here twice. The function without underscore takes the arguments of the public function of the same
name (conv.py, transpose.py, linear.py) and returns a `Call` to run or to look at. The one with underscore checks all
that can be seen from the forms of the arrays and from the other arguments, the words, and returns a pass (passes.py).
Passes are kept: a call with equal forms and words finds its own again, in 2 us instead of 20. What is left to do every
time depends on addresses: alignment, and whether `out` may be written to. Nothing is written before all that is done.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from . import arrays, checks, cpu, passes
from .arrays import Form
from .layout import Layout, parse
from .passes import Call, Gradient, Rows, WithoutKernel
from .problem import Problem

FORWARD = ("auto", "none", "input")
BACKWARD_DATA = ("auto", "none", "grad_output", "output")
BACKWARD_WEIGHT = ("auto", "none", "input", "grad_output")
PRECISIONS = ("highest", "high", "medium")

Pass = Rows | Gradient | WithoutKernel
PLAIN = frozenset({int, str, type(None)})
OPTIONAL = frozenset({"bias", "output_mask"})  # operands that need not be there


# --- calls ---


def conv(
    dims: int, x: Any, weight: Any, bias: Any = None, *, out: Any = None, num_threads: Any = None, **words: Any
) -> Call:
    """conv*d."""
    return _call(_conv, dims, _operands(x=x, weight=weight, bias=bias), out, num_threads, words)


def conv_backward_data(
    dims: int,
    grad_output: Any,
    weight: Any,
    input_shape: Any,
    *,
    output_mask: Any = None,
    out: Any = None,
    num_threads: Any = None,
    **words: Any,
) -> Call:
    """conv*d_backward_data."""
    words["input_shape"] = _sizes(input_shape)
    operands = _operands(grad_output=grad_output, weight=weight, output_mask=output_mask)
    return _call(_conv_backward_data, dims, operands, out, num_threads, words)


def conv_backward_weight(
    dims: int, x: Any, grad_output: Any, kernel_size: Any, *, out: Any = None, num_threads: Any = None, **words: Any
) -> Call:
    """conv*d_backward_weight."""
    words["kernel_size"] = _sizes(kernel_size)
    return _call(_conv_backward_weight, dims, {"x": x, "grad_output": grad_output}, out, num_threads, words)


def conv_transpose(
    dims: int, x: Any, weight: Any, bias: Any = None, *, out: Any = None, num_threads: Any = None, **words: Any
) -> Call:
    """conv_transpose*d: backward_data of the convolution with the same weight."""
    return _call(_conv_transpose, dims, _operands(x=x, weight=weight, bias=bias), out, num_threads, words)


def conv_transpose_backward_data(
    dims: int,
    grad_output: Any,
    weight: Any,
    input_shape: Any,
    *,
    output_mask: Any = None,
    out: Any = None,
    num_threads: Any = None,
    **words: Any,
) -> Call:
    """conv_transpose*d_backward_data: the convolution of grad_output with the same weight."""
    words["input_shape"] = _sizes(input_shape)
    operands = _operands(grad_output=grad_output, weight=weight, output_mask=output_mask)
    return _call(_conv_transpose_backward_data, dims, operands, out, num_threads, words)


def conv_transpose_backward_weight(
    dims: int, x: Any, grad_output: Any, kernel_size: Any, *, out: Any = None, num_threads: Any = None, **words: Any
) -> Call:
    """conv_transpose*d_backward_weight: backward_weight with x and grad_output in each other's place."""
    words["kernel_size"] = _sizes(kernel_size)
    swapped = {"grad_output": grad_output, "x": x}
    return _call(_conv_transpose_backward_weight, dims, swapped, out, num_threads, words)


def linear(x: Any, weight: Any, bias: Any = None, *, out: Any = None, num_threads: Any = None, **words: Any) -> Call:
    """linear: a pointwise convolution of one row."""
    return _call(_linear, 1, _operands(x=x, weight=weight, bias=bias), out, num_threads, words, arrays.in_rows)


def linear_backward_data(
    grad_output: Any, weight: Any, *, output_mask: Any = None, out: Any = None, num_threads: Any = None, **words: Any
) -> Call:
    """linear_backward_data."""
    operands = _operands(grad_output=grad_output, weight=weight, output_mask=output_mask)
    return _call(_linear_backward_data, 1, operands, out, num_threads, words, arrays.in_rows)


def linear_backward_weight(x: Any, grad_output: Any, *, out: Any = None, num_threads: Any = None, **words: Any) -> Call:
    """linear_backward_weight."""
    operands = {"x": x, "grad_output": grad_output}
    return _call(_linear_backward_weight, 1, operands, out, num_threads, words, arrays.in_rows)


def _operands(**given: Any) -> dict[str, Any]:
    """Operands by name, those that are there."""
    return {name: value for name, value in given.items() if value is not None or name not in OPTIONAL}


def _sizes(value: Any) -> Any:
    """A plain tuple in the place of its subclasses, such as the shapes of tensors."""
    return tuple(value) if isinstance(value, tuple) else value


def _call(
    operation: Callable[..., Pass], dims: int, operands: dict[str, Any], out: Any, num_threads: Any,
    words: dict[str, Any], usable: Callable[[np.ndarray], np.ndarray] = arrays.addressable,
) -> Call:  # fmt: skip
    """A checked call of `operation`; `usable` copies arrays whose memory its kernels cannot read."""
    given, used, forms = {}, {}, []
    for name, value in operands.items():
        given[name] = array = (arrays.take_mask if name.endswith("_mask") else arrays.take)(name, value)
        used[name] = array = usable(array)
        forms.append((array.shape, array.strides, array.dtype))
    target = None
    if out is not None:
        out = arrays.take("out", out)
        target = (out.shape, out.strides, out.dtype)
    values = tuple(words.values())
    find = _kept if _plain(values) else _kept.__wrapped__
    made = find(operation, dims, tuple(operands), tuple(forms), target, tuple(words), values)
    threads = cpu.checked_threads(num_threads)
    if out is None:
        out = arrays.empty(made.result.shape, made.result.dtype)
    else:
        arrays.check_memory(out, given)
    return Call(made, used, out, threads)


def _plain(values: tuple) -> bool:
    """Whether equal words mean the same: 1, True and 1.0 are equal, but only the first is a stride."""
    for one in values:
        if type(one) not in PLAIN and (type(one) is not tuple or not _plain(one)):
            return False
    return True


@lru_cache(maxsize=4096)
def _kept(
    operation: Callable[..., Pass], dims: int, operands: tuple, forms: tuple, target: tuple | None, names: tuple,
    values: tuple,
) -> Pass:  # fmt: skip
    """The pass for operands of these forms and these words."""
    out = None if target is None else Form(*target)
    given = {operand: Form(*one) for operand, one in zip(operands, forms, strict=True)}
    return operation(dims, **given, out=out, **dict(zip(names, values, strict=True)))


# --- checks and passes ---


class Options:
    """The words that all convolutions share, checked."""

    def __init__(
        self, dims: int, skips: tuple[str, ...], *, layout: str, skip: str = "auto", precision: str = "highest",
        stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: Any = 1,
    ) -> None:  # fmt: skip
        self.dims = dims
        self.order: Layout = parse(layout, dims)
        self.skip: str = checks.word("skip", skip, skips)
        self.precision: str = checks.word("precision", precision, PRECISIONS)
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

    def needed(self, mask: Form | None, shape: tuple[int, ...], dtype: np.dtype) -> Form | None:
        """The form of `output_mask` for results of this shape; skip="output" needs one."""
        if mask is None and self.skip == "output":
            raise ValueError("output_mask: got None, expected a mask with skip='output'")
        return checks.mask("output_mask", mask, shape, dtype)

    def reference(self, name: str, problem: Problem, result: Form, **more: Any) -> WithoutKernel:
        """float64 runs on the NumPy oracle."""
        more |= {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}
        return _reference(name.format(self.dims), problem, result, layout=self.order.name, **more)


def _reference(name: str, problem: Problem, result: Form, **words: Any) -> WithoutKernel:
    from . import reference  # 4 ms that float32 users need not spend

    function = getattr(reference, name)
    why = "float64 is computed in NumPy"
    return WithoutKernel(problem, result, "reference", why, lambda operands: function(**operands, **words))


def _conv(
    dims: int, x: Form, weight: Form, bias: Form | None = None, *, out: Form | None, activation: Any = None,
    **options: Any,
) -> Pass:  # fmt: skip
    call = Options(dims, FORWARD, **options)
    checks.word("activation", activation, (None, "relu"))
    checks.tensor("x", x, call.order)
    checks.weights(weight, dims)
    in_channels = weight.shape[1] * call.groups
    checks.channels("x", x, call.order, in_channels)
    checks.bias(bias, weight.shape[0])
    dtype = checks.same_dtype(x=x, weight=weight, bias=bias)
    problem = call.problem(x.shape[0], in_channels, weight.shape[0], call.order.size(x.shape), weight.shape[2:])
    shape = call.order.shape(problem.batch, problem.out_channels, problem.out_size)
    result = checks.result(out, shape, dtype)
    if dtype == np.float64:
        return call.reference("conv{}d", problem, result, activation=activation)
    relu = activation == "relu"
    return passes.rows(
        problem, call.order, x, weight, result, backward=False, relu=relu, skip=call.skip, scalar="input",
        precision=call.precision,
    )  # fmt: skip


def _conv_backward_data(
    dims: int, grad_output: Form, weight: Form, output_mask: Form | None = None, *, out: Form | None, input_shape: Any,
    **options: Any,
) -> Pass:  # fmt: skip
    call = Options(dims, BACKWARD_DATA, **options)
    checks.tensor("grad_output", grad_output, call.order)
    checks.weights(weight, dims)
    dtype = checks.same_dtype(grad_output=grad_output, weight=weight)
    shape = checks.full_shape("input_shape", input_shape, call.order)
    in_channels, size = weight.shape[1] * call.groups, call.order.size(shape)
    checks.sizes("input_shape", shape, call.order.shape(shape[0], in_channels, size))
    problem = call.problem(shape[0], in_channels, weight.shape[0], size, weight.shape[2:])
    expected = call.order.shape(problem.batch, problem.out_channels, problem.out_size)
    checks.sizes("grad_output", grad_output.shape, expected)
    result = checks.result(out, shape, dtype)
    needed = call.needed(output_mask, shape, dtype)
    if dtype == np.float64:
        return call.reference("conv{}d_backward_data", problem, result, input_shape=shape)
    return passes.rows(
        problem, call.order, grad_output, weight, result, backward=True, skip=call.skip, scalar="grad_output",
        precision=call.precision, needed=needed,
    )  # fmt: skip


def _conv_backward_weight(
    dims: int, x: Form, grad_output: Form, *, out: Form | None, kernel_size: Any, **options: Any
) -> Pass:
    call = Options(dims, BACKWARD_WEIGHT, **options)
    checks.tensor("x", x, call.order)
    checks.tensor("grad_output", grad_output, call.order)
    dtype = checks.same_dtype(x=x, grad_output=grad_output)
    kernel, shape = _weight_shape(kernel_size, call, inner=x, outer=grad_output)
    checks.channels("x", x, call.order, shape[1] * call.groups)
    problem = call.problem(x.shape[0], shape[1] * call.groups, shape[0], call.order.size(x.shape), kernel)
    expected = call.order.shape(problem.batch, problem.out_channels, problem.out_size)
    checks.sizes("grad_output", grad_output.shape, expected)
    result = checks.result(out, shape, dtype)
    if dtype == np.float64:
        return call.reference("conv{}d_backward_weight", problem, result, kernel_size=shape)
    return passes.gradient(problem, call.order, x, grad_output, result, skip=call.skip, precision=call.precision)


def _conv_transpose(
    dims: int, x: Form, weight: Form, bias: Form | None = None, *, out: Form | None, output_padding: Any = 0,
    activation: Any = None, **options: Any,
) -> Pass:  # fmt: skip
    call = Options(dims, FORWARD, **options)
    checks.word("activation", activation, (None, "relu"))
    checks.tensor("x", x, call.order)
    checks.weights(weight, dims)
    channels = weight.shape[1] * call.groups
    checks.channels("x", x, call.order, weight.shape[0])
    checks.bias(bias, channels)
    dtype = checks.same_dtype(x=x, weight=weight, bias=bias)
    size = call.order.size(x.shape)
    target = checks.transposed_size(size, weight.shape[2:], output_padding, call.stride, call.padding, call.dilation)
    problem = call.problem(x.shape[0], channels, weight.shape[0], target, weight.shape[2:], out_size=size)
    result = checks.result(out, call.order.shape(x.shape[0], channels, target), dtype)
    if dtype == np.float64:
        extra = {"output_padding": output_padding, "activation": activation}
        return call.reference("conv_transpose{}d", problem, result, **extra)
    relu = activation == "relu"
    return passes.rows(
        problem, call.order, x, weight, result, backward=True, relu=relu, skip=call.skip, scalar="input",
        precision=call.precision,
    )  # fmt: skip


def _conv_transpose_backward_data(
    dims: int, grad_output: Form, weight: Form, output_mask: Form | None = None, *, out: Form | None, input_shape: Any,
    **options: Any,
) -> Pass:  # fmt: skip
    call = Options(dims, BACKWARD_DATA, **options)
    checks.tensor("grad_output", grad_output, call.order)
    checks.weights(weight, dims)
    channels = weight.shape[1] * call.groups
    checks.channels("grad_output", grad_output, call.order, channels)
    dtype = checks.same_dtype(grad_output=grad_output, weight=weight)
    shape = checks.full_shape("input_shape", input_shape, call.order)
    size = call.order.size(shape)
    checks.sizes("input_shape", shape, call.order.shape(grad_output.shape[0], weight.shape[0], size))
    target = call.order.size(grad_output.shape)
    problem = call.problem(shape[0], channels, weight.shape[0], target, weight.shape[2:], out_size=size)
    checks.transposed_gradient(size, weight.shape[2:], target, call.stride, call.padding, call.dilation)
    result = checks.result(out, shape, dtype)
    needed = call.needed(output_mask, shape, dtype)
    if dtype == np.float64:
        return call.reference("conv_transpose{}d_backward_data", problem, result, input_shape=shape)
    return passes.rows(
        problem, call.order, grad_output, weight, result, backward=False, skip=call.skip, scalar="grad_output",
        precision=call.precision, needed=needed,
    )  # fmt: skip


def _conv_transpose_backward_weight(
    dims: int, grad_output: Form, x: Form, *, out: Form | None, kernel_size: Any, **options: Any
) -> Pass:
    call = Options(dims, BACKWARD_WEIGHT, **options)
    checks.tensor("x", x, call.order)
    checks.tensor("grad_output", grad_output, call.order)
    dtype = checks.same_dtype(x=x, grad_output=grad_output)
    kernel, shape = _weight_shape(kernel_size, call, inner=grad_output, outer=x)
    channels, size = shape[1] * call.groups, call.order.size(x.shape)
    target = call.order.size(grad_output.shape)
    checks.sizes("x", x.shape, call.order.shape(x.shape[0], shape[0], size))
    checks.sizes("grad_output", grad_output.shape, call.order.shape(x.shape[0], channels, target))
    problem = call.problem(x.shape[0], channels, shape[0], target, kernel, out_size=size)
    checks.transposed_gradient(size, kernel, target, call.stride, call.padding, call.dilation)
    result = checks.result(out, shape, dtype)
    if dtype == np.float64:
        return call.reference("conv_transpose{}d_backward_weight", problem, result, kernel_size=shape)
    swapped = {"grad_output": "input", "input": "grad_output"}
    return passes.gradient(
        problem, call.order, grad_output, x, result, skip=call.skip, precision=call.precision, roles=swapped
    )


def _linear(
    dims: int, x: Form, weight: Form, bias: Form | None = None, *, out: Form | None, activation: Any = None,
    **options: Any,
) -> Pass:  # fmt: skip
    checks.features("x", x)
    checks.weights(weight, 0)
    checks.sizes("x", x.shape, (*x.shape[:-1], weight.shape[1]))
    result = _linear_result(out, (*x.shape[:-1], weight.shape[0]), x=x, weight=weight)
    options |= {"activation": activation, "layout": "NWC"}
    made = _conv(dims, x.as_row(), _pointwise(weight), bias, out=result.as_row(), **options)
    return _linear_pass("linear", made, result, activation=activation)


def _linear_backward_data(
    dims: int, grad_output: Form, weight: Form, output_mask: Form | None = None, *, out: Form | None, **options: Any
) -> Pass:
    checks.features("grad_output", grad_output)
    checks.weights(weight, 0)
    checks.sizes("grad_output", grad_output.shape, (*grad_output.shape[:-1], weight.shape[0]))
    shape = (*grad_output.shape[:-1], weight.shape[1])
    result = _linear_result(out, shape, grad_output=grad_output, weight=weight)
    row = result.as_row()
    checks.mask("output_mask", output_mask, shape, result.dtype)
    if output_mask and output_mask.dtype != np.uint8:  # bits lie in a row as they are
        output_mask = output_mask.as_row()
    options |= {"input_shape": row.shape, "layout": "NWC"}
    made = _conv_backward_data(dims, grad_output.as_row(), _pointwise(weight), output_mask, out=row, **options)
    return _linear_pass("linear_backward_data", made, result)


def _linear_backward_weight(dims: int, x: Form, grad_output: Form, *, out: Form | None, **options: Any) -> Pass:
    checks.features("x", x)
    checks.features("grad_output", grad_output)
    checks.sizes("grad_output", grad_output.shape, (*x.shape[:-1], *grad_output.shape[-1:]))
    result = checks.result(out, (grad_output.shape[-1], x.shape[-1]), checks.same_dtype(x=x, grad_output=grad_output))
    options |= {"kernel_size": 1, "layout": "NWC"}
    made = _conv_backward_weight(dims, x.as_row(), grad_output.as_row(), out=_pointwise(result), **options)
    return _linear_pass("linear_backward_weight", made, result)


def _linear_result(out: Form | None, shape: tuple[int, ...], **operands: Form) -> Form:
    """The form of a linear function's result, whose rows must be reachable as one."""
    result = checks.result(out, shape, checks.same_dtype(**operands))
    if result.as_row() is None:
        raise ValueError(f"out: got strides {result.strides}, expected dimensions before the last that lie in one row")
    return result


def _linear_pass(name: str, made: Pass, result: Form, **words: Any) -> Pass:
    """The pass of a convolution of one row, for operands and a result of any dimensions with the same memory."""
    if result.dtype == np.float64:
        return _reference(name, made.problem, result, **words)
    return dataclasses.replace(made, result=result)


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
