"""The extension module `_cpu` with a fault in the kernels of one instruction set; all else of it is compiled once.

Without optimisation, and with Clang where there is one: 2 s of compiling, GCC takes 3, and 17 with -O3 (AVX2, Zen 5).
Wrong code stays wrong.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import compiled
from places import KERNELS, ROOT, SUPPORT, setup_constants

ISA = "avx2"
QUICK = ["-O0", "-w"]
QUICK_SUITE = Path(__file__).with_name("quick.py")
IDLE, LONG = 300, 900  # seconds of computing nothing, and of computing, after which a process counts as hanging
COMPILER = ["clang++"] if shutil.which("clang++") else compiled.COMPILER
# A mutant that leaves an array of known size, or shifts too far, ends at once; as it happens it might change nothing.
TRAPS = ["-fsanitize=bounds,shift"]
TRAPS += ["-fsanitize-trap=all"] if COMPILER == ["clang++"] else ["-fsanitize-undefined-trap-on-error"]


class Builder:
    """Compiles mutants in a folder; all else is `optimised` where other tests of the session have compiled it so."""

    def __init__(self, folder, optimised=False):
        self.folder, known = Path(folder), setup_constants()
        self.flags = compiled.kernel_units([ISA])[KERNELS / f"isa/{ISA}.cpp"]
        runtime = sorted(path.stem for path in (KERNELS / "runtime").glob("*.cpp"))
        others = [name for name in compiled.isa_flags() if name != ISA and (name != "amx" or optimised)]
        units = compiled.kernel_units(others, runtime)
        for source, flags in units.items():
            more = ["-include", str(SUPPORT / "trapped_scratch.h")] if source.stem == "threads" else []
            if not optimised:
                more += [*QUICK, "-DSC_WITHOUT_AMX"]
            elif source.stem == "scalar":
                more.append("-O0")
            units[source] = [*flags, *more]
        include = [f"-I{ROOT / 'sparseconv'}", f"-I{ROOT / 'sparseconv/include'}", f"-I{sysconfig.get_path('include')}"]
        limited = ["-DPy_LIMITED_API=0x030B0000"]
        units[self._module()] = [*known["COMMON"], f"-I{KERNELS}", *include, *limited, "-fPIC", *QUICK]
        self.objects = [str(one) for one in compiled.objects(units)]

    def _module(self):
        """Cython's output for `_cpu`: that of the last build, or a new one."""
        made = ROOT / "build/cython/sparseconv/_core/_cpu.cpp"
        source = ROOT / "sparseconv/_core/_cpu.pyx"
        if made.exists() and made.stat().st_mtime >= source.stat().st_mtime:
            return made
        made = self.folder / "_cpu.cpp"
        command = [sys.executable, "-m", "cython", "--cplus", "-3", "-I", str(ROOT), str(source), "-o", str(made)]
        subprocess.run(command, check=True)
        return made

    def extension(self, name, headers=None):
        """The module with these headers (path below kernels/: text) in the place of the real ones.

        None if the compiler refuses them.
        """
        folder = self.folder / name
        for file, text in (headers or {}).items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text, encoding="utf-8")
        folder.mkdir(exist_ok=True)
        unit, module = folder / "unit.o", folder / "_cpu.abi3.so"
        source = KERNELS / f"isa/{ISA}.cpp"
        command = [*COMPILER, f"-I{folder}", *self.flags, *QUICK, *TRAPS, "-c", str(source), "-o", str(unit)]
        done = finished(command)
        if done is None or done.returncode:  # None: a constant that the compiler never finds
            return None
        linked = [*compiled.COMPILER, "-shared", *self.objects, str(unit), "-pthread", "-ldl", "-o", str(module)]
        subprocess.run(linked, check=True, capture_output=True)
        unit.unlink()
        return module


def computed(process):
    """(seconds of a process and of the children that it waited for, whether it is stopped)."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK"), fields[0] in "Tt"


def finished(command):
    """The command, run to its end; None if it hangs. Being stopped is no hanging, however long it takes."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace")
    idle, before = 0, 0
    while True:
        try:
            out, err = process.communicate(timeout=1)
            return subprocess.CompletedProcess(command, process.returncode, out, err)
        except subprocess.TimeoutExpired:
            seconds, stopped = computed(process)
        idle = idle + 1 if seconds == before and not stopped else 0  # looks, not time: this process may be stopped, too
        before = seconds
        if idle >= IDLE or seconds >= LONG:
            process.kill()
            process.communicate()
            return None


def verdict(builder, number, headers, folder, calls=""):
    """("killed", by what), ("survived", "") or ("not compiled", ""); `folder` is "" for random calls alone."""
    module = builder.extension(f"mutant{number}", headers)
    if module is None:
        return "not compiled", ""
    command = [sys.executable, str(QUICK_SUITE), str(module), folder, str(calls)]
    try:
        done = finished(command)
    finally:
        module.unlink()
    if done is None:
        return "killed", "it hangs"
    if not done.returncode:
        return "survived", ""
    lines = (done.stdout.strip() or done.stderr.strip() or "no words").splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return "killed", f"exit {done.returncode}: {(failed or lines)[-1][:160]}"


class _Finder:
    """Finds `sparseconv._core._cpu` at another place."""

    def __init__(self, path):
        self.path = path

    def find_spec(self, name, path=None, target=None):
        if name == "sparseconv._core._cpu":
            return importlib.util.spec_from_file_location(name, self.path)
        return None


def install(path):
    """Lets this process import the module at `path` as `_cpu`; before the package is imported."""
    assert "sparseconv" not in sys.modules
    os.environ["SPARSECONV_ISA"] = ISA
    sys.meta_path.insert(0, _Finder(path))
