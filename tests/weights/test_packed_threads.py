"""Packed weights that several threads, signal handlers and processes share: each call sees one weight, or an error."""

import copy
import pickle
import threading

import numpy as np
import pytest
from cases import sparse_ints
from children import needs_fork, run
from weight_patterns import unstructured

import sparseconv as sc
from sparseconv import pruning

SHAPE = (32, 16, 3, 3)


def patterns():
    """Weights of very different numbers of nonzeros, each c in all its nonzeros, by c."""
    return {c: np.float32(c) * (unstructured(SHAPE, density, c) != 0) for c, density in enumerate((0.9, 0.02, 0.4), 1)}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("updaters", [1, 2])
def test_calls_during_updates(dtype, updaters):
    """Every pass in every way, plans, copies and pickles, while one or two threads update: each is of one weight."""
    weights = {c: weight.astype(dtype) for c, weight in patterns().items()}
    x = sparse_ints((2, 16, 9, 9), 0.3, 1).astype(dtype)
    grad = sparse_ints((2, 32, 9, 9), 0.3, 2).astype(dtype)
    pack = sc.pack_weight(weights[1])
    words = {"padding": 1}
    results = {
        "forward": {sc.conv2d(x, weight, **words).tobytes() for weight in weights.values()},
        "backward": {sc.conv2d_backward_data(grad, weight, x.shape, **words).tobytes() for weight in weights.values()},
        "dense": {weight.tobytes() for weight in weights.values()},
    }
    calls = [
        ("forward", lambda: sc.conv2d(x, pack, skip="weight", num_threads=2, **words)),
        ("forward", lambda: sc.conv2d(x, pack, skip="none", **words)),
        ("backward", lambda: sc.conv2d_backward_data(grad, pack, x.shape, skip="weight", **words)),
        ("backward", lambda: sc.conv2d_backward_data(grad, pack, x.shape, num_threads=2, **words)),
        ("dense", lambda: copy.deepcopy(pack).to_dense()),
        ("dense", lambda: pickle.loads(pickle.dumps(pack)).to_dense()),
        ("dense", pack.to_dense),
        ("", lambda: (sc.plan("conv2d", x, pack, skip="weight", **words), repr(pack), pack.nbytes)),
    ]
    wrong, seen, done = [], set(), threading.Event()

    def repeat(kind, call):
        try:
            while not done.is_set():
                result = call()
                if kind and (value := result.tobytes()) not in results[kind]:
                    wrong.append(kind)
                elif kind == "dense":
                    seen.add(value)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=repeat, args=one) for one in calls]

    def update():
        for step in range(60):
            pack.update(weights[1 + step % 3])

    writers = [threading.Thread(target=update) for _ in range(updaters)]
    for thread in (*threads, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(seen) > 1, "no call came between updates"
    pack.update(weights[2])
    assert sc.conv2d(x, pack, skip="weight", **words).tobytes() == sc.conv2d(x, weights[2], **words).tobytes()


def test_pruners_that_threads_share():
    """Python objects that change in each call: nothing is lost in between."""
    pruner, top, g = pruning.GradientPruner(0.5, 3, rng=1), pruning.TopK(0.5, period=3), sparse_ints((999,), 0.3, 1)
    errors = []

    def repeat():
        try:
            for _ in range(300):
                pruner.prune(g)
                assert 0 < top.threshold(g) < 100 and top.mask(g).shape == g.shape
                assert repr(pruner) and repr(top)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=repeat) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(pruner.thresholds) == 3


