"""Stochastic pruning: its rule, element by element, against the same random numbers drawn in NumPy; its expectation.

Sums of thousands of bounded terms are normal well beyond the accuracy of the statistical tests' limits
(tests/support/stochastic_oracle.py). One file, since every part asks for the same rule, moments and memory.
"""

import itertools
import math
import pickle
import re
import tracemalloc
from statistics import NormalDist

import numpy as np
import pytest
from awkward import guarded, needs_mprotect
from comparisons import assert_within_bound
from stochastic_oracle import assert_normal, expected, key_of, limit, second_key_of, uniform

import sparseconv as sc
from sparseconv import cpu, reference
from sparseconv.pruning import GradientPruner, Pruned, stochastic_prune
from sparseconv.pruning.stochastic import SERIAL_ELEMENTS

ITEM, LANES, BATCH = 1 << 15, 16, 64  # of the kernel: an item's elements, its sums, what it draws at most at a time
SIZES = (*range(1, 70), 127, 128, 129, ITEM - 1, ITEM, ITEM + 1, 2 * ITEM + 77)
DTYPES = (np.float32, np.float64)
TARGETS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)


def factor(p):
    return math.sqrt(math.pi / 2) * -NormalDist().inv_cdf((1 - p) / 2)


def exact_mean(g):
    """The mean magnitude in the documented order: lanes of an item one after the other, then lanes, then items."""
    flat = np.abs(g.ravel(order="K").astype(np.float64))
    sums = []
    for start in range(0, flat.size, ITEM):
        item = flat[start : start + ITEM]
        rows = np.concatenate([item, np.zeros(-item.size % LANES)]).reshape(-1, LANES)
        sums.append(np.cumsum(np.cumsum(rows, axis=0)[-1])[-1])
    return math.fsum(one / flat.size for one in sums)


def gradient(shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def check_rule(g, pruned, key):
    want = expected(g, pruned.threshold, key)
    got = pruned.array.ravel(order="K")
    assert pruned.array.shape == g.shape
    assert pruned.array.dtype == g.dtype
    np.testing.assert_array_equal(got.view(np.uint8), want.view(np.uint8))  # bits: no -0.0 comes from anywhere
    assert pruned.density == np.count_nonzero(got) / g.size


# --- the rule ---


@pytest.mark.parametrize("dtype", DTYPES)
def test_rule(isa, dtype):
    for seed, size in enumerate(SIZES):
        g = gradient(size, seed, dtype)
        before = g.copy()
        pruned = stochastic_prune(g, 0.9, rng=seed)
        check_rule(g, pruned, key_of(seed))
        np.testing.assert_array_equal(g, before)
        assert pruned.threshold == dtype(factor(0.9) * exact_mean(g))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [1e-9, 0.1, 0.5, 0.99, 1 - 2**-53])
def test_targets(p, dtype):
    g = gradient(5000, 1, dtype)
    pruned = stochastic_prune(g, p, rng=3)
    check_rule(g, pruned, key_of(3))
    assert pruned.threshold == dtype(factor(p) * exact_mean(g))
    assert abs(1 - pruned.density - zeroed_normal(p)) < 0.05


def test_magnitudes_around_the_threshold(isa):
    """tau itself stays, and what is next to it from below is the last that may go, in whatever lane."""
    tau = np.float32(factor(0.9) * 0.75)
    below, above = np.nextafter(tau, np.float32([0, 9]))
    for value in (tau, below, above, tau / 2, tau * np.float32(2**-23)):
        pruner = GradientPruner(0.9, 1, rng=0)
        pruner.prune(np.full(64, 0.75, np.float32))
        g = np.full(10 * ITEM, value) * np.resize(np.float32([1, -1, -1]), 10 * ITEM)
        pruned = pruner.prune(g)
        check_rule(g, pruned, second_key_of(0))
        assert pruned.threshold == tau
        if value >= tau:
            np.testing.assert_array_equal(pruned.array, g)
        elif value == tau / 2:
            assert_normal((pruned.density - 0.5) * 2 * math.sqrt(g.size))
        elif value < tau / 2:
            assert pruned.density < 1e-4


