"""The instruction set in use, and the number of threads.

``SPARSECONV_ISA`` in the environment forces an instruction set when the package is imported;
``SPARSECONV_NUM_THREADS``, else ``OMP_NUM_THREADS``, else the CPUs that this process may use set the thread count;
``SPARSECONV_THREADS`` says whose threads they are. ``SPARSECONV_TUNE=0`` leaves out what ``sparseconv tune`` found.
"""

from __future__ import annotations

import math
import os
import threading
from types import TracebackType
from typing import Literal, TypeAlias

from ._core import _cpu, cgroups, tuned

# Held by whoever switches the instruction set, or binds a kernel to it (_core/bound.py): a fork waits for both.
switching = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=switching.acquire, after_in_parent=switching.release, after_in_child=switching.release)


def isa() -> str:
    """Name of the instruction set in use: "amx_fp16", "amx", "avx512", "avx2", "neon" or "scalar"."""
    return _cpu.current()


def available_isas() -> list[str]:
    """Names of the instruction sets that this machine runs, best first."""
    return _cpu.available()


class use_isa:
    """Switches to another instruction set, for good or for a ``with`` block.

    The switch is process-wide: calls that run meanwhile in other threads keep the one they began with.

    Parameters
    ----------
    name : str
        One of `available_isas()`; or "amx_fp16" where a hypervisor hides it, if a guarded trial finds that it works.

    Raises
    ------
    ValueError
        If the name is unknown or this machine does not run it.

    Examples
    --------
    >>> import sparseconv as sc
    >>> with sc.cpu.use_isa("scalar"):
    ...     sc.cpu.isa()
    'scalar'
    """

    def __init__(self, name: str) -> None:
        with switching:
            self._before = _cpu.current()
            _cpu.use(name)

    def __enter__(self) -> use_isa:
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        with switching:
            _cpu.use(self._before)


def num_threads() -> int:
    """Number of threads that a call uses unless it is told otherwise with ``num_threads=``.

    It is, in this order: what `set_num_threads`, ``threadpoolctl`` or ``SPARSECONV_NUM_THREADS`` set; where threads are
    borrowed (`use_threads`), what the OpenMP runtime has set for the calling thread (``torch.set_num_threads``);
    ``OMP_NUM_THREADS``; the CPUs that this process may use.
    """
    return _cpu.get_num_threads()


def set_num_threads(count: int | None) -> None:
    """Sets the default number of threads, for the whole process; None forgets what was set before."""
    _cpu.set_num_threads(0 if count is None else checked_threads(count))


Team: TypeAlias = Literal["own", "openmp"]
TEAMS = ("own", "openmp")
# What _cpu.openmp_library says where it finds none.
NO_LIBRARY = {
    "none": "this process has loaded no OpenMP runtime: import the library that brings one, such as torch, first",
    "forked": "this process was forked from one that had loaded an OpenMP runtime, whose threads do not exist here",
}
_team_chosen = False  # by the environment or by use_threads, which libraries above do not overrule


def threads() -> Team:
    """Whose threads compute: "own", or "openmp", those of another library's OpenMP runtime.

    Returns
    -------
    str
        What the next call will use: "own" where "openmp" was asked for, but no runtime is there yet, or this process is
        the forked child of one that had it.
    """
    return "openmp" if _cpu.borrows() and _cpu.openmp_library() not in NO_LIBRARY else "own"


class use_threads:
    """Chooses whose threads compute, for good or for a ``with`` block.

    A library such as PyTorch has threads of its own, which wait for work by spinning and so keep the cores from ours.
    In a loop that calls both in turn, "openmp" lets sparseconv compute on the threads of the OpenMP runtime that the
    other library has loaded (libgomp, libomp or libiomp5; of several runtimes PyTorch's). Nothing is loaded or linked
    for that. Results are the same, bit for bit.

    The choice is process-wide and counts for calls that begin from now on. With "openmp" the default number of threads
    is what the runtime says, so ``torch.set_num_threads`` counts, unless `set_num_threads` or
    ``SPARSECONV_NUM_THREADS`` says otherwise. A runtime that gives fewer threads (inside of a parallel region, by
    ``OMP_THREAD_LIMIT`` or ``OMP_DYNAMIC``) only takes longer. In a forked child, where such a team hangs, our own
    threads compute.

    Parameters
    ----------
    team : {"own", "openmp"}
        "own" is the pool of threads of this library, the default. ``SPARSECONV_THREADS`` in the environment
        chooses at import; there, "openmp" means: as soon as a runtime is loaded.

    Raises
    ------
    ValueError
        If the name is unknown.
    RuntimeError
        If there is no OpenMP runtime in this process, or it must not be used because it may be older than the fork
        that made this process.

    Examples
    --------
    >>> import sparseconv as sc
    >>> with sc.cpu.use_threads("own"):
    ...     sc.cpu.threads()
    'own'
    """

    def __init__(self, team: Team) -> None:
        global _team_chosen
        if team not in TEAMS:
            raise ValueError(f"team: got {team!r}, expected one of {list(TEAMS)}")
        if team == "openmp" and (missing := NO_LIBRARY.get(_cpu.openmp_library())):
            raise RuntimeError(f"team: got 'openmp', but {missing}")
        with switching:
            self._before = _cpu.borrows(), _team_chosen
            _cpu.borrow(team == "openmp")
            _team_chosen = True

    def __enter__(self) -> use_threads:
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        global _team_chosen
        with switching:
            borrowed, _team_chosen = self._before
            _cpu.borrow(borrowed)


