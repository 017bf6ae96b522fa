"""Operands of a real training step in a file: zeros that cluster, as random ones do not.

The file is NumPy's .npz. A layer called conv2 has five entries: ``conv2/layer`` (its text, see `layers.parse`),
``conv2/passes`` (those that the network runs: the first layer has no backward_data), and, as float32 arrays,
``conv2/input`` and ``conv2/grad_output`` (N, H, W, C) and ``conv2/weight`` (out, in / groups, rows, columns).
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparseconv.benchmark.layers import parse
from sparseconv.benchmark.operands import PASSES, Operands

__all__ = ["Saved", "load", "save"]

_ARRAYS = {"input": "x", "weight": "weight", "grad_output": "grad_output"}


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
        with np.load(file) as entries:
            names = [entry.removesuffix("/layer") for entry in entries.files if entry.endswith("/layer")]
            if not names:
                raise ValueError(f"activations: got {path} without a layer, expected entries such as conv1/layer")
            return [_load_layer(entries, name) for name in names]


def _load_layer(entries: np.lib.npyio.NpzFile, name: str) -> Saved:
    missing = [entry for entry in ("passes", *_ARRAYS) if f"{name}/{entry}" not in entries]
    if missing:
        raise ValueError(f"activations: got {name} without {', '.join(missing)}")
    layer = parse(str(entries[f"{name}/layer"]))
    passes = tuple(map(str, entries[f"{name}/passes"]))
    if not set(passes) <= set(PASSES):
        raise ValueError(f"activations: got {name}/passes {passes}, expected some of {', '.join(PASSES)}")
    arrays = {field: entries[f"{name}/{entry}"] for entry, field in _ARRAYS.items()}
    batch = arrays["x"].shape[:1]
    shapes = {
        "x": (*batch, *layer.in_size, layer.in_c),
        "weight": layer.weight_shape,
        "grad_output": (*batch, *layer.out_size, layer.out_c),
    }
    for entry, field in _ARRAYS.items():
        array = arrays[field]
        if array.shape != shapes[field] or array.dtype != np.float32:
            raise ValueError(
                f"activations: got {name}/{entry} of {array.dtype} {array.shape}, expected float32 {shapes[field]}"
            )
    return Saved(name, Operands(layer, "NHWC", **arrays), passes)
