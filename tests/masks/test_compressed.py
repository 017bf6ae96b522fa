"""Compressed arrays: bit for bit what was compressed, on every instruction set, from and to any memory.

One file: all parts are one class.
"""

import copy
import ctypes
import gc
import itertools
import math
import pickle
import tracemalloc

import numpy as np
import pytest
from awkward import at_offset, guarded, needs_mprotect
from cases import sparse_floats, sparse_ints
from hypothesis import given
from hypothesis.extra import numpy as hnp

import sparseconv as sc
from sparseconv import compressed, masks

BLOCK = 4096
ITEM = 65536  # what one thread does at a time
SIZES = (0, 1, 7, 8, 9, 15, 16, 17, 31, 63, 64, 65, 1000, BLOCK - 1, BLOCK, BLOCK + 1, BLOCK + 17, 3 * BLOCK + 5)
LARGE = (ITEM, ITEM + 1, 3 * ITEM - 1, 3 * ITEM, 5 * ITEM + BLOCK + 9)
DTYPES = (np.float32, np.float64)
THREADS = (1, 2, 3, 5)
TINY = np.float32(1e-45)  # the smallest denormal
SPECIAL = np.array(
    [np.nan, -np.nan, np.inf, -np.inf, TINY, -TINY, 1e-40, -1e-40, 1.2e-38, -0.0, 1.0, -1.0, 3e38, 0.0], np.float32
)
SPECIAL[:1].view(np.uint32)[0] = 0x7F812345  # a signalling NaN with a payload


def values(size, sparsity=0.5, seed=0, dtype=np.float32):
    """Zeros, and special values among the others."""
    array = sparse_floats((size,), sparsity, seed).astype(dtype)
    at = np.random.default_rng((seed, 1)).permutation(np.flatnonzero(array))[: size // 8]
    with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one in float64
        array[at] = np.resize(SPECIAL, len(at))
    return array


def without_negative_zeros(array):
    """The same bits but for -0.0."""
    return np.where(array == 0, array.dtype.type(0), array)


def same_bits(got, expected):
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    assert got.tobytes() == without_negative_zeros(expected).tobytes()


def check(array, threads=1):
    """All that a compressed array says, and the way back; the array itself is left as it was."""
    before = array.tobytes()
    c = sc.compress(array, num_threads=threads)
    assert isinstance(c, sc.CompressedArray)
    assert (c.shape, c.dtype, c.ndim, c.size) == (array.shape, array.dtype, array.ndim, array.size)
    live = array != 0
    assert c.density == (live.sum() / array.size if array.size else 0)
    np.testing.assert_array_equal(c.mask, masks.pack(live))
    in_memory = array.transpose(c.axes)
    np.testing.assert_array_equal(c.bits, masks.pack(in_memory != 0))
    assert c.values.tobytes() == in_memory[in_memory != 0].tobytes()
    blocks = [np.count_nonzero(in_memory.ravel()[at : at + BLOCK]) for at in range(0, array.size, BLOCK)]
    assert c.offsets.tolist() == [0, *itertools.accumulate(blocks)]
    assert c.nbytes == c.bits.nbytes + c.packed.nbytes + c.offsets.nbytes
    dense = sc.decompress(c, num_threads=threads)
    same_bits(dense, array)
    assert dense.transpose(c.axes).flags.c_contiguous
    assert dense.ctypes.data % 64 == 0
    assert array.tobytes() == before
    return c


# --- the way there and back ---


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_sizes(isa, size, dtype):
    for sparsity in (0, 0.5, 0.9, 1):
        check(values(size, sparsity, dtype=dtype))


@pytest.mark.parametrize("size", LARGE)
def test_threads(isa, size):
    for sparsity in (0, 0.5, 0.97, 1):
        array = values(size, sparsity)
        first, *others = [check(array, threads) for threads in THREADS]
        for other in others:
            assert (first.bits == other.bits).all()
            assert first.values.tobytes() == other.values.tobytes()
            assert (first.offsets == other.offsets).all()
            assert first.packed.size == other.packed.size == first.values.size + compressed.SLACK


def test_blocks_without_nonzeros(isa):
    """Runs of empty and of full blocks, whose values begin where another thread's end."""
    array = np.repeat(np.arange(60, dtype=np.float32) % 3, BLOCK)
    array[array == 2] = np.nan
    for threads in THREADS:
        check(array, threads)
        check(array[BLOCK - 3 : -5], threads)


@given(array=hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9)))
def test_any_array(isa, array):
    check(array)


