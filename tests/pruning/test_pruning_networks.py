"""Layer lists against the sizes that networks are known to have."""

import dataclasses

import pytest
from networks_of_papers import NETWORKS

import sparseconv as sc
from sparseconv.pruning import Layer, network

# --- layers


def test_layer():
    layer = Layer("down", (128, 64, 3, 5), (56, 40), (28, 20))
    assert (layer.kind, layer.weights, layer.input_elements) == ("conv", 128 * 64 * 15, 64 * 56 * 40)
    assert layer.macs["forward"] == layer.macs["backward_weight"] == 128 * 64 * 15 * 28 * 20
    assert layer.macs["backward_data"] == 4 * layer.macs["forward"]
    assert layer.batch_norm == 128 * 28 * 20
    assert Layer("down", (128, 64, 3, 5), (56, 40), (28, 20), batch_norm=7).batch_norm == 7
    with pytest.raises(dataclasses.FrozenInstanceError):
        layer.name = "up"


def test_layer_takes_lists_and_single_numbers():
    layer = Layer("a", [8, 4, 3, 3], 10, [5, 5])
    assert layer == Layer("a", (8, 4, 3, 3), (10, 10), (5, 5))
    assert hash(layer) == hash(Layer("a", (8, 4, 3, 3), (10, 10), (5, 5)))


def test_layer_of_one_and_three_dimensions():
    assert Layer("a", (8, 4, 3), 10, 5).macs == {"forward": 480, "backward_data": 960, "backward_weight": 480}
    assert Layer("a", (8, 4, 2, 2, 2), (3, 4, 5), 2).macs["forward"] == 8 * 4 * 8 * 8


@pytest.mark.parametrize("size", [(), 1, (1, 1), 99])
def test_linear_layer(size):
    layer = Layer("fc", (10, 512), size, size, "linear")
    assert layer.macs == {"forward": 5120, "backward_data": 5120, "backward_weight": 5120}
    assert (layer.weights, layer.input_elements, layer.batch_norm) == (5120, 512, 0)


@pytest.mark.parametrize(
    ("change", "error", "fragment"),
    [
        ({"name": 3}, TypeError, "name: got 3"),
        ({"name": ""}, TypeError, "name: got ''"),
        ({"kind": "dense"}, ValueError, "kind: got 'dense', expected one of 'conv', 'linear'"),
        ({"kind": "linear"}, ValueError, r"weight_shape: got \(8, 4, 3, 3\) for layer 'a', expected \(out, in\)"),
        ({"weight_shape": (8, 4)}, ValueError, r"weight_shape: got \(8, 4\) .*expected \(out channels, in channels"),
        ({"weight_shape": 8}, ValueError, r"weight_shape: got \(8,\)"),
        ({"weight_shape": (8, 0, 3, 3)}, ValueError, "weight_shape: got 0, expected at least 1"),
        ({"weight_shape": (8, 4.0, 3, 3)}, TypeError, "weight_shape: got 4.0, expected a whole number"),
        ({"input_size": (8, 8, 8)}, ValueError, "input_size: got 3 numbers, expected 1 or 2"),
        ({"output_size": (8, -1)}, ValueError, "output_size: got -1, expected at least 1"),
        ({"batch_norm": -1}, ValueError, "batch_norm: got -1, expected at least 0"),
    ],
)
def test_bad_layer(change, error, fragment):
    valid = {"name": "a", "weight_shape": (8, 4, 3, 3), "input_size": (8, 8), "output_size": (8, 8)}
    with pytest.raises(error, match=fragment):
        Layer(**valid | change)


# --- networks

# Parameters as published (torchvision; WRN-16-8: 11.0 million in its paper), and those among them that are no weights:
# biases of linear layers (of all layers in VGG), two per normalised channel.
KNOWN = {
    ("vgg16", "imagenet"): (138_357_544, 13_416),
    ("resnet18", "imagenet"): (11_689_512, 1000 + 2 * 4_800),
    ("resnet34", "imagenet"): (21_797_672, 1000 + 2 * 8_512),
    ("resnet50", "imagenet"): (25_557_032, 1000 + 2 * 26_560),
    ("wrn_50_2", "imagenet"): (68_883_240, 1000 + 2 * 34_112),
    ("densenet121", "imagenet"): (7_978_856, 1000 + 2 * 41_824),
    ("wrn_16_8", "cifar10"): (10_961_370, 10 + 2 * 3_600),
    ("resnet18", "cifar10"): (11_173_962, 10 + 2 * 4_800),
    ("resnet34", "cifar10"): (21_282_122, 10 + 2 * 8_512),
    ("resnet50", "cifar10"): (23_520_842, 10 + 2 * 26_560),
    ("densenet121", "cifar10"): (6_956_298, 10 + 2 * 41_760),
}
# Multiply-adds of one image, millions, as published to these digits.
MACS = {
    ("vgg16", "imagenet"): 15_470,
    ("resnet18", "imagenet"): 1_814,
    ("resnet34", "imagenet"): 3_664,
    ("resnet50", "imagenet"): 4_089,
    ("wrn_50_2", "imagenet"): 11_398,
    ("densenet121", "imagenet"): 2_834,
    ("vgg16", "cifar10"): 332,
    ("resnet18", "cifar10"): 555,
}


