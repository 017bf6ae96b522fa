"""The thread pool: many callers, more threads than cores, the GIL. What can hang or crash runs in a child process."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cases import sparse_floats
from children import run
from comparisons import assert_same_bits

import sparseconv as sc


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
