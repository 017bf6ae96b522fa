"""skip="weight" with plain and packed weights: exact on every instruction set, in all geometries and zero patterns."""

import itertools

import numpy as np
import pytest
from awkward import guarded
from cases import (
    CASES,
    FEW_CASES,
    TRANSPOSED_CASES,
    Case,
    assert_not_vacuous,
    call,
    cases,
    in_layout,
    oracle,
    sparse_floats,
    sparse_ints,
)
from comparisons import assert_exact, assert_same_bits, assert_within_bound
from hypothesis import given
from hypothesis import strategies as st
from weight_patterns import PATTERNS, unstructured

import sparseconv as sc

DIRECTIONS = ("forward", "backward_data")


def source_of(case, name, make=sparse_ints):
    return make(case.x_shape if name == "forward" else case.out_shape, 0.1, (5, 1))


def check(case, name, weight, **words):
    """Plain and packed weights give what the oracle gives; returns that."""
    source = source_of(case, name)
    expected = oracle(case, name, source, weight, **words)
    source, _ = in_layout(case, name, source, weight)
    for given_weight in (weight, sc.pack_weight(weight, groups=case.groups)):
        actual = call(sc, case, name, source, given_weight, skip="weight", **words)
        assert_exact(actual, expected, f"{type(given_weight).__name__} {words}")
    return expected


def reachable(case, name):
    source, weight = np.ones_like(source_of(case, name)), np.ones(case.weight_shape, np.float32)
    return np.count_nonzero(oracle(case, name, source, weight))


# --- results ---


@pytest.mark.parametrize("name", DIRECTIONS)
@pytest.mark.parametrize("case", CASES + TRANSPOSED_CASES, ids=str)
def test_exact(isa, case, name):
    for density in (1.0, 0.5, 0.1, 0.0):
        expected = check(case, name, unstructured(case.weight_shape, density))
        if density == 1 and case.batch:
            assert_not_vacuous(expected, reachable(case, name))
        if density == 0:
            assert not expected.any()


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("name", DIRECTIONS)
@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_patterns(isa, case, name, pattern):
    for density in (0.75, 0.5, 0.25):
        check(case, name, PATTERNS[pattern](case.weight_shape, density))


@given(
    case=cases(), name=st.sampled_from(DIRECTIONS), pattern=st.sampled_from(sorted(PATTERNS)), seed=st.integers(0, 9)
)
def test_any_geometry(isa, case, name, pattern, seed):
    check(case, name, PATTERNS[pattern](case.weight_shape, 0.5, seed))


@given(case=cases(transposed=True), name=st.sampled_from(DIRECTIONS), seed=st.integers(0, 9))
def test_any_transposed_geometry(isa, case, name, seed):
    check(case, name, unstructured(case.weight_shape, 0.5, seed))


@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize("batch", [1, 3, 16, 17, 33])
def test_lanes(isa, batch, kind):
    """Lanes are images, parts of images, or parts of two of them; rows of many tiles, and of less than one."""
    for size, stride in itertools.product(((3, 5), (5, 14), (4, 31), (1, 70)), (1, 2)):
        case = Case(20, 18, size, (3, 3), batch=batch, stride=stride, padding=1, kind=kind)
        for name, pattern in itertools.product(DIRECTIONS, ("unstructured", "slices")):
            expected = check(case, name, PATTERNS[pattern](case.weight_shape, 0.6))
            assert_not_vacuous(expected, reachable(case, name))


@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_bias_and_activation(isa, case):
    bias = sparse_ints((case.out_c,), 0.2, 7)
    weight = unstructured(case.weight_shape, 0.4)
    weight[1] = 0  # nothing but its bias
    for activation in (None, "relu"):
        expected = check(case, "forward", weight, bias=bias, activation=activation)
        assert_not_vacuous(expected, expected.size * (0.5 if activation else 1))


