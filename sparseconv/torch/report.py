"""What a conversion found and did, layer by layer: data, and a table of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

__all__ = ["LayerReport", "PassReport", "Report"]

PASSES = ("forward", "backward_data", "backward_weight")
_SHORT = {"forward": "forward", "backward_data": "data", "backward_weight": "weight"}


@dataclass
class PassReport:
    """One pass of one layer, on the operands that the sample brought there."""

    torch_seconds: float
    seconds: float  # of sparseconv
    kernel: str  # that of sparseconv
    skip: str  # whose zeros it leaves out

    @property
    def speedup(self) -> float:
        return self.torch_seconds / self.seconds


@dataclass
class LayerReport:
    """One layer.

    Attributes
    ----------
    name : str
        As in `model.named_modules()`.
    module : str
        Its class in torch.nn.
    converted : bool
        Whether it computes with sparseconv now; in a `sparsity_report`, whether `convert_` would let it.
    reason : str
        Why, or why not.
    input_shape, weight_shape : tuple of int
        Of the latest call; the input's is None without a sample.
    calls : int
        How often the sample ran the layer. Times are those of all calls together.
    zeros : dict
        Fractions of zeros, by operand: "input", "grad_output", "weight".
    input_is_relu : bool
        Whether the gradient of the input is needed only where the input is not zero.
    passes : dict of PassReport
        By the name of the pass: "forward", "backward_data", "backward_weight".
    folded : str
        What `fold=True` computes along with it: "norm", "add", "relu", with + between them.
    seconds_before, seconds_after : float or None
        All passes together, before (PyTorch, with what is folded) and now.
    """

    name: str
    module: str
    converted: bool
    reason: str
    weight_shape: tuple[int, ...] = ()
    input_shape: tuple[int, ...] | None = None
    calls: int = 0
    zeros: dict[str, float] = field(default_factory=dict)
    input_is_relu: bool = False
    passes: dict[str, PassReport] = field(default_factory=dict)
    folded: str = ""
    seconds_before: float | None = None
    seconds_after: float | None = None

    @property
    def torch_seconds(self) -> float:
        return sum(one.torch_seconds for one in self.passes.values())

    @property
    def seconds(self) -> float:
        return sum(one.seconds for one in self.passes.values())


@dataclass
class Report:
    """The outcome of `convert_`, `convert` or `sparsity_report`. ``str(report)`` is a table.

    Attributes
    ----------
    layers : list of LayerReport
        Every layer that the library knows, in the model's order.
    threads : int
        PyTorch's number of threads while times were taken.
    isa : str
        The instruction set that sparseconv used.
    backward : bool
        Whether the backward passes were measured.
    model_seconds_before, model_seconds_after : float or None
        Of the whole model on the sample, fastest of several runs in turns.
    folded : list of str
        Names of the modules whose graph is folded; "" is the model itself.
    notes : list of str
        What the reader should know: modules that torch.fx could not trace, layers that were given back, and so on.
    """

    layers: list[LayerReport] = field(default_factory=list)
    threads: int = 1
    isa: str = ""
    backward: bool = False
    model_seconds_before: float | None = None
    model_seconds_after: float | None = None
    folded: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def converted(self) -> int:
        """The number of layers that compute with sparseconv."""
        return sum(layer.converted for layer in self.layers)

    @property
    def speedup(self) -> float | None:
        """Time of the whole model before, divided by that after."""
        if self.model_seconds_before is None or self.model_seconds_after is None:
            return None
        return self.model_seconds_before / self.model_seconds_after

    def to_dict(self) -> dict[str, Any]:
        """The same as dicts and lists, for JSON."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.converted} of {len(self.layers)} layers with sparseconv ({self.isa}, {self.threads} threads)"]
        lines += _table([_header(self), *map(_row, self.layers)])
        before, after = self.model_seconds_before, self.model_seconds_after
        if self.speedup is not None and before is not None and after is not None:
            lines.append(
                f"whole model: {1e3 * before:.2f} ms before, {1e3 * after:.2f} ms after: "
                f"{self.speedup:.2f} times as fast"
            )
        return "\n".join([*lines, *self.notes])


def _header(report: Report) -> list[str]:
    passes = "forward/data/weight" if report.backward else "forward"
    return ["layer", "input", "weight", "zeros x", "zeros dy", "kernels", f"gain {passes}", "ms before", "after", "by"]


def _row(layer: LayerReport) -> list[str]:
    def per_pass(text: Any) -> str:
        return "/".join(text(layer.passes[name]) if name in layer.passes else "-" for name in PASSES).removesuffix(
            "/-/-"
        )

    def shape(sizes: tuple[int, ...] | None) -> str:
        return "x".join(map(str, sizes)) if sizes else ""

    def percent(operand: str) -> str:
        return f"{layer.zeros[operand]:.0%}" if operand in layer.zeros else ""

    def milliseconds(seconds: float | None) -> str:
        return "" if seconds is None else f"{1e3 * seconds:.2f}"

    by = "sparseconv" if layer.converted else "torch"
    if layer.folded:
        by += f" (+{layer.folded})"
    if not layer.passes:
        by += f": {layer.reason}"
    return [
        layer.name or layer.module, shape(layer.input_shape), shape(layer.weight_shape), percent("input"),
        percent("grad_output"), per_pass(lambda one: one.kernel) if layer.passes else "",
        per_pass(lambda one: f"{one.speedup:.2f}") if layer.passes else "",
        milliseconds(layer.seconds_before), milliseconds(layer.seconds_after), by,
    ]  # fmt: skip


def _table(rows: list[list[str]]) -> list[str]:
    used = [column for column in zip(*rows, strict=True) if any(column[1:]) or len(rows) == 1]
    widths = [max(map(len, column)) for column in used]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in zip(*used, strict=True)
    ]
