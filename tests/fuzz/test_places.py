"""Random calls whose arrays lie against pages that trap, or at each offset of a cache line: the short forms.

Each runs in processes of its own, since a fault ends one. Faults are planted, too: they must be found and told.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import fuzz_convolutions
import fuzz_functions
import numpy as np
import pytest
from awkward import needs_mprotect
from fuzz_calls import drawn
from fuzz_places import GUARDS, OFFSETS, arrays_at, extent
from places import SUPPORT

FUZZ = Path(__file__).resolve().parent
SEED = 2

PLANTED = """
import ctypes, sys
sys.path[:0] = {paths}
import fuzz_run
from fuzz_places import extent

right = fuzz_run.drawn

def read(address):
    ctypes.c_uint8.from_address(address).value

def write(address):
    ctypes.memset(address, 0, 1)

def drawn(seed, index):
    call = right(seed, index)
    if index in {faults}:
        what = {faults}[index]
        view = next(view for view in call.inputs if view.size)
        size, before = extent(view)
        first = view.__array_interface__["data"][0] - before
        run = call.run
        def wrong(threads):
            {{"behind": lambda: read(first + size), "before": lambda: read(first - 1),
              "input": lambda: write(first), "within": lambda: read(first + size - 1)}}[what]()
            return run(threads)
        call.run = wrong
    return call

fuzz_run.drawn = drawn
if __name__ == "__main__":
    sys.exit(fuzz_run.main())
"""


def fuzz(*words, script=FUZZ):
    return subprocess.run(
        [sys.executable, str(script), *words, "--jobs", "1"], capture_output=True, text=True, env=os.environ
    )


@needs_mprotect
def test_guarded_calls():
    done = fuzz("--guard", *GUARDS, "--cases", "2000", "--seed", str(SEED))
    assert done.returncode == 0, done.stdout
    assert re.search(r"2000 calls of 3\d functions on each of .*: 0 failures", done.stdout), done.stdout


def test_calls_at_offsets():
    done = fuzz("--offsets", "--cases", "160", "--seed", str(SEED))
    assert done.returncode == 0, done.stdout
    assert re.search(r"160 calls of 3\d functions on each of .*: 0 failures", done.stdout), done.stdout


@needs_mprotect
def test_faults_are_told(tmp_path):
    """Each as one line that makes the call again; what comes behind it is run as well."""
    faults = {2: "behind", 7: "before", 30: "input", 31: "input", 40: "within"}  # even: guarded at the end
    script = tmp_path / "planted.py"
    script.write_text(PLANTED.format(paths=[str(SUPPORT), str(FUZZ)], faults=faults))
    done = fuzz("--guard", *GUARDS, "--cases", "60", "--isa", "scalar", "--seed", str(SEED), script=script)
    lines = [text for text in done.stdout.splitlines() if text.startswith("python")]
    assert done.returncode == 1, done.stderr
    again = [
        f"python tests/fuzz --guard {place} --seed {SEED} --index {index} --isa scalar"
        for index, place in {2: "end", 7: "start", 30: "end", 31: "start"}.items()
    ]
    assert [text.partition("  # ")[0] for text in lines] == again
    assert all(re.search(r"# SIG(SEGV|BUS)$", text) for text in lines)
    assert re.search(r"56 calls of .*: 4 failures", done.stdout), done.stdout
    words = again[2].removeprefix("python tests/fuzz ").split()
    assert fuzz(*words, script=script).returncode < 0


@needs_mprotect
@pytest.mark.parametrize("place", GUARDS)
def test_all_arrays_are_guarded(monkeypatch, place):
    """Inputs, masks, packed weights and compressed arrays touch a page that traps; so does `out`."""
    outs = []
    for module in (fuzz_convolutions, fuzz_functions):
        monkeypatch.setattr(module, "shown", lambda value: outs.append(value) or "")
    count = 0
    for index in range(60):
        with arrays_at(place):
            call = drawn(SEED, index)
        for array in (*call.inputs, *outs):
            arrays = [array]
            if hasattr(array, "packed"):
                arrays = [array.bits, array.packed, array.offsets]
            elif hasattr(array, "dense"):
                arrays = [array.dense]
            for view in arrays:
                if not isinstance(view, np.ndarray) or not view.size:
                    continue
                size, before = extent(view)
                first = view.__array_interface__["data"][0] - before
                at = -(first + size) if place == "end" else first
                assert at % 4096 < view.itemsize, f"{call}: {at % 4096} bytes are left"
                count += at % 4096 == 0
        outs.clear()
    assert count > 200


def floats_of_line(step, index):
    """Where in a line the float32 inputs of a call begin."""
    with arrays_at(step):
        inputs = drawn(SEED, index).inputs
    return [view.ctypes.data % 64 // 4 for view in inputs if view.dtype == np.float32 and view.size]


def test_each_array_is_at_each_offset():
    """And two arrays of a call do not go through them together."""
    several = [index for index in range(20) if len(floats_of_line(0, index)) > 1]
    assert len(several) > 5
    for index in several:
        offsets = np.array([floats_of_line(step, index) for step in OFFSETS])
        assert (np.sort(offsets, axis=0) == np.arange(16)[:, None]).all()
        assert len(set((offsets[:, 0] - offsets[:, 1]) % 16)) > 1
