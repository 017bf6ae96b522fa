"""A result depends on what its definition reaches, and on nothing else: told by NaN, which every product passes on."""

import mmap

import numpy as np
import pytest
from amx_emulated import needs_compiler
from awkward import _mprotect, needs_mprotect
from cases import LAYOUTS, PASSES, SKIPS, Case, call, in_layout, operands, oracle, sparse_ints, to_layout
from comparisons import assert_exact

import sparseconv
from sparseconv import masks, reference
from sparseconv._core import _cpu, amx, choice, geometry, lines
from sparseconv._core.problem import Problem

CASES = (
    # columns and rows that no window reaches: behind the last window, and between windows
    Case(16, 17, (8, 9), (2, 2), stride=2),
    Case(33, 16, (7, 12), (1, 1), stride=(3, 5), kind=1),
    Case(20, 33, (9, 23), (2, 3), stride=(4, 7), padding=((1, 0), (2, 0)), kind=2),
    Case(40, 17, (11, 17), (3, 2), stride=(5, 3), dilation=(2, 3), kind=1),
    Case(34, 36, (8, 9), (2, 2), stride=(3, 5), groups=2),
    Case(17, 16, (70,), (3,), stride=23, kind=1),
    # narrow groups
    Case(33, 33, (9, 14), (2, 3), stride=(4, 5), padding=1, groups=33, kind=1),
    Case(20, 40, (8, 13), (3, 2), stride=(2, 4), padding=((0, 1), (2, 0)), groups=20),
    Case(24, 24, (7, 9), (3, 3), padding=2, groups=6, kind=2),
    Case(17, 24, (59,), (2,), stride=19, dilation=5, padding=((4, 0),)),
    Case(16, 33, (200,), (4,), stride=3, padding=1, batch=3),
    Case(6, 17, (5, 4, 7), (2, 1, 2), stride=(3, 3, 2), batch=1),
    # taps that meet nothing, or padding at one end only
    Case(16, 17, (3, 5), (3, 3), padding=2, kind=1),
    Case(17, 33, (5, 7), (3, 3), padding=1),
    Case(33, 16, (3, 4), (5, 6), padding=((3, 4), (4, 2)), kind=2),
    Case(24, 16, (4, 6), (3, 3), dilation=3, padding=3),
    Case(16, 17, (1, 1), (3, 3), padding=1, batch=5),
    Case(17, 16, (5, 5), (5, 5), batch=3, kind=1),
    Case(3, 20, (6, 7), (6, 7)),
    Case(16, 24, (13,), (3,), dilation=11, padding=11, kind=1),
    Case(17, 16, (40, 1), (3, 3), padding=1),
    # transposed: outputs that nothing reaches, inputs that meet an edge
    Case(17, 16, (4, 5), (2, 2), stride=3, output_padding=(2, 1), transposed=True, kind=1),
    Case(16, 33, (5, 7), (3, 3), stride=2, padding=((2, 2), (3, 2)), transposed=True),
    Case(24, 17, (6,), (3,), stride=17, transposed=True),
)


def products(case, name):
    """How many products each element of a result is the sum of."""
    first, second = operands(case, name, 0.0)
    layout = LAYOUTS[case.ndim][0]
    return call(reference, case, name, np.ones_like(first), np.ones_like(second), layout=layout, skip="none")


def reached(case, name):
    """Of both operands of a pass: which elements any product has."""
    x, grad_output, weight = (products(case, other) > 0 for other in ("backward_data", "forward", "backward_weight"))
    return {"forward": (x, weight), "backward_data": (grad_output, weight), "backward_weight": (x, grad_output)}[name]


def ways(case, name):
    """Every way to compute a pass: what to skip, and the masks that go with it."""
    for skip in SKIPS[name]:
        yield {"skip": skip}
    if name == "backward_data":
        yield {"skip": "output", "output_mask": np.ones(oracle(case, name, *operands(case, name, 0.0)).shape, bool)}


def test_cases_have_what_no_product_reaches():
    """Each operand of each pass has elements that are out of reach."""
    for name in PASSES:
        found = np.sum([[(~one).any() for one in reached(case, name)] for case in CASES], axis=0)
        assert (found >= 2).all()


