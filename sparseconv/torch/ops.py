"""The operators ``torch.ops.sparseconv.*``: schemas, kernels for CPU tensors, fakes, derivatives.

Each of the two families, convolution (transposed ones included, as in aten::convolution) and linear, has three
operators that are each other's derivatives, so derivatives of all orders exist:

=========================  ============================================================================================
``NAME``                   the layer: input, weight and bias give the result
``NAME_backward_data``     grad_output and weight give the gradient of the input
``NAME_backward_weight``   input and grad_output give the gradient of the weight
=========================  ============================================================================================

They are defined by hand (torch.library.Library) with an autograd.Function at the Autograd key, because of what a call
costs: see `docs/frameworks.md`. Where nothing but the CPU kernel is to come after autograd - no fake or tracing mode,
no functorch - the Function calls it without going through the dispatcher again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import _C, Tensor
from torch._functorch.autograd_function import enable_single_level_autograd_function
from torch.autograd import forward_ad

from . import calls, saved, shapes
from .relu_inputs import PROBE, watch_large

Geometry = tuple[Any, ...]
GEOMETRY = "int[] stride, int[] padding, int[] dilation, bool transposed, int[] output_padding, int groups, "
LAYER = "Tensor input, Tensor weight, Tensor? bias, "
DATA = "Tensor grad_output, Tensor weight, Tensor? output_mask, SymInt[] input_size, bool channels_last, "
WEIGHT = "Tensor input, Tensor grad_output, SymInt[] weight_size, SymInt[] weight_stride, "
LAYER_WORDS = "str? activation, str skip, float threshold, str keep, bool? input_is_relu, int? num_threads"
BACKWARD_WORDS = "str skip, float threshold, int? num_threads"

# What `skip` of a layer means for its backward passes, and theirs for a layer; other words stay.
DATA_SKIP = {"input": "auto"}
WEIGHT_SKIP = {"weight": "auto"}
LAYER_SKIP = {"grad_output": "auto", "output": "auto"}

_AFTER_AUTOGRAD = _C._after_autograd_keyset
_CPU = _C.DispatchKey.CPU
_library = torch.library.Library("sparseconv", "DEF")


class Operator:
    """One operator: its overload, the kernel for CPU tensors and the Function that differentiates it."""

    def __init__(
        self, family: Family, schema: str, kernel: Callable, fake: Callable, vmap: Callable, function: type
    ) -> None:
        self.family, self.kernel, self.function = family, kernel, function
        name = schema.partition("(")[0]
        _library.define(schema)
        self.overload = getattr(torch.ops.sparseconv, name).default
        arguments = self.overload._schema.arguments
        self.names = [one.name for one in arguments if "Tensor" in str(one.type)]
        _library.impl(name, kernel, "CPU")
        _library.impl(name, self._differentiated, "Autograd", with_keyset=True)
        _library.impl(name, self._in_float32, "AutocastCPU")
        _library.impl(name, self._refused, "CompositeExplicitAutograd")
        torch.library.register_vmap(f"sparseconv::{name}", vmap, lib=_library)
        torch.library.register_fake(f"sparseconv::{name}", fake, lib=_library)

    def below_autograd(self, keyset: Any, args: tuple) -> Tensor:
        """What comes after autograd."""
        keyset = keyset & _AFTER_AUTOGRAD
        if keyset.highestPriorityTypeId() == _CPU:
            return self.kernel(*args)
        with _C._AutoDispatchBelowAutograd():
            return self.overload.redispatch(keyset, *args)

    def below_function(self, keyset: Any, args: tuple) -> Tensor:
        """The same within a Function, which has switched off all that functorch's levels below are about to need."""
        if not _C._are_functorch_transforms_active():
            return self.below_autograd(keyset, args)
        with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
            return self.below_autograd(keyset, args)

    def _differentiated(self, keyset: Any, *args: Any) -> Tensor:
        """At the Autograd key."""
        if torch.is_grad_enabled():
            for tensor in args[: len(self.names)]:
                if tensor is not None and tensor.requires_grad:
                    return self.function.differentiated(self, keyset, args)
        if forward_ad._current_level >= 0:
            return self.function.differentiated(self, keyset, args)
        return self.below_autograd(keyset, args)

    def one_by_one(self, count: int, in_dims: tuple, args: tuple) -> Tensor:
        """vmap without a rule of its own."""
        results = []
        for index in range(count):
            pairs = zip(args, in_dims, strict=True)
            results.append(self.overload(*[one.select(dim, index) if type(dim) is int else one for one, dim in pairs]))
        return torch.stack(results)

    def _in_float32(self, *args: Any) -> Tensor:
        """Under autocast."""
        count = len(self.names)
        cast = [_as_float32(one) for one in args[:count]]
        with _C._ExcludeDispatchKeyGuard(_C.DispatchKeySet(_C.DispatchKey.AutocastCPU)):
            return self.overload(*cast, *args[count:])

    def _refused(self, *args: Any) -> Tensor:
        """Tensors of other devices and layouts."""
        tensors = {name: tensor for name, tensor in zip(self.names, args, strict=False) if tensor is not None}
        for name, tensor in tensors.items():
            calls.check(name, tensor)
        kinds = " and ".join(dict.fromkeys(str(tensor.device) for tensor in tensors.values()))
        raise TypeError(f"{self.names[0]}: got tensors on {kinds}, expected all operands in CPU memory")


