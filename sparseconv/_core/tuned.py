"""What ``sparseconv tune`` found out about this CPU: factors on the costs by which "auto" chooses, from a file.

The file is never needed: without it, or with one of another CPU or version, all factors are 1, and the costs are those
of rows.py and gradient.py. It is read once, when the first kernel is bound; one that is damaged, or that lies, is
ignored with a warning. Whatever it says, a factor stays between `LEAST` and `MOST`, and decides which kernel runs, not
what comes out. Without a file that takes 0.05 ms, with one 0.6 ms, and once 2 ms to import json and machine.py.
"""

from __future__ import annotations

import contextlib
import math
import os
import stat
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from . import _cpu

FAMILIES = ("rows", "rows_one_tap", "gradient", "gradient_one_tap")  # of kernels that skip zeros of an operand
LEAST, MOST = 0.6, 1.6  # a CPU that is further from the defaults needs constants of its own in processor.py
FORMAT = 1
MOST_BYTES = 16 * 1024  # an entry has 0.6 KB
MOST_ENTRIES = 16  # of several CPUs that share a home folder, instruction sets and versions: the newest ones


class Factors(NamedTuple):
    """By which `each` and `fixed` of a skipping kernel's `Bound` are multiplied."""

    each: float = 1.0
    fixed: float = 1.0


NEUTRAL = Factors()
enabled = True  # SPARSECONV_TUNE, which cpu.py reads
_tried: Mapping[str, Factors] | None = None  # in the place of those of the file
_of_this_cpu: dict[tuple[str, str], dict[str, Factors]] | None = None  # from the file; None until it was read


def factors(family: str) -> Factors:
    """Those of a family of kernels on the instruction set in use."""
    return in_use().get(family, NEUTRAL)


def in_use() -> Mapping[str, Factors]:
    """The factors in use, by family; a family that is not there has its defaults."""
    global _of_this_cpu
    if _tried is not None:
        return _tried
    if not enabled:
        return {}
    if _of_this_cpu is None:
        _of_this_cpu = _load(file())
    return _of_this_cpu.get((_seen(), _cpu.current()), {}) if _of_this_cpu else {}


@contextlib.contextmanager
def trying(candidates: Mapping[str, Factors]) -> Iterator[None]:
    """While it lasts these factors are in use, whatever the file says, within the bounds or not."""
    global _tried
    before, _tried = _tried, candidates
    _empty_caches()
    try:
        yield
    finally:
        _tried = before
        _empty_caches()


def forget() -> None:
    """Lets the next choice read the file again."""
    global _of_this_cpu
    _of_this_cpu = None
    _empty_caches()


def _empty_caches() -> None:
    """Kernels that are bound have the factors of that time."""
    from . import caches  # which needs what this module is imported before

    caches.empty()


# --- whose factors they are ---


def _seen() -> str:
    """What costs depend on (processor.py), asked at each choice: tests simulate other CPUs."""
    return f"{_cpu.vendor()} {_cpu.family()} {_cpu.l1_bytes()}"


def _identity() -> dict[str, Any]:
    """What an entry says of this computer and version, beside what is seen of its CPU and the instruction set."""
    from .. import __version__
    from . import machine

    return {"version": __version__, "cpu": machine.cpu_signature(), "caches": machine.caches()}


# --- the file ---


def file() -> str:
    """Where the file is, or would be; "" where there is no home folder."""
    folder = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(folder):  # as the specification of XDG wants it
        folder = os.path.expanduser("~/Library/Caches" if sys.platform == "darwin" else "~/.cache")
    return os.path.join(folder, "sparseconv", "tuned.json") if os.path.isabs(folder) else ""


