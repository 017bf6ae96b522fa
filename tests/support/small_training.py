"""What tests of training share: numerical derivatives, and images that are learnt in seconds."""

import numpy as np


def directional_derivative(function, array, direction, step=1e-6):
    """Central difference of a scalar function of an array that is changed in place and restored."""
    original = array.copy()
    array += step * direction
    above = function()
    array[...] = original - step * direction
    below = function()
    array[...] = original
    return (above - below) / (2 * step)


def stripes(count=64):
    """Two classes, horizontal and vertical stripes, under noise."""
    rng = np.random.default_rng(10)
    labels = rng.integers(0, 2, count, dtype=np.uint8)
    wave = 200 * (np.arange(8) % 4 < 2)
    images = np.where(labels[:, None, None], wave[:, None], wave) * rng.random((count, 8, 8))
    return images.astype(np.uint8), labels
