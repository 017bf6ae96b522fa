"""Pages that lie in other folders of the repository, links between all pages, and tables of contents."""

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

# Where a file of the repository is on the site, without ending.
OUTSIDE = {
    "README.md": "generated/overview",
    "CONTRIBUTING.md": "generated/contributing",
    "CHANGELOG.md": "generated/changes",
    "RELEASING.md": "generated/releasing",
    "bench/README.md": "generated/benchmarks",
    "sparseconv/kernels/README.md": "generated/kernels",
}
# The sections of the site: title, a sentence, pages. What no section has comes to the end of the first.
SECTIONS = {
    "guide": (
        "Guide",
        "How to use it: from the first call to training on several machines.",
        ["generated/overview", "frameworks", "spikes", "pruning", "distributed", "c_api"],
    ),
    "speed": (
        "Speed",
        "What it gains, where it loses, how both were measured, and what else there is.",
        [
            "generated/performance/index", "numbers", "training", "cost_model", "comparison", "measuring",
            "generated/benchmarks",
        ],
    ),
    "gallery": ("", "", []),  # a section of its own making
    "reference": ("", "", []),
    "inside": (
        "Inside",
        "How it works, why to trust it, and how to change it.",
        [
            "how_it_works", "architecture", "generated/kernels", "reliability", "security", "generated/contributing",
            "generated/releasing", "generated/changes",
        ],
    ),
}  # fmt: skip
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s:#]+)((?:#[^)\s]*)?)\)")


def write(root, made):
    """The copies of outside pages, and the pages of the sections."""
    made.mkdir(parents=True, exist_ok=True)
    for source, page in OUTSIDE.items():
        text = (root / source).read_text(encoding="utf-8")
        put(root / "docs" / f"{page}.md", on_site(text, PurePosixPath(source), page, root))
    written = {path.stem for path in (root / "docs").glob("*.md")} - {"index"}
    listed = {page for _, _, pages in SECTIONS.values() for page in pages} | {"api", "semantics"}  # of the reference
    for name, (title, sentence, pages) in SECTIONS.items():
        if pages:
            pages = pages + sorted(written - listed) if name == "guide" else pages
            put(made / f"{name}.md", f"# {title}\n\n{sentence}\n\n{toctree(pages, 'maxdepth: 2')}")


def put(path, text):
    """Writes a file unless it says that already, so that Sphinx builds anew only what has changed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def toctree(pages, *options):
    """A directive with pages that are named from the folder of all pages."""
    lines = ["```{toctree}", *(f":{option}" if ":" in option else f":{option}:" for option in options), ""]
    return "\n".join([*lines, *(f"/{page}" for page in pages), "```", ""])


def source_read(app, page, source):
    """Lets links of a written page lead to pages of the site; the first page gets the table of contents."""
    path = PurePosixPath("docs", f"{page}.md")
    if page.startswith("generated/") or not (Path(app.srcdir).parent / path).exists():
        return
    source[0] = on_site(source[0], path, page, Path(app.srcdir).parent)
    if page == "index":
        sections = [name if pages else f"{name}/index" for name, (_, _, pages) in SECTIONS.items()]
        source[0] += "\n" + toctree([f"generated/{name}" for name in sections], "hidden")


def on_site(text, source, page, root):
    """The text of a repository's file with its links as the page of the site needs them."""
    folder = PurePosixPath(page).parent

    def replaced(match):
        picture, words, path, heading = match.groups()
        target = normpath(source.parent / path)
        if target in OUTSIDE:
            target = f"docs/{OUTSIDE[target]}.md"
        if not (root / target).exists() and not target.startswith("docs/generated/"):
            return match[0]  # Sphinx says that it is missing
        if not target.startswith("docs/"):
            return words  # a file that is no page
        return f"{picture}[{words}]({relpath(target.removeprefix('docs/'), folder)}{heading})"

    fences = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)  # code is left alone
    return "".join(part if at % 2 else LINK.sub(replaced, part) for at, part in enumerate(fences))
