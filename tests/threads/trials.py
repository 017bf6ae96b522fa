"""What threads and processes must stand, for as long as it is wanted: `pytest` tries it shortly, `python tests/threads`
as long as docs/reliability.md says. Each function runs in child processes, and returns what it has seen in few words.
"""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
from pathlib import Path

from children import PRELUDE, run
from places import SUPPORT

COMPILER = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")

# Calls of every kind that are worth several threads: (call with a number of threads, bits of its serial result).
CALLS = """
def floats(shape, seed, sparsity=0.5):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < sparsity, 0, rng.standard_normal(shape)).astype(np.float32)

x, w, g, bias = floats((2, 20, 12, 12), 1), floats((33, 20, 3, 3), 2, 0.1), floats((2, 33, 12, 12), 3), floats(33, 4)
rows, matrix, steps = floats((60, 64), 5), floats((48, 64), 6, 0), floats((60, 48), 7)
few, needed = floats(w.shape, 8, 0.95), floats(x.shape, 9)
KINDS = {
    "forward, input": lambda **n: sc.conv2d(x, w, bias, padding=1, activation="relu", skip="input", **n),
    "forward, weight": lambda **n: sc.conv2d(x, few, padding=1, skip="weight", **n),
    "forward, none": lambda **n: sc.conv2d(x, w, padding=1, skip="none", **n),
    "backward_data, grad_output": lambda **n: sc.conv2d_backward_data(
        g, w, x.shape, padding=1, skip="grad_output", **n),
    "backward_data, weight": lambda **n: sc.conv2d_backward_data(g, few, x.shape, padding=1, skip="weight", **n),
    "backward_data, output": lambda **n: sc.conv2d_backward_data(
        g, w, x.shape, padding=1, skip="output", output_mask=needed, **n),
    "backward_weight, input": lambda **n: sc.conv2d_backward_weight(x, g, 3, padding=1, skip="input", **n),
    "backward_weight, none": lambda **n: sc.conv2d_backward_weight(x, g, 3, padding=1, skip="none", **n),
    "transposed": lambda **n: sc.conv_transpose2d(g, w, padding=1, **n),
    "linear": lambda **n: sc.linear(rows, matrix, **n),
    "linear backward_weight": lambda **n: sc.linear_backward_weight(rows, steps, **n),
    "grad_bias": lambda **n: sc.grad_bias(g, **n),
    "compress": lambda **n: sc.compress(x, **n).values,
    "topk": lambda **n: sc.pruning.topk_mask(x, 0.8, **n),
}
SERIAL = {name: call(num_threads=1).tobytes() for name, call in KINDS.items()}
"""


def many_python_threads(isa, calls, interval=0.005, threads=16):
    """Threads that all call at once, each with its own number of workers; `interval` is how often Python switches."""
    lines = run(
        CALLS
        + textwrap.dedent(f"""
        sys.setswitchinterval({interval})
        start, wrong, done = threading.Barrier({threads}), [], []

        def work(seed):
            numbers = np.random.default_rng(seed).integers(1, 5, ({calls}, len(KINDS)))
            start.wait()
            for some in numbers.tolist():
                for count, (name, call) in zip(some, KINDS.items()):
                    if call(num_threads=count).tobytes() != SERIAL[name]:
                        wrong.append(name)
                done.append(len(some))

        workers = [threading.Thread(target=work, args=(seed,)) for seed in range({threads})]
        for one in workers:
            one.start()
        for one in workers:
            one.join()
        assert not wrong, sorted(set(wrong))
        print(len(KINDS), sum(done), sc.cpu.isa())
        """),
        SPARSECONV_ISA=isa,
        timeout=60 + 2 * calls,
    )
    kinds, done, name = lines[-1].split()
    assert int(done) == threads * calls * int(kinds)
    assert name == isa
    return f"{done} calls of {kinds} kinds, bits of serial ones"


def numbers_of_threads(isa, cases, most=16):
    """Random calls (tests/fuzz) with every number of threads."""
    code = f"""
        import sys
        sys.path[:0] = {[str(SUPPORT), str(SUPPORT.parent / "fuzz")]!r}
        from fuzz_calls import drawn
        from fuzz_results import parts
        from sparseconv import cpu
        assert cpu.isa() == {isa!r}
        shared = index = 0
        while shared < {cases}:
            call = drawn(9000, index)
            index += 1
            bits = [one.tobytes() for one in parts(call.run(1))]
            if "conv" not in call.name and "linear" not in call.name:
                continue
            shared += 1
            for count in range(2, {most} + 1):
                again = [one.tobytes() for one in parts(call.run(count))]
                assert again == bits, f"{{count}} threads: --seed 9000 --index {{index - 1}}, {{call}}"
        print(shared)
    """
    lines = run(code, prelude="", SPARSECONV_ISA=isa, timeout=60 + 5 * cases)
    assert int(lines[-1]) == cases
    return f"{cases} random calls, each with 1 to {most} threads: the same bits"


