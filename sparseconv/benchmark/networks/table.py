"""Layers of a network and the network itself as lines of text, with sums between them, and as a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sparseconv.benchmark.measure import Settings

if TYPE_CHECKING:
    from sparseconv.benchmark.networks.comparison import Row, Whole

__all__ = ["COLUMNS", "head", "row", "save_csv", "sums", "whole"]

COLUMNS = (
    "network", "name", "layer", "batch", "zeros_x", "zeros_dy", "pass", "seconds", "peer_seconds", "speedup", "peer",
    "isa", "threads", "skip",
)  # fmt: skip

PASSES, NEEDED = ("forward", "backward_data", "backward_weight"), "needed"
Times = dict[str, tuple[float, float]]


def head() -> str:
    """The line above the rows."""
    return _line("layer", ("zeros x", "zeros dy"), ("forward", "data", "weight", "all", "needed"), "torch ms")


def row(one: Row) -> str:
    """The line of one layer."""
    return _line(f"{one.name} {one.layer}", (f"{one.zeros_x:.0%}", f"{one.zeros_dy:.0%}"), *_ratios(one.seconds))


def sums(rows: Sequence[Row]) -> list[str]:
    """The lines below: times of all layers added up, and with those layers left to PyTorch where it is faster."""
    theirs = [{which: (peer, peer) for which, (_, peer) in one.seconds.items()} for one in rows]
    shared = [one.seconds if _faster(one.seconds) else other for one, other in zip(rows, theirs, strict=True)]
    ours = sum(_faster(one.seconds) for one in rows)
    return [
        _line(f"all {len(rows)} layers", ("", ""), *_ratios(_added(one.seconds for one in rows))),
        _line(f"{ours} layers here, {len(rows) - ours} by PyTorch", ("", ""), *_ratios(_added(shared))),
    ]


def whole(one: Whole) -> str:
    """The line of a whole network."""
    ours, theirs = one.seconds
    return (
        f"whole network, {one.what}: PyTorch {1e3 * theirs:.1f} ms, converted {1e3 * ours:.1f} ms "
        f"({one.converted} of {one.layers} layers): {theirs / ours:.2f}"
    )


def save_csv(
    network: str, rows: Iterable[Row], wholes: Iterable[Whole], settings: Settings, isa: str, path: str | Path
) -> None:
    """Write a line for each pass of each layer, and for the whole network, with `COLUMNS`."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)

        def write(facts: tuple, which: str, times: tuple[float, float]) -> None:
            ours, theirs = times
            numbers = f"{ours:.6g}", f"{theirs:.6g}", f"{theirs / ours:.4f}"
            setting = settings.against, isa, settings.threads, settings.skip
            writer.writerow((network, *facts, which, *numbers, *setting))

        for one in rows:
            facts = one.name, one.layer, one.batch, f"{one.zeros_x:.4f}", f"{one.zeros_dy:.4f}"
            for which, times in one.seconds.items():
                write(facts, which, times)
        for network_as_a_whole in wholes:
            write(("", "", settings.batch, "", ""), network_as_a_whole.what, network_as_a_whole.seconds)


def _added(several: Iterable[Times]) -> Times:
    """Sums by pass. Where nobody masks the gradient, all of it is needed."""
    found: dict[str, tuple[float, float]] = {}
    for times in several:
        all_of_it = {NEEDED: times["backward_data"]} if "backward_data" in times else {}
        for which, (ours, theirs) in (all_of_it | times).items():
            before = found.get(which, (0.0, 0.0))
            found[which] = before[0] + ours, before[1] + theirs
    return found


def _total(times: Times) -> tuple[float, float]:
    chosen = [times[which] for which in PASSES if which in times]
    return sum(ours for ours, _ in chosen), sum(theirs for _, theirs in chosen)


def _faster(times: Times) -> bool:
    ours, theirs = _total(times)
    return ours < theirs


def _ratios(times: Times) -> tuple[list[str], str]:
    """Text of the ratios by pass, of all together and with the mask, and PyTorch's milliseconds."""
    every = times | {"all": _total(times)}
    order = (*PASSES, "all", NEEDED)
    texts = [f"{every[which][1] / every[which][0]:.2f}" if which in every else "-" for which in order]
    return texts, f"{1e3 * every['all'][1]:.1f}"


def _line(name: str, zeros: Iterable[str], ratios: Iterable[str], milliseconds: str) -> str:
    left = "".join(f"{text:>9}" for text in zeros)
    return f"{name:44}{left} |" + "".join(f"{text:>9}" for text in ratios) + f" |{milliseconds:>9}"
