"""`sparseconv.torch`: results and gradients, exactly, for every geometry and memory format; arguments."""

import copy
import subprocess
import sys
import threading

import numpy as np
import pytest
from cases import CASES, FEW_CASES, LAYOUTS, TRANSPOSED_CASES, Case, assert_not_vacuous, call, operands, sparse_ints
from comparisons import assert_exact

from sparseconv import pack_weight, reference
from sparseconv._core.gradient import Gradient
from sparseconv._core.rows import Rows

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
        negated = torch.complex(x, -x).conj().imag
        assert negated.is_neg()
        assert torch.equal(sct.conv2d(negated, packed), sct.conv2d(x, packed))


X, WEIGHT, BIAS = torch.zeros(2, 16, 5, 6), torch.zeros(17, 16, 3, 3), torch.zeros(17)
BAD_CALLS = {
    "input: got shape (5, 6), expected 4 dimensions": lambda: sct.conv2d(X[0, 0], WEIGHT),
    "input: got 8 channels": lambda: sct.conv2d(X[:, :8], WEIGHT),
    "weight: got shape (17, 16, 3), expected 4": lambda: sct.conv2d(X, WEIGHT[..., 0]),
    "input: got shape (2, 16, 5, 6), which leaves -1": lambda: sct.conv2d(X, torch.zeros(17, 16, 7, 3)),
    "groups: got 3": lambda: sct.conv2d(torch.zeros(2, 48, 5, 6), WEIGHT, groups=3),
    "stride: got 3 numbers, expected 1 or 2": lambda: sct.conv2d(X, WEIGHT, stride=(1, 1, 1)),
    "stride: got 0, expected at least 1": lambda: sct.conv2d(X, WEIGHT, stride=0),
    "dilation: got 0, expected at least 1": lambda: sct.conv2d(X, WEIGHT, dilation=0),
    "padding: got -1, expected at least 0": lambda: sct.conv2d(X, WEIGHT, padding=-1),
    "padding: got 'all', expected": lambda: sct.conv2d(X, WEIGHT, padding="all"),
    "padding: got 'same', expected numbers": lambda: sct.conv_transpose2d(X, WEIGHT[:16], padding="same"),
    "output_padding: got 1, expected less": lambda: sct.conv_transpose2d(X, WEIGHT[:16], output_padding=1),
    "bias: got shape (3,), expected (17,)": lambda: sct.conv2d(X, WEIGHT, BIAS[:3]),
    "activation: got 'gelu'": lambda: sct.conv2d(X, WEIGHT, activation="gelu"),
    "skip: got 'output'": lambda: sct.conv2d(X, WEIGHT, skip="output"),
    "keep: got 'sparse', expected one of 'dense', 'compressed'": lambda: sct.conv2d(X, WEIGHT, keep="sparse"),
    "threshold: got -1.0": lambda: sct.conv2d(X, WEIGHT, threshold=-1.0),
    "threshold: got 1.0 with skip='none'": lambda: sct.conv2d(X, WEIGHT, threshold=1.0, skip="none"),
    "num_threads: got 0": lambda: sct.conv2d(X, WEIGHT, num_threads=0),
    "input: got shape (2, 16, 5, 6), expected (..., 7)": lambda: sct.linear(X, torch.zeros(3, 7)),
    "weight: got shape (17, 16, 3, 3), expected (features": lambda: sct.linear(X, WEIGHT),
    "stride: got 1.5, expected a whole number": lambda: sct.conv2d(X, WEIGHT, stride=(1.5, 1)),
    "stride: got True": lambda: sct.conv2d(X, WEIGHT, stride=True),
    "input: got dtype torch.float16": lambda: sct.conv2d(X.half(), WEIGHT.half()),
    "input: got dtype torch.bfloat16": lambda: sct.linear(X.bfloat16(), torch.zeros(3, 6)),
    "input: got dtype torch.int64": lambda: sct.conv2d(X.long(), WEIGHT),
    "weight: got dtype torch.float64, expected torch.float32": lambda: sct.conv2d(X, WEIGHT.double()),
    "bias: got dtype torch.float64": lambda: sct.conv2d(X, WEIGHT, BIAS.double()),
    "weight: got a tensor of layout torch.sparse_coo": lambda: sct.linear(X, torch.zeros(3, 6).to_sparse()),
    "input: got a tensor of layout torch._mkldnn": lambda: sct.conv2d(X.to_mkldnn(), WEIGHT),
    "input: got a quantized tensor": lambda: sct.conv2d(torch.quantize_per_tensor(X, 1.0, 0, torch.qint8), WEIGHT),
    "weight: got a tensor on meta, expected cpu": lambda: sct.conv2d(X, WEIGHT.to("meta")),
    "weight: got ndarray, expected a tensor": lambda: sct.conv2d(X, WEIGHT.numpy()),
    "input: got ndarray, expected a tensor": lambda: sct.linear(X.numpy(), WEIGHT),
}


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("message", BAD_CALLS)
def test_bad_calls(message, grad):
    with torch.set_grad_enabled(grad), pytest.raises((TypeError, ValueError)) as caught:
        BAD_CALLS[message]()
    assert str(caught.value).startswith(message)


