"""`residual=` of the torch functions: in the last store for inference, an addition with derivatives otherwise."""

import pytest

torch = pytest.importorskip("torch")
from torch.nn import functional  # noqa: E402

import sparseconv as sc  # noqa: E402
import sparseconv.torch as sct  # noqa: E402
from sparseconv.torch import ops  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own use of it

# Name of the function, shapes of input and weight, and words.
LAYERS = {
    "conv1d": ((2, 5, 14), (17, 5, 3), {"padding": 1}),
    "conv2d": ((2, 24, 6, 9), (16, 12, 3, 3), {"padding": 1, "groups": 2, "stride": 2}),
    "conv3d": ((2, 3, 4, 5, 6), (16, 3, 2, 2, 2), {}),
    "conv_transpose1d": ((2, 5, 7), (5, 17, 3), {"stride": 2}),
    "conv_transpose2d": ((2, 6, 4, 5), (6, 16, 2, 2), {"stride": 3}),
    "conv_transpose3d": ((2, 3, 3, 4, 2), (3, 16, 2, 2, 2), {}),
    "linear": ((3, 4, 20), (33, 20), {}),
}


def integers(shape, seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-4, 5, shape, generator=generator).to(dtype)


def made(name, channels_last=False, dtype=torch.float32):
    """Input, weight, bias, residual, words, and PyTorch's result."""
    shape, weight_shape, words = LAYERS[name]
    x, weight = integers(shape, 1, dtype), integers(weight_shape, 2, dtype)
    theirs = getattr(functional, name)
    channels = weight_shape[1] * words.get("groups", 1) if "transpose" in name else weight_shape[0]
    bias = integers((channels,), 3, dtype)
    sums = theirs(x, weight, bias, **words)
    residual = 10 * integers(sums.shape, 4, dtype)
    if channels_last and x.dim() in (4, 5) and name != "linear":
        order = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
        x, residual = x.to(memory_format=order), residual.to(memory_format=order)
    return x, weight, bias, residual, words, sums


@pytest.fixture
def at_once(monkeypatch):
    """How often a residual came to a kernel."""
    seen = []
    compute = ops.Family.compute_layer

    def counting(self, *arguments, residual=None):
        seen.append(residual is not None)
        return compute(self, *arguments, residual=residual)

    monkeypatch.setattr(ops.Family, "compute_layer", counting)
    return seen


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_results(name, channels_last, at_once):
    x, weight, bias, residual, words, sums = made(name, channels_last)
    ours = getattr(sct, name)
    for activation in (None, "relu"):
        expected = (sums + residual).relu() if activation else sums + residual
        assert 0.2 < expected.count_nonzero() / expected.numel()
        for _ in range(2):  # prepared, and found again
            got = ours(x, weight, bias, **words, residual=residual, activation=activation)
            assert torch.equal(got, expected)
        got = ours(x, weight, bias, **words, residual=residual.contiguous(), activation=activation)
        assert torch.equal(got, expected)
        packed = sc.pack_weight(weight.numpy(), groups=words.get("groups", 1))
        assert torch.equal(ours(x, packed, bias, **words, residual=residual, activation=activation), expected)
        parameter = weight.clone().requires_grad_()
        with torch.no_grad():
            assert torch.equal(
                ours(x, parameter, bias, **words, residual=residual, activation=activation), expected
            )  # fmt: skip
    assert at_once == [True] * 8
    if name != "linear":
        got = ours(x[0], weight, bias, **words, residual=residual[0])
        assert torch.equal(got, (sums + residual)[0])


@pytest.mark.parametrize("name", LAYERS)
def test_gradients(name, at_once):
    """That of the residual is the gradient behind the ReLU's mask."""
    x, weight, bias, residual, words, sums = made(name)
    leaves = [one.clone().requires_grad_() for one in (x, weight, bias, residual)]
    mirror = [one.clone().requires_grad_() for one in (x, weight, bias, residual)]
    got = getattr(sct, name)(*leaves[:3], **words, residual=leaves[3], activation="relu")
    expected = (getattr(functional, name)(*mirror[:3], **words) + mirror[3]).relu()
    grads = integers(sums.shape, 7)
    got.backward(grads)
    expected.backward(grads)
    assert torch.equal(got, expected)
    assert not any(at_once)
    for one, other in zip(leaves, mirror, strict=True):
        assert other.grad.count_nonzero() > 0.1 * other.numel()
        assert torch.equal(one.grad, other.grad)
    assert torch.equal(leaves[3].grad, grads * (sums + residual > 0))
    only = residual.clone().requires_grad_()
    getattr(sct, name)(x, weight, bias, **words, residual=only).sum().backward()
    assert torch.equal(only.grad, torch.ones_like(only))


def test_derivatives_of_the_second_order():
    x, weight, bias, residual, words, _ = made("conv2d", dtype=torch.float64)
    few = x[:1, :4], weight[:2, :2], bias[:2], residual[:1, :2]
    x, weight, bias, residual = (one.clone().requires_grad_() for one in few)

    def layer(*tensors):
        return sct.conv2d(*tensors[:3], **words, residual=tensors[3])

    assert torch.autograd.gradgradcheck(layer, (x, weight, bias, residual))


def test_other_modes(at_once):
    """Rules of the operators hold: vmap, forward derivatives, autocast, fakes, torch.fx and torch.compile."""
    x, weight, bias, residual, words, sums = made("conv2d")
    expected = sums + residual

    def layer(x, residual):
        return sct.conv2d(x, weight, bias, **words, residual=residual)

    assert torch.equal(torch.vmap(layer)(x[:, None], residual[:, None])[:, 0], expected)
    _, tangent = torch.func.jvp(layer, (x, residual), (torch.zeros_like(x), residual))
    assert torch.equal(tangent, residual)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x.bfloat16(), residual.bfloat16()).float(), expected)
    traced = torch.fx.symbolic_trace(layer)
    assert torch.equal(traced(x, residual), expected)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(x, residual), expected)
    assert at_once.count(True) == 1  # the traced one
    with torch.inference_mode():
        assert torch.equal(layer(x.clone(), residual), expected)
    assert at_once.count(True) == 2


@pytest.mark.parametrize("grad", [False, True])
def test_bad_residuals(grad):
    x, weight, bias, residual, words, _ = made("conv2d")
    x.requires_grad_(grad)
    for bad in (residual[:1], residual[:, :1], residual[0], residual.double(), residual.int(), residual.to_sparse()):
        with pytest.raises((TypeError, ValueError), match=r"^residual: got"):
            sct.conv2d(x, weight, bias, **words, residual=bad)
    with pytest.raises(TypeError, match=r"^residual: got ndarray, expected a tensor"):
        sct.conv2d(x, weight, bias, **words, residual=residual.numpy())
    with pytest.raises(ValueError, match=r"^activation: got"):
        sct.conv2d(x, weight, bias, **words, residual=residual, activation="gelu")
