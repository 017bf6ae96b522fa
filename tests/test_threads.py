"""The thread pool: forks, many callers, limits, signals, little memory.

What can hang or crash runs in a child process.
"""

import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import threadpoolctl
from helpers import assert_same_bits, sparse_floats, sparse_ints

import sparseconv as sc
from sparseconv import cpu

LINUX = sys.platform == "linux"
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
needs_proc = pytest.mark.skipif(not LINUX, reason="threads are counted in /proc")
SETTINGS = ("SPARSECONV_NUM_THREADS", "OMP_NUM_THREADS", "SPARSECONV_ISA")

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
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1]


# --- fork ---


@needs_fork
@pytest.mark.parametrize("threads", [2, 5])
def test_fork_after_parallel_calls(threads):
    """Parent and child go on as if nothing had happened, also a child's child, again and again."""
    run(f"""
        def exit_code(pid):
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        expected = passes(1)
        for cycle in range(30):
            assert same(passes({threads}), expected)
            pid = os.fork()
            if pid == 0:
                good = same(passes({threads}), expected)
                if good and cycle % 10 == 0:
                    pid = os.fork()
                    if pid == 0:
                        os._exit(0 if same(passes({threads} + 1), expected) else 3)
                    good = exit_code(pid) == 0
                os._exit(0 if good else 3)
            if cycle % 2:
                assert same(passes({threads}), expected)  # while the child works
            assert exit_code(pid) == 0
        assert same(passes({threads}), expected)
    """)


@needs_fork
def test_fork_without_calls():
    """Before the pool exists, and after it was used by one thread only."""
    run("""
        for threads in (None, 1, 4):
            if threads:
                expected = passes(threads)
            pid = os.fork()
            if pid == 0:
                os._exit(0 if same(passes(4), passes(1)) else 3)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    """)


@needs_fork
@needs_proc
def test_workers_are_gone_when_a_process_forks():
    """The child has one thread, and Python sees no reason to warn of threads."""
    run("""
        passes(4)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(write, str(tasks()).encode())
            os._exit(0)
        assert tasks() == 1
        os.waitpid(pid, 0)
        assert os.read(read, 9) == b"1"
        passes(4)
        assert tasks() == 4
    """)


@needs_fork
@pytest.mark.parametrize("where", ["main", "other"])
def test_fork_during_a_call(where):
    """A thread forks while another one computes: both go on, the child computes too, nobody waits for seconds."""
    lines = run(
        f"""
        expected, done = passes(1), []
        images = images_for(0.5, 2)
        endless_expected = endless(images, 2)

        def fork():
            time.sleep(0.2)
            start = time.perf_counter()
            pid = os.fork()
            if pid == 0:
                os._exit(0 if same(passes(2), expected) else 3)
            done.append(time.perf_counter() - start)
            done.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

        def compute():
            done.append(np.array_equal(endless(images, 2), endless_expected))

        first, second = (compute, fork) if {where!r} == "main" else (fork, compute)
        other = threading.Thread(target=second)
        other.start()
        first()
        other.join()
        print(*sorted(done, key=lambda one: isinstance(one, float)))
        """
    )
    code, equal, waited = lines[-1].split()
    assert {code, equal} == {"0", "True"}
    assert float(waited) < 5


@needs_fork
@pytest.mark.parametrize("context", ["fork", "spawn", "forkserver"])
def test_multiprocessing(tmp_path, context):
    script = tmp_path / "pool_of_processes.py"
    main = """
    def work(number):
        return float(sum(one.sum() for one in passes(2 + number)))

    if __name__ == "__main__":
        import multiprocessing

        expected = work(0)
        with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
            assert pool.map(work, range(4)) == [expected] * 4
        assert work(1) == expected
    """
    script.write_text(PRELUDE + textwrap.dedent(main))
    command = [sys.executable, "-W", "error", str(script), context]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


# --- many callers ---


