"""`convert_` with a sample: what is measured and kept, what stays as it was, and what bad input is told."""

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import sparseconv.torch as sct  # noqa: E402
from sparseconv.torch import conversion, modules, observe  # noqa: E402

QUICK = sct.Config(seconds=0.0, whole_model=False)


class Net(nn.Module):
    """Two convolutions, one of them behind a ReLU, batch normalisation, dropout."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3)
        self.second = nn.Conv2d(8, 16, 3)
        self.norm = nn.BatchNorm2d(16)
        self.dropout = nn.Dropout(0.5)
        self.last = nn.Linear(16, 4)
        self.unused = nn.Conv2d(1, 1, 1)

    def forward(self, x, scale=1.0):
        x = torch.relu(self.norm(self.second(torch.relu(self.first(x)))))
        return self.last(self.dropout(x.mean((2, 3)))) * scale


IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def speeds(monkeypatch):
    """Times that are told instead of taken: {"ours": seconds, "torch": seconds}; both calls are made."""
    told = {"ours": 1.0, "torch": 2.0, "whole": {True: 1.0, False: 2.0}}

    def pairs(theirs, ours, seconds):
        theirs(), ours()
        return told["torch"], told["ours"]

    monkeypatch.setattr(observe, "fastest_of_pairs", pairs)
    monkeypatch.setattr(conversion, "_pairs", lambda *arguments: (told["whole"][False], told["whole"][True]))
    return told


def kinds(model):
    return [isinstance(one, modules.OURS) for one in (model.first, model.second, model.last)]


def samples():
    return {
        "tensor": IMAGES,
        "tuple": (IMAGES, 2.0),
        "dict": {"x": IMAGES, "scale": 2.0},
        "function of the model": lambda model: model(IMAGES).square().mean(),
    }


@pytest.mark.parametrize("kind", samples())
def test_samples(kind, speeds):
    model = Net()
    report = sct.convert_(model, samples()[kind], config=QUICK)
    assert kinds(model) == [True] * 3
    assert [layer.name for layer in report.layers] == ["first", "second", "last", "unused"]
    assert report.backward
    second = report.layers[1]
    assert set(second.passes) == {"forward", "backward_data", "backward_weight"}
    assert second.input_shape == (2, 8, 6, 6)
    assert second.calls == 1
    assert 0.3 < second.zeros["input"] < 0.7
    assert second.input_is_relu
    assert set(report.layers[0].passes) == {"forward", "backward_weight"}  # images need no gradient
    assert report.layers[3].reason == "the sample did not run it"
    assert type(model.unused) is nn.Conv2d


def test_function_without_arguments(speeds):
    model = Net()
    assert sct.convert_(model, lambda: model(IMAGES), config=QUICK).converted == 3


def test_zeros_are_those_of_the_sample(speeds):
    seen = {}
    model = Net()

    def loss(model):
        hidden = torch.relu(model.first(IMAGES))
        hidden.register_hook(lambda gradient: None)
        seen["zeros"] = (hidden == 0).float().mean().item()
        output = model.second(hidden)
        output.register_hook(lambda gradient: seen.update(gradient=(gradient == 0).float().mean().item()))
        return torch.relu(output).sum()

    report = sct.sparsity_report(model, loss, config=QUICK)
    second = report.layers[1]
    assert second.zeros["input"] == pytest.approx(seen["zeros"])
    assert second.zeros["grad_output"] == pytest.approx(seen["gradient"])
    assert 0.2 < seen["gradient"] < 0.9
    assert not second.input_is_relu  # somebody looks at that gradient


def test_slower_layers_stay(speeds):
    speeds.update(ours=2.0, torch=2.0)
    model = Net()
    report = sct.convert_(model, IMAGES, config=QUICK)
    assert kinds(model) == [False] * 3
    assert report.converted == 0
    assert all(layer.seconds_after == layer.seconds_before for layer in report.layers[:3])


def test_margin(speeds):
    speeds.update(ours=1.0, torch=1.1)
    assert sct.convert_(Net(), IMAGES, config=sct.Config(seconds=0.0, margin=0.2)).converted == 0
    assert sct.convert_(Net(), IMAGES, config=sct.Config(seconds=0.0, margin=0.05)).converted == 3


def test_layers_that_lose_are_taken_back(speeds):
    model = Net()
    sct.convert_(model)
    assert kinds(model) == [True] * 3
    speeds.update(ours=3.0)
    sct.convert_(model, IMAGES, config=QUICK)
    assert kinds(model) == [False] * 3


def test_whole_model_decides(speeds):
    speeds["whole"] = {True: 2.0, False: 1.0}
    model = Net()
    report = sct.convert_(model, IMAGES)
    assert kinds(model) == [False] * 3
    assert report.speedup == 1.0
    assert "PyTorch alone" in report.notes[-1]
    speeds["whole"] = {True: 1.0, False: 2.0}
    report = sct.convert_(model, IMAGES)
    assert kinds(model) == [True] * 3
    assert report.speedup == 2.0


def test_evaluation_is_measured_without_backward(speeds):
    model = Net().eval()
    report = sct.convert_(model, IMAGES, config=QUICK)
    assert not report.backward
    assert all(set(layer.passes) <= {"forward"} for layer in report.layers)
    report = sct.convert_(model, IMAGES, config=sct.Config(backward=True, seconds=0.0))
    assert report.backward
    assert "backward_weight" in report.layers[0].passes


def test_frozen_layers_need_no_gradient_of_weights(speeds):
    model = Net()
    model.first.requires_grad_(False)
    model.second.requires_grad_(False)
    report = sct.sparsity_report(model, IMAGES, config=QUICK)
    assert set(report.layers[0].passes) == {"forward"}
    assert set(report.layers[2].passes) == {"forward", "backward_data", "backward_weight"}


def test_nothing_else_changes(speeds):
    model = Net()
    model(IMAGES).sum().backward()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [one.grad.clone() for one in model.parameters() if one.grad is not None]
    optimiser = torch.optim.SGD(model.parameters(), 0.1)

    def train(model):
        optimiser.zero_grad()
        loss = model(IMAGES).square().mean()
        loss.backward()
        optimiser.step()
        return None

    before = torch.random.get_rng_state()
    report = sct.convert_(model, train, config=QUICK)
    assert "backward_weight" in report.layers[1].passes
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())
    after = [one.grad for one in model.parameters() if one.grad is not None]
    assert all(torch.equal(one, other) for one, other in zip(gradients, after, strict=True))
    assert not any(one._forward_hooks for one in model.modules())
    assert model.training


def test_optimisers_in_hooks_take_no_step(speeds):
    model = Net()
    taken = []
    model.last.weight.register_post_accumulate_grad_hook(lambda parameter: taken.append(parameter))
    sct.convert_(model, IMAGES, config=QUICK)
    assert not taken


def test_filter(speeds):
    model = Net()
    report = sct.convert_(model, IMAGES, filter_fn=lambda module, name: name != "second", config=QUICK)
    assert kinds(model) == [True, False, True]
    assert report.layers[1].reason == "filter_fn"


def test_shared_layers_are_measured_at_all_calls(speeds):
    shared = nn.Conv2d(4, 4, 3, padding=1)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    report = sct.convert_(model, torch.randn(1, 4, 5, 5), config=QUICK)
    assert len(report.layers) == 1
    assert report.layers[0].calls == 2
    assert report.layers[0].passes["forward"].seconds == 2.0


def test_words_of_config(speeds):
    model = Net()
    sct.convert_(model, IMAGES, config=sct.Config(seconds=0.0, skip="input", keep="compressed"))
    assert (model.second.skip, model.second.keep) == ("input", "compressed")
    sct.revert_(model)
    assert not hasattr(model.second, "skip")


def test_real_times_of_a_real_model():
    """Nothing is told: all times are positive, and what is slower stays PyTorch's."""
    model = Net()
    report = sct.convert_(model, IMAGES, config=sct.Config(seconds=0.0))
    for layer in report.layers[:3]:
        assert all(one.seconds > 0 and one.torch_seconds > 0 for one in layer.passes.values())
    assert report.speedup is None or report.speedup >= 1
    assert [layer.converted for layer in report.layers[:3]] == kinds(model)


