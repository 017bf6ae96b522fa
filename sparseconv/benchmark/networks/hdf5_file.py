"""Arrays in an HDF5 file, in which Keras keeps its weights, by h5py.

A file of HDF5 may refer to other files, make large arrays of nothing (fill values, compression), and contain itself.
Only arrays that lie in the file in one piece are read, so together they have no more bytes than the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sparseconv.benchmark.networks.packages import library

__all__ = ["read"]

MOST_ENTRIES, MOST_DEPTH = 4096, 16  # groups and arrays of a file, and groups within each other


def read(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of a file by their path in it, such as ``block1/layers/conv2d/vars/0``.

    Raises
    ------
    OSError
        If there is no such file.
    ValueError
        If h5py is not installed, or the file is no HDF5 file, is damaged, or has something else than groups and
        float32 arrays in one piece.
    """
    h5py = library("h5py")
    size = Path(path).stat().st_size
    try:
        with h5py.File(path, "r") as file:
            found: dict[str, Any] = {}
            _collect(h5py, file, "", found, 0)
            arrays = {name: entry for name, entry in found.items() if entry is not None}
            for name, dataset in arrays.items():
                _check(name, dataset)
            if sum(dataset.nbytes for dataset in arrays.values()) > size:
                raise ValueError(f"got arrays of more than {size} bytes, which are all of the file")
            return {name: dataset[()].astype(np.float32, copy=False) for name, dataset in arrays.items()}
    except MemoryError:
        raise
    except Exception as error:  # h5py has no list of what it raises: OSError, RuntimeError, KeyError, TypeError, ...
        raise ValueError(f"network: got an HDF5 file that cannot be read: {str(error)[:300]}, in {path}") from error


def _collect(h5py: Any, group: Any, at: str, found: dict[str, Any], depth: int) -> None:
    """Fill `found` with the arrays below a group, and None for each group."""
    if depth > MOST_DEPTH:
        raise ValueError(f"got {at[:100]!r}, expected at most {MOST_DEPTH} groups within each other")
    for name in group:
        link, path = group.get(name, getlink=True), f"{at}/{name}".removeprefix("/")
        if not isinstance(link, h5py.HardLink):
            raise ValueError(f"got {path[:100]!r}, which is a {type(link).__name__}, expected no links")
        if len(found) == MOST_ENTRIES:
            raise ValueError(f"got more than {MOST_ENTRIES} groups and arrays")
        entry = group[name]
        if isinstance(entry, h5py.Group):
            found[path] = None
            _collect(h5py, entry, path, found, depth + 1)
        elif isinstance(entry, h5py.Dataset):
            found[path] = entry
        else:
            raise ValueError(f"got {path[:100]!r}, which is a {type(entry).__name__}, expected groups and arrays")


def _check(name: str, dataset: Any) -> None:
    if dataset.dtype.kind != "f" or dataset.dtype.itemsize != 4 or dataset.shape is None:
        raise ValueError(f"got {name[:100]!r} of {str(dataset.dtype)[:40]}, expected float32")
    storage = dataset.id
    if dataset.is_virtual or dataset.external or dataset.chunks or storage.get_offset() is None:
        raise ValueError(f"got {name[:100]!r}, expected an array that lies in the file in one piece")
    if storage.get_storage_size() != dataset.nbytes:
        raise ValueError(f"got {name[:100]!r} of shape {dataset.shape}, expected {dataset.nbytes} bytes in the file")
