"""``sparseconv bench``: its options, and the run."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from sparseconv import cpu
from sparseconv.benchmark import report
from sparseconv.benchmark.layers import SETS, select
from sparseconv.benchmark.measure import Cell, Settings, keep_memory, measure
from sparseconv.benchmark.operands import PASSES
from sparseconv.benchmark.peers import PEERS, default_peer, prepare_torch
from sparseconv.benchmark.picture import require_matplotlib, save_picture
from sparseconv.progress import Progress

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser, number: Callable) -> None:
    """Add the options of the command; `number` makes converters for argparse."""
    positive = number(int, 1, "a positive integer")
    add = parser.add_argument
    add(
        "--layers",
        nargs="+",
        default=["prototype"],
        metavar="LAYERS",
        help=f"{', '.join(SETS)}, or layers such as '64,128,56 3x3/2' (%(default)s)",
    )
    add(
        "--only",
        nargs="+",
        metavar="WORD",
        help="of these layers only 3x3, 1x1, ..., /2 (stride), 3x3/2, or places in the list (0, 1, ...)",
    )
    add(
        "--passes",
        type=_passes,
        default=list(PASSES),
        metavar="PASSES",
        help=f"some of {','.join(PASSES)} (default: all)",
    )
    add(
        "--sparsities",
        type=_sparsities,
        default=[0, 0.5, 0.8, 0.9],
        metavar="LIST",
        help="fractions of zeros, such as 0,.5,.9 (0,.5,.8,.9)",
    )
    add("--against", choices=PEERS, help="oneDNN through torch, or our dense kernels (torch if it is installed)")
    add("--batch", type=positive, default=16, metavar="N", help="images (%(default)s)")
    add("--threads", type=positive, default=1, metavar="N", help="threads of both sides (%(default)s)")
    add("--isa", choices=cpu.available_isas(), help="instruction set of both sides (default: the best)")
    add("--layout", choices=("NHWC", "NCHW"), default="NHWC", help="memory of both sides (%(default)s)")
    add(
        "--skip",
        choices=("auto", "none", "sparse"),
        default="auto",
        help="what we do; sparse: always skip the zeros (%(default)s)",
    )
    add(
        "--zeros-in",
        choices=("input", "grad_output"),
        default="input",
        help="operand of backward_weight that has the zeros (%(default)s)",
    )
    add(
        "--seconds",
        type=number(float, 0, "a number of at least 0"),
        default=1.0,
        metavar="S",
        help="time for each number (%(default)s)",
    )
    add("--csv", metavar="FILE", help="write the times as a CSV file")
    add("--plot", metavar="FILE", help="draw speed-up over sparsity: .svg, .png or .pdf (needs matplotlib)")
    add("--quiet", action="store_true", help="no progress bar")


def run(arguments: argparse.Namespace) -> None:
    """Measure, printing each layer's row as soon as it is there."""
    layers = select(arguments.layers, arguments.only)
    if arguments.plot:
        require_matplotlib()
    kept = keep_memory()
    settings = Settings(
        against=arguments.against or default_peer(),
        batch=arguments.batch,
        layout=arguments.layout,
        skip=arguments.skip,
        zeros_in=arguments.zeros_in,
        threads=arguments.threads,
        seconds=arguments.seconds,
    )
    with cpu.use_isa(arguments.isa or cpu.isa()), Progress(quiet=arguments.quiet) as progress:
        peer = prepare_torch(cpu.isa()) if settings.against == "torch" else 'our dense kernels (skip="none")'
        setting = (
            f"{cpu.isa()}, {settings.threads} thread(s), batch {settings.batch}, {settings.layout}, "
            f"skip {settings.skip}"
        )
        print(f"time of {peer} / ours: above 1, we are faster; {setting}")
        print(f"malloc {'keeps freed memory: no' if kept else 'may return memory:'} page faults in the times")
        cells = _print_table(layers, arguments.passes, arguments.sparsities, settings, progress)
        if arguments.csv:
            report.save_csv(cells, settings, cpu.isa(), arguments.csv)
        if arguments.plot:
            save_picture(cells, f"{peer}: its time / ours; {setting}", arguments.plot)


def _print_table(layers: list, passes: list, sparsities: list, settings: Settings, progress: Progress) -> list[Cell]:
    cells, total = [], len(passes) * len(layers) * len(sparsities)
    measured = measure(layers, passes, sparsities, settings)
    for which in passes:
        print(report.head(which, sparsities, settings))
        rows = []
        for layer in layers:
            row = []
            for sparsity in sparsities:
                progress.advance(len(cells) / total, f"{which} {layer}, {sparsity:.0%} zeros")
                row.append(next(measured))
                cells.append(row[-1])
            progress.clear()
            print(report.row(row), flush=True)
            rows.append(row)
        print(*report.summary(rows), "", sep="\n")
    return cells


def _passes(text: str) -> list[str]:
    names = text.split(",")
    if not set(names) <= set(PASSES):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected some of {','.join(PASSES)}")
    return names


def _sparsities(text: str) -> list[float]:
    try:
        values = [float(value) for value in text.split(",")]
    except ValueError:
        values = [-1]
    if not all(0 <= value <= 1 for value in values):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected fractions of zeros from 0 to 1, such as 0,.5,.9")
    return values
