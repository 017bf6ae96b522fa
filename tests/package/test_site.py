"""The site: it builds without a warning, all links, anchors and pictures are there, and a browser has no complaint."""

import csv
import functools
import html.parser
import http.server
import importlib
import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
import threading
import urllib.parse
from xml.etree import ElementTree

import pytest
from places import ROOT

import sparseconv

NEEDED = ("sphinx", "pydata_sphinx_theme", "numpydoc", "myst_parser", "matplotlib")
FOLDERS = ("docs", "bench", "examples", "sparseconv")
FILES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "RELEASING.md", "LICENSE")
PHONE = 390  # CSS pixels

if not (ROOT / "docs" / "conf.py").exists():
    pytest.skip("this source archive has no docs", allow_module_level=True)


class Page(html.parser.HTMLParser):
    """What a page refers to, and what can be referred to in it."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.pictures, self.files, self.cells = set(), [], [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids |= {attributes[name] for name in ("id", "name") if attributes.get(name)}
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        elif tag == "img":
            self.pictures.append(attributes.get("src") or "")
        elif tag in ("script", "link"):
            self.files += [attributes[name] for name in ("src", "href") if attributes.get(name)]
        self.cells += tag == "td" and "background" in attributes.get("style", "")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site; made of copies, since building writes beside the sources."""
    for name in NEEDED:
        pytest.importorskip(name, reason=f"{name} is not installed: pip install '.[docs]'")
    tree, built = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("site")
    left_out = shutil.ignore_patterns("generated", "__pycache__", "*.so", "*.npz")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, tree / name, ignore=left_out)
    for name in FILES:
        shutil.copy(ROOT / name, tree)
    command = [sys.executable, "-m", "sphinx", "-W", "-n", "--keep-going", "-q", tree / "docs", built]
    done = subprocess.run(command, cwd=built, capture_output=True, text=True)  # where no folder is named sparseconv
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    return built


@pytest.fixture(scope="module")
def pages(site):
    """{path: page} of all pages that are ours."""
    paths = (path for path in site.rglob("*.html") if "_static" not in path.parts)
    return {path.relative_to(site).as_posix(): Page(path.read_text(encoding="utf-8")) for path in paths}


def missing(site, pages, page, target):
    """Whether what an address on a page names is not there; other sites are not asked."""
    parts = urllib.parse.urlsplit(target)
    if parts.scheme or parts.netloc:
        return False
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), urllib.parse.unquote(parts.path)))
    path = page if not parts.path else path
    if not (site / path).is_file():
        return True
    anchor = urllib.parse.unquote(parts.fragment)
    return bool(anchor) and path in pages and anchor not in pages[path].ids


def test_links_and_pictures(site, pages):
    """All pages, anchors, pictures, scripts and style sheets within the site are there."""
    broken, looked_at = [], 0
    for name, page in pages.items():
        targets = [*page.links, *page.pictures, *page.files]
        looked_at += len(targets)
        broken += [(name, target) for target in targets if missing(site, pages, name, target)]
    assert broken == []
    assert len(pages) > 40 and looked_at > 2000


def test_links_that_are_broken_are_found(site, pages):
    """The test above can fail."""
    assert missing(site, pages, "index.html", "nowhere.html")
    assert missing(site, pages, "index.html", "#no-such-heading")
    assert missing(site, pages, "generated/gallery/index.html", "../../_images/none.svg")
    assert not missing(site, pages, "index.html", "#all-pages")


def test_every_page_can_be_reached(site, pages):
    """From the first page, by links."""
    reached, ahead = set(), ["index.html"]
    while ahead:
        name = ahead.pop()
        if name in reached or name not in pages:
            continue
        reached.add(name)
        for link in pages[name].links:
            parts = urllib.parse.urlsplit(link)
            if parts.path and not parts.netloc:
                ahead.append(posixpath.normpath(posixpath.join(posixpath.dirname(name), parts.path)))
    assert set(pages) - reached - {"genindex.html", "py-modindex.html", "search.html"} == set()


def test_pictures_are_pictures(site):
    """Each is an SVG file that draws something."""
    paths = list((site / "_images").iterdir())
    assert len(paths) >= 20  # two of each program of the gallery
    for path in paths:
        assert path.suffix == ".svg"
        shapes = [one for one in ElementTree.parse(path).iter() if one.tag.endswith(("}path", "}rect", "}image"))]
        assert len(shapes) >= 5, path


def test_reference_has_all_names(pages):
    """Every public name has its place in the API reference."""
    ids = set().union(*(page.ids for name, page in pages.items() if "/reference/" in name))
    modules = {"sparseconv": sparseconv, "sparseconv.masks": sparseconv.masks, "sparseconv.pruning": sparseconv.pruning}
    for name in ("torch", "jax", "typing"):
        try:
            modules[f"sparseconv.{name}"] = importlib.import_module(f"sparseconv.{name}")
        except ModuleNotFoundError:
            continue
    wanted = {f"{module}.{name}" for module, one in modules.items() for name in one.__all__}
    wanted |= {"sparseconv.cpu.isa", "sparseconv.cpu.use_threads", "sparseconv.formats.compressed_tensors.load"}
    assert wanted - ids - {"sparseconv.cpu", "sparseconv.masks", "sparseconv.pruning"} == set()


