"""The gradient of a bias."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from . import cpu
from ._core import _conv, arrays, checks
from ._core.layout import find, view

if TYPE_CHECKING:
    from .typing import Array, Layout


def grad_bias(
    grad_output: Array, *, layout: Layout = "NCHW", num_threads: int | None = None, out: Array | None = None
) -> np.ndarray:
    """Gradient of a convolution's or linear layer's bias: `grad_output` summed over all axes but the channels.

    Parameters
    ----------
    grad_output : float32 or float64 array in `layout`
    layout : str
        "NC" (linear), or one of the layouts of 1d, 2d and 3d convolutions. The pad lanes of a blocked layout count as
        channels.
    num_threads : int, optional
        As in `sparseconv.conv2d`; the result does not depend on it.
    out : (K,), optional
        Written and returned.

    Returns
    -------
    (K,) ndarray
    """
    order = find(layout)
    threads = cpu.checked_threads(num_threads)
    array = arrays.take("grad_output", grad_output)
    checks.tensor("grad_output", array, order)
    channels = order.channels(array.shape)
    if out is None:
        target = arrays.empty((channels,), array.dtype)
    else:
        target = arrays.check_out(out, (channels,), array.dtype, {"grad_output": array})
    if array.dtype == np.float64 or array.size == 0:
        # NumPy's sums are pairwise along an axis whose elements lie side by side.
        first = np.moveaxis(array, order.channel_axes, range(len(order.channel_axes)))
        rows = np.ascontiguousarray(first).reshape(channels, array.size // max(1, channels))
        target[...] = rows.sum(axis=1)
        return target
    array = arrays.addressable(array)
    strides, size = order.strides(arrays.form(array)), order.size(array.shape)
    if not order.dims:  # (positions, features): the positions are a row
        strides, size, batch = strides._replace(spatial=(strides.image,)), (array.shape[0],), 1
    else:
        batch = array.shape[0]
    whole = np.ascontiguousarray(target)
    _conv.bias_gradient(view(strides, size), array, whole, batch, math.prod(size[:-1]), size[-1], channels, threads)
    if whole is not target:
        target[...] = whole
    return target
