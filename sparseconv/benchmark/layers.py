"""Layers as text, and sets of them: networks of the literature, and shapes that nobody tunes for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sparseconv._core.problem import Problem

__all__ = ["NETWORKS", "SETS", "Layer", "matches", "parse", "select"]

_TEXT = re.compile(r"(\d+),(\d+),(\d+)(?:x(\d+))?[ ,](\d+)x(\d+)(?:/(\d+))?((?: [pdgn]\d+)*)")
_EXPECTED = '"IN,OUT,SIZE ROWSxCOLUMNS[/STRIDE] [pPADDING] [dDILATION] [gGROUPS] [nBATCH]" such as "64,128,56 3x3/2"'


@dataclass(frozen=True)
class Layer:
    """A 2d convolution as a network has it; without `padding`, an odd kernel's output has the size of input / stride.

    `batch` is for layers that want a batch of their own; otherwise the benchmark's is taken.
    """

    in_c: int
    out_c: int
    in_size: tuple[int, int]
    kernel: tuple[int, int]
    stride: int = 1
    padding: Any = None  # (int, int) as soon as the object is made
    dilation: int = 1
    groups: int = 1
    batch: int | None = None

    def __post_init__(self) -> None:
        if self.padding is None:
            object.__setattr__(self, "padding", self._half_kernel)
        if min(self.in_c, self.out_c, *self.in_size, *self.kernel, self.stride, self.dilation, self.groups) < 1:
            raise ValueError(f"layer: got {self}, expected sizes of at least 1")
        if self.batch is not None and self.batch < 1:
            raise ValueError(f"layer: got {self}, expected a batch of at least 1")
        if self.in_c % self.groups or self.out_c % self.groups:
            raise ValueError(f"layer: got {self}, expected channels that {self.groups} groups divide")
        if min(self.out_size) < 1:
            raise ValueError(f"layer: got {self}, whose kernel does not fit into the padded map")

    @property
    def _half_kernel(self) -> tuple[int, int]:
        rows, columns = ((size - 1) * self.dilation // 2 for size in self.kernel)
        return rows, columns

    @property
    def out_size(self) -> tuple[int, int]:
        """Height and width of the output."""
        rows, columns = (
            (size + 2 * padding - self.dilation * (kernel - 1) - 1) // self.stride + 1
            for size, padding, kernel in zip(self.in_size, self.padding, self.kernel, strict=True)
        )
        return rows, columns

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """(out, in / groups, rows, columns)."""
        return (self.out_c, self.in_c // self.groups, *self.kernel)

    @property
    def options(self) -> dict[str, Any]:
        """Keywords of sparseconv's and of PyTorch's functions alike."""
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}

    def problem(self, batch: int) -> Problem:
        """The layer with this batch, unless it has its own."""
        return Problem(
            batch=self.batch or batch,
            groups=self.groups,
            in_channels=self.in_c,
            out_channels=self.out_c,
            in_size=self.in_size,
            out_size=self.out_size,
            kernel=self.kernel,
            stride=(self.stride,) * 2,
            padding=self.padding,
            dilation=(self.dilation,) * 2,
        )

    @property
    def kernel_text(self) -> str:
        """The kernel size as in the layer's text: 3x3."""
        return f"{self.kernel[0]}x{self.kernel[1]}"

    def __str__(self) -> str:
        """The layer as text, which `parse` turns into the layer again."""
        rows, columns = self.in_size
        size = f"{rows}" if rows == columns else f"{rows}x{columns}"
        text = f"{self.in_c},{self.out_c},{size} {self.kernel_text}" + (f"/{self.stride}" if self.stride > 1 else "")
        if self.padding != self._half_kernel:
            text += f" p{self.padding[0]}"
        text += f" d{self.dilation}" if self.dilation > 1 else ""
        text += f" g{self.groups}" if self.groups > 1 else ""
        return text + (f" n{self.batch}" if self.batch else "")


