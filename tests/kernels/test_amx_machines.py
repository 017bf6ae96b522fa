"""AMX in the real world: machines, systems and processes that have no tile registers, or do not get them.

What a machine answers is injected (tests/support/amx_machine.cpp). Processes are real ones: where there is AMX, they
show that calls fall back or work; elsewhere, that none of it does harm.
"""

import os
import platform
import shutil
import subprocess
import sys
import textwrap

import pytest
from children import LINUX, PRELUDE, needs_fork, run
from compiled import COMPILER
from places import KERNELS, SUPPORT
from simulated import HAS_AMX

from sparseconv import cpu
from sparseconv._core import _cpu

REAL_ISAS = [name for name in cpu.available_isas() if not name.startswith("amx") or HAS_AMX]

pytestmark = pytest.mark.skipif(
    not LINUX or platform.machine() != "x86_64" or "amx" not in _cpu.compiled(), reason="AMX is used on Linux, x86-64"
)


# --- what a machine answers ---


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """Runs the driver; returns the instruction sets that are offered, requests to Linux, products tried."""
    if not shutil.which(COMPILER[0]):
        pytest.skip("needs a C++ compiler")
    program = tmp_path_factory.mktemp("machine") / "amx_machine"
    flags = ["-std=c++17", f"-I{KERNELS}", f"-I{KERNELS.parent / 'include'}", f"-I{KERNELS.parent}", "-O1", "-pthread"]
    done = subprocess.run(
        [*COMPILER, *flags, SUPPORT / "amx_machine.cpp", "-o", program], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr

    def answers(*arguments):
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, done
        *names, requests, products = done.stdout.split()
        return names, int(requests), int(products)

    return answers


VECTORS = ["avx512", "avx2", "scalar"]


def test_a_machine_with_amx(machine):
    """It is asked for once, and only where all else is there."""
    assert machine() == (["amx", *VECTORS], 1, 1)
    assert machine("threads=8") == (["amx", *VECTORS], 1, 1)


@pytest.mark.parametrize(
    "answer",
    [
        "tile=0", "bf16=0",  # another CPU, or a hypervisor or debugger that hides it
        "osxsave=0", "xcr0=0xe7", "xcr0=0x200e7", "xcr0=0x400e7",  # the system does not save the registers
    ],
)  # fmt: skip
def test_a_machine_without_amx(machine, answer):
    """Linux is not asked."""
    assert machine(answer) == (VECTORS, 0, 0)


def test_a_machine_without_avx512(machine):
    assert machine("avx512=0") == (["avx2", "scalar"], 0, 0)


@pytest.mark.parametrize(
    "error",
    [
        1,  # EPERM: a container's filter
        22,  # EINVAL: Linux before 5.16
        28,  # ENOSPC: a thread's signal stack is too small
        38,  # ENOSYS: a sandbox
        95,  # EOPNOTSUPP
    ],
)
@pytest.mark.parametrize("threads", [1, 8])
def test_a_permission_that_is_refused(machine, error, threads):
    """The registers are never touched then: that would end the process."""
    assert machine(f"error={error}", f"threads={threads}") == (VECTORS, 1, 0)


def test_registers_that_compute_nonsense(machine):
    assert machine("works=0") == (VECTORS, 1, 1)
    assert machine("works=0", "fp16=1") == machine("works=0", "named=1") == (VECTORS, 1, 1)


def test_a_machine_with_amx_fp16(machine):
    """Its product is tried once, after that of bf16."""
    assert machine("fp16=1") == (["amx_fp16", "amx", *VECTORS], 1, 2)
    assert machine("fp16=1", "threads=8") == (["amx_fp16", "amx", *VECTORS], 1, 2)
    assert machine("fp16=1", "error=1") == (VECTORS, 1, 0)
    assert machine("fp16=1", "tile=0") == (VECTORS, 0, 0)


def test_amx_fp16_that_is_hidden(machine):
    """Nothing is tried before somebody names it."""
    assert machine("fp16=0") == (["amx", *VECTORS], 1, 1)
    assert machine("named=1") == (["amx_fp16", "amx", *VECTORS], 1, 2)
    assert machine("named=1", "threads=8") == (["amx_fp16", "amx", *VECTORS], 1, 2)
    assert machine("named=1", "bf16=0") == (VECTORS, 0, 0)


@pytest.mark.parametrize("who", ["fp16=1", "named=1"])
@pytest.mark.parametrize("threads", [1, 8])
def test_amx_fp16_that_is_not_there(machine, who, threads):
    """Whether the CPU tells of it or not: an illegal instruction is skipped, though the signal was blocked.

    The driver executes the instruction without registers, which is illegal on every CPU, and fails if the signal's
    handler or the mask of blocked signals is another one afterwards.
    """
    assert machine(who, "illegal=1", f"threads={threads}") == (["amx", *VECTORS], 1, 2)
    assert machine(who, "fp16_works=0", f"threads={threads}") == (["amx", *VECTORS], 1, 2)


def test_other_illegal_instructions(machine):
    """They go to the handler that the program has, which the driver counts."""
    assert machine("fp16=1", "other=1") == (["amx_fp16", "amx", *VECTORS], 1, 2)
    assert machine("named=1", "other=1", "illegal=1") == (["amx", *VECTORS], 1, 2)


# --- processes ---

# The same calls as in other children, with tile registers if there are any, and what Linux says of them.
CALLS = """
import ctypes

def request():
    # 0, or the number of the error with which Linux refuses the tile registers
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.syscall(158, 0x1023, 18) and ctypes.get_errno()

def check():
    # calls with skip="none", which tile registers compute, give what NumPy gives
    dense = sc.conv2d(X, W, padding=1, skip="none", num_threads=2)
    assert np.array_equal(dense, sc.reference.conv2d(X, W, padding=1))
    assert same(passes(2), passes(1))
"""
WITHOUT_IMPORT = PRELUDE.replace("import sparseconv as sc\n", "") + CALLS


def child(code, before="", **options):
    """Lines of a child that runs `before` before it imports the package."""
    assert "import sparseconv as sc" not in WITHOUT_IMPORT
    code = textwrap.dedent(before) + "\nimport sparseconv as sc\n" + textwrap.dedent(code)
    return run(WITHOUT_IMPORT + code, prelude="", **options)


FILTER = """
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]

def refuse():
    # seccomp: arch_prctl(0x1023, ...) is not permitted (EPERM), all else is
    lines = [
        (0x20, 0, 0, 0), (0x15, 0, 3, 158), (0x20, 0, 0, 16), (0x15, 0, 1, 0x1023), (0x06, 0, 0, 0x50001),
        (0x06, 0, 0, 0x7FFF0000),
    ]
    code = b"".join(op.to_bytes(2, "little") + bytes([yes, no]) + k.to_bytes(4, "little") for op, yes, no, k in lines)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = Program(len(lines), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    if libc.prctl(22, 2, ctypes.byref(program), 0, 0):  # PR_SET_SECCOMP
        print("no filters")
        sys.exit()

refuse()
"""


def test_a_process_that_is_refused():
    """By a filter as those of containers."""
    lines = child("check(); print(request(), *sc.cpu.available_isas())", FILTER)
    if lines == ["no filters"]:
        pytest.skip("this system lets nobody set filters")
    assert lines == [" ".join(["1", *(name for name in REAL_ISAS if not name.startswith("amx"))])]


def test_a_signal_stack_that_is_too_small():
    """8 KB, which are enough for AVX-512's registers."""
    before = """
    class Stack(ctypes.Structure):
        _fields_ = [("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]

    memory = ctypes.create_string_buffer(8192)
    small = Stack(ctypes.addressof(memory), 0, 8192)
    assert ctypes.CDLL(None).sigaltstack(ctypes.byref(small), None) == 0
    """
    lines = child("check(); print(request(), *sc.cpu.available_isas())", before)
    code, *names = lines[0].split()
    assert code != "0"
    assert names == [name for name in REAL_ISAS if not name.startswith("amx")]


def test_a_thread_that_is_older_than_the_permission():
    """It computes with what the process got later."""
    before = """
    imported, done = threading.Event(), []

    def work():
        imported.wait()
        check()
        done.append(sc.cpu.isa())

    thread = threading.Thread(target=work)
    thread.start()
    """
    lines = child("imported.set(); thread.join(); print(*done)", before)
    assert lines == [REAL_ISAS[0]]


@needs_fork
def test_fork_and_exec_after_the_permission():
    """A forked child has it, a new program asks anew, and so does a child of a parent that was not yet asked."""
    lines = child("""
        import subprocess

        def forked(work):
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)
                work()
                print(sc.cpu.isa(), flush=True)
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

        forked(check)
        check()
        forked(check)
        forked(lambda: forked(check))
        program = "import sparseconv; print(sparseconv.cpu.isa(), flush=True)"
        subprocess.run([sys.executable, "-c", program], check=True)
    """)
    assert lines == [REAL_ISAS[0]] * 5


@pytest.mark.skipif(not shutil.which("valgrind"), reason="needs valgrind")
def test_valgrind_hides_it():
    """Its CPU has neither tile registers nor AVX-512."""
    code = WITHOUT_IMPORT + "import sparseconv as sc\ncheck()\nprint(*sc.cpu.available_isas())"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SPARSECONV_")}
    command = ["valgrind", "-q", "--tool=none", sys.executable, "-c", code]
    clean["OPENBLAS_NUM_THREADS"] = "1"
    clean["OPENBLAS_CORETYPE"] = "Haswell"
    done = subprocess.run(command, env=clean, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    names = done.stdout.split()
    assert "amx" not in names and "scalar" in names
