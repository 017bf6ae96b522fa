"""No kernel touches memory that is not its own: guard pages, canaries, odd addresses, odd strides."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from awkward import at_offset, guarded, needs_mprotect
from cases import CASES, FEW_CASES, PASSES, SKIPS, TRANSPOSED_CASES, call, cases, prepared, sparse_ints
from comparisons import assert_exact
from hypothesis import given
from hypothesis import strategies as st
from places import SUPPORT

import sparseconv
from sparseconv import reference

CANARY = np.float32(-7777)


def check_between_guards(case, name, at_end, sparsity=0.5):
    """Inputs are read-only memory, every array ends (or starts) at a page which traps."""
    first, second, expected = prepared(case, name, sparsity)
    first, second = guarded(first, at_end), guarded(second, at_end)
    out = guarded(np.full(expected.shape, CANARY, np.float32), at_end, writable=True)
    for skip in SKIPS[name]:
        out[...] = CANARY
        call(sparseconv, case, name, first, second, skip=skip, out=out)
        assert_exact(out, expected, f"skip={skip!r}")


@needs_mprotect
@pytest.mark.parametrize(
    "at_end, access",
    [(True, "read(at + 20)"), (False, "read(at - 4)"), (True, "write(at, b'1', 1)"), (False, "write(at, b'1', 1)")],
)
def test_guards_trap(at_end, access):
    """The trap itself works: one float beyond the array, or a write to an input, ends the process."""
    code = (
        "import ctypes; import numpy as np; from awkward import guarded; "
        f"array = guarded(np.ones(5, np.float32), {at_end}); at = array.ctypes.data; "
        "read, write = ctypes.c_float.from_address, ctypes.memmove; read(at).value; read(at + 16).value; "
        f"getattr({access}, 'value', None)"
    )
    paths = os.pathsep.join([str(SUPPORT), *filter(None, sys.path)])
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": paths}, capture_output=True)
    assert done.returncode in (-signal.SIGSEGV, -signal.SIGBUS), done.stderr


@needs_mprotect
@pytest.mark.parametrize("at_end", [True, False], ids=["end", "start"])
@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("case", [*CASES[::3], *TRANSPOSED_CASES[::4]], ids=str)
def test_guard_pages(isa, case, name, at_end):
    check_between_guards(case, name, at_end)


@needs_mprotect
@pytest.mark.parametrize("name", PASSES)
@given(case=cases(), at_end=st.booleans())
def test_guard_pages_any_geometry(isa, name, case, at_end):
    check_between_guards(case, name, at_end)


@needs_mprotect
@pytest.mark.parametrize("at_end", [True, False], ids=["end", "start"])
def test_guard_pages_of_linear_and_bias(isa, at_end):
    x, weight, bias = sparse_ints((5, 33), 0.5, 1), sparse_ints((17, 33), 0.1, 2), sparse_ints((17,), 0, 3)
    grads = sparse_ints((5, 17), 0.5, 4)
    calls = (
        ("linear", (x, weight, bias)),
        ("linear_backward_data", (grads, weight)),
        ("linear_backward_weight", (x, grads)),
        ("grad_bias", (sparse_ints((2, 17, 3, 5), 0.5, 5),)),
        ("conv2d", (sparse_ints((2, 17, 5, 7), 0.5, 6), sparse_ints((17, 17, 3, 3), 0.1, 7), bias)),
    )
    for function, arrays in calls:
        expected = getattr(reference, function)(*arrays)
        out = guarded(np.full_like(expected, CANARY), at_end, writable=True)
        getattr(sparseconv, function)(*(guarded(array, at_end) for array in arrays), out=out)
        assert_exact(out, expected, function)


@needs_mprotect
@pytest.mark.parametrize("name", PASSES)
def test_guard_pages_of_strided_views(isa, name):
    """A view that stops short of its buffer's last row, in the memory order of NHWC."""
    case = FEW_CASES[0]
    first, second, expected = prepared(case, name, 0.5)

    def view(array):
        return guarded(np.ascontiguousarray(np.moveaxis(array, 1, -1)))[...].transpose(0, 3, 1, 2)

    moved = view(first), view(second)
    out = guarded(np.full(np.moveaxis(expected, 1, -1).shape, CANARY), writable=True).transpose(0, 3, 1, 2)
    for skip in SKIPS[name]:
        out[...] = CANARY
        call(sparseconv, case, name, *moved, skip=skip, out=out)
        assert_exact(out, expected, f"skip={skip!r}")


