"""The performance pages, from the results that the repository stores. Nothing is measured here.

Layer by layer: `bench/results/MACHINE/layers.csv` (`sparseconv bench --layers all --csv`), and the tables of Zen 4 and
of AMX in `docs/numbers.md`. Errors: `bench/results/MACHINE/accuracy.csv` (`python -m bench.accuracy`). Whole networks:
`bench/results/torch_models.jsonl`. From commit to commit: asv's results.
"""

import csv
import importlib.util
import json
import math
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from .outside import put

PASSES = ("forward", "backward_data", "backward_weight")
WORST = 8  # cells that are shown of each end
INTRODUCTION = """# Performance

How fast it is and where it loses, from the results that are stored in the repository. A number is **oneDNN's time
divided by ours**, through PyTorch, float32, one thread, channels last: above 1 sparseconv is faster. Zeros are at
random places. [Numbers](../../numbers.md) has what these tables do not show: other zeros, layouts, threads, machines.
How they were taken is in [Measuring](../../measuring.md).
"""


def write(root, folder):
    """All pages."""
    machines = {"zen4": ("AMD EPYC, Zen 4", zen4_cells(root / "docs" / "numbers.md"))}
    for path in sorted((root / "bench" / "results").glob("*/layers.csv")):
        machines[path.parent.name] = (cpu(path.parent), csv_cells(path))
    parts = [INTRODUCTION, "## Means\n", means(machines), amx(root / "docs" / "numbers.md")]
    parts += ["## Worst beside best\n", *(extremes(name, cells) for name, cells in machines.values())]
    parts += ["## Error beside oneDNN's\n", accuracy(root / "bench" / "results")]
    parts += ["## Whole networks\n", networks(root / "bench" / "results" / "torch_models.jsonl")]
    parts += ["## From commit to commit\n", milestones(root / "bench" / "results", has_history(root))]
    pages = []
    for machine, (name, cells) in sorted(machines.items(), reverse=True):
        pages.append(machine)
        put(folder / f"{machine}.md", layer_by_layer(name, cells))
    toc = "\n".join(["```{toctree}", ":caption: Layer by layer", "", *pages, "```", ""])
    put(folder / "index.md", "\n".join([*parts, "## Layer by layer\n", toc]))


def cpu(folder):
    """What asv was told of the machine."""
    return json.loads((folder / "machine.json").read_text(encoding="utf-8"))["cpu"]


def csv_cells(path):
    """{(pass, layer, share of zeros): speed-up} of a file of `sparseconv bench --csv`."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {(row["pass"], row["layer"], float(row["sparsity"])): float(row["speedup"]) for row in rows}


def zen4_rows(page):
    """(pass, layer, oneDNN's GFLOP/s, {share of zeros: speed-up}) of `docs/numbers.md`, section "Layer by layer"."""
    text = page.read_text(encoding="utf-8").partition("\n## Layer by layer\n")[2]
    for which in PASSES:
        head, *rows = table(text.partition(f"\n### {which}\n")[2])
        shares = [float(word.rstrip("%")) / 100 for word in head[2:]]
        for layer, gflops, *numbers in rows:
            yield which, layer, float(gflops), dict(zip(shares, map(float, numbers), strict=True))


def zen4_cells(page):
    """The same as `csv_cells` of these tables."""
    rows = zen4_rows(page)
    return {(which, layer, share): number for which, layer, _, row in rows for share, number in row.items()}


def table(text):
    """The rows of the first table of a text, head first, as lists of words."""
    lines = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)[0].splitlines()
    rows = [[word.strip() for word in line.strip("|").split("|")] for line in lines]
    return [rows[0], *rows[2:]]


def geometric_mean(values):
    values = list(values)
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def heat(head, rows):
    """A table of speed-ups whose cells have colours; a row is (name, numbers), where None is nothing."""
    lines = ['<table class="heat"><thead><tr><th></th>']
    lines += [*(f"<th>{word}</th>" for word in head), "</tr></thead><tbody>"]
    for name, numbers in rows:
        cells = "".join("<td></td>" if n is None else colour_cell(n) for n in numbers)
        lines.append(f"<tr><th>{name}</th>{cells}</tr>")
    return "\n".join([*lines, "</tbody></table>", ""])


def colour_cell(speedup):
    """One cell: red below 1, near white at 1, blue-green above, deepest at 8 and at a half."""
    at = math.log2(speedup)
    end, share = ((8, 90, 110), min(at / 3, 1)) if at > 0 else ((176, 32, 20), min(-at, 1))
    share = share**0.8
    red, green, blue = (round(244 + (one - 244) * share) for one in end)
    dark = ' class="dark"' if red * 0.3 + green * 0.6 + blue * 0.1 < 140 else ""
    return f'<td{dark} style="background:rgb({red},{green},{blue})">{speedup:.2f}</td>'