@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_out(isa, case):
    for name in DIRECTIONS:
        weight, source = unstructured(case.weight_shape, 0.4), source_of(case, name)
        expected = oracle(case, name, source, weight)
        source, _ = in_layout(case, name, source, weight)
        out = np.full(expected.shape, 99, np.float32)
        assert call(sc, case, name, source, weight, skip="weight", out=out) is out
        assert_exact(out, expected, name)


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_memory_beside_the_arrays(isa, case, at_end):
    for name in DIRECTIONS:
        weight, source = unstructured(case.weight_shape, 0.4), source_of(case, name)
        expected = oracle(case, name, source, weight)
        source, _ = in_layout(case, name, source, weight)
        out = guarded(np.full(expected.shape, 99, np.float32), at_end, writable=True)
        call(sc, case, name, guarded(source, at_end), guarded(weight, at_end), skip="weight", out=out)
        assert_exact(np.array(out), expected, name)


def test_strided_operands(isa):
    """Every other element of larger arrays, reversed weights."""
    x = np.full((2, 18, 12, 14), np.nan, np.float32)
    weight = np.full((40, 9, 3, 6), np.nan, np.float32)
    x[:, ::2, :, ::2] = sparse_ints((2, 9, 12, 7), 0.1, 1)
    weight[::2, :, :, ::2] = unstructured((20, 9, 3, 3), 0.4)
    x, weight = x[:, ::2, :, ::2], weight[::2, ::-1, :, ::2]
    expected = sc.reference.conv2d(x, weight, padding=1)
    assert_not_vacuous(expected)
    assert_exact(sc.conv2d(x, weight, padding=1, skip="weight"), expected)
    assert_exact(sc.conv2d(x, sc.pack_weight(weight), padding=1, skip="weight"), expected)


def test_results_past_the_caches(isa):
    x, weight = sparse_ints((1, 182, 182, 16), 0.1, 1), unstructured((64, 16, 1, 1), 0.4)
    expected = x.reshape(-1, 16) @ weight.reshape(64, 16).T
    assert_not_vacuous(expected)
    for offset in (0, 4):
        memory = np.full(expected.size + 20, 99, np.float32)
        start = -memory.ctypes.data % 64 // 4 + offset
        out = memory[start : start + expected.size].reshape(1, 182, 182, 64)
        sc.conv2d(x, weight, layout="NHWC", skip="weight", out=out)
        assert sc.plan("conv2d", x, weight, layout="NHWC", skip="weight").blocking["stream"] == 1
        assert_exact(out.reshape(expected.shape), expected, f"offset {offset}")
        assert (memory[:start] == 99).all() and (memory[start + expected.size :] == 99).all()


@pytest.mark.parametrize("rows", [1, 5, 16, 100, 1000])
def test_linear(isa, rows):
    x, weight = sparse_ints((rows, 70), 0.1, 1), unstructured((33, 70), 0.3)
    pack = sc.pack_weight(weight)
    for given_weight in (weight, pack):
        y = sc.linear(x, given_weight, skip="weight")
        assert_not_vacuous(y)
        assert_exact(y, x @ weight.T)
        assert_exact(sc.linear_backward_data(y, given_weight, skip="weight"), y @ weight)


@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_floats(isa, case):
    for name in DIRECTIONS:
        source, weight = source_of(case, name, sparse_floats), sparse_floats(case.weight_shape, 0.6, (1, 3))
        wide = source.astype(np.float64), weight.astype(np.float64)
        exact, magnitude = oracle(case, name, *wide), oracle(case, name, *map(np.abs, wide))
        source, _ = in_layout(case, name, source, weight)
        actual = call(sc, case, name, source, sc.pack_weight(weight, groups=case.groups), skip="weight")
        assert_within_bound(actual, exact, magnitude, case.terms(name), name)


def test_threads_change_no_bit(isa):
    for case in (
        Case(64, 80, (14, 14), (3, 3), batch=5, padding=1, kind=1),
        Case(96, 64, (1, 9), (1, 3), batch=1, padding=(0, 1)),
        Case(32, 48, (15, 13), (3, 3), batch=3, stride=2, padding=1, groups=2),
    ):
        for name in DIRECTIONS:
            source, weight = source_of(case, name, sparse_floats), sparse_floats(case.weight_shape, 0.6, (1, 3))
            source, _ = in_layout(case, name, source, weight)
            alone = call(sc, case, name, source, weight, skip="weight", num_threads=1)
            assert_not_vacuous(alone, reachable(case, name))
            for threads in (2, 3, 8):
                assert_same_bits(
                    call(sc, case, name, source, weight, skip="weight", num_threads=threads), alone, str(case)
                )