def fork_cycles(cycles):
    """The parent computes, forks, and computes on while the child does; a hang ends the child."""
    run(
        f"""
        expected = passes(1)
        for cycle in range({cycles}):
            threads = 2 + cycle % 4
            assert same(passes(threads), expected)
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)
                os._exit(0 if same(passes(threads), expected) else 3)
            if cycle % 2:
                assert same(passes(threads), expected)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        """,
        timeout=60 + cycles,
    )
    return f"{cycles} forks, no hang, no warning, results right in parent and child"


def forks_during_a_call(forks):
    """Another thread is in the middle of a call each time."""
    lines = run(
        f"""
        import warnings
        if sys.version_info >= (3, 12):  # which says so of any second thread
            warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        expected, stop, right = passes(1), threading.Event(), []
        images = images_for(0.3, 2)
        whole = endless(images, 2)

        def compute():
            while not stop.is_set():
                right.append(np.array_equal(endless(images, 2), whole))

        thread = threading.Thread(target=compute, daemon=True)
        thread.start()
        for fork in range({forks}):
            time.sleep(0.01 * (fork % 7))
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)
                threads_of_its_own = same(passes(2), expected) and (sys.platform != "linux" or tasks() == 2)
                os._exit(0 if threads_of_its_own else 3)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        stop.set()
        thread.join()
        assert all(right)
        print(len(right))
        """,
        timeout=60 + 2 * forks,
    )
    assert int(lines[-1]) > 0
    return f"{forks} forks while {lines[-1]} calls ran, no hang, results right in parent and child"


# How a process may end, or may try to, while threads are in the middle of calls.
ENDINGS = {
    "a daemon thread in one long call": """
        threading.Thread(target=endless, args=(images * 100, 2), daemon=True).start()
        time.sleep(0.1)
    """,
    "a daemon thread in one long call, and modules that take their time": """
        class Slow:
            def __init__(self, sleep):
                self.sleep = sleep
            def __del__(self):
                self.sleep(0.3)
        _slow = Slow(time.sleep)  # goes when Python has begun to end threads that want the GIL
        def forward():
            x = np.broadcast_to(np.ones((1, 14, 14, 256), np.float32), (1000, 14, 14, 256))
            sc.conv2d(x, np.ones((256, 256, 3, 3), np.float32), padding=1, layout="NHWC", skip="none", num_threads=3)
        threading.Thread(target=forward, daemon=True).start()
        time.sleep(0.1)
    """,
    "daemon threads in short calls": """
        def loop(threads):
            while True:
                assert same(passes(threads), expected)
        for threads in (1, 2, 3):
            threading.Thread(target=loop, args=(threads,), daemon=True).start()
        time.sleep(0.1)
    """,
    "a thread that is waited for": """
        def last():
            assert np.array_equal(endless(images, 2), whole)
            print("finished", flush=True)
        threading.Thread(target=last).start()
    """,
    "sys.exit with an executor at work": """
        from concurrent.futures import ThreadPoolExecutor
        executor = ThreadPoolExecutor(3)
        futures = [executor.submit(endless, images, 2) for _ in range(3)]
        time.sleep(0.05)
        sys.exit(0)
    """,
    "calls at exit": """
        import atexit
        class Last:
            def __del__(self):
                assert same(passes(2), expected)
                print("finished", flush=True)
        atexit.register(lambda: (lambda ok: ok or os._exit(3))(same(passes(3), expected)))
        _last = Last()  # names with an underscore go first, while modules are still whole
    """,
    "os._exit": """
        threading.Thread(target=endless, args=(images * 100, 2), daemon=True).start()
        time.sleep(0.05)
        os._exit(0)
    """,
}
FINISHED = {"a thread that is waited for": 1, "calls at exit": 1}


def ending(name):
    """The process ends with exit code 0 and says nothing."""
    code = "\nexpected = passes(1)\nimages = images_for(0.2, 2)\nwhole = endless(images, 2)\n"
    lines = run(code + textwrap.dedent(ENDINGS[name]))
    assert lines == ["finished"] * FINISHED.get(name, 0)
    return "exit code 0"


