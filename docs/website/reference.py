"""The API reference: a page for each group of public names, from the docstrings."""

import ast
import importlib
import inspect
import re
from importlib.util import find_spec

from .outside import put

# Page: title, module, which of its names (a pattern). Every public name is on one page.
PAGES = {
    "convolutions": ("Convolutions", "sparseconv", r"conv\dd"),
    "transposed": ("Transposed convolutions", "sparseconv", r"conv_transpose\dd"),
    "linear": ("Linear layers and bias gradients", "sparseconv", r"linear|grad_bias"),
    "plans": ("Plans and prepared calls", "sparseconv", r"[pP]lan$|prepare$|PreparedCall|get_include"),
    "packed": ("Pruned weights", "sparseconv", r"pack_weight|PackedWeight"),
    "spikes": ("Zeros and ones", "sparseconv", r"Spikes|pack_spikes"),
    "compressed": ("Compressed arrays", "sparseconv", r"compress$|decompress|CompressedArray"),
    "masks": ("sparseconv.masks", "sparseconv.masks"),
    "cpu": ("sparseconv.cpu", "sparseconv.cpu"),
    "pruning": ("sparseconv.pruning", "sparseconv.pruning"),
    "torch": ("sparseconv.torch", "sparseconv.torch"),
    "jax": ("sparseconv.jax", "sparseconv.jax"),
    "formats": ("sparseconv.formats", "sparseconv.formats.compressed_tensors"),
    "data": ("sparseconv.data", "sparseconv.data"),
    "typing": ("sparseconv.typing", "sparseconv.typing"),
}
NEEDS = {"sparseconv.torch": "torch", "sparseconv.jax": "jax"}  # to be imported
MODULES = ("cpu", "masks", "pruning")  # names of `sparseconv` that are pages of their own
CPU_NAMES = ("isa", "available_isas", "use_isa", "num_threads", "set_num_threads", "threads", "use_threads")
TORCH_METHODS = re.compile(r"Conv|Linear$")  # layers: torch.nn documents their methods


def write(root, folder):
    """All pages, and the one that lists them."""
    for page, (title, module, *patterns) in PAGES.items():
        put(folder / f"{page}.rst", text(title, module, *patterns))
    lines = [
        heading("Reference", "="),
        "All public names, from their docstrings. :doc:`/api` has the same on one page, as tables; what zeros, NaN and",
        "masks mean for all of them is in :doc:`/semantics`.\n",
        ".. toctree::\n   :maxdepth: 1\n",
        "   /api\n   /semantics",
        *(f"   {page}" for page in PAGES),
    ]
    put(folder / "index.rst", "\n".join(lines) + "\n")


def text(title, module, pattern=""):
    """A page of names of a module."""
    lines = [heading(title, "=")]
    whole = not pattern
    if whole:  # the module's docstring begins the page
        lines.append(f".. py:module:: {module}\n")
    lines.append(f".. currentmodule:: {module}\n")
    missing = NEEDS.get(module)
    if missing and not find_spec(missing):
        lines.append(f"This site was built without {missing}, which the docstrings of this module need.\n")
        return "\n".join(lines)
    if whole:
        lines.append(introduction(module))
    definitions = aliases(module) if module == "sparseconv.typing" else {}
    for name in sorted(names(module), key=documented_first):
        if name in definitions:
            lines.append(f".. py:data:: {name}\n\n   ``{definitions[name]}``\n")
        elif re.match(pattern, name) and name not in MODULES:
            lines.append(directive(module, name))
    return "\n".join(lines)


def documented_first(name):
    """The functions of two dimensions, which the others refer to, in front of these."""
    return re.search("[13]d", name) is not None


def names(module):
    """The public names of a module, in the order of `__all__`."""
    return CPU_NAMES if module == "sparseconv.cpu" else importlib.import_module(module).__all__


def aliases(module):
    """{name: definition} of the types that a module gives names to."""
    tree = ast.parse(inspect.getsource(importlib.import_module(module)))
    return {node.target.id: ast.unparse(node.value) for node in tree.body if isinstance(node, ast.AnnAssign)}


def introduction(module):
    """The first paragraph of the module's docstring, as text."""
    doc = importlib.import_module(module).__doc__ or ""
    return doc.strip().split("\n\n")[0] + "\n"


def directive(module, name):
    """What lets autodoc show one name, under a heading of its own."""
    thing = getattr(importlib.import_module(module), name)
    lines = [heading(name, "-")]
    if isinstance(thing, type):
        lines.append(f".. autoclass:: {name}")
        if not (module == "sparseconv.torch" and TORCH_METHODS.match(name)):
            lines.append("   :members:")
    else:
        lines.append(f".. autofunction:: {name}")
    return "\n".join(lines) + "\n"


def heading(words, line):
    words = re.sub(r"_$", r"\\_", words)  # convert_ alone would be a link
    return f"{words}\n{line * len(words)}\n"
