"""The site: `pip install '.[docs]'`, then `sphinx-build -W -n docs build/site`.

The pages are the Markdown files of this folder, and of others that `website/outside.py` names, as GitHub shows them.
`website/` makes what is not written by hand: API reference, performance page, gallery, and the tables of contents. All
of that goes to `docs/generated/`, which git ignores.
"""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))

from website import diagrams, gallery, outside, performance, reference  # noqa: E402

import sparseconv  # noqa: E402

project = "sparseconv"
author = "The sparseconv developers"
copyright = "The sparseconv developers, BSD-3-Clause"
version = release = sparseconv.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc", "myst_parser"]
exclude_patterns = ["website", "diagrams", "recorded", "Thumbs.db"]
nitpicky = True
# What other projects have is not looked up: a build needs no network.
nitpick_ignore_regex = [("py:.*", r"(numpy|np|torch|jax|os|threading|threadpoolctl|collections)(\..*)?")]

myst_heading_anchors = 4  # links to headings, named as GitHub names them
myst_enable_extensions = ["colon_fence"]
suppress_warnings = ["myst.header"]  # pages that are made of others' parts begin where these do

default_role = "autolink"  # `conv2d` is a link if it is the name of something
autodoc_typehints = "none"  # numpydoc's sections say what arguments are; annotations are for type checkers
autodoc_member_order = "bysource"
toc_object_entries = False  # each has a heading
autosummary_generate = False
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
# What holds everywhere is kept so. Short functions that say "see conv2d" have no sections of their own.
numpydoc_validation_checks = {
    "GL01", "GL02", "GL03", "GL05", "GL06", "GL07", "GL08", "GL10", "SS01", "SS02", "SS04", "PR02",
    "PR05", "PR10", "RT04", "YD01",
}  # fmt: skip
numpydoc_validation_exclude = {r"torch\.\w*Conv\w*\dd$"}  # their arguments are those of torch.nn, and keywords

html_theme = "pydata_sphinx_theme"
html_title = "sparseconv"
html_favicon = "diagrams/favicon.svg"
html_static_path = ["website/style.css", "generated/diagrams.css"]
html_css_files = ["style.css", "diagrams.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "show_toc_level": 2,
    "show_nav_level": 1,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "show_prev_next": False,
}
html_sidebars = {"index": []}
html_context = {"default_mode": "auto"}


def setup(app):
    """Makes the pages that nobody writes, before Sphinx looks which pages there are."""
    root, made = DOCS.parent, DOCS / "generated"
    for part in (reference, performance, gallery):
        part.write(root, made / part.__name__.rpartition(".")[2])
    outside.write(root, made)
    outside.put(made / "diagrams.css", diagrams.style_sheet())
    app.connect("source-read", outside.source_read)
    app.connect("doctree-resolved", diagrams.inline)
    app.connect("build-finished", performance.dashboard)
