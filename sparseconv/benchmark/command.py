"""``sparseconv bench``: its options, and the run."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sparseconv import cpu
from sparseconv._core import tuned
from sparseconv._core.progress import Progress
from sparseconv.benchmark import activations, regret, report
from sparseconv.benchmark.layers import SETS, select
from sparseconv.benchmark.measure import Cell, Settings, keep_memory, measure, measure_saved
from sparseconv.benchmark.networks import NAMES, table
from sparseconv.benchmark.operands import MASKS, PASSES, ZEROS_IN
from sparseconv.benchmark.peers import PEERS, default_peer, prepare_torch
from sparseconv.benchmark.picture import check_ending, require_matplotlib, save_picture

__all__ = ["add_arguments", "run"]

_WEIGHTS = ("weight", "channel")  # of --zeros-in: zeros that a PackedWeight leaves out
# What --network does not take, and what these options are otherwise.
_WITH_NETWORK = {
    "activations": None, "only": None, "plot": None, "layout": "NHWC", "zeros_in": "input", "mask": None,
    "packed": False, "regret": False,
}  # fmt: skip
# The same for --regret.
_WITH_REGRET = {"activations": None, "against": None, "skip": "auto", "plot": None}
_RECORDED = ("input", "grad_output", "output")  # zeros that a training step has


def add_arguments(parser: argparse.ArgumentParser, number: Callable) -> None:
    """Add the options of the command; `number` makes converters for argparse."""
    positive = number(int, 1, "a positive integer")
    add = parser.add_argument
    add(
        "--layers",
        nargs="+",
        default=["prototype"],
        metavar="LAYERS",
        help=f"{', '.join(SETS)}, or layers such as '64,128,56 3x3/2'; prototype, the default, is one layer of each "
        "kind: those that the first prototypes of the kernels were timed on",
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
        metavar="PASSES",
        help=f"some of {','.join(PASSES)} (default: all that --zeros-in means)",
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
        choices=tuple(ZEROS_IN),
        default="input",
        help="input, grad_output: what training leaves, in backward_weight that operand; output: backward_data's mask, "
        "the forward input; weight: scattered; channel: all weights from some channels to some filters; filters: "
        "backward_weight's mask, a weight without some filters (%(default)s)",
    )
    add("--mask", choices=("float", "bits"), help="form of the mask, with --zeros-in output or filters (float)")
    add("--packed", action="store_true", help="with --zeros-in weight or channel: pack weights before the times")
    add(
        "--seconds",
        type=number(float, 0, "a number of at least 0"),
        default=1.0,
        metavar="S",
        help="time for each number (%(default)s)",
    )
    add(
        "--activations",
        metavar="FILE",
        help="layers and zeros of 'sparseconv train --save-activations FILE', beside as many random zeros; "
        "instead of --layers, --sparsities, --batch and --layout",
    )
    add(
        "--network",
        choices=NAMES,
        help="a trained network of an installed package, layer by layer and as a whole, on two photos of scikit-learn, "
        "against PyTorch; instead of --layers, --sparsities and --batch",
    )
    add(
        "--regret",
        action="store_true",
        help='time all that "auto" could choose, and print its time over that of the fastest choice; no peer',
    )
    add("--csv", metavar="FILE", help="write the times as a CSV file")
    add("--plot", metavar="FILE", help="draw speed-up over sparsity: .svg, .png or .pdf (needs matplotlib)")
    add("--quiet", action="store_true", help="no progress bar")


def run(arguments: argparse.Namespace) -> None:
    """Measure, printing each layer's row as soon as it is there."""
    if arguments.network:
        _run_network(arguments)
        return
    if arguments.regret:
        _run_regret(arguments)
        return
    saved = activations.load(arguments.activations) if arguments.activations else []
    layers = select(arguments.layers, arguments.only)
    passes = _passes_with_zeros(arguments)
    if arguments.plot and saved:
        raise ValueError("plot: not with --activations, whose layers have one sparsity each")
    if arguments.plot:
        require_matplotlib()
        check_ending(arguments.plot)
    for option in ("csv", "plot"):
        _check_file(option, getattr(arguments, option))
    kept = keep_memory()
    settings = _settings(arguments)
    if saved:
        settings = replace(settings, batch=len(saved[0].operands.x), layout=saved[0].operands.layout)
    with cpu.use_isa(arguments.isa or cpu.isa()), Progress(quiet=arguments.quiet) as progress:
        peer = prepare_torch(cpu.isa()) if settings.against == "torch" else 'our dense kernels (skip="none")'
        setting = (
            f"{cpu.isa()}, {settings.threads} thread(s), batch {settings.batch}, {settings.layout}, "
            f"skip {settings.skip}{_zeros_text(settings)}{_tuned_text()}"
        )
        print(f"time of {peer} / ours: above 1, we are faster; {setting}")
        print(f"malloc {'keeps freed memory: no' if kept else 'may return memory:'} page faults in the times")
        if saved:
            columns = ["zeros", "real", "random"]
            rows = measure_saved(saved, passes, settings)
            counts = {which: sum(which in one.passes for one in saved) for which in passes}
        else:
            columns = [f"{sparsity:.0%}" for sparsity in arguments.sparsities]
            rows = measure(layers, passes, arguments.sparsities, settings)
            counts = dict.fromkeys(passes, len(layers))
        cells: list[Cell] = []
        try:
            _print_tables(cells, rows, counts, columns, settings, progress)
        finally:  # what was measured until a Ctrl-C, too
            if arguments.csv and cells:
                report.save_csv(cells, settings, cpu.isa(), arguments.csv)
        if arguments.plot:
            save_picture(cells, f"{peer}: its time / ours; {setting}", arguments.plot)