@pytest.mark.parametrize("poison", [np.nan, np.inf], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("name", PASSES)
def test_what_is_out_of_reach_does_not_matter(isa, case, name, poison):
    for sparsity in (0.0, 0.5, 0.95):
        arrays = operands(case, name, sparsity)
        expected = oracle(case, name, *arrays)
        there = reached(case, name)
        poisoned = [np.where(one, array, np.float32(poison)) for array, one in zip(arrays, there, strict=True)]
        given = in_layout(case, name, *poisoned)
        for words in ways(case, name):
            if words["skip"] == "weight" and not np.isfinite(poisoned[1]).all():
                words["skip"] = "auto"
            assert_exact(call(sparseconv, case, name, *given, **words), expected, f"{sparsity=} {words}")


@needs_compiler
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("name", PASSES)
def test_on_tile_registers(built, case, name):
    """Of what is out of reach, and of one NaN in the middle."""
    with built.active():
        arrays = [np.where(array == 0, np.float32(1), array) for array in operands(case, name, 0.0)]
        expected = oracle(case, name, *arrays)
        there = reached(case, name)
        poisoned = [np.where(one, array, np.float32(np.nan)) for array, one in zip(arrays, there, strict=True)]
        given = in_layout(case, name, *poisoned)
        assert_exact(call(sparseconv, case, name, *given, skip="none"), expected)
        for which in (0, 1):
            poisoned = [array.copy() for array in arrays]
            poisoned[which][tuple(size // 2 for size in arrays[which].shape)] = np.nan
            expected = oracle(case, name, *poisoned)
            given = in_layout(case, name, *poisoned)
            assert_exact(call(sparseconv, case, name, *given, skip="none"), expected, str(which))


def places(shape):
    """Corners, edges and the middle of an array."""
    ends = [sorted({0, size // 2, size - 1}) for size in shape[2:]]
    for index in np.stack(np.meshgrid(*ends, indexing="ij"), -1).reshape(-1, len(ends)):
        yield (shape[0] - 1, shape[1] // 2, *map(int, index))


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("name", PASSES)
def test_nan_reaches_just_what_its_products_reach(isa, case, name, which):
    """Zeros are left out of both operands, since a skipped zero takes NaN away."""
    arrays = [np.where(array == 0, np.float32(1), array) for array in operands(case, name, 0.0)]
    for place in places(arrays[which].shape):
        poisoned = [array.copy() for array in arrays]
        poisoned[which][place] = np.nan
        expected = oracle(case, name, *poisoned)
        given = in_layout(case, name, *poisoned)
        for words in ways(case, name):
            assert_exact(call(sparseconv, case, name, *given, **words), expected, f"{place} {words}")


@pytest.mark.parametrize("name", ["input", "grad_output"])
@pytest.mark.parametrize("case", [one for one in CASES if not one.transposed], ids=str)
def test_masks_of_what_counts(isa, case, name):
    """With words from a mask instead of a test for zeros; the mask holds what is out of reach, too."""
    x, grad_output = operands(case, "backward_weight", 0.5)
    expected = oracle(case, "backward_weight", x, grad_output)
    x_there, grad_there = reached(case, "backward_weight")
    arrays = np.where(x_there, x, np.float32(np.nan)), np.where(grad_there, grad_output, np.float32(np.nan))
    mask = to_layout(arrays[name == "grad_output"], case.layout)
    given = in_layout(case, "backward_weight", *arrays)
    for kind in (mask, mask != 0, masks.nonzero_mask(mask)):
        words = {f"{name}_mask": kind, "skip": name}
        assert_exact(call(sparseconv, case, "backward_weight", *given, **words), expected, str(kind.dtype))


@pytest.mark.parametrize("case", [one for one in CASES if not one.transposed], ids=str)
def test_only_needed_pairs_are_summed_again(isa, case):
    """NaN that meets padding, with a mask of the result: its zeros stay zeros."""
    x, grad_output = (np.where(one == 0, np.float32(1), one) for one in operands(case, "backward_weight", 0.0))
    x[-1, 0, ..., -1] = x[0, -1, ..., 0] = np.nan
    expected = oracle(case, "backward_weight", x, grad_output)
    mask = sparse_ints(expected.shape, 0.6, 5) != 0
    given = in_layout(case, "backward_weight", x, grad_output)
    for skip in SKIPS["backward_weight"]:
        actual = call(sparseconv, case, "backward_weight", *given, skip=skip, output_mask=mask)
        assert_exact(actual, np.where(mask, expected, np.float32(0)), skip)


# --- nothing is done for what is out of reach ---


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("stride, dilation", [(40_000, 1), (1, 40_000), (4_001, 4_000), (7, 40_000), (40_000, 7)])
def test_tables_are_as_long_as_the_kernel(stride, dilation, backward):
    """Not as stride or dilation, whose square first calls once took."""
    kernel = 5
    size = 3 * stride + kernel * dilation
    outputs = (size - (kernel - 1) * dilation - 1) // stride + 1
    problem = Problem(1, 1, 1, 1, (size,), (outputs,), (kernel,), (stride,), (0,), (dilation,))
    strands = geometry.strands(problem, -1, backward)
    assert len(strands) <= geometry.MANY_PIECES * kernel
    assert len(geometry._gaps(strands, (problem.in_size if backward else problem.out_size)[-1])) <= len(strands) + 1
    made = lines.lines(problem, backward, 4)
    assert made.columns.size == made.column_places.size <= 4 * kernel * made.phases


def test_scratch_memory_follows_what_is_reached(isa):
    """Of a row of 2**31 columns, of which a thousandth is reached; no such array is needed to plan the call."""
    row = np.broadcast_to(np.zeros((1, 1, 2), np.float32), (1, 2**31, 2))
    weight = np.ones((8, 2, 3), np.float32)
    for skip in ("none", "input", "weight"):
        plan = sparseconv.plan("conv1d", row, weight, stride=2**12, layout="NWC", skip=skip)
        assert plan.scratch_bytes < 2**20, skip
    grad_output = np.broadcast_to(np.zeros((1, 1, 8), np.float32), (1, 2**19, 8))
    for skip in ("none", "input", "grad_output"):
        plan = sparseconv.plan(
            "conv1d_backward_weight", row, grad_output, 3, stride=2**12, layout="NWC", skip=skip
        )
        assert plan.scratch_bytes < 2**20, skip


@needs_mprotect
@pytest.mark.parametrize("layout", ["NWC", "NCW"])
@pytest.mark.parametrize("skip", sorted({*SKIPS["forward"], *SKIPS["backward_weight"]} - {"auto"}))
@pytest.mark.parametrize("name", ["forward", "backward_weight"])
def test_what_lies_between_windows_is_not_read(isa, name, skip, layout, monkeypatch):
    """It is in pages that trap every access. Only densities are sampled anywhere."""
    if skip not in SKIPS[name]:
        return
    monkeypatch.setattr(choice._masks, "cheapest", lambda skip, *arguments: ({skip: 0.5}, skip, 1.0))
    page, stride = mmap.PAGESIZE, 4 * mmap.PAGESIZE // 4
    windows, channels, kernel = 5, 16, 3
    x = sparse_ints((1, channels, windows * stride), 0.5, 1)
    weight, grad_output = sparse_ints((8, channels, kernel), 0.5, 2), sparse_ints((1, 8, windows), 0.5, 3)
    if name == "forward":
        expected = reference.conv1d(x, weight, stride=stride)
    else:
        expected = reference.conv1d_backward_weight(x, grad_output, kernel, stride=stride)
    if layout == "NWC":
        x = np.ascontiguousarray(x.transpose(0, 2, 1))
    memory = mmap.mmap(-1, x.nbytes)
    array = np.frombuffer(memory, np.float32).reshape(x.shape)
    array[...] = x
    address, row = array.ctypes.data, 4 * stride * (channels if layout == "NWC" else 1)
    for start in range(0, x.nbytes, row):
        _mprotect(address + start + page, row - page, 0)
    try:
        if name == "forward":
            actual = sparseconv.conv1d(array, weight, stride=stride, layout=layout, skip=skip)
        else:
            gradient = np.ascontiguousarray(grad_output.transpose(0, 2, 1)) if layout == "NWC" else grad_output
            actual = sparseconv.conv1d_backward_weight(array, gradient, kernel, stride=stride, layout=layout, skip=skip)
        if layout == "NWC" and name == "forward":
            actual = actual.transpose(0, 2, 1)
        np.testing.assert_array_equal(actual, expected)
    finally:
        _mprotect(address, x.nbytes, mmap.PROT_READ | mmap.PROT_WRITE)


def test_padding_costs_tile_registers_what_it_costs_them(monkeypatch):
    """A kernel as large as its map: of 49 x 49 products that tiles of long rows multiply, 49 count: vectors are faster.

    Tiles of 16 images, on small maps and with fp16 parts on all, leave out taps that meet padding.
    """
    monkeypatch.setattr(_cpu, "has_fp16_tiles", lambda: False)
    usual = Problem(16, 1, 512, 512, (14, 14), (14, 14), (3, 3), (1, 1), (1, 1), (1, 1))
    whole = Problem(16, 1, 512, 512, (7, 7), (1, 1), (7, 7), (1, 1), (0, 0), (1, 1))
    assert whole.pairs(0) == 7
    assert whole.met_macs == 16 * 512 * 512 * 49
    assert amx.rows_gain(usual, True, "highest") > 1.2
    assert amx.rows_gain(whole, True, "highest") > 1.2
    wide = Problem(16, 1, 512, 512, (28, 28), (1, 1), (28, 28), (1, 1), (0, 0), (1, 1))
    assert wide.pairs(0) == 28
    assert amx.rows_gain(wide, True, "highest") < 0.1
    monkeypatch.setattr(_cpu, "has_fp16_tiles", lambda: True)
    assert amx.rows_gain(wide, True, "highest") > 1.2
    assert amx.gradient_gain(whole, "highest") > 0
    few = Problem(16, 1, 512, 25088, (1,), (1,), (1,), (1,), (0,), (1,))
    assert amx.rows_gain(few, False, "highest") < 1, "weights are split for 16 positions"


def test_a_window_of_padding_alone_is_nothing_to_sum(isa):
    x, weight = np.ones((1, 2, 1), np.float32), np.ones((3, 2, 1), np.float32)
    bias = np.float32([1, 2, 3])
    y = sparseconv.conv1d(x, weight, bias, stride=3, padding=((1, 0),))
    np.testing.assert_array_equal(y, bias.reshape(1, 3, 1))
    assert sparseconv.plan("conv1d", x, weight, stride=3, padding=((1, 0),)).kernel == "none"