@pytest.fixture
def threads(monkeypatch):
    """Numbers of threads that the passes get."""
    seen = []
    for kind in (Rows, Gradient):

        def run(self, operands, out, threads, *rest, run=kind.run):
            seen.append(threads)
            return run(self, operands, out, threads, *rest)

        monkeypatch.setattr(kind, "run", run)
    before = torch.get_num_threads()
    yield seen
    torch.set_num_threads(before)


def test_threads(threads):
    """torch.set_num_threads counts, in forward and backward, in other Python threads, too; num_threads counts more."""
    weight = WEIGHT.clone().requires_grad_()

    def step(**words):
        sct.conv2d(X.clone().requires_grad_(), weight, **words).sum().backward()

    for count in (2, 1, 3):
        torch.set_num_threads(count)
        threads.clear()
        step()
        assert threads == [count] * 3
        thread = threading.Thread(target=step)
        thread.start()
        thread.join()
        assert threads == [count] * 6
    threads.clear()
    step(num_threads=2)
    assert threads == [2] * 3


def test_same_bits_for_every_number_of_threads():
    x = torch.randn(4, 32, 20, 20, generator=torch.Generator().manual_seed(0)).relu()
    weight = torch.randn(48, 32, 3, 3, generator=torch.Generator().manual_seed(1))
    results = []
    for count in (1, 2, 5):
        leaves_ = leaves(x, weight)
        y = sct.conv2d(*leaves_, padding=1, activation="relu", num_threads=count)
        y.sum().backward()
        results.append([y.detach(), *(leaf.grad for leaf in leaves_)])
    for others in results[1:]:
        for one, other in zip(results[0], others, strict=True):
            assert torch.equal(one, other)


def test_without_gradients():
    weight = WEIGHT.clone().requires_grad_()
    with torch.no_grad():
        assert sct.conv2d(X, weight).grad_fn is None
    with torch.inference_mode():
        y = sct.conv2d(X, weight, activation="relu")
        assert y.is_inference() and torch.equal(y, functional.conv2d(X, weight))
    assert sct.conv2d(X, WEIGHT).grad_fn is None
    assert sct.conv2d(X, weight).requires_grad
    with torch.inference_mode():
        late = X.clone()
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
        sct.conv2d(late, weight)


def test_subclasses_and_modes():
    """Parameters, deepcopies, default devices and functions' modes."""
    parameter = torch.nn.Parameter(torch.from_numpy(sparse_ints((17, 16, 3, 3), 0.3, 1)))
    x = torch.from_numpy(sparse_ints((2, 16, 5, 6), 0.3, 2))
    expected = functional.conv2d(x, parameter)
    assert torch.equal(sct.conv2d(x, copy.deepcopy(parameter)), expected)
    with torch.device("meta"):
        assert torch.equal(sct.conv2d(x, parameter), expected)
    y = torch.func.functionalize(lambda x: sct.conv2d(x, parameter))(x)
    assert torch.equal(y, expected)
    profile = torch.autograd.profiler.profile()
    with profile:
        sct.conv2d(x, parameter)
    assert "sparseconv::convolution" in {event.name for event in profile.function_events}


def test_operators_are_what_the_documentation_says():
    names = {"convolution", "convolution_backward_data", "convolution_backward_weight"}
    names |= {name.replace("convolution", "linear") for name in names}
    assert {name for name in names if hasattr(torch.ops.sparseconv, name)} == names


def test_torch_is_not_imported_by_the_core():
    code = "import sys, sparseconv; assert 'torch' not in sys.modules; import sparseconv.torch, torch; torch.nn.Module"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
