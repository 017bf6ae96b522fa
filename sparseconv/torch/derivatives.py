"""Derivatives of the operators of ops.py, as autograd.Functions: gradients, and directional derivatives (jvp).

Every derivative is made of the same operators, so there are those of all orders. `differentiated` is what an operator
does at the Autograd key, and forward what comes after that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import _C, Tensor
from torch._functorch.autograd_function import enable_single_level_autograd_function
from torch.autograd import forward_ad

from . import saved, shapes
from .relu_inputs import PROBE, watch_large

if TYPE_CHECKING:
    from .ops import Operator

# What `skip` of a layer means for its backward passes, and theirs for a layer; others stay.
DATA_SKIP = {"input": "auto"}
WEIGHT_SKIP = {"weight": "auto"}
# Of backward_data: "auto", and the mask is that of a ReLU, which clears in any case what it does not need. So it is
# used where that pays. Zen 5, one thread, with gradients of 90% zeros behind 64,64,224 3x3: 77 -> 72 ms; from one
# filter to 64 channels, 1x1: 11.4 -> 3.2.
HINT = "hint"
LAYER_SKIP = {"grad_output": "auto", "output": "auto", HINT: "auto"}

_AFTER_AUTOGRAD = _C._after_autograd_keyset
_CPU = _C.DispatchKey.CPU


class Layer(torch.autograd.Function):
    """A layer, whose gradients are those of its input, weight and bias."""

    @staticmethod
    def differentiated(operator: Operator, keyset: Any, args: tuple) -> Tensor:
        """The result of a layer, in the graph."""
        input, weight, bias = args[:3]
        skip, _, keep, watched, num_threads = args[-5:]
        plain = (keyset & _AFTER_AUTOGRAD).highestPriorityTypeId() == _CPU
        if watched is None and plain and skip != "none":
            watched = watch_large(input)
        probe = None if watched is None or watched is True or watched is False else PROBE
        result = _apply_layer(input, weight, bias, probe, watched, operator, keyset, args)
        if keep == "compressed" and plain and result.requires_grad:
            saved.compress(result.grad_fn, num_threads)
        return result

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, probe: Tensor | None, watched: Any,
        operator: Operator, keyset: Any, args: tuple,
    ) -> Tensor:  # fmt: skip
        output = operator.below_function(keyset, args)
        activation, _, threshold, _, _, _ = args[-6:]
        for_data, for_weight, *_ = ctx.needs_input_grad
        ctx.masks_by_result = activation == "relu"
        ctx.keeps_input = for_weight or (for_data and bool(threshold or watched))
        ctx.save_for_backward(
            input if ctx.keeps_input else None, weight if for_data or threshold else None,
            output if ctx.masks_by_result else None,
        )  # fmt: skip
        if forward_ad._current_level >= 0:
            ctx.save_for_forward(input, weight, output)
        ctx.set_materialize_grads(False)
        ctx.watched, ctx.family, ctx.rest = watched, operator.family, args[3:]
        ctx.forms = input.shape, input.stride(), weight.shape, weight.stride()
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None) -> tuple:
        if grad_output is None:
            return (None,) * 8
        input, weight, output = ctx.saved_tensors
        *geometry, _, skip, threshold, _, _, num_threads = ctx.rest
        family, (for_data, for_weight, for_bias, *_) = ctx.family, ctx.needs_input_grad
        input_size, _, weight_size, weight_stride = ctx.forms
        if ctx.masks_by_result:
            grad_output = torch.ops.aten.threshold_backward.default(grad_output, output, 0)
        grad_input = grad_weight = grad_bias = None
        of_weight = skip == "weight"  # whose small elements the threshold took for zeros
        if for_data:
            mask, data_skip = None, DATA_SKIP.get(skip, skip)
            if threshold and not of_weight:
                mask = _above(input, threshold)
            elif ctx.watched is True:  # zeros are promised elsewhere
                mask = input.detach()
            elif ctx.watched and ctx.watched.unseen(ctx):
                mask, data_skip = input.detach(), HINT if data_skip == "auto" else data_skip
            last = family.convolves and shapes.is_any_channels_last(*ctx.forms)
            grad_input = family.backward_data.overload(
                grad_output, weight, mask, input_size, last, *geometry, data_skip,
                threshold if of_weight else 0.0, num_threads,
            )  # fmt: skip
        if for_weight:
            grad_weight = family.backward_weight.overload(
                input, grad_output, weight_size, weight_stride, *geometry, WEIGHT_SKIP.get(skip, skip),
                0.0 if of_weight else threshold, num_threads,
            )  # fmt: skip
            if threshold and of_weight:
                grad_weight = torch.where(_above(weight, threshold), grad_weight, 0.0)
        if for_bias:
            channel = 1 if family.convolves else grad_output.dim() - 1
            others = [dim for dim in range(grad_output.dim()) if dim != channel]
            grad_bias = grad_output.sum(others) if others else grad_output
        return grad_input, grad_weight, grad_bias, None, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, d_input: Tensor | None, d_weight: Tensor | None, d_bias: Tensor | None, *_: None) -> Tensor:
        input, weight, output = ctx.saved_tensors
        *geometry, _, skip, threshold, _, _, num_threads = ctx.rest
        of_weight = skip == "weight"
        terms = []
        if d_input is not None:
            if threshold and not of_weight:
                d_input = torch.where(_above(input, threshold), d_input, 0.0)
            terms.append((d_input, weight, threshold if of_weight else 0.0))
        if d_weight is not None:
            if threshold and of_weight:
                d_weight = torch.where(_above(weight, threshold), d_weight, 0.0)
            terms.append((input, d_weight, 0.0 if of_weight else threshold))
        result = 0.0
        for first, second, least in terms:
            options = (None, skip, least, "dense", False, num_threads)
            result = result + ctx.family.layer.overload(first, second, None, *geometry, *options)
        if d_bias is not None:
            shape = (-1, *[1] * (output.dim() - 2)) if ctx.family.convolves else (-1,)
            result = result + d_bias.view(shape).expand_as(output)
        return torch.ops.aten.threshold_backward.default(result, output, 0) if ctx.masks_by_result else result


class BackwardData(torch.autograd.Function):
    """The gradient of the input, which is linear in grad_output and in the weight."""

    @staticmethod
    def differentiated(operator: Operator, keyset: Any, args: tuple) -> Tensor:
        """The gradient, in the graph."""
        grad_output, weight, output_mask = args[:3]
        return _apply_data(grad_output, weight, output_mask, operator, keyset, args)

    @staticmethod
    def forward(
        ctx: Any, grad_output: Tensor, weight: Tensor, output_mask: Tensor | None, operator: Operator, keyset: Any,
        args: tuple,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(grad_output, weight, output_mask)
        ctx.save_for_forward(grad_output, weight, output_mask)
        ctx.set_materialize_grads(False)
        ctx.family, ctx.sizes, ctx.rest = operator.family, args[3:5], args[5:]
        return operator.below_function(keyset, args)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple:
        if grad is None:
            return (None,) * 6
        grad_output, weight, output_mask = ctx.saved_tensors
        *geometry, skip, threshold, num_threads = ctx.rest
        if output_mask is not None:
            grad = torch.where(output_mask != 0, grad, 0.0)
        of_grad_output = of_weight = None
        if ctx.needs_input_grad[0]:
            of_grad_output = ctx.family.layer.overload(
                grad, weight, None, *geometry, None, LAYER_SKIP.get(skip, skip), threshold, "dense", False, num_threads
            )
        if ctx.needs_input_grad[1]:
            of_weight = ctx.family.backward_weight.overload(
                grad, grad_output, weight.shape, weight.stride(), *geometry, "none" if skip == "none" else "auto", 0.0,
                num_threads,
            )  # fmt: skip
            if threshold:
                of_weight = torch.where(_above(weight, threshold), of_weight, 0.0)
        return of_grad_output, of_weight, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, d_grad_output: Tensor | None, d_weight: Tensor | None, *_: None) -> Tensor:
        grad_output, weight, output_mask = ctx.saved_tensors
        *geometry, skip, threshold, num_threads = ctx.rest
        result, compute = None, ctx.family.backward_data.overload
        if d_grad_output is not None:
            options = (skip, threshold, num_threads)
            result = compute(d_grad_output, weight, output_mask, *ctx.sizes, *geometry, *options)
        if d_weight is not None:
            if threshold:
                d_weight = torch.where(_above(weight, threshold), d_weight, 0.0)
            other = compute(grad_output, d_weight, output_mask, *ctx.sizes, *geometry, skip, 0.0, num_threads)
            result = other if result is None else result + other
        return result


class BackwardWeight(torch.autograd.Function):
    """The gradient of the weight, which is linear in the input and in grad_output."""

    @staticmethod
    def differentiated(operator: Operator, keyset: Any, args: tuple) -> Tensor:
        """The gradient, in the graph."""
        input, grad_output = args[:2]
        return _apply_weight(input, grad_output, operator, keyset, args)

    @staticmethod
    def forward(ctx: Any, input: Tensor, grad_output: Tensor, operator: Operator, keyset: Any, args: tuple) -> Tensor:
        ctx.save_for_backward(input, grad_output)
        ctx.save_for_forward(input, grad_output)
        ctx.set_materialize_grads(False)
        ctx.family, ctx.form, ctx.rest = operator.family, args[2:4], args[4:]
        return operator.below_function(keyset, args)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple:
        if grad is None:
            return (None,) * 5
        input, grad_output = ctx.saved_tensors
        *geometry, skip, threshold, num_threads = ctx.rest
        of_input = of_grad_output = None
        if ctx.needs_input_grad[0]:
            channels_last = ctx.family.convolves and shapes.is_channels_last(input.shape, input.stride())
            of_input = ctx.family.backward_data.overload(
                grad_output, grad, _above(input, threshold) if threshold else None, input.shape, channels_last,
                *geometry, "none" if skip == "none" else "auto", 0.0, num_threads,
            )  # fmt: skip
        if ctx.needs_input_grad[1]:
            of_grad_output = ctx.family.layer.overload(
                input, grad, None, *geometry, None, LAYER_SKIP.get(skip, skip), threshold, "dense", False, num_threads
            )
        return of_input, of_grad_output, None, None, None

    @staticmethod
    def jvp(ctx: Any, d_input: Tensor | None, d_grad_output: Tensor | None, *_: None) -> Tensor:
        input, grad_output = ctx.saved_tensors
        *geometry, skip, threshold, num_threads = ctx.rest
        result, compute = None, ctx.family.backward_weight.overload
        if d_input is not None:
            if threshold:
                d_input = torch.where(_above(input, threshold), d_input, 0.0)
            result = compute(d_input, grad_output, *ctx.form, *geometry, skip, 0.0, num_threads)
        if d_grad_output is not None:
            other = compute(input, d_grad_output, *ctx.form, *geometry, skip, threshold, num_threads)
            result = other if result is None else result + other
        return result


def _above(tensor: Tensor, threshold: float) -> Tensor:
    """Which elements a threshold has not taken for zeros."""
    return ~(tensor.detach().abs() <= threshold)


def _apply(function: type) -> Callable[..., Tensor]:
    """Function.apply for the Autograd key, where functorch has had its turn: this is one of its levels, if any."""
    apply = super(torch.autograd.Function, function).apply

    def apply_at_this_level(*args: Any) -> Tensor:
        if _C._are_functorch_transforms_active():
            with enable_single_level_autograd_function():
                return apply(*args)
        return apply(*args)

    return apply_at_this_level


_apply_layer, _apply_data, _apply_weight = _apply(Layer), _apply(BackwardData), _apply(BackwardWeight)