def test_every_lane(isa):
    """One nonzero element, and one zero, wherever it lies in a vector and a byte."""
    for size in (16, 64, 70, 131):
        for place in range(size):
            array = np.zeros(size, np.float32)
            array[place] = -1
            assert check(array).values.tolist() == [-1]
            check(array + 1)


def test_every_pattern(isa):
    """All 65536 sets of 16 lanes."""
    lanes = np.arange(65536)[:, None] >> np.arange(16) & 1
    check(lanes.astype(np.float32) * np.arange(1, 17, dtype=np.float32))


@pytest.mark.parametrize("value", SPECIAL, ids=[f"{bits:08x}" for bits in SPECIAL.view(np.uint32)])
@pytest.mark.parametrize("threads", THREADS)
def test_special_values(isa, value, threads):
    """-0.0 is a zero; NaNs keep their payload, and denormals are kept, in the pool's threads too."""
    array = np.full(4 * ITEM + 21, value)
    c = check(array, threads)
    assert c.density == float(value != 0)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "fesetenv"), reason="needs the C library's floating-point modes")
def test_denormals_whatever_the_mode(isa):
    torch = pytest.importorskip("torch")
    array = np.full(3 * ITEM, 1e-40, np.float32)
    if not torch.set_flush_denormal(True):
        pytest.skip("this machine cannot flush denormals")
    try:
        c = [sc.compress(array, num_threads=threads) for threads in THREADS]
        dense = [sc.decompress(one, num_threads=threads) for one, threads in zip(c, THREADS, strict=True)]
    finally:
        torch.set_flush_denormal(False)
    for one, back in zip(c, dense, strict=True):
        assert one.density == 1
        assert back.tobytes() == array.tobytes()


# --- memory ---


def views(array):
    """Views of an array of four dimensions, and whether their memory is dense, in some order of the axes."""
    yield array, True
    yield array.transpose(0, 3, 1, 2), True
    yield array.T, True
    yield np.asfortranarray(array), True
    yield array[:, :1], False
    yield array[:, None, :, :, None], True
    yield array[1:2].transpose(3, 0, 1, 2), True
    yield array[::-1, :, ::-2], False
    yield array[:, 1:, 2:-1, 3:], False
    yield array[1, 2, 3, 4, ...], True  # no dimensions
    yield np.broadcast_to(array[:1], array.shape), False
    yield np.broadcast_to(array.dtype.type(2), (5, 7)), False


@pytest.mark.parametrize("dtype", DTYPES)
def test_views(isa, dtype):
    """The order in memory is kept where there is one; masks are in C order of the shape."""
    array = values(3 * 5 * 14 * 17, dtype=dtype).reshape(3, 5, 14, 17)
    for view, dense in views(array):
        c = check(view)
        back = sc.decompress(c)
        if dense:
            steps = [one for one, length in zip(back.strides, back.shape, strict=True) if length > 1]
            assert steps == [one for one, length in zip(view.strides, view.shape, strict=True) if length > 1]
        else:
            assert c.axes == tuple(range(view.ndim))
            assert back.flags.c_contiguous


def test_mask_is_not_computed_where_memory_has_its_order(isa):
    array = values(2 * 6 * 7 * 8).reshape(2, 6, 7, 8)
    c = sc.compress(array)
    assert c.mask is c.bits
    c = sc.compress(array.transpose(0, 3, 1, 2))
    assert c.axes == (0, 2, 3, 1)
    assert c.mask is not c.bits


