"""Weights as lists of their nonzeros: packed once and used by many calls, or for one call."""

from __future__ import annotations

import math
import os
import threading
import weakref
from typing import TYPE_CHECKING

import numpy as np

from . import cpu, masks
from ._core import _weights, arrays, checks

if TYPE_CHECKING:
    from .typing import Array, Mask

Classes = tuple[tuple[int, ...], ...]  # taps that meet the same outputs: lines.tap_classes

# A kernel sweeps whole blocks of channels, of about as many weights: as few starts as blocks of any use allow.
BLOCK_WEIGHTS = 36  # a block of one tap has 32 channels, whole vectors
ITEM_FILTERS = 32  # that a thread packs together
SERIAL_WEIGHTS = 1 << 17  # packing fewer takes less time than waking threads is worth: 0.1 ms


class PackedWeight:
    """A weight with the lists of its nonzeros, for `skip="weight"`; made by `pack_weight`.

    It can be passed as `weight` to the forward and backward_data functions of convolutions, transposed convolutions and
    linear layers, with the `groups` that it was packed for. It owns all its memory: changes of the array that it was
    made from do not reach it, and `skip="auto"` can still prefer a kernel that reads the dense weight. Copied or
    pickled, it packs its weight anew.

    Threads may share it. An update waits until no call uses it, and calls wait until an update is done, so each call
    sees one weight from beginning to end. Where waiting would never end, in a signal handler that interrupts a call or
    an update of the same object, it is a RuntimeError.

    Attributes
    ----------
    shape : tuple of int
        Shape of the weight.
    dtype : numpy.dtype
        float32 or float64; the latter is kept dense, since it is computed in NumPy.
    groups : int
        Groups of channels that it was packed for.
    density : float
        Share of weights that are not zero.
    nbytes : int
        Bytes of the dense copy and of all lists. Lists take 8 bytes for each nonzero, 8 for each block of up to 36
        weights and 80 for each row. Those of backward_data, and others for its strides, are made by the first call
        that needs them.

    See Also
    --------
    sparseconv.pack_weight
    """

    def __init__(self, weight: np.ndarray, groups: int, kept: np.ndarray | None = None) -> None:
        self.groups = groups
        self.density = 0.0
        self._dense = arrays.empty(weight.shape, weight.dtype)
        self.dense = self._dense.view()  # what kernels read
        self.dense.flags.writeable = False
        self._lists: dict[tuple[bool, Classes], tuple[int, _weights.Lists]] = {}
        self._version = 0  # of the dense weight; lists of another one are out of date
        self._lock = threading.RLock()  # of who makes lists
        self.guard = _weights.Guard("weight")  # of who uses them, or the dense weight
        _all.add(self)
        self._write(weight, kept)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._dense.shape

    @property
    def dtype(self) -> np.dtype:
        return self._dense.dtype

    @property
    def nbytes(self) -> int:
        return self._dense.nbytes + sum(lists.nbytes for _, lists in list(self._lists.values()))

    def to_dense(self) -> np.ndarray:
        """A new array of all weights, zeros included."""
        with self.guard:
            return self._dense.copy()

    def update(self, weight: Array, *, mask: Mask | None = None, threshold: float = 0.0) -> None:
        """Packs other weights of the same shape and dtype, as after a step of an optimiser.

        Memory is taken anew only if there are more nonzeros than ever before. Calls of other threads that use the
        object are waited for.

        Parameters
        ----------
        weight : array like the packed one
        mask, threshold
            As in `pack_weight`. Neither is remembered: without them all weights are packed.

        Raises
        ------
        TypeError
            No array in CPU memory, or another dtype.
        ValueError
            Another shape, a mask that does not fit, or a threshold that is negative or not finite.
        RuntimeError
            A signal handler updates what the call that it interrupts uses.
        """
        weight = arrays.addressable(arrays.take("weight", weight))
        if weight.dtype != self.dtype:
            raise TypeError(f"weight: got dtype {weight.dtype!s}, expected {self.dtype!s} as the packed weight has")
        checks.sizes("weight", weight.shape, self.shape)
        kept = _kept(weight, mask, threshold)
        with self.guard.writing:
            self._write(weight, kept)

    def lists(self, backward: bool, classes: Classes) -> _weights.Lists:
        """The nonzeros of each out channel, or of each in channel (`backward`), by classes of taps.

        To be called, and the lists to be used, under the guard.
        """
        key = backward, classes
        version, lists = self._lists.get(key, (-1, None))
        if lists is None or version != self._version:  # there are none, or an update was interrupted
            with self._lock:  # others may want the same lists at the same time
                version, lists = self._lists.get(key, (-1, None))
                if lists is None or version != self._version:
                    lists = nonzero_lists(self._dense, self.groups, backward, classes)
                    self._lists[key] = self._version, lists
        return lists

    def _write(self, weight: np.ndarray, kept: np.ndarray | None) -> None:
        self._version += 1  # first: a signal handler may raise an exception behind any line
        if kept is None:
            np.copyto(self._dense, weight)
        else:  # bits times 0 or 1: Inf and NaN outside the mask become zeros, too
            bits = np.dtype(f"u{self.dtype.itemsize}")
            np.multiply(weight.view(bits), kept, out=self._dense.view(bits))
        if self.dtype == np.float64:
            self.density = np.count_nonzero(self._dense) / self._dense.size
            return
        for key, (_, lists) in self._lists.items():
            lists.fill(self._dense, _threads(self._dense))
            self._lists[key] = self._version, lists
        taps = math.prod(self.shape[2:])
        self.density = self.lists(False, (tuple(range(taps)),)).count / self._dense.size

    def __reduce__(self) -> tuple:
        return PackedWeight, (self.to_dense(), self.groups)

    def __repr__(self) -> str:
        groups = f", groups={self.groups}" if self.groups > 1 else ""
        return f"PackedWeight(shape={self.shape}, dtype={self.dtype!s}{groups}, density={self.density:.3f})"


