"""Top-K: the largest magnitudes of a tensor are kept, as a threshold or as a mask (SWAT)."""

from __future__ import annotations

import functools
import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import cpu, masks
from .._core import _pruning, arrays, checks

if TYPE_CHECKING:
    from ..typing import Array, Bools

SERIAL_ELEMENTS = 1 << 19  # some 60 us of a pass: below that, waking a thread costs too much


def topk_threshold(x: Array, sparsity: float, *, num_threads: int | None = None) -> float:
    """The threshold that leaves the largest magnitudes of `x`: K = ceil((1 - sparsity) * x.size) elements, or ties.

    Goes straight into ``threshold=`` of a convolution, for which ``abs(v) <= threshold`` counts as zero. With `top` the
    K-th largest of ``abs(x)``, it is the largest number of the dtype of `x` below `top`, or 0.0 where `top` is zero:
    just the elements with ``abs(v) >= top`` are above it. So all elements that are equal to `top` are kept, as in SWAT,
    which may be more than K.

    Parameters
    ----------
    x : float32 or float64 array
        Any shape and strides, without NaN. Infinities are magnitudes like any other. Of an empty array, such as the
        last batch of a data set may be, nothing is pruned: the threshold is 0.0.
    sparsity : float
        Share of elements to prune, at least 0 and less than 1. It counts as the decimal number that it is printed as,
        and K is exact: 21 of 50 at 0.58, where ``(1 - 0.58) * 50`` is 21.000000000000004 in floats.
    num_threads : int, optional
        The threshold does not depend on it.

    Returns
    -------
    float
        At least 0, and a number of the dtype of `x`.

    Raises
    ------
    TypeError
        `x` is not an array in CPU memory or has another dtype, or `sparsity` is no number.
    ValueError
        `x` has a NaN, or `sparsity` is not in [0, 1).

    See Also
    --------
    topk_mask : exactly K elements.
    TopK : the same threshold for several steps.

    Notes
    -----
    Top-K in the forward and backward pass: Raihan and Aamodt, "Sparse Weight Activation Training", NeurIPS 2020.

    The selection is that of Floyd and Rivest ("Expected time bounds for selection", CACM 18(3), 1975): a sample of
    2 * sqrt(size) elements, at most 8192, brackets the K-th largest; one pass over the array counts what is above the
    bracket and keeps what is inside, in which the search goes on. The result is exact and the time linear for every
    array; a sample that misses its bracket costs one pass more. float64 arrays take `numpy.partition`.

    Ten million normal float32 elements on one core (Zen 4, AVX-512) take 1.7 ms, 2.8 on AVX2; with half of them zero
    1.7 to 2.6 and 2.8 to 3.5 ms. ``numpy.partition(numpy.abs(x))`` takes 52 to 64 ms there, `numpy.partition` of ready
    magnitudes 50 to 62; reading the memory 1.0. For 4096 elements it is 6.4 us, for the call alone 3.7 us.

    Zeros are one magnitude, and subnormal numbers are zeros, as in all kernels.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseconv.pruning import topk_threshold
    >>> x = np.array([1.0, -4.0, 3.0, 0.5, -3.0], np.float32)
    >>> threshold = topk_threshold(x, 0.6)
    >>> threshold < 3, np.abs(x) > threshold
    (True, array([False,  True,  True, False,  True]))
    """
    return threshold_of("x", x, sparsity, num_threads)


def topk_mask(x: Array, sparsity: float, *, num_threads: int | None = None) -> Bools:
    """The mask of the K = ceil((1 - sparsity) * x.size) largest magnitudes of `x`: exactly K.

    Of equal magnitudes those with the lower index, in C order, are kept.

    Parameters
    ----------
    x : float32 or float64 array
        As in `topk_threshold`.
    sparsity : float
        As in `topk_threshold`.
    num_threads : int, optional
        The mask does not depend on it.

    Returns
    -------
    bool ndarray
        C-contiguous, in the shape of `x`; True is kept.

    Raises
    ------
    TypeError, ValueError
        As in `topk_threshold`.

    See Also
    --------
    sparseconv.pack_weight : takes such masks of weights.

    Notes
    -----
    The time is that of `topk_threshold` and one pass more that writes the mask, 2 ms for ten million elements; where
    only a part of the elements that equal the K-th largest is kept, another one counts them, 1.5 ms and more.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseconv.pruning import topk_mask
    >>> topk_mask(np.array([1.0, -4.0, 3.0, 0.5, -3.0]), 0.6)
    array([False,  True,  True, False, False])
    """
    return _largest("x", x, sparsity, num_threads)[1]