def shares_of(cells):
    return sorted({share for _, _, share in cells})


def percent(shares):
    return [f"{share:.0%}" for share in shares]


def means(machines):
    """Geometric means over layers of a kernel size, a table for each machine."""
    lines = ['<div class="pair">']
    for name, cells in machines.values():
        shares, rows = shares_of(cells), []
        for which in PASSES:
            for kernel in ("3x3", "1x1"):
                chosen = defaultdict(list)
                for (one, layer, share), speedup in cells.items():
                    if one == which and f" {kernel}" in layer:
                        chosen[share].append(speedup)
                count = len(next(iter(chosen.values())))
                rows.append((f"{which}, {kernel} ({count})", [geometric_mean(chosen[share]) for share in shares]))
        lines += [f"<div><p><strong>{name}</strong>, zeros:</p>", heat(percent(shares), rows), "</div>"]
    return "\n".join([*lines, "</div>", ""])


def amx(page):
    """The means of the CPU with AMX, of `docs/numbers.md`."""
    text = page.read_text(encoding="utf-8").partition("\n## Intel with AMX\n")[2]
    head, *rows = table(text)
    rows = [(row[0].replace("`", ""), [float(n) if n else None for n in row[1:]]) for row in rows]
    return "\n".join(
        [
            "Intel with AMX, fewer layers ([what they are](../../numbers.md#intel-with-amx)). There dense kernels on "
            "tile registers compete, so skipping pays later:\n",
            heat(head[1:], rows),
        ]
    )


def extremes(name, cells):
    """The cells where we lose most and gain most, and how many lose."""
    ordered = sorted(cells.items(), key=lambda item: item[1])
    below = sum(speedup < 0.95 for speedup in cells.values())
    lines = [
        f"**{name}**: {below} of {len(cells)} cells are below 0.95.\n",
        "| worst | zeros | | best | zeros | |",
        "|---|---|---|---|---|---|",
    ]
    for (low, slow), (high, fast) in zip(ordered[:WORST], ordered[::-1], strict=False):
        words = [f"{one[0]}, {one[1]} | {one[2]:.0%} | {speedup:.2f}" for one, speedup in ((low, slow), (high, fast))]
        lines.append(f"| {' | '.join(words)} |")
    return "\n".join([*lines, ""])


def layer_by_layer(name, cells):
    """A page of one machine."""
    lines = [f"# {name}\n", "oneDNN's time divided by ours, one thread, batch 16; zeros in input or gradient.\n"]
    shares = shares_of(cells)
    for which in PASSES:
        layers = dict.fromkeys(layer for one, layer, _ in cells if one == which)
        rows = [(layer, [cells.get((which, layer, share)) for share in shares]) for layer in layers]
        lines += [f"## {which}\n", heat(percent(shares), rows)]
    return "\n".join(lines)


def accuracy(results):
    """Errors against float64, pass by pass; the layers with the largest ratio of both sides last."""
    lines = [
        "Distance from the result in float64, in units of 1e-7; float32 rounds at 0.6. *largest*: the largest error by",
        "the largest result; *mean*: that of root mean squares. Geometric means over layers of `sparseconv bench`.\n",
    ]
    for path in sorted(results.glob("*/accuracy.csv")):
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        lines += [
            f"**{cpu(path.parent)}**, {rows[0]['isa']}, batch {rows[0]['batch']}, {len(rows)} cells:\n",
            "| | zeros | largest, ours | oneDNN | mean, ours | oneDNN | worst beside oneDNN's (largest) |",
            "|---|---|---|---|---|---|---|",
        ]
        groups = defaultdict(list)
        for row in rows:
            groups[row["pass"], float(row["sparsity"])].append(row)
        for (which, share), group in groups.items():
            columns = ("largest", "peer_largest", "mean", "peer_mean")
            numbers = [f"{1e7 * geometric_mean(float(row[name]) for row in group):.1f}" for name in columns]
            worst = max(group, key=lambda row: float(row["largest"]) / float(row["peer_largest"]))
            ratio = float(worst["largest"]) / float(worst["peer_largest"])
            lines.append(f"| {which} | {share:.0%} | {' | '.join(numbers)} | {worst['layer']}: {ratio:.1f} times |")
        lines.append("")
    return "\n".join([*lines, "What holds for all calls is in [Accuracy](../../semantics.md#accuracy).\n"])


