"""Inference as a graph: batch normalisation in the weights before it, ReLU and residual additions in one go.

torch.fx traces a model, or those of its parts that can be traced. In the graph, chains of convolution, normalisation,
addition and ReLU become one `Site` each; everything else stays as it was. The model keeps its modules, parameters and
its own forward. Only its class gets a `forward` in front, which runs the graph where that is the same: in eval mode,
where nobody wants gradients of parameters, where no module has changed and no hook of a module inside would be missed.

Bit masks are not handed from layer to layer: forward finds zeros faster than it reads masks (docs/numbers.md).
The file is long because what may be folded and what runs in its place have to be read side by side.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import operator
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from sparseconv import PackedWeight, pack_weight
from sparseconv.benchmark.measure import fastest_of_pairs

from .functional import result_shape
from .modules import COUNTERPARTS, OURS, as_torch, become, convolve_transposed, counterpart, operate
from .report import LayerReport, PassReport, Report

__all__ = ["disabled", "fold", "unfold"]

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_ADDITIONS = (operator.add, operator.iadd, torch.add)
_RELUS = (functional.relu, functional.relu_, torch.relu, torch.relu_)
PACKED_DENSITY = 0.7  # of a weight that may be worth packing; measured then
_ADD_RELU = getattr(torch.ops.aten, "_add_relu_", None)  # one pass instead of two

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


class Operands(NamedTuple):
    """What a site multiplies with: one object, so that threads see all of it or nothing."""

    versions: tuple  # of all that it was made of
    weight: Tensor | None  # None: nothing that can be folded
    bias: Tensor | None
    packed: PackedWeight | None


class Site:
    """A chain of modules that is computed at once.

    Parameters
    ----------
    name : str
        Of the convolution.
    layer : torch.nn.Module
        Convolution, transposed convolution or linear layer.
    norm : torch.nn.Module, optional
        Batch normalisation behind it.
    add, relu : bool
        Whether another tensor is added then, and whether ReLU comes last.
    """

    def __init__(self, name: str, layer: nn.Module, norm: nn.Module | None, add: bool, relu: bool) -> None:
        self.name, self.layer, self.norm, self.add, self.relu = name, layer, norm, add, relu
        self.operands = Operands((), None, None, None)
        self.measure: Callable[[Site, Operands, Tensor, Tensor | None], None] | None = None
        # torch.fx writes code that calls functions by these names
        self.__name__ = self.__qualname__ = f"site_{name.replace('.', '_') or 'model'}"
        self.__module__ = __name__

    @property
    def folded(self) -> str:
        parts = {"norm": self.norm is not None, "add": self.add, "relu": self.relu}
        return "+".join(name for name, there in parts.items() if there)

    def __call__(self, input: Tensor, other: Tensor | None = None) -> Tensor:
        parameters = self.parameters()
        if self.usable(parameters, input, other):
            operands = self.current(parameters)
            if operands.weight is not None:
                if self.measure is not None:
                    self.measure(self, operands, input, other)
                kernel = "torch" if not isinstance(self.layer, OURS) else "packed" if operands.packed else "sparseconv"
                return self.compute(operands, input, other, kernel)
        return self.as_written(input, other)

    def parameters(self) -> list[Tensor]:
        """What the folded weight is made of; other objects may have taken their places."""
        found = [*self.layer._parameters.values()]
        if self.norm is not None:
            found += self.norm._parameters.values()
            found += (self.norm._buffers["running_mean"], self.norm._buffers["running_var"])
        return [one for one in found if one is not None]

    def usable(self, parameters: list[Tensor], input: Tensor, other: Tensor | None) -> bool:
        """Whether it may be computed at once: no gradients wanted, plain float32 tensors on the CPU."""
        if self.norm is not None and (
            self.norm.training or (input.dim() != 2 and isinstance(self.layer, nn.Linear))  # its channels are elsewhere
        ):
            return False
        tensors = (input,) if other is None else (input, other)
        if torch.is_grad_enabled() and any(one.requires_grad for one in (*tensors, *parameters)):
            return False
        return not torch.is_autocast_enabled("cpu") and all(
            one.dtype is torch.float32 and one.device.type == "cpu" for one in tensors
        )

    def as_written(self, input: Tensor, other: Tensor | None) -> Tensor:
        result = self.layer(input)
        if self.norm is not None:
            result = self.norm(result)
        if other is not None:
            result = result + other
        return functional.relu(result) if self.relu else result

    def current(self, parameters: list[Tensor]) -> Operands:
        """Folds again if a parameter has changed. Only float32 parameters on the CPU are folded."""
        versions = (
            None if self.norm is None else self.norm.eps,
            *[(one.data_ptr(), 0 if one.is_inference() else one._version) for one in parameters],
        )
        operands = self.operands
        if versions != operands.versions:
            weight, bias, packed = None, None, None
            if all(one.dtype is torch.float32 and one.device.type == "cpu" for one in parameters):
                with torch.no_grad():
                    weight, bias = folded(self.layer, self.norm)
                if isinstance(self.layer, OURS) and self.layer.skip == "weight":
                    packed = self.pack(weight)
            operands = self.operands = Operands(versions, weight, bias, packed)
        return operands

    def pack(self, weight: Tensor) -> PackedWeight:
        """The lists of the nonzeros of a pruned weight, made once instead of in each call."""
        return pack_weight(weight.numpy(), groups=getattr(self.layer, "groups", 1))

    def compute(self, operands: Operands, input: Tensor, other: Tensor | None, kernel: str) -> Tensor:
        """The chain by torch's convolution ("torch"), by ours, or by ours with a weight that is "packed"."""
        with torch.no_grad():
            weight, words = operands.weight, {}
            if kernel != "torch":
                if other is not None and self.same_shape(operands.weight, input, other):
                    words["residual"], other = other, None
                words["activation"] = "relu" if self.relu and other is None else None
                if kernel == "packed":
                    weight, words["skip"] = operands.packed, "weight"
            result = operate(self.layer, kernel != "torch", input, weight, operands.bias, **words)
            if other is not None:
                return add_relu(result, other) if self.relu else result.add_(other)
            return result.relu_() if self.relu and kernel == "torch" else result

    def same_shape(self, weight: Tensor, input: Tensor, other: Tensor) -> bool:
        """Whether what is added has the shape of the result: then our kernels read it in their last store."""
        if other.dim() != input.dim() or (weight.dim() > 2 and input.dim() != weight.dim()):
            return False
        kind = counterpart(self.layer)
        return other.shape == kind.operation(self.layer, partial(result_shape, kind.ours), input, weight, None)

    def compute_unfolded(self, input: Tensor, other: Tensor | None) -> Tensor:
        """What PyTorch does without us, in place where models usually say so."""
        layer, norm = self.layer, self.norm
        result = operate(layer, False, input, layer.weight, layer.bias)
        if norm is not None:
            result = functional.batch_norm(
                result, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps
            )
        if other is not None:
            result.add_(other)
        return result.relu_() if self.relu else result


