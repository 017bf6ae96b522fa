"""What is kept for later calls stays below a number of bytes, whatever shapes come, and is found again."""

import gc

import numpy as np
import pytest

import sparseconv as sc
from sparseconv._core import _conv, caches, call, geometry

ALLOWED = 64 << 20


@pytest.fixture(autouse=True)
def nothing_kept():
    caches.empty()
    yield
    caches.empty()


def passes(x, weight, **words):
    y = sc.conv2d(x, weight, **words)
    sc.conv2d_backward_data(y, weight, x.shape, **words)
    sc.conv2d_backward_weight(x, y, weight.shape[2:], **words)


def test_long_maps():
    """Signals as (N, C, T, 1): row tables of one and a half MB for each of 300 lengths."""
    weight, most, peaks = np.ones((4, 4, 9, 1), np.float32), 0, []
    for length in range(20_000, 20_300):
        before = _conv.held_bytes()
        sc.conv2d(np.zeros((1, 4, length, 1), np.float32), weight, padding=(4, 0))
        most = max(most, _conv.held_bytes())
        if _conv.held_bytes() < before:
            peaks.append(before)
    assert most <= ALLOWED
    assert all(peak > caches.LIMIT / 2 for peak in peaks)  # not emptied before it must be


def test_many_small_problems():
    weight = np.ones((4, 4, 3, 3), np.float32)
    for index in range(2000):
        passes(np.zeros((1, 4, 3 + index % 50, 3 + index // 50), np.float32), weight, padding=1)
        assert _conv.held_bytes() <= ALLOWED


def test_kernels_as_large_as_maps():
    """Weights whose taps are lists of numbers of their own."""
    for size in range(150, 190):
        weight = np.ones((1, 1, size, size), np.float32)
        x = np.zeros((1, 1, size + 1, size + 1), np.float32)
        sc.conv2d(x, weight, skip="weight")
        assert _conv.held_bytes() <= ALLOWED


def test_a_call_that_needs_more_than_all_caches_may_hold(monkeypatch):
    """Its tables go with it, and so does everything else; results are right before and behind."""
    gc.collect()
    limit = _conv.held_bytes() + 100_000  # what calls and packed weights of others hold does not go with the caches
    monkeypatch.setattr(caches, "LIMIT", limit)
    weight = np.ones((4, 4, 9, 1), np.float32)
    for length in (50, 20_000, 50, 20_000):
        x = np.ones((1, 4, length, 1), np.float32)
        y = sc.conv2d(x, weight, padding=(4, 0))
        assert (y[0, :, 8:-8] == 36).all()
        assert sc.plan("conv2d", x, weight, padding=(4, 0)).kernel
        assert _conv.held_bytes() <= limit


def test_equal_calls_find_what_was_kept():
    x, weight = np.ones((1, 16, 30, 30), np.float32), np.ones((16, 16, 3, 3), np.float32)
    passes(x, weight)
    held, made = _conv.held_bytes(), call._kept.cache_info().misses
    for _ in range(5):
        passes(x, weight)
    assert _conv.held_bytes() == held
    assert call._kept.cache_info().misses == made
    assert geometry.forward_map.cache_info().currsize >= 1


def test_all_that_is_counted_is_given_back():
    passes(np.ones((2, 16, 12, 12), np.float32), np.ones((16, 16, 3, 3), np.float32))
    assert _conv.held_bytes() > 0
    caches.empty()
    before = _conv.held_bytes()  # what modules hold for good: nothing here
    passes(np.ones((2, 16, 12, 12), np.float32), np.ones((16, 16, 3, 3), np.float32))
    caches.empty()
    assert _conv.held_bytes() == before


def test_calls_that_torch_has_prepared_are_given_back(monkeypatch):
    """They keep operations of the core, and would keep the tables when all caches are emptied."""
    torch = pytest.importorskip("torch")
    import sparseconv.torch as sct
    from sparseconv.torch import calls

    x, weight = torch.ones(2, 16, 13, 12), torch.ones(16, 16, 3, 3)
    caches.empty()
    gc.collect()
    before = _conv.held_bytes()
    for _ in range(2):
        sct.conv2d(x, weight)
    assert len(calls._kept) == 1 and _conv.held_bytes() > before
    monkeypatch.setattr(caches, "full", True)  # as it is after too much was made
    sct.conv2d(x, weight)
    assert not calls._kept and not caches.full and _conv.held_bytes() == before
    assert (sct.conv2d(x, weight) == 144).all() and len(calls._kept) == 1
