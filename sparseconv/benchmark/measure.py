"""Times of two sides, taken in turn in one process, so that both see the same clock rate, caches and neighbours."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sparseconv.benchmark.activations import Saved
from sparseconv.benchmark.layers import Layer
from sparseconv.benchmark.operands import MASKS, SPARSE_OPERANDS, ZEROS_IN, Operands, random_operands
from sparseconv.benchmark.peers import PEERS, ours

__all__ = [
    "SKIP_WORDS", "Cell", "Settings", "compare", "fastest", "fastest_of_pairs", "keep_memory", "measure",
    "measure_saved", "rows_of",
]  # fmt: skip

T = TypeVar("T")

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h
_LEAST_TURNS = 5

# What skips zeros of an operand, where it is not the operand's own name. There is no word for masked filters:
# backward_weight leaves them out whatever it skips.
SKIP_WORDS = {"channel": "weight", "filters": "auto"}


@dataclass(frozen=True)
class Settings:
    """What all cells of a comparison have in common."""

    against: str = "dense"
    batch: int = 16
    layout: str = "NHWC"
    skip: str = "auto"  # or "none", or "sparse": the operand that has the zeros
    zeros_in: str = "input"  # or another key of ZEROS_IN
    mask: str = "float"  # or "bits": what ours is given where zeros_in is a mask
    packed: bool = False  # whether ours is given a PackedWeight
    threads: int = 1
    seconds: float = 1.0  # for the pairs of one cell

    @property
    def given(self) -> str:
        """In which form ours gets what has the zeros: "array", "packed" weight, "float" mask or "bits"."""
        return self.mask if self.zeros_in in MASKS else "packed" if self.packed else "array"

    def sparse_operand(self, which: str) -> str:
        """What has the zeros in a pass that has such zeros: an operand, or a mask."""
        return ZEROS_IN[self.zeros_in][which]


@dataclass(frozen=True)
class Cell:
    """The outcome for one layer, pass and sparsity: the fastest call of each side."""

    layer: Layer
    which: str
    batch: int
    sparsity: float  # the highest of the operands whose zeros the pass could skip
    seconds: float
    peer_seconds: float
    zeros_in: str = "input"  # names of those operands, with + between them
    name: str = ""  # of the layer in its network, where the zeros are real
    zeros: str = "random"  # or "real"

    @property
    def speedup(self) -> float:
        """The peer's time divided by ours."""
        return self.peer_seconds / self.seconds

    @property
    def peer_gflops(self) -> float:
        """Billions of operations per second of the peer, zeros counted."""
        return 2e-9 * self.layer.problem(self.batch).macs / self.peer_seconds


def measure(
    layers: Iterable[Layer], passes: Iterable[str], sparsities: Iterable[float], settings: Settings
) -> Iterator[list[Cell]]:
    """Compare with the peer at random zeros: one cell per sparsity, in the order of `rows_of`."""
    return rows_of(_random_cell, layers, passes, sparsities, settings)


def rows_of(
    cell: Callable[[Layer, str, float, Settings], T], layers: Iterable[Layer], passes: Iterable[str],
    sparsities: Iterable[float], settings: Settings,
) -> Iterator[list[T]]:  # fmt: skip
    """Pass by pass and layer by layer, what `cell` makes of each sparsity."""
    for which in passes:
        for layer in layers:
            yield [cell(layer, which, sparsity, settings) for sparsity in sparsities]


def _random_cell(layer: Layer, which: str, sparsity: float, settings: Settings) -> Cell:
    operand = settings.sparse_operand(which)
    operands = random_operands(layer, {operand: sparsity}, batch=settings.batch, layout=settings.layout)
    return Cell(layer, which, len(operands.x), sparsity, *compare(which, operands, settings), operand)


def measure_saved(saved: Iterable[Saved], passes: Iterable[str], settings: Settings) -> Iterator[list[Cell]]:
    """Compare with the peer at the zeros of a training step, then at as many random zeros in each operand."""
    for which in passes:
        for one in saved:
            if which not in one.passes:
                continue
            real, batch = one.operands, len(one.operands.x)
            sparsities = {name: real.sparsity(name) for name in ("input", "grad_output")}
            random = random_operands(real.layer, sparsities, batch=batch, layout=real.layout)
            sparse = SPARSE_OPERANDS[which] + (("output",) if settings.zeros_in == "output" else ())
            most, names = max(map(real.sparsity, sparse)), "+".join(sparse)
            yield [
                Cell(real.layer, which, batch, most, *compare(which, operands, settings), names, one.name, zeros)
                for operands, zeros in ((real, "real"), (random, "random"))
            ]


def compare(which: str, operands: Operands, settings: Settings) -> tuple[float, float]:
    """The times of one pass on these operands: ours and the peer's."""
    sparse = settings.sparse_operand(which)
    skip = SKIP_WORDS.get(sparse, sparse) if settings.skip == "sparse" else settings.skip
    mask = settings.mask if sparse in MASKS else None
    our_call = ours(which, operands, threads=settings.threads, skip=skip, mask=mask, packed=settings.packed)
    peer_call = PEERS[settings.against](which, operands, threads=settings.threads)
    return fastest_of_pairs(our_call, peer_call, settings.seconds)


def fastest_of_pairs(first: Callable, second: Callable, seconds: float) -> tuple[float, float]:
    """The least time of each of two calls: `fastest`."""
    one, other = fastest((first, second), seconds)
    return one, other


def fastest(calls: Sequence[Callable], seconds: float) -> list[float]:
    """The least time of each call, made in turn for that long and at least 5 times, once unmeasured.

    The minimum is the time without disturbance; an average would be that of the machine's other work.
    """
    best = [float("inf")] * len(calls)
    for call in calls:
        call()
    end, turns = time.perf_counter() + seconds, 0
    while turns < _LEAST_TURNS or time.perf_counter() < end:
        for side, call in enumerate(calls):
            started = time.perf_counter()
            call()
            best[side] = min(best[side], time.perf_counter() - started)
        turns += 1
    return best


def keep_memory() -> bool:
    """Make malloc keep what is freed for the next call, in this process and for good; return whether it will.

    glibc gives results over 32 MB back to the system after every call; then page faults, which have nothing to do
    with convolutions, are part of the time, of the peer more than ours. The same as ``MALLOC_MMAP_MAX_=0`` and
    ``MALLOC_TRIM_THRESHOLD_`` without limit in the environment.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries may not have it
    return mallopt is not None and bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1))
