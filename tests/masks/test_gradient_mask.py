"""backward_weight with output_mask, on every instruction set: the gradient where the mask is, zeros elsewhere.

One file: one option, on every kernel that knows it.
"""

import numpy as np
import pytest
from amx_emulated import needs_compiler
from cases import (
    CASES,
    FEW_CASES,
    SKIPS,
    TRANSPOSED_CASES,
    Case,
    assert_not_vacuous,
    call,
    cases,
    in_layout,
    operands,
    oracle,
    prepared,
    sparse_floats,
    sparse_ints,
    to_layout,
)
from comparisons import assert_exact, assert_same_bits
from hypothesis import given
from hypothesis import strategies as st
from plans import Planner
from task_structs import forget_plans

import sparseconv as sc
from sparseconv import masks, reference
from sparseconv._core import gradient, processor

# Several lane blocks, channel blocks, words of channels; groups; every role, dense and skipping.
BIG_CASES = (
    Case(200, 150, (5, 6), (3, 3), padding=1, kind=1),
    Case(72, 300, (6, 9), (3, 3), padding=1, stride=2),
    Case(330, 140, (5, 5), (1, 1), kind=1),
    Case(160, 192, (4, 7), (3, 2), groups=2, padding=1, kind=2),
)


def filters(rng, shape):
    return at(shape, rng.random((shape[0], 1)) < 0.4)


def in_channels(rng, shape):
    return at(shape, rng.random((1, shape[1])) < 0.4)


def slices(rng, shape):
    return at(shape, rng.random(shape[:2]) < 0.05)


