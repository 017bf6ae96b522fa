"""Files of compressed-tensors: what is written and read, against that package, and what damaged files do."""

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseconv.formats import compressed_tensors as ct

SHAPES = [(7,), (5, 8), (3, 17), (8, 4, 3, 3), (2, 3, 4, 5, 6), (4, 0, 3, 3), (1, 1)]


def weights(density=0.3):
    rng = np.random.default_rng(0)
    return {
        f"layer{i}.weight": np.where(rng.random(shape) < density, rng.integers(1, 9, shape), 0).astype(np.float32)
        for i, shape in enumerate(SHAPES)
    }


def equal(got, expected):
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert got[name].dtype == array.dtype
        np.testing.assert_array_equal(got[name], array)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_round_trip(order, dtype):
    given = {name: np.asarray(array, dtype, order=order) for name, array in weights().items()}
    equal(ct.decompress(ct.compress(given)), given)


def test_the_bits_and_values_by_hand():
    weight = np.zeros((2, 10), np.float32)
    weight[0, 0], weight[0, 9], weight[1, 3] = 5, -6, np.nan
    tensors = ct.compress({"w": weight})
    assert list(tensors) == ["w.shape", "w.compressed", "w.bitmask", "w.row_offsets"]
    np.testing.assert_array_equal(tensors["w.shape"], [2, 10])
    np.testing.assert_array_equal(tensors["w.compressed"], np.float32([5, -6, np.nan]))
    np.testing.assert_array_equal(tensors["w.bitmask"], [[1, 2], [8, 0]])
    np.testing.assert_array_equal(tensors["w.row_offsets"], [0, 2])


def test_files(tmp_path):
    pytest.importorskip("safetensors")
    given = weights() | {"dense.weight": np.ones((4, 4), np.float32), "steps": np.array(3), "bias": np.zeros(0)}
    ct.save(tmp_path / "model.safetensors", given)
    equal(ct.load(tmp_path / "model.safetensors"), given)
    dense = sum(array.nbytes for array in given.values())
    assert (tmp_path / "model.safetensors").stat().st_size - 4000 < dense
    big = {"w": np.eye(512, dtype=np.float32)}
    ct.save(tmp_path / "big.safetensors", big)
    assert (tmp_path / "big.safetensors").stat().st_size < big["w"].nbytes / 20
    equal(ct.load(tmp_path / "big.safetensors"), big)


PEER = """
import json, sys
import numpy as np
from compressed_tensors.compressors.sparse_compressors.sparse_bitmask import BitmaskTensor
from compressed_tensors.compressors.sparse_compressors.sparse_24_bitmask import Sparse24BitMaskTensor
from safetensors.torch import load_file, save_file
import torch

theirs, ours, folder = {}, load_file(sys.argv[1]), sys.argv[2]
names = [name.removesuffix(".bitmask") for name in ours if name.endswith(".bitmask")]
for name in names:
    parts = {part: ours[f"{name}.{part}"] for part in ("compressed", "bitmask", "row_offsets")}
    dense = BitmaskTensor(shape=ours[f"{name}.shape"].tolist(), **parts).decompress()
    again = BitmaskTensor.from_dense(dense)
    for part, tensor in again.dict(name).items():
        assert torch.equal(tensor, ours[part]), part
    theirs |= again.dict(name)
pairs = torch.arange(1.0, 65.0).reshape(4, 16) * torch.tensor([1.0, 0, 0, 1] * 4)
theirs |= {name: tensor for name, tensor in Sparse24BitMaskTensor.from_dense(pairs).dict("pairs").items()}
save_file(theirs, folder + "/theirs.safetensors")
save_file({"pairs": pairs}, folder + "/pairs.safetensors")
"""


