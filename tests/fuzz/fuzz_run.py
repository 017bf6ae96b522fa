"""Random calls compared with an oracle: ``python tests/fuzz --cases 5000``.

All instruction sets of the machine run the same calls (``--isa`` names some of them). A failure is one line that makes
the call again, and what was wrong; so is a crash, since calls run in processes of their own.
"""

import argparse
import collections
import faulthandler
import multiprocessing
import os
import sys
import time
import warnings

from fuzz_calls import drawn, judge

from sparseconv import cpu

CHUNK = 25  # calls that an instruction set runs before the next has its turn


def fuzz(seed, indices, isas, at=None):
    """Yields (isa, index, call, error or None); `at` is told which index comes next, in case it is the last."""
    for first in range(0, len(indices), CHUNK):
        calls = []
        for index in indices[first : first + CHUNK]:
            if at is not None:
                at.value = index
            calls.append((index, drawn(seed, index)))
        for isa in isas:
            with cpu.use_isa(isa):
                for index, call in calls:
                    if at is not None:
                        at.value = index
                    error = None
                    try:
                        judge(call)
                    except Exception as caught:
                        error = caught
                    yield isa, index, call, error


def line(seed, index, isa, call, error):
    """One line that makes the call again."""
    what = str(error).replace("\n", " ")
    return f"python tests/fuzz --seed {seed} --index {index} --isa {isa}  # {type(error).__name__}: {what} -- {call}"


def work(seed, indices, isas, at, results):
    """A process: its share of the calls."""
    faulthandler.enable()
    warnings.simplefilter("error")
    calls, forced, failures = collections.Counter(), 0, 0
    for isa, index, call, error in fuzz(seed, indices, isas, at):
        calls[call.name] += isa == isas[0]
        forced += call.forced and isa == isas[0]
        if error is not None:
            failures += 1
            print(line(seed, index, isa, call, error), flush=True)
    results.put((calls, forced, failures))


def main():
    parser = argparse.ArgumentParser(prog="python tests/fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=5000, help="calls for each instruction set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--index", type=int, help="run this one call, and show how it fails")
    parser.add_argument("--isa", nargs="+", default=cpu.available_isas(), help="instruction sets")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1)
    options = parser.parse_args()
    if options.index is not None:
        for isa, index, call, error in fuzz(options.seed, [options.index], options.isa):
            print(f"{isa}: {call}")
            if error is not None:
                print(line(options.seed, index, isa, call, error), flush=True)
                raise error
        return 0
    start, context = time.perf_counter(), multiprocessing.get_context("spawn")
    processes = []
    for job in range(options.jobs):
        at, results = context.Value("q", -1), context.SimpleQueue()
        indices = range(job, options.cases, options.jobs)
        process = context.Process(target=work, args=(options.seed, indices, options.isa, at, results))
        process.start()
        processes.append((process, at, results))
    calls, forced, failures = collections.Counter(), 0, 0
    for process, at, results in processes:
        process.join()
        if process.exitcode:
            failures += 1
            isas = " ".join(options.isa)
            print(f"python tests/fuzz --seed {options.seed} --index {at.value} --isa {isas}  # exit {process.exitcode}")
        else:
            more, zeros, failed = results.get()
            calls, forced, failures = calls + more, forced + zeros, failures + failed
    for name, count in sorted(calls.items()):
        print(f"{count:8d}  {name}")
    print(
        f"{calls.total()} calls of {len(calls)} functions on each of {', '.join(options.isa)}, seed {options.seed}: "
        f"{failures} failures; inputs of {forced} allow nothing but zeros; {time.perf_counter() - start:.0f} s"
    )
    return 1 if failures else 0
