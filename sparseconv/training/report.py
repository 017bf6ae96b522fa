"""The demo's results as a table, a JSON file and a picture."""

import json
from pathlib import Path

__all__ = ["comparison", "keep_earlier", "save_json", "save_picture", "summary", "table", "text"]


_FILES = ("report.json", "report.png")


def text(report):
    """Return all that the command prints: table and summary of every training method, and their comparison."""
    parts = []
    for run in report["runs"]:
        parts += [table(run), summary(run)] if _whole(run) else [summary(run)]
    if len(_measured(report)) > 1:
        parts.append(comparison(report))
    return "\n\n".join(parts)


def _measured(report):
    """The runs that came to their end."""
    return [run for run in report["runs"] if _whole(run)]


def _whole(run):
    return "layers" in run


def table(run):
    """Return the measurements of one training method as lines of text: one row per layer and pass."""
    rows = [("layer", "pass", "weights", "zeros", "skips", "kernel", "dense ms", "auto ms", "speed-up")]
    for row in run["layers"]:
        rows.append(
            (
                row["layer"],
                row["pass"],
                "x".join(map(str, row["weight_shape"])),
                f"{row['zero_fraction']:.1%}",
                row["skip"],
                row["kernel"],
                f"{row['seconds_dense'] * 1e3:.2f}",
                f"{row['seconds'] * 1e3:.2f}",
                f"{row['speedup']:.2f}",
            )
        )
    return _aligned(rows, left={0, 1, 2, 4, 5})


def summary(run):
    """Return the lines that matter: what the network learned, and how much faster its training step is."""
    lines = []
    for what, key in (("convolutions of a training step", "convolutions"), ("whole training step", "step")):
        if not _whole(run):
            lines.append(f"{what}: not measured")
            continue
        part = run[key]
        lines.append(
            f'{what}: {part["seconds"] * 1e3:.1f} ms, with skip="none" {part["seconds_dense"] * 1e3:.1f} ms, '
            f"speed-up {part['speedup']:.2f}"
        )
    name = "" if run["method"] == "none" else f", {run['settings']}"
    return "\n".join([f"test accuracy: {run['test_accuracy']:.1%}{name}", *reversed(lines)])


def comparison(report):
    """Return the training methods side by side: zeros that they make, what they cost in accuracy, what they gain.

    "skipped" is the share of a dense step's multiply-adds that the passes leave out. Times are of whole steps, the
    method's own work included, then of the convolutions alone; speed-ups are over dense steps.
    """
    header = ("method", "zeros: weights", "inputs", "gradients", "skipped", "accuracy", "difference")
    header += ("step ms", "speed-up", "convolutions ms", "speed-up")
    rows, reference = [header], report["runs"][0]["test_accuracy"]
    for run in _measured(report):
        difference = 100 * (run["test_accuracy"] - reference)
        rows.append(
            (
                run["method"],
                *(f"{_zeros(run, *which):.1%}" for which in _WHERE),
                f"{_skipped(run):.1%}",
                f"{run['test_accuracy']:.1%}",
                f"{difference:+.1f}",
                *(text for key in ("step", "convolutions") for text in _time(run[key])),
            )
        )
    return _aligned(rows, left={0})


# pass and operand of "weights", "inputs" and "gradients": where the methods prune them
_WHERE = (("forward", "weight"), ("backward_weight", "input"), ("backward_weight", "grad_output"))


def _zeros(run, which, operand):
    """Fraction of zeros of an operand in all layers, each counted by its multiply-adds."""
    rows = [row for row in run["layers"] if row["pass"] == which]
    return sum(row["multiply_adds"] * row["zeros"][operand] for row in rows) / _multiply_adds(rows)


def _skipped(run):
    """Share of the multiply-adds of a step that its passes skip."""
    rows = run["layers"]
    skipped = sum(row["multiply_adds"] * row["zero_fraction"] for row in rows if row["skip"] != "none")
    return skipped / _multiply_adds(rows)


def _multiply_adds(rows):
    return sum(row["multiply_adds"] for row in rows)


