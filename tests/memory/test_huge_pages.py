"""Large results inside PyTorch are asked for in large pages, and nothing beside them is."""

import mmap
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sparseconv._core import _cpu

MB = 1 << 20
SMAPS = Path("/proc/self/smaps")


def flagged(address, size):
    """The parts of [address, address + size) that the system may give large pages, in its own words."""
    text, found, span = SMAPS.read_text(encoding="utf-8", errors="replace"), [], None
    for line in text.splitlines():
        if head := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            span = [int(one, 16) for one in head.groups()]
        elif line.startswith("VmFlags:") and "hg" in line.split():
            low, high = max(span[0], address), min(span[1], address + size)
            found += [(low - address, high - address)] if low < high else []
    return found


def test_whole_pages_alone():
    with mmap.mmap(-1, 8 * MB) as memory:
        array = np.frombuffer(memory, np.uint8)
        address = array.ctypes.data
        agreed = _cpu.ask_for_huge_pages(address + 100, 6 * MB)
        if not agreed:
            assert not Path("/sys/kernel/mm/transparent_hugepage").exists()
            pytest.skip("this system has no large pages")
        if not SMAPS.exists() or "VmFlags" not in SMAPS.read_text(encoding="utf-8", errors="replace"):
            pytest.skip("this system does not tell which pages are to be large")
        assert flagged(address, array.size) == [(mmap.PAGESIZE, 6 * MB)]
        assert not array.any()
        del array


def test_less_than_a_page():
    with mmap.mmap(-1, MB) as memory:
        array = np.frombuffer(memory, np.uint8)
        address = array.ctypes.data
        for offset, size in ((1, mmap.PAGESIZE), (0, 0), (mmap.PAGESIZE, mmap.PAGESIZE - 1)):
            assert _cpu.ask_for_huge_pages(address + offset, size) is False
        assert not SMAPS.exists() or flagged(address, array.size) == []
        del array


@pytest.fixture
def asked(monkeypatch):
    """The calls that ask, by address and size."""
    seen = []

    def ask(address, size):
        seen.append((address, size))
        return True

    monkeypatch.setattr(_cpu, "ask_for_huge_pages", ask)
    return seen


@pytest.mark.parametrize("again", [False, True])
def test_which_results(asked, again, monkeypatch):
    """Those of 4 MB, of prepared calls as of first ones."""
    torch = pytest.importorskip("torch")
    import sparseconv.torch as sct
    from sparseconv.torch import calls

    monkeypatch.setattr(calls, "_kept", {})
    weight = torch.ones(64, 16, 1, 1)
    for side, expected in ((127, 0), (128, 1)):
        x = torch.ones(1, 16, side, side).to(memory_format=torch.channels_last)
        if again:
            sct.conv2d(x, weight)
        asked.clear()
        y = sct.conv2d(x, weight)
        assert (y.nbytes >= calls.HUGE_BYTES) == bool(expected)
        assert asked == [(y.data_ptr(), y.nbytes)] * expected
        assert (y == 16).all()


def test_results_of_packed_weights(asked):
    torch = pytest.importorskip("torch")
    import sparseconv
    import sparseconv.torch as sct

    y = sct.conv2d(torch.ones(1, 16, 128, 128), sparseconv.pack_weight(np.ones((64, 16, 1, 1), np.float32)))
    assert asked == [(y.data_ptr(), y.nbytes)] and (y == 16).all()


def test_switched_off():
    pytest.importorskip("torch")
    code = "from sparseconv.torch import calls; print(calls.USES_HUGE_PAGES)"
    for value, expected in ((None, "True"), ("1", "True"), ("0", "False")):
        more = {} if value is None else {"SPARSECONV_HUGE_PAGES": value}
        kept = {name: one for name, one in os.environ.items() if name != "SPARSECONV_HUGE_PAGES"}
        done = subprocess.run([sys.executable, "-c", code], env=kept | more, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected
