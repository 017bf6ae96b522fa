"""Command line: ``python -m sparseconv`` or ``sparseconv``.

Results go to stdout; progress, messages and errors to stderr. Exit codes: 0 success, 1 failure, 2 wrong usage, 130
interrupted (Ctrl-C), 141 when whoever read the results has gone.
"""

import argparse
import math
import os
import sys

import sparseconv
from sparseconv import cpu
from sparseconv._core import machine
from sparseconv.benchmark import command, tuning
from sparseconv.training import methods

__all__ = ["main"]

_BATCH = 50


def main(argv=None):
    """Run the command line.

    Parameters
    ----------
    argv : list of str, optional
        The arguments; those of the process otherwise.

    Returns
    -------
    int
        The exit code. Wrong usage leaves through ``SystemExit(2)``, as usual with argparse.
    """
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # "| head": nobody wants the rest, not even when Python flushes it at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (OSError, ValueError, ArithmeticError) as error:
        print(f"sparseconv: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("sparseconv: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser():
    parser = argparse.ArgumentParser(prog="sparseconv", description="Convolutions on CPUs that skip zeros.")
    parser.add_argument("--version", action="version", version=f"sparseconv {sparseconv.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    info = commands.add_parser(
        "info",
        help="show version, instruction sets, threads, computer and build",
        description="Show what this installation is and what it uses on this computer.",
    )
    info.add_argument("--json", action="store_true", help="print JSON")
    info.set_defaults(run=_info)

    train = commands.add_parser(
        "train",
        help="train a small network and show what skipping its zeros gains",
        description="Train a convolutional network on Fashion-MNIST for about a minute, then time every convolution "
        "of a training step with and without skipping. Prints a table; writes report.json and, if matplotlib "
        "is installed, report.png; earlier ones get a number. Ctrl-C ends it, and reports what was learned until then.",
    )
    positive = _number(int, 1, "a positive integer")
    train.add_argument("--data", metavar="DIR", help="folder of (Fashion-)MNIST's IDX files (default: bundled images)")
    train.add_argument("--epochs", type=positive, default=8, metavar="N", help="passes over the images (%(default)s)")
    train.add_argument("--batch", type=positive, metavar="N", help=f"images per step ({_BATCH}; all of fewer images)")
    train.add_argument(
        "--learning-rate",
        type=_number(float, sys.float_info.min, "a positive number"),
        default=0.02,
        metavar="RATE",
        help="the highest learning rate (%(default)s)",
    )
    train.add_argument(
        "--method",
        nargs="+",
        choices=methods.NAMES,
        default=[],
        help="training methods: swat (largest weights and activations), nm (weights under transposable N:M masks), "
        "stochastic (gradients pruned at random), none (default); others than none are compared with it, which comes "
        "first",
    )
    train.add_argument(
        "--sparsity",
        type=_number(float, 0.0, "a number in [0, 1)", below=1.0),
        default=0.8,
        metavar="SHARE",
        help="what the methods aim at (%(default)s)",
    )
    train.add_argument("--threads", type=positive, metavar="N", help="number of threads (default: the library's)")
    train.add_argument(
        "--seed",
        type=_number(int, 0, "an integer, at least 0"),
        default=0,
        metavar="N",
        help="decides everything random (%(default)s)",
    )
    train.add_argument("--limit", type=positive, metavar="N", help="take only the first N images (default: all)")
    train.add_argument("--output", default=".", metavar="DIR", help="where the report goes (default: here)")
    train.add_argument(
        "--save-activations",
        metavar="FILE",
        help="write inputs and gradients of the convolutions, for one batch, for 'sparseconv bench --activations FILE'",
    )
    train.add_argument("--quiet", action="store_true", help="print results and errors only")
    train.set_defaults(run=_train)

    bench = commands.add_parser(
        "bench",
        help="compare with oneDNN, layer by layer",
        description="Time the passes of convolutions with zeros at random places, here and by oneDNN (through PyTorch) "
        "or by this library's dense kernels, in turn. Prints the peer's time divided by ours.",
    )
    command.add_arguments(bench, _number)
    bench.set_defaults(run=command.run)

    tune = commands.add_parser(
        "tune",
        help='fit to this CPU what "auto" chooses by (not needed)',
        description='Time kernels on this computer for about a minute, and fit to them the constants by which "auto" '
        "chooses. Prints what its choices lose before and after, and keeps what is better in a file of the user's "
        "cache, for this CPU, instruction set and version. Best done while the machine has nothing else to do.",
    )
    tuning.add_arguments(tune, _number)
    tune.set_defaults(run=tuning.run)

    report = commands.add_parser(
        "torch-report",
        help="show what skipping zeros would gain in a PyTorch model",
        description="Run a PyTorch model on a sample and time each of its layers there, by PyTorch and by sparseconv. "
        "Prints zeros, kernels and gains by layer and pass; nothing is changed.",
    )
    report.add_argument(
        "model",
        metavar="MODEL",
        help="exported program (FILE.pt2 of torch.export.save), or module:function, where the function returns a model",
    )
    report.add_argument(
        "--sample",
        nargs="+",
        required=True,
        metavar="SHAPE|FILE",
        help="arguments of the model: shapes as 8x3x224x224, filled with random numbers, or .npy or .pt files",
    )
    report.add_argument("--train", action="store_true", help="training mode: backward passes, too")
    report.add_argument("--fold", action="store_true", help="with batch normalisation and ReLU folded, for inference")
    report.add_argument("--channels-last", action="store_true", help="let the model run in channels_last memory")
    report.add_argument("--threads", type=positive, metavar="N", help="number of threads (default: PyTorch's)")
    report.add_argument(
        "--seconds",
        type=_number(float, 0.0, "a number, at least 0"),
        default=0.05,
        metavar="S",
        help="how long each pass of each layer is timed (%(default)s)",
    )
    report.add_argument("--json", action="store_true", help="print JSON")
    report.set_defaults(run=_torch_report)
    return parser


def _number(kind, least, description, below=math.inf):
    """Return a converter for argparse that accepts numbers from `least` on, below `below`."""

    def convert(text):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value < below:
            raise argparse.ArgumentTypeError(f"got {text!r}, expected {description}")
        return value

    return convert


def _info(arguments):
    import json
    import platform

    import numpy as np

    from sparseconv._core import _cpu, tuned

    factors = {family: pair._asdict() for family, pair in tuned.in_use().items()}
    facts = {
        "version": sparseconv.__version__,
        "isa": cpu.isa(),
        "available_isas": list(cpu.available_isas()),
        "threads": cpu.num_threads(),
        "team": cpu.threads(),
        "cpu": machine.cpu_model(),
        "cores": machine.cores(),
        "caches": machine.caches(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": machine.installed("torch"),
        "tuned": {"file": tuned.file(), "factors": factors} if factors else None,
        "platform": platform.platform(),
        "build": _cpu.build_info(),
    }
    if arguments.json:
        print(json.dumps(facts, indent=2, default=str))
        return
    facts["tuned"] = f"by {facts['tuned']['file']}" if facts["tuned"] else "no"
    facts |= {f"build {key}": value for key, value in facts.pop("build").items()}
    width = max(map(len, facts))
    for key, value in facts.items():
        text = " ".join(map(str, value)) if isinstance(value, list | tuple) else value
        print(f"{key.replace('_', ' '):{width}}  {'not installed' if text is None else text}")


def _train(arguments):
    from pathlib import Path

    from sparseconv import data
    from sparseconv._core.progress import Progress
    from sparseconv.training import report, train

    images = tuple(array[: arguments.limit] for array in data.load(arguments.data))
    count = len(images[0])
    if arguments.batch and arguments.batch > count:
        raise ValueError(f"--batch: got {arguments.batch}, expected at most {count}, as many images as there are")
    output = Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)
    if arguments.save_activations:
        Path(arguments.save_activations).parent.mkdir(parents=True, exist_ok=True)
    with Progress(quiet=arguments.quiet) as progress:
        result = train.run(
            images,
            epochs=arguments.epochs,
            batch=arguments.batch or min(_BATCH, count),
            learning_rate=arguments.learning_rate,
            names=tuple(dict.fromkeys(["none", *arguments.method])),
            sparsity=arguments.sparsity,
            seed=arguments.seed,
            num_threads=arguments.threads,
            save_activations=arguments.save_activations,
            progress=progress,
        )
        for old, new in report.keep_earlier(output):
            print(f"sparseconv: the earlier {old.name} is now {new}", file=sys.stderr)
        written = [report.save_json(result, output), report.save_picture(result, output), arguments.save_activations]
        progress.say(f"wrote {' and '.join(str(path) for path in written if path)}")
    print(report.text(result))
    if result["interrupted"]:
        raise KeyboardInterrupt


def _torch_report(arguments):
    try:
        from sparseconv.torch import command
    except ModuleNotFoundError as error:
        raise ValueError(f"torch-report needs PyTorch ({error}): pip install 'sparseconv[torch]'") from error
    command.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
