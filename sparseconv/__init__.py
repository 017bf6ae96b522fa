"""CNN convolutions on CPUs that skip the zeros.

>>> import sparseconv as sc
>>> y = sc.conv2d(x, weight, bias, padding=1, activation="relu")                            # doctest: +SKIP
>>> dx = sc.conv2d_backward_data(grad_output, weight, x.shape, padding=1)                   # doctest: +SKIP
>>> dw = sc.conv2d_backward_weight(x, grad_output, 3, padding=1)                            # doctest: +SKIP

The package, from the outside in (each line uses what stands below it):

==================================  ===================================================================================
torch, jax, formats                 imported on demand: layers and operators for PyTorch, functions under JAX's
                                    transformations, pruned weights in other projects' files
conv, transpose, linear, bias,      public functions; what a call would run
planning, prepared                  and calls that are checked once and run many times, also from C
masks, compressed, packed, spikes   what users hold: bit masks, arrays as bit mask and nonzero values, weights as lists
                                    of their nonzeros, zeros and ones as bits
cpu, reference                      instruction sets and threads; the NumPy oracle, and the path for float64
_core/                              private:
call                                from arguments to a checked call; what only forms decide is kept for the next one
operations, checks                  what that is: each operation checked and prepared, or an error
hints, shape_hints                  what was meant where that fails
rows, gradient, without_kernel      prepared operations: which kernel and why, its struct, its blocks, the call
spiking                             those of an x of zeros and ones, which add, or have it as floats
outputs, weights, groups, amx       families that these bind too: needed outputs, zero weights, narrow groups, tiles
bound, blocking                     what families share: bound kernels and their costs; how blocks are cut
choice, processor, tuned            densities and the decision; what multiply-adds cost on this CPU, and factors on it
                                    that ``sparseconv tune`` found
reduction                           simpler problems of the same memory
geometry, lines, layout             rows and columns that meet; strides
caches                              what is kept for later calls, within 64 MB
operands, problem, arrays, foreign  names of operands; the sizes of one convolution; views of memory, forms, aligned
                                    results; other libraries' arrays
cgroups, machine, progress          CPU quotas; what the computer is; a line that says how far a command is
_conv, _weights, _masks             Cython: structs filled, kernels called without the GIL; _pruning and _prepared, too
_cpu                                Cython: instruction sets, threads; the one extension that holds the kernels
include/                            sparseconv.h: the C interface, by which these and other projects call the kernels
kernels/                            C++: one source per kernel, compiled once per instruction set
==================================  ===================================================================================

Beside them: pruning (sparsity made on purpose), training and data (``sparseconv train``), benchmark (``sparseconv
bench`` and ``tune``), typing (the types in public signatures), _startup (imports that fail).
"""

import importlib
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING

try:
    from . import cpu, masks
except (ImportError, ValueError) as error:
    from . import _startup

    raise _startup.explained(error) from None
from ._core._cpu import C_API as C_API  # a capsule: see include/sparseconv.h
from .bias import grad_bias
from .compressed import CompressedArray, compress, decompress
from .conv import (
    conv1d,
    conv1d_backward_data,
    conv1d_backward_weight,
    conv2d,
    conv2d_backward_data,
    conv2d_backward_weight,
    conv3d,
    conv3d_backward_data,
    conv3d_backward_weight,
)
from .linear import linear, linear_backward_data, linear_backward_weight
from .packed import PackedWeight, pack_weight
from .planning import Plan, plan
from .prepared import PreparedCall, prepare
from .spikes import Spikes, pack_spikes
from .transpose import (
    conv_transpose1d,
    conv_transpose1d_backward_data,
    conv_transpose1d_backward_weight,
    conv_transpose2d,
    conv_transpose2d_backward_data,
    conv_transpose2d_backward_weight,
    conv_transpose3d,
    conv_transpose3d_backward_data,
    conv_transpose3d_backward_weight,
)

if TYPE_CHECKING:
    from . import data as data
    from . import pruning
    from . import reference as reference
    from . import typing as typing

__version__ = "0.1.0"

__all__ = [
    "CompressedArray",
    "PackedWeight",
    "Plan",
    "PreparedCall",
    "Spikes",
    "compress",
    "conv1d",
    "conv1d_backward_data",
    "conv1d_backward_weight",
    "conv2d",
    "conv2d_backward_data",
    "conv2d_backward_weight",
    "conv3d",
    "conv3d_backward_data",
    "conv3d_backward_weight",
    "conv_transpose1d",
    "conv_transpose1d_backward_data",
    "conv_transpose1d_backward_weight",
    "conv_transpose2d",
    "conv_transpose2d_backward_data",
    "conv_transpose2d_backward_weight",
    "conv_transpose3d",
    "conv_transpose3d_backward_data",
    "conv_transpose3d_backward_weight",
    "cpu",
    "decompress",
    "get_include",
    "grad_bias",
    "linear",
    "linear_backward_data",
    "linear_backward_weight",
    "masks",
    "pack_spikes",
    "pack_weight",
    "plan",
    "prepare",
    "pruning",
]


_LATER = ("data", "pruning", "reference", "typing")  # convolutions alone do not need them


if not TYPE_CHECKING:  # for which a name that is not there is an error

    def __getattr__(name: str) -> ModuleType:
        """Import some modules when they are first asked for."""
        if name in _LATER:
            return importlib.import_module(f"{__name__}.{name}")
        hint = f": import {__name__}.{name} first" if name in ("jax", "torch") else ""
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r}{hint}", name=name, obj=sys.modules[__name__]
        )  # from which Python finds the attribute that was meant


def get_include() -> str:
    """The folder of the C header sparseconv.h, for the include path of a compiler.

    Returns
    -------
    str

    Examples
    --------
    >>> import pathlib, sparseconv as sc
    >>> (pathlib.Path(sc.get_include()) / "sparseconv.h").is_file()
    True
    """
    return os.path.join(os.path.dirname(__file__), "include")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_LATER})