@pytest.mark.parametrize("size, density", [(0, 1), (100, 0.5), (BLOCK, 0.5), (40 * BLOCK + 1, 0.25), (8 * ITEM, 0)])
def test_bytes(isa, size, density):
    """What the documentation says: density, 1/32 and 1/2048 of the dense array, and 72 bytes."""
    for threads in THREADS:
        c = sc.compress(values(size, 1 - density), num_threads=threads)
        assert c.nbytes == 4 * c.values.size + math.ceil(size / 8) + 8 * math.ceil(size / BLOCK) + 72


def test_memory_is_given_back(isa):
    """Nothing of the room for all elements is kept."""
    array = values(20 * ITEM, 0.9)
    tracemalloc.start()
    try:
        for threads in (1, 4):
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            c = sc.compress(array, num_threads=threads)
            gc.collect()
            assert tracemalloc.get_traced_memory()[0] - before < c.nbytes + 10_000
            del c
    finally:
        tracemalloc.stop()


def test_only_what_is_promised_is_written(isa):
    for size in (1, 15, 16, 100, BLOCK + 3):
        for threads in THREADS:
            buffer = np.full(size + 64, np.float32(-7777))
            array = values(size)
            out = buffer[32 : 32 + size]
            assert sc.decompress(sc.compress(array), out=out, num_threads=threads) is out
            same_bits(out, array)
            assert (buffer[:32] == -7777).all()
            assert (buffer[32 + size :] == -7777).all()


@needs_mprotect
@pytest.mark.parametrize("at_end", [True, False], ids=["end", "start"])
def test_guard_pages(isa, at_end):
    """Nothing is read or written beyond the arrays, nor beyond the slack of the values."""
    for size in (1, 15, 16, 17, 65, BLOCK - 1, BLOCK + 1):
        for sparsity in (0, 0.5, 1):
            array = values(size, sparsity)
            c = check(guarded(array, at_end))
            parts = [guarded(one, at_end) for one in (c.bits, c.packed, c.offsets)]
            trapped = sc.CompressedArray(c.shape, c.dtype, c.axes, *parts)
            out = guarded(np.zeros(size, np.float32), at_end, writable=True)
            same_bits(sc.decompress(trapped, out=out), array)


@pytest.mark.parametrize("offset", [0, 1, 3, 8, 15])
def test_alignment(isa, offset):
    array = at_offset(values(3 * BLOCK + 11), offset)
    c = check(array)
    out = at_offset(np.zeros(array.size, np.float32), offset)
    same_bits(sc.decompress(c, out=out), array)


def test_odd_addresses(isa):
    array = values(100)
    room = bytearray(array.nbytes + 1)
    room[1:] = array.tobytes()
    odd = np.frombuffer(room, np.float32, 100, 1)
    assert not odd.flags.aligned
    check(odd)


def test_past_the_caches(isa):
    """Arrays of 32 MB and more are written by other stores, unless they are not aligned to them."""
    array = np.zeros(2**23 + 19, np.float32)
    array[::7] = 3
    array[-1] = 5
    c = sc.compress(array, num_threads=2)
    for offset in (0, 1):
        out = at_offset(np.ones_like(array), offset)
        np.testing.assert_array_equal(sc.decompress(c, out=out, num_threads=2), array)


# --- out= ---


@pytest.mark.parametrize("dtype", DTYPES)
def test_out(isa, dtype):
    """Any order, any gaps; the memory order of the compressed array is just the fastest."""
    array = values(2 * 3 * 4 * 5, dtype=dtype).reshape(2, 3, 4, 5)
    for given_ in (array, array.transpose(0, 3, 1, 2), array[:, :, ::-1]):
        c = sc.compress(given_)
        wide = np.full((*given_.shape[:-1], 2 * given_.shape[-1]), -7, dtype)
        for out in (np.ones_like(given_), np.ones(given_.shape, dtype), np.ones(given_.shape[::-1], dtype).T,
                    wide[..., ::2]):  # fmt: skip
            assert sc.decompress(c, out=out) is out
            same_bits(out, given_)
        assert (wide[..., 1::2] == -7).all()
        same_bits(c.to_dense(out=np.ones_like(given_)), given_)


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


