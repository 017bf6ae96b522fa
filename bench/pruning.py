"""Pruning in every step: its own time, which the zeros that it makes have to earn back."""

import numpy as np

from sparseconv.benchmark.measure import keep_memory
from sparseconv.pruning import GradientPruner, stochastic_prune


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
        self.pruner = GradientPruner(0.9, 1, rng=self.rng)
        self.pruner.prune(self.g)

    def time_stochastic_prune(self, elements):
        stochastic_prune(self.g, 0.9, rng=self.rng, out=self.out, num_threads=1)

    def time_gradient_pruner(self, elements):
        self.pruner.prune(self.g, out=self.out, num_threads=1)

    def time_copy(self, elements):
        np.copyto(self.out, self.g)
