"""A model of torch.nn computes with sparseconv, and back: `convert_`, `convert`, `revert_`, `sparsity_report`."""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from sparseconv import cpu

from . import fold as folding
from .modules import COUNTERPARTS, DEFAULTS, OURS, as_torch, become, counterpart
from .observe import Observer, preserved, run, step
from .report import LayerReport, Report

if TYPE_CHECKING:
    from ..typing import Keep, Skip

__all__ = ["Config", "convert", "convert_", "revert_", "sparsity_report"]

Filter = Callable[[nn.Module, str], bool]


@dataclass(frozen=True)
class Config:
    """How `convert_` measures and what converted layers are told.

    Parameters
    ----------
    backward : bool, optional
        Whether the backward passes count. Default: they do if the model is in training mode.
    skip, threshold, keep, input_is_relu
        Attributes of converted layers, as `sparseconv.torch.conv2d` takes them. A threshold changes results.
    margin : float
        A layer stays PyTorch's unless ours takes at most 1 / (1 + margin) of its time.
    seconds : float
        How long each pass of each layer is timed; 5 pairs of calls are made in any case.
    whole_model : bool
        Whether the whole model is timed on the sample before and after, too, and layers are given back if it did not
        become faster.
    fold : bool
        As the keyword of `convert_`.
    """

    backward: bool | None = None
    skip: Skip = "auto"
    threshold: float = 0.0
    keep: Keep = "dense"
    input_is_relu: bool | None = None
    margin: float = 0.02
    seconds: float = 0.05
    whole_model: bool = True
    fold: bool = False

    def __post_init__(self) -> None:
        if not self.margin >= 0:
            raise ValueError(f"margin: got {self.margin!r}, expected a number that is not negative")
        if not self.seconds >= 0:
            raise ValueError(f"seconds: got {self.seconds!r}, expected a number that is not negative")

    def options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in DEFAULTS if hasattr(self, name)}


def convert_(
    model: nn.Module, sample: Any = None, *, filter_fn: Filter | None = None, config: Config | None = None,
    fold: bool = False,
) -> Report:  # fmt: skip
    """Lets the layers of a model compute with sparseconv, in place.

    Modules stay the same objects with the same parameters; their class changes. Optimisers, hooks, shared modules,
    `torch.nn.utils.prune` and parametrizations go on as before, and `state_dict` is the same in both directions.

    Parameters
    ----------
    model : torch.nn.Module
        On the CPU, with float32 parameters. In training mode, backward passes are measured, too.
    sample : tensor, tuple, dict or function, optional
        What to run the model on: the argument, the arguments, the keywords, or a function of the model that runs it
        and returns its output or a loss. Each layer is then timed inside the model, on the activations and gradients of
        the sample, and stays PyTorch's where that is faster. Without one, every layer that the library knows is
        converted.
    filter_fn : function, optional
        ``filter_fn(module, name)`` says whether a layer may be converted. Default: all may.
    config : Config, optional
    fold : bool
        For inference: run the model as a graph (torch.fx) in which batch normalisation is folded into the weights
        before it, ReLU is done in the last store, and a residual addition goes together with its ReLU. That graph is
        used in eval mode where no gradient of a parameter is wanted (`torch.no_grad()`); everywhere else the model runs
        as it was written. Parameters stay as they are: folded weights are copies, made again when a parameter changes
        (not when it is changed through `.data`). torch.fx takes ``a += b`` for ``a = a + b``: where a model reads the
        old `a` under another name, the graph differs, which only a sample shows; nothing is folded then.

    Returns
    -------
    Report
        What was found and done, by layer; ``print(report)`` shows a table.

    Raises
    ------
    TypeError
        The model is no torch.nn.Module or a ScriptModule, or another argument has the wrong type.
    ValueError
        A model without layers that can be converted, parameters that are not on the CPU, a sample that the model
        rejects, or ``fold=True`` with a model in training mode.

    See Also
    --------
    sparseconv.torch.convert, sparseconv.torch.revert_, sparseconv.torch.sparsity_report
    """
    config = _checked(model, filter_fn, config)
    fold = fold or config.fold
    if fold and model.training:
        raise ValueError("fold: got True with a model in training mode, expected one in eval mode: use model.eval()")
    layers, report = _layers(model, filter_fn)
    if not any(layer.reason == "" for layer in report.layers):
        raise ValueError(_nothing(model, report))
    backward = report.backward = model.training if config.backward is None else config.backward
    folding.unfold(model)
    if sample is None:
        for name, layer in zip(layers, report.layers, strict=True):
            if not layer.reason:
                _to_ours(layers[name], config.options())
                layer.converted, layer.reason = True, "no sample to measure on"
        if fold:
            folding.fold(model, report, None, config)
        return report
    with preserved(model, sample):
        _observe(model, sample, layers, report, config, backward)
        _decide(layers, report, config)
        if fold:
            folding.fold(model, report, lambda: run(model, sample), config)
        if config.whole_model:
            _check_whole(model, sample, layers, report, backward)
    return report


