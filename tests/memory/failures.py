"""Every allocation made to fail once: ``python tests/memory/failures.py``.

A call runs again and again; each time the next one of its allocations fails (tests/support/failing_memory.cpp), be it
Python's, NumPy's or that of a kernel. Then there is a MemoryError, or what could not be kept is done without and the
result is right; `out` is untouched or complete; and the next call is right. Calls are made warm, and fresh: with empty
caches and in a new thread, whose scratch memory is new.

The process runs with PYTHONMALLOC=malloc, so that Python's small objects count as well. Python 3.11 and NumPy 2.4 do
not survive all of that: their crashes and other exceptions are counted. With ``--compiled`` only those allocations fail
that the package's compiled code makes, itself or by what it calls of Python. Then nothing may be lost either, however
often it fails.
"""

import argparse
import ast
import ctypes
import gc
import itertools
import os
import subprocess
import sys
import tempfile
import threading
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

SUPPORT = Path(__file__).resolve().parents[1] / "support"
sys.path.insert(0, str(SUPPORT))

import numpy as np  # noqa: E402

import sparseconv as sc  # noqa: E402
from sparseconv import masks, pruning  # noqa: E402
from sparseconv._core import caches  # noqa: E402

NEVER = 10**9  # a number that no allocation has
CANARY = np.float32(-7777)
AGAIN, LEAST_OBJECT = 30, 24  # how often a failure is repeated to see what it loses; bytes of the smallest object
# What Python 3.11 and NumPy 2.4 raise, or rather do not, in the place of MemoryError.
ELSEWHERE = (
    (SystemError, "without exception set"),
    (SystemError, "without setting an exception"),
    (RuntimeError, "can't allocate lock"),
)
CRASHED_ELSEWHERE = 78  # tests/support/failing_memory.cpp


def build(folder):
    """The library to be preloaded."""
    from compiled import COMPILER

    path = Path(folder) / "failing_memory.so"
    flags = ["-std=c++17", "-O2", "-fno-exceptions", "-shared", "-fPIC", "-fno-builtin"]
    subprocess.run([*COMPILER, *flags, str(SUPPORT / "failing_memory.cpp"), "-o", str(path)], check=True)
    return path


def environment(library):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SPARSECONV_", "OMP_"))}
    preload = {"LD_PRELOAD": str(library), "FAILING_MEMORY": str(library)}
    return clean | preload | {"PYTHONMALLOC": "malloc", "OPENBLAS_NUM_THREADS": "1"}


def ints(shape, zeros=0.5, seed=0):
    rng = np.random.default_rng((seed, *shape))
    return np.where(rng.random(shape) < zeros, 0, rng.integers(1, 5, shape)).astype(np.float32)


