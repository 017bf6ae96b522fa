"""Calls that find what an earlier call prepared: nothing kept ever stands for a call that differs in what counts.

One file: all parts look at the one cache, which each test empties.
"""

import gc
import itertools
import threading
import weakref

import numpy as np
import pytest
from cases import sparse_ints
from comparisons import assert_exact

import sparseconv as sc
from sparseconv import cpu
from sparseconv._core import arrays, call, geometry, layout, lines, operations, rows

X, W = sparse_ints((2, 16, 6, 6), 0.5, 1), sparse_ints((16, 16, 3, 3), 0.1, 2)
GRAD = sparse_ints((2, 16, 4, 4), 0.5, 3)
CACHES = [
    value
    for module in (call, geometry, layout, lines)
    for value in vars(module).values()
    if hasattr(value, "cache_clear")
]


def calls(grad):
    """A call of each kind of function; `grad` has the size of the convolution's result."""
    return {
        "conv2d": (X, W),
        "conv2d_backward_data": (grad, W, X.shape),
        "conv2d_backward_weight": (X, grad, 3),
        "conv_transpose2d": (grad, W),
        "conv_transpose2d_backward_data": (X, W, grad.shape),
        "conv_transpose2d_backward_weight": (grad, X, 3),
    }


CALLS, PADDED_CALLS = calls(GRAD), calls(X)


def anew(function, *args, **options):
    """The result of a call for which nothing is kept."""
    for cache in CACHES:
        cache.cache_clear()
    return function(*args, **options)


def kept():
    return call._kept.cache_info()


@pytest.fixture(autouse=True)
def forget():
    """Each test begins with nothing kept."""
    for cache in CACHES:
        cache.cache_clear()


@pytest.mark.parametrize("name", CALLS)
def test_a_second_call_is_found(name):
    function = getattr(sc, name)
    first = function(*CALLS[name])
    hits = kept().hits
    np.testing.assert_array_equal(function(*CALLS[name]), first)
    assert kept().hits == hits + 1


# --- words that are equal and not the same ---

IMPOSTORS = (True, 1.0, np.True_, np.float32(1), np.float64(1), 1 + 0j)


@pytest.mark.parametrize("impostor", IMPOSTORS, ids=repr)
@pytest.mark.parametrize("word", ["stride", "dilation", "padding", "groups"])
@pytest.mark.parametrize("name", CALLS)
def test_what_equals_one_is_no_number(name, word, impostor):
    """1 == True == 1.0, and they hash alike; only 1 is a stride. Before, between and after good calls."""
    function = getattr(sc, name)
    arguments = (PADDED_CALLS if word == "padding" else CALLS)[name]
    good, bad = [1], [impostor]
    if word != "groups":
        good += [(1, 1)]
        bad += [(impostor, 1), (1, impostor), [impostor, impostor]]
    if word == "padding":
        good += [((1, 1), (1, 1))]
        bad += [((1, 1), (1, impostor))]
    for value in 2 * bad:
        with pytest.raises(TypeError, match=rf"^{word}: got .*expected a whole number"):
            function(*arguments, **{word: value})
        for right in good:
            function(*arguments, **{word: right})


@pytest.mark.parametrize("impostor", [3.0, np.float32(3), np.float64(3)], ids=repr)
def test_other_words_that_are_equal(impostor):
    sc.conv2d_backward_weight(X, GRAD, 3)
    sc.conv2d_backward_weight(X, GRAD, (3, 3))
    sc.conv2d_backward_weight(X, GRAD, W.shape)
    for value in (impostor, (3, impostor), (16, 16, impostor, 3)):
        with pytest.raises(TypeError, match=r"^kernel_size: "):
            sc.conv2d_backward_weight(X, GRAD, value)
    sc.conv_transpose2d(GRAD, W, stride=4, output_padding=3)
    with pytest.raises(TypeError, match=r"^output_padding: "):
        sc.conv_transpose2d(GRAD, W, stride=4, output_padding=impostor)
    sc.conv2d(X, W, num_threads=3)
    with pytest.raises(TypeError, match=r"^num_threads: "):
        sc.conv2d(X, W, num_threads=impostor)


