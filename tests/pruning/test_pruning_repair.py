"""Kept weights refitted to a layer's outputs: the least squares solution, for linear layers and convolutions."""

import numpy as np
import pytest

import sparseconv as sc
from sparseconv.pruning import nm_mask, repair_weights

DTYPES = (np.float32, np.float64)


def correlated(shape, seed, dtype=np.float64):
    """Inputs that say something about each other, as activations do."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape) + 2 * rng.standard_normal((shape[0], 1, *shape[2:]))
    return np.maximum(x, 0).astype(dtype)


def test_least_squares():
    """Row by row what numpy.linalg.lstsq finds."""
    x, w = correlated((200, 24), 1), np.random.default_rng(2).standard_normal((7, 24))
    mask = nm_mask(w, 2, 4)
    repaired = repair_weights(w, mask, x, damping=0)
    for row, kept, got in zip(w, mask, repaired, strict=True):
        np.testing.assert_allclose(got[kept], np.linalg.lstsq(x[:, kept], x @ row)[0], rtol=1e-8, atol=1e-10)
        assert not got[~kept].any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "x_shape, w_shape, options",
    [
        ((2, 8, 9, 11), (6, 8, 3, 3), {"padding": 1}),
        ((2, 8, 9, 11), (6, 4, 3, 3), {"stride": 2, "padding": (0, 2), "groups": 2}),
        ((2, 8, 9, 12), (6, 8, 2, 3), {"stride": (3, 2), "dilation": (2, 3), "padding": "same"}),
        ((2, 8, 9, 12), (6, 8, 3, 2), {"padding": ((1, 0), (0, 3))}),
        ((3, 8, 40), (5, 8, 5), {"padding": 4}),
        ((1, 4, 5, 6, 7), (3, 4, 1, 3, 2), {"stride": 2}),
        ((4, 8, 3, 3), (6, 8, 3, 3), {}),
        ((2, 4, 7, 7), (4, 4, 1, 1), {"padding": 3, "stride": 2}),
    ],
)
def test_outputs_of_convolutions(x_shape, w_shape, options, dtype):
    """Nearer to what the layer gave, and a minimum: the error's gradient in every kept weight is zero."""
    x, w = correlated(x_shape, 3, dtype), np.random.default_rng(4).standard_normal(w_shape).astype(dtype)
    mask = nm_mask(w, 2, 4, axis=1)
    repaired = repair_weights(w, mask, x, damping=1e-9, **options)
    assert repaired.dtype == dtype
    assert repaired.shape == w.shape
    assert not repaired[~mask].any()
    dims = w.ndim - 2
    forward, backward = getattr(sc, f"conv{dims}d"), getattr(sc, f"conv{dims}d_backward_weight")
    x, w, repaired, pruned = (one.astype(np.float64) for one in (x, w, repaired, np.where(mask, w, 0)))
    errors = [forward(x, one, **options) - forward(x, w, **options) for one in (pruned, repaired)]
    assert np.square(errors[1]).sum() < 0.9 * np.square(errors[0]).sum()
    gradients = [np.abs(backward(x, error, w.shape, **options)[mask]).max() for error in errors]
    assert gradients[1] < (1e-3 if dtype == np.float32 else 1e-5) * gradients[0]


def test_nothing_pruned():
    x, w = correlated((50, 8), 1), np.random.default_rng(2).standard_normal((3, 8))
    np.testing.assert_array_equal(repair_weights(w, np.ones(w.shape, bool), x), w)
    assert not repair_weights(w, np.zeros(w.shape, bool), x).any()


def test_inputs_that_say_nothing():
    """Weights of inputs that are always zero, or twice the same, are left near where they were."""
    x, w = correlated((50, 8), 1), np.random.default_rng(2).standard_normal((3, 8))
    x[:, 2], x[:, 5] = 0, x[:, 4]
    mask = nm_mask(w, 6, 8)
    mask[:, [2, 4, 5]] = True
    repaired = repair_weights(w, mask, x)
    np.testing.assert_array_equal(repaired[:, 2], w[:, 2])
    np.testing.assert_allclose(repaired[:, 4] - w[:, 4], repaired[:, 5] - w[:, 5], atol=1e-9)
    with pytest.raises(ValueError, match=r"^x: got inputs that depend on each other"):
        repair_weights(w, mask, x, damping=0)


def test_any_leading_dimensions():
    x, w = correlated((60, 8), 1, np.float32), np.random.default_rng(2).standard_normal((3, 8)).astype(np.float32)
    mask = nm_mask(w, 1, 4)
    expected = repair_weights(w, mask, x)
    np.testing.assert_array_equal(repair_weights(w, mask, x.reshape(3, 4, 5, 8)), expected)


X, W = np.ones((4, 8, 5, 5)), np.ones((6, 8, 3, 3))
KEPT = np.ones(W.shape, bool)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: repair_weights(W, W, X), TypeError, "mask: got dtype float64, expected bool"),
        (lambda: repair_weights(W, KEPT[0], X), ValueError, r"mask: got shape \(8, 3, 3\), expected \(6, 8, 3, 3\)"),
        (lambda: repair_weights(W, KEPT, X[:, :4]), ValueError, "x: got 4 channels, expected 8"),
        (lambda: repair_weights(W, KEPT, X, groups=2), ValueError, "x: got 8 channels, expected 16"),
        (lambda: repair_weights(W, KEPT, X, groups=0), ValueError, "groups: got 0"),
        (lambda: repair_weights(W, KEPT, X[0]), ValueError, "x: got 3 dimensions"),
        (lambda: repair_weights(W, KEPT, X[:0]), ValueError, "x: got shape .*, expected no size of zero"),
        (lambda: repair_weights(W, KEPT, X.astype(np.float32)), TypeError, "x: got dtype float32, expected float64"),
        (lambda: repair_weights(W, KEPT, X * np.nan), ValueError, "x: got NaN"),
        (lambda: repair_weights(W * np.inf, KEPT, X), ValueError, "weight: got NaN or an infinity"),
        (lambda: repair_weights(W[:0], KEPT[:0], X), ValueError, r"weight: got shape \(0, 8, 3, 3\)"),
        (lambda: repair_weights(W[0, 0, 0], KEPT[0, 0, 0], X), ValueError, r"weight: got shape \(3,\)"),
        (lambda: repair_weights(W, KEPT, X, stride=0), ValueError, "stride: got 0"),
        (lambda: repair_weights(W, KEPT, X, damping=-1), ValueError, "damping: got -1"),
        (lambda: repair_weights(W[:, :, 0, 0], KEPT[:, :, 0, 0], X), ValueError, r"x: got shape .*expected \(..., 8\)"),
        (lambda: repair_weights([1.0], KEPT, X), TypeError, "weight: got list"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()
