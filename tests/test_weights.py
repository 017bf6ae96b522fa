"""skip="weight" and packed weights: exact on integers on every instruction set, in all geometries and zero patterns."""

import itertools

import numpy as np
import pytest
from helpers import (
    CASES,
    FEW_CASES,
    LAYOUTS,
    TRANSPOSED_CASES,
    Case,
    assert_exact,
    assert_not_vacuous,
    assert_same_bits,
    assert_within_bound,
    call,
    cases,
    guarded,
    in_layout,
    oracle,
    sparse_floats,
    sparse_ints,
)
from hypothesis import given
from hypothesis import strategies as st

import sparseconv as sc
from sparseconv import lines, packed

DIRECTIONS = ("forward", "backward_data")


def unstructured(shape, density, seed=3):
    return sparse_ints(shape, 1 - density, (seed, 3))


def whole_slices(shape, density, seed=3):
    """All taps of an (out, in) channel pair are zeros, or none is."""
    kept = np.random.default_rng(seed).random(shape[:2]) < density
    return sparse_ints(shape, 0, (seed, 3)) * kept.reshape(*shape[:2], *[1] * (len(shape) - 2)).astype(np.float32)


def of_four(shape, density, seed=3):
    """N:M: a fixed share of each four neighbours along the in channels."""
    order = np.random.default_rng(seed).random((shape[0], -(-shape[1] // 4) * 4, *shape[2:]))
    ranks = order.reshape(shape[0], -1, 4, *shape[2:]).argsort(2).argsort(2).reshape(order.shape)[:, : shape[1]]
    return sparse_ints(shape, 0, (seed, 3)) * (ranks < round(4 * density)).astype(np.float32)


PATTERNS = {"unstructured": unstructured, "slices": whole_slices, "n:m": of_four}


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
        assert sc.plan("conv2d", x, weight, layout="NHWC", skip="weight").tiles["stream"] == 1
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


# --- packed weights ---


def test_packed_weight():
    weight = unstructured((20, 12, 3, 3), 0.3)
    pack = sc.pack_weight(weight, groups=2)
    assert (pack.shape, pack.dtype, pack.groups) == (weight.shape, weight.dtype, 2)
    assert pack.density == np.count_nonzero(weight) / weight.size
    assert repr(pack) == f"PackedWeight(shape=(20, 12, 3, 3), dtype=float32, groups=2, density={pack.density:.3f})"
    assert repr(sc.pack_weight(weight[0, 0])).startswith("PackedWeight(shape=(3, 3), dtype=float32, density=")
    assert_exact(pack.to_dense(), weight)
    assert not pack.dense.flags.writeable


def test_bytes():
    """8 for each nonzero, and little more."""
    for shape in ((64, 64, 3, 3), (256, 128, 1, 1)):
        weight = unstructured(shape, 0.25)
        pack = sc.pack_weight(weight)
        nonzeros, blocks = np.count_nonzero(weight), weight.size // packed.BLOCK_WEIGHTS
        lists = pack.nbytes - weight.nbytes
        assert 8 * nonzeros <= lists <= 8 * nonzeros + 10 * blocks + 96 * shape[0]
        grad_output, padding = sparse_ints((1, shape[0], 4, 4), 0, 1), shape[2] // 2
        sc.conv2d_backward_data(grad_output, pack, (1, shape[1], 4, 4), padding=padding, skip="weight")
        assert pack.nbytes - weight.nbytes > 1.8 * lists  # those of the other direction


def test_packed_weight_is_a_copy(isa):
    x, weight = sparse_ints((2, 16, 6, 7), 0.1, 1), unstructured((18, 16, 3, 3), 0.4)
    expected = sc.reference.conv2d(x, weight)
    pack = sc.pack_weight(weight)
    pack.to_dense()[...] = 5
    weight[...] = 7
    for skip in ("auto", "none", "input", "weight"):
        assert_exact(sc.conv2d(x, pack, skip=skip), expected, skip)


def test_update(isa):
    """All lists follow: forward, backward, and those of a stride; fewer and more nonzeros than before."""
    x, shape = sparse_ints((2, 16, 9, 9), 0.1, 1), (18, 16, 3, 3)
    pack = sc.pack_weight(unstructured(shape, 0.4))
    for density, pattern in ((0.4, unstructured), (0.1, unstructured), (0.9, unstructured), (0.3, whole_slices)):
        weight = pattern(shape, density, 8)
        pack.update(weight)
        assert pack.density == np.count_nonzero(weight) / weight.size
        assert_exact(pack.to_dense(), weight)
        for stride in (1, 2):
            expected = sc.reference.conv2d(x, weight, stride=stride)
            assert_exact(sc.conv2d(x, pack, stride=stride, skip="weight"), expected)
            back = sc.reference.conv2d_backward_data(expected, weight, x.shape, stride=stride)
            assert_exact(sc.conv2d_backward_data(expected, pack, x.shape, stride=stride, skip="weight"), back)


def test_update_needs_no_more_memory():
    pack = sc.pack_weight(unstructured((64, 64, 3, 3), 0.5))
    before = pack.nbytes
    pack.update(unstructured((64, 64, 3, 3), 0.2))
    assert pack.nbytes == before


def test_float64():
    x, weight = (
        sparse_ints((2, 16, 6, 7), 0.1, 1).astype(np.float64),
        unstructured((18, 16, 3, 3), 0.4).astype(np.float64),
    )
    pack = sc.pack_weight(weight)
    assert pack.dtype == np.float64 and pack.density == np.count_nonzero(weight) / weight.size
    assert_exact(sc.conv2d(x, pack, skip="weight"), sc.reference.conv2d(x, weight))
    pack.update(2 * weight)
    assert_exact(sc.conv2d(x, pack), sc.reference.conv2d(x, 2 * weight))


def test_transposed_convolutions_take_packed_weights(isa):
    case = TRANSPOSED_CASES[2]
    x, weight = sparse_ints(case.x_shape, 0.1, 1), unstructured(case.weight_shape, 0.4)
    expected = oracle(case, "forward", x, weight)
    assert_exact(call(sc, case, "forward", x, sc.pack_weight(weight), skip="weight"), expected)


# --- packed under a mask or a threshold ---


def forms(mask):
    """The same mask in every form that is taken."""
    return {
        "bool": mask, "bits": sc.masks.pack(mask), "float32": mask * np.float32(-0.5), "float64": mask * 2.0,
        "strided": np.repeat(mask, 2, axis=0)[::2], "fortran": np.asfortranarray(mask),
    }  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(18, 16, 3, 3), (17, 33), (5, 4, 3)])
def test_masks(shape, dtype):
    weight = unstructured(shape, 0.9).astype(dtype)
    mask = np.random.default_rng(0).random(shape) < 0.4
    expected = np.where(mask, weight, 0)
    assert np.count_nonzero(expected) > 0.3 * weight.size
    updated = sc.pack_weight(np.ones_like(weight))
    for name, form in forms(mask).items():
        for given_weight in (weight, np.asfortranarray(weight), np.repeat(weight, 2, axis=1)[:, ::2]):
            pack = sc.pack_weight(given_weight, mask=form)
            updated.update(given_weight, mask=form)
            for one in (pack, updated):
                assert_exact(one.to_dense(), expected, name)
                assert one.density == np.count_nonzero(expected) / expected.size
    updated.update(weight)  # the mask is not remembered
    assert_exact(updated.to_dense(), weight)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_thresholds(dtype):
    weight = unstructured((18, 16, 3, 3), 0.9).astype(dtype)
    mask = np.random.default_rng(0).random(weight.shape) < 0.7
    updated = sc.pack_weight(np.ones_like(weight))
    for threshold in (0.0, 1, 2.5, np.float32(3)):
        expected = np.where(np.abs(weight) > threshold, weight, 0)
        assert expected.any()
        assert_exact(sc.pack_weight(weight, threshold=threshold).to_dense(), expected)
        updated.update(weight, mask=mask, threshold=threshold)
        assert_exact(updated.to_dense(), np.where(mask, expected, 0))


def test_what_a_mask_leaves_out_does_not_matter(isa):
    """No Inf or NaN outside the mask reaches a result; a NaN is above every threshold."""
    x, weight = sparse_ints((2, 16, 9, 9), 0.1, 1), unstructured((18, 16, 3, 3), 0.9)
    mask = np.random.default_rng(0).random(weight.shape) < 0.5
    expected = sc.reference.conv2d(x, weight * mask, padding=1)
    assert_not_vacuous(expected)
    for bad in (np.inf, -np.inf, np.nan):
        pack = sc.pack_weight(np.where(mask, weight, np.float32(bad)), mask=mask)
        for skip in ("weight", "none"):
            assert_exact(sc.conv2d(x, pack, padding=1, skip=skip), expected)
    pack = sc.pack_weight(np.array([[np.nan, 1], [-np.inf, 3]], np.float32), threshold=2)
    np.testing.assert_array_equal(pack.to_dense(), np.array([[np.nan, 0], [-np.inf, 3]], np.float32))


def test_updates_under_masks(isa):
    x, weight = sparse_ints((2, 16, 9, 9), 0.1, 1), unstructured((18, 16, 3, 3), 0.9)
    pack = sc.pack_weight(weight)
    for seed in range(3):
        mask = np.random.default_rng(seed).random(weight.shape) < 0.3
        pack.update(weight, mask=mask)
        expected = sc.reference.conv2d(x, weight * mask)
        assert_exact(sc.conv2d(x, pack, skip="weight"), expected)
        back = sc.reference.conv2d_backward_data(expected, weight * mask, x.shape)
        assert_exact(sc.conv2d_backward_data(expected, pack, x.shape, skip="weight"), back)


# --- bad inputs ---


@pytest.mark.parametrize(
    ("weight", "words", "error", "message"),
    [
        ([[1.0]], {}, TypeError, "weight"),
        (np.ones((3, 4), np.int32), {}, TypeError, "weight: got dtype int32"),
        (np.ones(3, np.float32), {}, ValueError, "weight: got 1 dimensions"),
        (np.ones((1,) * 6, np.float32), {}, ValueError, "weight: got 6 dimensions"),
        (np.ones((3, 0), np.float32), {}, ValueError, "weight: got shape"),
        (np.ones((3, 4), np.float32), {"groups": 0}, ValueError, "groups: got 0"),
        (np.ones((3, 4), np.float32), {"groups": 2}, ValueError, "groups: got 2, expected a divisor"),
        (np.ones((3, 4), np.float32), {"groups": "1"}, TypeError, "groups: got '1'"),
        (sc.pack_weight(np.ones((3, 4), np.float32)), {}, TypeError, "weight: got a PackedWeight, expected an array"),
        (np.ones((3, 4), np.float32), {"mask": np.ones((4, 3), bool)}, ValueError, r"mask: got shape \(4, 3\)"),
        (np.ones((3, 4), np.float32), {"mask": np.ones(3, np.uint8)}, ValueError, r"mask: got shape \(3,\) of uint8"),
        (np.ones((3, 4), np.float32), {"mask": np.ones((3, 4), int)}, TypeError, "mask: got dtype int64"),
        (np.ones((3, 4), np.float32), {"mask": [[1] * 4] * 3}, TypeError, "mask: got list"),
        (np.ones((3, 4), np.float32), {"threshold": -1}, ValueError, "threshold: got -1"),
        (np.ones((3, 4), np.float32), {"threshold": np.inf}, ValueError, "threshold: got inf"),
        (np.ones((3, 4), np.float32), {"threshold": "1"}, TypeError, "threshold: got '1'"),
    ],
)
def test_what_cannot_be_packed(weight, words, error, message):
    with pytest.raises(error, match=message):
        sc.pack_weight(weight, **words)


def test_calls_that_a_packed_weight_is_not_for():
    x, pack = np.ones((1, 4, 5, 5), np.float32), sc.pack_weight(np.ones((6, 4, 3, 3), np.float32))
    out = np.full((1, 6, 3, 3), 99, np.float32)
    with pytest.raises(ValueError, match="weight: got a PackedWeight of 1 groups, expected 2"):
        sc.conv2d(np.ones((1, 8, 5, 5), np.float32), pack, groups=2, out=out)
    with pytest.raises(ValueError, match="x: got shape"):
        sc.conv2d(np.ones((1, 5, 5, 5), np.float32), pack, out=out)
    with pytest.raises(ValueError, match="weight: got 4 dimensions"):
        sc.linear(x, pack)
    with pytest.raises(TypeError, match="weight: got dtype float32, expected float64"):
        sc.conv2d(x.astype(np.float64), pack, out=out)
    with pytest.raises(TypeError, match="x: got PackedWeight"):
        sc.conv2d(pack, pack.dense, out=out)
    with pytest.raises(ValueError, match="skip: got 'weight'"):
        sc.conv2d_backward_weight(x, np.ones((1, 6, 3, 3), np.float32), 3, skip="weight")
    square = sc.pack_weight(np.ones((4, 4), np.float32))
    with pytest.raises(ValueError, match="overlaps weight"):
        sc.linear(np.ones((4, 4), np.float32), square, out=square._dense)
    assert (out == 99).all() and (square.to_dense() == 1).all()


@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        (np.ones((6, 4, 3, 2), np.float32), ValueError, "weight: got shape"),
        (np.ones((6, 4, 3, 3)), TypeError, "weight: got dtype float64, expected float32"),
        ([1.0], TypeError, "weight"),
    ],
)
def test_bad_updates(weight, error, message):
    pack = sc.pack_weight(np.ones((6, 4, 3, 3), np.float32))
    with pytest.raises(error, match=message):
        pack.update(weight)
    with pytest.raises(ValueError, match="mask: got shape"):
        pack.update(np.zeros((6, 4, 3, 3), np.float32), mask=np.ones((6, 4), bool))
    assert (pack.to_dense() == 1).all()


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