def calls(threads):
    """name -> (call, its `out` or None). Results are tuples of arrays and numbers."""
    x, w, dy = ints((2, 20, 14, 14)), ints((24, 20, 3, 3), 0.1), ints((2, 24, 14, 14))
    pruned, depthwise = ints((24, 20, 3, 3), 0.9), ints((20, 1, 3, 3), 0.1)
    rows, matrix, grads = ints((50, 40)), ints((30, 40), 0.1), ints((50, 30))
    packed, grown = sc.pack_weight(pruned), sc.pack_weight(ints((24, 20, 3, 3), 0.99))
    flat, square = ints((70_000,), 0.3), ints((64, 64), 0)
    compressed, options = sc.compress(ints((3, 50, 100))), {"padding": 1, "num_threads": threads}
    bits = masks.nonzero_mask(x)
    found = {}

    def add(name, function, *arguments, to=None, **keywords):
        """A call that writes to `out`, an array of this shape, or gives a new array."""
        if to is not None:
            keywords["out"] = np.empty(to, np.float32)
        found[name] = (lambda: function(*arguments, **keywords)), keywords.get("out")

    for skip in ("none", "input", "weight"):
        add(f"conv2d {skip}", sc.conv2d, x, w, ints((24,)), skip=skip, activation="relu", to=dy.shape, **options)
    add("conv2d mask", sc.conv2d, x, w, activation="relu", return_mask=True, input_mask=bits, **options)
    add("conv2d new", sc.conv2d, x, w, **options)
    add("conv2d packed", sc.conv2d, x, packed, skip="weight", to=dy.shape, **options)
    add("conv2d depthwise", sc.conv2d, x, depthwise, groups=20, to=x.shape, **options)
    add("conv2d float64", sc.conv2d, x.astype(float), w.astype(float), **options)
    add("conv2d unaligned", sc.conv2d, unaligned(x), w, to=dy.shape, **options)
    for skip in ("none", "grad_output", "weight"):
        add(f"conv2d_backward_data {skip}", sc.conv2d_backward_data, dy, w, x.shape, skip=skip, to=x.shape, **options)
    masked = options | {"skip": "output", "output_mask": x}
    add("conv2d_backward_data output", sc.conv2d_backward_data, dy, w, x.shape, to=x.shape, **masked)
    packing = options | {"skip": "weight"}
    add("conv2d_backward_data packed", sc.conv2d_backward_data, dy, packed, x.shape, to=x.shape, **packing)
    for skip in ("none", "input", "grad_output"):
        add(f"conv2d_backward_weight {skip}", sc.conv2d_backward_weight, x, dy, 3, skip=skip, to=w.shape, **options)
    add("conv2d_backward_weight compressed", sc.conv2d_backward_weight, sc.compress(x), dy, 3, to=w.shape, **options)
    add("conv2d_backward_weight depthwise", sc.conv2d_backward_weight, x, x, (20, 1, 3, 3), groups=20,
        to=depthwise.shape, **options)  # fmt: skip
    add("conv_transpose2d", sc.conv_transpose2d, dy, w, stride=2, to=(2, 20, 27, 27), **options)
    add("conv3d", sc.conv3d, x[:, :, None], w[:, :, None], padding=(0, 1, 1), num_threads=threads)
    add("linear", sc.linear, rows, matrix, to=grads.shape, num_threads=threads)
    add("linear_backward_data", sc.linear_backward_data, grads, matrix, to=rows.shape, num_threads=threads)
    add("linear_backward_weight", sc.linear_backward_weight, rows, grads, to=matrix.shape, num_threads=threads)
    add("grad_bias", sc.grad_bias, dy, to=(24,), num_threads=threads)
    add("plan", lambda: sc.plan("conv2d", x, w, **options).kernel)
    add("pack_weight", lambda: sc.pack_weight(pruned).to_dense())
    add("pack_weight lists", lambda: sc.conv2d(x, sc.pack_weight(pruned), skip="weight", **options))
    add("update", lambda: updated(grown, pruned, x, options))
    add("prepare", lambda: sc.prepare("conv2d", x, w, **options)(x, w))
    add("prepare packed", lambda: sc.prepare("conv2d", x, packed, skip="weight", **options)(x, packed))
    add("capsule", lambda: sc.prepare("conv2d", x, pruned, skip="weight", **options).capsule() is not None)
    prepared = sc.prepare("conv2d", x, w, **options)
    add("prepared", prepared, x, w, to=dy.shape)
    for name in ("nonzero_mask", "density", "vector_density", "relu"):
        add(f"masks.{name}", getattr(masks, name), x)
    add("masks.pack", masks.pack, x != 0)
    add("masks.unpack", masks.unpack, bits, x.shape)
    add("compress", lambda: parts_of(sc.compress(x, num_threads=threads)))
    add("decompress", sc.decompress, compressed, num_threads=threads)
    add("topk_threshold", pruning.topk_threshold, flat, 0.9, num_threads=threads)
    add("topk_mask", pruning.topk_mask, flat, 0.9, num_threads=threads)
    add("nm_mask", pruning.nm_mask, square, 2, 4, num_threads=threads)
    for method in ("exact", "greedy", "entropy"):
        add(f"transposable {method}", pruning.transposable_nm_mask, square, 2, 4, method, num_threads=threads)
    add("stochastic_prune", lambda: pruning.stochastic_prune(flat, 0.9, rng=1, num_threads=threads).array)
    return found