def _prefer_threads(team: str) -> None:
    """What a library above asks for: `use_threads`, unless the user or the environment has chosen; never an error."""
    with switching:
        if not _team_chosen:
            _cpu.borrow(team == "openmp")


def checked_threads(count: int | None) -> int:
    """`count`, or the default for None; ValueError or TypeError if it is no number of threads."""
    if count is None:
        return _cpu.get_num_threads()
    if type(count) is not int:
        if isinstance(count, bool) or not hasattr(count, "__index__"):
            raise TypeError(f"num_threads: got {count!r}, expected a whole number or None")
        count = count.__index__()
    if not 1 <= count <= 1024:
        raise ValueError(f"num_threads: got {count}, expected 1 to 1024")
    return count


def _numbers_from_environment() -> tuple[int, int]:
    """The number of threads that is set, or 0, and the one that counts where none is."""
    found = {}
    for name in ("SPARSECONV_NUM_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(name, "").split(",")[0].strip()
        if text.isdecimal() and int(text) >= 1:
            found[name] = min(int(text), 1024)
        elif text and name.startswith("SPARSECONV"):
            raise ValueError(f"{name}: got {text!r}, expected a whole number of at least 1")
    return found.get("SPARSECONV_NUM_THREADS", 0), found.get("OMP_NUM_THREADS") or _usable_cpus()


def _team_from_environment() -> str | None:
    text = os.environ.get("SPARSECONV_THREADS", "").strip()
    if text and text not in TEAMS:
        raise ValueError(f"SPARSECONV_THREADS: got {text!r}, expected one of {list(TEAMS)}")
    return text or None


def _tuned_from_environment() -> bool:
    text = os.environ.get("SPARSECONV_TUNE", "").strip()
    if text not in ("", "0", "1"):
        raise ValueError(f"SPARSECONV_TUNE: got {text!r}, expected 0 or 1")
    return text != "0"


def _usable_cpus() -> int:
    """CPUs in this process's affinity mask, or fewer if a cgroup quota says so."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroups.cpu_quota()
    return count if quota is None else max(1, min(count, math.ceil(quota)))


def _register_with_threadpoolctl() -> None:
    """Makes ``threadpoolctl.threadpool_limits(user_api="sparseconv")`` see and set our thread count."""
    import threadpoolctl

    class Followed(int):
        """A number that nobody has set: to restore it is to follow the team in use again."""

    class SparseconvController(threadpoolctl.LibController):
        user_api = "sparseconv"
        internal_api = "sparseconv"
        filename_prefixes = ("_cpu",)
        check_symbols = ("sparseconv_get_num_threads", "sparseconv_set_num_threads")

        def set_additional_attributes(self) -> None:
            self.threading_layer = threads()

        def get_num_threads(self) -> int:
            count = self.dynlib.sparseconv_get_num_threads()
            return count if _cpu.num_threads_chosen() else Followed(count)

        def set_num_threads(self, num_threads: int) -> None:
            if isinstance(num_threads, Followed):
                _cpu.set_num_threads(0)
            else:
                self.dynlib.sparseconv_set_num_threads(num_threads)

        def get_version(self) -> str:
            from . import __version__

            return __version__

    threadpoolctl.register(SparseconvController)


_count, _default_count = _numbers_from_environment()
_cpu.set_default_num_threads(_default_count)
_cpu.set_num_threads(_count)
if _team := _team_from_environment():
    _cpu.borrow(_team == "openmp")
    _team_chosen = True
tuned.enabled = _tuned_from_environment()
_register_with_threadpoolctl()
if os.environ.get("SPARSECONV_ISA"):
    try:
        _cpu.use(os.environ["SPARSECONV_ISA"])
    except ValueError as error:
        raise ValueError(f"SPARSECONV_ISA: {error}") from None