def test_sizes_that_are_equal():
    sc.conv2d_backward_data(GRAD, W, X.shape)
    with pytest.raises(TypeError, match=r"^input_shape: "):
        sc.conv2d_backward_data(GRAD, W, (2.0, 16, 6, 6))
    with pytest.raises(TypeError, match=r"^input_shape: "):
        sc.conv2d_backward_data(GRAD, W, tuple(map(np.float32, X.shape)))


def test_unusual_words_are_right_and_not_kept():
    expected = sc.conv2d(X, W, stride=2, padding=((1, 1), (1, 1)))
    for stride in ([2, 2], np.int64(2), (np.int8(2), 2), np.array(2)):
        for padding in ([1, 1], np.uint8(1), [(1, 1), [1, 1]]):
            size = kept().currsize
            np.testing.assert_array_equal(sc.conv2d(X, W, stride=stride, padding=padding), expected)
            assert kept().currsize == size


def test_shapes_of_any_kind():
    """Subclasses of tuple, such as torch.Size, are kept as what they stand for."""

    class Size(tuple):
        __slots__ = ()

    expected = sc.conv2d_backward_data(GRAD, W, X.shape)
    hits = kept().hits
    np.testing.assert_array_equal(sc.conv2d_backward_data(GRAD, W, Size(X.shape)), expected)
    assert kept().hits == hits + 1
    np.testing.assert_array_equal(sc.conv2d_backward_data(GRAD, W, list(X.shape)), expected)


def test_words_in_any_order():
    """The same values under other names, as `plan` takes them."""
    x, w = np.ones((1, 16, 9, 9), np.float32), np.ones((16, 16, 3, 3), np.float32)
    words = ("stride", "padding", "dilation")
    for values in itertools.permutations((1, 2, 3)):
        options = dict(zip(words, values, strict=True))
        first = sc.plan("conv2d", x, w, **options).problem
        assert first == anew(sc.plan, "conv2d", x, w, **options).problem
        again = sc.plan("conv2d", x, w, **dict(reversed(options.items())))
        assert again.problem == first


def test_operations_of_equal_arguments():
    """Nothing but the function differs."""
    x = sparse_ints((2, 16, 6, 6), 0.5, 4)
    w = sparse_ints((16, 16, 3, 3), 0.1, 5)
    for _ in range(2):
        results = [
            sc.conv2d(x, w, padding=1),
            sc.conv_transpose2d(x, w, padding=1),
            sc.conv2d_backward_data(x, w, x.shape, padding=1),
            sc.conv_transpose2d_backward_data(x, w, x.shape, padding=1),
        ]
        assert_exact(results[0], results[3])
        assert_exact(results[1], results[2])
        assert (results[0] != results[1]).any()


# --- arrays that are alike ---


def views(array):
    """The same elements in memory of other orders."""
    yield array
    yield np.asfortranarray(array)
    yield np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    yield np.repeat(array, 2, axis=1)[:, ::2]
    yield array[:, :, ::-1].copy()[:, :, ::-1]
    yield array.astype(np.float64)
    yield misaligned(array)


def misaligned(array):
    """A copy whose elements lie at odd addresses."""
    memory = np.zeros(array.nbytes + 1, np.uint8)
    copy = memory[1:].view(array.dtype).reshape(array.shape)
    copy[...] = array
    assert not copy.flags.aligned
    return copy


@pytest.mark.parametrize("name", CALLS)
def test_equal_shapes_in_other_memory(isa, name):
    """Strides, dtype, alignment: every combination in turn, twice, all with the same numbers."""
    first, second, *rest = CALLS[name]
    function = getattr(sc, name)
    expected = anew(function, first, second, *rest)
    for _ in range(2):
        for a, b in itertools.product(views(first), views(second)):
            if a.dtype == b.dtype:
                assert_exact(function(a, b, *rest).astype(np.float32), expected)
            else:
                with pytest.raises(TypeError, match="float64"):
                    function(a, b, *rest)


