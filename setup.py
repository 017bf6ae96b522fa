"""Build: each kernels/isa/<name>.cpp gets the flags of its instruction set and nothing else does.

Everything that is not a list of files lives in pyproject.toml.
"""

import logging
import os
import platform
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

# Adding an instruction set: a row here, one in kernels/runtime/dispatch.cpp, files in kernels/simd/ and kernels/isa/.
# -O2 where simd/scalar.h spells vectors out: -O3 adds 190 KB, compiles half as long again, and runs as fast within 2%.
ISA_FLAGS = {
    "x86_64": {
        "amx": ["-march=x86-64-v4", "-mprefer-vector-width=512", "-mamx-tile", "-mamx-bf16"],
        "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
        "avx2": ["-march=x86-64-v3"],
        "scalar": ["-O2"],
    },
    "aarch64": {"neon": ["-march=armv8-a"], "scalar": ["-O2"]},
}
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
KERNELS = "sparseconv/kernels"
MODULES = ["_conv", "_weights", "_masks", "_pruning", "_prepared"]  # beside _cpu, which has the kernels
# Left out where the compiler or its assembler is too old: a line that it must accept, and a macro that tells
# kernels/runtime/dispatch.cpp.
OPTIONAL = {"amx": ('void f() { asm("tdpbf16ps %tmm0, %tmm1, %tmm2"); }', "SC_WITHOUT_AMX")}
COMMON = ["-std=c++17", "-O3", "-fvisibility=hidden", "-Wall", "-Wextra"]
# -Wmaybe-uninitialized: false alarms in GCC 12's own AVX-512 header.
KERNEL_ONLY = ["-fno-exceptions", "-fno-rtti", "-fno-math-errno"]
KERNEL_ONLY += ["-Wno-maybe-uninitialized", "-Wno-unknown-warning-option"]

# Stripped, and exporting nothing but the module's entry and the two names that threadpoolctl looks for: a weak std::
# symbol of ours cannot take the place of another library's.
# dlopen is in a library of its own before glibc 2.34.
LINK = ["-Wl,-s", "-Wl,--version-script=sparseconv/kernels/runtime/exports.map", "-ldl"]

if sys.platform == "win32":
    raise SystemExit(
        "sparseconv does not build on Windows, neither with MSVC nor with clang-cl: its threads need pthread_atfork, "
        "and its kernels builtins of GCC and clang. Use it under WSL 2 (wsl --install), where the Linux version runs."
    )

target = sysconfig.get_platform().rsplit("-", 1)[-1].lower() if sys.platform == "darwin" else platform.machine().lower()
isa_flags = ISA_FLAGS.get(MACHINES.get(target, target), {"scalar": ["-O2"]})
free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
limited = [] if free_threaded else [("Py_LIMITED_API", "0x030B0000")]


class BuildExt(build_ext):
    """Adds an instruction set's flags to its own translation unit, and compiles the units side by side."""

    def build_extensions(self):
        for name in OPTIONAL.keys() & isa_flags.keys():
            if not self.accepts(name):
                self.leave_out(name)
        compile_one, link = self.compiler._compile, self.compiler.link_shared_object
        pool, running = ThreadPoolExecutor(os.cpu_count()), []

        def with_flags(obj, src, ext, cc_args, extra_postargs, pp_opts):
            name = Path(src).stem if Path(src).parent.name == "isa" else None
            extra = isa_flags[name] + KERNEL_ONLY if name else []
            running.append(pool.submit(compile_one, obj, src, ext, cc_args, [*extra_postargs, *extra], pp_opts))

        def link_when_compiled(*args, **keywords):
            while running:
                running.pop().result()
            link(*args, **keywords)

        self.compiler._compile, self.compiler.link_shared_object = with_flags, link_when_compiled
        super().build_extensions()

    def accepts(self, name):
        """Whether the compiler knows the flags and the assembler the instructions of an instruction set."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, f"probe_{name}.cpp")
            source.write_text(OPTIONAL[name][0], encoding="ascii")
            try:
                self.compiler.compile([str(source)], output_dir=folder, extra_postargs=isa_flags[name])
            except CompileError:
                return False
        return True

    def leave_out(self, name):
        self.announce(f"the compiler cannot make instruction set {name}: built without it", level=logging.WARNING)
        for one in self.extensions:
            one.sources = [source for source in one.sources if not source.endswith(f"isa/{name}.cpp")]
            one.define_macros = [*one.define_macros, (OPTIONAL[name][1], None)]


class Wheel(bdist_wheel):
    """One wheel for all Pythons from 3.11 on, except free-threaded ones."""

    def finalize_options(self):
        if not free_threaded:
            self.py_limited_api = "cp311"
        super().finalize_options()


headers = ["sparseconv/include/sparseconv.h", *glob(f"{KERNELS}/*/*.h")]


def extension(name, *sources):
    return Extension(
        f"sparseconv._core.{name}",
        [f"sparseconv/_core/{name}.pyx", *sources],
        language="c++",
        include_dirs=["sparseconv", "sparseconv/include", KERNELS],
        define_macros=limited,
        py_limited_api=not free_threaded,
        extra_compile_args=COMMON,
        extra_link_args=LINK if sys.platform == "linux" else [],
        depends=[*glob("sparseconv/**/*.pxd", recursive=True), f"{KERNELS}/runtime/exports.map", *headers],
    )


units = [*sorted(glob(f"{KERNELS}/runtime/*.cpp")), *(f"{KERNELS}/isa/{isa}.cpp" for isa in isa_flags)]
setup(
    cmdclass={"build_ext": BuildExt, "bdist_wheel": Wheel},
    ext_modules=cythonize(
        [extension("_cpu", *units), *map(extension, MODULES)],
        build_dir="build/cython",
    ),
)
