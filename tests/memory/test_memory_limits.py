"""Calls with little memory, in child processes."""

import textwrap

import pytest
from children import LINUX, run

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
