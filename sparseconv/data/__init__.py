"""Images for the training demo: a bundled subset of Fashion-MNIST, or the full set from its IDX files."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from importlib import resources
from pathlib import Path

import numpy as np

__all__ = ["load"]

_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
MOST_BYTES = 1 << 30  # of a file's elements; MNIST's largest has 47 million
_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def load(
    directory: str | os.PathLike[str] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return images and labels for training and testing.

    Parameters
    ----------
    directory : path-like, optional
        Where the four IDX files of MNIST or Fashion-MNIST are, gzipped or not. Without it the bundled subset of
        Fashion-MNIST is used: 6,000 training and 1,000 test images, the same number of each class.

    Returns
    -------
    train_images : (N, H, W) uint8
    train_labels : (N,) uint8
    test_images : (M, H, W) uint8
    test_labels : (M,) uint8

    Raises
    ------
    FileNotFoundError
        If a file is missing; the message names it.
    ValueError
        If a file is not what its name says: bad magic number, truncated, damaged, labels that do not match images.
    """
    if directory is None:
        bundled = resources.files(__name__) / "fashion_mnist.npz"
        with bundled.open("rb") as file, np.load(file) as arrays:
            return tuple(arrays[name] for name in _ARRAYS)
    paths = [_find(Path(directory), name) for name in _FILES]
    arrays = tuple(_read_idx(path) for path in paths)
    for images, labels, path in ((*arrays[:2], paths[1]), (*arrays[2:], paths[3])):
        if len(images) != len(labels):
            raise ValueError(f"{path}: {len(labels)} labels, but there are {len(images)} images")
    return arrays


def _find(directory, name):
    for path in (directory / name, directory / f"{name}.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{directory / name}: no such file, with or without .gz")


def _read_idx(path):
    """Read one IDX file of bytes: magic number 0x08DD (DD dimensions), big-endian sizes, then the elements.

    Never more than these sizes and one byte, and never more than MOST_BYTES: a gzip file of a few MB can hold GB.
    """
    dims = 3 if "idx3" in path.name else 1
    header = 4 + 4 * dims
    compressed = path.suffix == ".gz"
    with (gzip.open if compressed else open)(path, "rb") as file:
        try:
            content = file.read(header)
            magic = int.from_bytes(content[:4], "big")
            if len(content) >= 4 and magic != 0x0800 + dims:
                raise ValueError(f"{path}: bad magic number {magic}, expected {0x0800 + dims}")
            if len(content) < header:
                raise ValueError(f"{path}: truncated, {len(content)} bytes of {header}")
            shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, header, 4))
            size = math.prod(shape)
            if size > MOST_BYTES:
                raise ValueError(f"{path}: says that it holds {shape}, expected at most {MOST_BYTES} bytes")
            elements = file.read(size + 1)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path}: damaged or truncated gzip file: {error}") from error
    expected = header + size
    if len(elements) < size:
        raise ValueError(f"{path}: truncated, {header + len(elements)} bytes of {expected}")
    if len(elements) > size:
        found = "more" if compressed else path.stat().st_size
        raise ValueError(f"{path}: {found} bytes, expected {expected} for {shape}")
    return np.frombuffer(elements, np.uint8).reshape(shape)
