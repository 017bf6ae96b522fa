"""Draws the diagrams of `docs/how_it_works.md`: `python -m website.diagrams` in `docs/` writes `docs/diagrams/`.

As files they follow the reader's system from light to dark; on the site, where they are put into the page, its theme.
"""

import re
from pathlib import Path
from xml.sax.saxutils import escape

from docutils import nodes

FOLDER = Path(__file__).parents[1] / "diagrams"
# Class: colours on light and on dark ground. What it stands for is the same in all diagrams.
COLOURS = {
    "text": ("#1f2328", "#e6edf3"),
    "soft": ("#59636e", "#9da7b3"),
    "zero": ("#eaeef2", "#2a313a"),  # an element that is zero, or is not needed
    "live": ("#0a7d91", "#3fb6cc"),  # one that is not: of the operand that is looked at
    "lane": ("#8250b5", "#b48be0"),  # vectors of the other operand
    "sums": ("#c2571a", "#f0934e"),  # accumulators
    "line": ("#59636e", "#9da7b3"),
    "edge": ("#afb8c1", "#4a535e"),
}
ZEROS = "1001000101100010"  # whether each of some channels is not zero


class Diagram:
    """A picture of so many units, to which shapes are added from left to right and from top to bottom."""

    def __init__(self, width, height, title):
        self.width, self.height, self.title, self.parts = width, height, title, []

    def text(self, x, y, words, kind="text", size=14, anchor="start", weight=""):
        style = f' font-weight="{weight}"' if weight else ""
        self.parts.append(
            f'<text x="{x}" y="{y}" class="{kind}" font-size="{size}" text-anchor="{anchor}"{style}>'
            f"{escape(words)}</text>"
        )

    def box(self, x, y, width, height, kind, words="", radius=2):
        self.parts.append(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}" class="{kind}"/>')
        if words:
            colour = "text" if kind in ("zero", "frame") else "on"
            self.text(x + width / 2, y + height / 2 + 5, words, colour, 13, "middle")

    def cells(self, x, y, pattern, size=22, step=24, kind="live"):
        """A run of elements, of which those with a 1 are not zero."""
        for at, bit in enumerate(pattern):
            self.box(x + at * step, y, size, size, kind if bit == "1" else "zero")

    def vectors(self, x, y, count, kind, width=52, height=22, step=56):
        for at in range(count):
            self.box(x + at * step, y, width, height, kind)

    def line(self, *points, arrow=True, dashed=False):
        path = " ".join(f"{x},{y}" for x, y in points)
        style = ' stroke-dasharray="4 4"' if dashed else ""
        self.parts.append(f'<polyline points="{path}" class="line"{style}/>')
        if arrow:
            (x0, y0), (x, y) = points[-2:]
            length = ((x - x0) ** 2 + (y - y0) ** 2) ** 0.5
            u, v = (x - x0) / length, (y - y0) / length
            tip = [(x, y), (x - 9 * u + 4 * v, y - 9 * v - 4 * u), (x - 9 * u - 4 * v, y - 9 * v + 4 * u)]
            self.parts.append(f'<polygon points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in tip)}" class="tip"/>')

    def svg(self):
        light, dark = (rules(at) for at in (0, 1))
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" role="img" '
            f'font-family="system-ui, sans-serif">\n<title>{escape(self.title)}</title>\n'
            f"<style>{light}@media (prefers-color-scheme: dark){{{dark}}}</style>\n"
            + "\n".join(self.parts)
            + "\n</svg>\n"
        )


def rules(at, prefix=""):
    """The style sheet for light (0) or dark (1) ground."""
    colour = {name: pair[at] for name, pair in COLOURS.items()}
    sheet = [f".{name}{{fill:{colour[name]}}}" for name in ("text", "soft", "zero", "live", "lane", "sums")]
    sheet += [f".zero{{stroke:{colour['edge']}}}", f".frame{{stroke:{colour['edge']};fill:none}}"]
    sheet += [f".line{{stroke:{colour['line']};fill:none;stroke-width:1.5}}", f".tip{{fill:{colour['line']}}}"]
    sheet += [f".on{{fill:{('#fff', '#111')[at]}}}"]
    return "".join(prefix + rule for rule in sheet)


