"""Borrowed threads: OpenMP runtimes of other libraries, a fake one, the compiler's and PyTorch's. All in children.

One file: every case is a child that starts with the same lines.
"""

import importlib.util
import shutil
import subprocess
import textwrap

import pytest
from children import LINUX, PRELUDE, needs_fork, needs_proc, run
from compiled import COMPILER
from places import KERNELS, SUPPORT

FLAGS = ["-std=c++17", f"-I{KERNELS}", "-O1", "-shared", "-fPIC", "-pthread"]

needs_compiler = pytest.mark.skipif(not shutil.which(COMPILER[0]), reason="needs a C++ compiler")
needs_torch = pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="needs PyTorch")


def build(folder, name, source, *flags):
    library = folder / name
    done = subprocess.run([*COMPILER, *FLAGS, *flags, SUPPORT / source, "-o", library], capture_output=True, text=True)
    return library if done.returncode == 0 else pytest.skip(f"does not compile here: {done.stderr[-300:]}")


@pytest.fixture(scope="module")
def gomp(tmp_path_factory):
    """The fake runtime as libgomp."""
    return build(tmp_path_factory.mktemp("gomp"), "libgomp-fake.so.1", "fake_openmp.cpp")


@pytest.fixture(scope="module", params=["libgomp-fake.so.1", "libomp.so"])
def fake(request, tmp_path_factory):
    """The fake runtime, as libgomp and as libomp."""
    flags = ["-DFAKE_KMPC"] if "libomp" in request.param else []
    return build(tmp_path_factory.mktemp("fake"), request.param, "fake_openmp.cpp", *flags)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A library that uses the compiler's OpenMP runtime, which it brings into the process."""
    return build(tmp_path_factory.mktemp("real"), "uses_openmp.so", "real_openmp.cpp", "-fopenmp")


