"""How many masks a pattern of sparsity admits, and which pattern fits a sparsity."""

from __future__ import annotations

import functools
import math
import numbers
from collections.abc import Iterator

from .._core import checks
from .nm import checked_pattern


def mask_diversity(
    size: int, n: int | None = None, m: int | None = None, transposable: bool = False, exact: bool = False
) -> int:
    """The number of masks that a tensor of `size` weights may have, a measure of how free a pattern is.

    Parameters
    ----------
    size : int
        Weights of the tensor.
    n, m : int, optional
        `n` kept of every `m`; without them, any half of all weights is kept (unstructured sparsity of 50%).
    transposable : bool
        Whether the masks are transposable: n of m in rows and columns of m x m blocks.
    exact : bool
        For transposable masks: the number itself rather than the paper's formula, which counts too many.

    Returns
    -------
    int

    Notes
    -----
    With T = `size` (Hubara et al., NeurIPS 2021)::

        unstructured   C(T, T / 2)
        N:M            (M! / (N! (M - N)!)) ^ (T / M)
        transposable   (M! (M - 1)! ... (M - N + 1)!) ^ (T / M^2)

    The last one is an upper bound: for 2:4 it gives 144 masks of a block, for 4:8 1.76e13, where there are 90 and
    1.17e11. So a tensor has fewer masks at transposable 4:8 than at 2:4, although the formula says more. The exact
    number of a block, of 0-1 matrices whose rows and columns sum to n, is counted row by row over the multisets of
    column sums, from both ends: 0.15 s at 6:12, 3 s at 7:14, 40 s at 8:16.

    Examples
    --------
    >>> mask_diversity(16, 2, 4), mask_diversity(16, 2, 4, transposable=True, exact=True)
    (1296, 90)
    """
    size = checks.whole("size", size, 1)
    if n is None and m is None:
        if transposable:
            raise ValueError("transposable: got True, expected n and m with it")
        return math.comb(size, size // 2)
    n, m = checked_pattern(n, m)
    if not transposable:
        _check_multiple(size, m, "m")
        return math.comb(m, n) ** (size // m)
    _check_multiple(size, m * m, "m * m")
    of_block = _regular_matrices(m, n) if exact else math.prod(map(math.factorial, range(m - n + 1, m + 1)))
    return of_block ** (size // m**2)


def unstructured_to_nm(sparsity: float, m: int, probability: float = 0.95) -> int:
    """The least n for which a group of `m` weights at some unstructured sparsity has at most n nonzeros, as a rule.

    Weights are taken as zeros with probability `sparsity`, independently. Keeping n of every m then loses nothing in
    more than `probability` of all groups: the least n with ``P(Binomial(m, 1 - sparsity) <= n) > probability``.

    Parameters
    ----------
    sparsity : float
        Share of zeros, 0 to 1 (1 not included).
    m : int
    probability : float
        0 to 1, neither included.

    Returns
    -------
    int
        1 to `m`.

    Notes
    -----
    The rule is that of AdaPrune's code (Hubara et al., NeurIPS 2021), with 0.95.

    Examples
    --------
    >>> unstructured_to_nm(0.8, 8)
    4
    """
    m = checks.whole("m", m, 1)
    sparsity = checks.sparsity("sparsity", sparsity)
    if not isinstance(probability, numbers.Real) or not 0 < probability < 1:
        raise ValueError(f"probability: got {probability!r}, expected a number between 0 and 1")
    covered = sparsity**m
    for n in range(1, m):
        covered += math.comb(m, n) * (1 - sparsity) ** n * sparsity ** (m - n)
        if covered > probability:
            return n
    return m


def _check_multiple(size: int, of: int, what: str) -> None:
    if size % of:
        raise ValueError(f"size: got {size}, expected a multiple of {what} = {of}")


@functools.cache
def _regular_matrices(m: int, n: int) -> int:
    """The number of m x m matrices of zeros and ones whose rows and columns sum to n."""
    n = min(n, m - n)  # zeros and ones change places
    if n == 0:
        return 1
    upper, lower = _column_sums(m, n, m // 2), _column_sums(m, n, m - m // 2)
    total = 0
    for state, ways in upper.items():
        # the lower rows must bring what the upper ones left; both count all orders of the columns
        orders = math.factorial(m) // math.prod(map(math.factorial, state))
        total += ways * lower.get(state[::-1], 0) // orders
    return total


def _column_sums(m: int, n: int, rows: int) -> dict[tuple[int, ...], int]:
    """{state: number of matrices of so many rows}, where state[s] of the m columns have the sum s, 0 <= s <= n."""
    states = {(m, *(0,) * n): 1}
    for _ in range(rows):
        after: dict[tuple[int, ...], int] = {}
        for state, ways in states.items():
            for chosen in _choices(state[:-1], n):  # how many columns of each sum get a one
                ones = (*chosen, 0)
                moved = tuple(have - leave + come for have, leave, come in zip(state, ones, (0, *chosen), strict=True))
                choose = math.prod(map(math.comb, state, ones))
                after[moved] = after.get(moved, 0) + ways * choose
        states = after
    return states


def _choices(limits: tuple[int, ...], total: int) -> Iterator[tuple[int, ...]]:
    """All tuples of whole numbers up to `limits` that sum to `total`."""
    if not limits:
        if total == 0:
            yield ()
        return
    rest = sum(limits[1:])
    for first in range(max(0, total - rest), min(limits[0], total) + 1):
        for others in _choices(limits[1:], total - first):
            yield first, *others
