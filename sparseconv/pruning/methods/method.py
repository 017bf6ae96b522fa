"""What every training method answers to, and the one that leaves everything as it is."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from ..._core import checks
from ...compressed import CompressedArray
from ...packed import PackedWeight, pack_weight


class Method:
    """A training method: what becomes of a layer's operands on their way into the passes. This one changes nothing.

    Three hooks, called for one layer after the other in every training step, are all that a training loop has to know.
    They return what takes an operand's place, and never change weights or activations:

    ====================  ============================================  ==============================================
    hook                  gets, before                                  returns
    ====================  ============================================  ==============================================
    `before_forward`      the weight; before forward                    the weight for forward and backward_data
    `after_forward`       the layer's input; when forward is done       what backward_weight gets for it later, and
                                                                        options for that call
    `before_backward`     a gradient; before backward passes read it    the gradient to go on with
    ====================  ============================================  ==============================================

    The optimiser goes on with the dense weights and with the gradients that backward_weight gives ("straight through").
    An object serves one network in one thread at a time. A copy, or one that was pickled, goes on where it was made.

    Parameters
    ----------
    dense : collection of str
        Names of layers that the method leaves alone. One that no layer has is a ValueError, in `check_layers` or at the
        latest when the first backward pass begins.

    Examples
    --------
    A training step of one convolution:

    >>> import numpy as np, sparseconv as sc
    >>> method = sc.pruning.SWAT(0.5)
    >>> rng = np.random.default_rng(0)
    >>> x, weight = rng.random((2, 8, 8, 16), np.float32), rng.random((32, 16, 3, 3), np.float32)
    >>> used = method.before_forward("conv", weight)
    >>> y = sc.conv2d(x, used, padding=1, layout="NHWC")
    >>> kept, options = method.after_forward("conv", x)
    >>> grad_y = method.before_backward("conv", np.ones_like(y))
    >>> grad_x = sc.conv2d_backward_data(grad_y, used, x.shape, padding=1, layout="NHWC")
    >>> grad_weight = sc.conv2d_backward_weight(kept, grad_y, 3, padding=1, layout="NHWC", **options)
    """

    _seen: dict[str, bool] | None = None  # layers, whether in a forward pass; None once `dense` has been checked

    def __init__(self, *, dense: Collection[str] = ()) -> None:
        if isinstance(dense, str) or not isinstance(dense, Collection):
            raise TypeError(f"dense: got {dense!r}, expected a collection of names")
        self.dense = frozenset(dense)
        self._seen = {}

    def check_layers(self, names: Collection[str]) -> None:
        """Whether `dense` names layers that a network of these layers has.

        Parameters
        ----------
        names : collection of str
            Names of all its layers.

        Raises
        ------
        ValueError
            If it does not.
        """
        unknown = sorted(self.dense - set(names))
        if unknown:
            raise ValueError(f"dense: got {unknown[0]!r}, expected names of layers: {', '.join(map(str, names))}")
        self._seen = None

    def _in_forward(self, layer: str) -> None:
        """Notes a layer in a forward pass."""
        if self._seen is not None:
            self._seen[layer] = True

    def _in_backward(self, layer: str) -> None:
        """In the first backward pass behind a forward pass all layers have been seen: does `dense` name others?"""
        if self._seen is None:
            return
        self._seen.setdefault(layer, False)
        if any(self._seen.values()):
            self.check_layers(sorted(self._seen))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._settings())})"

    def _settings(self) -> list[str]:
        return []

    def before_forward(
        self, layer: str, weight: np.ndarray, *, groups: int = 1, training: bool = True
    ) -> np.ndarray | PackedWeight:
        """The weight that forward and backward_data of a layer use.

        Parameters
        ----------
        layer : str
            The layer's name: what the method remembers of a layer is kept under it.
        weight : (K, C/groups, ...) or (out, in) array
        groups : int
            That of the layer's calls.
        training : bool
            False where a network is only tested: then nothing that is remembered changes.

        Returns
        -------
        ndarray or PackedWeight
            Valid until the next call for this layer.
        """
        self._in_forward(layer)
        return weight

    def after_forward(self, layer: str, x: np.ndarray) -> tuple[np.ndarray | CompressedArray, dict[str, Any]]:
        """What is kept of a layer's input for backward_weight.

        Parameters
        ----------
        layer : str
        x : array
            What forward has read. It is not changed.

        Returns
        -------
        kept : ndarray or CompressedArray
            Operand of backward_weight.
        options : dict
            Keyword arguments of backward_weight that belong to it.
        """
        self._in_forward(layer)
        return x, {}

    def before_backward(self, layer: str, gradient: np.ndarray) -> np.ndarray:
        """The gradient to go on with.

        Parameters
        ----------
        layer : str
        gradient : array
            It may be changed in place: one that cannot, such as the expanded gradient of a plain sum, needs a copy.

        Returns
        -------
        ndarray
        """
        self._in_backward(layer)
        return gradient


class Periodic:
    """The latest result of a function for each layer, computed anew in every `period`-th step of training."""

    def __init__(self, period: int) -> None:
        self.period = checks.whole("period", period, 1)
        self._steps: dict[str, int] = {}
        self._latest: dict[str, Any] = {}

    def get(self, layer: str, compute: Callable[[], Any], *, training: bool = True) -> Any:
        step = self._steps.get(layer, 0)
        if layer not in self._latest or (training and step % self.period == 0):
            self._latest[layer] = compute()
        if training:
            self._steps[layer] = step + 1
        return self._latest[layer]


class PackedLayers:
    """The packed weight of each layer: made in the first step, packed anew in the others."""

    def __init__(self) -> None:
        self._packed: dict[str, PackedWeight] = {}

    def pack(
        self, layer: str, weight: np.ndarray, groups: int, *, mask: np.ndarray | None = None, threshold: float = 0.0
    ) -> PackedWeight:
        packed = self._packed.get(layer)
        if packed is None:
            packed = self._packed[layer] = pack_weight(weight, groups=groups, mask=mask, threshold=threshold)
        else:
            packed.update(weight, mask=mask, threshold=threshold)
        return packed