def add_relu(result: Tensor, other: Tensor) -> Tensor:
    """max(result + other, 0) in the memory of `result`."""
    if _ADD_RELU is not None and result.shape == other.shape:
        return _ADD_RELU(result, other)
    return result.add_(other).relu_()


def folded(layer: nn.Module, norm: nn.Module | None) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a layer together with the batch normalisation behind it, computed in float64."""
    weight, bias = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
    if norm is None:
        return weight, bias
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale = torch.rsqrt(variance + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -mean * scale if bias is None else (bias.double() - mean) * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    if counterpart(layer).operation is convolve_transposed:  # (in, out / groups, ...): outputs are the second dimension
        grouped = weight.double().unflatten(0, (layer.groups, -1))
        grouped = grouped * scale.view(layer.groups, 1, -1, *[1] * (weight.dim() - 2))
        product = grouped.flatten(0, 1)
    else:
        product = weight.double() * scale.view(-1, *[1] * (weight.dim() - 1))
    result = torch.empty_like(weight)  # strides, too
    return result.copy_(product), shift.to(weight.dtype)


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


_UNTRACEABLE: Any = object()


def unfold(model: nn.Module) -> None:
    """Takes all graphs away."""
    for module in model.modules():
        if isinstance(module, Folded):
            module.__dict__.pop(_GRAPH, None)
            module.__class__ = type(module).__bases__[1]


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


def is_pruned(weight: Tensor) -> bool:
    """Whether a weight has so many zeros that it may be worth packing."""
    return torch.count_nonzero(weight).item() < PACKED_DENSITY * weight.numel()


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


def fold(model: nn.Module, report: Report, runs: Callable[[], Any] | None, config: Any) -> None:
    """Folds the model, or those of its parts that torch.fx can trace, and measures the sites on a sample.

    Parameters
    ----------
    runs : function, optional
        Runs the model on the sample.
    """
    places = install(model, report)
    if not places:
        report.notes.append("fold: found nothing that could be folded")
        return
    if runs is None:
        mark(model, report)
        return
    with torch.no_grad():
        with disabled():
            expected = runs()
        got = runs()
        if not same(expected, got):
            unfold(model)
            report.folded.clear()
            report.notes.append(
                "fold: the graph that torch.fx traced gives another result than the model on this sample (its code "
                "depends on its inputs): nothing is folded"
            )
            return
        mark(model, report)
        measure_sites(model, report, runs, config)


def install(model: nn.Module, report: Report, name: str = "") -> bool:
    """Folds a module or, where torch.fx cannot trace it, its children; returns whether any was folded."""
    if counterpart(model) is not None or not any(map(counterpart, model.modules())):
        return False
    has_forward = type(model).forward is not nn.Module.forward  # lists and dicts of modules have none
    try:
        graph = Graph(model)
    except Exception as error:  # whatever the model's own code raises on proxies
        place = len(report.notes)
        parts = [install(child, report, f"{name}.{key}".lstrip(".")) for key, child in model.named_children()]
        if has_forward:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            then = "its parts are folded one by one" if any(parts) else "nothing in it is folded"
            report.notes.insert(place, f"fold: torch.fx cannot trace {name or type(model).__name__} ({reason}); {then}")
        return any(parts)
    if not graph.sites:
        return False
    model.__class__ = folded_class(type(model))
    model.__dict__[_GRAPH] = graph
    report.folded.append(name)
    return True


def graphs(model: nn.Module) -> Iterator[tuple[str, Graph]]:
    for name, module in model.named_modules():
        if isinstance(module, Folded):
            graph = folded_graph(module)
            if graph is not None:
                yield name, graph


def mark(model: nn.Module, report: Report) -> None:
    """Says in the report what is folded into which layer."""
    rows = {layer.name: layer for layer in report.layers}
    for prefix, graph in graphs(model):
        for site in graph.sites:
            row = rows.get(f"{prefix}.{site.name}".lstrip("."))
            if row is not None:
                row.folded = site.folded


def measure_sites(model: nn.Module, report: Report, runs: Callable[[], Any], config: Any) -> None:
    """Times each site on the sample: as PyTorch runs it, and folded with torch's convolution and with ours."""
    rows = {layer.name: layer for layer in report.layers}
    times: dict[Site, dict[str, float]] = {}

    def measure(site: Site, operands: Operands, input: Tensor, other: Tensor | None) -> None:
        for kernel, seconds in timed(site, operands, input, other, config.seconds).items():
            total = times.setdefault(site, {})
            total[kernel] = total.get(kernel, 0.0) + seconds

    for _, graph in graphs(model):
        for site in graph.sites:
            site.measure = measure
    try:
        runs()
    finally:
        for _, graph in graphs(model):
            for site in graph.sites:
                site.measure = None
    for prefix, graph in graphs(model):
        for site in graph.sites:
            row = rows.get(f"{prefix}.{site.name}".lstrip("."))
            if site in times and row is not None and row.passes:
                choose(site, row, times[site], config)


