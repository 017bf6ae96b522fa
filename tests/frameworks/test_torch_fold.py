"""Folded inference: the same results, parameters that may change, modes in which the model runs as it was written.

One file: all of it is one function, `fold`, and what may be in a model.
"""

import copy
import pickle

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

import sparseconv.torch as sct  # noqa: E402
from sparseconv.torch import conversion, fold, observe, sites  # noqa: E402

IMAGES = torch.randn(2, 8, 7, 6, generator=torch.Generator().manual_seed(1))


class Block(nn.Module):
    """A residual block as ResNets have it: one ReLU module at two places, an addition in place."""

    def __init__(self, channels=8, downsample=False):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if downsample:
            self.downsample = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels, affine=False))

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


class Functions(nn.Module):
    """Functions instead of modules, transposed and grouped layers, an argument with a default."""

    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose2d(8, 12, 3, stride=2, groups=2)
        self.norm = nn.BatchNorm2d(12)
        self.down = nn.Conv2d(12, 8, 3, groups=4)
        self.last = nn.Linear(8, 4)
        self.last_norm = nn.BatchNorm1d(4)

    def forward(self, x, mask=None):
        x = functional.relu(self.norm(self.up(x)))
        x = torch.relu(self.down(x)).mean((2, 3))
        x = self.last_norm(self.last(x)).relu()
        return x if mask is None else x * mask


class Untraceable(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block(downsample=True)])
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        if x.sum() > 0:  # depends on values
            x = x * 2
        return self.head(x)


def trained(make):
    """A model in eval mode with some statistics, the same for each call."""
    torch.manual_seed(0)
    model = make()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.track_running_stats:
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.5, 1.5)
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model.eval()


MODELS = {
    "block": Block,
    "downsample": lambda: nn.Sequential(Block(downsample=True), Block()),
    "functions": Functions,
    "untraceable": Untraceable,
    "plain": lambda: nn.Sequential(nn.Conv2d(8, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 1), nn.Sigmoid()),
}


def assert_close(got, expected):
    assert expected.count_nonzero() > 0.2 * expected.numel()
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.fixture
def ours_is_faster(monkeypatch):
    def pairs(theirs, ours, seconds):
        theirs(), ours()
        return 2.0, 1.0

    monkeypatch.setattr(observe, "fastest_of_pairs", pairs)
    monkeypatch.setattr(fold, "fastest_of_pairs", pairs)
    monkeypatch.setattr(conversion, "_pairs", lambda *arguments: (2.0, 1.0))


@pytest.fixture
def calls(monkeypatch):
    """Which sites computed, and how: (name, whether at once)."""
    seen = []
    compute, as_written = sites.Site.compute, sites.Site.as_written

    def counting(self, *arguments):
        seen.append((self.name, True))
        return compute(self, *arguments)

    def counting_written(self, *arguments):
        seen.append((self.name, False))
        return as_written(self, *arguments)

    monkeypatch.setattr(sites.Site, "compute", counting)
    monkeypatch.setattr(sites.Site, "as_written", counting_written)
    return seen


@pytest.mark.parametrize("sample", [None, IMAGES], ids=["unmeasured", "measured"])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_results(name, channels_last, sample, ours_is_faster, calls):
    model = trained(MODELS[name])
    x = IMAGES.to(memory_format=torch.channels_last) if channels_last else IMAGES
    original = copy.deepcopy(model)
    report = sct.convert_(model, sample, fold=True)
    assert report.converted == len(report.layers)
    assert report.folded
    with torch.no_grad():
        expected = original(x)
        calls.clear()
        assert_close(model(x), expected)
    assert calls
    assert all(at_once for _, at_once in calls)
    assert isinstance(model, type(original))
    assert list(model.state_dict()) == list(original.state_dict())