def _as_float32(tensor: Tensor | None) -> Tensor | None:
    if tensor is not None and tensor.dtype in (torch.float16, torch.bfloat16):
        return tensor.to(torch.float32)
    return tensor


class Family:
    """Kernels for CPU tensors and fakes of the operators of a family."""

    def __init__(self, name: str, geometry: str) -> None:
        self.convolves = bool(geometry)
        self.layer = Operator(
            self,
            f"{name}({LAYER}{geometry}{LAYER_WORDS}) -> Tensor",
            self._layer,
            self._layer_fake,
            self._layer_vmap,
            Layer,
        )
        self.backward_data = Operator(
            self, f"{name}_backward_data({DATA}{geometry}{BACKWARD_WORDS}) -> Tensor", self._data, self._data_fake,
            self._data_vmap, BackwardData,
        )  # fmt: skip
        self.backward_weight = Operator(
            self, f"{name}_backward_weight({WEIGHT}{geometry}{BACKWARD_WORDS}) -> Tensor", self._weight,
            self._weight_fake, self._weight_vmap, BackwardWeight,
        )  # fmt: skip

    def result(self, input: Tensor, weight: Tensor, geometry: Geometry) -> shapes.Result:
        """The form of a layer's result."""
        forms = input.shape, input.stride(), weight.shape, weight.stride()
        return shapes.kept_convolution(*forms, *geometry) if self.convolves else shapes.kept_linear(*forms)

    def _layer(self, input: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
        *geometry, activation, skip, threshold, _, _, num_threads = rest
        geometry = _hashable(geometry)

        def result() -> calls.Result:
            form = self.result(input, weight, geometry)
            return calls.Result(form.shape, form.strides, form.core.forward)

        return calls.run(
            (self, "layer", activation, skip, geometry), {"x": input, "weight": weight, "bias": bias}, result,
            {"activation": activation, "skip": skip}, threshold, num_threads,
        )  # fmt: skip

    def _data(
        self, grad_output: Tensor, weight: Tensor, output_mask: Tensor | None, input_size: Sequence[int],
        channels_last: bool, *rest: Any,
    ) -> Tensor:  # fmt: skip
        *geometry, skip, threshold, num_threads = rest
        geometry, size = _hashable(geometry), tuple(input_size)

        def result() -> calls.Result:
            function = self._core(grad_output, geometry).backward_data
            return calls.Result(size, shapes.strides_of(size, channels_last), partial(function, input_shape=size))

        return calls.run(
            (self, "data", size, channels_last, skip, geometry),
            {"grad_output": grad_output, "weight": weight, "output_mask": output_mask}, result, {"skip": skip},
            threshold, num_threads,
        )  # fmt: skip

    def _weight(
        self, input: Tensor, grad_output: Tensor, weight_size: Sequence[int], weight_stride: Sequence[int], *rest: Any
    ) -> Tensor:
        *geometry, skip, threshold, num_threads = rest
        geometry, size, stride = _hashable(geometry), tuple(weight_size), tuple(weight_stride)

        def result() -> calls.Result:
            function = self._core(grad_output, geometry).backward_weight
            return calls.Result(size, shapes.dense_strides(size, stride), partial(function, kernel_size=size))

        return calls.run(
            (self, "weight", size, stride, skip, geometry), {"x": input, "grad_output": grad_output}, result,
            {"skip": skip}, threshold, num_threads,
        )  # fmt: skip

    def _core(self, tensor: Tensor, geometry: Geometry) -> shapes.Core:
        return shapes.core(tensor.dim() - 2, *geometry) if self.convolves else shapes.LINEAR

    def _layer_fake(self, input: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
        calls.check_all({"input": input, "weight": weight, "bias": bias})
        forms = input.shape, input.stride(), weight.shape, weight.stride()
        geometry = rest[:-6]
        result = shapes.convolution(*forms, *geometry) if self.convolves else shapes.linear(*forms)
        if bias is not None and tuple(bias.shape) != (result.channels,):
            raise ValueError(f"bias: got shape {tuple(bias.shape)}, expected ({result.channels},)")
        return input.new_empty_strided(result.shape, result.strides)

    def _data_fake(
        self, grad_output: Tensor, weight: Tensor, output_mask: Tensor | None, input_size: Sequence[int],
        channels_last: bool, *rest: Any,
    ) -> Tensor:  # fmt: skip
        calls.check_all({"grad_output": grad_output, "weight": weight})
        return grad_output.new_empty_strided(input_size, shapes.strides_of(input_size, channels_last))

    def _weight_fake(
        self, input: Tensor, grad_output: Tensor, weight_size: Sequence[int], weight_stride: Sequence[int], *rest: Any
    ) -> Tensor:
        calls.check_all({"input": input, "grad_output": grad_output})
        return grad_output.new_empty_strided(weight_size, shapes.dense_strides(weight_size, weight_stride))

    def _layer_vmap(self, info: Any, in_dims: tuple, *args: Any) -> tuple[Tensor, int]:
        """One call where only the input has the new dimension, else one for each of its elements."""
        if in_dims[1] is None and in_dims[2] is None:
            result = self.layer.overload(self._merged(args[0], in_dims[0]), *args[1:])
            return self._split(result, info.batch_size), 0
        return self.layer.one_by_one(info.batch_size, in_dims, args), 0

    def _data_vmap(self, info: Any, in_dims: tuple, *args: Any) -> tuple[Tensor, int]:
        """The same with grad_output, whose mask has the dimension, too, or is none."""
        grad_output, weight, output_mask, input_size, *rest = args
        masked = output_mask is not None
        if in_dims[1] is None and in_dims[0] is not None and (in_dims[2] is not None) == masked:
            mask = self._merged(output_mask, in_dims[2]) if masked else None
            if self.convolves:
                size = (info.batch_size * input_size[0], *input_size[1:])
            else:
                size = (info.batch_size, *input_size)
            result = self.backward_data.overload(self._merged(grad_output, in_dims[0]), weight, mask, size, *rest)
            return self._split(result, info.batch_size), 0
        return self.backward_data.one_by_one(info.batch_size, in_dims, args), 0

    def _weight_vmap(self, info: Any, in_dims: tuple, *args: Any) -> tuple[Tensor, int]:
        """One call for each gradient."""
        return self.backward_weight.one_by_one(info.batch_size, in_dims, args), 0

    def _merged(self, tensor: Tensor, dim: int) -> Tensor:
        """The new dimension in front; of convolutions, as a part of the batch."""
        tensor = tensor.movedim(dim, 0)
        return tensor.flatten(0, 1) if self.convolves else tensor

    def _split(self, result: Tensor, batch_size: int) -> Tensor:
        """Undoes `_merged`."""
        return result.unflatten(0, (batch_size, -1)) if self.convolves else result


def _hashable(geometry: list) -> Geometry:
    """Geometry as it comes from the dispatcher, with tuples for lists."""
    return tuple([tuple(one) if type(one) is list else one for one in geometry])


# --- derivatives ---


class Layer(torch.autograd.Function):
    """A layer, whose gradients are those of its input, weight and bias."""

    @staticmethod
    def differentiated(operator: Operator, keyset: Any, args: tuple) -> Tensor:
        """The result of a layer, in the graph."""
        input, weight, bias = args[:3]
        skip, _, keep, watched, num_threads = args[-5:]
        plain = (keyset & _AFTER_AUTOGRAD).highestPriorityTypeId() == _CPU
        if watched is None and plain and skip != "none":
            watched = watch_large(input)
        probe = None if watched is None or watched is True or watched is False else PROBE
        result = _apply_layer(input, weight, bias, probe, watched, operator, keyset, args)
        if keep == "compressed" and plain and result.requires_grad:
            saved.compress(result.grad_fn, num_threads)
        return result

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, probe: Tensor | None, watched: Any,
        operator: Operator, keyset: Any, args: tuple,
    ) -> Tensor:  # fmt: skip
        output = operator.below_function(keyset, args)
        activation, _, threshold, _, _, _ = args[-6:]
        for_data, for_weight, *_ = ctx.needs_input_grad
        ctx.masks_by_result = activation == "relu"
        ctx.keeps_input = for_weight or (for_data and bool(threshold or watched))
        ctx.save_for_backward(
            input if ctx.keeps_input else None, weight if for_data or threshold else None,
            output if ctx.masks_by_result else None,
        )  # fmt: skip
        if forward_ad._current_level >= 0:
            ctx.save_for_forward(input, weight, output)
        ctx.set_materialize_grads(False)
        ctx.watched, ctx.family, ctx.rest = watched, operator.family, args[3:]
        ctx.forms = input.shape, input.stride(), weight.shape, weight.stride()
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None) -> tuple:
        if grad_output is None:
            return (None,) * 8
        input, weight, output = ctx.saved_tensors
        *geometry, _, skip, threshold, _, _, num_threads = ctx.rest
        family, (for_data, for_weight, for_bias, *_) = ctx.family, ctx.needs_input_grad
        input_size, _, weight_size, weight_stride = ctx.forms
        if ctx.masks_by_result:
            grad_output = torch.ops.aten.threshold_backward.default(grad_output, output, 0)
        grad_input = grad_weight = grad_bias = None
        of_weight = skip == "weight"  # whose small elements the threshold took for zeros
        if for_data:
            mask = None
            if threshold and not of_weight:
                mask = _above(input, threshold)
            elif ctx.watched is True or (ctx.watched and ctx.watched.unseen()):
                mask = input.detach()
            last = family.convolves and shapes.is_any_channels_last(*ctx.forms)
            grad_input = family.backward_data.overload(
                grad_output, weight, mask, input_size, last, *geometry, DATA_SKIP.get(skip, skip),
                threshold if of_weight else 0.0, num_threads,
            )  # fmt: skip
        if for_weight:
            grad_weight = family.backward_weight.overload(
                input, grad_output, weight_size, weight_stride, *geometry, WEIGHT_SKIP.get(skip, skip),
                0.0 if of_weight else threshold, num_threads,
            )  # fmt: skip
            if threshold and of_weight:
                grad_weight = torch.where(_above(weight, threshold), grad_weight, 0.0)
        if for_bias:
            channel = 1 if family.convolves else grad_output.dim() - 1
            others = [dim for dim in range(grad_output.dim()) if dim != channel]
            grad_bias = grad_output.sum(others) if others else grad_output
        return grad_input, grad_weight, grad_bias, None, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, d_input: Tensor | None, d_weight: Tensor | None, d_bias: Tensor | None, *_: None) -> Tensor:
        input, weight, output = ctx.saved_tensors
        *geometry, _, skip, threshold, _, _, num_threads = ctx.rest
        of_weight = skip == "weight"
        terms = []
        if d_input is not None:
            if threshold and not of_weight:
                d_input = torch.where(_above(input, threshold), d_input, 0.0)
            terms.append((d_input, weight, threshold if of_weight else 0.0))
        if d_weight is not None:
            if threshold and of_weight:
                d_weight = torch.where(_above(weight, threshold), d_weight, 0.0)
            terms.append((input, d_weight, 0.0 if of_weight else threshold))
        result = 0.0
        for first, second, least in terms:
            words = (None, skip, least, "dense", False, num_threads)
            result = result + ctx.family.layer.overload(first, second, None, *geometry, *words)
        if d_bias is not None:
            shape = (-1, *[1] * (output.dim() - 2)) if ctx.family.convolves else (-1,)
            result = result + d_bias.view(shape).expand_as(output)
        return torch.ops.aten.threshold_backward.default(result, output, 0) if ctx.masks_by_result else result