@pytest.mark.parametrize("dtype", DTYPES)
def test_random_numbers_decide_where_they_say(isa, dtype):
    """|g| = r tau, in each element with its own r, is not above it; the next number is."""
    size = 2 * ITEM + BATCH + 21
    signs = np.resize(np.array([1, -1, -1], dtype), size)
    for next_one in (False, True):
        pruner = GradientPruner(0.9, 1, rng=1)
        pruner.prune(np.full(64, 0.75, dtype))
        edge = uniform(size, second_key_of(1)).astype(dtype) * dtype(pruner.thresholds[0])
        pruned = pruner.prune(signs * (np.nextafter(edge, dtype(9)) if next_one else edge))
        np.testing.assert_array_equal(pruned.array, signs * dtype(pruned.threshold) if next_one else np.zeros(size))
        assert pruned.density == next_one


def test_zeros_stay_and_count(isa):
    g = gradient(40_000)
    g[::2] = np.resize(np.float32([0.0, -0.0]), 20_000)
    pruned = stochastic_prune(g, 0.8, rng=0)
    check_rule(g, pruned, key_of(0))
    assert not pruned.array[::2].view(np.uint32).any()
    assert math.isclose(pruned.threshold, factor(0.8) * np.abs(g).mean(dtype=float), rel_tol=1e-6)
    nothing = stochastic_prune(np.zeros(100, np.float32), 0.9)
    assert nothing[1:] == (0.0, 0.0)
    assert not nothing.array.any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_sparsity_of_zero_prunes_nothing(isa, dtype):
    g = np.resize(np.array([1.0, -0.0, 0.0, 1e-300, np.finfo(dtype).tiny, -3.0, np.finfo(dtype).tiny / 4], dtype), 1001)
    pruned = stochastic_prune(g, 0, rng=0)
    np.testing.assert_array_equal(pruned.array.view(np.uint8), g.view(np.uint8))
    assert pruned.array is not g
    assert pruned.threshold == 0
    assert pruned.density == np.count_nonzero(np.abs(g) >= np.finfo(dtype).tiny) / g.size


@pytest.mark.parametrize("dtype", DTYPES)
def test_subnormal_numbers(isa, dtype):
    """They become zero beside others; where all are subnormal, nothing is pruned and they stay."""
    tiny = np.finfo(dtype).tiny
    g = np.resize(np.array([1.0, tiny / 2, -tiny / 2, -1e-3, tiny], dtype), 1000)
    pruned = stochastic_prune(g, 0.9, rng=0)
    for place in (1, 2):
        assert (pruned.array[place::5] == 0).all()
        assert not np.signbit(pruned.array[place::5]).any()
    alone = stochastic_prune(g[1:3], 0.9)
    np.testing.assert_array_equal(alone.array, g[1:3])
    assert alone.threshold == 0
    assert dtype(tiny) * dtype(0.5) > 0  # the caller's floating-point state is as it was


@pytest.mark.parametrize("scale", [1e-37, 1e-20, 1e20, 3e38])
def test_range_of_numbers(isa, scale):
    """Thresholds near the ends of the range neither overflow nor turn into zero."""
    g = (np.random.default_rng(0).uniform(-1, 1, 30_000) * scale).astype(np.float32)
    pruned = stochastic_prune(g, 0.99, rng=0)
    assert np.finfo(np.float32).tiny <= pruned.threshold <= np.finfo(np.float32).max
    check = np.abs(g) >= np.finfo(np.float32).tiny  # others count as zero
    np.testing.assert_array_equal(pruned.array[check], expected(g, pruned.threshold, key_of(0))[check])
    assert 0.2 < pruned.density < 0.9


# --- expectation ---


@pytest.mark.parametrize("dtype", DTYPES)
def test_result_is_unbiased(dtype):
    """Sums of errors beside their deviation, sqrt(sum |g| (tau - |g|)): in all, by sign and by magnitude.

    The bias that is allowed for, tau / 2^24 per element, is 1e-4 of a deviation here.
    """
    g, repeats = gradient(1 << 17, 4, dtype), 8
    rng, scores = np.random.default_rng(5), []
    errors = np.zeros(g.shape)
    for _ in range(repeats):
        pruned = stochastic_prune(g, 0.95, rng=rng)
        errors += pruned.array.astype(np.float64) - g
    size = np.abs(g.astype(np.float64)) / pruned.threshold
    below = size < 1
    assert not errors[~below].any()
    variance = repeats * pruned.threshold**2 * size * (1 - size)
    edges = [0, 0.001, 0.003, 0.01, 0.03, *np.linspace(0.1, 1, 10)]
    for kind in (below, below & (g > 0), below & (g < 0)):
        scores.append(errors[kind].sum() / math.sqrt(variance[kind].sum()))
        for low, high in itertools.pairwise(edges):
            chosen = kind & (size >= low) & (size < high)
            scores.append(errors[chosen].sum() / math.sqrt(variance[chosen].sum()))
    assert_normal(scores)
    # and the variance is what it is said to be: squares are bounded, so their sum is normal, too
    squares = errors[below] ** 2 - variance[below]
    assert abs(squares.sum()) < limit(1) * math.sqrt((squares**2).sum())
    assert math.sqrt((squares**2).sum()) < 0.01 * variance[below].sum()


