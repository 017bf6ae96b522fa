"""Whether the tests see faults: ``python tests/mutation --mutants 300 --seed 0``.

Each mutant is compiled into a copy of the extension module (faulty.py), with which the quick suite (quick.py) must
fail, crash or hang. Faults that the compiler refuses are replaced by others. ``--classic`` takes those that were
written by hand instead. Survivors are shown; those that are known to change nothing are listed in equivalent.py.
"""

import argparse
import collections
import itertools
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from classic import CLASSIC
from equivalent import EQUIVALENT
from faulty import Builder, verdict
from mutants import FOLDERS, generated


def judged(builder, number, fault):
    """What became of a fault, told as soon as it is known."""
    name, headers, folder, key = fault
    what, how = verdict(builder, number, headers, folder)
    if what == "survived" and key in EQUIVALENT:
        what, how = "equivalent", EQUIVALENT[key]
    if what != "not compiled":
        print(f"{what:10s} {name}  {how}", flush=True)
    return what


def main():
    parser = argparse.ArgumentParser(prog="python tests/mutation", description=__doc__.split("\n")[0])
    parser.add_argument("--mutants", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="part of a header's name")
    parser.add_argument("--classic", action="store_true", help="the faults that were written by hand")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as executor:
        builder = Builder(folder)
        suites = list(executor.map(lambda name: verdict(builder, name, {}, name), FOLDERS))
        if any(what != "survived" for what, _ in suites):
            print(f"the quick suite fails without a fault: {suites}")
            return 2
        if options.classic:
            faults = [(one.name, one.headers(), one.folder, None) for one in CLASSIC]
        else:
            every = generated(10**6, options.seed, options.only)
            faults = [(str(one), {one.file: one.source()}, one.file.split("/")[0], one.key) for one in every]
        counts, survivors, wanted = dict.fromkeys(("killed", "survived", "equivalent", "not compiled"), 0), [], 0
        goal, running = len(faults) if options.classic else options.mutants, collections.deque()
        numbered = enumerate(faults)
        while wanted < goal:
            for number, fault in itertools.islice(numbered, min(64, goal - wanted) - len(running)):
                running.append((fault[0], executor.submit(judged, builder, number, fault)))
            if not running:
                break
            name, future = running.popleft()  # in their order, so that the same ones are counted every time
            what = future.result()
            counts[what] += 1
            wanted += what != "not compiled"
            survivors += [name] if what == "survived" else []
    told = ", ".join(f"{count} {what}" for what, count in counts.items())
    print(f"{told}; seed {options.seed}, {time.perf_counter() - start:.0f} s")
    for name in survivors:
        print(f"survived: {name}")
    return 1 if options.classic and survivors else 0


sys.exit(main())
