"""Pruning masks and thresholds, on one thread: what a training step takes beside its convolutions."""

import numpy as np

from sparseconv import pruning
from sparseconv.benchmark.measure import fastest_of_pairs, keep_memory

SECONDS = 0.5  # for the pairs of one ratio
SIZE = 10_000_000  # activations of a large layer


def elements(zeros, size):
    """Normal numbers, a share of them zero."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(size, np.float32)
    x[rng.random(size, np.float32) < zeros] = 0
    return x


class TopK:
    """The K largest of ten million magnitudes; with half of them zero, as after a ReLU."""

    version = "1"
    params = ((0.0, 0.5), (0.8, 0.9, 0.99))
    param_names = ("zeros", "sparsity")

    def setup(self, zeros, sparsity):
        keep_memory()
        self.x = elements(zeros, SIZE)

    def time_threshold(self, zeros, sparsity):
        pruning.topk_threshold(self.x, sparsity, num_threads=1)

    def time_mask(self, zeros, sparsity):
        pruning.topk_mask(self.x, sparsity, num_threads=1)

    def track_ratio(self, zeros, sparsity):
        last = int(sparsity * self.x.size)
        calls = (
            lambda: pruning.topk_threshold(self.x, sparsity, num_threads=1),
            lambda: np.partition(np.abs(self.x), last)[last],
        )
        ours, partition = fastest_of_pairs(*calls, SECONDS)
        return ours / partition

    track_ratio.unit = "threshold / numpy.partition"


class SmallTopK:
    """Weights of small layers: the way to the kernel counts."""

    version = "1"
    params = (512, 4096, 36_864)
    param_names = ("size",)

    def setup(self, size):
        self.x = elements(0, size)

    def time_threshold(self, size):
        pruning.topk_threshold(self.x, 0.9, num_threads=1)

    def time_mask(self, size):
        pruning.topk_mask(self.x, 0.9, num_threads=1)


class NM:
    """n of every m of a weight (512, 512), along its rows and transposable."""

    version = "1"
    params = ("2:4", "4:8", "8:16")
    param_names = ("pattern",)

    def setup(self, pattern):
        self.w = elements(0, 512 * 512).reshape(512, 512)
        self.pattern = tuple(map(int, pattern.split(":")))

    def time_nm_mask(self, pattern):
        pruning.nm_mask(self.w, *self.pattern, num_threads=1)

    def time_transposable_greedy(self, pattern):
        pruning.transposable_nm_mask(self.w, *self.pattern, "greedy", num_threads=1)

    def time_transposable_entropy(self, pattern):
        pruning.transposable_nm_mask(self.w, *self.pattern, "entropy", num_threads=1)

    def time_transposable_exact(self, pattern):
        pruning.transposable_nm_mask(self.w, *self.pattern, "exact", num_threads=1)


class Stochastic:
    """Normal gradients, on one thread, into memory that is there: half a MB, and 40 MB."""

    version = "1"
    params = (1 << 17, 10_000_000)
    param_names = ("elements",)

    def setup(self, elements):
        keep_memory()
        self.g = np.random.default_rng(0).standard_normal(elements, np.float32)
        self.out = np.zeros_like(self.g)
        self.rng = np.random.default_rng(1)
        self.pruner = pruning.GradientPruner(0.9, 1, rng=self.rng)
        self.pruner.prune(self.g)

    def time_stochastic_prune(self, elements):
        pruning.stochastic_prune(self.g, 0.9, rng=self.rng, out=self.out, num_threads=1)

    def time_gradient_pruner(self, elements):
        self.pruner.prune(self.g, out=self.out, num_threads=1)

    def time_copy(self, elements):
        np.copyto(self.out, self.g)