def test_errors_are_unrelated():
    """Between neighbours at any distance, and between calls one after the other."""
    g = np.full(1 << 20, 0.75, np.float32)
    rng, last, scores = np.random.default_rng(6), None, []
    for _ in range(4):
        pruned = stochastic_prune(g, 0.9, rng=rng)
        error = pruned.array.astype(np.float64) - 0.75
        error /= math.sqrt(0.75 * (pruned.threshold - 0.75))
        for lag in (1, 2, 15, 16, 17, 31, 32, 33, 64, 128, ITEM, ITEM + 1):
            scores.append((error[lag:] * error[:-lag]).sum() / math.sqrt(error.size - lag))
        if last is not None:
            scores.append((error * last).sum() / math.sqrt(error.size))
        last = error
    assert_normal(scores)


def zeroed_normal(p):
    t = -NormalDist().inv_cdf((1 - p) / 2)
    return p - math.sqrt(2 / math.pi) * (1 - math.exp(-t * t / 2)) / t


def zeroed_laplace(p):
    s = factor(p)
    return 1 - (1 - math.exp(-s)) / s


def test_documented_table():
    rows = re.findall(r"^ +(0\.\d\d) +(\d\.\d{4}) +(0\.\d{3}) +(0\.\d{3})$", stochastic_prune.__doc__, re.MULTILINE)
    assert [float(row[0]) for row in rows] == list(TARGETS)
    for p, t, normal, laplace in (map(float, row) for row in rows):
        assert t == round(NormalDist().inv_cdf((1 + p) / 2), 4)
        assert normal == round(zeroed_normal(p), 3)
        assert laplace == round(zeroed_laplace(p), 3)


@pytest.mark.parametrize("p", TARGETS)
def test_zeroed_share_is_not_the_target(p):
    """It is that of the table, to the error of the sample; tau's own error is smaller than that of the count."""
    size, rng = 1 << 19, np.random.default_rng(7)
    for sample, share in ((rng.standard_normal, zeroed_normal(p)), (rng.laplace, zeroed_laplace(p))):
        g = (sample(size=size) * 1e-3).astype(np.float32)
        zeroed = 1 - stochastic_prune(g, p, rng=8).density
        assert abs(zeroed - share) < 2 * limit(12) * math.sqrt(share * (1 - share) / size)
        assert zeroed < p - 0.1


# --- reproducibility ---


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_and_instruction_sets(dtype):
    g = gradient(3 * SERIAL_ELEMENTS + 333, 9, dtype)  # enough for three threads
    results = []
    for name in cpu.available_isas():
        with cpu.use_isa(name):
            for threads in (1, 2, 3):
                one = stochastic_prune(g, 0.9, rng=1, num_threads=threads)
                pruner = GradientPruner(0.9, 1, rng=1)
                pruner.prune(g, num_threads=threads)
                results.append(
                    (one.array.tobytes(), *one[1:], *pruner.thresholds, *pruner.prune(g, num_threads=threads)[1:])
                )
    assert all(one == results[0] for one in results)
    assert results[0][3] == factor(0.9) * exact_mean(g)


def test_seeds():
    g = gradient(5000)
    same = [stochastic_prune(g, 0.9, rng=rng).array for rng in (7, np.random.default_rng(7), np.random.PCG64(7))]
    for other in same[1:]:
        np.testing.assert_array_equal(same[0], other)
    assert (stochastic_prune(g, 0.9, rng=8).array != same[0]).any()
    assert (stochastic_prune(g, 0.9).array != stochastic_prune(g, 0.9).array).any()
    rng, keys = np.random.default_rng(3), np.random.default_rng(3)
    for _ in range(3):  # one draw per call
        check_rule(g, stochastic_prune(g, 0.9, rng=rng), int(keys.integers(2**64, dtype=np.uint64)))


