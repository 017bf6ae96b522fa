"""What `sparseconv info` says of a computer, on computers that are made up of files."""

import sys

import pytest

from sparseconv._core import machine

CPUINFO = {
    "x86": ("processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\n\nmodel name\t: Other\n", "Some CPU @ 3 GHz"),
    "board": ("processor : 0\nCPU implementer : 0x41\n\nModel : A Board 5\n", "A Board 5"),
    "arm": ("CPU implementer : 0x41\nCPU part : 0xd40\n", "CPU implementer 0x41 CPU part 0xd40"),
}  # fmt: skip


SIGNATURES = {
    "processor: 0\nvendor_id : V\ncpu family\t: 25\nmodel : 17\nmodel name : C\nflags : a\n\nmodel : 2\n":
        "V, 25, 17, C",
    "processor: 0\nBogoMIPS : 50\nCPU implementer : 0x41\nCPU part : 0xd40\n\nCPU part : 0\n": "0x41, 0xd40",
}  # fmt: skip


@pytest.mark.skipif(sys.platform == "darwin", reason="asks sysctl")
@pytest.mark.parametrize("text", SIGNATURES)
def test_signature(monkeypatch, tmp_path, text):
    """Of the first CPU alone."""
    (tmp_path / "cpuinfo").write_text(text + 300 * text)
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    assert machine.cpu_signature() == SIGNATURES[text]
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "missing")
    assert machine.cpu_signature() == machine.platform.machine()


@pytest.mark.skipif(sys.platform == "darwin", reason="asks sysctl")
@pytest.mark.parametrize("kind", CPUINFO)
def test_cpu_model(monkeypatch, kind):
    text, expected = CPUINFO[kind]
    monkeypatch.setattr(machine, "_text", lambda path: text)
    assert machine.cpu_model() == expected


def test_cpu_without_a_name(monkeypatch):
    monkeypatch.setattr(machine, "_text", lambda path: "")
    assert machine.cpu_model()


def made(folder, **files):
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(f"{text}\n")


@pytest.fixture
def cpus(tmp_path, monkeypatch):
    """Four logical CPUs on two cores, with three caches."""
    for at, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        made(tmp_path / f"cpu{at}" / "topology", thread_siblings_list=siblings)
    caches = (("1", "Data", "48K"), ("1", "Instruction", "32K"), ("2", "Unified", "2048K"), ("3", "Unified", "32768K"))
    for at, (level, kind, size) in enumerate(caches):
        made(tmp_path / "cpu0" / "cache" / f"index{at}", level=level, type=kind, size=size)
    monkeypatch.setattr(machine, "CPUS", tmp_path)
    monkeypatch.setattr(machine.sys, "platform", "linux")
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 4)


def test_cores_and_caches(cpus):
    assert machine.cores().startswith("4 logical, 2 physical")
    assert machine.caches() == "L1d 48K, L2 2048K, L3 32768K"


def test_nothing_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "CPUS", tmp_path)
    monkeypatch.setattr(machine.sys, "platform", "linux")
    monkeypatch.setattr(machine.os, "cpu_count", lambda: None)
    assert machine.cores().startswith("1 logical")
    assert machine.caches() == "unknown"


def test_macos(monkeypatch):
    facts = {"machdep.cpu.brand_string": "Some Chip", "hw.l1dcachesize": "65536", "hw.l2cachesize": "4194304"}
    monkeypatch.setattr(machine.sys, "platform", "darwin")
    monkeypatch.setattr(machine, "_sysctl", lambda name: facts.get(name, ""))
    assert machine.cpu_model() == "Some Chip"
    assert machine.caches() == "L1d 64K, L2 4096K"
    facts.clear()
    assert machine.cpu_model()
    assert machine.caches() == "unknown"


def test_installed():
    assert machine.installed("numpy").count(".") >= 1
    assert machine.installed("no-such-package-here") is None