class TopK:
    """The Top-K of a tensor that changes slowly: its threshold is found anew every `period` steps, and kept between.

    Each call of `threshold` or `mask` is a step; the first one finds a threshold. Between refreshes the share that is
    kept drifts with the tensor. An empty array has nothing to find a threshold in: it gets the stored one (0.0 before
    there is one) and is no step. One object serves one tensor, such as the weights or the activations of one layer.

    Parameters
    ----------
    sparsity : float
        At least 0 and less than 1.
    period : int
        Steps from one refresh to the next. 1: each step has its own threshold.

    Attributes
    ----------
    sparsity : float
        May be changed; the next refresh takes it.
    period : int
    steps : int
        Calls so far, those with empty arrays not counted.
    stored : float or None
        The threshold of the last refresh.

    See Also
    --------
    topk_threshold, topk_mask

    Notes
    -----
    SWAT's published code refreshes every 20 iterations on CIFAR and five times per epoch on ImageNet; its paper says
    every iteration, and every 1000. (Raihan and Aamodt, "Sparse Weight Activation Training", NeurIPS 2020.)

    Examples
    --------
    >>> import numpy as np
    >>> from sparseconv.pruning import TopK
    >>> top, x = TopK(0.5, period=2), np.arange(8, dtype=np.float32)
    >>> [int(np.count_nonzero(step > top.threshold(step))) for step in (x, x + 2, x + 4)]
    [4, 6, 4]
    """

    def __init__(self, sparsity: float, period: int = 1) -> None:
        checks.sparsity("sparsity", sparsity)
        self.sparsity = sparsity
        self.period = checks.whole("period", period, 1)
        self.steps = 0
        self.stored: float | None = None

    def threshold(self, x: Array, *, num_threads: int | None = None) -> float:
        """`topk_threshold` of `x` at a refresh, otherwise the stored threshold; then `x` is not read.

        Parameters
        ----------
        x : float32 or float64 array
        num_threads : int, optional

        Returns
        -------
        float
        """
        array = arrays.take("x", x)
        if array.size == 0:
            return self.stored or 0.0
        if self.stored is None or self._refreshes():
            self.stored = topk_threshold(array, self.sparsity, num_threads=num_threads)
        self.steps += 1
        return self.stored

    def mask(self, x: Array, *, num_threads: int | None = None) -> Bools:
        """`topk_mask` of `x` at a refresh, exactly K elements, otherwise those above the stored threshold.

        Parameters
        ----------
        x : float32 or float64 array
            Between refreshes a NaN is above every threshold, as it is for the kernels.
        num_threads : int, optional

        Returns
        -------
        bool ndarray
            C-contiguous, in the shape of `x`.
        """
        array = arrays.take("x", x)
        if array.size == 0:
            return np.empty(array.shape, np.bool_)
        if self.stored is None or self._refreshes():
            self.stored, mask = _largest("x", array, self.sparsity, num_threads)
        else:
            mask = masks.above(array, self.stored, _threads_for(array.size, num_threads))
        self.steps += 1
        return mask

    def _refreshes(self) -> bool:
        return self.steps % self.period == 0

    def __repr__(self) -> str:
        return f"TopK(sparsity={self.sparsity}, period={self.period}, steps={self.steps}, stored={self.stored})"


