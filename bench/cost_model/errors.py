"""How well unseen cells are predicted: tables, and a picture."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparseconv.benchmark.layers import NETWORKS

from .calls import CONSTANTS, PASSES
from .fitting import expected, fit, fitted, predict, work_of
from .processors import PROCESSORS, Processor
from .stored import Cell, network_cells, other_cells


def _splits(layers: list[str]) -> Iterator[tuple[str, Callable[[Cell], bool]]]:
    """What is unseen, and whether a cell is."""
    yield "ResNet-50", lambda cell: cell.layer not in NETWORKS["vgg16"] | NETWORKS["resnet34"]
    yield "VGG16, ResNet-34", lambda cell: cell.layer not in NETWORKS["resnet50"]
    for first in range(6):
        yield "each layer once", lambda cell, left_out=layers[first::6]: cell.layer in left_out
    yield "zeros", lambda cell: cell.zeros not in (0.0, 0.5, 0.9)


@cache
def ratios(processor: Processor) -> dict[str, list[tuple[Cell, float]]]:
    """Cells, and predicted over measured times, by what is unseen; where that is nothing, all cells are fitted to."""

    def predicted(constants: dict, tested: list[Cell]) -> list[tuple[Cell, float]]:
        return [(cell, predict(work_of(cell), constants, processor).seconds / cell.seconds) for cell in tested]

    cells, found = network_cells(processor), defaultdict(list)
    found["nothing"] = predicted(fitted(processor), cells)
    for what, is_unseen in _splits(list(dict.fromkeys(cell.layer for cell in cells))):
        constants = fit([cell for cell in cells if not is_unseen(cell)])
        found[what] += predicted(constants, [cell for cell in cells if is_unseen(cell)])
    if others := other_cells(processor):
        found["other layers"] = predicted(fitted(processor), others)
    return dict(found)


class Errors(NamedTuple):
    """How far predictions are off; 0.15 is 15% too much, or as many times too little."""

    cells: int
    within: float  # share of them within 15%
    median: float
    most: float  # of nine in ten
    worst: float


def errors(pairs: Iterable[tuple[Cell, float]]) -> Errors:
    """The errors of cells and their ratios."""
    off = np.exp(np.abs(np.log([ratio for _, ratio in pairs]))) - 1
    return Errors(len(off), float(np.mean(off <= 0.15)), *np.quantile(off, (0.5, 0.9, 1)).tolist())


def markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table as docs/cost_model.md has it."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)] + [""]


def constant_table() -> list[str]:
    """Fitted and expected constants of all CPUs."""
    rows = [
        [family, f"`{name}`", meaning]
        + [f"{fitted(cpu)[family][name]:.2f} ({expected(cpu)[family][name]:.3g})" for cpu in PROCESSORS]
        for family, constants in CONSTANTS.items()
        for name, (meaning, _) in constants.items()
    ]
    return markdown(["kernels", "constant", "of a", *(cpu.name for cpu in PROCESSORS)], rows)


def error_table() -> list[str]:
    """Errors by what is unseen."""
    rows = []
    for cpu in PROCESSORS:
        for what, pairs in ratios(cpu).items():
            off = errors(pairs)
            numbers = f"{off.cells}", f"{off.within:.0%}", f"{off.median:.1%}", f"{off.most:.0%}", f"{off.worst:.0%}"
            rows.append([cpu.name, what, *numbers])
    return markdown(["CPU", "unseen", "cells", "within 15%", "median", "90% below", "worst"], rows)


def pass_table() -> list[str]:
    """Errors by pass and size of the kernel, each layer once."""
    rows = []
    for which in PASSES:
        for kernel in ("3x3", "1x1"):
            row = [f"{which}, {kernel}"]
            for cpu in PROCESSORS:
                pairs = ratios(cpu)["each layer once"]
                off = errors(pair for pair in pairs if pair[0].which == which and f" {kernel}" in pair[0].layer)
                row += [f"{off.within:.0%}", f"{off.median:.1%}, {off.most:.0%}, {off.worst:.0%}"]
            rows.append(row)
    head = [word for cpu in PROCESSORS for word in (f"{cpu.name}: within 15%", "median, 90%, worst")]
    return markdown(["unseen layers", *head], rows)


def worst_lines(cpu: Processor) -> list[str]:
    """The five cells that are furthest off, each layer once."""
    pairs = sorted(ratios(cpu)["each layer once"], key=lambda pair: -abs(math.log(pair[1])))[:5]
    return [
        f"{cpu.name}, {cell.which}, {cell.layer}, {cell.zeros:.0%} zeros, {work_of(cell).kernel}: "
        f"predicted {ratio:.2f} of {1e3 * cell.seconds:.2f} ms"
        for cell, ratio in pairs
    ]


def save_picture(path: Path) -> None:
    """How many layers that were left out of the fit are predicted how well, a panel for each CPU."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    panels, shares = figure.subplots(1, len(PROCESSORS), sharey=True), np.linspace(0, 1, 101)
    for cpu, panel in zip(PROCESSORS, panels, strict=True):
        for which in PASSES:
            logs = [math.log(ratio) for cell, ratio in ratios(cpu)["each layer once"] if cell.which == which]
            panel.plot(100 * np.exp(np.quantile(logs, shares)) - 100, 100 * shares, label=which)
        panel.axvspan(100 / 1.15 - 100, 15, color="0.5", alpha=0.2, linewidth=0)
        panel.set(title=cpu.name, xlabel="predicted above measured, %", xlim=(-45, 45), ylim=(0, 100))
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("unseen cells, %")
    panels[0].legend(loc="lower right", fontsize="small")
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "sparseconv"}):
        figure.savefig(path, metadata={"Date": None})
