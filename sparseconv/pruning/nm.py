"""N:M masks: of every m weights along an axis, the n of largest magnitude are kept."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import cpu
from .._core import _pruning, arrays, checks

if TYPE_CHECKING:
    from ..typing import Array, Bools

SERIAL_WEIGHTS = 1 << 15  # some 50 us of work: below that, waking a thread costs too much


def nm_mask(w: Array, n: int, m: int, axis: int = -1, *, pad: bool = False, num_threads: int | None = None) -> Bools:
    """The mask that keeps the `n` largest magnitudes of every `m` elements along an axis.

    Of equal magnitudes the one with the lower index is kept. "2:4" is ``nm_mask(w, 2, 4)``: two *kept* of four.

    Parameters
    ----------
    w : float32 or float64 array
        Weights without NaN, in any number of dimensions.
    n, m : int
        Kept elements of a group, and its size; ``1 <= n <= m``.
    axis : int
        Along which groups are taken. Operand rows of a matrix product need the axis that is summed over: -1 for a
        linear weight (out, in), 1 for a convolution's (K, C, R, S) that is N:M in its channels.
    pad : bool
        Whether the last group of an axis may be shorter than `m`; it then keeps at most `n`. Without it, a size that
        `m` does not divide is an error.
    num_threads : int, optional
        The mask does not depend on it.

    Returns
    -------
    bool ndarray
        C-contiguous, in the shape of `w`; True is kept.

    See Also
    --------
    transposable_nm_mask : n of every m along both axes of a matrix.

    Notes
    -----
    N:M sparsity: Zhou et al., "Learning N:M Fine-grained Structured Sparse Neural Networks From Scratch", ICLR 2021.
    Time: m / 2 comparisons per element, sixteen groups at a time (0.6 G float32 weights/s at 4:8 on one Zen 4 core).
    Subnormal numbers count as zero, as in all kernels.

    Examples
    --------
    >>> import numpy as np
    >>> nm_mask(np.array([3.0, -4.0, 1.0, -3.0]), 2, 4)
    array([ True,  True, False, False])
    """
    array = checked_weight(w)
    n, m = checked_pattern(n, m)
    if array.ndim == 0:
        raise ValueError("w: got a scalar, expected at least one dimension")
    axis = _checked_axis(axis, array.ndim)
    length, inner = array.shape[axis], math.prod(array.shape[axis + 1 :])
    check_divides("m", m, length, f"size of axis {axis}", pad)
    threads = threads_for(array.size, num_threads)
    mask = np.empty(array.shape, np.bool_)
    if array.size == 0:
        return mask
    m = min(m, length)  # one short group
    groups = array.size // length * -(-length // m)
    _pruning.nm_mask(array, mask.view(np.uint8), length, inner, groups, min(n, m), m, threads)
    return mask


def checked_weight(w: Any) -> np.ndarray:
    """`w` as a C-contiguous array, none of whose elements is NaN."""
    array = arrays.take("w", w)
    array = arrays.addressable(np.ascontiguousarray(array).reshape(array.shape))
    if math.isnan(array.max(initial=-math.inf)):
        raise ValueError("w: got NaN, expected numbers that can be ordered")
    return array


def checked_pattern(n: Any, m: Any) -> tuple[int, int]:
    """`n` and `m` as ints with 1 <= n <= m."""
    n, m = checks.whole("n", n, 1), checks.whole("m", m, 1)
    if n > m:
        raise ValueError(f"n: got {n}, expected at most m = {m}")
    return n, m


def check_divides(name: str, m: int, size: int, what: str, pad: bool) -> None:
    """Whether `size` is a multiple of `m`, unless padding is asked for."""
    if size % m and not pad:
        raise ValueError(f"{name}: got {m}, expected a divisor of {size}, the {what}, or pad=True")


def threads_for(weights: int, num_threads: int | None) -> int:
    """As many threads as so many weights are worth."""
    return max(1, min(cpu.checked_threads(num_threads), weights // SERIAL_WEIGHTS))


def _checked_axis(axis: Any, ndim: int) -> int:
    axis = checks.whole("axis", axis, -ndim)
    if axis >= ndim:
        raise ValueError(f"axis: got {axis}, expected {-ndim} to {ndim - 1}")
    return axis % ndim
