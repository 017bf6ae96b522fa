"""What is written about the code is true of it: examples run, files exist, stubs have the names and parameters."""

import ast
import doctest
import importlib
import inspect
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
DOCS = ROOT / "docs"
HAS_DOCS = pytest.mark.skipif(not DOCS.exists(), reason="this source archive has no docs")
PAGES = sorted(f"docs/{path.name}" for path in DOCS.glob("*.md"))
DOCUMENTS = ["README.md", "CONTRIBUTING.md", *PAGES, "bench/README.md", "sparseconv/kernels/README.md"]
PRUNING = [
    f"pruning.{name}" for name in ("diversity", "methods.method", "nm", "repair", "stochastic", "topk", "transposable")
]


def blocks(text):
    """The Python examples of a document."""
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


BLOCKS = blocks(README)
EXAMPLES = {"docs/api.md": 1, "docs/semantics.md": 2, "docs/pruning.md": 4, "docs/frameworks.md": 6}  # at least


def test_readme_has_examples():
    assert len(BLOCKS) >= 3


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


@HAS_DOCS
@pytest.mark.parametrize("document", PAGES)
def test_examples_of_pages(document):
    """They go on where the one before stopped."""
    names = {"__name__": "example"}
    sources = blocks((ROOT / document).read_text(encoding="utf-8"))
    assert len(sources) >= EXAMPLES.get(document, 0)
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


@pytest.mark.parametrize("document", DOCUMENTS)
def test_names_are_public(document):
    """Every `sc.name` exists."""
    if not (ROOT / document).exists():
        pytest.skip("this source archive has no docs")
    text = re.sub(r"\]\([^)]*\)", "]", (ROOT / document).read_text(encoding="utf-8"))
    for name in {name for short in re.findall(r"\bsc\.([\w.{,}]*[\w}])", text) for name in expanded(short)}:
        part = sparseconv
        for word in name.split("."):
            part = getattr(part, word)


@HAS_DOCS
def test_api_is_whole():
    """docs/api.md has every public function of all modules, and every option of those that are called with arrays."""
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    shown = {name for short in re.findall(r"`([\w.{,}]+)(?:\([^`]*)?`", text) for name in expanded(short)}
    public = {*sparseconv.__all__}
    public |= {f"masks.{name}" for name in sparseconv.masks.__all__}
    public |= {
        f"cpu.{name}"
        for name, one in vars(sparseconv.cpu).items()
        if name[0] != "_" and getattr(one, "__module__", "") == "sparseconv.cpu" and name != "checked_threads"
    }
    for module, prefix in (("pruning", ""), ("torch", "sct."), ("jax", "scj.")):
        public |= {prefix + name for name in exported(PACKAGE / module / "__init__.py")}
    assert public - shown - {"cpu", "masks", "pruning"} == set()
    options = {
        parameter.name
        for function in (getattr(sparseconv, name) for name in sparseconv.__all__ if re.match("conv|linear|grad", name))
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    assert {"skip", "output_padding"} <= options
    assert {name for name in options if not re.search(rf"`{name}`|\b{name}=", text)} == set()


def exported(path):
    """The names of `__all__`, from the source: frameworks need not be installed."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return ast.literal_eval(node.value)
    raise AssertionError(f"{path} has no __all__")


def expanded(text):
    """The names that a pattern stands for: a{1,2}b is a1b and a2b."""
    match = re.search(r"\{([^}]*)\}", text)
    if not match:
        return [text]
    return [name for one in match[1].split(",") for name in expanded(text[: match.start()] + one + text[match.end() :])]


@HAS_DOCS
def test_index_has_all_pages():
    text = (DOCS / "index.md").read_text(encoding="utf-8")
    assert {page for page in PAGES if f"({page.removeprefix('docs/')})" not in text} == {"docs/index.md"}


def anchors(text):
    """The names by which headings are linked, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@HAS_DOCS
def test_links():
    """Files and headings that are linked within the repository are there."""
    links, missing = 0, []
    for document in DOCUMENTS:
        for link in re.findall(r"\]\(([^)\s:]+)\)", (ROOT / document).read_text(encoding="utf-8")):
            path, _, heading = link.partition("#")
            target = (ROOT / document).parent / path if path else ROOT / document
            there = target.exists() and (not heading or heading in anchors(target.read_text(encoding="utf-8")))
            links += 1
            missing += [] if there else [(document, link)]
    assert links > 30
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_files_exist(document):
    """Every file in backquotes is there, named from the root, the package, the page, or by its last part alone."""
    if not (ROOT / document).exists():
        pytest.skip("this source archive has no docs")
    text = (ROOT / document).read_text(encoding="utf-8")
    names = set(re.findall(r"`([\w./]+\.(?:py|pyx|pxd|pyi|h|cpp|toml|md|npz))`", text))
    folders = PACKAGE, ROOT / "tests", ROOT / "bench", ROOT / "examples"
    known = {path.name for folder in folders for path in folder.rglob("*")}
    starts = ROOT, PACKAGE, (ROOT / document).parent
    there = {name for name in names if name in known or any((start / name).exists() for start in starts)}
    assert names - there == set()


@pytest.mark.parametrize("name", ["compressed", "conv", "cpu", "planning", "pruning", *PRUNING])
def test_docstring_examples(name):
    done = doctest.testmod(importlib.import_module(f"sparseconv.{name}"))
    assert done.attempted > 0
    assert done.failed == 0


@pytest.mark.parametrize("name", [name for name in sparseconv.__all__ if callable(getattr(sparseconv, name))])
def test_parameters_are_documented(name):
    """Functions whose docstring has a list of parameters have all of them there."""
    function = getattr(sparseconv, name)
    text = inspect.getdoc(function)
    assert text
    if "Parameters\n-----" in text:
        section = re.split(r"\n\n\w+(?: \w+)?\n-+\n", text.partition("Parameters\n-----")[2])[0]
        heads = [line.partition(" : ")[0] for line in section.splitlines() if re.match(r"[\w*]", line)]
        documented = {word.strip("* ") for head in heads for word in head.split(",")}
        assert set(inspect.signature(function).parameters) == documented


def stub_functions(path):
    """{name: parameters} of a stub; methods as Class.method."""
    found = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        for name, one in functions(node):
            keywords = [f"**{one.args.kwarg.arg}"] if one.args.kwarg else []
            found[name] = [argument.arg for argument in one.args.args + one.args.kwonlyargs] + keywords
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
    kinds = r"cdef class (\w+)(?:\(\w+\))?:", r"( *)def (\w+)\(([^)]*)\):", r"    cdef readonly \w+ (\w+)"
    line = re.compile(f"^(?:{'|'.join(kinds)})", re.MULTILINE)
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


@pytest.mark.parametrize("module", ["_conv", "_cpu", "_masks", "_prepared", "_pruning", "_weights"])
def test_stubs(module):
    source = ROOT / "sparseconv" / "_core" / f"{module}.pyx"
    assert stub_functions(source.with_suffix(".pyi")) == cython_functions(source)