# --- bad input ---


def test_models_without_layers():
    with pytest.raises(ValueError, match=r"model: got Sequential, which has none of the layers Conv1d, .*Linear"):
        sct.convert_(nn.Sequential(nn.ReLU()))
    with pytest.raises(ValueError, match=r"its weight is float64.*expected .*float32"):
        sct.convert_(nn.Sequential(nn.Conv2d(3, 3, 3).double()))
    with pytest.raises(ValueError, match=r"its weight is on meta"):
        sct.convert_(nn.Conv2d(3, 3, 3, device="meta"))
    with pytest.raises(ValueError, match=r"not initialised"):
        sct.convert_(nn.LazyConv2d(3, 3))


def test_wrong_types():
    with pytest.raises(TypeError, match="model: got Tensor"):
        sct.convert_(IMAGES)
    with pytest.raises(TypeError, match="sample: got int"):
        sct.convert_(Net(), 3)
    with pytest.warns(DeprecationWarning):
        scripted = torch.jit.script(nn.Conv2d(3, 3, 3))
    with pytest.raises(TypeError, match="model: got a ScriptModule"):
        sct.convert_(scripted)


def test_wrong_words():
    with pytest.raises(TypeError, match="config: got dict"):
        sct.convert_(Net(), config={})
    with pytest.raises(TypeError, match="filter_fn: got list"):
        sct.convert_(Net(), filter_fn=[])
    with pytest.raises(TypeError, match="sample: got None"):
        sct.sparsity_report(Net(), None)
    with pytest.raises(TypeError, match="model: got Tensor"):
        sct.revert_(IMAGES)
    for word in ("margin", "seconds"):
        with pytest.raises(ValueError, match=f"{word}: got -1"):
            sct.Config(**{word: -1})


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (torch.randn(2, 5, 8, 8), r"sample: got float32 tensor \(2, 5, 8, 8\), which the model rejects .*RuntimeError"),
        (IMAGES.double(), r"sample: got float64 tensor"),
        ((IMAGES, 1.0, 2.0), r"sample: got float32 tensor \(2, 3, 8, 8\), float, float, .*forward\(x, scale=1.0\)"),
        ({"y": IMAGES}, r"sample: got y=float32 tensor"),
        (IMAGES.to("meta"), r"sample: got a tensor on meta"),
    ],
    ids=["shape", "dtype", "arguments", "keywords", "device"],
)
def test_samples_that_the_model_rejects(sample, message):
    model = Net()
    with pytest.raises(ValueError, match=message):
        sct.convert_(model, sample)
    assert kinds(model) == [False] * 3
    assert not any(one._forward_hooks for one in model.modules())