# What children know of the libraries: `load` brings one into the process.
LIBRARY = """
import ctypes

def load(path):
    global runtime
    runtime = ctypes.CDLL(path)
    return runtime

def counts():
    # regions, threads of the last one: asked for and given; threads whose floating-point state a region changed
    return [runtime.fake_count(which) for which in range(4)]

def in_child(work):
    # the exit code of a forked child, 0 if work() is true there; a hang is an error
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        os._exit(0 if work() else 3)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def child(code, *libraries, load=True, **options):
    """Run code in a child that has the libraries loaded, or knows their paths as PATHS."""
    lines = [f"PATHS = {[str(path) for path in libraries]!r}", *(["load(PATHS[0])"] if load and libraries else [])]
    return run("\n".join(lines) + "\n" + textwrap.dedent(code), prelude=PRELUDE + LIBRARY, **options)


# --- choosing ---


def test_without_a_runtime():
    """A clear error, and nothing changes; a library above may wish in vain."""
    lines = run("""
        for team in ("openmp", "pool", None):
            try:
                sc.cpu.use_threads(team)
            except (RuntimeError, ValueError) as error:
                print(type(error).__name__, error)
        print(sc.cpu.threads())
        sc.cpu._prefer_threads("openmp")
        print(sc.cpu.threads())
        assert same(passes(2), passes(1))
    """)
    missing = "this process has loaded no OpenMP runtime: import the library that brings one, such as torch, first"
    assert lines == [
        f"RuntimeError team: got 'openmp', but {missing}",
        "ValueError team: got 'pool', expected one of ['own', 'openmp']",
        "ValueError team: got None, expected one of ['own', 'openmp']",
        "own", "own",
    ]  # fmt: skip


@needs_compiler
def test_for_good_and_for_a_block(fake):
    lines = child(
        """
        def team():
            before = counts()[0]
            passes(2)
            return sc.cpu.threads(), counts()[0] > before

        print(*team())
        with sc.cpu.use_threads("openmp") as inside:
            print(*team())
            with sc.cpu.use_threads("own"):
                print(*team())
            print(*team())
        print(*team())
        try:
            with sc.cpu.use_threads("openmp"):
                raise KeyError
        except KeyError:
            print(*team())
        sc.cpu.use_threads("openmp")
        print(*team())
        """,
        fake,
    )
    own, borrowed = "own False", "openmp True"
    assert lines == [own, borrowed, own, borrowed, own, own, borrowed]


@needs_compiler
@pytest.mark.parametrize(
    "environment, chosen, expected",
    [
        (None, None, "openmp"), ("own", None, "own"), ("openmp", None, "openmp"), ("", None, "openmp"),
        (None, "own", "own"), ("openmp", "own", "own"), ("own", "openmp", "openmp"),
    ],
)  # fmt: skip
def test_what_a_library_above_prefers(gomp, environment, chosen, expected):
    """It counts only where neither the environment nor the user has chosen."""
    given = {} if environment is None else {"SPARSECONV_THREADS": environment}
    code = f"""
        if {chosen!r}:
            sc.cpu.use_threads({chosen!r})
        sc.cpu._prefer_threads("openmp")
        passes(2)
        print(sc.cpu.threads(), counts()[0] > 0)
    """
    assert child(code, gomp, **given) == [f"{expected} {expected == 'openmp'}"]


def test_a_choice_for_a_block_does_not_outlive_it():
    lines = run("""
        with sc.cpu.use_threads("own"):
            sc.cpu._prefer_threads("openmp")
            print(sc.cpu._cpu.borrows())
        sc.cpu._prefer_threads("openmp")
        print(sc.cpu._cpu.borrows())
    """)
    assert lines == ["False", "True"]


@needs_compiler
def test_environment_waits_for_a_runtime(gomp):
    """Own threads until there is one."""
    lines = child(
        """
        expected = passes(1)
        assert same(passes(2), expected)
        print(sc.cpu.threads(), sc.cpu.num_threads())
        load(PATHS[0])
        runtime.fake_set(5, 1024, 0)
        print(sc.cpu.threads(), sc.cpu.num_threads())
        assert same(passes(2), expected)
        assert counts()[0] > 0
        """,
        gomp,
        load=False,
        SPARSECONV_THREADS="openmp",
        OMP_NUM_THREADS="3",
    )
    assert lines == ["own 3", "openmp 5"]


@pytest.mark.parametrize("value", ["omp", "OWN", "2"])
def test_bad_environment(value):
    code = f"""
        import os
        os.environ["SPARSECONV_THREADS"] = {value!r}
        try:
            import sparseconv
        except ValueError as error:
            print(error)
    """
    assert run(code, prelude="") == [f"SPARSECONV_THREADS: got {value!r}, expected one of ['own', 'openmp']"]


# --- computing ---


@needs_compiler
@pytest.mark.parametrize("late", [0, 30])
def test_any_team_gives_the_same_bits(fake, late):
    """Fewer threads than asked for, or late ones, leave nothing undone; the regions leave no trace in their threads."""
    child(
        f"""
        def results(threads):
            count = {{"num_threads": threads}}
            strided = sc.conv2d(X, W, stride=2, skip="none", **count), sc.grad_bias(G, **count)
            packed = sc.compress(X, **count)
            return *passes(threads), *strided, packed.mask, sc.decompress(packed, **count), sc.pruning.topk_mask(X, 0.9)

        expected = results(1)
        sc.cpu.use_threads("openmp")
        for maximum, limit in ((2, 1024), (4, 1024), (4, 3), (8, 1), (1, 1024), (3, 2)):
            runtime.fake_set(maximum, limit, {late})
            for threads in (None, 1, 2, 3, 8):
                assert same(results(threads), expected), (maximum, limit, threads)
                assert counts()[2] <= limit
        assert counts()[0] > 60 and counts()[3] == 0, counts()
        assert subnormals_survive()
        """,
        fake,
    )


@needs_compiler
def test_teams_have_the_size_that_others_ask_for(fake):
    """A region of fewer threads is one of the usual size of which some do nothing: libgomp would end those threads."""
    lines = child(
        """
        sc.cpu.use_threads("openmp")
        runtime.fake_set(4, 1024, 0)
        for threads in (1, 2, 4, 6):
            before = counts()[0]
            sc.conv2d(X, W, num_threads=threads)
            print(counts()[0] > before, *counts()[1:3])
        """,
        fake,
    )
    assert lines == ["False 0 0", "True 0 4", "True 0 4", "True 6 6"]


@needs_compiler
@needs_proc
def test_no_threads_of_our_own(gomp):
    lines = child(
        """
        sc.cpu.use_threads("openmp")
        passes(3)
        print(tasks())
        sc.cpu.use_threads("own")
        passes(3)
        print(tasks())
        """,
        gomp,
    )
    assert lines == ["1", "3"]


@needs_compiler
def test_many_python_threads(fake):
    """Each has a team of its own, as with the runtime's other users."""
    child(
        """
        from concurrent.futures import ThreadPoolExecutor
        expected = passes(1)
        sc.cpu.use_threads("openmp")
        with ThreadPoolExecutor(8) as executor:
            assert all(executor.map(lambda threads: same(passes(threads), expected), [2, 3, 1, 4] * 10))
        assert counts()[3] == 0
        """,
        fake,
    )


