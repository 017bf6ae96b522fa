"""Narrow groups: dense kernels whose lanes are channels of several groups."""

from dataclasses import replace

import numpy as np
import pytest
from awkward import guarded, needs_mprotect
from cases import LAYOUTS, PASSES, Case, call, in_layout, operands, oracle, prepared, sparse_floats, sparse_ints
from comparisons import assert_exact, assert_same_bits, check_bias_and_activation, check_exact, check_floats, check_out

import sparseconv as sc
from sparseconv import reference
from sparseconv._core import groups
from sparseconv._core.layout import Strides
from sparseconv._core.problem import Problem

KERNELS = {"forward": "groups_dense", "backward_data": "groups_dense", "backward_weight": "gradient_groups"}


def grouped(count, channels, filters, size, kernel, **more):
    """`count` groups of `channels` to `filters` channels."""
    return Case(count * channels, count * filters, size, kernel, groups=count, **more)


def _shapes():
    """Every way of finding a lane's channel, vectors that are whole, overlap or are less than 16, all geometry."""
    for count in (3, 16, 24, 40, 96):  # depthwise
        yield grouped(count, 1, 1, (5, 9), (3, 3), padding=1)
    yield grouped(33, 1, 1, (9, 14), (3, 3), stride=2, padding=1)
    yield grouped(48, 1, 1, (11, 17), (5, 5), padding=2)
    yield grouped(40, 1, 1, (11, 16), (5, 5), stride=2, padding=2)
    yield grouped(24, 1, 1, (12, 10), (7, 7), padding=3)
    yield grouped(17, 1, 1, (9, 30), (3, 3), padding=2, dilation=2)
    yield grouped(20, 1, 1, (9, 23), (2, 3), stride=(1, 3), padding=(0, 2), dilation=(2, 1))
    yield grouped(18, 1, 1, (9, 16), (3, 3), stride=2, dilation=3, padding=3)
    yield grouped(32, 1, 1, (5, 7), (1, 1))
    yield grouped(19, 1, 1, (3, 11), (2, 2), stride=3)  # columns that no tap reaches
    yield grouped(16, 1, 1, (4, 6), (3, 3), padding=((0, 1), (2, 0)))
    yield grouped(18, 1, 1, (2, 3), (1, 1), padding=2, stride=2)  # outputs that meet padding alone
    for channels in (2, 4, 8, 16):
        yield grouped(5, channels, channels, (4, 9), (3, 3), padding=1)
        yield grouped(16 // channels * 2, channels, channels, (7, 8), (3, 3), stride=2, padding=1)
    yield grouped(9, 4, 4, (6, 13), (5, 5), padding=2)
    yield grouped(6, 8, 8, (4, 12), (3, 3), dilation=2, padding=2)
    yield grouped(3, 32, 32, (4, 5), (3, 3), padding=1)  # rows alone
    for channels, filters in ((1, 2), (2, 1), (1, 6), (3, 3), (5, 7), (12, 4), (1, 16), (16, 1), (3, 32), (17, 5)):
        yield grouped(4, channels, filters, (4, 7), (3, 3), padding=1)
    yield grouped(5, 1, 48, (3, 5), (3, 3), stride=2)
    yield grouped(24, 1, 1, (50,), (3,), padding=1)
    yield grouped(6, 4, 4, (40,), (5,), stride=2, padding=3)
    yield grouped(2, 1, 1, (5000,), (3,), padding=1)  # rows of three segments
    yield grouped(20, 1, 1, (3, 4, 7), (3, 3, 3), padding=1)
    yield grouped(4, 8, 8, (4, 5, 6), (2, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
    yield grouped(16, 1, 1, (1, 1), (1, 1), batch=3)
    yield grouped(24, 1, 1, (7, 7), (3, 3), padding=1, transposed=True)
    yield grouped(6, 4, 4, (4, 5), (3, 3), stride=2, padding=1, output_padding=1, transposed=True)
    yield grouped(4, 2, 3, (4, 5), (2, 2), stride=2, transposed=True)


SHAPES = tuple(_shapes())
CASES = tuple(replace(case, kind=kind) for case in SHAPES for kind in range(3))
FEW = (
    grouped(40, 1, 1, (9, 14), (3, 3), padding=1, kind=1),
    grouped(33, 1, 1, (9, 15), (3, 3), stride=2, padding=1),
    grouped(6, 4, 4, (7, 12), (3, 3), padding=1, kind=1),
    grouped(5, 3, 2, (6, 9), (3, 3), padding=1, kind=2),
    grouped(4, 16, 16, (6, 7), (3, 3), padding=1, kind=1),
)


def planned(case, name, first, second, **more):
    """The plan of a call of `cases.call`."""

    class Planning:
        def __getattr__(self, operation):
            return lambda *arguments, **options: sc.plan(operation, *arguments, **options)

    return call(Planning(), case, name, first, second, **more)


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_exact(isa, case, name):
    first, second, expected = prepared(case, name, 0.3)
    assert_exact(call(sc, case, name, first, second, skip="none"), expected)
    if isa != "scalar" and name == "backward_weight" and max(case.weight_shape) < 100:
        assert_exact(call(sc, case, name, first, second, skip="none", num_threads=3), expected)


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("case", FEW, ids=str)
def test_every_way_of_skipping(isa, case, name):
    check_exact(sc, case, name)
    check_out(sc, case, name)
    check_floats(sc, case, name)


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("case", FEW, ids=str)
def test_bias_and_activation(isa, case, activation):
    check_bias_and_activation(sc, case, activation)


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("case", FEW, ids=str)
def test_is_planned(isa, case, name):
    first, second, _ = prepared(case, name, 0.0)
    assert planned(case, name, first, second, skip="none").kernel == KERNELS[name]
    plan = planned(case, name, first, second)
    assert (plan.kernel, plan.skip) == (KERNELS[name], "none")
    assert plan.scratch_bytes > 0


@pytest.mark.parametrize("name", PASSES)
def test_words_are_obeyed(isa, name):
    """Naming an operand skips its zeros in the kernels that can."""
    case = FEW[2]
    first, second, _ = prepared(case, name, 0.9)
    for skip in {"forward": ["input"], "backward_data": ["grad_output"]}.get(name, ["input", "grad_output"]):
        plan = planned(case, name, first, second, skip=skip)
        assert plan.skip == skip and plan.kernel not in KERNELS.values()


@pytest.mark.parametrize("count, channels, narrow", [(1, 16, False), (4, 64, False), (4, 48, False), (4, 16, True)])
def test_wide_groups_are_others(isa, count, channels, narrow):
    case = grouped(count, channels, channels, (6, 7), (3, 3), padding=1, kind=1)
    for name in PASSES:
        first, second, _ = prepared(case, name, 0.0)
        assert (planned(case, name, first, second, skip="none").kernel == KERNELS[name]) == narrow


def test_auto_skips_in_wider_groups():
    """Groups of 16 channels have words of 16 bits: almost no nonzeros are worth looking for, depthwise none are."""
    for channels, kernel in ((16, "rows_skip"), (1, "groups_dense")):
        case = grouped(64 // channels, channels, channels, (14, 14), (3, 3), padding=1, kind=1)
        for sparsity, expected in ((0.995, kernel), (0.0, "groups_dense")):
            first, second, _ = prepared(case, "forward", sparsity)
            assert planned(case, "forward", first, second).kernel == expected


@pytest.mark.parametrize("kind", range(3))
@pytest.mark.parametrize("count, channels", [(96, 1), (40, 1), (16, 4), (7, 3)])
def test_threads_do_not_change_a_bit(isa, count, channels, kind):
    """Work enough for eight threads, whose chunks and shares differ."""
    case = grouped(count, channels, channels, (40, 41), (3, 3), batch=3, padding=1, kind=kind)
    for name in PASSES:
        first, second = in_layout(case, name, *operands(case, name, 0.0, 1, sparse_floats))
        expected = call(sc, case, name, first, second, skip="none", num_threads=1)
        for threads in (2, 3, 8):
            assert_same_bits(call(sc, case, name, first, second, skip="none", num_threads=threads), expected)


@needs_mprotect
@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("case", [case for case in CASES if max(case.in_size) < 100][::3], ids=str)
def test_between_guards(case, name, at_end):
    """Vectors that overlap or are partial touch nothing beyond an array."""
    for kind in range(2):
        case = replace(case, kind=kind)
        first, second, expected = prepared(case, name, 0.3)
        out = guarded(np.full(expected.shape, 99, np.float32), at_end, writable=True)
        call(sc, case, name, guarded(first, at_end), guarded(second, at_end), skip="none", out=out)
        assert_exact(out, expected)


@pytest.mark.parametrize("layout", LAYOUTS[2])
def test_views(isa, layout):
    """Any strides of operands and results, and memory in another order than the name of the layout says."""
    x, weight = sparse_ints((2, 40, 7, 9), 0.1, 1), sparse_ints((40, 1, 3, 3), 0.1, 2)
    expected = {"y": reference.conv2d(x, weight, padding=1, groups=40)}
    grads = sparse_ints(expected["y"].shape, 0.1, 3)
    expected["dx"] = reference.conv2d_backward_data(grads, weight, x.shape, padding=1, groups=40)
    expected["dw"] = reference.conv2d_backward_weight(x, grads, 3, padding=1, groups=40)
    order = {"NCHW": (0, 1, 2, 3), "NHWC": (0, 3, 1, 2), "NCHW16c": (0, 3, 2, 1)}[layout]

    def strided(array, fill):
        """A view of every other element of something whose dimensions lie in another order."""
        wide = np.full([2 * size for size in np.transpose(array, np.argsort(order)).shape], np.float32(fill))
        # with channels last they lie side by side, and pixels apart
        view = wide[::2, ::2, ::2, : array.shape[1]] if layout == "NHWC" else wide[::2, ::2, ::2, ::2]
        view = view.transpose(order)
        view[...] = array
        return view, wide

    options = {"padding": 1, "groups": 40, "skip": "none"}
    (x, _), (grads, _), (weights, _) = strided(x, np.nan), strided(grads, np.nan), strided(weight, np.nan)
    for name, run in {
        "y": lambda out: sc.conv2d(x, weights, out=out, **options),
        "dx": lambda out: sc.conv2d_backward_data(grads, weights, x.shape, out=out, **options),
        "dw": lambda out: sc.conv2d_backward_weight(x, grads, 3, out=out, **options),
    }.items():
        out, around = strided(np.zeros(expected[name].shape, np.float32), 0.5)
        run(out)
        assert_exact(np.ascontiguousarray(out), expected[name], name)
        assert np.count_nonzero(around == 0.5) == around.size - out.size, name


@pytest.mark.parametrize("kind", range(2))
@pytest.mark.parametrize("count, channels", [(24, 1), (6, 4), (5, 3)])
def test_only_what_is_reached_counts(isa, count, channels, kind):
    """Inputs that no window reaches and weights that meet padding alone may be NaN or infinite."""
    case = grouped(count, channels, channels, (8, 11), (2, 2), stride=3, kind=kind)
    first, second = operands(case, "forward", 0.1)
    grads = operands(case, "backward_data", 0.1)[0]
    expected = oracle(case, "forward", first, second), oracle(case, "backward_weight", first, grads)
    first = first.copy()
    first[:, :, 2::3], first[:, :, :, 2::3] = np.nan, np.inf
    x, g = in_layout(case, "backward_weight", first, grads)
    assert_exact(call(sc, case, "forward", x, second, skip="none"), expected[0])
    assert_exact(call(sc, case, "backward_weight", x, g, skip="none"), expected[1])
    case = grouped(count, channels, channels, (1, 1), (3, 3), padding=1, kind=kind)
    first, weight = operands(case, "forward", 0.0)
    grads = operands(case, "backward_data", 0.0)[0]
    centre = np.zeros_like(weight)
    centre[:, :, 1, 1] = weight[:, :, 1, 1]
    expected = oracle(case, "forward", first, centre), oracle(case, "backward_data", grads, centre)
    weight = np.full_like(centre, np.inf)
    weight[:, :, 1, 1] = centre[:, :, 1, 1]
    assert_exact(call(sc, case, "forward", *in_layout(case, "forward", first, weight), skip="none"), expected[0])
    grads, _ = in_layout(case, "backward_data", grads, weight)
    assert_exact(call(sc, case, "backward_data", grads, weight, skip="none"), expected[1])


@pytest.mark.parametrize("count, channels", [(24, 1), (6, 4), (5, 3)])
def test_nothing_is_reached(isa, count, channels):
    """All outputs lie in the padding: they are the bias, and all gradients are zeros."""
    x = np.full((2, 1, 1, count * channels), np.nan, np.float32)
    weight = np.full((count * channels, channels, 1, 1), np.inf, np.float32)
    bias = sparse_ints((count * channels,), 0.0, 1)
    options = {"stride": 2, "padding": 1, "groups": count, "layout": "NHWC", "skip": "none"}
    y = sc.conv2d(x, weight, bias, **options)
    assert_exact(y, np.broadcast_to(bias, (2, 2, 2, bias.size)).copy())
    assert not sc.conv2d_backward_data(np.full_like(y, np.inf), weight, x.shape, **options).any()
    assert not sc.conv2d_backward_weight(x, y, 1, **options).any()


@pytest.mark.parametrize("case", FEW, ids=str)
def test_masks(isa, case):
    """Masks of results and operands, in every form, mean what they mean elsewhere."""
    x, weight = in_layout(case, "forward", *operands(case, "forward", 0.3))
    x = np.nan_to_num(x)
    y, bits = call(sc, case, "forward", x, weight, skip="none", activation="relu", return_mask=True)
    assert_exact(y, np.maximum(call(sc, case, "forward", x, weight, skip="none"), 0))
    np.testing.assert_array_equal(bits, sc.masks.nonzero_mask(y))
    live = sc.masks.nonzero_mask(x)
    assert_exact(call(sc, case, "forward", x, weight, input_mask=live, activation="relu"), y)
    grads = np.nan_to_num(in_layout(case, "backward_data", *operands(case, "backward_data", 0.3))[0])
    whole = call(sc, case, "backward_data", grads, weight, skip="none")
    for mask in (x, x != 0, live):
        for skip in ("none", "auto", "output"):
            masked = call(sc, case, "backward_data", grads, weight, skip=skip, output_mask=mask)
            assert_exact(masked, np.where(x != 0, whole, 0))
    if case.kind < 2:  # of pixels
        axis = 1 if case.kind == 0 else -1
        pixels = np.random.default_rng(6).random(x.shape[:1] + case.in_size) < 0.5
        spread = np.expand_dims(pixels, axis)
        masked = call(sc, case, "backward_data", grads, weight, skip="none", output_mask=pixels)
        whole = call(sc, case, "backward_data", grads, weight, skip="none")
        assert_exact(masked, np.where(spread, whole, 0))
    whole = call(sc, case, "backward_weight", x, grads, skip="none")
    needed = np.random.default_rng(5).random(whole.shape) < 0.4
    for skip in ("none", "auto", "input"):
        masked = call(sc, case, "backward_weight", x, grads, skip=skip, output_mask=needed)
        assert_exact(masked, np.where(needed, whole, 0))


def test_bits_are_written_with_the_result(isa, monkeypatch):
    """Groups of 16 filters are whole vectors: nothing looks at the result again."""
    case = FEW[4]
    x, weight, expected = prepared(case, "forward", 0.3)
    monkeypatch.setattr(sc.masks, "nonzero_mask", lambda array: pytest.fail("a second look"))
    y, bits = call(sc, case, "forward", x, weight, skip="none", activation="relu", return_mask=True)
    assert_exact(y, np.maximum(expected, 0))
    np.testing.assert_array_equal(np.unpackbits(bits, bitorder="little"), (y != 0).ravel())


def test_large_results_and_inputs(isa):
    """Results past the caches, inputs that are asked for ahead."""
    case = grouped(32, 1, 1, (257, 256), (3, 3), batch=2, padding=1, kind=1)
    plan = planned(case, "forward", *prepared(case, "forward", 0.0)[:2], skip="none")
    assert plan.blocking["stream"] == plan.blocking["ahead"] == 1
    for name in PASSES:
        first, second, expected = prepared(case, name, 0.0)
        assert_exact(call(sc, case, name, first, second, skip="none", num_threads=2), expected)


def test_parts_of_gradients(isa):
    """Many positions are summed in parts, whatever the number of threads."""
    case = grouped(16, 1, 1, (90, 100), (3, 3), batch=7, padding=1, kind=1)
    first, second, expected = prepared(case, "backward_weight", 0.3)
    plan = planned(case, "backward_weight", first, second, skip="none", num_threads=1)
    assert plan.blocking["sum_parts"] > 1
    more_threads = planned(case, "backward_weight", first, second, num_threads=5)
    assert plan.blocking["sum_parts"] == more_threads.blocking["sum_parts"]
    assert_exact(call(sc, case, "backward_weight", first, second, skip="none"), expected)


@pytest.mark.parametrize(
    "channels, lanes, expected",
    [(1, 1, 1), (2, 2, 2), (4, 4, 4), (8, 8, 8), (16, 16, 16), (3, 16, 16), (1, 32, 16), (3, 3, 0), (1, 4, 0)],
)
def test_spread(channels, lanes, expected):
    assert groups.spread(channels, lanes) == expected


def test_places():
    """What is read and written where it is: vectors must be whole, overlap, or end in lanes of a block."""
    last, planes, blocks = Strides(90, (9,), 1, 16), Strides(90, (1,), 9, 144), Strides(90, (16,), 1, 160)
    places = {
        (32, last): (0, (1, 1)), (24, last): (1, (1, 1)), (8, last): (0, (0, 0)), (24, planes): (0, (0, 0)),
        (24, blocks): (0, (1, 1)), (8, blocks): (0, (1, 1)),
    }  # fmt: skip
    for (count, strides), expected in places.items():
        assert groups._places(count, (1, 1), 1, (strides, strides)) == expected
    assert groups._places(24, (1, 1), 1, (planes, last)) == (0, (0, 0))
    assert groups._places(2, (3, 16), 16, (last, last)) == (0, (1, 1))
    assert groups._places(2, (3, 16), 16, (blocks, last)) == (0, (0, 1))
    assert groups._places(6, (2, 3), 0, (last, last)) == (1, (0, 1))


def test_gain():
    """The narrower a group, the more of the other kernels' lanes are idle."""

    def problem(count, channels, filters):
        return Problem(1, count, count * channels, count * filters, (8, 8), (8, 8), (3, 3), (1, 1), (1, 1), (1, 1))

    gains = [groups.rows_gain(problem(4, channels, channels), False) for channels in (1, 2, 4, 8, 16, 32)]
    assert gains == sorted(gains, reverse=True) and gains[-1] > 1
    assert groups.gradient_gain(problem(4, 32, 32)) == 0 == groups.rows_gain(problem(1, 8, 8), False)
    assert groups.rows_gain(problem(4, 1, 65), False) == 0 == groups.rows_gain(problem(4, 65, 1), True)
