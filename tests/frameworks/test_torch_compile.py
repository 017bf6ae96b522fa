"""`sparseconv.torch` under torch.compile, torch.export, fakes, autocast and torch.func; derivatives of higher order."""

import numpy as np
import pytest
from cases import sparse_ints

torch = pytest.importorskip("torch")
sct = pytest.importorskip("sparseconv.torch")
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

functional = torch.nn.functional

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning"),  # torch's own use of it
    pytest.mark.filterwarnings("ignore:.*isinstance.*LeafSpec.*:FutureWarning"),
]


def ints(*shape, sparsity=0.4, seed=1):
    return torch.from_numpy(sparse_ints(shape, sparsity, seed))


def doubles(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def block(functions, x, weights, biases):
    """Two layers, one of them with stride, and a linear one."""
    first = functions.conv2d(x, weights[0], biases[0], padding=1, stride=2)
    second = functions.conv_transpose2d(first.relu(), weights[1], biases[1], stride=2, output_padding=1)
    return functions.linear(second.relu().sum((2, 3)), weights[2], biases[2])


def parameters():
    shapes = (17, 16, 3, 3), (17, 5, 3, 3), (4, 5)
    weights = [ints(*shape, seed=seed).sign().requires_grad_() for seed, shape in enumerate(shapes)]
    return weights, [ints(size, seed=9).requires_grad_() for size in (17, 5, 4)]


def gradients(function, x, weights, biases):
    leaves = [x, *weights, *biases]
    return torch.autograd.grad(function(x, weights, biases).sum(), leaves)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
def test_compiled_training(channels_last, dynamic):
    x = ints(2, 16, 8, 8).sign().requires_grad_()
    if channels_last:
        x = x.detach().to(memory_format=torch.channels_last).requires_grad_()
    weights, biases = parameters()
    torch._dynamo.reset()
    compiled = torch.compile(lambda *args: block(sct, *args), fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for batch in (x, torch.cat([x, x]).detach().requires_grad_()):
        expected = gradients(lambda *args: block(functional, *args), batch, weights, biases)
        for actual, one in zip(gradients(compiled, batch, weights, biases), expected, strict=True):
            assert torch.equal(actual, one)


def test_inductor():
    """Inductor asserts that results have the strides of the fakes."""
    torch._dynamo.reset()
    x = ints(2, 16, 6, 6).to(memory_format=torch.channels_last).requires_grad_()
    weight = ints(16, 16, 3, 3).to(memory_format=torch.channels_last).requires_grad_()

    def function(x, weight):
        y = sct.conv2d(x, weight, padding=1, activation="relu")
        return sct.conv2d(y, weight[:3], dilation=2).square().sum()

    try:
        actual = torch.autograd.grad(torch.compile(function, fullgraph=True)(x, weight), (x, weight))
    except RuntimeError as error:
        if "compiler" not in str(error):
            raise
        pytest.skip(f"inductor has no C++ compiler: {error}")
    for one, other in zip(actual, torch.autograd.grad(function(x, weight), (x, weight)), strict=True):
        assert torch.equal(one, other)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(ints(17, 16, 3, 3))

    def forward(self, x):
        return sct.conv2d(x, self.weight, padding="same", activation="relu", keep="compressed")


@pytest.mark.parametrize("strict", [False, True])
def test_export(strict, tmp_path):
    net, x = Net().eval(), ints(2, 16, 5, 6)
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(net, (x,), strict=strict, dynamic_shapes=({0: batch},))
    targets = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert torch.ops.sparseconv.convolution.default in targets
    torch.export.save(program, tmp_path / "net.pt2")
    loaded = torch.export.load(tmp_path / "net.pt2").module()
    for size in (2, 3):
        x = ints(size, 16, 5, 6)
        assert torch.equal(loaded(x), net(x))


OPERANDS = {
    "contiguous": lambda tensor: tensor,
    "channels_last": lambda tensor: tensor.to(memory_format=torch.channels_last),
    "transposed": lambda tensor: tensor.transpose(2, 3).contiguous().transpose(2, 3),
    "permuted": lambda tensor: tensor.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0),
    "strided": lambda tensor: torch.stack([tensor, tensor], -1)[..., 0],
}


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("kind", OPERANDS)
def test_opcheck(kind, transposed):
    """Schema, fake, autograd registration and AOT dispatch, of all operators."""
    x = OPERANDS[kind](ints(2, 4, 5, 6)).requires_grad_()
    weight = OPERANDS[kind](ints(4, 4, 3, 3)).requires_grad_()
    geometry = ([2, 1], [1, 0], [1, 1], transposed, [1, 0] if transposed else [0, 0], 1)
    words = ("relu", "auto", 0.0, "dense", None, 1)
    operators = torch.ops.sparseconv
    torch.library.opcheck(operators.convolution.default, (x, weight, ints(4), *geometry, *words))
    grad = OPERANDS[kind](operators.convolution(x, weight, None, *geometry, *words).detach()).requires_grad_()
    mask = x.detach() > 0
    torch.library.opcheck(
        operators.convolution_backward_data.default, (grad, weight, mask, x.shape, True, *geometry, "auto", 0.0, 1)
    )
    torch.library.opcheck(
        operators.convolution_backward_weight.default,
        (x, grad, weight.shape, weight.stride(), *geometry, "auto", 0.0, None),
    )


def test_opcheck_of_linear():
    x, weight, operators = (
        ints(2, 5, 4).transpose(0, 1).requires_grad_(),
        ints(3, 4).requires_grad_(),
        torch.ops.sparseconv,
    )
    torch.library.opcheck(operators.linear.default, (x, weight, None, None, "auto", 0.0, "dense", False, None))
    grad = ints(5, 2, 3).requires_grad_()
    torch.library.opcheck(
        operators.linear_backward_data.default, (grad, weight, None, x.shape, False, "auto", 0.0, None)
    )
    torch.library.opcheck(
        operators.linear_backward_weight.default, (x, grad, weight.shape, weight.stride(), "auto", 0.0, None)
    )


def test_fakes_and_meta():
    x, weight = torch.empty(2, 16, 6, 6, device="meta"), torch.empty(3, 16, 3, 3, device="meta")
    assert sct.conv2d(x, weight, stride=2).shape == (2, 3, 2, 2)
    assert sct.conv2d(x, weight).device.type == "meta"
    with FakeTensorMode():
        x, weight = torch.empty(2, 16, 6, 6), torch.empty(3, 16, 3, 3, requires_grad=True)
        sct.conv2d(x, weight, padding=1).sum().backward()
        assert weight.grad.shape == weight.shape
        with pytest.raises(TypeError, match=r"^weight: got dtype torch.float64, expected torch.float32"):
            sct.conv2d(x, weight.double())
        with pytest.raises(TypeError, match=r"^input: got a tensor on cuda:0, expected one in CPU memory"):
            sct.conv2d(torch.empty(2, 16, 6, 6, device="cuda"), torch.empty(3, 16, 3, 3, device="cuda"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    x, weight, bias = ints(2, 16, 6, 6), ints(17, 16, 3, 3).requires_grad_(), ints(17)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = sct.conv2d(x.to(dtype), weight, bias.to(dtype))
        z = sct.linear(y, ints(4, 4))
    assert y.dtype == z.dtype == torch.float32
    assert torch.equal(y, functional.conv2d(x, weight, bias))
    y.sum().backward()
    assert weight.grad.dtype == torch.float32 and weight.grad.count_nonzero()
    with pytest.raises(TypeError, match=rf"^input: got dtype {dtype}, expected torch.float32 or torch.float64"):
        sct.conv2d(x.to(dtype), weight.detach().to(dtype))


FUNCTIONS = {
    "relu": (lambda x, w, b: sct.conv2d(x, w, b, 2, 1, activation="relu")),
    "grouped": (lambda x, w, b: sct.conv2d(x, w[:, :2], b, padding=(1, 0), dilation=(1, 2), groups=2)),
    "transposed": (lambda x, w, b: sct.conv_transpose2d(x, w.transpose(0, 1), b, 2, 1, 1)),
    "threshold": (lambda x, w, b: sct.conv2d(x, w, b, threshold=0.3)),
    "weight threshold": (lambda x, w, b: sct.conv2d(x, w, b, threshold=0.3, skip="weight")),
    "one": (lambda x, w, b: sct.conv1d(x[0], w[..., 0], b)),
    "three": (lambda x, w, b: sct.conv3d(x[None].transpose(1, 2), w[..., None], b)),
    "linear": (lambda x, w, b: sct.linear(x, w[0, :, :2, 0].reshape(2, 4).repeat(1, 2)[:, :5], activation="relu")),
    "compressed": (lambda x, w, b: sct.conv2d(x, w, b, activation="relu", keep="compressed")),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives(name):
    """Against finite differences: first and second order, in both modes, batched."""
    inputs = [one.requires_grad_() for one in (doubles(2, 4, 4, 5), doubles(4, 4, 2, 2, seed=1), doubles(4, seed=2))]
    function = FUNCTIONS[name]
    assert torch.autograd.gradcheck(function, inputs, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(function, inputs)


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


def test_func():
    from torch.func import grad, hessian, jacrev, jvp, vmap

    x, weight, bias = doubles(3, 2, 4, 4, 5), doubles(6, 4, 3, 3, seed=1), doubles(6, seed=2)
    many = torch.stack([weight, 2 * weight])

    def loss(functions):
        def of(weight, x):
            return functions.conv2d(x, weight, bias, padding=1).relu().pow(3).sum()

        return of

    for transform in (
        lambda one: vmap(lambda x: one.conv2d(x, weight, bias))(x),
        lambda one: vmap(lambda x: one.conv2d(x, weight, bias), in_dims=1)(x),
        lambda one: vmap(lambda x: one.conv_transpose2d(x, weight.transpose(0, 1), bias, stride=2))(x),
        lambda one: vmap(lambda x: one.linear(x, weight[0, 0, :, :1].expand(3, 5)))(x),
        lambda one: vmap(lambda weight: one.conv2d(x[0], weight, bias))(many),
        lambda one: grad(loss(one))(weight, x[0]),
        lambda one: vmap(grad(loss(one)), in_dims=(None, 0))(weight, x),
        lambda one: vmap(grad(loss(one), argnums=1), in_dims=(None, 0))(weight, x),
        lambda one: grad(lambda w: grad(loss(one))(w, x[0]).square().sum())(weight),
        lambda one: jvp(lambda w: loss(one)(w, x[0]), (weight,), (weight + 1,))[1],
        lambda one: jvp(lambda x: one.conv2d(x, weight, bias), (x[0],), (x[1],))[1],
        lambda one: jacrev(lambda x: one.conv2d(x, weight[:2], bias[:2]))(x[0, :1, :, :3, :3]),
        lambda one: hessian(lambda x: loss(one)(weight, x))(x[0, :1, :, :2, :2]),
    ):
        close(transform(sct), transform(functional))
    assert not torch._C._are_functorch_transforms_active()


@pytest.mark.filterwarnings("ignore:Dynamo does not know how to trace:UserWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_compiled_autograd(monkeypatch):
    """What was found about hooks for one backward pass must not be kept for another, whose gradients are looked at."""
    from torch._dynamo import compiled_autograd

    from sparseconv.torch import relu_inputs

    monkeypatch.setattr(relu_inputs, "LEAST", 0)
    z, weight, found = ints(2, 16, 5, 6).requires_grad_(), ints(17, 16, 3, 3, seed=2), []
    x = torch.relu(z * 1)
    x.retain_grad()
    functional.conv2d(x, weight, padding=1).sum().backward()
    expected = x.grad
    lookers = {
        "hook": lambda x: x.register_hook(lambda grad: found.append(grad.clone())),
        "prehook": lambda x: x.grad_fn.register_prehook(lambda grads: found.append(grads[0].clone())),
        "retain_grad": lambda x: x.retain_grad(),
    }
    torch._dynamo.reset()
    with compiled_autograd._enable(torch.compile(backend="eager")):
        for name in (None, None, *lookers, None, *lookers):
            found.clear()
            x = torch.relu(z * 1)
            y = sct.conv2d(x, weight, padding=1)
            if name is not None:
                lookers[name](x)
            y.sum().backward()
            if name is not None:
                assert torch.equal(found[0] if found else x.grad, expected), name


def test_symbolic_tracing():
    """torch.fx takes the functions as they are, with all their words; converted layers are traced into."""

    def function(x, weight, bias):
        y = sct.conv2d(x, weight, bias, stride=2, padding="valid", activation="relu", keep="compressed")
        y = sct.conv_transpose2d(y, weight[:4], output_padding=1, stride=2)
        return sct.linear(y, weight.flatten(1)[:, :8], activation="relu")

    traced = torch.fx.symbolic_trace(function)
    targets = [node.target for node in traced.graph.nodes if node.op == "call_function"]
    assert {sct.conv2d, sct.conv_transpose2d, sct.linear} <= set(targets)
    operands = ints(2, 4, 9, 8), ints(4, 4, 3, 3), ints(4)
    assert torch.equal(traced(*operands), function(*operands))
    layers = torch.nn.Sequential(sct.Conv2d(4, 5, 3, padding=1), torch.nn.ReLU(), sct.ConvTranspose2d(5, 2, 2))
    layers.append(sct.Linear(10, 3))
    x = ints(2, 4, 8, 9)
    assert torch.equal(torch.fx.symbolic_trace(layers)(x), layers(x))
