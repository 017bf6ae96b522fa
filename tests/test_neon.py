"""The NEON kernels without ARM hardware: calls are recorded here and replayed by a cross-compiled driver under QEMU.

A recorded call is what the compiled modules were told, hence any geometry and blocking that the library can come up
with, the arrays as they lie in memory, and the result. `neon_driver.cpp` replays it on the tables `neon` and `scalar`.
"""

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers import (
    FEW_CASES,
    PASSES,
    SKIPS,
    TRANSPOSED,
    Case,
    call,
    in_layout,
    operands,
    prepared,
    sparse_floats,
    sparse_ints,
)
from neon_recorder import recording
from task_structs import KERNELS

import sparseconv as sc

TESTS = Path(__file__).resolve().parent
COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
LIBRARIES = "/usr/aarch64-linux-gnu"
# As in setup.py, but for the optimisation of what is only compared with.
FLAGS = ["-std=c++17", "-O3", "-Wall", "-Wextra", "-Werror"]
KERNEL_FLAGS = [*FLAGS, "-fno-exceptions", "-fno-rtti", "-fno-math-errno", "-Wno-maybe-uninitialized"]
UNTOUCHED = np.float32(-7777)

CASES = (
    *FEW_CASES,
    Case(17, 24, (6, 7), (3, 3), padding=1, kind=1),
    Case(40, 33, (6, 7), (3, 3), padding=1),
    Case(40, 33, (7, 9), (3, 3), stride=2, padding=1, kind=1),
    Case(17, 24, (5, 6), (1, 1)),
    Case(16, 40, (8, 6), (3, 3), stride=2, dilation=3, padding=2, kind=2),
    Case(16, 24, (14, 14), (3, 3), batch=8, padding=1, kind=1),  # weights are packed ahead
    Case(8, 8, (3, 70), (1, 7), padding=(0, 3)),
)

pytestmark = [
    pytest.mark.skipif(not shutil.which(COMPILER), reason=f"needs {COMPILER} (Debian: g++-aarch64-linux-gnu)"),
    pytest.mark.skipif(not shutil.which(EMULATOR), reason=f"needs {EMULATOR} (Debian: qemu-user)"),
    pytest.mark.skipif(not (KERNELS / "isa_neon.cpp").exists(), reason="needs the sources"),
]


# --- what is recorded ---


def record_calls(recorder):
    """Every pass of every case, and what else kernels do: bias, ReLU, linear layers, views, denormals."""
    for case in (*CASES, *TRANSPOSED[:4]):
        for name in PASSES:
            first, second, expected = prepared(case, name, 0.5)
            for skip in SKIPS[name][1:]:
                recorder.name = f"{name} {case} {skip}"
                out = np.full_like(expected, UNTOUCHED)
                call(sc, case, name, first, second, skip=skip, out=out)
    case = FEW_CASES[0]
    x, weight = in_layout(case, "forward", *operands(case, "forward", 0.5))
    grads = operands(case, "backward_data", 0.5)[0]
    recorder.name = "bias and relu"
    bias = sparse_ints((case.out_c,), 0, 9)
    for skip in ("none", "input"):
        y = sc.conv2d(x, weight, bias, padding=1, activation="relu", skip=skip)
        assert y.any()
        assert (y == 0).any()
    recorder.name = "mask of relu"
    masked = Case(17, 48, (5, 14), (3, 3), padding=1, kind=1)
    for skip in ("none", "input"):
        arrays = in_layout(masked, "forward", *operands(masked, "forward", 0.5))
        _, mask = call(sc, masked, "forward", *arrays, skip=skip, activation="relu", return_mask=True)
        assert 0.2 < np.unpackbits(mask).mean() < 0.8
    for name in PASSES:
        recorder.name = f"threshold {name}"
        for thresholded in FEW_CASES[:3]:
            first, second = in_layout(thresholded, name, *operands(thresholded, name, 0.3))
            call(sc, thresholded, name, first, second, threshold=2)  # some elements are equal to it
            first.flat[::97] = np.nan
            call(sc, thresholded, name, first, second, threshold=0.5)
    recorder.name = "views"
    room = np.full((2, 11, 29, 2 * case.in_c + 1), UNTOUCHED)
    moved = room[:, 1::2, 1::2, ::2].transpose(0, 3, 1, 2)[:, : case.in_c]
    moved[...] = x
    out = np.full((2, 5, 14, 3 * case.out_c), UNTOUCHED)[..., ::3].transpose(0, 3, 1, 2)
    sc.conv2d(moved, weight[:, ::-1], padding=1, out=out)
    sc.conv2d_backward_weight(moved, grads, 3, padding=1, out=np.full((33, 3, 17, 3), UNTOUCHED).transpose(0, 2, 1, 3))
    for masked in FEW_CASES:
        first, second = in_layout(masked, "backward_data", *operands(masked, "backward_data", 0.5))
        needed = np.nan_to_num(in_layout(masked, "forward", *operands(masked, "forward", 0.5))[0])
        for skip in ("none", "grad_output", "output"):
            recorder.name = f"output_mask {masked} {skip}"
            out = np.full_like(needed, UNTOUCHED)
            call(sc, masked, "backward_data", first, second, skip=skip, output_mask=needed, out=out)
    recorder.name = "output_mask"
    mask = np.zeros(case.weight_shape, bool)
    mask[:20, 3:] = True
    mask[1::2, :, 1] = False
    for skip in SKIPS["backward_weight"][1:]:
        out = np.full(mask.shape, UNTOUCHED)
        sc.conv2d_backward_weight(x, grads, 3, padding=1, skip=skip, output_mask=mask, out=out)
    recorder.name = "denormals"
    for skip in ("none", "input"):
        sc.conv2d(np.where(x == 0, np.float32(1e-40), x), weight, padding=1, skip=skip)
    sc.conv2d(np.full_like(x, 1e-40), np.full_like(weight, np.inf), padding=1, skip="input")
    for layout_name in ("NCHW", "NHWC"):
        recorder.name = f"grad_bias {layout_name}"
        sc.grad_bias(sparse_ints((3, 33, 5, 40), 0.3, 4), layout=layout_name)
    recorder.name = "linear"
    features = sparse_ints((9, 70), 0.5, 5)
    y = sc.linear(features, sparse_ints((37, 70), 0, 6), bias=sparse_ints((37,), 0, 7))
    sc.linear_backward_weight(features, y)