@needs_compiler
@pytest.mark.parametrize("limit", [1, 2])
def test_interrupt(fake, limit):
    """Also where the caller has nothing left to do but to wait for the others."""
    lines = child(
        f"""
        expected = passes(1)
        sc.cpu.use_threads("openmp")
        runtime.fake_set(2, {limit}, 0)
        images = images_for(20, 2)
        print(interrupted(lambda: endless(images, 2)))
        assert same(passes(2), expected)
        assert subnormals_survive() and counts()[3] == 0
        """,
        fake,
    )
    assert float(lines[-1]) < 2


@needs_compiler
def test_call_and_fork_inside_a_call(fake):
    """What a signal handler does in the middle of a region runs alone."""
    lines = child(
        """
        expected, seen = passes(1), []
        images = images_for(0.5, 2)
        whole = endless(images, 2)
        sc.cpu.use_threads("openmp")

        def handler(*_):
            assert subnormals_survive()
            seen.append(same(passes(2), expected))
            if len(seen) == 1:
                seen.append(in_child(lambda: same(passes(2), expected)) == 0)

        signal.signal(signal.SIGALRM, handler)
        for threads in (1, 2):
            signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
            again = endless(images, threads)
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert np.array_equal(again, whole)
        assert all(seen) and counts()[3] == 0
        print(len(seen))
        """,
        fake,
    )
    assert int(lines[-1]) >= 3


# --- forks ---


@needs_fork
@needs_compiler
def test_forked_children(fake):
    """They have own threads, say so, and know why; so do theirs. The parent keeps its team."""
    lines = child(
        """
        expected = passes(1)
        sc.cpu.use_threads("openmp")
        passes(2)

        def refused():
            try:
                sc.cpu.use_threads("openmp")
            except RuntimeError as error:
                return str(error).endswith("whose threads do not exist here")

        def work():
            return sc.cpu.threads() == "own" and all(same(passes(n), expected) for n in (2, None)) and refused()

        for _ in range(3):
            print(in_child(work), in_child(lambda: in_child(work) == 0), sc.cpu.threads())
            before = counts()[0]
            passes(2)
            assert counts()[0] > before
        """,
        fake,
    )
    assert lines == ["0 0 openmp"] * 3


@needs_fork
@needs_compiler
@pytest.mark.parametrize("used", ["wanted", "unknown"])
def test_fork_before_the_first_look(gomp, used):
    """The runtime was there before the fork, and others may have used it: nobody here had looked for it."""
    lines = child(
        f"""
        expected = passes(1)

        def work():
            sc.cpu._prefer_threads("openmp")
            return same(passes(2), expected) and sc.cpu.threads() == "own"

        if {used!r} == "wanted":
            sc.cpu._prefer_threads("openmp")
        print(in_child(work))
        """,
        gomp,
    )
    assert lines == ["0"]


