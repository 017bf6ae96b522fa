"""What a type checker says of programs that use the package, and of the stubs of its compiled modules."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import sparseconv as sc

PROGRAMS = Path(__file__).with_name("typed")
COMPILED = ("_conv", "_cpu", "_masks", "_prepared", "_pruning", "_weights")
# What Cython adds to modules and classes, and the constructors that it keeps no signature of.
NOT_IN_STUBS = r"""
sparseconv\..*\.__(pyx_capi|test|reduce_cython|setstate_cython)__
sparseconv\._core\._conv\.Map\.__init__
sparseconv\._core\._conv\.Epilogue\.__init__
sparseconv\._core\._weights\.Lists\.__init__
"""

pytestmark = pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="needs mypy")


def check(tmp_path, *command):
    """Runs a module of mypy's on the package that is imported here, wherever it is; it must find nothing.

    All share what was found out about NumPy.
    """
    # An editable package is found by a hook of the interpreter, of which mypy knows nothing: it gets a path.
    (tmp_path / "sparseconv").symlink_to(Path(sc.__file__).parent, target_is_directory=True)
    environment = os.environ | {"MYPYPATH": str(tmp_path), "MYPY_CACHE_DIR": str(tmp_path.parent / "mypy_cache")}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=tmp_path, env=environment,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("program, needs", [("core", ()), ("frameworks", ("torch", "jax"))])
def test_programs_of_users(tmp_path, program, needs):
    """What is right passes without a cast; a `type: ignore` on what is wrong is an error itself once it is right."""
    for name in needs:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"needs {name}")
    path = PROGRAMS / f"{program}.py"
    assert path.read_text(encoding="utf-8").count("# type: ignore[") > 20
    check(
        tmp_path, "mypy", "--strict", "--allow-untyped-calls", "--follow-imports=silent", "--config-file=", str(path),
    )  # fmt: skip


def test_a_program_with_an_error_is_found(tmp_path):
    """That the check above checks anything: the types are found, and not taken for Any."""
    path = tmp_path / "wrong.py"
    path.write_text("import sparseconv as sc\nsc.cpu.set_num_threads('two')\n", encoding="utf-8")
    with pytest.raises(AssertionError, match=r"wrong\.py:2: error: .*\[arg-type\]"):
        check(tmp_path, "mypy", "--config-file=", str(path))


def test_stubs_of_compiled_modules(tmp_path):
    """They name what the modules have, with the parameters that it has."""
    (tmp_path / "mypy.ini").write_text("[mypy]\nignore_errors = true\nignore_missing_imports = true\n")
    (tmp_path / "names").write_text(NOT_IN_STUBS)
    modules = [f"sparseconv._core.{name}" for name in COMPILED]
    assert {path.stem for path in Path(sc.__file__).parent.rglob("*.pyi")} == set(COMPILED)
    check(
        tmp_path, "mypy.stubtest", *modules, "--mypy-config-file", str(tmp_path / "mypy.ini"),
        "--allowlist", str(tmp_path / "names"), "--ignore-disjoint-bases",
    )  # fmt: skip
