"""N:M masks along one axis: those of a stable sort, for every axis, type, memory order and instruction set."""

import numpy as np
import pytest
from awkward import guarded, needs_mprotect
from hypothesis import given
from hypothesis import strategies as st

from sparseconv.pruning import nm_mask

PATTERNS = ((1, 2), (2, 4), (4, 8), (3, 5), (8, 16), (1, 7), (16, 32), (5, 5), (1, 1), (20, 33), (64, 128))
DTYPES = (np.float32, np.float64)


def stable_mask(w, n, m, axis=-1):
    """The first n of every m in descending order of magnitude, by a stable sort; the last group may be shorter."""
    rows = np.moveaxis(np.abs(w), axis, -1)
    mask = np.zeros(rows.shape, bool)
    for start in range(0, rows.shape[-1], m):
        first = np.argsort(-rows[..., start : start + m], axis=-1, kind="stable")[..., :n]
        np.put_along_axis(mask[..., start : start + m], first, True, axis=-1)
    return np.moveaxis(mask, -1, axis)


def weights(shape, seed=0, dtype=np.float32, ties=False):
    rng = np.random.default_rng(seed)
    return (rng.integers(-4, 5, shape) if ties else rng.standard_normal(shape)).astype(dtype)


def check(w, n, m, axis=-1, **options):
    before = w.copy()
    mask = nm_mask(w, n, m, axis, **options)
    assert mask.dtype == np.bool_
    assert mask.shape == w.shape
    assert mask.flags.c_contiguous
    assert set(np.unique(mask.view(np.uint8))) <= {0, 1}
    np.testing.assert_array_equal(mask, stable_mask(w, n, m, axis))
    np.testing.assert_array_equal(w, before)
    return mask


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n, m", PATTERNS)
def test_patterns(isa, n, m, dtype):
    for ties in (False, True):
        for axis in (0, 1, -1):
            shape = [3, 5, 7]
            shape[axis] = 3 * m
            mask = check(weights(shape, m, dtype, ties), n, m, axis)
            groups = np.moveaxis(mask, axis, -1).reshape(-1, m)
            assert (groups.sum(axis=1) == n).all()


@given(
    shape=st.lists(st.integers(1, 40), min_size=1, max_size=4).filter(lambda sizes: np.prod(sizes) < 20_000),
    axis=st.integers(0, 3), m=st.integers(1, 50), n=st.integers(1, 50), seed=st.integers(0, 99), ties=st.booleans(),
)  # fmt: skip
def test_shapes(shape, axis, m, n, seed, ties):
    check(weights(shape, seed, ties=ties), min(n, m), m, axis % len(shape) - len(shape), pad=True)


def test_ties_keep_the_lower_index(isa):
    signs = np.resize([1, -1, -1], (4, 24))
    for value in (0.0, 2.5, np.inf):
        assert (nm_mask(value * signs, 3, 8) == np.tile(np.arange(8) < 3, 3)).all()
    assert nm_mask(np.array([0.0, -0.0, -1.0, 1.0]), 1, 2).tolist() == [True, False, True, False]


def test_padding(isa):
    """The last group has fewer weights: it keeps at most n, and real zeros go before what is not there."""
    w = weights((5, 11))
    w[:, 8:] = 0
    mask = check(w, 2, 4, pad=True)
    assert (mask[:, 8:].sum(axis=1) == 2).all()
    assert check(w[:, :9], 2, 4, pad=True)[:, 8].all()
    assert check(w, 40, 50, pad=True).all()
    assert check(w, 3, 50, pad=True).sum() == 15
    assert check(w, 2**40, 2**62, pad=True).all()


