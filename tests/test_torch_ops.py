"""`sparseconv.torch`: results and gradients, exactly, for every geometry and memory format; arguments."""

import numpy as np
import pytest
from helpers import (
    CASES,
    FEW_CASES,
    LAYOUTS,
    TRANSPOSED_CASES,
    Case,
    assert_exact,
    assert_not_vacuous,
    call,
    operands,
    sparse_ints,
)

from sparseconv import pack_weight, reference

torch = pytest.importorskip("torch")
sct = pytest.importorskip("sparseconv.torch")
functional = torch.nn.functional

ALL_CASES = tuple(case for case in CASES + TRANSPOSED_CASES if case.kind < 2)


def function_of(case, module=sct):
    return getattr(module, f"conv_transpose{case.ndim}d" if case.transposed else f"conv{case.ndim}d")


def options_of(case):
    return case.options | ({"output_padding": case.output_padding} if case.transposed else {})


def in_format(array, case):
    """A tensor (N, C, *spatial) whose memory is that of the case's layout."""
    tensor = torch.from_numpy(array)
    if case.kind == 0:
        return tensor
    return tensor.movedim(1, -1).contiguous().movedim(-1, 1)


def leaves(*tensors):
    return [tensor.detach().clone(memory_format=torch.preserve_format).requires_grad_() for tensor in tensors]


def expected_of(case, x, weight, bias, grad_output, activation):
    """Result and gradients from the oracle; all channels first."""
    first = LAYOUTS[case.ndim][0]
    y = call(reference, case, "forward", x, weight, layout=first, bias=bias, activation=activation)
    if activation == "relu":
        grad_output = np.where(y > 0, grad_output, 0).astype(np.float32)
    grad_x = call(reference, case, "backward_data", grad_output, weight, layout=first)
    grad_weight = call(reference, case, "backward_weight", x, grad_output, layout=first)
    axes = tuple(axis for axis in range(grad_output.ndim) if axis != 1)
    return y, grad_x, grad_weight, grad_output.sum(axis=axes)


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("case", ALL_CASES, ids=str)
def test_result_and_gradients(case, activation):
    if case.padding == "same" and case.stride != 1:
        with pytest.raises(ValueError, match=r"^padding: got 'same' with stride"):
            function_of(case)(torch.zeros(case.x_shape), torch.zeros(case.weight_shape), **options_of(case))
        return
    x, weight = operands(case, "forward", 0.5)
    grad_output, _ = operands(case, "backward_data", 0.5)
    bias = sparse_ints((case.out_c,), 0.2, 7)
    arrays = expected_of(case, x, weight, bias, grad_output, activation)
    tensors = leaves(in_format(x, case), torch.from_numpy(weight), torch.from_numpy(bias))
    y = function_of(case)(*tensors, **options_of(case), activation=activation)
    y.backward(in_format(grad_output, case))
    for actual, expected in zip((y.detach(), *(one.grad for one in tensors)), arrays, strict=True):
        assert_exact(actual.numpy(), expected)
    if case.batch and activation is None:
        assert_not_vacuous(arrays[0])


@pytest.mark.parametrize("skip", ["auto", "none", "input", "weight"])
@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_every_skip(case, skip, isa):
    x, weight = operands(case, "forward", 0.6)
    grad_output, _ = operands(case, "backward_data", 0.6)
    bias = sparse_ints((case.out_c,), 0.2, 7)
    expected = expected_of(case, x, weight, bias, grad_output, "relu")
    tensors = leaves(in_format(x, case), torch.from_numpy(weight), torch.from_numpy(bias))
    y = function_of(case)(*tensors, **options_of(case), activation="relu", skip=skip)
    y.backward(in_format(grad_output, case))
    for actual, one in zip((y.detach(), *(one.grad for one in tensors)), expected, strict=True):
        assert_exact(actual.numpy(), one)


@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 4, 3), (0, 3)])
def test_linear(shape):
    tensors = leaves(*(torch.from_numpy(sparse_ints(one, 0.4, 3)) for one in (shape, (7, 3), (7,))))
    others = leaves(*tensors)
    y = sct.linear(*tensors, activation="relu")
    expected = functional.linear(*others).relu()
    assert torch.equal(y, expected) and y.stride() == expected.stride()
    y.backward(torch.ones_like(y))
    expected.backward(torch.ones_like(y))
    for one, other in zip(tensors, others, strict=True):
        assert torch.equal(one.grad, other.grad)


@pytest.mark.parametrize("case", FEW_CASES + TRANSPOSED_CASES[:3], ids=str)
def test_without_a_batch_dimension(case):
    x, weight = operands(case, "forward", 0.5)
    if case.kind == 2:
        return
    function, options = function_of(case), options_of(case)
    tensor = in_format(x, case)
    single = function(tensor[0], torch.from_numpy(weight), **options)
    assert torch.equal(single, function(tensor, torch.from_numpy(weight), **options)[0])


@pytest.mark.parametrize("needed", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 1), (1, 1, 0)])
def test_only_what_is_needed(needed, monkeypatch):
    """Gradients that nobody asked for are not computed."""
    calls = []
    for kind in ("backward_data", "backward_weight"):
        operator = getattr(sct.ops.convolution, kind)

        def recorded(*args, overload=operator.overload, kind=kind):
            calls.append(kind)
            return overload(*args)

        monkeypatch.setattr(operator, "overload", recorded)
    case = Case(16, 17, (5, 6), (3, 3), padding=1)
    tensors = [torch.from_numpy(sparse_ints(shape, 0.3, 5)) for shape in (case.x_shape, case.weight_shape, (17,))]
    for tensor, one in zip(tensors, needed, strict=True):
        tensor.requires_grad_(bool(one))
    sct.conv2d(*tensors, padding=1).sum().backward()
    assert calls == [kind for kind, one in zip(("backward_data", "backward_weight"), needed, strict=False) if one]
    assert [tensor.grad is not None for tensor in tensors] == [bool(one) for one in needed]


def test_packed_weight():
    x, weight = torch.from_numpy(sparse_ints((2, 16, 5, 6), 0.3, 1)), sparse_ints((17, 16, 3, 3), 0.8, 2)
    packed = pack_weight(weight)
    bias = torch.from_numpy(sparse_ints((17,), 0.3, 1))
    for skip in ("auto", "weight"):
        y = sct.conv2d(x, packed, bias, padding=1, skip=skip)
        assert torch.equal(y, functional.conv2d(x, torch.from_numpy(weight), bias, padding=1))
    transposed = sct.conv_transpose2d(x, pack_weight(weight[:16]), stride=2, output_padding=1)
    expected = functional.conv_transpose2d(x, torch.from_numpy(weight[:16]), stride=2, output_padding=1)
    assert torch.equal(transposed, expected)
    flat = pack_weight(sparse_ints((4, 6), 0.5, 1))
    assert torch.equal(sct.linear(x, flat), functional.linear(x, torch.from_numpy(flat.to_dense())))
    with pytest.raises(TypeError, match=r"^weight: got a PackedWeight while input requires grad"):
        sct.conv2d(x.requires_grad_(), packed)
    with torch.no_grad():
        assert sct.conv2d(x, packed, padding=1, activation="relu").min() == 0