@pytest.mark.parametrize(("name", "dataset"), KNOWN)
def test_known_parameters(name, dataset):
    parameters, others = KNOWN[name, dataset]
    assert sum(layer.weights for layer in network(name, dataset)) == parameters - others


@pytest.mark.parametrize(("name", "dataset"), MACS)
def test_known_multiply_adds(name, dataset):
    assert round(sum(layer.macs["forward"] for layer in network(name, dataset)) / 1e6) == MACS[name, dataset]


@pytest.mark.parametrize(("name", "dataset"), NETWORKS)
def test_networks(name, dataset):
    layers = network(name, dataset)
    assert len({layer.name for layer in layers}) == len(layers)
    linear = 3 if name == "vgg16" else 1
    assert [layer.kind for layer in layers] == ["conv"] * (len(layers) - linear) + ["linear"] * linear
    assert layers[0].weight_shape[1] == 3
    assert layers[0].input_size == ((32, 32) if dataset == "cifar10" else (224, 224))
    assert layers[-1].weight_shape[0] == (10 if dataset == "cifar10" else 1000)
    for layer in layers[:-linear]:
        assert layer.weight_shape[2:] in ((1, 1), (3, 3), (7, 7))
        assert {size % out for size, out in zip(layer.input_size, layer.output_size, strict=True)} == {0}
    assert network(name, dataset) == layers
    assert network(name, dataset) is not layers


@pytest.mark.parametrize(("name", "convolutions"), [("vgg16", 13), ("wrn_16_8", 16), ("densenet121", 120)])
def test_number_of_convolutions(name, convolutions):
    """As the configurations of SWAT's code have them."""
    assert sum(layer.kind == "conv" for layer in network(name, "cifar10")) == convolutions


@pytest.mark.parametrize(
    ("name", "dataset", "elements"),
    [
        ("vgg16", "imagenet", 0),  # the original has none
        ("resnet50", "imagenet", 11_113_984),  # everything that a convolution writes
        # what each 3x3 of a block reads, and the last map
        ("wrn_16_8", "cifar10", 16 * 32**2 + 4 * 128 * 32**2 + 4 * 256 * 16**2 + 4 * 512 * 8**2),
    ],
)
def test_batch_normalisation(name, dataset, elements):
    assert sum(layer.batch_norm for layer in network(name, dataset)) == elements


def test_shapes_follow_the_definition():
    """Some layers by name: the second block of ResNet's stage 3, a shortcut, DenseNet's growing input."""
    layers = {layer.name: layer for layer in network("resnet50", "imagenet")}
    assert layers["layer2.0.conv2"] == Layer("layer2.0.conv2", (128, 128, 3, 3), (56, 56), (28, 28))
    assert layers["layer2.0.shortcut"] == Layer("layer2.0.shortcut", (512, 256, 1, 1), (56, 56), (28, 28))
    assert layers["layer3.1.conv1"] == Layer("layer3.1.conv1", (256, 1024, 1, 1), (14, 14), (14, 14))
    assert "layer3.1.shortcut" not in layers
    layers = {layer.name: layer for layer in network("densenet121", "imagenet")}
    assert layers["block2.3.conv1"].weight_shape == (128, 128 + 3 * 32, 1, 1)
    assert layers["transition3"].weight_shape == (512, 1024, 1, 1)
    assert layers["fc"].batch_norm == 1024 * 7 * 7


@pytest.mark.parametrize(
    ("name", "dataset", "fragment"),
    [
        ("alexnet", "imagenet", "name: got 'alexnet', expected one of 'vgg16', 'resnet18'"),
        (None, "imagenet", "name: got None"),
        ("resnet50", "mnist", "dataset: got 'mnist', expected 'cifar10' or 'imagenet' for 'resnet50'"),
        ("wrn_16_8", "imagenet", "dataset: got 'imagenet', expected 'cifar10' for 'wrn_16_8'"),
        ("wrn_50_2", "cifar10", "dataset: got 'cifar10', expected 'imagenet' for 'wrn_50_2'"),
    ],
)
def test_unknown_network(name, dataset, fragment):
    with pytest.raises(ValueError, match=fragment):
        network(name, dataset)


def test_pruning_is_imported_when_asked_for():
    assert sc.pruning.network is network
    assert "pruning" in dir(sc)
    with pytest.raises(AttributeError, match="no attribute 'prune'"):
        sc.prune  # noqa: B018