def test_memory_order():
    w = weights((6, 8, 4, 12))
    check(w.transpose(2, 0, 3, 1), 2, 4)
    check(w[::-1, ::2, 1:3, ::-3], 2, 4)
    check(np.asfortranarray(w), 2, 4, 1)
    check(np.broadcast_to(w[:1, :, :1], w.shape), 2, 4, 1)
    check(weights(16)[::2], 2, 4)
    odd = np.frombuffer(b"?" + w.tobytes(), np.float32, w.size, 1).reshape(w.shape)
    assert not odd.flags.aligned
    np.testing.assert_array_equal(nm_mask(odd, 2, 4), stable_mask(w, 2, 4))


@needs_mprotect
@pytest.mark.parametrize("at_end", [True, False], ids=["end", "start"])
def test_guard_pages(isa, at_end):
    for shape in ((3, 8), (17, 11), (1, 1)):
        check(guarded(weights(shape), at_end), 2, 4, pad=True)


def test_number_of_threads():
    w = weights((300, 1000))
    expected = nm_mask(w, 4, 8, num_threads=1)
    for threads in (2, 3, 7):
        np.testing.assert_array_equal(nm_mask(w, 4, 8, num_threads=threads), expected)
        np.testing.assert_array_equal(nm_mask(w.T, 4, 8, 0, num_threads=threads), expected.T)


def test_other_kinds_of_arrays():
    w = weights((4, 8))
    np.testing.assert_array_equal(nm_mask(memoryview(w), 2, 4), stable_mask(w, 2, 4))
    torch = pytest.importorskip("torch")
    np.testing.assert_array_equal(nm_mask(torch.from_numpy(w), 2, 4), stable_mask(w, 2, 4))


W = np.ones((8, 12), np.float32)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: nm_mask(W, 5, 4), ValueError, "n: got 5, expected at most m = 4"),
        (lambda: nm_mask(W, 0, 4), ValueError, "n: got 0, expected at least 1"),
        (lambda: nm_mask(W, -2, 4), ValueError, "n: got -2"),
        (lambda: nm_mask(W, 1, 0), ValueError, "m: got 0"),
        (lambda: nm_mask(W, 1.0, 4), TypeError, "n: got 1.0, expected a whole number"),
        (lambda: nm_mask(W, 1, "4"), TypeError, "m: got '4'"),
        (lambda: nm_mask(W, True, 4), TypeError, "n: got True"),
        (lambda: nm_mask(W, 2, 5), ValueError, "m: got 5, expected a divisor of 12, the size of axis 1, or pad=True"),
        (lambda: nm_mask(W, 2, 16, axis=0), ValueError, "m: got 16, expected a divisor of 8, the size of axis 0"),
        (lambda: nm_mask(W, 2, 4, axis=2), ValueError, "axis: got 2, expected -2 to 1"),
        (lambda: nm_mask(W, 2, 4, axis=-3), ValueError, "axis: got -3"),
        (lambda: nm_mask(W, 2, 4, axis=None), TypeError, "axis: got None"),
        (lambda: nm_mask(W * np.nan, 2, 4), ValueError, "w: got NaN"),
        (lambda: nm_mask(np.where(np.arange(12) == 7, np.nan, W), 2, 4), ValueError, "w: got NaN"),
        (lambda: nm_mask(np.float32(3), 1, 1), ValueError, "w: got a scalar"),
        (lambda: nm_mask(W.astype(int), 2, 4), TypeError, "w: got dtype int64, expected float32 or float64"),
        (lambda: nm_mask(W.astype(np.float16), 2, 4), TypeError, "w: got dtype float16"),
        (lambda: nm_mask([1.0, 2.0], 1, 2), TypeError, "w: got list"),
        (lambda: nm_mask(W, 2, 4, num_threads=0), ValueError, "num_threads: got 0"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()


@pytest.mark.parametrize("shape", [(0, 12), (8, 0), (0, 0), (4, 0, 3)])
def test_empty(shape):
    for dtype in (np.float32, np.float64):
        for pad in (False, True):
            mask = nm_mask(np.empty(shape, dtype), 2, 4, axis=1, pad=pad)
            assert mask.shape == shape and mask.dtype == np.bool_
