"""The examples of the C interface are built as their users would, and run."""

import importlib.util
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec

import compiled
import numpy as np
import pytest
from places import KERNELS, ROOT

import sparseconv as sc

EXAMPLES = ROOT / "examples" / "extensions"
pytestmark = [
    pytest.mark.skipif(not EXAMPLES.exists(), reason="this source archive has no examples"),
    pytest.mark.skipif(not shutil.which(compiled.COMPILER[0]), reason="no compiler"),
]

RNG = np.random.default_rng(0)
X = RNG.integers(-3, 4, (4, 16, 9, 7)).astype(np.float32)
X[RNG.random(X.shape) < 0.6] = 0
W = RNG.integers(-3, 4, (20, 16, 3, 3)).astype(np.float32)


def built(name, folder):
    """The extension module of an example, built in a copy of it outside of the source tree."""
    if not find_spec("setuptools"):
        pytest.skip("setuptools is not installed")
    source = EXAMPLES / name.partition("_")[0]
    shutil.copytree(source, folder, dirs_exist_ok=True)
    environment = os.environ | {"CFLAGS": "-O1 -Wall -Wextra"}
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    (module,) = folder.glob(f"{name}*.so")
    spec = importlib.util.spec_from_file_location(name, module)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_cython(tmp_path):
    pytest.importorskip("Cython")
    layer = built("cython_layer", tmp_path)
    one = sc.prepare("conv2d", X[:1], W, padding=1)
    out = np.full((4, *one.shape[1:]), np.nan, np.float32)
    for threads in (1, 2):
        layer.convolve(one.capsule(), X, W, out, threads)
        np.testing.assert_array_equal(out, sc.conv2d(X, W, padding=1))
    with pytest.raises(ValueError, match="out: got 3 images, expected 4"):
        layer.convolve(one.capsule(), X, W, out[:3])
    with pytest.raises(ValueError, match="PyCapsule"):
        layer.convolve(one, X, W, out)
    with_bias = sc.prepare("conv2d", X[:1], W, W[:, 0, 0, 0], padding=1)
    with pytest.raises(ValueError, match="got status 3"):
        layer.convolve(with_bias.capsule(), X, W, out)
    values = np.random.default_rng(1).standard_normal(1000, np.float32)
    assert layer.kth_largest(values, 10) == np.sort(np.abs(values))[-10]


def test_plain_c(tmp_path):
    layer = built("capsule_layer", tmp_path)
    prepared = sc.prepare("conv2d", X, W, padding=1)
    out = np.full(prepared.shape, np.nan, np.float32)
    layer.convolve(prepared.capsule(), X, W, out, 2)
    np.testing.assert_array_equal(out, sc.conv2d(X, W, padding=1))
    assert layer.density(X) == np.count_nonzero(X) / X.size
    with pytest.raises(TypeError, match="expected float32"):
        layer.density(X.astype(float))


@pytest.mark.skipif(not (KERNELS / "isa/scalar.cpp").exists(), reason="needs the sources")
def test_without_python(tmp_path):
    """Vector kernels of this machine's family, as the extension has them, but for tile registers."""
    units = compiled.kernel_units(name for name in compiled.isa_flags() if name != "amx")
    units[KERNELS / "isa/scalar.cpp"].append("-O0")  # -O3 takes long
    checked = ["-std=c++17", "-O1", f"-I{KERNELS}", "-DSC_WITHOUT_AMX", "-Wall", "-Wextra", "-Werror"]
    for source in (*sorted((KERNELS / "runtime").glob("*.cpp")), EXAMPLES / "without_python/layers.cpp"):
        units[source] = checked
    objects = map(str, compiled.objects(units))
    program = tmp_path / "layers"
    subprocess.run([*compiled.COMPILER, *objects, "-pthread", "-ldl", "-o", str(program)], check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("exact") == 12 and "WRONG" not in done.stdout
