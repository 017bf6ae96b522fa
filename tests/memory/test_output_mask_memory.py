"""Masks of results, and results under them, anywhere in memory: strides, guard pages, overlaps."""

from itertools import cycle

import numpy as np
import pytest
from awkward import guarded, needs_mprotect
from cases import FEW_CASES, TRANSPOSED_CASES, Case, call, cases, prepared, sparse_ints
from comparisons import assert_exact
from hypothesis import given, settings
from hypothesis import strategies as st
from output_masks import (
    BLOCK_CASES,
    CANARY,
    KINDS,
    NAME,
    SKIPS,
    as_kind,
    assert_masked,
    forward_input,
    masked,
    nhwc_memory,
    times_mask,
)

import sparseconv as sc
from sparseconv import reference
from sparseconv._core import _masks, choice


def gapped(array):
    """A part of a larger array whose other elements are needed."""
    room = np.ones([2 * size + 1 for size in array.shape], array.dtype)
    at = tuple(slice(1, None, 2) for _ in array.shape)
    room[at] = array
    return room[at]


def backwards(array):
    at = tuple(slice(None, None, -1) for _ in array.shape)
    return array[at].copy()[at]


def unaligned(array):
    room = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    room[...] = array
    return room


@pytest.mark.parametrize("view", [np.asfortranarray, nhwc_memory, gapped, backwards, unaligned])
@pytest.mark.parametrize("case", [*FEW_CASES, BLOCK_CASES[2], TRANSPOSED_CASES[0]], ids=str)
def test_strides_of_masks(isa, case, view):
    """A mask may lie in memory otherwise than the result, also one of bits."""
    first, second, floats, expected = masked(case, 0.5)
    for kind in KINDS:
        mask = as_kind(floats, kind)
        if view is not nhwc_memory or kind != "bits":
            mask = view(mask)
        for skip in SKIPS:
            actual = call(sc, case, NAME, first, second, skip=skip, output_mask=mask)
            assert_exact(actual, expected, f"skip={skip!r} {kind}")


def test_strides_of_masks_of_linear(isa):
    grad_output, weight = sparse_ints((2, 3, 17), 0.2, 1), sparse_ints((17, 70), 0.2, 2)
    floats = forward_input((2, 3, 70), 0.5, 1)
    expected = times_mask(reference.linear_backward_data(grad_output, weight), floats)
    for kind in KINDS:
        for view in (np.asfortranarray, gapped, backwards):
            mask = view(as_kind(floats, kind))
            for skip in SKIPS:
                actual = sc.linear_backward_data(grad_output, weight, skip=skip, output_mask=mask)
                assert_exact(actual, expected, f"skip={skip!r} {kind} {view.__name__}")


def test_broadcast_masks(isa):
    """Masks with strides of zero: one for all images, one for all channels."""
    for case in FEW_CASES[:2]:
        first, second, whole = prepared(case, NAME, 0.3)
        for shape in ((1, *whole.shape[1:]), (whole.shape[0], 1, *whole.shape[2:]), (1, 1, 1, whole.shape[3])):
            mask = np.broadcast_to(np.random.default_rng(1).random(shape) < 0.5, whole.shape)
            for skip in SKIPS:
                assert_exact(call(sc, case, NAME, first, second, skip=skip, output_mask=mask), whole * mask)


@pytest.mark.parametrize("case", [*FEW_CASES, BLOCK_CASES[2], TRANSPOSED_CASES[0]], ids=str)
def test_strides_of_out(isa, case):
    """Every element of any `out` is written, and nothing between them."""
    first, second, floats, expected = masked(case, 0.5)
    for skip, kind in zip(SKIPS, cycle(KINDS), strict=False):
        for make in (np.asfortranarray, nhwc_memory):
            out = make(np.full(expected.shape, np.nan, np.float32))
            call(sc, case, NAME, first, second, skip=skip, output_mask=as_kind(floats, kind), out=out)
            assert_exact(out, expected, f"skip={skip!r} {kind}")
            assert_masked(out, floats)
        room = np.full([2 * size + 1 for size in expected.shape], CANARY)
        at = tuple(slice(1, None, 2) for _ in expected.shape)
        call(sc, case, NAME, first, second, skip=skip, output_mask=as_kind(floats, kind), out=room[at])
        assert_exact(room[at], expected, f"gaps, skip={skip!r} {kind}")
        room[at] = CANARY
        assert (room == CANARY).all()


