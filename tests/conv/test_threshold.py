"""`threshold=`: magnitudes of up to it count as zeros of the skipped operand, as if they had been set to zero."""

import numpy as np
import pytest
from cases import (
    FEW_CASES,
    LAYOUTS,
    PASSES,
    SKIPS,
    TRANSPOSED_CASES,
    Case,
    call,
    in_layout,
    operands,
    oracle,
    sparse_floats,
    sparse_ints,
    to_layout,
)
from comparisons import UNIT, assert_exact, assert_same_bits

import sparseconv as sc
from sparseconv import reference
from sparseconv._core.call import _kept

CASES = (
    *FEW_CASES,
    *TRANSPOSED_CASES[:4],
    Case(80, 48, (9, 17), (3, 3), padding=1, kind=1),  # whole words of 64 channels, and what is left
    Case(130, 64, (5, 9), (1, 1)),
    Case(72, 40, (6, 7), (1, 1), stride=2, kind=1),
)
SKIPPING = [(name, skip) for name in PASSES for skip in SKIPS[name] if skip != "none"]
MEANT = {"forward": "input", "backward_data": "grad_output", "backward_weight": "input"}  # by "auto"
X, W, GRAD = sparse_ints((2, 16, 6, 6), 0, 1), sparse_ints((16, 16, 3, 3), 0, 2), sparse_ints((2, 16, 4, 4), 0, 3)
CALLS = {
    "conv2d": (X, W),
    "conv2d_backward_data": (GRAD, W, X.shape),
    "conv2d_backward_weight": (X, GRAD, 3),
    "conv_transpose2d": (GRAD, W),
    "conv_transpose2d_backward_data": (X, W, GRAD.shape),
    "conv_transpose2d_backward_weight": (GRAD, X, 3),
    "linear": (X[0, 0], W[:5, 0, 0].repeat(2, 1)),
    "linear_backward_data": (X[0, 0], W[:6, 0, 0]),
    "linear_backward_weight": (X[0, 0], X[1, 0]),
}


def thresholded(array, threshold):
    """The array with zeros in the place of magnitudes of up to `threshold`; NaN stays."""
    return np.where(np.abs(array) <= array.dtype.type(threshold), array.dtype.type(0), array)


def place(name, skip):
    """Which operand of a pass `skip` means."""
    return int(skip == "weight" or (name, skip) == ("backward_weight", "grad_output"))


def small_are_zero(name, skip, arrays, threshold):
    """The operands of a pass, `threshold` applied to the one that `skip` means."""
    index = place(name, skip)
    return [thresholded(array, threshold) if i == index else array for i, array in enumerate(arrays)]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("name, skip", SKIPPING)
def test_equal_to_thresholding_first(isa, case, name, skip):
    """On integers, so that elements are equal to the threshold, just above it and just below it."""
    arrays = operands(case, name, 0.3)
    every = oracle(case, name, *arrays)
    for threshold in (0.5, 1, 2.0, np.float32(3), 4):
        expected = oracle(case, name, *small_are_zero(name, skip, arrays, threshold))
        assert (expected != every).any() == (threshold >= 1), "the threshold must matter"
        assert expected.any() == (threshold < 4)
        actual = call(sc, case, name, *in_layout(case, name, *arrays), skip=skip, threshold=threshold)
        assert_exact(actual, expected, f"threshold={threshold}")
        assert_exact(oracle(case, name, *arrays, skip=skip, threshold=threshold), expected, "the oracle")


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("name, skip", SKIPPING)
def test_same_bits_as_thresholding_first(isa, case, name, skip):
    """The same kernel runs, and does the same; also with several threads."""
    arrays = operands(case, name, 0.3, make=sparse_floats)
    named = MEANT[name] if skip == "auto" else skip
    for threshold in (0.05, 0.7, 2.5):
        first = small_are_zero(name, skip, arrays, threshold)
        expected = call(sc, case, name, *in_layout(case, name, *first), skip=named, num_threads=1)
        for threads in (1, 3):
            actual = call(
                sc, case, name, *in_layout(case, name, *arrays), skip=skip, threshold=threshold, num_threads=threads
            )
            assert_same_bits(actual, expected, f"threshold={threshold} threads={threads}")