def parse(text: str) -> Layer:
    """The layer of a text such as ``64,128,56 3x3/2``: channels in and out, size of the map, kernel, stride.

    Behind it, ``p0`` is another padding, ``d2`` a dilation, ``g4`` the number of groups, ``n1`` the batch; a map that
    is not square is ROWSxCOLUMNS.

    Raises
    ------
    ValueError
        If the text is no layer, or not one that can be.
    """
    match = _TEXT.fullmatch(text.strip())
    if not match:
        raise ValueError(f"layer: got {text!r}, expected {_EXPECTED}")
    *sizes, more = match.groups()
    numbers: list[Any] = [int(size) if size else None for size in sizes]
    in_c, out_c, in_h, in_w, kernel_h, kernel_w, stride = numbers
    extra = {word[0]: int(word[1:]) for word in more.split()}
    return Layer(
        in_c=in_c,
        out_c=out_c,
        in_size=(in_h, in_h if in_w is None else in_w),
        kernel=(kernel_h, kernel_w),
        stride=1 if stride is None else stride,
        padding=(extra["p"],) * 2 if "p" in extra else None,
        dilation=extra.get("d", 1),
        groups=extra.get("g", 1),
        batch=extra.get("n"),
    )


# How often a network has each layer. Not in here: the first layer (3 channels without zeros) and linear layers.
NETWORKS = {
    "vgg16": {
        "64,64,224 3x3": 1,
        "64,128,112 3x3": 1,
        "128,128,112 3x3": 1,
        "128,256,56 3x3": 1,
        "256,256,56 3x3": 2,
        "256,512,28 3x3": 1,
        "512,512,28 3x3": 2,
        "512,512,14 3x3": 3,
    },
    "resnet34": {
        "64,64,56 3x3": 6,
        "64,128,56 3x3/2": 1,
        "128,128,28 3x3": 7,
        "128,256,28 3x3/2": 1,
        "256,256,14 3x3": 11,
        "256,512,14 3x3/2": 1,
        "512,512,7 3x3": 5,
        "64,128,56 1x1/2": 1,
        "128,256,28 1x1/2": 1,
        "256,512,14 1x1/2": 1,
    },
    # with the stride in the 3x3 convolutions, as in torchvision
    "resnet50": {
        "64,64,56 3x3": 3,
        "128,128,56 3x3/2": 1,
        "128,128,28 3x3": 3,
        "256,256,28 3x3/2": 1,
        "256,256,14 3x3": 5,
        "512,512,14 3x3/2": 1,
        "512,512,7 3x3": 2,
        "64,64,56 1x1": 1,
        "64,256,56 1x1": 4,
        "256,64,56 1x1": 2,
        "256,128,56 1x1": 1,
        "256,512,56 1x1/2": 1,
        "128,512,28 1x1": 4,
        "512,128,28 1x1": 3,
        "512,256,28 1x1": 1,
        "512,1024,28 1x1/2": 1,
        "256,1024,14 1x1": 6,
        "1024,256,14 1x1": 5,
        "1024,512,14 1x1": 1,
        "1024,2048,14 1x1/2": 1,
        "512,2048,7 1x1": 3,
        "2048,512,7 1x1": 2,
    },
    # with narrow groups: MobileNet (the first one), depthwise and 1x1 layers in turn, and ResNeXt-50 32x4d
    "mobilenet": {
        "32,32,112 3x3 g32": 1,
        "32,64,112 1x1": 1,
        "64,64,112 3x3/2 g64": 1,
        "64,128,56 1x1": 1,
        "128,128,56 3x3 g128": 1,
        "128,128,56 1x1": 1,
        "128,128,56 3x3/2 g128": 1,
        "128,256,28 1x1": 1,
        "256,256,28 3x3 g256": 1,
        "256,256,28 1x1": 1,
        "256,256,28 3x3/2 g256": 1,
        "256,512,14 1x1": 1,
        "512,512,14 3x3 g512": 5,
        "512,512,14 1x1": 5,
        "512,512,14 3x3/2 g512": 1,
        "512,1024,7 1x1": 1,
        "1024,1024,7 3x3 g1024": 1,
        "1024,1024,7 1x1": 1,
    },
    "resnext50": {
        "64,256,56 1x1": 1,
        "64,128,56 1x1": 1,
        "128,128,56 3x3 g32": 3,
        "128,256,56 1x1": 3,
        "256,128,56 1x1": 2,
        "256,512,56 1x1/2": 1,
        "256,256,56 1x1": 1,
        "256,256,56 3x3/2 g32": 1,
        "256,512,28 1x1": 4,
        "512,256,28 1x1": 3,
        "256,256,28 3x3 g32": 3,
        "512,1024,28 1x1/2": 1,
        "512,512,28 1x1": 1,
        "512,512,28 3x3/2 g32": 1,
        "512,1024,14 1x1": 6,
        "1024,512,14 1x1": 5,
        "512,512,14 3x3 g32": 5,
        "1024,2048,14 1x1/2": 1,
        "1024,1024,14 1x1": 1,
        "1024,1024,14 3x3/2 g32": 1,
        "1024,2048,7 1x1": 3,
        "2048,1024,7 1x1": 2,
        "1024,1024,7 3x3 g32": 2,
    },
}

