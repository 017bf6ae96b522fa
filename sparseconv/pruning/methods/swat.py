"""SWAT: only the largest weights and activations of each layer take part in a training step."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from ..._core import arrays, checks
from ...compressed import CompressedArray, compress
from ...packed import PackedWeight
from ..topk import channel_mask, threshold_of, topk_threshold
from .method import Method, PackedLayers, Periodic


class SWAT(Method):
    """Sparse weight activation training: small weights and small saved activations count as zeros.

    - forward: ``y = conv(x, top(w))``
    - backward_data: ``dx = conv_backward_data(dy, top(w))``
    - backward_weight: ``dw = conv_backward_weight(top(x), dy)``, for all weights, also those that were left out

    ``top`` keeps the share 1 - sparsity of largest magnitude of a whole tensor: of a weight, or of the activations of
    all images of a batch. Weights that were left out still learn, and may be among the largest later.

    Parameters
    ----------
    sparsity : float or mapping of str to float
        In [0, 1): of weights and activations in every layer, or in each by its name, as `sparsity_distribution` says.
    period : int
        Steps for which a threshold is used before it is computed anew. In between, the reached sparsity drifts.
    structured : bool
        Whether weights are pruned in whole (filter, channel) slices (`channel_mask`). Activations never are.
    compress : bool
        Whether activations wait for backward_weight as a `CompressedArray`: less memory, more time.
    dense : collection of str
        Names of layers that are left alone.

    Raises
    ------
    TypeError, ValueError
        If a sparsity is not in [0, 1), or a period below 1. From the hooks: if a mapping lacks the layer.

    See Also
    --------
    Method : the hooks, with an example.
    sparsity_distribution, training_flops : sparsities for each layer, and what they save.

    Notes
    -----
    Raihan and Aamodt, "Sparse Weight Activation Training", NeurIPS 2020. The code published with it computes thresholds
    in every 20th step on CIFAR (10th if structured), and SWAT-U leaves the first layer dense.

    On top of the passes, a step takes `topk_threshold` of the weight and of the input, every `period` steps, and
    packing the weight: O(elements) all of them. Kernels take thresholds as they are: no pruned activation is ever
    written, unless it is compressed.
    """

    def __init__(
        self,
        sparsity: float | Mapping[str, float],
        *,
        period: int = 1,
        structured: bool = False,
        compress: bool = False,
        dense: Collection[str] = (),
    ) -> None:
        super().__init__(dense=dense)
        self.sparsity: float | dict[str, float]
        if isinstance(sparsity, Mapping):
            self.sparsity = {name: checks.sparsity(f"sparsity[{name!r}]", one) for name, one in sparsity.items()}
        else:
            self.sparsity = checks.sparsity("sparsity", sparsity)
        self.structured = checks.flag("structured", structured)
        self.compress = checks.flag("compress", compress)
        self._of_weights, self._of_inputs = Periodic(period), Periodic(period)  # thresholds; masks if structured
        self._packed = PackedLayers()

    def before_forward(
        self, layer: str, weight: np.ndarray, *, groups: int = 1, training: bool = True
    ) -> np.ndarray | PackedWeight:
        """The weight with its largest elements alone, packed; parameters are those of `Method.before_forward`.

        A layer of sparsity 0, or one that is left dense, gets its weight back as it is. With ``training=False`` the
        threshold of the latest step of training is used again.
        """
        super().before_forward(layer, weight, groups=groups, training=training)
        sparsity = self._sparsity_of(layer)
        if not sparsity:
            return weight
        if self.structured:
            mask = self._of_weights.get(layer, lambda: channel_mask(weight, sparsity), training=training)
            return self._packed.pack(layer, weight, groups, mask=mask)
        threshold = self._of_weights.get(layer, lambda: threshold_of("weight", weight, sparsity), training=training)
        return self._packed.pack(layer, weight, groups, threshold=threshold)

    def after_forward(self, layer: str, x: np.ndarray) -> tuple[np.ndarray | CompressedArray, dict[str, Any]]:
        """The layer's input for backward_weight, and the threshold under which its elements do not count there.

        Parameters are those of `Method.after_forward`. With `compress`, what is kept is a `CompressedArray` of the
        largest elements, and there are no options.
        """
        super().after_forward(layer, x)
        sparsity = self._sparsity_of(layer)
        if not sparsity:
            return x, {}
        array = arrays.take("x", x)
        if array.size == 0:  # a batch without images has no largest activations, and is no step
            return compress(array) if self.compress else x, {}
        threshold = self._of_inputs.get(layer, lambda: topk_threshold(array, sparsity))
        if self.compress:
            return compress(np.where(np.abs(array) <= threshold, array.dtype.type(0), array)), {}
        return x, {"threshold": threshold}

    def _settings(self) -> list[str]:
        flags = [f"{name}=True" for name in ("structured", "compress") if getattr(self, name)]
        return [repr(self.sparsity), f"period={self._of_weights.period}", *flags]

    def _sparsity_of(self, layer: str) -> float:
        if layer in self.dense:
            return 0.0
        if not isinstance(self.sparsity, dict):
            return self.sparsity
        if layer not in self.sparsity:
            raise ValueError(f"layer: got {layer!r}, expected one of {', '.join(self.sparsity)} or of those left dense")
        return self.sparsity[layer]
