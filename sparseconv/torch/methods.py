"""Training methods of `sparseconv.pruning` on models: their hooks around the passes of each layer.

A method's hooks decide on the weight that forward and backward_data see, on what is kept of the input for
backward_weight, and on gradients. `attach` gives each layer a `forward` of its own that calls them; parameters, hooks
and class of the module stay, and the optimiser goes on with the dense weight.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .. import masks
from ..pruning.methods import Method
from . import calls, functional, ops, shapes
from .modules import counterpart

__all__ = ["attach", "detach"]

GRADIENTS = ("input", "output")


def attach(
    model: nn.Module, method: Method, *, filter_fn: Callable[[nn.Module, str], bool] | None = None,
    gradients: Literal["input", "output"] = "input",
) -> list[str]:  # fmt: skip
    """Trains a model's convolutions and linear layers under a method.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place: its convolutions (transposed ones, too) and linear layers, torch.nn's or those of this
        package, compute with our kernels and call the method. Names are those of ``model.named_modules()``.
    method : sparseconv.pruning.Method
        SWAT, TransposableNM, StochasticGradientPruning, or one of your own. It serves this model alone.
    filter_fn : callable, optional
        ``filter_fn(module, name)`` says whether a layer is trained under the method. Default: all.
    gradients : {"input", "output"}
        Which gradient of a layer goes through `before_backward`: that of its input, which the ReLU in front of it masks
        next, or, where batch normalisation follows the layer, that of its output.

    Returns
    -------
    list of str
        The names of the layers.

    Raises
    ------
    TypeError
        A model or method that is none.
    ValueError
        A model without such layers, one that has a method already, or a name in the method's `dense` that no layer has.

    Notes
    -----
    In ``model.eval()`` or under torch.no_grad nothing that the method remembers changes. Copies and pickles of the
    model carry the method along. Derivatives are of the first order. torch.compile leaves these layers as they are.

    Examples
    --------
    >>> from sparseconv.pruning import SWAT
    >>> import sparseconv.torch as sct
    >>> sct.attach(model, SWAT(0.8))                                                           # doctest: +SKIP
    ['0', '3', '7']
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: got {type(model).__name__}, expected a torch.nn.Module")
    if not isinstance(method, Method):
        raise TypeError(f"method: got {type(method).__name__}, expected a sparseconv.pruning.Method")
    if gradients not in GRADIENTS:
        raise ValueError(f"gradients: got {gradients!r}, expected one of {', '.join(map(repr, GRADIENTS))}")
    layers = {name: module for name, module in model.named_modules() if counterpart(module) is not None}
    unknown = sorted(method.dense - layers.keys())
    if unknown:
        raise ValueError(f"method: its dense names {unknown[0]!r}, expected names among {', '.join(layers) or 'none'}")
    method.check_layers(layers)  # once: filter_fn may keep some of them from the method's hooks
    taken = [name for name, module in layers.items() if isinstance(vars(module).get("forward"), _Forward)]
    if taken:
        raise ValueError(f"model: its layer {taken[0]!r} has a method already, expected none (detach)")
    if filter_fn is not None:
        layers = {name: module for name, module in layers.items() if filter_fn(module, name)}
    if not layers:
        raise ValueError(f"model: got {type(model).__name__} without layers to train under it, expected some")
    for name, module in layers.items():
        module.forward = _Forward(module, name, method, gradients)
    return list(layers)


def detach(model: nn.Module) -> list[str]:
    """Takes a method away again; the weights stay as they are, dense.

    Parameters
    ----------
    model : torch.nn.Module

    Returns
    -------
    list of str
        The names of the layers that had one.
    """
    names = []
    for name, module in model.named_modules():
        if isinstance(vars(module).get("forward"), _Forward):
            del module.forward
            names.append(name)
    return names


class _Forward:
    """The forward of a layer under a method; a class, so that modules can be copied and pickled with it."""

    def __init__(self, module: nn.Module, name: str, method: Method, gradients: str) -> None:
        self.module, self.name, self.method, self.gradients = module, name, method, gradients

    @torch.compiler.disable
    def __call__(self, input: Tensor, *more: Any) -> Tensor:
        module: Any = self.module
        kind: Any = counterpart(module)
        convolves = isinstance(module, nn.modules.conv._ConvNd)
        function = (self._transposed if module.transposed else self._convolution) if convolves else self._linear
        return kind.operation(module, function, input, module.weight, module.bias, *more)

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _under_method(input, weight, bias, self, ())

    def _convolution(
        self, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int
    ) -> Tensor:
        return self._convolved(input, weight, bias, stride, padding, dilation, False, 0, groups)

    def _transposed(
        self, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, output_padding: Any,
        groups: int, dilation: Any,
    ) -> Tensor:  # fmt: skip
        return self._convolved(input, weight, bias, stride, padding, dilation, True, output_padding, groups)

    def _convolved(self, input: Tensor, weight: Tensor, bias: Tensor | None, *geometry: Any) -> Tensor:
        single = input.dim() == weight.dim() - 1
        if single:
            input = input.unsqueeze(0)
        output = _under_method(input, weight, bias, self, functional.geometry_of(weight.dim() - 2, weight, *geometry))
        return output.squeeze(0) if single else output


