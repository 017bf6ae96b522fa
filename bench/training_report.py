"""Tables and a picture of what `training.py` has stored.

    python bench/training_report.py FILE.jsonl [--picture FILE.svg]

A method is compared with PyTorch seed by seed: both began with the same weights and saw the same images. *Times faster*
is the mean over seeds of PyTorch's seconds divided by the method's. The median step hides what other work on the
machine does to single ones, and is after the conversion. The accuracy that time is taken to is PyTorch's own
final one, mean over seeds, minus --below; between two evaluations it is interpolated.
"""

import argparse
import statistics
from pathlib import Path

if __package__:
    from .training import METHODS, read
else:
    from training import METHODS, read

BELOW = 0.005
BASE = "torch"
WORDS = {
    "torch": "PyTorch", "converted": "converted", "swat": "SWAT, 80%", "nm": "transposable 4:8",
    "stochastic": "gradients pruned, p = 0.9",
}  # fmt: skip


def by_method(runs, model):
    """{method: {seed: run}} of a model."""
    found = {method: {run["seed"]: run for run in runs if (run["model"], run["method"]) == (model, method)}
             for method in METHODS}  # fmt: skip
    return {method: seeds for method, seeds in found.items() if seeds}


def seconds_to(run, accuracy):
    """Seconds of training after which an accuracy is reached, or None."""
    seconds_before, accuracy_before = 0.0, 0.0
    for seconds, _, now in run["points"]:
        if now >= accuracy:
            share = (accuracy - accuracy_before) / (now - accuracy_before)
            return seconds_before + share * (seconds - seconds_before)
        seconds_before, accuracy_before = seconds, now
    return None


def final(run):
    return run["points"][-1][2]


def target(methods, below=BELOW):
    """The accuracy that time is taken to."""
    return statistics.fmean(final(run) for run in methods[BASE].values()) - below


def paired(methods, method, seconds_of):
    """PyTorch's seconds by the method's, for each seed that has both."""
    pairs = [(seconds_of(run), seconds_of(methods[method][seed]))
             for seed, run in methods[BASE].items() if seed in methods[method]]  # fmt: skip
    return [theirs / ours for theirs, ours in pairs if theirs and ours]


def spread(values, pattern):
    """Mean and standard deviation over seeds, as words."""
    values = list(values)
    if not values:
        return ""
    mean = pattern.format(statistics.fmean(values))
    return f"{mean} ± {pattern.format(statistics.stdev(values))}" if len(values) > 1 else mean


def mean_zeros(seeds, which, operand):
    """Share of zeros of an operand of a pass after the last epoch: mean over seeds, and over layers by multiply-adds.

    The first layer, whose input are the images, is left out.
    """
    shares = []
    for run in seeds.values():
        layers = list(run["multiply_adds"])[1:]
        weights = [run["multiply_adds"][name] for name in layers]
        values = [run["zeros"][-1][which][name][operand] for name in layers]
        shares.append(sum(map(float.__mul__, map(float, weights), values)) / sum(weights))
    return statistics.fmean(shares)


def table(lines):
    """A table of lines of words, the head first."""
    lines = [f"| {' | '.join(words)} |" for words in lines]
    return "\n".join([lines[0], "|" + "---|" * (lines[0].count("|") - 1), *lines[1:]])


def times(runs, model, below=BELOW):
    """Accuracy and seconds of each method, and how many times faster than PyTorch."""
    methods = by_method(runs, model)
    accuracy = target(methods, below)
    head = ["", "final accuracy, %", "seconds", "of them converting", "times faster", "median step, ms", "times faster",
            f"seconds to {100 * accuracy:.1f}%", "times faster", "seeds that reach it"]  # fmt: skip
    lines = [head]
    for method, seeds in methods.items():
        reached = [seconds for seconds in (seconds_to(run, accuracy) for run in seeds.values()) if seconds is not None]
        lines.append([
            WORDS[method],
            spread((100 * final(run) for run in seeds.values()), "{:.2f}"),
            spread((run["seconds"] for run in seeds.values()), "{:.1f}"),
            f"{statistics.fmean(run['conversion_seconds'] for run in seeds.values()):.1f}",
            spread(paired(methods, method, lambda run: run["seconds"]), "{:.2f}") if method != BASE else "1",
            spread((1000 * run["step_seconds"] for run in seeds.values()), "{:.1f}"),
            spread(paired(methods, method, lambda run: run["step_seconds"]), "{:.2f}") if method != BASE else "1",
            spread(reached, "{:.1f}"),
            spread(paired(methods, method, lambda run: seconds_to(run, accuracy)), "{:.2f}") if method != BASE else "1",
            f"{len(reached)} of {len(seeds)}",
        ])  # fmt: skip
    return table(lines)


