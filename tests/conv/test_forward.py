"""The forward pass on every instruction set: exact on integers, within the proven bound on floats."""

import numpy as np
import pytest
from cases import (
    CASES,
    FEW_CASES,
    SKIPS,
    SPARSITIES,
    call,
    cases,
    in_layout,
    operands,
    oracle,
    prepared,
    sparse_ints,
    to_layout,
)
from comparisons import assert_exact, check_bias_and_activation, check_drawn, check_exact, check_floats, check_out
from hypothesis import given
from hypothesis import strategies as st

import sparseconv
from sparseconv import reference


@pytest.mark.parametrize("case", CASES, ids=str)
def test_exact(isa, case):
    check_exact(sparseconv, case, "forward")


@given(
    case=cases(), sparsity=st.sampled_from(SPARSITIES), skip=st.sampled_from(SKIPS["forward"]), seed=st.integers(0, 99)
)
def test_any_geometry(isa, case, sparsity, skip, seed):
    check_drawn(sparseconv, case, "forward", sparsity, skip, seed)


@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_floats(isa, case):
    check_floats(sparseconv, case, "forward")


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("case", [case for case in CASES if case.in_c in (17, 24, 33)][::2], ids=str)
def test_bias_and_activation(isa, case, activation):
    check_bias_and_activation(sparseconv, case, activation)


PAD_LANES = [case for case in CASES if case.kind == 2 and case.out_c % 16 and case.batch][::4]


@pytest.mark.parametrize("case", PAD_LANES, ids=str)
def test_pad_lanes_stay_zero_with_bias(isa, case):
    """The bias reaches channels only, not the lanes that fill up a block."""
    first, second, _ = prepared(case, "forward", 0.5)
    y = call(sparseconv, case, "forward", first, second, bias=np.full(case.out_c, 3, np.float32))
    assert y[:, -1, ..., : case.out_c % 16].any()
    assert not y[:, -1, ..., case.out_c % 16 :].any()


@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_out(isa, case):
    check_out(sparseconv, case, "forward")


@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_float64(case):
    """float64 operands give float64 results, equal to the oracle."""
    first, second = (array.astype(np.float64) + 1e-10 for array in operands(case, "forward", 0.0))
    actual = call(sparseconv, case, "forward", *in_layout(case, "forward", first, second))
    np.testing.assert_allclose(actual, oracle(case, "forward", first, second), rtol=1e-13, atol=1e-12, strict=True)


def test_clustered_zeros(isa):
    """Whole zero rows, pixels, channels and images, as ReLU leaves them."""
    x = sparse_ints((3, 80, 9, 20), 0.3, 1)
    x[0] = 0
    x[:, 5:70] = 0
    x[:, :, 3] = 0
    x[:, :, :, 7:18] = 0
    x[1, :, 4, 2] = 1
    weight = sparse_ints((24, 80, 3, 3), 0.1, 2)
    expected = reference.conv2d(x, weight, padding=1)
    for layout in ("NCHW", "NHWC", "NCHW16c"):
        for skip in SKIPS["forward"]:
            actual = sparseconv.conv2d(to_layout(x, layout), weight, padding=1, layout=layout, skip=skip)
            assert_exact(actual, to_layout(expected, layout), f"{layout} skip={skip!r}")


@pytest.mark.parametrize("channel", [0, 15, 16, 63, 64, 79])
def test_single_nonzero(isa, channel):
    """One nonzero input anywhere gives a copy of the weights around it."""
    weight = sparse_ints((17, 80, 3, 3), 0, 1)
    for row, column in ((0, 0), (1, 16), (2, 33), (0, 34)):
        x = np.zeros((1, 80, 3, 35), np.float32)
        x[0, channel, row, column] = 2
        expected = reference.conv2d(x, weight, padding=1)
        for skip in SKIPS["forward"]:
            actual = sparseconv.conv2d(x, weight, padding=1, skip=skip)
            assert_exact(actual, expected, f"{row},{column} skip={skip!r}")


@pytest.mark.parametrize("offset", [0, 4])
@pytest.mark.parametrize("filters, activation", [(64, None), (64, "relu"), (72, None)])
def test_results_past_the_caches(isa, filters, activation, offset):
    """Results of 8 MB and more are stored past the caches where lines are whole and aligned."""
    x, weight = sparse_ints((1, 182, 182, 16), 0.6, 1), sparse_ints((filters, 16, 1, 1), 0.1, 2)
    expected = x.reshape(-1, 16) @ weight.reshape(filters, 16).T
    expected = np.maximum(expected, 0) if activation else expected
    assert sparseconv.plan("conv2d", x, weight, layout="NHWC").blocking["stream"] == 1
    assert (expected != 0).mean() > 0.3
    for skip in ("input", "none"):
        memory = np.full(expected.size + 20, 99, np.float32)
        start = -memory.ctypes.data % 64 // 4 + offset
        out = memory[start : start + expected.size].reshape(1, 182, 182, filters)
        sparseconv.conv2d(x, weight, layout="NHWC", activation=activation, skip=skip, out=out)
        assert_exact(out.reshape(expected.shape), expected, f"skip={skip!r}")
        assert (memory[:start] == 99).all() and (memory[start + expected.size :] == 99).all()
