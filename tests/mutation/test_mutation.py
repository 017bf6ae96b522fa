"""That faults are put into kernels and found: the short form of ``python tests/mutation``."""

import platform
import shutil
import sys

import compiled
import pytest
from classic import CLASSIC
from equivalent import EQUIVALENT
from faulty import ISA, Builder, verdict
from mutants import FOLDERS, Mutant, changes, generated
from places import KERNELS

from sparseconv import cpu

pytestmark = pytest.mark.skipif(not (KERNELS / "isa/scalar.cpp").exists(), reason="needs the sources")


def test_what_the_rules_make():
    lines = {new.strip() for _, new in changes("    if (i < n) sum = keep(sum, bits);")}
    assert {
        "if (i <= n) sum = keep(sum, bits);", "if (true) sum = keep(sum, bits);", "if (i < n) sum = sum;", ";",
        "if (!(i < n)) sum = keep(sum, bits);",
    } == lines - {"if (false) sum = keep(sum, bits);"}  # fmt: skip
    assert {new for _, new in changes("    a = 16;  // of i < n")} == {
        "    a = 17;  // of i < n", "    a = 15;  // of i < n", "    ;// of i < n",
    }  # fmt: skip
    assert ("statement dropped", "    ;") in set(changes("    to += step;"))
    assert not [rule for rule, _ in changes("    const int step = first;") if rule == "statement dropped"]


def test_mutants_are_of_all_families_and_the_same_again():
    chosen = generated(180, 5)
    assert chosen == generated(180, 5) != generated(180, 6)
    assert {one.file.split("/")[0] for one in chosen} == set(FOLDERS)
    assert len({one.rule for one in chosen}) >= 6
    one = chosen[0]
    before, after = (KERNELS / one.file).read_text(encoding="utf-8").split("\n"), one.source().split("\n")
    assert [i for i, pair in enumerate(zip(before, after, strict=True), 1) if pair[0] != pair[1]] == [one.line]


def test_lists():
    """Bugs that were written by hand are about lines that are there, and so are mutants that change nothing."""
    assert len(CLASSIC) >= 25
    for bug in CLASSIC:
        ((file, text),) = bug.headers().items()
        assert text != (KERNELS / file).read_text(encoding="utf-8")
    every = {
        Mutant(name, number, line, new, rule).key
        for name in {file for file, _, _ in EQUIVALENT}
        for number, line in enumerate((KERNELS / name).read_text(encoding="utf-8").split("\n"), 1)
        for rule, new in changes(line)
    }
    assert EQUIVALENT.keys() <= every


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64" or ISA not in cpu.available_isas(), reason="needs AVX2"
)
@pytest.mark.skipif(not shutil.which(compiled.COMPILER[0]), reason="needs a C++ compiler")
def test_a_fault_is_found(tmp_path):
    builder = Builder(tmp_path, optimised=True)
    assert verdict(builder, 0, {}, "", 60) == ("survived", "")
    bug = next(one for one in CLASSIC if one.name == "bias twice")
    what, how = verdict(builder, 1, bug.headers(), "", 60)
    assert what == "killed" and "random call" in how
    assert verdict(builder, 2, {bug.file: "this is no C++"}, "", 60) == ("not compiled", "")
