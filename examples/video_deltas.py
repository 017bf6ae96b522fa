"""A video through convolutions that compute only what has changed: differences of frames, nearly all of them zeros.

    pip install . && python examples/video_deltas.py [FRAMES]
"""

import sys
from time import perf_counter

import numpy as np

import sparseconv as sc


class Layer:
    def __init__(self, x, weight, stride, threshold):
        self.weight, self.threshold, self.zeros = weight, threshold, []
        self.options = {"stride": stride, "padding": 1, "layout": "NHWC", "threshold": threshold}
        self.sent = np.zeros_like(x)  # the sum of all differences that were convolved so far,
        self.sums = sc.conv2d(self.sent, weight, **self.options)  # and of the results; a bias would be added here alone
        self.delta, self.size, self.y, self.whole = (np.empty_like(like) for like in (x, x, self.sums, self.sums))

    def __call__(self, x):
        np.subtract(x, self.sent, out=self.delta)  # not from the last frame: small changes add up until they are sent
        changed = np.abs(self.delta, out=self.size) > self.threshold
        np.copyto(self.sent, x, where=changed)  # all of x: the error grows, to 9.3% in 100 frames instead of 3.0%
        sc.conv2d(self.delta, self.weight, residual=self.sums, out=self.sums, **self.options)  # threshold: as above
        self.zeros.append(1 - np.count_nonzero(changed) / changed.size)
        return np.maximum(self.sums, 0, out=self.y)


def main(frames=48, threshold=0.02, size=192):
    rng, x = np.random.default_rng(0), np.zeros((1, size, size, 3), np.float32)
    layers, seconds, errors = [], [], []
    for c, k, stride in ((3, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1)):
        weight = rng.standard_normal((k, c, 3, 3), np.float32) / (4.5 * c) ** 0.5
        layers.append([Layer(x, weight, stride, limit) for limit in (threshold, 0.0)])
        x = layers[-1][0].y
    still, at = 0.8 * rng.random((1, size, size, 3)), np.arange(size)
    for t in range(frames):  # a disc moves over what stands still, the light grows slowly, and the camera adds noise
        disc = np.hypot(at[:, None] - size / 2, at - size / 4 - 2 * t)[..., None] < 14
        frame = np.where(disc, [1.0, 0.5, 0.0], still * (1 + 0.001 * t)) + 0.005 * rng.standard_normal(still.shape)
        whole = deltas = exact = np.float32(frame)
        for layer, without in layers:
            start = perf_counter()
            whole = sc.conv2d(whole, without.weight, activation="relu", out=without.whole, **without.options)
            middle = perf_counter()
            deltas = layer(deltas)
            seconds.append((middle - start, perf_counter() - middle))
            exact = without(exact)
        errors.append([np.linalg.norm(y - whole) / np.linalg.norm(whole) for y in (deltas, exact)])
    print("layer  zeros x  ms before  after  by")  # x: differences; before: frames computed whole
    times = 1e3 * np.median(np.reshape(seconds, (-1, len(layers), 2)), axis=0)
    for i, (before, after) in enumerate(times):
        print(f"{i:<7}{np.median(layers[i][0].zeros):<9.1%}{before:<11.2f}{after:<7.2f}differences")
    print("a frame takes {:.2f} ms for the whole, {:.2f} ms for differences".format(*times.sum(axis=0)))
    print("largest relative error: {:.1%} with the threshold, {:.0e} without".format(*np.max(errors, axis=0)))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
