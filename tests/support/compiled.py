"""Object files of C++ sources. Each is compiled once in a session, however many tests need it."""

import atexit
import os
import platform
import shlex
import subprocess
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from places import KERNELS, setup_constants

COMPILER = shlex.split(os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "g++")
_kept = {}  # (source, flags): object file


def objects(units):
    """The object files of sources with their flags, in the same order. Two compilers run at a time; none may warn."""
    asked = [(Path(source), tuple(flags)) for source, flags in units.items()]
    missing = [one for one in asked if one not in _kept]
    if missing and not _kept:
        folder = tempfile.TemporaryDirectory()
        atexit.register(folder.cleanup)
        _kept[None] = Path(folder.name)

    def build(one):
        source, flags = one
        to = _kept[None] / f"{len(_kept) + missing.index(one)}-{source.stem}.o"
        command = [*COMPILER, *flags, "-c", str(source), "-o", str(to)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "warning" not in done.stderr, done.stderr
        return to

    with ThreadPoolExecutor(2) as executor:
        paths = list(executor.map(build, missing))
    _kept.update(zip(missing, paths, strict=True))
    return [_kept[one] for one in asked]


def isa_flags():
    """The flags of each instruction set of this machine's family, as setup.py has them."""
    known, machine = setup_constants(), platform.machine().lower()
    return known["ISA_FLAGS"].get(known["MACHINES"].get(machine, machine), {"scalar": []})


def kernel_units(isas, runtime=()):
    """The sources of instruction sets and of the runtime, with the flags of setup.py."""
    known, flags = setup_constants(), isa_flags()
    common = [*known["COMMON"], f"-I{KERNELS}", "-fPIC", "-DNDEBUG"]
    units = {KERNELS / f"isa/{name}.cpp": [*common, *flags[name], *known["KERNEL_ONLY"]] for name in isas}
    return units | {KERNELS / f"runtime/{name}.cpp": common for name in runtime}
