"""Inference as a graph: batch normalisation in the weights before it, ReLU and residual additions in one go.

torch.fx traces a model, or those of its parts that can be traced (graph.py). What its sites run (sites.py), PyTorch's
convolution or ours, is measured on a sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sparseconv.benchmark.measure import fastest_of_pairs

from .graph import Graph, disabled, graphs, put_graph, unfold
from .modules import OURS, as_torch, become, counterpart
from .report import LayerReport, PassReport, Report
from .sites import Operands, Site, is_pruned

__all__ = ["disabled", "fold", "unfold"]


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
    put_graph(model, graph)
    report.folded.append(name)
    return True


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
    site.layer.set_options(config.options() | ({"skip": "weight"} if best == "packed" else {}))
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
