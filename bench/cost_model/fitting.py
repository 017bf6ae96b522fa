"""The constants, fitted to stored times, and the time of a call that follows from them."""

from functools import cache
from typing import NamedTuple

import numpy as np

from sparseconv._core.blocking import ceil_div
from sparseconv.benchmark.layers import parse

from .calls import CONSTANTS, Work, work
from .processors import Processor
from .stored import Cell, network_cells

PULL = 0.15  # a constant e times away from what is expected weighs as much as one cell with this error
CALL_SECONDS = 10e-6  # docs/numbers.md, "What a call costs"
Constants = dict[str, dict[str, float]]  # cycles by family and name


def expected(processor: Processor) -> Constants:
    """What the instruction set or the head of a kernel says."""
    return {
        family: {
            name: cycles / (processor.madds if name.endswith("_madds") else 1)
            for name, (_, cycles) in constants.items()
        }
        for family, constants in CONSTANTS.items()
    }


@cache
def work_of(cell: Cell) -> Work:
    return work(parse(cell.layer), cell.which, cell.zeros, cell.processor)


def fit(cells: list[Cell]) -> Constants:
    """The constants of the CPU of these cells.

    They are drawn weakly towards what is expected, so that a constant which the layers at hand hardly show stays where
    it can be believed.
    """
    processor = cells[0].processor
    fitted: Constants = {}
    for family, constants in expected(processor).items():
        chosen = [cell for cell in cells if work_of(cell).family == family]
        counts = np.array([[work_of(cell).counts.get(name, 0.0) for name in constants] for cell in chosen])
        seconds = np.array([cell.seconds - CALL_SECONDS for cell in chosen])
        logs = _least_squares(counts / processor.hertz, seconds, np.log(list(constants.values())))
        fitted[family] = dict(zip(constants, np.exp(logs).tolist(), strict=True))
    return fitted


def _least_squares(counts: np.ndarray, seconds: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Logarithms of the constants: least squares of log(counts @ constants / seconds) by Levenberg and Marquardt."""

    def errors(logs: np.ndarray) -> np.ndarray:
        return np.concatenate([np.log(counts @ np.exp(logs) / seconds), PULL * (logs - expected)])

    found, now, damping = expected, errors(expected), 1e-2
    for _ in range(100):
        parts = counts * np.exp(found)
        slopes = np.vstack([parts / parts.sum(1, keepdims=True), PULL * np.eye(len(found))])
        square = slopes.T @ slopes
        step = np.clip(np.linalg.solve(square + damping * np.diag(np.diag(square)), -slopes.T @ now), -1, 1)
        after = errors(found + step)
        if after @ after < now @ now:
            found, now, damping = found + step, after, max(damping / 3, 1e-9)
        else:
            damping *= 3
    return found


@cache
def fitted(processor: Processor) -> Constants:
    """The constants from all stored cells of the networks."""
    return fit(network_cells(processor))


class Prediction(NamedTuple):
    """The seconds of a call, their reasons, and what bounds them."""

    seconds: float
    parts: dict[str, float]  # on one core
    cores: float  # that the items keep busy, on average
    bound: str  # "cores", or "memory": that of the socket; of one core it is one of the parts


def predict(done: Work, constants: Constants, processor: Processor) -> Prediction:
    """The time of a call: like the stored ones on one thread, extrapolated on more.

    Threads share items, so the slowest one decides: a call takes ceil(items / threads) of them. What goes to memory
    cannot be faster than the memory of a socket.
    """
    cycles = constants[done.family]
    parts = {name: count * cycles[name] / processor.hertz for name, count in done.counts.items() if count}
    slowest = ceil_div(done.items, done.threads) / done.items
    seconds, overhead, bound = sum(parts.values()) * slowest, CALL_SECONDS, "cores"
    if done.threads > 1:
        overhead *= 2  # they have to be woken
        moving = done.bytes / processor.memory
        if moving > seconds:
            seconds, bound = moving, "memory"
    return Prediction(overhead + seconds, parts, 1 / slowest, bound)
