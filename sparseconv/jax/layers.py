"""Convolutions and linear layers for JAX, with their derivatives.

A layer is bilinear in its input and its weight, and its two gradients are bilinear as well:

    y = F(x, w),   dx = D(dy, w),   dw = W(x, dy)

with <F(x, w), dy> = <x, D(dy, w)> = <w, W(x, dy)>. So each of the three has the other two as its derivatives, and one
rule (`_bilinear`) serves all layers and all orders of differentiation. Each is one call of a public function through
`_ffi.call`. Shapes and options are checked while JAX traces, by the same code as everywhere else.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._core import layout as layouts
from .._core import operations
from .._core.call import named
from ._ffi import DTYPES, Target, call

FORWARD, DATA, WEIGHT = "", "_backward_data", "_backward_weight"
ARGUMENTS = {FORWARD: ("x", "weight"), DATA: ("grad_output", "weight"), WEIGHT: ("x", "grad_output")}


class Layer:
    """A layer's function and options, and its three bilinear maps. Made once for equal options (`_layer`)."""

    def __init__(self, name: str, dims: int, options: tuple[tuple[str, Any], ...]) -> None:
        self.name, self.dims, self.options = name, dims, options
        self.function = name if name == "linear" else f"{name}{dims}d"

    def forward(self, x: Any, weight: Any, bias: Any = None, activation: str | None = None, skip: str = "auto") -> Any:
        """y = activation(F(x, weight) + bias)."""
        names: tuple[str, ...] = ARGUMENTS[FORWARD]
        operands: tuple[Any, ...] = x, weight
        if bias is not None:
            names, operands = (*names, "bias"), (*operands, bias)
        return self._call(FORWARD, names, operands, activation=activation, skip=skip)

    def data(self, grad_output: Any, weight: Any, shape: tuple[int, ...], skip: str, mask: Any = None) -> Any:
        """dx = D(grad_output, weight), for x of this shape; only where the mask is not zero, if there is one."""
        names: tuple[str, ...] = ARGUMENTS[DATA]
        operands: tuple[Any, ...] = grad_output, weight
        if mask is not None:
            names, operands = (*names, "output_mask"), (*operands, mask)
        size = {} if self.name == "linear" else {"input_shape": shape}
        return self._call(DATA, names, operands, **size, skip=skip)

    def weight(self, x: Any, grad_output: Any, shape: tuple[int, ...], skip: str) -> Any:
        """dw = W(x, grad_output), for a weight of this shape."""
        size = {} if self.name == "linear" else {"kernel_size": shape[2:]}
        result = self._call(WEIGHT, ARGUMENTS[WEIGHT], (x, grad_output), **size, skip=skip)
        if result.shape == shape:
            return result
        if dict(self.options)["groups"] != 1:
            raise ValueError(f"layout: got a blocked one with {shape[0]} filters in groups, expected multiples of 16")
        return result[: shape[0], : shape[1]]  # pad lanes of blocked layouts count as channels there

    def bias(self, grad_output: Any, count: int) -> Any:
        """The gradient of a bias of `count` values."""
        name = "NC" if self.name == "linear" else dict(self.options)["layout"]
        if name == "NC":
            grad_output = grad_output.reshape(-1, grad_output.shape[-1])
        channels = layouts.find(name).channels(grad_output.shape)  # with pad lanes in blocked layouts
        target = Target("grad_bias", ("grad_output",), (("layout", name),))
        return call(target, (channels,), grad_output.dtype, grad_output)[:count]

    def spread(self, bias: Any, shape: tuple[int, ...]) -> Any:
        """A bias at each position of a result of this shape; 0 in pad lanes."""
        if self.name == "linear":
            return jnp.broadcast_to(bias, shape)
        order = layouts.find(dict(self.options)["layout"])
        padded = jnp.pad(bias, (0, order.channels(shape) - bias.shape[0]))
        return jnp.broadcast_to(padded.reshape(order.per_channel(np.empty(padded.shape)).shape), shape)

    def _call(self, which: str, names: tuple[str, ...], operands: tuple[Any, ...], **more: Any) -> Any:
        options = {**dict(self.options), **{name: value for name, value in more.items() if value is not None}}
        if which != FORWARD:  # they see it in the shapes
            options.pop("output_padding", None)
        return _batched(self.name, self.dims, Target(self.function + which, names, tuple(options.items())))(*operands)


