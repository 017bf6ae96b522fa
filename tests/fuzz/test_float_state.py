"""The caller's floating-point mode is the same after every call, in every thread, and results do not depend on it."""

import ctypes
import platform
import subprocess
import textwrap

import pytest
from children import LINUX, run
from compiled import COMPILER
from fuzz_calls import drawn
from fuzz_results import parts
from places import KERNELS, SUPPORT

SEED, CALLS = 5, 80
FUZZ = SUPPORT.parent / "fuzz"
# MXCSR: its control bits, and modes. 0x1f80 rounds to nearest, keeps denormals and traps nothing.
CONTROL, USUAL = 0xFFC0, 0x1F80
MODES = {"usual": USUAL, "flushing": 0x9FC0, "down": 0x3F80, "up": 0x5F80, "to zero": 0x7F80, "denormals": 0x1FC0}
TRAPPING = USUAL & ~(0x80 | 0x200 | 0x400)  # as after feenableexcept(FE_INVALID | FE_DIVBYZERO | FE_OVERFLOW)


pytestmark = pytest.mark.skipif(not LINUX or platform.machine() != "x86_64", reason="reads MXCSR in Linux's way")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    path = tmp_path_factory.mktemp("states") / "float_states.so"
    flags = ["-std=c++17", f"-I{KERNELS}", "-O1", "-shared", "-fPIC"]
    subprocess.run([*COMPILER, *flags, SUPPORT / "float_states.cpp", "-o", path], check=True)
    return path


@pytest.fixture(scope="module")
def states(library):
    loaded = ctypes.CDLL(str(library))
    loaded.state.restype = loaded.state_of.restype = ctypes.c_uint64
    loaded.set_state.argtypes = (ctypes.c_uint64,)
    return loaded


@pytest.fixture(scope="module")
def calls():
    """Random calls, and the bits that they give; no results of NumPy among them, which rounds as the mode says."""
    made = [call for call in (drawn(SEED, index) for index in range(CALLS)) if "float64" not in call.details]
    return [call for call in made if call.name.startswith(("conv", "linear", "grad_bias", "compress", "masks"))]


def in_mode(states, mode, work):
    """What it gives if it is called in a mode, and the mode afterwards."""
    states.set_state(mode)
    try:
        result = work()
        return result, states.state() & CONTROL
    finally:
        states.set_state(USUAL)


@pytest.mark.parametrize("mode", MODES)
def test_modes_stay(isa, states, calls, mode):
    """Denormals, rounding and traps of the caller; and no bit of a result is another one, on one thread or several."""
    for number, call in enumerate(calls):
        expected = [part.tobytes() for part in parts(call.run(1))]
        for threads in (1, 4):
            result, after = in_mode(states, MODES[mode], lambda call=call, threads=threads: call.run(threads))
            assert after == MODES[mode] & CONTROL, f"{number}: {call}"
            assert [part.tobytes() for part in parts(result)] == expected, f"{number}: {call}"


PRELUDE = f"""
import ctypes, os, signal, sys, threading, time
sys.path[:0] = {[str(SUPPORT), str(FUZZ)]}
import numpy as np
import sparseconv as sc
from fuzz_calls import drawn

USUAL, CONTROL = {USUAL}, {CONTROL}

def load(path):
    global states
    states = ctypes.CDLL(path)
    states.state.restype = states.state_of.restype = ctypes.c_uint64
    states.set_state.argtypes = (ctypes.c_uint64,)

def others():
    # modes of all threads but this one
    tasks = [int(task) for task in os.listdir("/proc/self/task") if int(task) != threading.get_native_id()]
    return [states.state_of(task) & CONTROL for task in tasks]

def all_usual():
    # threads that have been joined are still there for a moment; in all others nothing changes between calls
    for _ in range(100):
        modes = others()
        if set(modes) == {{USUAL}} and len(modes) >= 3:
            return True
        time.sleep(0.02)
    return False
"""


def child(library, code, **options):
    return run(f"load({str(library)!r})\n" + textwrap.dedent(code), prelude=PRELUDE, **options)


def test_threads_of_the_pool(library):
    """Theirs is the usual one between calls, whatever that of the callers is; callers keep their own."""
    child(
        library,
        f"""
        calls = [call for call in (drawn({SEED}, index) for index in range(60)) if "float64" not in call.details]
        x, w = np.ones((8, 32, 20, 20), np.float32), np.ones((32, 32, 3, 3), np.float32)
        def start():  # four threads
            sc.conv2d(x, w, num_threads=4)
        start()
        for call in calls:
            call.run(4)
        assert all_usual(), others()

        wrong = []
        def work(mode):
            states.set_state(mode)
            start()
            for call in (drawn({SEED}, index) for index in range(30)):
                call.run(3)
                if states.state() & CONTROL != mode:
                    wrong.append(str(call))
        modes = {list(MODES.values())}
        threads = [threading.Thread(target=work, args=(mode,)) for mode in modes]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert not wrong, wrong
        assert all_usual(), others()
        """,
        SPARSECONV_NUM_THREADS="4",
    )