def test_failed_calls_draw_nothing():
    g, rng = gradient(100), np.random.default_rng(0)
    pruner = GradientPruner(0.9, 1, rng=rng)
    for call in (lambda out: stochastic_prune(g, 0.9, rng=rng, out=out), lambda out: pruner.prune(g, out=out)):
        with pytest.raises(ValueError, match=r"^out: got shape"):
            call(np.empty(99, np.float32))
    assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state
    assert pruner.thresholds == ()


# --- memory ---


def layouts():
    g = gradient((3, 20, 7, 9))
    return {
        "NCHW": g,
        "NHWC": g.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2),
        "reversed axes": g.copy(order="F"),
        "with gaps": gradient((3, 20, 14, 18))[:, :, ::2, 1::2],
        "a slice": gradient((3, 41, 7, 9))[:, :20],
        "one number": gradient(()),
    }


@pytest.mark.parametrize("name", layouts())
def test_where_the_result_goes(isa, name):
    """A new array, an array of the same or another order, and the gradient itself: the same numbers."""
    g = layouts()[name]
    new = stochastic_prune(g, 0.8, rng=2)
    check_rule(g, new, key_of(2))
    if g.size > 1:
        assert 0.2 < new.density < 0.8
    orders = [np.full(g.shape, 7, np.float32), np.full(g.shape, 7, np.float32, order="F")]
    if g.ndim:
        orders.append(np.full((2 * g.shape[0], *g.shape[1:]), 7, np.float32)[::2])
    for out in (*orders, np.full_like(g, 7)):
        pruned = stochastic_prune(g, 0.8, rng=2, out=out)
        assert pruned.array.ctypes.data == out.ctypes.data
        assert pruned.array.strides == out.strides
        np.testing.assert_array_equal(out, new.array)
        assert pruned[1:] == new[1:]
    if g.ndim:
        assert (orders[2].base[1::2] == 7).all()
    pruned = stochastic_prune(g, 0.8, rng=2, out=g[...])  # other objects, the same memory
    np.testing.assert_array_equal(g, new.array)
    assert pruned.array.ctypes.data == g.ctypes.data


def test_memory_between_elements_is_left_alone(isa):
    whole = gradient((8, 6, 10))
    before = whole.copy()
    stochastic_prune(whole[::2, 1:4, ::3], 0.9, rng=0, out=whole[::2, 1:4, ::3])
    changed = whole != before
    assert changed[::2, 1:4, ::3].any()
    changed[::2, 1:4, ::3] = False
    assert not changed.any()


@pytest.mark.parametrize("name", ["NCHW", "NHWC"])
def test_in_place_takes_no_memory(name):
    g = gradient((4, 64, 56, 56) if name == "NCHW" else (4, 56, 56, 64))
    g = g if name == "NCHW" else g.transpose(0, 3, 1, 2)
    pruner = GradientPruner(0.9, 1, rng=0)
    pruner.prune(g, out=g)
    tracemalloc.start()
    try:
        pruner.prune(g, out=g)
        stochastic_prune(g, 0.5, out=g)
        assert tracemalloc.get_traced_memory()[1] < g.nbytes / 50
    finally:
        tracemalloc.stop()


@needs_mprotect
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("at_end", [True, False], ids=["end", "start"])
def test_guard_pages(isa, at_end, dtype):
    for seed, size in enumerate((*range(1, 2 * BATCH + 2), ITEM - 1, ITEM + 1)):
        g = gradient(size, seed, dtype)
        out = guarded(np.zeros_like(g), at_end, writable=True)
        pruned = stochastic_prune(guarded(g, at_end), 0.9, rng=seed, out=out)
        check_rule(g, pruned, key_of(seed))


def test_misaligned_and_read_only_gradients():
    g = gradient(1000)
    odd = np.frombuffer(b"?" + g.tobytes(), np.float32, g.size, 1)
    assert not odd.flags.aligned
    check_rule(g, stochastic_prune(odd, 0.9, rng=0), key_of(0))


def test_other_kinds_of_arrays():
    g = gradient((4, 8))
    check_rule(g, stochastic_prune(memoryview(g), 0.9, rng=0), key_of(0))
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(g.copy())
    check_rule(g, stochastic_prune(tensor, 0.9, rng=0, out=tensor), key_of(0))
    assert (tensor.numpy() != g).any()


