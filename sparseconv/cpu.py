"""The instruction set in use, and the number of threads.

``SPARSECONV_ISA`` in the environment forces an instruction set when the package is imported;
``SPARSECONV_NUM_THREADS``, else ``OMP_NUM_THREADS``, else the CPUs that this process may use set the thread count.
"""

from __future__ import annotations

import math
import os
import threading
from types import TracebackType

from . import _cpu, cgroups

# Held by whoever switches the instruction set, or binds a kernel to it (planning.py): a fork waits for both.
switching = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=switching.acquire, after_in_parent=switching.release, after_in_child=switching.release)


def isa() -> str:
    """Name of the instruction set in use: "amx", "avx512", "avx2", "neon" or "scalar"."""
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
        One of `available_isas()`.

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
    """Number of threads that a call uses unless it is told otherwise with ``num_threads=``."""
    return _cpu.get_num_threads()


def set_num_threads(count: int) -> None:
    """Sets the default number of threads, for the whole process."""
    _cpu.set_num_threads(checked_threads(count))


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


def _from_environment() -> int:
    for name in ("SPARSECONV_NUM_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(name, "").split(",")[0].strip()
        if text.isdecimal() and int(text) >= 1:
            return min(int(text), 1024)
        if text and name.startswith("SPARSECONV"):
            raise ValueError(f"{name}: got {text!r}, expected a whole number of at least 1")
    return _usable_cpus()


def _usable_cpus() -> int:
    """CPUs in this process's affinity mask, or fewer if a cgroup quota says so."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroups.cpu_quota()
    return count if quota is None else max(1, min(count, math.ceil(quota)))


def _register_with_threadpoolctl() -> None:
    """Makes ``threadpoolctl.threadpool_limits(user_api="sparseconv")`` see and set our thread count."""
    import threadpoolctl

    class SparseconvController(threadpoolctl.LibController):
        user_api = "sparseconv"
        internal_api = "sparseconv"
        filename_prefixes = ("_cpu",)
        check_symbols = ("sparseconv_get_num_threads", "sparseconv_set_num_threads")

        def get_num_threads(self) -> int:
            return self.dynlib.sparseconv_get_num_threads()

        def set_num_threads(self, num_threads: int) -> None:
            self.dynlib.sparseconv_set_num_threads(num_threads)

        def get_version(self) -> str:
            from . import __version__

            return __version__

    threadpoolctl.register(SparseconvController)


_cpu.set_num_threads(_from_environment())
_register_with_threadpoolctl()
if os.environ.get("SPARSECONV_ISA"):
    try:
        _cpu.use(os.environ["SPARSECONV_ISA"])
    except ValueError as error:
        raise ValueError(f"SPARSECONV_ISA: {error}") from None
