"""The types in public signatures, for annotations of functions that pass arguments on.

>>> from sparseconv.typing import Array, Size
>>> def block(x: Array, weight: Array, stride: Size = 1): ...

An `Array` is whatever shows CPU memory of its own: NumPy's arrays, PyTorch's and JAX's, memoryviews. That it has
elements of the right type, and as many as the others need, is checked when a function is called. No module imports this
one but for a type checker, so it costs nothing until it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, SupportsIndex, TypeAlias

import numpy as np

from .compressed import CompressedArray
from .packed import PackedWeight
from .spikes import Spikes

__all__ = [
    "Activation",
    "Array",
    "Bits",
    "BlockMethod",
    "Bools",
    "Input",
    "Keep",
    "Layout",
    "Layout1d",
    "Layout2d",
    "Layout3d",
    "Mask",
    "Operand",
    "Padding",
    "PaddingTransposed",
    "Precision",
    "SavedInput",
    "Seed",
    "Shape",
    "Size",
    "Skip",
    "SkipBackwardData",
    "SkipBackwardWeight",
    "SkipForward",
    "SupportsArrayInterface",
    "SupportsBuffer",
    "SupportsDLPack",
    "Weight",
]


class SupportsDLPack(Protocol):
    """An array that shows its memory through DLPack, as the array API standard has it."""

    def __dlpack__(self, *, stream: None = ...) -> Any: ...

    def __dlpack_device__(self) -> tuple[Any, int]: ...


class SupportsArrayInterface(Protocol):
    """An array that shows its memory as NumPy's do."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...


class SupportsBuffer(Protocol):
    """An array that shows its memory through Python's buffer protocol."""

    def __buffer__(self, flags: int, /) -> memoryview: ...


Array: TypeAlias = SupportsDLPack | SupportsArrayInterface | SupportsBuffer
Weight: TypeAlias = Array | PackedWeight
Input: TypeAlias = Array | Spikes  # of forward
Operand: TypeAlias = Array | CompressedArray  # of backward_weight
SavedInput: TypeAlias = Operand | Spikes  # x of backward_weight
Mask: TypeAlias = Array | CompressedArray | Spikes

# Results: one bit per element, and one bool.
Bits: TypeAlias = np.ndarray[tuple[int], np.dtype[np.uint8]]
Bools: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]

Shape: TypeAlias = Sequence[SupportsIndex]
Size: TypeAlias = SupportsIndex | Sequence[SupportsIndex]
PaddingTransposed: TypeAlias = Size | Sequence[Sequence[SupportsIndex]] | Literal["valid"]
Padding: TypeAlias = PaddingTransposed | Literal["same"]

Activation: TypeAlias = Literal["relu"]
Precision: TypeAlias = Literal["highest", "high", "medium"]
Layout1d: TypeAlias = Literal["NCW", "NWC", "NCW16c"]
Layout2d: TypeAlias = Literal["NCHW", "NHWC", "NCHW16c"]
Layout3d: TypeAlias = Literal["NCDHW", "NDHWC", "NCDHW16c"]
Layout: TypeAlias = Literal["NC"] | Layout1d | Layout2d | Layout3d
Skip: TypeAlias = Literal["auto", "none", "input", "weight"]
SkipForward: TypeAlias = Literal["auto", "none", "input", "weight", "output"]
SkipBackwardData: TypeAlias = Literal["auto", "none", "grad_output", "weight", "output"]
SkipBackwardWeight: TypeAlias = Literal["auto", "none", "input", "grad_output"]

# Of sparseconv.pruning.
BlockMethod: TypeAlias = Literal["exact", "greedy", "entropy"]
Seed: TypeAlias = (
    int | Sequence[int] | np.random.SeedSequence | np.random.BitGenerator | np.random.Generator | np.random.RandomState
)

# Of sparseconv.torch.
Keep: TypeAlias = Literal["dense", "compressed"]
