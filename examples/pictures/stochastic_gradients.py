"""Small gradients become zero or a threshold, by chance: many zeros, and the mean stays right.

    pip install '.[plot]' && python examples/pictures/stochastic_gradients.py gradients.svg
"""

import sys

import matplotlib.pyplot as plt
import numpy as np

from sparseconv import pruning


def main(path):
    rng = np.random.default_rng(0)
    gradient = rng.standard_normal(200_000).astype(np.float32)
    figure, axes = plt.subplots(1, 3, figsize=(9, 2.9), sharey=True, layout="constrained")
    for axis, sparsity in zip(axes, (0.5, 0.8, 0.9), strict=True):
        pruned = pruning.stochastic_prune(gradient, sparsity, rng=1).array
        bins = np.linspace(-3.5, 3.5, 71)
        axis.hist(gradient, bins, histtype="step", label="before")
        axis.hist(pruned[pruned != 0], bins, alpha=0.6, label="after, without zeros")
        axis.set_title(f"sparsity={sparsity}: {(pruned == 0).mean():.0%} zeros", fontsize="medium")
        axis.set_xlabel("gradient")
    axes[0].legend(fontsize="small")
    axes[0].set_yscale("log")
    figure.savefig(path)


if __name__ == "__main__":
    main(sys.argv[1])
