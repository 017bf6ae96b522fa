"""Memory of a process over many calls: ``python tests/memory/growth.py --calls 100000``.

A mixture of random calls of every public function (tests/fuzz), the same again and again, on 1 to 4 threads and on all
instruction sets in turns. What the process holds after a tenth of them, when caches and scratch memory have the size
that these calls need, and at the end, is printed; more than 1 MB of growth is a failure.
"""

import argparse
import ctypes
import gc
import sys
import time
import warnings
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "support"), str(TESTS / "fuzz")]

import numpy as np  # noqa: E402
from fuzz_calls import drawn  # noqa: E402

from sparseconv import cpu  # noqa: E402

MOST = 1024  # kB
DRAWN = 120


def resident():
    """kB that the process has in memory, but for what malloc could give back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Private_Dirty"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--settle", type=int, help="calls before memory is looked at for the first time")
    parser.add_argument("--lose", type=int, default=0, help="bytes that every call loses: a failure")
    options = parser.parse_args()
    warnings.simplefilter("error")
    calls = [drawn(options.seed, index) for index in range(DRAWN)]
    resident()  # takes memory itself, the first time
    isas, order, lost = cpu.available_isas(), np.random.default_rng(options.seed), []
    start, done, before = time.perf_counter(), 0, 0
    while done < options.calls:
        with cpu.use_isa(isas[done // DRAWN % len(isas)]):
            for place in order.permutation(DRAWN):
                calls[place].run(1 + int(order.integers(4)))
                if options.lose:
                    lost.append(bytearray(options.lose))
        done += DRAWN
        if not before and done >= (options.settle or options.calls / 10):
            before = resident()
    growth = resident() - before
    names = len({call.name for call in calls})
    print(f"{done} calls of {names} functions, seed {options.seed}: {before} kB, then {growth:+d} kB; "
          f"{time.perf_counter() - start:.0f} s")  # fmt: skip
    return 1 if growth > MOST else 0


if __name__ == "__main__":
    sys.exit(main())