class Gate(nn.Module):
    """Additions that are no residuals: of what is smaller than the result, which is broadcast."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.squeeze = nn.Conv2d(8, 8, 1)

    def forward(self, x):
        return (self.conv(x) + self.squeeze(x.mean((2, 3), keepdim=True))).relu()


@pytest.fixture
def residuals(monkeypatch):
    """Of every folded layer: (whether it was ours, whether a residual was added in its last store)."""
    seen = []
    operate = sites.operate

    def watching(layer, ours, *arguments, **words):
        seen.append((ours, "residual" in words))
        return operate(layer, ours, *arguments, **words)

    monkeypatch.setattr(sites, "operate", watching)
    return seen


@pytest.mark.parametrize("channels_last", [False, True])
def test_residuals_are_added_in_the_last_store(channels_last, residuals, ours_is_faster):
    """By our layers; PyTorch's are followed by an addition as before. Nothing that others may read is overwritten."""
    model = trained(lambda: nn.Sequential(Block(downsample=True), Block()))
    x = IMAGES.to(memory_format=torch.channels_last) if channels_last else IMAGES
    original, before = copy.deepcopy(model), x.clone()
    sct.convert_(model, IMAGES, fold=True)
    with torch.no_grad():
        expected = original(x)
        residuals.clear()
        assert_close(model(x), expected)
        assert torch.equal(x, before)
        assert residuals.count((True, True)) == 2
        assert residuals.count((True, False)) == 3
        for module in model.modules():
            if isinstance(module, fold.OURS):
                fold.as_torch(module)
        residuals.clear()
        assert_close(model(x), expected)
        assert residuals == [(False, False)] * 5


@pytest.mark.parametrize("size", [(7, 6), (1, 1)])
def test_what_is_broadcast_is_no_residual(size, residuals, ours_is_faster):
    model = trained(Gate)
    original = copy.deepcopy(model)
    x = torch.randn(2, 8, *size, generator=torch.Generator().manual_seed(2))
    sct.convert_(model, x, fold=True)
    with torch.no_grad():
        residuals.clear()
        torch.testing.assert_close(model(x), original(x), rtol=1e-5, atol=1e-5)
    assert residuals[-1] == (True, size == (1, 1))


def test_what_is_folded():
    model = trained(lambda: nn.Sequential(Block(downsample=True), Functions()))
    report = sct.convert_(model, fold=True)
    assert {layer.name: layer.folded for layer in report.layers} == {
        "0.conv1": "norm+relu", "0.conv2": "norm+add+relu", "0.downsample.0": "norm", "1.up": "norm+relu",
        "1.down": "relu", "1.last": "norm+relu",
    }  # fmt: skip
    assert report.folded == [""]


def test_parts_of_models_that_cannot_be_traced():
    model = trained(Untraceable)
    report = sct.convert_(model, fold=True)
    assert report.folded == ["blocks.0", "blocks.1"]
    assert "torch.fx cannot trace Untraceable" in report.notes[0]
    assert type(model) is Untraceable


def test_a_model_of_one_call():
    model = trained(lambda: nn.Sequential(nn.Conv2d(8, 8, 3)))
    report = sct.convert_(model, fold=True)
    assert report.folded == []
    assert "nothing that could be folded" in report.notes[0]
    assert type(model[0]) is sct.Conv2d


def test_training_mode_and_gradients(ours_is_faster, calls):
    model, original = trained(Block), trained(Block)
    sct.convert_(model, IMAGES, fold=True)
    calls.clear()
    results = []
    for one in (model, original):
        one(IMAGES).sum().backward()  # in eval mode, but parameters want gradients
        one.train()
        output = one(IMAGES)
        output.sum().backward()
        results.append([output.detach(), *[parameter.grad for parameter in one.parameters()], *one.buffers()])
    assert not any(at_once for _, at_once in calls)
    for got, expected in zip(*results, strict=True):  # gradients of sums of normalised results nearly cancel
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    model.eval(), original.eval()
    with torch.no_grad():
        assert_close(model(IMAGES), original(IMAGES))  # statistics have changed
    assert calls[-1] == ("conv2", True)


def test_gradients_of_the_input_of_frozen_models(calls):
    model, original = trained(Block).requires_grad_(False), trained(Block).requires_grad_(False)
    sct.convert_(model, fold=True)
    gradients = []
    for one in (model, original):
        x = IMAGES.clone().requires_grad_()
        one(x).square().sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-3)


def test_one_module_in_training_mode(calls):
    model, original = trained(Block), trained(Block)
    sct.convert_(model, fold=True)
    for one in (model, original):
        one.bn1.train()
    with torch.no_grad():
        assert_close(model(IMAGES), original(IMAGES))
    assert ("conv1", False) in calls
    assert ("conv2", True) in calls


def test_parameters_that_change():
    model, original = trained(Block), trained(Block)
    sct.convert_(model, fold=True)
    with torch.no_grad():
        model(IMAGES)
        state = {name: value * 2 for name, value in model.state_dict().items()}
        model.load_state_dict(state)
        original.load_state_dict(state)
        assert_close(model(IMAGES), original(IMAGES))
        for one in (model, original):
            one.conv1.weight = nn.Parameter(one.conv1.weight + 1)
            one.bn2.running_var.mul_(3)
        assert_close(model(IMAGES), original(IMAGES))
        for one in (model, original):
            one.double().float()
        assert_close(model(IMAGES), original(IMAGES))
        for one in (model, original):
            one.bn1.eps = 0.5
        assert_close(model(IMAGES), original(IMAGES))


