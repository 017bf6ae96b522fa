"""The AMX kernels without AMX: compiled with emulated tile registers, and called in the place of the real ones.

`emulation()` builds a library of `amx_emulated.cpp`; `Emulation.active()` makes the package plan as on AMX and hands
the tasks with bf16 parts to that library. All else, from the public functions to the C structs, is the package's own.
"""

import contextlib
import ctypes
import os
import platform
import re
import shlex
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from field_records import Map, Mask, View, WeightView, forget_plans

from sparseconv import _conv, _cpu, blocking_tiles, cpu

ROOT = Path(__file__).resolve().parents[1]
KERNELS = ROOT / "sparseconv" / "kernels"
COMPILER = shlex.split(os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "g++")
# The vector kernels that take over, best first: any will do, but tile products are emulated with fused multiply-adds.
VECTOR_ISAS = {
    "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
    "avx2": ["-march=x86-64-v3"],
    "neon": ["-march=armv8-a"],
    "scalar": [],
}
FLAGS = ["-std=c++17", "-fPIC", "-Wall", "-Wextra", "-Wno-maybe-uninitialized", "-Wno-psabi"]
FLAGS += ["-fno-math-errno"]

needs_compiler = pytest.mark.skipif(
    not (KERNELS / "isa_amx.cpp").exists() or not shutil.which(COMPILER[0]),
    reason="needs the sources and a C++ compiler",
)


# --- the C structs, as problem.h declares them ---


def structs():
    """{name: ctypes.Structure} of problem.h, whose fields are numbers, pointers and structs before them."""
    found = {}
    scalars = {
        "int64_t": ctypes.c_int64, "uint32_t": ctypes.c_uint32, "float": ctypes.c_float, "double": ctypes.c_double
    }  # fmt: skip
    text = re.sub(r"//.*", "", (KERNELS / "problem.h").read_text(encoding="utf-8"))
    for body, name in re.findall(r"typedef struct \{(.*?)\} (\w+);", text, re.DOTALL):
        fields = []
        for line in filter(None, map(str.strip, body.replace("\n", " ").split(";"))):
            if "(*" in line:
                fields.append((re.search(r"\(\*(\w+)\)", line)[1], ctypes.c_void_p))
                continue
            kind, names = re.fullmatch(r"(?:const )?(\w+) (.*)", line).groups()
            for one in names.split(","):
                pointer = "*" in one
                fields.append((one.strip(" *"), ctypes.c_void_p if pointer else found.get(kind) or scalars[kind]))
        found[name] = type(name, (ctypes.Structure,), {"_fields_": fields})
    return found


def numbers(values):
    flat = [int(one) for row in values for one in (row if isinstance(row, tuple) else (row,))]
    return (ctypes.c_int64 * (len(flat) + 1))(*flat)


def address(array):
    return None if array is None else array.ctypes.data


class Filler:
    """Fills the C structs from what the classes of `_conv` were told; `kept` holds the tables that they point to."""

    def __init__(self, types):
        self.types, self.kept = types, []

    def table(self, values):
        self.kept.append(numbers(values))
        return ctypes.addressof(self.kept[-1])

    def map(self, made):
        fields = dict(made.fields)
        fields["pass_count"], fields["outer_pass_count"] = len(fields["passes"]), len(fields["outer_passes"])
        for name in ("row_table", "outer_passes", "passes", "taps"):
            fields[name] = self.table(fields[name])
        return self.types["sc_map"](**fields)

    def view(self, made):
        image, rows, column, channel, block = made.fields
        return self.types["sc_view"](None, image, column, channel, block, self.table(rows))

    def mask(self, made):
        if made is None:
            return self.types["sc_mask"]()
        view, kind = made.fields
        return self.types["sc_mask"](view=self.view(view), kind="f?B".index(kind))

    def weight(self, made):
        group, lane, channel, tap, outer_taps, flat = made.fields
        return self.types["sc_weight_view"](None, group, lane, channel, tap, self.table(outer_taps), flat)


# --- the library ---