def test_a_wrong_mode_is_seen(library):
    """Of another thread, too."""
    child(
        library,
        """
        ready, done = threading.Event(), threading.Event()
        def wait():
            states.set_state(0x9fc0)
            ready.set()
            done.wait()
        thread = threading.Thread(target=wait)
        thread.start()
        ready.wait()
        assert 0x9fc0 in others()
        done.set()
        thread.join()
        """,
    )


def test_traps(library):
    """A caller that traps invalid operations and overflow gets no trap from kernels, which do them all the time."""
    child(
        library,
        f"""
        x = np.full((2, 24, 9, 9), 3e38, np.float32)
        x[:, ::2] = np.inf
        x[:, :, ::2] = 0
        w = np.full((24, 24, 3, 3), -2, np.float32)
        w[::2, :, 1] = 0
        y = sc.conv2d(x, w)
        for isa in sc.cpu.available_isas():
            with sc.cpu.use_isa(isa):
                for threads in (1, 4):
                    for call in (
                        lambda: sc.conv2d(x, w, skip="none", num_threads=threads),
                        lambda: sc.conv2d(x, w, skip="input", num_threads=threads),
                        lambda: sc.conv2d_backward_data(y, w, x.shape, skip="none", num_threads=threads),
                        lambda: sc.conv2d_backward_weight(x, y, 3, skip="none", num_threads=threads),
                        lambda: sc.grad_bias(x, num_threads=threads),
                    ):
                        call()
                        states.set_state({TRAPPING})
                        call()
                        after = states.state()
                        states.set_state(USUAL)
                        assert after & CONTROL == {TRAPPING}
        """,
    )


def test_a_trap_ends_a_process(library):
    """The one above can fail."""
    with pytest.raises(AssertionError, match="exit code -8"):
        child(library, f"states.set_state({TRAPPING}); np.float32(np.inf) - np.array([np.inf], np.float32)")


def test_ends_by_exceptions(library):
    """Of signal handlers, in the middle of a call."""
    child(
        library,
        """
        one = np.ones((1, 64, 40, 40), np.float32)
        states.set_state(0x3f80)  # threads of the pool inherit it when they begin
        sc.conv2d(one, np.ones((64, 64, 3, 3), np.float32), num_threads=4)
        states.set_state(USUAL)
        x = np.broadcast_to(one, (3000, *one.shape[1:]))

        def stop(*_):
            assert states.state() & CONTROL == 0x5f80
            raise KeyError("stop")

        for threads in (1, 4):
            signal.signal(signal.SIGALRM, stop)
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            states.set_state(0x5f80)
            try:
                sc.conv2d_backward_weight(x, x, 3, padding=1, num_threads=threads)
                after = 0
            except KeyError:
                after = states.state()
            states.set_state(USUAL)
            assert after & CONTROL == 0x5f80, hex(after)
        assert all_usual(), others()
        """,
    )


@pytest.mark.parametrize("runtime", ["compiler", "torch"])
def test_threads_of_openmp(library, runtime, tmp_path):
    """A team that calls borrow gets its threads back as they were."""
    if runtime == "torch":
        pytest.importorskip("torch")
        bring = "import torch; torch.set_num_threads(4); torch.ones(1000, 1000) @ torch.ones(1000, 1000)"
    else:
        path = tmp_path / "uses_openmp.so"
        command = [*COMPILER, "-O1", "-shared", "-fPIC", "-fopenmp", SUPPORT / "real_openmp.cpp", "-o", path]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("the compiler has no OpenMP runtime")
        bring = f"team = ctypes.CDLL({str(path)!r}); team.set_max_threads(4)"
    child(
        library,
        f"""
        {bring}
        sc.cpu.use_threads("openmp")
        x, w = np.ones((8, 32, 20, 20), np.float32), np.ones((32, 32, 3, 3), np.float32)
        for mode in (USUAL, 0x9fc0, 0x5f80):
            for _ in range(20):
                states.set_state(mode)
                sc.conv2d(x, w, num_threads=4)
                after = states.state()
                states.set_state(USUAL)
                assert after & CONTROL == mode
        assert all_usual(), others()
        """,
    )