def test_what_compressed_tensors_writes_and_reads(tmp_path):
    """0.14.0 is the last one that has a compressor."""
    safetensors = pytest.importorskip("safetensors.numpy")
    try:
        if version("compressed-tensors") != "0.14.0":
            pytest.skip("needs compressed-tensors 0.14.0")
    except PackageNotFoundError:
        pytest.skip("needs compressed-tensors 0.14.0")
    given = {name: array for name, array in weights().items() if array.ndim >= 2}
    safetensors.save_file(ct.compress(given), tmp_path / "ours.safetensors")
    command = [sys.executable, "-c", PEER, str(tmp_path / "ours.safetensors"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    read = ct.load(tmp_path / "theirs.safetensors")
    np.testing.assert_array_equal(read.pop("pairs"), safetensors.load_file(tmp_path / "pairs.safetensors")["pairs"])
    equal(read, given)


def test_a_pruned_weight_can_be_packed():
    import sparseconv as sc

    weight = weights()["layer3.weight"]
    packed = sc.pack_weight(ct.decompress(ct.compress({"w": weight}))["w"])
    x = np.ones((1, 4, 6, 6), np.float32)
    np.testing.assert_array_equal(sc.conv2d(x, packed), sc.conv2d(x, weight))


def parts():
    return ct.compress({"w": np.eye(20, dtype=np.float32)[-4:]})


@pytest.mark.parametrize(
    "change, words",
    [
        ({"w.compressed": None}, r"w: got a bit mask without compressed"),
        ({"w.shape": None, "w.compressed": None}, r"w: got a bit mask without shape and compressed"),
        ({"w.shape": np.array([4, 19])}, r"w.bitmask: got bits behind the last of 19"),
        ({"w.shape": np.array([4, 2**60])}, r"w.bitmask: got uint8 \(4, 3\), expected uint8 \(4, "),
        ({"w.shape": np.array([2**62, 20])}, r"w.bitmask: got"),
        ({"w.shape": np.array([-4, 20])}, r"w.shape: got \[-4, 20\]"),
        ({"w.shape": np.array([4.0, 20.0])}, r"w.shape: got"),
        ({"w.shape": np.array([], np.int64)}, r"w.shape: got \[\]"),
        ({"w.shape": np.ones(1000, np.int64)}, r"w.shape: got .{0,60}, expected 1 to 8 sizes"),
        ({"w.compressed": np.ones(3, np.float32)}, r"w.compressed: got 3 values, expected 4"),
        ({"w.compressed": np.ones(5, np.float32)}, r"w.compressed: got 5 values, expected 4"),
        ({"w.bitmask": np.zeros((4, 3), np.int8)}, r"w.bitmask: got int8"),
        ({"w.bitmask": np.full((4, 3), 255, np.uint8)}, r"w.bitmask: got bits behind the last of 20"),
    ],
    ids=str,
)
def test_parts_that_do_not_fit(change, words):
    tensors = {name: tensor for name, tensor in (parts() | change).items() if tensor is not None}
    with pytest.raises(ValueError, match=words):
        ct.decompress(tensors)


@pytest.mark.parametrize(
    "value, error", [(np.float32(1), ValueError), (np.ones(3, np.int32), TypeError), ([1.0, 0.0], TypeError)], ids=str
)
def test_weights_that_are_none(value, error):
    with pytest.raises(error, match=r"^w: got"):
        ct.compress({"w": value})


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    pytest.importorskip("safetensors")
    path = tmp_path_factory.mktemp("formats") / "model.safetensors"
    ct.save(path, weights())
    return path, path.read_bytes()


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_files_are_errors_or_weights_of_their_size(written, data):
    path, content = written
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.sampled_from([len(content), len(content) // 2, 9, 0]))]
    path.with_name("damaged").write_bytes(damaged)
    try:
        read = ct.load(path.with_name("damaged"))
    except (ValueError, TypeError) as error:
        assert str(error)
    else:
        assert sum(array.size for array in read.values()) <= 8 * len(content)


def test_types_that_numpy_lacks_and_missing_files(tmp_path):
    pytest.importorskip("safetensors")
    header = json.dumps({"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "bf16").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    # In a process of its own: NumPy knows the type once somebody has imported ml_dtypes, as JAX does.
    script = "from sparseconv.formats import compressed_tensors as ct; ct.load('bf16')"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert "TypeError: bf16: got a tensor of a type that NumPy does not have" in done.stderr
    with pytest.raises(FileNotFoundError):
        ct.load(tmp_path / "nothing")


def test_without_safetensors_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match=r"pip install 'sparseconv\[formats\]'"):
        ct.load(tmp_path / "model")
