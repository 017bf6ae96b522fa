"""Damaged and hostile files: an error that names the file, or arrays of a size that the file explains. Never a crash, a
hang or a large allocation, never code that a file brings.

Files are valid ones with mutations of fixed seeds, and some that lie with care. One file: all readers meet the same
mutations.
"""

import contextlib
import gzip
import io
import json
import pickle
import sys
import tracemalloc
import zipfile

import network_packages
import numpy as np
import pytest

from sparseconv import data
from sparseconv.benchmark import activations
from sparseconv.benchmark.layers import parse
from sparseconv.benchmark.networks import hdf5_file, ncnn_file, onnx_file
from sparseconv.benchmark.operands import PASSES, random_operands
from sparseconv.formats import compressed_tensors

MUTANTS = 150  # of each kind of file
MOST_MEMORY = 48 << 20  # for files of some KB


@contextlib.contextmanager
def little_memory():
    """NumPy and Python tell tracemalloc of what they allocate, touched or not."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MOST_MEMORY, f"{peak / 1e6:.0f} MB were allocated"


def refused(read, path, kinds=(ValueError,)):
    """The error with which a file is refused, or None. It names the file."""
    with little_memory():
        try:
            read(path)
        except kinds as error:
            assert path.name in str(error), f"which file? {error}"
            assert len(str(error)) < 2000
            return error
    return None


def mutant(content, seed):
    """The bytes with some changes: other bytes, extreme numbers, parts that are cut, doubled or swapped."""
    rng, content = np.random.default_rng(seed), bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        if not content:
            break
        at, kind = int(rng.integers(len(content))), rng.integers(6)
        if rng.random() < 0.5:  # where headers are
            at = min(at, int(rng.integers(400)))
        length = int(rng.integers(1, 40))
        if kind == 0:
            content[at] = int(rng.integers(256))
        elif kind == 1:
            content[at] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            extreme = rng.choice([b"\xff" * 4, b"\x7f" + b"\xff" * 7, b"\x00" * 4, b"9" * 12, b"-1", b"1e9"])
            content[at : at + len(extreme)] = extreme
        elif kind == 3:
            del content[at : at + length if rng.random() < 0.7 else None]
        elif kind == 4:
            content[at:at] = content[at : at + length]
        else:
            other = int(rng.integers(len(content)))
            content[at : at + length], content[other : other + length] = (
                content[other : other + length], content[at : at + length],
            )  # fmt: skip
    return bytes(content)


def mutants(content, read, path, *, again=lambda content: content, kinds=(ValueError,)):
    """Tries them all, each packed by `again`; returns the share that is refused."""
    count = 0
    for seed in range(MUTANTS):
        path.write_bytes(again(mutant(content, seed)))
        count += refused(read, path, kinds) is not None
    return count / MUTANTS


# --- images: IDX files, gzipped or not ---

IDX = "train-images-idx3-ubyte"


def idx(*sizes, content=None):
    content = (np.arange(np.prod(sizes)) % 251).astype(np.uint8).tobytes() if content is None else content
    return bytes([0, 0, 8, len(sizes)]) + b"".join(size.to_bytes(4, "big") for size in sizes) + content


@pytest.fixture
def images(tmp_path):
    """A folder with the other three files."""
    for name, sizes in (
        ("train-labels-idx1-ubyte", (40,)), ("t10k-images-idx3-ubyte", (5, 9, 8)), ("t10k-labels-idx1-ubyte", (5,)),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(idx(*sizes))
    return tmp_path


def read_images(path):
    train, labels, *_ = data.load(path.parent)
    assert len(train) == len(labels)


@pytest.mark.parametrize("kind", ["plain", "gzip", "in gzip"])
def test_mutants_of_images(images, kind):
    content, path = idx(40, 9, 8), images / (IDX if kind == "plain" else f"{IDX}.gz")
    path.write_bytes(content if kind == "plain" else gzip.compress(content))
    assert refused(read_images, path) is None
    again = gzip.compress if kind == "in gzip" else lambda content: content
    share = mutants(gzip.compress(content) if kind == "gzip" else content, read_named(IDX), path, again=again)
    assert 0.3 < share <= 1


def read_named(name):
    """Errors about labels that do not match name the file of the labels: that is no reason to fail."""

    def read(path):
        try:
            read_images(path)
        except ValueError as error:
            if "labels, but there are" in str(error):
                raise ValueError(f"{path}: {error}") from error
            raise

    return read


@pytest.mark.parametrize("sizes", [(2**32 - 1,) * 3, (2**31, 1, 1), (60000, 28, 2**20), (1, 2**16, 2**15)])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_sizes_that_lie(images, sizes, pack):
    path = images / (IDX if pack is bytes else f"{IDX}.gz")
    path.write_bytes(pack(idx(*sizes, content=bytes(100))))
    assert refused(read_images, path)


def test_gzip_that_expands(images):
    """200 MB in 200 KB, of which the header says that they are 40 images: no more than these are unpacked."""
    path = images / f"{IDX}.gz"
    path.write_bytes(gzip.compress(idx(40, 9, 8) + bytes(200 << 20), 6))
    assert path.stat().st_size < 1 << 20
    assert "expected 2896" in str(refused(read_images, path))


# --- activations: .npz ---


@pytest.fixture
def recorded(tmp_path):
    """The entries of a valid file, and where to write others."""
    operands = random_operands(parse("5,7,6 3x3"), {"input": 0.5}, batch=2, layout="NHWC")
    path = tmp_path / "recorded.npz"
    activations.save([activations.Saved("conv1", operands, PASSES)], path)
    with zipfile.ZipFile(path) as archive:
        return path, {name: archive.read(name) for name in archive.namelist()}


def zipped(entries, compression=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file.getvalue()


def npy(dtype, shape, content=b"", version=1):
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}".encode("latin1") + b"\n"
    length = len(header).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + content


def test_mutants_of_archives(recorded):
    path, entries = recorded
    for content in (path.read_bytes(), zipped(entries, zipfile.ZIP_STORED)):
        assert 0.3 < mutants(content, activations.load, path) <= 1


@pytest.mark.parametrize("name", ["layer", "passes", "input", "weight", "grad_output"])
def test_mutants_of_entries(recorded, name):
    """In an archive that is in order."""
    path, entries = recorded
    name = f"conv1/{name}.npy"
    share = mutants(
        entries[name], activations.load, path, again=lambda content: zipped(entries | {name: content}),
    )  # fmt: skip
    assert 0.2 < share < 1


class Evil:
    """What a pickle would run."""

    ran = False

    def __reduce__(self):
        return setattr, (Evil, "ran", True)


def objects(value):
    file = io.BytesIO()
    np.save(file, np.array([value], object), allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize(
    "change",
    [
        {"input": npy("<f4", (2**40, 6, 6, 5))},
        {"input": npy("<f4", (2**62, 2**62, 6, 5))},
        {"input": npy("<f4", (-2, 6, 6, 5))},
        {"input": npy("<f4", (2, 6, 6, 5))},  # nothing behind the header
        {"input": npy("|O", (2, 6, 6, 5))},
        {"input": npy("<f4", (2, 6, 6, 5), b"\0" * 1440, version=3)},
        {"input": npy("<U99999999", (1,))},
        {"input": b"no array"},
        {"input": b""},
        {"input": b"\x93NUMPY\x01\x00\xff\xff" + b"{" * 65535},
        {"layer": npy("<U1000000000", (1,))},
        {"layer": npy("<U4", (2**40,))},
        {"layer": npy("<f8", (), bytes(8))},
        {"layer": npy("<U6", (), "5,7,6 ".encode("utf-32-le"))},
        {"layer": npy("<U30", (), "99999999999,99999999999,6 3x3 ".encode("utf-32-le"))},
        {"passes": npy("<f8", (3,), bytes(24))},
        {"passes": npy("<U100000", (3,), bytes(1_200_000))},
        {"layer": objects(Evil())}, {"passes": objects(Evil())}, {"input": objects(Evil())},
        {"weight": pickle.dumps(Evil())},
    ],
    ids=lambda change: f"{next(iter(change))} {next(iter(change.values()))[10:60]!r}",
)  # fmt: skip
def test_entries_that_lie(recorded, change):
    path, entries = recorded
    path.write_bytes(zipped(entries | {f"conv1/{name}.npy": content for name, content in change.items()}))
    assert refused(activations.load, path)
    assert not Evil.ran


def test_archives_that_expand(recorded):
    """A long input in a small file, which its layer does not explain; and sizes in the archive that lie."""
    path, entries = recorded
    many = npy("<f4", (300_000, 6, 6, 5), bytes(4 * 300_000 * 180))
    path.write_bytes(zipped(entries | {"conv1/input.npy": many}))
    del many
    assert path.stat().st_size < 1 << 20
    assert "conv1/grad_output of float32" in str(refused(activations.load, path))
    content = bytearray(zipped(entries))
    at = content.rindex(b"PK\x01\x02", 0, content.index(b"conv1/input.npy", content.index(b"PK\x01\x02")))
    content[at + 24 : at + 28] = (2**32 - 2).to_bytes(4, "little")
    path.write_bytes(content)
    assert refused(activations.load, path)


@pytest.mark.parametrize("flag", ["encrypted", "method"])
def test_archives_of_another_kind(recorded, flag):
    path, entries = recorded
    content = bytearray(zipped(entries))
    for magic, bits, method in ((b"PK\x03\x04", 6, 8), (b"PK\x01\x02", 8, 10)):
        at = -1
        while (at := content.find(magic, at + 1)) >= 0:
            if flag == "encrypted":
                content[at + bits] |= 1
            else:
                content[at + method] = 99
    path.write_bytes(content)
    assert refused(activations.load, path)


# --- weights: safetensors with bit masks ---


@pytest.fixture
def weights(tmp_path):
    pytest.importorskip("safetensors")
    path = tmp_path / "weights.safetensors"
    compressed_tensors.save(path, {"w": np.eye(40, dtype=np.float32), "dense": np.ones((3, 3))})
    return path


def test_mutants_of_weights(weights):
    share = mutants(weights.read_bytes(), compressed_tensors.load, weights, kinds=(ValueError, TypeError))
    assert 0.3 < share < 1


def tensors(header, size=0):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(size)


@pytest.mark.parametrize(
    "content",
    [
        (2**63 - 1).to_bytes(8, "little") + b"{}",
        (2**40).to_bytes(8, "little") + b"{}",
        tensors({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
        tensors({"w": {"dtype": "F32", "shape": [2**33, 2**33], "data_offsets": [0, 16]}}, 16),
        tensors({"w": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}}, 16),
        tensors({"w": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}}, 16),
        tensors({"w": {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]}}, 16),
        tensors({"w": {"dtype": "F99", "shape": [4], "data_offsets": [0, 16]}}, 16),
        tensors({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
                 "v": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]}}, 24),
        tensors({"w": 1}),
        tensors([]),
    ],
    ids=range(11),
)  # fmt: skip
def test_offsets_that_lie(weights, content):
    weights.write_bytes(content)
    assert refused(compressed_tensors.load, weights)


@pytest.mark.parametrize("shape", [(2**40, 8), (2**62, 2**62), (0, -1), (2, 4, 2)])
def test_shapes_that_lie(weights, shape):
    """Those of bit masks, which safetensors does not know."""
    safetensors = pytest.importorskip("safetensors.numpy")
    parts = compressed_tensors.compress({"w": np.eye(16, dtype=np.float32)})
    safetensors.save_file(parts | {"w.shape": np.array(shape, np.int64)}, weights)
    assert refused(compressed_tensors.load, weights)


# --- samples of torch-report: .npy ---


@pytest.mark.parametrize(
    "content",
    [
        npy("<f4", (2**40, 3)), npy("<f4", (4, 3)), npy("|O", (1,)), objects(Evil()), pickle.dumps(Evil()),
        npy("<U4", (1,), bytes(16)), npy("<c16", (-1,), bytes(16)), b"", b"text",
    ],
    ids=range(9),
)  # fmt: skip
def test_samples_that_lie(tmp_path, content):
    pytest.importorskip("torch")
    from sparseconv.torch.command import load_sample

    path = tmp_path / "sample.npy"
    np.save(path, np.ones((2, 3), np.float32))
    assert load_sample(str(path), False).shape == (2, 3)
    path.write_bytes(content)
    assert refused(lambda path: load_sample(str(path), False), path)
    assert not Evil.ran


# --- trained networks: HDF5, ncnn, ONNX (what lies with care: tests/benchmark/test_network_files.py) ---


def test_mutants_of_hdf5(tmp_path):
    pytest.importorskip("h5py")
    path = tmp_path / "weights.h5"
    network_packages.write_hdf5(path, network_packages.hed_arrays())
    assert 0.3 < mutants(path.read_bytes(), hdf5_file.read, path) < 1


@pytest.mark.parametrize("half", [True, False])
def test_mutants_of_ncnn(tmp_path, half):
    param, bin = tmp_path / "net.param", tmp_path / "net.bin"
    text, weights = network_packages.ncnn_files(half=half)
    param.write_bytes(text)
    assert 0.1 < mutants(weights, lambda path: ncnn_file.read(param, path), bin) < 1
    bin.write_bytes(weights)

    def read(path):
        """Weights that do not fit the text: the error names their file."""
        try:
            ncnn_file.read(path, bin)
        except ValueError as error:
            assert path.name in str(error) or bin.name in str(error)
            raise ValueError(f"{path}: {error}") from error

    assert 0.3 < mutants(text, read, param) < 1


def test_mutants_of_onnx(tmp_path):
    pytest.importorskip("onnx")
    path = tmp_path / "net.onnx"
    assert 0.2 < mutants(network_packages.onnx_model().SerializeToString(), onnx_file.read, path) < 1


# --- these tests ---


def test_a_large_allocation_is_found():
    with pytest.raises(AssertionError, match="MB were allocated"), little_memory():
        np.empty(MOST_MEMORY + 1000, np.uint8)
    assert not tracemalloc.is_tracing()


def test_a_pickle_would_run():
    """If it were read: what is refused above is what it says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evil, "ran", False)
        patch.setitem(sys.modules, Evil.__module__, sys.modules[__name__])
        pickle.loads(pickle.dumps(Evil()))
        assert Evil.ran
