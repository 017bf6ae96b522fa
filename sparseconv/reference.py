"""What every function of the package computes, in plain NumPy.

The functions have the names and signatures of the package itself. They are the oracle of the tests and the path taken
for float64 arrays: slow, correct, and independent of everything else here (only NumPy is imported). float32 operands
are accumulated in float64 and rounded once; float64 operands stay float64. `num_threads` changes nothing, and `skip`
only says which operand has a `threshold`.

All passes are one idea. Arrays are viewed as (groups, channels of a group, batch, *spatial). A kernel tap (r, s, ...)
connects the output positions o with the input positions o * stride + tap * dilation - padding that lie inside the
image, so each pass is one matrix product per group and tap over strided slices; padding is never stored or multiplied:

    forward          y[out_at]  += w[tap]   @ x[in_at]
    backward_data    dx[in_at]  += w[tap].T @ dy[out_at]
    backward_weight  dw[tap]     = dy[out_at] @ x[in_at].T

A transposed convolution is backward_data of the convolution with the same weight; its backward passes are the other
two. One file, since an oracle is to be read from top to bottom.
"""

import itertools
import math

import numpy as np

__all__ = [
    "conv1d",
    "conv1d_backward_data",
    "conv1d_backward_weight",
    "conv2d",
    "conv2d_backward_data",
    "conv2d_backward_weight",
    "conv3d",
    "conv3d_backward_data",
    "conv3d_backward_weight",
    "conv_transpose1d",
    "conv_transpose1d_backward_data",
    "conv_transpose1d_backward_weight",
    "conv_transpose2d",
    "conv_transpose2d_backward_data",
    "conv_transpose2d_backward_weight",
    "conv_transpose3d",
    "conv_transpose3d_backward_data",
    "conv_transpose3d_backward_weight",
    "grad_bias",
    "linear",
    "linear_backward_data",
    "linear_backward_weight",
]

LANES = 16
LONGEST_CHAIN = 4096  # positions that are left to one matrix product
_silent = np.errstate(all="ignore")  # the kernels raise no floating-point warnings either
_SPATIAL = {1: "W", 2: "HW", 3: "DHW"}


# --- layouts: to and from (N, C, *spatial) ---


def _layouts(ndim):
    """Names of the channels-first, channels-last and blocked layouts of `ndim` spatial dimensions."""
    spatial = _SPATIAL[ndim]
    return f"NC{spatial}", f"N{spatial}C", f"NC{spatial}{LANES}c"


def _check_layout(layout, ndim):
    names = _layouts(ndim)
    if layout not in names:
        raise ValueError(f"layout: got {layout!r}, expected one of {', '.join(names)}")


def _channels_first(array, layout, channels=None):
    """View `array` as (N, C, *spatial); `channels` cuts off the pad lanes of a blocked layout."""
    if layout.endswith(f"{LANES}c"):
        batch, blocks, *spatial, lanes = array.shape
        return np.moveaxis(array, -1, 2).reshape(batch, blocks * lanes, *spatial)[:, :channels]
    if layout.endswith("C"):
        return np.moveaxis(array, -1, 1)
    return array


