"""Which kernel runs, and why: densities, and what they make of the kernels' costs.

`choose` decides between kernels that are bound already (bound.py). A `Plan` is the decision as users see it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from . import _masks
from .problem import Problem

SAMPLED_RUNS = 128  # of 64 elements: the standard error of a density is below 0.006 for independent zeros
SERIAL_MACS = 400_000  # about 10 us of work, what waking a thread costs


class Choice(NamedTuple):
    """A decision: what is skipped, and why."""

    skip: str  # an operand, or "none"
    density: dict[str, float]
    best: str  # the operand that is best to skip
    gain: float  # expected time of the dense kernel over that of skipping `best`
    why: str = ""  # where it was not the gain that decided
    needed: float | None = None  # share of the sums that output_mask needs

    @property
    def speedup(self) -> float:
        """Expected time of the dense kernel over that of the chosen one."""
        return 1.0 if self.skip == "none" else self.gain

    @property
    def reason(self) -> str:
        """The decision in words."""
        masked = "" if self.needed is None else f"; output_mask needs {self.needed:.2f} of the sums"
        return self._skipping + masked

    @property
    def _skipping(self) -> str:
        if self.why:
            return self.why
        density = self.density[self.best]
        if self.skip == "none":
            return f"skipping {self.best} (density {density:.2f}) would take {1 / self.gain:.2f} of the dense time"
        return f"density {density:.2f} of {self.best}"


@dataclass(frozen=True)
class Plan:
    """What a call would run, and why.

    Attributes
    ----------
    operation : str
        Name of the public function.
    problem : str
        The sizes as a short text; the same text names tests and benchmarks.
    kernel : str
        "rows_skip", "rows_spikes", "rows_output", "weights_skip", "rows_dense", "rows_tiles", "groups_dense" (forward,
        backward_data), "gradient_skip", "gradient_spikes", "gradient_points", "gradient_dense", "gradient_tiles",
        "gradient_groups" (backward_weight; "tiles" are dense kernels on the tile registers of AMX, "groups" those of
        narrow groups, "spikes" add where `x` is all zeros and ones), "reference" (float64) or "none" (an empty
        result).
    skip : str
        The operand whose zeros are skipped, or "none".
    density : dict
        Measured (sampled) density of each operand that could be skipped; elements up to a threshold count as zeros.
    speedup : float
        Expected time of the dense kernel divided by that of the chosen one.
    reason : str
        The decision in words.
    blocking : dict
        Block sizes of its loops; kernels/common/problem.h explains the names.
    isa : str
        Instruction set.
    threads : int
        Number of threads.
    scratch_bytes : int
        Memory that the call needs beside its arrays, over all threads.
    """

    operation: str
    problem: str
    kernel: str
    skip: str
    density: dict[str, float]
    speedup: float
    reason: str
    blocking: dict[str, int]
    isa: str
    threads: int
    scratch_bytes: int

    def __str__(self) -> str:
        densities = ", ".join(f"{name} {value:.2f}" for name, value in self.density.items()) or "not measured"
        return (
            f"{self.operation} {self.problem}\n"
            f"  kernel   {self.kernel} on {self.isa}, {self.threads} thread(s)\n"
            f"  skip     {self.skip}: {self.reason}\n"
            f"  density  {densities}\n"
            f"  expected {self.speedup:.2f} x the dense kernel\n"
            f"  blocking {', '.join(f'{name} {value}' for name, value in self.blocking.items())}\n"
            f"  scratch  {self.scratch_bytes / 2**20:.2f} MB"
        )


# An operand that a kernel could skip, or its density, if known, and `each` and `fixed` of that kernel (see bound.py).
Candidate = tuple[np.ndarray | float, float, float]


def choose(skip: str, dense: float, candidates: dict[str, Candidate], threshold: float = 0.0) -> Choice:
    """The operand to skip, or "none"; elements of up to `threshold` count as zeros.

    `dense` is what the dense kernel costs, in the candidates' units.
    """
    if skip == "none":
        return NOTHING
    density, best, least = _masks.cheapest(skip, candidates, SAMPLED_RUNS, threshold)
    gain = dense / least
    if skip != "auto":
        why = f"elements up to the threshold {threshold:g} count as zeros" if threshold else "asked for"
        return Choice(skip, density, best, gain, why)
    return Choice(best if gain > 1 else "none", density, best, gain)


NOTHING = Choice("none", {}, "", 1.0, "asked for")


def no_choice(why: str) -> Choice:
    """Nothing is skipped, and nothing had to be measured."""
    return Choice("none", {}, "", 1.0, why)


def threads_for(problem: Problem, wanted: int) -> int:
    """As many threads as the work is worth."""
    return 1 if wanted == 1 else max(1, min(wanted, problem.met_macs // SERIAL_MACS))
