"""Weights as bit masks and nonzero values, in the files of the package compressed-tensors ("sparse-bitmask").

A weight `name` is stored as tensors of a safetensors file:

==================  =============================================================================================
name.shape          (ndim,) int64, the dense shape
name.compressed     (nonzeros,) the nonzero elements in C order
name.bitmask        (..., ceil(last / 8)) uint8: a bit per element, lowest first, every row of the last axis padded to
                    whole bytes
name.row_offsets    shape[:-1] int64: the nonzeros before each row of the last axis
==================  =============================================================================================

compressed-tensors 0.14.0 is the last release that writes it; 0.20.0 has its names but no compressor any more. What is
written here is read there and the other way round. Its 2:4 files ("sparse-24-bitmask") have no offsets and are read,
too. Offsets are written as that package writes them and never read: for weights of more than two axes, such as those of
convolutions, it counts along the first axis alone, so that they do not say where a row begins.

>>> from sparseconv.formats import compressed_tensors
>>> tensors = compressed_tensors.compress({"conv.weight": weight})                          # doctest: +SKIP
>>> compressed_tensors.decompress(tensors)["conv.weight"]                                   # doctest: +SKIP
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from .._core import arrays

__all__ = ["compress", "decompress", "load", "save"]

PARTS = "shape", "compressed", "bitmask", "row_offsets"
MOST_AXES = 8


def compress(weights: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The tensors that stand for these weights.

    Parameters
    ----------
    weights : mapping of names to float32 or float64 arrays
        Of at least one axis.

    Returns
    -------
    dict of ndarray
        Four for each weight. -0.0 counts as zero.

    Raises
    ------
    TypeError, ValueError
        A weight that is no array of these types or has no axes; the message names it.
    """
    tensors: dict[str, np.ndarray] = {}
    for name, value in weights.items():
        weight = arrays.take(name, value)
        if not weight.ndim:
            raise ValueError(f"{name}: got an array without axes, expected at least one")
        nonzero = weight != 0
        counts = nonzero.sum(-1, dtype=np.int64)
        parts = (
            np.array(weight.shape, np.int64),
            weight[nonzero],
            np.packbits(nonzero, axis=-1, bitorder="little"),
            np.cumsum(counts, 0) - counts if counts.ndim else np.zeros((1,), np.int64),
        )
        tensors |= {f"{name}.{part}": tensor for part, tensor in zip(PARTS, parts, strict=True)}
    return tensors


def decompress(tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The dense weights that tensors stand for; tensors that are no part of one stay as they are.

    Parameters
    ----------
    tensors : mapping of names to arrays
        All of a file, or some: those that end with ".bitmask" are looked for.

    Returns
    -------
    dict of ndarray
        By the weights' names, in the dtype of their values.

    Raises
    ------
    ValueError
        Parts that are missing or do not fit together: the message names the weight. No array is larger than eight times
        the bytes of its bit mask allow, whatever `shape` says.
    """
    names = [name.removesuffix(".bitmask") for name in tensors if name.endswith(".bitmask")]
    dense = {name: _dense(name, tensors) for name in names}
    used = {f"{name}.{part}" for name in names for part in PARTS}
    return dense | {name: np.asarray(tensor) for name, tensor in tensors.items() if name not in used}


def _dense(name: str, tensors: Mapping[str, Any]) -> np.ndarray:
    missing = [part for part in PARTS[:3] if f"{name}.{part}" not in tensors]
    if missing:
        raise ValueError(f"{name}: got a bit mask without {' and '.join(missing)}, expected {', '.join(PARTS[:3])}")
    shape, values, bits = (np.asarray(tensors[f"{name}.{part}"]) for part in PARTS[:3])
    shape = shape.reshape(-1)  # a column in 2:4 files
    if shape.dtype.kind not in "iu" or not 1 <= shape.size <= MOST_AXES or (shape < 0).any():
        raise ValueError(f"{name}.shape: got {shape.tolist()!r:.60}, expected 1 to {MOST_AXES} sizes")
    sizes = tuple(map(int, shape))
    expected = (*sizes[:-1], -(-sizes[-1] // 8))
    if bits.dtype != np.uint8 or bits.shape != expected:
        raise ValueError(f"{name}.bitmask: got {bits.dtype} {bits.shape}, expected uint8 {expected} for shape {sizes}")
    if math.prod(sizes) == 0:
        return np.zeros(sizes, values.dtype)
    nonzero = np.unpackbits(bits, axis=-1, bitorder="little")
    if nonzero[..., sizes[-1] :].any():
        raise ValueError(f"{name}.bitmask: got bits behind the last of {sizes[-1]} elements of a row, expected zeros")
    nonzero = nonzero[..., : sizes[-1]].view(np.bool_)
    count = int(np.count_nonzero(nonzero))
    if values.size != count:
        raise ValueError(f"{name}.compressed: got {values.size} values, expected {count}, the bits that are set")
    dense = np.zeros(sizes, values.dtype)
    dense[nonzero] = values.reshape(-1)
    return dense


def save(path: str | os.PathLike[str], weights: Mapping[str, Any]) -> None:
    """Writes weights to a safetensors file, compressed.

    Parameters
    ----------
    path : path-like
        Replaced if it exists.
    weights : mapping of names to arrays
        float32 and float64 arrays with zeros are compressed if that is smaller, all others are stored as they are.

    Raises
    ------
    ImportError
        Without the package safetensors (``pip install 'sparseconv[formats]'``).
    """
    safetensors = _safetensors()
    tensors: dict[str, np.ndarray] = {}
    for name, value in weights.items():
        array = np.asarray(arrays.take_any(name, value), order="C")
        parts = compress({name: array}) if array.ndim and array.dtype in arrays.DTYPES else {}
        smaller = parts and sum(part.nbytes for part in parts.values()) < array.nbytes
        tensors |= parts if smaller else {name: array}
    safetensors.numpy.save_file(tensors, path, metadata={"format": "np"})


def load(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The weights of a safetensors file, all of them dense.

    Parameters
    ----------
    path : path-like
        A file that `save` or compressed-tensors wrote. Tensors without a bit mask come as they are.

    Returns
    -------
    dict of ndarray
        ``sparseconv.pack_weight`` takes what is pruned.

    Raises
    ------
    FileNotFoundError
    ValueError
        A file that is damaged, no safetensors file, or of tensors that do not fit together; the message says what.
    TypeError
        Tensors of a type that NumPy does not have (bfloat16, float8, unless ml_dtypes is imported).
    ImportError
        Without the package safetensors.
    """
    safetensors = _safetensors()
    try:
        tensors = safetensors.numpy.load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{os.fspath(path)}: damaged, or no safetensors file: {error}") from error
    except TypeError as error:
        raise TypeError(f"{os.fspath(path)}: got a tensor of a type that NumPy does not have: {error}") from error
    try:
        return decompress(tensors)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            "sparseconv.formats.compressed_tensors needs safetensors to read and write files: "
            "pip install 'sparseconv[formats]'"
        ) from error
    return safetensors
