"""Spiking networks: layers that put time and batch together, and models of snnTorch, Norse and SpikingJelly."""

import copy
import pickle

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import sparseconv.torch as sct  # noqa: E402
from sparseconv.torch import modules  # noqa: E402


class StepModule:
    step_mode = "m"

    def folded(self, x, forward):
        return forward(x.flatten(0, 1)).unflatten(0, x.shape[:2]) if self.step_mode == "m" else forward(x)


class SeveralSteps(nn.Conv2d, StepModule):
    """As SpikingJelly's layers are: (T, N, C, H, W) in, torch's forward for the arithmetic."""

    def forward(self, x):
        return self.folded(x, super().forward)


class SeveralStepsLinear(nn.Linear, StepModule):
    def forward(self, x):
        return self.folded(x, super().forward)


class Named(nn.Conv2d):
    """A subclass without a forward of its own."""

    def __init__(self, channels):
        super().__init__(channels, channels, 3, padding=1, padding_mode="circular")


class Scaled(nn.Conv2d):
    """A subclass whose arithmetic is its own."""

    def _conv_forward(self, input, weight, bias):
        return super()._conv_forward(input, 2 * weight, bias)


@pytest.fixture
def cooperative(monkeypatch):
    monkeypatch.setattr(modules, "COOPERATIVE", {__name__.partition(".")[0]})
    modules._combined.cache_clear()
    yield
    modules._combined.cache_clear()


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        SeveralSteps(4, 16, 3), nn.ReLU(), SeveralSteps(16, 8, 3), nn.ReLU(), nn.Flatten(2), SeveralStepsLinear(128, 5)
    )


def spikes():
    return (torch.rand(3, 2, 4, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.3).float()


def test_layers_for_several_steps(cooperative):
    net, x = network(), spikes()
    expected = net(x)
    expected.sum().backward()
    gradients = [one.grad.clone() for one in net.parameters()]
    report = sct.convert_(net)
    assert all(layer.converted for layer in report.layers) and len(report.layers) == 3
    assert isinstance(net[0], SeveralSteps) and isinstance(net[0], sct.Conv2d)
    net.zero_grad()
    y = net(x)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
    y.sum().backward()
    for one, other in zip(net.parameters(), gradients, strict=True):
        torch.testing.assert_close(one.grad, other, rtol=1e-4, atol=1e-4)
    for copied in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert type(copied[0]) is type(net[0]) and torch.equal(copied(x), net(x))
    assert repr(net[0]) == repr(network()[0])
    sct.revert_(net)
    assert type(net[0]) is SeveralSteps and type(net[5]) is SeveralStepsLinear


def test_a_sample_of_several_steps_is_measured(cooperative):
    net = network()
    report = sct.sparsity_report(net, spikes())
    assert report.layers[0].input_shape == (3, 2, 4, 8, 8) and report.layers[1].input_shape == (3, 2, 16, 6, 6)
    assert 0.6 < report.layers[0].zeros["input"] < 0.8
    assert set(report.layers[2].passes) == {"forward", "backward_data", "backward_weight"}


def test_which_subclasses_are_converted():
    net = nn.Sequential(Named(4), SeveralSteps(4, 4, 1), Scaled(4, 4, 1), nn.LazyConv2d(4, 1))
    net[1].step_mode = "s"
    x = torch.randn(1, 4, 6, 6)
    report = sct.convert_(net)
    assert [layer.converted for layer in report.layers] == [True, False, False, False]
    assert type(net[0]).__mro__[1:3] == (Named, sct.Conv2d)
    torch.testing.assert_close(net[0](x), nn.Conv2d.forward(copy.deepcopy(net[0]), x))
    plain = Named(4)
    plain.load_state_dict(net[0].state_dict())
    torch.testing.assert_close(net[0](x), plain(x), rtol=1e-4, atol=1e-5)


def test_snntorch():
    snntorch = pytest.importorskip("snntorch")
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(1, 16, 3), nn.Conv2d(16, 8, 3)
            self.neurons1, self.neurons2 = snntorch.Leaky(beta=0.9), snntorch.Leaky(beta=0.9)

        def forward(self, x):
            mem1, mem2, total = self.neurons1.init_leaky(), self.neurons2.init_leaky(), 0
            for _ in range(3):
                spikes, mem1 = self.neurons1(self.conv1(x), mem1)
                spikes, mem2 = self.neurons2(self.conv2(spikes), mem2)
                total = total + spikes + mem2
            return total

    check(Net(), 4 * torch.rand(2, 1, 10, 10), lambda net, x: net(x))


def test_norse():
    norse = pytest.importorskip("norse.torch")
    torch.manual_seed(0)
    net = norse.SequentialState(nn.Conv2d(1, 16, 3), norse.LIFCell(), nn.Conv2d(16, 8, 3), norse.LICell())

    def run(net, x):
        state, total = None, 0
        for _ in range(4):
            y, state = net(x, state)
            total = total + y
        return total

    check(net, 20 * torch.rand(2, 1, 10, 10), run)


@pytest.mark.parametrize("mode", ["s", "m"])
@pytest.mark.filterwarnings("ignore")
def test_spikingjelly(mode):
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    from spikingjelly.activation_based import functional, layer

    torch.manual_seed(0)
    net = nn.Sequential(layer.Conv2d(1, 16, 3), neuron.LIFNode(), layer.Conv2d(16, 8, 3))
    functional.set_step_mode(net, mode)

    def run(net, x):
        functional.reset_net(net)
        return net(x) if mode == "m" else sum(net(one) for one in x)

    check(net, 20 * torch.rand(3, 2, 1, 10, 10), run)


def check(net, x, run):
    """A network of spikes gives the same converted, and its gradients are the same."""
    expected = run(net, x)
    expected.sum().backward()
    gradients = [one.grad.clone() for one in net.parameters()]
    assert 0.02 < float((expected != 0).float().mean())
    report = sct.convert_(net)
    assert [layer.converted for layer in report.layers] == [True, True]
    net.zero_grad()
    y = run(net, x)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
    y.sum().backward()
    for one, other in zip(net.parameters(), gradients, strict=True):
        torch.testing.assert_close(one.grad, other, rtol=1e-4, atol=1e-3)
