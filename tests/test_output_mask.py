"""backward_data with `output_mask`: zeros where the mask has them and, with skip="output", no work for them."""

import functools
from itertools import cycle

import numpy as np
import pytest
from helpers import (
    CASES,
    FEW_CASES,
    LAYOUTS,
    SPARSITIES,
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
    needs_mprotect,
    operands,
    oracle,
    prepared,
    result_in_layout,
    sparse_floats,
    sparse_ints,
    to_layout,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import sparseconv as sc
from sparseconv import _conv, planning, reference

NAME = "backward_data"
SKIPS = ("auto", "none", "grad_output", "weight", "output")
KINDS = ("float", "bool", "bits")
DENSITIES = (0.0, 0.1, 0.5, 0.9, 1.0)
CANARY = np.float32(-7777)

# Both sides of what kernel_outputs.h cuts a problem into: words of 64 channels of the result, patches of up to 8
# vectors of channels of grad_output, rows in segments of 512 columns, chunks of rows, weights packed ahead or for each.
BLOCK_CASES = (
    Case(1, 300, (3, 7), (3, 3), padding=1),
    Case(300, 1, (2, 3), (3, 3), batch=1, padding=1),
    Case(63, 65, (4, 14), (3, 3), padding=1),
    Case(65, 63, (3, 57), (1, 1), kind=1),
    Case(64, 64, (7, 7), (3, 3), batch=5, padding=1, kind=1),
    Case(130, 64, (2, 14), (3, 3), batch=5, stride=2, padding=1, kind=1),
    Case(300, 130, (2, 2), (1, 1), batch=5, kind=1),
    Case(130, 300, (1, 7), (1, 7), padding=(0, 3)),
    Case(65, 17, (9, 7), (5, 5), padding=2, kind=2),
    Case(17, 64, (9, 9), (7, 7), padding=3, kind=1),
    Case(64, 48, (5, 1), (3, 3), padding=1, kind=1),
    Case(64, 48, (5, 2), (2, 2), padding=((0, 2), (2, 1))),
    Case(65, 16, (5, 14), (3, 2), stride=2, padding="same", kind=1),
    Case(48, 65, (9, 16), (3, 3), stride=3, dilation=2, padding=2, kind=1),
    Case(64, 32, (5, 16), (2, 3), dilation=3, padding="same"),
    Case(130, 96, (5, 7), (3, 3), groups=2, padding=1, kind=1),
    Case(128, 66, (5, 7), (1, 1), groups=2),
    Case(17, 16, (1, 1100), (1, 3), batch=1, padding=(0, 1)),  # rows longer than a segment
    Case(16, 32, (2, 1100), (2, 2), stride=(1, 2), kind=1),
    Case(33, 17, (1500,), (3,), dilation=3, padding=((0, 4),), kind=1),
    Case(40, 16, (24, 57), (1, 1), kind=1),  # one row of all positions
    Case(80, 48, (30, 57), (3, 3), padding=1, kind=1),  # several chunks; weights packed ahead
    Case(130, 34, (40, 29), (3, 3), groups=2, padding=1),
)
# No kernel multiplies padding here, whatever the weights are.
UNPADDED = (
    Case(17, 33, (5, 14), (3, 3)),
    Case(70, 48, (4, 7), (1, 1), kind=1),
    Case(16, 64, (9, 11), (2, 2), stride=2, kind=1),
    Case(33, 17, (4, 5), (1, 1), transposed=True),
)


# --- masks ---


def forward_input(shape, density, seed):
    """What a mask is made of: some of the zeros are -0.0, some of the nonzeros NaN, infinite or tiny."""
    rng = np.random.default_rng((seed, 4))
    zeros = rng.choice(np.float32([0.0, -0.0]), shape)
    others = rng.choice(np.float32([1, -2, 0.5, np.nan, np.inf, 1.2e-38]), shape)
    return np.where(rng.random(shape) < density, others, zeros)


def as_kind(floats, kind):
    """The same mask as floats, bools or bits."""
    if kind == "float":
        return floats
    return floats != 0 if kind == "bool" else np.packbits(floats != 0, bitorder="little")


def times_mask(result, floats):
    """What a mask means, written independently of the oracle."""
    return np.where(floats == 0, np.float32(0), result)


@functools.lru_cache(maxsize=1024)
def masked(case, density, sparsity=0.3, seed=0):
    """(grad_output, weight, mask as floats, expected) in the layout of the case; lanes without a channel are needed."""
    first, second, whole = prepared(case, NAME, sparsity, seed)
    floats = to_layout(forward_input(case.x_shape, density, seed), case.layout, pad=np.nan)
    expected = times_mask(whole, floats)
    for array in (floats, expected):
        array.flags.writeable = False
    return first, second, floats, expected


def assert_masked(actual, floats, message=""):
    """+0.0 wherever the mask is zero."""
    assert not np.ascontiguousarray(actual).view(np.uint32)[floats == 0].any(), message


# --- exactness ---


@pytest.mark.parametrize("case", [*CASES[:: len(CASES) // 12], *TRANSPOSED_CASES[::5]], ids=str)
def test_reference(case):
    """The oracle with a mask is the oracle times the mask."""
    for density in DENSITIES:
        _, _, floats, expected = masked(case, density)
        for kind in KINDS:
            mask = as_kind(floats, kind)
            first, second = operands(case, NAME, 0.3)
            given = (to_layout(first, case.layout), second)
            assert_exact(call(reference, case, NAME, *given, output_mask=mask), expected, f"{density} {kind}")


def test_masks_hide_and_let_through():
    """What the following tests compare is nonzero on both sides of their masks."""
    for case in (*FEW_CASES, *BLOCK_CASES):
        whole = prepared(case, NAME, 0.3)[2]
        _, _, floats, expected = masked(case, 0.5)
        assert 0 < np.count_nonzero(expected) < np.count_nonzero(whole)
        if case.stride == 1:
            assert_not_vacuous(expected[floats != 0])
        np.testing.assert_array_equal(masked(case, 1.0)[3], whole)


@pytest.mark.parametrize("case", [*CASES, *TRANSPOSED_CASES, *BLOCK_CASES], ids=str)
def test_exact(isa, case):
    """Every density with every way of skipping, and each of them with every kind of mask."""
    for place, density in enumerate(DENSITIES):
        first, second, floats, expected = masked(case, density)
        for turn, skip in enumerate(SKIPS):
            kind = KINDS[(place + turn) % 3]
            out = np.full(expected.shape, np.nan, np.float32)
            actual = call(sc, case, NAME, first, second, skip=skip, output_mask=as_kind(floats, kind), out=out)
            assert actual is out
            assert_exact(actual, expected, f"density={density} skip={skip!r} {kind}")
            assert_masked(actual, floats)


@settings(max_examples=60)
@given(
    case=st.one_of(cases(), cases(transposed=True)),
    density=st.sampled_from(DENSITIES),
    sparsity=st.sampled_from(SPARSITIES),
    skip=st.sampled_from(SKIPS),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 99),
)
def test_any_geometry(isa, case, density, sparsity, skip, kind, seed):
    first, second = operands(case, NAME, sparsity, seed)
    floats = to_layout(forward_input(case.x_shape, density, seed), case.layout, pad=np.nan)
    expected = times_mask(oracle(case, NAME, first, second), floats)
    arrays = in_layout(case, NAME, first, second)
    actual = call(sc, case, NAME, *arrays, skip=skip, output_mask=as_kind(floats, kind))
    assert_exact(actual, expected)
    assert_masked(actual, floats)


@pytest.mark.parametrize("case", [*FEW_CASES, *BLOCK_CASES[:9]], ids=str)
def test_sparse_gradients_under_a_mask(isa, case):
    for sparsity, density in ((0.9, 0.5), (0.9, 0.1), (1.0, 0.5)):
        first, second, floats, expected = masked(case, density, sparsity)
        for skip, kind in zip(SKIPS, cycle(KINDS), strict=False):
            actual = call(sc, case, NAME, first, second, skip=skip, output_mask=as_kind(floats, kind))
            assert_exact(actual, expected, f"sparsity={sparsity} density={density} skip={skip!r}")


@pytest.mark.parametrize("count", range(10))
def test_needed_channels_of_a_pixel(isa, count):
    """Each number of needed channels of one word, at its ends and in its middle: sums are taken four at a time."""
    weight, grad_output = sparse_ints((33, 70, 3, 3), 0.1, 1), sparse_ints((1, 33, 2, 5), 0.1, 2)
    whole = reference.conv2d_backward_data(grad_output, weight, (1, 70, 2, 5), padding=1)
    for first in (0, 15, 31, 64 - count, 70 - count):
        mask = np.zeros(whole.shape, bool)
        mask[:, first : first + count] = True
        actual = sc.conv2d_backward_data(grad_output, weight, whole.shape, padding=1, skip="output", output_mask=mask)
        assert_exact(actual, whole * mask, f"{count} from {first}")


def test_results_beyond_the_caches(isa):
    """Results of more than 8 MB go past the caches where whole vectors are aligned."""
    for channels, groups in ((64, 1), (72, 1), (64, 2)):
        case = Case(channels, 2, (128, 264), (1, 1), batch=1, groups=groups, kind=1)
        first, second, floats, expected = masked(case, 0.5)
        for skip in ("output", "none", "grad_output"):
            assert sc.plan(
                "conv2d_backward_data", first, second, expected.shape, groups=groups, layout="NHWC", skip=skip,
                output_mask=floats,
            ).tiles["stream"]  # fmt: skip
            for kind in KINDS:
                actual = call(sc, case, NAME, first, second, skip=skip, output_mask=as_kind(floats, kind))
                assert np.array_equal(actual, expected), f"{case} {skip} {kind}"
                assert_masked(actual, floats, f"{case} {skip} {kind}")


@pytest.mark.parametrize("case", [*FEW_CASES, *BLOCK_CASES[2:9]], ids=str)
def test_floats(isa, case):
    """Within the error bound of the float64 result."""
    first, second = operands(case, NAME, 0.5, 1, sparse_floats)
    wide = first.astype(np.float64), second.astype(np.float64)
    floats = to_layout(forward_input(case.x_shape, 0.5, 1), case.layout)
    exact = times_mask(oracle(case, NAME, *wide), floats)
    magnitude = times_mask(oracle(case, NAME, *map(np.abs, wide)), floats)
    arrays = in_layout(case, NAME, first, second)
    for skip in SKIPS:
        actual = call(sc, case, NAME, *arrays, skip=skip, output_mask=floats)
        assert_within_bound(actual, exact, magnitude, case.terms(NAME), f"skip={skip!r}")


@pytest.mark.parametrize(
    "case",
    [
        Case(130, 64, (14, 14), (3, 3), padding=1, kind=1),  # rows are shared out
        Case(300, 64, (7, 7), (3, 3), batch=1, padding=1),  # lane blocks
        Case(128, 80, (1100,), (3,), batch=1, padding=1, kind=1),  # columns
        Case(96, 64, (14, 28), (1, 1), kind=1),
    ],
    ids=str,
)
def test_threads_do_not_change_a_bit(isa, case):
    arrays = in_layout(case, NAME, *operands(case, NAME, 0.0, 1, sparse_floats))
    floats = to_layout(forward_input(case.x_shape, 0.4, 1), case.layout)
    for skip, kind in zip(SKIPS[1:], cycle(KINDS), strict=False):
        options = {"skip": skip, "output_mask": as_kind(floats, kind)}
        results = [call(sc, case, NAME, *arrays, num_threads=threads, **options) for threads in (1, 2, 3, 8)]
        assert_not_vacuous(results[0][floats != 0])
        for other in results[1:]:
            assert_same_bits(other, results[0], f"skip={skip!r}")


LINEAR = (((5,), 1, 1), ((17,), 70, 33), ((), 40, 24), ((2, 3), 130, 300), ((2, 0), 16, 17), ((3, 1, 4), 64, 16))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", LINEAR, ids=str)
def test_linear(isa, shape, dtype):
    lead, in_c, out_c = shape
    weight, grad_output = (sparse_ints(sizes, 0.2, 1).astype(dtype) for sizes in ((out_c, in_c), (*lead, out_c)))
    for density in DENSITIES:
        floats = forward_input((*lead, in_c), density, 1).astype(dtype)
        expected = np.where(floats == 0, dtype(0), reference.linear_backward_data(grad_output, weight))
        for kind in KINDS:
            mask = as_kind(floats, kind)
            assert_exact(reference.linear_backward_data(grad_output, weight, output_mask=mask), expected)
            for skip in SKIPS:
                actual = sc.linear_backward_data(grad_output, weight, skip=skip, output_mask=mask)
                assert_exact(actual, expected, f"density={density} skip={skip!r} {kind}")


@pytest.mark.parametrize("case", [*FEW_CASES, *TRANSPOSED_CASES[::6]], ids=str)
def test_float64(case):
    first, second, floats, expected = (array.astype(np.float64) for array in masked(case, 0.5))
    for skip, kind in zip(SKIPS, cycle(KINDS), strict=False):
        actual = call(sc, case, NAME, first, second, skip=skip, output_mask=as_kind(floats, kind))
        assert_exact(actual, expected, f"skip={skip!r} {kind}")


# --- infinities and NaN ---


def poisoned(array, values, seed):
    """A copy with some elements, here and there, that are not finite."""
    array = array.copy()
    places = np.random.default_rng(seed).choice(array.size, min(4 * len(values), array.size), replace=False)
    array.flat[places] = np.resize(values, places.size)
    return array


def check_not_finite(case, first, second, skips, density=0.5):
    """What the oracle gives, where it is needed; zeros elsewhere, whatever the sums would be."""
    whole = oracle(case, NAME, first, second)
    floats = to_layout(forward_input(case.x_shape, density, 0), case.layout)
    assert not np.isfinite(whole[floats == 0]).all()
    assert not np.isfinite(whole[floats != 0]).all()
    arrays = in_layout(case, NAME, first, second)
    for skip, kind in skips:
        actual = call(sc, case, NAME, *arrays, skip=skip, output_mask=as_kind(floats, kind))
        assert_exact(actual, times_mask(whole, floats), f"skip={skip!r} {kind}")
        assert_masked(actual, floats)


@pytest.mark.parametrize("values", [(np.inf,), (np.nan,), (-np.inf, np.inf, np.nan)], ids=str)
@pytest.mark.parametrize("case", [*FEW_CASES, *TRANSPOSED_CASES[:3], *BLOCK_CASES[:9]], ids=str)
def test_weights_that_are_not_finite(isa, case, values):
    """Needed outputs are IEEE's sums, and padding is never multiplied."""
    first, second = operands(case, NAME, 0.3)
    check_not_finite(case, first, poisoned(second, values, 1), [("output", kind) for kind in KINDS])


@pytest.mark.parametrize("case", UNPADDED, ids=str)
def test_every_kernel_agrees_on_weights_that_are_not_finite(isa, case):
    first, second = operands(case, NAME, 0.0)
    skips = [("none", "bool"), ("grad_output", "bits"), ("output", "float")]
    check_not_finite(case, first, poisoned(second, (np.inf, np.nan), 1), skips)


@pytest.mark.parametrize("case", [*FEW_CASES, *TRANSPOSED_CASES[:3], *BLOCK_CASES[:9]], ids=str)
def test_gradients_that_are_not_finite(isa, case):
    first, second = operands(case, NAME, 0.0)
    second[second == 0] = 1  # of finite weights not even the skipped ones make a difference
    skips = [("none", "bits"), ("grad_output", "float"), ("output", "bool")]
    check_not_finite(case, poisoned(first, (np.inf, -np.inf, np.nan), 1), second, skips)


def test_nothing_but_infinite_weights(isa):
    """Every output that no gradient reaches but through padding is zero."""
    grad_output, weight = np.ones((1, 17, 1, 1), np.float32), np.full((17, 70, 3, 3), np.inf, np.float32)
    shape, options = (1, 70, 3, 5), {"stride": 3, "padding": 0}
    mask = np.random.default_rng(0).random(shape) < 0.5
    actual = sc.conv2d_backward_data(grad_output, weight, shape, skip="output", output_mask=mask, **options)
    assert (actual[..., :3] == np.where(mask, np.float32(np.inf), 0)[..., :3]).all()
    assert not actual[..., 3:].any()


def test_denormals_of_a_float_mask(isa):
    """Flushed to zero as those of other operands, in every kernel; bits and bools say what they say."""
    case = FEW_CASES[0]
    first, second, floats, expected = masked(case, 0.5)
    tiny = np.where(floats == 0, np.float32(1e-40), floats)
    for skip in SKIPS:
        assert_exact(call(sc, case, NAME, first, second, skip=skip, output_mask=tiny), expected, f"skip={skip!r}")


# --- memory ---


def nhwc_memory(array):
    """Channels last in memory."""
    return np.ascontiguousarray(np.moveaxis(array, 1, -1)).transpose(0, array.ndim - 1, *range(1, array.ndim - 1))


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


# --- what is no mask ---


def ones(*shape):
    return np.ones(shape, np.float32)


FUNCTIONS = {
    "conv1d_backward_data": (ones(2, 6, 3), ones(6, 4, 3), (2, 4, 5)),
    "conv2d_backward_data": (ones(2, 6, 3, 4), ones(6, 4, 3, 3), (2, 4, 5, 6)),
    "conv3d_backward_data": (ones(2, 6, 3, 4, 2), ones(6, 4, 3, 3, 1), (2, 4, 5, 6, 2)),
    "conv_transpose1d_backward_data": (ones(2, 4, 5), ones(6, 4, 3), (2, 6, 3)),
    "conv_transpose2d_backward_data": (ones(2, 4, 5, 6), ones(6, 4, 3, 3), (2, 6, 3, 4)),
    "conv_transpose3d_backward_data": (ones(2, 4, 5, 6, 2), ones(6, 4, 3, 3, 1), (2, 6, 3, 4, 2)),
    "linear_backward_data": (ones(5, 6), ones(6, 4)),
}
BAD_MASKS = {  # from a right one; the exception and what its message says was expected
    "list": (lambda mask: mask.tolist(), TypeError, "list.*expected an array"),
    "tuple": (lambda mask: (1, 0), TypeError, "tuple.*expected an array"),
    "number": (lambda mask: 1.0, TypeError, "float.*expected an array"),
    "float64": (lambda mask: mask.astype(np.float64), TypeError, "float64, expected float32, bool"),
    "float16": (lambda mask: mask.astype(np.float16), TypeError, "float16, expected float32"),
    "int32": (lambda mask: mask.astype(np.int32), TypeError, "int32, expected float32"),
    "int8": (lambda mask: mask.astype(np.int8), TypeError, "int8, expected float32"),
    "object": (lambda mask: mask.astype(object), TypeError, "object, expected float32"),
    "big-endian": (lambda mask: mask.astype(">f4"), TypeError, "expected float32"),
    "masked": (lambda mask: np.ma.masked_array(mask), TypeError, "masked array, expected"),
    "rank": (lambda mask: mask[..., None], ValueError, r"shape \(.*, expected \("),
    "flat": (lambda mask: mask.ravel(), ValueError, r"shape \(.*, expected \("),
    "short": (lambda mask: mask[..., :-1] != 0, ValueError, r"shape \(.*, expected \("),
    "one for all": (lambda mask: mask[:1], ValueError, r"shape \(.*, expected \("),
    "bytes": (lambda mask: mask.astype(np.uint8), ValueError, r"shape \(.*, expected a bit mask of shape \(\d+,\)"),
    "few bits": (lambda mask: bits_of(mask)[:-1], ValueError, r"shape \(.*, expected a bit mask of shape \(\d+,\)"),
    "more bits": (lambda mask: np.r_[bits_of(mask), 1].astype("B"), ValueError, "expected a bit mask of shape"),
    "bits in rows": (lambda mask: bits_of(mask)[None], ValueError, "expected a bit mask of shape"),
}


def bits_of(mask):
    return as_kind(mask, "bits")


@pytest.mark.parametrize("kind", BAD_MASKS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_bad_mask(name, kind):
    function, arrays = getattr(sc, name), FUNCTIONS[name]
    make, error, message = BAD_MASKS[kind]
    whole = function(*arrays)
    out = np.full_like(whole, CANARY)
    for options in ({}, {"skip": "output"}, {"skip": "none"}, {"out": out}):
        with pytest.raises(error, match=rf"(?s)^output_mask: got .*{message}"):
            function(*arrays, output_mask=make(ones(*whole.shape)), **options)
    assert (out == CANARY).all()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_output_cannot_be_skipped_without_a_mask(name):
    function, arrays = getattr(sc, name), FUNCTIONS[name]
    out = np.full_like(function(*arrays), CANARY)
    for more in ({}, {"output_mask": None}):
        with pytest.raises(ValueError, match=r"^output_mask: got None, expected a mask with skip='output'"):
            function(*arrays, skip="output", out=out, **more)
    assert (out == CANARY).all()
    wide = [array.astype(np.float64) if isinstance(array, np.ndarray) else array for array in arrays]
    with pytest.raises(ValueError, match=r"^output_mask: got None"):
        function(*wide, skip="output")
    with pytest.raises(TypeError, match=r"^output_mask: got dtype float32, expected float64, bool"):
        function(*wide, output_mask=ones(*out.shape))


def test_masks_of_torch():
    """Tensors are masks like arrays, also channels last."""
    torch = pytest.importorskip("torch")
    case = FEW_CASES[0]
    first, second, floats, expected = masked(case, 0.5)
    tensor = torch.from_numpy(floats.copy())
    tensors = {
        "float": tensor,
        "bool": tensor != 0,
        "channels last": (tensor != 0).contiguous(memory_format=torch.channels_last),
        "bits": torch.from_numpy(as_kind(floats, "bits")),
    }
    for kind, mask in tensors.items():
        for skip in SKIPS:
            assert_exact(call(sc, case, NAME, first, second, skip=skip, output_mask=mask), expected, kind)
    with pytest.raises(TypeError, match=r"^output_mask: "):
        call(sc, case, NAME, first, second, output_mask=tensor.double())


def test_masks_of_the_package():
    """What `masks` makes of an activation is a mask."""
    case = FEW_CASES[0]
    first, second, floats, expected = masked(case, 0.5)
    floats = np.where(np.isfinite(floats), floats, np.float32(1))
    for bits in (sc.masks.nonzero_mask(floats), sc.masks.pack(floats != 0), sc.masks.relu(np.abs(floats))[1]):
        for mask in (bits, memoryview(bits), bits.tobytes()):
            assert_exact(call(sc, case, NAME, first, second, skip="output", output_mask=mask), expected)


# --- plans ---


def plan_of(grad_sparsity, density, kind="float", **options):
    grad_output, weight = sparse_floats((2, 64, 20, 20), grad_sparsity, 1), ones(64, 64, 3, 3)
    mask = as_kind(forward_input((2, 64, 20, 20), density, 1), kind)
    return sc.plan(
        "conv2d_backward_data", grad_output, weight, grad_output.shape, padding=1, output_mask=mask, **options
    )


@pytest.mark.parametrize("kind", KINDS)
def test_auto_takes_the_fastest(isa, kind):
    for density in (0.0, 0.1, 0.3):
        plan = plan_of(0.0, density, kind)
        assert (plan.kernel, plan.skip) == ("rows_output", "output")
        assert plan.density.keys() == {"grad_output", "output"}
        assert abs(plan.density["output"] - density) < 0.05
        assert plan.density["grad_output"] == 1
        assert plan.speedup > 1.5
        assert "output" in plan.reason
    dense = plan_of(0.0, 1.0, kind)
    assert (dense.skip, dense.density["output"]) == ("none", 1)
    assert dense.kernel.endswith(("dense", "tiles"))
    sparse = plan_of(0.95, 0.5, kind)
    assert (sparse.kernel, sparse.skip) == ("rows_skip", "grad_output")
    assert plan_of(0.5, 0.05, kind).skip == "output"


def test_what_is_asked_for_is_planned(isa):
    for skip, kernel in (("none", "rows_dense"), ("grad_output", "rows_skip"), ("output", "rows_output")):
        plan = plan_of(0.5, 0.5, skip=skip)
        assert plan.skip == skip
        assert plan.kernel == kernel
        assert plan.density.keys() == ({skip} - {"none"})
    assert plan_of(0.5, 0.5, skip="output").scratch_bytes > 0


@pytest.mark.parametrize("density", [0.0, 0.05, 0.3, 0.5, 0.8, 1.0])
def test_sampled_density(density):
    """Of bools in every order of memory, and of bits."""
    floats = forward_input((32, 64, 14, 28), density, 2)
    bools = floats != 0
    for view in (np.asarray, np.asfortranarray, nhwc_memory, gapped, backwards):
        measured = _conv.sampled_density(view(bools), planning.SAMPLED_RUNS)
        assert abs(measured - density) <= (0.05 if 0 < density < 1 else 0)
    for one in (floats, as_kind(floats, "bits")):
        measured = _conv.sampled_density(one, planning.SAMPLED_RUNS)
        assert abs(measured - density) <= (0.05 if 0 < density < 1 else 0)


def test_nothing_kept_stands_for_another_mask(isa):
    """The same call with masks of every kind, with none, and with other words, one after the other."""
    case = FEW_CASES[0]
    first, second, whole = prepared(case, NAME, 0.3)
    results = {"none": (None, whole)}
    for number, kind in enumerate(KINDS):
        floats = forward_input(case.x_shape, 0.5, number)
        results[kind] = (as_kind(floats, kind), times_mask(whole, floats))
    channels_last = nhwc_memory(results["bool"][0])
    results["bool, channels last"] = (channels_last, results["bool"][1])
    results["another bool"] = (~results["bool"][0], whole - results["bool"][1])
    for _ in range(2):
        for kind, (mask, expected) in results.items():
            for skip in SKIPS:
                if mask is not None or skip != "output":
                    assert_exact(call(sc, case, NAME, first, second, skip=skip, output_mask=mask), expected, kind)


@pytest.mark.parametrize("layout", LAYOUTS[2])
def test_empty_results(isa, layout):
    """Masks of nothing."""
    case = Case(17, 16, (4, 5), (3, 3), batch=0, padding=1, kind=LAYOUTS[2].index(layout))
    first, second, floats, expected = masked(case, 0.5)
    for kind in KINDS:
        for skip in SKIPS:
            actual = call(sc, case, NAME, first, second, skip=skip, output_mask=as_kind(floats, kind))
            assert_exact(actual, expected)
    empty = result_in_layout(case, NAME, np.zeros((2, 17, 4, 0), np.float32))
    nothing = result_in_layout(case, NAME, np.zeros((2, 16, 4, 0), np.float32))
    mask = np.zeros(empty.shape, bool)
    actual = sc.conv2d_backward_data(
        nothing, ones(16, 17, 1, 1), empty.shape, layout=layout, skip="output", output_mask=mask
    )
    assert_exact(actual, empty)