def _from_channels_first(array, layout):
    if layout.endswith(f"{LANES}c"):
        batch, channels, *spatial = array.shape
        blocks = -(-channels // LANES)
        blocked = np.zeros((batch, blocks * LANES, *spatial), array.dtype)
        blocked[:, :channels] = array
        return np.moveaxis(blocked.reshape(batch, blocks, LANES, *spatial), 2, -1)
    if layout.endswith("C"):
        return np.moveaxis(array, 1, -1)
    return array


def _spatial_of(shape, layout):
    """The spatial sizes in the full shape of an array in `layout`."""
    if layout.endswith(f"{LANES}c"):
        return tuple(shape[2:-1])
    return tuple(shape[1:-1] if layout.endswith("C") else shape[2:])


def _split_groups(array, groups):
    """(N, C, *spatial) -> float64 (groups, C / groups, N, *spatial)."""
    batch, channels, *spatial = array.shape
    split = array.reshape(batch, groups, channels // groups, *spatial)
    return np.ascontiguousarray(np.moveaxis(split, 0, 2), dtype=np.float64)


def _join_groups(array):
    """(groups, C / groups, N, *spatial) -> (N, C, *spatial)."""
    groups, channels, batch, *spatial = array.shape
    return np.moveaxis(array, 2, 0).reshape(batch, groups * channels, *spatial)


def _finish(result, layout, dtype, out):
    """Round (N, C, *spatial) to `dtype`, put it in `layout`, into `out` if there is one."""
    result = _from_channels_first(result, layout)
    if out is None:
        return np.ascontiguousarray(result, dtype=dtype)
    out[...] = result
    return out


# --- thresholds ---


def _thresholded(skip, threshold, **operands):
    """The operands as arrays, by their names in `skip`; "auto" means the first.

    In the one that `skip` means, magnitudes of up to `threshold` (rounded to its dtype) become zeros; NaN does not.
    """
    arrays = {name: np.asarray(array) for name, array in operands.items()}
    if threshold:
        meant = next(iter(arrays)) if skip == "auto" else skip
        if meant not in arrays:
            raise ValueError(f"threshold: got {threshold} with skip={skip!r}, expected 0 where no operand is skipped")
        array = arrays[meant]
        arrays[meant] = np.where(np.abs(array) <= array.dtype.type(threshold), 0, array)
    return arrays.values()


# --- sizes ---


def _per_dim(value, ndim, name):
    values = (value,) * ndim if isinstance(value, (int, np.integer)) else tuple(value)
    if len(values) != ndim:
        raise ValueError(f"{name}: got {value!r}, expected an int or {ndim} ints")
    return values


def _padding_pairs(padding, in_size, kernel, stride, dilation):
    """((before, after), ...) for any way of saying it; `in_size` is only used by "same"."""
    ndim = len(kernel)
    if isinstance(padding, str):
        if padding == "valid":
            return ((0, 0),) * ndim
        if padding != "same" or in_size is None:
            raise ValueError(f"padding: got {padding!r}, expected ints, (before, after) pairs, 'same' or 'valid'")
        pairs = []
        for size, ker, step, dil in zip(in_size, kernel, stride, dilation, strict=True):
            total = max((-(-size // step) - 1) * step + (ker - 1) * dil + 1 - size, 0)
            pairs.append((total // 2, total - total // 2))
        return tuple(pairs)
    pairs = _per_dim(padding, ndim, "padding")
    return tuple((pair, pair) if isinstance(pair, (int, np.integer)) else tuple(pair) for pair in pairs)


def _out_size(in_size, kernel, stride, pairs, dilation):
    sizes = []
    for size, ker, step, (before, after), dil in zip(in_size, kernel, stride, pairs, dilation, strict=True):
        reach = (ker - 1) * dil + 1
        room = size + before + after - reach
        if room < 0 and (size or reach > 1):  # one tap makes nothing of nothing
            raise ValueError(
                f"weight: got kernel {kernel} with dilation {dilation}, larger than the input {in_size} "
                f"with padding {pairs}"
            )
        sizes.append(room // step + 1)
    return tuple(sizes)


def _check_channels(name, got, expected):
    if got != expected:
        raise ValueError(f"{name}: got {got} channels, expected {expected}")


def _check_groups(groups, *channels):
    if groups < 1 or any(count % groups for count in channels):
        raise ValueError(f"groups: got {groups}, expected a divisor of the channel counts {channels}")


def _kernel_of(kernel_size, ndim, groups):
    """Spatial kernel, and the channels (first, second * groups) of the weight if its full shape was given."""
    if isinstance(kernel_size, (int, np.integer)):
        return (kernel_size,) * ndim, (None, None)
    sizes = tuple(kernel_size)
    if len(sizes) == ndim + 2:
        return sizes[2:], (sizes[0], sizes[1] * groups)
    return _per_dim(sizes, ndim, "kernel_size"), (None, None)


def _weight_operands(x, grad_output, in_c, out_c, groups, layout):
    """x and grad_output as (N, C, *spatial); None for a channel count takes all there are."""
    images, grads = _channels_first(x, layout, in_c), _channels_first(grad_output, layout, out_c)
    _check_groups(groups, images.shape[1], grads.shape[1])
    _check_channels("x", images.shape[1], images.shape[1] if in_c is None else in_c)
    _check_channels("grad_output", grads.shape[1], grads.shape[1] if out_c is None else out_c)
    if images.shape[0] != grads.shape[0]:
        raise ValueError(f"grad_output: got batch {grads.shape[0]}, expected {images.shape[0]}")
    return images, grads


def _check_size(got, expected):
    if got != expected:
        raise ValueError(f"grad_output: got spatial size {got}, expected {expected}")


def _transposed_size(size, kernel, geometry, output_padding):
    """Spatial size of the result of a transposed convolution; `geometry` is (stride, padding pairs, dilation).

    Nothing becomes nothing. Less than nothing is what padding takes away too much, unless `output_padding` adds it.
    """
    sizes = zip(size, kernel, *geometry, output_padding, strict=True)
    return tuple(
        (count - 1) * step - before - after + (ker - 1) * dil + 1 + extra if count else 0
        for count, ker, step, (before, after), dil, extra in sizes
    )


def _check_transposed(small, large, kernel, geometry):
    """Some output_padding must lead from the spatial size `small` to `large`."""
    least = _transposed_size(small, kernel, geometry, (0,) * len(small))
    for size, count, base, step, dil in zip(small, large, least, geometry[0], geometry[2], strict=True):
        if not 0 <= count - base < (max(step, dil) if size else 1):
            raise ValueError(f"grad_output: got spatial size {large}, expected {least} plus an output_padding")


# --- the three passes on (groups, channels, batch, *spatial) ---


def _taps(in_size, out_size, kernel, stride, pairs, dilation):
    """Yield (tap, out_at, in_at): a kernel position and the slices of outputs and inputs which it connects."""
    for tap in itertools.product(*map(range, kernel)):
        out_at, in_at = [...], [...]
        for size, out, index, step, (before, _), dil in zip(
            in_size, out_size, tap, stride, pairs, dilation, strict=True
        ):
            offset = index * dil - before  # input position of output 0
            first = max(-(offset // step), 0)
            last = min((size - 1 - offset) // step + 1, out)
            if first >= last:
                break
            out_at.append(slice(first, last))
            in_at.append(slice(first * step + offset, (last - 1) * step + offset + 1, step))
        else:
            yield tap, tuple(out_at), tuple(in_at)


def _flat(array):
    return array.reshape(*array.shape[:2], math.prod(array.shape[2:]))


def _over_positions(a, b):
    """(..., M, positions) times (..., N, positions) transposed; pairwise, so that errors do not grow with positions."""
    positions = a.shape[-1]
    if positions <= LONGEST_CHAIN:
        return a @ b.swapaxes(-1, -2)
    half = positions // 2
    return _over_positions(a[..., :half], b[..., :half]) + _over_positions(a[..., half:], b[..., half:])


def _forward(x, weight, out_size, *geometry):
    y = np.zeros((weight.shape[0], weight.shape[1], x.shape[2], *out_size))
    for tap, out_at, in_at in _taps(x.shape[3:], out_size, weight.shape[3:], *geometry):
        part = y[out_at]
        part += (weight[:, :, :, *tap] @ _flat(x[in_at])).reshape(part.shape)
    return y


def _backward_data(grad_output, weight, in_size, *geometry):
    grad = np.zeros((weight.shape[0], weight.shape[2], grad_output.shape[2], *in_size))
    for tap, out_at, in_at in _taps(in_size, grad_output.shape[3:], weight.shape[3:], *geometry):
        part = grad[in_at]
        part += (weight[:, :, :, *tap].swapaxes(1, 2) @ _flat(grad_output[out_at])).reshape(part.shape)
    return grad


def _backward_weight(x, grad_output, kernel, *geometry):
    grad = np.zeros((x.shape[0], grad_output.shape[1], x.shape[1], *kernel))
    for tap, out_at, in_at in _taps(x.shape[3:], grad_output.shape[3:], kernel, *geometry):
        grad[:, :, :, *tap] = _over_positions(_flat(grad_output[out_at]), _flat(x[in_at]))
    return grad


def _masked(result, mask, channel_axes=()):
    """`result` where a mask is not zero; zeros elsewhere.

    The mask has the shape of the result, or bits for its elements (uint8, lowest bit first), or one value per pixel:
    without the channel axes, or with size 1 there.
    """
    if mask is None:
        return result
    mask = np.asarray(mask)
    if mask.dtype == np.uint8:
        mask = np.unpackbits(mask, count=result.size, bitorder="little").reshape(result.shape)
    elif mask.ndim == result.ndim - len(channel_axes) and channel_axes:
        mask = np.expand_dims(mask, channel_axes)
    if channel_axes and mask.shape == tuple(1 if at in channel_axes else size for at, size in enumerate(result.shape)):
        mask = np.broadcast_to(mask, result.shape)
    if mask.shape != result.shape:
        raise ValueError(f"output_mask: got shape {mask.shape}, expected {result.shape}")
    return np.where(mask != 0, result, 0)


def _data_result(grad, input_shape, output_mask, layout, dtype, out):
    """(groups, C / groups, N, *spatial) -> `input_shape`, which is in `layout`, zeros where the mask is zero."""
    result = _from_channels_first(_join_groups(grad), layout)
    if result.shape != tuple(input_shape):
        raise ValueError(f"input_shape: got {tuple(input_shape)}, expected {result.shape}")
    return _finish(_masked(result, output_mask, _channel_axes(layout, result.ndim)), "", dtype, out)


def _channel_axes(layout, ndim):
    """The axes of an array in `layout` that are channels."""
    return (1, ndim - 1) if layout.endswith(f"{LANES}c") else (ndim - 1,) if layout.endswith("C") else (1,)


def _weight_result(grad, output_mask, layout, dtype, out):
    """(groups, K / groups, C / groups, *kernel) -> (K, C / groups, *kernel), zeros where the mask is zero."""
    return _finish(_masked(grad.reshape(-1, *grad.shape[2:]), output_mask), layout, dtype, out)


def _add_bias(y, bias, residual, activation):
    """Bias, residual and activation of an array whose channels are axis 1; the residual is one like it."""
    if activation not in (None, "relu"):
        raise ValueError(f"activation: got {activation!r}, expected None or 'relu'")
    if bias is not None:
        bias = np.asarray(bias)
        if bias.shape != (y.shape[1],):
            raise ValueError(f"bias: got shape {bias.shape}, expected ({y.shape[1]},)")
        y = y + bias.astype(np.float64).reshape(-1, *(1,) * (y.ndim - 2))
    if residual is not None:
        if residual.shape != y.shape:
            raise ValueError(f"residual: got shape {residual.shape}, expected {y.shape}")
        y = y + residual
    return np.maximum(y, 0) if activation == "relu" else y  # np.maximum keeps NaN


def _weight_groups(weight, groups):
    """(K, C / groups, *kernel) -> float64 (groups, K / groups, C / groups, *kernel)."""
    return weight.astype(np.float64).reshape(groups, weight.shape[0] // groups, *weight.shape[1:])


# --- public functions, one body for any number of spatial dimensions ---


def _functions(ndim):
    default = _layouts(ndim)[0]

    def geometry_of(kernel, in_size, stride, padding, dilation):
        stride, dilation = _per_dim(stride, ndim, "stride"), _per_dim(dilation, ndim, "dilation")
        return stride, _padding_pairs(padding, in_size, kernel, stride, dilation), dilation

    @_silent
    def conv(
        x,
        weight,
        bias=None,
        *,
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
        layout=default,
        activation=None,
        residual=None,
        skip="auto",
        threshold=0.0,
        output_mask=None,
        num_threads=None,
        out=None,
    ):
        """Convolution (cross-correlation) of `x` with `weight` (K, C / groups, *kernel)."""
        _check_layout(layout, ndim)
        x, weight = _thresholded(skip, threshold, input=x, weight=weight)
        out_c, in_c, kernel = weight.shape[0], weight.shape[1] * groups, weight.shape[2:]
        images = _channels_first(x, layout, in_c)
        _check_groups(groups, out_c)
        _check_channels("x", images.shape[1], in_c)
        geometry = geometry_of(kernel, images.shape[2:], stride, padding, dilation)
        out_size = _out_size(images.shape[2:], kernel, *geometry)
        y = _forward(_split_groups(images, groups), _weight_groups(weight, groups), out_size, *geometry)
        if residual is not None:
            residual = _channels_first(np.asarray(residual), layout, out_c)
        y = _from_channels_first(_add_bias(_join_groups(y), bias, residual, activation), layout)
        return _finish(_masked(y, output_mask, _channel_axes(layout, y.ndim)), "", x.dtype, out)

    @_silent
    def conv_backward_data(
        grad_output,
        weight,
        input_shape,
        *,
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
        layout=default,
        skip="auto",
        threshold=0.0,
        output_mask=None,
        num_threads=None,
        out=None,
    ):
        """Gradient of the convolution with respect to its input, whose full shape in `layout` is `input_shape`."""
        _check_layout(layout, ndim)
        grad_output, weight = _thresholded(skip, threshold, grad_output=grad_output, weight=weight)
        out_c, kernel = weight.shape[0], weight.shape[2:]
        in_size = _spatial_of(input_shape, layout)
        grads = _channels_first(grad_output, layout, out_c)
        _check_groups(groups, out_c)
        _check_channels("grad_output", grads.shape[1], out_c)
        geometry = geometry_of(kernel, in_size, stride, padding, dilation)
        _check_size(grads.shape[2:], _out_size(in_size, kernel, *geometry))
        grad = _backward_data(_split_groups(grads, groups), _weight_groups(weight, groups), in_size, *geometry)
        return _data_result(grad, input_shape, output_mask, layout, grad_output.dtype, out)

    @_silent
    def conv_backward_weight(
        x,
        grad_output,
        kernel_size,
        *,
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
        layout=default,
        skip="auto",
        threshold=0.0,
        output_mask=None,
        num_threads=None,
        out=None,
    ):
        """Gradient of the convolution with respect to its weight; `kernel_size` may be the full shape of the weight."""
        _check_layout(layout, ndim)
        x, grad_output = _thresholded(skip, threshold, input=x, grad_output=grad_output)
        kernel, (out_c, in_c) = _kernel_of(kernel_size, ndim, groups)
        images, grads = _weight_operands(x, grad_output, in_c, out_c, groups, layout)
        geometry = geometry_of(kernel, images.shape[2:], stride, padding, dilation)
        _check_size(grads.shape[2:], _out_size(images.shape[2:], kernel, *geometry))
        grad = _backward_weight(_split_groups(images, groups), _split_groups(grads, groups), kernel, *geometry)
        return _weight_result(grad, output_mask, default, x.dtype, out)

    @_silent
    def conv_transpose(
        x,
        weight,
        bias=None,
        *,
        stride=1,
        padding=0,
        output_padding=0,
        dilation=1,
        groups=1,
        layout=default,
        activation=None,
        residual=None,
        skip="auto",
        threshold=0.0,
        output_mask=None,
        num_threads=None,
        out=None,
    ):
        """Transposed convolution of `x` with `weight` (C, K / groups, *kernel), as in PyTorch."""
        _check_layout(layout, ndim)
        x, weight = _thresholded(skip, threshold, input=x, weight=weight)
        in_c, kernel = weight.shape[0], weight.shape[2:]
        images = _channels_first(x, layout, in_c)
        _check_groups(groups, in_c)
        _check_channels("x", images.shape[1], in_c)
        geometry = geometry_of(kernel, None, stride, padding, dilation)
        extra = _per_dim(output_padding, ndim, "output_padding")
        if any(not 0 <= more < max(step, dil) for more, step, dil in zip(extra, geometry[0], geometry[2], strict=True)):
            raise ValueError(f"output_padding: got {extra}, expected less than max(stride, dilation)")
        out_size = _transposed_size(images.shape[2:], kernel, geometry, extra)
        if min(out_size) < 0:
            raise ValueError(f"x: got spatial size {images.shape[2:]}, which gives an output of size {out_size}")
        y = _backward_data(_split_groups(images, groups), _weight_groups(weight, groups), out_size, *geometry)
        if residual is not None:
            residual = _channels_first(np.asarray(residual), layout, weight.shape[1] * groups)
        y = _from_channels_first(_add_bias(_join_groups(y), bias, residual, activation), layout)
        return _finish(_masked(y, output_mask, _channel_axes(layout, y.ndim)), "", x.dtype, out)

    @_silent
    def conv_transpose_backward_data(
        grad_output,
        weight,
        input_shape,
        *,
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
        layout=default,
        skip="auto",
        threshold=0.0,
        output_mask=None,
        num_threads=None,
        out=None,
    ):
        """Gradient of the transposed convolution with respect to its input, of full shape `input_shape` in `layout`."""
        _check_layout(layout, ndim)
        grad_output, weight = _thresholded(skip, threshold, grad_output=grad_output, weight=weight)
        in_c, out_c, kernel = weight.shape[0], weight.shape[1] * groups, weight.shape[2:]
        grads = _channels_first(grad_output, layout, out_c)
        _check_groups(groups, in_c)
        _check_channels("grad_output", grads.shape[1], out_c)
        geometry = geometry_of(kernel, None, stride, padding, dilation)
        in_size = _spatial_of(input_shape, layout)
        _check_transposed(in_size, grads.shape[2:], kernel, geometry)
        grad = _forward(_split_groups(grads, groups), _weight_groups(weight, groups), in_size, *geometry)
        return _data_result(grad, input_shape, output_mask, layout, grad_output.dtype, out)

    @_silent
    def conv_transpose_backward_weight(
        x,
        grad_output,
        kernel_size,
        *,
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
        layout=default,
        skip="auto",
        threshold=0.0,
        output_mask=None,
        num_threads=None,
        out=None,
    ):
        """Gradient of the transposed convolution with respect to its weight (C, K / groups, *kernel)."""
        _check_layout(layout, ndim)
        x, grad_output = _thresholded(skip, threshold, input=x, grad_output=grad_output)
        kernel, (in_c, out_c) = _kernel_of(kernel_size, ndim, groups)
        images, grads = _weight_operands(x, grad_output, in_c, out_c, groups, layout)
        geometry = geometry_of(kernel, None, stride, padding, dilation)
        _check_transposed(images.shape[2:], grads.shape[2:], kernel, geometry)
        grad = _backward_weight(_split_groups(grads, groups), _split_groups(images, groups), kernel, *geometry)
        return _weight_result(grad, output_mask, default, x.dtype, out)

    functions = (
        conv,
        conv_backward_data,
        conv_backward_weight,
        conv_transpose,
        conv_transpose_backward_data,
        conv_transpose_backward_weight,
    )
    for function in functions:
        base, backward, operand = function.__name__.partition("_backward")
        function.__name__ = function.__qualname__ = f"{base}{ndim}d{backward}{operand}"
    return functions


(
    conv1d,
    conv1d_backward_data,
    conv1d_backward_weight,
    conv_transpose1d,
    conv_transpose1d_backward_data,
    conv_transpose1d_backward_weight,
) = _functions(1)
(
    conv2d,
    conv2d_backward_data,
    conv2d_backward_weight,
    conv_transpose2d,
    conv_transpose2d_backward_data,
    conv_transpose2d_backward_weight,
) = _functions(2)
(
    conv3d,
    conv3d_backward_data,
    conv3d_backward_weight,
    conv_transpose3d,
    conv_transpose3d_backward_data,
    conv_transpose3d_backward_weight,
) = _functions(3)


@_silent
def linear(
    x, weight, bias=None, *, activation=None, residual=None, skip="auto", threshold=0.0, output_mask=None,
    num_threads=None, out=None,
):  # fmt: skip
    """`x` (..., in) times `weight` (out, in) transposed."""
    x, weight = _thresholded(skip, threshold, input=x, weight=weight)
    out_c, in_c = weight.shape
    _check_channels("x", x.shape[-1], in_c)
    rows = _rows(x)
    y = rows @ weight.astype(np.float64).T
    if residual is not None:
        shape = (*x.shape[:-1], out_c)
        if np.shape(residual) != shape:
            raise ValueError(f"residual: got shape {np.shape(residual)}, expected {shape}")
        residual = np.reshape(residual, y.shape)
    y = _add_bias(y, bias, residual, activation).reshape(*x.shape[:-1], out_c)
    return _finish(_masked(y, output_mask, (y.ndim - 1,)), "", x.dtype, out)


@_silent
def linear_backward_data(
    grad_output, weight, *, skip="auto", threshold=0.0, output_mask=None, num_threads=None, out=None
):
    """Gradient of `linear` with respect to x: (..., in)."""
    grad_output, weight = _thresholded(skip, threshold, grad_output=grad_output, weight=weight)
    _check_channels("grad_output", grad_output.shape[-1], weight.shape[0])
    grad = (_rows(grad_output) @ weight.astype(np.float64)).reshape(*grad_output.shape[:-1], weight.shape[1])
    return _finish(_masked(grad, output_mask, (grad.ndim - 1,)), "", grad_output.dtype, out)


@_silent
def linear_backward_weight(x, grad_output, *, skip="auto", threshold=0.0, output_mask=None, num_threads=None, out=None):
    """Gradient of `linear` with respect to its weight: (out, in)."""
    x, grad_output = _thresholded(skip, threshold, input=x, grad_output=grad_output)
    if x.shape[:-1] != grad_output.shape[:-1]:
        raise ValueError(f"grad_output: got leading sizes {grad_output.shape[:-1]}, expected {x.shape[:-1]}")
    return _finish(_masked(_over_positions(_rows(grad_output).T, _rows(x).T), output_mask), "", x.dtype, out)


def _rows(array):
    """(..., channels) -> float64 (positions, channels)."""
    return array.astype(np.float64).reshape(math.prod(array.shape[:-1]), array.shape[-1])


@_silent
def grad_bias(grad_output, *, layout="NCHW", num_threads=None, out=None):
    """Gradient with respect to the bias: the sum over everything but the channels (all lanes of a blocked layout)."""
    grad_output = np.asarray(grad_output)
    known = ["NC", *_layouts(1), *_layouts(2), *_layouts(3)]
    if layout not in known:
        raise ValueError(f"layout: got {layout!r}, expected one of {', '.join(known)}")
    grads = grad_output if layout == "NC" else _channels_first(grad_output, layout)
    channels = grads.shape[1]
    rows = np.moveaxis(grads, 1, 0).reshape(channels, grads.size // max(1, channels)).astype(np.float64, order="C")
    return _finish(rows.sum(axis=1), "", grad_output.dtype, out)  # NumPy sums pairwise along the contiguous axis
