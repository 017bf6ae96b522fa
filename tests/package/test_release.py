"""What is released: the change log knows the version, wheels are for what setup.py knows, Windows hears why not."""

import re
import subprocess
import sys
import tomllib

import pytest
from places import ROOT, setup_constants

import sparseconv as sc

pytestmark = pytest.mark.skipif(not (ROOT / "RELEASING.md").exists(), reason="needs the sources")


def settings():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_change_log_begins_with_this_version():
    first = re.search(r"^## (\S+) \((not released yet|\d{4}-\d\d-\d\d)\)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert first[1] == sc.__version__ == settings()["project"]["version"]


def test_wheels_are_for_the_oldest_python():
    """One wheel for the stable ABI, made by the Python that is required, for the machines that have kernels."""
    wheels, project = settings()["tool"]["cibuildwheel"], settings()["project"]
    oldest = re.fullmatch(r">=3\.(\d+)", project["requires-python"])[1]
    assert wheels["build"] == [f"cp3{oldest}-*"]
    assert f"0x03{int(oldest):02X}0000" in (ROOT / "setup.py").read_text()
    architectures = {"x86_64": "x86_64", "arm64": "aarch64"}
    assert {architectures[one] for one in wheels["macos"]["archs"]} == set(setup_constants()["ISA_FLAGS"])
    for folder in re.findall(r"\{project\}/(\S+?)(?=[\s\"]|$)", wheels["test-command"]):
        assert (ROOT / folder).is_dir(), folder


WINDOWS = """
import runpy, sys
import setuptools, setuptools.command.bdist_wheel, setuptools.command.build_ext, setuptools.errors
import Cython.Build
sys.platform = "win32"
sys.argv = ["setup.py", "--version"]
runpy.run_path("setup.py", run_name="__main__")
"""


def test_windows_hears_why_not():
    """One sentence, and what to do, before any compiler is looked for."""
    pytest.importorskip("Cython")
    pytest.importorskip("setuptools")
    done = subprocess.run([sys.executable, "-c", WINDOWS], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "Windows" in line]
    assert line.startswith("sparseconv does not build on Windows") and "WSL 2" in line
    assert "Traceback" not in done.stderr
