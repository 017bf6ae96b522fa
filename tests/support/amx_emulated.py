"""The AMX kernels without AMX: compiled with emulated tile registers, and called in the place of the real ones.

`emulation()` builds a library of `amx_emulated.cpp`; `Emulation.active()` makes the package plan as on AMX and hands
the tasks with bf16 parts to that library. All else, from the public functions to the C structs, is the package's own.
"""

import contextlib
import ctypes
import os
import platform
import shlex
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor

import pytest
import task_structs
from places import KERNELS, SUPPORT
from task_structs import Epilogue, Map, Mask, View, WeightView, forget_plans, structs

from sparseconv import cpu
from sparseconv._core import _conv, _cpu, blocking_tiles

COMPILER = shlex.split(os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "g++")
# The vector kernels that take over, best first: any will do, but tile products are emulated with fused multiply-adds.
VECTOR_ISAS = {
    "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
    "avx2": ["-march=x86-64-v3"],
    "neon": ["-march=armv8-a"],
    "scalar": [],
}
FLAGS = ["-std=c++17", f"-I{KERNELS}", "-fPIC", "-Wall", "-Wextra", "-Wno-maybe-uninitialized", "-Wno-psabi"]
FLAGS += ["-fno-math-errno"]

needs_compiler = pytest.mark.skipif(
    not (KERNELS / "isa/amx.cpp").exists() or not shutil.which(COMPILER[0]),
    reason="needs the sources and a C++ compiler",
)


class Emulation:
    """A built library."""

    def __init__(self, library, vector_isa):
        self.library, self.vector_isa, self.types = library, vector_isa, structs()
        self.calls = []  # ("rows" or "gradient", fields) of each call
        for name in ("works", "size", "summed", "rows_scratch", "rows_packed", "gradient_scratch"):
            getattr(library, f"emulated_{name}").restype = ctypes.c_int64
        assert library.emulated_size(0) == ctypes.sizeof(self.types["sc_rows_task"])
        assert library.emulated_size(1) == ctypes.sizeof(self.types["sc_gradient_task"])

    def tiles(self):
        """Address of the sc_tile_table."""
        self.library.emulated_tiles.restype = ctypes.c_void_p
        return self.library.emulated_tiles()

    def counter(self, name):
        return ctypes.c_int64.in_dll(self.library, f"emulated_{name}").value

    def set(self, name, value):
        ctypes.c_int.in_dll(self.library, f"emulated_{name}").value = value

    def run(self, kind, fields, task, threads):
        self.calls.append((kind, fields))
        function = getattr(self.library, f"emulated_{kind}")
        status = function(ctypes.byref(task), threads)
        if status == 2:
            raise KeyboardInterrupt
        assert status == 0, "memory around a scratch buffer was written"
        assert self.counter("users") == 0, "tile registers were not released"

    @contextlib.contextmanager
    def active(self, always=True):
        """While it lasts, the package plans as on AMX, and tile kernels run here.

        `always`: they are expected to gain, however few channels or positions there are.
        """
        emulation = self

        class Rows(task_structs.Rows):
            @property
            def scratch_bytes(self):
                if not self.fields["parts"]:
                    return super().scratch_bytes
                task = ctypes.byref(self.filled.struct)
                return emulation.library.emulated_rows_packed(task), emulation.library.emulated_rows_scratch(task)

            def run(self, source, weight, bias, target, threads, *more):
                if not self.fields["parts"]:
                    return super().run(source, weight, bias, target, threads, *more)
                told = self.told(source, weight, bias, target, threads, *more)
                assert not (told.struct.threshold or told.struct.epilogue.mask), "tile kernels know neither"
                emulation.run("rows", self.fields, told.struct, threads)

        class Gradient(task_structs.Gradient):
            @property
            def scratch_bytes(self):
                if not self.fields["parts"]:
                    return super().scratch_bytes
                return 0, emulation.library.emulated_gradient_scratch(ctypes.byref(self.filled.struct))

            def run(self, a, b, gradient, threads, *more):
                if not self.fields["parts"]:
                    return super().run(a, b, gradient, threads, *more)
                told = self.told(a, b, gradient, threads, *more)
                assert not told.struct.threshold, "tile kernels know none"
                emulation.run("gradient", self.fields, told.struct, threads)

        with pytest.MonkeyPatch.context() as patch, cpu.use_isa(self.vector_isa):
            for replacement in (Map, View, Mask, WeightView, Epilogue, Rows, Gradient):
                patch.setattr(_conv, replacement.__name__, replacement)
            patch.setattr(_cpu, "has_tiles", lambda: True)
            if always:
                patch.setattr(blocking_tiles, "GAINS", dict.fromkeys(blocking_tiles.GAINS, (1e6, 1e6, 1e6)))
                for packing in ("PACK_CYCLES", "SPLIT_CYCLES"):
                    patch.setattr(blocking_tiles, packing, 0)
            patch.setattr(_cpu, "current", lambda: "amx")
            forget_plans()
            try:
                yield self
            finally:
                forget_plans()


def emulation(folder, *more, vector_isa=None):
    """Builds the library in `folder`; `more` are flags."""
    vector_isa = vector_isa or next(name for name in cpu.available_isas() if name != "amx")
    machine = VECTOR_ISAS[vector_isa]
    if vector_isa == "scalar" and platform.machine().lower() in ("x86_64", "amd64") and "avx2" in cpu.available_isas():
        machine = VECTOR_ISAS["avx2"]  # fused multiply-adds for the emulation
    names = [f"-DSC_ISA=amx_emulated -DSC_VECTOR_ISA={vector_isa}", f'-DSC_SIMD_HEADER="simd/{vector_isa}.h"']
    tiles = [*machine, "-O3", *" ".join(names[:1]).split(), names[1], *more]
    units = {
        SUPPORT / "amx_emulated.cpp": tiles,
        KERNELS / f"isa/{vector_isa}.cpp": [*VECTOR_ISAS[vector_isa], "-O1", "-fno-exceptions", "-fno-rtti"],
        KERNELS / "runtime/run.cpp": ["-O1"],
        SUPPORT / "guarded_pool.cpp": ["-O1"],
    }

    def build(unit):
        to = folder / f"{unit.stem}.o"
        done = subprocess.run(
            [*COMPILER, *FLAGS, *units[unit], "-c", str(unit), "-o", str(to)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert "warning" not in done.stderr, done.stderr
        return str(to)

    with ThreadPoolExecutor(2) as executor:
        objects = list(executor.map(build, units))
    library = folder / "libamx_emulated.so"
    subprocess.run([*COMPILER, "-shared", *objects, "-lpthread", "-o", str(library)], check=True)
    return Emulation(ctypes.CDLL(str(library)), vector_isa)
