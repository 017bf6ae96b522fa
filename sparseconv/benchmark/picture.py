"""Speed-up over sparsity as a picture, for people who want one look."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sparseconv.benchmark.measure import Cell
from sparseconv.benchmark.report import geometric_mean

__all__ = ["check_ending", "require_matplotlib", "save_picture"]


def require_matplotlib() -> None:
    """Raise ValueError if there is no matplotlib: before the measurement, not after it."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ValueError("plot: matplotlib is not installed; pip install 'sparseconv[plot]'") from None


def check_ending(path: str | Path) -> None:
    """Raise ValueError if matplotlib has no format for a file of this ending."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    known = FigureCanvasAgg.get_supported_filetypes()
    if Path(path).suffix.removeprefix(".").lower() not in known:
        raise ValueError(f"--plot: got {str(path)!r}, expected a name that ends with .svg, .png or .pdf")


def save_picture(cells: Sequence[Cell], title: str, path: str | Path) -> None:
    """Draw one panel per pass, and in it one line per kernel size: geometric means over its layers.

    Parameters
    ----------
    cells
    title
    path
        Its ending decides the format: svg, png, pdf.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    passes = list(dict.fromkeys(cell.which for cell in cells))
    kernels = list(dict.fromkeys(cell.layer.kernel_text for cell in cells))
    figure = Figure(figsize=(3.2 * len(passes) + 0.8, 3.4), layout="constrained")
    panels = figure.subplots(1, len(passes), sharey=True, squeeze=False)[0]
    for which, panel in zip(passes, panels, strict=True):
        for kernel in kernels:
            chosen = [cell for cell in cells if cell.which == which and cell.layer.kernel_text == kernel]
            points: dict[float, list[float]] = {}
            for cell in chosen:
                points.setdefault(100 * cell.sparsity, []).append(cell.speedup)
            layers = len({cell.layer for cell in chosen})
            means = [geometric_mean(speedups) for speedups in points.values()]
            panel.plot(list(points), means, marker="o", markersize=4, label=f"{kernel} ({layers} layers)")
        panel.axhline(1, color="0.5", linewidth=1, linestyle="--")
        panel.set(title=which, xlabel="zeros, %")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("speed-up")
    panels[0].set_ylim(bottom=0)
    panels[0].legend(loc="upper left")
    figure.suptitle(title, fontsize="medium")
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "sparseconv"}):  # text stays text: small files
        figure.savefig(path, dpi=120)
