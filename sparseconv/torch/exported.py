"""Layers of an exported program: torch.export leaves calls of functions, and conversion wants modules."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx, nn

__all__ = ["with_layers"]

_aten = torch.ops.aten
_CONVOLUTIONS = {
    _aten.conv1d.default: nn.Conv1d, _aten.conv2d.default: nn.Conv2d, _aten.conv3d.default: nn.Conv3d,
    _aten.conv1d.padding: nn.Conv1d, _aten.conv2d.padding: nn.Conv2d, _aten.conv3d.padding: nn.Conv3d,
}  # fmt: skip
_TRANSPOSED = {
    _aten.conv_transpose1d.default: nn.ConvTranspose1d, _aten.conv_transpose2d.input: nn.ConvTranspose2d,
    _aten.conv_transpose3d.input: nn.ConvTranspose3d,
}  # fmt: skip


def with_layers(model: fx.GraphModule) -> fx.GraphModule:
    """Replaces the calls of convolutions and linear layers by modules that hold their parameters, in place.

    Parameters
    ----------
    model : GraphModule
        As `torch.export.load(path).module()` returns it. Modules are named after their weights.
    """
    graph = model.graph
    for node in list(graph.nodes):
        if node.op != "call_function" or not _is_layer(node.target):
            continue
        arguments = _arguments(node)
        if any(not _is_parameter(arguments[name]) for name in ("weight", "bias") if arguments.get(name) is not None):
            continue  # computed, as by a parametrization
        weight = operator.attrgetter(arguments["weight"].target)(model)
        bias = None if arguments.get("bias") is None else operator.attrgetter(arguments["bias"].target)(model)
        name = arguments["weight"].target.removesuffix(".weight").replace(".", "_") + "_layer"
        while hasattr(model, name):
            name += "_"
        model.add_submodule(name, _module(node.target, arguments, weight, bias))
        with graph.inserting_after(node):
            call = graph.call_module(name, (arguments["input"],))
        call.meta = node.meta.copy()
        node.replace_all_uses_with(call)
        graph.erase_node(node)
    model.recompile()
    return model


def _is_layer(target: Any) -> bool:
    return target in _CONVOLUTIONS or target in _TRANSPOSED or target is _aten.linear.default


def _arguments(node: fx.Node) -> dict[str, Any]:
    """By name, defaults included."""
    listed = node.target._schema.arguments
    found = {one.name: one.default_value for one in listed if one.has_default_value()}
    return found | {one.name: value for one, value in zip(listed, node.args, strict=False)} | dict(node.kwargs)


def _is_parameter(value: Any) -> bool:
    return isinstance(value, fx.Node) and value.op == "get_attr"


def _module(target: Any, arguments: dict[str, Any], weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Module:
    with torch.device("meta"):
        if target is _aten.linear.default:
            made: nn.Module = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
        else:
            dims, groups = weight.dim() - 2, arguments["groups"]
            options = {
                name: value if isinstance(value, str) else tuple(value) * (dims if len(value) == 1 else 1)
                for name, value in arguments.items() if name in ("stride", "padding", "dilation", "output_padding")
            }  # fmt: skip
            options |= {"kernel_size": tuple(weight.shape[2:]), "groups": groups, "bias": bias is not None}
            if target in _TRANSPOSED:
                made = _TRANSPOSED[target](weight.shape[0], weight.shape[1] * groups, **options)
            else:
                made = _CONVOLUTIONS[target](weight.shape[1] * groups, weight.shape[0], **options)
    made.weight = _as_parameter(weight)
    if bias is not None:
        made.bias = _as_parameter(bias)
    return made


def _as_parameter(tensor: torch.Tensor) -> nn.Parameter:
    return tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor, requires_grad=False)