class BackwardData(torch.autograd.Function):
    """The gradient of the input, which is linear in grad_output and in the weight."""

    @staticmethod
    def differentiated(operator: Operator, keyset: Any, args: tuple) -> Tensor:
        """The gradient, in the graph."""
        grad_output, weight, output_mask = args[:3]
        return _apply_data(grad_output, weight, output_mask, operator, keyset, args)

    @staticmethod
    def forward(
        ctx: Any, grad_output: Tensor, weight: Tensor, output_mask: Tensor | None, operator: Operator, keyset: Any,
        args: tuple,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(grad_output, weight, output_mask)
        ctx.save_for_forward(grad_output, weight, output_mask)
        ctx.set_materialize_grads(False)
        ctx.family, ctx.sizes, ctx.rest = operator.family, args[3:5], args[5:]
        return operator.below_function(keyset, args)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple:
        if grad is None:
            return (None,) * 6
        grad_output, weight, output_mask = ctx.saved_tensors
        *geometry, skip, threshold, num_threads = ctx.rest
        if output_mask is not None:
            grad = torch.where(output_mask != 0, grad, 0.0)
        of_grad_output = of_weight = None
        if ctx.needs_input_grad[0]:
            of_grad_output = ctx.family.layer.overload(
                grad, weight, None, *geometry, None, LAYER_SKIP.get(skip, skip), threshold, "dense", False, num_threads
            )
        if ctx.needs_input_grad[1]:
            of_weight = ctx.family.backward_weight.overload(
                grad, grad_output, weight.shape, weight.stride(), *geometry, "none" if skip == "none" else "auto", 0.0,
                num_threads,
            )  # fmt: skip
            if threshold:
                of_weight = torch.where(_above(weight, threshold), of_weight, 0.0)
        return of_grad_output, of_weight, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, d_grad_output: Tensor | None, d_weight: Tensor | None, *_: None) -> Tensor:
        grad_output, weight, output_mask = ctx.saved_tensors
        *geometry, skip, threshold, num_threads = ctx.rest
        result, compute = None, ctx.family.backward_data.overload
        if d_grad_output is not None:
            words = (skip, threshold, num_threads)
            result = compute(d_grad_output, weight, output_mask, *ctx.sizes, *geometry, *words)
        if d_weight is not None:
            if threshold:
                d_weight = torch.where(_above(weight, threshold), d_weight, 0.0)
            other = compute(grad_output, d_weight, output_mask, *ctx.sizes, *geometry, skip, 0.0, num_threads)
            result = other if result is None else result + other
        return result