def idea():
    d = Diagram(760, 272, "Channels of a pixel are compared with zero at once; only nonzeros are multiplied")
    d.text(0, 26, "channels of a pixel")
    d.cells(170, 10, ZEROS)
    d.text(170 + 16 * 24 + 6, 26, "... 64 at once", "soft", 13)
    d.text(0, 62, "compared with zero")
    for at, bit in enumerate(ZEROS):
        d.text(181 + at * 24, 62, bit, "text" if bit == "1" else "soft", 14, "middle", "bold" if bit == "1" else "")
    d.text(170 + 16 * 24 + 6, 62, "one word of bits", "soft", 13)
    places = [at for at, bit in enumerate(ZEROS) if bit == "1"][:3]
    for row, at in enumerate(places):
        y = 105 + 52 * row
        d.line((181 + at * 24, 70), (181 + at * 24, 88 + 4 * row), (150, 88 + 4 * row), (150, y + 11), (164, y + 11))
        d.box(166, y, 22, 22, "live")
        d.text(196, y + 16, "x", "soft", 15)
        d.vectors(214, y, 4, "lane")
        d.text(446, y + 16, "+=", "soft", 15)
        d.vectors(474, y, 4, "sums")
    d.text(0, 121, "next set bit,")
    d.text(0, 139, "broadcast")
    d.text(326, 262, "weights of that channel, 16 lanes each", "soft", 13, "middle")
    d.text(586, 262, "sums, in registers", "soft", 13, "middle")
    return d


def rows():
    d = Diagram(760, 326, "The forward pass: a nonzero feeds a window of taps times vectors, which moves along the row")
    columns = 9
    d.text(0, 34, "row of x")
    d.text(0, 52, "a word for each column", "soft", 13)
    for at in range(columns):
        x = 190 + at * 60
        pattern = ZEROS[at:] + ZEROS[:at]
        for channel in range(6):
            d.box(x, 10 + channel * 11, 44, 9, "live" if pattern[channel] == "1" else "zero", radius=1)
        d.text(x + 22, 94, f"i{at - 4:+d}" if at != 4 else "i", "soft", 12, "middle")
    d.parts.append('<rect x="424" y="4" width="56" height="76" rx="4" class="frame"/>')
    d.line((452, 100), (452, 126))
    d.text(470, 118, "each nonzero, broadcast", "soft", 13)
    d.text(0, 152, "weights")
    d.text(0, 170, "taps x vectors, from L1", "soft", 13)
    for tap in range(3):
        d.text(268, 146 + tap * 26, f"tap {2 - tap}", "soft", 13)
        d.vectors(316, 130 + tap * 26, 4, "lane")
    d.line((452, 212), (452, 240))
    d.text(470, 230, "12 multiply-adds (AVX-512)", "soft", 13)
    d.text(0, 266, "sums of y")
    d.text(0, 284, "stay in registers", "soft", 13)
    for at, name in enumerate(("y[i - 1]", "y[i]", "y[i + 1]")):
        d.text(262, 260 + at * 26, name, "soft", 13)
        d.vectors(316, 244 + at * 26, 4, "sums")
    d.line((548, 255), (620, 255))
    d.text(628, 260, "complete: stored", "soft", 13)
    d.line((620, 307), (548, 307))
    d.text(628, 312, "next one: loaded", "soft", 13)
    return d


