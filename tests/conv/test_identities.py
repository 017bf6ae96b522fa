"""Relations that hold between the functions, whatever an oracle says; exact on integers."""

import numpy as np
import pytest
from cases import (
    FEW_CASES,
    PASSES,
    SKIPS,
    TRANSPOSED_CASES,
    assert_not_vacuous,
    call,
    cases,
    in_layout,
    operands,
    sparse_ints,
    to_layout,
)
from comparisons import assert_exact
from hypothesis import given
from hypothesis import strategies as st

import sparseconv


def inner(first, second):
    return np.vdot(first.astype(np.float64), second.astype(np.float64))


def check_adjoint(case, seed=0, skip="auto"):
    """<y, g> = <x, backward_data(g, w)> = <w, backward_weight(x, g)>."""
    x, weight = operands(case, "forward", 0.4, seed)
    grad_output = operands(case, "backward_data", 0.4, seed)[0]
    first, grads = to_layout(x, case.layout), to_layout(grad_output, case.layout)
    words = {name: "none" if skip == "none" else SKIPS[name][-1] if skip == "sparse" else "auto" for name in PASSES}
    y = call(sparseconv, case, "forward", first, weight, skip=words["forward"])
    grad_x = call(sparseconv, case, "backward_data", grads, weight, skip=words["backward_data"])
    grad_weight = call(sparseconv, case, "backward_weight", first, grads, skip=words["backward_weight"])
    value = inner(y, grads)
    assert value == inner(first, grad_x)
    assert value == inner(weight, grad_weight)


@pytest.mark.parametrize("skip", ["auto", "none", "sparse"])
@pytest.mark.parametrize("case", [*FEW_CASES, *TRANSPOSED_CASES[::3]], ids=str)
def test_adjoint(isa, case, skip):
    check_adjoint(case, skip=skip)


@given(case=st.one_of(cases(), cases(transposed=True)), seed=st.integers(0, 99))
def test_adjoint_of_any_geometry(isa, case, seed):
    check_adjoint(case, seed)


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_linearity(isa, case, name):
    """f(a + b, w) = f(a, w) + f(b, w), and the same in the second operand."""
    first, second = operands(case, name, 0.5, seed=1)
    first_more, second_more = operands(case, name, 0.5, seed=2)

    def run(one, two):
        return call(sparseconv, case, name, *in_layout(case, name, one, two))

    both = run(first + first_more, second)
    assert_not_vacuous(both, np.count_nonzero(run(np.ones_like(first), np.ones_like(second))))
    assert_exact(both, run(first, second) + run(first_more, second))
    assert_exact(run(first, second + second_more), run(first, second) + run(first, second_more))
    assert_exact(run(-2 * first, second), -2 * run(first, second))


@pytest.mark.parametrize("skip", SKIPS["forward"])
@pytest.mark.parametrize("rows, columns", [(1, 0), (0, 1), (3, 17)])
def test_shift(isa, skip, rows, columns):
    """Without padding, shifting the input shifts the output."""
    x, weight = sparse_ints((2, 17, 9, 35), 0.5, 1), sparse_ints((18, 17, 3, 2), 0.1, 2)
    whole = sparseconv.conv2d(x, weight, skip=skip)
    part = sparseconv.conv2d(x[:, :, rows:, columns:], weight, skip=skip)
    assert_not_vacuous(part)
    assert_exact(part, np.ascontiguousarray(whole[:, :, rows:, columns:]))


def test_stride_samples_the_dense_result(isa):
    x, weight = sparse_ints((2, 17, 11, 35), 0.5, 1), sparse_ints((18, 17, 3, 3), 0.1, 2)
    whole = sparseconv.conv2d(x, weight, padding=1)
    for stride in ((2, 1), (3, 3), (1, 5)):
        part = sparseconv.conv2d(x, weight, padding=1, stride=stride)
        assert_exact(part, np.ascontiguousarray(whole[:, :, :: stride[0], :: stride[1]]))


def test_padding_is_the_same_as_zeros(isa):
    x, weight = sparse_ints((2, 17, 5, 14), 0.5, 1), sparse_ints((18, 17, 3, 3), 0.1, 2)
    padded = np.pad(x, ((0, 0), (0, 0), (2, 1), (0, 3)))
    assert_exact(sparseconv.conv2d(x, weight, padding=((2, 1), (0, 3))), sparseconv.conv2d(padded, weight))


def test_dilation_is_the_same_as_zeros_between_weights(isa):
    x, weight = sparse_ints((2, 17, 9, 14), 0.5, 1), sparse_ints((18, 17, 3, 2), 0.1, 2)
    spread = np.zeros((18, 17, 5, 4), np.float32)
    spread[:, :, ::2, ::3] = weight
    assert_exact(sparseconv.conv2d(x, weight, dilation=(2, 3)), sparseconv.conv2d(x, spread))


def test_groups_are_separate_convolutions(isa):
    x, weight = sparse_ints((2, 51, 5, 14), 0.5, 1), sparse_ints((48, 17, 3, 3), 0.1, 2)
    parts = [sparseconv.conv2d(x[:, 17 * g : 17 * g + 17], weight[16 * g : 16 * g + 16]) for g in range(3)]
    assert_exact(sparseconv.conv2d(x, weight, groups=3), np.concatenate(parts, axis=1))


def test_ranks_agree(isa):
    """A convolution of lower rank is one of higher rank with sizes of 1."""
    x, weight = sparse_ints((2, 17, 35), 0.5, 1), sparse_ints((18, 17, 3), 0.1, 2)
    one = sparseconv.conv1d(x, weight, stride=2, padding=1)
    two = sparseconv.conv2d(x[:, :, None], weight[:, :, None], stride=(1, 2), padding=(0, 1))
    three = sparseconv.conv3d(x[:, :, None, None], weight[:, :, None, None], stride=(1, 1, 2), padding=(0, 0, 1))
    assert_exact(two[:, :, 0], one)
    assert_exact(three[:, :, 0, 0], one)


def test_linear_is_a_convolution_of_one_pixel(isa):
    x, weight, bias = sparse_ints((9, 40), 0.5, 1), sparse_ints((33, 40), 0.1, 2), sparse_ints((33,), 0, 3)
    y = sparseconv.conv2d(x[:, :, None, None], weight[:, :, None, None], bias, activation="relu")
    assert_exact(sparseconv.linear(x, weight, bias, activation="relu"), y[:, :, 0, 0])


def test_transposed_convolution_is_backward_data(isa):
    grad_output, weight = sparse_ints((2, 17, 4, 7), 0.5, 1), sparse_ints((17, 18, 3, 3), 0.1, 2)
    y = sparseconv.conv_transpose2d(grad_output, weight, stride=2, padding=1, output_padding=(1, 0))
    expected = sparseconv.conv2d_backward_data(grad_output, weight, y.shape, stride=2, padding=1)
    assert_exact(y, expected)
