"""The demo's results as a table, a JSON file and a picture."""

import json
from pathlib import Path

__all__ = ["save_json", "save_picture", "summary", "table"]


def table(report):
    """Return the measurements as lines of text: one row per layer and pass."""
    rows = [("layer", "pass", "weights", "zeros", "skips", "kernel", "dense ms", "auto ms", "speed-up")]
    for row in report["layers"]:
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
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = {0, 1, 2, 4, 5}
    lines = [
        "  ".join(cell.ljust(width) if at in left else cell.rjust(width) for at, (cell, width) in enumerate(cells))
        for cells in (zip(row, widths, strict=True) for row in rows)
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def summary(report):
    """Return the two lines that matter: what the network learned, and how much faster its training step is."""
    lines = []
    for what, key in (("convolutions of a training step", "convolutions"), ("whole training step", "step")):
        part = report[key]
        lines.append(
            f'{what}: {part["seconds"] * 1e3:.1f} ms, with skip="none" {part["seconds_dense"] * 1e3:.1f} ms, '
            f"speed-up {part['speedup']:.2f}"
        )
    return "\n".join([f"test accuracy: {report['test_accuracy']:.1%}", *reversed(lines)])


def save_json(report, directory):
    """Write report.json into the directory and return its path."""
    path = Path(directory) / "report.json"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return path


def save_picture(report, directory):
    """Write report.png into the directory and return its path, or None without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    rows = report["layers"]
    at = range(len(rows))
    names = [f"{row['layer']} {row['pass'].replace('_', '-')}" for row in rows]
    figure = Figure(figsize=(11, 0.3 * len(rows) + 1.8), layout="constrained")
    FigureCanvasAgg(figure)
    zeros, times = figure.subplots(1, 2, sharey=True)

    colours = ["0.75" if row["skip"] == "none" else "C0" for row in rows]
    zeros.barh(at, [100 * row["zero_fraction"] for row in rows], color=colours)
    zeros.set(xlim=(0, 100), xlabel="zeros of the operand, % (grey: not skipped)", yticks=at, yticklabels=names)
    zeros.set_ylim(len(rows) - 0.4, -0.6)

    dense, auto = ([1e3 * row[key] for row in rows] for key in ("seconds_dense", "seconds"))
    times.barh([y - 0.2 for y in at], dense, 0.4, color="0.75", label='skip="none"')
    bars = times.barh([y + 0.2 for y in at], auto, 0.4, color="C0", label='skip="auto"')
    times.bar_label(bars, [f"{row['speedup']:.2f}x" for row in rows], padding=3, fontsize=8)
    times.set(xlabel=f"ms per training step of {report['batch']} images, {report['isa']}, {report['threads']} threads")
    times.margins(x=0.12)
    times.legend(loc="best")
    figure.suptitle(
        f"Convolutions of a training step {report['convolutions']['speedup']:.2f} times as fast as dense, "
        f"test accuracy {report['test_accuracy']:.1%}"
    )
    path = Path(directory) / "report.png"
    figure.savefig(path, dpi=120)
    return path
