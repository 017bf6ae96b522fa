"""A trained network with images and a loss, as PyTorch runs it; and parts that the networks share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Trained", "channels_last", "convolution"]


@dataclass(frozen=True)
class Trained:
    """A network in channels_last memory, whose statistics of batch normalisation, if it has any, stay as they are.

    Attributes
    ----------
    title : str
        What it is, and on what it runs.
    model : torch.nn.Module
        Put into that memory, and into eval mode.
    images : torch.Tensor
    loss : function
        The loss of a training step, of what the model returns.
    """

    title: str
    model: nn.Module
    images: Tensor
    loss: Callable[[Any], Tensor]

    def __post_init__(self) -> None:
        self.model.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]  # its stub lacks the word


def convolution(weight: np.ndarray, bias: np.ndarray | None, *, stride: int = 1) -> nn.Conv2d:
    """A layer with these weights (filters, channels, rows, columns), padded so that a stride of 1 keeps the size."""
    filters, channels, *kernel = weight.shape
    layer = nn.Conv2d(
        channels, filters, (kernel[0], kernel[1]), stride, (kernel[0] // 2, kernel[1] // 2), bias=bias is not None
    )
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.array(weight, np.float32)))
        if bias is not None and layer.bias is not None:
            layer.bias.copy_(torch.from_numpy(np.array(bias, np.float32)))
    return layer


def channels_last(images: np.ndarray) -> Tensor:
    """Images (N, rows, columns, channels) as a float32 tensor (N, channels, rows, columns) of that memory."""
    return torch.from_numpy(np.ascontiguousarray(images, np.float32)).permute(0, 3, 1, 2)
