"""backward_data with `output_mask`: zeros where the mask has them and, with skip="output", no work for them."""

from itertools import cycle

import numpy as np
import pytest
from cases import (
    CASES,
    FEW_CASES,
    LAYOUTS,
    SPARSITIES,
    TRANSPOSED_CASES,
    Case,
    assert_not_vacuous,
    call,
    cases,
    in_layout,
    operands,
    oracle,
    prepared,
    result_in_layout,
    sparse_floats,
    sparse_ints,
    to_layout,
)
from comparisons import assert_exact, assert_same_bits, assert_within_bound
from hypothesis import given, settings
from hypothesis import strategies as st
from output_masks import (
    BLOCK_CASES,
    DENSITIES,
    KINDS,
    NAME,
    SKIPS,
    as_kind,
    assert_masked,
    forward_input,
    masked,
    times_mask,
)
from plans import Planner, dense_kernels

import sparseconv as sc
from sparseconv import reference

# No kernel multiplies padding here, whatever the weights are.
UNPADDED = (
    Case(17, 33, (5, 14), (3, 3)),
    Case(70, 48, (4, 7), (1, 1), kind=1),
    Case(16, 64, (9, 11), (2, 2), stride=2, kind=1),
    Case(33, 17, (4, 5), (1, 1), transposed=True),
)


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


@pytest.mark.parametrize("kind", range(3))
def test_weights_are_packed_ahead(isa, kind):
    """Several lane blocks of several channel blocks, which lie side by side then."""
    case = Case(72, 300, (14, 14), (1, 1), batch=2, kind=kind)
    first, second, floats, expected = masked(case, 0.4)
    options = {"skip": "output", "output_mask": floats, "num_threads": 2}  # one thread has one chunk
    blocking = call(Planner(), case, NAME, first, second, **options).blocking
    assert blocking["pack_ahead"] and blocking["lane_vectors"] < 5 and blocking["channel_block"] < 300
    assert_exact(call(sc, case, NAME, first, second, **options), expected)


def test_results_beyond_the_caches(isa):
    """Results of more than 8 MB go past the caches where whole vectors are aligned."""
    for channels, groups in ((64, 1), (72, 1), (64, 2)):
        case = Case(channels, 2, (128, 264), (1, 1), batch=1, groups=groups, kind=1)
        first, second, floats, expected = masked(case, 0.5)
        for skip in ("output", "none", "grad_output"):
            plan = sc.plan(
                "conv2d_backward_data", first, second, expected.shape, groups=groups, layout="NHWC", skip=skip,
                output_mask=floats,
            )  # fmt: skip
            assert plan.blocking["stream"] == (plan.kernel != "rows_tiles")
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
        nothing, np.ones((16, 17, 1, 1), np.float32), empty.shape, layout=layout, skip="output", output_mask=mask
    )
    assert_exact(actual, empty)


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


@pytest.mark.parametrize("layout_kind", [0, 1])
@pytest.mark.parametrize("place", [(0, 0, 0, 0), (-1, -1, -1, -1), (-1, 0, 2, 0), (0, -1, 0, -1)], ids=str)
def test_one_weight_that_is_not_finite(isa, place, layout_kind):
    """Wherever it stands: a single one among the first or the last of a tile is noticed, too."""
    case = Case(40, 16, (5, 6), (3, 2), kind=layout_kind)  # the first and the last column meet one tap
    first, second = operands(case, NAME, 0.0)
    second = second.copy()
    for value in (np.inf, np.nan):
        second[place] = value
        check_not_finite(case, first, second, [("output", kind) for kind in KINDS])


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


# --- plans ---


def plan_of(grad_sparsity, density, kind="float", **options):
    grad_output, weight = sparse_floats((2, 64, 20, 20), grad_sparsity, 1), np.ones((64, 64, 3, 3), np.float32)
    mask = as_kind(forward_input((2, 64, 20, 20), density, 1), kind)
    return sc.plan(
        "conv2d_backward_data", grad_output, weight, grad_output.shape, padding=1, output_mask=mask, **options
    )


@pytest.mark.parametrize("kind", KINDS)
def test_auto_takes_the_fastest(isa, vendor, kind):
    """How much faster depends on what a load costs beside a multiply-add, which the vendor tells, and on AMX."""
    speedups = []
    for density in (0.0, 0.1, 0.3):
        plan = plan_of(0.0, density, kind)
        speedups.append(plan.speedup)
        if density == 0.3 and plan.kernel == "rows_tiles":
            continue
        assert (plan.kernel, plan.skip) == ("rows_output", "output")
        assert plan.density.keys() == {"grad_output", "output"}
        assert abs(plan.density["output"] - density) < 0.05
        assert plan.density["grad_output"] == 1
        assert "output" in plan.reason
    assert speedups == sorted(speedups, reverse=True)
    assert speedups[1] > 1.5
    assert speedups[2] > 1.1 or isa.startswith("amx")
    dense = plan_of(0.0, 1.0, kind)
    assert (dense.skip, dense.density["output"]) == ("none", 1)
    assert dense.kernel in dense_kernels(isa)
    sparse = plan_of(0.95, 0.5, kind)
    assert (sparse.kernel, sparse.skip) == ("rows_skip", "grad_output")
    assert plan_of(0.5, 0.05, kind).skip == "output"


def test_what_is_asked_for_is_planned(isa, vendor):
    kernels = {"none": dense_kernels(isa), "grad_output": {"rows_skip"}, "output": {"rows_output"}}
    for skip, expected in kernels.items():
        plan = plan_of(0.5, 0.5, skip=skip)
        assert plan.skip == skip
        assert plan.kernel in expected
        assert plan.density.keys() == ({skip} - {"none"})
    assert plan_of(0.5, 0.5, skip="output").scratch_bytes > 0
