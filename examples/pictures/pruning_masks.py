"""Half of a weight, kept in four ways: the freer the pattern, the more of its magnitude stays.

    pip install '.[plot]' && python examples/pictures/pruning_masks.py masks.svg
"""

import sys

import matplotlib.pyplot as plt
import numpy as np

from sparseconv import pruning


def main(path):
    weight = np.random.default_rng(0).standard_normal((32, 32), np.float32)
    masks = {
        "the largest of all": pruning.topk_mask(weight, 0.5),
        "2 of every 4 in a row": pruning.nm_mask(weight, 2, 4),
        "4 of 8, both ways": pruning.transposable_nm_mask(weight, 4, 8),
        "whole filters": np.repeat(pruning.topk_mask(np.abs(weight).sum(1), 0.5)[:, None], 32, 1),
    }
    figure, axes = plt.subplots(1, 4, figsize=(9, 2.8), layout="constrained")
    for axis, (name, mask) in zip(axes, masks.items(), strict=True):
        kept = np.abs(weight[mask]).sum() / np.abs(weight).sum()
        axis.imshow(mask, cmap="viridis", interpolation="nearest")
        axis.set_title(f"{name}:\n{mask.mean():.0%} kept, {kept:.0%} of the magnitude", fontsize="small")
        axis.set_axis_off()
    figure.savefig(path)


if __name__ == "__main__":
    main(sys.argv[1])
