"""Training under transposable N:M masks that follow the weights."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from ..._core import _pruning, checks
from ...packed import PackedWeight
from ..transposable import checked_block, transposable_nm_mask
from .method import Method, PackedLayers, Periodic

if TYPE_CHECKING:
    from ...typing import BlockMethod


class TransposableNM(Method):
    """Weights under transposable N:M masks: forward and backward_data both see n of every m.

    - forward: ``y = conv(x, mask * w)``
    - backward_data: ``dx = conv_backward_data(dy, mask * w)``
    - backward_weight: ``dw = conv_backward_weight(x, dy)``, for all weights, also those that are masked

    The masks are those of the present weights and found anew now and then, so that masked weights can come back.

    Parameters
    ----------
    n, m : int
        Kept weights of each row and column of a block, and its size: "4:8" is ``TransposableNM(4, 8)``. Blocks tile the
        (K, C * kernel) matrix of a weight.
    period : int
        Steps from one search for masks to the next.
    method : {"greedy", "exact", "entropy"}
        That of `transposable_nm_mask`.
    pad : bool
        Whether layers whose sizes m does not divide are padded. Otherwise they are an error.
    dense : collection of str
        Names of layers that are left alone.

    Raises
    ------
    TypeError, ValueError
        If not 1 <= n <= m <= 32, or a period below 1. From `before_forward`: if m does not divide the sizes.

    See Also
    --------
    Method : the hooks, with an example.
    transposable_nm_mask

    Notes
    -----
    Hubara et al., "Accelerated Sparse Neural Training: A Provable and Efficient Method to Find N:M Transposable Masks",
    NeurIPS 2021. The code published with it searches every 40 steps, with a greedy method, at 4:8, and passes the
    gradient straight through to all weights.

    On top of the passes, a step takes packing the weight, O(elements), and a search every `period` steps
    (`transposable_nm_mask` has its complexity). Kernels here skip zeros wherever they lie: the regular pattern is what
    the method is about, and no reason for more speed than as many scattered zeros give.
    """

    def __init__(
        self,
        n: int,
        m: int,
        *,
        period: int = 40,
        method: BlockMethod = "greedy",
        pad: bool = False,
        dense: Collection[str] = (),
    ) -> None:
        super().__init__(dense=dense)
        self.n, self.m = checked_block(n, m)
        self.method = checks.word("method", method, tuple(_pruning.METHODS))
        self.pad = checks.flag("pad", pad)
        self._masks = Periodic(period)
        self._packed = PackedLayers()

    def before_forward(
        self, layer: str, weight: np.ndarray, *, groups: int = 1, training: bool = True
    ) -> np.ndarray | PackedWeight:
        """The weight under its present mask, packed; parameters are those of `Method.before_forward`.

        A layer that is left dense gets its weight back as it is. Masks are searched in every `period`-th step of
        training, and in the first call for a layer.
        """
        super().before_forward(layer, weight, groups=groups, training=training)
        if layer in self.dense:
            return weight
        mask = self._masks.get(
            layer, lambda: transposable_nm_mask(weight, self.n, self.m, self.method, pad=self.pad), training=training
        )
        return self._packed.pack(layer, weight, groups, mask=mask)

    def _settings(self) -> list[str]:
        return [str(self.n), str(self.m), f"period={self._masks.period}", f"method={self.method!r}"]
