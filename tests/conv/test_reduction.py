"""What becomes of a convolution before kernels see it, and that its sums stay the same."""

from dataclasses import replace

import numpy as np
import pytest
from cases import PASSES, SKIPS, Case, call, in_layout, operands, oracle, sparse_ints
from comparisons import assert_exact

import sparseconv
from sparseconv._core import layout, reduction
from sparseconv._core.arrays import Form
from sparseconv._core.problem import Problem
from sparseconv._core.reduction import Reduced

CASES = (
    Case(16, 17, (40, 1), (3, 1), batch=1),  # a row
    Case(33, 16, (40, 1), (3, 3), padding=1, kind=1),
    Case(17, 24, (1, 5, 1), (1, 3, 1), kind=1),
    Case(16, 16, (1, 1), (3, 3), padding=1, batch=4),  # pointwise
    Case(3, 20, (6, 7), (6, 7), batch=3),  # linear
    Case(20, 18, (4, 5), (4, 5), groups=2),
    Case(1, 33, (30, 8), (3, 8)),  # a row of words
    Case(20, 33, (5, 5), (5, 5), batch=5, kind=1),  # weights lie in another order
    Case(33, 20, (3, 4), (5, 6), padding=1, batch=3, kind=2),
    Case(17, 16, (9,), (9,), batch=6, kind=1),
    Case(17, 33, (2,), (2,), padding=((4, 0),), dilation=2, batch=9, kind=1),  # one tap is left, and no distance
    Case(16, 17, (90, 3), (3, 3), padding=1, kind=1),  # a long row
    Case(17, 16, (80, 2, 3), (2, 1, 3), stride=(2, 1, 1), kind=1, batch=1),
    Case(16, 24, (4, 5), (4, 5), transposed=False, kind=2),
    Case(24, 16, (1, 1), (4, 5), transposed=True, batch=3),
    Case(24, 16, (1, 1), (4, 5), transposed=True, batch=3, kind=1),
    Case(1, 20, (3, 7), (7, 3), padding=(2, 1)),  # the taps that are used, a linear layer, are not the first ones
)


