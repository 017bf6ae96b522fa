"""Processes that fork before, during and inside of calls. What can hang or crash runs in a child process."""

import subprocess
import sys
import textwrap

import pytest
from children import PRELUDE, needs_fork, needs_proc, run


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
