"""What skip="auto" decides on this machine as zeros become more, and what it expects to gain over the dense kernel.

    pip install '.[plot]' && python examples/pictures/what_auto_decides.py decisions.svg
"""

import sys

import matplotlib.pyplot as plt
import numpy as np

import sparseconv as sc

LAYERS = {"3x3, 64 to 64": (64, 64, 56, 3), "1x1, 256 to 64": (256, 64, 28, 1), "3x3, 8 to 64": (8, 64, 56, 3)}


def main(path):
    rng = np.random.default_rng(0)
    shares = np.linspace(0, 0.95, 20)
    figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for name, (channels, filters, size, taps) in LAYERS.items():
        values = rng.random((1, size, size, channels), np.float32)
        weight = rng.random((filters, channels, taps, taps), np.float32)
        plans = [
            sc.plan("conv2d", values * (values >= share), weight, padding="same", layout="NHWC") for share in shares
        ]
        (line,) = axis.plot(100 * shares, [plan.speedup for plan in plans], label=name)
        skipped = [share for share, plan in zip(shares, plans, strict=True) if plan.skip == "input"]
        if skipped:
            axis.axvline(100 * skipped[0], color=line.get_color(), linestyle=":", linewidth=1)
    axis.set(xlabel="zeros, %", ylabel="expected speed-up", title=f"skip from the dotted line on ({sc.cpu.isa()})")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(path)


if __name__ == "__main__":
    main(sys.argv[1])
