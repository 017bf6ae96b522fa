"""The number of threads: who sets it, who limits it, and how many there are."""

import os
import textwrap

import numpy as np
import pytest
import threadpoolctl
from cases import sparse_ints
from children import PRELUDE, needs_proc, run

import sparseconv as sc
from sparseconv import cpu


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
