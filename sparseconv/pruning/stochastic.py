"""Stochastic pruning of gradients: small ones become zero or a threshold, by chance, and stay right on average."""

from __future__ import annotations

import math
import sys
from collections import deque
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import cpu
from .._core import _pruning, arrays, checks

if TYPE_CHECKING:
    from ..typing import Array, Seed

SERIAL_ELEMENTS = 1 << 18  # some 120 us of work: two threads at half a million gain 1.4, at 10 million 1.95


class Pruned(NamedTuple):
    """What `stochastic_prune` and `GradientPruner.prune` return.

    Attributes
    ----------
    array : ndarray
        The pruned gradient: a new array in the memory order of the given one, or `out`.
    density : float
        Share of its elements that are not zero (subnormal numbers count as zero), after pruning; 0.0 without elements.
    threshold : float
        The threshold tau that was applied, as a number of the array's dtype; 0.0 where nothing was pruned. NaN where
        nothing was pruned because it could not be found: the mean magnitude is Inf or NaN.
    """

    array: np.ndarray
    density: float
    threshold: float


def stochastic_prune(
    g: Array, sparsity: float, *, rng: Seed | None = None, out: Array | None = None, num_threads: int | None = None
) -> Pruned:
    """A gradient whose small elements are rounded at random to zero or to a threshold, so that its expectation stays.

    With tau from the magnitudes of `g` and a uniform random number r of its own for each element::

        tau = sqrt(pi / 2) * mean(|g|) * Phi^-1((1 + sparsity) / 2)
        |g| >= tau:       g stays
        |g| > r * tau:    sign(g) * tau
        else:             0

    Parameters
    ----------
    g : float32 or float64 array
        Any strides. Zeros stay zeros; they count in the mean, so a gradient that is already sparse gets a smaller tau.
        It may be empty, as that of a data set's last batch; then nothing is drawn.
    sparsity : float
        Target rate p, 0 <= p < 1: the share of a normal distribution that lies below tau. **It is not the sparsity of
        the result**, since a part of those elements becomes tau; see Notes. 0 prunes nothing.
    rng : None, seed or numpy.random.Generator, optional
        One 64-bit key is drawn from it (``rng.integers``). The same seed gives the same result.
    out : array like `g`, optional
        Written and returned; `g` itself is pruned in place. Without a copy if its memory has no gaps and is in the
        order of that of `g`: NCHW and NHWC alike.
    num_threads : int, optional
        As in `sparseconv.conv2d`; the result does not depend on it.

    Returns
    -------
    Pruned
        ``(array, density, threshold)``.

    See Also
    --------
    GradientPruner : the same with a threshold predicted from earlier gradients, in one pass over memory.

    Notes
    -----
    Rule and threshold: Ye et al., "Accelerating CNN Training by Pruning Activation Gradients", ECCV 2020,
    arXiv 1908.00173, on which Dai et al., "SparseTrain", DAC 2020, arXiv 2007.13595, is built. tau models g as normal
    with mean zero: ``E|g| = sigma sqrt(2 / pi)`` gives sigma, and the share p of a normal distribution lies within
    sigma Phi^-1((1 + p) / 2). The constant sqrt(pi / 2) follows from this; it could not be compared with the paper's.

    The expected value of the result is g: ``sign(g) tau`` with probability ``|g| / tau``. This adds a variance of
    ``|g| * (tau - |g|)`` for each element below tau. r is one of 2^23 equidistant numbers, (k + 1/2) / 2^23, which
    leaves a bias of at most tau / 2^24 per element; below tau / 2^24 an element always becomes zero.

    With t = Phi^-1((1 + p) / 2) the zeroed share of a normal distribution is
    ``p - sqrt(2 / pi) * (1 - exp(-t**2 / 2)) / t``, and with s = t sqrt(pi / 2) that of a Laplace distribution
    ``1 - (1 - exp(-s)) / s``. Real gradients have heavier tails than a normal distribution, too:

    ====  ==========  ==============  ==============
    p     tau/sigma   zeroed, normal  zeroed, Laplace
    ====  ==========  ==============  ==============
    0.50  0.6745      0.259           0.325
    0.70  1.0364      0.380           0.440
    0.80  1.2816      0.451           0.502
    0.90  1.6449      0.540           0.577
    0.95  1.9600      0.603           0.628
    0.99  2.5758      0.691           0.703
    ====  ==========  ==============  ==============

    Where it belongs, from memory of the papers and not verified: in a block of convolution and ReLU the gradient with
    respect to the convolution's input is pruned, before the mask of the ReLU in front of it is applied to it, since the
    gradient behind a ReLU is sparse anyway; with BatchNorm between convolution and ReLU, the gradient with respect to
    the convolution's output, which BatchNorm has made dense. Either way the pruned array is a ``grad_output`` of
    backward_data and backward_weight, which skip its zeros.

    Elements are numbered in the order of memory, and r is drawn by number: Philox4x32-7 with one key per call. The
    result, its density and tau are the same, bit for bit, for any number of threads and on every instruction set, but
    not for other memory orders of the same elements. NaN stays NaN and Inf stays Inf; their mean gives no tau, nothing
    is pruned, and `threshold` is NaN. Subnormal numbers become zero where anything is pruned, as in all kernels; a tau
    that is subnormal itself prunes nothing.

    Time: O(g.size), one pass that reads `g` and one that reads it and writes `out`; on one Zen 4 core 1.7 G float32
    elements/s with AVX-512, 1.3 with AVX2. float64 is correct and slower.

    Examples
    --------
    >>> import numpy as np
    >>> g = np.random.default_rng(0).standard_normal((16, 64, 28, 28), np.float32)
    >>> pruned = stochastic_prune(g, 0.9, rng=1)
    >>> round(pruned.density, 2), round(pruned.threshold, 2)
    (0.46, 1.65)
    >>> bool(abs(pruned.array.sum() - g.sum()) < 5 * g.size**0.5)
    True
    """
    factor = _factor(sparsity)
    random = generator(rng)
    call = _Call(g, out, num_threads)
    call.measure()
    return call.prune(_exact_threshold(factor, call.mean), random)