# --- special values ---


@pytest.mark.parametrize("wrong", [np.inf, -np.inf, np.nan])
def test_zero_weights_meet_anything(isa, wrong):
    """A skipped zero adds nothing, whatever it would have been multiplied with."""
    x, weight = sparse_ints((2, 20, 6, 7), 0.1, 1), unstructured((18, 20, 3, 3), 0.5)
    weight[:, 4] = 0
    weight[::2, 4] = -0.0
    expected = sc.reference.conv2d(x, weight, padding=1)
    x[:, 4] = wrong
    for given_weight in (weight, sc.pack_weight(weight)):
        assert_exact(sc.conv2d(x, given_weight, padding=1, skip="weight"), expected)


@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_nan_reaches_what_it_meets(isa, case):
    for name in DIRECTIONS:
        source, weight = source_of(case, name), unstructured(case.weight_shape, 0.2)
        source[0, :, ..., source.shape[-1] // 2] = np.nan
        expected = np.isnan(source).astype(np.float32), (weight != 0).astype(np.float32)
        expected = oracle(case, name, *expected) > 0
        assert 0 < np.count_nonzero(expected) < expected.size
        source, _ = in_layout(case, name, np.where(np.isnan(source), np.float32(np.nan), 0), weight)
        actual = call(sc, case, name, source, weight, skip="weight")
        assert (np.isnan(actual) == expected).all() and not np.nan_to_num(actual).any()


@pytest.mark.parametrize("wrong", [np.inf, np.nan])
def test_inf_and_nan_weights(isa, wrong):
    """They reach what they meet and no more: zeros of padding are not multiplied. Another kernel computes them."""
    x, weight = sparse_ints((2, 5, 6, 7), 0, 1), unstructured((18, 5, 3, 3), 0.5)
    weight[3, 2, 0, 0] = wrong
    with np.errstate(invalid="ignore"):
        expected = sc.reference.conv2d(x, weight, padding=1)
    assert np.isfinite(expected[:, 3, 0]).all() and not np.isfinite(expected[:, 3, 1:, 1:]).any()
    for given_weight in (weight, sc.pack_weight(weight)):
        assert_exact(sc.conv2d(x, given_weight, padding=1, skip="weight"), expected)
        plan = sc.plan("conv2d", x, given_weight, padding=1, skip="weight")
        assert plan.skip == "none" and "Inf or NaN" in plan.reason


def test_denormal_weights_are_zeros(isa):
    weight = unstructured((16, 16, 3, 3), 0.5)
    expected = sc.conv2d(sparse_ints((1, 16, 5, 5), 0, 1), weight)
    weight[weight == 0] = 1e-40
    for one in (weight, sc.pack_weight(weight)):
        assert_exact(sc.conv2d(sparse_ints((1, 16, 5, 5), 0, 1), one, skip="weight"), expected)


# --- the choice ---


def test_auto_sees_the_weight():
    x, weight = sparse_ints((16, 14, 14, 64), 0, 1), unstructured((64, 64, 3, 3), 0.15)
    for given_weight in (weight, sc.pack_weight(weight)):
        plan = sc.plan("conv2d", x, given_weight, padding=1, layout="NHWC")
        assert (plan.skip, plan.kernel) == ("weight", "weights_skip")
        assert plan.speedup > 2
        assert set(plan.density) == {"input", "weight"}
    dense = sc.pack_weight(np.ones_like(weight))
    assert sc.plan("conv2d", x, dense, padding=1, layout="NHWC").skip == "none"
    assert sc.plan("conv2d", x, weight, padding=1, layout="NHWC", skip="none").skip == "none"


def test_auto_takes_the_sparser_operand():
    shape = (16, 14, 14, 128)
    for zeros_x, density, skipped in ((0.95, 0.4, "input"), (0.3, 0.1, "weight"), (0, 1, "none")):
        x, pack = sparse_ints(shape, zeros_x, 1), sc.pack_weight(unstructured((128, 128, 3, 3), density))
        assert sc.plan("conv2d", x, pack, padding=1, layout="NHWC").skip == skipped
        name = {"input": "grad_output"}.get(skipped, skipped)
        plan = sc.plan("conv2d_backward_data", x, pack, shape, padding=1, layout="NHWC")
        assert plan.skip == name