def problems():
    """Calls of every kind and their results with one thread."""
    x, w, bias = sparse_floats((3, 40, 15, 15), 0.5, 1), sparse_floats((33, 40, 3, 3), 0, 2), sparse_floats((33,), 0, 3)
    g = sparse_floats((3, 33, 15, 15), 0.5, 4)
    calls = []
    for threads in (1, 2, 3, 8):
        for call in (
            lambda threads=threads: sc.conv2d(x, w, bias, padding=1, activation="relu", num_threads=threads),
            lambda threads=threads: sc.conv2d_backward_data(g, w, x.shape, padding=1, num_threads=threads),
            lambda threads=threads: sc.conv2d_backward_weight(x, g, 3, padding=1, num_threads=threads),
            lambda threads=threads: sc.grad_bias(g, num_threads=threads),
            lambda threads=threads: sc.linear(x, x[0, 0], num_threads=threads),
        ):
            calls.append((call, call.__defaults__[0]))
    kinds = len(calls) // 4
    serial = [call() for call, _ in calls[:kinds]]
    return [(call, serial[index % kinds]) for index, (call, _) in enumerate(calls)]


def test_many_python_threads():
    """16 threads call at once, each with its own number of workers: every result has the bits of a serial call."""
    calls = problems()
    start = threading.Barrier(16)

    def work(seed):
        start.wait()
        for index in np.random.default_rng(seed).integers(0, len(calls), 25):
            call, expected = calls[index]
            assert_same_bits(call(), expected)
        return True

    with ThreadPoolExecutor(16) as executor:
        assert all(executor.map(work, range(16)))
    for call, expected in calls:
        assert_same_bits(call(), expected)