def networks(path):
    """All recorded runs of whole PyTorch models, as they are."""
    if not path.exists():
        return "They are not part of this source archive.\n"
    lines = [
        "Every run of `python -m bench.torch_models` that is stored; seconds, and PyTorch's time divided by ours. What",
        "they mean is told [here](../../frameworks.md#whole-networks).\n",
        "| | gain | PyTorch | folded | oneDNN, folded | sparseconv |",
        "|---|---|---|---|---|---|",
    ]
    runs = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    for run in sorted(runs, key=lambda run: (run["network"], run["what"], run["cpu"], run["threads"])):
        seconds = run["seconds"]
        ours = seconds["sparseconv"]
        sides = [seconds.get(side) for side in ("torch", "torch, folded", "oneDNN, folded")]
        times = " | ".join(f"{one:.3f}" if one else "" for one in (*sides, ours))
        zeros = "a trained network's" if run["zeros"] == "profile" else f"{run['zeros']:.0%}"
        name = f"{run['network']}, {run['what']}, {zeros} zeros"
        where = f"{run['cpu'].split(', ')[1]}, {run['threads']} thread{'s' * (run['threads'] > 1)}"
        lines.append(f"| {name}; {where} | {sides[0] / ours:.2f} | {times} |")
    return "\n".join([*lines, ""])


def milestones(results, dashboard):
    """asv's ratios at each commit that was recorded, as geometric means."""
    lines = ["The suite of [Benchmarks](../benchmarks.md) on commits that are milestones, as speed-ups over oneDNN.\n"]
    head = ["| machine, commit | zeros | forward | backward_data | backward_weight |", "|---|---|---|---|---|"]
    suite = zip(("Forward", "BackwardData", "BackwardWeight"), PASSES, strict=True)
    names = {f"convolutions.{name}.track_ratio": which for name, which in suite}
    found = []
    for path in results.glob("*/*-*.json"):
        run = json.loads(path.read_text(encoding="utf-8"))
        ratios = defaultdict(lambda: defaultdict(list))
        for name, which in names.items():
            for number, (peer, _, isa, share, threads) in asv_cells(run["results"].get(name)):
                if peer == "'torch'" and isa == "'avx512'" and threads == "1":
                    ratios[float(share)][which].append(1 / number)
        for share, passes in sorted(ratios.items()):
            numbers = " | ".join(f"{geometric_mean(passes[which]):.2f}" if passes[which] else "" for which in PASSES)
            commit = f"{path.parent.name}, {run['commit_hash'][:8]}"
            found.append((run["date"], f"| {commit} | {share:.0%} | {numbers} |"))
    lines += [*head, *(line for _, line in sorted(found)), ""]
    if dashboard:
        lines.append(
            'asv\'s own <a href="../../dashboard/index.html">dashboard</a> has all curves. (It loads scripts from the '
            "network.)\n"
        )
    else:
        lines.append("`asv publish && asv preview` in a checkout of the project shows asv's own dashboard of them.\n")
    return "\n".join(lines)


def asv_cells(result):
    """(Number, parameters) of each cell of one of asv's results; parameters are written as Python would."""
    if not result:
        return
    numbers, params = result[:2]
    if not numbers:
        return
    for at, number in enumerate(numbers):
        values, rest = [], at
        for choices in reversed(params):
            rest, place = divmod(rest, len(choices))
            values.append(choices[place])
        if number is not None and not math.isnan(number):
            yield number, tuple(reversed(values))


def has_history(root):
    """Whether asv can make its dashboard: it looks commits up in the repository."""
    return (root / ".git").exists() and importlib.util.find_spec("asv") is not None


def dashboard(app, error):
    """Lets asv write its dashboard beside the pages of the site."""
    root = Path(app.srcdir).parent
    if error or app.builder.format != "html" or not has_history(root):
        return
    target = Path(app.outdir) / "dashboard"
    with tempfile.TemporaryDirectory() as folder:
        settings = json.loads((root / "asv.conf.json").read_text(encoding="utf-8"))
        settings |= {"repo": str(root), "html_dir": str(Path(folder) / "html"), "env_dir": str(Path(folder) / "env")}
        settings |= {name: str(root / settings[name]) for name in ("benchmark_dir", "results_dir")}
        (Path(folder) / "asv.conf.json").write_text(json.dumps(settings), encoding="utf-8")
        command = [sys.executable, "-m", "asv", "publish", "--config", str(Path(folder) / "asv.conf.json")]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"asv publish: {done.stdout}{done.stderr}")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(Path(folder) / "html", target)
