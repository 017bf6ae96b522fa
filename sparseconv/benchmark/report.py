"""Cells as lines of text, one per layer, with means below, and as a CSV file."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from sparseconv.benchmark.layers import NETWORKS, parse
from sparseconv.benchmark.measure import Cell, Settings

__all__ = ["COLUMNS", "geometric_mean", "head", "row", "save_csv", "summary"]

COLUMNS = (
    "pass",
    "name",
    "layer",
    "kernel_size",
    "stride",
    "zeros",
    "sparsity",
    "seconds",
    "peer_seconds",
    "speedup",
    "peer_gflops",
    "peer",
    "isa",
    "threads",
    "batch",
    "layout",
    "skip",
    "zeros_in",
    "given",
)

_PEER_NAMES = {"torch": "oneDNN", "dense": "dense"}


def head(which: str, columns: Iterable[str], settings: Settings) -> str:
    """The line above the rows of a pass."""
    return _line(which, f"{_PEER_NAMES[settings.against]} GF/s", columns)


def row(cells: Sequence[Cell]) -> str:
    """The line of one layer in one pass: cells of different sparsities, or of real and of random zeros."""
    first, gflops = cells[0], max(cell.peer_gflops for cell in cells)
    zeros = [f"{first.sparsity:.0%}"] if first.name else []
    return _line(
        f"{first.name} {first.layer}".strip(), f"{gflops:.0f}", [*zeros, *(f"{cell.speedup:.2f}" for cell in cells)]
    )


def summary(rows: Sequence[Sequence[Cell]]) -> list[str]:
    """The lines below the rows of a pass: geometric means, and whole networks where all their layers are there."""
    lines = []
    named = bool(rows[0][0].name)
    for name, kernel in (("3x3", "3x3"), ("1x1", "1x1"), ("all", None)):
        chosen = [cells for cells in rows if kernel in (None, cells[0].layer.kernel_text)]
        if len(chosen) > 1:
            means = (f"{geometric_mean(cell.speedup for cell in column):.2f}" for column in zip(*chosen, strict=True))
            lines.append(_line(f"mean of {name} ({len(chosen)})", "", [*[""] * named, *means]))
    if named:  # layers of one network, with batch and map sizes of their own
        return lines
    by_layer = {cells[0].layer: cells for cells in rows}
    for name, texts in NETWORKS.items():
        counts = {parse(text): count for text, count in texts.items()}
        if counts.keys() <= by_layer.keys():
            columns = zip(*(by_layer[layer] for layer in counts), strict=True)
            speedups = (f"{_whole(column, counts.values()):.2f}" for column in columns)
            lines.append(_line(f"{name} as a whole", "", speedups))
    return lines


def geometric_mean(values: Iterable[float]) -> float:
    """The mean for ratios: twice as fast and half as fast cancel out."""
    values = list(values)
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def _whole(cells: Iterable[Cell], counts: Iterable[int]) -> float:
    """The speed-up of layers that come as often as this."""
    pairs = list(zip(cells, counts, strict=True))
    return sum(n * cell.peer_seconds for cell, n in pairs) / sum(n * cell.seconds for cell, n in pairs)


def _line(first: str, second: str, numbers: Iterable[str]) -> str:
    return f"{first:20} {second:>11} |" + "".join(f"{number:>7}" for number in numbers)


def save_csv(cells: Iterable[Cell], settings: Settings, isa: str, path: str | Path) -> None:
    """Write one line per cell, with `COLUMNS`."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for cell in cells:
            writer.writerow(
                (
                    cell.which,
                    cell.name,
                    cell.layer,
                    cell.layer.kernel_text,
                    cell.layer.stride,
                    cell.zeros,
                    f"{cell.sparsity:.4g}",
                    f"{cell.seconds:.6g}",
                    f"{cell.peer_seconds:.6g}",
                    f"{cell.speedup:.4f}",
                    f"{cell.peer_gflops:.2f}",
                    settings.against,
                    isa,
                    settings.threads,
                    cell.batch,
                    settings.layout,
                    settings.skip,
                    cell.zeros_in,
                    settings.given,
                )
            )