@pytest.mark.parametrize("name, skip", SKIPPING)
def test_neighbours_of_the_threshold(isa, name, skip):
    """One element in each lane: equal to the threshold as float32 has it, or the next float on either side."""
    case = Case(80, 80, (3, 4), (1, 1), batch=1, kind=1)
    index = place(name, skip)
    for threshold in (0.1, 1 / 3, 1.0, 2.0**-126):
        limit = np.float32(threshold)
        above = np.nextafter(limit, np.float32(np.inf))
        for value, zero in ((limit, True), (-limit, True), (above, False), (-above, False)):
            arrays = [np.ones_like(array) for array in operands(case, name, 0.0)]
            arrays[index] = np.full_like(arrays[index], value)
            arrays[index][0, ::3] = -0.0
            actual = call(sc, case, name, *in_layout(case, name, *arrays), skip=skip, threshold=threshold)
            lanes = np.ones(80, bool)
            if name == "backward_weight":
                lanes[::3] = False
            lanes = lanes[:, None] if (name, skip) == ("backward_weight", "grad_output") else lanes
            lanes = lanes[..., None, None] if name == "backward_weight" else lanes
            assert ((actual != 0) == np.broadcast_to(lanes & (not zero), actual.shape)).all(), (threshold, value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("case", [FEW_CASES[0], FEW_CASES[1], TRANSPOSED_CASES[0]], ids=str)
@pytest.mark.parametrize("name, skip", SKIPPING)
def test_nan_and_infinity_are_above_any_threshold(isa, case, name, skip, bad):
    """The one element that is not below the threshold: it reaches what the oracle says, and nothing else does."""
    arrays = [array.copy() for array in operands(case, name, 0.0)]
    index = place(name, skip)
    arrays[index][(0, 5, *(size // 2 for size in arrays[index].shape[2:]))] = bad
    expected = oracle(case, name, *small_are_zero(name, skip, arrays, 4))
    actual = call(sc, case, name, *in_layout(case, name, *arrays), skip=skip, threshold=4.0)
    assert not np.isfinite(expected).all()
    assert (np.isfinite(actual) == np.isfinite(expected)).all()
    assert not actual[np.isfinite(actual)].any()


def test_denormal_thresholds(isa):
    """They round to float32; magnitudes of up to them are denormal, which kernels take for zeros anyway."""
    x = np.where(X > 0, np.float32(1e-40), X)
    expected = sc.conv2d(thresholded(x, 1e-39), W, skip="input")
    assert expected.any()
    for threshold in (5e-324, 1e-50, 1e-45, 1e-40, 1e-39, 1e-38):
        assert_exact(sc.conv2d(x, W, threshold=threshold), expected)


@pytest.mark.parametrize("layout", LAYOUTS[2])
@pytest.mark.parametrize("name, skip", SKIPPING)
def test_memory_of_any_order(isa, name, skip, layout):
    """Views: channels side by side under every name of a layout, and with gaps."""
    case = Case(32, 48, (6, 9), (3, 3), padding=1, kind=LAYOUTS[2].index(layout))
    arrays = operands(case, name, 0.3)
    expected = oracle(case, name, *small_are_zero(name, skip, arrays, 2))
    first, second = in_layout(case, name, *arrays)
    assert_exact(call(sc, case, name, first, second, skip=skip, threshold=2), expected)

    def spread(array):
        room = np.full((*array.shape[:-1], 2 * array.shape[-1]), np.nan, np.float32)
        room[..., ::2] = array
        return room[..., ::2]

    assert_exact(call(sc, case, name, spread(first), spread(second), skip=skip, threshold=2), expected)
    if layout == "NCHW":
        moved = [to_layout(array, "NHWC").transpose(0, 3, 1, 2) for array in arrays]
        assert_exact(call(sc, case, name, *moved, skip=skip, threshold=2), expected)


@pytest.mark.parametrize("name", PASSES)
def test_linear(isa, name):
    x, grad, weight = sparse_ints((9, 7, 70), 0.3, 1), sparse_ints((9, 7, 33), 0.3, 2), sparse_ints((33, 70), 0, 3)
    arrays = {"forward": (x, weight), "backward_data": (grad, weight), "backward_weight": (x, grad)}[name]
    function = "linear" if name == "forward" else f"linear_{name}"
    for skip in SKIPS[name]:
        if skip == "none":
            continue
        expected = getattr(reference, function)(*small_are_zero(name, skip, arrays, 2))
        assert_exact(getattr(sc, function)(*arrays, skip=skip, threshold=2), expected)
        assert_exact(getattr(reference, function)(*arrays, skip=skip, threshold=2), expected)


@pytest.mark.parametrize("case", [FEW_CASES[0], TRANSPOSED_CASES[2]], ids=str)
@pytest.mark.parametrize("name, skip", SKIPPING)
def test_float64(case, name, skip):
    """NumPy applies it, in float64: between 0.1 and the next float32 there are other numbers."""
    arrays = [array.astype(np.float64) * 0.1 for array in operands(case, name, 0.3)]
    threshold = 0.1 * (1 + UNIT / 4)
    below = small_are_zero(name, skip, arrays, threshold)
    assert any((array != other).any() for array, other in zip(below, arrays, strict=True))
    expected = oracle(case, name, *below)
    actual = call(sc, case, name, *in_layout(case, name, *arrays), skip=skip, threshold=threshold)
    assert actual.dtype == np.float64
    assert_exact(actual, expected)
    between = [np.where(array == 0.1, 0.1 * (1 + UNIT / 2), array) for array in arrays]
    actual = call(sc, case, name, *in_layout(case, name, *between), skip=skip, threshold=threshold)
    assert_exact(actual, oracle(case, name, *small_are_zero(name, skip, between, threshold)))


def test_linear_float64():
    x, weight = X[0, 0].astype(np.float64), W[0, :5, 0, :1].astype(np.float64) @ np.ones((1, 6))
    assert_exact(sc.linear(x, weight, threshold=2), thresholded(x, 2) @ weight.T)
    assert_exact(sc.linear_backward_weight(x, x, skip="grad_output", threshold=2), thresholded(x, 2).T @ x)


# --- plan ---


@pytest.mark.parametrize("name", CALLS)
def test_plan(isa, name):
    """The operand is skipped however dense it is; density and reason say what the threshold makes of it."""
    meant = "grad_output" if name.endswith("backward_data") else "input"
    assert sc.plan(name, *CALLS[name]).skip == "none"
    for skip in ("auto", meant):
        plan = sc.plan(name, *CALLS[name], skip=skip, threshold=0.5)
        assert plan.skip == meant
        assert plan.kernel in ("rows_skip", "gradient_skip", "gradient_points")
        assert plan.density == {meant: 1.0}
        assert plan.reason == "elements up to the threshold 0.5 count as zeros"
        assert sc.plan(name, *CALLS[name], skip=skip, threshold=4.0).density == {meant: 0.0}
    if name.endswith("backward_weight"):
        assert sc.plan(name, *CALLS[name], skip="grad_output", threshold=0.5).skip == "grad_output"


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_planned_density(isa, layout):
    """Of samples, along channels and across them."""
    x = np.random.default_rng(0).uniform(-1, 1, (8, 32, 32, 32)).astype(np.float32)
    for view in (x, x[..., ::2], x.transpose(0, 2, 3, 1)):
        weight = np.ones((16, view.shape["NCHW".index("C") if layout == "NCHW" else 3], 3, 3), np.float32)
        for threshold in (0.25, 0.75):
            density = sc.plan("conv2d", view, weight, layout=layout, threshold=threshold).density["input"]
            assert abs(density - (1 - threshold)) < 0.05


def test_plan_without_a_kernel():
    assert sc.plan("conv2d", X.astype(np.float64), W.astype(np.float64), threshold=1.0).kernel == "reference"
    assert sc.plan("conv2d", X[:0], W, threshold=1.0).kernel == "none"
    assert sc.conv2d(X[:0], W, threshold=1.0).shape == (0, 16, 4, 4)


# --- the argument ---


@pytest.mark.parametrize("bad", [True, False, np.True_, None, "0.5", 1j, [0.5], np.array(0.5), np.ones(2)], ids=repr)
@pytest.mark.parametrize("name", CALLS)
def test_what_is_no_number(name, bad):
    """Before and after good calls: True == 1.0."""
    for _ in range(2):
        with pytest.raises(TypeError, match=r"^threshold: got .*, expected a number"):
            getattr(sc, name)(*CALLS[name], threshold=bad)
        with pytest.raises(TypeError, match=r"^threshold: "):
            sc.plan(name, *CALLS[name], threshold=bad)
        getattr(sc, name)(*CALLS[name], threshold=1.0)
        getattr(sc, name)(*CALLS[name], threshold=0)


@pytest.mark.parametrize(
    "bad", [-1, -0.5, -1e-300, np.float32(-1), np.nan, np.inf, -np.inf, np.float16(np.inf), 1e39, 10**400], ids=repr
)
@pytest.mark.parametrize("name", CALLS)
def test_numbers_that_are_no_thresholds(name, bad):
    out = np.full_like(getattr(sc, name)(*CALLS[name]), -7777)
    with pytest.raises(ValueError, match=r"^threshold: got .*, expected a number from 0 to 3\.4e\+38"):
        getattr(sc, name)(*CALLS[name], threshold=bad, out=out)
    assert (out == -7777).all()


@pytest.mark.parametrize("name", CALLS)
def test_nothing_to_skip(name):
    function = getattr(sc, name)
    expected = function(*CALLS[name], skip="none")
    out = np.full_like(expected, -7777)
    for threshold in (1, 0.5, 1e-50):
        with pytest.raises(ValueError, match=r"^threshold: got .* with skip='none', expected 0 "):
            function(*CALLS[name], skip="none", threshold=threshold, out=out)
    assert (out == -7777).all()
    for threshold in (0, 0.0, -0.0, np.float32(0)):
        assert_exact(function(*CALLS[name], skip="none", threshold=threshold), expected)
    with pytest.raises(ValueError, match=r"^skip: "):
        function(*CALLS[name], skip="output?", threshold=1)


@pytest.mark.parametrize("name", CALLS)
def test_numbers_of_every_kind(name):
    expected = getattr(sc, name)(*CALLS[name], threshold=2.0)
    for threshold in (2, np.float32(2), np.float64(2), np.float16(2), np.int8(2), np.uint64(2), np.longdouble(2)):
        assert_exact(getattr(sc, name)(*CALLS[name], threshold=threshold), expected)


def test_the_largest_threshold():
    x = np.full_like(X, np.finfo(np.float32).max)
    assert not sc.conv2d(x, W, threshold=np.finfo(np.float32).max).any()


def test_one_pass_for_all_thresholds():
    """What is kept does not depend on it."""
    sc.conv2d(X, W)
    before = _kept.cache_info()
    for threshold in (0.25, 1, np.float32(3)):
        sc.conv2d(X, W, threshold=threshold)
    after = _kept.cache_info()
    assert (after.hits, after.misses) == (before.hits + 3, before.misses)


@pytest.mark.parametrize("form", ["gaps", "reversed", "transposed", "repeated"])
def test_infinite_weights_in_any_memory(isa, form):
    """The copy with zeros for small weights, which dense kernels read here, is not like the weight in memory."""
    weight = sparse_ints((16, 16, 3, 3), 0.3, 5)
    if form == "repeated":
        weight[:] = weight[:1]
    weight[3, 2, 1, 1], weight[1, 5, 0, 2] = np.inf, np.nan
    if form == "repeated":
        weight = np.broadcast_to(weight[3:4], weight.shape)
    elif form == "gaps":
        wide = np.full((16, 16, 6, 9), np.nan, np.float32)
        wide[:, :, ::2, ::3] = weight
        weight = wide[:, :, ::2, ::3]
    else:
        order = np.s_[:, :, ::-1, ::-1] if form == "reversed" else np.s_[:]
        weight = weight[order] if form == "reversed" else np.ascontiguousarray(weight.T).T
    for name, first in (("conv2d", X), ("conv_transpose2d", GRAD)):
        expected = getattr(reference, name)(first, thresholded(weight, 1))
        assert_exact(getattr(sc, name)(first, weight, skip="weight", threshold=1), expected)


def test_the_oracle_needs_an_operand():
    with pytest.raises(ValueError, match=r"^threshold: got 1 with skip='none'"):
        reference.conv2d(X, W, skip="none", threshold=1)
