"""The layers of ``sparseconv bench``: sets, networks, and layers as text."""

import re

import pytest

from sparseconv.benchmark.layers import NETWORKS, SETS, Layer, parse, select


@pytest.mark.parametrize("name", SETS)
def test_sets(name):
    layers = select([name])
    assert [str(layer) for layer in layers] == list(SETS[name])
    assert all(layer.problem(2).macs > 0 for layer in layers)


def test_all_is_the_union():
    assert set(SETS["all"]) == {text for name in ("vgg16", "resnet34", "resnet50") for text in NETWORKS[name]}
    assert len(set(SETS["all"])) == len(SETS["all"])


def resnet(blocks, bottleneck, width_of_first=64, groups=1):
    """Every convolution of a ResNet behind the first layer, built as the network is, stride in the 3x3 layers."""
    channels, size = 64, 56
    for stage, count in enumerate(blocks):
        width = width_of_first << stage
        out = 256 << stage if bottleneck else width
        for block in range(count):
            stride = 2 if stage and not block else 1
            behind = size // stride
            if stride > 1 or channels != out:
                yield Layer(channels, out, (size, size), (1, 1), stride)
            if bottleneck:
                yield Layer(channels, width, (size, size), (1, 1))
                yield Layer(width, width, (size, size), (3, 3), stride, groups=groups)
                yield Layer(width, out, (behind, behind), (1, 1))
            else:
                yield Layer(channels, width, (size, size), (3, 3), stride)
                yield Layer(width, width, (behind, behind), (3, 3))
            channels, size = out, behind


def vgg16():
    channels, first = 64, True
    for stage, (out, count) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]):
        for _ in range(count):
            if not first:
                yield Layer(channels, out, (224 >> stage,) * 2, (3, 3))
            channels, first = out, False


def mobilenet():
    channels, size = 32, 112
    widths = (64, 128, 128, 256, 256, *(512,) * 6, 1024, 1024)
    for number, out in enumerate(widths):
        stride = 2 if number in (1, 3, 5, 11) else 1
        yield Layer(channels, channels, (size, size), (3, 3), stride, groups=channels)
        size //= stride
        yield Layer(channels, out, (size, size), (1, 1))
        channels = out


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("vgg16", vgg16()), ("resnet34", resnet([3, 4, 6, 3], False)), ("resnet50", resnet([3, 4, 6, 3], True)),
        ("mobilenet", mobilenet()), ("resnext50", resnet([3, 4, 6, 3], True, 128, 32)),
    ],
)  # fmt: skip
def test_networks(name, network):
    counts = {}
    for layer in network:
        counts[str(layer)] = counts.get(str(layer), 0) + 1
    assert counts == NETWORKS[name]


@pytest.mark.parametrize(
    ("text", "layer", "out_size"),
    [
        ("64,128,56 3x3/2", Layer(64, 128, (56, 56), (3, 3), 2), (28, 28)),
        ("8,4,17x35 1x7", Layer(8, 4, (17, 35), (1, 7), padding=(0, 3)), (17, 35)),
        ("8,4,9 3x3 p0 d2 g4 n1", Layer(8, 4, (9, 9), (3, 3), 1, (0, 0), 2, 4, 1), (5, 5)),
        ("3,64,224 7x7/2", Layer(3, 64, (224, 224), (7, 7), 2, (3, 3)), (112, 112)),
    ],
)
def test_layer_text(text, layer, out_size):
    assert parse(text) == layer
    assert str(layer) == text
    assert layer.out_size == out_size


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("64,64 3x3", "got '64,64 3x3', expected \"IN,OUT,SIZE ROWSxCOLUMNS"),
        ("64,64,56 3x3 q2", "got '64,64,56 3x3 q2', expected"),
        ("0,64,56 3x3", "expected sizes of at least 1"),
        ("64,64,56 3x3/0", "expected sizes of at least 1"),
        ("64,64,56 3x3 n0", "expected a batch of at least 1"),
        ("64,64,56 3x3 g3", "expected channels that 3 groups divide"),
        ("64,64,2 5x5 p0", "whose kernel does not fit into the padded map"),
    ],
)
def test_wrong_layer_text(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse(text)


def test_select():
    texts = ["5,7,6 3x3", "18,20,4 1x1"]
    assert select(["prototype", *texts])[-2:] == [parse(text) for text in texts]
    assert len(select(["resnet34", "all"])) == len(SETS["all"])
    kernels = {layer.kernel_text for layer in select(["resnet50"], ["3x3"])}
    assert kernels == {"3x3"}
    assert [str(layer) for layer in select(["resnet34"], ["1x1/2", "0"])] == [
        "64,64,56 3x3", "64,128,56 1x1/2", "128,256,28 1x1/2", "256,512,14 1x1/2",
    ]  # fmt: skip
    assert {layer.stride for layer in select(["all"], ["/2"])} == {2}
    with pytest.raises(ValueError, match=r"layers: got 'alexnet', expected vgg16, .*, or \"IN,OUT"):
        select(["alexnet"])
    with pytest.raises(ValueError, match="only: got '3x', expected a kernel"):
        select(["vgg16"], ["3x"])
    with pytest.raises(ValueError, match="layers: none of vgg16 is 1x1 or /2"):
        select(["vgg16"], ["1x1", "/2"])
