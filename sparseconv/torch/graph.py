"""The graph of a model in which chains of convolution, normalisation, addition and ReLU are one `Site` each.

Everything else stays as it was. The model keeps its modules, parameters and its own forward. Only its class gets a
`forward` in front, which runs the graph where that is the same: in eval mode, where nobody wants gradients of
parameters, where no module has changed and no hook of a module inside would be missed.
"""

from __future__ import annotations

import contextlib
import inspect
import operator
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from .modules import COUNTERPARTS, OURS, counterpart
from .sites import Site, is_pruned

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_ADDITIONS = (operator.add, operator.iadd, torch.add)
_RELUS = (functional.relu, functional.relu_, torch.relu, torch.relu_)

_enabled = True


@contextlib.contextmanager
def disabled() -> Iterator[None]:
    """Folded models run as they were written."""
    global _enabled
    before, _enabled = _enabled, False
    try:
        yield
    finally:
        _enabled = before


class Tracer(fx.Tracer):
    """Goes into everything but torch.nn's modules and ours."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, OURS) or super().is_leaf_module(m, module_qualified_name)


def required(forward: Callable) -> list[str]:
    """Names of the arguments of a `forward` that have no default, but for self."""
    _, *parameters = inspect.signature(forward).parameters.values()
    return [
        one.name for one in parameters
        if one.default is one.empty and one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
    ]  # fmt: skip


def trace(model: nn.Module) -> tuple[fx.Graph, int]:
    """The graph of a model whose arguments with defaults are not given, and the number of the others."""
    kind = type(model)
    written = (kind.__bases__[1] if isinstance(model, Folded) else kind).forward
    names = required(written)
    if not names:
        raise ValueError("its forward has no argument that must be given")
    namespace: dict[str, Any] = {"written": written}
    listed = ", ".join(names)
    exec(f"def forward(self, {listed}):\n    return written(self, {listed})", namespace)
    model.__class__ = type(kind.__name__, (kind,), {"forward": namespace["forward"], "__module__": kind.__module__})
    try:
        return Tracer().trace(model), len(names)
    finally:
        model.__class__ = kind


class Graph:
    """The folded graph of a module, and what must not have changed for it to be the module's own forward."""

    def __init__(self, owner: nn.Module) -> None:
        self.owner = weakref.ref(owner)
        graph, self.arguments = trace(owner)
        self.sites = find_sites(owner, graph)
        graph.lint()
        code = graph.python_code("self")
        namespace = dict(code.globals)
        exec(code.src, namespace)
        self.forward = namespace["forward"]
        called = {node.target for node in graph.nodes if node.op == "call_module"}
        names = {id(module): name for name, module in owner.named_modules()}
        in_sites = {id(one) for site in self.sites for one in (site.layer, site.norm) if one is not None}
        self.places = [
            (parent._modules, name, child)
            for parent in owner.modules() for name, child in parent._modules.items()
        ]  # fmt: skip
        self.inside = [  # modules whose call the graph leaves out, so that their hooks would not run
            module for module in owner.modules()
            if module is not owner and (id(module) in in_sites or names[id(module)] not in called)
        ]  # fmt: skip

    def current(self) -> bool:
        """Whether the module is still made of the same modules, and none of those inside has a hook."""
        for modules, name, child in self.places:
            if modules.get(name) is not child:
                return False
        for module in self.inside:
            if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks:
                return False
        return not nn.modules.module._has_any_global_hook()


class Folded:
    """In front of the class of a folded module."""

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        if _enabled and not (keywords or self.training or torch.compiler.is_compiling() or torch.jit.is_tracing()):
            graph = folded_graph(self)
            if graph is not None and len(arguments) == graph.arguments and graph.current():
                return graph.forward(self, *arguments)
        return super().forward(*arguments, **keywords)

    def __reduce_ex__(self, protocol: Any) -> tuple:
        state = self.__dict__.copy()
        state.pop(_GRAPH, None)
        return _restored, (type(self).__bases__[1],), state


_GRAPH = "_sparseconv_graph"
_classes: weakref.WeakKeyDictionary[type, type] = weakref.WeakKeyDictionary()
_UNTRACEABLE: Any = object()


def folded_class(kind: type) -> type:
    """`kind` with `Folded` in front of it."""
    if kind not in _classes:
        _classes[kind] = type(f"Folded{kind.__name__}", (Folded, kind), {"__module__": kind.__module__})
    return _classes[kind]


def _restored(kind: type) -> nn.Module:
    """A folded module without its state, for pickle and copy; its graph is made by its first call."""
    module = kind.__new__(kind)
    module.__class__ = folded_class(kind)
    return module


def folded_graph(module: nn.Module) -> Graph | None:
    """The graph of a folded module, made if it is a copy or was loaded; None if it cannot be traced any more."""
    graph = module.__dict__.get(_GRAPH)
    if graph is None or (graph is not _UNTRACEABLE and graph.owner() is not module):
        try:
            graph = Graph(module)
        except Exception:  # whatever its own code raises on proxies
            graph = _UNTRACEABLE
        module.__dict__[_GRAPH] = graph
    return None if graph is _UNTRACEABLE else graph


def put_graph(module: nn.Module, graph: Graph) -> None:
    """Lets the module run by its graph."""
    module.__class__ = folded_class(type(module))
    module.__dict__[_GRAPH] = graph


def unfold(model: nn.Module) -> None:
    """Takes all graphs away."""
    for module in model.modules():
        if isinstance(module, Folded):
            module.__dict__.pop(_GRAPH, None)
            module.__class__ = type(module).__bases__[1]