def channel_mask(weight: Array, sparsity: float) -> Bools:
    """The mask of the (filter, channel) slices of a weight that have the largest L1 norms.

    Of the ``K * C`` slices ``weight[k, c]``, ``ceil((1 - sparsity) * K * C)`` are kept whole: those with the largest
    sums of magnitudes, of equal ones those with the lower index. All other weights are pruned.

    Parameters
    ----------
    weight : (K, C/groups, ...) or (out, in), float32 or float64
        Without NaN.
    sparsity : float
        Share of slices to prune, at least 0 and less than 1; as in `topk_threshold`.

    Returns
    -------
    bool ndarray
        C-contiguous, in the shape of `weight`; True is kept.

    Raises
    ------
    TypeError
        `weight` is not an array in CPU memory or has another dtype, or `sparsity` is no number.
    ValueError
        `weight` has fewer than two dimensions or a NaN, or `sparsity` is not in [0, 1).

    See Also
    --------
    sparseconv.pack_weight : takes the mask; its kernels gain most from whole slices.

    Notes
    -----
    Structured SWAT: Raihan and Aamodt, "Sparse Weight Activation Training", NeurIPS 2020. Sums are taken in float64.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseconv.pruning import channel_mask
    >>> channel_mask(np.array([[[1.0, -2.0], [2.0, 2.0]]]), 0.5)
    array([[[False, False],
            [ True,  True]]])
    """
    array = np.ascontiguousarray(arrays.take("weight", weight))  # so that equal weights in any order have equal sums
    if array.ndim < 2:
        raise ValueError(f"weight: got {array.ndim} dimensions (shape {array.shape}), expected (K, C, *kernel)")
    norms = np.abs(array).sum(axis=tuple(range(2, array.ndim)), dtype=np.float64)
    kept = _largest("weight", norms, sparsity, 1)[1]
    return np.broadcast_to(kept.reshape(*norms.shape, *[1] * (array.ndim - 2)), array.shape).copy()


def threshold_of(name: str, value: Any, sparsity: Any, num_threads: int | None = None) -> float:
    """`topk_threshold` of an argument of this name."""
    array = arrays.take(name, value)
    return below(_select(name, array, kept_of(sparsity, array.size), None, num_threads), array.dtype)


def kept_of(sparsity: Any, size: int) -> int:
    """K = ceil((1 - sparsity) * size), in exact arithmetic on the decimal number that `sparsity` is printed as."""
    checks.sparsity("sparsity", sparsity)
    return _kept_of(sparsity, size)


@functools.lru_cache(maxsize=1024, typed=True)
def _kept_of(sparsity: Any, size: int) -> int:
    return size - math.floor(Fraction(str(sparsity)) * size)


def below(top: float, dtype: np.dtype) -> float:
    """The largest number of a dtype below `top`, zero below zero."""
    return float(np.nextafter(dtype.type(top), dtype.type(0)))


def _largest(name: str, value: Any, sparsity: Any, num_threads: int | None) -> tuple[float, np.ndarray]:
    """The threshold and the mask of the largest magnitudes."""
    array = arrays.take(name, value)
    mask = np.empty(array.shape, np.bool_)
    top = _select(name, _in_c_order(array), kept_of(sparsity, array.size), mask, num_threads)
    return below(top, array.dtype), mask


def _select(name: str, array: np.ndarray, k: int, mask: np.ndarray | None, num_threads: int | None) -> float:
    """The k-th largest magnitude, zero where there is none; fills `mask`, for which the array must be in C order."""
    threads = _threads_for(array.size, num_threads)
    if array.size == 0:
        return 0.0
    if array.dtype == np.float32:
        elements = arrays.addressable(array.ravel(order="K"))  # no copy where memory has no gaps: NHWC views and so on
        top, _ = _pruning.topk(elements, array.size, k, mask, threads)
    else:
        top = _select_wide(_magnitudes(array).ravel(), k, mask)
    if math.isnan(top):
        raise ValueError(f"{name}: got NaN, expected numbers that can be ordered")
    return top


def _select_wide(magnitudes: np.ndarray, k: int, mask: np.ndarray | None) -> float:
    """The same for float64, with NumPy."""
    last = magnitudes.size - k
    ordered = np.partition(magnitudes, sorted({last, magnitudes.size - 1}))
    top = ordered[last]
    if math.isnan(ordered[-1]):
        return math.nan
    if mask is not None:
        flat = mask.reshape(-1)
        np.greater(magnitudes, top, out=flat)
        flat[np.flatnonzero(magnitudes == top)[: k - np.count_nonzero(flat)]] = True
    return float(top)


def _magnitudes(array: np.ndarray) -> np.ndarray:
    """Magnitudes with zeros in the place of subnormal numbers."""
    magnitudes = np.asarray(np.abs(array))  # of a scalar, too
    magnitudes[magnitudes < np.finfo(array.dtype).tiny] = 0
    return magnitudes


def _in_c_order(array: np.ndarray) -> np.ndarray:
    return arrays.addressable(np.ascontiguousarray(array).reshape(array.shape))


def _threads_for(elements: int, num_threads: int | None) -> int:
    return max(1, min(cpu.checked_threads(num_threads), elements // SERIAL_ELEMENTS))