def reduced(shape, kernel, out_channels=8, *, name="NCHW", batch=2, weight=None, **options):
    """Of a convolution of contiguous arrays; `shape` is (channels, *size)."""
    dims = len(kernel)
    order = layout.parse(name, dims)
    channels, *size = shape
    defaults = {"stride": (1,) * dims, "padding": (0,) * dims, "dilation": (1,) * dims, "groups": 1} | options
    out = [
        (length + 2 * pad - (taps - 1) * dil - 1) // step + 1
        for length, taps, step, pad, dil in zip(
            size, kernel, defaults["stride"], defaults["padding"], defaults["dilation"], strict=True
        )
    ]
    problem = Problem(
        batch, defaults["groups"], channels, out_channels, tuple(size), tuple(out), tuple(kernel), defaults["stride"],
        defaults["padding"], defaults["dilation"],
    )  # fmt: skip

    def strides(count, sizes):
        array = np.empty(order.shape(batch, count, tuple(sizes)), np.float32)
        return order.strides(Form(array.shape, array.strides, array.dtype))

    if weight is None:
        weight = np.empty((out_channels, channels // defaults["groups"], *kernel), np.float32)
    steps = tuple(step // 4 for step in weight.strides)
    return reduction.simplified(Reduced(problem, (strides(channels, size),), (strides(out_channels, out),), steps))


def test_a_map_of_one_column_is_a_row():
    made = reduced((8, 1000, 1), (3, 1))
    assert made.problem.in_size == (1000,)
    assert made.problem.kernel == (3,)
    made = reduced((8, 1000, 1), (3, 3), padding=(1, 1), name="NHWC")
    assert (made.problem.in_size, made.problem.kernel, made.offset, made.cut) == ((1000,), (3,), 1, True)


def test_a_kernel_of_the_size_of_the_map_is_a_linear_layer():
    made = reduced((3, 64, 48), (64, 48))
    assert made.problem.pointwise
    assert made.problem.in_channels == 3 * 64 * 48
    assert made.x[0].contiguous_channels
    nhwc = np.empty((8, 64, 48, 3), np.float32).transpose(0, 3, 1, 2)
    made = reduced((3, 64, 48), (64, 48), name="NHWC", weight=nhwc)
    assert made.problem.pointwise
    assert made.problem.in_channels == 3 * 64 * 48
    assert not reduced((4, 5, 6), (5, 6), name="NHWC", weight=None).problem.pointwise
    assert not reduced((32, 5, 6), (5, 6), name="NCHW16c").problem.pointwise
    assert reduced((4, 5, 6), (5, 6), groups=2).problem.in_channels == 4 * 30
    grouped = np.empty((8, 5, 6, 2), np.float32).transpose(0, 3, 1, 2)
    assert reduced((4, 5, 6), (5, 6), groups=2, name="NHWC", weight=grouped).problem.in_channels == 4


def test_windows_over_a_whole_dimension_are_channels():
    made = reduced((1, 500, 300), (3, 300))
    assert (made.problem.in_channels, made.problem.in_size, made.problem.kernel) == (300, (500,), (3,))
    assert made.x[0].contiguous_channels


def test_the_longer_dimension_is_the_row():
    assert reduced((64, 5000, 3), (3, 3), padding=(1, 1), name="NHWC").problem.in_size == (3, 5000)
    assert reduced((64, 5000, 3), (3, 3), padding=(1, 1), name="NCHW").problem.in_size == (5000, 3)
    assert reduced((64, 7, 7), (3, 3), padding=(1, 1), name="NHWC").problem.in_size == (7, 7)


def test_usual_layers_stay_as_they_are():
    for size, kernel, stride in ((56, 3, 1), (14, 3, 2), (7, 3, 1), (28, 1, 2), (224, 7, 2)):
        made = reduced((64, size, size), (kernel, kernel), stride=(stride, stride), padding=(kernel // 2,) * 2)
        assert not made.moves
        assert made.offset == 0


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("name", PASSES)
def test_sums_stay_the_same(isa, case, name):
    for sparsity in (0.0, 0.5, 0.95):
        first, second = operands(case, name, sparsity)
        expected = oracle(case, name, first, second)
        given = in_layout(case, name, first, second)
        for skip in SKIPS[name]:
            assert_exact(call(sparseconv, case, name, *given, skip=skip), expected, f"{sparsity=} {skip=}")


@pytest.mark.parametrize("kind", range(3))
@pytest.mark.parametrize("case", [
    Case(24, 3, (1, 1), (4, 5), transposed=True, batch=3), Case(24, 17, (2, 1), (3, 5), stride=3, transposed=True),
    Case(24, 16, (1, 4), (5, 2), stride=(1, 2), transposed=True), Case(16, 1, (1,), (7,), transposed=True),
    Case(34, 6, (1, 1), (4, 3), groups=2, transposed=True), Case(8, 4, (1, 3, 1), (2, 3, 2), transposed=True),
    Case(3, 20, (6, 7), (6, 7), batch=3),
], ids=str)  # fmt: skip
def test_bias(isa, case, kind):
    """Results that are channels of the reduced problem have the bias of their own channel; no more of it is read."""
    case = replace(case, kind=kind)
    bias = np.full(case.out_c + 400, np.nan, np.float32)[: case.out_c]
    bias[...] = 100 * np.arange(1, case.out_c + 1)
    for order in ((0, 1, *range(2, case.ndim + 2)), (0, *range(2, case.ndim + 2), 1)):
        x, weight = operands(case, "forward", 0.5)
        memory = np.ascontiguousarray(weight.transpose(order)).transpose(np.argsort(order))
        for skip in SKIPS["forward"]:
            given = in_layout(case, "forward", x, weight)[0], memory
            actual = call(sparseconv, case, "forward", *given, bias=bias, activation="relu", skip=skip)
            assert_exact(actual, oracle(case, "forward", x, weight, bias=bias, activation="relu"), f"{skip=}")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_masks(isa, case):
    """Of the weight gradient, whose taps have changed places, and of the operands and results of the other passes."""
    first, second = operands(case, "backward_weight", 0.5)
    expected = oracle(case, "backward_weight", first, second)
    mask = sparse_ints(expected.shape, 0.7, 3) != 0
    given = in_layout(case, "backward_weight", first, second)
    for skip in SKIPS["backward_weight"]:
        out = np.full(expected.shape, 7, np.float32)
        call(sparseconv, case, "backward_weight", *given, skip=skip, output_mask=mask, out=out)
        assert_exact(out, np.where(mask, expected, np.float32(0)), skip)
    first, second = operands(case, "backward_data", 0.5)
    expected = oracle(case, "backward_data", first, second)
    given = in_layout(case, "backward_data", first, second)
    mask = sparse_ints(expected.shape, 0.5, 4)
    for skip in ("none", "output", "grad_output"):
        for kind in (mask, mask != 0, sparseconv.masks.nonzero_mask(mask)):
            actual = call(sparseconv, case, "backward_data", *given, skip=skip, output_mask=kind)
            assert_exact(actual, np.where(mask != 0, expected, np.float32(0)), f"{skip} {kind.dtype}")
    actual = call(sparseconv, case, "backward_data", *given, skip="grad_output", grad_output_mask=given[0])
    assert_exact(actual, expected)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_few_nonzeros(isa, case):
    """Which have a kernel of their own where one tap is left."""
    first, second = operands(case, "backward_weight", 0.9)
    expected = oracle(case, "backward_weight", first, second)
    given = in_layout(case, "backward_weight", first, second)
    for skip in SKIPS["backward_weight"]:
        assert_exact(call(sparseconv, case, "backward_weight", *given, skip=skip), expected, skip)
