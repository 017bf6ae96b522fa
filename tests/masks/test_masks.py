"""Bit masks, ReLU with mask and densities: equal to NumPy's on every instruction set, within their own memory."""

import math
import re

import numpy as np
import pytest
from awkward import at_offset, guarded, needs_mprotect
from cases import sparse_floats
from fuzz_places import results_at
from hypothesis import given
from hypothesis.extra import numpy as hnp

from sparseconv import masks

SIZES = (0, 1, 7, 8, 9, 15, 16, 17, 63, 64, 65, 1000)
DTYPES = (np.float32, np.float64)
TINY = np.float32(1e-45)  # the smallest denormal
SPECIAL = np.array(
    [0.0, -0.0, np.nan, -np.nan, np.inf, -np.inf, TINY, -TINY, 1e-40, -1e-40, 1.2e-38, 1.0, -1.0, 5.0, 3e38, 0.0],
    np.float32,
)


def values(size, seed=0, dtype=np.float32):
    """Half of them zeros; every special value somewhere."""
    array = sparse_floats((size,), 0.5, seed)
    at = np.random.default_rng((seed, 1)).permutation(size)[: size // 2]
    array[at] = np.resize(SPECIAL, len(at))
    return array.astype(dtype)


def bits_of(array):
    return np.packbits(np.asarray(array) != 0, bitorder="little")


def relu_of(array):
    return np.where(np.isnan(array), array, np.where(array > 0, array, array.dtype.type(0)))


def vectors_of(array, width):
    flat = np.asarray(array).ravel() != 0
    padded = np.zeros(math.ceil(flat.size / width) * width, bool)
    padded[: flat.size] = flat
    return padded.reshape(-1, width).any(axis=1).mean() if flat.size else 0.0


def check(array):
    """All functions on one array, which is left as it was."""
    before = array.tobytes()
    live = np.count_nonzero(array)

    mask = masks.nonzero_mask(array)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, bits_of(array))
    assert mask.shape == (math.ceil(array.size / 8),)

    bools = masks.unpack(mask, array.shape)
    assert bools.dtype == np.bool_
    assert bools.shape == array.shape
    np.testing.assert_array_equal(bools, array != 0)
    assert set(np.unique(bools.view(np.uint8))) <= {0, 1}

    y, live_mask = masks.relu(array)
    assert y.dtype == array.dtype
    assert y.flags.c_contiguous
    np.testing.assert_array_equal(y, relu_of(array))
    np.testing.assert_array_equal(live_mask, bits_of(y))
    assert not np.shares_memory(y, array)

    assert masks.density(array) == (live / array.size if array.size else 0.0)
    for width in (1, 3, 8, 16, 17, 40, array.size + 1):
        assert masks.vector_density(array, width) == vectors_of(array, width)
    assert masks.vector_density(array) == vectors_of(array, 16)
    assert array.tobytes() == before


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_sizes(isa, size, dtype):
    for seed in range(3):
        check(values(size, seed, dtype))
    check(np.zeros(size, dtype))
    check(np.ones(size, dtype))


@given(array=hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9)))
def test_any_array(isa, array):
    check(array)


