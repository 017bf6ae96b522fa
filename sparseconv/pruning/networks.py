"""Layers as a sparsity budget sees them, and the lists of them that well-known networks are.

Each family has a builder, which follows the network's definition and knows no numbers but that definition's widths and
depths. `_Chain` keeps the shape that the next layer reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from sparseconv._core import checks

if TYPE_CHECKING:
    from ..typing import Shape, Size

__all__ = ["Layer", "network"]

Network: TypeAlias = Literal["vgg16", "resnet18", "resnet34", "resnet50", "wrn_16_8", "wrn_50_2", "densenet121"]
Dataset: TypeAlias = Literal["cifar10", "imagenet"]


@dataclass(frozen=True)
class Layer:
    """A convolution or a linear layer: its sizes, for one image.

    Parameters
    ----------
    name : str
    weight_shape : tuple of int
        (out channels, in channels, ...) of a convolution of any dimension, (out, in) of a linear layer.
    input_size, output_size : int or tuple of int
        Height and width (or whatever the kernel's dimensions are) of the maps that a convolution reads and writes; one
        number stands for all of them. A linear layer has no maps: its sizes are taken, kept and not used.
    kind : {"conv", "linear"}
    batch_norm : int, optional
        How many elements batch normalisation reads at this layer, for `activation_memory` of `training_flops`. Left
        out: a convolution's output is normalised, a linear layer's is not.

    Raises
    ------
    TypeError, ValueError
        If a size is no whole number of at least 1, or `weight_shape` does not fit the kind and the sizes.
    """

    name: str
    weight_shape: tuple[int, ...]
    input_size: tuple[int, ...]
    output_size: tuple[int, ...]
    kind: Literal["conv", "linear"] = "conv"
    batch_norm: int = None  # type: ignore[assignment]  # a number as soon as the object is made

    if TYPE_CHECKING:  # what the class is made from is wider than what its attributes are

        def __init__(
            self, name: str, weight_shape: Shape, input_size: Size, output_size: Size,
            kind: Literal["conv", "linear"] = "conv", batch_norm: int | None = None,
        ) -> None: ...  # fmt: skip

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise TypeError(f"name: got {self.name!r}, expected a str that is not empty")
        checks.word("kind", self.kind, ("conv", "linear"))
        shape = _sizes("weight_shape", self.weight_shape)
        if (len(shape) == 2) != (self.kind == "linear") or len(shape) < 2:
            expected = "(out, in)" if self.kind == "linear" else "(out channels, in channels, *kernel)"
            raise ValueError(f"weight_shape: got {shape} for layer {self.name!r}, expected {expected}")
        self._keep("weight_shape", shape)
        for field in ("input_size", "output_size"):
            size = getattr(self, field)
            conv = self.kind == "conv"
            self._keep(field, checks.per_dim(field, size, len(shape) - 2, 1) if conv else _sizes(field, size))
        if self.batch_norm is None:
            self._keep("batch_norm", shape[0] * math.prod(self.output_size) if self.kind == "conv" else 0)
        self._keep("batch_norm", checks.whole("batch_norm", self.batch_norm, 0))

    def _keep(self, field: str, value: Any) -> None:
        object.__setattr__(self, field, value)

    @property
    def weights(self) -> int:
        """Number of weights, without the bias."""
        return math.prod(self.weight_shape)

    @property
    def input_elements(self) -> int:
        """Elements that the layer reads."""
        return self.weight_shape[1] * (math.prod(self.input_size) if self.kind == "conv" else 1)

    @property
    def macs(self) -> dict[str, int]:
        """Dense multiply-adds of each pass, as SWAT counts them.

        forward and backward_weight meet each weight once per output position. backward_data is counted as a transposed
        convolution of stride 1, once per *input* position: stride**2 times what is needed (SWAT's tables come out no
        other way). All three are equal for a linear layer.
        """
        positions = {"forward": self.output_size, "backward_data": self.input_size, "backward_weight": self.output_size}
        conv = self.kind == "conv"
        return {name: self.weights * (math.prod(size) if conv else 1) for name, size in positions.items()}


def _sizes(name: str, value: Any) -> tuple[int, ...]:
    """Any number of whole numbers of at least 1."""
    numbers = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return tuple(checks.whole(name, one, 1) for one in numbers)


# Height and width of the images, and how many classes they have.
_DATASETS = {"cifar10": (32, 10), "imagenet": (224, 1000)}


class _Chain:
    """Layers one behind the other; `channels` and `size` are those of the square maps that the next one reads."""

    def __init__(self, dataset: str) -> None:
        self.layers: list[Layer] = []
        self.channels = 3
        self.size, self.classes = _DATASETS[dataset]

    @property
    def shape(self) -> tuple[int, int]:
        return self.channels, self.size

    @property
    def elements(self) -> int:
        return self.channels * self.size**2

    def conv(
        self, name: str, channels: int, kernel: int, stride: int = 1, *, norm: str = "output",
        shape: tuple[int, int] | None = None,
    ) -> None:  # fmt: skip
        """A convolution padded by half its kernel; `norm`: what is normalised, "output", "input" or "nothing".

        `shape` is what it reads, if not the result of the layer before it: a shortcut goes around that.
        """
        if shape is not None:
            self.channels, self.size = shape
        weight_shape, read, read_size = (channels, self.channels, kernel, kernel), self.elements, self.size
        self.channels, self.size = channels, (self.size - 1) // stride + 1
        batch_norm = {"output": self.elements, "input": read, "nothing": 0}[norm]
        sizes = (read_size,) * 2, (self.size,) * 2
        self.layers.append(Layer(name, weight_shape, *sizes, "conv", batch_norm))

    def linear(self, name: str, features: int, *, batch_norm: int = 0) -> None:
        self.layers.append(Layer(name, (features, self.elements), (), (), "linear", batch_norm))
        self.channels, self.size = features, 1

    def halve(self) -> None:
        """Pooling with stride 2."""
        self.size //= 2

    def classifier(self, *, normalized: bool = False) -> list[Layer]:
        """Pooling of the whole map, and the linear layer behind it; `normalized`: the map before it."""
        batch_norm = self.elements if normalized else 0
        self.size = 1
        self.linear("fc", self.classes, batch_norm=batch_norm)
        return self.layers


def _vgg16(dataset: str) -> list[Layer]:
    """Configuration D. Maps are 7 x 7 in front of the linear layers on ImageNet, 1 x 1 on CIFAR."""
    net = _Chain(dataset)
    norm = "output" if dataset == "cifar10" else "nothing"
    for stage, (channels, depth) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), 1):
        for number in range(1, depth + 1):
            net.conv(f"conv{stage}_{number}", channels, 3, norm=norm)
        net.halve()
    for number, features in enumerate((4096, 4096, net.classes), 6):
        net.linear(f"fc{number}", features)
    return net.layers


def _resnet(dataset: str, depths: tuple[int, ...], *, bottleneck: bool = False, widen: int = 1) -> list[Layer]:
    """Stages of blocks of two 3x3 convolutions, or of 1x1, 3x3 (which has the stride) and 1x1."""
    net = _Chain(dataset)
    if dataset == "cifar10":
        net.conv("conv1", 64, 3)
    else:
        net.conv("conv1", 64, 7, 2)
        net.halve()
    for stage, depth in enumerate(depths):
        inner = 64 * 2**stage
        outer = 4 * inner if bottleneck else inner
        for number in range(depth):
            block, stride, read = f"layer{stage + 1}.{number}", 2 if stage and not number else 1, net.shape
            if bottleneck:
                net.conv(f"{block}.conv1", inner * widen, 1)
                net.conv(f"{block}.conv2", inner * widen, 3, stride)
                net.conv(f"{block}.conv3", outer, 1)
            else:
                net.conv(f"{block}.conv1", inner, 3, stride)
                net.conv(f"{block}.conv2", outer, 3)
            if net.shape != read:
                net.conv(f"{block}.shortcut", outer, 1, stride, shape=read)
    return net.classifier()


def _wide_resnet(dataset: str, depth: int, widen: int) -> list[Layer]:
    """WRN-depth-widen for CIFAR: three stages of blocks of two 3x3 convolutions, normalised in front of each."""
    net = _Chain(dataset)
    net.conv("conv1", 16, 3, norm="nothing")
    for stage in range(3):
        channels = 16 * widen * 2**stage
        for number in range((depth - 4) // 6):
            block, stride, read = f"block{stage + 1}.{number}", 2 if stage and not number else 1, net.shape
            net.conv(f"{block}.conv1", channels, 3, stride, norm="input")
            net.conv(f"{block}.conv2", channels, 3, norm="input")
            if net.shape != read:  # it reads the same normalised maps as conv1, which are counted there
                net.conv(f"{block}.shortcut", channels, 1, stride, norm="nothing", shape=read)
    return net.classifier(normalized=True)


def _densenet(dataset: str, depths: tuple[int, ...], growth: int) -> list[Layer]:
    """Blocks whose layers (1x1, 3x3) each add `growth` channels; between blocks, 1x1 halves channels, pooling sizes."""
    net = _Chain(dataset)
    if dataset == "cifar10":
        net.conv("conv1", 2 * growth, 3, norm="nothing")
    else:
        net.conv("conv1", 2 * growth, 7, 2)
        net.halve()
    for stage, depth in enumerate(depths, 1):
        for number in range(depth):
            read = net.channels
            net.conv(f"block{stage}.{number}.conv1", 4 * growth, 1, norm="input")
            net.conv(f"block{stage}.{number}.conv2", growth, 3, norm="input")
            net.channels += read
        if stage < len(depths):
            net.conv(f"transition{stage}", net.channels // 2, 1, norm="input")
            net.halve()
    return net.classifier(normalized=True)


_BOTH = ("cifar10", "imagenet")
_NETWORKS: dict[str, tuple[tuple[str, ...], Callable[[str], list[Layer]]]] = {
    "vgg16": (_BOTH, _vgg16),
    "resnet18": (_BOTH, partial(_resnet, depths=(2, 2, 2, 2))),
    "resnet34": (_BOTH, partial(_resnet, depths=(3, 4, 6, 3))),
    "resnet50": (_BOTH, partial(_resnet, depths=(3, 4, 6, 3), bottleneck=True)),
    "wrn_16_8": (("cifar10",), partial(_wide_resnet, depth=16, widen=8)),
    "wrn_50_2": (("imagenet",), partial(_resnet, depths=(3, 4, 6, 3), bottleneck=True, widen=2)),
    "densenet121": (_BOTH, partial(_densenet, depths=(6, 12, 24, 16), growth=32)),
}


def network(name: Network, dataset: Dataset) -> list[Layer]:
    """The convolutions and linear layers of a network, in the order of the forward pass.

    =============  ========  =======================================================  ==================  ===========
    name           dataset   source                                                   weights (millions)  forward, M
    =============  ========  =======================================================  ==================  ===========
    vgg16          both      Simonyan and Zisserman, ICLR 2015, configuration D       33.63, 138.34       332, 15470
    resnet18       both      He, Zhang, Ren and Sun, CVPR 2016                        11.16, 11.68        555, 1814
    resnet34       both      the same                                                 21.27, 21.78        1159, 3664
    resnet50       both      the same; the stride is in the 3x3 convolutions          23.47, 25.50        1298, 4089
    wrn_16_8       cifar10   Zagoruyko and Komodakis, BMVC 2016                       10.95               1548
    wrn_50_2       imagenet  the same: resnet50 with twice the channels inside        68.81               11398
    densenet121    both      Huang, Liu, van der Maaten and Weinberger, CVPR 2017     6.87, 7.89          888, 2834
    =============  ========  =======================================================  ==================  ===========

    For CIFAR they are what SWAT's authors trained: 32 x 32 images; ResNet and DenseNet begin with a 3x3 convolution and
    no pooling; VGG has batch normalisation and linear layers 512-4096-4096-10. VGG for ImageNet has no normalisation.
    Weights do not count biases and normalisation; forward is in multiply-adds (MACs) of one image.

    Parameters
    ----------
    name : {"vgg16", "resnet18", "resnet34", "resnet50", "wrn_16_8", "wrn_50_2", "densenet121"}
    dataset : {"cifar10", "imagenet"}

    Returns
    -------
    list of Layer

    Raises
    ------
    ValueError
        If there is no such network, or not for this dataset.
    """
    checks.word("name", name, tuple(_NETWORKS))
    datasets, build = _NETWORKS[name]
    if dataset not in datasets:
        raise ValueError(f"dataset: got {dataset!r}, expected {' or '.join(map(repr, datasets))} for {name!r}")
    return build(dataset)
