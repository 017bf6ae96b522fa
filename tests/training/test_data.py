"""The bundled images are the documented subset; IDX files are read, or refused with the reason."""

import gzip
import zlib

import numpy as np
import pytest

from sparseconv import data

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
CHECKSUMS = [4129405758, 1924500295, 868809749, 2940515028]  # zlib.crc32 of the arrays drawn by data/README.md's rule


def idx(array):
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


@pytest.fixture
def arrays():
    rng = np.random.default_rng(1)
    shapes = ((6, 5, 4), (6,), (3, 5, 4), (3,))
    return tuple(rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes)


@pytest.fixture
def directory(tmp_path, arrays):
    for name, array in zip(NAMES, arrays, strict=True):
        (tmp_path / name).write_bytes(idx(array))
    return tmp_path


def test_bundled_subset():
    train_images, train_labels, test_images, test_labels = data.load()
    assert train_images.shape == (6000, 28, 28)
    assert test_images.shape == (1000, 28, 28)
    assert train_images.dtype == test_images.dtype == train_labels.dtype == test_labels.dtype == np.uint8
    assert np.bincount(train_labels).tolist() == [600] * 10
    assert np.bincount(test_labels).tolist() == [100] * 10
    checksums = [zlib.crc32(array.tobytes()) for array in (train_images, train_labels, test_images, test_labels)]
    assert checksums == CHECKSUMS


@pytest.mark.parametrize("compressed", [False, True])
def test_idx_files(directory, arrays, compressed):
    if compressed:
        for name in NAMES:
            path = directory / name
            path.with_name(f"{name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    for read, expected in zip(data.load(directory), arrays, strict=True):
        np.testing.assert_array_equal(read, expected)
        assert read.dtype == np.uint8


@pytest.mark.parametrize("name", NAMES)
def test_missing_file_is_named(directory, name):
    (directory / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        data.load(directory)


def test_missing_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.*train-images-idx3-ubyte"):
        data.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: b"\0\0\x08\x01" + content[4:], "bad magic number 2049, expected 2051"),
        (lambda content: content[:-1], "truncated, 135 bytes of 136"),
        (lambda content: content[:9], "truncated, 9 bytes of 16"),
        (lambda content: b"", "truncated, 0 bytes of 16"),
        (lambda content: content + b"\0", r"137 bytes, expected 136 for \(6, 5, 4\)"),
    ],
)
def test_bad_images(directory, damage, message):
    path = directory / NAMES[0]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"{NAMES[0]}: {message}"):
        data.load(directory)


def test_bad_labels(directory):
    path = directory / NAMES[3]
    path.write_bytes(b"\0\0\x08\x03" + path.read_bytes()[4:])
    with pytest.raises(ValueError, match=f"{NAMES[3]}: bad magic number 2051, expected 2049"):
        data.load(directory)


@pytest.mark.parametrize("damage", [lambda file: file[:-9], lambda file: b"no gzip", lambda file: b"\x1f\x8b"])
def test_damaged_gzip(directory, damage):
    path = directory / NAMES[0]
    path.with_name(f"{NAMES[0]}.gz").write_bytes(damage(gzip.compress(path.read_bytes())))
    path.unlink()
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz: damaged or truncated gzip"):
        data.load(directory)


def test_labels_must_match_images(directory):
    (directory / NAMES[1]).write_bytes(idx(np.zeros(7, np.uint8)))
    with pytest.raises(ValueError, match=f"{NAMES[1]}: 7 labels, but there are 6 images"):
        data.load(directory)