@lru_cache(maxsize=1024)
def _layer(name: str, dims: int, options: tuple[tuple[str, Any], ...]) -> Layer:
    return Layer(name, dims, options)


@lru_cache(maxsize=1024)
def _batched(name: str, dims: int, target: Target) -> Any:
    """The call of a Target with a rule for `jax.vmap`."""
    function = jax.custom_batching.custom_vmap(lambda *operands: _checked_call(name, dims, target, operands))

    @function.def_vmap
    def rule(size: int, batched: list[bool], *operands: Any) -> tuple[Any, bool]:
        # Samples do not meet in these passes, so those of all calls are one larger batch, unless weights differ.
        per_sample = [one not in ("weight", "bias") for one in target.operands]
        if per_sample == list(batched) and not target.function.endswith(WEIGHT):
            folded = [
                one.reshape(-1, *one.shape[2:]) if yes and name != "linear" else one
                for one, yes in zip(operands, batched, strict=True)
            ]
            options = target.keywords()
            if "input_shape" in options:
                batch, *rest = options["input_shape"]
                options["input_shape"] = (size * batch, *rest)
            result = _batched(name, dims, target._replace(options=tuple(options.items())))(*folded)
            return result if name == "linear" else result.reshape(size, -1, *result.shape[1:]), True

        def one_call(moving: tuple[Any, ...]) -> Any:
            rest = iter(moving)
            return function(*(next(rest) if yes else one for one, yes in zip(operands, batched, strict=True)))

        return jax.lax.map(one_call, tuple(one for one, yes in zip(operands, batched, strict=True) if yes)), True

    return function


def _checked_call(name: str, dims: int, target: Target, operands: tuple[Any, ...]) -> Any:
    """The call, once all that its forms and options decide is known to be right."""
    # An element without strides stands for an array: shapes are all that is looked at, and nothing is computed.
    stand_ins = {
        one: np.broadcast_to(np.zeros((), array.dtype), array.shape)
        for one, array in zip(target.operands, operands, strict=True)
    }
    which = target.function.removeprefix(name if name == "linear" else f"{name}{dims}d")
    make = getattr(operations, name + which)
    result = named(make, 0 if name == "linear" else dims, **stand_ins, **target.keywords()).out
    return call(target, result.shape, result.dtype, *operands)


# Maps of a layer: which of its methods, and with what; `skip` says whether zeros may be skipped at all.
@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def _bilinear(layer: Layer, which: str, shape: Any, skip: str, a: Any, b: Any) -> Any:
    """F(a, b), or D or W of it for a result of this shape."""
    if which == FORWARD:
        return layer.forward(a, b, skip=skip)
    return (layer.data if which == DATA else layer.weight)(a, b, shape, skip)


def _bilinear_forward(layer: Layer, which: str, shape: Any, skip: str, a: Any, b: Any) -> tuple[Any, tuple[Any, Any]]:
    return _bilinear(layer, which, shape, skip, a, b), (a, b)


def _bilinear_backward(layer: Layer, which: str, shape: Any, skip: str, saved: tuple[Any, Any], ct: Any) -> Any:
    a, b = saved
    if which == FORWARD:  # a = x, b = w
        return _bilinear(layer, DATA, a.shape, skip, ct, b), _bilinear(layer, WEIGHT, b.shape, skip, a, ct)
    if which == DATA:  # a = dy, b = w, and ct stands where x did
        return _bilinear(layer, FORWARD, None, skip, ct, b), _bilinear(layer, WEIGHT, b.shape, skip, ct, a)
    # a = x, b = dy, and ct stands where w did
    return _bilinear(layer, DATA, a.shape, skip, b, ct), _bilinear(layer, FORWARD, None, skip, a, ct)