def test_threads_that_come_and_go():
    """Scratch memory belongs to threads and ends with them."""
    calls, results = problems(), []
    for _ in range(3):
        threads = [
            threading.Thread(target=lambda call=call, expected=expected: results.append((call(), expected)))
            for call, expected in calls
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(results) == 3 * len(calls)
    for result, expected in results:
        assert_same_bits(result, expected)


@pytest.mark.parametrize("count", [7, 64, 1024])
def test_more_threads_than_cores(count):
    """As many as the work is worth; in a process of their own, since workers stay."""
    run(f"""
        rng = np.random.default_rng(0)
        x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((4, 48, 28, 28), (64, 48, 3, 3)))
        serial = sc.conv2d(x, w, padding=1, num_threads=1)
        for _ in range(2):
            again = sc.conv2d(x, w, padding=1, num_threads={count})
            assert again.tobytes() == serial.tobytes()
        assert sc.plan("conv2d", x, w, padding=1, num_threads={count}).threads <= {count}
        assert same(passes(2), passes(1))
    """)


def test_call_inside_a_call():
    """A signal handler runs in the middle of a call, and may call the library itself: both results are right."""
    lines = run("""
        expected, seen = passes(1), []
        images = images_for(0.5, 2)
        whole = endless(images, 2)

        def handler(*_):
            assert subnormals_survive()
            seen.append(same(passes(len(seen) % 3 + 1), expected))

        signal.signal(signal.SIGALRM, handler)
        for threads in (1, 2):
            signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
            again = endless(images, threads)
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert np.array_equal(again, whole)
        assert all(seen)
        assert subnormals_survive()
        print(len(seen))
    """)
    assert int(lines[-1]) >= 2


@needs_fork
def test_fork_inside_a_call():
    """A signal handler may also start a process."""
    run("""
        expected, codes = passes(1), []
        images = images_for(0.5, 2)
        whole = endless(images, 2)

        def handler(*_):
            pid = os.fork()
            if pid == 0:
                os._exit(0 if same(passes(2), expected) else 3)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

        signal.signal(signal.SIGALRM, handler)
        for threads in (1, 2):
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            assert np.array_equal(endless(images, threads), whole)
        assert codes == [0, 0]
        assert same(passes(2), expected)
    """)


# --- the number of threads ---


def test_threadpoolctl():
    def ours():
        return [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "sparseconv"]

    (pool,) = ours()
    assert pool["internal_api"] == "sparseconv"
    assert pool["version"] == sc.__version__
    assert pool["num_threads"] == cpu.num_threads()
    x, w = sparse_ints((2, 32, 20, 20), 0.5, 1), sparse_ints((48, 32, 3, 3), 0, 2)
    before = cpu.num_threads()
    try:
        cpu.set_num_threads(3)
        assert ours()[0]["num_threads"] == 3
        for limits in (1, {"sparseconv": 1}):
            with threadpoolctl.threadpool_limits(limits, user_api=None if isinstance(limits, dict) else "sparseconv"):
                assert cpu.num_threads() == 1
                assert ours()[0]["num_threads"] == 1
                assert sc.plan("conv2d", x, w).threads == 1
                assert sc.plan("conv2d", x, w, num_threads=2).threads == 2  # the argument has the last word
            assert cpu.num_threads() == 3
        with threadpoolctl.threadpool_limits(2):
            assert cpu.num_threads() == 2
        assert cpu.num_threads() == 3
        with threadpoolctl.threadpool_limits(1, user_api="blas"):
            assert cpu.num_threads() == 3
    finally:
        cpu.set_num_threads(before)


def test_set_num_threads():
    before = cpu.num_threads()
    try:
        for count in (1, 5, np.int64(2), 1024):
            cpu.set_num_threads(count)
            assert cpu.num_threads() == count
        for bad, error in ((0, ValueError), (-1, ValueError), (1025, ValueError), (2.0, TypeError), (True, TypeError)):
            with pytest.raises(error, match=f"^num_threads: got {bad}"):
                cpu.set_num_threads(bad)
            assert cpu.num_threads() == 1024
    finally:
        cpu.set_num_threads(before)


@needs_proc
def test_threads_are_started_when_needed():
    """None by the import or by calls of one thread, then one less than asked for, and no more later."""
    counted = "before = len(os.listdir('/proc/self/task'))\n"
    lines = run(
        PRELUDE.replace("import sparseconv", counted + "import sparseconv")
        + textwrap.dedent("""
        print(before, tasks())
        passes(1)
        sc.conv2d(X[:, :, :3, :3], W, num_threads=8)  # too little work to share
        print(tasks())
        passes(3)
        print(tasks())
        passes(3), passes(2), passes(1)
        print(tasks())
        with __import__("threadpoolctl").threadpool_limits(1, user_api="sparseconv"):
            passes(None)
        print(tasks())
        """),
        prelude="",
    )
    assert lines == ["1 1", "1", "3", "3", "3"]


@needs_proc
def test_limit_is_obeyed():
    lines = run("""
        import threadpoolctl
        sc.cpu.set_num_threads(4)
        with threadpoolctl.threadpool_limits(1, user_api="sparseconv"):
            passes(None)
            print(tasks())
        with threadpoolctl.threadpool_limits(2, user_api="sparseconv"):
            passes(None)
            print(tasks())
        passes(None)
        print(tasks())
    """)
    assert lines == ["1", "2", "4"]


COUNT = "from sparseconv import cpu; print(cpu.num_threads())"


@pytest.mark.parametrize(
    "ours, openmp, expected",
    [
        ("3", None, 3), (None, "2", 2), ("3", "2", 3), (" 5 ", None, 5), (None, "4,2", 4), ("7,3", None, 7),
        ("99999", None, 1024), ("", "6", 6), ("2", "many", 2),
    ],
)  # fmt: skip
def test_environment(ours, openmp, expected):
    given = {"SPARSECONV_NUM_THREADS": ours, "OMP_NUM_THREADS": openmp}
    lines = run(COUNT, prelude="", **{name: value for name, value in given.items() if value is not None})
    assert lines == [str(expected)]


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", "0x2", "1e1"])
def test_bad_environment(value):
    code = f"""
        import os
        os.environ["SPARSECONV_NUM_THREADS"] = {value!r}
        try:
            import sparseconv
        except ValueError as error:
            print(error)
    """
    assert run(code, prelude="") == [f"SPARSECONV_NUM_THREADS: got {value!r}, expected a whole number of at least 1"]


@pytest.mark.parametrize("value", ["", "0", "many", "-3"])
def test_bad_environment_of_others_is_ignored(value):
    """OMP_NUM_THREADS is not our variable: whatever it holds, we start."""
    assert run(COUNT, prelude="", OMP_NUM_THREADS=value) == run(COUNT, prelude="")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no CPU affinity on this system")
def test_affinity():
    """A process that may use one CPU uses one thread."""
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); " + COUNT
    assert run(code, prelude="") == ["1"]
    assert 1 <= int(run(COUNT, prelude="")[0]) <= len(os.sched_getaffinity(0))