@needs_mprotect
@pytest.mark.parametrize("at_end", [True, False], ids=["end", "start"])
@pytest.mark.parametrize("case", [*FEW_CASES, *TRANSPOSED_CASES[::6], *BLOCK_CASES[:16:3], BLOCK_CASES[17]], ids=str)
def test_guard_pages(isa, case, at_end):
    """No byte beyond an operand, a mask or the result is touched; operands and masks are read-only memory."""
    first, second, floats, expected = masked(case, 0.5)
    arrays = guarded(first, at_end), guarded(second, at_end)
    out = guarded(np.full(expected.shape, CANARY), at_end, writable=True)
    for kind in KINDS:
        mask = guarded(as_kind(floats, kind), at_end)
        for skip in SKIPS:
            out[...] = CANARY
            call(sc, case, NAME, *arrays, skip=skip, output_mask=mask, out=out)
            assert_exact(out, expected, f"skip={skip!r} {kind}")


@needs_mprotect
@settings(max_examples=30)
@given(
    case=st.one_of(cases(), cases(transposed=True)),
    skip=st.sampled_from(SKIPS),
    kind=st.sampled_from(KINDS),
    at_end=st.booleans(),
)
def test_guard_pages_any_geometry(isa, case, skip, kind, at_end):
    first, second, floats, expected = masked(case, 0.5, 0.5)
    arrays, mask = (guarded(first, at_end), guarded(second, at_end)), guarded(as_kind(floats, kind), at_end)
    out = guarded(np.full(expected.shape, CANARY), at_end, writable=True)
    call(sc, case, NAME, *arrays, skip=skip, output_mask=mask, out=out)
    assert_exact(out, expected)


@pytest.mark.parametrize("size", range(1, 20))
@needs_mprotect
def test_guard_pages_of_bits(isa, size):
    """Every number of bits in the last byte, words that begin anywhere in one."""
    case = Case(5, 3, (size,), (1,), batch=1)
    for density in (0.5, 1.0):
        first, second, floats, expected = masked(case, density)
        for at_end in (True, False):
            bits = guarded(as_kind(floats, "bits"), at_end)
            for skip in SKIPS:
                assert_exact(call(sc, case, NAME, first, second, skip=skip, output_mask=bits), expected)


def test_overlapping_out():
    """The mask is an input: `out` must not share memory with it."""
    buffer = np.ones(1000, np.float32)
    grad_output, weight = sparse_ints((2, 4, 5, 5), 0, 1), sparse_ints((4, 4, 3, 3), 0, 2)
    masks = {
        "float": buffer[300:500].reshape(2, 4, 5, 5),
        "bool": buffer.view(np.bool_)[2000:2200].reshape(2, 4, 5, 5),
        "bits": buffer.view(np.uint8)[2000:2025],
        "bits with gaps": buffer.view(np.uint8)[1990:2040:2],
    }
    before = buffer.tobytes()
    for mask in masks.values():
        for start in (350, 499):
            out = buffer[start : start + 200].reshape(2, 4, 5, 5)
            with pytest.raises(ValueError, match=r"^out: .*overlaps output_mask"):
                sc.conv2d_backward_data(grad_output, weight, out.shape, padding=1, output_mask=mask, out=out)
    assert buffer.tobytes() == before
    out = buffer[550:750].reshape(2, 4, 5, 5)
    sc.conv2d_backward_data(grad_output, weight, out.shape, padding=1, output_mask=masks["float"], out=out)
    assert_exact(out, reference.conv2d_backward_data(grad_output, weight, out.shape, padding=1))


@pytest.mark.parametrize("density", [0.0, 0.05, 0.3, 0.5, 0.8, 1.0])
def test_sampled_density(density):
    """Of bools in every order of memory, and of bits."""
    floats = forward_input((32, 64, 14, 28), density, 2)
    bools = floats != 0
    for view in (np.asarray, np.asfortranarray, nhwc_memory, gapped, backwards):
        measured = _masks.sampled_density(view(bools), choice.SAMPLED_RUNS)
        assert abs(measured - density) <= (0.05 if 0 < density < 1 else 0)
    for one in (floats, as_kind(floats, "bits")):
        measured = _masks.sampled_density(one, choice.SAMPLED_RUNS)
        assert abs(measured - density) <= (0.05 if 0 < density < 1 else 0)
