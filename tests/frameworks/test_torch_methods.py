"""Training methods on models: what the passes get under each of them, and what attach and detach leave behind."""

import copy
import io
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import sparseconv.torch as sct  # noqa: E402
from sparseconv import pruning, reference  # noqa: E402


def integers(seed, *shape, low=-4):
    return torch.from_numpy(np.random.default_rng(seed).integers(low, 5, shape).astype(np.float32))


def network():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 48, 3, stride=2, padding=1, padding_mode="reflect"),
        nn.ReLU(),
        nn.ConvTranspose2d(48, 32, 3, stride=2, output_padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 16, 3, groups=4, padding="same"),
        nn.Flatten(),
        nn.Linear(16 * 18 * 18, 10),
    )
    return net, torch.randn(4, 3, 16, 16), torch.randn(4, 10)


def gradients(net, x, grad):
    net.zero_grad()
    x = x.clone().requires_grad_()
    y = net(x)
    (y * grad).sum().backward()
    return [y.detach(), x.grad, *[one.grad.clone() for one in net.parameters()]]


def test_a_method_that_changes_nothing_changes_nothing():
    net, x, grad = network()
    x = x.to(memory_format=torch.channels_last)
    expected = gradients(net, x, grad)
    assert sct.attach(net, pruning.Method()) == ["0", "2", "4", "6", "8"]
    got = gradients(net, x, grad)
    for one, other in zip(got, expected, strict=True):
        assert one.stride() == other.stride()
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))
    assert sct.detach(net) == ["0", "2", "4", "6", "8"] and sct.detach(net) == []
    for one, other in zip(gradients(net, x, grad), expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
def test_swat_by_the_oracle(compress, channels_last):
    layer = nn.Conv2d(16, 32, 3, padding=1)
    weight, x, grad = integers(0, 32, 16, 3, 3), integers(1, 2, 16, 7, 7, low=0), integers(2, 2, 32, 7, 7)
    layer.weight.data.copy_(weight)
    layer.bias.data.zero_()
    if channels_last:
        x, layer = x.to(memory_format=torch.channels_last), layer.to(memory_format=torch.channels_last)
    sct.attach(layer, pruning.SWAT(0.7, compress=compress))
    x.requires_grad_()
    y = layer(x)
    y.backward(grad)
    used, kept = (
        np.where(np.abs(a) > pruning.topk_threshold(a, 0.7), a, 0) for a in (weight.numpy(), x.detach().numpy())
    )
    assert 0.1 < np.mean(used != 0) < 0.5 and 0.05 < np.mean(kept != 0) < 0.5
    np.testing.assert_array_equal(y.detach(), reference.conv2d(x.detach().numpy(), used, padding=1))
    expected = reference.conv2d_backward_data(grad.numpy(), used, x.shape, padding=1)
    np.testing.assert_array_equal(x.grad, expected)
    np.testing.assert_array_equal(
        layer.weight.grad, reference.conv2d_backward_weight(kept, grad.numpy(), 3, padding=1)
    )
    np.testing.assert_array_equal(layer.bias.grad, grad.sum((0, 2, 3)))


def test_transposable_masks_let_all_weights_learn():
    layer = nn.Linear(64, 32, bias=False)
    layer.weight.data.copy_(integers(3, 32, 64))
    sct.attach(layer, pruning.TransposableNM(2, 8))
    x, grad = integers(4, 5, 64), integers(5, 5, 32)
    y = layer(x)
    y.backward(grad)
    used = layer.weight.detach().numpy() * pruning.transposable_nm_mask(layer.weight.detach().numpy(), 2, 8, "greedy")
    np.testing.assert_array_equal(y.detach(), reference.linear(x.numpy(), used))
    np.testing.assert_array_equal(layer.weight.grad, grad.T @ x)


class Recorder(pruning.Method):
    """Doubles gradients and writes down what it sees."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def before_forward(self, layer, weight, *, groups=1, training=True):
        self.seen.append(("forward", layer, groups, training))
        return weight

    def before_backward(self, layer, gradient):
        self.seen.append(("backward", layer, gradient.shape))
        gradient *= 2
        return gradient


@pytest.mark.parametrize("where, factors", [("input", (4, 1, 2)), ("output", (4, 2, 4))])
def test_which_gradients_are_seen(where, factors):
    """Of two layers: the factor of the network's input's gradient, and of the weights', last one first."""
    net = nn.Sequential(nn.Conv1d(4, 8, 3), nn.Conv1d(8, 4, 3, groups=2))
    x, grad = torch.randn(2, 4, 20), torch.randn(2, 4, 16)
    expected = gradients(net, x, grad)
    method = Recorder()
    sct.attach(net, method, gradients=where)
    given = grad.clone()
    got = gradients(net, x, given)
    torch.testing.assert_close(given, grad)
    torch.testing.assert_close(got[1], factors[0] * expected[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got[4], factors[1] * expected[4], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got[2], factors[2] * expected[2], rtol=1e-4, atol=1e-4)
    assert method.seen[:2] == [("forward", "0", 1, True), ("forward", "1", 2, True)]
    shapes = [one[2] for one in method.seen[2:]]
    assert shapes == ([(2, 8, 18), (2, 4, 20)] if where == "input" else [(2, 4, 16), (2, 8, 18)])


def test_nothing_is_learnt_in_eval_and_without_gradients():
    net, x, grad = network()
    method = Recorder()
    sct.attach(net, method)
    with torch.no_grad():
        net(x)
    net.eval()
    gradients(net, x, grad)
    assert {one[3] for one in method.seen} == {False}


@pytest.mark.parametrize(
    "method",
    [
        lambda: pruning.SWAT(0.5),
        lambda: pruning.SWAT(0.5, structured=True, period=3),
        lambda: pruning.TransposableNM(2, 4, pad=True),
        lambda: pruning.StochasticGradientPruning(0.8, window=2, rng=0),
    ],
    ids=["swat", "structured", "nm", "stochastic"],
)
def test_copies_and_pickles_train_alike(method):
    net, x, grad = network()
    sct.attach(net, method())
    gradients(net, x, grad)
    stream = io.BytesIO()
    torch.save(net, stream)
    stream.seek(0)
    nets = [net, copy.deepcopy(net), pickle.loads(pickle.dumps(net)), torch.load(stream, weights_only=False)]
    results = []
    for one in nets:
        optimizer = torch.optim.SGD(one.parameters(), 1e-3, momentum=0.9)
        for _ in range(3):
            last = gradients(one, x, grad)
            optimizer.step()
        results.append(last)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)
    assert nets[1][0].forward.module is nets[1][0] and nets[1][0].forward.method is nets[1][2].forward.method


def test_state_dict_hooks_and_autocast():
    net, x, _ = network()
    names = list(net.state_dict())
    sct.attach(net, pruning.SWAT(0.5))
    assert list(net.state_dict()) == names
    calls = []
    net[0].register_forward_hook(lambda *arguments: calls.append("forward"))
    net[0].register_full_backward_hook(lambda *arguments: calls.append("backward"))
    with torch.autocast("cpu"):
        y = net(x.requires_grad_())
    assert y.dtype == torch.float32 and calls == ["forward"]
    y.sum().backward()
    assert calls == ["forward", "backward"]


def test_negated_views():
    """Tensors that stand for the negative of their memory, as input and as gradient."""
    layer, plain = nn.Conv2d(4, 4, 3), torch.randn(1, 4, 5, 5)
    sct.attach(layer, pruning.Method())
    results = []
    for take in (torch.Tensor.clone, lambda tensor: torch.complex(tensor, -tensor).conj().imag):
        x, grad = take(plain), take(plain[:, :, 1:4, 1:4])
        layer.zero_grad()
        y = layer(x)
        y.backward(grad)
        results.append((y.detach(), layer.weight.grad, layer.bias.grad))
    assert grad.is_neg()
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_second_derivatives_are_refused():
    layer, x = nn.Conv2d(4, 4, 3), torch.randn(1, 4, 5, 5, requires_grad=True)
    sct.attach(layer, pruning.Method())
    (first,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"once_differentiable"):
        first.sum().backward()


def test_converted_modules_and_input_is_relu():
    conv = sct.Conv2d(16, 8, 3, input_is_relu=True)
    sct.attach(conv, pruning.Method())
    x = integers(6, 2, 16, 6, 6).relu().requires_grad_()
    grad = integers(7, 2, 8, 4, 4)
    conv(x).backward(grad)
    full = reference.conv2d_backward_data(grad.numpy(), conv.weight.detach().numpy(), x.shape)
    np.testing.assert_allclose(x.grad, np.where(x.detach().numpy() > 0, full, 0), rtol=1e-4, atol=1e-4)
    assert sct.detach(conv) == [""]


def attach(method, **words):
    return sct.attach(network()[0], method, **words)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: sct.attach(3, pruning.Method()), TypeError, "model: got int"),
        (lambda: sct.attach(nn.Conv2d(1, 1, 1), "swat"), TypeError, "method: got str"),
        (lambda: sct.attach(nn.ReLU(), pruning.Method()), ValueError, "model: got ReLU without layers"),
        (lambda: attach(pruning.SWAT(0.5, dense=["first"])), ValueError, "names 'first', expected names among 0, 2"),
        (lambda: attach(pruning.Method(), gradients="both"), ValueError, "gradients: got 'both'"),
        (lambda: attach(pruning.Method(), filter_fn=lambda module, name: False), ValueError, "without layers"),
    ],
)  # fmt: skip
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_one_method_at_a_time():
    net, _, _ = network()
    assert sct.attach(net, pruning.Method(), filter_fn=lambda module, name: name == "2") == ["2"]
    with pytest.raises(ValueError, match="its layer '2' has a method already"):
        sct.attach(net, pruning.Method())
