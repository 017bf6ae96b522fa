"""Validation: what a call's arguments must be, once, before anything is written.

Every error names the argument, what was got and what was expected. Arrays are judged by their forms alone: the results
of these checks are kept and hold for all arrays of the same forms (call.py).
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, Literal

import numpy as np

from . import hints, shape_hints
from .arrays import INT64_MAX, SPIKE_DTYPES, Form, check_form, contiguous
from .layout import Layout
from .problem import Problem

Padding = int | str | tuple
FLOAT32_MAX = float(np.finfo(np.float32).max)
WITHOUT_OPERAND = ("none", "output")  # of `skip`: no elements of an operand are tested


def whole(name: str, value: Any, least: int) -> int:
    """`value` as an int of at least `least`."""
    try:
        number = None if isinstance(value, (bool, np.bool_)) else value.__index__()
    except (AttributeError, TypeError):  # arrays have the method, and raise
        number = None
    if number is None:
        shape = getattr(value, "shape", None)
        got = f"{type(value).__name__} of shape {tuple(shape)}" if shape else repr(value)
        raise TypeError(f"{name}: got {got}, expected a whole number{hints.sizes(name) if shape else ''}")
    if number < least:
        raise ValueError(f"{name}: got {number}, expected at least {least}")
    return number


def per_dim(name: str, value: Any, dims: int, least: int) -> tuple[int, ...]:
    """One whole number per spatial dimension; a single number stands for all of them."""
    if not isinstance(value, (tuple, list)):
        return (whole(name, value, least),) * dims
    if len(value) != dims:
        pairs = f"; (before, after) pairs are a tuple for each of {dims} dimensions"
        hint = pairs if name == "padding" and len(value) == 2 * dims else ""
        raise ValueError(f"{name}: got {len(value)} numbers, expected 1 or {dims}, one per spatial dimension{hint}")
    return tuple(whole(name, one, least) for one in value)


def padding_pairs(value: Padding, dims: int) -> tuple[tuple[int, int], ...] | Literal["same"]:
    """(before, after) per spatial dimension, or "same"."""
    if isinstance(value, str):
        if value not in ("same", "valid"):
            raise ValueError(
                f"padding: got {value!r}, expected 'same', 'valid' or numbers{hints.word(value, ('same', 'valid'))}"
            )
        return "same" if value == "same" else ((0, 0),) * dims
    if isinstance(value, (tuple, list)) and any(isinstance(one, (tuple, list)) for one in value):
        if len(value) != dims or any(not isinstance(one, (tuple, list)) or len(one) != 2 for one in value):
            raise ValueError(f"padding: got {value!r}, expected one (before, after) pair for each of {dims} dimensions")
        return tuple((whole("padding", one[0], 0), whole("padding", one[1], 0)) for one in value)
    return tuple((one, one) for one in per_dim("padding", value, dims, 0))


def word(name: str, value: Any, known: tuple) -> Any:
    """`value` if it is one of `known`."""
    if value not in known:
        expected = ", ".join(map(repr, known))
        raise ValueError(f"{name}: got {value!r}, expected one of {expected}{hints.word(value, known)}")
    return value


def flag(name: str, value: Any) -> bool:
    """`value` as a bool."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: got {value!r}, expected True or False")
    return bool(value)


def number(name: str, value: Any) -> float:
    """`value` as a float."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (Real, np.floating)):
        raise TypeError(f"{name}: got {value!r}, expected a number")
    return float(value)


def sparsity(name: str, value: Any) -> float:
    """`value` as a share of zeros: at least 0 and less than 1."""
    share = number(name, value)
    if not 0 <= share < 1:
        raise ValueError(f"{name}: got {value!r}, expected at least 0 and less than 1")
    return share


def threshold(value: Any, skip: str) -> float:
    """`value` as a float of at least zero that float32 can hold, and only zero where `skip` names no operand."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"threshold: got {value!r}, expected a number")
    number = value if isinstance(value, int) else float(value)  # an int may be too large for a float
    if not 0 <= number <= FLOAT32_MAX:
        raise ValueError(f"threshold: got {value!r}, expected a number from 0 to {FLOAT32_MAX:.3g}, float32's largest")
    if number > 0 and skip in WITHOUT_OPERAND:
        raise ValueError(f"threshold: got {value!r} with skip={skip!r}, expected 0 where no operand is skipped")
    return float(number)


def shaped(name: str, array: Form | np.ndarray, rank: int, what: str, hint: str = "") -> None:
    """Whether an array has `rank` dimensions."""
    if array.ndim != rank:
        raise ValueError(f"{name}: got {array.ndim} dimensions (shape {array.shape}), expected {rank}: {what}{hint}")