def test_equal_strides_of_other_dtypes():
    sc.conv2d(X, W)
    for dtype in (np.int32, np.uint32, ">f4"):
        with pytest.raises(TypeError, match=r"^x: got dtype"):
            sc.conv2d(X.astype(dtype), W)
        with pytest.raises(TypeError, match=r"^weight: got dtype"):
            sc.conv2d(X, W.astype(dtype))
    with pytest.raises(TypeError, match=r"^x: got a masked array"):
        sc.conv2d(np.ma.array(X), W)


@pytest.mark.parametrize("layouts", [("NCHW", "NHWC"), ("NHWC", "NCHW")])
def test_layouts_of_one_shape(layouts):
    x = sparse_ints((2, 16, 16, 16), 0.5, 6)
    for name in layouts:
        assert_exact(sc.conv2d(x, W, layout=name), anew(sc.conv2d, x, W, layout=name))
        sc.conv2d(x, W, layout=layouts[0])


def test_contents_are_looked_at_every_time():
    x = np.ones((4, 32, 14, 14), np.float32)
    w = np.ones((32, 32, 3, 3), np.float32)
    for _ in range(2):
        x[...] = 1
        assert sc.plan("conv2d", x, w).skip == "none"
        assert (sc.conv2d(x, w) == 32 * 9).all()
        x[...] = 0
        assert sc.plan("conv2d", x, w).skip == "input"
        assert (sc.conv2d(x, w) == 0).all()


def test_weights_are_read_every_time():
    w = W.copy()
    first = sc.conv2d(X, w)
    w *= 2
    np.testing.assert_array_equal(sc.conv2d(X, w), 2 * first)


# --- out ---


def test_out_after_a_good_out():
    """A good `out` says nothing about the next one of the same form."""
    memory = np.zeros(2 * X.size + 64, np.float32)
    x = memory[: X.size].reshape(X.shape)
    x[...] = X
    good = np.zeros(X.shape, np.float32)
    expected = sc.conv2d(x, W, padding=1)
    for _ in range(2):
        assert sc.conv2d(x, W, padding=1, out=good) is good
        assert_exact(good, expected)
        read_only = np.zeros(X.shape, np.float32)
        read_only.flags.writeable = False
        with pytest.raises(ValueError, match=r"^out: got a read-only"):
            sc.conv2d(x, W, padding=1, out=read_only)
        with pytest.raises(ValueError, match=r"^out: .*aligned"):
            sc.conv2d(x, W, padding=1, out=misaligned(good))
        with pytest.raises(ValueError, match=r"^out: .*overlaps x"):
            sc.conv2d(x, W, padding=1, out=memory[X.size - 1 : 2 * X.size - 1].reshape(X.shape))
        with pytest.raises(ValueError, match=r"^out: .*overlaps x"):
            sc.conv2d(x, W, padding=1, out=x)
        beside = memory[X.size : 2 * X.size].reshape(X.shape)
        assert_exact(sc.conv2d(x, W, padding=1, out=beside), expected)
        for bad in (good[:, :, ::-1], np.broadcast_to(np.zeros(6, np.float32), X.shape)):
            with pytest.raises(ValueError, match=r"^out: "):
                sc.conv2d(x, W, padding=1, out=bad)
    np.testing.assert_array_equal(x, X)


def test_misaligned_inputs_may_not_overlap_out():
    """They are read from copies, but `out` must not overlap what was given."""
    memory = np.zeros(X.nbytes + 8, np.uint8)
    x = memory[1 : X.nbytes + 1].view(np.float32).reshape(X.shape)
    out = memory[4 : X.nbytes + 4].view(np.float32).reshape(X.shape)
    sc.conv2d(X, W, padding=1, out=np.zeros(X.shape, np.float32))
    with pytest.raises(ValueError, match=r"^out: .*overlaps x"):
        sc.conv2d(x, W, padding=1, out=out)
    with pytest.raises(ValueError, match=r"^out: .*overlaps weight"):
        square = x.ravel()[:256].reshape(16, 16)
        sc.linear(np.ones((16, 16), np.float32), square, out=out.ravel()[:256].reshape(16, 16))


