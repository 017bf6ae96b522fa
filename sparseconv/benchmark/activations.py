"""Operands of a real training step in a file: zeros that cluster, as random ones do not.

The file is NumPy's .npz. A layer called conv2 has five entries: ``conv2/layer`` (its text, see `layers.parse`),
``conv2/passes`` (those that the network runs: the first layer has no backward_data), and, as float32 arrays,
``conv2/input`` and ``conv2/grad_output`` (N, H, W, C) and ``conv2/weight`` (out, in / groups, rows, columns).
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from sparseconv.benchmark.layers import parse
from sparseconv.benchmark.operands import PASSES, Operands

__all__ = ["Saved", "load", "save"]

_ARRAYS = {"input": "x", "weight": "weight", "grad_output": "grad_output"}
MOST_BYTES, MOST_TEXT = 4 << 30, 1 << 16  # of all arrays of a file, and of an entry that is text
MOST_EXPANSION = 1040  # of deflate: 1032, and what is small


@dataclass(frozen=True)
class Saved:
    """One layer of a training step."""

    name: str
    operands: Operands
    passes: tuple[str, ...]


def save(saved: Iterable[Saved], path: str | Path) -> None:
    """Write layers, whose operands are NHWC, into a file."""
    entries = {}
    for one in saved:
        entries[f"{one.name}/layer"] = np.array(str(one.operands.layer))
        entries[f"{one.name}/passes"] = np.array(one.passes)
        for entry, field in _ARRAYS.items():
            entries[f"{one.name}/{entry}"] = getattr(one.operands, field)
    with open(path, "wb") as file:  # a path would get another ending
        np.savez_compressed(file, **entries)  # type: ignore[arg-type]  # any name might be allow_pickle


def load(path: str | Path) -> list[Saved]:
    """Read the layers of a file.

    Raises
    ------
    OSError
        If there is no such file.
    ValueError
        If it is not of this kind, or its arrays do not fit its layers.
    """
    with open(path, "rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError(f"activations: got {path}, expected a file of 'sparseconv train --save-activations FILE'")
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as entries:
                return _load_layers(entries)
        except MemoryError:
            raise
        except Exception as error:  # NumPy and zipfile have no list of what they raise, such as tokenize.TokenError
            ours = str(error).startswith(("activations: ", "layer: "))
            what = f"{type(error).__name__}: {str(error)[:300]}"
            what = str(error) if ours else f"activations: got a damaged file: {what}"
            raise ValueError(f"{what}, in {path}") from error


def _load_layers(entries: np.lib.npyio.NpzFile) -> list[Saved]:
    names = [entry.removesuffix("/layer") for entry in entries.files if entry.endswith("/layer")]
    if not names:
        raise ValueError("activations: got a file without a layer, expected entries such as conv1/layer")
    room, layers = MOST_BYTES, []
    for name in names:
        layers.append(_load_layer(entries, name, room))
        room -= sum(getattr(layers[-1].operands, field).nbytes for field in _ARRAYS.values())
    return layers


def _header(entries: np.lib.npyio.NpzFile, entry: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an entry, of which nothing else is read. Its bytes are there, as far as the archive tells."""
    archive: zipfile.ZipFile = entries.zip  # type: ignore[assignment]  # it is open
    member, size = archive.getinfo(f"{entry}.npy"), os.fstat(archive.fp.fileno()).st_size  # type: ignore[union-attr]
    if member.file_size > MOST_EXPANSION * min(member.compress_size + 64, size):
        raise ValueError(f"activations: got {entry} that says it has {member.file_size} bytes, expected fewer")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"activations: got {entry} in version {version} of NumPy's format, expected 1.0 or 2.0")
        headers = np.lib.format
        read = headers.read_array_header_1_0 if version == (1, 0) else headers.read_array_header_2_0
        shape, _, dtype = read(file)
    if any(size < 0 for size in shape):
        raise ValueError(f"activations: got {entry} of shape {shape}, expected no negative sizes")
    if prod(shape) * dtype.itemsize > member.file_size:
        raise ValueError(f"activations: got {entry} of {dtype} {shape}, expected at most {member.file_size} bytes")
    return shape, dtype


def _text(entries: np.lib.npyio.NpzFile, entry: str) -> np.ndarray:
    shape, dtype = _header(entries, entry)
    if dtype.kind != "U" or prod(shape) * dtype.itemsize > MOST_TEXT:
        raise ValueError(f"activations: got {entry} of {dtype} {shape}, expected a short text")
    return entries[entry]


def _load_layer(entries: np.lib.npyio.NpzFile, name: str, room: int) -> Saved:
    """A layer, whose arrays have no more bytes than there is room for. They are read once it is known that they fit."""
    missing = [entry for entry in ("passes", *_ARRAYS) if f"{name}/{entry}" not in entries]
    if missing:
        raise ValueError(f"activations: got {name} without {', '.join(missing)}")
    layer = parse(str(_text(entries, f"{name}/layer")))
    passes = tuple(map(str, _text(entries, f"{name}/passes").ravel()))
    if not set(passes) <= set(PASSES):
        raise ValueError(f"activations: got {name}/passes {passes!r:.100}, expected some of {', '.join(PASSES)}")
    headers = {entry: _header(entries, f"{name}/{entry}") for entry in _ARRAYS}
    batch = headers["input"][0][:1]
    shapes = {
        "input": (*batch, *layer.in_size, layer.in_c),
        "weight": layer.weight_shape,
        "grad_output": (*batch, *layer.out_size, layer.out_c),
    }
    for entry, (shape, dtype) in headers.items():
        if shape != shapes[entry] or dtype != np.float32:
            raise ValueError(f"activations: got {name}/{entry} of {dtype} {shape}, expected float32 {shapes[entry]}")
    if sum(4 * prod(shape) for shape in shapes.values()) > room:
        raise ValueError(f"activations: got {name} that makes more than {MOST_BYTES} bytes, expected a smaller batch")
    arrays = {field: entries[f"{name}/{entry}"] for entry, field in _ARRAYS.items()}
    return Saved(name, Operands(layer, "NHWC", **arrays), passes)