@needs_fork
@needs_proc
@needs_compiler
@pytest.mark.parametrize("where", ["parent", "child"])
def test_import_after_the_fork(gomp, where):
    """A child that imports us itself: only a runtime that its parent did not have is safe."""
    import_ours = next(line for line in PRELUDE.splitlines() if "import sparseconv" in line)
    lines = run(
        PRELUDE.split(import_ours)[0]
        + LIBRARY
        + f"""
PATH, PRELUDE = {str(gomp)!r}, {PRELUDE!r}

def work():
    if {where!r} == "child":
        load(PATH)
    exec(PRELUDE, globals())
    expected = passes(1)
    sc.cpu._prefer_threads("openmp")
    print(sc.cpu.threads(), same(passes(2), expected), runtime.fake_count(0) > 0, flush=True)
    return True

if {where!r} == "parent":
    load(PATH)
assert in_child(work) == 0
""",
        prelude="",
    )
    assert lines == ["own True False" if where == "parent" else "openmp True True"]


@needs_fork
@needs_proc
@needs_compiler
def test_orphans_trust_nobody(gomp):
    """Where the parent has gone, nothing says when the runtime was loaded."""
    lines = child(
        """
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            middle = os.getpid()
            if os.fork() == 0:
                while os.getppid() == middle:
                    time.sleep(0.01)
                load(PATHS[0])
                sc.cpu._prefer_threads("openmp")
                os.write(write, sc.cpu.threads().encode())
            os._exit(0)
        os.waitpid(pid, 0)
        print(os.read(read, 99).decode())
        """,
        gomp,
        load=False,
    )
    assert lines == ["own"]


# --- how many threads ---


@needs_compiler
def test_number_of_threads(gomp):
    """What the runtime says, unless somebody told us."""
    lines = child(
        """
        own = sc.cpu.num_threads()
        sc.cpu.use_threads("openmp")
        runtime.fake_set(7, 1024, 0)
        print(sc.cpu.num_threads(), sc.plan("conv2d", X, W).threads, sc.plan("conv2d", X, W, num_threads=3).threads)
        sc.cpu.set_num_threads(4)
        print(sc.cpu.num_threads())
        sc.cpu.set_num_threads(None)
        runtime.fake_set(6, 1024, 0)
        print(sc.cpu.num_threads())
        with sc.cpu.use_threads("own"):
            assert sc.cpu.num_threads() == own
        runtime.fake_set(2000, 1024, 0)
        print(sc.cpu.num_threads())
        runtime.fake_set(5, 1024, 0)
        print(in_child(lambda: sc.cpu.num_threads() == 5))
        """,
        gomp,
    )
    assert lines == ["7 7 3", "4", "6", "1024", "0"]


@needs_compiler
def test_number_of_threads_of_the_environment(gomp):
    """Ours is said to us, OMP_NUM_THREADS to the runtime."""
    code = "runtime.fake_set(7, 1024, 0); sc.cpu.use_threads('openmp'); print(sc.cpu.num_threads())"
    assert child(code, gomp, SPARSECONV_NUM_THREADS="3") == ["3"]
    assert child(code, gomp, OMP_NUM_THREADS="3") == ["7"]


@needs_compiler
def test_threadpoolctl(gomp):
    """It sees and limits the team that is in use, and afterwards the runtime's word counts again."""
    lines = child(
        """
        import threadpoolctl

        def ours():
            (pool,) = [one for one in threadpoolctl.threadpool_info() if one["user_api"] == "sparseconv"]
            return pool["num_threads"], pool["threading_layer"]

        print(*ours())
        sc.cpu.use_threads("openmp")
        runtime.fake_set(6, 1024, 0)
        print(*ours())
        with threadpoolctl.threadpool_limits(2, user_api="sparseconv"):
            print(*ours(), sc.plan("conv2d", X, W).threads)
            passes(None)
        runtime.fake_set(4, 1024, 0)
        print(*ours())
        sc.cpu.set_num_threads(3)
        with threadpoolctl.threadpool_limits({"sparseconv": 1}):
            print(*ours())
        print(*ours())
        """,
        gomp,
        SPARSECONV_NUM_THREADS="",
        OMP_NUM_THREADS="2",
    )
    assert lines == ["2 own", "6 openmp", "2 openmp 2", "4 openmp", "1 openmp", "3 openmp"]


