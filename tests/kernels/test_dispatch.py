"""The instruction set which is asked for is the one which runs, or there is an error that names it."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from simulated import HAS_AMX, SIMULATED_AMX, WANTED

from sparseconv import cpu
from sparseconv._core import _cpu

NAMES = ("amx_fp16", "amx", "avx512", "avx2", "neon", "scalar")
X86 = platform.machine().lower() in ("x86_64", "amd64")
ARM = platform.machine().lower() in ("aarch64", "arm64")
# Of child processes.
REAL_ISAS = [name for name in cpu.available_isas() if not name.startswith("amx") or not SIMULATED_AMX]
# What the kernels of a name may use, in the words of Linux.
FLAGS = {"avx512": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}, "avx2": {"avx2", "bmi1", "bmi2", "fma"}}


def run(code, **environment):
    """Run Python in a new process, with only these settings of the package."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SPARSECONV_")}
    return subprocess.run([sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True)


def test_fixture(isa):
    assert cpu.isa() == isa


def test_names():
    available = cpu.available_isas()
    assert isinstance(available, list)
    assert set(available) <= set(NAMES)
    assert len(set(available)) == len(available)
    assert cpu.isa() in available
    assert "scalar" in available


def test_compiled_set():
    """No instruction set of this machine is missing, and none is offered which it lacks."""
    if X86:
        info = Path("/proc/cpuinfo")
        if not info.exists():
            pytest.skip("no list of CPU flags")
        flags = set(info.read_text().partition("flags")[2].partition("\n")[0].split())
        expected = {"scalar"} | {name for name, needed in FLAGS.items() if needed <= flags}
    elif ARM:
        expected = {"scalar", "neon"}
    else:
        expected = {"scalar"}
    tiles = [name for name in cpu.available_isas() if name.startswith("amx")]
    assert set(cpu.available_isas()) - set(tiles) == expected
    if tiles:  # Linux does not show the flag of AMX-FP16
        assert cpu.available_isas()[: len(tiles)] == tiles
        assert SIMULATED_AMX or {"amx_tile", "amx_bf16"} <= flags
        assert SIMULATED_AMX or tiles in (["amx"], ["amx_fp16", "amx"])


def test_first_cache():
    """What a CPU tells of itself is what Linux has found on one of its cores. Some tell nothing."""
    if WANTED:
        pytest.skip("the first cache is another CPU's")
    found = set()
    for folder in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cache/index*"):
        level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        if (level, kind) == ("1", "Data"):
            found.add(1024 * int(size.removesuffix("K")))
    told = _cpu.l1_bytes()
    assert told in {0, *found} or not found
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if X86 and found and (_cpu.vendor() == "intel" or (_cpu.vendor() == "amd" and "topoext" in flags)):
        assert told in found


@pytest.mark.skipif(not X86 or "amx" not in _cpu.compiled(), reason="the compiler cannot make it, or another machine")
@pytest.mark.parametrize("name", ["amx", "amx_fp16"])
def test_amx_may_be_missing(name):
    """A CPU, a system or a container without AMX is no error until it is asked for."""
    assert {"amx", "amx_fp16"} <= set(_cpu.compiled()[:3])
    if HAS_AMX:
        return
    assert _cpu.has_tiles() == SIMULATED_AMX
    done = run("import sparseconv", SPARSECONV_ISA=name)
    assert done.returncode != 0
    assert f"SPARSECONV_ISA: isa: got {name!r}, expected one of" in done.stderr


@pytest.mark.skipif(not HAS_AMX, reason="no AMX here")
def test_amx_fp16_by_name():
    """Where its product works it can be asked for, whether the CPU tells of it or not; it is listed if it tells."""
    code = "import sparseconv as sc; print(sc.cpu.isa(), *sc.cpu.available_isas())"
    done = run(code, SPARSECONV_ISA="amx_fp16")
    if done.returncode:
        assert "got 'amx_fp16', expected one of" in done.stderr
        assert "amx_fp16" not in cpu.available_isas()
    else:
        assert done.stdout.split() == ["amx_fp16", *cpu.available_isas()]


def test_use_as_a_context():
    before = cpu.isa()
    for name in cpu.available_isas():
        with cpu.use_isa(name):
            assert cpu.isa() == name
            for inner in cpu.available_isas():
                with cpu.use_isa(inner):
                    assert cpu.isa() == inner
                assert cpu.isa() == name
        assert cpu.isa() == before


def test_context_ends_with_an_exception():
    before = cpu.isa()
    with pytest.raises(KeyError), cpu.use_isa("scalar"):
        raise KeyError
    assert cpu.isa() == before


def test_use_as_a_call():
    before = cpu.isa()
    try:
        for name in cpu.available_isas():
            cpu.use_isa(name)
            assert cpu.isa() == name
    finally:
        cpu.use_isa(before)
    assert cpu.isa() == before


def test_simulated_tiles_are_for_cpus_without():
    """Nothing takes the place of what is there."""
    if not _cpu.has_tiles():
        pytest.skip("no tile registers, real or simulated")
    before = cpu.available_isas()
    with pytest.raises(ValueError, match=r"^tiles: this machine has"):
        _cpu.simulate_tiles(1)
    assert cpu.available_isas() == before


@pytest.mark.parametrize("name", REAL_ISAS)
def test_environment(name):
    done = run("from sparseconv import cpu; print(cpu.isa())", SPARSECONV_ISA=name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [name]


def test_default_is_the_same_in_every_process():
    done = run("from sparseconv import cpu; print(cpu.isa(), *cpu.available_isas())")
    chosen, *available = done.stdout.split()
    assert available == REAL_ISAS
    assert chosen in available
    if len(available) > 1:
        assert chosen != "scalar"


@pytest.mark.parametrize("name", ["sse9", "", "AVX-512", "scalar "])
def test_unknown_name(name):
    before = cpu.isa()
    with pytest.raises(ValueError, match=f"(?s){name!r}.*scalar"):
        cpu.use_isa(name)
    assert cpu.isa() == before


@pytest.mark.parametrize("name", sorted({"amx", "amx_fp16", "avx512", "avx2", "neon"} - set(cpu.available_isas())))
def test_unsupported_name(name):
    with pytest.raises(ValueError, match=name):
        cpu.use_isa(name)


@pytest.mark.parametrize("name", ["sse9", "neon" if X86 else "avx2"])
def test_unknown_or_unsupported_name_in_the_environment(name):
    done = run("from sparseconv import cpu; print(cpu.isa())", SPARSECONV_ISA=name)
    assert done.returncode != 0
    assert "ValueError" in done.stderr
    assert name in done.stderr
