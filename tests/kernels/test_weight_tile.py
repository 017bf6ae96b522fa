"""Weights in any order of memory: packed into tiles, and gradients written into them, exactly and within bounds."""

from itertools import permutations

import numpy as np
import pytest
from awkward import guarded, needs_mprotect
from cases import SKIPS, Case, call, prepared, sparse_ints
from comparisons import assert_exact

import sparseconv

PLAIN = Case(35, 21, (6, 7), (3, 2), padding=1)
GROUPS = Case(38, 34, (6, 5), (2, 3), groups=2, stride=(1, 2))
MANY = Case(150, 70, (4, 5), (3, 3), padding=1)
NARROW = Case(24, 36, (5, 4), (3, 3), groups=12, padding=1)
DEPTHWISE = Case(20, 20, (5, 4), (3, 2), groups=20)
FLAT = Case(70, 50, (5, 4), (1, 1))
DEEP = Case(20, 18, (4, 5, 6), (2, 3, 2))
ORDERS = [(case, order) for case in (PLAIN, GROUPS, NARROW, DEPTHWISE) for order in permutations(range(4))]
ORDERS += [(case, order) for case in (MANY, FLAT) for order in ((0, 2, 3, 1), (1, 2, 3, 0), (2, 3, 1, 0), (1, 0, 2, 3))]
ORDERS += [(DEEP, order) for order in ((0, 2, 3, 4, 1), (1, 3, 2, 4, 0), (0, 3, 1, 4, 2), (4, 3, 2, 1, 0))]
NAMES = ("forward", "backward_data", "backward_weight")


def in_order(array, order):
    """The array in guarded memory that has its axes in another order, the last one of `order` innermost."""
    memory = guarded(np.ascontiguousarray(array.transpose(order)), writable=True)
    return memory.transpose(np.argsort(order))


def check(case, name, change):
    """`change` makes an array of the same values in other memory."""
    first, second, expected = prepared(case, name, 0.5)
    for skip in SKIPS[name]:
        if name == "backward_weight":
            out = change(np.full(expected.shape, np.nan, np.float32))
            call(sparseconv, case, name, first, second, skip=skip, out=out)
            assert_exact(out, expected, f"skip={skip!r}")
        else:
            assert_exact(call(sparseconv, case, name, first, change(second), skip=skip), expected, f"skip={skip!r}")


@needs_mprotect
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case, order", ORDERS)
def test_orders(isa, case, order, name):
    check(case, name, lambda array: in_order(array, order))


@pytest.mark.parametrize("name", NAMES[:2])  # results have no negative strides
@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (3,), (2, 3), (0, 1, 2, 3)])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1), (2, 3, 1, 0)])
def test_negative_strides(isa, order, axes, name):
    def change(array):
        turned = in_order(np.flip(array, axes), order)
        return np.flip(turned, axes)

    for case in (PLAIN, GROUPS, NARROW):
        check(case, name, change)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1), (1, 3, 0, 2)])
def test_slices(isa, order, name):
    """Every other element, and room behind the last one of each axis; what is between is not touched."""
    made = []

    def change(array):
        room = np.full([2 * size + 1 for size in array.shape], -7777, np.float32)
        place = in_order(room, order)
        part = place[tuple(slice(0, 2 * size, 2) for size in array.shape)]
        part[...] = array
        made.append((place, part))
        return part

    for case in (PLAIN, GROUPS, NARROW):
        check(case, name, change)
    for place, part in made:
        part[...] = -7777
        assert (place == -7777).all()


@pytest.mark.parametrize("order", [(0, 2, 3, 1), (1, 2, 3, 0), (2, 0, 3, 1)])
def test_needed_outputs(isa, order):
    case = PLAIN
    grads, weight, expected = prepared(case, "backward_data", 0.0)
    needed = sparse_ints(expected.shape, 0.7, 1) != 0
    got = call(sparseconv, case, "backward_data", grads, in_order(weight, order), skip="output", output_mask=needed)
    assert_exact(got, np.where(needed, expected, 0))


@pytest.mark.parametrize("order", [(0, 2, 3, 1), (1, 2, 3, 0), (2, 0, 3, 1)])
def test_packed(isa, order):
    for case in (PLAIN, GROUPS, NARROW):
        x, weight, expected = prepared(case, "forward", 0.5)
        packed = sparseconv.pack_weight(in_order(np.ones_like(weight), order), groups=case.groups)
        packed.update(in_order(weight, order))
        assert_exact(call(sparseconv, case, "forward", x, packed, skip="weight"), expected)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_linear(isa, order):
    x, weight = sparse_ints((5, 70), 0.5, 0), sparse_ints((53, 70), 0.5, 1)
    assert_exact(sparseconv.linear(x, in_order(weight, order)), x @ weight.T)
