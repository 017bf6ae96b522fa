"""A region of interest in a volume: convolutions compute only what a mask needs (NumPy alone).

    pip install . && python examples/region_of_interest.py [SIZE]
"""

import sys
import time

import numpy as np

import sparseconv as sc

OPTIONS = {"padding": 1, "layout": "NDHWC", "activation": "relu"}


def ball(size, radius):
    """The voxels around a point of interest, as an array without a channel axis: one value for all channels."""
    axes = np.ogrid[:size, :size, :size]
    return sum((axis - size // 3) ** 2 for axis in axes)[None] <= radius**2


def network(x, layers, needed=None):
    """The result of some layers; `needed` has the voxels that each layer's result is wanted at."""
    for index, (weight, bias) in enumerate(layers):
        x = sc.conv3d(x, weight, bias, output_mask=None if needed is None else needed[index], **OPTIONS)
    return x


def fastest(function, times=5):
    best = np.inf
    for _ in range(times):
        started = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - started)
    return 1e3 * best


def main(size=40, channels=64):
    rng = np.random.default_rng(0)
    weights = [np.float32(0.03) * rng.standard_normal((channels, channels, 3, 3, 3), np.float32) for _ in range(3)]
    layers = [(weight, np.zeros(channels, np.float32)) for weight in weights]
    volume = rng.standard_normal((1, size, size, size, channels), np.float32)
    radius = size // 5
    # A result needs its neighbours of the layer before: the earlier the layer, the wider the ball.
    needed = [ball(size, radius + 2 * behind) for behind in (2, 1, 0)]
    for index, mask in enumerate(needed):
        print(f"{mask.mean():.1%} of the voxels are needed behind layer {index}")
    whole, part = network(volume, layers), network(volume, layers, needed)
    inside = needed[-1]
    assert not part[~inside].any()
    difference = np.abs(part - whole)[inside].max() / np.abs(whole).max()
    print(f"largest difference inside: {difference:.1e} of the largest value")
    everywhere = fastest(lambda: network(volume, layers))
    region = fastest(lambda: network(volume, layers, needed))
    print(f"{everywhere:.1f} ms for all, {region:.1f} ms for the region: {everywhere / region:.1f} times faster")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
