"""The C interface: its header compiles as C and C++, readers refuse what does not fit, Cython is told the same."""

import os
import re
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

import sparseconv as sc

HEADER = Path(sc.get_include(), "sparseconv.h")
TEXT = HEADER.read_text(encoding="utf-8")
CODE = re.sub(r"/\*.*?\*/", "", TEXT, flags=re.DOTALL)
DECLARATIONS = Path(sc.__file__).with_name("__init__.pxd").read_text(encoding="utf-8")


def compiler(kind):
    """The command of a C ("CC") or C++ ("CXX") compiler."""
    command = shlex.split(os.environ.get(kind) or sysconfig.get_config_var(kind) or "")
    command = [word for word in command if not word.startswith("-")]
    if not command or not shutil.which(command[-1]):
        pytest.skip("no compiler")
    return command


@pytest.mark.parametrize(
    "kind, flags", [("CC", "-std=c11"), ("CXX", "-std=c++11 -x c++"), ("CXX", "-std=c++17 -x c++"), ("CC", "-std=c17")]
)
def test_header_compiles(tmp_path, kind, flags):
    source = tmp_path / "uses.c"
    source.write_text('#include "sparseconv.h"\nconst char *text(const sc_api *api) { return sc_api_mismatch(api); }\n')
    command = [*compiler(kind), *flags.split(), "-Wall", "-Wextra", "-pedantic", "-Werror", f"-I{HEADER.parent}"]
    done = subprocess.run([*command, "-c", source, "-o", tmp_path / "uses.o"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


PROGRAM = """
#include <stdio.h>
#include "sparseconv.h"

int main(void) {
    sc_api fakes[5] = {{0}};
    const int64_t sizes[] = {sizeof(sc_api), sizeof(sc_api) + 8, sizeof(sc_api) - 8, sizeof(sc_api), sizeof(sc_api)};
    const int64_t versions[] = {SC_API_VERSION, SC_API_VERSION, SC_API_VERSION, SC_API_VERSION + 1, SC_API_VERSION - 1};
    for (int i = 0; i < 5; ++i) {
        fakes[i].version = versions[i], fakes[i].size = sizes[i];
        const char *text = sc_api_mismatch(&fakes[i]);
        puts(text ? text : "fits");
    }
    puts(sc_api_mismatch(NULL));
    return 0;
}
"""


def test_readers_check_version_and_size(tmp_path):
    """An old program with a new library, and the other way round; more functions at the end are welcome."""
    source = tmp_path / "reader.c"
    source.write_text(PROGRAM)
    command = [*compiler("CC"), "-std=c11", "-Wall", "-Werror", f"-I{HEADER.parent}", source, "-o", tmp_path / "reader"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    equal, longer, shorter, newer, older, none = subprocess.check_output([tmp_path / "reader"], text=True).splitlines()
    assert equal == longer == "fits"
    assert shorter == older and "older than this program needs" in older
    assert "later version" in newer and "compile it again" in newer
    assert none == "sparseconv: got no C interface"


def names_of(lines):
    """The names that these declarations of members end with."""
    found = []
    for line in lines:
        pointer = re.search(r"\(\*(\w+)\)", line)
        found += [pointer[1]] if pointer else re.findall(r"(\w+)\s*(?:,|$)", line)
    return found


STRUCTS = {
    name: names_of(line.strip() for line in re.sub(r"\s+", " ", body).split(";"))
    for body, name in re.findall(r"typedef struct \{(.*?)\} (\w+);", CODE, re.DOTALL)
}


def test_structs_are_found():
    assert {"sc_api", "sc_operands", "sc_view", "sc_topk_task", "sc_nm_task"} <= set(STRUCTS)
    assert STRUCTS["sc_api"][:3] == ["version", "size", "convolutions"]


@pytest.mark.parametrize("name", STRUCTS)
def test_cython_is_told_the_same(name):
    """__init__.pxd has all of sc_api, and of the tasks what others set."""
    match = re.search(rf"ctypedef struct {name}:\n((?:        .*\n)+)", DECLARATIONS)
    if not match:
        assert name in ("sc_interrupt", "sc_topk_count"), "Cython does not know it"
        return
    told, there = names_of(re.sub(r'\w+ "(\w+)"', r"\1", match[1]).splitlines()), STRUCTS[name]
    if name in ("sc_api", "sc_operands", "sc_view"):
        assert told == there
    assert set(told) <= set(there)


def test_capsule():
    """PyCapsule_Import finds it by its name."""
    name = re.search(r'SC_API_CAPSULE "([\w.]+)"', CODE)[1]
    assert name == "sparseconv.C_API"
    assert f'"{name}"' in repr(sc.C_API)