# --- the predicted threshold ---


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [1, 3])
def test_window(isa, dtype, window):
    """Nothing for `window` calls, then the mean of the last exact thresholds, each found by pruning its gradient."""
    pruner, keys, exact = GradientPruner(0.8, window, rng=11), np.random.default_rng(11), []
    for step in range(window + 4):
        g = gradient((3, 5, 211), step, dtype) * dtype(1 + step)
        key = int(keys.integers(2**64, dtype=np.uint64))
        pruned = pruner.prune(g)
        assert isinstance(pruned, Pruned)
        if step < window:
            np.testing.assert_array_equal(pruned.array, g)
            assert not np.shares_memory(pruned.array, g)
            assert pruned[1:] == (1.0, 0.0)
        else:
            assert pruned.threshold == dtype(math.fsum(one / window for one in exact[-window:]))
            check_rule(g, pruned, key)
        exact.append(factor(0.8) * exact_mean(g))
        assert pruner.thresholds == pytest.approx(exact[-window:], rel=1e-15)
        assert dtype(exact[-1]) == pytest.approx(stochastic_prune(g, 0.8).threshold, rel=1e-6)


def test_pruner_in_place():
    g = [gradient(40_000, step) for step in range(4)]
    new, inside = GradientPruner(0.9, 2, rng=0), GradientPruner(0.9, 2, rng=0)
    for one in g:
        pruned = new.prune(one)
        out = one.copy()
        assert inside.prune(out, out=out).array is out
        np.testing.assert_array_equal(out, pruned.array)
    assert new.thresholds == inside.thresholds


def test_pruner_is_saved_and_goes_on():
    pruner = GradientPruner(0.9, 2, rng=5)
    for step in range(3):
        pruner.prune(gradient(1000, step))
    other = pickle.loads(pickle.dumps(pruner))
    assert other.thresholds == pruner.thresholds
    assert (other.sparsity, other.window) == (0.9, 2)
    g = gradient(1000, 3)
    np.testing.assert_array_equal(other.prune(g).array, pruner.prune(g).array)
    assert repr(GradientPruner(0.5, 2)) == "GradientPruner(sparsity=0.5, window=2, thresholds=[])"


# --- Inf and NaN ---


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(isa, dtype, value):
    """They stay where they are and are no part of a threshold; nothing else is pruned without one."""
    g = gradient(3 * BATCH + 5, dtype=dtype)
    g[[0, 17, -1]] = value
    pruned = stochastic_prune(g, 0.9, rng=0)
    np.testing.assert_array_equal(pruned.array.view(np.uint8), g.view(np.uint8))
    assert math.isnan(pruned.threshold)
    assert pruned.density == 1
    pruner = GradientPruner(0.9, 1, rng=0)
    pruner.prune(g)
    assert pruner.thresholds == ()
    pruner.prune(gradient(100, dtype=dtype))
    before = pruner.thresholds
    pruned = pruner.prune(g)
    assert pruner.thresholds == before
    assert pruned.threshold == dtype(before[0])
    assert pruned.density < 0.7
    np.testing.assert_array_equal(pruned.array[[0, 17, -1]].view(np.uint8), g[[0, 17, -1]].view(np.uint8))


def test_sums_beyond_the_range():
    """Finite numbers whose sum is not: no threshold, no exception."""
    pruned = stochastic_prune(np.full(100, 1e308), 0.9)
    assert math.isnan(pruned.threshold)
    assert (pruned.array == 1e308).all()
    several = stochastic_prune(np.full(5 * ITEM, 1e303), 0.9)
    assert several.threshold == pytest.approx(1e303 * factor(0.9))


# --- what it is for ---


def test_pruned_gradients_are_skipped_by_both_passes(isa):
    rng = np.random.default_rng(12)
    x, weight = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 24, 14, 14), (40, 24, 3, 3)))
    dy = rng.standard_normal((2, 40, 14, 14)).astype(np.float32)
    pruned = stochastic_prune(dy, 0.9, rng=0, out=dy)
    assert 0.4 < pruned.density < 0.5
    options = {"padding": 1}
    wide = [one.astype(np.float64) for one in (x, weight, dy)]
    size = [np.abs(one) for one in wide]
    dx = sc.conv2d_backward_data(dy, weight, x.shape, skip="grad_output", **options)
    exact, magnitude = (reference.conv2d_backward_data(one[2], one[1], x.shape, **options) for one in (wide, size))
    assert_within_bound(dx, exact, magnitude, 40 * 9)
    assert np.count_nonzero(dx) > 0.9 * dx.size
    dw = sc.conv2d_backward_weight(x, dy, weight.shape, skip="grad_output", **options)
    exact, magnitude = (
        reference.conv2d_backward_weight(one[0], one[2], weight.shape, **options) for one in (wide, size)
    )
    assert_within_bound(dw, exact, magnitude, 2 * 14 * 14)
    assert np.count_nonzero(dw) > 0.9 * dw.size


