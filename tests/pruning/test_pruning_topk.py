"""Top-K: thresholds and masks are those of a stable sort, for every distribution, memory order and instruction set.

One file: one function, its search, its masks and its memory.
"""

import math
from fractions import Fraction

import numpy as np
import pytest
from awkward import guarded, needs_mprotect
from cases import assert_not_vacuous, sparse_ints
from comparisons import assert_exact
from hypothesis import given
from hypothesis import strategies as st

import sparseconv as sc
from sparseconv._core import _pruning
from sparseconv.pruning import TopK, channel_mask, topk, topk_mask, topk_threshold

SPARSITIES = (0, 0.1, 0.5, 0.8, 0.9, 0.99, 0.999999)  # the first keeps all, the last one element
TINY = np.finfo(np.float32).tiny


def normal(size, rng):
    return rng.standard_normal(size, np.float32)


def any_bits(size, rng):
    """Every exponent alike, subnormal numbers, zeros of both signs and infinities among them."""
    x = rng.integers(0, 2**32, size, np.uint32).view(np.float32)
    x[3::7] = 0
    x[5::7] = -0.0
    return np.where(np.isnan(x), np.copysign(np.float32(np.inf), x), x)


MAKE = {
    "normal": normal,
    "relu": lambda size, rng: np.maximum(normal(size, rng), 0),
    "relu6": lambda size, rng: np.clip(3 * normal(size, rng), 0, 6),
    "mostly zeros": lambda size, rng: normal(size, rng) * (rng.random(size) < 0.01),
    "integers": lambda size, rng: rng.integers(-5, 6, size).astype(np.float32),
    "two values": lambda size, rng: rng.choice(np.array([1, -1.5], np.float32), size),
    "equal": lambda size, rng: rng.choice(np.array([2.5, -2.5], np.float32), size),
    "zeros": lambda size, rng: np.zeros(size, np.float32) * rng.choice([1, -1], size).astype(np.float32),
    "one exponent": lambda size, rng: 1 + rng.random(size, np.float32),
    "few bits": lambda size, rng: 1 + rng.integers(0, 3, size).astype(np.float32) * 2.0**-23,
    "any bits": any_bits,
    "infinities": lambda size, rng: np.where(rng.random(size) < 0.5, np.inf, normal(size, rng)),
    "subnormal": lambda size, rng: normal(size, rng) * TINY,
    "ascending": lambda size, rng: np.arange(size, dtype=np.float32),
    "outlier": lambda size, rng: np.where(np.arange(size) == size // 3, np.float32(1e30), normal(size, rng) * 1e-30),
}


def kept_of(sparsity, size):
    return math.ceil((1 - Fraction(str(sparsity))) * size)


def stable_topk(x, sparsity):
    """(K-th largest magnitude, mask of the first K in descending order of magnitude) by a stable sort."""
    magnitudes = np.abs(x).reshape(-1)
    magnitudes = np.where(magnitudes < np.finfo(x.dtype).tiny, 0, magnitudes)
    first = np.argsort(-magnitudes, kind="stable")[: kept_of(sparsity, x.size)]
    mask = np.zeros(x.size, bool)
    mask[first] = True
    return magnitudes[first[-1]], mask.reshape(x.shape)


def check(x, sparsity, **options):
    before = x.copy()
    top, expected = stable_topk(x, sparsity)
    threshold = topk_threshold(x, sparsity, **options)
    assert type(threshold) is float
    assert threshold == np.nextafter(x.dtype.type(top), x.dtype.type(0))
    mask = topk_mask(x, sparsity, **options)
    assert mask.dtype == np.bool_
    assert mask.flags.c_contiguous
    assert set(np.unique(mask.view(np.uint8))) <= {0, 1}
    np.testing.assert_array_equal(mask, expected)
    assert mask.shape == x.shape
    np.testing.assert_array_equal(x.view(f"u{x.itemsize}"), before.view(f"u{x.itemsize}"))
    if top >= np.finfo(x.dtype).tiny:
        np.testing.assert_array_equal(np.abs(x) > threshold, np.abs(x) >= top)
    return mask


# --- selection ---


@pytest.mark.parametrize("name", MAKE)
def test_distributions(isa, name):
    """Above 512 elements there are samples and passes; 50,000 are more than one work item."""
    for size in (*range(1, 71), 511, 512, 513, 1000, 5000, 16384, 16385, 50_000):
        x = MAKE[name](size, np.random.default_rng(size)).astype(np.float32)
        for sparsity in SPARSITIES if size > 70 else (0, 0.5, 0.9):
            check(x, sparsity)


@pytest.mark.parametrize("name", ["normal", "relu", "integers", "any bits"])
def test_float64(name):
    for size in (1, 2, 17, 1000):
        x = MAKE[name](size, np.random.default_rng(size)).astype(np.float64)
        x[::3] += x[::3] * 2.0**-40  # not a float32
        for sparsity in SPARSITIES:
            check(x, sparsity)
    check(np.array([1e-310, 0.0, -1e-300, 1e-309]), 0.25)


@given(
    values=st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=8), size=st.integers(1, 3000),
    sparsity=st.floats(0, 1, exclude_max=True), seed=st.integers(0, 99),
)  # fmt: skip
def test_few_values(values, size, sparsity, seed):
    """Heavy ties of any magnitudes."""
    rng = np.random.default_rng(seed)
    check(rng.choice(np.array(values, np.float32), size), sparsity)


