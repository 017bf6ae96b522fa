"""Masks of pixels: one value for all channels, without a channel axis or with one of size 1, in every function."""

import numpy as np
import pytest
from cases import LAYOUTS, sparse_ints, to_layout
from comparisons import assert_exact

import sparseconv as sc

SHAPES = {"without": (), "size 1": (1,)}
SIZES = {1: (57,), 2: (9, 14), 3: (3, 5, 7)}
KINDS = {"bool": lambda mask: mask, "float": lambda mask: mask.astype(np.float32) * -0.5}
CHANNEL_AXES = {0: lambda ndim: (1,), 1: lambda ndim: (ndim - 1,), 2: lambda ndim: (1, ndim - 1)}


def pixel_mask(whole, layout_kind, form, seed):
    """(mask of pixels in that form, the same for all channels) of an array."""
    axes = CHANNEL_AXES[layout_kind](whole.ndim)
    pixels = tuple(size for axis, size in enumerate(whole.shape) if axis not in axes)
    mask = np.random.default_rng(seed).random(pixels) < 0.4
    expanded = np.expand_dims(mask, axes)
    return (mask if form == "without" else expanded), np.ascontiguousarray(np.broadcast_to(expanded, whole.shape))


@pytest.mark.parametrize("form", SHAPES)
@pytest.mark.parametrize("as_kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("layout_kind", [0, 1, 2], ids=["first", "last", "blocked"])
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 3])
def test_convolutions(isa, dims, kernel, layout_kind, as_kind, form):
    """As with the mask for all channels, which other tests hold against the oracle; float64, too."""
    layout, padding = LAYOUTS[dims][layout_kind], kernel // 2
    x = to_layout(sparse_ints((2, 40, *SIZES[dims]), 0.3, 1), layout)
    weight = sparse_ints((24, 40, *[kernel] * dims), 0.8, 2)
    grads = to_layout(sparse_ints((2, 24, *SIZES[dims]), 0.3, 3), layout)
    words = {"layout": layout, "padding": padding}
    forward, backward_data, backward_weight = (
        getattr(sc, f"conv{dims}d{rest}") for rest in ("", "_backward_data", "_backward_weight")
    )
    mask, whole = pixel_mask(x, layout_kind, form, 4)
    grads_mask, grads_whole = pixel_mask(grads, layout_kind, form, 5)
    mask, grads_mask = as_kind(mask), as_kind(grads_mask)
    known, known_grads = np.where(whole, x, 0), np.where(grads_whole, grads, 0)
    packed = sc.pack_weight(weight)
    for skip in ("auto", "none", "input"):
        assert_exact(forward(known, weight, skip=skip, input_mask=mask, **words), forward(known, weight, **words))
    for skip in ("auto", "none", "output", "grad_output", "weight"):
        used = packed if skip == "weight" else weight
        expected = backward_data(grads, weight, x.shape, output_mask=whole, skip=skip, **words)
        assert_exact(backward_data(grads, used, x.shape, output_mask=mask, skip=skip, **words), expected)
        wide = backward_data(
            grads.astype(float), weight.astype(float), x.shape, output_mask=mask.astype(bool), skip=skip, **words
        )
        assert_exact(wide.astype(np.float32), expected)
    expected = backward_data(known_grads, weight, x.shape, **words)
    assert_exact(backward_data(known_grads, weight, x.shape, grad_output_mask=grads_mask, **words), expected)
    expected = backward_weight(known, known_grads, kernel, **words)
    for skip in ("auto", "input", "grad_output", "none"):
        options = words | {"input_mask": mask, "grad_output_mask": grads_mask, "skip": skip}
        assert_exact(backward_weight(known, known_grads, kernel, **options), expected)