def convert(
    model: nn.Module, sample: Any = None, *, filter_fn: Filter | None = None, config: Config | None = None,
    fold: bool = False,
) -> tuple[nn.Module, Report]:  # fmt: skip
    """`convert_` on a copy of the model: returns the copy and the report.

    The copy is `copy.deepcopy(model)`; parameters are not shared. Everything else is as in `convert_`.
    """
    _checked(model, filter_fn, config)
    converted = copy.deepcopy(model)
    return converted, convert_(converted, sample, filter_fn=filter_fn, config=config, fold=fold)


def revert_(model: nn.Module) -> nn.Module:
    """Undoes `convert_`: all layers compute with PyTorch again. Returns the model.

    Modules that were made as `sparseconv.torch.Conv2d` and the like become PyTorch's, too.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: got {type(model).__name__}, expected a torch.nn.Module")
    folding.unfold(model)
    for module in model.modules():
        if isinstance(module, OURS) and counterpart(module):
            as_torch(module)
    return model


def sparsity_report(
    model: nn.Module, sample: Any, *, filter_fn: Filter | None = None, config: Config | None = None
) -> Report:
    """Zeros and gains of each layer and pass on a sample; nothing is converted.

    Parameters are those of `convert_`. `converted` of a layer says whether `convert_` would convert it.
    """
    config = _checked(model, filter_fn, config)
    if sample is None:
        raise TypeError("sample: got None, expected a tensor, a tuple, a dict, or a function that runs the model")
    layers, report = _layers(model, filter_fn)
    if not any(layer.reason == "" for layer in report.layers):
        raise ValueError(_nothing(model, report))
    backward = report.backward = model.training if config.backward is None else config.backward
    with preserved(model, sample):
        _observe(model, sample, layers, report, config, backward)
    for layer in report.layers:
        if not layer.reason:
            _judge(layer, config)
    return report


def _checked(model: Any, filter_fn: Any, config: Any) -> Config:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: got {type(model).__name__}, expected a torch.nn.Module")
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError("model: got a ScriptModule, whose code is fixed; convert the model before it is scripted")
    if config is not None and not isinstance(config, Config):
        raise TypeError(f"config: got {type(config).__name__}, expected a sparseconv.torch.Config")
    if filter_fn is not None and not callable(filter_fn):
        raise TypeError(f"filter_fn: got {type(filter_fn).__name__}, expected a function of a module and its name")
    return config or Config()


def _layers(model: nn.Module, filter_fn: Filter | None) -> tuple[dict[str, nn.Module], Report]:
    """The layers of a model by name, and a report that says of each why it cannot be converted, or nothing."""
    layers: dict[str, Any] = {}
    report = Report(threads=torch.get_num_threads(), isa=cpu.isa())
    module: Any
    for name, module in model.named_modules():
        kind = counterpart(module)
        if kind is None:
            if issubclass(type(module), tuple(COUNTERPARTS)):
                layers[name] = module
                reason = f"{type(module).__name__} is a subclass, whose forward may be its own"
                if isinstance(module.weight, UninitializedParameter):
                    reason = "it is not initialised yet: run the model once before"
                report.layers.append(LayerReport(name, type(module).__name__, False, reason))
            continue
        layers[name] = module
        reason = _obstacle(module)
        if not reason and filter_fn is not None and not filter_fn(module, name):
            reason = "filter_fn"
        converted = bool(reason) and isinstance(module, OURS)
        report.layers.append(LayerReport(name, kind.plain.__name__, converted, reason, tuple(module.weight.shape)))
    return layers, report


def _obstacle(module: Any) -> str:
    """Why a layer cannot be converted; "" if it can."""
    for which, parameter in (("weight", module.weight), ("bias", module.bias)):
        if parameter is None:
            continue
        if parameter.device.type != "cpu":
            return f"its {which} is on {parameter.device}"
        if parameter.dtype != torch.float32:
            return f"its {which} is {str(parameter.dtype).removeprefix('torch.')}"
    if not module.weight.numel():
        return "its weight is empty"
    if isinstance(module, OURS) and (module.activation is not None or module.threshold):
        return "it has an activation or a threshold, which torch.nn does not know"
    return ""


def _nothing(model: nn.Module, report: Report) -> str:
    got = f"model: got {type(model).__name__}, "
    names = ", ".join(kind.__name__ for kind in COUNTERPARTS)
    if not report.layers:
        return f"{got}which has none of the layers {names}; there is nothing to convert"
    layer = report.layers[0]
    return (
        f"{got}none of whose {len(report.layers)} layers can be converted ({layer.name or layer.module}: "
        f"{layer.reason}); expected {names} with float32 parameters on the CPU"
    )


def _to_ours(module: Any, options: dict[str, Any]) -> None:
    become(module, counterpart(module))
    module.set_options(options)


def _observe(
    model: nn.Module, sample: Any, layers: dict[str, nn.Module], report: Report, config: Config, backward: bool
) -> None:
    """Times the layers on the sample and fills their reports."""
    wanted = {layer.name: layers[layer.name] for layer in report.layers if not layer.reason}
    observer = Observer(wanted, config.options(), config.seconds, backward)
    step(model, sample, backward)  # a sample that the model rejects is told before anything is measured
    with observer.attached():
        step(model, sample, backward)
    for number, layer in enumerate(report.layers):
        if layer.name in observer.reports:
            report.layers[number] = observer.reports[layer.name]
        elif not layer.reason:
            layer.reason = "the sample did not run it"


def _judge(layer: LayerReport, config: Config) -> None:
    layer.seconds_before = layer.torch_seconds
    layer.converted = layer.seconds * (1 + config.margin) <= layer.torch_seconds
    layer.seconds_after = layer.seconds if layer.converted else layer.torch_seconds
    layer.reason = "faster" if layer.converted else "PyTorch is as fast or faster"


def _decide(layers: dict[str, nn.Module], report: Report, config: Config) -> None:
    for layer in report.layers:
        if layer.reason:
            continue
        _judge(layer, config)
        if layer.converted:
            _to_ours(layers[layer.name], config.options())
        elif isinstance(layers[layer.name], OURS):
            as_torch(layers[layer.name])


def _check_whole(model: nn.Module, sample: Any, layers: dict[str, nn.Module], report: Report, backward: bool) -> None:
    """Times the whole model; while it is not faster, layers of small gains are given back, then all, then folding."""

    def give_back(least: float) -> None:
        for layer in report.layers:
            if layer.converted and layer.passes and layer.torch_seconds < least * layer.seconds:
                as_torch(layers[layer.name])
                layer.converted, layer.reason = False, "the whole model was not faster with it"
                layer.seconds_after = layer.torch_seconds

    def unfold() -> None:
        folding.unfold(model)
        report.folded.clear()
        for layer in report.layers:
            layer.folded, layer.seconds_after = "", layer.seconds_before

    for retreat in (None, lambda: give_back(1.1), lambda: give_back(math.inf), unfold):
        if retreat is not None:
            retreat()
        if not report.folded and not any(layer.converted for layer in report.layers):
            report.model_seconds_after = report.model_seconds_before
            report.notes.append("the whole model would not be faster on this sample: it runs on PyTorch alone")
            return
        before, after = _pairs(model, sample, layers, report, backward)
        report.model_seconds_before, report.model_seconds_after = before, after
        if after <= before:
            return


def _pairs(
    model: nn.Module, sample: Any, layers: dict[str, nn.Module], report: Report, backward: bool
) -> tuple[float, float]:
    """The fastest of several steps with torch.nn's modules and as it is now, in turns."""
    ours = [
        (module, type(module), counterpart(module).plain)
        for module in (layers[layer.name] for layer in report.layers if layer.converted)
        if counterpart(module)
    ]
    best = {False: float("inf"), True: float("inf")}
    spent, turn = 0.0, 0
    while turn < 4 or (turn < 20 and spent < 1.0):  # the first pair is not counted
        for now in (False, True) if turn % 2 else (True, False):
            if not now:
                for module, _, plain in ours:
                    become(module, plain)
            try:
                with contextlib.nullcontext() if now else folding.disabled():
                    started = time.perf_counter()
                    step(model, sample, backward)
                    seconds = time.perf_counter() - started
            finally:
                if not now:
                    for module, kind, _ in ours:
                        module.__class__ = kind
            if turn:
                best[now] = min(best[now], seconds)
                spent += seconds
        turn += 1
    return best[False], best[True]
