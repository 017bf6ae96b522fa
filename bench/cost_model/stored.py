"""The stored times: bench/results/*/layers.csv, for Zen 4 the tables of docs/numbers.md."""

import csv
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from sparseconv.benchmark.layers import parse

from .calls import BATCH
from .processors import Processor

ROOT = Path(__file__).resolve().parents[2]

# Zen 5 was timed on 2026-11-30. Later on that day "auto" came to take dense kernels here at 30% zeros.
DENSE_NOW = {("backward_data", "64,128,56 3x3/2")} | {
    ("forward", f"{sizes} 3x3/2") for sizes in ("64,128,56", "128,128,56", "128,256,28", "256,256,28")
}


class Cell(NamedTuple):
    """A stored time, of one thread."""

    processor: Processor
    which: str
    layer: str
    zeros: float
    seconds: float


def csv_cells(processor: Processor, path: Path) -> list[Cell]:
    """The cells of a file of `sparseconv bench --csv`, as on a machine that does nothing else.

    oneDNN's time does not depend on zeros. So all cells of a layer and pass are brought to its fastest one: a minute in
    which the machine was slow is in both times of a cell.
    """
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    peers = defaultdict(list)
    for row in rows:
        peers[row["pass"], row["layer"]].append(float(row["peer_seconds"]))
    fastest = [min(peers[row["pass"], row["layer"]]) for row in rows]
    return [
        Cell(processor, row["pass"], row["layer"], float(row["sparsity"]), peer / float(row["speedup"]))
        for row, peer in zip(rows, fastest, strict=True)
    ]


def page_cells(processor: Processor, page: Path) -> list[Cell]:
    """The same of the tables of docs/numbers.md, which have oneDNN's best speed, and ratios."""
    with patch.object(sys, "path", [str(ROOT / "docs"), *sys.path]):
        from website.performance import zen4_rows
    return [
        Cell(processor, which, layer, zeros, 2e-9 * parse(layer).problem(BATCH).macs / gflops / ratio)
        for which, layer, gflops, ratios in zen4_rows(page)
        for zeros, ratio in ratios.items()
    ]


def network_cells(processor: Processor) -> list[Cell]:
    """Stored times of the layers of the networks, without those of calls that do other things today."""
    if processor.folder == "zen4":
        # Timed on 2026-11-21. Until 2026-11-29 backward_weight also packed rows that no window reaches, which are three
        # pixels of four in strided 1x1 layers.
        cells = page_cells(processor, ROOT / "docs" / "numbers.md")
        return [cell for cell in cells if not (cell.which == "backward_weight" and " 1x1/2" in cell.layer)]
    cells = csv_cells(processor, ROOT / "bench" / "results" / processor.folder / "layers.csv")
    return [cell for cell in cells if not (cell.zeros == 0.3 and (cell.which, cell.layer) in DENSE_NOW)]


def other_cells(processor: Processor) -> list[Cell]:
    """Stored times of layers of no network, at other zeros: nothing is ever fitted to them."""
    path = ROOT / "bench" / "results" / processor.folder / "other_layers.csv"
    return csv_cells(processor, path) if path.exists() else []