_bilinear.defvjp(_bilinear_forward, _bilinear_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _needed_data(layer: Layer, skip: str, grad_output: Any, weight: Any, x: Any) -> Any:
    """D(grad_output, weight) where x is not zero, 0 elsewhere."""
    return layer.data(grad_output, weight, x.shape, skip, x)


def _needed_data_forward(layer: Layer, skip: str, grad_output: Any, weight: Any, x: Any) -> tuple[Any, Any]:
    return _needed_data(layer, skip, grad_output, weight, x), (grad_output, weight, x)


def _needed_data_backward(layer: Layer, skip: str, saved: Any, ct: Any) -> Any:
    grad_output, weight, x = saved
    ct = jnp.where(x != 0, ct, jnp.zeros_like(ct))
    return (*_bilinear_backward(layer, DATA, x.shape, skip, (grad_output, weight), ct), jnp.zeros_like(x))


_needed_data.defvjp(_needed_data_forward, _needed_data_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _bias(layer: Layer, grad_output: Any, bias: Any) -> Any:
    """The gradient of this bias."""
    return layer.bias(grad_output, bias.shape[0])


def _bias_backward(layer: Layer, saved: tuple[Any, Any], ct: Any) -> Any:
    grad_output, bias = saved
    return layer.spread(ct, grad_output.shape), jnp.zeros_like(bias)


_bias.defvjp(lambda layer, grad_output, bias: (_bias(layer, grad_output, bias), (grad_output, bias)), _bias_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def _apply(layer: Layer, activation: str | None, skip: str, input_is_relu: bool, x: Any, weight: Any, bias: Any) -> Any:
    return layer.forward(x, weight, bias, activation, skip)


def _apply_forward(
    layer: Layer, activation: str | None, skip: str, input_is_relu: bool, x: Any, weight: Any, bias: Any
) -> tuple[Any, Any]:
    y = _apply(layer, activation, skip, input_is_relu, x, weight, bias)
    return y, (x, weight, bias, y if activation else None)


def _apply_backward(layer: Layer, activation: Any, skip: str, input_is_relu: bool, saved: Any, ct: Any) -> Any:
    x, weight, bias, y = saved
    if y is not None:
        ct = jnp.where(y > 0, ct, jnp.zeros_like(ct))
    skip = "none" if skip == "none" else "auto"
    if input_is_relu:
        grad_x = _needed_data(layer, skip, ct, weight, x)
    else:
        grad_x = _bilinear(layer, DATA, x.shape, skip, ct, weight)
    grad_bias = None if bias is None else _bias(layer, ct, bias)
    return grad_x, _bilinear(layer, WEIGHT, weight.shape, skip, x, ct), grad_bias


_apply.defvjp(_apply_forward, _apply_backward)


def apply(
    name: str, dims: int, x: Any, weight: Any, bias: Any, activation: str | None, skip: str, input_is_relu: bool,
    **options: Any,
) -> jax.Array:  # fmt: skip
    """A layer on JAX arrays or tracers."""
    operands = {"x": x, "weight": weight, "bias": bias}
    for operand, value in operands.items():
        if value is None and operand == "bias":
            continue
        operands[operand] = array = jnp.asarray(value)
        if array.dtype not in DTYPES.values():
            raise TypeError(f"{operand}: got dtype {array.dtype}, expected float32 or float64: .astype(jnp.float32)")
    if type(input_is_relu) is not bool:
        raise TypeError(f"input_is_relu: got {input_is_relu!r}, expected True or False")
    if name != "linear":
        options["layout"] = options["layout"] or f"NC{layouts.SPATIAL[dims]}"
    hashable = tuple((option, _hashable(option, value)) for option, value in options.items())
    return _apply(_layer(name, dims, hashable), activation, skip, input_is_relu, *operands.values())


def _hashable(option: str, value: Any) -> Any:
    """An option as Python's own numbers, words and tuples: they are part of what a compiled program is found by."""
    if isinstance(value, (list, tuple)):
        return tuple(_hashable(option, one) for one in value)
    if isinstance(value, np.integer):
        return int(value)
    if value is None or type(value) in (int, str):
        return value
    raise TypeError(f"{option}: got {value!r}, expected whole numbers or words that are known while JAX traces")
