"""What to say when the package cannot be imported."""

from __future__ import annotations

import itertools
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path


def explained(error: Exception) -> BaseException:
    """The exception to raise in the place of one that came while the compiled modules were imported.

    In a source folder without them, which hides an installed package from a Python that is started beside it, one that
    says so. A wrong environment variable stops the command line with one line.
    """
    package = Path(__file__).parent
    if isinstance(error, ImportError) and _missing(package):
        error = ImportError(_unbuilt(package), name=__package__)
    return SystemExit(f"sparseconv: error: {error}") if _is_command() else error


def _unbuilt(package: Path) -> str:
    installed = _installed(package)
    hides = f"It hides the one installed in {installed}: start Python in another folder. " if installed else ""
    else_ = "To" if installed else "Run 'pip install .' there and start Python in another folder; to"
    missing = _missing(package)
    without = "compiled modules" if "_cpu" in missing else f"the compiled {', '.join(missing)}, newer than the others,"
    return (
        f"{package} is the source folder of sparseconv, without {without} for this Python. {hides}{else_} "
        f"use the sources where they are: pip install -e {package.parent}"
    )


def _installed(package: Path) -> Path | None:
    """Where Python would find the package if it did not look here."""
    for entry in sys.path:
        found = Path(entry or ".").resolve() / package.name
        if found != package.resolve() and not _missing(found):
            return found
    return None


def _missing(package: Path) -> list[str]:
    """Compiled modules that are not there; a source folder that was updated may lack the new ones."""
    folder = package / "_core"
    modules = {"_cpu", *(path.stem for path in folder.glob("_*.pyx"))}
    return sorted(
        name for name in modules if not any((folder / f"{name}{suffix}").exists() for suffix in EXTENSION_SUFFIXES)
    )


def _is_command() -> bool:
    """Whether this process is ``sparseconv`` or ``python -m sparseconv``."""
    module = ("-m", __package__) in itertools.pairwise(sys.orig_argv)
    return module or Path(sys.argv[0] if sys.argv else "").stem == __package__