def unaligned(array):
    view = np.ndarray(array.shape, array.dtype, bytearray(array.nbytes + 8), offset=1)
    view[...] = array
    return view


def updated(packed, weight, x, options):
    """A packed weight whose lists grow: a call after a failed update must not see a mixture."""
    packed.update(np.zeros_like(weight))
    packed.update(weight)
    return sc.conv2d(x, packed, skip="weight", **options)


def parts_of(compressed):
    return compressed.bits, compressed.values, compressed.offsets


def as_bytes(result):
    return [np.ascontiguousarray(part).tobytes() for part in (result if isinstance(result, tuple) else (result,))]


@dataclass
class Found:
    """What failures of a call came to."""

    ends: Counter = field(default_factory=Counter)
    wrong: list = field(default_factory=list)

    @property
    def failed(self):
        return self.ends.total()


class Sweep:
    """The failures of one call, one after the other, in a child process: from where the last one crashed."""

    def __init__(self, memory, name, call, out, fresh, compiled=False):
        self.memory, self.name, self.call, self.out = memory, name, call, out
        self.fresh, self.compiled = fresh, compiled
        self.expected = as_bytes(call())

    def run(self, step=1):
        """All of them, or every so many."""
        found, number = Found(), 1 + len(self.name) * 7 % step
        while number:
            receiver, sender = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.close(receiver)
                self.serve(number, step, lambda *told, to=sender: os.write(to, f"{told!r}\n".encode()))
            os.close(sender)
            with os.fdopen(receiver) as pipe:
                told = [ast.literal_eval(line) for line in pipe]
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            number = told[-1][0]
            for _, end, wrong in (one for one in told if len(one) == 3):
                found.ends[end] += bool(end)
                found.wrong += wrong
            if code == 0:
                break
            found.ends["crash of Python or NumPy"] += code == CRASHED_ELSEWHERE
            if code != CRASHED_ELSEWHERE:
                found.wrong.append(f"{self.name}, allocation {number}: exit code {code}")
            number += step
        return found

    def serve(self, number, step, tell):
        """In the child: says which is next, and then what it came to."""
        code = 1
        try:
            gc.collect()
            gc.freeze()
            self.memory.tell_crashes()
            threading.excepthook = sys.unraisablehook = lambda told: self.ignored.append(told.exc_type)
            self.ignored = []
            self.call()
            while True:
                tell(number)
                end, wrong = self.fail(number)
                if end or wrong:
                    tell(number, end, wrong)
                if not end:
                    break
                number += step
            code = 0
        except BaseException as error:
            tell(number, "", [f"{self.name}, allocation {number}: {type(error).__name__}: {error}"])
            tell(number)
        finally:
            os._exit(code)

    def fail(self, number):
        """With allocation `number` failing: how that ended, "" where there are not so many; and what was wrong."""
        outcome = self.once(number)
        end, wrong = outcome
        if end and self.compiled and not self.fresh:  # what is lost again and again
            for _ in range(10):  # until Python's own memory grows no more
                lost = self.lost(number) // AGAIN
                if lost >= LEAST_OBJECT:
                    lost -= self.lost(NEVER) // AGAIN
                if lost < LEAST_OBJECT:
                    break
            else:
                wrong.append(f"{self.name}, allocation {number}: {lost} bytes are lost by each failure")
        return end, wrong

    def lost(self, number):
        """How many bytes more there are after some equal failures."""
        gc.collect()
        before = self.memory.live_bytes()
        for _ in range(AGAIN):
            self.once(number)
        gc.collect()
        return self.memory.live_bytes() - before

    def once(self, number):
        if self.fresh:
            caches.empty()
        if self.out is not None:
            self.out[...] = CANARY
        outcome, wrong = [], []
        if self.fresh:
            thread = threading.Thread(target=self.attempt, args=(number, outcome))
            thread.start()
            thread.join()
        else:
            self.attempt(number, outcome)
        count, error, result = outcome
        where, end = f"{self.name}, allocation {number} of {count}", ""
        if error is None:
            end = "done without" if count >= number else ""
            if result != self.expected:
                wrong.append(f"{where}: another result")
        elif isinstance(error, MemoryError) and count >= number:
            end = "MemoryError"
            if self.out is not None and not (self.out == CANARY).all() and as_bytes(self.out) != self.expected:
                wrong.append(f"{where}: out is neither untouched nor complete")
        elif any(isinstance(error, kind) and text in str(error) for kind, text in ELSEWHERE) and count >= number:
            end = "another exception of Python or NumPy"
        else:
            end = type(error).__name__
            wrong.append(f"{where}: {type(error).__name__}: {error}")
        if as_bytes(self.call()) != self.expected:
            wrong.append(f"{where}: the next call is wrong")
        wrong += [f"{where}: ignored {kind.__name__}" for kind in self.ignored if kind is not MemoryError]
        self.ignored.clear()
        return end, wrong

    def attempt(self, number, outcome):
        error = result = None
        call, begin, end = self.call, self.memory.begin, self.memory.end
        begin(number)
        try:
            result = call()
        except BaseException as caught:
            error = caught
        count = end()
        if error is not None:
            traceback.clear_frames(error.__traceback__)
            error = error.with_traceback(None)
        outcome += [count, error, None if error else as_bytes(result)]