# --- signals ---

INTERRUPT = """
def interrupted(call):
    # seconds from a Ctrl-C to the KeyboardInterrupt that it raises, None if the call ended before
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

signal.signal(signal.SIGINT, signal.default_int_handler)
expected = passes(1)
"""


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", cpu.available_isas())
def test_interrupt_of_backward_weight(name, threads):
    """Ctrl-C ends a call of many seconds soon, with the usual exception; the next call is right."""
    lines = run(
        INTERRUPT
        + textwrap.dedent(f"""
        images = images_for(20, {threads})
        print(interrupted(lambda: endless(images, {threads})))
        assert same(passes({threads}), expected)
        assert subnormals_survive()
        """),
        SPARSECONV_ISA=name,
    )
    assert float(lines[-1]) < 2


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("skip", ["none", "input"])
def test_interrupt_of_forward(threads, skip):
    """`out` may be partly written then."""
    lines = run(
        INTERRUPT
        + textwrap.dedent(f"""
        # a channel again and again; the packed weights are what takes memory
        x = np.broadcast_to(ints((1, 1, 64, 64), 5), (4, 4096, 64, 64))
        w = np.broadcast_to(ints((1, 1, 5, 5), 6), (512, 4096, 5, 5))
        out = np.zeros((4, 512, 60, 60), np.float32)

        def call():
            while True:
                sc.conv2d(x, w, skip={skip!r}, num_threads={threads}, out=out)

        print(interrupted(call))
        assert same(passes({threads}), expected)
        assert subnormals_survive()
        """)
    )
    assert float(lines[-1]) < 2


def test_interrupt_of_grad_bias():
    lines = run(
        INTERRUPT
        + textwrap.dedent("""
        g = np.broadcast_to(G[:1, :32], (2_000_000, 32, 20, 20))  # 100 GB to add up
        print(interrupted(lambda: sc.grad_bias(g)))
        """)
    )
    assert float(lines[-1]) < 2


def test_exception_of_a_handler_ends_the_call():
    """Any handler's exception does, unchanged; a handler without one does not, and the result is right."""
    run("""
        images = images_for(0.5, 2)
        whole = endless(images, 2)
        seen = []
        signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
        signal.setitimer(signal.ITIMER_REAL, 0.03, 0.03)
        assert np.array_equal(endless(images, 2), whole)
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert seen

        class Stop(Exception):
            pass

        def stop(*_):
            raise Stop("now")

        signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        try:
            endless(images * 20, 2)
        except Stop as error:
            assert str(error) == "now"
        else:
            raise AssertionError("the call went on to its end")
        assert np.array_equal(endless(images, 2), whole)
    """)


def test_interrupt_is_of_the_main_thread():
    """A call in another thread goes on to its right end when the main thread is interrupted."""
    run("""
        images = images_for(0.5, 2)
        whole = endless(images, 2)
        results = []
        thread = threading.Thread(target=lambda: results.append(endless(images, 2)))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        thread.start()
        try:
            time.sleep(10)
            raise AssertionError("not interrupted")
        except KeyboardInterrupt:
            pass
        thread.join()
        assert np.array_equal(results[0], whole)
    """)


