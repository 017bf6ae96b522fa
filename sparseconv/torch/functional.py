"""Layers as functions of tensors: torch.nn.functional's names and arguments, then those of sparseconv."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from ..packed import PackedWeight
from . import calls, ops, packed

if TYPE_CHECKING:
    from ..typing import Activation, Keep, Padding, Size, Skip

KEEP = ("dense", "compressed")

_convolution = ops.convolution.layer.overload
_linear = ops.linear.layer.overload


def conv2d(
    input: Tensor, weight: Tensor | PackedWeight, bias: Tensor | None = None, stride: Size = 1, padding: Padding = 0,
    dilation: Size = 1, groups: int = 1, *, activation: Activation | None = None, residual: Tensor | None = None,
    skip: Skip = "auto", threshold: float = 0.0, keep: Keep = "dense", input_is_relu: bool | None = None,
    num_threads: int | None = None,
) -> Tensor:  # fmt: skip
    """Two-dimensional convolution that skips zeros, as torch.nn.functional.conv2d; differentiable.

    Parameters
    ----------
    input : (N, C, H, W) or (C, H, W) tensor
        float32 or float64 (which is correct and slow), dense, in CPU memory; any strides. channels_last is what is
        fast: it is used in place, and the result is channels_last, too, wherever it is with torch's own function.
    weight : (K, C/groups, R, S), same dtype, or sparseconv.PackedWeight
        A packed weight has no gradient, and neither may the other arguments then (torch.no_grad).
    bias : (K,), same dtype, optional
    stride, padding, dilation, groups
        As in torch.nn.functional.conv2d; padding may also be ((before, after), (before, after)).
    activation : {None, "relu"}
        Done in the last store. The backward pass uses the zeros of the result.
    residual : tensor like the result, optional
        Added before the activation; of the same shape, any strides. It is read in the last store where nobody wants
        gradients, and added in an operation of its own otherwise.
    skip : {"auto", "none", "input", "weight"}
        As in `sparseconv.conv2d`. Backward passes then take the fastest kernel ("auto"), but for "none" the dense ones,
        for "input" backward_weight skips zeros of the input, for "weight" backward_data those of the weight.
    threshold : float
        As in `sparseconv.conv2d`: elements up to it count as zeros, those of the weight with skip="weight", else those
        of the input. So their gradients are zeros.
    keep : {"dense", "compressed"}
        How the input waits for the backward pass: as it is, or as bit mask and nonzero values (`sparseconv.compress`);
        of the result of a fused ReLU then the mask alone is kept. Like tensors that torch.autograd.graph.save_on_cpu
        keeps these are copies: changing the input in place afterwards is no error, and gradients are right. Under
        torch.compile, which decides itself what is kept, and inside checkpoints the option has no effect.
    input_is_relu : bool, optional
        True: a promise that the gradient of the input will be multiplied by (input > 0) in any case, so the backward
        pass computes no more than that and leaves zeros elsewhere. False: never. None: where the autograd graph says
        so, see Notes.
    num_threads : int, optional
        Default torch.get_num_threads(). The result does not depend on it, bit for bit.

    Returns
    -------
    (N, K, OH, OW) or (K, OH, OW) tensor

    Raises
    ------
    TypeError
        Tensors of other devices, dtypes and layouts.
    ValueError
        Shapes, sizes or options that do not fit; the message names the argument, what was got and what was expected.

    Notes
    -----
    With ``input_is_relu=None`` the gradient of the input is left out where the input is zero if all of this holds: a
    ReLU (torch's, or one fused into a layer of this module) has made the input, as the autograd graph says; neither the
    input nor the ReLU's node has hooks, and the input does not retain its gradient, when the backward pass comes to it;
    and all of the graph is run, as ``loss.backward()`` does. torch.autograd.grad, ``backward(inputs=...)`` and
    create_graph get the full gradient, since they may ask for the gradient of the input itself.

    The operators are ``torch.ops.sparseconv.convolution`` and two for its backward passes, with fakes for
    torch.compile and torch.export, and derivatives of any order. Under torch.autocast they compute in float32.
    """
    return _conv(
        2, input, weight, bias, stride, padding, dilation, groups, activation, residual, skip, threshold, keep,
        input_is_relu, num_threads,
    )  # fmt: skip


def conv1d(
    input: Tensor, weight: Tensor | PackedWeight, bias: Tensor | None = None, stride: Size = 1, padding: Padding = 0,
    dilation: Size = 1, groups: int = 1, *, activation: Activation | None = None, residual: Tensor | None = None,
    skip: Skip = "auto", threshold: float = 0.0, keep: Keep = "dense", input_is_relu: bool | None = None,
    num_threads: int | None = None,
) -> Tensor:  # fmt: skip
    """`conv2d` with one spatial dimension."""
    return _conv(
        1, input, weight, bias, stride, padding, dilation, groups, activation, residual, skip, threshold, keep,
        input_is_relu, num_threads,
    )  # fmt: skip


def conv3d(
    input: Tensor, weight: Tensor | PackedWeight, bias: Tensor | None = None, stride: Size = 1, padding: Padding = 0,
    dilation: Size = 1, groups: int = 1, *, activation: Activation | None = None, residual: Tensor | None = None,
    skip: Skip = "auto", threshold: float = 0.0, keep: Keep = "dense", input_is_relu: bool | None = None,
    num_threads: int | None = None,
) -> Tensor:  # fmt: skip
    """`conv2d` with three spatial dimensions."""
    return _conv(
        3, input, weight, bias, stride, padding, dilation, groups, activation, residual, skip, threshold, keep,
        input_is_relu, num_threads,
    )  # fmt: skip


def conv_transpose2d(
    input: Tensor, weight: Tensor | PackedWeight, bias: Tensor | None = None, stride: Size = 1, padding: Size = 0,
    output_padding: Size = 0, groups: int = 1, dilation: Size = 1, *, activation: Activation | None = None,
    residual: Tensor | None = None, skip: Skip = "auto", threshold: float = 0.0, keep: Keep = "dense",
    input_is_relu: bool | None = None, num_threads: int | None = None,
) -> Tensor:  # fmt: skip
    """Two-dimensional transposed convolution that skips zeros, as torch.nn.functional.conv_transpose2d.

    Parameters
    ----------
    input : (N, C, H, W) or (C, H, W) tensor
    weight : (C, K/groups, R, S), same dtype, or sparseconv.PackedWeight
    bias : (K,), same dtype, optional
    stride, padding, output_padding, groups, dilation
        As in torch.nn.functional.conv_transpose2d.
    activation, residual, skip, threshold, keep, input_is_relu, num_threads
        As in `conv2d`.

    Returns
    -------
    (N, K, OH, OW) or (K, OH, OW) tensor
    """
    return _conv(
        2, input, weight, bias, stride, padding, dilation, groups, activation, residual, skip, threshold, keep,
        input_is_relu, num_threads, True, output_padding,
    )  # fmt: skip


def conv_transpose1d(
    input: Tensor, weight: Tensor | PackedWeight, bias: Tensor | None = None, stride: Size = 1, padding: Size = 0,
    output_padding: Size = 0, groups: int = 1, dilation: Size = 1, *, activation: Activation | None = None,
    residual: Tensor | None = None, skip: Skip = "auto", threshold: float = 0.0, keep: Keep = "dense",
    input_is_relu: bool | None = None, num_threads: int | None = None,
) -> Tensor:  # fmt: skip
    """`conv_transpose2d` with one spatial dimension."""
    return _conv(
        1, input, weight, bias, stride, padding, dilation, groups, activation, residual, skip, threshold, keep,
        input_is_relu, num_threads, True, output_padding,
    )  # fmt: skip


def conv_transpose3d(
    input: Tensor, weight: Tensor | PackedWeight, bias: Tensor | None = None, stride: Size = 1, padding: Size = 0,
    output_padding: Size = 0, groups: int = 1, dilation: Size = 1, *, activation: Activation | None = None,
    residual: Tensor | None = None, skip: Skip = "auto", threshold: float = 0.0, keep: Keep = "dense",
    input_is_relu: bool | None = None, num_threads: int | None = None,
) -> Tensor:  # fmt: skip
    """`conv_transpose2d` with three spatial dimensions."""
    return _conv(
        3, input, weight, bias, stride, padding, dilation, groups, activation, residual, skip, threshold, keep,
        input_is_relu, num_threads, True, output_padding,
    )  # fmt: skip


def linear(
    input: Tensor, weight: Tensor | PackedWeight, bias: Tensor | None = None, *, activation: Activation | None = None,
    residual: Tensor | None = None, skip: Skip = "auto", threshold: float = 0.0, keep: Keep = "dense",
    input_is_relu: bool | None = None, num_threads: int | None = None,
) -> Tensor:  # fmt: skip
    """Linear layer that skips zeros, as torch.nn.functional.linear.

    Parameters
    ----------
    input : (..., features in) tensor
    weight : (features out, features in), same dtype, or sparseconv.PackedWeight
    bias : (features out,), same dtype, optional
    activation, residual, skip, threshold, keep, input_is_relu, num_threads
        As in `conv2d`.

    Returns
    -------
    (..., features out) tensor
    """
    if not _are_tensors(input, weight, bias, residual):
        keywords: dict[str, Any] = {"activation": activation, "skip": skip, "threshold": threshold, "keep": keep}
        keywords |= {"input_is_relu": input_is_relu, "num_threads": num_threads}
        keywords |= {} if residual is None else {"residual": residual}
        return handle_torch_function(linear, (input, weight, bias, residual), input, weight, bias, **keywords)
    if type(weight) is PackedWeight:
        return packed.linear(input, weight, bias, activation, residual, skip, threshold, num_threads)
    _check_options(keep, num_threads, skip, threshold, input_is_relu)
    options = (skip, threshold, keep, input_is_relu, num_threads)
    if residual is not None:
        return _with_residual(ops.linear, input, weight, bias, residual, (), activation, options)
    return _linear(input, weight, bias, activation, *options)


def _conv(
    dims: int, input: Tensor, weight: Tensor | PackedWeight, bias: Tensor | None, stride: Size, padding: Padding,
    dilation: Size, groups: int, activation: Activation | None, residual: Tensor | None, skip: Skip, threshold: float,
    keep: Keep, input_is_relu: bool | None, num_threads: int | None, transposed: bool = False, output_padding: Size = 0,
) -> Tensor:  # fmt: skip
    """All of them."""
    if not _are_tensors(input, weight, bias, residual):
        keywords: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        keywords |= {"output_padding": output_padding} if transposed else {}
        keywords |= {"activation": activation, "skip": skip, "threshold": threshold, "keep": keep}
        keywords |= {"input_is_relu": input_is_relu, "num_threads": num_threads}
        keywords |= {} if residual is None else {"residual": residual}
        public: Any = _PUBLIC[dims, transposed]
        return handle_torch_function(public, (input, weight, bias, residual), input, weight, bias, **keywords)
    geometry = geometry_of(dims, weight, stride, padding, dilation, transposed, output_padding, groups)
    single = input.dim() == dims + 1
    if single:
        input = input.unsqueeze(0)
        residual = None if residual is None else residual.unsqueeze(0)
    if type(weight) is PackedWeight:
        result = packed.convolution(input, weight, bias, *geometry, activation, residual, skip, threshold, num_threads)
    else:
        _check_options(keep, num_threads, skip, threshold, input_is_relu)
        options = (skip, threshold, keep, input_is_relu, num_threads)
        if residual is None:
            result = _convolution(input, weight, bias, *geometry, activation, *options)
        else:
            result = _with_residual(ops.convolution, input, weight, bias, residual, geometry, activation, options)
    return result.squeeze(0) if single else result


def _with_residual(
    family: ops.Family, input: Tensor, weight: Any, bias: Tensor | None, residual: Tensor, geometry: tuple,
    activation: Activation | None, options: tuple,
) -> Tensor:  # fmt: skip
    """A layer and an addition: at once where that needs no derivative, no fake and no other rule of an operator."""
    if activation not in (None, "relu"):
        raise ValueError(f"activation: got {activation!r}, expected None or 'relu'")
    in_float32 = torch.is_autocast_enabled("cpu")
    if not in_float32:
        calls.check("residual", residual)
    tensors = (input, weight, residual) if bias is None else (input, weight, bias, residual)
    if ops.nothing_but_kernels(tensors):
        return family.compute_layer(input, weight, bias, *geometry, activation, *options, residual=residual)
    result = family.layer.overload(input, weight, bias, *geometry, None, *options)
    if result.shape != residual.shape:
        raise ValueError(f"residual: got shape {tuple(residual.shape)}, expected {tuple(result.shape)}")
    if result.dtype != residual.dtype and not in_float32:
        raise TypeError(f"residual: got dtype {residual.dtype}, expected {result.dtype} as input has")
    result = result + residual.to(result.dtype)
    return result.relu() if activation == "relu" else result


def result_shape(function: Any, input: Tensor, weight: Tensor, bias: Tensor | None, *geometry: Any) -> tuple[int, ...]:
    """The shape of what one of the functions above returns for these arguments."""
    if function is linear:
        return ops.linear.result(input, weight, ()).shape
    dims, transposed = next(kind for kind, public in _PUBLIC.items() if public is function)
    extra: Any = 0
    if transposed:
        stride, padding, extra, groups, dilation = geometry
    else:
        stride, padding, dilation, groups = geometry
    made = geometry_of(dims, weight, stride, padding, dilation, transposed, extra, groups)
    return ops.convolution.result(input, weight, made).shape


def geometry_of(
    dims: int, weight: Any, stride: Size, padding: Padding, dilation: Size, transposed: bool, output_padding: Size,
    groups: int,
) -> tuple[list[int], list[int], list[int], bool, list[int], int]:  # fmt: skip
    """What the operators take behind their tensors."""
    steps = _per_dim("stride", stride, dims, 1), _per_dim("dilation", dilation, dims, 1)
    if type(groups) is not int or groups < 1:
        raise (ValueError if type(groups) is int else TypeError)(
            f"groups: got {groups!r}, expected a whole number of at least 1"
        )
    around = _padding(padding, dims, weight, *steps, transposed)
    extra = _per_dim("output_padding", output_padding, dims, 0)
    if len(weight.shape) != dims + 2:
        raise ValueError(f"weight: got shape {tuple(weight.shape)}, expected {dims + 2} dimensions")
    return steps[0], around, steps[1], transposed, extra, groups


_PUBLIC = {
    (1, False): conv1d, (2, False): conv2d, (3, False): conv3d,
    (1, True): conv_transpose1d, (2, True): conv_transpose2d, (3, True): conv_transpose3d,
}  # fmt: skip


def _are_tensors(input: Any, weight: Any, bias: Any, residual: Any) -> bool:
    """Whether the operands are tensors; False for objects that stand for tensors, as torch.fx traces with them.

    Arrays of others are a TypeError: sparseconv's own functions take them.
    """
    if isinstance(input, Tensor) and isinstance(weight, (Tensor, PackedWeight)):
        if (bias is None or isinstance(bias, Tensor)) and (residual is None or isinstance(residual, Tensor)):
            return True
    if has_torch_function((input, weight, bias, residual)):
        return False
    for name, value in (("input", input), ("weight", weight), ("bias", bias), ("residual", residual)):
        kinds = (Tensor, PackedWeight) if name == "weight" else Tensor
        if value is None and name in ("bias", "residual"):
            continue
        if not isinstance(value, kinds):
            raise TypeError(f"{name}: got {type(value).__name__}, expected a tensor (torch.from_numpy)")
    return True


def _check_options(keep: Any, num_threads: Any, skip: Any, threshold: Any, input_is_relu: Any) -> None:
    """The options that no kernel sees, and types that the operators' schemas would refuse in words of torch's own."""
    if keep not in KEEP:
        raise ValueError(f"keep: got {keep!r}, expected one of {', '.join(map(repr, KEEP))}")
    if type(skip) is not str:
        raise TypeError(f"skip: got {skip!r}, expected a word")
    if type(threshold) is not float and not isinstance(threshold, (int, float)):
        raise TypeError(f"threshold: got {threshold!r}, expected a number")
    if input_is_relu is not None and type(input_is_relu) is not bool:
        raise TypeError(f"input_is_relu: got {input_is_relu!r}, expected True, False or None")
    if num_threads is not None and (type(num_threads) is not int or num_threads < 1):
        raise (ValueError if type(num_threads) is int else TypeError)(
            f"num_threads: got {num_threads!r}, expected a whole number of at least 1, or None"
        )


def _per_dim(name: str, value: Any, dims: int, least: int) -> list[int]:
    """One whole number per spatial dimension."""
    if not isinstance(value, (int, tuple, list)):
        try:
            value = operator.index(value)  # NumPy's integers
        except TypeError:
            raise TypeError(f"{name}: got {value!r}, expected a whole number, or one per spatial dimension") from None
    numbers = [value] * dims if isinstance(value, int) else list(value)
    if len(numbers) == 1:
        numbers = numbers * dims  # as torch takes them
    if len(numbers) != dims:
        raise ValueError(f"{name}: got {len(numbers)} numbers, expected 1 or {dims}, one per spatial dimension")
    for one in numbers:
        if isinstance(one, bool) or not isinstance(one, int):
            raise TypeError(f"{name}: got {one!r}, expected a whole number")
        if one < least:
            raise ValueError(f"{name}: got {one}, expected at least {least}")
    return numbers


def _padding(
    value: Any, dims: int, weight: Any, stride: list[int], dilation: list[int], transposed: bool
) -> list[int]:  # fmt: skip
    """Padding as the operators take it: shapes.py."""
    if isinstance(value, str):
        if transposed or value not in ("same", "valid"):
            raise ValueError(f"padding: got {value!r}, expected {'' if transposed else 'same, valid or '}numbers")
        if value == "valid":
            return [0] * dims
        if any(step != 1 for step in stride):
            raise ValueError(f"padding: got 'same' with stride {tuple(stride)}, expected it with stride 1, as in torch")
        total = [step * (taps - 1) for step, taps in zip(dilation, weight.shape[2:], strict=True)]
        before, behind = [one // 2 for one in total], [one - one // 2 for one in total]
        return before if before == behind else before + behind
    if isinstance(value, (tuple, list)) and any(isinstance(one, (tuple, list)) for one in value):
        if len(value) != dims or any(len(one) != 2 for one in value):
            raise ValueError(f"padding: got {value!r}, expected one (before, after) pair for each of {dims} dimensions")
        pairs = [_per_dim("padding", pair, 2, 0) for pair in value]
        return [before for before, _ in pairs] + [behind for _, behind in pairs]
    return _per_dim("padding", value, dims, 0)
