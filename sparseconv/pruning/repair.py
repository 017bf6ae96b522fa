"""Kept weights refitted, so that a pruned layer gives what it gave before as closely as it can."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core import arrays, checks
from .._core.problem import Problem

if TYPE_CHECKING:
    from ..typing import Array, Padding, Size


def repair_weights(
    weight: Array, mask: Array, x: Array, *, stride: Size = 1, padding: Padding = 0, dilation: Size = 1,
    groups: int = 1, damping: float = 1e-4,
) -> np.ndarray:  # fmt: skip
    """The pruned weight W' that minimises the squared error of a layer's outputs for calibration inputs.

    Row by row (output channel by output channel) the least squares problem ``min |x (w' - w)|^2`` over the kept
    weights, all others being zero.

    Parameters
    ----------
    weight : float32 or float64 array
        (out, in) of a linear layer, or (K, C/groups, ...) of a convolution.
    mask : bool array like `weight`
        True is kept, as the functions of this package give it.
    x : array of the dtype of `weight`
        Calibration inputs: (..., in), or (N, C, ...) with channels first.
    stride, padding, dilation, groups
        Of the convolution, as in `sparseconv.conv2d`.
    damping : float
        Weight of ``|w' - w|^2`` over the kept weights, relative to the mean square of an input: inputs that are always
        zero, or the same as others, then leave their weights as they were. 0 or more.

    Returns
    -------
    ndarray like `weight`
        C-contiguous, zero where `mask` is False.

    Notes
    -----
    The objective is AdaPrune's (Hubara et al., NeurIPS 2021), which is minimised there by 1000 steps of Adam; it is
    quadratic, so the minimum is computed. With G = x^T x, k the kept and p the pruned weights of a row, and the damping
    d scaled by the mean of G's diagonal::

        w'_k = w_k + (G_kk + d I)^-1 G_kp w_p

    Cost: G takes ``positions * F^2`` multiply-adds for the ``F = C / groups * kernel`` inputs of an output, each of the
    K rows a third of the cube of its number of kept weights. Everything is computed in float64.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])  # what one input lacks, the other one has
    >>> repair_weights(np.array([[1.0, 3.0]]), np.array([[False, True]]), x, damping=0).round(6)
    array([[0., 4.]])
    """
    w, x = arrays.take("weight", weight), arrays.take("x", x)
    kept = arrays.take_any("mask", mask)
    if kept.dtype != np.bool_:
        raise TypeError(f"mask: got dtype {kept.dtype!s}, expected bool")
    checks.sizes("mask", kept.shape, w.shape)
    checks.same_dtype(weight=w, x=x)
    if not (isinstance(damping, (int, float)) and 0 <= damping < math.inf):
        raise ValueError(f"damping: got {damping!r}, expected a number of at least 0")
    if w.ndim < 2 or w.size == 0:
        raise ValueError(f"weight: got shape {w.shape}, expected (out, in) or (K, C, *kernel) and no size of zero")
    for name, array in (("weight", w), ("x", x)):
        if not np.isfinite(array).all():
            raise ValueError(f"{name}: got NaN or an infinity, expected finite numbers")
    rows, kept_rows = w.reshape(len(w), -1).astype(np.float64), kept.reshape(len(w), -1)
    repaired = np.zeros(rows.shape)
    per_group = len(w) // (1 if w.ndim == 2 else checks.whole("groups", groups, 1))
    for group, gram in enumerate(_gram_matrices(w, x, stride, padding, dilation, groups)):
        for row in range(group * per_group, (group + 1) * per_group):
            repaired[row] = _refit(rows[row], kept_rows[row], gram, damping)
    return repaired.reshape(w.shape).astype(w.dtype)


def _refit(row: np.ndarray, kept: np.ndarray, gram: np.ndarray, damping: float) -> np.ndarray:
    """One row of kept weights, from the products of its inputs."""
    result = np.where(kept, row, 0.0)
    system = gram[np.ix_(kept, kept)]
    lost = gram[np.ix_(kept, ~kept)] @ row[~kept]
    if not lost.any():
        return result
    system[np.diag_indices_from(system)] += damping * np.trace(gram) / len(gram)
    try:
        result[kept] += np.linalg.solve(system, lost)
    except np.linalg.LinAlgError:
        raise ValueError(
            "x: got inputs that depend on each other, expected independent ones with damping=0 (use damping > 0)"
        ) from None
    return result


def _gram_matrices(w: np.ndarray, x: np.ndarray, *geometry: Any) -> Iterator[np.ndarray]:
    """x^T x for each group, x being the inputs of every output position."""
    if w.ndim == 2:
        if x.ndim < 1 or x.shape[-1] != w.shape[1] or x.size == 0:
            raise ValueError(f"x: got shape {x.shape}, expected (..., {w.shape[1]}) and no size of zero")
        inputs = x.reshape(-1, w.shape[1]).astype(np.float64)
        yield inputs.T @ inputs
        return
    checks.shaped("x", x, w.ndim, "(N, C, *size)")
    stride, padding, dilation, groups = geometry
    problem = checks.problem(
        w.ndim - 2, len(x), x.shape[1], len(w), x.shape[2:], w.shape[2:], stride, padding, dilation, groups
    )
    channels = w.shape[1] * problem.groups
    if x.shape[1] != channels:
        raise ValueError(f"x: got {x.shape[1]} channels, expected {channels} as weight and groups have")
    if problem.empty:
        raise ValueError(f"x: got shape {x.shape}, expected no size of zero")
    features = math.prod(w.shape[1:])
    grams = np.zeros((problem.groups, features, features))
    for image in x:  # one at a time: patches take as much memory as kernel positions times an image
        patches = _patches(image, problem).reshape(problem.groups, features, -1)
        grams += patches @ patches.swapaxes(1, 2)
    yield from grams


def _patches(image: np.ndarray, problem: Problem) -> np.ndarray:
    """(C, *kernel, *out_size): the input that each kernel position meets at each output position, in float64."""
    reach = [
        (out - 1) * step + (taps - 1) * gap + 1
        for out, step, taps, gap in zip(problem.out_size, problem.stride, problem.kernel, problem.dilation, strict=True)
    ]
    padded = np.zeros((len(image), *reach))
    inside: list[slice] = [slice(None)]
    source: list[slice] = [slice(None)]
    for before, length, size in zip(problem.padding, reach, problem.in_size, strict=True):
        count = max(0, min(size, length - before))  # a stride may leave the last columns unused
        inside.append(slice(before, before + count))
        source.append(slice(count))
    padded[tuple(inside)] = image[tuple(source)]
    patches = np.empty((len(image), *problem.kernel, *problem.out_size))
    for tap in itertools.product(*map(range, problem.kernel)):
        at = [
            slice(index * gap, index * gap + (out - 1) * step + 1, step)
            for index, gap, out, step in zip(tap, problem.dilation, problem.out_size, problem.stride, strict=True)
        ]
        patches[:, *tap] = padded[:, *at]  # type: ignore[index]  # what is behind * has no type of its own
    return patches