# Append only: results of earlier runs are kept under these texts.
SETS = {name: tuple(counts) for name, counts in NETWORKS.items()} | {
    "all": tuple(dict.fromkeys(text for name in ("vgg16", "resnet34", "resnet50") for text in NETWORKS[name])),
    # one of each kind, for daily use
    "prototype": (
        "64,64,56 3x3",
        "128,128,28 3x3",
        "256,256,14 3x3",
        "512,512,7 3x3",
        "256,256,56 3x3",
        "64,256,56 1x1",
        "256,64,56 1x1",
        "512,128,28 1x1",
        "256,1024,14 1x1",
        "512,2048,7 1x1",
        "128,128,56 3x3/2",
    ),
    # depthwise layers of MobileNet 1, 2 and 3, and the grouped ones of ResNeXt-50
    "narrow": (
        "32,32,112 3x3 g32",
        "64,64,112 3x3/2 g64",
        "128,128,56 3x3 g128",
        "256,256,28 3x3 g256",
        "512,512,14 3x3 g512",
        "512,512,14 3x3/2 g512",
        "1024,1024,7 3x3 g1024",
        "144,144,56 3x3 g144",
        "192,192,28 3x3/2 g192",
        "576,576,14 3x3 g576",
        "960,960,7 3x3 g960",
        "16,16,112 3x3 g16",
        "72,72,56 5x5/2 g72",
        "120,120,28 5x5 g120",
        "184,184,14 3x3 g184",
        "960,960,7 5x5 g960",
        "128,128,56 3x3 g32",
        "256,256,56 3x3/2 g32",
        "256,256,28 3x3 g32",
        "512,512,28 3x3/2 g32",
        "512,512,14 3x3 g32",
        "1024,1024,14 3x3/2 g32",
        "1024,1024,7 3x3 g32",
    ),
    "unusual": (
        "3,64,224 7x7/2",
        "64,64,56 5x5",
        "32,32,56 7x7",
        "128,128,17 1x7",
        "192,192,17 7x1",
        "64,64,56 3x3 d2",
        "256,256,28 3x3 d2",
        "128,128,28 3x3 g8",
        "256,256,14 3x3 g4",
        "24,24,56 3x3",
        "40,40,28 5x5",
        "48,48,35 3x3",
        "72,72,28 3x3",
        "24,72,56 1x1",
        "96,96,35 3x3",
        "160,192,17 1x1",
        "64,64,56 3x3 n1",
        "256,256,14 3x3 n1",
        "512,2048,7 1x1 n1",
    ),
}


def select(names: list[str], only: list[str] | None = None) -> list[Layer]:
    """The layers of some sets and texts, each once, in order.

    Parameters
    ----------
    names
        Names of `SETS`, or layers as text.
    only
        Take only layers that one of these words describes, see `matches`.

    Raises
    ------
    ValueError
        If a name is neither, a word is no such word, or no layer is left.
    """
    texts = [text for name in names for text in SETS.get(name, (name,))]
    for name in names:
        if name not in SETS and not name[:1].isdigit():
            raise ValueError(f"layers: got {name!r}, expected {', '.join(SETS)}, or {_EXPECTED}")
    layers = list(dict.fromkeys(parse(text) for text in texts))
    if only:
        layers = [layer for at, layer in enumerate(layers) if any(matches(word, layer, at) for word in only)]
    if not layers:
        raise ValueError(f"layers: none of {', '.join(names)} is {' or '.join(only or [])}")
    return layers


def matches(word: str, layer: Layer, at: int) -> bool:
    """Whether `word` means this layer: ``3x3`` is its kernel, ``/2`` its stride, ``3x3/2`` both, a number its place."""
    match = re.fullmatch(r"(\d+)|(\d+x\d+)?(?:/(\d+))?", word)
    if not match or not word:
        raise ValueError(f'only: got {word!r}, expected a kernel such as "3x3", "/2", "3x3/2", or a place in the list')
    place, kernel, stride = match.groups()
    if place:
        return int(place) == at
    return kernel in (None, layer.kernel_text) and stride in (None, str(layer.stride))