def test_other_types_run_as_written():
    model, original = trained(Block), trained(Block)
    sct.convert_(model, fold=True)
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            got = model(IMAGES)
        torch.testing.assert_close(got.float(), original(IMAGES), rtol=0.1, atol=0.3)
        model.double(), original.double()
        torch.testing.assert_close(model(IMAGES.double()), original(IMAGES.double()))


def test_hooks_inside(calls):
    model = trained(lambda: nn.Sequential(Block(), Block()))
    sct.convert_(model, fold=True)
    seen = []
    with torch.no_grad():
        expected = model(IMAGES)
        handle = model[0].register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
        calls.clear()
        assert_close(model(IMAGES), expected)
        assert len(seen) == 1 and not calls
        handle.remove()
        model(IMAGES)
        assert len(seen) == 1 and calls
        model.register_forward_hook(lambda module, inputs, output: seen.append(output))  # of the whole: no obstacle
        calls.clear()
        model(IMAGES)
        assert len(seen) == 2 and calls


def test_modules_that_are_replaced(calls):
    model = trained(lambda: nn.Sequential(Block(), Block()))
    original = copy.deepcopy(model)
    sct.convert_(model, fold=True)
    for one in (model, original):
        one[1] = trained(lambda: Block(downsample=True))
    with torch.no_grad():
        assert_close(model(IMAGES), original(IMAGES))
        torch.testing.assert_close(model[0](IMAGES), original[0](IMAGES))


def test_arguments_with_defaults():
    model, original = trained(Functions), trained(Functions)
    sct.convert_(model, fold=True)
    mask = torch.tensor([1.0, 2.0, 0.0, 1.0])
    with torch.no_grad():
        assert_close(model(IMAGES), original(IMAGES))
        for call in (lambda one: one(IMAGES, mask), lambda one: one(IMAGES, mask=mask), lambda one: one(x=IMAGES)):
            torch.testing.assert_close(call(model), call(original), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("through", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), copy.copy])
def test_copies(through, calls):
    model, original = trained(Block), trained(Block)
    sct.convert_(model, fold=True)
    with torch.no_grad():
        model(IMAGES)
        again = through(model)
        calls.clear()
        assert_close(again(IMAGES), original(IMAGES))
        assert calls == [("conv1", True), ("conv2", True)]
        if through is not copy.copy:
            for one in again.parameters():
                one.zero_()
            assert torch.equal(again(IMAGES), IMAGES.relu())
        assert_close(model(IMAGES), original(IMAGES))


def test_revert():
    model, original = trained(Untraceable), trained(Untraceable)
    sct.convert_(model, fold=True)
    sct.revert_(model)
    assert [type(one) for one in model.modules()] == [type(one) for one in original.modules()]
    assert vars(model.blocks[0]).keys() == vars(original.blocks[0]).keys()
    with torch.no_grad():
        assert torch.equal(model(IMAGES), original(IMAGES))


def test_pruned_weights_are_packed_once(ours_is_faster, monkeypatch):
    model = trained(lambda: nn.Sequential(nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16), nn.ReLU()))
    with torch.no_grad():
        model[0].weight.mul_(torch.rand(16, 8, 3, 3) < 0.2)
    original = copy.deepcopy(model)
    packed = []
    pack = sites.pack_weight
    kept = lambda *given, **words: packed.append(pack(*given, **words)) or packed[-1]  # noqa: E731
    monkeypatch.setattr(sites, "pack_weight", kept)
    monkeypatch.setattr(fold.math, "inf", 1e9)
    told = iter([(2.0, 1.0), (3.0, 1.0), (0.5, 1.0)])  # torch and ours; as written; packed
    monkeypatch.setattr(fold, "fastest_of_pairs", lambda first, second, seconds: (first(), second(), next(told))[2])
    report = sct.convert_(model, IMAGES, fold=True)
    assert report.layers[0].passes["forward"].kernel == "weights_skip"
    assert model[0].skip == "weight"
    with torch.no_grad():
        model(IMAGES)
        count = len(packed)
        for _ in range(3):
            assert_close(model(IMAGES), original(IMAGES))
        assert len(packed) == count
        for one in (model, original):
            one[0].weight.mul_(2)
        assert_close(model(IMAGES), original(IMAGES))
        assert len(packed) == count + 1
        assert_close(copy.deepcopy(model)(IMAGES), original(IMAGES))


