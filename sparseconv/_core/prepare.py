"""From public arguments to a checked call, for any number of dimensions.

The functions have the names of the public ones (conv.py, transpose.py, linear.py), take their arguments and return a
`Call` to run or to look at. Arrays are reduced to their forms; what forms and all other arguments, the words, decide is
checked by operations.py and becomes a pass. Passes are kept: a call with equal forms and words finds its own again, in
2 us instead of 20. What is left to do every time depends on addresses: alignment, and whether `out` may be written to.
Nothing is written before all that is done. No pass depends on `threshold`, `return_mask` or `num_threads`, which are
checked every time and given to its kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import cpu
from ..compressed import expanded
from ..packed import PackedWeight
from . import arrays, caches, checks, layout, operations
from .arrays import Form
from .operations import Pass
from .passes import KNOWN_ZEROS, Call

PLAIN = frozenset({int, str, type(None)})
MASKS = frozenset({"output_mask", *KNOWN_ZEROS.values()})
OPTIONAL = MASKS | {"bias", "residual"}  # operands that need not be there


def conv(
    dims: int, x: Any, weight: Any, bias: Any = None, *, residual: Any = None, input_mask: Any = None, out: Any = None,
    num_threads: Any = None, return_mask: Any = False, **words: Any,
) -> Call:  # fmt: skip
    """conv*d."""
    operands = {"x": x, "weight": weight, "bias": bias, "residual": residual, "input_mask": input_mask}
    call = _call(operations.conv, dims, operands, out, num_threads, words)
    return call if return_mask is False else _with_mask(call, return_mask, words)


def conv_backward_data(
    dims: int,
    grad_output: Any,
    weight: Any,
    input_shape: Any,
    *,
    output_mask: Any = None,
    grad_output_mask: Any = None,
    out: Any = None,
    num_threads: Any = None,
    **words: Any,
) -> Call:
    """conv*d_backward_data."""
    words["input_shape"] = _sizes(input_shape)
    operands = {
        "grad_output": grad_output, "weight": weight, "output_mask": output_mask, "grad_output_mask": grad_output_mask,
    }  # fmt: skip
    return _call(operations.conv_backward_data, dims, operands, out, num_threads, words)


def conv_backward_weight(
    dims: int, x: Any, grad_output: Any, kernel_size: Any, *, output_mask: Any = None, input_mask: Any = None,
    grad_output_mask: Any = None, out: Any = None, num_threads: Any = None, **words: Any,
) -> Call:  # fmt: skip
    """conv*d_backward_weight."""
    words["kernel_size"] = _sizes(kernel_size)
    operands = {
        "x": expanded(x, num_threads), "grad_output": expanded(grad_output, num_threads),
        "output_mask": output_mask, "input_mask": input_mask, "grad_output_mask": grad_output_mask,
    }  # fmt: skip
    return _call(operations.conv_backward_weight, dims, operands, out, num_threads, words)


def conv_transpose(
    dims: int, x: Any, weight: Any, bias: Any = None, *, residual: Any = None, input_mask: Any = None, out: Any = None,
    num_threads: Any = None, return_mask: Any = False, **words: Any,
) -> Call:  # fmt: skip
    """conv_transpose*d: backward_data of the convolution with the same weight."""
    operands = {"x": x, "weight": weight, "bias": bias, "residual": residual, "input_mask": input_mask}
    call = _call(operations.conv_transpose, dims, operands, out, num_threads, words)
    return call if return_mask is False else _with_mask(call, return_mask, words)


def conv_transpose_backward_data(
    dims: int,
    grad_output: Any,
    weight: Any,
    input_shape: Any,
    *,
    output_mask: Any = None,
    grad_output_mask: Any = None,
    out: Any = None,
    num_threads: Any = None,
    **words: Any,
) -> Call:
    """conv_transpose*d_backward_data: the convolution of grad_output with the same weight."""
    words["input_shape"] = _sizes(input_shape)
    operands = {
        "grad_output": grad_output, "weight": weight, "output_mask": output_mask, "grad_output_mask": grad_output_mask,
    }  # fmt: skip
    return _call(operations.conv_transpose_backward_data, dims, operands, out, num_threads, words)


def conv_transpose_backward_weight(
    dims: int, x: Any, grad_output: Any, kernel_size: Any, *, output_mask: Any = None, input_mask: Any = None,
    grad_output_mask: Any = None, out: Any = None, num_threads: Any = None, **words: Any,
) -> Call:  # fmt: skip
    """conv_transpose*d_backward_weight: backward_weight with x and grad_output in each other's place."""
    words["kernel_size"] = _sizes(kernel_size)
    swapped = {
        "grad_output": expanded(grad_output, num_threads), "x": expanded(x, num_threads),
        "output_mask": output_mask, "input_mask": input_mask, "grad_output_mask": grad_output_mask,
    }  # fmt: skip
    return _call(operations.conv_transpose_backward_weight, dims, swapped, out, num_threads, words)


