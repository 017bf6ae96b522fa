"""The AMX kernels, on emulated tile registers (tests/support/amx_emulated.py): nothing here says how fast they are.

With AMX-FP16: test_amx_fp16.py.
"""

import numpy as np
import pytest
from amx_emulated import emulation, needs_compiler
from cases import (
    CASES,
    FEW_CASES,
    PASSES,
    TRANSPOSED_CASES,
    call,
    in_layout,
    operands,
    oracle,
    prepared,
    sparse_floats,
    sparse_ints,
)
from comparisons import assert_exact, assert_same_bits, assert_within_bound
from task_structs import forget_plans
from tile_cases import BIG_CASES, active, error_of_torch, floats, on_tiles, special

import sparseconv as sc
from sparseconv import cpu
from sparseconv._core import _cpu
from sparseconv._core import amx as amx_blocks
from sparseconv._core.problem import Problem

pytestmark = needs_compiler

PRECISIONS = {"highest": 3, "high": 2, "medium": 1}


@pytest.fixture
def amx(built):
    """The package as on AMX: on one thread, with poisoned scratch memory; afterwards, that tiles were really used."""
    products = built.counter("products")
    with active(built):
        yield built
    assert built.counter("products") > products


@pytest.fixture
def amx_or_vectors(built):
    """The same where the tile kernels may leave all of the work to vectors."""
    with active(built):
        yield built


# --- the emulation itself ---


def test_known_product(built):
    """What decides at run time whether tile registers are to be trusted; a wrong product is seen."""
    assert built.library.emulated_works() == 1
    built.set("fault", 1)
    try:
        assert built.library.emulated_works() == 0
    finally:
        built.set("fault", 0)


def test_a_wrong_product_is_seen_by_these_tests(amx):
    first, second, expected = prepared(CASES[0], "forward", 0.0)
    amx.set("fault", 1)
    try:
        assert not np.array_equal(call(sc, CASES[0], "forward", first, second, skip="none"), expected)
    finally:
        amx.set("fault", 0)


def test_plans_use_tiles(amx):
    first, second, _ = prepared(FEW_CASES[0], "forward", 0.0)
    call(sc, FEW_CASES[0], "forward", first, second, skip="none")
    plan = sc.plan("conv2d", first, second, padding=1, skip="none")
    assert plan.isa == "amx"
    assert plan.kernel == "rows_tiles"
    assert plan.blocking["parts"] == 3
    assert "6 bf16 product" in plan.reason


# --- exactness ---


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("case", [*CASES, *TRANSPOSED_CASES, *BIG_CASES], ids=str)
def test_exact(built, case, name):
    """Small integers, every geometry and layout: the oracle's bits; no use of stale memory."""
    first, second, expected = prepared(case, name, 0.3)
    with built.active():
        actual = on_tiles(built, case, name, first, second)
    assert_exact(actual, expected)


VECTOR_ISAS = [name for name in cpu.available_isas() if name not in ("amx", "amx_fp16", "scalar")]


