"""Sums over very many positions are as exact as pairwise summation, in every kernel that makes them."""

import numpy as np
import pytest

import sparseconv as sc
from sparseconv import reference

ROUNDING = 2.0**-24
POSITIONS = 150_001
# Roundings of a sum of n positive numbers, in units of its exact value: log2(n) of pairwise summation, and a constant:
# half of the longest chain's, a chunk of positions at most. One chain over all of these positions has thousands.
MOST = np.log2(POSITIONS) + 110


def operands(density, positions=POSITIONS):
    """Equal numbers, whose sums err in one direction, in two arrays of which the first has some zeros."""
    rng = np.random.default_rng(1)
    x, grad = np.full((positions, 17), 0.1, np.float32), np.full((positions, 16), 0.3, np.float32)
    x[rng.random(x.shape) >= density] = 0
    return x, grad


def check(got, expected):
    assert got.shape == expected.shape
    worst = np.abs(got / expected - 1).max() / ROUNDING
    assert worst <= MOST, f"{worst:.0f} roundings"


@pytest.mark.parametrize("density", [1.0, 0.5, 0.08])
def test_backward_weight(isa, density):
    """Dense, skipping, and pointwise kernels that sum in memory; rows, columns and images; NCW, packed otherwise."""
    x, grad = operands(density)
    expected = grad.astype(np.float64).T @ x.astype(np.float64)
    for skip in ("none", "input", "grad_output"):
        check(sc.linear_backward_weight(x, grad, skip=skip), expected)
        first = (np.ascontiguousarray(array.T)[None] for array in (x, grad))
        check(sc.conv1d_backward_weight(*first, 1, skip=skip)[..., 0], expected)
        images = (array[:150_000].reshape(3000, 5, 10, -1) for array in (x, grad))
        got = sc.conv2d_backward_weight(*images, 1, layout="NHWC", skip=skip)[..., 0, 0]
        check(got, grad[:150_000].astype(np.float64).T @ x[:150_000].astype(np.float64))


@pytest.mark.parametrize("skip", ["none", "input", "grad_output"])
def test_nothing_is_lost(isa, skip):
    """Ones that a large sum cannot take one by one, since floats beyond 2^25 are four apart, are in the result."""
    x, grad = np.zeros((POSITIONS, 17), np.float32), np.ones((POSITIONS, 16), np.float32)
    x[0], x[50_000:146_000:4000] = 2.0**25, 1
    got = sc.linear_backward_weight(x, grad, skip=skip)
    np.testing.assert_array_equal(got, np.full((16, 17), 2**25 + 24, np.float32))
    np.testing.assert_array_equal(sc.linear_backward_weight(-x, grad, skip=skip), -got)


@pytest.mark.parametrize("skip", ["none", "input"])
def test_backward_weight_of_several_taps(isa, skip):
    x, grad = (array[:75_000].reshape(5, 100, 150, -1) for array in operands(0.3))
    got = sc.conv2d_backward_weight(x, grad, 3, padding=1, layout="NHWC", skip=skip)
    wide = x.astype(np.float64), grad.astype(np.float64)
    check(got, sc.conv2d_backward_weight(*wide, 3, padding=1, layout="NHWC"))


@pytest.mark.parametrize("layout", ["NWC", "NCW"])
@pytest.mark.parametrize("channels", [1, 4])
def test_backward_weight_of_narrow_groups(isa, channels, layout):
    x, grad = (np.repeat(array[None, :, :1], 8, 2) for array in operands(1.0))
    wide = x[0].astype(np.float64)[:, :channels].T @ grad[0].astype(np.float64)
    if layout == "NCW":
        x, grad = (np.ascontiguousarray(np.moveaxis(array, 2, 1)) for array in (x, grad))
    for threads in (1, 4):
        got = sc.conv1d_backward_weight(
            x, grad, 1, groups=8 // channels, layout=layout, skip="none", num_threads=threads
        )
        check(got[..., 0], wide.T)


@pytest.mark.parametrize("density, skip", [(1.0, "none"), (0.5, "input"), (0.08, "input")])
def test_threads_do_not_change_a_bit(isa, density, skip):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((40_000, 150), np.float32) * (rng.random((40_000, 150)) < density)
    grad = rng.standard_normal((40_000, 33), np.float32)
    one = sc.linear_backward_weight(x, grad, skip=skip, num_threads=1)
    for threads in (2, 3, 5):
        np.testing.assert_array_equal(sc.linear_backward_weight(x, grad, skip=skip, num_threads=threads), one)


@pytest.mark.parametrize("density, skip", [(1.0, "none"), (0.5, "input"), (0.08, "input")])
def test_inf_and_nan(isa, density, skip):
    """What is Inf stays Inf, and only what is NaN becomes NaN, although a rounding error of Inf would be NaN."""
    x, grad = operands(density)
    x[77, 3], x[POSITIONS // 2, 4], x[9, 5], x[-9, 5], x[1000, 6] = np.inf, -np.inf, np.inf, -np.inf, np.nan
    got = sc.linear_backward_weight(x, grad, skip=skip)
    assert (got[:, 3] == np.inf).all() and (got[:, 4] == -np.inf).all() and np.isnan(got[:, 5:7]).all()
    assert np.isfinite(np.delete(got, [3, 4, 5, 6], axis=1)).all()


@pytest.mark.parametrize(
    "layout, shape",
    [("NC", (POSITIONS, 17)), ("NWC", (1, POSITIONS, 17)), ("NCW", (1, 17, POSITIONS)), ("NCHW", (50_000, 17, 1, 3)),
     ("NHWC", (2, 75_000, 1, 17)), ("NCW16c", (1, 2, POSITIONS, 16)), ("NCDHW", (1, 70, 5, 3, 10_001))],
)  # fmt: skip
def test_grad_bias(isa, layout, shape):
    grad = np.full(shape, 0.1, np.float32)
    got = sc.grad_bias(grad, layout=layout)
    np.testing.assert_allclose(got, grad.size / got.size * np.float64(np.float32(0.1)), rtol=40 * ROUNDING)
    np.testing.assert_array_equal(sc.grad_bias(grad, layout=layout, num_threads=1), got)
    grad.reshape(-1)[grad.size // 2] = np.inf
    assert np.isinf(sc.grad_bias(grad, layout=layout)).sum() == 1


@pytest.mark.parametrize("module", [sc, reference])
@pytest.mark.parametrize("layout", ["NC", "NCW", "NWC"])
def test_float64(module, layout):
    """float64 is held to the same: NumPy adds up outer axes, and matrix products all positions, in long chains."""
    n = 2**21
    shape = {"NC": (n, 2), "NCW": (1, 2, n), "NWC": (1, n, 2)}[layout]
    grad = np.full(shape, 0.1)
    exact = np.float128(0.1) * n if hasattr(np, "float128") else 0.1 * n
    bias = module.grad_bias(grad, layout=layout)
    assert np.abs(bias / exact - 1).max() < (np.log2(n) + 20) * 2.0**-53
    if layout == "NC":
        products = module.linear_backward_weight(grad, grad)
    else:
        products = module.conv1d_backward_weight(grad, grad, 1, layout=layout)
    exact = np.float128(0.1) ** 2 * n if hasattr(np, "float128") else 0.1 * 0.1 * n
    assert np.abs(products / exact - 1).max() < 250 * 2.0**-53