@given(size=st.integers(500, 40_000), sparsity=st.floats(0, 1, exclude_max=True), seed=st.integers(0, 99))
def test_many_values(size, sparsity, seed):
    check(normal(size, np.random.default_rng(seed)), sparsity)


def passes_for(x, sparsity):
    return _pruning.topk(x, x.size, kept_of(sparsity, x.size), None, 1)[1]


def test_a_good_sample_takes_few_passes():
    """One reads the array, the others what that one kept; the halving of values would take 31."""
    for name in MAKE:
        x = MAKE[name](200_000, np.random.default_rng(1)).astype(np.float32)
        for sparsity in SPARSITIES:
            assert passes_for(x, sparsity) <= 8, (name, sparsity)


def test_ties_are_counted_only_where_some_are_pruned(isa):
    """Lanes behind the last element are no zeros of the array: all ties are kept here, in one pass."""
    for size in (1001, 16_385):
        x, mask = np.zeros(size, np.float32), np.empty(size, bool)
        assert _pruning.topk(x, size, size, mask, 1) == (0, 1)
        assert mask.all()
        assert _pruning.topk(x, size, size - 1, mask, 1) == (0, 2)
        assert np.flatnonzero(~mask).tolist() == [size - 1]


def sampled_places(size):
    """Where kernels/pruning/topk_search.h looks first."""
    parts = min(8192, size, max(64, 2 * math.isqrt(size)))
    hashes = [number * 0x9E3779B97F4A7C15 % 2**64 for number in range(1, parts + 1)]
    return [size * part // parts + ((one >> 32) * (size // parts) >> 32) for part, one in enumerate(hashes)]


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("at_samples", ["small", "large", "zero"])
def test_samples_that_mislead(isa, at_samples, share):
    """Where the search looks are none of the large values, or nothing but the largest."""
    size, rng = 160_000, np.random.default_rng(3)
    x = normal(size, rng) + np.where(rng.random(size) < share, 100, 0).astype(np.float32)
    shuffled = x.copy()
    places = sampled_places(size)
    assert len(set(places)) == 800
    x[places] = {"small": rng.random(800) / 1000, "large": 200 + rng.random(800), "zero": np.zeros(800)}[at_samples]
    for sparsity in (1 - share / 2, 1 - share, 0.5, 0.3):
        check(x, sparsity)
    wrong = passes_for(x, 1 - share / 2)
    assert passes_for(shuffled, 1 - share / 2) < wrong <= 70


# --- which elements are kept ---


@pytest.mark.parametrize(
    ("sparsity", "size", "kept"),
    [
        (0.9, 10, 1), (0.8, 10, 2), (0.7, 10, 3), (0.9, 11, 2), (0.99, 100, 1), (0.95, 1_000_000, 50_000), (0, 7, 7),
        (0.3, 10, 7), (np.float32(0.9), 10, 1), (np.float64(0.7), 10, 3), (Fraction(2, 3), 9, 3), (1e-9, 10, 10),
        (1 - 2.0**-53, 1000, 1), (0.1, 3, 3), (np.float32(0), 5, 5), (0.58, 50, 21),
    ],
)  # fmt: skip
def test_number_of_kept_elements(sparsity, size, kept):
    """Decimals count as they are written: (1 - 0.95) * 10**6 is 50000.00000000004 in floats, and 50000 here."""
    mask = topk_mask(np.arange(1, size + 1, dtype=np.float32), sparsity)
    assert np.count_nonzero(mask) == kept
    assert mask[size - kept :].all()


def test_ties_keep_the_lower_index(isa):
    for size in (40, 70_000):
        for value in (0.0, 2.5, np.inf):
            x = np.resize(np.array([value, -value, -value], np.float32), size)
            assert topk_mask(x, 0.75).tolist() == [True] * (size // 4) + [False] * (size - size // 4)
            x[size // 2] = np.nextafter(np.float32(value), np.float32(-1))
            mask = topk_mask(x, 0.25)
            assert np.count_nonzero(mask) == size * 3 // 4
            assert mask[: size // 4].all()
            assert mask[size // 2] == (value == 0)  # just below zero is zero: subnormal
    assert topk_mask(np.array([0.0, -0.0, -1.0, 1.0]), 0.75).tolist() == [False, False, True, False]


def test_threshold_of_special_values():
    """Zeros are pruned at any threshold; the largest number is below infinity."""
    x = np.array([np.inf, 1, TINY, TINY / 2, 0], np.float32)
    expected = {0.8: np.finfo(np.float32).max, 0.6: np.nextafter(np.float32(1), np.float32(0)), 0.2: 0.0, 0: 0.0}
    for sparsity, threshold in expected.items():
        assert topk_threshold(x, sparsity) == threshold
    assert topk_threshold(x, 0.4) == np.nextafter(TINY, np.float32(0))
    assert topk_threshold(x.astype(np.float64)[:1], 0) == np.finfo(np.float64).max


# --- memory and threads ---


def test_memory_order():
    x = normal((6, 8, 40, 12), np.random.default_rng(0))
    ties = np.random.default_rng(1).integers(-3, 4, x.shape).astype(np.float32)
    for array in (x, ties):
        check(array.transpose(0, 2, 3, 1), 0.8)
        check(array[::-1, ::2, 1:30, ::-3], 0.8)
        check(np.asfortranarray(array), 0.8)
        check(np.broadcast_to(array[:1, :, :1], array.shape), 0.8)
        odd = np.frombuffer(b"?" + array.tobytes(), np.float32, array.size, 1).reshape(array.shape)
        assert not odd.flags.aligned
        assert topk_threshold(odd, 0.8) == topk_threshold(array, 0.8)
        np.testing.assert_array_equal(topk_mask(odd, 0.8), stable_topk(array, 0.8)[1])
    check(np.float32(3).reshape(()), 0.5)
    check(np.zeros((), np.float64), 0.5)


@needs_mprotect
@pytest.mark.parametrize("at_end", [True, False], ids=["end", "start"])
def test_guard_pages(isa, at_end):
    for size in (1, 15, 16, 17, 513, 1024, 16_390):
        for name in ("normal", "integers"):
            check(guarded(MAKE[name](size, np.random.default_rng(0)), at_end), 0.8)
        x = guarded(normal(size, np.random.default_rng(0)), at_end)
        mask = guarded(np.full(size, 7, np.uint8), at_end, writable=True)
        _pruning.topk(x, size, kept_of(0.5, size), mask, 1)
        np.testing.assert_array_equal(mask.view(np.bool_), stable_topk(x, 0.5)[1])
        _pruning.above_mask(x, size, 0.5, mask, 1)
        np.testing.assert_array_equal(mask.view(np.bool_), np.abs(x) > 0.5)


@pytest.mark.parametrize("name", ["normal", "relu", "integers", "equal", "two values"])
def test_number_of_threads(monkeypatch, isa, name):
    monkeypatch.setattr(topk, "SERIAL_ELEMENTS", 1)
    x = MAKE[name](120_001, np.random.default_rng(2)).astype(np.float32)
    for sparsity in (0.1, 0.4, 0.9, 0.9999):
        for threads in (1, 2, 3, 7):
            check(x, sparsity, num_threads=threads)


def test_other_kinds_of_arrays():
    x = normal((40, 80), np.random.default_rng(0))
    np.testing.assert_array_equal(topk_mask(memoryview(x), 0.8), stable_topk(x, 0.8)[1])
    torch = pytest.importorskip("torch")
    np.testing.assert_array_equal(topk_mask(torch.from_numpy(x), 0.8), stable_topk(x, 0.8)[1])
    assert topk_threshold(torch.from_numpy(x), 0.8) == topk_threshold(x, 0.8)


# --- TopK ---


def test_topk_of_every_step():
    rng = np.random.default_rng(0)
    top = TopK(0.8)
    for _ in range(3):
        x = normal((30, 50), rng)
        assert top.threshold(x) == topk_threshold(x, 0.8) == top.stored
        np.testing.assert_array_equal(top.mask(x), topk_mask(x, 0.8))
    assert top.steps == 6


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_topk_with_a_period(isa, dtype):
    """Steps 0, 3 and 6 find a threshold, the others take it as it is, whatever the density that it leads to."""
    rng, top, masks = np.random.default_rng(0), TopK(0.9, period=3), TopK(0.9, period=3)
    for step in range(8):
        x = (normal((30, 51), rng) * (step + 1)).astype(dtype)
        if step % 3 == 0:
            stored, expected = topk_threshold(x, 0.9), topk_mask(x, 0.9)
        else:
            expected = np.abs(x) > stored
            assert np.count_nonzero(expected) > np.count_nonzero(topk_mask(x, 0.9))
        assert top.threshold(x) == stored
        mask = masks.mask(x)
        assert mask.dtype == np.bool_ and mask.flags.c_contiguous
        np.testing.assert_array_equal(mask, expected)
    assert repr(top) == f"TopK(sparsity=0.9, period=3, steps=8, stored={stored})"


def test_topk_between_refreshes():
    """Ties of the stored threshold are not above it; NaN is; any memory order."""
    top = TopK(0.5, period=10)
    assert top.mask(np.array([1, 3, 2, 4], np.float32)).tolist() == [False, True, False, True]
    x = np.array([[np.nan, top.stored, 3], [-3, 0, np.inf]], np.float32)
    expected = np.array([[True, False, True], [True, False, True]])
    np.testing.assert_array_equal(top.mask(x), expected)
    np.testing.assert_array_equal(top.mask(x.T), expected.T)
    np.testing.assert_array_equal(top.mask(x.T).T.astype(x.dtype), expected)
    assert top.mask(x[:0]).shape == (0, 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(0,), (0, 5), (3, 0, 2)])
def test_empty(isa, shape, dtype):
    x = np.empty(shape, dtype)
    assert topk_threshold(x, 0.5) == 0
    for function in (topk_mask, channel_mask)[: x.ndim]:
        mask = function(x, 0.5)
        assert mask.shape == shape and mask.dtype == np.bool_


def test_empty_is_no_step():
    """The refresh that an empty batch would have had is left to the next one, whose threshold counts from then on."""
    x = np.arange(8, dtype=np.float32)
    top = TopK(0.5, period=2)
    assert top.threshold(x[:0]) == 0 and top.mask(x[:0]).shape == (0,)
    assert (top.steps, top.stored) == (0, None)
    first = top.threshold(x)
    assert top.threshold(x[:0]) == first and not top.mask(x[:0]).size  # between refreshes
    top.threshold(x)
    assert top.threshold(x[:0]) == first  # where a refresh is due
    assert top.threshold(10 * x) > 9 * first
    assert top.steps == 3


def test_channels_of_equal_weights_in_any_order_of_memory():
    weight = np.random.default_rng(4).standard_normal((6, 5, 7, 9), np.float32)
    weight[3:] = weight[:3]  # ties
    mask = channel_mask(weight, 0.5)
    for axes in ((0, 2, 3, 1), (3, 2, 1, 0), (1, 0, 3, 2)):
        other = np.ascontiguousarray(weight.transpose(axes)).transpose(np.argsort(axes))
        np.testing.assert_array_equal(channel_mask(other, 0.5), mask)


def test_a_failed_refresh_is_no_step():
    top = TopK(0.5, period=2)
    with pytest.raises(ValueError, match="x: got NaN"):
        top.threshold(np.full(4, np.nan, np.float32))
    assert (top.steps, top.stored) == (0, None)
    assert top.threshold(np.arange(4, dtype=np.float32)) < 2


# --- channels ---


def stable_channels(weight, sparsity):
    norms = np.array([[np.abs(one.astype(np.float64)).sum() for one in row] for row in weight])
    return np.ones(weight.shape, bool) & stable_topk(norms, sparsity)[1].reshape(*norms.shape, *[1] * (weight.ndim - 2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(18, 16, 3, 3), (7, 5, 3), (4, 3, 2, 3, 2), (9, 11), (1, 1, 3, 3), (33, 40, 1, 1)])
def test_channels(shape, dtype):
    rng = np.random.default_rng(0)
    for weight in (rng.standard_normal(shape), rng.integers(-1, 2, shape)):
        for sparsity in (0, 0.5, 0.9):
            mask = channel_mask(weight.astype(dtype), sparsity)
            assert mask.dtype == np.bool_ and mask.flags.c_contiguous and mask.flags.writeable
            np.testing.assert_array_equal(mask, stable_channels(weight.astype(dtype), sparsity))
            slices = mask.reshape(*shape[:2], -1)
            assert (slices.all(axis=2) == slices.any(axis=2)).all()
            assert np.count_nonzero(slices.all(axis=2)) == kept_of(sparsity, shape[0] * shape[1])


def test_equal_channels_keep_the_lower_index():
    mask = channel_mask(np.ones((4, 6, 3, 3), np.float32), 0.5)
    assert mask[:2].all() and not mask[2:].any()
    weight = np.ones((2, 3, 2), np.float32)
    weight[1, 2] = [-3, 0]  # 3 instead of 2
    assert channel_mask(weight, 0.8)[:, :, 0].tolist() == [[True, False, False], [False, False, True]]


# --- with the kernels ---


def distinct(shape, seed):
    """Integers whose magnitudes differ from each other, so that no two of them tie."""
    rng = np.random.default_rng(seed)
    size = math.prod(shape)
    values = rng.permutation(np.arange(1, size + 1)) * rng.choice([-1, 1], size)
    return values.astype(np.float32).reshape(shape)


@pytest.mark.parametrize("sparsity", [0.5, 0.8])
def test_thresholds_in_a_convolution(isa, sparsity):
    x, weight = distinct((2, 9, 8, 16), 1), sparse_ints((18, 16, 3, 3), 0, 2)
    mask = topk_mask(x, sparsity)
    assert np.count_nonzero(mask) == kept_of(sparsity, x.size)
    expected = sc.reference.conv2d(x * mask, weight, padding=1, layout="NHWC")
    assert_not_vacuous(expected)
    threshold = topk_threshold(x, sparsity)
    actual = sc.conv2d(x, weight, padding=1, layout="NHWC", threshold=threshold, skip="input")
    assert_exact(actual, expected)
    np.testing.assert_array_equal(TopK(sparsity).threshold(x), threshold)


@pytest.mark.parametrize("sparsity", [0.5, 0.8])
@pytest.mark.parametrize("choose", [topk_mask, channel_mask])
def test_masks_in_a_packed_weight(isa, choose, sparsity):
    x, weight = sparse_ints((2, 9, 8, 16), 0.1, 1), distinct((18, 16, 3, 3), 2)
    mask = choose(weight, sparsity)
    packed = sc.pack_weight(weight, mask=mask)
    assert packed.density == np.count_nonzero(mask) / mask.size
    expected = sc.reference.conv2d(x, weight * mask, padding=1, layout="NHWC")
    assert_not_vacuous(expected)
    assert_exact(sc.conv2d(x, packed, padding=1, layout="NHWC", skip="weight"), expected)


# --- bad inputs ---

X = np.ones((8, 12), np.float32)
FUNCTIONS = {"x": (topk_threshold, topk_mask, TopK(0.5).threshold, TopK(0.5).mask), "weight": (channel_mask,)}


def with_nan(size, place, dtype=np.float32):
    x = np.ones(size, dtype)
    x[place] = np.nan
    return x.reshape(1, -1)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (with_nan(1, 0), ValueError, "got NaN, expected numbers that can be ordered"),
        (with_nan(512, 511), ValueError, "got NaN"),
        (with_nan(3000, 2999), ValueError, "got NaN"),
        (with_nan(40_000, 20_000), ValueError, "got NaN"),
        (with_nan(100, 5, np.float64), ValueError, "got NaN"),
        (-np.abs(with_nan(3000, 1)), ValueError, "got NaN"),
        (X.astype(int), TypeError, "got dtype int64, expected float32 or float64"),
        (X.astype(np.float16), TypeError, "got dtype float16"),
        ([1.0, 2.0], TypeError, "got list"),
    ],
)
def test_bad_arrays(isa, given, error, message):
    for name, functions in FUNCTIONS.items():
        for function in functions:
            with pytest.raises(error, match=f"^{name}: {message}"):
                function(given, *([] if getattr(function, "__self__", None) else [0.5]))


@pytest.mark.parametrize(
    ("sparsity", "error"),
    [(1, ValueError), (1.0, ValueError), (-0.1, ValueError), (math.nan, ValueError), (True, TypeError),
     ("0.5", TypeError), (None, TypeError), ([0.5], TypeError), (np.array([0.5]), TypeError)],
)  # fmt: skip
def test_bad_sparsity(sparsity, error):
    for call in (topk_threshold, topk_mask, channel_mask, lambda _, sparsity: TopK(sparsity)):
        with pytest.raises(error, match=r"^sparsity: got"):
            call(X, sparsity)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: TopK(0.5, 0), ValueError, "period: got 0, expected at least 1"),
        (lambda: TopK(0.5, 1.5), TypeError, "period: got 1.5"),
        (lambda: channel_mask(np.ones(4, np.float32), 0.5), ValueError, "weight: got 1 dimensions"),
        (lambda: topk_mask(X, 0.5, num_threads=0), ValueError, "num_threads: got 0"),
        (lambda: topk_threshold(X, 0.5, num_threads="2"), TypeError, "num_threads: got '2'"),
    ],
)
def test_other_errors(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()