class BackwardWeight(torch.autograd.Function):
    """The gradient of the weight, which is linear in the input and in grad_output."""

    @staticmethod
    def differentiated(operator: Operator, keyset: Any, args: tuple) -> Tensor:
        """The gradient, in the graph."""
        input, grad_output = args[:2]
        return _apply_weight(input, grad_output, operator, keyset, args)

    @staticmethod
    def forward(ctx: Any, input: Tensor, grad_output: Tensor, operator: Operator, keyset: Any, args: tuple) -> Tensor:
        ctx.save_for_backward(input, grad_output)
        ctx.save_for_forward(input, grad_output)
        ctx.set_materialize_grads(False)
        ctx.family, ctx.form, ctx.rest = operator.family, args[2:4], args[4:]
        return operator.below_function(keyset, args)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple:
        if grad is None:
            return (None,) * 5
        input, grad_output = ctx.saved_tensors
        *geometry, skip, threshold, num_threads = ctx.rest
        of_input = of_grad_output = None
        if ctx.needs_input_grad[0]:
            channels_last = ctx.family.convolves and shapes.is_channels_last(input.shape, input.stride())
            of_input = ctx.family.backward_data.overload(
                grad_output, grad, _above(input, threshold) if threshold else None, input.shape, channels_last,
                *geometry, "none" if skip == "none" else "auto", 0.0, num_threads,
            )  # fmt: skip
        if ctx.needs_input_grad[1]:
            of_grad_output = ctx.family.layer.overload(
                input, grad, None, *geometry, None, LAYER_SKIP.get(skip, skip), threshold, "dense", False, num_threads
            )
        return of_input, of_grad_output, None, None, None

    @staticmethod
    def jvp(ctx: Any, d_input: Tensor | None, d_grad_output: Tensor | None, *_: None) -> Tensor:
        input, grad_output = ctx.saved_tensors
        *geometry, skip, threshold, num_threads = ctx.rest
        result, compute = None, ctx.family.backward_weight.overload
        if d_input is not None:
            if threshold:
                d_input = torch.where(_above(input, threshold), d_input, 0.0)
            result = compute(d_input, grad_output, *ctx.form, *geometry, skip, 0.0, num_threads)
        if d_grad_output is not None:
            other = compute(input, d_grad_output, *ctx.form, *geometry, skip, threshold, num_threads)
            result = other if result is None else result + other
        return result


def _above(tensor: Tensor, threshold: float) -> Tensor:
    """Which elements a threshold has not taken for zeros."""
    return ~(tensor.detach().abs() <= threshold)


def _apply(function: type) -> Callable[..., Tensor]:
    """Function.apply for the Autograd key, where functorch has had its turn: this is one of its levels, if any."""
    apply = super(torch.autograd.Function, function).apply

    def apply_at_this_level(*args: Any) -> Tensor:
        if _C._are_functorch_transforms_active():
            with enable_single_level_autograd_function():
                return apply(*args)
        return apply(*args)

    return apply_at_this_level


_apply_layer, _apply_data, _apply_weight = _apply(Layer), _apply(BackwardData), _apply(BackwardWeight)
convolution = Family("convolution", GEOMETRY)
linear = Family("linear", "")