_all: weakref.WeakSet[PackedWeight] = weakref.WeakSet()


def _after_fork() -> None:
    """In a child process, where the threads that used packed weights or made lists are no more."""
    for packed in list(_all):
        packed.guard.after_fork()
        packed._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def pack_weight(weight: Array, *, groups: int = 1, mask: Mask | None = None, threshold: float = 0.0) -> PackedWeight:
    """Packs a weight for calls with `skip="weight"`: once, instead of in each of them.

    Parameters
    ----------
    weight : (K, C/groups, ...) or (out, in), float32 or float64
        Weight of a convolution or of a linear layer; (C, K/groups, ...) of a transposed convolution. Any strides.
    groups : int
        That of the calls it is for.
    mask : array, optional
        In the shape of `weight`: a bool array, or an array like it (nonzero counts); or a bit mask as `masks` makes
        them. Weights outside it count as zeros, even Inf and NaN.
    threshold : float
        Weights with ``abs(w) <= threshold`` count as zeros.

    Returns
    -------
    PackedWeight
        Takes the place of `weight` in forward and backward_data. `update` packs new values.

    Raises
    ------
    TypeError
        No array in CPU memory, or not float32 or float64.
    ValueError
        A number of dimensions that no weight has, sizes of zero, groups that do not divide the first size, a mask that
        does not fit, or a threshold that is negative or not finite.

    See Also
    --------
    sparseconv.conv2d, sparseconv.PackedWeight, sparseconv.pruning.topk_mask

    Notes
    -----
    -0.0 and denormals are zeros. Weights with Inf or NaN are packed, but computed by other kernels, because the
    zeros around an image would turn them into NaN.

    Examples
    --------
    >>> import numpy as np, sparseconv as sc
    >>> x, w = np.ones((1, 8, 8, 32), np.float32), np.zeros((16, 32, 3, 3), np.float32)
    >>> w[:, ::8] = 1
    >>> packed = sc.pack_weight(w)
    >>> packed
    PackedWeight(shape=(16, 32, 3, 3), dtype=float32, density=0.125)
    >>> sc.conv2d(x, packed, padding=1, layout="NHWC", skip="weight")[0, 4, 4, 0]
    np.float32(36.0)
    """
    if isinstance(weight, PackedWeight):
        raise TypeError("weight: got a PackedWeight, expected an array")
    array = arrays.addressable(arrays.take("weight", weight))
    if not 2 <= array.ndim <= 5:
        raise ValueError(f"weight: got {array.ndim} dimensions (shape {array.shape}), expected 2 to 5")
    checks.weights(arrays.form(array), array.ndim - 2)
    groups = checks.whole("groups", groups, 1)
    if array.shape[0] % groups:
        raise ValueError(f"groups: got {groups}, expected a divisor of the weight's first size {array.shape[0]}")
    return PackedWeight(array, groups, _kept(array, mask, threshold))


def _kept(weight: np.ndarray, mask: Mask | None, threshold: float) -> np.ndarray | None:
    """Which weights are inside the mask and above the threshold; None: all of them."""
    threshold = checks.threshold(threshold, "weight")
    kept = None
    if mask is not None:
        mask = arrays.take_mask("mask", mask)
        checks.mask("mask", arrays.form(mask), weight.shape, weight.dtype)
        kept = masks.bools(mask, weight.shape)
    if threshold > 0:
        above = masks.above(weight, threshold, _threads(weight))
        return above if kept is None else np.logical_and(above, kept, out=above)
    return kept


def block_channels(taps: int) -> int:
    """Channels of a block of the lists: a power of two, so that blocks divide the usual numbers of channels evenly."""
    return 1 << max(0, (BLOCK_WEIGHTS // taps).bit_length() - 1)


def nonzero_lists(
    weight: np.ndarray, groups: int, backward: bool, classes: Classes, threads: int | None = None
) -> _weights.Lists:
    """Lists of the nonzeros of a weight (out, in / groups, *kernel)."""
    weight = np.ascontiguousarray(weight)
    out_channels, in_channels = weight.shape[0] // groups, weight.shape[1]
    taps = math.prod(weight.shape[2:])
    ends: list[int] = []
    flat: list[int] = []
    for one in classes:
        flat += one
        ends.append(len(flat))
    filter_stride, channel_stride = in_channels * taps, taps
    filters, channels = out_channels, in_channels
    if backward:
        filter_stride, channel_stride = channel_stride, filter_stride
        filters, channels = channels, filters
    lists = _weights.Lists(
        groups=groups, filters=groups * filters, channels=channels, taps=taps,
        inner_taps=weight.shape[-1] if weight.ndim > 2 else 1, class_ends=ends, class_taps=flat,
        block_channels=block_channels(taps), group_stride=out_channels * in_channels * taps,
        filter_stride=filter_stride, channel_stride=channel_stride, item_filters=ITEM_FILTERS,
    )  # fmt: skip
    lists.fill(weight, _threads(weight) if threads is None else threads)
    return lists


def _threads(weight: np.ndarray) -> int:
    return cpu.num_threads() if weight.size >= SERIAL_WEIGHTS else 1