def test_performance_page_shows_what_is_stored(site, pages):
    """As many cells as results, and the worst one is named on the first performance page."""
    stored = sorted((ROOT / "bench" / "results").glob("*/layers.csv"))
    if not (ROOT / "bench" / "results").exists():
        pytest.skip("this source archive has no results")
    text = (site / "generated" / "performance" / "index.html").read_text(encoding="utf-8")
    assert stored
    for path in stored:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert pages[f"generated/performance/{path.parent.name}.html"].cells == len(rows)
        worst = min(rows, key=lambda row: float(row["speedup"]))
        assert f"<td><p>{worst['pass']}, {worst['layer']}</p></td>" in text


def test_diagrams_are_what_the_program_draws():
    pytest.importorskip("docutils")
    done = subprocess.run(
        [sys.executable, "-c", "import json\nfrom website.diagrams import DIAGRAMS\n"
         "print(json.dumps({name: draw().svg() for name, draw in DIAGRAMS.items()}))"],
        cwd=ROOT / "docs", capture_output=True, text=True, check=True,
    )  # fmt: skip
    folder = ROOT / "docs" / "diagrams"
    drawn = json.loads(done.stdout)
    assert {path.stem for path in folder.iterdir()} == set(drawn)
    for name, text in drawn.items():
        assert (folder / f"{name}.svg").read_text(encoding="utf-8") == text, "python -m website.diagrams in docs/"


# Loads all pages one after the other, as wide as a phone, and says what is wrong with each.
PROBE = """<!doctype html><title>probe</title><link rel="icon" href="data:,"><body><pre id="found"></pre><script>
const pages = PAGES, found = {};
async function look(page) {
  const frame = document.createElement("iframe");
  frame.width = WIDTH; frame.height = 800;
  const loaded = new Promise(done => frame.onload = done);
  frame.src = page; document.body.append(frame); await loaded;
  const inside = frame.contentDocument;
  const images = [...inside.images].filter(one => one.offsetParent !== null || one.src.includes("light"));
  for (const one of images) { one.loading = "eager"; }
  await Promise.all(images.map(one => one.decode().catch(() => null)));
  found[page] = {
    broken: images.filter(one => one.naturalWidth === 0).map(one => one.src),
    wide: inside.documentElement.scrollWidth,
    words: inside.body.innerText.length,
  };
  frame.remove();
}
(async () => { for (const page of pages) await look(page);
  document.getElementById("found").textContent = JSON.stringify(found); document.title = "done"; })();
</script></body>"""


@pytest.fixture(scope="module")
def browser():
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("there is no Chromium: apt install chromium")


@pytest.fixture
def served(site):
    """The address of a server on this machine that has the site, and what it was asked for in vain."""
    absent = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def send_error(self, code, *_):
            absent.append((code, self.path))
            super().send_error(code)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=site))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", absent
    server.shutdown()
    thread.join()
    server.server_close()


def open_page(browser, address, profile):
    """(The page as the browser ended up with it, what its console said.)"""
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={profile}",
        "--no-first-run", "--disable-background-networking", "--enable-logging=stderr", "--virtual-time-budget=120000",
        "--dump-dom", address,
    ]  # fmt: skip
    environment = {**os.environ, "HOME": str(profile)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, re.findall(r"CONSOLE.*", done.stderr)


def test_in_a_browser(site, pages, browser, served, tmp_path):
    """No word in the console, no file missing, no broken picture, nothing wider than a phone."""
    address, absent = served
    names = sorted(name for name in pages if not name.startswith("dashboard"))
    text = PROBE.replace("PAGES", json.dumps(names)).replace("WIDTH", str(PHONE))
    (site / "probe.html").write_text(text, encoding="utf-8")
    try:
        shown, console = open_page(browser, f"{address}/probe.html", tmp_path)
    finally:
        (site / "probe.html").unlink()
    assert [line for line in console if '"[PST]: ' not in line] == []  # the theme tells what it does
    assert absent == []
    assert "<title>done</title>" in shown, shown[:500]
    found = json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', shown, re.DOTALL)[1]))
    assert set(found) == set(names)
    assert {name: one["broken"] for name, one in found.items() if one["broken"]} == {}
    assert {name: one["wide"] for name, one in found.items() if one["wide"] > PHONE} == {}
    assert min(one["words"] for one in found.values()) > 50


def test_console_errors_are_seen(site, browser, served, tmp_path):
    """The test above can fail."""
    address, absent = served
    page = '<script>nothing.here()</script><img src="none.png">'
    (site / "bad.html").write_text(page, encoding="utf-8")
    try:
        _, console = open_page(browser, f"{address}/bad.html", tmp_path)
    finally:
        (site / "bad.html").unlink()
    assert any("nothing is not defined" in line for line in console), console
    assert (404, "/none.png") in absent