def channel_blocks(rng, shape):
    blocks = rng.random((-(-shape[0] // 16), -(-shape[1] // 16))) < 0.4
    return at(shape, np.kron(blocks, np.ones((16, 16), bool))[: shape[0], : shape[1]])


def bands(rng, shape):
    """Every other 64 channels of both sides: whole words are left out between others."""
    out_channels, in_channels = (np.arange(count) // 64 % 2 == 0 for count in shape[:2])
    return at(shape, out_channels[:, None] & in_channels)


def two_of_four(rng, shape):
    place = rng.integers(0, 2, (-(-shape[0] * shape[1] // 4), 2))
    chosen = np.stack([place, 1 - place], axis=2).reshape(-1)[: shape[0] * shape[1]]
    return at(shape, chosen.reshape(shape[:2]) > 0)


def taps(rng, shape):
    return np.broadcast_to(rng.random(shape[2:]) < 0.5, shape)


def scattered(rng, shape):
    return rng.random(shape) < 0.1


def last(rng, shape):
    """The last element alone: nothing of the first lane blocks."""
    mask = np.zeros(shape, bool)
    mask.flat[-1] = True
    return mask


def everything(rng, shape):
    return np.ones(shape, bool)


def nothing(rng, shape):
    return np.zeros(shape, bool)


KINDS = (filters, in_channels, slices, channel_blocks, bands, two_of_four, taps, scattered, last, everything, nothing)


def at(shape, pairs):
    """All taps of the chosen (out channel, in channel) pairs."""
    return np.broadcast_to(pairs.reshape(*pairs.shape, *[1] * (len(shape) - 2)), shape)


def mask_of(kind, shape, seed=0):
    return np.ascontiguousarray(kind(np.random.default_rng((seed, KINDS.index(kind))), shape))


def check_exact(case, kinds=KINDS, skips=SKIPS["backward_weight"], **more):
    """Small integers: the masked bits of the oracle; nothing is left of what `out` held."""
    for sparsity in (0.3, 0.9):
        first, second, expected = prepared(case, "backward_weight", sparsity)
        for kind in kinds:
            mask = mask_of(kind, case.weight_shape)
            for skip in skips:
                out = np.full(expected.shape, np.nan, np.float32)
                call(sc, case, "backward_weight", first, second, skip=skip, output_mask=mask, out=out, **more)
                assert_exact(out, np.where(mask, expected, 0), f"sparsity={sparsity} {kind.__name__} skip={skip!r}")


# --- exactness ---


@pytest.mark.parametrize("case", [*FEW_CASES, *TRANSPOSED_CASES[::5], *BIG_CASES], ids=str)
def test_exact(isa, case):
    check_exact(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_case(isa, case):
    check_exact(case, kinds=(slices,))


@given(
    case=cases(), kind=st.sampled_from(KINDS), skip=st.sampled_from(SKIPS["backward_weight"]), seed=st.integers(0, 99)
)
def test_any_geometry(isa, case, kind, skip, seed):
    first, second = operands(case, "backward_weight", 0.5, seed)
    mask = mask_of(kind, case.weight_shape, seed)
    expected = np.where(mask, oracle(case, "backward_weight", first, second), 0)
    first, second = in_layout(case, "backward_weight", first, second)
    assert_exact(call(sc, case, "backward_weight", first, second, skip=skip, output_mask=mask), expected)


def test_cases_see_what_is_skipped():
    """The masks of the tests let pass and leave out results that are not zero."""
    for case in BIG_CASES:
        expected = prepared(case, "backward_weight", 0.3)[2]
        for kind in (filters, in_channels, slices, channel_blocks, scattered):
            mask = mask_of(kind, case.weight_shape)
            assert_not_vacuous(expected[mask])
            assert_not_vacuous(expected[~mask])


@needs_compiler
@pytest.mark.parametrize("case", [*FEW_CASES, *TRANSPOSED_CASES[::7], *BIG_CASES], ids=str)
def test_exact_on_tile_registers(built, case):
    """The same of the AMX kernels, emulated, with poisoned scratch memory."""
    before = len(built.calls)
    with built.active():
        for threads in (1, 8):  # several lane blocks in an item, or one
            kinds = (filters, in_channels, channel_blocks, scattered, last, nothing)
            check_exact(case, kinds, skips=("none",), num_threads=threads)
    assert len(built.calls) > before


@needs_compiler
def test_tile_products_that_nobody_needs_are_left_out(built):
    case = BIG_CASES[0]
    first, second, _ = prepared(case, "backward_weight", 0.3)
    products = []
    with built.active():
        for share in (1.0, 0.5, 0.0):
            mask = np.arange(case.out_c)[:, None, None, None] < share * case.out_c
            mask = np.ascontiguousarray(np.broadcast_to(mask, case.weight_shape))
            before = built.counter("products")
            call(sc, case, "backward_weight", first, second, skip="none", output_mask=mask)
            products.append(built.counter("products") - before)
    assert products[0] > 0
    assert products[1] < 0.75 * products[0]
    assert products[2] == 0


@needs_compiler
def test_what_tiles_leave_to_vectors_is_masked(built):
    """Infinities are repaired by the vector kernel, which must keep to the mask too."""
    case = BIG_CASES[0]
    x, grads = operands(case, "backward_weight", 0.0)
    x[0, ::7, 2, 3] = np.inf
    mask = mask_of(slices, case.weight_shape)
    expected = np.where(mask, oracle(case, "backward_weight", x, grads), 0)
    x, grads = in_layout(case, "backward_weight", x, grads)
    with built.active():
        actual = call(sc, case, "backward_weight", x, grads, skip="none", output_mask=mask)
    np.testing.assert_array_equal(actual, expected)
    assert np.isinf(actual).any()


# --- bits ---


@pytest.mark.parametrize("case", BIG_CASES, ids=str)
def test_needed_elements_have_the_bits_of_the_same_kernel(isa, case):
    """What is left out changes no sum. (A mask may change which kernel "none" and "auto" take.)"""
    for sparsity in (0.5, 0.92):
        first, second = operands(case, "backward_weight", sparsity, 3, sparse_floats)
        first, second = in_layout(case, "backward_weight", first, second)
        for kind, skips in ((slices, ("input", "grad_output")), (filters, ("input", "grad_output")), (taps, ("none",))):
            mask = mask_of(kind, case.weight_shape)
            for skip in skips:
                plain = call(sc, case, "backward_weight", first, second, skip=skip)
                masked = call(sc, case, "backward_weight", first, second, skip=skip, output_mask=mask)
                assert_same_bits(masked, np.where(mask, plain, np.float32(0)), f"{kind.__name__} skip={skip!r}")


@pytest.mark.parametrize("case", [*BIG_CASES, Case(70, 140, (13, 17), (3, 3), batch=3, padding=1, kind=1)], ids=str)
def test_needed_elements_have_the_bits_of_more_lanes(isa, case, monkeypatch):
    """The dense kernel takes one vector of lanes where masks are of small blocks; sums end where they always do."""
    first, second = operands(case, "backward_weight", 0.0, 3, sparse_floats)
    first, second = in_layout(case, "backward_weight", first, second)
    plain = call(sc, case, "backward_weight", first, second, skip="none")
    mask = mask_of(channel_blocks, case.weight_shape)
    # Each role costs what it costs without a mask, and one vector of lanes half of that.
    monkeypatch.setattr(gradient, "needed_share", lambda kernel, pairs: 1.0)
    monkeypatch.setattr(processor, "one_vector_cost", lambda: 0.5)
    forget_plans()
    plan = call(Planner(), case, "backward_weight", first, second, skip="none", output_mask=mask)
    if plan.kernel != "gradient_dense":
        pytest.skip("tile registers have blocks of their own")
    assert plan.blocking["lane_vectors"] == 1
    masked = call(sc, case, "backward_weight", first, second, skip="none", output_mask=mask)
    forget_plans()
    assert_same_bits(masked, np.where(mask, plain, np.float32(0)))


@pytest.mark.parametrize("case", BIG_CASES, ids=str)
def test_same_bits_for_any_number_of_threads(isa, case):
    first, second = operands(case, "backward_weight", 0.7, 4, sparse_floats)
    first, second = in_layout(case, "backward_weight", first, second)
    for kind in (filters, slices, channel_blocks):
        mask = mask_of(kind, case.weight_shape)
        for skip in SKIPS["backward_weight"]:
            options = {"skip": skip, "output_mask": mask}
            serial = call(sc, case, "backward_weight", first, second, num_threads=1, **options)
            for threads in (2, 3, 8):
                again = call(sc, case, "backward_weight", first, second, num_threads=threads, **options)
                assert_same_bits(again, serial, f"{kind.__name__} skip={skip!r} threads={threads}")


@pytest.mark.parametrize("bad", [np.nan, np.inf], ids=str)
def test_zeros_are_zeros(isa, bad):
    """Where the mask is zero the result is, whatever the operands; +0.0, also where products would be negative."""
    x, grads = sparse_ints((2, 40, 6, 7), 0.0, 1), -np.abs(sparse_ints((2, 33, 6, 7), 0.0, 2))
    x[0, ::3, 2, 3] = grads[1, 5, 1, 1] = bad
    mask = mask_of(scattered, (33, 40, 3, 3))
    for skip in SKIPS["backward_weight"]:
        result = sc.conv2d_backward_weight(x, grads, 3, padding=1, skip=skip, output_mask=mask)
        assert_same_bits(result[~mask], np.zeros(np.count_nonzero(~mask), np.float32), f"skip={skip!r}")
        assert not np.isfinite(result[mask]).all()


# --- what a mask may be ---


def with_bits_behind(mask):
    """The bit mask with all bits set that belong to no element."""
    bits = masks.pack(mask)
    bits[-1] |= 0xFF << mask.size % 8 & 0xFF if mask.size % 8 else 0
    return bits


def forms(mask):
    """The same mask in every form."""
    yield mask
    yield np.where(mask, np.float32(-0.5), np.float32(-0.0))
    yield np.where(mask, np.float32(np.nan), np.float32(1e-40))
    yield masks.pack(mask)
    yield with_bits_behind(mask)
    yield np.asfortranarray(mask)
    yield np.stack([mask, ~mask], axis=-1)[..., 0]
    yield np.repeat(masks.pack(mask), 2)[::2]
    yield memoryview(mask)


def test_forms(isa):
    x, grads = sparse_ints((2, 21, 6, 7), 0.5, 1), sparse_ints((2, 19, 6, 7), 0.0, 2)
    mask = mask_of(slices, (19, 21, 3, 3)) | mask_of(scattered, (19, 21, 3, 3))
    expected = np.where(mask, reference.conv2d_backward_weight(x, grads, 3, padding=1), 0)
    assert_not_vacuous(expected[mask])
    for number, form in enumerate(forms(mask)):
        before = np.array(form)
        actual = sc.conv2d_backward_weight(x, grads, 3, padding=1, output_mask=form)
        assert_exact(actual, expected, f"form {number}")
        np.testing.assert_array_equal(np.array(form), before)


def test_torch_masks():
    torch = pytest.importorskip("torch")
    x, grads = sparse_ints((2, 21, 6, 7), 0.5, 1), sparse_ints((2, 19, 6, 7), 0.0, 2)
    mask = mask_of(slices, (19, 21, 3, 3))
    expected = sc.conv2d_backward_weight(x, grads, 3, padding=1, output_mask=mask)
    for form in (torch.from_numpy(mask), torch.from_numpy(mask).float(), torch.from_numpy(masks.pack(mask))):
        assert_exact(sc.conv2d_backward_weight(x, grads, 3, padding=1, output_mask=form), expected)


def test_results_of_any_strides(isa):
    x, grads = sparse_ints((2, 40, 6, 7), 0.5, 1), sparse_ints((2, 33, 6, 7), 0.0, 2)
    mask = mask_of(scattered, (33, 40, 3, 3))
    expected = np.where(mask, reference.conv2d_backward_weight(x, grads, 3, padding=1), 0)
    for skip in SKIPS["backward_weight"]:
        room = np.full((66, 3, 40, 6), np.nan, np.float32)
        for out in (
            np.full((33, 3, 3, 40), np.nan, np.float32).transpose(0, 3, 1, 2),
            np.full((40, 3, 3, 33), np.nan, np.float32).transpose(3, 0, 1, 2),
            room[::2, :, :, ::2].transpose(0, 2, 1, 3),
        ):
            sc.conv2d_backward_weight(x, grads, 3, padding=1, skip=skip, output_mask=mask, out=out)
            assert_exact(out, expected, f"skip={skip!r} strides={out.strides}")
        assert np.isnan(room[1::2]).all()
        assert np.isnan(room[..., 1::2]).all()


@pytest.mark.parametrize("kernel, size, padding", [((3, 1), (1, 14), (1, 0)), ((5, 2), (2, 9), (2, 0))])
def test_taps_that_meet_nothing(isa, kernel, size, padding):
    """The first ones of the kernel, where taps are the outer axes of `out`."""
    case = Case(40, 33, size, kernel, padding=padding)
    first, second, expected = prepared(case, "backward_weight", 0.3)
    mask = np.random.default_rng(0).random(expected.shape) < 0.5
    for order in ((0, 1, 2, 3), (2, 3, 0, 1), (2, 0, 1, 3), (2, 1, 0, 3)):
        memory = np.full([expected.shape[axis] for axis in order], -7777, np.float32)
        out = memory.transpose(np.argsort(order))
        call(sc, case, "backward_weight", first, second, output_mask=mask, out=out)
        assert_exact(out, np.where(mask, expected, 0), f"{order}")


def test_linear(isa):
    x, grads = sparse_ints((3, 9, 70), 0.5, 1), sparse_ints((3, 9, 90), 0.3, 2)
    expected = reference.linear_backward_weight(x, grads)
    for kind in (filters, in_channels, scattered, nothing):
        mask = mask_of(kind, (90, 70))
        for skip in SKIPS["backward_weight"]:
            for form in (mask, masks.pack(mask)):
                actual = sc.linear_backward_weight(x, grads, skip=skip, output_mask=form)
                assert_exact(actual, np.where(mask, expected, 0), f"{kind.__name__} skip={skip!r}")


@pytest.mark.parametrize("case", [*FEW_CASES[::2], *TRANSPOSED_CASES[::9]], ids=str)
def test_float64_and_the_oracle(case):
    first, second = (array.astype(np.float64) for array in operands(case, "backward_weight", 0.3))
    expected = oracle(case, "backward_weight", first, second)
    mask = mask_of(scattered, case.weight_shape)
    first[first == first.max(initial=0)] = np.inf
    for form in (mask, mask.astype(np.float64), masks.pack(mask)):
        for result in (
            oracle(case, "backward_weight", first, second, output_mask=form),
            call(sc, case, "backward_weight", *in_layout(case, "backward_weight", first, second), output_mask=form),
        ):
            assert result.dtype == np.float64
            assert (result[~mask] == 0).all()
    first, second = (array.astype(np.float64) for array in operands(case, "backward_weight", 0.3))
    result = call(sc, case, "backward_weight", *in_layout(case, "backward_weight", first, second), output_mask=mask)
    assert_exact(result, np.where(mask, expected, 0))


def test_empty_batch():
    out = np.full((5, 3, 3, 3), np.nan, np.float32)
    x, grads = np.zeros((0, 3, 4, 4), np.float32), np.zeros((0, 5, 2, 2), np.float32)
    sc.conv2d_backward_weight(x, grads, 3, output_mask=np.ones(out.shape, bool), out=out)
    assert_exact(out, np.zeros_like(out))


# --- what it may not be ---

SHAPE = (6, 4, 3, 3)
BAD = {
    "shape": (np.ones((6, 4, 3), bool), ValueError, r"got shape \(6, 4, 3\), expected \(6, 4, 3, 3\)"),
    "transposed": (np.ones((4, 6, 3, 3), bool), ValueError, r"got shape \(4, 6, 3, 3\), expected \(6, 4, 3, 3\)"),
    "broadcast": (np.ones((6, 1, 1, 1), bool), ValueError, r"got shape \(6, 1, 1, 1\)"),
    "short bits": (np.ones(26, np.uint8), ValueError, r"got shape \(26,\), expected a bit mask of shape \(27,\)"),
    "long bits": (np.ones(28, np.uint8), ValueError, r"got shape \(28,\), expected a bit mask of shape \(27,\)"),
    "bytes": (np.ones(SHAPE, np.uint8), ValueError, r"got shape \(6, 4, 3, 3\), expected a bit mask of shape \(27,\)"),
    "int32": (np.ones(SHAPE, np.int32), TypeError, "got dtype int32, expected float32"),
    "float16": (np.ones(SHAPE, np.float16), TypeError, "got dtype float16, expected float32"),
    "complex": (np.ones(SHAPE, np.complex64), TypeError, "got dtype complex64, expected float32"),
    "list": (np.ones(SHAPE, bool).tolist(), TypeError, "got list, expected an array"),
    "true": (True, TypeError, "got bool, expected an array"),
    "masked": (np.ma.ones(SHAPE, bool), TypeError, "got a masked array"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_mask(kind):
    mask, error, message = BAD[kind]
    x, grads, out = np.ones((2, 4, 5, 6), np.float32), np.ones((2, 6, 3, 4), np.float32), np.full(SHAPE, 7, np.float32)
    for dtype in (np.float32, np.float64):
        x, grads, out = x.astype(dtype), grads.astype(dtype), out.astype(dtype)
        for call_it in (sc.conv2d_backward_weight, lambda *a, **k: sc.plan("conv2d_backward_weight", *a, **k)):
            for _ in range(2):
                with pytest.raises(error, match=rf"^output_mask: {message}"):
                    call_it(x, grads, 3, output_mask=mask, out=out)
            call_it(x, grads, 3)
    assert (out == 7).all()


def test_out_is_not_the_mask():
    x, grads = np.ones((2, 4, 5, 6), np.float32), np.ones((2, 6, 3, 4), np.float32)
    memory = np.ones(4 * np.prod(SHAPE), np.uint8).view(bool)
    mask, out = memory[: np.prod(SHAPE)].reshape(SHAPE), memory.view(np.float32).reshape(SHAPE)
    for wrong in (mask, out):
        with pytest.raises(ValueError, match=r"^out: got an array that overlaps output_mask"):
            sc.conv2d_backward_weight(x, grads, 3, output_mask=wrong, out=out)


def test_a_mask_of_the_other_float():
    x, grads = np.ones((2, 4, 5, 6), np.float32), np.ones((2, 6, 3, 4), np.float32)
    for dtype, other in ((np.float32, np.float64), (np.float64, np.float32)):
        with pytest.raises(TypeError, match=rf"^output_mask: got dtype {np.dtype(other)}, expected {np.dtype(dtype)}"):
            sc.conv2d_backward_weight(x.astype(dtype), grads.astype(dtype), 3, output_mask=np.ones(SHAPE, other))


# --- what a plan says ---


def test_plan_takes_the_operand_whose_channels_go(isa):
    """Dense kernels: pruned filters are left out as scalars of grad_output, pruned input channels as those of x."""
    x, grads = np.ones((2, 14, 14, 96), np.float32), np.ones((2, 14, 14, 96), np.float32)
    options = {"padding": 1, "layout": "NHWC"}
    for kind in (filters, in_channels):
        mask = mask_of(kind, (96, 96, 3, 3))
        plan = sc.plan("conv2d_backward_weight", x, grads, 3, output_mask=mask, **options)
        assert plan.skip == "none"
        assert f"output_mask needs {mask.mean():.2f} of the sums" in plan.reason
        for name, other in (("conv2d", "NHWC"), ("conv_transpose2d", "NHWC")):
            actual = getattr(sc, f"{name}_backward_weight")(x, grads, 3, padding=1, layout=other, output_mask=mask)
            assert_exact(
                actual,
                getattr(reference, f"{name}_backward_weight")(x, grads, 3, padding=1, layout=other, output_mask=mask),
            )
    whole = sc.plan("conv2d_backward_weight", x, grads, 3, output_mask=np.ones((96, 96, 3, 3), bool), **options)
    assert "output_mask needs 1.00 of the sums" in whole.reason
    assert "output_mask" not in sc.plan("conv2d_backward_weight", x, grads, 3, **options).reason


def test_masks_of_small_blocks_take_fewer_lanes_together(isa, vendor):
    """Of 64 lanes nearly all need some of 16 x 16 blocks; a vector of 16 needs what the mask says."""
    x, grads = np.ones((2, 14, 14, 128), np.float32), np.ones((2, 14, 14, 128), np.float32)
    lanes = {}
    for width in (16, 64):
        blocks = np.random.default_rng(1).random((128 // width, 128 // width)) < 0.4
        mask = at((128, 128, 3, 3), np.kron(blocks, np.ones((width, width), bool)))
        plan = sc.plan("conv2d_backward_weight", x, grads, 3, padding=1, layout="NHWC", output_mask=mask)
        assert (plan.skip, plan.density) == ("none", {"input": 1, "grad_output": 1})
        assert f"output_mask needs {blocks.mean():.2f} of the sums" in plan.reason or plan.kernel == "gradient_tiles"
        lanes[width] = plan.blocking["lane_vectors"]
    unmasked = sc.plan("conv2d_backward_weight", x, grads, 3, padding=1, layout="NHWC")
    if unmasked.kernel == "gradient_dense":
        assert lanes == {16: 1, 64: unmasked.blocking["lane_vectors"]}


def test_a_mask_can_make_skipping_better(isa):
    """Zeros that are too few to skip alone are worth it if the mask leaves only the role that skips them."""
    x = to_layout(sparse_floats((2, 96, 14, 14), 0.6, 1), "NHWC")
    grads = to_layout(sparse_floats((2, 96, 14, 14), 0.5, 2), "NHWC")
    options = {"padding": 1, "layout": "NHWC"}
    assert sc.plan("conv2d_backward_weight", x, grads, 3, **options).skip == "input"
    plan = sc.plan("conv2d_backward_weight", x, grads, 3, output_mask=mask_of(filters, (96, 96, 3, 3)), **options)
    assert plan.skip == "grad_output"
    plan = sc.plan("conv2d_backward_weight", x, grads, 3, output_mask=mask_of(in_channels, (96, 96, 3, 3)), **options)
    assert plan.skip == "input"


def test_nothing_is_needed(isa):
    x, grads = sparse_ints((2, 64, 9, 9), 0.5, 1), sparse_ints((2, 64, 9, 9), 0.5, 2)
    plan = sc.plan("conv2d_backward_weight", x, grads, 3, padding=1, output_mask=np.zeros((64, 64, 3, 3), bool))
    assert "output_mask needs 0.00 of the sums" in plan.reason
    assert np.isfinite(plan.speedup)
