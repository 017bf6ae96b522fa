"""What `skip="auto"` loses: its time beside those of all it could have chosen, and what plans promise."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparseconv import Plan, cpu, plan
from sparseconv._core._cpu import has_tiles
from sparseconv.benchmark.layers import Layer
from sparseconv.benchmark.measure import SKIP_WORDS, Settings, fastest, rows_of
from sparseconv.benchmark.operands import MASKS, SPARSE_OPERANDS, Operands, random_operands
from sparseconv.benchmark.peers import ours

__all__ = ["COLUMNS", "Regret", "head", "measure_regret", "plan_for", "row", "save_csv", "summary"]

NOTABLE = 1.05  # cells above are named
CLOSE = 0.1  # a promise and what came of it
COLUMNS = (
    "pass", "layer", "sparsity", "auto", "promised", "choice", "seconds", "isa", "threads", "batch", "layout",
    "zeros_in", "given",
)  # fmt: skip


@dataclass(frozen=True)
class Regret:
    """The outcome for one layer, pass and sparsity: the fastest call of each choice."""

    layer: Layer
    which: str
    sparsity: float
    chosen: str  # what "auto" skips
    promised: float  # expected time of the dense kernel over its own
    seconds: dict[str, float]  # of "auto", "none", operands to skip; on AMX also "none (avx512)"

    @property
    def best(self) -> str:
        """The fastest choice; "auto" if none is faster."""
        return min(self.seconds, key=self.seconds.__getitem__)

    @property
    def ratio(self) -> float:
        """Time of "auto" over that of the fastest choice, 1 at least."""
        return self.seconds["auto"] / self.seconds[self.best]

    @property
    def wrong(self) -> bool:
        """Whether another choice was faster; if not, a ratio above 1 is the time to decide, and noise."""
        return self.best not in ("auto", self.chosen)

    @property
    def kept(self) -> float:
        """The speed-up that came, over the one that was promised."""
        return self.seconds["none"] / self.seconds["auto"] / self.promised

    @property
    def close(self) -> bool:
        """Whether that is about what was promised."""
        return abs(self.kept - 1) <= CLOSE

    def __str__(self) -> str:
        """The cell in words."""
        text = f"{self.which} {self.layer} at {self.sparsity:.0%}: {self.ratio:.2f}"
        return f'{text}, "auto" took {self.chosen}, {self.best} was faster' if self.wrong else f"{text} to decide"


def measure_regret(
    layers: Iterable[Layer], passes: Iterable[str], sparsities: Iterable[float], settings: Settings
) -> Iterator[list[Regret]]:
    """Time all choices in turn at random zeros: one cell per sparsity, in the order of `rows_of`."""
    return rows_of(_cell, layers, passes, sparsities, settings)


def _cell(layer: Layer, which: str, sparsity: float, settings: Settings) -> Regret:
    sparse = settings.sparse_operand(which)
    operands = random_operands(layer, {sparse: sparsity}, batch=settings.batch, layout=settings.layout)
    options: dict[str, Any] = {
        "threads": settings.threads, "mask": settings.mask if sparse in MASKS else None, "packed": settings.packed,
    }  # fmt: skip
    word = SKIP_WORDS.get(sparse, sparse)
    words = dict.fromkeys(["auto", "none", *SPARSE_OPERANDS[which], word])
    calls = {skip: ours(which, operands, skip=skip, **options) for skip in words}
    if has_tiles():  # skipping kernels are those of the vectors anyway
        below = next(isa for isa in cpu.available_isas() if isa != cpu.isa())
        calls[f"none ({below})"] = _on(below, calls["none"])
    seconds = dict(zip(calls, fastest(list(calls.values()), settings.seconds), strict=True))
    planned = plan_for(which, operands, **options)
    return Regret(layer, which, sparsity, planned.skip, planned.speedup, seconds)


def _on(isa: str, call: Callable[[], object]) -> Callable[[], object]:
    def switched() -> None:
        with cpu.use_isa(isa):
            call()

    return switched


def plan_for(which: str, operands: Operands, **options: Any) -> Plan:
    """The plan of the call that `ours` makes of these."""

    class Planner:
        """Has the public functions' names, and plans."""

        def __getattr__(self, name: str) -> Callable:
            return lambda *arrays, **keywords: plan(name, *arrays, **keywords)

    planned = ours(which, operands, functions=Planner(), **options)()
    assert isinstance(planned, Plan)
    return planned


def head(which: str, columns: Iterable[str]) -> str:
    """The line above the rows of a pass."""
    return _line(which, columns)


def row(cells: Sequence[Regret]) -> str:
    """The line of one layer in one pass."""
    return _line(str(cells[0].layer), (f"{cell.ratio:.2f}" for cell in cells))


def _line(first: str, numbers: Iterable[str]) -> str:
    return f"{first:20} |" + "".join(f"{number:>7}" for number in numbers)


def summary(cells: Sequence[Regret]) -> list[str]:
    """What all cells say together."""
    ratios = [cell.ratio for cell in cells]
    notable = sorted((cell for cell in cells if cell.ratio > NOTABLE), key=lambda cell: -cell.ratio)
    wrong = sum(cell.wrong for cell in notable)
    lines = [
        f"{len(cells)} cells: mean {statistics.fmean(ratios):.3f}, worst {max(ratios):.2f}, "
        f"{len(notable)} above {NOTABLE}, {wrong} of them by a wrong choice",
        *(f"  {cell}" for cell in notable),
    ]
    skipping = [cell for cell in cells if cell.chosen != "none"]
    if skipping:
        close = sum(cell.close for cell in skipping)
        kept = [cell.kept for cell in skipping]
        lines.append(
            f"where zeros are skipped, {close} of {len(skipping)} speed-ups are within {CLOSE:.0%} of what was "
            f"promised ({min(kept):.2f} to {max(kept):.2f} of it, median {statistics.median(kept):.2f})"
        )
    return lines


def save_csv(cells: Iterable[Regret], settings: Settings, isa: str, path: str | Path) -> None:
    """Write a line for each choice of each cell, with `COLUMNS`."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for cell in cells:
            for choice, seconds in cell.seconds.items():
                writer.writerow(
                    (
                        cell.which, cell.layer, f"{cell.sparsity:.4g}", cell.chosen, f"{cell.promised:.4f}", choice,
                        f"{seconds:.6g}", isa, settings.threads, cell.layer.batch or settings.batch, settings.layout,
                        settings.sparse_operand(cell.which), settings.given,
                    )
                )  # fmt: skip