X = sparse_ints((3, 5), 0.5, 0)
C = sc.compress(X)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: sc.compress([1.0]), TypeError, "x: got list, expected an array"),
        (lambda: sc.compress(None), TypeError, "x: got NoneType"),
        (lambda: sc.compress(X.astype(int)), TypeError, "x: got dtype int64, expected float32 or float64"),
        (lambda: sc.compress(X > 0), TypeError, "x: got dtype bool"),
        (lambda: sc.compress(C), TypeError, "x: got a CompressedArray, expected an array .*decompress"),
        (lambda: sc.compress(X, num_threads=0), ValueError, "num_threads: got 0"),
        (lambda: sc.compress(X, num_threads=2.0), TypeError, r"num_threads: got 2\.0"),
        (lambda: sc.decompress(X), TypeError, "c: got ndarray, expected a CompressedArray"),
        (lambda: sc.decompress(None), TypeError, "c: got NoneType"),
        (lambda: sc.decompress(C, num_threads=-1), ValueError, "num_threads: got -1"),
        (lambda: sc.decompress(C, num_threads="2"), TypeError, "num_threads: got '2'"),
        (lambda: sc.decompress(C, out=np.ones((5, 3), np.float32)), ValueError, r"out: got shape \(5, 3\)"),
        (lambda: sc.decompress(C, out=np.ones((3, 5))), TypeError, "out: got dtype float64, expected float32"),
        (lambda: sc.decompress(C, out=np.ones((3, 5), bool)), TypeError, "out: got dtype bool"),
        (lambda: sc.decompress(C, out=read_only(X)), ValueError, "out: got a read-only array"),
        (lambda: sc.decompress(C, out=X.copy()[::-1]), ValueError, "out: got negative strides"),
        (lambda: sc.decompress(C, out=[]), TypeError, "out: got list"),
        (lambda: sc.decompress(C, out=C), TypeError, "out: got a CompressedArray"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()


# --- the object ---


def test_its_arrays_are_read_only():
    """Kernels trust them: a bit more in the mask would be a read beyond the values."""
    for c in (C, copy.deepcopy(C), pickle.loads(pickle.dumps(C))):
        for array in (c.bits, c.packed, c.offsets, c.values, c.mask):
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 1
        same_bits(sc.decompress(c), X)


def test_repr():
    text = repr(sc.compress(np.eye(4, dtype=np.float32)))
    assert text == "CompressedArray(shape=(4, 4), dtype=float32, density=0.250, nbytes=98)"


def test_other_kinds_of_arrays(isa):
    array = values(50)
    for other in (memoryview(array), array.view(type("Sub", (np.ndarray,), {}))):
        same_bits(sc.decompress(sc.compress(other)), array)


def test_tensors():
    torch = pytest.importorskip("torch")
    x = torch.randn(2, 32, 9, 7).relu().to(memory_format=torch.channels_last)
    c = sc.compress(x)
    assert c.axes == (0, 2, 3, 1)
    back = torch.empty_like(x)
    assert sc.decompress(c, out=back) is not None
    assert torch.equal(back, x)
    assert torch.from_numpy(c.to_dense()).is_contiguous(memory_format=torch.channels_last)


# --- as an operand ---


def backward_weight_calls():
    """(function, dense x, dense grad_output, further arguments); 2d ones in NCHW views of NHWC memory."""
    nhwc = (0, 3, 1, 2)
    yield sc.conv1d_backward_weight, (2, 17, 30), (2, 20, 30), None, (3,), {"padding": 1}
    yield sc.conv2d_backward_weight, (2, 9, 8, 33), (2, 9, 8, 20), nhwc, (3,), {"padding": 1}
    yield sc.conv2d_backward_weight, (2, 9, 8, 33), (2, 9, 8, 20), None, (1,), {"layout": "NHWC"}
    yield sc.conv3d_backward_weight, (2, 16, 4, 5, 6), (2, 18, 2, 3, 4), None, (3,), {}
    yield sc.conv_transpose1d_backward_weight, (2, 17, 30), (2, 20, 30), None, (3,), {"padding": 1}
    yield sc.conv_transpose2d_backward_weight, (2, 9, 8, 33), (2, 9, 8, 20), nhwc, (3,), {"padding": 1}
    yield sc.conv_transpose3d_backward_weight, (2, 16, 2, 3, 4), (2, 18, 4, 5, 6), None, (3,), {}
    yield sc.linear_backward_weight, (4, 5, 33), (4, 5, 20), None, (), {}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", range(len(list(backward_weight_calls()))))
def test_backward_weight(isa, number, dtype):
    """The same bits as from the dense arrays, whichever operand is compressed."""
    function, x_shape, y_shape, axes, sizes, options = list(backward_weight_calls())[number]
    x, grad_output = (sparse_floats(shape, 0.6, seed).astype(dtype) for seed, shape in enumerate((x_shape, y_shape)))
    if axes:
        x, grad_output = x.transpose(axes), grad_output.transpose(axes)
    for skip in ("auto", "none", "input", "grad_output"):
        options["skip"] = skip
        expected = function(x, grad_output, *sizes, **options)
        for first in (x, sc.compress(x)):
            for second in (grad_output, sc.compress(grad_output)):
                got = function(first, second, *sizes, num_threads=2, **options)
                assert got.tobytes() == expected.tobytes()


def test_plan_of_a_compressed_operand():
    x, grad_output = sparse_ints((2, 8, 8, 32), 0.5, 0), sparse_ints((2, 8, 8, 32), 0.5, 1)
    options = {"padding": 1, "layout": "NHWC"}
    plans = [str(sc.plan("conv2d_backward_weight", one, grad_output, 3, **options)) for one in (x, sc.compress(x))]
    assert plans[0] == plans[1]


IMAGE = np.ones((1, 16, 4, 4), np.float32)
FILTER = np.ones((16, 16, 3, 3), np.float32)


@pytest.mark.parametrize(
    "name, call",
    [
        ("x", lambda c: sc.conv2d(c, FILTER)),
        ("weight", lambda c: sc.conv2d(IMAGE, c)),
        ("bias", lambda c: sc.conv2d(IMAGE, FILTER, c)),
        ("grad_output", lambda c: sc.conv2d_backward_data(c, FILTER, IMAGE.shape, padding=1)),
        ("x", lambda c: sc.conv_transpose2d(c, FILTER)),
        ("x", lambda c: sc.linear(c, FILTER[0, 0])),
        ("out", lambda c: sc.conv2d(IMAGE, FILTER, padding=1, out=c)),
        ("grad_output", lambda c: sc.grad_bias(c)),
        ("x", lambda c: masks.nonzero_mask(c)),
    ],
)
def test_refused_elsewhere(name, call):
    message = f"^{name}: got a CompressedArray, expected an array .*decompress.*backward_weight"
    with pytest.raises(TypeError, match=message):
        call(sc.compress(IMAGE))


def test_bad_compressed_operands():
    grad_output = np.ones((1, 16, 4, 4), np.float32)
    for bad, error, message in (
        (IMAGE[0], ValueError, "x: got 3 dimensions"),
        (IMAGE.astype(np.float64), TypeError, "grad_output: got dtype float32, expected float64"),
    ):
        with pytest.raises(error, match=f"^{message}"):
            sc.conv2d_backward_weight(sc.compress(bad), grad_output, 3, padding=1)
    with pytest.raises(ValueError, match=r"^num_threads: got 0"):
        sc.conv2d_backward_weight(sc.compress(IMAGE), grad_output, 3, padding=1, num_threads=0)
