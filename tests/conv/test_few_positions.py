"""Layers with few output positions, as inference at batch 1 has them: the kernel for one, and what is chosen."""

from dataclasses import replace

import numpy as np
import pytest
from awkward import guarded, needs_mprotect
from cases import Case, call, in_layout, operands, oracle, prepared, sparse_floats, sparse_ints
from comparisons import assert_exact, assert_same_bits, assert_within_bound

import sparseconv as sc

# One position of `out` (forward), or of `in` (backward_data), from all that makes tables: padding on any side, strides,
# dilation, groups, classes of taps, and lists longer and shorter than the eight nonzeros of a step.
FORWARD = (
    Case(70, 33, (1, 1), (1, 1), batch=1),
    Case(17, 16, (3, 3), (3, 3), batch=1),
    Case(33, 40, (1, 1), (3, 3), batch=1, padding=1),
    Case(16, 17, (2, 2), (3, 3), batch=1, padding=((0, 1), (1, 0))),
    Case(20, 5, (4, 5), (3, 3), batch=1, stride=7),
    Case(16, 24, (5, 5), (3, 3), batch=1, dilation=2),
    Case(34, 34, (2, 3), (2, 3), batch=1, groups=2),
    Case(5, 3, (9,), (9,), batch=1),
    Case(3, 17, (2, 2, 2), (3, 3, 3), batch=1, stride=2, padding=((0, 1), (0, 1), (0, 1))),
    Case(40, 18, (1, 1), (1, 1), batch=1, transposed=True),
)
BACKWARD = (
    Case(70, 33, (1, 1), (1, 1), batch=1),
    Case(16, 17, (1, 1), (3, 3), batch=1, padding=1),
    Case(33, 18, (1, 1), (3, 3), batch=1, padding=3, stride=2),
    Case(17, 16, (1, 1), (2, 5), batch=1, padding=(3, 6), dilation=3),
    Case(34, 20, (1, 1), (3, 3), batch=1, padding=1, groups=2),
    Case(16, 33, (1,), (7,), batch=1, padding=5, stride=3),
    Case(24, 16, (1, 1), (4, 4), batch=1, padding=1, transposed=True),
)
LONE = [(name, replace(case, kind=kind)) for name, cases in (("forward", FORWARD), ("backward_data", BACKWARD))
        for case in cases for kind in (0, 1, 2)]  # fmt: skip
FEW = [(name, replace(case, batch=batch)) for name, case in LONE[::3] for batch in (2, 5, 17)]


@pytest.mark.parametrize("name, case", [*LONE, *FEW], ids=str)
def test_exact(isa, name, case):
    """Every density, with plain and with packed weights."""
    for sparsity in (0.0, 0.5, 0.9, 1.0):
        first, second, _ = prepared(case, name, 0.3)
        second = second * (np.random.default_rng(1).random(second.shape) >= sparsity)
        expected = oracle(case, name, operands(case, name, 0.3)[0], second)
        packed = sc.pack_weight(second, groups=case.groups)
        for weight in (second, packed):
            out = np.full(expected.shape, np.nan, np.float32)
            assert_exact(call(sc, case, name, first, weight, skip="weight", out=out), expected, f"{sparsity}")
        if sparsity < 1:
            assert expected.any()


@pytest.mark.parametrize("activation", [None, "relu"])
def test_bias_and_activation(isa, activation):
    for name, case in LONE:
        if name == "forward":
            first, second = operands(case, name, 0.5)
            bias = sparse_ints((case.out_c,), 0.2, 7)
            expected = oracle(case, name, first, second, bias=bias, activation=activation)
            first, second = in_layout(case, name, first, second)
            actual = call(sc, case, name, first, second, bias=bias, activation=activation, skip="weight")
            assert_exact(actual, expected, str(case))


def test_floats_and_threads(isa):
    """Within the bound, and the same bits on any number of threads."""
    x, weight = sparse_floats((1, 700), 0.1, 1), sparse_floats((900, 700), 0.7, 2)
    magnitude = np.abs(x.astype(np.float64)) @ np.abs(weight.astype(np.float64)).T
    y = sc.linear(x, weight, skip="weight", num_threads=1)
    assert_within_bound(y, x.astype(np.float64) @ weight.T.astype(np.float64), magnitude, 702)
    for threads in (2, 3, 64):
        assert_same_bits(sc.linear(x, weight, skip="weight", num_threads=threads), y)


