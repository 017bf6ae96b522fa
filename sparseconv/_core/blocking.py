"""How big blocks are: what the loops of several families have in common. Each family has its own sizes in its own file.

Sizes follow from the problem and the CPU, not from the caller. Numbers that depend on `threads` do not touch
the order of any sum (chunks and shares of the row kernels, channel blocks of the gradient kernels), so results are the
same for every number of threads. Sizes assume 32 KB of L1 and about half a MB of L2 per core. Only the weight tile of
rows.py asks the CPU for more: chunks of 256 to 2048 columns are within 3% of each other on Granite Rapids (2 MB of L2).
The figures beside them are runs one after the other, good to about 10%.
"""

from __future__ import annotations

from math import prod

from .problem import Problem

VECTOR_BYTES = 64
PACKED_SHARE = 0.15  # weights are packed ahead of a call up to this share of its operands, else tile by tile
# The part of the gradient that a work item keeps: more means packing less often, and it is only streamed through L2.
# All threads together never have more than the whole gradient. Zen 5, 512,512,14/2, two threads, parts of 1 and 2 MB:
# 3.55 and 3.05 ms.
GRADIENT_BYTES = 2 * 1024 * 1024
STREAM_BYTES = 8 * 1024 * 1024  # results from here on go past the caches: no L2 keeps them for whoever reads them


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def even(total: int, most: int) -> int:
    """The largest part when `total` is cut into as few, as equal parts of at most `most` as possible."""
    return ceil_div(total, ceil_div(total, max(1, most))) if total else 1


def shared(total: int, most: int, wanted: int) -> int:
    """The same, but in a number of parts that is a multiple of `wanted`, so that threads have equally many."""
    parts = ceil_div(ceil_div(total, max(1, most)), wanted) * wanted
    return ceil_div(total, parts) if total else 1


def packed_share(problem: Problem) -> float:
    """Bytes of all packed weights over those of x, weight and y."""
    weights = prod(problem.kernel) * problem.in_channels * problem.out_channels // problem.groups
    activations = problem.in_channels * prod(problem.in_size) + problem.out_channels * prod(problem.out_size)
    return weights / (weights + problem.batch * activations)


def in_columns(problem: Problem, columns: int, backward: bool) -> int:
    """Columns of `in` that `columns` neighbouring columns of `out` can meet."""
    stride, reach = problem.stride[-1], problem.dilation[-1] * (problem.kernel[-1] - 1)
    return (columns + reach) // stride + 2 if backward else (columns - 1) * stride + reach + 1
