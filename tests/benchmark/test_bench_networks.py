"""The networks of bench/: their zeros are those asked for, layer by layer, and sums of convolutions are right."""

import sys

import pytest
from places import ROOT

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(not (ROOT / "bench").exists(), reason="this source archive has no asv suite")
LAYERS = {"resnet34": (37, 21.8), "resnet50": (54, 25.6), "fixup50": (54, 25.5)}  # millions of weights


@pytest.fixture
def networks(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "bench")
    yield __import__("torch_networks")
    for name in ("torch_networks", "torch_models"):
        sys.modules.pop(name, None)


@pytest.fixture
def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def shares(model, images):
    """Of zeros, in the result of each ReLU in turn."""
    found = []
    for relu, _ in model.movers():
        relu.register_forward_hook(lambda module, arguments, y: found.append((y == 0).float().mean().item()))
    with torch.no_grad():
        model.eval()(images)
    return found


@pytest.mark.parametrize("name", sorted(LAYERS))
@pytest.mark.parametrize("zeros", ["profile", 0.7])
def test_zeros(networks, images, name, zeros):
    found = shares(networks.network(name, images, zeros), images)
    wanted = networks.PROFILES[name] if zeros == "profile" else [zeros] * len(found)
    assert found == pytest.approx(wanted, abs=0.01)
    assert len(set(wanted)) == (1 if zeros == 0.7 else len(set(networks.PROFILES[name]))) and len(found) > 30


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_architecture(networks, images, name):
    model = networks.network(name, images)
    layers = [one for one in model.modules() if isinstance(one, torch.nn.Conv2d | torch.nn.Linear)]
    parameters = sum(one.numel() for one in model.parameters())
    assert (len(layers), round(parameters / 1e6, 1)) == LAYERS[name]
    assert torch.isfinite(model(images)).all()


def test_gradients_have_zeros_without_normalisation_alone(networks, images):
    def zeros(name):
        """Of the gradients of the results of all convolutions within blocks."""
        model, found = networks.network(name, images, 0.7), []

        def look(module, arguments, y):
            y.register_hook(lambda gradient: found.append((gradient == 0).float().mean()))

        for block in model.stages.modules():
            for conv in getattr(block, "convs", ()):
                conv.register_forward_hook(look)
        model(images).square().sum().backward()
        assert len(found) == 48
        return torch.stack(found).mean()

    assert zeros("resnet50") < 0.05 and zeros("fixup50") > 0.65


def test_smooth_weights_keep_zeros_through_pooling(networks):
    """A smooth kernel gives zeros in clusters, of which 2 x 2 pooling leaves most; a random one's are scattered."""
    x = torch.randn(2, 32, 32, 32, generator=torch.Generator().manual_seed(2))
    smoothed = torch.nn.functional.avg_pool2d(x, 5, 1, 2)
    conv = torch.nn.Conv2d(32, 64, 3, padding=1, bias=False)

    def pooled():
        y = conv(smoothed)
        y = (y - y.mean((0, 2, 3), keepdim=True)) / y.std((0, 2, 3), keepdim=True)
        y = torch.relu(y - networks.quantile(y, 0.8))
        assert (y == 0).float().mean() == pytest.approx(0.8, abs=0.01)
        return (torch.nn.functional.max_pool2d(y, 2) == 0).float().mean()

    with torch.no_grad():
        torch.nn.init.normal_(conv.weight, generator=torch.Generator().manual_seed(3))
        before = pooled()
        networks.smoothen(0.8, 0.72, conv, (smoothed,))
        assert before < 0.66 and pooled() == pytest.approx(0.72, abs=0.04)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch.fx.experimental.optimization asks for it
def test_convolutions_alone(networks):
    models = __import__("torch_models")
    from sparseconv.torch.report import LayerReport, PassReport, Report

    def layer(module, weight, converted, forward, data=None):
        passes = {"forward": PassReport(*forward, "", "")}
        if data:
            passes["backward_data"] = PassReport(*data, "", "")
        return LayerReport("", module, converted, "", weight, passes=passes)

    first = layer("Conv2d", (64, 3, 7, 7), True, (100.0, 100.0))
    other = layer("Conv2d", (64, 64, 3, 3), True, (4.0, 2.0), (6.0, 3.0))
    left = layer("Conv2d", (64, 64, 1, 1), False, (1.0, 3.0), (2.0, 2.5))
    linear = layer("Linear", (10, 64), True, (100.0, 100.0))
    report = Report(layers=[first, other, left, linear], backward=True)
    for one in (other, left):
        one.passes["backward_weight"] = PassReport(1.0, 0.5, "", "")
    assert models.convolutions(report) == {
        "forward": (5.0, 5.0, 3.0), "backward_data": (8.0, 5.5, 5.0), "backward_weight": (2.0, 1.0, 1.5),
    }  # fmt: skip
    report.backward = False
    assert list(models.convolutions(report)) == ["forward"]
