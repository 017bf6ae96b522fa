"""A trained network against PyTorch: each convolution of a training step on what it read there, and the whole of it."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

import sparseconv.torch as sct
from sparseconv.benchmark.layers import Layer
from sparseconv.benchmark.measure import Settings, compare, fastest_of_pairs
from sparseconv.benchmark.networks.record import Recorded
from sparseconv.benchmark.networks.trained import Trained

__all__ = ["NEEDED", "Row", "Whole", "compare_layers", "compare_whole", "load"]

NEEDED = "needed"  # backward_data that leaves out what the ReLU in front of the layer makes zeros of


@dataclass(frozen=True)
class Row:
    """One convolution: seconds of ours and of PyTorch, by pass, and by `NEEDED`."""

    name: str
    layer: Layer
    batch: int
    zeros_x: float
    zeros_dy: float
    seconds: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Whole:
    """The network before and after `convert_`: seconds of ours and of PyTorch."""

    what: str
    seconds: tuple[float, float]
    converted: int  # layers that compute with sparseconv
    layers: int  # that it knows


def load(name: str) -> Trained:
    """The network of this name, one of `NAMES`."""
    module = "srmd" if name.startswith("srmd") else name
    return importlib.import_module(f"sparseconv.benchmark.networks.{module}").load(name)


def compare_layers(recorded: Iterable[Recorded], passes: Iterable[str], settings: Settings) -> Iterator[Row]:
    """Each layer's passes by both sides in turn, on the same operands: a row as soon as a layer is done."""
    for one in recorded:
        operands = one.saved.operands
        row = Row(
            one.saved.name, operands.layer, len(operands.x), operands.sparsity("input"),
            operands.sparsity("grad_output"),
        )  # fmt: skip
        for which in passes:
            if which not in one.saved.passes:
                continue
            row.seconds[which] = compare(which, operands, settings)
            if which == "backward_data" and one.behind_relu:
                row.seconds[NEEDED] = compare(which, operands, replace(settings, zeros_in="output"))
        yield row


def compare_whole(trained: Trained, settings: Settings) -> Iterator[Whole]:
    """Inference, then a training step: the model as it is, and a copy that `convert_` has measured and converted."""
    torch.set_num_threads(settings.threads)
    skip: Any = "input" if settings.skip == "sparse" else settings.skip
    config = sct.Config(skip=skip, seconds=min(0.05, settings.seconds))

    def loss(model: nn.Module) -> torch.Tensor:
        return trained.loss(model(trained.images))

    ours = copy.deepcopy(trained.model)
    report = sct.convert_(ours, trained.images, config=replace(config, fold=True))
    calls = [_inference(model, trained) for model in (ours, trained.model)]
    yield _whole("inference", report, calls, settings)
    ours = copy.deepcopy(trained.model)
    report = sct.convert_(ours, loss, config=replace(config, backward=True))
    calls = [_step(model, loss) for model in (ours, trained.model)]
    yield _whole("training step", report, calls, settings)


def _whole(what: str, report: sct.Report, calls: list[Callable], settings: Settings) -> Whole:
    ours, theirs = calls
    return Whole(what, fastest_of_pairs(ours, theirs, settings.seconds), report.converted, len(report.layers))


def _inference(model: nn.Module, trained: Trained) -> Callable:
    def run() -> None:
        with torch.no_grad():
            model(trained.images)

    return run


def _step(model: nn.Module, loss: Callable[[nn.Module], torch.Tensor]) -> Callable:
    optimiser = torch.optim.SGD(model.parameters(), 0.0)  # the weights stay, so that all steps have the same zeros

    def run() -> None:
        optimiser.zero_grad(set_to_none=True)
        loss(model).backward()
        optimiser.step()

    return run