class Tricky(nn.Module):
    """Values that a site must not overtake, and results that are used twice."""

    def __init__(self, kind):
        super().__init__()
        self.conv, self.other, self.bn = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.kind = kind

    def forward(self, x):
        x = x * 1
        y = self.conv(x)
        if self.kind == "input changes":
            x.add_(1)
            return torch.relu(self.bn(y) + self.other(x))
        if self.kind == "used twice":
            return self.bn(y) + y
        if self.kind == "norm used twice":
            z = self.bn(y)
            return torch.relu(z) + z
        if self.kind == "broadcast":
            return torch.relu(self.bn(y) + x.mean((2, 3), keepdim=True))
        if self.kind == "grows":
            return torch.relu(self.other(x.mean((2, 3), keepdim=True)) + y)
        if self.kind == "scaled addition":
            return torch.relu(torch.add(self.bn(y), x, alpha=2))
        if self.kind == "number":
            return torch.relu(self.bn(y) + 3)
        if self.kind == "a view of the input changes":
            x.view(-1).mul_(2)
            return torch.relu(self.bn(y) + x)
        if self.kind == "the input of a view changes":
            part = x[:, :, 1:]
            y = self.conv(part)
            x.add_(1)
            return torch.relu(y) * part.mean()
        if self.kind == "the other changes":
            other = self.other(x)
            z = self.bn(y) + other
            other.mul_(2)
            return torch.relu(z) + other
        if self.kind == "the other is written to":
            other = alias = self.other(x)
            other = other.add_(self.bn(y))
            return torch.relu(other), alias
        if self.kind == "itself":
            z = self.bn(y)
            return torch.relu(z + z)
        return functional.relu6(self.bn(y)) + functional.leaky_relu(y)


KINDS = (
    "input changes", "used twice", "norm used twice", "broadcast", "grows", "scaled addition", "number", "itself",
    "a view of the input changes", "the input of a view changes", "the other changes", "the other is written to",
    "other activations",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_what_must_not_be_folded(kind):
    model, original = trained(lambda: Tricky(kind)), trained(lambda: Tricky(kind))
    sct.convert_(model, fold=True)
    with torch.no_grad():
        got, expected = model(IMAGES), original(IMAGES)
    for one, other in zip(*[one if isinstance(one, tuple) else (one,) for one in (got, expected)], strict=True):
        assert_close(one, other)


def test_norms_without_statistics_stay():
    norm = nn.BatchNorm2d(8, track_running_stats=False)
    model = trained(lambda: nn.Sequential(nn.Conv2d(8, 8, 3), norm, nn.ReLU()))
    original = copy.deepcopy(model)
    report = sct.convert_(model, fold=True)
    assert report.layers[0].folded == ""
    with torch.no_grad():
        assert_close(model(IMAGES), original(IMAGES))


def test_code_that_depends_on_the_kind_of_its_input():
    """torch.fx traces another branch than tensors take: seen on the sample."""

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(8, 8, 3)

        def forward(self, x):
            y = torch.relu(self.conv(x))
            return y + 1 if isinstance(x, torch.Tensor) else y

    model, original = Branches().eval(), Branches().eval()
    original.load_state_dict(model.state_dict())
    report = sct.convert_(model, IMAGES, fold=True)
    assert "gives another result" in " ".join(report.notes)
    assert report.folded == []
    with torch.no_grad():
        assert_close(model(IMAGES), original(IMAGES))


def test_training_mode_is_refused():
    with pytest.raises(ValueError, match=r"fold: got True with a model in training mode.*model.eval\(\)"):
        sct.convert_(Block().train(), fold=True)


def test_compile_and_export_run_as_written():
    model = trained(Block)
    sct.convert_(model, fold=True)
    with torch.no_grad():
        expected = model(IMAGES)
        assert_close(torch.compile(model, backend="aot_eager", fullgraph=True)(IMAGES), expected)
        program = torch.export.export(model, (IMAGES,))
        assert_close(program.module()(IMAGES), expected)


def test_inference_mode():
    model, original = trained(Block), trained(Block)
    sct.convert_(model, fold=True)
    with torch.inference_mode():
        assert_close(model(IMAGES), original(IMAGES))
        loaded = trained(Block)  # parameters without versions
        sct.convert_(loaded, fold=True)
        assert_close(loaded(IMAGES), original(IMAGES))
