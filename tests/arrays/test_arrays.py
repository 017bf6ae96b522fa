"""Whatever shares memory with NumPy is accepted, in and out; results are aligned and contiguous."""

import array

import numpy as np
import pytest
from cases import FEW_CASES, GEOMETRIES, LAYOUTS, PASSES, TRANSPOSED_CASES, call, prepared, sparse_ints
from comparisons import assert_exact

import sparseconv

CASE = FEW_CASES[0]


class InterfaceOnly:
    """An object that shares its memory through `__array_interface__` and nothing else."""

    def __init__(self, base):
        self._base = base

    @property
    def __array_interface__(self):
        return self._base.__array_interface__


class DLPackOnly:
    """An object that shares its memory through DLPack and nothing else."""

    def __init__(self, base):
        self._base = base

    def __dlpack__(self, **options):
        return self._base.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._base.__dlpack_device__()


def as_array_module(base):
    """array.array, given its shape through a memoryview."""
    flat = array.array("f", base.ravel().tolist())
    return memoryview(flat).cast("B").cast("f", base.shape)


def as_bytes(base):
    """Read-only memory of a bytes object."""
    return memoryview(base.tobytes()).cast("f", base.shape)


WRAPPERS = {"memoryview": memoryview, "array.array": as_array_module, "interface": InterfaceOnly, "dlpack": DLPackOnly}


def plain(case, name):
    """Writable copies: old DLPack exporters refuse read-only arrays."""
    first, second, expected = prepared(case, name, 0.5)
    return first.copy(), second.copy(), expected


@pytest.mark.parametrize("wrap", [*WRAPPERS.values(), as_bytes], ids=[*WRAPPERS, "bytes"])
@pytest.mark.parametrize("name", PASSES)
def test_inputs(name, wrap):
    first, second, expected = plain(CASE, name)
    assert_exact(call(sparseconv, CASE, name, wrap(first), wrap(second)), expected)
    assert_exact(call(sparseconv, CASE, name, first, wrap(second)), expected)
    assert_exact(call(sparseconv, CASE, name, wrap(first), second), expected)


@pytest.mark.parametrize("wrap", [memoryview, InterfaceOnly, DLPackOnly])
@pytest.mark.parametrize("name", PASSES)
def test_out(name, wrap):
    """`out` is written in place, whatever it is."""
    first, second, expected = plain(CASE, name)
    target = np.full(expected.shape, 99, np.float32)
    if wrap is DLPackOnly and np.__version__.startswith("2.0."):
        with pytest.raises(ValueError, match=r"^out: got a read-only array .* NumPy 2\.1 or newer"):
            call(sparseconv, CASE, name, first, second, out=wrap(target))
        return
    call(sparseconv, CASE, name, first, second, out=wrap(target))
    assert_exact(target, expected)


def test_out_of_the_array_module():
    first, second, expected = plain(CASE, "forward")
    target = array.array("f", [99.0]) * expected.size
    call(sparseconv, CASE, "forward", first, second, out=memoryview(target).cast("B").cast("f", expected.shape))
    assert_exact(np.array(target, np.float32).reshape(expected.shape), expected)


def test_bias_and_linear_operands():
    x, weight, bias = sparse_ints((5, 33), 0.5, 1), sparse_ints((17, 33), 0.1, 2), sparse_ints((17,), 0, 3)
    expected = x @ weight.T + bias
    for wrap in WRAPPERS.values():
        assert_exact(sparseconv.linear(wrap(x), wrap(weight), wrap(bias)), expected)
        assert_exact(sparseconv.grad_bias(wrap(x), layout="NC"), x.sum(0))
        y = sparseconv.conv2d(wrap(x[:, :, None, None]), wrap(weight[:, :, None, None]), wrap(bias))
        assert_exact(y[:, :, 0, 0], expected)


@pytest.mark.parametrize("name", PASSES)
def test_torch(name):
    torch = pytest.importorskip("torch")
    first, second, expected = plain(CASE, name)
    tensors = torch.from_numpy(first), torch.from_numpy(second)
    assert_exact(np.asarray(call(sparseconv, CASE, name, *tensors)), expected)
    channels_last = [tensor.contiguous(memory_format=torch.channels_last) for tensor in tensors]
    assert_exact(np.asarray(call(sparseconv, CASE, name, *channels_last)), expected)
    for out in (torch.full(expected.shape, 99.0), channels_last[0].new_full(expected.shape, 99.0)):
        call(sparseconv, CASE, name, *tensors, out=out)
        assert_exact(out.numpy(), expected)


