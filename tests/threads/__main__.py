"""``python tests/threads``: the long form of test_trials.py, whose figures stand in docs/reliability.md."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import trials

from sparseconv import cpu


def interrupts(count, threads):
    waited = [1000 * seconds for seconds in trials.interrupts(count, threads)]
    p99 = waited[-1 - count // 100]
    assert p99 < 100, f"99% of the interrupts came within {p99:.0f} ms, expected 100"
    return f"{count} trials: median {waited[count // 2]:.0f} ms, p99 {p99:.0f} ms, last {waited[-1]:.0f} ms"


def endings(times):
    for name in trials.ENDINGS:
        for _ in range(times):
            trials.ending(name)
    return f"{len(trials.ENDINGS)} endings {times} times: exit code 0, nothing said"


def failing(_):
    with tempfile.TemporaryDirectory() as folder:
        return trials.threads_that_fail(folder)


def plan(scale):
    """(name, what is run) of all."""

    def some(count):
        return max(1, round(count * scale))

    for isa in cpu.available_isas():
        yield f"bits {isa}", lambda isa=isa: trials.many_python_threads(isa, some(1000))
        yield f"switches {isa}", lambda isa=isa: trials.many_python_threads(isa, some(100), interval=1e-6)
        yield f"numbers {isa}", lambda isa=isa: trials.numbers_of_threads(isa, some(500))
    yield "forks", lambda: trials.fork_cycles(some(200))
    yield "forks in calls", lambda: trials.forks_during_a_call(some(50))
    for method in ("fork", "spawn", "forkserver"):
        yield method, lambda method=method: trials.start_methods(method)
    yield "endings", lambda: endings(some(20))
    yield "failing threads", lambda: failing(None)
    yield "alarms", lambda: trials.alarms(max(1, 10 * scale))
    for threads in (1, 2):
        yield f"interrupts {threads}", lambda threads=threads: interrupts(some(100), threads)


def main():
    parser = argparse.ArgumentParser(prog="python tests/threads", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="beginnings of names, such as forks; all of them otherwise")
    parser.add_argument("--scale", type=float, default=1.0, help="how many of each, beside those in the documentation")
    options = parser.parse_args()
    failures = 0
    for name, trial in plan(options.scale):
        if options.names and not name.startswith(tuple(options.names)):
            continue
        start = time.perf_counter()
        try:
            result = trial()
        except Exception as error:
            failures += 1
            result = f"FAILED: {type(error).__name__}: {str(error)[-300:]}"
        print(f"{name:20s} {result}  ({time.perf_counter() - start:.0f} s)", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
