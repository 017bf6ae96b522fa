"""No result depends on what memory held before a call: scratch memory, results, `out`. And the poison is really there.

``SPARSECONV_TEST_POISON=1 pytest`` runs all other tests like this; `.ci/run` does.
"""

import ctypes
import subprocess
from itertools import product

import numpy as np
import pytest
from amx_emulated import FLAGS, needs_compiler
from cases import (
    FEW_CASES,
    PASSES,
    SKIPS,
    TRANSPOSED_CASES,
    Case,
    call,
    in_layout,
    operands,
    prepared,
    sparse_floats,
    sparse_ints,
)
from comparisons import assert_exact, assert_same_bits
from compiled import COMPILER
from places import KERNELS, SUPPORT
from poison import BITS, fill, poisoned

import sparseconv as sc
from sparseconv._core import arrays

# NaN, all ones (NaN, and -1 as an integer), the largest float, Inf.
PATTERNS = (BITS, 0xFFFFFFFF, 0x7F7FFFFF, 0x7F800000)
# Groups whose channels begin and end within a vector, in every layout; three channels of 16, both sides of vectors.
GROUPS = tuple(
    Case(groups * in_c, groups * out_c, (4, 5), kernel, padding=kernel[0] // 2, groups=groups, kind=kind)
    for kind, (groups, in_c, out_c), kernel in product(
        (0, 1, 2), ((2, 33, 33), (3, 5, 17), (2, 40, 24), (2, 18, 47), (5, 3, 13)), ((3, 3), (1, 1))
    )
)
CASES = (*GROUPS, *FEW_CASES, *(case for case in TRANSPOSED_CASES[::2] if case.batch))


@needs_compiler
def test_scratch_memory_is_poisoned(tmp_path):
    """Every word of a lease and of every item, on every thread; none without poison, so the test could fail."""
    library = tmp_path / "libpoison.so"
    sources = [SUPPORT / "poison_driver.cpp", KERNELS / "runtime/threads.cpp", KERNELS / "runtime/openmp_team.cpp"]
    command = [*COMPILER, *FLAGS, "-O1", "-shared", *map(str, sources), "-lpthread", "-ldl", "-o"]
    command.append(str(library))
    subprocess.run(command, check=True)
    driver = ctypes.CDLL(str(library))
    driver.words_without.restype = driver.poison.restype = ctypes.c_int64
    driver.words_without.argtypes = ctypes.c_uint32, ctypes.c_int64, ctypes.c_int64, ctypes.c_int
    calls = ((1, 1, 1), (1000, 5, 1), (300, 40, 2), (5000, 7, 3), (20, 9, 16))
    for number, (words, items, threads) in enumerate(calls):
        # Words that nobody else in this process writes: memory that the tests' own poison filled may come back here.
        bits = 0x7FA51000 + number
        driver.poison(0)
        assert driver.words_without(bits, words, items, threads) > 0
        assert driver.poison(bits) == 0
        assert driver.words_without(bits, words, items, threads) == 0
        assert driver.poison(0) >= 1 + items
        assert driver.words_without(bits, words, items, threads) >= 0
        assert driver.poison(0) == 0


def test_new_arrays_are_poisoned():
    """What the package takes from NumPy without writing it, as its results are."""
    with poisoned():
        for array in (np.empty(7, np.float32), np.empty_like(np.ones((3, 5), np.float32))):
            assert np.isnan(array).all()
        result = arrays.empty((3, 5), np.dtype(np.float32))
        assert result.ctypes.data % 64 == 0
        assert np.isnan(result).all()
        assert np.isnan(np.empty(3)).all()
        assert (np.empty(3, np.int64) > 1 << 60).all()
        assert np.empty(5, np.uint8).all()


def test_calls_are_poisoned(isa):
    case = FEW_CASES[0]
    for name in PASSES:
        first, second, expected = prepared(case, name, 0.5)
        with poisoned() as fills:
            fills()
            assert_exact(call(sc, case, name, first, second), expected)
            assert fills() >= 2  # the lease, and the first item


def results(case, name, bits, arrays, mask):
    """Every way of skipping on two threads, into memory that holds `bits`."""
    with poisoned(bits):
        for skip in SKIPS[name]:
            yield skip, call(sc, case, name, *arrays, skip=skip, num_threads=2)
        if name == "backward_data":
            for skip in ("output", "none", "grad_output"):
                yield f"{skip} masked", call(sc, case, name, *arrays, skip=skip, output_mask=mask, num_threads=2)
        if name == "forward":
            options = {"activation": "relu", "return_mask": True, "num_threads": 2}
            y, nonzero = call(sc, case, name, *arrays, **options)
            yield "relu", y
            yield "mask", np.unpackbits(nonzero).astype(np.float32)


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_memory_held_changes_no_bit(isa, case, name):
    arrays = in_layout(case, name, *operands(case, name, 0.5, 3, sparse_floats))
    shape = prepared(case, name, 0.5)[2].shape
    mask = sparse_ints(shape, 0.5, 4)
    first = list(results(case, name, PATTERNS[0], arrays, mask))
    for skip, result in first:
        assert np.isfinite(result).all(), skip
        assert result.any(), skip
    for bits in PATTERNS[1:]:
        for (skip, result), (_, expected) in zip(results(case, name, bits, arrays, mask), first, strict=True):
            assert_same_bits(result, expected, f"{skip} {bits:x}")


@pytest.mark.parametrize("name", PASSES)
def test_out_is_written_whole(isa, name):
    """Also the lanes of a blocked layout that no channel has: they are zeros."""
    for case in CASES[::3]:
        first, second, expected = prepared(case, name, 0.5)
        for skip in SKIPS[name]:
            out = fill(np.ones(expected.shape, np.float32))
            assert np.isnan(out).all()
            assert_exact(call(sc, case, name, first, second, skip=skip, out=out), expected, f"{case} {skip}")