def test_nan_and_infinity(isa):
    """Of x reach what a nonzero weight multiplies, through ReLU, too; padding is never multiplied."""
    x, weight = np.ones((1, 40, 1, 1), np.float32), sparse_ints((18, 40, 3, 3), 0.5, 1)
    x[0, 7], x[0, 9] = np.nan, np.inf
    y = sc.conv2d(x, weight, padding=1, activation="relu", skip="weight")[0, :, 0, 0]
    middle = weight[:, :, 1, 1]
    assert (np.isnan(y) == (middle[:, 7] != 0)).all()
    infinite = (middle[:, 7] == 0) & (middle[:, 9] > 0)
    assert infinite.any()
    assert np.isinf(y[infinite]).all()
    rest = (middle[:, 7] == 0) & (middle[:, 9] == 0)
    assert rest.any()
    assert np.isfinite(y[rest]).all()


@needs_mprotect
@pytest.mark.parametrize("at_end", [True, False], ids=["end", "start"])
def test_guard_pages(isa, at_end):
    for name, case in LONE:
        first, second, expected = prepared(case, name, 0.5)
        out = guarded(np.full(expected.shape, 7, np.float32), at_end, writable=True)
        call(sc, case, name, guarded(first, at_end), guarded(second, at_end), skip="weight", out=out)
        assert_exact(out, expected, str(case))


# --- the choice ---

LINEAR = [(batch, channels, out) for batch in (1, 2, 4, 8) for channels, out in ((4096, 1024), (512, 1000), (700, 90))]
LAYERS = (
    Case(128, 96, (1, 1), (1, 1), batch=1),
    Case(128, 96, (1, 1), (1, 1), batch=4, kind=1),
    Case(128, 128, (2, 2), (3, 3), batch=1, padding=1),
    Case(128, 96, (7, 7), (1, 1), batch=1, kind=1),
    Case(128, 128, (2, 2), (3, 3), batch=2, padding=1, groups=2),
    Case(96, 128, (1, 1), (2, 2), batch=2, stride=2, transposed=True),
)


def pruned(shape, zeros, seed=1):
    return sparse_floats(shape, zeros, seed)


@pytest.mark.parametrize("batch, channels, out", LINEAR)
def test_packed_linear_layers_skip_their_zeros(isa, vendor, batch, channels, out):
    """The dense kernel reads and packs all weights for few positions; lists are shorter."""
    weight = pruned((out, channels), 0.9)
    x, packed = sparse_floats((batch, channels), 0.0, 2), sc.pack_weight(weight)
    plan = sc.plan("linear", x, packed)
    assert (plan.skip, plan.kernel) == ("weight", "weights_skip")
    assert plan.speedup > 1.5
    grads = sparse_floats((batch, out), 0.0, 3)
    assert sc.plan("linear_backward_data", grads, packed).skip == "weight"
    # Lists of a plain weight would be made for one use, which costs more than packing it.
    assert sc.plan("linear", x, weight).skip != "weight"


@pytest.mark.parametrize("case", LAYERS, ids=str)
@pytest.mark.parametrize("name", ["forward", "backward_data"])
def test_packed_convolutions_skip_their_zeros(isa, vendor, name, case):
    first, second = operands(case, name, 0.0, make=sparse_floats)
    packed = sc.pack_weight(pruned(second.shape, 0.9), groups=case.groups)
    operation = f"conv{'_transpose' if case.transposed else ''}2d"
    first, _ = in_layout(case, name, first, second)
    if name == "backward_data":
        shape = in_layout(case, "forward", np.zeros(case.x_shape, np.float32), second)[0].shape
        plan = sc.plan(f"{operation}_backward_data", first, packed, shape, layout=case.layout, **case.options)
    else:
        plan = sc.plan(operation, first, packed, layout=case.layout, **case.options)
    assert plan.skip == "weight"


@pytest.mark.parametrize("batch", [1, 8])
def test_denser_weights_are_not_skipped(isa, vendor, batch):
    """From a density on that no shape gains from, whatever few positions make of the dense kernel."""
    weight = pruned((512, 512), 0.2)
    plan = sc.plan("linear", sparse_floats((batch, 512), 0.0, 2), sc.pack_weight(weight))
    assert plan.skip == "none"


def test_packing_weighs_less_the_more_positions_there_are(isa):
    """Beside the dense kernel skipping loses what packing cost both: the gain from zeros of x grows with positions."""
    weight, speedups = pruned((256, 256), 0.0), []
    for batch in (1, 4, 16, 64, 1024):
        speedups.append(sc.plan("linear", sparse_floats((batch, 256), 0.9, 2), weight, skip="input").speedup)
    assert speedups == sorted(speedups)
    assert speedups[0] < 1.3 < speedups[-1]
