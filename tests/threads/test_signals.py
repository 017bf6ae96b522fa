"""Signals during a call: interrupts, exceptions of handlers, handlers that call the library. All in child processes."""

import pytest
from children import run

from sparseconv import cpu


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", cpu.available_isas())
def test_interrupt_of_backward_weight(name, threads):
    """Ctrl-C ends a call of many seconds soon, with the usual exception; the next call is right."""
    lines = run(
        f"""
        expected = passes(1)
        images = images_for(20, {threads})
        print(interrupted(lambda: endless(images, {threads})))
        assert same(passes({threads}), expected)
        assert subnormals_survive()
        """,
        SPARSECONV_ISA=name,
    )
    assert float(lines[-1]) < 2


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("skip", ["none", "input"])
def test_interrupt_of_forward(threads, skip):
    """`out` may be partly written then."""
    lines = run(
        f"""
        expected = passes(1)
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
        """
    )
    assert float(lines[-1]) < 2


def test_interrupt_of_grad_bias():
    lines = run(
        """
        g = np.broadcast_to(G[:1, :32], (2_000_000, 32, 20, 20))  # 100 GB to add up
        print(interrupted(lambda: sc.grad_bias(g)))
        """
    )
    assert float(lines[-1]) < 2


@pytest.mark.parametrize("threads", [1, 3])
def test_interrupt_of_compressed_arrays(threads):
    """`out` is partly written then; pages of zeros that nobody has written to take no memory."""
    run(
        f"""
        class Stop(Exception):
            pass

        def stop(*_):
            raise Stop

        def stopped(call):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            try:
                call()
                time.sleep(5)
            except Stop:
                return True

        signal.signal(signal.SIGALRM, stop)
        x = np.zeros(2**26, np.float32)
        c = sc.compress(x, num_threads={threads})
        assert stopped(lambda: sc.compress(x, num_threads={threads}))
        out, start = np.ones_like(x), time.perf_counter()
        assert not sc.decompress(c, out=out, num_threads={threads}).any()
        long_enough = time.perf_counter() - start > 0.2  # signals are looked for every 50 ms
        out[...] = 7
        assert stopped(lambda: sc.decompress(c, out=out, num_threads={threads}))
        assert 7 in out or not long_enough
        """,
        SPARSECONV_ISA="scalar",
    )


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