def code_of(library):
    """Where the code of a loaded library lies."""
    found = []
    with open("/proc/self/maps") as file:
        for line in file:
            span, rights, *_, path = line.split(maxsplit=5) if len(line.split()) > 5 else (*line.split(), "")
            if path.strip() == library and "x" in rights:
                found += [int(end, 16) for end in span.split("-")]
    return min(found), max(found)


def load():
    memory = ctypes.CDLL(os.environ["FAILING_MEMORY"])
    memory.begin.argtypes, memory.only.argtypes = (ctypes.c_long,), (ctypes.c_size_t, ctypes.c_size_t)
    memory.end.restype = memory.live_bytes.restype = ctypes.c_long
    memory.failed_site.restype = ctypes.c_size_t
    return memory


def compiled():
    """Names and code of the package's modules."""
    from sparseconv._core import _conv, _cpu, _masks, _prepared, _pruning, _weights

    return {module.__name__: code_of(module.__file__) for module in (_conv, _cpu, _masks, _prepared, _pruning,
                                                                      _weights)}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--step", type=int, default=1, help="only every so many allocations of fresh calls")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--calls", nargs="+", default=[""], help="words that names of calls contain")
    parser.add_argument("--kinds", nargs="+", default=["warm", "fresh"], choices=["warm", "fresh"])
    parser.add_argument("--compiled", action="store_true", help="only allocations of compiled code, module by module")
    parser.add_argument("--quiet", action="store_true", help="only what is wrong, and the sums")
    options = parser.parse_args()
    if "FAILING_MEMORY" not in os.environ:
        with tempfile.TemporaryDirectory() as folder:
            return subprocess.run([sys.executable, *sys.argv], env=environment(build(folder))).returncode
    memory, totals, wrong = load(), Counter(), 0
    codes = compiled() if options.compiled else {"": (0, 0)}
    for threads, kind in itertools.product(options.threads, options.kinds):
        for name, (call, out) in calls(threads).items():
            if not any(word in name for word in options.calls):
                continue
            for module, code in codes.items():
                memory.only(*code)
                fresh = kind == "fresh"
                found = Sweep(memory, name, call, out, fresh, options.compiled).run(options.step if fresh else 1)
                memory.only(0, 0)
                totals += found.ends
                wrong += len(found.wrong)
                if found.failed and not options.quiet:
                    print(f"{name}, {threads} threads, {kind} {module}: {dict(found.ends)}", flush=True)
                for text in found.wrong[:20]:
                    print(f"    {text}", flush=True)
    print(f"{totals.total()} failures of allocations in {len(calls(1))} calls: {dict(totals)}; {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
