"""Imports that fail say why: a source folder that hides the installed package, wrong environment variables."""

import os
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import sparseconv

PACKAGE = Path(sparseconv.__file__).parent
CORE = PACKAGE / "_core"


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A folder with the package's Python files, such as a clone has."""
    folder = tmp_path_factory.mktemp("clone")
    copied = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__", "kernels", "*.npz")
    shutil.copytree(PACKAGE, folder / "sparseconv", ignore=copied)
    return folder


def python(*arguments, cwd, **environment):
    """Run Python there, without what is installed: exit code, stdout and stderr."""
    command = [sys.executable, "-S", *arguments]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=kept | environment, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_source_folder(sources):
    code, out, errors = python("-c", "import sparseconv", cwd=sources)
    assert (code, out) == (1, "")
    assert "circular" not in errors
    last = errors.splitlines()[-1]
    assert last.startswith(f"ImportError: {sources / 'sparseconv'} is the source folder of sparseconv, without")
    assert "pip install ." in last
    assert f"pip install -e {sources}" in last


@pytest.mark.parametrize("suffix", EXTENSION_SUFFIXES)
def test_source_folder_that_hides_the_package(sources, tmp_path, suffix):
    (tmp_path / "sparseconv" / "_core").mkdir(parents=True)
    (tmp_path / "sparseconv" / "_core" / f"_cpu{suffix}").touch()
    code, _, errors = python("-c", "import sparseconv", cwd=sources, PYTHONPATH=str(tmp_path))
    assert code == 1
    last = errors.splitlines()[-1]
    assert f"It hides the one installed in {tmp_path / 'sparseconv'}: start Python in another folder." in last
    assert "pip install ." not in last


@pytest.mark.parametrize("arguments", [["info"], ["--version"], []])
def test_command_in_the_source_folder(sources, arguments):
    code, out, errors = python("-m", "sparseconv", *arguments, cwd=sources)
    assert (code, out) == (1, "")
    assert errors.startswith(f"sparseconv: error: {sources / 'sparseconv'} is the source folder")
    assert len(errors.splitlines()) == 1


def test_modules_that_do_not_load(sources, tmp_path):
    """They are there, so it is no source folder: Python's own error is the right one."""
    shutil.copytree(sources / "sparseconv", tmp_path / "sparseconv")
    modules = [path.stem for path in CORE.glob("_*.pyx")]
    for name in modules:
        (tmp_path / "sparseconv" / "_core" / f"{name}{EXTENSION_SUFFIXES[0]}").write_bytes(b"no library")
    code, _, errors = python("-c", "import sparseconv", cwd=tmp_path)
    assert code == 1
    assert "source folder" not in errors
    assert f"_cpu{EXTENSION_SUFFIXES[0]}" in errors.splitlines()[-1]


def test_source_folder_that_is_newer_than_its_modules(sources, tmp_path):
    shutil.copytree(sources / "sparseconv", tmp_path / "sparseconv")
    first, *others = sorted(path.stem for path in CORE.glob("_*.pyx") if path.stem != "_cpu")
    for name in ("_cpu", *others):
        (tmp_path / "sparseconv" / "_core" / f"{name}{EXTENSION_SUFFIXES[0]}").write_bytes(b"no library")
    code, _, errors = python("-c", "import sparseconv", cwd=tmp_path)
    assert code == 1
    assert f"without the compiled {first}, newer than the others, for this Python" in errors.splitlines()[-1]


WRONG = {
    "SPARSECONV_ISA": ("foo", "SPARSECONV_ISA: isa: got 'foo', expected one of"),
    "SPARSECONV_NUM_THREADS": ("lots", "SPARSECONV_NUM_THREADS: got 'lots', expected a whole number of at least 1"),
    "SPARSECONV_TUNE": ("no", "SPARSECONV_TUNE: got 'no', expected 0 or 1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_environment(tmp_path, name):
    """One line from the command, an exception for who imports the package."""
    value, message = WRONG[name]
    environment = os.environ | {name: value}
    script = tmp_path / "sparseconv"  # what pip makes of the entry point
    script.write_text("import sys\nfrom sparseconv.__main__ import main\nsys.exit(main())\n")
    for command in (["-m", "sparseconv"], [str(script)]):
        done = subprocess.run(
            [sys.executable, *command, "info"], env=environment, capture_output=True, text=True, cwd=tmp_path
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"sparseconv: error: {message}")
        assert len(done.stderr.splitlines()) == 1
    done = subprocess.run(
        [sys.executable, "-c", "import sparseconv"], env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"ValueError: {message}")