def tensor(name: str, array: Form | np.ndarray, layout: Layout) -> None:
    """Whether an activation or gradient array can be in `layout`."""
    if array.ndim != layout.rank:
        shaped(name, array, layout.rank, layout.name, shape_hints.rank(name, array.shape, layout))
    if layout.kind == "blocked" and array.shape[-1] != 16:
        raise ValueError(f"{name}: got shape {array.shape}, expected 16 as its last size ({layout.name})")


def features(name: str, array: Form) -> None:
    """Whether an array has a last dimension."""
    if array.ndim < 1:
        raise ValueError(f"{name}: got a scalar, expected (..., features)")


def weights(weight: Form, dims: int) -> None:
    """Whether an array is a weight (out channels, in channels of a group, *kernel)."""
    one_tap = f"; of a kernel of one tap: weight[:, :{', None' * dims}]" if weight.ndim == 2 else ""
    shaped("weight", weight, dims + 2, "(out channels, in channels / groups, *kernel)", one_tap)
    if 0 in weight.shape:
        raise ValueError(f"weight: got shape {weight.shape}, expected no size of zero")


def bias(given: Form | None, channels: int) -> None:
    """Whether a bias, if there is one, has one element per output channel."""
    if given is not None:
        flat = "; pass bias.reshape(-1)" if math.prod(given.shape) == channels else ""
        shaped("bias", given, 1, "(out channels,)", flat)
        sizes("bias", given.shape, (channels,))


def residual(given: Form | None, shape: tuple[int, ...]) -> None:
    """Whether a residual, if there is one, has the shape of the result."""
    if given is not None:
        sizes("residual", given.shape, shape)


def same_dtype(**named: Form | np.ndarray | None) -> np.dtype:
    """The dtype that all arrays share."""
    given = {name: array for name, array in named.items() if array is not None}
    first, *others = given
    if given[first].dtype in SPIKE_DTYPES:
        instead = f"pass {first}.astype(np.float32)"
        raise TypeError(f"{first}: got dtype {given[first].dtype!s}, expected float32 or float64: {instead}")
    for name in others:
        if given[name].dtype != given[first].dtype:
            raise TypeError(f"{name}: got dtype {given[name].dtype!s}, expected {given[first].dtype!s} as {first} has")
    return given[first].dtype


def spikes(x: Form, input_mask: Form | None, **other: Form) -> bool:
    """Whether x is zeros and ones, as bools or bits; the other operand then is float32, and nothing else is known."""
    if x.dtype not in SPIKE_DTYPES:
        return False
    for name, array in other.items():
        if array.dtype != np.float32:
            raise TypeError(f"{name}: got dtype {array.dtype!s}, expected float32 with an x of zeros and ones")
    if input_mask is not None:
        raise ValueError("input_mask: got one with an x of zeros and ones, expected none: x itself says what is zero")
    return True


def result(out: Form | None, shape: tuple[int, ...], dtype: np.dtype) -> Form:
    """The form of the result: that of `out`, if it fits, or C-contiguous."""
    if out is None:
        return contiguous(shape, dtype)
    check_form(out, shape, dtype)
    return out


