"""The NEON kernels without ARM hardware: calls are recorded here and replayed by a cross-compiled driver under QEMU.

A recorded call is what the compiled modules were told, hence any geometry and blocking that the library can come up
with, the arrays as they lie in memory, and the result. `call_driver.cpp` replays it on the tables `neon` and `scalar`.
"""

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from call_recorder import CLASSES, FUNCTIONS
from call_replay import CHECKS, assert_replayed, build, record, replay
from places import KERNELS

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
LIBRARIES = "/usr/aarch64-linux-gnu"

pytestmark = [
    pytest.mark.skipif(not shutil.which(COMPILER), reason=f"needs {COMPILER} (Debian: g++-aarch64-linux-gnu)"),
    pytest.mark.skipif(not shutil.which(EMULATOR), reason=f"needs {EMULATOR} (Debian: qemu-user)"),
    pytest.mark.skipif(not (KERNELS / "isa/neon.cpp").exists(), reason="needs the sources"),
]


@pytest.fixture(scope="module")
def replayed(tmp_path_factory):
    """The recorder, and what the driver said: with guarded memory, and with the pool of threads."""
    folder = tmp_path_factory.mktemp("neon")
    recorder = record(folder)
    drivers = build(folder, [COMPILER], ("neon", "scalar"), machine="aarch64")

    def run(pool, threads):
        return replay(drivers[pool], folder, threads=threads, runner=(EMULATOR, "-L", LIBRARIES))

    with ThreadPoolExecutor(2) as executor:
        guarded, pooled = executor.map(run, ("guarded", "pool"), (1, 3))
    return recorder, guarded, pooled


@pytest.mark.parametrize("run", [1, 2], ids=["guarded memory", "three threads"])
def test_neon(replayed, run):
    """No difference in any bit to the result on this machine, or in the memory around it; on the table scalar, too."""
    recorder, done = replayed[0], replayed[run]
    assert_replayed(done, len(recorder.calls))
    assert done.stderr == ""


def test_tables(replayed):
    assert replayed[1].stdout.splitlines()[:-1] == [f"{check}: done" for check in CHECKS]


def test_results_are_not_mostly_zero(replayed):
    """Each kind of call changes its results, in many cases."""
    calls = [one for one in replayed[0].calls if one.name != "denormals"]
    assert len({one.kind for one in calls}) == len(CLASSES) + len(FUNCTIONS) + 3
    for kind in {one.kind for one in calls}:
        shares = [one.share for one in calls if one.kind == kind]
        assert len(shares) >= 8, kind
        assert np.mean(shares) > 0.4, kind
        assert min(shares) > 0.1, kind