def library_without_threads(folder):
    """A library to be preloaded, which refuses threads; None where it cannot be built."""
    library = Path(folder) / "libfailing_threads.so"
    if sys.platform != "linux" or not shutil.which(COMPILER[0]):
        return None
    command = [*COMPILER, "-shared", "-fPIC", "-O1", SUPPORT / "failing_threads.c", "-o", library, "-ldl"]
    return library if subprocess.run(command, capture_output=True).returncode == 0 else None


def threads_that_fail(folder):
    """Whatever the number of threads that can be started, calls are right; when they can be again, they are."""
    library = library_without_threads(folder)
    lines = run(
        """
        import ctypes
        shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
        expected = passes(1)
        counts = []
        for left in (0, 1, 3, 0):
            shim.threads_left(left)
            for _ in range(3):
                assert same(passes(8), expected)
            counts.append(tasks())
        pid = os.fork()  # which joins the workers; the child cannot start any
        if pid == 0:
            signal.alarm(20)
            os._exit(0 if same(passes(4), expected) and tasks() == 1 else 3)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert same(passes(8), expected)
        counts.append(tasks())
        shim.threads_left(-1)
        assert same(passes(8), expected)
        counts.append(tasks())
        print(*counts, shim.threads_refused())
        """,
        LD_PRELOAD=str(library),
    )
    *counts, refused = map(int, lines[-1].split())
    assert counts == [1, 2, 5, 5, 1, 8], counts
    assert refused > 10
    return f"pthread_create refused {refused} times: calls right"


def alarms(seconds, hertz=1000):
    """A storm of SIGALRM, whose handler is Python code: in long calls, in short ones, and in those of other threads."""
    lines = run(
        f"""
        expected, seen = passes(1), []
        images = images_for(0.2, 2)
        whole = endless(images, 2)
        caught = []

        def handler(*_):
            seen.append(1)

        def other():
            while not caught or time.perf_counter() < end:
                caught.append(same(passes(2), expected))

        signal.signal(signal.SIGALRM, handler)
        end = time.perf_counter() + {seconds}
        thread = threading.Thread(target=other)
        thread.start()
        signal.setitimer(signal.ITIMER_REAL, 1 / {hertz}, 1 / {hertz})
        calls = 0
        while not calls or time.perf_counter() < end:
            assert np.array_equal(endless(images, 1 + calls % 3), whole)
            for threads in (1, 2, 3):
                assert same(passes(threads), expected)
            calls += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        thread.join()
        assert caught and all(caught)
        assert subnormals_survive()
        print(10 * calls, len(seen))
        """,
        timeout=60 + 10 * seconds,
    )
    calls, seen = map(int, lines[-1].split())
    assert seen  # Python's handlers run between bytecodes, and every 50 ms in a call
    return f"{calls} calls while alarms came {hertz} times a second, {seen} of them handled"


def interrupts(trials, threads):
    """Seconds from Ctrl-C, at any time within a long call, to KeyboardInterrupt: sorted."""
    lines = run(
        f"""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        expected, waited = passes(1), []
        images = images_for(5, {threads})
        for trial in range({trials}):
            pressed, ready = [], threading.Event()

            def press():
                ready.wait()
                time.sleep(0.05 + 0.0037 * (trial % 50))
                pressed.append(time.perf_counter())
                os.kill(os.getpid(), signal.SIGINT)

            thread = threading.Thread(target=press)
            thread.start()
            try:
                ready.set()
                endless(images, {threads})
                raise AssertionError("not interrupted")
            except KeyboardInterrupt:
                waited.append(time.perf_counter() - pressed[0])
            thread.join()
            assert same(passes({threads}), expected)
        print(*waited)
        """,
        timeout=60 + 10 * trials,
    )
    waited = sorted(map(float, lines[-1].split()))
    assert len(waited) == trials
    return waited


def start_methods(method, tasks=20):
    """A pool of processes, whose parent has computed before."""
    main = f"""
    def work(number):
        return float(sum(one.sum() for one in passes(2 + number % 3)))

    if __name__ == "__main__":
        import multiprocessing

        expected = work(0)
        with multiprocessing.get_context({method!r}).Pool(3) as pool:
            assert pool.map(work, range({tasks})) == [expected] * {tasks}
        assert work(1) == expected
    """
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "pool_of_processes.py"
        script.write_text(PRELUDE + textwrap.dedent(main))
        command = [sys.executable, "-W", "error", str(script)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return f"{tasks} tasks in 3 processes"