def _settings(arguments: argparse.Namespace) -> Settings:
    return Settings(
        against=arguments.against or default_peer(),
        batch=arguments.batch,
        layout=arguments.layout,
        skip=arguments.skip,
        zeros_in=arguments.zeros_in,
        mask=arguments.mask or "float",
        packed=arguments.packed,
        threads=arguments.threads,
        seconds=arguments.seconds,
    )


def _refuse(arguments: argparse.Namespace, given: str, usual: dict[str, Any]) -> None:
    """ValueError if an option is not what it usually is, with an option that does not take it."""
    for option, value in usual.items():
        if getattr(arguments, option) != value:
            name = option.replace("_", "-")
            raise ValueError(f"{name}: got {getattr(arguments, option)} with --{given}, expected no --{name}")


def _run_regret(arguments: argparse.Namespace) -> None:
    """What "auto" loses, layer by layer."""
    _refuse(arguments, "regret", _WITH_REGRET)
    layers, passes = select(arguments.layers, arguments.only), _passes_with_zeros(arguments)
    _check_file("csv", arguments.csv)
    keep_memory()
    settings, columns = _settings(arguments), [f"{sparsity:.0%}" for sparsity in arguments.sparsities]
    cells: list[regret.Regret] = []
    with cpu.use_isa(arguments.isa or cpu.isa()), Progress(quiet=arguments.quiet) as progress:
        print(
            f'time of skip="auto" / the fastest choice; {cpu.isa()}, {settings.threads} thread(s), batch '
            f"{settings.batch}, {settings.layout}{_zeros_text(settings)}{_tuned_text()}"
        )
        rows = regret.measure_regret(layers, passes, arguments.sparsities, settings)
        try:
            for number in range(len(passes) * len(layers)):
                which = passes[number // len(layers)]
                progress.advance(number / (len(passes) * len(layers)), f"{which}, layer {number % len(layers) + 1}")
                row = next(rows)
                progress.clear()
                if number % len(layers) == 0:
                    print(regret.head(which, columns))
                print(regret.row(row), flush=True)
                cells.extend(row)
            print(*regret.summary(cells), sep="\n")
        finally:  # what was measured until a Ctrl-C, too
            if arguments.csv and cells:
                regret.save_csv(cells, settings, cpu.isa(), arguments.csv)


def _run_network(arguments: argparse.Namespace) -> None:
    """The same for a trained network, and then all of it."""
    _refuse(arguments, "network", _WITH_NETWORK)
    if arguments.against == "dense" or default_peer() == "dense":
        raise ValueError("network: it is compared with PyTorch; pip install 'sparseconv[networks]'")
    _check_file("csv", arguments.csv)
    keep_memory()
    with cpu.use_isa(arguments.isa or cpu.isa()), Progress(quiet=arguments.quiet) as progress:
        peer = prepare_torch(cpu.isa())
        from sparseconv.benchmark.networks import comparison, record

        trained = comparison.load(arguments.network)
        settings = Settings(
            against="torch", batch=len(trained.images), skip=arguments.skip, threads=arguments.threads,
            seconds=arguments.seconds,
        )  # fmt: skip
        print(f"{trained.title}; time of {peer} / ours: above 1, we are faster")
        print(f"{cpu.isa()}, {settings.threads} thread(s), batch {settings.batch}, skip {settings.skip}")
        progress.advance(0, "training step")
        recorded = record.record(trained)
        rows: list[comparison.Row] = []
        wholes: list[comparison.Whole] = []
        try:
            progress.clear()
            print(table.head(), flush=True)
            passes = arguments.passes or list(PASSES)
            for row in comparison.compare_layers(recorded, passes, settings):
                rows.append(row)
                progress.clear()
                print(table.row(row), flush=True)
                progress.advance(len(rows) / (len(recorded) + 2), f"layer {len(rows)} of {len(recorded)} done")
            progress.clear()
            print(*table.sums(rows), sep="\n", flush=True)
            del recorded
            for whole in comparison.compare_whole(trained, settings):
                wholes.append(whole)
                print(table.whole(whole), flush=True)
        finally:  # what was measured until a Ctrl-C, too
            if arguments.csv and rows:
                table.save_csv(arguments.network, rows, wholes, settings, cpu.isa(), arguments.csv)


def _passes_with_zeros(arguments: argparse.Namespace) -> list[str]:
    """The passes to measure; ValueError if options do not go with --zeros-in."""
    place = arguments.zeros_in
    passes = arguments.passes or list(ZEROS_IN[place])
    if not set(passes) <= set(ZEROS_IN[place]):
        raise ValueError(
            f"passes: got {','.join(passes)} with --zeros-in {place}, expected some of {','.join(ZEROS_IN[place])}"
        )
    if arguments.mask and place not in MASKS:
        raise ValueError(
            f"mask: got {arguments.mask} with --zeros-in {place}, expected --zeros-in {' or '.join(MASKS)}"
        )
    if arguments.packed and place not in _WEIGHTS:
        raise ValueError(f"packed: got --zeros-in {place}, expected {' or '.join(_WEIGHTS)}")
    if arguments.activations and place not in _RECORDED:
        raise ValueError(f"zeros-in: got {place} with --activations, expected {', '.join(_RECORDED)}")
    return passes


def _check_file(option: str, path: str | None) -> None:
    """Whether a file can be written there: before the measurement, not after it."""
    if not path:
        return
    file = Path(path)
    if file.is_dir():
        raise ValueError(f"--{option}: got {path}, which is a folder, expected a file")
    if not file.parent.is_dir():
        raise ValueError(f"--{option}: got {path}, whose folder {file.parent} is not there")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise ValueError(f"--{option}: got {path}, which cannot be written")


def _zeros_text(settings: Settings) -> str:
    """What the first line says of zeros that are not those of an operand in training."""
    if settings.zeros_in in MASKS:
        return f", zeros in {settings.zeros_in} (mask: {settings.mask})"
    if settings.zeros_in in _WEIGHTS:
        return f", zeros in {settings.zeros_in} ({'packed before' if settings.packed else 'packed in the call'})"
    return ""


def _tuned_text() -> str:
    """What the first line says where "auto" chooses by other constants than everywhere."""
    return ", constants of 'sparseconv tune'" if tuned.in_use() else ""


def _print_tables(
    cells: list[Cell], rows: Iterator[Sequence[Cell]], counts: dict[str, int], columns: list[str], settings: Settings,
    progress: Progress,
) -> None:  # fmt: skip
    """Print a table per pass, of so many rows; collect all cells as they come."""
    done = 0
    for which, count in counts.items():
        if not count:
            continue
        print(report.head(which, columns, settings), flush=True)
        table = []
        for number in range(1, count + 1):
            progress.advance(done / sum(counts.values()), f"{which}, layer {number} of {count}")
            row = next(rows)
            done += 1
            progress.clear()
            print(report.row(row), flush=True)
            table.append(row)
            cells.extend(row)
        print(*report.summary(table), "", sep="\n")


def _passes(text: str) -> list[str]:
    names = list(dict.fromkeys(text.split(",")))
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
