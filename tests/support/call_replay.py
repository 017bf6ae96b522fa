"""Recorded calls anywhere: call_driver.cpp with kernels that are cross-compiled, or emulated, or sanitized.

The driver needs no Python. So sanitizers see every access, and a CPU can be emulated that has no Python of its own.
"""

import subprocess
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from call_recorder import recording
from places import KERNELS, SUPPORT, setup_constants
from recorded_calls import RECORDINGS

SETUP = setup_constants()
FLAGS = ["-std=c++17", f"-I{KERNELS}", f"-I{SUPPORT}", "-Wall", "-Wextra", "-Werror"]
RUNTIME = ("run", "dispatch", "threads", "openmp_team")
POOLS = {"guarded": "threads", "pool": "guarded_pool"}  # what is run, and which of the two units that leaves out
CHECKS = ("float_state", "dispatch", "masks", "compressed")


def record(folder, *, recordings=RECORDINGS, isa="scalar"):
    """Makes these calls and writes them down in `folder`; the blocking is that of an instruction set."""
    with pytest.MonkeyPatch.context() as monkeypatch, recording(monkeypatch, isa) as recorder:
        for make_calls in recordings:
            make_calls(recorder)
    (folder / "image").write_bytes(recorder.memory)
    np.array(recorder.words, np.int64).tofile(folder / "words")
    return recorder


def build(folder, compiler, isas, *, machine="x86_64", optimisation=None, extra=(), pools=tuple(POOLS), jobs=2):
    """Drivers {pool: path} for kernels of the first of `isas`; those of the others are there to be compared with."""
    tested = isas[0]
    of_driver = [f"-DSC_TESTED={tested}", f"-DSC_ISAS={','.join(isas)}"]
    if machine == "x86_64":  # other tables that dispatch.cpp names are left empty
        of_driver += [f"-DSC_WITHOUT_{isa.upper()}" for isa in ("avx512", "avx2") if isa not in isas]
    units = {KERNELS / f"runtime/{name}.cpp": ["-O3"] for name in RUNTIME}
    units |= {SUPPORT / "guarded_pool.cpp": ["-O3"], SUPPORT / "call_driver.cpp": ["-O1"]}
    for isa in isas:
        flags = [*SETUP["ISA_FLAGS"][machine][isa], *SETUP["KERNEL_ONLY"]]
        units[KERNELS / f"isa/{isa}.cpp"] = [*flags, "-O3" if isa == tested else "-O1"]
    if optimisation:
        units = {unit: [*flags, optimisation] for unit, flags in units.items()}

    def compile_unit(unit):
        to = folder / f"{unit.stem}.o"
        command = [*compiler, *FLAGS, "-DSC_WITHOUT_AMX", *of_driver, *units[unit], *extra, "-c", unit, "-o", to]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return to

    with ThreadPoolExecutor(jobs) as executor:
        objects = list(executor.map(compile_unit, sorted(units, key=lambda unit: unit.parent.name != "isa")))
    drivers = {}
    for pool in pools:
        drivers[pool] = folder / f"driver_{pool}"
        linked = [to for to in objects if to.stem != POOLS[pool]]
        subprocess.run([*compiler, *extra, *linked, "-pthread", "-ldl", "-o", drivers[pool]], check=True)
    return drivers


def build_region_driver(folder, compiler, extra):
    """region_driver.cpp, many short regions of the pool."""
    sources = [SUPPORT / "region_driver.cpp", *(KERNELS / f"runtime/{name}.cpp" for name in ("threads", "openmp_team"))]
    command = [*compiler, *FLAGS, "-O1", *extra, *sources, "-pthread", "-ldl", "-o", folder / "regions"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "regions"


def replay(driver, folder, *, threads=1, callers=1, runner=(), timeout=300, **environment):
    """Replays what `record` wrote; `callers` of them make all calls at the same time."""
    command = [*runner, driver, folder / "image", folder / "words", str(threads), str(callers)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment or None)


def assert_replayed(done, calls):
    """No difference in any bit to the result on this machine, or in the memory around it, and no report."""
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-12000:]
    assert done.stdout.splitlines()[-1] == f"{calls} calls, 0 failures"