def _time(part):
    return f"{part['seconds'] * 1e3:.1f}", f"{part['speedup']:.2f}"


def _aligned(rows, left):
    """Rows of cells, the header first, as lines of text in columns; those of `left` begin at the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) if at in left else cell.rjust(width) for at, (cell, width) in enumerate(cells))
        for cells in (zip(row, widths, strict=True) for row in rows)
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def keep_earlier(directory):
    """Number the reports of an earlier run, which else would be overwritten; return (old path, new path) of each."""
    earlier = [path for name in _FILES if (path := Path(directory) / name).exists()]
    number = 1
    while any(path.with_stem(f"report-{number}").exists() for path in map(Path(directory).joinpath, _FILES)):
        number += 1
    return [(path, path.rename(path.with_stem(f"report-{number}"))) for path in earlier]


def save_json(report, directory):
    """Write report.json into the directory and return its path."""
    path = Path(directory) / "report.json"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return path


def save_picture(report, directory):
    """Write report.png into the directory and return its path, or None without matplotlib or measured runs.

    It shows the layers of the only run, or the runs side by side.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    runs = _measured(report)
    if not runs:
        return None
    rows = len(runs[0]["layers"]) if len(runs) == 1 else 2 * len(runs)
    figure = Figure(figsize=(11, 0.3 * rows + 1.8), layout="constrained")
    FigureCanvasAgg(figure)
    draw = _draw_layers if len(runs) == 1 else _draw_runs
    draw(report, figure)
    path = Path(directory) / "report.png"
    figure.savefig(path, dpi=120)
    return path


def _draw_layers(report, figure):
    run = _measured(report)[0]
    rows = run["layers"]
    at = range(len(rows))
    names = [f"{row['layer']} {row['pass'].replace('_', '-')}" for row in rows]
    zeros, times = figure.subplots(1, 2, sharey=True)

    colours = ["0.75" if row["skip"] == "none" else "C0" for row in rows]
    zeros.barh(at, [100 * row["zero_fraction"] for row in rows], color=colours)
    zeros.set(xlim=(0, 100), xlabel="zeros of the operand, % (grey: not skipped)", yticks=at, yticklabels=names)
    zeros.set_ylim(len(rows) - 0.4, -0.6)

    _draw_times(times, at, rows, report)
    figure.suptitle(
        f"Convolutions of a training step {run['convolutions']['speedup']:.2f} times as fast as dense, "
        f"test accuracy {run['test_accuracy']:.1%}"
    )


def _draw_runs(report, figure):
    runs = _measured(report)
    at = range(len(runs))
    accuracy, times = figure.subplots(1, 2, sharey=True)

    bars = accuracy.barh(at, [100 * run["test_accuracy"] for run in runs], color="C1")
    accuracy.bar_label(bars, [f"{run['test_accuracy']:.1%}" for run in runs], padding=3, fontsize=8)
    accuracy.set(xlim=(0, 110), xlabel="test accuracy, %", yticks=at, yticklabels=[run["method"] for run in runs])
    accuracy.set_ylim(len(runs) - 0.4, -0.6)

    _draw_times(times, at, [run["step"] for run in runs], report)
    figure.suptitle(f"Training methods that aim at a sparsity of {report['sparsity']:.0%}")


def _draw_times(axes, at, parts, report):
    """Bars of seconds_dense and seconds, and the speed-up beside them."""
    dense, auto = ([1e3 * part[key] for part in parts] for key in ("seconds_dense", "seconds"))
    axes.barh([y - 0.2 for y in at], dense, 0.4, color="0.75", label='skip="none"')
    bars = axes.barh([y + 0.2 for y in at], auto, 0.4, color="C0", label='skip="auto"')
    axes.bar_label(bars, [f"{part['speedup']:.2f}x" for part in parts], padding=3, fontsize=8)
    axes.set(xlabel=f"ms per training step of {report['batch']} images, {report['isa']}, {report['threads']} threads")
    axes.margins(x=0.12)
    axes.figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
