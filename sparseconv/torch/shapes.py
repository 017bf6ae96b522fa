"""Shapes and strides of results: where torch's own operators would put them, for real tensors and for fakes.

All functions take sizes and strides that may be symbolic. `Geometry` is what the operators take behind their tensors,
in the order of aten::convolution: stride, padding, dilation, transposed, output_padding, groups; nothing for linear.
`padding` is one number per dimension, or twice as many: all that are before, then all that are behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

from .._core import operations
from .._core.call import named

LAYOUTS = {1: "NCW", 2: "NCHW", 3: "NCDHW"}
Sizes = Sequence[int]


class Core(NamedTuple):
    """The three passes as the core has them, their geometry filled in."""

    forward: Callable[..., Any]
    backward_data: Callable[..., Any]
    backward_weight: Callable[..., Any]


@lru_cache(maxsize=1024)
def core(
    dims: int, stride: Sizes, padding: Sizes, dilation: Sizes, transposed: bool, output_padding: Sizes, groups: int
) -> Core:
    """The passes of convolutions with this geometry."""
    options: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    if len(padding) > dims:
        options["padding"] = tuple(zip(padding[:dims], padding[dims:], strict=True))
    options["layout"] = LAYOUTS[dims]
    kind = "conv_transpose" if transposed else "conv"
    more = {"output_padding": output_padding} if transposed else {}
    forward, *backward = [getattr(operations, kind + which) for which in ("", "_backward_data", "_backward_weight")]
    functions = [partial(named, make, dims, **options) for make in backward]
    return Core(partial(named, forward, dims, **options, **more), *functions)


def _linear_backward_data(input_shape: Sizes, **options: Any) -> Any:
    return named(operations.linear_backward_data, 0, **options)


def _linear_backward_weight(kernel_size: Sizes, **options: Any) -> Any:
    return named(operations.linear_backward_weight, 0, **options)


LINEAR = Core(partial(named, operations.linear, 0), _linear_backward_data, _linear_backward_weight)


class Result(NamedTuple):
    """What a layer returns, and what computes it."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    channels_last: bool  # the memory of activations: so is the gradient of the input
    core: Core
    channels: int  # of the result


def is_channels_last(shape: Sizes, strides: Sizes) -> bool:
    """Whether torch takes a tensor (N, C, *spatial) with these strides for channels_last (c10/core/MemoryFormat.h).

    Where one-element dimensions leave it open, as with one channel or 1 x 1 maps, the strides of these decide. With one
    spatial dimension there is no such format.
    """
    if len(shape) == 3:
        return False
    if strides[1] == 0:
        return False
    least = 0
    for dim in (1, *range(len(shape) - 1, 1, -1), 0):
        if shape[dim] == 0 or strides[dim] < least or (dim == 0 and least == strides[1]):
            return False
        least = strides[dim] * (shape[dim] if shape[dim] > 1 else 1)
    return True


def is_any_channels_last(shape: Sizes, strides: Sizes, weight_shape: Sizes, weight_strides: Sizes) -> bool:
    """Whether torch's convolutions give a channels_last result, and gradient of the input."""
    return is_channels_last(shape, strides) or is_channels_last(weight_shape, weight_strides)


def strides_of(shape: Sizes, channels_last: bool) -> tuple[int, ...]:
    """Strides of a new tensor (N, C, *spatial)."""
    order = (1, *range(len(shape) - 1, 1, -1), 0) if channels_last else tuple(range(len(shape) - 1, -1, -1))
    strides, step = [0] * len(shape), 1
    for dim in order:
        strides[dim] = step
        step = step * (shape[dim] if channels_last or shape[dim] > 1 else 1)
    return tuple(strides)


def dense_strides(shape: Sizes, strides: Sizes) -> tuple[int, ...]:
    """Strides of a new tensor like another: the same where that has neither gaps nor overlaps, else C-contiguous.

    Those of one-element dimensions are the same, too: torch's engine and DistributedDataParallel expect a gradient to
    have the strides of its parameter.
    """
    order = sorted(range(len(shape)), key=lambda dim: (-strides[dim], dim))
    step = 1
    for dim in reversed(order):
        if shape[dim] != 1:
            if strides[dim] != step:
                return strides_of(shape, False)
            step = step * shape[dim]
    return tuple(strides)


def convolution(
    shape: Sizes, strides: Sizes, weight_shape: Sizes, weight_strides: Sizes, stride: Sizes, padding: Sizes,
    dilation: Sizes, transposed: bool, output_padding: Sizes, groups: int,
) -> Result:  # fmt: skip
    """The result of a convolution; ValueError where sizes do not fit."""
    dims = len(weight_shape) - 2
    if dims not in (1, 2, 3):
        raise ValueError(f"weight: got shape {_text(weight_shape)}, expected 3 to 5 dimensions")
    if len(shape) != dims + 2:
        raise ValueError(
            f"input: got shape {_text(shape)}, expected {dims + 2} dimensions (N, C, ...), as the weight of shape "
            f"{_text(weight_shape)} has"
        )
    per_group = weight_shape[0] if transposed else weight_shape[1] * groups
    if shape[1] != per_group:
        raise ValueError(
            f"input: got {shape[1]} channels (shape {_text(shape)}), expected {per_group} with a weight of shape "
            f"{_text(weight_shape)} and groups={groups}"
        )
    if weight_shape[0] % groups:
        raise ValueError(f"groups: got {groups}, expected a divisor of the weight's first size {weight_shape[0]}")
    before, behind = (padding, padding) if len(padding) == dims else (padding[:dims], padding[dims:])
    size = []
    for dim in range(dims):
        length, taps, step = shape[2 + dim], weight_shape[2 + dim], stride[dim]
        reach, around = dilation[dim] * (taps - 1) + 1, before[dim] + behind[dim]
        if transposed:
            size.append((length - 1) * step + reach - around + output_padding[dim])
            continue
        size.append((length + around - reach) // step + 1)
    channels = weight_shape[1] * groups if transposed else weight_shape[0]
    result = (shape[0], channels, *size)
    for dim, one in enumerate(size):
        if one <= 0:
            raise ValueError(
                f"input: got shape {_text(shape)}, which leaves {one} elements of the result in spatial dimension "
                f"{dim} with a weight of shape {_text(weight_shape)} and padding {tuple(padding)}; expected at least 1"
            )
    last = is_any_channels_last(shape, strides, weight_shape, weight_strides)
    passes = core(dims, tuple(stride), tuple(padding), tuple(dilation), transposed, tuple(output_padding), groups)
    return Result(result, strides_of(result, last), last, passes, channels)


def linear(shape: Sizes, strides: Sizes, weight_shape: Sizes, weight_strides: Sizes) -> Result:
    """The result of a linear layer; ValueError where sizes do not fit."""
    if len(weight_shape) != 2:
        raise ValueError(f"weight: got shape {_text(weight_shape)}, expected (features out, features in)")
    if len(shape) < 1 or shape[-1] != weight_shape[1]:
        raise ValueError(f"input: got shape {_text(shape)}, expected (..., {weight_shape[1]}) as the weight has")
    result = (*shape[:-1], weight_shape[0])
    return Result(result, strides_of(result, False), False, LINEAR, weight_shape[0])


def _text(shape: Sizes) -> str:
    return str(tuple(shape))


kept_convolution = lru_cache(4096)(convolution)
kept_linear = lru_cache(4096)(linear)
kept_dense_strides = lru_cache(4096)(dense_strides)
