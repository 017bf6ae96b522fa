"""Child processes for tests of what can hang or crash: how they are run, and the code that they share."""

import os
import subprocess
import sys
import textwrap

import pytest

LINUX = sys.platform == "linux"
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
needs_proc = pytest.mark.skipif(not LINUX, reason="threads are counted in /proc")
SETTINGS = ("SPARSECONV_NUM_THREADS", "OMP_NUM_THREADS", "SPARSECONV_ISA", "SPARSECONV_THREADS")

# What children share: a call that is worth several threads, a call without end, the state of the floating-point unit.
PRELUDE = """
import os, signal, sys, threading, time
import numpy as np
import sparseconv as sc

def ints(shape, seed, sparsity=0.5):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < sparsity, 0, rng.integers(1, 5, shape)).astype(np.float32)

X, W, G = ints((2, 32, 20, 20), 1), ints((48, 32, 3, 3), 2, 0.1), ints((2, 48, 20, 20), 3)

def passes(threads):
    return (
        sc.conv2d(X, W, padding=1, num_threads=threads),
        sc.conv2d_backward_data(G, W, X.shape, padding=1, num_threads=threads),
        sc.conv2d_backward_weight(X, G, 3, padding=1, num_threads=threads),
    )

def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))

def endless(images, threads, layout="NCHW"):
    # the same image again and again: much work, little memory
    x, g = X[:1], G[:1]
    if layout == "NHWC":
        x, g = (np.ascontiguousarray(a.transpose(0, 2, 3, 1)) for a in (x, g))
    x, g = (np.broadcast_to(a, (images, *a.shape[1:])) for a in (x, g))
    return sc.conv2d_backward_weight(x, g, 3, padding=1, num_threads=threads, layout=layout)

def images_for(seconds, threads):
    start, images = time.perf_counter(), 1
    while (spent := time.perf_counter() - start) < 0.1:
        start, images = time.perf_counter(), images * 2
        endless(images, threads)
    return int(images * seconds / spent)

def interrupted(call):
    # seconds from a Ctrl-C to the KeyboardInterrupt that it raises, None if the call ended before
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sent = []

    def press():
        time.sleep(0.3)
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    caught = None
    try:
        call()
        thread.join()
        time.sleep(1)
    except KeyboardInterrupt:
        caught = time.perf_counter()
    thread.join()
    return caught and caught - sent[0]

def subnormals_survive():
    return (np.full(64, 1e-38, np.float32) * np.float32(0.1)).all()

def tasks():
    return len(os.listdir("/proc/self/task"))
"""


def run(code, *, prelude=PRELUDE, timeout=60, **environment):
    """Run Python in a new process in which warnings are errors; a hang is one too. Returns the lines it prints."""
    clean = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    clean["OPENBLAS_NUM_THREADS"] = "1"  # the threads of NumPy are not those to count
    command = [sys.executable, "-W", "error", "-X", "faulthandler", "-c", prelude + textwrap.dedent(code)]
    done = subprocess.run(command, env=clean | environment, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.stderr == "", done.stderr
    return done.stdout.split("\n")[:-1]