def _load(path: str) -> dict[tuple[str, str], dict[str, Factors]]:
    """The factors of this computer by what was seen of its CPU and by instruction set; never an error."""
    try:
        entries = _read(path)
        identity = _identity() if entries else {}
        return {
            (str(entry["seen"]), str(entry["isa"])): _checked(entry["factors"])
            for entry in entries
            if all(entry.get(key) == value for key, value in identity.items())
        }
    except Exception as error:
        # A call must not fail, not even where warnings are errors.
        with contextlib.suppress(Exception):
            warnings.warn(
                f"{path} is ignored ({type(error).__name__}: {error}); 'sparseconv tune' writes a new one, "
                "'sparseconv tune --remove' deletes it",
                RuntimeWarning,
                stacklevel=2,
            )
        return {}


def _read(path: str) -> list[dict[str, Any]]:
    """The entries of a file; none if there is no file, ValueError or OSError if it is not one of ours."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would keep the call waiting
    except (FileNotFoundError, NotADirectoryError):
        return []
    with open(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("no regular file")
        content = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES} bytes")
    import json  # 1 ms, if nobody else has imported it

    data = json.loads(content.decode())
    entries = data.get("entries") if isinstance(data, dict) and data.get("format") == FORMAT else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"no entries of format {FORMAT}")
    return entries


def _checked(families: Any) -> dict[str, Factors]:
    """The factors of an entry, within the bounds; ValueError if they are none."""
    if not isinstance(families, dict):
        raise ValueError("factors that are no object")
    return {
        family: Factors(*(_bounded(families[family], name) for name in Factors._fields))
        for family in FAMILIES
        if family in families
    }


def _bounded(pair: Any, name: str) -> float:
    number: Any = pair.get(name) if isinstance(pair, dict) else None
    if type(number) not in (int, float) or not math.isfinite(number):
        raise ValueError(f"{name} that is no number")
    return min(MOST, max(LEAST, float(number)))


def check_writable() -> None:
    """ValueError if the file could not be written: before a measurement, not after it."""
    import tempfile

    try:
        with tempfile.TemporaryFile(dir=_folder()):
            pass
    except OSError as error:
        raise _not_written(error) from None


def save(found: Mapping[str, Factors], isa: str) -> bool:
    """Writes the factors of this CPU, version and instruction set, in the place of earlier ones; whether any are left.

    Factors that are all 1 need no entry. Readers see the old file or the new one. Of two processes that write at once
    the later one wins, with all that it writes.
    """
    import json

    own = _identity() | {"seen": _seen(), "isa": isa}
    try:
        entries = _read(file())
    except (OSError, ValueError, RecursionError):  # damaged, as a warning may have said: a new one
        entries = []
    entries = [entry for entry in entries if any(entry.get(key) != value for key, value in own.items())]
    changed = {family: pair._asdict() for family, pair in found.items() if pair != NEUTRAL}
    if changed:
        entries.append(own | {"factors": changed})
    entries = entries[-MOST_ENTRIES:]
    while len(text := json.dumps({"format": FORMAT, "entries": entries}, indent=1)) > MOST_BYTES:
        entries = entries[1:]
    try:
        if entries:
            _replace(text)
        else:
            remove()
    except OSError as error:
        raise _not_written(error) from None
    forget()
    return bool(changed)


def remove() -> bool:
    """Deletes the file; whether there was one."""
    try:
        os.unlink(file())
    except (FileNotFoundError, NotADirectoryError):
        return False
    forget()
    return True


def _replace(text: str) -> None:
    import tempfile

    descriptor, temporary = tempfile.mkstemp(prefix="tuned.", suffix=".tmp", dir=_folder())
    try:
        with open(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.replace(temporary, file())
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _folder() -> str:
    """The folder of the file, which is made if it is not there."""
    folder = os.path.dirname(file())
    if not folder:
        raise FileNotFoundError(2, "there is no home folder")
    os.makedirs(folder, exist_ok=True)
    return folder


def _not_written(error: OSError) -> ValueError:
    where = file() or "a file"
    return ValueError(
        f"tune: cannot write {where}: {error.strerror}; --dry-run does without, XDG_CACHE_HOME names another folder"
    )