# --- the GIL, memory ---


def test_gil_is_released():
    """Another Python thread goes on while a call computes."""
    lines = run("""
        images = images_for(0.5, 1)
        ticks, stop = [], threading.Event()

        def tick():
            while not stop.is_set():
                ticks.append(time.perf_counter())
                time.sleep(0.005)

        thread = threading.Thread(target=tick)
        thread.start()
        start = time.perf_counter()
        endless(images, 1)
        end = time.perf_counter()
        stop.set()
        thread.join()
        print(end - start, sum(start < one < end for one in ticks))
    """)
    seconds, ticks = map(float, lines[-1].split())
    assert ticks >= 5 * seconds  # of some 200 a second


LIMIT = """
import resource

def limit(room):
    # room in bytes beyond what is in use
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + room, before[1]))

def no_limit():
    resource.setrlimit(resource.RLIMIT_AS, before)

before = resource.getrlimit(resource.RLIMIT_AS)
expected = passes(1)
"""
needs_limits = pytest.mark.skipif(not LINUX, reason="memory is limited with RLIMIT_AS")


@needs_limits
@pytest.mark.parametrize("threads", [1, 2])
def test_too_little_memory(threads):
    """MemoryError where scratch memory does not fit; `out` is not written, the next call is right."""
    run(
        LIMIT
        + textwrap.dedent(f"""
        # the same channel again and again: inputs take little memory, but the packed copy of a chunk does
        one, w = ints((1, 1, 34, 34), 5), ints((16, 1, 3, 3), 6)
        x, many = np.broadcast_to(one, (1, 16384, 34, 34)), np.broadcast_to(w, (16, 16384, 3, 3))
        result = sc.conv2d(one, w) * 16384
        assert sc.plan("conv2d", x, many, num_threads={threads}).scratch_bytes >= 32 * 2**20
        out = np.zeros((1, 16, 32, 32), np.float32)
        limit(8 * 2**20)
        for _ in range(3):
            try:
                sc.conv2d(x, many, num_threads={threads}, out=out)
                raise AssertionError("there is no memory for that")
            except MemoryError as error:
                assert "scratch" in str(error)
        assert not out.any()
        assert same(passes({threads}), expected)  # also where no worker can be started
        no_limit()
        assert np.array_equal(sc.conv2d(x, many, num_threads={threads}, out=out), result)
        assert subnormals_survive()
        """)
    )


@needs_limits
def test_any_limit_of_memory():
    """At every limit a call works or raises MemoryError."""
    lines = run(
        LIMIT
        + textwrap.dedent("""
        x, w = ints((4, 256, 14, 14), 5), np.ones((256, 256, 3, 3), np.float32)
        g, outcomes = ints((4, 256, 14, 14), 6), set()
        calls = (
            lambda threads: sc.conv2d(x, w, padding=1, num_threads=threads),
            lambda threads: sc.conv2d_backward_weight(x, g, 3, padding=1, num_threads=threads),
        )
        for kilobytes in (0, 64, 256, 1000, 2000, 3000, 4000, 6000, 9000, 12000, 20000, 40000):
            pid = os.fork()  # each with no memory kept from the last one
            if pid == 0:
                limit(kilobytes * 1024)
                done = 0
                for call in calls:
                    for threads in (1, 3):
                        try:
                            call(threads)
                            done += 1
                        except MemoryError:
                            pass
                no_limit()
                os._exit(done if same(passes(3), expected) else 99)
            outcomes.add(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        print(*sorted(outcomes))
        """),
        MALLOC_MMAP_THRESHOLD_="65536",  # freed memory goes back to the system
    )
    outcomes = [int(one) for one in lines[0].split()]
    assert set(outcomes) <= set(range(5))
    assert len(outcomes) > 1, "no limit made a difference"
