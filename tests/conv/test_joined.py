"""The dense kernel of forward and backward_data as each vendor's CPUs run it: taps joined or not, and memory asked for.

Tiles of four vectors on AVX-512 are the ones that ask for memory; 65 channels and more do so with several taps.
"""

import numpy as np
import pytest
import simulated
from cases import Case, call, in_layout, operands, prepared, sparse_floats, sparse_ints, to_layout
from comparisons import assert_exact, assert_same_bits

import sparseconv as sc
from sparseconv._core import rows

CASES = (
    *(Case(80, 64, (3, width), (3, 3), padding=1, kind=1) for width in (1, 2, 6, 7, 8, 13, 14, 15, 22)),
    *(Case(70, 64, (3, width), (1, 1), kind=1) for width in (1, 6, 7, 15)),
    Case(64, 70, (5, 15), (3, 3), stride=2, padding=1, kind=1),
    Case(70, 64, (6, 14), (3, 3), stride=2, padding=1, kind=1),
    Case(70, 64, (6, 15), (1, 1), stride=2, kind=1),
    Case(70, 70, (5, 9), (1, 1), stride=3),
    Case(300, 130, (3, 7), (3, 3), padding=1, kind=1),  # two blocks of channels
    Case(300, 80, (5, 7), (3, 3), stride=2, padding=1),
    Case(66, 64, (9, 11), (3, 3), dilation=2, padding=3, kind=1),  # rows and columns that meet padding alone
    Case(66, 64, (7, 9), (2, 3), stride=(3, 2), dilation=(2, 3), padding=((2, 1), (0, 3)), kind=2),
    Case(66, 64, (11, 13), (2, 3), stride=(1, 4), dilation=(1, 2), padding=1, kind=1),
    Case(66, 64, (4, 9), (2, 2), stride=3, padding=2, kind=1),  # gaps in backward_data
    Case(66, 64, (33,), (7,), padding=3, kind=1),  # strands of 3, 2 and 2 taps
    Case(66, 64, (3, 20), (1, 16), padding=(0, 5), kind=1),  # all that can be joined
    Case(66, 64, (3, 20), (1, 17), padding=(0, 5), kind=1),  # and one tap more
    Case(66, 64, (3, 4, 8), (2, 2, 3), padding=1, kind=1),
    Case(140, 128, (3, 7), (3, 3), padding=1, groups=2, kind=1),
    Case(70, 64, (600,), (3,), padding=1, kind=1, batch=5),  # several segments
    Case(48, 64, (14, 14), (3, 3), batch=24, padding=1, kind=1),  # several chunks
    Case(64, 48, (4, 7), (3, 3), stride=2, padding=1, output_padding=1, transposed=True, kind=1),
)


@pytest.mark.parametrize("name", ["forward", "backward_data"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_exact(isa, vendor, case, name):
    first, second, expected = prepared(case, name, 0.2)
    assert_exact(call(sc, case, name, first, second, skip="none"), expected)


@pytest.mark.parametrize("vectors", [1, 2, 3, 4])
def test_any_number_of_vectors(isa, vendor, vectors):
    case = Case(80, 16 * vectors - 1, (4, 15), (3, 3), padding=1, kind=1)
    first, second, expected = prepared(case, "forward", 0.2)
    assert_exact(call(sc, case, "forward", first, second, skip="none"), expected)


@pytest.mark.parametrize("case", [CASES[3], CASES[13], CASES[17]], ids=str)
def test_epilogue(isa, vendor, case):
    """Bias, residual, ReLU and its mask in the last sweep alone, and what is not needed is cleared in it."""
    x, weight = in_layout(case, "forward", *operands(case, "forward", 0.2))
    bias, residual = sparse_ints((case.out_c,), 0, 1), to_layout(sparse_ints(case.out_shape, 0.3, 2), case.layout)
    options = {"bias": bias, "activation": "relu", "residual": residual}
    expected = call(sc.reference, case, "forward", x, weight, **options)
    assert_exact(call(sc, case, "forward", x, weight, skip="none", **options), expected)
    grads, weight = in_layout(case, "backward_data", *operands(case, "backward_data", 0.2))
    needed = to_layout(sparse_ints(case.x_shape, 0.5, 3), case.layout)
    expected = np.where(needed == 0, 0, call(sc.reference, case, "backward_data", grads, weight))
    assert_exact(call(sc, case, "backward_data", grads, weight, skip="none", output_mask=needed), expected)


@pytest.mark.parametrize("case", CASES[-9::2], ids=str)
def test_threads_change_no_bit(isa, vendor, case):
    for name in ("forward", "backward_data"):
        first, second = in_layout(case, name, *(array + 0.1 for array in operands(case, name, 0.2)))
        results = [call(sc, case, name, first, second, skip="none", num_threads=threads) for threads in (1, 2, 5)]
        for result in results[1:]:
            assert_same_bits(result, results[0])


@pytest.mark.parametrize("case", CASES[::3], ids=str)
def test_vendors_change_no_bit(isa, case):
    """Loops in another order, each sum in the same one."""
    for name in ("forward", "backward_data"):
        first, second = in_layout(case, name, *(array + 0.1 for array in operands(case, name, 0.2)))
        results = []
        for vendor in ("intel", "amd"):
            with simulated.vendor(vendor):
                results.append(call(sc, case, name, first, second, skip="none"))
        assert_same_bits(*results)


def test_infinite_weights_do_not_meet_padding(isa, vendor):
    x = np.ones((1, 3, 7, 70), np.float32)
    weight = np.ones((64, 70, 3, 3), np.float32)
    weight[:, :, :, 0] = np.inf
    y = sc.conv2d(x, weight, padding=1, layout="NHWC", skip="none")
    assert np.isfinite(y[:, :, 0]).all()
    assert np.isinf(y[:, :, 1:]).all()


def test_blocks_follow_from_the_vendor(isa, vendor):
    wide = isa in ("amx_fp16", "amx", "avx512")
    blocks = {}
    for filters, channels, taps in ((64, 64, 3), (64, 72, 3), (64, 72, 1), (64, 72, 5), (16, 72, 3), (16, 3, 3)):
        x = sparse_floats((2, 14, 14, channels), 0, 1)
        weight = np.ones((filters, channels, taps, taps), np.float32)
        plan = sc.plan("conv2d", x, weight, padding=taps // 2, layout="NHWC", skip="none")
        if plan.kernel != "rows_dense":
            return  # tiles
        blocks[filters, channels, taps] = plan.blocking["joined"], plan.blocking["ahead"]
        skipping = sc.plan("conv2d", x, weight, padding=taps // 2, layout="NHWC", skip="input")
        assert (skipping.blocking["joined"], skipping.blocking["ahead"]) == (0, 0)
    assert 5 * 5 > rows.MAX_JOINED >= 3 * 3
    if vendor == "intel" and wide:
        expected = [(1, 0), (1, 1), (0, 2), (0, 1), (1, 1), (1, 0)]
    elif wide:
        expected = [(1, 0), (1, 0), (0, 2), (0, 0), (0, 0), (1, 0)]
    else:  # one vector
        expected = [(0, 0), (0, 0), (0, 0), (0, 0), (0, 0), (1, 0)]
    assert list(blocks.values()) == expected
    light = np.zeros((8, 56, 56, 72), np.float32), np.zeros((64, 72, 3, 3), np.float32)
    strided = sc.plan("conv2d", *light, stride=2, padding=1, layout="NHWC", skip="none")
    assert strided.blocking["ahead"] == (2 if vendor == "intel" and wide else 0)