def test_torch_tensors_that_are_no_plain_memory():
    """Their errors say what is wrong; no number is misread."""
    torch = pytest.importorskip("torch")
    x, w = torch.ones(1, 4, 5, 5), torch.ones(3, 4, 3, 3)
    negative = torch.view_as_complex(torch.ones(1, 4, 5, 5, 2)).conj().imag
    assert negative.is_neg()
    for bad, fragment in (
        (x.clone().requires_grad_(), "detach"),
        (torch.nn.Parameter(x), "detach"),
        (negative, "memory.*neg"),
        (x.to_sparse(), ""),
        (x.to(torch.bfloat16), ""),
        (x.to("meta"), ""),
    ):
        with pytest.raises((TypeError, ValueError), match=rf"^x: got .*{fragment}"):
            sparseconv.conv2d(bad, w)
    with pytest.raises(TypeError, match=r"^x: got dtype int32, expected float32"):
        sparseconv.conv2d(x.int(), w)
    assert_exact(sparseconv.conv2d(negative.resolve_neg(), w), np.full((1, 3, 3, 3), -36, np.float32))


def test_torch_channels_last_out():
    torch = pytest.importorskip("torch")
    first, second, expected = plain(CASE, "forward")
    out = torch.full(expected.shape, 99.0).contiguous(memory_format=torch.channels_last)
    call(sparseconv, CASE, "forward", torch.from_numpy(first), torch.from_numpy(second), out=out)
    assert_exact(out.numpy(), expected)


def test_read_only_inputs():
    """The arrays of `prepared` are read-only already: this names the promise."""
    first, second, expected = prepared(CASE, "forward", 0.5)
    assert not first.flags.writeable
    assert_exact(call(sparseconv, CASE, "forward", first, second), expected)


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("case", [*FEW_CASES, *GEOMETRIES[::7], *TRANSPOSED_CASES[::5]], ids=str)
def test_results_are_aligned_and_contiguous(isa, case, name):
    first, second, _ = prepared(case, name, 0.5)
    for dtype in (np.float32, np.float64):
        result = call(sparseconv, case, name, first.astype(dtype), second.astype(dtype))
        assert isinstance(result, np.ndarray)
        assert result.dtype == dtype
        assert result.flags.c_contiguous
        assert result.flags.writeable
        if dtype == np.float32 and result.size:
            assert result.ctypes.data % 64 == 0


def test_linear_and_bias_results_are_aligned(isa):
    x, weight, grads = (np.ones(shape, np.float32) for shape in ((3, 5, 33), (17, 33), (3, 5, 17)))
    for result in (
        sparseconv.linear(x, weight),
        sparseconv.linear_backward_data(grads, weight),
        sparseconv.linear_backward_weight(x, grads),
        sparseconv.grad_bias(grads, layout="NCW"),
    ):
        assert result.flags.c_contiguous
        assert result.ctypes.data % 64 == 0


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("case", [case for case in FEW_CASES if case.kind == 1], ids=str)
def test_channels_last_memory_as_channels_first(isa, case, name):
    """A transposed view names another layout, gives the same numbers, and a result in the layout that was named."""
    first, second, expected = prepared(case, name, 0.5)

    def named_first(array):
        return np.moveaxis(array, -1, 1)

    layout = LAYOUTS[case.ndim][0]
    other = named_first(second) if name == "backward_weight" else second
    actual = call(sparseconv, case, name, named_first(first), other, layout=layout)
    assert actual.flags.c_contiguous
    assert_exact(actual, expected if name == "backward_weight" else np.ascontiguousarray(named_first(expected)))
    if name != "backward_weight":
        buffer = np.full(expected.shape, 99, np.float32)
        call(sparseconv, case, name, named_first(first), other, layout=layout, out=named_first(buffer))
        assert_exact(buffer, expected)