class GradientPruner:
    """`stochastic_prune` for a gradient that comes again in every step: one pass, with a predicted threshold.

    The threshold is the mean of those that the last `window` gradients should have had, which is known before the
    gradient has been read; its own is found on the way and takes the place of the oldest. Until there are `window` of
    them nothing is pruned.

    Parameters
    ----------
    sparsity : float
        Target rate, 0 <= sparsity < 1; **not the sparsity of the result**, see `stochastic_prune`.
    window : int
        How many thresholds are averaged, at least 1.
    rng : None, seed or numpy.random.Generator, optional
        One 64-bit key is drawn from it in each call of `prune`.

    Attributes
    ----------
    sparsity : float
    window : int
    thresholds : tuple of float
        The exact thresholds of the last gradients, oldest first, at most `window` of them.

    See Also
    --------
    stochastic_prune : the rule, its sources and where to use it.

    Notes
    -----
    Use one object per tensor. Predicting tau from a queue of earlier ones is how Dai et al. (arXiv 2007.13595) are
    remembered to avoid a second pass; that was not verified, and all that goes beyond it is ours: no value of `window`
    is theirs, thresholds of gradients that are not finite are left out of the queue, and gradients before it is full
    are returned as they are.

    An empty gradient leaves queue and random numbers as they were: later steps are as if it had not been.

    A gradient with Inf or NaN keeps them, its other elements are pruned with the predicted threshold, and the queue
    stays as it was: one overflow of a scaled loss does not matter to later steps. Nothing is raised and nothing hidden,
    so a training loop that looks for Inf and NaN in gradients still finds them.

    Time: O(g.size), one pass; on one Zen 4 core 2.2 G float32 elements/s with AVX-512, 1.7 with AVX2.

    Examples
    --------
    >>> import numpy as np
    >>> pruner = GradientPruner(0.9, window=2, rng=0)
    >>> rng = np.random.default_rng(0)
    >>> [round(pruner.prune(rng.standard_normal(100_000, np.float32)).density, 2) for step in range(4)]
    [1.0, 1.0, 0.46, 0.46]
    """

    def __init__(self, sparsity: float, window: int, *, rng: Seed | None = None) -> None:
        self._factor = _factor(sparsity)
        self.sparsity = float(sparsity)
        self.window = checks.whole("window", window, 1)
        self._generator = generator(rng)
        self._exact: deque[float] = deque(maxlen=self.window)

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The exact thresholds of the last gradients, oldest first."""
        return tuple(self._exact)

    def prune(self, g: Array, *, out: Array | None = None, num_threads: int | None = None) -> Pruned:
        """Prunes a gradient with the predicted threshold and notes its own.

        Parameters
        ----------
        g : float32 or float64 array
        out : array like `g`, optional
            Written and returned; `g` itself is pruned in place.
        num_threads : int, optional
            The result does not depend on it.

        Returns
        -------
        Pruned
            ``(array, density, threshold)``; `threshold` is 0.0 until `window` gradients have been seen.
        """
        call = _Call(g, out, num_threads)
        known = self.thresholds  # other threads may add to them
        predicted = math.fsum(one / self.window for one in known) if len(known) == self.window else 0.0
        pruned = call.prune(predicted, self._generator)
        exact = _exact_threshold(self._factor, call.mean)
        if not math.isnan(exact):
            self._exact.append(exact)
        return pruned

    def __repr__(self) -> str:
        return f"GradientPruner(sparsity={self.sparsity}, window={self.window}, thresholds={list(self.thresholds)})"


class _Call:
    """One gradient, its memory and the memory of its result, checked before anything is written.

    `mean` is that of the magnitudes, once the gradient has been read; `density` that of what was read or written last.
    """

    def __init__(self, g: Array, out: Array | None, num_threads: int | None) -> None:
        array = arrays.take("g", g)
        self.threads = max(1, min(cpu.checked_threads(num_threads), array.size // SERIAL_ELEMENTS))
        self.mean = self.density = math.nan
        axes = arrays.memory_axes(array)
        in_memory = array.transpose(axes)
        self.source = arrays.addressable(np.ascontiguousarray(in_memory).reshape(in_memory.shape))
        if out is None:
            self.target = arrays.empty(self.source.shape, array.dtype)
            self.result = self.target.transpose(arrays.inverse(axes))
            return
        self.result = arrays.take_out(out)
        arrays.check_form(self.result, array.shape, array.dtype)
        arrays.check_memory(self.result, {} if _same_memory(self.result, array) else {"g": array})
        self.target = self.result.transpose(axes)

    def measure(self) -> None:
        """Finds the mean and the density of the gradient."""
        if self.source.size:
            self._run(None, 0.0, 0)

    def prune(self, threshold: float, generator: np.random.Generator) -> Pruned:
        """Writes the result, and finds the mean of the gradient and the density of the result."""
        if self.source.size == 0:
            return Pruned(self.result, 0.0, 0.0)
        key = int(generator.integers(2**64, dtype=np.uint64))
        limits = np.finfo(self.source.dtype)
        tau = float(limits.dtype.type(min(threshold, float(limits.max))))
        if not tau >= limits.tiny:
            self.measure()
            self._copy(self.source)
            return Pruned(self.result, self.density, tau if math.isnan(threshold) else 0.0)
        if self.target.flags.c_contiguous:
            self._run(self.target, tau, key)
        else:
            ordered = arrays.empty(self.source.shape, self.source.dtype)
            self._run(ordered, tau, key)
            self._copy(ordered)
        return Pruned(self.result, self.density, tau)

    def _run(self, target: np.ndarray | None, tau: float, key: int) -> None:
        items = -(-self.source.size // _pruning.STOCHASTIC_ITEM)
        sums, nonzeros = np.empty(items), np.empty(items, np.int64)
        _pruning.stochastic_prune(self.source, target, tau, key, sums, nonzeros, self.threads)
        self.mean = math.fsum((sums / self.source.size).tolist())
        self.density = int(nonzeros.sum()) / self.source.size

    def _copy(self, values: np.ndarray) -> None:
        if not _same_memory(values, self.target):
            np.copyto(self.target, values)


def _factor(sparsity: Any) -> float:
    """tau / mean(|g|) for a target rate."""
    return -math.sqrt(math.pi / 2) * NormalDist().inv_cdf((1 - checks.sparsity("sparsity", sparsity)) / 2)


def _exact_threshold(factor: float, mean: float) -> float:
    """NaN where the mean is not finite."""
    return min(factor * mean, sys.float_info.max) if math.isfinite(mean) else math.nan


def generator(rng: Any) -> np.random.Generator:
    """The generator that `rng` is or seeds."""
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        raise type(error)(f"rng: got {rng!r}, expected None, a seed or a numpy.random.Generator") from error


def _same_memory(a: np.ndarray, b: np.ndarray) -> bool:
    return a.ctypes.data == b.ctypes.data and a.strides == b.strides and a.shape == b.shape
