"""The oracle against the definition, written as plain loops, and against PyTorch."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from cases import (
    FEW_CASES,
    GEOMETRIES,
    LAYOUTS,
    PASSES,
    TRANSPOSED,
    Case,
    call,
    operands,
    prepared,
    sparse_ints,
    to_layout,
)

from sparseconv import reference

SMALL = (
    Case(2, 3, (4, 5), (3, 2)),
    Case(2, 3, (5, 6), (3, 3), stride=2, padding=1),
    Case(1, 2, (5, 6), (2, 3), stride=(3, 1), dilation=(1, 2), padding=(2, 1)),
    Case(4, 6, (5, 4), (3, 3), groups=2, padding=((0, 2), (3, 1))),
    Case(3, 6, (4, 6), (3, 3), groups=3, stride=2, padding="same"),
    Case(2, 2, (5, 5), (2, 2), dilation=2, padding="same"),
    Case(2, 2, (5, 5), (2, 3), padding="valid"),
    Case(2, 3, (3, 2), (1, 1), stride=3, padding=2),
    Case(3, 2, (9,), (3,), stride=2, dilation=2, padding=((1, 3),)),
    Case(2, 4, (7,), (4,), groups=2, padding="same"),
    Case(2, 3, (3, 4, 3), (2, 3, 1), stride=(1, 2, 1), padding=1),
    Case(2, 2, (3, 4, 3), (2, 2, 2), dilation=(1, 2, 1), groups=2, padding="same"),
)


def padding_before(case):
    """The padding at the low side of every dimension, from the definition of each way of saying it."""
    if case.padding == "valid":
        return (0,) * case.ndim
    if case.padding != "same":
        pads = (case.padding,) * case.ndim if isinstance(case.padding, int) else case.padding
        return tuple(pad if isinstance(pad, int) else pad[0] for pad in pads)
    before = []
    for axis in range(case.ndim):
        size, step, dil = case.in_size[axis], per_dim(case, "stride")[axis], per_dim(case, "dilation")[axis]
        outputs = (size + step - 1) // step
        needed = max((outputs - 1) * step + dil * (case.kernel[axis] - 1) + 1 - size, 0)
        before.append(needed // 2)
    return tuple(before)


def per_dim(case, name):
    value = getattr(case, name)
    return (value,) * case.ndim if isinstance(value, int) else value


def plain_loops(case, out_shape, x, weight, grad_output):
    """All three passes of a convolution, one product at a time."""
    y = np.zeros(out_shape)
    grad_x, grad_weight = np.zeros(x.shape), np.zeros(weight.shape)
    stride, dilation, before = per_dim(case, "stride"), per_dim(case, "dilation"), padding_before(case)
    group_in, group_out = case.in_c // case.groups, case.out_c // case.groups
    batches, taps = range(case.batch), list(itertools.product(*map(range, case.kernel)))
    positions = list(itertools.product(*map(range, out_shape[2:])))
    for image, out_channel, channel in itertools.product(batches, range(case.out_c), range(group_in)):
        in_channel = out_channel // group_out * group_in + channel
        for position, tap in itertools.product(positions, taps):
            source = tuple(
                at * step + index * dil - pad
                for at, step, index, dil, pad in zip(position, stride, tap, dilation, before, strict=True)
            )
            if any(not 0 <= at < size for at, size in zip(source, case.in_size, strict=True)):
                continue
            y[image, out_channel, *position] += x[image, in_channel, *source] * weight[out_channel, channel, *tap]
            grad = grad_output[image, out_channel, *position]
            grad_x[image, in_channel, *source] += grad * weight[out_channel, channel, *tap]
            grad_weight[out_channel, channel, *tap] += grad * x[image, in_channel, *source]
    return {"forward": y, "backward_data": grad_x, "backward_weight": grad_weight}


def expected_size(case):
    """Output sizes by the textbook formula."""
    sizes = []
    for axis in range(case.ndim):
        size, step, dil = case.in_size[axis], per_dim(case, "stride")[axis], per_dim(case, "dilation")[axis]
        if case.padding == "same":
            sizes.append((size + step - 1) // step)
            continue
        pad = 0 if case.padding == "valid" else case.padding if isinstance(case.padding, int) else case.padding[axis]
        pads = 2 * pad if isinstance(pad, int) else sum(pad)
        sizes.append((size + pads - dil * (case.kernel[axis] - 1) - 1) // step + 1)
    return tuple(sizes)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_plain_loops(case):
    assert case.out_shape == (case.batch, case.out_c, *expected_size(case))
    x, weight = operands(case, "forward", 0.3)
    grad_output = operands(case, "backward_data", 0.3)[0]
    expected = plain_loops(case, case.out_shape, x, weight, grad_output)
    given = {"forward": (x, weight), "backward_data": (grad_output, weight), "backward_weight": (x, grad_output)}
    for name in PASSES:
        for dtype in (np.float32, np.float64):
            actual = call(reference, case, name, *(array.astype(dtype) for array in given[name]))
            assert actual.dtype == dtype
            np.testing.assert_array_equal(actual, expected[name], err_msg=name)


@pytest.mark.parametrize("case", TRANSPOSED, ids=str)
def test_transposed_is_the_adjoint(case):
    """<conv_transpose(x, w), g> = <x, backward_data(g, w)> = <w, backward_weight(x, g)>, and scattering by hand."""
    x, weight = operands(case, "forward", 0.3)
    grad_output = operands(case, "backward_data", 0.3)[0]
    y = call(reference, case, "forward", x, weight).astype(np.float64)
    value = np.vdot(y, grad_output)
    assert value == np.vdot(x, call(reference, case, "backward_data", grad_output, weight).astype(np.float64))
    assert value == np.vdot(weight, call(reference, case, "backward_weight", x, grad_output).astype(np.float64))


def test_transposed_plain_loops():
    x, weight = sparse_ints((1, 2, 3), 0, 1), sparse_ints((2, 3, 4), 0, 2)
    expected = np.zeros((1, 3, 3 * 2 + 4))
    for channel, out_channel, at, tap in itertools.product(range(2), range(3), range(3), range(4)):
        expected[0, out_channel, at * 2 + tap] += x[0, channel, at] * weight[channel, out_channel, tap]
    full = reference.conv_transpose1d(x, weight, stride=2, output_padding=1)
    np.testing.assert_array_equal(full[0, :, :8], expected[0, :, :8])
    assert full.shape == (1, 3, 9)
    cropped = reference.conv_transpose1d(x, weight, stride=2, padding=((1, 2),))
    np.testing.assert_array_equal(cropped, expected[:, :, 1:6])


@pytest.mark.parametrize("case", [*FEW_CASES, *TRANSPOSED[:4]], ids=str)
@pytest.mark.parametrize("name", PASSES)
def test_layouts(case, name):
    first, second = operands(case, name, 0.3)
    plain = call(reference, case, name, first, second, layout=LAYOUTS[case.ndim][0])
    for layout in LAYOUTS[case.ndim]:
        moved = to_layout(first, layout, pad=np.nan)
        other = to_layout(second, layout, pad=np.nan) if name == "backward_weight" else second
        actual = call(reference, case, name, moved, other, layout=layout)
        expected = plain if name == "backward_weight" else to_layout(plain, layout)
        assert actual.flags.c_contiguous
        np.testing.assert_array_equal(actual, expected, err_msg=layout)
        out = np.full_like(expected, 99)
        assert call(reference, case, name, moved, other, layout=layout, out=out) is out
        np.testing.assert_array_equal(out, expected, err_msg=layout)


@pytest.mark.parametrize("name", PASSES[1:])
def test_out_under_a_mask(name):
    """What is not needed is zero in `out`, too, which is what is returned."""
    for case in FEW_CASES:
        first, second, whole = prepared(case, name, 0.3)
        mask = np.random.default_rng(1).random(whole.shape) < 0.5
        out = np.full_like(whole, 99)
        assert call(reference, case, name, first, second, output_mask=mask, out=out) is out
        np.testing.assert_array_equal(out, whole * mask)
    first, second = sparse_ints((5, 6), 0, 1), sparse_ints((6, 4) if name == "backward_data" else (5, 4), 0, 2)
    function = getattr(reference, f"linear_{name}")
    whole = function(first, second)
    mask, out = np.eye(*whole.shape, dtype=bool), np.full_like(whole, 99)
    assert function(first, second, output_mask=mask, out=out) is out
    np.testing.assert_array_equal(out, whole * mask)


def test_float32_is_rounded_once():
    x = np.array([[[[2.0**24, 1, 1, -(2.0**24)]]]], np.float32).swapaxes(1, 3)
    assert reference.conv2d(x, np.ones((1, 4, 1, 1), np.float32)).item() == 2


def test_bias_and_relu():
    x, weight = sparse_ints((2, 3, 4, 4), 0.3, 1), sparse_ints((5, 3, 3, 3), 0.3, 2)
    bias = np.arange(-2, 3, dtype=np.float32)
    plain = reference.conv2d(x, weight) + bias[:, None, None]
    np.testing.assert_array_equal(reference.conv2d(x, weight, bias), plain)
    np.testing.assert_array_equal(reference.conv2d(x, weight, bias, activation="relu"), np.maximum(plain, 0))
    weight[0, 0, 0, 0] = np.nan
    assert np.isnan(reference.conv2d(x, weight, bias, activation="relu")[:, 0]).all()


def test_linear():
    x, weight = sparse_ints((2, 3, 5), 0.3, 1), sparse_ints((4, 5), 0.3, 2)
    grad_output, bias = sparse_ints((2, 3, 4), 0.3, 3), sparse_ints((4,), 0, 4)
    y = reference.linear(x, weight, bias)
    grad_x = reference.linear_backward_data(grad_output, weight)
    grad_weight = reference.linear_backward_weight(x, grad_output)
    np.testing.assert_array_equal(y, np.einsum("abi,oi->abo", x, weight) + bias)
    np.testing.assert_array_equal(grad_x, np.einsum("abo,oi->abi", grad_output, weight))
    np.testing.assert_array_equal(grad_weight, np.einsum("abi,abo->oi", x, grad_output))
    assert y.dtype == grad_x.dtype == grad_weight.dtype == np.float32
    np.testing.assert_array_equal(reference.linear(x, weight, bias, activation="relu"), np.maximum(y, 0))


def test_grad_bias():
    grads = sparse_ints((3, 32, 4, 5), 0.3, 1)
    expected = grads.sum((0, 2, 3))
    for layout in LAYOUTS[2]:
        np.testing.assert_array_equal(reference.grad_bias(to_layout(grads, layout), layout=layout), expected)
    np.testing.assert_array_equal(reference.grad_bias(grads[:, :, 0, 0], layout="NC"), grads[:, :, 0, 0].sum(0))


def test_empty_batch():
    assert not reference.conv2d_backward_weight(np.zeros((0, 3, 4, 4)), np.zeros((0, 5, 2, 2)), 3).any()
    assert reference.conv2d(np.zeros((0, 3, 4, 4)), np.zeros((5, 3, 3, 3))).shape == (0, 5, 2, 2)
    assert reference.conv2d_backward_data(np.zeros((0, 5, 2, 2)), np.zeros((5, 3, 3, 3)), (0, 3, 4, 4)).size == 0


def test_names_and_signatures():
    """The module offers what it says; the functions of any rank know their names."""
    for name in reference.__all__:
        assert getattr(reference, name).__name__ == name
    assert reference.conv1d.__wrapped__.__kwdefaults__["layout"] == "NCW"
    assert reference.conv3d_backward_weight.__wrapped__.__kwdefaults__["layout"] == "NCDHW"


def test_imports_only_numpy():
    """The oracle must not share code with what it judges."""
    code = (
        "import runpy, sys; import numpy; before = set(sys.modules); "
        "runpy.run_path(sys.argv[1]); print(sorted(set(sys.modules) - before))"
    )
    command = [sys.executable, "-c", code, reference.__file__]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "sparseconv" not in loaded.replace("reference", "")


# --- PyTorch ---

TORCH_CASES = [case for case in GEOMETRIES if case.batch and not isinstance(case.padding, str)][::3]
TORCH_CASES += [case for case in TRANSPOSED if case.batch and np.ndim(case.padding) < 2]  # no pairs of padding


def torch_gradients(torch, case, x, weight, grad_output):
    """Results of the three passes by PyTorch's autograd, in float64; pairs of padding become explicit zeros."""
    functional = torch.nn.functional
    x = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    weight = torch.tensor(weight, dtype=torch.float64, requires_grad=True)
    pads = (case.padding,) * case.ndim if isinstance(case.padding, int) else case.padding
    pads = [(pad, pad) if isinstance(pad, int) else pad for pad in pads]
    options = {"stride": case.stride, "dilation": case.dilation, "groups": case.groups}
    if case.transposed:
        function = getattr(functional, f"conv_transpose{case.ndim}d")
        y = function(x, weight, output_padding=case.output_padding, padding=case.padding, **options)
    else:
        padded = functional.pad(x, [side for pair in reversed(pads) for side in pair])
        y = getattr(functional, f"conv{case.ndim}d")(padded, weight, **options)
    y.backward(torch.tensor(grad_output, dtype=torch.float64))
    results = (y.detach(), x.grad, weight.grad)
    return {name: result.numpy() for name, result in zip(PASSES, results, strict=True)}


@pytest.mark.parametrize("case", TORCH_CASES, ids=str)
def test_torch(case):
    torch = pytest.importorskip("torch")
    x, weight = operands(case, "forward", 0.3)
    grad_output = operands(case, "backward_data", 0.3)[0]
    expected = torch_gradients(torch, case, x, weight, grad_output)
    given = {"forward": (x, weight), "backward_data": (grad_output, weight), "backward_weight": (x, grad_output)}
    for name in PASSES:
        np.testing.assert_array_equal(call(reference, case, name, *given[name]), expected[name], err_msg=name)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("kernel, dilation", [(3, 1), (4, 1), (2, 3), (5, 2)])
def test_torch_same(kernel, dilation):
    torch = pytest.importorskip("torch")
    x, weight = sparse_ints((2, 3, 9), 0.3, 1), sparse_ints((4, 3, kernel), 0.1, 2)
    expected = torch.nn.functional.conv1d(torch.tensor(x), torch.tensor(weight), padding="same", dilation=dilation)
    np.testing.assert_array_equal(reference.conv1d(x, weight, padding="same", dilation=dilation), expected.numpy())