# --- real runtimes ---


@needs_compiler
def test_the_compilers_runtime(real):
    """Its number of threads, its nested regions, Ctrl-C and forks."""
    lines = child(
        """
        expected = passes(1)
        sc.cpu.use_threads("openmp")
        runtime.set_max_threads(3)
        assert sc.cpu.num_threads() == 3
        for threads in (None, 1, 2, 4, 2):
            assert same(passes(threads), expected)

        results = {}
        @ctypes.CFUNCTYPE(None, ctypes.c_int)
        def nested(number):
            results[number] = same(passes(2), expected)

        for levels in (1, 2):
            runtime.set_levels(levels)
            results.clear()
            runtime.in_region(nested, 3)
            print(sorted(results.items()))
        print(in_child(lambda: same(passes(2), expected) and sc.cpu.threads() == "own"))
        images = images_for(20, 2)
        print(interrupted(lambda: endless(images, 2)))
        assert same(passes(2), expected) and subnormals_survive()
        """,
        real,
    )
    assert lines[:2] == [str([(number, True) for number in range(3)])] * 2
    assert lines[2] == "0"
    assert float(lines[3]) < 2


def torch_child(code, *libraries, **environment):
    """A child in which PyTorch is loaded after the libraries; its warnings are its own."""
    quiet = "import warnings\nwith warnings.catch_warnings(action='ignore'):\n    import torch\n"
    return child(quiet + textwrap.dedent(code), *libraries, timeout=240, **environment)


@needs_torch
def test_torch():
    """PyTorch's own team, and its number of threads; forked children."""
    torch_child("""
        sc.cpu.use_threads("openmp")
        torch.set_num_threads(3)
        assert sc.cpu.num_threads() == 3
        expected = passes(1)
        image = torch.randn(8, 32, 64, 64)
        for _ in range(20):
            torch.relu(image)
            assert same(passes(None), expected)
        assert in_child(lambda: sc.cpu.num_threads() == 3 and same(passes(None), expected))  == 0
        torch.relu(image)
        torch.set_num_threads(1)
        assert sc.cpu.num_threads() == 1
    """)


@needs_torch
@needs_compiler
@pytest.mark.skipif(not LINUX, reason="preloads a library")
@pytest.mark.parametrize("preloaded", [False, True])
def test_torchs_runtime_of_several(gomp, preloaded):
    """It is the one that PyTorch calls: its own, though another one came first, but not if that one was preloaded."""
    lines = torch_child(
        """
        sc.cpu.use_threads("openmp")
        torch.relu(torch.ones(1_000_000))
        used = counts()[0]
        passes(2)
        print(os.path.basename(sc.cpu._cpu.openmp_library()), used > 0, counts()[0] > used)
        """,
        gomp,
        **({"LD_PRELOAD": str(gomp)} if preloaded else {}),
    )
    name, used_by_torch, used_by_us = lines[-1].split()
    assert (name == gomp.name) == (used_by_torch == "True") == (used_by_us == "True") == preloaded


@needs_torch
@needs_compiler
def test_torch_comes_later(gomp):
    """Its runtime is used from then on."""
    lines = child(
        """
        import warnings
        sc.cpu.use_threads("openmp")
        expected = passes(2)
        print(counts()[0] > 0, sc.cpu._cpu.openmp_library() == PATHS[0])
        with warnings.catch_warnings(action="ignore"):
            import torch
        before = counts()[0]
        assert same(passes(2), expected)
        print(counts()[0] > before, sc.cpu._cpu.openmp_library() == PATHS[0])
        """,
        gomp,
        timeout=240,
    )
    assert lines == ["True True", "False False"]