def gradient():
    d = Diagram(760, 280, "The gradient of the weights: a nonzero feeds all nine taps, and sums stay in registers")
    pattern = "0100110010"
    d.text(0, 30, "a channel of x")
    d.text(0, 48, "positions of a row", "soft", 13)
    d.cells(200, 14, pattern)
    d.text(450, 30, "one bit each; zeros are left out", "soft", 13)
    d.text(0, 92, "grad_output")
    d.text(0, 110, "rows that meet it, 16 to", "soft", 13)
    d.text(0, 126, "32 filters side by side", "soft", 13)
    for row in range(3):
        for at in range(10):
            kind = "lane" if 3 <= at <= 5 else "zero"
            d.box(200 + at * 24, 78 + row * 24, 22, 20, kind)
    d.line((200 + 4 * 24 + 11, 38), (200 + 4 * 24 + 11, 76))
    d.text(450, 98, "a 3 x 3 kernel: nine neighbours,", "soft", 13)
    d.text(450, 116, "two vectors of lanes each", "soft", 13)
    d.line((307, 152), (307, 184))
    d.text(322, 174, "18 multiply-adds (AVX-512)", "soft", 13)
    d.text(0, 206, "gradient")
    d.text(0, 224, "of 9 taps x 2 vectors,", "soft", 13)
    d.text(0, 240, "in registers", "soft", 13)
    for row in range(3):
        for tap in range(3):
            for vector in range(2):
                d.box(200 + tap * 104 + vector * 46, 192 + row * 28, 42, 22, "sums")
    d.line((520, 230), (590, 230))
    d.text(600, 226, "added to memory", "soft", 13)
    d.text(600, 244, "once per chunk", "soft", 13)
    return d


def outputs():
    d = Diagram(760, 226, "Needed outputs: only channels whose bit is set are computed, from a patch in registers")
    d.text(0, 30, "mask of the result")
    d.text(0, 48, "channels of a pixel", "soft", 13)
    d.cells(190, 14, ZEROS, kind="live")
    d.text(190 + 16 * 24 + 6, 30, "needed: behind a ReLU", "soft", 13)
    d.text(190 + 16 * 24 + 6, 46, "the others become 0", "soft", 13)
    d.text(0, 100, "patch of grad_output")
    d.text(0, 118, "taps x channels, registers", "soft", 13)
    d.vectors(190, 86, 6, "sums", 44, 22, 48)
    d.text(490, 102, "shared by all needed channels", "soft", 13)
    places = [at for at, bit in enumerate(ZEROS) if bit == "1"][:2]
    for row, at in enumerate(places):
        y = 142 + row * 48
        d.text(0, y + 16, "weights of channel " + str(at))
        d.vectors(190, y, 6, "lane", 44, 22, 48)
        d.text(490, y + 16, "multiply, add up", "soft", 13)
        d.line((606, y + 11), (660, y + 11))
        d.box(668, y, 22, 22, "live")
    d.text(698, 158, "one", "soft", 13)
    d.text(698, 174, "result", "soft", 13)
    return d


def weights():
    d = Diagram(760, 272, "Zero weights: a nonzero weight meets sixteen lines of the result at once")
    d.text(0, 30, "filter of the weight")
    d.text(0, 48, "nonzeros as a list", "soft", 13)
    d.cells(190, 14, "100100010010")
    d.line((490, 25), (530, 25))
    for at, words in enumerate(("0.7, 0", "-0.2, 3", "0.1, 7", "0.4, 10")):
        d.box(540, 6 + at * 22, 76, 20, "frame", words)
    d.text(624, 21, "(value, place):", "soft", 13)
    d.text(624, 38, "8 bytes each,", "soft", 13)
    d.text(624, 55, "packed once", "soft", 13)
    d.text(0, 136, "x, packed")
    d.text(0, 154, "16 lines side by side:", "soft", 13)
    d.text(0, 170, "rows, or pieces of rows", "soft", 13)
    for column in range(7):
        d.box(190 + column * 54, 118, 50, 66, "lane")
        for lane in range(3):
            d.text(215 + column * 54, 136 + lane * 20, ("line 0", "...", "line 15")[lane], "on", 11, "middle")
    d.line((578, 96), (578, 106), (215, 106), (215, 116))
    d.text(584, 136, "a nonzero, broadcast,", "soft", 13)
    d.text(584, 154, "times neighbouring", "soft", 13)
    d.text(584, 172, "columns", "soft", 13)
    d.line((400, 192), (400, 218))
    d.text(0, 242, "sums")
    d.text(0, 260, "up to 16 columns of a filter", "soft", 13)
    d.vectors(190, 226, 7, "sums", 50, 30, 54)
    d.text(584, 244, "in registers for the", "soft", 13)
    d.text(584, 262, "whole list", "soft", 13)
    return d


