"""What is written about the code is true of it: examples run, files exist, stubs have the names and parameters."""

import ast
import doctest
import importlib
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from places import ROOT

import sparseconv

PACKAGE = Path(sparseconv.__file__).parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = ROOT / "docs" / "architecture.md"
PRUNING = [
    f"pruning.{name}" for name in ("diversity", "methods.method", "nm", "repair", "stochastic", "topk", "transposable")
]


def blocks(text):
    """The Python examples of a document."""
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


BLOCKS = blocks(README)


def test_readme_has_examples():
    assert len(BLOCKS) >= 2


def run_jax_example(source):
    """Runs an example that ends with the gradients of a sum, in a process of its own: JAX wants no forks after it."""
    if not find_spec("jax"):
        pytest.skip("jax is not installed")
    check = """
import numpy as np, sparseconv as sc
x, weight, options = np.asarray(x), np.asarray(weight), {"padding": "same", "layout": "NHWC"}
ones = np.ones((2, 8, 8, 32), np.float32)
np.testing.assert_array_equal(grad_x, sc.conv2d_backward_data(ones, weight, x.shape, **options))
np.testing.assert_array_equal(grad_weight, sc.conv2d_backward_weight(x, ones, 3, **options))
"""
    done = subprocess.run([sys.executable, "-c", source + check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_readme_example(number, capsys):
    source = BLOCKS[number]
    if "import torch" in source:
        pytest.importorskip("torch")
    if "import jax" in source:
        run_jax_example(source)
        return
    exec(compile(source, f"README.md, example {number}", "exec"), {"__name__": "example"})


@pytest.mark.parametrize(("document", "least"), [("pruning.md", 4), ("frameworks.md", 3)])
def test_examples_of_pages(document, least):
    """They go on where the one before stopped."""
    path = ROOT / "docs" / document
    if not path.exists():
        pytest.skip("this source archive has no docs")
    names = {"__name__": "example"}
    sources = blocks(path.read_text(encoding="utf-8"))
    assert len(sources) >= least
    for number, source in enumerate(sources):
        if "import torch" in source:
            pytest.importorskip("torch")
        if "import jax" in source:
            run_jax_example(source)
            continue
        exec(compile(source, f"{document}, example {number}", "exec"), names)


@pytest.mark.parametrize("command", ["pip install . && sparseconv train", "pip install -e '.[test]' && pytest"])
def test_readme_command(command):
    assert command in README.splitlines()


def test_readme_names_are_public():
    """Every `sc.name` of the README exists; every public function is covered by one of its names or patterns."""
    for name in set(re.findall(r"\bsc\.([a-z_0-9.]+[a-z_0-9])", README)):
        part = sparseconv
        for word in name.split("."):
            part = getattr(part, word)
    shown = {name for short in re.findall(r"`([a-zA-Z_0-9{,}\[\]]+)`", README) for name in expanded(short)}
    assert set(sparseconv.__all__) - shown == set()


def expanded(text):
    """The names that a pattern stands for: a{1,2}b is a1b and a2b, a[_b] is a and a_b."""
    match = re.search(r"\{([^}]*)\}|\[([^\]]*)\]", text)
    if not match:
        return [text]
    choices = match[1].split(",") if match[1] is not None else ["", match[2]]
    return [name for one in choices for name in expanded(text[: match.start()] + one + text[match.end() :])]


@pytest.mark.parametrize(
    "document",
    [
        "README.md",
        "docs/architecture.md",
        "docs/numbers.md",
        "docs/pruning.md",
        "docs/frameworks.md",
        "docs/distributed.md",
        "bench/README.md",
    ],
)
def test_named_files_exist(document):
    """Every file in backquotes is there, named from the root, from the package, or by its last part alone."""
    if not (ROOT / document).exists():
        pytest.skip("this source archive has no docs")
    text = (ROOT / document).read_text(encoding="utf-8")
    names = set(re.findall(r"`([\w./]+\.(?:py|pyx|pxd|pyi|h|cpp|toml|md|npz))`", text))
    known = {path.name for folder in (PACKAGE, ROOT / "tests", ROOT / "bench") for path in folder.rglob("*")}
    missing = [
        name for name in names
        if not (any((folder / name).exists() for folder in (ROOT, PACKAGE)) or ("/" not in name and name in known))
    ]  # fmt: skip
    assert not missing


@pytest.mark.parametrize("name", ["compressed", "conv", "cpu", "planning", "pruning", *PRUNING])
def test_docstring_examples(name):
    done = doctest.testmod(importlib.import_module(f"sparseconv.{name}"))
    assert done.attempted > 0
    assert done.failed == 0


def stub_functions(path):
    """{name: parameters} of a stub; methods as Class.method."""
    found = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        for name, one in functions(node):
            found[name] = [argument.arg for argument in one.args.args + one.args.kwonlyargs]
    return found


def functions(node):
    if isinstance(node, ast.FunctionDef):
        yield node.name, node
    elif isinstance(node, ast.ClassDef):
        for inner in node.body:
            if isinstance(inner, ast.FunctionDef):
                yield f"{node.name}.{inner.name}", inner


def cython_functions(path):
    """The same of a .pyx: its Python functions, methods and readonly attributes."""
    found, owner = {}, ""
    line = re.compile(r"^(?:cdef class (\w+):|( *)def (\w+)\(([^)]*)\):|    cdef readonly \w+ (\w+))", re.MULTILINE)
    for match in line.finditer(path.read_text(encoding="utf-8")):
        kind, indent, name, parameters, attribute = match.groups()
        if kind:
            owner = kind
        elif attribute:
            found[f"{owner}.{attribute}"] = ["self"]
        elif name not in ("__cinit__", "__dealloc__"):  # of structs, not of Python
            words = [one.split("=")[0].replace(" not None", "").split() for one in parameters.split(",")]
            found[f"{owner}.{name}" if indent else name] = [one[-1] for one in words if one and one != ["*"]]
    return found


@pytest.mark.parametrize("module", ["_conv", "_cpu", "_groups", "_masks", "_pruning", "_weights"])
def test_stubs(module):
    source = ROOT / "sparseconv" / f"{module}.pyx"
    assert stub_functions(source.with_suffix(".pyi")) == cython_functions(source)
