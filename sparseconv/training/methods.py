"""The training methods that ``sparseconv train`` compares, for the demo's network."""

from sparseconv._core import checks
from sparseconv.pruning import SWAT, Method, StochasticGradientPruning, TransposableNM

__all__ = ["NAMES", "make"]

NAMES = ("none", "swat", "nm", "stochastic")
_BLOCK = 16  # of N:M masks: the finer the blocks, the fewer sparsities there are


def make(name, sparsity, network, seed):
    """Return a method that aims at this sparsity; the network's first layer, of one channel, stays dense.

    N:M masks leave out the last one, too, whose ten rows no block divides.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    sparsity : float
        SWAT: of weights and saved activations. N:M: of weights, in sixteenths. Stochastic: the share of gradients below
        the threshold, of which about half become zero.
    network : Network
    seed : int
        For the random numbers of "stochastic".
    """
    checks.word("name", name, NAMES)
    first, *_, last = network.weighted
    if name == "swat":
        return SWAT(sparsity, dense=[first])
    if name == "nm":
        n = max(1, round((1 - sparsity) * _BLOCK))
        return TransposableNM(n, _BLOCK, period=1, dense=[first, last])  # so that every step's time has a search in it
    if name == "stochastic":
        return StochasticGradientPruning(sparsity, rng=seed)
    return Method()