@pytest.mark.parametrize("offset", range(16))
@pytest.mark.parametrize("name", PASSES)
def test_alignment(isa, name, offset):
    """Every operand at every offset from a cache line, the other ones aligned; then all of them."""
    for case in FEW_CASES[:3]:
        first, second, expected = prepared(case, name, 0.5)
        for offsets in ((offset, 0, 0), (0, offset, 0), (0, 0, offset), (offset, offset * 3 % 16, offset * 5 % 16)):
            placed = at_offset(first, offsets[0]), at_offset(second, offsets[1])
            out = at_offset(np.full_like(expected, CANARY), offsets[2])
            call(sparseconv, case, name, *placed, skip=SKIPS[name][-1], out=out)
            assert_exact(out, expected, f"offsets={offsets}")


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("case", [*FEW_CASES, *TRANSPOSED_CASES[::6]], ids=str)
def test_canaries(isa, case, name):
    """The words around a result, and in the gaps of a strided one, keep their values."""
    first, second, expected = prepared(case, name, 0.5)
    for skip in SKIPS[name]:
        buffer = np.full(expected.size + 128, CANARY, np.float32)
        out = buffer[64:-64].reshape(expected.shape)
        call(sparseconv, case, name, first, second, skip=skip, out=out)
        assert_exact(out, expected, f"skip={skip!r}")
        assert (buffer[:64] == CANARY).all()
        assert (buffer[-64:] == CANARY).all()

        room = np.full([2 * size + 1 for size in expected.shape], CANARY, np.float32)
        at = tuple(slice(1, None, 2) for _ in expected.shape)
        call(sparseconv, case, name, first, second, skip=skip, out=room[at])
        assert_exact(room[at], expected, f"gaps, skip={skip!r}")
        untouched = np.ones(room.shape, bool)
        untouched[at] = False
        assert (room[untouched] == CANARY).all()


def reversed_view(array):
    at = tuple(slice(None, None, -1) for _ in array.shape)
    return array[at].copy()[at]


def gapped_view(array):
    room = np.full([3 * size for size in array.shape], np.nan, array.dtype)
    at = tuple(slice(1, None, 3) for _ in array.shape)
    room[at] = array
    return room[at]


def rotated_view(array):
    """Memory order: the second axis last."""
    return np.ascontiguousarray(np.moveaxis(array, 1, -1)).transpose(0, array.ndim - 1, *range(1, array.ndim - 1))


def partly_reversed_view(array):
    return np.asfortranarray(array[..., ::-1])[..., ::-1]


VIEWS = (np.asfortranarray, reversed_view, gapped_view, rotated_view, partly_reversed_view)


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.__name__)
@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("case", [*FEW_CASES, *TRANSPOSED_CASES[::6]], ids=str)
def test_strides_of_inputs(isa, case, name, view):
    first, second, expected = prepared(case, name, 0.5)
    moved = view(first), view(second)
    np.testing.assert_array_equal(moved[0], first)
    for skip in SKIPS[name]:
        assert_exact(call(sparseconv, case, name, *moved, skip=skip), expected, f"skip={skip!r}")
    assert_exact(call(sparseconv, case, name, moved[0], second), expected, "first operand")
    assert_exact(call(sparseconv, case, name, first, moved[1]), expected, "second operand")


def test_strides_of_zero(isa):
    """Broadcast arrays are inputs like others."""
    x = np.broadcast_to(sparse_ints((1, 17, 1, 14), 0.3, 1), (3, 17, 5, 14))
    weight = np.broadcast_to(sparse_ints((20, 1, 3, 3), 0.1, 2), (20, 17, 3, 3))
    bias = np.broadcast_to(np.float32(3), (20,))
    expected = reference.conv2d(x, weight, bias)
    assert_exact(sparseconv.conv2d(x, weight, bias), expected)
    grads = np.broadcast_to(np.float32(2), expected.shape)
    shape = x.shape
    assert_exact(
        sparseconv.conv2d_backward_data(grads, weight, shape), reference.conv2d_backward_data(grads, weight, shape)
    )
    assert_exact(sparseconv.conv2d_backward_weight(x, grads, 3), reference.conv2d_backward_weight(x, grads, 3))
    assert_exact(sparseconv.grad_bias(grads), reference.grad_bias(grads))


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_transposed_out(isa, case, name):
    """`out` may have its axes in any order in memory."""
    first, second, expected = prepared(case, name, 0.5)
    for axes in (range(expected.ndim)[::-1], (1, 0, *range(2, expected.ndim)), (0, *range(2, expected.ndim), 1)):
        shape = [expected.shape[axis] for axis in axes]
        out = np.full(shape, CANARY, np.float32).transpose(np.argsort(axes))
        assert call(sparseconv, case, name, first, second, out=out) is out
        assert_exact(out, expected, f"axes={list(axes)}")


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("case", [*FEW_CASES, *TRANSPOSED_CASES[::6]], ids=str)
def test_inputs_are_not_modified(isa, case, name):
    first, second = (array.copy() for array in prepared(case, name, 0.5)[:2])
    before = first.tobytes(), second.tobytes()
    for skip in SKIPS[name]:
        call(sparseconv, case, name, first, second, skip=skip)
        assert (first.tobytes(), second.tobytes()) == before, f"skip={skip!r}"


@pytest.mark.parametrize("name", PASSES)
def test_results_do_not_share_memory(isa, name):
    """Every call returns memory of its own, whatever is kept for reuse inside."""
    case = FEW_CASES[0]
    first, second, expected = prepared(case, name, 0.5)
    results = [call(sparseconv, case, name, first, second) for _ in range(3)]
    for result in results:
        assert not any(np.shares_memory(result, other) for other in (first, second))
        assert sum(np.shares_memory(result, other) for other in results) == 1
        assert result.flags.writeable
        assert_exact(result, expected)