def strands():
    d = Diagram(760, 196, "Stride 2: a kernel of three taps is two kernels of stride 1")
    names = ("even columns of x", "odd columns of x")
    d.text(0, 30, "row of x, stride 2,")
    d.text(0, 48, "no padding", "soft", 13)
    for at in range(10):
        d.box(190 + at * 50, 14, 44, 24, ("lane", "sums")[at % 2], str(at))
    both = zip(names, ("taps 0 and 2", "tap 1"), (range(0, 10, 2), range(1, 10, 2)), strict=True)
    for row, (name, taps, columns) in enumerate(both):
        y = 92 + row * 62
        d.text(0, y + 8, name)
        d.text(0, y + 26, f"{taps}, stride 1", "soft", 13)
        for at, column in enumerate(columns):
            d.box(190 + at * 50, y - 8, 44, 24, ("lane", "sums")[row], str(column))
        d.line((450, y + 4), (500, y + 4))
        d.text(510, y + 8, ("a strand of two taps", "a strand of one tap")[row], "soft", 13)
    return d


def call():
    d = Diagram(760, 272, "A call: forms are checked once, densities looked at in each call, work shared by threads")
    steps = (
        ("conv2d(x, weight, ...)", "your arrays, wherever they lie"),
        ("checked", "shapes, strides, options; kept for the next call"),
        ("sampled", "density of up to 128 short runs of x and weight"),
        ("chosen", "skipping or dense, by a cost model"),
        ("computed", "items, one thread each"),
    )
    for at, (name, words) in enumerate(steps):
        y = 8 + at * 56
        d.box(0, y, 200, 34, ("lane", "frame", "live", "frame", "sums")[at], name, 6)
        d.text(220, y + 22, words)
        if at:
            d.line((100, y - 20), (100, y - 2))
    remarks = ("", "10 us of Python in all", "", "plan(...) shows it and why", "bits do not depend on threads")
    for at, words in enumerate(remarks):
        d.text(758, 30 + at * 56, words, "soft", 13, "end")
    return d


def favicon():
    d = Diagram(32, 32, "sparseconv")
    for row, bits in enumerate(("100", "011", "010")):
        d.cells(2, 2 + row * 10, bits, 8, 10)
    return d


DIAGRAMS = {one.__name__: one for one in (idea, rows, gradient, outputs, weights, strands, call, favicon)}


def inline(app, doctree, page):
    """Puts the diagrams of a page into its HTML, where the theme's colours reach them."""
    if app.builder.format != "html":
        return
    for image in list(doctree.findall(nodes.image)):
        path = Path(image["uri"])
        if path.parent.name != "diagrams":
            continue
        text = (FOLDER / path.name).read_text(encoding="utf-8")
        text = re.sub(r"<style>.*?</style>\n", "", text)
        text = text.replace("<title>", f"<title>{escape(image['alt'])}. " if image.get("alt") else "<title>")
        image.replace_self(nodes.raw("", f'<div class="diagram">{text}</div>', format="html"))


def style_sheet():
    """The colours of the diagrams on the site, in its two themes."""
    return "".join(rules(at, f'html[data-theme="{theme}"] .diagram ') for at, theme in enumerate(("light", "dark")))


if __name__ == "__main__":
    for name, draw in DIAGRAMS.items():
        (FOLDER / f"{name}.svg").write_text(draw().svg(), encoding="utf-8")
