"""The gallery: the programs of `examples/`, each with a picture.

Programs of `examples/pictures/` draw theirs while the site is built, in seconds. Those of `examples/` train networks
or take times. So what they print was recorded (`docs/recorded/`, the first line says where), and the picture is drawn
from that text.
"""

import re
import runpy
from functools import partial
from pathlib import Path

from .outside import put, toctree

# Program: its title on the site. Every program of the two folders has one.
RECORDED = {
    "convert_resnet": "A ResNet, converted",
    "train_swat": "Sparse weights and activations",
    "prune_torch": "torch.nn.utils.prune",
    "masked_pretraining": "Masked pre-training",
    "train_spiking": "A spiking network",
    "region_of_interest": "A region of interest",
    "train_ddp": "Two processes",
    "train_jax": "JAX",
    "video_deltas": "Differences of frames",
}
DRAWN = {
    "zeros_of_a_network": "Where zeros are",
    "what_auto_decides": 'What skip="auto" decides',
    "pruning_masks": "Pruning masks",
    "stochastic_gradients": "Pruned gradients",
    "sparsity_of_layers": "Who gets the zeros",
}
STYLES = {
    "light": {"text": "#222832", "grid": "#8a939e"},
    "dark": {"text": "#ced6dd", "grid": "#6b7683"},
}


def write(root, folder):
    """A page for each program, and the one that lists them."""
    from matplotlib import use

    use("agg")
    tiles = []
    for name, title in {**RECORDED, **DRAWN}.items():
        drawn = name in DRAWN
        program = root / "examples" / ("pictures" if drawn else "") / f"{name}.py"
        source = program.read_text(encoding="utf-8")
        first, _, rest = re.match(r'"""(.*?)"""', source, re.DOTALL)[1].partition("\n\n")
        recorded = root / "docs" / "recorded" / f"{name}.txt"
        text = "" if drawn else recorded.read_text(encoding="utf-8")
        draw = runpy.run_path(program)["main"] if drawn else partial(draw_output, text)
        folder.mkdir(parents=True, exist_ok=True)
        pictures(draw, folder / name)
        put(folder / f"{name}.md", page(title, first, rest, name, text, program.relative_to(root), source))
        tiles.append(tile(title, first, name))
    head = (
        "# Gallery\n\nPrograms to start from. What the first ones print was recorded. "
        "The others draw their picture in seconds, and did so when this site was built.\n\n"
    )
    listed = toctree([f"generated/gallery/{name}" for name in (*RECORDED, *DRAWN)], "hidden")
    put(folder / "index.md", f"{head}::::{{container}} tiles\n\n" + "\n".join(tiles) + f"\n::::\n\n{listed}")


def pictures(draw, path):
    """The picture in both themes of the site, on no ground of its own."""
    from matplotlib import rc_context
    from matplotlib.pyplot import close

    for theme, colours in STYLES.items():
        text = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), colours["text"])
        edges = {"axes.edgecolor": colours["grid"], "grid.color": colours["grid"], "savefig.transparent": True}
        files = {"svg.hashsalt": "sparseconv", "svg.fonttype": "none", "legend.framealpha": 0.0, "font.size": 10}
        with rc_context({**text, **edges, **files}):
            draw(Path(f"{path}-{theme}.svg"))
            close("all")


def images(name, title, target=""):
    """The two pictures of which the theme shows one."""
    lines = []
    for theme in STYLES:
        lines += [f"```{{image}} {name}-{theme}.svg", f":class: only-{theme}", f":alt: {title}"]
        lines += [f":target: {target}", "```"] if target else ["```"]
    return "\n".join(lines) + "\n"


def tile(title, sentence, name):
    shown = images(name, title, f"{name}.html")
    return f":::{{container}} tile\n\n{shown}\n[{title}]({name}.md)\n\n{sentence}\n:::\n"


def page(title, sentence, rest, name, text, path, source):
    """Title, docstring, picture, output if it was recorded, program."""
    command = "\n".join(line.strip() for line in rest.strip().splitlines())
    parts = [f"# {title}\n", f"{sentence}\n", images(name, title)]
    parts.append(f"```\n{command}\n```\n")
    if text:
        where, _, output = text.partition("\n")
        parts += ["## What it prints\n", f"{where}.\n", f"```text\n{output.strip()}\n```\n"]
    parts += [f"## {path}\n", f"```python\n{source.strip()}\n```\n"]
    return "\n".join(parts)


def draw_output(text, path):
    """What a program printed: its loss over steps, the layers of reports, before and after, and times."""
    from matplotlib.pyplot import subplots

    losses = [(int(step), float(loss)) for step, loss in re.findall(r"^step (\d+): loss ([\d.]+)", text, re.MULTILINE)]
    reports = [layers(block) for block in re.findall(r"^layer .*\n(?:\S+ +\d.*\n)+", text, re.MULTILINE)]
    times = re.findall(r"([\d.]+) ms for ([\w ]+)", text)
    count = bool(losses) + len(reports) + bool(times)
    figure, panels = subplots(1, count, figsize=(max(4.4 * count, 5.5), 3), layout="constrained", squeeze=False)
    panels = list(panels[0])
    if losses:
        panel = panels.pop(0)
        panel.plot(*zip(*losses, strict=True), marker="o", markersize=4)
        panel.set(xlabel="step", ylabel="loss", ylim=(0, None))
        panel.grid(alpha=0.3)
    if times:
        panel = panels.pop(0)
        panel.barh([what for _, what in times], [float(one) for one, _ in times], 0.5)
        panel.invert_yaxis()
        panel.set_xlabel("ms")
    for panel, rows in zip(panels, reports, strict=True):
        names = [f"{name} ({zeros})" for name, zeros, _, _ in rows]
        for shift, label, column in ((-0.2, "before", 2), (0.2, "after", 3)):
            places = [at + shift for at in range(len(rows))]
            panel.barh(places, [row[column] for row in rows], 0.38, label=label)
        panel.set_yticks(range(len(rows)), names, fontsize="small")
        panel.invert_yaxis()
        panel.set_xlabel("ms; in brackets zeros of the input")
        panel.legend(fontsize="small")
    figure.savefig(path)


def layers(block):
    """(Name, zeros of x, ms before, ms after) of each layer of a printed report."""
    head, *lines = block.strip().splitlines()
    places = [head.index(word) for word in ("zeros x", "ms before", " after", "by")]
    found = []
    for line in lines:
        zeros = line[places[0] :].split()[0]
        before, after = line[places[1] : places[2]], line[places[2] : places[3]]
        found.append((line.split()[0], zeros, float(before), float(after)))
    return found