class Emulation:
    """A built library."""

    def __init__(self, library, vector_isa):
        self.library, self.vector_isa, self.types = library, vector_isa, structs()
        self.threads = 0  # of each call: None as asked for, 0 on one thread with poisoned scratch memory
        self.calls = []  # ("rows" or "gradient", fields) of each call
        for name in ("works", "size", "rows_scratch", "rows_packed", "gradient_scratch"):
            getattr(library, f"emulated_{name}").restype = ctypes.c_int64
        assert library.emulated_size(0) == ctypes.sizeof(self.types["sc_rows_task"])
        assert library.emulated_size(1) == ctypes.sizeof(self.types["sc_gradient_task"])

    def counter(self, name):
        return ctypes.c_int64.in_dll(self.library, f"emulated_{name}").value

    def set(self, name, value):
        ctypes.c_int.in_dll(self.library, f"emulated_{name}").value = value

    def run(self, kind, fields, task, threads):
        self.calls.append((kind, fields))
        function = getattr(self.library, f"emulated_{kind}")
        status = function(ctypes.byref(task), threads if self.threads is None else self.threads)
        assert status != -1, "memory around a scratch buffer was written"
        assert status != 1, "no memory"
        if status == 2:
            raise KeyboardInterrupt
        assert self.counter("users") == 0, "tile registers were not released"

    @contextlib.contextmanager
    def active(self, threads=0, always=True):
        """While it lasts, the package plans as on AMX, and tile kernels run here.

        `always`: they are expected to gain, however few channels or positions there are.
        """
        emulation = self

        class Rows(_conv.Rows):
            def __init__(self, used, source, target, weight, *, needed=None, live=None, **fields):
                super().__init__(used, source, target, weight, needed=needed, live=live, **fields | {"parts": 0})
                fill = self.fill = Filler(emulation.types)
                self.fields = fields
                self.task = emulation.types["sc_rows_task"](
                    map=fill.map(used), out=fill.view(target), needed=fill.mask(needed), weight=fill.weight(weight),
                    **fields,
                )  # fmt: skip
                setattr(self.task, "in", fill.view(source))

            @property
            def scratch_bytes(self):
                if not self.fields["parts"]:
                    return super().scratch_bytes
                task = ctypes.byref(self.task)
                return emulation.library.emulated_rows_packed(task), emulation.library.emulated_rows_scratch(task)

            def run(self, source, weight, bias, target, threads, threshold=0, mask=None, needed=None, live=None):
                if not self.fields["parts"]:
                    return super().run(source, weight, bias, target, threads, threshold, mask, needed, live)
                assert (threshold, mask) == (0, None), "tile kernels know neither"
                task = type(self.task).from_buffer_copy(self.task)
                task.out.data, task.weight.data, task.bias = address(target), address(weight), address(bias)
                task.needed.data = address(needed)
                view = getattr(task, "in")
                view.data = address(source)
                emulation.run("rows", self.fields, task, threads)

        class Gradient(_conv.Gradient):
            def __init__(self, used, a, b, gradient, *, live=None, **fields):
                super().__init__(used, a, b, gradient, live=live, **fields | {"parts": 0})
                fill = self.fill = Filler(emulation.types)
                self.fields = fields
                self.task = emulation.types["sc_gradient_task"](
                    map=fill.map(used), a=fill.view(a), b=fill.view(b), gradient=fill.weight(gradient), **fields
                )

            @property
            def scratch_bytes(self):
                if not self.fields["parts"]:
                    return super().scratch_bytes
                return 0, emulation.library.emulated_gradient_scratch(ctypes.byref(self.task))

            def run(self, a, b, gradient, threads, threshold=0, mask=None, pairs=None, live=None):
                if not self.fields["parts"]:
                    return super().run(a, b, gradient, threads, threshold, mask, pairs, live)
                assert threshold == 0, "tile kernels know none"
                task = type(self.task).from_buffer_copy(self.task)
                task.a.data, task.b.data, task.gradient.data = address(a), address(b), address(gradient)
                task.mask, task.pairs = address(mask), address(pairs)
                emulation.run("gradient", self.fields, task, threads)

        self.threads = threads
        with pytest.MonkeyPatch.context() as patch, cpu.use_isa(self.vector_isa):
            for replacement in (Map, View, Mask, WeightView, Rows, Gradient):
                patch.setattr(_conv, replacement.__name__, replacement)
            patch.setattr(_cpu, "has_tiles", lambda: True)
            if always:
                patch.setattr(blocking_tiles, "GAINS", dict.fromkeys(blocking_tiles.GAINS, (1e6, 1e6, 1e6)))
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
    names = [f"-DSC_ISA=amx_emulated -DSC_VECTOR_ISA={vector_isa}", f'-DSC_SIMD_HEADER="simd_{vector_isa}.h"']
    tiles = [*machine, "-O3", *" ".join(names[:1]).split(), names[1], f"-I{KERNELS}", *more]
    units = {
        ROOT / "tests" / "amx_emulated.cpp": tiles,
        KERNELS / f"isa_{vector_isa}.cpp": [*VECTOR_ISAS[vector_isa], "-O1", "-fno-exceptions", "-fno-rtti"],
        KERNELS / "run.cpp": ["-O1"],
        KERNELS / "threads.cpp": ["-O1"],
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
