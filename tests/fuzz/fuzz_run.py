"""Random calls compared with an oracle: ``python tests/fuzz --cases 5000``.

All instruction sets of the machine run the same calls (``--isa`` names some of them). A failure is one line that makes
the call again, and what was wrong. So is a crash: calls run in processes of their own, another one goes on behind it.

``--guard end start`` puts all arrays of a call against pages that trap accesses, behind them and in front of them in
turns. ``--offsets`` makes each call 16 times: all arrays begin at each float of a cache line.
"""

import argparse
import collections
import faulthandler
import multiprocessing
import os
import signal
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from fuzz_calls import drawn
from fuzz_places import GUARDS, OFFSETS, arrays_at, results_at
from fuzz_results import judge, parts

from sparseconv import cpu

CHUNK = 25  # calls that an instruction set runs before the next has its turn


@dataclass(frozen=True)
class Plan:
    """Which calls, and where their arrays lie: wherever they happen to, against pages in turns, or at all offsets."""

    seed: int
    isas: tuple
    guards: tuple = ()
    offsets: bool = False

    def places(self, index):
        if self.offsets:
            return OFFSETS
        return [self.guards[index % len(self.guards)] if self.guards else None]

    def words(self, index):
        return "--offsets " if self.offsets else f"--guard {self.places(index)[0]} " if self.guards else ""


def fuzz(plan, indices, skipped=(), at=None):
    """Yields (isa, index, call, error or None).

    `at` is told what comes next, in case it is the last: number of the instruction set (-1: none yet), index. What is
    in `skipped` is left out.
    """
    for first in range(0, len(indices), CHUNK):
        calls = []
        for index in indices[first : first + CHUNK]:
            tell(at, -1, index)
            if (-1, index) not in skipped:
                calls.append((index, [drawn_at(place, plan.seed, index) for place in plan.places(index)]))
        for number, isa in enumerate(plan.isas):
            with cpu.use_isa(isa):
                for index, same_call in calls:
                    tell(at, number, index)
                    if (number, index) in skipped:
                        continue
                    error = None
                    try:
                        if plan.offsets:
                            judge_offsets(same_call)
                        else:
                            with results_at(plan.places(index)[0]):
                                judge(same_call[0])
                    except Exception as caught:
                        error = caught
                    yield isa, index, same_call[0], error


def tell(at, number, index):
    if at is not None:
        at[0], at[1] = number, index


def drawn_at(place, seed, index):
    with arrays_at(place):
        return drawn(seed, index)


def judge_offsets(calls):
    """The same call with its arrays at all offsets: right, and the same bits every time."""
    first = None
    for step, call in zip(OFFSETS, calls, strict=True):
        result = call.run(None)
        call.check(result)
        bits = [part.tobytes() for part in parts(result)]
        first = first or bits
        assert bits == first, f"other bits at step {step} of the offsets than at step 0"


def line(plan, index, isa, what):
    """One line that makes the call again."""
    what = what.replace("\n", " ")
    return f"python tests/fuzz {plan.words(index)}--seed {plan.seed} --index {index} --isa {isa}  # {what}"


def told(call, error):
    return f"{type(error).__name__}: {error} -- {call}"


def work(plan, indices, skipped, at, results):
    """A process: chunk by chunk, each with what it came to."""
    faulthandler.enable()
    warnings.simplefilter("error")
    for first in range(0, len(indices), CHUNK):
        calls, forced, failures = collections.Counter(), 0, []
        for isa, index, call, error in fuzz(plan, indices[first : first + CHUNK], skipped, at):
            calls[call.name] += isa == plan.isas[0]
            forced += call.forced and isa == plan.isas[0]
            if error is not None:
                failures.append(line(plan, index, isa, told(call, error)))
        results.send((calls, forced, failures))
    results.close()


def follow(plan, indices):
    """All these calls in a process, and in another one from the chunk on in which one of them crashes."""
    context = multiprocessing.get_context("spawn")
    calls, forced, failures, skipped = collections.Counter(), 0, 0, set()
    while indices:
        at, (receiver, sender) = context.Array("q", [-1, -1], lock=False), context.Pipe(duplex=False)
        process = context.Process(target=work, args=(plan, indices, frozenset(skipped), at, sender))
        process.start()
        sender.close()
        try:
            while indices:
                chunk = receiver.recv()
                indices = indices[CHUNK:]
                calls, forced, failures = calls + chunk[0], forced + chunk[1], failures + len(chunk[2])
                for text in chunk[2]:
                    print(text, flush=True)
        except EOFError:
            pass
        process.join()
        if indices:  # it ended early
            number, index = at
            isa = " ".join(plan.isas) if number < 0 else plan.isas[number]
            failures += 1
            print(line(plan, index, isa, f"{ending(process.exitcode)}"), flush=True)
            if (number, index) in skipped or index < 0:
                break
            skipped.add((number, index))
    return calls, forced, failures


def ending(code):
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def main():
    parser = argparse.ArgumentParser(prog="python tests/fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=5000, help="calls for each instruction set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--index", type=int, help="run this one call, and show how it fails")
    parser.add_argument("--isa", nargs="+", default=cpu.available_isas(), help="instruction sets")
    parser.add_argument("--guard", nargs="+", default=(), choices=GUARDS, help="pages that trap: where, in turns")
    parser.add_argument("--offsets", action="store_true", help="each call at 16 offsets from a cache line")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1)
    options = parser.parse_args()
    plan = Plan(options.seed, tuple(options.isa), tuple(options.guard), options.offsets)
    if options.index is not None:
        for isa, index, call, error in fuzz(plan, [options.index]):
            print(f"{isa}: {call}", flush=True)
            if error is not None:
                print(line(plan, index, isa, told(call, error)), flush=True)
                raise error
        return 0
    start = time.perf_counter()
    with ThreadPoolExecutor(options.jobs) as pool:
        shares = [range(job, options.cases, options.jobs) for job in range(options.jobs)]
        outcomes = list(pool.map(lambda share: follow(plan, share), shares))
    calls = sum((outcome[0] for outcome in outcomes), collections.Counter())
    forced, failures = (sum(outcome[place] for outcome in outcomes) for place in (1, 2))
    for name, count in sorted(calls.items()):
        print(f"{count:8d}  {name}")
    where = " --offsets" if plan.offsets else f" --guard {' '.join(plan.guards)}" if plan.guards else ""
    print(
        f"{calls.total()} calls of {len(calls)} functions on each of {', '.join(plan.isas)}, seed {plan.seed}{where}: "
        f"{failures} failures; inputs of {forced} allow nothing but zeros; {time.perf_counter() - start:.0f} s"
    )
    return 1 if failures else 0
