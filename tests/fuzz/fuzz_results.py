"""What a random call is, and how its result is judged."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from fuzz_arrays import (
    CANARY,
    chance,
    memory,
)
from fuzz_places import is_moved, result_moved

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


@dataclass
class Call:
    """A call and how its result is judged; `forced` says that its inputs allow nothing but zeros."""

    name: str
    run: Callable[[int], Any]  # with so many threads
    check: Callable[[Any], None]
    inputs: list = field(default_factory=list)
    forced: bool = False
    details: str = ""

    def __str__(self):
        return f"{self.name}({self.details})"


class Vacuous(Exception):
    """What was drawn would prove nothing."""


def judge(call):
    """Runs a call and compares: its result, its inputs, and now and then the bits of a second run."""
    before = [array.tobytes() for array in call.inputs]
    result = call.run(None)
    call.check(result)
    first = [one.tobytes() for one in parts(result)]
    again = call.run(1 + len(first[0]) % 4)
    assert [one.tobytes() for one in parts(again)] == first, "another number of threads gives other bits"
    assert [array.tobytes() for array in call.inputs] == before, "an input was changed"


def parts(result):
    """Arrays side by side in memory; all NaN are one, since sign and payload of what is computed are left open."""
    result = [np.ascontiguousarray(one) for one in (result if isinstance(result, tuple) else (result,))]
    return [np.where(np.isnan(one), one.dtype.type(np.nan), one) if one.dtype.kind == "f" else one for one in result]


def same(actual, expected, what="result"):
    assert isinstance(actual, np.ndarray), f"{what}: got {type(actual).__name__}"
    assert actual.dtype == expected.dtype, f"{what}: got {actual.dtype}, expected {expected.dtype}"
    assert actual.shape == expected.shape, f"{what}: got shape {actual.shape}, expected {expected.shape}"
    wrong = (actual != expected) & ~((actual != actual) & (expected != expected))
    if wrong.any():
        at = tuple(int(one) for one in np.argwhere(wrong)[0])
        raise AssertionError(
            f"{what}: {np.count_nonzero(wrong)} of {wrong.size} differ, first at {at}: got {actual[at]!r}, "
            f"expected {expected[at]!r}"
        )


def close(actual, exact, bound, dtype):
    assert actual.dtype == dtype and actual.shape == exact.shape, (actual.dtype, actual.shape, dtype, exact.shape)
    number = np.isfinite(exact)
    if not number.all():
        same(np.where(number, dtype.type(0), actual), np.where(number, 0, exact).astype(dtype))
        actual, exact, bound = (np.where(number, one, 0) for one in (actual, exact, bound))
    with np.errstate(invalid="ignore"):
        excess = np.abs(actual.astype(np.float64) - exact) - bound
    if not (excess <= 0).all():
        at = tuple(int(one) for one in np.argwhere(~(excess <= 0))[0])
        raise AssertionError(
            f"{np.count_nonzero(~(excess <= 0))} of {excess.size} beyond the bound, first at {at}: got {actual[at]!r}, "
            f"expected {exact[at]!r} +- {bound[at]:.3g}"
        )


class Out:
    """`out=` of a call, or none; the memory around its elements must stay as it was."""

    def __init__(self, rng, shape, dtype, rows=False, contiguous=False):
        self.array = None
        if chance(rng, 0.45) or is_moved():
            buffer, array = memory(rng, shape, dtype, result=True, rows=rows)
            if contiguous:
                buffer = np.full(math.prod(shape) + 16, CANARY, dtype)
                array = buffer[8:-8].reshape(shape)
            self.buffer, self.array = result_moved(buffer, array)

    def given(self):
        if self.array is None:
            return {}
        self.buffer[...] = CANARY
        return {"out": self.array}

    def check(self, result):
        if self.array is None:
            assert result.flags.c_contiguous and result.ctypes.data % 64 == 0
            return
        assert result is self.array, "out: another array was returned"
        kept = result.copy()
        self.array[...] = CANARY
        assert (self.buffer == CANARY).all(), "memory around out was written"
        self.array[...] = kept


def shown(value):
    """An argument in few words."""
    if isinstance(value, np.ndarray):
        return f"<{value.dtype}{list(value.shape)} strides {list(value.strides)}>"
    return repr(value)