def linear(
    x: Any, weight: Any, bias: Any = None, *, residual: Any = None, input_mask: Any = None, out: Any = None,
    num_threads: Any = None, return_mask: Any = False, **words: Any,
) -> Call:  # fmt: skip
    """linear: a pointwise convolution of one row."""
    operands = {"x": x, "weight": weight, "bias": bias, "residual": residual, "input_mask": input_mask}
    call = _call(operations.linear, 1, operands, out, num_threads, words, arrays.in_rows)
    return call if return_mask is False else _with_mask(call, return_mask, words)


def linear_backward_data(
    grad_output: Any, weight: Any, *, output_mask: Any = None, grad_output_mask: Any = None, out: Any = None,
    num_threads: Any = None, **words: Any,
) -> Call:  # fmt: skip
    """linear_backward_data."""
    operands = {
        "grad_output": grad_output, "weight": weight, "output_mask": output_mask, "grad_output_mask": grad_output_mask,
    }  # fmt: skip
    return _call(operations.linear_backward_data, 1, operands, out, num_threads, words, arrays.in_rows)


def linear_backward_weight(
    x: Any, grad_output: Any, *, output_mask: Any = None, input_mask: Any = None, grad_output_mask: Any = None,
    out: Any = None, num_threads: Any = None, **words: Any,
) -> Call:  # fmt: skip
    """linear_backward_weight."""
    operands = {
        "x": expanded(x, num_threads), "grad_output": expanded(grad_output, num_threads),
        "output_mask": output_mask, "input_mask": input_mask, "grad_output_mask": grad_output_mask,
    }  # fmt: skip
    return _call(operations.linear_backward_weight, 1, operands, out, num_threads, words, arrays.in_rows)


def _sizes(value: Any) -> Any:
    """A plain tuple in the place of its subclasses, such as the shapes of tensors."""
    return tuple(value) if isinstance(value, tuple) else value