OPERANDS = {  # head of the column: where it stands in a run's zeros
    "x, forward": ("forward", 0),
    "weight, forward and backward_data": ("forward", 1),
    "grad_output, both backward passes": ("backward_data", 0),
    "results that backward_data may leave out": ("backward_data", 2),
    "x, backward_weight": ("backward_weight", 0),
}


def zeros(runs, model):
    """Zeros of each method, over all layers but the first."""
    lines = [["zeros", *OPERANDS]]
    for method, seeds in by_method(runs, model).items():
        lines.append([WORDS[method], *(f"{mean_zeros(seeds, *place):.0%}" for place in OPERANDS.values())])
    return table(lines)


def layer_zeros(runs, model):
    """Zeros of each layer and pass after the first and after the last epoch, a line for each method and layer.

    A cell has the shares of both operands: x and weight, grad_output and weight, x and grad_output. Conversion changes
    no zeros, so PyTorch's own have no lines.
    """
    lines = [
        ["", "layer", "forward: x, weight", "backward_data: grad_output, weight", "backward_weight: x, grad_output"]
    ]
    for method, seeds in by_method(runs, model).items():
        if method == BASE:
            continue
        for layer in next(iter(seeds.values()))["multiply_adds"]:
            cells = []
            for which in ("forward", "backward_data", "backward_weight"):
                epochs = []
                for epoch in (0, -1):
                    found = [run["zeros"][epoch][which].get(layer) for run in seeds.values()]
                    if None not in found:
                        means = [statistics.fmean(values) for values in zip(*found, strict=True)]
                        epochs.append(", ".join(f"{share:.0%}" for share in means[:2]))
                cells.append(" → ".join(epochs))
            lines.append([WORDS[method], f"`{layer}`", *cells])
    return table(lines)


def save_picture(runs, path):
    """Accuracy over seconds, a panel for each model; lines are means over seeds, bands from the worst to the best."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    models = list(dict.fromkeys(run["model"] for run in runs))
    figure = Figure(figsize=(4.6 * len(models) + 0.4, 3.8), layout="constrained")
    panels = figure.subplots(1, len(models), squeeze=False)[0]
    for model, panel in zip(models, panels, strict=True):
        methods = by_method(runs, model)
        finals = [100 * final(run) for seeds in methods.values() for run in seeds.values()]
        for method, seeds in methods.items():
            at_once = list(zip(*(run["points"] for run in seeds.values()), strict=True))  # the same images seen
            seconds = [statistics.fmean(point[0] for point in points) for points in at_once]
            values = [[100 * point[2] for point in points] for points in at_once]
            (line,) = panel.plot(
                seconds, list(map(statistics.fmean, values)), marker="o", markersize=3, label=WORDS[method]
            )
            worst, best = list(map(min, values)), list(map(max, values))
            panel.fill_between(seconds, worst, best, alpha=0.15, linewidth=0, color=line.get_color())
        if BASE in methods:
            panel.axhline(100 * target(methods), color="0.5", linewidth=1, linestyle="--")
        panel.set(title=model, xlabel="seconds of training", xlim=(0, None), ylim=(min(finals) - 12, max(finals) + 1))
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("test accuracy, %")
    panels[-1].legend(loc="lower right", fontsize="small")
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "sparseconv"}):  # text stays text; the same file each time
        figure.savefig(path, metadata={"Date": None} if Path(path).suffix == ".svg" else None)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--below", type=float, default=BELOW, help="see above (default: %(default)s)")
    parser.add_argument("--layers", action="store_true", help="zeros of each layer and pass, too")
    parser.add_argument("--picture", type=Path, help="accuracy over seconds: .svg, .png or .pdf (needs matplotlib)")
    arguments = parser.parse_args(argv)
    runs = read(arguments.file)
    models = list(dict.fromkeys(run["model"] for run in runs if run["method"] == BASE))
    if not models:
        raise SystemExit(f"file: {arguments.file} has no run of {BASE}, expected some to compare with")
    for model in models:
        print(f"**{model}**\n\n{times(runs, model, arguments.below)}\n\n{zeros(runs, model)}\n")
        if arguments.layers:
            print(f"{layer_zeros(runs, model)}\n")
    if arguments.picture:
        save_picture(runs, arguments.picture)


if __name__ == "__main__":
    main()