@pytest.mark.parametrize("vector_isa", VECTOR_ISAS[1:])
def test_exact_beside_other_vectors(tmp_path, vector_isa):
    """The tile kernels compile and work with any f32x16: continuous integration need not have AVX-512."""
    other = emulation(tmp_path, vector_isa=vector_isa)
    with other.active():
        for case in FEW_CASES:
            for name in PASSES:
                first, second, expected = prepared(case, name, 0.3)
                assert_exact(on_tiles(other, case, name, first, second), expected, f"{case} {name}")
                first = first.copy()
                first.flat[first.size // 2] = np.inf
                assert not np.isfinite(on_tiles(other, case, name, first, second)).all()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_integers_of_eight_bits_are_exact_with_any_precision(amx, precision):
    for name in PASSES:
        first, second, expected = prepared(FEW_CASES[0], name, 0.3)
        assert_exact(call(sc, FEW_CASES[0], name, first, second, skip="none", precision=precision), expected)
        assert amx.calls[-1][1]["parts"] == PRECISIONS[precision]


def test_bias_and_relu(amx):
    """Fused into the last store, whatever the layout of the result and the number of passes."""
    for case in (*FEW_CASES, *TRANSPOSED_CASES[:6]):
        first, second, _ = prepared(case, "forward", 0.3)
        bias = sparse_ints((case.out_c,), 0.0, 9)
        y = call(sc, case, "forward", first, second, bias=bias, activation="relu", skip="none")
        plain = operands(case, "forward", 0.3)
        assert_exact(y, oracle(case, "forward", *plain, bias=bias, activation="relu"))


def test_mask_of_the_result(amx):
    """Written by the last store, as by other kernels; where results are not whole vectors, afterwards."""
    for case in (FEW_CASES[1], FEW_CASES[2]):
        first, second, _ = prepared(case, "forward", 0.0)
        y, mask = call(sc, case, "forward", first, second, skip="none", activation="relu", return_mask=True)
        assert 0.2 < np.unpackbits(mask).mean() < 0.8
        assert_exact(mask, sc.masks.nonzero_mask(y))


@pytest.mark.parametrize("name", PASSES)
def test_thresholds_need_no_tiles(amx, name):
    """Tile kernels skip nothing, so a threshold is never theirs, however much faster they are."""
    case = FEW_CASES[2]
    first, second = operands(case, name, 0.0)
    call(sc, case, name, *in_layout(case, name, first, second))
    on_tiles = len(amx.calls)
    actual = call(sc, case, name, *in_layout(case, name, first, second), threshold=2)
    assert len(amx.calls) == on_tiles
    assert_exact(actual, oracle(case, name, np.where(np.abs(first) <= 2, np.float32(0), first), second))


@pytest.mark.parametrize("case", [*CASES[::4], *TRANSPOSED_CASES[::4], *BIG_CASES], ids=str)
def test_output_mask(built, case):
    """Results that are not needed are cleared, whatever the kind of the mask and the layouts."""
    first, second, whole = prepared(case, "backward_data", 0.3)
    needed = sparse_ints(whole.shape, 0.5, 4)
    masks = (needed, needed != 0, np.packbits(needed != 0, bitorder="little"))
    products = built.counter("products")
    with built.active():
        for mask in masks:
            actual = call(sc, case, "backward_data", first, second, skip="none", output_mask=mask)
            assert_exact(actual, whole * (needed != 0))
            assert not actual.view(np.uint32)[needed == 0].any()
    assert built.counter("products") > products or not case.batch


@pytest.mark.parametrize("which", [0, 1], ids=["first", "second"])
def test_output_mask_where_tiles_give_up(amx_or_vectors, which):
    """Results that are left to vectors, for infinities or NaN, are cleared too."""
    for case in (*FEW_CASES, BIG_CASES[1]):
        pair = [one.copy() for one in prepared(case, "backward_data", 0.0)[:2]]
        pair[which].flat[:: pair[which].size // 3 + 1] = np.inf, np.nan, -np.inf
        whole = call(sc, case, "backward_data", *pair, skip="none")
        needed = sparse_ints(whole.shape, 0.5, 4) != 0
        actual = call(sc, case, "backward_data", *pair, skip="none", output_mask=needed)
        assert not np.isfinite(whole[~needed]).all()
        assert_exact(actual, np.where(needed, whole, np.float32(0)))


def test_views_and_linear(amx):
    case = FEW_CASES[0]
    x, weight = operands(case, "forward", 0.3)
    room = np.full((2, 11, 29, 2 * case.in_c + 1), np.nan, np.float32)
    moved = room[:, 1::2, 1::2, ::2].transpose(0, 3, 1, 2)[:, : case.in_c]
    moved[...] = x
    around = np.full((2, 5, 14, 3 * case.out_c), np.float32(-7777))
    out = around[..., ::3].transpose(0, 3, 1, 2)
    sc.conv2d(moved, weight[:, :, ::-1], padding=1, skip="none", out=out)
    assert_exact(out.copy(), sc.reference.conv2d(x, weight[:, :, ::-1], padding=1))
    assert (around[..., 1::3] == -7777).all()
    assert (around[..., 2::3] == -7777).all()
    features, matrix = sparse_ints((90, 70), 0.3, 5), sparse_ints((37, 70), 0.0, 6)
    assert_exact(sc.linear(features, matrix, skip="none"), features @ matrix.T)
    grads = sparse_ints((90, 37), 0.3, 7)
    assert_exact(sc.linear_backward_data(grads, matrix, skip="none"), grads @ matrix)
    assert_exact(sc.linear_backward_weight(features, grads, skip="none"), grads.T @ features)


# --- accuracy ---


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("case", [BIG_CASES[0], BIG_CASES[2], BIG_CASES[3]], ids=str)
def test_as_accurate_as_float32(amx, case, name):
    """The largest error is no larger than that of PyTorch's float32 on the same data."""
    first, second, exact = floats(case, name)
    actual = call(sc, case, name, *in_layout(case, name, first, second), skip="none")
    actual = actual if name == "backward_weight" else np.moveaxis(actual, -1, 1)
    assert np.abs(actual - exact).max() / np.abs(exact).max() <= error_of_torch(case, name)


def test_order_of_sums_in_a_product(tmp_path):
    """Hardware that adds the products of a tile one after the other: exact on integers, and within float32's bound."""
    chained = emulation(tmp_path, "-DSC_CHAINED")
    for case in (*FEW_CASES, BIG_CASES[0]):
        for name in PASSES:
            first, second, expected = prepared(case, name, 0.3)
            wide = [one.astype(np.float64) for one in operands(case, name, 0.0, 0, sparse_floats)]
            arrays = in_layout(case, name, *(one.astype(np.float32) for one in wide))
            with chained.active():
                assert_exact(call(sc, case, name, first, second, skip="none"), expected)
                actual = call(sc, case, name, *arrays, skip="none")
            magnitude = oracle(case, name, *map(np.abs, wide))
            assert_within_bound(actual, oracle(case, name, *wide), magnitude, case.terms(name) + 2)
    assert chained.counter("products") > 1000


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_error_bound(built, case, name):
    """Any geometry, random floats: within the bound of float32 sums, plus what six of nine products leave out."""
    first, second = operands(case, name, 0.3, 0, sparse_floats)
    wide = first.astype(np.float64), second.astype(np.float64)
    magnitude = oracle(case, name, *map(np.abs, wide))
    with built.active():
        actual = on_tiles(built, case, name, *in_layout(case, name, first, second))
    assert_within_bound(actual, oracle(case, name, *wide), magnitude, case.terms(name) + 2)


def test_precision(amx):
    """Each step down gives away bits, and "highest" is the default."""
    case, errors = BIG_CASES[0], {}
    first, second, exact = floats(case, "forward")
    x, weight = in_layout(case, "forward", first, second)
    for precision in PRECISIONS:
        y = np.moveaxis(call(sc, case, "forward", x, weight, skip="none", precision=precision), -1, 1)
        errors[precision] = np.abs(y - exact).max() / np.abs(exact).max()
    assert errors["highest"] < 2e-6 < errors["high"] < 2e-5 < 1e-4 < errors["medium"] < 2e-2
    default = call(sc, case, "forward", x, weight, skip="none")
    assert_same_bits(default, call(sc, case, "forward", x, weight, skip="none", precision="highest"))


# --- the ends of the range ---


@pytest.mark.parametrize("which", [0, 1], ids=["first", "second"])
@pytest.mark.parametrize("values", [(np.inf,), (-np.inf, np.inf), (np.nan,), (3.4e38,)], ids=str)
@pytest.mark.parametrize("name", PASSES)
def test_infinity_nan_and_huge(amx_or_vectors, name, values, which):
    """What the dense vector kernels give, which is what IEEE says; all other results stay exact."""
    for case in (FEW_CASES[0], FEW_CASES[1], BIG_CASES[1]):
        pair = [one.copy() for one in operands(case, name, 0.0)]
        places = np.random.default_rng(1).choice(pair[which].size, len(values), replace=False)
        pair[which].flat[places] = values
        arrays = in_layout(case, name, *pair)
        actual = call(sc, case, name, *arrays, skip="none")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_cpu, "has_tiles", lambda: False)
            forget_plans()
            calls = len(amx_or_vectors.calls)
            expected = call(sc, case, name, *arrays, skip="none")
            assert len(amx_or_vectors.calls) == calls
        forget_plans()
        assert_exact(actual, expected)
        assert np.isnan(actual).any() or np.abs(actual).max() >= np.float32(3.4e38)


@pytest.mark.parametrize("name", PASSES)
def test_overflow_of_parts_alone(amx_or_vectors, name):
    """Products that fit although those of rounded-up parts do not."""
    case = FEW_CASES[1]
    first, second = operands(case, name, 0.0)
    first, second = np.zeros_like(first), np.zeros_like(second)
    first.flat[0] = second.flat[0] = large = np.float32(1.9999 * 2.0**63)
    actual = call(sc, case, name, *in_layout(case, name, first, second), skip="none")
    assert np.isfinite(actual).all()
    assert actual.max() == large * large


@pytest.mark.parametrize("scales", [(1e-33, 1.0), (1.0, 1e-36), (1e-20, 1e-14), (1e30, 1e-34), (4e-38, 2e4)], ids=str)
@pytest.mark.parametrize("name", PASSES)
def test_tiny_operands(amx_or_vectors, name, scales):
    """Parts that would be flushed do not cost accuracy: as good as with operands of size one."""
    case = FEW_CASES[0]
    first, second = (np.abs(one) + 0.5 for one in operands(case, name, 0.0, 0, sparse_floats))
    first, second = (np.float32(one * scale) for one, scale in zip((first, second), scales, strict=True))
    exact = oracle(case, name, first.astype(np.float64), second.astype(np.float64))
    actual = call(sc, case, name, *in_layout(case, name, first, second), skip="none")
    np.testing.assert_allclose(actual, exact, rtol=3e-6, atol=0)


def test_tiny_beside_large_stays_on_tiles(amx):
    """A few tiny values among others cost nothing: no result is made of them alone."""
    case = FEW_CASES[0]
    first, second = special(case, "forward", (1e-38, -1e-35, 1e-30))
    products = amx.counter("products")
    call(sc, case, "forward", *in_layout(case, "forward", first, second), skip="none")
    assert amx.counter("products") > products + 100


@pytest.mark.parametrize("name", PASSES)
def test_denormals_are_zeros(amx, name):
    case = FEW_CASES[0]
    first, second, expected = prepared(case, name, 0.3)
    denormal = np.where(first == 0, np.float32(1e-40), first)
    assert_exact(call(sc, case, name, denormal, second, skip="none"), expected)
    only = call(sc, case, name, np.full_like(first, 1e-40), second, skip="none")
    assert not only.any()


# --- threads, interrupts, memory ---


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("poison", [None, np.nan], ids=["finite", "one NaN"])
def test_threads_do_not_change_a_bit(built, name, poison):
    for case in BIG_CASES:
        first, second = operands(case, name, 0.0, 5, sparse_floats)
        if poison is not None:
            first.flat[first.size // 3] = poison
        arrays, results = in_layout(case, name, first, second), []
        for threads in (1, 2, 3, 7):
            with built.active():
                results.append(call(sc, case, name, *arrays, skip="none", num_threads=threads))
        for other in results[1:]:
            assert_same_bits(other, results[0], str(case))
        assert np.isnan(results[0]).any() == (poison is not None)


def test_interrupt(built):
    """A signal ends a call; the registers are released, and the next call is right."""
    case = BIG_CASES[0]
    for name in PASSES:
        first, second, expected = prepared(case, name, 0.3)
        with built.active():
            built.set("stop", 1)
            try:
                with pytest.raises(KeyboardInterrupt):
                    call(sc, case, name, first, second, skip="none")
            finally:
                built.set("stop", 0)
            assert built.counter("users") == 0
            assert_exact(call(sc, case, name, first, second, skip="none"), expected)


def test_scratch_memory(built):
    """A few MB per thread; weights are split ahead only where that is little beside the operands."""
    for channels, size in ((64, 56), (128, 28), (256, 14), (512, 7), (256, 56)):
        x, w = np.zeros((16, size, size, channels), np.float32), np.zeros((channels, channels, 3, 3), np.float32)
        with built.active(always=False):
            for plan in (
                sc.plan("conv2d", x, w, padding=1, layout="NHWC", skip="none", num_threads=1),
                sc.plan("conv2d_backward_weight", x, x, 3, padding=1, layout="NHWC", skip="none", num_threads=1),
            ):
                if size > 7:
                    assert plan.kernel.endswith("_tiles")
                assert plan.scratch_bytes < 8e6 + 0.15 * (2 * x.nbytes + w.nbytes), plan


# --- planning ---


def test_auto_takes_the_better(built):
    """The tiles are the dense kernel that skipping is compared with, if they gain."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((64, 64, 3, 3), np.float32)
    kernels = {}
    with built.active(always=False):
        for zeros in (0.0, 0.3, 0.5, 0.95):
            x = sparse_floats((2, 64, 28, 28), zeros, 1)
            kernels[zeros] = sc.plan("conv2d", x, w, padding=1).kernel
            if zeros == 0.3:
                assert "tile registers" in sc.plan("conv2d", x, w, padding=1).reason
        few = sc.plan("conv2d", x[:, :3], w[:, :3], padding=1, skip="none").kernel
        high = sc.plan("conv2d", sparse_floats((2, 64, 28, 28), 0.5, 1), w, padding=1, precision="high").kernel
    assert kernels[0.0] == kernels[0.3] == "rows_tiles"
    assert kernels[0.95] == "rows_skip"
    assert few == "rows_dense"  # 3 channels of 32
    assert high == "rows_tiles"


@pytest.mark.parametrize("columns, gain", [(56, 1.7), (28, 1.86)])
def test_gains_are_those_that_were_measured(columns, gain):
    """3x3 layers on Granite Rapids: what fills tiles, and is no padding, makes the difference between them."""
    assert rows_gain(64, 64, columns, 3) == pytest.approx(gain, rel=0.1)


@pytest.mark.parametrize("columns, gain", [(14, 1.63), (7, 2.1)])
def test_gains_of_small_maps_are_a_prototype_s(columns, gain):
    """16 images fill tiles however short rows are: at least what was measured is not promised twice."""
    assert 0.85 * gain < rows_gain(256, 256, columns, 3) < 1.15 * gain


@pytest.mark.parametrize(
    "layer, gain",
    [
        ((256, 64, 56), 0.94), ((64, 256, 56), 1.3), ((512, 128, 28), 1.24), ((128, 512, 28), 1.71),
        ((1024, 256, 14), 1.45), ((256, 1024, 14), 1.51),
    ],
)  # fmt: skip
def test_gains_of_one_tap_are_a_prototype_s(layer, gain):
    assert rows_gain(*layer, 1) == pytest.approx(gain / 1.03, rel=0.15)


def rows_gain(channels, lanes, columns, kernel):
    size, padding = (columns,) * 2, (kernel // 2,) * 2
    layer = Problem(16, 1, channels, lanes, size, size, (kernel,) * 2, (1, 1), padding, (1, 1))
    return amx_blocks.rows_gain(layer, False, "highest")


def test_one_tap_of_few_lanes_is_left_to_vectors(built):
    """Splitting a pixel pays where many lanes use it. backward_weight has no other order: vectors do it."""
    x, w = np.ones((4, 256, 28, 28), np.float32), np.ones((64, 256, 1, 1), np.float32)
    with built.active(always=False):
        kernels = {
            precision: (
                sc.plan("conv2d", x, w, skip="none", precision=precision).kernel,
                sc.plan("conv2d_backward_data", x[:, :64], w, x.shape, skip="none", precision=precision).kernel,
                sc.plan("conv2d_backward_weight", x, x[:, :64], 1, skip="none", precision=precision).kernel,
            )
            for precision in ("highest", "medium")
        }
    assert kernels["highest"] == ("rows_dense", "rows_tiles", "gradient_dense")
    assert kernels["medium"] == ("rows_tiles", "rows_tiles", "gradient_tiles")


def test_sizes_agree(built):
    """How many channels a tile product sums, which block sizes are made of."""
    assert amx_blocks.SUMMED == 2 * amx_blocks.TILE == built.library.emulated_summed()
