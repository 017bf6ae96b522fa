"""Layers whose weight is a `sparseconv.PackedWeight`: for inference, without derivatives and without operators."""

from __future__ import annotations

import torch
from torch import Tensor

from ..packed import PackedWeight
from . import calls, shapes


def convolution(
    input: Tensor, weight: PackedWeight, bias: Tensor | None, stride: list[int], padding: list[int],
    dilation: list[int], transposed: bool, output_padding: list[int], groups: int, activation: str | None,
    residual: Tensor | None, skip: str, threshold: float, num_threads: int | None,
) -> Tensor:  # fmt: skip
    """As the operator."""
    result = shapes.kept_convolution(
        input.shape, input.stride(), weight.shape, shapes.strides_of(weight.shape, False), tuple(stride),
        tuple(padding), tuple(dilation), transposed, tuple(output_padding), groups,
    )  # fmt: skip
    return _layer(result, input, weight, bias, activation, residual, skip, threshold, num_threads)


def linear(
    input: Tensor, weight: PackedWeight, bias: Tensor | None, activation: str | None, residual: Tensor | None,
    skip: str, threshold: float, num_threads: int | None,
) -> Tensor:  # fmt: skip
    """As the operator."""
    strides = shapes.strides_of(weight.shape, False)
    result = shapes.kept_linear(input.shape, input.stride(), weight.shape, strides)
    return _layer(result, input, weight, bias, activation, residual, skip, threshold, num_threads)


def _layer(
    result: shapes.Result, input: Tensor, weight: PackedWeight, bias: Tensor | None, activation: str | None,
    residual: Tensor | None, skip: str, threshold: float, num_threads: int | None,
) -> Tensor:  # fmt: skip
    given = {"input": input, "bias": bias, "residual": residual}
    for name, tensor in given.items():
        if tensor is not None:
            calls.check(name, tensor)
            if tensor.requires_grad and torch.is_grad_enabled():
                raise TypeError(
                    f"weight: got a PackedWeight while {name} requires grad, expected torch.no_grad() around the call, "
                    "or the weight as a tensor"
                )
    arrays = {"x": input.detach().resolve_neg().numpy(), "weight": weight}
    arrays |= {
        name: tensor.detach().resolve_neg().numpy()
        for name, tensor in (("bias", bias), ("residual", residual)) if tensor is not None
    }  # fmt: skip
    output = input.new_empty_strided(result.shape, result.strides)
    calls.compute(
        result.core.forward, **arrays, activation=activation, skip=skip, threshold=threshold,
        num_threads=num_threads or torch.get_num_threads(), out=output.numpy(),
    )  # fmt: skip
    return output
