"""Masks of `sparseconv.pruning` as parametrizations of weights: they go with any module, optimiser and framework code.

>>> from torch.nn.utils import parametrize                                                     # doctest: +SKIP
>>> parametrize.register_parametrization(conv, "weight", TransposableNMWeight(4, 8))                 # doctest: +SKIP

The module then sees the masked weight, and converted modules skip its zeros. The optimiser moves the dense one, with
the gradient of the masked weight for all of its elements ("straight through"), so that pruned weights can come back.
``parametrize.remove_parametrizations(conv, "weight")`` leaves the masked weight behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from .._core import checks
from ..pruning import channel_mask, nm_mask, topk_mask, transposable_nm_mask

if TYPE_CHECKING:
    from ..typing import BlockMethod

__all__ = ["NMWeight", "TopKWeight", "TransposableNMWeight"]


class _Straight(torch.autograd.Function):
    """A masked weight, whose gradient goes to all elements."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor) -> Tensor:
        return torch.where(mask, weight, 0.0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _Masked(nn.Module):
    """A weight under a mask that is searched anew in every `period`-th forward of training."""

    mask: Tensor | None

    def __init__(self, period: int) -> None:
        super().__init__()
        self.period = checks.whole("period", period, 1)
        self._steps = 0
        self.register_buffer("mask", None)

    def found(self, weight: np.ndarray) -> np.ndarray:
        """The mask of a weight."""
        raise NotImplementedError

    @torch.compiler.disable
    def forward(self, weight: Tensor) -> Tensor:
        learns = self.training and weight.requires_grad and torch.is_grad_enabled()
        if self.mask is None or (learns and self._steps % self.period == 0):
            with torch.no_grad():
                self.mask = torch.from_numpy(self.found(weight.detach().cpu().numpy())).to(weight.device)
        self._steps += learns
        return _Straight.apply(weight, self.mask)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """What a weight that is assigned becomes: itself, and its mask is searched anew."""
        self.mask = None
        return weight

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        if self.mask is None and f"{prefix}mask" in state_dict:
            self.mask = torch.empty_like(state_dict[f"{prefix}mask"])
        super()._load_from_state_dict(state_dict, prefix, *rest)


class TopKWeight(_Masked):
    """The largest magnitudes of a weight, as SWAT's forward and backward_data see it.

    Parameters
    ----------
    sparsity : float
        In [0, 1): share of the weights that become zero.
    structured : bool
        Whether whole (filter, channel) slices do (`sparseconv.pruning.channel_mask`), not single weights (`topk_mask`).
    period : int
        Forwards in training from one search to the next.
    """

    def __init__(self, sparsity: float, *, structured: bool = False, period: int = 1) -> None:
        super().__init__(period)
        self.sparsity, self.structured = checks.sparsity("sparsity", sparsity), checks.flag("structured", structured)

    def found(self, weight: np.ndarray) -> np.ndarray:
        """The mask of a weight."""
        return (channel_mask if self.structured else topk_mask)(weight, self.sparsity)


class NMWeight(_Masked):
    """The `n` largest of every `m` weights along an axis (`sparseconv.pruning.nm_mask`).

    Parameters
    ----------
    n, m : int
        Kept weights of a group, and its size.
    axis : int
        Along which groups are taken; 1 are the input channels.
    period : int
        Forwards in training from one search to the next.
    pad : bool
        Whether the last group of an axis may be shorter.
    """

    def __init__(self, n: int, m: int, *, axis: int = 1, period: int = 1, pad: bool = False) -> None:
        super().__init__(period)
        self.n, self.m, self.axis, self.pad = n, m, axis, pad

    def found(self, weight: np.ndarray) -> np.ndarray:
        """The mask of a weight."""
        return nm_mask(weight, self.n, self.m, self.axis, pad=self.pad)


class TransposableNMWeight(_Masked):
    """`n` of every `m` weights in both directions (`sparseconv.pruning.transposable_nm_mask`).

    Parameters
    ----------
    n, m : int
        Kept weights of each row and column of a block, and its size.
    method : {"greedy", "exact", "entropy"}
    period : int
        Forwards in training from one search to the next.
    pad : bool
        Whether layers whose sizes `m` does not divide are padded.
    """

    def __init__(self, n: int, m: int, *, method: BlockMethod = "greedy", period: int = 40, pad: bool = False) -> None:
        super().__init__(period)
        self.n, self.m, self.method, self.pad = n, m, method, pad

    def found(self, weight: np.ndarray) -> np.ndarray:
        """The mask of a weight."""
        return transposable_nm_mask(weight, self.n, self.m, self.method, pad=self.pad)