def mask(
    name: str, given: Form | None, shape: tuple[int, ...], dtype: np.dtype, channel_axes: tuple[int, ...] = ()
) -> Form | None:
    """The form of a mask for arrays of this shape and dtype: an array of the same shape, or one bit per element.

    Without `channel_axes`, or with a size of 1 there, an array has one value per pixel, for all of its channels.
    """
    if given is None:
        return None
    if given.dtype != np.uint8:
        if given.dtype not in (dtype, np.dtype(np.bool_)):
            raise TypeError(f"{name}: got dtype {given.dtype!s}, expected {dtype!s}, bool, or uint8 for a bit mask")
        given = _over_channels(given, shape, channel_axes)
        sizes(name, given.shape, shape)
        return given
    size = -(-math.prod(shape) // 8)
    if given.shape != (size,):
        raise ValueError(f"{name}: got shape {given.shape}, expected a bit mask of shape {(size,)} for {shape}")
    return contiguous(shape, given.dtype)


def _over_channels(given: Form, shape: tuple[int, ...], channel_axes: tuple[int, ...]) -> Form:
    """A mask of pixels as one of all their channels, which lie at the same place; any other mask as it is."""
    others = [axis for axis in range(len(shape)) if axis not in channel_axes]
    if given.shape == tuple(shape[axis] for axis in others):
        steps = dict(zip(others, given.strides, strict=True))
    elif given.shape == tuple(1 if axis in channel_axes else size for axis, size in enumerate(shape)) != shape:
        steps = {axis: given.strides[axis] for axis in others}
    else:
        return given
    return Form(tuple(shape), tuple(steps.get(axis, 0) for axis in range(len(shape))), given.dtype)


def channels(
    name: str, array: Form, layout: Layout, expected: int, weight: tuple[int, ...] | None, axis: int, groups: int
) -> None:
    """Whether `array` has room for just `expected` channels, as size `axis` of the weight's shape says."""
    if array.shape != layout.shape(array.shape[0], expected, layout.size(array.shape)):
        hint = shape_hints.channels(array.shape, layout, weight, axis, groups, expected)
        raise ValueError(
            f"{name}: got shape {array.shape} ({layout.name}), expected {expected} channels as the other operands "
            f"have{hint}"
        )


def input_shape(
    shape: tuple[int, ...], layout: Layout, batch: int, expected: int, weight: tuple[int, ...], axis: int, groups: int
) -> None:
    """The same of the shape of a result that the caller names."""
    wanted = layout.shape(batch, expected, layout.size(shape))
    if shape != wanted:
        hint = "" if shape[0] != batch else shape_hints.channels(shape, layout, weight, axis, groups, expected)
        raise ValueError(f"input_shape: got shape {shape}, expected {wanted}{hint}")


def gradient(name: str, got: tuple[int, ...], expected: tuple[int, ...], layout: Layout, source: str) -> None:
    """Whether a gradient has the shape of the forward result, which follows from `source`."""
    if got != expected:
        hint = shape_hints.gradient(got, layout, expected, source)
        raise ValueError(f"{name}: got shape {got}, expected {expected}{hint}")


def sizes(name: str, got: tuple[int, ...], expected: tuple[int, ...], hint: str = "") -> None:
    """Whether a shape is the one that the other arguments lead to."""
    if tuple(got) != tuple(expected):
        raise ValueError(f"{name}: got shape {tuple(got)}, expected {tuple(expected)}{hint}")


def full_shape(name: str, value: Any, layout: Layout) -> tuple[int, ...]:
    """The shape of a result in `layout`."""
    if not isinstance(value, (tuple, list)):
        got, hint = (type(value).__name__, ": pass its shape") if hasattr(value, "shape") else (repr(value), "")
        raise ValueError(f"{name}: got {got}, expected the {layout.rank} sizes of an array in {layout.name}{hint}")
    if len(value) != layout.rank:
        raise ValueError(f"{name}: got {value!r}, expected the {layout.rank} sizes of an array in {layout.name}")
    return tuple(whole(name, one, 0) for one in value)


def kernel_and_channels(value: Any, dims: int) -> tuple[tuple[int, ...], tuple[int, int] | None]:
    """(kernel, None) from a kernel size, or (kernel, (out channels, in channels / groups)) from a weight shape."""
    if isinstance(value, (tuple, list)) and len(value) == dims + 2:
        shape = tuple(whole("kernel_size", one, 1) for one in value)
        return shape[2:], (shape[0], shape[1])
    if isinstance(value, (tuple, list)) and len(value) != dims:
        raise ValueError(
            f"kernel_size: got {len(value)} numbers, expected 1, {dims} or a weight shape of {dims + 2} numbers"
        )
    return per_dim("kernel_size", value, dims, 1), None


def problem(
    dims: int, batch: int, in_channels: int, out_channels: int, in_size: tuple[int, ...], kernel: tuple[int, ...],
    stride: Any, padding: Padding, dilation: Any, groups: Any, out_size: tuple[int, ...] | None = None,
) -> Problem:  # fmt: skip
    """The Problem of a convolution; `out_size` overrides what follows from the sizes (transposed convolutions)."""
    stride, dilation = per_dim("stride", stride, dims, 1), per_dim("dilation", dilation, dims, 1)
    pairs = padding_pairs(padding, dims)
    groups = whole("groups", groups, 1)
    for name, count in (("in", in_channels), ("out", out_channels)):
        if count % groups:
            raise ValueError(f"groups: got {groups}, expected a divisor of the {count} {name} channels")
    before, sizes = [], []
    for dim, (size, taps) in enumerate(zip(in_size, kernel, strict=True)):
        reach = dilation[dim] * (taps - 1) + 1
        if pairs == "same":
            total = max(0, (-(-size // stride[dim]) - 1) * stride[dim] + reach - size)
            first, last = total // 2, total - total // 2
        else:
            first, last = pairs[dim]
        length = (size + first + last - reach) // stride[dim] + 1
        if out_size is None and length < 1 and (size or reach > 1):
            raise ValueError(
                f"weight: got a kernel that spans {reach} (size {taps}, dilation {dilation[dim]}) in spatial dimension "
                f"{dim}, expected at most the padded input's {size + first + last}"
            )
        before.append(first)
        sizes.append(max(0, length))
    out_size = tuple(sizes if out_size is None else out_size)
    made = Problem(
        batch, groups, in_channels, out_channels, tuple(in_size), out_size, tuple(kernel),
        tuple(1 if size <= 1 else step for size, step in zip(out_size, stride, strict=True)),  # one output: no step
        tuple(before),
        tuple(1 if taps == 1 else step for taps, step in zip(kernel, dilation, strict=True)),  # one tap: no distance
    )  # fmt: skip
    _addressable(made)
    return made


def transposed_size(
    size: tuple[int, ...], kernel: tuple[int, ...], output_padding: Any, stride: Any, padding: Padding, dilation: Any
) -> tuple[int, ...]:
    """Output size of a transposed convolution."""
    dims = len(size)
    stride, dilation = per_dim("stride", stride, dims, 1), per_dim("dilation", dilation, dims, 1)
    extra = per_dim("output_padding", output_padding, dims, 0)
    result = []
    for dim, least in enumerate(_transposed_least(size, kernel, stride, padding, dilation)):
        if extra[dim] >= max(stride[dim], dilation[dim]):
            raise ValueError(
                f"output_padding: got {extra[dim]}, expected less than the larger of stride {stride[dim]} and dilation "
                f"{dilation[dim]}"
            )
        length = least + extra[dim]
        if length < 0 and size[dim]:
            raise ValueError(
                f"padding: got {_transposed_padding(padding, dims)[dim]} in spatial dimension {dim}, expected at most "
                f"{length + sum(_transposed_padding(padding, dims)[dim])} in all, what the result has without padding"
            )
        result.append(max(0, length) if size[dim] else 0)
    return tuple(result)


def transposed_gradient(
    size: tuple[int, ...], kernel: tuple[int, ...], got: tuple[int, ...], stride: Any, padding: Padding, dilation: Any
) -> None:
    """Whether the gradient of a transposed convolution has a size that some output_padding leads to.

    Without output_padding the size may be less than zero: it is output_padding that makes some results possible.
    """
    dims = len(size)
    stride, dilation = per_dim("stride", stride, dims, 1), per_dim("dilation", dilation, dims, 1)
    for dim, least in enumerate(_transposed_least(size, kernel, stride, padding, dilation)):
        first = max(0, least) if size[dim] else 0
        last = least + max(stride[dim], dilation[dim]) - 1 if size[dim] else 0
        if not first <= got[dim] <= last:
            sizes = f"{first} to {last}" if first < last else f"{first}" if first == last else "none: padding is larger"
            raise ValueError(
                f"grad_output: got size {got[dim]} in spatial dimension {dim}, expected {sizes} for an input of size "
                f"{size[dim]}"
            )


def _transposed_least(
    size: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...], padding: Padding, dilation: tuple[int, ...]
) -> list[int]:
    """Columns of a transposed convolution's result without output_padding; less than none where padding is larger."""
    pairs = _transposed_padding(padding, len(size))
    return [
        (count - 1) * step + apart * (taps - 1) + 1 - sum(pair)
        for count, taps, step, apart, pair in zip(size, kernel, stride, dilation, pairs, strict=True)
    ]


def _transposed_padding(padding: Padding, dims: int) -> tuple[tuple[int, int], ...]:
    pairs = padding_pairs(padding, dims)
    if pairs == "same":
        raise ValueError("padding: got 'same', expected numbers or 'valid' for a transposed convolution")
    return pairs


def _addressable(made: Problem) -> None:
    """Byte counts of all operands and of packed copies (channels rounded up to 16) must fit into 64 bits."""
    taps = in_positions = out_positions = 8  # bytes of the largest element
    for one in made.kernel:
        taps *= one
    for one in made.in_size:
        in_positions *= one
    for one in made.out_size:
        out_positions *= one
    padded = (made.in_channels + 16 * made.groups) * (made.out_channels // made.groups + 16)
    biggest = {
        "weight": taps * padded,
        "x": in_positions * made.batch * (made.in_channels + 16),
        "result": out_positions * made.batch * (made.out_channels + 16),
    }
    for name, size in biggest.items():
        if size > INT64_MAX:
            raise ValueError(
                f"{name}: got sizes whose product overflows int64 ({made}), expected less than 2**63 bytes"
            )