# --- replaying ---


@pytest.fixture(scope="module")
def replayed(tmp_path_factory):
    """The recorder, and what the driver said: with guarded memory, and with the pool of threads."""
    folder = tmp_path_factory.mktemp("neon")
    with pytest.MonkeyPatch.context() as monkeypatch, recording(monkeypatch) as recorder:
        record_calls(recorder)
    (folder / "image").write_bytes(recorder.memory)
    np.array(recorder.words, np.int64).tofile(folder / "words")
    units = {
        KERNELS / "isa_neon.cpp": [*KERNEL_FLAGS, "-march=armv8-a"],
        KERNELS / "isa_scalar.cpp": [*KERNEL_FLAGS, "-O1"],
        KERNELS / "run.cpp": FLAGS,
        KERNELS / "dispatch.cpp": FLAGS,
        KERNELS / "threads.cpp": FLAGS,
        TESTS / "guarded_pool.cpp": [*FLAGS, f"-I{KERNELS}"],
        TESTS / "neon_driver.cpp": [*FLAGS, "-O1", f"-I{KERNELS}"],
    }

    def build(unit):
        to = folder / f"{unit.stem}.o"
        done = subprocess.run([COMPILER, *units[unit], "-c", unit, "-o", to], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return to

    def replay(others, threads):
        driver = folder / f"driver{threads}"
        linked = [to for to in objects if to.stem != others]
        subprocess.run([COMPILER, *linked, "-pthread", "-o", driver], check=True)
        words = [EMULATOR, "-L", LIBRARIES, driver, folder / "image", folder / "words", str(threads)]
        return subprocess.run(words, capture_output=True, text=True, timeout=300)

    with ThreadPoolExecutor(2) as executor:
        objects = list(executor.map(build, units))
        guarded, pooled = executor.map(replay, ("threads", "guarded_pool"), (1, 3))
    return recorder, guarded, pooled


@pytest.mark.parametrize("run", [1, 2], ids=["guarded memory", "three threads"])
def test_neon(replayed, run):
    """No difference in any bit to the result on this machine, or in the memory around it; on the table scalar, too."""
    recorder, done = replayed[0], replayed[run]
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == f"{len(recorder.calls)} calls, 0 failures"


def test_tables(replayed):
    lines = replayed[1].stdout.splitlines()
    assert lines[:-1] == ["float_state: done", "dispatch: done", "masks: done", "compressed: done"]


def test_results_are_not_mostly_zero(replayed):
    calls = replayed[0].calls
    for kind in {one.kind for one in calls}:
        shares = [one.share for one in calls if one.kind == kind and one.name not in ("denormals", "views")]
        print(kind, len(shares), min(shares), np.mean(shares))
        assert len(shares) > 5
        assert np.mean(shares) > 0.4
        assert min(shares) > 0.1
