"""Modules of `sparseconv.torch`: torch.nn's own but for the arithmetic; conversion in place, and what survives it."""

import copy
import io
import pickle
import threading

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations, parametrize, prune  # noqa: E402

import sparseconv.torch as sct  # noqa: E402
from sparseconv.torch import modules  # noqa: E402

LAYERS = {
    "Conv1d": ((6, 8, 3), {"padding": 1}, (2, 6, 9)),
    "Conv2d": ((6, 8, 3), {"stride": 2, "groups": 2}, (2, 6, 9, 7)),
    "Conv3d": ((3, 4, 2), {"dilation": 2}, (2, 3, 5, 4, 6)),
    "ConvTranspose1d": ((6, 8, 3), {"stride": 2, "output_padding": 1}, (2, 6, 5)),
    "ConvTranspose2d": ((6, 8, 3), {"groups": 2, "padding": 1}, (2, 6, 5, 4)),
    "ConvTranspose3d": ((3, 4, 2), {"bias": False}, (1, 3, 3, 2, 4)),
    "Linear": ((6, 8), {}, (3, 2, 6)),
}


def integers(*shape, seed=0):
    """Small integers, half of them zero: all sums are exact."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(-4, 5, shape, generator=generator).float()
    return torch.where(torch.rand(shape, generator=generator) < 0.5, 0.0, values)


def with_integers(module):
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            parameter.copy_(integers(*parameter.shape, seed=number + 1))
    return module


def pair(name, **more):
    """The same layer of torch.nn and of ours, with equal parameters, and an input."""
    arguments, options, shape = LAYERS[name]
    theirs = with_integers(getattr(nn, name)(*arguments, **options, **more))
    ours = getattr(sct, name)(*arguments, **options, **more)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours, integers(*shape)


def assert_same(theirs, ours, *inputs):
    """Results and gradients of two modules, bit for bit."""
    results = []
    for module in (theirs, ours):
        leaves = [one.clone().requires_grad_() for one in inputs]
        output = module(*leaves)
        gradient = integers(*output.shape, seed=9)
        parameters = list(module.parameters())
        for one in parameters:
            one.grad = None
        output.backward(gradient)
        results.append([output.detach(), *[one.grad for one in (*leaves, *parameters)]])
    assert results[0][0].count_nonzero() > 0.3 * results[0][0].numel()
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def layers_of(model):
    return [module for module in model.modules() if isinstance(module, modules.OURS)]


def small():
    """A model with a layer used twice, integers as weights."""
    shared = nn.Conv2d(4, 4, 3, padding=1)
    return with_integers(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), shared, nn.ReLU(), shared, nn.Flatten()))


IMAGES = integers(2, 3, 6, 5)


@pytest.mark.parametrize("name", LAYERS)
def test_results_and_gradients(name):
    assert_same(*pair(name))


@pytest.mark.parametrize("name", LAYERS)
def test_constructor_repr_and_state(name):
    theirs, ours, _ = pair(name)
    assert repr(theirs) == repr(ours)
    assert list(theirs.state_dict()) == list(ours.state_dict())
    assert isinstance(ours, type(theirs))
    theirs.load_state_dict(ours.state_dict())


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("name", ["Conv1d", "Conv2d"])
def test_padding_modes(name, mode):
    arguments, _, shape = LAYERS[name]
    for padding in (1, "same", "valid"):
        theirs = with_integers(getattr(nn, name)(*arguments, padding=padding, padding_mode=mode))
        ours = getattr(sct, name)(*arguments, padding=padding, padding_mode=mode)
        ours.load_state_dict(theirs.state_dict())
        assert_same(theirs, ours, integers(*shape))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_same_padding_of_even_kernels():
    theirs = with_integers(nn.Conv2d(3, 4, (2, 4), padding="same"))
    ours = copy.deepcopy(theirs)
    sct.convert_(ours)
    assert_same(theirs, ours, IMAGES)


def test_output_size_and_single_images():
    theirs, ours, _ = pair("ConvTranspose2d")
    x = integers(2, 6, 5, 4)
    assert torch.equal(theirs(x, output_size=(5, 4)), ours(x, output_size=(5, 4)))
    theirs, ours, x = pair("Conv2d")
    assert torch.equal(theirs(x[0]), ours(x[0]))


def test_keywords_are_attributes():
    module = sct.Conv2d(3, 4, 3, activation="relu", skip="input")
    assert (module.activation, module.skip, module.keep) == ("relu", "input", "dense")
    assert "activation='relu', skip='input'" in repr(module)
    assert module(IMAGES).min() == 0
    module.activation = None
    assert module(IMAGES).min() < 0
    with pytest.raises(TypeError):
        sct.Conv2d(3, 4, 3, activations="relu")


def test_words_that_do_not_exist():
    with pytest.raises(ValueError, match="activation"):
        sct.Conv2d(3, 4, 3, activation="gelu")(IMAGES)
    with pytest.raises(TypeError, match="got the keyword 'speed'"):
        sct.Conv2d(3, 4, 3).set_options({"speed": 1})


def test_wrong_dtype():
    model = small()
    sct.convert_(model)
    with pytest.raises(TypeError, match="float16"):
        model(IMAGES.half())


# --- conversion changes the class and nothing else ---


def test_conversion_in_place_and_back():
    model, original = small(), small()
    before = list(model.modules())
    parameters = [id(one) for one in model.parameters()]
    report = sct.convert_(model)
    assert report.converted == 2  # the shared layer once
    assert [type(one) for one in layers_of(model)] == [sct.Conv2d, sct.Conv2d]
    assert list(model.modules()) == before
    assert [id(one) for one in model.parameters()] == parameters
    assert_same(original, model, IMAGES)
    assert sct.revert_(model) is model
    assert not layers_of(model)
    assert type(model[0]) is nn.Conv2d
    assert vars(model[0]).keys() == vars(original[0]).keys()
    assert_same(original, model, IMAGES)


def test_copy_keeps_the_original():
    model = small()
    converted, report = sct.convert(model)
    assert report.converted == 2
    assert not layers_of(model)
    assert converted[2] is converted[4]  # still shared
    assert_same(model, converted, IMAGES)


@pytest.mark.parametrize("through", ["deepcopy", "pickle", "save"])
def test_copies_and_files(through):
    model, original = small(), small()
    sct.convert_(model, config=sct.Config(skip="input"))
    if through == "deepcopy":
        again = copy.deepcopy(model)
    elif through == "pickle":
        again = pickle.loads(pickle.dumps(model))
    else:
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        again = torch.load(file, weights_only=False)
    assert [type(one) for one in layers_of(again)] == [sct.Conv2d, sct.Conv2d]
    assert again[0].skip == "input"
    assert again[2] is again[4]
    assert_same(original, again, IMAGES)


def test_state_dict_in_both_directions():
    model, original = small(), small()
    sct.convert_(model)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    fresh = nn.Sequential(*[copy.deepcopy(one) for one in small()])
    fresh.load_state_dict(torch.load(file))
    for parameter in original.parameters():
        parameter.data.add_(1)
    assert model.load_state_dict(original.state_dict())
    assert_same(original, model, IMAGES)


def test_hooks_go_on():
    model = small()
    seen = []
    model[0].register_forward_pre_hook(lambda module, inputs: seen.append("pre"))
    model[0].register_forward_hook(lambda module, inputs, output: seen.append("post"))
    model[0].register_full_backward_hook(lambda module, inputs, outputs: seen.append("backward"))
    images = IMAGES.clone().requires_grad_()
    sct.convert_(model)
    model(images).sum().backward()
    sct.revert_(model)
    model(images).sum().backward()
    assert seen == ["pre", "post", "backward"] * 2


def test_pruned_modules():
    model = small()
    prune.l1_unstructured(model[0], "weight", amount=0.5)
    original = copy.deepcopy(small())
    prune.l1_unstructured(original[0], "weight", amount=0.5)
    sct.convert_(model)
    assert_same(original, model, IMAGES)
    with torch.no_grad():
        for one in (model, original):
            one[0].weight_orig.mul_(2)
    assert_same(original, model, IMAGES)
    prune.l1_unstructured(model[2], "weight", amount=0.25)  # after the conversion, too
    prune.l1_unstructured(original[2], "weight", amount=0.25)
    assert_same(original, model, IMAGES)
    prune.remove(model[0], "weight")
    assert type(model[0]) is sct.Conv2d
    assert "weight" in dict(model[0].named_parameters())


class Doubled(nn.Module):
    def forward(self, weight):
        return weight * 2

    def right_inverse(self, weight):
        return weight / 2


def test_parametrized_modules():
    def make():
        model = small()
        parametrize.register_parametrization(model[0], "weight", Doubled())
        return model

    model, original = make(), make()
    sct.convert_(model)
    assert isinstance(model[0], sct.Conv2d)
    assert parametrize.is_parametrized(model[0], "weight")
    assert_same(original, model, IMAGES)
    assert_same(original, copy.deepcopy(model), IMAGES)
    sct.revert_(model)
    assert not isinstance(model[0], sct.Conv2d)
    assert_same(original, model, IMAGES)
    sct.convert_(model)
    parametrize.remove_parametrizations(model[0], "weight")
    assert type(model[0]) is sct.Conv2d
    parametrize.register_parametrization(model[0], "weight", Doubled())  # of one of ours
    assert isinstance(model[0], sct.Conv2d)
    sct.revert_(model)
    parametrize.remove_parametrizations(model[0], "weight")
    assert type(model[0]) is nn.Conv2d


@pytest.mark.parametrize("register", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_normalised_weights(register):
    torch.manual_seed(0)
    model = nn.Sequential(register(nn.Conv2d(3, 8, 3)), nn.ReLU(), register(nn.Linear(3, 4))).eval()
    converted, report = sct.convert(model)
    assert report.converted == 2
    x = torch.randn(2, 3, 6, 5)
    torch.testing.assert_close(converted(x), model(x))
    model(x).sum().backward()
    converted(x).sum().backward()
    for one, other in zip(model.parameters(), converted.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_optimiser_made_before_conversion():
    model, original = small(), small()
    steps = []
    for one in (model, original):
        optimiser = torch.optim.SGD(one.parameters(), 1.0)
        if one is model:
            sct.convert_(one)
        one(IMAGES).sum().backward()
        optimiser.step()
        steps.append([parameter.detach() for parameter in one.parameters()])
    for first, second in zip(*steps, strict=True):
        assert torch.equal(first, second)


def test_replicas():
    """DataParallel without devices calls the module; its replicas, called from several threads, compute alike."""
    model = small()
    expected = model(IMAGES)
    sct.convert_(model)
    assert torch.equal(nn.DataParallel(model)(IMAGES), expected)
    replicas = [model[0]._replicate_for_data_parallel() for _ in range(3)]
    for replica in replicas:
        replica._parameters = dict(model[0]._parameters)
        replica.weight, replica.bias = model[0].weight, model[0].bias
    results = [None] * 3

    def work(number):
        results[number] = replicas[number](IMAGES)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(result, model[0](IMAGES)) for result in results)


def test_export():
    model = small().eval()
    sct.convert_(model)
    program = torch.export.export(model, (IMAGES,))
    assert any("sparseconv" in str(node.target) for node in program.graph.nodes)
    assert torch.equal(program.module()(IMAGES), model(IMAGES))


def test_compile():
    model = small()
    sct.convert_(model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert_same(model, compiled, IMAGES)


def test_subclasses_with_a_forward_of_their_own_stay():
    class Standardised(nn.Conv2d):
        def forward(self, input):
            weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
            return self._conv_forward(input, weight, self.bias)

    model = nn.Sequential(Standardised(3, 4, 3), nn.Conv2d(4, 4, 3))
    report = sct.convert_(model)
    assert type(model[0]) is Standardised
    assert type(model[1]) is sct.Conv2d
    assert "subclass" in report.layers[0].reason


def test_every_class_has_its_counterpart():
    for kind in modules.OURS:
        assert kind.__bases__[1] is kind.plain is getattr(nn, kind.__name__)
        assert modules.COUNTERPARTS[kind.plain] is kind
        assert kind in vars(sct).values()
