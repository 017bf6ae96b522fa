"""Training with gradients that are pruned at random."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from ..._core import checks
from ..stochastic import GradientPruner, generator
from .method import Method

if TYPE_CHECKING:
    from ...typing import Seed


class StochasticGradientPruning(Method):
    """Small gradients become zero or a threshold at random, so that no sum is wrong on average.

    `before_backward` prunes in place, each layer with its own `GradientPruner`. What it is given depends on the
    network: where a convolution is followed by ReLU, prune the gradient of a layer's input before it goes through the
    ReLU in front of that layer; where batch normalisation stands in between, whose backward pass leaves no zeros, prune
    the gradient of the convolution's output. Either makes the operand sparse that backward_data and backward_weight
    read next.

    Parameters
    ----------
    sparsity : float
        In [0, 1): share of the gradients below the threshold, if they are normally distributed. About half as many
        become zero (`stochastic_prune` has the table).
    window : int
        Steps whose thresholds are averaged to predict that of the next one. The first so many prune nothing.
    rng : numpy.random.Generator or seed
    dense : collection of str
        Names of layers that are left alone.

    Raises
    ------
    TypeError, ValueError
        If the sparsity is not in [0, 1), or the window below 1.

    See Also
    --------
    Method : the hooks, with an example.
    GradientPruner, stochastic_prune

    Notes
    -----
    Ye et al., "Accelerating CNN Training by Pruning Activation Gradients", ECCV 2020; Dai et al., "SparseTrain", DAC
    2020. Where to prune and how to predict are told from memory of these papers, the size of the window is ours.

    On top of the passes, a step reads and writes each gradient once.
    """

    def __init__(
        self, sparsity: float, *, window: int = 4, rng: Seed | None = None, dense: Collection[str] = ()
    ) -> None:
        super().__init__(dense=dense)
        self._rng = generator(rng)
        self.sparsity = checks.sparsity("sparsity", sparsity)
        self.window = checks.whole("window", window, 1)
        self._pruners: dict[str, GradientPruner] = {}

    def before_backward(self, layer: str, gradient: np.ndarray) -> np.ndarray:
        """The gradient itself, pruned in place; parameters are those of `Method.before_backward`.

        Each layer has a `GradientPruner` of its own. A layer that is left dense keeps its gradient as it is.
        """
        super().before_backward(layer, gradient)
        if layer in self.dense:
            return gradient
        if layer not in self._pruners:
            self._pruners[layer] = GradientPruner(self.sparsity, self.window, rng=self._rng)
        self._pruners[layer].prune(gradient, out=gradient)
        return gradient

    def _settings(self) -> list[str]:
        return [repr(self.sparsity), f"window={self.window}"]