def timed(site: Site, operands: Operands, input: Tensor, other: Tensor | None, seconds: float) -> dict[str, float]:
    """Seconds of the chain as it was written ("before") and of each way to compute it at once."""

    def call(kernel: str) -> Callable[[], Tensor]:
        return lambda: site.compute(operands, input, other, kernel)

    found = {}
    found["torch"], found["sparseconv"] = fastest_of_pairs(call("torch"), call("sparseconv"), seconds)
    found["before"], _ = fastest_of_pairs(lambda: site.compute_unfolded(input, other), lambda: None, seconds / 2)
    if is_pruned(operands.weight):
        operands = operands._replace(packed=site.pack(operands.weight))
        found["packed"], _ = fastest_of_pairs(call("packed"), lambda: None, seconds / 2)
    return found


def choose(site: Site, row: LayerReport, times: dict[str, float], config: Any) -> None:
    """Lets the fastest compute the site, if `_decide` was free to choose."""
    best = "packed" if times.get("packed", math.inf) < times["sparseconv"] else "sparseconv"
    forward = row.passes["forward"]
    row.passes["forward"] = PassReport(times["torch"], times[best], forward.kernel, forward.skip)
    if best == "packed":
        row.passes["forward"] = PassReport(times["torch"], times[best], "weights_skip", "weight")
    row.converted = times[best] * (1 + config.margin) <= times["torch"]
    row.reason = "faster" if row.converted else "PyTorch is as fast or faster"
    row.seconds_before, row.seconds_after = times["before"], times[best] if row.converted else times["torch"]
    if not row.converted:
        if isinstance(site.layer, OURS):
            as_torch(site.layer)
        return
    become(site.layer, counterpart(site.layer))
    site.layer.set_words(config.words() | ({"skip": "weight"} if best == "packed" else {}))
    site.operands = Operands((), None, None, None)  # with the weight packed, or not


def same(expected: Any, got: Any) -> bool:
    """Whether two outputs are equal but for rounding."""
    first, second = (torch.utils._pytree.tree_flatten(one) for one in (expected, got))
    if first[1] != second[1]:
        return False
    for one, other in zip(first[0], second[0], strict=True):
        if isinstance(one, Tensor) and one.is_floating_point():
            if one.shape != other.shape:
                return False
            limit = 1e-3 * one.abs().max() if one.numel() else 0
            if not bool(((one - other).abs() <= limit).all()):
                return False
        elif isinstance(one, Tensor) and not torch.equal(one, other):
            return False
    return True
