"""The package as a whole: names, documentation, version, what an import costs and brings along."""

import ast
import inspect
import re
import subprocess
import sys
from importlib import metadata
from importlib.resources import files
from pathlib import Path

import pytest
from places import ROOT

import sparseconv as sc

DIMS = (1, 2, 3)
CONVOLUTIONS = {
    f"{base}{dims}d{rest}"
    for base in ("conv", "conv_transpose")
    for dims in DIMS
    for rest in ("", "_backward_data", "_backward_weight")
}
LINEAR = {"linear", "linear_backward_data", "linear_backward_weight"}
FUNCTIONS = sorted(CONVOLUTIONS | LINEAR | {"compress", "decompress", "get_include", "grad_bias", "plan", "prepare"})
MASKS = ("density", "nonzero_mask", "pack", "relu", "unpack", "vector_density")
PRUNING = (
    "SWAT", "GradientPruner", "Layer", "Method", "Pruned", "StochasticGradientPruning", "TopK", "TransposableNM",
    "channel_mask", "mask_diversity", "network", "nm_mask",
    "repair_weights", "sparsity_distribution", "stochastic_prune", "topk_mask", "topk_threshold", "training_flops",
    "transposable_nm_mask", "unstructured_to_nm",
)  # fmt: skip
CPU = ("available_isas", "isa", "num_threads", "set_num_threads", "threads", "use_isa", "use_threads")


def test_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+", sc.__version__)
    assert metadata.version("sparseconv") == sc.__version__


def test_typed():
    assert files("sparseconv").joinpath("py.typed").is_file()


PACKED = {"PackedWeight", "pack_weight"}


def test_public_names():
    """The contract: no name is missing, none is there by accident."""
    others = {"grad_bias", "plan", "Plan", "compress", "decompress", "CompressedArray", "masks", "pruning", "cpu"}
    others |= {"prepare", "PreparedCall", "Spikes", "pack_spikes", "get_include"}
    assert set(sc.__all__) == CONVOLUTIONS | LINEAR | PACKED | others
    assert list(sc.__all__) == sorted(sc.__all__)
    assert len(set(sc.__all__)) == len(sc.__all__)
    for name in sc.__all__:
        assert getattr(sc, name) is not None
    namespace = {}
    exec("from sparseconv import *", namespace)
    assert set(sc.__all__) <= set(namespace)


@pytest.mark.parametrize("name", sorted(sc.__all__))
def test_documentation(name):
    public = getattr(sc, name)
    text = inspect.getdoc(public)
    assert text
    assert len(text.splitlines()[0]) <= 120
    assert text.splitlines()[0].rstrip().endswith((".", ":"))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signatures_are_annotated(name):
    signature = inspect.signature(getattr(sc, name))
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter


def test_functions_of_one_kind_have_one_signature():
    """1d, 2d and 3d differ in nothing but the layout; the common options come in the same order everywhere."""
    for base in ("conv", "conv_transpose"):
        for rest in ("", "_backward_data", "_backward_weight"):
            signatures = [inspect.signature(getattr(sc, f"{base}{dims}d{rest}")).parameters for dims in DIMS]
            for other in signatures:
                assert list(other) == list(signatures[0])
                for name, parameter in other.items():
                    assert parameter.kind == signatures[0][name].kind
                    assert name == "layout" or parameter.default == signatures[0][name].default
            assert [one["layout"].default for one in signatures] == ["NCW", "NCHW", "NCDHW"]
            assert {"skip", "precision", "num_threads", "out"} <= set(signatures[0])


def test_modules():
    for name in MASKS:
        assert inspect.getdoc(getattr(sc.masks, name))
    for name in CPU:
        assert inspect.getdoc(getattr(sc.cpu, name))
    for name in PRUNING:
        assert inspect.getdoc(getattr(sc.pruning, name))
    assert sorted(sc.pruning.__all__) == sorted(PRUNING)
    assert sorted(sc.masks.__all__) == sorted(MASKS)


@pytest.mark.parametrize("name", ["data", "pruning", "reference", "typing"])
def test_modules_that_are_imported_later(name):
    """They are there after `import sparseconv`, which does not import them."""
    assert name in dir(sc)
    code = f"import sys, sparseconv; assert 'sparseconv.{name}' not in sys.modules; print(sparseconv.{name}.__name__)"
    assert run(code) == f"sparseconv.{name}\n"


def test_map_of_the_package():
    """The docstring of the package names every module, and no module that is not there."""
    package = Path(sc.__file__).parent
    files = (*package.iterdir(), *(package / "_core").iterdir())
    modules = {path.stem for path in files if path.suffix in (".py", ".pyx")}
    modules |= {path.name for path in package.iterdir() if path.is_dir() and list(path.glob("*.[ph]*"))}
    modules -= {"__init__", "__main__", "__pycache__"}
    named = set(re.findall(r"\b\w+\b", sc.__doc__))
    assert modules <= named, "modules that the docstring of sparseconv does not name"


def test_sources_have_docstrings():
    for path in Path(sc.__file__).parent.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        assert not source or ast.get_docstring(ast.parse(source)), path


def run(code):
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_import_is_light():
    """It brings NumPy, threadpoolctl and the standard library, and nothing that these do not bring themselves."""
    names = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    before, after = (set(run(f"import {what}; {names}").split()) for what in ("numpy, threadpoolctl", "sparseconv"))
    new = after - before - set(sys.stdlib_module_names)
    assert {name for name in new if not name.startswith(("_cython", "cython_runtime"))} == {"sparseconv"}


def test_import_is_quick():
    """On top of NumPy it loads its own modules and few of others, of which none is slow: counted, not timed."""
    code = "import sys, numpy; before = set(sys.modules); import sparseconv; print(*set(sys.modules) - before)"
    own, others = [], set()
    for name in run(code).split():
        own.append(name) if name.startswith("sparseconv") else others.add(name)
    assert len(own) <= 50, "0.2 to 1 ms each"
    assert len(others) <= 30  # NumPy has brought most of what is needed
    slow = {"argparse", "difflib", "subprocess", "email.message", "importlib.metadata", "json", "unittest"}
    late = {"sparseconv.reference", "sparseconv.pruning", "sparseconv.data", "sparseconv._startup", "sparseconv.typing"}
    assert not slow & others and not late & set(own)


def test_import_changes_nothing():
    """Neither warnings, nor signal handlers, nor NumPy's error state, nor the floating-point unit."""
    run(
        "import signal, warnings; import numpy as np\n"
        "def state():\n"
        "    handlers = [signal.getsignal(number) for number in sorted(signal.valid_signals())]\n"
        "    tiny = float(np.full(4, 1e-38, np.float32)[0] * np.float32(0.1))\n"
        "    return list(warnings.filters), handlers, np.geterr(), tiny\n"
        "before = state()\n"
        "import sparseconv\n"
        "assert state() == before and before[-1] > 0\n"
    )


@pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="needs the source tree")
def test_versions_agree():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == sc.__version__
    assert {re.match(r"[\w-]+", one).group() for one in project["dependencies"]} == {"numpy", "threadpoolctl"}
