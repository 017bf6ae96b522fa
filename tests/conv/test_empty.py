"""A batch of no images passes through every function, as a training loop's last batch may be one."""

import numpy as np
import pytest

import sparseconv as sc

DTYPES = [np.float32, np.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(0,), (0, 3), (0, 5, 4, 4), (2, 0, 3, 3), (0, 0)])
def test_masks_and_compressed_arrays(isa, shape, dtype):
    x = np.empty(shape, dtype)
    mask = sc.masks.nonzero_mask(x)
    assert mask.shape == (0,) and sc.masks.unpack(mask, shape).shape == shape
    assert sc.masks.pack(np.empty(shape, bool)).shape == (0,)
    for out in (None, x):
        y, bits = sc.masks.relu(x, out=out)
        assert y.shape == shape and bits.shape == (0,)
    assert sc.masks.density(x) == sc.masks.vector_density(x) == 0
    c = sc.compress(x)
    assert sc.decompress(c).shape == shape and sc.decompress(c, out=x) is x
    assert c.density == 0 and c.mask.shape == (0,)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "layout, shape, channels",
    [("NC", (0, 3), 3), ("NCW", (0, 3, 9), 3), ("NHWC", (0, 2, 2, 5), 5), ("NCHW16c", (0, 2, 3, 3, 16), 32),
     ("NCDHW", (2, 4, 0, 3, 3), 4)],
)  # fmt: skip
def test_grad_bias(isa, layout, shape, channels, dtype):
    out = np.ones(channels, dtype)
    assert sc.grad_bias(np.empty(shape, dtype), layout=layout, out=out) is out
    assert not out.any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_passes(isa, dtype):
    """Plain, packed and compressed operands, every option; no gradient of weights comes from nothing."""
    x, weight, bias = np.empty((0, 8, 6, 6), dtype), np.ones((12, 8, 3, 3), dtype), np.ones(12, dtype)
    bits, y = np.empty(0, np.uint8), np.empty((0, 12, 4, 4), dtype)

    def check(name, shape, *arguments, **options):
        result = getattr(sc, name)(*arguments, **options)
        result = result[0] if isinstance(result, tuple) else result
        assert result.shape == shape and not result.any()
        assert sc.plan(name, *arguments, **options).kernel == ("none" if dtype == np.float32 else "reference")

    relu = {"activation": "relu", "return_mask": True}
    for used in (weight, sc.pack_weight(weight)):
        check("conv2d", y.shape, x, used, bias)
        for options in ({"skip": "weight"}, {"threshold": 1.0}, relu, {"input_mask": x}, {"input_mask": bits}):
            check("conv2d", y.shape, x, used, **options)
        for options in (
            {}, {"skip": "weight"}, {"threshold": 1.0}, {"output_mask": x, "skip": "output"}, {"grad_output_mask": y}
        ):
            check("conv2d_backward_data", x.shape, y, used, x.shape, **options)
    for options in ({}, {"threshold": 1.0}, {"output_mask": weight > 0}, {"input_mask": bits}):
        check("conv2d_backward_weight", weight.shape, x, y, 3, **options)
    check("conv2d_backward_weight", weight.shape, sc.compress(x), sc.compress(y), 3)
    rows, matrix = np.empty((0, 7, 8), dtype), np.ones((5, 8), dtype)
    check("linear", (0, 7, 5), rows, matrix, **relu)
    check("linear_backward_data", rows.shape, rows[..., :5], matrix)
    check("linear_backward_weight", matrix.shape, rows, rows[..., :5])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
def test_maps_without_rows_or_columns(isa, size, dtype):
    x, weight = np.empty((2, 8, *size), dtype), np.ones((8, 4, 2, 2), dtype)
    y = sc.conv_transpose2d(x, weight)
    assert 0 in y.shape[2:]
    assert sc.conv_transpose2d_backward_data(y, weight, x.shape).shape == x.shape
    assert not sc.conv_transpose2d_backward_weight(x, y, 2).any()
    pointwise, bias = np.ones((4, 8, 1, 1), dtype), np.ones(4, dtype)
    y = sc.conv2d(x, pointwise, bias)
    assert y.shape == (2, 4, *size)
    assert sc.conv2d_backward_data(y, pointwise, x.shape).shape == x.shape
    assert not sc.conv2d_backward_weight(x, y, 1).any()
    with pytest.raises(ValueError, match="weight: got a kernel"):
        sc.conv2d(x, np.ones((4, 8, 2, 2), dtype))