# --- tables ---


@given(case=cases())
def test_lines(case):
    """Every tap of every phase meets the packed column that the definition says."""
    x = np.zeros((0, *case.x_shape[1:]), np.float32)
    problem = sc.prepare.conv(
        case.ndim, x, np.ones(case.weight_shape, np.float32), layout=LAYOUTS[case.ndim][0], **case.options
    ).made.problem
    stride, dilation, padding = problem.stride[-1], problem.dilation[-1], problem.padding[-1]
    for backward, tile in itertools.product((False, True), (1, 2, 5)):
        made = lines.lines(problem, backward, tile)
        columns = {place: made.first_column + i for i, place in enumerate(made.column_places) if place >= 0}
        assert sorted(columns) == list(range(made.width))
        taps = itertools.product(range(made.phases), range(problem.kernel[-1]))
        for (phase, tap), place in zip(taps, made.tap_places, strict=True):
            for m in range(tile):
                out = phase + m * made.phases
                if out >= (problem.in_size if backward else problem.out_size)[-1]:
                    continue
                if not backward:
                    assert columns[place + m] == out * stride + tap * dilation - padding
                elif place >= 0:
                    assert columns[place + m] * stride + tap * dilation - padding == out
                else:
                    assert (out + padding - tap * dilation) % stride
