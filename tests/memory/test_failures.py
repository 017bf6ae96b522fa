"""Allocations made to fail: the short form of failures.py, and that it finds what it looks for."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from children import LINUX

SCRIPT = Path(__file__).with_name("failures.py")
CALLS = [
    "conv2d input", "conv2d weight", "conv2d packed", "conv2d depthwise", "backward_data output", "weight none",
    "weight compressed", "weight depthwise", "linear", "grad_bias", "update", "capsule", "compress", "topk_mask",
    "stochastic",
]  # fmt: skip


def failures(*words):
    # What is loaded by others (a sanitizer) would be left out.
    clean = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    return subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True, env=clean)


pytestmark = pytest.mark.skipif(
    not LINUX or platform.libc_ver()[0] != "glibc" or "LD_PRELOAD" in os.environ, reason="replaces glibc's malloc"
)


def test_allocations_of_compiled_code():
    """All of them, one after the other: MemoryError, nothing lost, and the next call is right."""
    done = failures("--compiled", "--kinds", "warm", "--threads", "1", "--calls", *CALLS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.splitlines()[-1].split()[0]) > 100


def test_all_allocations():
    """Those of Python and NumPy as well, on several threads; every so many of calls that begin without anything."""
    done = failures("--threads", "3", "--calls", "conv2d input", "grad_output", "--step", "97")
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.splitlines()[-1].split()[0]) > 80  # how many there are depends on Python and NumPy


PLANTED = """
import sys
sys.path.insert(0, {folder!r})
import failures, numpy as np
kept = []

def lossy():
    try:
        return np.ones(1000) * 2
    except MemoryError:
        kept.append(bytearray(100))
        raise

def stuck():
    if kept:
        return np.zeros(3)
    try:
        return np.ones(3)
    except MemoryError:
        kept.append(None)
        raise

def other():
    try:
        return np.ones(3)
    except MemoryError:
        raise KeyError("wrong") from None

failures.calls = lambda threads: {{"planted": ({call}, None)}}
failures.compiled = lambda: {{"all": (0, 0)}}
sys.argv[0] = {script!r}
sys.exit(failures.main())
"""


@pytest.mark.parametrize(
    "call, message",
    [("lossy", "bytes are lost by each failure"), ("stuck", "the next call is wrong"), ("other", "KeyError: 'wrong'")],
)
def test_planted_mistakes_are_found(tmp_path, call, message):
    script = tmp_path / "planted.py"
    script.write_text(PLANTED.format(folder=str(SCRIPT.parent), call=call, script=str(script)))
    done = subprocess.run(
        [sys.executable, str(script), "--compiled", "--kinds", "warm", "--threads", "1"], capture_output=True, text=True
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert message in done.stdout
