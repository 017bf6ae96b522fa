"""sparseconv for PyTorch: layers that skip zeros as functions of tensors, differentiable; operators for torch.compile.

>>> import sparseconv.torch as sct                                                             # doctest: +SKIP
>>> y = sct.conv2d(x, weight, bias, padding=1, activation="relu")                              # doctest: +SKIP
>>> y.sum().backward()                                                                         # doctest: +SKIP

The package, from the outside in (each line uses what stands below it):

=============  ========================================================================================================
functional     conv1d ... linear: arguments as in torch.nn.functional
packed         the same with a PackedWeight, for inference
ops            the operators torch.ops.sparseconv.*: kernels, fakes, derivatives
saved          what waits for the backward pass, compressed
relu_inputs    whether a ReLU masks a gradient before anybody sees it
shapes         shapes and strides of results
=============  ========================================================================================================

Tensors are CPU tensors, and threads those of PyTorch: `torch.set_num_threads` counts.
"""

from .. import cpu
from .functional import (
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    linear,
)

__all__ = [
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "linear",
]

if hasattr(cpu, "_prefer_threads"):
    cpu._prefer_threads("openmp")
