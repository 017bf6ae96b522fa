"""Memory that nobody has written holds NaN: scratch memory before each call and item, and new arrays.

With ``SPARSECONV_TEST_POISON=1`` in the environment the whole suite runs like that (conftest.py).
"""

import contextlib
import os

import numpy as np

from sparseconv._core import _cpu

WANTED = os.environ.get("SPARSECONV_TEST_POISON", "0") != "0"
BITS = 0x7FFF7FFF  # NaN as a float of 16, 32 and 64 bits, as an integer a number far beyond any table
_EMPTY, _EMPTY_LIKE = np.empty, np.empty_like


def fill(array):
    """The array, all of whose bytes are those of `BITS` over and over."""
    if array.dtype.hasobject or not array.flags.c_contiguous:
        return array
    memory = array.reshape(-1).view(np.uint8)
    whole = memory.size // 4 * 4
    memory[:whole].view(np.uint32)[...] = BITS
    memory[whole:] = np.frombuffer(np.uint32(BITS).tobytes(), np.uint8)[: memory.size - whole]
    return array


def empty(*arguments, **options):
    return fill(_EMPTY(*arguments, **options))


def empty_like(*arguments, **options):
    return fill(_EMPTY_LIKE(*arguments, **options))


@contextlib.contextmanager
def poisoned(bits=BITS):
    """While it lasts, all of this is so; yields a function: how often scratch memory has been filled since."""
    before = np.empty, np.empty_like
    np.empty, np.empty_like = empty, empty_like
    _cpu.poison_scratch(bits)
    try:
        yield lambda: _cpu.poison_scratch(bits)
    finally:
        np.empty, np.empty_like = before
        _cpu.poison_scratch(BITS if WANTED else 0)