def test_results_are_new_arrays():
    first = sc.conv2d(X, W)
    before = first.copy()
    second = sc.conv2d(-X, W)
    assert not np.shares_memory(first, second)
    np.testing.assert_array_equal(first, before)


def test_out_of_other_strides():
    expected = sc.conv2d(X, W, padding=1)
    for _ in range(2):
        for out in views(np.zeros(X.shape, np.float32)):
            if out.dtype == np.float32 and out.flags.aligned and min(out.strides) > 0:
                assert_exact(sc.conv2d(X, W, padding=1, out=out), expected)


# --- settings of the process ---


def test_instruction_set():
    """A switch is seen by the next call, which then computes as a first call would."""
    x = np.random.default_rng(0).standard_normal((2, 32, 9, 9), np.float32)
    w = np.random.default_rng(1).standard_normal((32, 32, 3, 3), np.float32)
    expected = {}
    for name in cpu.available_isas():
        with cpu.use_isa(name):
            expected[name] = anew(sc.conv2d, x, w)
    for name in 2 * cpu.available_isas():
        with cpu.use_isa(name):
            assert sc.plan("conv2d", x, w).isa == name
            np.testing.assert_array_equal(sc.conv2d(x, w), expected[name])


def test_number_of_threads():
    x, w = np.ones((4, 64, 28, 28), np.float32), np.ones((64, 64, 3, 3), np.float32)
    before = cpu.num_threads()
    try:
        for count in (1, 3, 2, 3):
            cpu.set_num_threads(count)
            assert sc.plan("conv2d", x, w).threads == count
            assert sc.plan("conv2d", x, w, num_threads=2).threads == 2
            assert sc.plan("conv2d", x, w, num_threads=None).threads == count
            sc.conv2d(x, w)
    finally:
        cpu.set_num_threads(before)
    for bad in (0, 1025):
        with pytest.raises(ValueError, match=r"^num_threads: "):
            sc.conv2d(x, w, num_threads=bad)


# --- what is kept ---


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", [*CALLS, "linear"])
def test_no_array_is_kept(name, dtype):
    arguments = (X.reshape(-1, 16), W[:, :, 0, 0]) if name == "linear" else CALLS[name]
    given = [one.astype(dtype) if isinstance(one, np.ndarray) else one for one in arguments]
    out = np.empty_like(getattr(sc, name)(*given))
    getattr(sc, name)(*given, out=out)
    alive = [weakref.ref(one) for one in (*given, out) if isinstance(one, np.ndarray)]
    del given, out
    gc.collect()
    assert [one() for one in alive] == [None] * len(alive)


def test_caches_are_bounded():
    assert len(CACHES) >= 6
    for cache in CACHES:
        assert cache.cache_info().maxsize <= 4096


def test_errors_are_not_kept():
    size = kept().currsize
    for _ in range(3):
        with pytest.raises(ValueError, match="channels"):
            sc.conv2d(X[:, :8], W)
    assert kept().currsize == size


def blocks_by_kernel(name):
    """The blocks of a call's kernels, for an instruction set that may not be the one in use."""
    x = np.zeros((1, 64, 9, 9), np.float32)
    operands = {"x": x, "grad_output": x}
    made = call.checked(operations.conv_backward_weight, 2, operands, kernel_size=3, padding=1, layout="NCHW")
    kernels = made.operation.kernels(1, name)
    which = ("gradient_dense", False), ("gradient_skip", False), ("gradient_skip", True)
    return {kernel: kernels(False, *kernel).blocking for kernel in which}


def test_kernels_are_of_the_instruction_set_that_a_call_began_with():
    """Even if it was switched meanwhile, by another thread."""
    names = cpu.available_isas()
    expected = {}
    for name in names:
        with cpu.use_isa(name):
            expected[name] = blocks_by_kernel(name)
    assert len(names) == 1 or len({str(blocks) for blocks in expected.values()}) > 1
    for name, inside in itertools.product(names, names):
        for cache in CACHES:
            cache.cache_clear()
        with cpu.use_isa(inside):
            assert blocks_by_kernel(name) == expected[name]
            assert cpu.isa() == inside


