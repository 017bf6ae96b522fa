"""Networks of ncnn: a text of layers (.param), and their weights in a row (.bin).

The text's first line is 7767517, the second the number of layers and of their results ("blobs"). Then each layer has a
line: kind, name, how many blobs it reads and writes, these, and numbers as KEY=VALUE. What a convolution needs stands
under 0 (filters), 1 (kernel), 4 (padding), 5 (whether there is a bias), 6 (how many weights) and 9 (1: ReLU).

The weights of a convolution begin with four bytes that say what follows: 0x01306B47 for float16, padded to a multiple
of four bytes, 0 for float32. The bias is float32 and has no such word. Other layers have nothing there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparseconv.benchmark.networks.packages import naming

__all__ = ["Node", "read"]

MAGIC, FLOAT16, FLOAT32 = "7767517", 0x01306B47, 0
MOST_TEXT, MOST_LAYERS = 1 << 20, 4096
KINDS = {"Input": (0, 1), "Convolution": (1, 1), "PixelShuffle": (1, 1)}  # blobs that they read and write
_CONVOLUTION = {0, 1, 4, 5, 6, 9}


@dataclass(frozen=True)
class Node:
    """A layer; `weight` is (filters, channels, rows, columns), and `bias` (filters,), of a convolution."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    output: str
    numbers: dict[int, int]
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None


def read(param: str | Path, bin: str | Path) -> list[Node]:
    """The layers of a network of convolutions, in the order of the text.

    Raises
    ------
    OSError
        If a file is not there.
    ValueError
        If the text is not of this kind, a layer is another one than `KINDS`, or the weights have other sizes.
    """
    with naming(param):
        nodes = [_node(line) for line in _lines(Path(param))]
    content, at, filled = memoryview(Path(bin).read_bytes()), 0, []
    with naming(bin):
        for node in nodes:
            if node.kind == "Convolution":
                node, at = _with_weights(node, content, at)
            filled.append(node)
        if at != len(content):
            raise ValueError(f"got {len(content)} bytes, expected {at} for the layers of {Path(param).name}")
    return filled


def _lines(path: Path) -> list[list[str]]:
    with open(path, "rb") as file:
        content = file.read(MOST_TEXT + 1)
    if len(content) > MOST_TEXT:
        raise ValueError(f"got a text of more than {MOST_TEXT} bytes")
    try:
        magic, counts, *lines = content.decode("ascii").splitlines()
    except ValueError as error:  # UnicodeDecodeError is one, too
        raise ValueError("got no text of ncnn, expected 7767517 in its first line") from error
    if magic.strip() != MAGIC:
        raise ValueError(f"got {magic[:40]!r} in the first line, expected {MAGIC}")
    words = [line.split() for line in lines if line.strip()]
    if counts.split()[:1] != [str(len(words))] or len(words) > MOST_LAYERS:
        raise ValueError(f"got {counts[:40]!r} for {len(words)} layers, expected their number, at most {MOST_LAYERS}")
    return words


def _node(words: list[str]) -> Node:
    kind, name, *rest = [*words, "", ""][: max(2, len(words))]
    if kind not in KINDS:
        raise ValueError(f"got a layer of kind {kind[:40]!r}, expected {', '.join(KINDS)}")
    reads, writes = KINDS[kind]
    if rest[:2] != [str(reads), str(writes)] or len(rest) < 2 + reads + writes:
        raise ValueError(f"got {' '.join(words)[:100]!r}, expected {kind} that reads {reads} and writes {writes} blobs")
    blobs, numbers = rest[2 : 2 + reads + writes], {}
    for word in rest[2 + reads + writes :]:
        key, _, value = word.partition("=")
        if not key.isdecimal() or not value.isdecimal() or len(word) > 20:
            raise ValueError(f"got {word[:40]!r} in {name[:40]!r}, expected a number as 0=128")
        numbers[int(key)] = int(value)
    if kind == "Convolution":
        _check_convolution(name, numbers)
    return Node(kind, name, tuple(blobs[:reads]), blobs[-1], numbers)


def _check_convolution(name: str, numbers: dict[int, int]) -> None:
    filters, kernel, size = (numbers.get(key, 0) for key in (0, 1, 6))
    if not set(numbers) <= _CONVOLUTION or numbers.get(5, 0) > 1 or numbers.get(9, 0) > 1:
        raise ValueError(f"got {numbers} in {name[:40]!r}, expected a plain convolution, with or without bias and ReLU")
    if not filters * kernel or not size or size % (filters * kernel**2):
        raise ValueError(f"got {size} weights in {name[:40]!r}, expected some for {filters} filters of {kernel}")


def _with_weights(node: Node, content: memoryview, at: int) -> tuple[Node, int]:
    """The layer with its weights, which begin there, and where they end."""
    filters, kernel, size = (node.numbers[key] for key in (0, 1, 6))
    flag = int.from_bytes(content[at : at + 4], "little") if len(content) >= at + 4 else -1
    if flag not in (FLOAT16, FLOAT32):
        raise ValueError(f"got {flag:#x} in front of {node.name[:40]!r}, expected {FLOAT16:#x} or 0")
    at += 4
    weight = _numbers(node, content, at, "<f2" if flag == FLOAT16 else "<f4", size)
    at += (weight.nbytes + 3) // 4 * 4
    bias = np.zeros(filters, np.float32)
    if node.numbers.get(5):
        bias = _numbers(node, content, at, "<f4", filters).astype(np.float32)
        at += bias.nbytes
    weight = weight.astype(np.float32).reshape(filters, -1, kernel, kernel)
    return Node(node.kind, node.name, node.inputs, node.output, node.numbers, weight, bias), at


def _numbers(node: Node, content: memoryview, at: int, dtype: str, count: int) -> np.ndarray:
    if count * np.dtype(dtype).itemsize > len(content) - at:
        raise ValueError(f"got {len(content) - at} bytes for {node.name[:40]!r}, expected {count} of {dtype}")
    return np.frombuffer(content, dtype, count, at)