# --- nothing at all ---


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("in_place", [False, True])
def test_empty(isa, dtype, in_place):
    """It is pruned to nothing, and leaves random numbers and what is predicted alone."""
    empty, g = np.empty((0, 3, 4), dtype), np.random.default_rng(5).standard_normal(999).astype(dtype)
    rng = np.random.default_rng(1)
    out = empty if in_place else None
    pruned = stochastic_prune(empty, 0.5, rng=rng, out=out)
    assert (pruned.array.shape, pruned.array.dtype, pruned.density, pruned.threshold) == (empty.shape, dtype, 0, 0)
    assert rng.integers(2**64, dtype=np.uint64) == np.random.default_rng(1).integers(2**64, dtype=np.uint64)
    pruner = GradientPruner(0.5, 2, rng=0)
    for _ in range(2):
        assert pruner.prune(empty, out=out)[1:] == (0, 0)
        pruner.prune(g)
    known = pruner.thresholds
    assert len(known) == 2
    assert pruner.prune(empty, out=out)[1:] == (0, 0)
    assert pruner.thresholds == known
    assert pruner.prune(g).threshold > 0


# --- bad input ---

G = np.ones((8, 12), np.float32)
READ_ONLY = np.ones((8, 12), np.float32)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: stochastic_prune(G, 1), ValueError, "sparsity: got 1, expected at least 0 and less than 1"),
        (lambda: stochastic_prune(G, -0.1), ValueError, "sparsity: got -0.1"),
        (lambda: stochastic_prune(G, np.nan), ValueError, "sparsity: got nan"),
        (lambda: stochastic_prune(G, "0.5"), TypeError, "sparsity: got '0.5', expected a number"),
        (lambda: stochastic_prune(G, True), TypeError, "sparsity: got True"),
        (lambda: stochastic_prune(G.astype(np.float16), 0.5), TypeError, "g: got dtype float16"),
        (lambda: stochastic_prune([1.0], 0.5), TypeError, "g: got list"),
        (lambda: stochastic_prune(G, 0.5, rng="seed"), TypeError, "rng: got 'seed', expected None, a seed"),
        (lambda: stochastic_prune(G, 0.5, rng=-1), ValueError, "rng: got -1"),
        (lambda: stochastic_prune(G, 0.5, num_threads=0), ValueError, "num_threads: got 0"),
        (lambda: stochastic_prune(G, 0.5, out=G.T), ValueError, r"out: got shape \(12, 8\), expected \(8, 12\)"),
        (lambda: stochastic_prune(G, 0.5, out=G.astype(float)), TypeError, "out: got dtype float64, expected float32"),
        (lambda: stochastic_prune(G, 0.5, out=READ_ONLY), ValueError, "out: got a read-only array"),
        (lambda: stochastic_prune(READ_ONLY, 0.5, out=READ_ONLY), ValueError, "out: got a read-only array"),
        (lambda: stochastic_prune(G[1:], 0.5, out=G[:-1]), ValueError, "out: got an array that overlaps g"),
        (lambda: stochastic_prune(G[::-1], 0.5, out=G), ValueError, "out: got an array that overlaps g"),
        (lambda: stochastic_prune(G, 0.5, out=[]), TypeError, "out: got list"),
        (lambda: stochastic_prune(np.broadcast_to(G[:1], (8, 12)), 0.5, out=G[::-1]), ValueError, "out: got negative"),
        (lambda: GradientPruner(1.0, 4), ValueError, "sparsity: got 1.0"),
        (lambda: GradientPruner(0.5, 0), ValueError, "window: got 0, expected at least 1"),
        (lambda: GradientPruner(0.5, 1.5), TypeError, "window: got 1.5"),
        (lambda: GradientPruner(0.5, 1, rng=0.5), TypeError, "rng: got 0.5"),
        (lambda: GradientPruner(0.5, 1).prune(G, out=G[:4]), ValueError, "out: got shape"),
        (lambda: GradientPruner(0.5, 1).prune(G, num_threads="2"), TypeError, "num_threads: got '2'"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()
    assert (G == 1).all()
