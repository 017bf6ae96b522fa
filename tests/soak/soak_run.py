"""Random calls for hours in one process, which is what a server does: ``python tests/soak --minutes 30``.

Some Python threads make the random calls of tests/fuzz, each a different part of them, while one more switches the
instruction set and the default number of threads behind their backs. A thread ends after a few calls, and another one
takes its place. Every result is compared with the oracle; the memory of the process must stop growing.

A call keeps the instruction set that it began with, but the next one may get another, whose rounding is another: the
bits of two runs of a call are compared if nobody switched between them.
"""

import argparse
import ctypes
import faulthandler
import gc
import itertools
import os
import random
import threading
import time
import warnings

from fuzz_calls import drawn
from fuzz_results import parts

from sparseconv import cpu

CALLS_OF_A_THREAD = 50
CALLS_PER_SWITCH = 10  # about so many are made with one instruction set
MOST_GROWTH = 8 << 20  # of resident memory in the second half: caches are full by then


class Soak:
    """The state that the threads share."""

    def __init__(self, seed):
        self.seed, self.indices, self.random = seed, itertools.count(), random.Random(seed)
        self.stop, self.lock = threading.Event(), threading.Lock()
        self.calls = self.compared = 0
        self.begun = self.ended = 0  # switches
        self.failures = []

    def switch(self):
        """Another instruction set, another default number of threads, as any thread of a program may choose."""
        with self.lock:
            self.begun += 1
            isa, count = self.random.choice(cpu.available_isas()), self.random.choice((1, 2, 3, 4))
        cpu.use_isa(isa)
        cpu.set_num_threads(count)
        with self.lock:
            self.ended += 1

    def judge(self, call):
        """As tests/fuzz does, but the second run may be that of another instruction set."""
        before = [array.tobytes() for array in call.inputs]
        ended = self.ended
        result = call.run(None)
        call.check(result)
        first = [one.tobytes() for one in parts(result)]
        again = call.run(1 + len(first[0]) % 4)
        call.check(again)
        if self.begun == ended:
            assert [one.tobytes() for one in parts(again)] == first, "another number of threads gives other bits"
            with self.lock:
                self.compared += 1
        assert [array.tobytes() for array in call.inputs] == before, "an input was changed"

    def work(self):
        for _ in range(CALLS_OF_A_THREAD):
            if self.stop.is_set():
                return
            with self.lock:
                index = next(self.indices)
                self.calls += 1
            call = drawn(self.seed, index)
            try:
                self.judge(call)
            except Exception as error:
                what = f"{type(error).__name__}: {error}".replace("\n", " ")
                with self.lock:
                    self.failures.append(f"--seed {self.seed} --index {index}  # {cpu.isa()}: {what} -- {call}")
            if index % CALLS_PER_SWITCH == 0:
                self.switch()


def one_heap():
    """glibc gives threads heaps of their own, whose gaps would be taken for growth."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-8, 1)  # M_ARENA_MAX


def resident():
    """Bytes of memory that the process has, once the heap has given back what it does not use."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth(samples):
    """Of resident memory in the second half of the run: of its medians in the third and in the last quarter."""
    quarter = len(samples) // 4
    third, last = (sorted(part)[len(part) // 2] for part in (samples[2 * quarter : 3 * quarter], samples[-quarter:]))
    return last - third


def soak(seconds, threads, seed, every=5.0, report=None, calls=0):
    """Runs for so long and so many calls; returns what was done, and resident memory as it was `every` some seconds."""
    state, end, samples = Soak(seed), time.monotonic() + seconds, []
    before = cpu.isa(), cpu.num_threads()
    workers, started = [], 0
    try:
        sample = time.monotonic() + every
        while (time.monotonic() < end or state.calls < calls) and not state.failures:
            workers = [one for one in workers if one.is_alive()]
            while len(workers) < threads:
                workers.append(threading.Thread(target=state.work))
                workers[-1].start()
                started += 1
            time.sleep(0.05)
            if time.monotonic() > sample:
                samples.append(resident())
                sample += every
                if report:
                    report(state, samples)
    finally:
        state.stop.set()
        for one in workers:
            one.join()
        cpu.use_isa(before[0])
        cpu.set_num_threads(before[1])
    return state, started, samples


def main():
    parser = argparse.ArgumentParser(prog="python tests/soak", description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--threads", type=int, default=4, help="Python threads")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    faulthandler.enable()
    warnings.simplefilter("error")
    one_heap()
    start = time.monotonic()

    def report(state, samples):
        if len(samples) % 12 == 0:
            minutes = (time.monotonic() - start) / 60
            print(f"{minutes:6.1f} min {state.calls:8d} calls {samples[-1] / 1e6:7.1f} MB", flush=True)

    state, started, samples = soak(60 * options.minutes, options.threads, options.seed, report=report)
    for failure in state.failures:
        print(failure)
    grown = growth(samples) if len(samples) >= 8 else 0
    print(
        f"{state.calls} calls in {started} threads, {options.threads} at a time, {state.ended} switches of "
        f"{', '.join(cpu.available_isas())}, seed {options.seed}: {len(state.failures)} failures; bits compared "
        f"{state.compared} times; resident memory {samples[len(samples) // 2] / 1e6:.1f} MB in the middle, "
        f"{samples[-1] / 1e6:.1f} MB at the end, largest {max(samples) / 1e6:.1f} MB, growth of the second half "
        f"{grown / 1e6:+.1f} MB" if samples else "too short"
    )
    return 1 if state.failures or grown > MOST_GROWTH else 0
