"""``sparseconv tune``: what kernels take on this computer, beside what "auto" expects, and what fits better.

The model of a skipping kernel's cost is linear in its factors (_core/tuned.py). So three plans of a call say what each
factor weighs in it, and the times of all choices, which are measured once, say what "auto" would take with any factors.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from sparseconv import cpu
from sparseconv._core import machine, tuned
from sparseconv._core.progress import Progress
from sparseconv._core.tuned import FAMILIES, LEAST, MOST, NEUTRAL, Factors
from sparseconv.benchmark.layers import Layer, parse
from sparseconv.benchmark.measure import Settings, fastest, keep_memory
from sparseconv.benchmark.operands import PASSES, SPARSE_OPERANDS, Operands, random_operands
from sparseconv.benchmark.peers import ours
from sparseconv.benchmark.regret import CLOSE, Regret, plan_for

__all__ = ["Terms", "Timing", "Verdict", "add_arguments", "fit", "measure_timings", "run", "verdict"]

# Of each kind large and small maps, few and many channels, at shares of zeros around the one where skipping begins to
# pay, and above it: in all passes they take a minute.
LAYERS = (
    "64,64,56 3x3", "128,128,28 3x3", "256,256,14 3x3", "512,512,7 3x3", "64,128,56 3x3/2", "96,96,35 3x3",
    "64,256,56 1x1", "256,64,56 1x1", "512,128,28 1x1", "256,1024,14 1x1", "1024,256,14 1x1", "256,512,28 1x1/2",
)  # fmt: skip
SPARSITIES = (0.2, 0.35, 0.5, 0.7, 0.9)
BATCH = 8
GRID = np.linspace(LEAST, MOST, 101)
# What is added to a fit's mean error for a factor of 2 or 0.5: where times say little, a factor stays 1.
PULL = 0.05
NOISE = 0.03  # a factor that is closer to 1 is 1: rows got 0.97, 0.98 and 1 in three runs on Zen 4


class Terms(NamedTuple):
    """The expected time of a skipping kernel over that of the dense one, by what its factors multiply."""

    each: float
    fixed: float
    rest: float

    def cost(self, factors: Factors) -> float:
        """With these factors."""
        return factors.each * self.each + factors.fixed * self.fixed + self.rest


@dataclass(frozen=True)
class Timing:
    """One layer, pass and sparsity: the fastest call of each choice, and what was expected of it."""

    layer: Layer
    which: str
    sparsity: float
    seconds: dict[str, float]  # of "none", and of operands to skip
    terms: dict[str, Terms]  # of these operands

    @property
    def family(self) -> str:
        """Of the skipping kernels, as tuned.py names them."""
        kind = "gradient" if self.which == "backward_weight" else "rows"
        return f"{kind}_one_tap" if self.layer.kernel == (1, 1) else kind

    def error(self, factors: Factors) -> float:
        """Of the expected speed-up where the operand with the zeros is skipped: the logarithm of its ratio."""
        operand = SPARSE_OPERANDS[self.which][0]
        return math.log(self.terms[operand].cost(factors) * self.seconds["none"] / self.seconds[operand])

    def regret(self, factors: Factors) -> Regret:
        """What "auto" would choose and lose with these factors, but for the time to decide."""
        costs = {"none": 1.0} | {operand: terms.cost(factors) for operand, terms in self.terms.items()}
        chosen = min(costs, key=costs.__getitem__)  # none, if skipping is as fast
        seconds = {"auto": self.seconds[chosen]} | self.seconds
        return Regret(self.layer, self.which, self.sparsity, chosen, 1 / costs[chosen], seconds)


def measure_timings(
    layers: Iterable[Layer], passes: Iterable[str], sparsities: Sequence[float], settings: Settings
) -> Iterator[Timing]:
    """Time all choices in turn at random zeros in the first operand that a pass can skip."""
    for layer in layers:
        for which in passes:
            for sparsity in sparsities:
                yield _timing(layer, which, sparsity, settings)


def _timing(layer: Layer, which: str, sparsity: float, settings: Settings) -> Timing:
    skippable = SPARSE_OPERANDS[which]
    operands = random_operands(layer, {skippable[0]: sparsity}, batch=settings.batch, layout=settings.layout)
    choices = ("none", *skippable)
    calls = [ours(which, operands, skip=skip, threads=settings.threads) for skip in choices]
    seconds = dict(zip(choices, fastest(calls, settings.seconds), strict=True))
    terms = {skip: _terms(which, operands, skip, settings.threads) for skip in skippable}
    return Timing(layer, which, sparsity, seconds, terms)


def _terms(which: str, operands: Operands, skip: str, threads: int) -> Terms:
    def cost(factors: Factors) -> float:
        with tuned.trying(dict.fromkeys(FAMILIES, factors)):
            return 1 / plan_for(which, operands, skip=skip, threads=threads).speedup

    usual = cost(NEUTRAL)
    each, fixed = cost(Factors(each=2.0)) - usual, cost(Factors(fixed=2.0)) - usual
    return Terms(each, fixed, usual - each - fixed)


# --- factors that fit ---


def fit(timings: Sequence[Timing]) -> Factors:
    """The factors within the bounds with which the expected times are closest to the measured ones.

    The mean of absolute errors is least, so one disturbed time moves nothing.
    """
    each, fixed = np.meshgrid(GRID, GRID, indexing="ij")
    errors = PULL * (np.abs(np.log2(each)) + np.abs(np.log2(fixed)))
    for timing in timings:
        operand = SPARSE_OPERANDS[timing.which][0]
        terms, measured = timing.terms[operand], timing.seconds[operand] / timing.seconds["none"]
        expected = each * terms.each + fixed * terms.fixed + terms.rest
        errors += np.abs(np.log(np.maximum(expected, 1e-9) / measured)) / len(timings)
    best = np.unravel_index(np.argmin(errors), errors.shape)
    factors = (round(float(grid[best]), 3) for grid in (each, fixed))
    return Factors(*(factor if round(abs(factor - 1), 3) > NOISE else 1.0 for factor in factors))


class Verdict(NamedTuple):
    """The factors of a family: those that fit, and those that are kept, which lose no more than the defaults."""

    fitted: Factors
    kept: Factors


def verdict(timings: Sequence[Timing]) -> Verdict:
    """Those that fit, else half of the way to them, else the defaults.

    What is kept loses no more than the defaults, neither with these factors nor where each layer has those that fit all
    other layers: so they say something of layers that were not timed. Zen 4, 30 timings of gradients of one tap: mean
    error of promises 0.130, with factors of the other layers 0.058; 60 of rows 0.054 and 0.057: nothing to gain there.
    """
    fitted = fit(timings)
    layers = {timing.layer for timing in timings}
    without = {layer: fit([timing for timing in timings if timing.layer != layer] or timings) for layer in layers}
    usual = _losses(timings, dict.fromkeys(layers, NEUTRAL))
    for share in (1.0, 0.5):
        kept = _part(fitted, share)
        found = (
            _losses(timings, dict.fromkeys(layers, kept)),
            _losses(timings, {layer: _part(factors, share) for layer, factors in without.items()}),
        )
        if all(loss <= before + 1e-9 for losses in found for loss, before in zip(losses, usual, strict=True)):
            return Verdict(fitted, kept)
    return Verdict(fitted, NEUTRAL)


def _part(factors: Factors, share: float) -> Factors:
    """That share of the way from the defaults to these factors."""
    return Factors(*(round(factor**share, 3) for factor in factors))


def _losses(timings: Sequence[Timing], factors: Mapping[Layer, Factors]) -> tuple[float, ...]:
    """By choices on the mean and in the worst timing, and how far promises are from what comes on the mean."""
    ratios = [timing.regret(factors[timing.layer]).ratio for timing in timings]
    error = statistics.fmean(abs(timing.error(factors[timing.layer])) for timing in timings)
    return statistics.fmean(ratios), max(ratios), error


# --- the command ---


def add_arguments(parser: argparse.ArgumentParser, number: Callable) -> None:
    """Add the options of the command; `number` makes converters for argparse."""
    add = parser.add_argument
    add("--isa", choices=cpu.available_isas(), help="instruction set whose kernels are timed (default: the best)")
    add(
        "--seconds",
        type=number(float, 0, "a number of at least 0"),
        default=0.25,
        metavar="S",
        help="time for each layer, pass and share of zeros, of which there are "
        f"{len(LAYERS) * len(PASSES) * len(SPARSITIES)} (%(default)s)",
    )
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--dry-run", action="store_true", help="measure and print, but write nothing")
    either.add_argument("--remove", action="store_true", help="delete the file, and do nothing else")
    add("--json", action="store_true", help="print JSON")
    add("--quiet", action="store_true", help="print results and errors only")


def run(arguments: argparse.Namespace) -> None:
    """Measure, print what the constants lose before and after, and write those that lose less."""
    if arguments.remove:
        _remove(arguments)
        return
    if not arguments.dry_run:
        tuned.check_writable()
    keep_memory()
    settings = Settings(batch=BATCH, seconds=arguments.seconds)
    layers, timings = [parse(text) for text in LAYERS], []
    count = len(layers) * len(PASSES) * len(SPARSITIES)
    with cpu.use_isa(arguments.isa or cpu.isa()), Progress(quiet=arguments.quiet) as progress:
        isa = cpu.isa()
        progress.say(f"times {count} convolutions, one thread, for about {_duration(arguments.seconds * count)}")
        progress.advance(0, "first layer")
        for timing in measure_timings(layers, PASSES, SPARSITIES, settings):
            timings.append(timing)
            progress.advance(len(timings) / count, f"{timing.which} {timing.layer}")
        progress.clear()
        verdicts = {family: verdict(of_family) for family, of_family in _by_family(timings).items()}
        kept = {family: found.kept for family, found in verdicts.items()}
        written = not arguments.dry_run and tuned.save(kept, isa)
        if arguments.json:
            print(json.dumps(_facts(timings, verdicts, isa, written), indent=2))
        else:
            print(f'what "auto" loses by its choice, before and after; {isa}, 1 thread, batch {BATCH}, NHWC')
            print(*_table(timings, verdicts), sep="\n", flush=True)
        if written:
            ignored = "" if tuned.enabled else ", which SPARSECONV_TUNE=0 ignores"
            progress.say(f"wrote {tuned.file()}{ignored}")
        elif not any(factors != NEUTRAL for factors in kept.values()):
            progress.say("the defaults are as good: nothing to write")
        else:
            progress.say("dry run: nothing is written")


def _remove(arguments: argparse.Namespace) -> None:
    path = tuned.file()
    removed = tuned.remove()
    if arguments.json:
        print(json.dumps({"file": path, "removed": removed}, indent=2))
    elif not arguments.quiet:
        print(f"removed {path}" if removed else f"there is no {path}")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _by_family(timings: Iterable[Timing]) -> dict[str, list[Timing]]:
    families: dict[str, list[Timing]] = {}
    for timing in timings:
        families.setdefault(timing.family, []).append(timing)
    return {family: families[family] for family in FAMILIES if family in families}


class Summary(NamedTuple):
    """What "auto" loses, and the share of promises of skipping that are within `CLOSE` of what comes."""

    mean: float
    worst: float
    promises: float


def _summary(cells: Sequence[Regret]) -> Summary:
    ratios = [cell.ratio for cell in cells]
    close = [cell.close for cell in cells if cell.chosen != "none"]
    return Summary(statistics.fmean(ratios), max(ratios), statistics.fmean(close) if close else 1.0)


def _summaries(
    timings: Sequence[Timing], verdicts: Mapping[str, Verdict]
) -> Iterator[tuple[str, int, Summary, Summary]]:
    """(Family or "all", number of timings, before, after)."""
    kept = {family: found.kept for family, found in verdicts.items()}
    for name, members in (_by_family(timings) | {"all": list(timings)}).items():
        before, after = (
            _summary([timing.regret(factors.get(timing.family, NEUTRAL)) for timing in members])
            for factors in ({}, kept)
        )
        yield name, len(members), before, after


def _table(timings: Sequence[Timing], verdicts: Mapping[str, Verdict]) -> Iterator[str]:
    columns = f"{'mean':>8}{'':8}|{'worst':>7}{'':6}| promises within {CLOSE:.0%}"
    yield f"{'kernels':18}{'cells':>6}{'each':>7}{'fixed':>7} |{columns}"
    for name, count, before, after in _summaries(timings, verdicts):
        factors = "".join(f"{factor:7.2f}" for factor in verdicts[name].kept) if name in verdicts else " " * 14
        yield (
            f"{name.replace('_', ' '):18}{count:6}{factors} |{before.mean:8.3f}{after.mean:8.3f}"
            f"|{before.worst:7.2f}{after.worst:6.2f}|{before.promises:7.0%}{after.promises:6.0%}"
        )
    for family, (fitted, kept) in verdicts.items():
        if kept != fitted:
            yield (
                f"{family.replace('_', ' ')}: {fitted.each:.2f} and {fitted.fixed:.2f} fit best, but lose more; "
                f"{'the defaults stay' if kept == NEUTRAL else 'half of the way is taken'}"
            )


def _facts(
    timings: Sequence[Timing], verdicts: Mapping[str, Verdict], isa: str, written: bool
) -> dict[str, Any]:  # fmt: skip
    return {
        "cpu": machine.cpu_model(),
        "isa": isa,
        "file": tuned.file(),
        "written": written,
        "factors": {
            family: {"fitted": found.fitted._asdict(), "kept": found.kept._asdict()}
            for family, found in verdicts.items()
        },
        "losses": {
            name: {"cells": count, "before": before._asdict(), "after": after._asdict()}
            for name, count, before, after in _summaries(timings, verdicts)
        },
    }
