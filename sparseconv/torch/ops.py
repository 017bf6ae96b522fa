"""The operators ``torch.ops.sparseconv.*``: schemas, kernels for CPU tensors, fakes, rules for vmap.

Each of the two families, convolution (transposed ones included, as in aten::convolution) and linear, has three
operators that are each other's derivatives (derivatives.py):

=========================  ============================================================================================
``NAME``                   the layer: input, weight and bias give the result
``NAME_backward_data``     grad_output and weight give the gradient of the input
``NAME_backward_weight``   input and grad_output give the gradient of the weight
=========================  ============================================================================================

`skip` is as in the functions of `sparseconv`; backward_data has "hint" beside: "auto", with an `output_mask` outside of
which the result may be anything.

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
from torch.autograd import forward_ad

from .._core import checks
from . import calls, shapes
from .derivatives import HINT, BackwardData, BackwardWeight, Layer

Geometry = tuple[Any, ...]
GEOMETRY = "int[] stride, int[] padding, int[] dilation, bool transposed, int[] output_padding, int groups, "
LAYER = "Tensor input, Tensor weight, Tensor? bias, "
DATA = "Tensor grad_output, Tensor weight, Tensor? output_mask, SymInt[] input_size, bool channels_last, "
WEIGHT = "Tensor input, Tensor grad_output, SymInt[] weight_size, SymInt[] weight_stride, "
LAYER_WORDS = "str? activation, str skip, float threshold, str keep, bool? input_is_relu, int? num_threads"
BACKWARD_WORDS = "str skip, float threshold, int? num_threads"

SKIPS = ("auto", "none", "input", "weight")  # of a layer, which has no mask of what is needed

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


def nothing_but_kernels(tensors: tuple[Tensor, ...]) -> bool:
    """Whether an operator would be no more than its kernel for these: no derivative, no mode, transform or subclass."""
    if torch.compiler.is_compiling() or _C._len_torch_dispatch_stack() or _C._are_functorch_transforms_active():
        return False
    if forward_ad._current_level >= 0 or torch.is_autocast_enabled("cpu") or torch.jit.is_tracing():
        return False
    wants = torch.is_grad_enabled()
    return all(
        type(one) in (Tensor, torch.nn.Parameter) and one.device.type == "cpu" and not one.is_neg()
        and not (wants and one.requires_grad)
        for one in tensors
    )  # fmt: skip


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
            self.compute_layer,
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

    def result(self, input: Tensor, weight: Tensor, geometry: Sequence) -> shapes.Result:
        """The form of a layer's result."""
        forms = input.shape, input.stride(), weight.shape, weight.stride()
        return shapes.kept_convolution(*forms, *_hashable(geometry)) if self.convolves else shapes.kept_linear(*forms)

    def compute_layer(
        self, input: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any, residual: Tensor | None = None
    ) -> Tensor:
        """The layer; no operator has a residual, which is for tensors with `nothing_but_kernels` alone."""
        *geometry, activation, skip, threshold, _, _, num_threads = rest
        geometry = _hashable(geometry)

        def result() -> calls.Result:
            checks.word("skip", skip, SKIPS)
            form = self.result(input, weight, geometry)
            return calls.Result(form.shape, form.strides, form.core.forward)

        return calls.run(
            (self, "layer", activation, skip, geometry),
            {"x": input, "weight": weight, "bias": bias, "residual": residual}, result,
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
            if skip == HINT and output_mask is None:
                raise ValueError(f"output_mask: got None, expected a mask with skip={HINT!r}")
            return calls.Result(size, shapes.strides_of(size, channels_last), partial(function, input_shape=size))

        return calls.run(
            (self, "data", size, channels_last, skip, geometry),
            {"grad_output": grad_output, "weight": weight, "output_mask": output_mask}, result,
            {"skip": "auto", "hint": "output_mask"} if skip == HINT else {"skip": skip}, threshold, num_threads,
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


def _hashable(geometry: Sequence) -> Geometry:
    """Geometry as it comes from the dispatcher, with tuples for lists."""
    return tuple([tuple(one) if type(one) is list else one for one in geometry])


convolution = Family("convolution", GEOMETRY)
linear = Family("linear", "")
