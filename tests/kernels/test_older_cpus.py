"""The installed library on x86 CPUs that have less than this one: they are emulated by QEMU, with Python and NumPy.

An instruction that the emulated CPU lacks ends the process with SIGILL. The emulator itself must do so, or the tests
would prove nothing: that is tested as well.
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from numpy._core._multiarray_umath import __cpu_dispatch__ as DISPATCHED_BY_NUMPY
from places import SUPPORT

import sparseconv as sc

EMULATOR = "qemu-x86_64"
MODELS = {"Haswell": ["avx2", "scalar"], "SandyBridge": ["scalar"], "Nehalem": ["scalar"]}
PROGRAM = SUPPORT / "kernels_here.py"

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64", reason="emulates x86-64 Linux"),
    pytest.mark.skipif(not shutil.which(EMULATOR), reason=f"needs {EMULATOR} (Debian: qemu-user)"),
]


def run(arguments, *, runner=(), **environment):
    """What Python prints, on an emulated CPU where `runner` says so."""
    paths = [str(Path(sc.__file__).parents[1]), *filter(None, sys.path)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SPARSECONV_", "OPENBLAS_"))}
    # OpenBLAS is told a kernel that every model has: a setting for the real CPU would be an illegal instruction.
    clean |= {"PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_CORETYPE": "Nehalem", "OPENBLAS_NUM_THREADS": "1"}
    # NumPy's own AVX2 code is not what is tested, and its argsort goes wrong on a Haswell of QEMU 7.2.
    clean["NPY_DISABLE_CPU_FEATURES"] = " ".join(DISPATCHED_BY_NUMPY)
    python = os.path.realpath(sys.executable)
    command = [*runner, python, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=clean | environment, timeout=280)


@pytest.fixture(scope="module")
def digests():
    """Of results that have no oracle, as this CPU's best instruction set has them."""
    done = run([PROGRAM])
    assert done.returncode == 0, done.stderr
    return digests_of(done.stdout)[0]


def digests_of(printed):
    return [line.split()[2:] for line in printed.splitlines()[1:]]


@pytest.mark.parametrize("model", MODELS)
def test_older_cpu(model, digests):
    """Its instruction sets, and all kernels on each of them."""
    if not set(MODELS[model]) <= set(sc.cpu.available_isas()):
        pytest.skip("this build has fewer instruction sets")
    done = run([PROGRAM], runner=(EMULATOR, "-cpu", model))
    assert done.returncode == 0, done.stdout + done.stderr
    available, *results = done.stdout.splitlines()
    assert available.split() == MODELS[model]
    assert [line.split()[0] for line in results] == MODELS[model]
    assert all(int(line.split()[1]) > 200 for line in results)
    for found in digests_of(done.stdout):
        assert found == digests


@pytest.mark.parametrize("model, missing", [("Nehalem", "avx2"), ("Haswell", "avx512")])
def test_missing_instruction_set(model, missing):
    """Asking for what the CPU lacks is an error in words."""
    done = run(["-c", "import sparseconv"], runner=(EMULATOR, "-cpu", model), SPARSECONV_ISA=missing)
    assert done.returncode == 1
    assert "SPARSECONV_ISA" in done.stderr.splitlines()[-1] and missing in done.stderr.splitlines()[-1]


ILLEGAL = r"""
int main(void) {
    __asm__ volatile("vpaddd %ymm0, %ymm1, %ymm2");
    return 0;
}
"""


@pytest.mark.parametrize("model, code", [("Haswell", 0), ("SandyBridge", -4), ("Nehalem", -4)])
def test_emulator_refuses(tmp_path, model, code):
    """An AVX2 instruction ends a program on a CPU that has none: this emulator can find what these tests look for."""
    compiler = shutil.which("gcc")
    if not compiler:
        pytest.skip("needs gcc")
    (tmp_path / "illegal.c").write_text(ILLEGAL)
    subprocess.run([compiler, tmp_path / "illegal.c", "-o", tmp_path / "illegal"], check=True)
    done = subprocess.run([EMULATOR, "-cpu", model, tmp_path / "illegal"], capture_output=True)
    assert done.returncode == code, done.stderr