def test_a_switch_waits_for_a_kernel_that_is_being_bound(monkeypatch):
    before, other = cpu.isa(), cpu.available_isas()[-1]
    thread, alive, blocking = threading.Thread(target=cpu.use_isa, args=(other,)), [], rows.blocking

    def switched_meanwhile(*args):
        if not alive:
            thread.start()
            thread.join(0.2)
            alive.append(thread.is_alive())
        return blocking(*args)

    monkeypatch.setattr(rows, "blocking", switched_meanwhile)
    try:
        result = sc.conv2d(X, W)
        thread.join()
        assert alive == [True]
        assert cpu.isa() == other
    finally:
        cpu.use_isa(before)
    assert_exact(result, anew(sc.conv2d, X, W))


def test_threads_prepare_the_same_calls():
    """Many threads meet an empty cache with the same and with other calls."""
    sizes = range(3, 11)
    expected = {}
    for size in sizes:
        expected[size] = sc.conv2d(sparse_ints((1, 16, size, size), 0.5, size), W)
    errors = []
    start = threading.Barrier(8)

    def work(shift):
        start.wait()
        for turn in range(40):
            size = sizes[(turn + shift % 2) % len(sizes)]
            result = sc.conv2d(sparse_ints((1, 16, size, size), 0.5, size), W)
            if not np.array_equal(result, expected[size]):
                errors.append(size)
            if turn % 10 == shift:
                call._kept.cache_clear()

    threads = [threading.Thread(target=work, args=(shift,)) for shift in range(8)]
    for cache in CACHES:
        cache.cache_clear()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


# --- forms ---


@pytest.mark.parametrize("shape", [(5,), (1,), (4, 5), (1, 5), (4, 1), (2, 3, 5), (2, 1, 5), (2, 0, 5), (2, 3, 4, 1)])
def test_forms_as_rows(shape):
    """`as_row` is NumPy's reshape: the same strides where that is a view, None where it copies."""
    padded = np.zeros([2 * size for size in shape], np.float32)
    for steps in itertools.product((1, 2), repeat=len(shape)):
        array = padded[tuple(slice(0, step * size, step) for step, size in zip(steps, shape, strict=True))]
        for one in (array, array.copy(), np.asfortranarray(array), np.broadcast_to(array[:1], shape)):
            form = arrays.form(one).as_row()
            if one.size:
                row = one.reshape(1, -1, shape[-1])
                assert (form is not None) == np.shares_memory(row, one)
                used = [axis for axis, size in enumerate(row.shape) if size > 1]
                if form:
                    assert form.shape == row.shape
                    assert [form.strides[axis] for axis in used] == [row.strides[axis] for axis in used]
            assert arrays.form(arrays.in_rows(one)).as_row() is not None
            np.testing.assert_array_equal(arrays.in_rows(one), one)


@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 3, 4, 5), (1, 1, 7)])
@pytest.mark.parametrize("dtype", arrays.DTYPES)
def test_forms_of_new_arrays(shape, dtype):
    assert arrays.contiguous(shape, dtype) == arrays.form(np.empty(shape, dtype))
    assert arrays.contiguous(shape, dtype).steps == tuple(
        step // dtype.itemsize for step in arrays.empty(shape, dtype).strides
    )


def test_threshold_of_packed_weights_that_meet_nothing():
    """Then no kernel says that small weights are cut, for which the packed weight becomes an array."""
    x, weight = np.ones((1, 2, 4, 1), np.float32), np.ones((2, 2, 1, 2), np.float32)
    packed, words = sc.pack_weight(weight), {"dilation": 3, "padding": "same", "stride": (1, 2)}
    for given in (weight, packed):
        prepared = sc.prepare("conv2d", x, given, skip="weight", threshold=2, **words)
        for other in (weight, packed):
            np.testing.assert_array_equal(prepared(x, other), sc.conv2d(x, other, skip="weight", threshold=2, **words))
    assert prepared.plan().kernel == "none"