def test_one_out_for_many_threads():
    """Which of the results it holds in the end is nobody's business, but each is one that some call had."""
    x, weights, out = sparse_ints((1, 16, 9, 9), 0.3, 1), patterns(), np.empty((1, 32, 7, 7), np.float32)
    threads = [
        threading.Thread(target=lambda w=weight: [sc.conv2d(x, w, out=out, num_threads=2) for _ in range(50)])
        for weight in weights.values()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    possible = np.stack([sc.conv2d(x, weight) for weight in weights.values()])
    assert (out == possible).any(axis=0).all()


HANDLERS = """
P = sc.pack_weight(W)
other, said = 2 * W, []

def handler(number, frame):
    try:
        call()
        said.append("done")
    except RuntimeError as error:
        said.append(str(error))
    if len(said) < 20:
        signal.setitimer(signal.ITIMER_REAL, 0.004)  # once: a slow machine is not kept in handlers

signal.signal(signal.SIGALRM, handler)

def long(run):
    # until the handler has interrupted one of these calls twenty times
    signal.setitimer(signal.ITIMER_REAL, 0.004)
    while len(said) < 20:
        run()

big = np.broadcast_to(X[:1], (400, *X.shape[1:]))
forward = lambda: sc.conv2d(X, P, padding=1, skip="weight")
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_handlers_in_the_middle_of_calls(threads):
    """A handler may compute with the weight of the call that it interrupts; an update is an error. Nothing hangs."""
    run(
        HANDLERS
        + f"""
expected = forward()
call = lambda: all_same.append(same([forward()], [expected]))
all_same = []
long(lambda: sc.conv2d(big, P, padding=1, skip="weight", num_threads={threads}))
assert all(all_same) and set(said) == {{"done"}}
said.clear()
call = lambda: P.update(other)
long(lambda: sc.conv2d(big, P, padding=1, skip="weight", num_threads={threads}))
inside = [one for one in said if one != "done"]  # some come between two calls
assert inside and all("weight: got an update in the middle of a call" in one for one in inside)
P.update(W)
assert same([forward()], [expected])
        """
    )


def test_handlers_in_the_middle_of_updates():
    """Neither calls nor updates can be had there."""
    run(
        HANDLERS
        + """
W = np.broadcast_to(W[:1], (4096, *W.shape[1:])).copy()
P, x = sc.pack_weight(W), X[:1, :, :4, :4].copy()
for call, message in (
    (lambda: sc.conv2d(x, P), "weight: got a call in the middle of its own update"),
    (P.to_dense, "weight: got a call in the middle of its own update"),
    (lambda: P.update(W), "weight: got an update in the middle of"),
):
    said.clear()
    long(lambda: P.update(W))
    inside = [one for one in said if one != "done"]
    assert inside and all(message in one for one in inside), said
    assert same([sc.conv2d(x, P, skip="weight")], [sc.conv2d(x, W)])
        """
    )


def test_interrupted_updates_leave_the_new_weight():
    """Lists that were not made then are made by the next call."""
    run(
        HANDLERS
        + """
class Stop(Exception):
    pass

def stop(number, frame):
    raise Stop

signal.signal(signal.SIGALRM, stop)
W = np.broadcast_to(W[:1], (2048, *W.shape[1:])).copy()
P, x = sc.pack_weight(W), X[:1, :, :4, :4].copy()
g = np.ones((1, len(W), 2, 2), np.float32)
sc.conv2d_backward_data(g, P, x.shape, skip="weight")
stopped, last = 0, W[0].max()
for step in range(2, 80):
    new = W * np.float32(step)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0002 * (step % 20 + 1))
        P.update(new)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Stop:
        stopped += 1
        assert P.to_dense()[0].max() in (last, step * W[0].max())
    dense = P.to_dense()
    last = dense[0].max()
    assert same([sc.conv2d(x, P, skip="weight")], [sc.conv2d(x, dense)])
    assert same([sc.conv2d_backward_data(g, P, x.shape, skip="weight")], [sc.conv2d_backward_data(g, dense, x.shape)])
assert stopped > 5, stopped
        """
    )


@needs_fork
def test_fork_during_calls_and_updates():
    """A child has no other thread of its parent: it waits for none of them."""
    run("""
        P, done = sc.pack_weight(W), threading.Event()

        def use():
            while not done.is_set():
                sc.conv2d(X, P, padding=1, skip="weight")
                sc.conv2d_backward_data(G, sc.pack_weight(W), X.shape, padding=1, skip="weight")

        def update():
            while not done.is_set():
                P.update(W)

        expected = sc.conv2d(X, W, padding=1)
        threads = [threading.Thread(target=target) for target in (use, use, update)]
        for thread in threads:
            thread.start()
        codes = []
        import warnings
        for _ in range(40):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of threads
                pid = os.fork()
            if pid == 0:
                signal.alarm(20)
                try:
                    first = sc.conv2d(X, P, padding=1, skip="weight")
                except RuntimeError as error:
                    assert "forked in the middle of an update" in str(error)
                P.update(W)
                os._exit(0 if same([sc.conv2d(X, P, padding=1, skip="weight")], [expected]) else 3)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        done.set()
        for thread in threads:
            thread.join()
        assert codes == [0] * 40, codes
    """)
