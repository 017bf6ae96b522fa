"""Recorded calls of all kernels, replayed in programs without Python that a sanitizer watches: no reports.

    python tests/sanitizers                      # all of them: half an hour of one core
    python tests/sanitizers --short              # what .ci/run does
    python tests/sanitizers --only thread memcheck

| check    | what watches | what runs |
|----------|--------------|-----------|
| address  | AddressSanitizer, LeakSanitizer and UndefinedBehaviorSanitizer | every call, the real pool and its memory |
| thread   | ThreadSanitizer | four callers make every call at the same time, three threads each; many short regions |
| memcheck | valgrind | every call on AVX2 (valgrind knows no AVX-512) |

Kernels are compiled without optimisation for the sanitizers, since GCC takes minutes otherwise; for valgrind as in the
wheel. Each kernel replays calls whose blocking is that of its own instruction set.
"""

import argparse
import functools
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import recorded_calls
from call_replay import CHECKS, assert_replayed, build, build_region_driver, record, replay
from cases import FEW_CASES
from recorded_calls import RECORDINGS
from weight_patterns import PATTERNS

from sparseconv import cpu

# One of each family, and what reads memory by other rules than the rest.
SHORT = (
    recorded_calls.record_epilogues, recorded_calls.record_views, recorded_calls.record_bias_gradients,
    recorded_calls.record_linear, recorded_calls.record_topk,
    functools.partial(recorded_calls.record_passes, cases=(*FEW_CASES[:2], FEW_CASES[5])),
)  # fmt: skip
SANITIZERS = {
    "address": ("-fsanitize=address,undefined", "-fno-sanitize=vptr", "-fno-sanitize-recover=all"),
    "thread": ("-fsanitize=thread",),
}
ENVIRONMENT = {
    "ASAN_OPTIONS": "detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=0:exitcode=66",
}
COMPILER = shlex.split(os.environ.get("CXX", "g++"))
VALGRIND = ("valgrind", "-q", "--error-exitcode=99", "--leak-check=full")
VALGRIND += ("--show-leak-kinds=definite", "--errors-for-leak-kinds=definite")  # not what sleeping threads have


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="few calls, AVX2 alone")
    parser.add_argument("--only", nargs="*", choices=("address", "thread", "memcheck"), metavar="CHECK")
    parser.add_argument("--isa", nargs="*", help="default: all of this machine but amx and amx_fp16")
    arguments = parser.parse_args()
    isas = arguments.isa or [isa for isa in cpu.available_isas() if not isa.startswith("amx")]
    if arguments.short:
        isas = [isa for isa in isas if isa != "avx512"][:1]
    checks = arguments.only or (("address", "thread") if arguments.short else tuple(CHECK))
    for isa in isas:
        with tempfile.TemporaryDirectory() as name:
            folder, start = Path(name), time.perf_counter()
            recorder = record(folder, recordings=SHORT if arguments.short else RECORDINGS, isa=isa)
            print(f"{isa}: {len(recorder.calls)} calls recorded, {time.perf_counter() - start:.0f} s", flush=True)
            for check in checks:
                if check == "memcheck" and isa != "avx2":
                    continue
                start = time.perf_counter()
                text = CHECK[check](folder, isa, len(recorder.calls), arguments.short)
                print(f"{isa}, {check}: {text}, no reports, {time.perf_counter() - start:.0f} s", flush=True)


def tables(isa):
    return (isa,) if isa == "scalar" else (isa, "scalar")


def address(folder, isa, calls, short):
    driver = sanitized(folder, "address", isa)
    done = replay(driver, folder, timeout=None, **os.environ | ENVIRONMENT)
    assert_replayed(done, calls)
    assert done.stderr == "", done.stderr
    assert done.stdout.splitlines()[:-1] == [f"{check}: done" for check in CHECKS]
    return f"{calls} calls on {' and '.join(tables(isa))}"


def thread(folder, isa, calls, short):
    driver, callers = sanitized(folder, "thread", isa), 2 if short else 4
    done = replay(driver, folder, threads=3, callers=callers, timeout=None, **os.environ | ENVIRONMENT)
    assert_replayed(done, calls)
    assert done.stderr == "", done.stderr
    regions = 5_000 if short else 250_000
    driver = build_region_driver(folder, COMPILER, ("-g1", *SANITIZERS["thread"]))
    command = [driver, str(regions), "4", "4"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | ENVIRONMENT)
    assert done.returncode == 0, done.stdout + done.stderr[-12000:]
    assert done.stdout == f"{4 * regions} regions, 0 wrong\n"
    return f"{calls} calls by each of {callers} callers, {4 * regions} regions"


# valgrind computes with denormals as if nobody had asked to flush them. So the results of calls that have some among
# their operands are others there; their accesses are looked at all the same.
WITH_DENORMALS = ("float_state", "denormals", "topk scaled", "not finite", *PATTERNS)
WITH_DENORMALS += tuple(f"stochastic_prune {name} {np.finfo(name).tiny}" for name in ("float32", "float64"))


def memcheck(folder, isa, calls, short):
    if not shutil.which("valgrind"):
        raise SystemExit("memcheck: needs valgrind")
    driver = build(folder, COMPILER, tables(isa), extra=("-g1",), pools=("pool",))["pool"]
    for threads in (1, 3):
        done = replay(driver, folder, threads=threads, runner=VALGRIND, timeout=None)
        assert done.returncode in (0, 1) and done.stderr == "", done.stderr[:12000]
        *lines, last = done.stdout.splitlines()
        assert last.startswith(f"{calls} calls, "), done.stdout[-4000:]
        lines = [line for line in lines if not line.endswith(": done") and not line.startswith(WITH_DENORMALS)]
        assert not lines, lines
    return f"{calls} calls on one thread and on three"


def sanitized(folder, check, isa):
    extra = ("-g1", "-fno-omit-frame-pointer", *SANITIZERS[check])
    return build(folder, COMPILER, tables(isa), optimisation="-O0", extra=extra, pools=("pool",))["pool"]


CHECK = {"address": address, "thread": thread, "memcheck": memcheck}
