"""Where zeros are behind a ReLU: in each channel of each pixel, but hardly ever in a whole vector of channels.

    pip install '.[plot]' && python examples/pictures/zeros_of_a_network.py zeros.svg
"""

import sys

import matplotlib.pyplot as plt
import numpy as np

import sparseconv as sc
import sparseconv.data


def layers(images):
    """What three convolutions with ReLU give, with random weights."""
    rng = np.random.default_rng(0)
    x = images[..., None].astype(np.float32) / 255
    for channels, stride in ((32, 1), (64, 2), (64, 1)):
        weight = rng.standard_normal((channels, x.shape[-1], 3, 3), np.float32)
        x = sc.conv2d(x, weight - weight.mean((1, 2, 3), keepdims=True), stride=stride, padding=1, layout="NHWC")
        x = sc.masks.relu(x / x.std() - 0.3)[0]  # a bias as training finds it: somewhat more zeros than not
        yield x


def main(path):
    images, *_ = sparseconv.data.load()
    results = list(layers(images[:64]))
    figure, axes = plt.subplots(1, 4, figsize=(9, 2.6), layout="constrained")
    axes[0].imshow(images[5], cmap="gray")
    axes[0].set_title("an image")
    for number, (axis, x) in enumerate(zip(axes[1:], results, strict=True), 1):
        axis.imshow((x[5] != 0).mean(-1), vmin=0, vmax=1, cmap="viridis")
        zeros, vectors = 1 - sc.masks.density(x), 1 - sc.masks.vector_density(x)
        axis.set_title(f"layer {number}: {zeros:.0%} zeros,\n{vectors:.0%} of vectors all zero", fontsize="small")
    for axis in axes:
        axis.set_axis_off()
    figure.savefig(path)


if __name__ == "__main__":
    main(sys.argv[1])