def _under_method(input: Tensor, weight: Tensor, bias: Tensor | None, forward: _Forward, geometry: tuple) -> Tensor:
    if torch.is_autocast_enabled("cpu"):
        input, weight = input.float(), weight.float()
        bias = None if bias is None else bias.float()
    input, weight = input.resolve_neg(), weight.resolve_neg()
    # Inside of apply nothing tells that no graph is wanted.
    training = forward.module.training and torch.is_grad_enabled()
    return _Layer.apply(input, weight, bias, forward, geometry, training)


class _Layer(torch.autograd.Function):
    """The three passes of a layer under a method."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, forward: _Forward, geometry: tuple, training: bool
    ) -> Tensor:
        method, name, module = forward.method, forward.name, forward.module
        calls.check_all({"input": input, "weight": weight, "bias": bias})
        family = ops.convolution if geometry else ops.linear
        result = family.result(input, weight, geometry)
        training = training and any(ctx.needs_input_grad)
        used = method.before_forward(name, weight.numpy(), groups=geometry[-1] if geometry else 1, training=training)
        output = input.new_empty_strided(result.shape, result.strides)
        calls.compute(
            result.core.forward, x=input.numpy(), weight=used, bias=None if bias is None else bias.numpy(),
            num_threads=torch.get_num_threads(), out=output.numpy(),
        )  # fmt: skip
        ctx.kept, ctx.options = None, {}
        if ctx.needs_input_grad[1]:
            array = input.numpy()
            kept, ctx.options = method.after_forward(name, array) if training else (array, {})
            if kept is not array:
                ctx.kept = kept
        relu = getattr(module, "input_is_relu", None) is True and ctx.needs_input_grad[0]
        ctx.mask = masks.nonzero_mask(input.numpy()) if relu else None
        ctx.save_for_backward(input if ctx.needs_input_grad[1] and ctx.kept is None else None)
        ctx.used, ctx.result, ctx.made_by, ctx.training = used, result, forward, training
        ctx.forms = input.shape, weight.shape, weight.stride()
        ctx.channels_last = bool(geometry) and result.channels_last
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        method, name = ctx.made_by.method, ctx.made_by.name
        shape, weight_shape, weight_strides = ctx.forms
        (input,) = ctx.saved_tensors
        grad_output, threads = grad_output.resolve_neg(), torch.get_num_threads()
        if ctx.training and ctx.made_by.gradients == "output":
            grad_output = torch.from_numpy(_pruned(method, name, grad_output.clone()))
        grad_input = grad_weight = grad_bias = None
        array = grad_output.numpy()
        if ctx.needs_input_grad[0]:
            grad_input = grad_output.new_empty_strided(shape, shapes.strides_of(shape, ctx.channels_last))
            calls.compute(
                ctx.result.core.backward_data, grad_output=array, weight=ctx.used, input_shape=tuple(shape),
                output_mask=ctx.mask, num_threads=threads, out=grad_input.numpy(),
            )  # fmt: skip
            if ctx.training and ctx.made_by.gradients == "input":
                grad_input = torch.from_numpy(_pruned(method, name, grad_input))
        if ctx.needs_input_grad[1]:
            strides = shapes.kept_dense_strides(tuple(weight_shape), tuple(weight_strides))
            grad_weight = grad_output.new_empty_strided(weight_shape, strides)
            kept = input.numpy() if ctx.kept is None else ctx.kept
            calls.compute(
                ctx.result.core.backward_weight, x=kept, grad_output=array, kernel_size=tuple(weight_shape),
                **ctx.options, num_threads=threads, out=grad_weight.numpy(),
            )  # fmt: skip
        if ctx.needs_input_grad[2]:
            channel = 1 if len(weight_shape) > 2 else grad_output.dim() - 1
            others = [dim for dim in range(grad_output.dim()) if dim != channel]
            grad_bias = grad_output.sum(others) if others else grad_output
        return grad_input, grad_weight, grad_bias, None, None, None


def _pruned(method: Method, name: str, gradient: Tensor) -> np.ndarray:
    """A gradient after the method has seen it."""
    return method.before_backward(name, gradient.numpy())
