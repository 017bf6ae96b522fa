"""`pack_weight` and `PackedWeight`: what is kept, how it follows updates, where it is accepted."""

import numpy as np
import pytest
from helpers import TRANSPOSED_CASES, assert_exact, call, oracle, sparse_ints
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
    assert (pack.to_dense() == 1).all()