@pytest.mark.parametrize("form", SHAPES)
@pytest.mark.parametrize("leading", [(), (7,), (4, 5), (2, 3, 4)], ids=str)
def test_linear(isa, leading, form):
    x, grads = sparse_ints((*leading, 40), 0.3, 1), sparse_ints((*leading, 24), 0, 3)
    weight = sparse_ints((24, 40), 0.8, 2)
    mask = np.random.default_rng(4).random(leading) < 0.5
    x, kept = np.where(mask[..., None], x, np.float32(0)), np.where(mask[..., None], grads, np.float32(0))
    given = mask if form == "without" else mask[..., None]
    for one in (given, np.asfortranarray(np.repeat(np.atleast_1d(given), 2, axis=0))[::2].reshape(np.shape(given))):
        assert_exact(sc.linear(x, weight, input_mask=one), sc.linear(x, weight))
        expected = np.where(mask[..., None], sc.linear_backward_data(grads, weight), np.float32(0))
        for skip in ("auto", "output", "weight", "none"):
            assert_exact(sc.linear_backward_data(grads, weight, output_mask=one, skip=skip), expected)
        options = {"input_mask": one, "grad_output_mask": one}
        expected = sc.linear_backward_weight(x, kept)
        assert_exact(sc.linear_backward_weight(x, kept, **options), expected)


def test_masks_that_lie_in_memory_as_they_like():
    """Slices, turned views and one value for all images."""
    x, weight = sparse_ints((3, 32, 8, 9), 0, 1), sparse_ints((16, 32, 3, 3), 0, 2)
    big = np.random.default_rng(3).random((3, 16, 27)) < 0.5
    masks = {
        "slice": big[:, ::2, ::3],
        "turned": np.ascontiguousarray(big[:, :8, :9].T).T,
        "back": big[:, 7::-1, 8::-1],
        "one for all": np.broadcast_to(big[0, :8, :9], (3, 8, 9)),
    }
    for name, mask in masks.items():
        known = np.where(mask[:, None], x, np.float32(0))
        expected = sc.conv2d(known, weight)
        assert_exact(sc.conv2d(known, weight, input_mask=mask), expected, name)
        assert_exact(sc.conv2d(known, weight, input_mask=mask[:, None], skip="input"), expected, name)
        last = np.ascontiguousarray(known.transpose(0, 2, 3, 1))
        actual = sc.conv2d(last, weight, input_mask=mask[..., None], skip="input", layout="NHWC")
        assert_exact(actual.transpose(0, 3, 1, 2), expected, name)


def test_plan_and_memory():
    """The mask is looked at as it is: nothing of the size of the array is made of it."""
    x, weight = np.ones((2, 28, 28, 64), np.float32), np.ones((64, 64, 3, 3), np.float32)
    mask = np.random.default_rng(0).random(x.shape[:3]) < 0.1
    plan = sc.plan("conv2d", x, weight, padding=1, layout="NHWC", input_mask=mask)
    assert plan.skip == "input"
    assert plan.density["input"] == pytest.approx(0.1, abs=0.04)
    gradient = np.ones((2, 28, 28, 64), np.float32)
    plan = sc.plan(
        "conv2d_backward_data", gradient, weight, x.shape, padding=1, layout="NHWC", output_mask=mask[..., None]
    )
    assert plan.density["output"] == pytest.approx(0.1, abs=0.04)


OTHER_SHAPES = [(8, 9), (1, 8, 9), (3, 8, 1), (1, 32, 8, 9), (3, 1, 1, 9), (3, 32, 1, 1), (3, 8, 9, 1)]


@pytest.mark.parametrize("shape", OTHER_SHAPES)
def test_other_shapes(shape):
    """Over channels alone: a mask of fewer images or columns is more probably a mistake."""
    x, weight = np.ones((3, 32, 8, 9), np.float32), np.ones((16, 32, 3, 3), np.float32)
    message = rf"^input_mask: got shape \({', '.join(map(str, shape))}\), expected \(3, 32, 8, 9\)"
    with pytest.raises(ValueError, match=message):
        sc.conv2d(x, weight, input_mask=np.ones(shape, bool))
    with pytest.raises(ValueError, match=r"^input_mask: got shape \(3, 1, 8, 9\), expected a bit mask"):
        sc.conv2d(x, weight, input_mask=np.ones((3, 1, 8, 9), np.uint8))