def graphs(model: nn.Module) -> Iterator[tuple[str, Graph]]:
    for name, module in model.named_modules():
        if isinstance(module, Folded):
            graph = folded_graph(module)
            if graph is not None:
                yield name, graph


def find_sites(owner: nn.Module, graph: fx.Graph) -> list[Site]:
    """Replaces chains of nodes by sites, in place."""
    modules = dict(owner.named_modules())
    sites: list[Site] = []
    for node in list(graph.nodes):
        layer = modules.get(node.target) if node.op == "call_module" else None
        if layer is None or not can_fold(layer) or len(node.args) != 1 or node.kwargs:
            continue
        chain, norm, other, relu = [node], None, None, False
        following = only_user(chain[-1])
        candidate = modules.get(following.target) if following is not None and following.op == "call_module" else None
        if candidate is not None and can_fold_norm(candidate, layer):
            chain.append(following)
            norm = candidate
        following = only_user(chain[-1])
        if following is not None and is_addition(following):
            operands = [one for one in following.args if one is not chain[-1]]
            overwritten = following.args[0] is not chain[-1] and writes(following, modules)  # may be read elsewhere
            if len(operands) == 1 and isinstance(operands[0], fx.Node) and not overwritten:
                chain.append(following)
                addition, other = following, operands[0]
        following = only_user(chain[-1])
        if following is not None and is_relu(following, modules):
            chain.append(following)
            relu = True
        if len(chain) == 1 and not is_pruned(layer.weight):
            continue
        read = [(node.args[0], node)] if other is None else [(node.args[0], node), (other, addition)]
        if any(changed(graph, one, reader, chain, modules) for one, reader in read) or not is_plain(chain, modules):
            continue
        site = Site(node.target, layer, norm, other is not None, relu)
        site.__name__ += f"_{len(sites)}"  # a layer may be called at several places
        with graph.inserting_after(chain[-1]):
            merged = graph.call_function(site, (node.args[0],) if other is None else (node.args[0], other))
        chain[-1].replace_all_uses_with(merged)
        for one in reversed(chain):
            graph.erase_node(one)
        sites.append(site)
    return sites


def only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def can_fold(layer: nn.Module) -> bool:
    """Whether a layer is one of ours or torch's own, of float32, with no more to it than its parameters."""
    kind = counterpart(layer)
    if kind is None or kind.plain not in COUNTERPARTS or nn.utils.parametrize.is_parametrized(layer):
        return False
    return (
        layer.weight.dtype == torch.float32
        and layer.weight.device.type == "cpu"
        and getattr(layer, "activation", None) is None
        and not getattr(layer, "threshold", 0)
    )


def can_fold_norm(norm: nn.Module, layer: nn.Module) -> bool:
    channels = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    return (
        type(norm) in _NORMS
        and norm.running_mean is not None
        and norm.num_features == channels
        and not nn.utils.parametrize.is_parametrized(norm)
    )


def is_addition(node: fx.Node) -> bool:
    if node.kwargs or len(node.args) != 2:
        return False
    if node.op == "call_function":
        return node.target in _ADDITIONS
    return node.op == "call_method" and node.target in ("add", "add_")


def is_relu(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return type(modules.get(node.target)) is nn.ReLU
    if node.op == "call_function":
        return node.target in _RELUS
    return node.op == "call_method" and node.target in ("relu", "relu_")


def is_plain(chain: list[fx.Node], modules: dict[str, nn.Module]) -> bool:
    """Whether no module of the chain has hooks, which a site would not run."""
    found = [modules[node.target] for node in chain if node.op == "call_module"]
    return not any(one._forward_hooks or one._forward_pre_hooks or one._backward_hooks for one in found)


def changed(
    graph: fx.Graph, operand: Any, reader: fx.Node, chain: list[fx.Node], modules: dict[str, nn.Module]
) -> bool:
    """Whether memory of what `reader` reads may be written before the chain's last node, to where the site is moved."""
    between, memory = False, None
    for node in graph.nodes:
        if node is reader:
            between = True
        elif node is chain[-1]:
            return False
        elif between and node not in chain and writes(node, modules):
            memory = memory or shared_memory(graph, modules)
            if any(memory[one] == memory.get(operand) for one in node.all_input_nodes):
                return True
    return False


def shared_memory(graph: fx.Graph, modules: dict[str, nn.Module]) -> dict[Any, int]:
    """A number for each node; two whose results may share memory have the same.

    Any function may return a view of any of its arguments, but for layers, normalisation and sites. Arguments of the
    model and its own tensors may share memory, too.
    """
    numbers: dict[Any, int] = {}
    for number, node in enumerate(graph.nodes, 1):
        numbers[node] = 0 if node.op in ("placeholder", "get_attr") else number
        module = modules.get(node.target) if node.op == "call_module" else None
        makes = isinstance(module, _NORMS) or (module is not None and counterpart(module) is not None)
        if not makes and not isinstance(node.target, Site):
            joined = {numbers[one] for one in node.all_input_nodes}
            numbers.update((one, numbers[node]) for one, found in list(numbers.items()) if found in joined)
    return numbers


def writes(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether a node may change its input: functions with an underscore or in place, and modules that say so."""
    if node.op == "call_module":
        return bool(getattr(modules.get(node.target), "inplace", False))
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "_")
    in_place = name.endswith("_") or (getattr(node.target, "__module__", "") == "_operator" and name.startswith("i"))
    return in_place or bool(node.kwargs.get("inplace")) or node.kwargs.get("out") is not None