def test_every_lane(isa):
    """One nonzero element, wherever it lies in a byte, a vector or a word, is the one bit that is set."""
    for size in (16, 64, 70, 131):
        for place in range(size):
            array = np.zeros(size, np.float32)
            array[place] = -1
            mask = masks.nonzero_mask(array)
            assert mask[place // 8] == 1 << place % 8
            assert mask.sum() == mask[place // 8]
            assert masks.density(array) == 1 / size
            assert masks.vector_density(array) == 1 / math.ceil(size / 16)
            assert np.flatnonzero(masks.unpack(mask, size)).tolist() == [place]


@pytest.mark.parametrize("size", [1, 5, 16, 21, 64])
@pytest.mark.parametrize(
    "value, nonzero, kept",
    [
        (0.0, False, False), (-0.0, False, False), (np.nan, True, True), (-np.nan, True, True), (np.inf, True, True),
        (-np.inf, True, False), (TINY, True, True), (-TINY, True, False), (1e-39, True, True), (-2.0, True, False),
    ],
)  # fmt: skip
def test_special_values(isa, value, nonzero, kept, size):
    """-0.0 is zero, NaN and infinities are not; nor are denormals, which masks do not flush."""
    array = np.full(size, value, np.float32)
    np.testing.assert_array_equal(masks.unpack(masks.nonzero_mask(array), size), np.full(size, nonzero))
    assert masks.density(array) == nonzero
    assert masks.vector_density(array) == nonzero
    y, mask = masks.relu(array)
    np.testing.assert_array_equal(masks.unpack(mask, size), np.full(size, kept))
    np.testing.assert_array_equal(y, np.full(size, value if kept else 0, np.float32))


def test_bits_behind_the_last_element_are_zero(isa):
    for size in range(1, 40):
        array = np.ones(size, np.float32)
        expected = [255] * (size // 8) + [(1 << size % 8) - 1] * (size % 8 > 0)
        assert masks.nonzero_mask(array).tolist() == expected
        assert masks.relu(array)[1].tolist() == expected


def test_pack():
    for size in SIZES:
        flags = values(size) != 0
        np.testing.assert_array_equal(masks.pack(flags), np.packbits(flags, bitorder="little"))
        np.testing.assert_array_equal(masks.unpack(masks.pack(flags), size), flags)
    flags = np.random.default_rng(0).random((3, 5, 7)) < 0.5
    np.testing.assert_array_equal(masks.unpack(masks.pack(flags.T), (7, 5, 3)), flags.T)


def test_unpack(isa):
    """Every byte, in every shape; bits behind the last element do not matter."""
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(masks.unpack(every, 2048), np.unpackbits(every, bitorder="little").astype(bool))
    for size in range(1, 18):
        ones = np.full(math.ceil(size / 8), 255, np.uint8)
        assert masks.unpack(ones, size).view(np.uint8).tolist() == [1] * size
    assert masks.unpack(every[:1], ()).shape == ()
    assert masks.unpack(every[:0], (3, 0)).shape == (3, 0)
    assert masks.unpack(every[:3], [2, 3, 4]).shape == (2, 3, 4)
    assert masks.unpack(every[:3], np.int64(20)).shape == (20,)
    np.testing.assert_array_equal(masks.unpack(every[::-3], 688), masks.unpack(every[::-3].copy(), 688))


# --- ReLU ---


@pytest.mark.parametrize("dtype", DTYPES)
def test_relu_out(isa, dtype):
    for size in SIZES:
        array = values(size, 1, dtype)
        expected = relu_of(array)
        out = np.full(size, -7, dtype)
        y, mask = masks.relu(array, out=out)
        assert y is out
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(mask, bits_of(expected))
        y, mask = masks.relu(array, out=array)
        assert y is array
        np.testing.assert_array_equal(array, expected)
        np.testing.assert_array_equal(mask, bits_of(expected))


def test_relu_is_idempotent(isa):
    y, mask = masks.relu(values(1000))
    again, same = masks.relu(y)
    np.testing.assert_array_equal(again, y)
    np.testing.assert_array_equal(same, mask)


def test_relu_writes_nothing_else(isa):
    for size in SIZES:
        buffer = np.full(size + 64, np.float32(-7777))
        masks.relu(values(size), out=buffer[32 : 32 + size])
        assert (buffer[:32] == -7777).all()
        assert (buffer[32 + size :] == -7777).all()


# --- where arrays lie ---


@pytest.mark.parametrize("dtype", DTYPES)
def test_views(isa, dtype):
    """Masks are in C order of the shape, whatever the order in memory."""
    array = values(3 * 5 * 14 * 17, 2, dtype).reshape(3, 5, 14, 17)
    check(array.transpose(0, 3, 1, 2))
    check(array.T)
    check(array[::-1, :, ::-2])
    check(array[:, 1:, 2:-1, 3:])
    check(array[1, 2, 3, 4])  # a scalar of NumPy
    check(array[1, 2, 3, 4, ...])  # no dimensions
    check(np.broadcast_to(array[:1], array.shape))
    check(np.broadcast_to(dtype(2), (5, 7)))
    check(np.asfortranarray(array))


@pytest.mark.parametrize("offset", [0, 1, 3, 8, 15])
def test_alignment(isa, offset):
    for size in (5, 16, 65, 200):
        check(at_offset(values(size), offset))
        out = at_offset(np.zeros(size, np.float32), offset)
        np.testing.assert_array_equal(masks.relu(values(size), out=out)[0], relu_of(values(size)))


def test_odd_addresses(isa):
    """Elements that lie across their own alignment."""
    array = values(100)
    room = bytearray(array.nbytes + 1)
    room[1:] = array.tobytes()
    odd = np.frombuffer(room, np.float32, 100, 1)
    assert not odd.flags.aligned
    check(odd)
    bits = bytearray(b"?" + masks.nonzero_mask(array).tobytes())
    np.testing.assert_array_equal(masks.unpack(np.frombuffer(bits, np.uint8, 13, 1), 100), array != 0)


@needs_mprotect
@pytest.mark.parametrize("at_end", [True, False], ids=["end", "start"])
def test_guard_pages(isa, at_end):
    for size in SIZES[1:]:
        array = values(size)
        check(guarded(array, at_end))
        out = guarded(np.zeros(size, np.float32), at_end, writable=True)
        np.testing.assert_array_equal(masks.relu(guarded(array, at_end), out=out)[0], relu_of(array))
        mask = guarded(masks.nonzero_mask(array), at_end)
        np.testing.assert_array_equal(masks.unpack(mask, size), array != 0)
        with results_at("end" if at_end else "start"):  # the masks that are made, too
            check(array)


def test_other_kinds_of_arrays(isa):
    """Anything that shares memory, as everywhere."""
    array = values(50)
    for other in (memoryview(array), array.view(type("Sub", (np.ndarray,), {}))):
        np.testing.assert_array_equal(masks.nonzero_mask(other), bits_of(array))
        np.testing.assert_array_equal(masks.relu(other)[0], relu_of(array))
        assert masks.density(other) == np.count_nonzero(array) / 50


# --- errors ---

X = np.ones((3, 5), np.float32)
MASK = np.zeros(2, np.uint8)


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: masks.nonzero_mask(X.astype(int)), TypeError, "x: got dtype int64, expected float32 or float64"),
        (lambda: masks.nonzero_mask(X > 0), TypeError, "x: got dtype bool"),
        (lambda: masks.nonzero_mask(X.astype(np.float16)), TypeError, "x: got dtype float16"),
        (lambda: masks.nonzero_mask(X.astype(">f4")), TypeError, "x: got dtype >f4.*byte order"),
        (lambda: masks.nonzero_mask([1.0, 0.0]), TypeError, "x: got list"),
        (lambda: masks.relu(X.astype(complex)), TypeError, "x: got dtype complex128"),
        (lambda: masks.relu(None), TypeError, "x: got NoneType"),
        (lambda: masks.density(X.astype(np.uint8)), TypeError, "x: got dtype uint8"),
        (lambda: masks.vector_density("x"), TypeError, "x: got str"),
        (lambda: masks.pack(X), TypeError, "mask: got dtype float32, expected bool"),
        (lambda: masks.pack(MASK), TypeError, "mask: got dtype uint8, expected bool"),
        (lambda: masks.unpack(X, 3), TypeError, "mask: got dtype float32, expected uint8"),
        (lambda: masks.unpack(MASK > 0, 9), TypeError, "mask: got dtype bool, expected uint8"),
        (lambda: masks.unpack(MASK, 17), ValueError, r"mask: got shape \(2,\), expected \(3,\)"),
        (lambda: masks.unpack(MASK, 8), ValueError, r"mask: got shape \(2,\), expected \(1,\)"),
        (lambda: masks.unpack(MASK, (3, 0)), ValueError, r"mask: got shape \(2,\), expected \(0,\)"),
        (lambda: masks.unpack(MASK, (2**40, 2**40)), ValueError, r"mask: got shape \(2,\)"),
        (lambda: masks.unpack(MASK[None], 16), ValueError, r"mask: got shape \(1, 2\)"),
        (lambda: masks.unpack(MASK, -9), ValueError, "shape: got -9, expected at least 0"),
        (lambda: masks.unpack(MASK, (-3, -3)), ValueError, "shape: got -3"),
        (lambda: masks.unpack(MASK, 9.0), TypeError, "shape: got 9.0, expected a whole number"),
        (lambda: masks.unpack(MASK, (3, "3")), TypeError, "shape: got '3'"),
        (lambda: masks.unpack(MASK, True), TypeError, "shape: got True"),
        (lambda: masks.vector_density(X, 0), ValueError, "width: got 0, expected at least 1"),
        (lambda: masks.vector_density(X, -16), ValueError, "width: got -16"),
        (lambda: masks.vector_density(X, 16.0), TypeError, "width: got 16.0"),
        (lambda: masks.vector_density(X, True), TypeError, "width: got True"),
        (lambda: masks.relu(X, out=np.ones((5, 3), np.float32)), ValueError, r"out: got shape \(5, 3\)"),
        (lambda: masks.relu(X, out=np.ones((3, 5))), TypeError, "out: got dtype float64"),
        (lambda: masks.relu(X, out=np.ones((3, 5), bool)), TypeError, "out: got dtype bool"),
        (lambda: masks.relu(X, out=np.ones((5, 3), np.float32).T), ValueError, "out: got strides.*C-contiguous"),
        (lambda: masks.relu(X, out=read_only(X)), ValueError, "out: got a read-only array"),
        (lambda: masks.relu(X, out=[]), TypeError, "out: got list"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()


def test_out_that_overlaps():
    room = np.full(40, -1, np.float32)
    for at in (0, 4, 5, 6, 15):  # at 5 it is the same memory, but not the same array
        with pytest.raises(ValueError, match=r"^out: got an array that overlaps x"):
            masks.relu(room[5:30], out=room[at : at + 25])
    assert (room == -1).all()


def test_in_place_needs_a_writable_contiguous_array():
    fixed, moved = read_only(-X), np.asfortranarray(-X)
    for array, message in ((fixed, "out: got a read-only array"), (moved, "out: got strides")):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
            masks.relu(array, out=array)
        assert (array == -1).all()


def test_huge_width(isa):
    """No width is too large, as long as it is a number."""
    for width in (2**31, 2**32 + 1, 2**62, 2**63 - 1, 2**64):
        assert masks.vector_density(X, width) == 1.0
        assert masks.vector_density(X.astype(np.float64), width) == 1.0


@pytest.mark.parametrize("taps", [1, 2, 7, 8, 9, 10, 16, 17])
def test_needed_pairs(isa, taps):
    """Of (filter, channel) pairs, by any of their taps: each tap alone, beside pairs with none."""
    mask = np.zeros((3 * taps + 1, 2, taps), np.bool_)
    for tap in range(taps):
        mask[3 * tap + 1, tap % 2, tap] = True
    expected = mask.any(2)
    assert expected.sum() == taps
    assert np.array_equal(masks.needed_pairs(mask), expected)
    assert masks.needed_pairs(~np.zeros_like(mask)) is None
