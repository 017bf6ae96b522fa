"""CNN convolutions on CPUs that skip the zeros.

>>> import sparseconv as sc
>>> y = sc.conv2d(x, weight, bias, padding=1, activation="relu")                            # doctest: +SKIP
>>> dx = sc.conv2d_backward_data(grad_output, weight, x.shape, padding=1)                   # doctest: +SKIP
>>> dw = sc.conv2d_backward_weight(x, grad_output, 3, padding=1)                            # doctest: +SKIP

The package, from the outside in (each line uses what stands below it):

==================================  ===================================================================================
conv, transpose, linear, bias       public functions
prepare, checks                     from arguments to a checked call; what only forms decide is kept for the next one
passes, planning                    the three passes: which kernel, why, and the call
blocking, blocking_tiles            block sizes, on vectors and on the tile registers of AMX
geometry, layout                    rows and columns that meet; strides
problem, arrays                     the sizes of one convolution; views of memory, forms, aligned results
_conv, _masks, _pruning, _cpu       Cython: structs filled, kernels called without the GIL
kernels/                            C++: one source per kernel, compiled once per instruction set
==================================  ===================================================================================

Beside them: masks (bit masks, densities), pruning (sparsity made on purpose), cpu (instruction sets, threads),
reference (the NumPy oracle, and the path for float64), training and data (``sparseconv train``), benchmark
(``sparseconv bench``), progress (of both).
"""

from . import cpu, masks
from .bias import grad_bias
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
from .planning import Plan, plan
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

__version__ = "0.1.0"

__all__ = [
    "Plan",
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
    "grad_bias",
    "linear",
    "linear_backward_data",
    "linear_backward_weight",
    "masks",
    "plan",
]