def _call(
    operation: Callable[..., Pass], dims: int, operands: dict[str, Any], out: Any, num_threads: Any,
    words: dict[str, Any], usable: Callable[[np.ndarray], np.ndarray] = arrays.addressable,
) -> Call:  # fmt: skip
    """A checked call of `operation`; `usable` copies arrays whose memory its kernels cannot read."""
    given, used, forms, guard, ndim = {}, {}, [], None, 0  # ndim: of the first operand
    threshold = words.get("threshold", 0.0)
    cuts = (type(threshold) is not float or threshold) and words.get("skip") == "weight"  # kernels get a copy
    for name, value in operands.items():
        if value is None and name in OPTIONAL:
            continue
        if name == "weight" and isinstance(value, PackedWeight):
            guard, given[name] = value.guard, _unpacked(value, words)
            array = given[name]
            used[name] = value if array.dtype == np.float32 else array
        else:
            given[name] = array = arrays.take_mask(name, value) if name in MASKS else arrays.take(name, value)
            if name in MASKS and array.ndim == ndim - 1 and array.dtype != np.uint8:
                array = np.asarray(array, order="C")  # a value per pixel or row: few, and then in rows for sure
            used[name] = array = np.ascontiguousarray(array) if name == "weight" and cuts else usable(array)
        ndim = ndim or array.ndim
        forms.append((array.shape, array.strides, array.dtype))
    target = None
    if out is not None:
        out = arrays.take_out(out)
        target = (out.shape, out.strides, out.dtype)
    threshold = words.pop("threshold", 0.0)
    values = tuple(words.values())
    find = _kept if _plain(values) else _kept.__wrapped__
    asked = operation, dims, tuple(used), tuple(forms), target, tuple(words), values
    try:
        made = find(*asked)
    except ValueError as error:
        raise _in_another_layout(error, *asked) from None
    threads = cpu.checked_threads(num_threads)
    if type(threshold) is not float or threshold:
        threshold = checks.threshold(threshold, words.get("skip", "auto"))
        known = next((name for name in KNOWN_ZEROS.values() if name in used), None)
        if threshold and known:
            raise ValueError(f"threshold: got {threshold} with {known}, expected 0 where a mask says what is zero")
        if threshold and words.get("skip") == "weight":
            used["weight"], guard = _thresholded(used["weight"], threshold), None
    if out is None:
        out = arrays.empty(made.result.shape, made.result.dtype)
    else:
        arrays.check_memory(out, given)
    return Call(made, used, out, threads, threshold, guard=guard)


def _in_another_layout(error: ValueError, operation: Callable[..., Pass], dims: int, *rest: Any) -> ValueError:
    """The error, and another layout in which all arguments would fit, if there is one."""
    *given, names, values = rest
    words = dict(zip(names, values, strict=True))
    if "did you mean" in str(error) or words.get("layout") not in layout.names(dims):
        return error
    attempt: Any = _kept.__wrapped__
    for other in layout.others(layout.parse(words["layout"], dims)):
        try:
            attempt(operation, dims, *given, names, tuple((words | {"layout": other.name}).values()))
        except (TypeError, ValueError):
            continue
        return ValueError(f"{str(error).removesuffix('?')}; did you mean layout={other.name!r}?")
    return error


def _with_mask(call: Call, return_mask: Any, words: dict[str, Any]) -> Call:
    """The call of a layer, whose result comes with its mask if `return_mask` says so."""
    if not checks.flag("return_mask", return_mask):
        return call
    if words.get("activation") != "relu":
        raise ValueError("return_mask: got True without an activation, expected activation='relu' with it")
    return call._replace(return_mask=True)


def _thresholded(weight: np.ndarray | PackedWeight, threshold: float) -> np.ndarray:
    """A copy with zeros for small weights: unlike activations they are few, and packed before use anyway."""
    dense = weight.to_dense() if isinstance(weight, PackedWeight) else weight
    return np.where(np.abs(dense) <= dense.dtype.type(threshold), dense.dtype.type(0), dense)


def _unpacked(weight: PackedWeight, words: dict[str, Any]) -> np.ndarray:
    """The dense weight, if it was packed for the groups of this call."""
    groups = words.get("groups", 1)
    if weight.groups != groups:
        raise ValueError(f"weight: got a PackedWeight of {weight.groups} groups, expected {groups}, those of the call")
    return weight.dense


def _plain(values: tuple) -> bool:
    """Whether equal words mean the same: 1, True and 1.0 are equal, but only the first is a stride."""
    for one in values:
        if type(one) not in PLAIN and (type(one) is not tuple or not _plain(one)):
            return False
    return True


@caches.kept(4096)
def _kept(
    operation: Callable[..., Pass], dims: int, operands: tuple, forms: tuple, target: tuple | None, names: tuple,
    values: tuple,
) -> Pass:  # fmt: skip
    """The pass for operands of these forms and these words."""
    out = None if target is None else Form(*target)
    given = {operand: Form(*one) for operand, one in zip(operands, forms, strict=True)}
    return operation(dims, **given, out=out, **dict(zip(names, values, strict=True)))
