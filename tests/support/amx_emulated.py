"""The AMX kernels without AMX: compiled with emulated tile registers, and called in the place of the real ones.

`emulation()` builds a library of `amx_emulated.cpp`; `Emulation.active()` makes the package plan as on AMX and hands
the tasks of tile kernels to that library. All else, from the public functions to the C structs, is the package's own.
"""

import contextlib
import ctypes
import shutil
import subprocess

import compiled
import pytest
import task_structs
from places import KERNELS, SUPPORT
from task_structs import Epilogue, Map, Mask, View, WeightView, forget_plans, structs

from sparseconv import cpu
from sparseconv._core import _conv, _cpu, amx

FLAGS = ["-std=c++17", f"-I{KERNELS}", "-fPIC", "-Wall", "-Wextra", "-Wno-maybe-uninitialized", "-Wno-psabi"]
FLAGS += ["-fno-math-errno"]

needs_compiler = pytest.mark.skipif(
    not (KERNELS / "isa/amx.cpp").exists() or not shutil.which(compiled.COMPILER[0]),
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

    def tiles(self, fp16=False):
        """Address of the sc_tile_table."""
        self.set("fp16", fp16)
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
    def active(self, always=True, fp16=False):
        """While it lasts, the package plans as on AMX, and tile kernels run here.

        `always`: they are expected to gain, however few channels or positions there are. `fp16`: with AMX-FP16.
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
                assert not told.struct.threshold, "tile kernels know none"
                emulation.run("rows", self.fields, told.struct, threads)

        class Gradient(task_structs.Gradient):
            @property
            def scratch_bytes(self):
                if not self.fields["parts"]:
                    return super().scratch_bytes
                return 0, emulation.library.emulated_gradient_scratch(ctypes.byref(self.filled.struct))

            def run(self, a, b, bias, gradient, threads, *more):
                if not self.fields["parts"]:
                    return super().run(a, b, bias, gradient, threads, *more)
                told = self.told(a, b, bias, gradient, threads, *more)
                assert not told.struct.threshold, "tile kernels know none"
                emulation.run("gradient", self.fields, told.struct, threads)

        with pytest.MonkeyPatch.context() as patch, cpu.use_isa(self.vector_isa):
            for replacement in (Map, View, Mask, WeightView, Epilogue, Rows, Gradient):
                patch.setattr(_conv, replacement.__name__, replacement)
            patch.setattr(_cpu, "has_tiles", lambda: True)
            patch.setattr(_cpu, "has_fp16_tiles", lambda: fp16)
            self.set("fp16", fp16)
            if always:
                for gains in ("GAINS", "FP16_GAINS"):
                    patch.setattr(amx, gains, dict.fromkeys(getattr(amx, gains), amx.Gains(1e6, 1e6, 1e6, 1e6)))
                for packing in ("PACK_CYCLES", "SPLIT_CYCLES"):
                    patch.setattr(amx, packing, 0)
            patch.setattr(_cpu, "current", lambda: "amx_fp16" if fp16 else "amx")
            forget_plans()
            try:
                yield self
            finally:
                self.set("fp16", False)
                forget_plans()


def emulation(folder, *more, vector_isa=None):
    """Builds the library in `folder`; `more` are flags."""
    vector_isa = vector_isa or next(name for name in cpu.available_isas() if not name.startswith("amx"))
    flags, vectors = compiled.isa_flags(), compiled.kernel_units([vector_isa], ["run"])
    if vector_isa == "scalar":  # -O3 takes long
        vectors[KERNELS / "isa/scalar.cpp"].append("-O1")
    fused = "avx2" if vector_isa == "scalar" and "avx2" in cpu.available_isas() else vector_isa  # for the emulation
    tiles = [*FLAGS, *flags[fused], "-O3", "-DSC_ISA=amx_emulated", f"-DSC_VECTOR_ISA={vector_isa}"]
    tiles += [f'-DSC_SIMD_HEADER="simd/{vector_isa}.h"', *more]
    units = {SUPPORT / "amx_emulated.cpp": tiles, **vectors, SUPPORT / "guarded_pool.cpp": [*FLAGS, "-O1"]}
    library = folder / "libamx_emulated.so"
    linked = map(str, compiled.objects(units))
    subprocess.run([*compiled.COMPILER, "-shared", *linked, "-lpthread", "-o", str(library)], check=True)
    return Emulation(ctypes.CDLL(str(library)), vector_isa)
