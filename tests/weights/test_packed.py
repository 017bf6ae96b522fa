"""`pack_weight` and `PackedWeight`: what is kept, how it follows updates, where it is accepted."""

import copy
import pickle

import numpy as np
import pytest
from cases import TRANSPOSED_CASES, assert_not_vacuous, call, oracle, sparse_ints
from comparisons import assert_exact
from weight_patterns import unstructured, whole_slices

import sparseconv as sc
from sparseconv import packed


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


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda pack: pickle.loads(pickle.dumps(pack))])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_copies(again, dtype):
    """They have memory of their own and make their lists anew, as a process that is given one has to."""
    x, weight = sparse_ints((2, 16, 6, 7), 0.1, 1).astype(dtype), unstructured((18, 8, 3, 3), 0.4).astype(dtype)
    expected = sc.reference.conv2d(x, weight, groups=2)
    pack = sc.pack_weight(weight, groups=2)
    other = again(pack)
    assert (other.shape, other.dtype, other.groups, other.density) == (pack.shape, dtype, 2, pack.density)
    pack.update(2 * weight)
    assert_exact(sc.conv2d(x, other, groups=2), expected)
    other.update(-weight)
    assert_exact(sc.conv2d(x, other, groups=2), -expected)
    assert_exact(sc.conv2d(x, pack, groups=2), 2 * expected)


# --- masks and thresholds ---


def forms(mask, dtype):
    """The same mask in every form that is taken."""
    return {
        "bool": mask, "bits": sc.masks.pack(mask), "float": mask * dtype(-0.5),
        "denormal": np.where(mask, dtype(1), np.finfo(dtype).tiny / 2),
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
    for name, form in forms(mask, dtype).items():
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
        (
            np.ones((3, 4), np.float32),
            {"mask": np.ones(3, np.uint8)},
            ValueError,
            r"mask: got shape \(3,\), expected a bit mask",
        ),
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
