"""Transposable N:M masks: n kept weights in every row and every column of m x m blocks.

With such a mask the weights of forward and, transposed, those of backward_data are N:M sparse (Hubara et al.,
"Accelerated Sparse Neural Training: A Provable and Efficient Method to Find N:M Transposable Masks", NeurIPS 2021).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core import _pruning, checks
from .nm import check_divides, checked_pattern, checked_weight, threads_for

if TYPE_CHECKING:
    from ..typing import Array, BlockMethod, Bools

LARGEST_M = 32  # SC_MAX_BLOCK: a row of a block is a word of 32 bits
# Of the entropy method. On a 512 x 512 matrix of normal weights the kept magnitude is 0.9998, 0.9995 and 0.9996 of the
# optimum at 4:8, 8:16 and 16:32. Sharper needs more iterations (40 and 100: 0.9999, 0.9997, 0.9997), duller is worse.
SHARPNESS, ITERATIONS = 25.0, 50


def transposable_nm_mask(
    w: Array, n: int, m: int, method: BlockMethod = "exact", *, pad: bool = False, num_threads: int | None = None
) -> Bools:
    """The mask that keeps `n` weights in every row and every column of `m` x `m` blocks, of largest total magnitude.

    Per block, with S the mask: maximise ``sum(S * abs(W))`` subject to row sums = column sums = n, S binary.

    Parameters
    ----------
    w : float32 or float64 array
        A matrix, or a convolution's weight (K, C, R, S), which is taken as the matrix (K, C * R * S). All finite.
    n, m : int
        Kept weights of a row or column of a block, and its size; ``1 <= n <= m <= 32``.
    method : {"exact", "greedy", "entropy"}
        See Notes.
    pad : bool
        Whether blocks may reach beyond the matrix. They are filled up with zeros, solved, and cut: then rows and
        columns of the blocks at the edges keep at most `n`. Without it, sizes that `m` does not divide are an error.
    num_threads : int, optional
        The mask does not depend on it.

    Returns
    -------
    bool ndarray
        C-contiguous, in the shape of `w`; True is kept.

    See Also
    --------
    nm_mask : n of every m along one axis.

    Notes
    -----
    Blocks tile the matrix, so that it and its transpose are N:M sparse along their rows. (The reference code of Hubara
    et al. makes its blocks from m * m consecutive weights of one output channel instead.)

    Kept magnitude over the optimum on normal weights (mean over 512 x 512), and speed on one core (Zen 4, AVX-512):

    =========  ============================================  ===================  ======================================
    method     algorithm                                     4:8, 8:16, 16:32     million weights/s
    =========  ============================================  ===================  ======================================
    exact      shortest augmenting paths, O(n m^3) a block;  1                    8, 3, 1 (80 at 2:4)
               2:4: the best of all 90 patterns
    greedy     KEEP rule, fill-up, exchanges, O(m^2 log^2    0.998, 0.998, 0.999  95, 65, 35
               m) a block and O(m^3) a sweep of exchanges
    entropy    Dykstra's algorithm, then as greedy           0.9998, 0.9995,      55, 45, 25
                                                             0.9996
    =========  ============================================  ===================  ======================================

    - *exact* solves the transport problem of each block (Hubara et al. call it min-cost flow) by successive shortest
      paths with potentials, in float64.
    - *greedy*: from the largest to the smallest, a weight is kept if its row and its column have room (the rule of the
      reference code's 2-approximation; kept magnitude 0.988 of the optimum at 4:8). Rows and columns that stay short
      are then filled by moves "insert (i, b) and (a, j), remove (a, b)", and pairs of rows exchange the columns that
      gain most, until none gains.
    - *entropy*: maximises ``sum(S * abs(W)) + H(S) / sharpness`` over 0 <= S <= 1 (TSENOR: Meng, Makni, Mazumder,
      NeurIPS 2025, arXiv 2505.23949); S is rounded by the greedy steps in the order of S.
    - 2:4 by enumeration: Hu et al., "Accelerating Transformer Pre-training with 2:4 Sparsity", ICML 2024.

    Equal magnitudes: which are kept is not specified, but the same in every call. Subnormal numbers count as zero.

    Examples
    --------
    >>> import numpy as np
    >>> transposable_nm_mask(np.array([[4.0, 3.0], [3.0, 1.0]]), 1, 2)
    array([[False,  True],
           [ True, False]])
    """
    array = checked_weight(w)
    n, m = checked_block(n, m)
    checks.word("method", method, tuple(_pruning.METHODS))
    if array.ndim < 2:
        raise ValueError(f"w: got {array.ndim} dimensions (shape {array.shape}), expected a matrix or (K, C, *kernel)")
    matrix = array.reshape(array.shape[0], math.prod(array.shape[1:]))
    for size, what in zip(matrix.shape, ("number of rows", "number of columns"), strict=True):
        check_divides("m", m, size, what, pad)
    largest = max(matrix.max(initial=0), -matrix.min(initial=0))
    if math.isinf(largest):
        raise ValueError("w: got an infinity, expected finite numbers")
    threads = threads_for(array.size, num_threads)
    if n == m or array.size == 0:
        return np.ones(array.shape, np.bool_)
    mask = np.empty(array.shape, np.bool_)
    scale = math.ldexp(1.0, min(-math.frexp(largest)[1], 1023))  # the largest magnitude becomes 0.5 to 1
    _pruning.transposable_mask(
        matrix, scale, mask.view(np.uint8), n, m, method, ITERATIONS, SHARPNESS, threads
    )  # fmt: skip
    return mask


def checked_block(n: Any, m: Any) -> tuple[int, int]:
    """`n` and `m` as ints with 1 <= n <= m <= LARGEST_M."""
    n, m = checked_pattern(n, m)
    if m > LARGEST_M:
        raise ValueError(f"m: got {m}, expected at most {LARGEST_M}")
    return n, m
