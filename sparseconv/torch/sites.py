"""What stands in the place of a chain of modules in a folded graph: a convolution with all that comes behind it.

Bit masks are not handed from layer to layer: forward finds zeros faster than it reads masks (docs/numbers.md).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparseconv import PackedWeight, pack_weight

from .functional import result_shape
from .modules import OURS, convolve_transposed, counterpart, operate

PACKED_DENSITY = 0.7  # of a weight that may be worth packing; measured then
_ADD_RELU = getattr(torch.ops.aten, "_add_relu_", None)  # one pass instead of two


class Operands(NamedTuple):
    """What a site multiplies with: one object, so that threads see all of it or nothing."""

    versions: tuple  # of all that it was made of
    weight: Tensor | None  # None: nothing that can be folded
    bias: Tensor | None
    packed: PackedWeight | None


class Site:
    """A chain of modules that is computed at once.

    Parameters
    ----------
    name : str
        Of the convolution.
    layer : torch.nn.Module
        Convolution, transposed convolution or linear layer.
    norm : torch.nn.Module, optional
        Batch normalisation behind it.
    add, relu : bool
        Whether another tensor is added then, and whether ReLU comes last.
    """

    def __init__(self, name: str, layer: nn.Module, norm: nn.Module | None, add: bool, relu: bool) -> None:
        self.name, self.layer, self.norm, self.add, self.relu = name, layer, norm, add, relu
        self.operands = Operands((), None, None, None)
        self.measure: Callable[[Site, Operands, Tensor, Tensor | None], None] | None = None
        # torch.fx writes code that calls functions by these names
        self.__name__ = self.__qualname__ = f"site_{name.replace('.', '_') or 'model'}"
        self.__module__ = __name__

    @property
    def folded(self) -> str:
        parts = {"norm": self.norm is not None, "add": self.add, "relu": self.relu}
        return "+".join(name for name, there in parts.items() if there)

    def __call__(self, input: Tensor, other: Tensor | None = None) -> Tensor:
        parameters = self.parameters()
        if self.usable(parameters, input, other):
            operands = self.current(parameters)
            if operands.weight is not None:
                if self.measure is not None:
                    self.measure(self, operands, input, other)
                kernel = "torch" if not isinstance(self.layer, OURS) else "packed" if operands.packed else "sparseconv"
                return self.compute(operands, input, other, kernel)
        return self.as_written(input, other)

    def parameters(self) -> list[Tensor]:
        """What the folded weight is made of; other objects may have taken their places."""
        found = [*self.layer._parameters.values()]
        if self.norm is not None:
            found += self.norm._parameters.values()
            found += (self.norm._buffers["running_mean"], self.norm._buffers["running_var"])
        return [one for one in found if one is not None]

    def usable(self, parameters: list[Tensor], input: Tensor, other: Tensor | None) -> bool:
        """Whether it may be computed at once: no gradients wanted, plain float32 tensors on the CPU."""
        if self.norm is not None and (
            self.norm.training or (input.dim() != 2 and isinstance(self.layer, nn.Linear))  # its channels are elsewhere
        ):
            return False
        tensors = (input,) if other is None else (input, other)
        if torch.is_grad_enabled() and any(one.requires_grad for one in (*tensors, *parameters)):
            return False
        return not torch.is_autocast_enabled("cpu") and all(
            one.dtype is torch.float32 and one.device.type == "cpu" for one in tensors
        )

    def as_written(self, input: Tensor, other: Tensor | None) -> Tensor:
        result = self.layer(input)
        if self.norm is not None:
            result = self.norm(result)
        if other is not None:
            result = result + other
        return functional.relu(result) if self.relu else result

    def current(self, parameters: list[Tensor]) -> Operands:
        """Folds again if a parameter has changed. Only float32 parameters on the CPU are folded."""
        versions = (
            None if self.norm is None else self.norm.eps,
            *[(one.data_ptr(), 0 if one.is_inference() else one._version) for one in parameters],
        )
        operands = self.operands
        if versions != operands.versions:
            weight, bias, packed = None, None, None
            if all(one.dtype is torch.float32 and one.device.type == "cpu" for one in parameters):
                with torch.no_grad():
                    weight, bias = folded(self.layer, self.norm)
                if isinstance(self.layer, OURS) and self.layer.skip == "weight":
                    packed = self.pack(weight)
            operands = self.operands = Operands(versions, weight, bias, packed)
        return operands

    def pack(self, weight: Tensor) -> PackedWeight:
        """The lists of the nonzeros of a pruned weight, made once instead of in each call."""
        return pack_weight(weight.numpy(), groups=getattr(self.layer, "groups", 1))

    def compute(self, operands: Operands, input: Tensor, other: Tensor | None, kernel: str) -> Tensor:
        """The chain by torch's convolution ("torch"), by ours, or by ours with a weight that is "packed"."""
        with torch.no_grad():
            weight, options = operands.weight, {}
            if kernel != "torch":
                if other is not None and self.same_shape(operands.weight, input, other):
                    options["residual"], other = other, None
                options["activation"] = "relu" if self.relu and other is None else None
                if kernel == "packed":
                    weight, options["skip"] = operands.packed, "weight"
            result = operate(self.layer, kernel != "torch", input, weight, operands.bias, **options)
            if other is not None:
                return add_relu(result, other) if self.relu else result.add_(other)
            return result.relu_() if self.relu and kernel == "torch" else result

    def same_shape(self, weight: Tensor, input: Tensor, other: Tensor) -> bool:
        """Whether what is added has the shape of the result: then our kernels read it in their last store."""
        if other.dim() != input.dim() or (weight.dim() > 2 and input.dim() != weight.dim()):
            return False
        kind = counterpart(self.layer)
        return other.shape == kind.operation(self.layer, partial(result_shape, kind.ours), input, weight, None)

    def compute_unfolded(self, input: Tensor, other: Tensor | None) -> Tensor:
        """What PyTorch does without us, in place where models usually say so."""
        layer, norm = self.layer, self.norm
        result = operate(layer, False, input, layer.weight, layer.bias)
        if norm is not None:
            result = functional.batch_norm(
                result, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps
            )
        if other is not None:
            result.add_(other)
        return result.relu_() if self.relu else result


def add_relu(result: Tensor, other: Tensor) -> Tensor:
    """max(result + other, 0) in the memory of `result`."""
    if _ADD_RELU is not None and result.shape == other.shape:
        return _ADD_RELU(result, other)
    return result.add_(other).relu_()


def folded(layer: nn.Module, norm: nn.Module | None) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a layer together with the batch normalisation behind it, computed in float64."""
    weight, bias = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
    if norm is None:
        return weight, bias
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale = torch.rsqrt(variance + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -mean * scale if bias is None else (bias.double() - mean) * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    if counterpart(layer).operation is convolve_transposed:  # (in, out / groups, ...): outputs are the second dimension
        grouped = weight.double().unflatten(0, (layer.groups, -1))
        grouped = grouped * scale.view(layer.groups, 1, -1, *[1] * (weight.dim() - 2))
        product = grouped.flatten(0, 1)
    else:
        product = weight.double() * scale.view(-1, *[1] * (weight.dim() - 1))
    result = torch.empty_like(weight)  # strides, too
    return result.copy_(product), shift.to(weight.dtype)


def is_pruned(weight: Tensor) -> bool:
    """Whether a weight has so many zeros that it may be worth packing."""
    return torch.count_nonzero(weight).item() < PACKED_DENSITY * weight.numel()
