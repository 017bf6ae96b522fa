"""Skipping row kernels as Intel's cores run them: values packed side by side, several words of channels to a sweep."""

import numpy as np
import pytest
import simulated
from cases import Case, call, in_layout, operands, oracle, sparse_floats, sparse_ints, to_layout
from comparisons import assert_exact, assert_same_bits
from poison import poisoned

import sparseconv as sc
from sparseconv._core import processor

SKIPPED = {"forward": "input", "backward_data": "grad_output"}
# Channels of either side: less than a vector, whole vectors, words that end within one, one to six words.
CASES = tuple(
    Case(in_c, out_c, size, kernel, stride=stride, padding=padding, groups=groups, kind=kind)
    for kind in (0, 1)
    for in_c, out_c, size, kernel, stride, padding, groups in (
        (5, 33, (4, 9), (3, 3), 1, 1, 1),
        (48, 130, (5, 7), (3, 3), 1, 1, 1),
        (128, 64, (5, 6), (3, 3), 2, 1, 1),
        (130, 144, (4, 7), (1, 1), 1, 0, 1),
        (200, 320, (3, 8), (1, 1), 2, 0, 1),
        (384, 70, (4, 5), (3, 3), 1, 1, 1),
        (72, 96, (6, 5), (2, 5), (3, 2), (1, 2), 1),
        (192, 160, (5, 7), (3, 3), 1, 1, 2),
    )
)


@pytest.fixture
def intel():
    with simulated.vendor("intel"):
        yield


def with_density(case, name, zeros, seed=0):
    """(first, second, expected) of integers of which so many are zero, weights aside, in the layout of the case."""
    first, second = operands(case, name, zeros, seed)
    return *in_layout(case, name, first, second), oracle(case, name, first, second)


@pytest.mark.parametrize("zeros", [0.3, 0.9, 0.95, 0.98])
@pytest.mark.parametrize("name", SKIPPED)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_exact(isa, intel, case, name, zeros):
    first, second, expected = with_density(case, name, zeros)
    for threads in (1, 3):
        with poisoned():
            actual = call(sc, case, name, first, second, skip=SKIPPED[name], num_threads=threads)
        assert_exact(actual, expected)
    sums = (case.out_c if name == "backward_data" else case.in_c) // case.groups * np.prod(case.kernel)
    if sums * (1 - zeros) >= 8:
        assert np.count_nonzero(expected) > 0.3 * expected.size


def test_what_is_taken(intel):
    """Values are packed where a word is read twice and more; a sweep takes up to four words where few are not zero."""
    weight, one_tap = np.ones((64, 384, 3, 3), np.float32), np.ones((64, 384, 1, 1), np.float32)
    for zeros, channels in ((0.5, 64), (0.9, 64), (0.95, 128), (0.99, 256)):
        x = to_layout(sparse_floats((2, 384, 14, 14), zeros, 1), "NHWC")
        blocks = sc.plan("conv2d", x, weight, padding=1, layout="NHWC", skip="input").blocking
        assert blocks["channel_block"] == (channels if zeros > 0.9 or blocks["lane_vectors"] == 4 else blocks["word"])
        assert blocks["packs_values"] == 1
        once = sc.plan("conv2d", x, one_tap, layout="NHWC", skip="input").blocking
        assert (once["packs_values"], once["word"]) == (int(once["lane_vectors"] < 4), 64)


def test_other_cpus_take_one_word():
    """Their blocks are those that their figures were measured with."""
    weight = np.ones((64, 384, 3, 3), np.float32)
    for name in set(simulated.VENDORS) - {"intel"}:
        with simulated.vendor(name):
            for zeros in (0.5, 0.99):
                x = to_layout(sparse_floats((2, 384, 14, 14), zeros, 1), "NHWC")
                blocks = sc.plan("conv2d", x, weight, padding=1, layout="NHWC", skip="input").blocking
                assert (blocks["packs_values"], blocks["channel_block"]) == (0, blocks["word"]), name


@pytest.mark.parametrize("zeros", [0.5, 0.98])
@pytest.mark.parametrize("name", SKIPPED)
@pytest.mark.parametrize("case", CASES[::3], ids=str)
def test_packing_changes_no_bit(isa, intel, monkeypatch, case, name, zeros):
    first, second = in_layout(case, name, *operands(case, name, zeros, make=sparse_floats))
    packed = call(sc, case, name, first, second, skip=SKIPPED[name])
    monkeypatch.setattr(processor, "packs_values", lambda uses: False)
    with simulated.vendor("intel"):  # another one: kernels are bound anew
        in_place = call(sc, case, name, first, second, skip=SKIPPED[name])
    assert np.count_nonzero(packed) > 0.3 * packed.size
    assert_same_bits(packed, in_place)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_known_words(isa, intel, layout):
    """Values of words that a mask names: what it leaves out is not read as a number, and zeros that it names are."""
    x, weight = sparse_ints((2, 200, 5, 7), 0.4, 1), sparse_ints((96, 200, 3, 3), 0.1, 2)
    known = np.random.default_rng(3).random(x.shape) < 0.5
    expected = to_layout(sc.reference.conv2d(np.where(known, x, 0).astype(np.float32), weight, padding=1), layout)
    given = to_layout(np.where(known, x, np.nan).astype(np.float32), layout)
    actual = sc.conv2d(given, weight, padding=1, layout=layout, skip="input", input_mask=to_layout(known, layout))
    assert np.count_nonzero(expected) > 0.3 * expected.size
    assert_exact(actual, expected)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_threshold(isa, intel, layout):
    x, weight = sparse_ints((2, 136, 5, 7), 0.2, 1), sparse_ints((96, 136, 3, 3), 0.1, 2)
    expected = to_layout(sc.reference.conv2d(np.where(abs(x) > 2, x, 0).astype(np.float32), weight, padding=1), layout)
    actual = sc.conv2d(to_layout(x, layout), weight, padding=1, layout=layout, skip="input", threshold=2)
    assert np.count_nonzero(expected) > 0.3 * expected.size
    assert_exact(actual, expected)


def test_values_that_are_no_numbers(isa, intel):
    """NaN and Inf are values like others; -0.0 is a zero."""
    x, weight = sparse_ints((1, 128, 4, 5), 0.6, 1), np.ones((64, 128, 3, 3), np.float32)
    x[0, 70, 1, 1], x[0, 5, 3, 4], x[0, 100, 0, 0] = np.nan, np.inf, -0.0
    expected = sc.reference.conv2d(x, weight, padding=1)
    actual = sc.conv2d(to_layout(x, "NHWC"), weight, padding=1, layout="NHWC", skip="input")
    assert np.isnan(expected).any() and np.isinf(expected).any() and np.isfinite(expected).any()
    assert_exact(actual, to_layout(expected, "NHWC"))
