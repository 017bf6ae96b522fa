"""sparseconv for PyTorch: layers that skip zeros as functions of tensors, differentiable; operators for torch.compile.

>>> import sparseconv.torch as sct                                                             # doctest: +SKIP
>>> y = sct.conv2d(x, weight, bias, padding=1, activation="relu")                              # doctest: +SKIP
>>> y.sum().backward()                                                                         # doctest: +SKIP
>>> print(sct.convert_(model, sample))  # in place: layers that are faster with us              # doctest: +SKIP

The package, from the outside in (each line uses what stands below it):

================  =============================================================================================
conversion        a model's layers become ours, and PyTorch's again
fold              inference as a graph: what may be folded is found, and measured
graph, sites      that graph; what it computes at once: a layer, batch normalisation, a residual addition, ReLU
observe           running a model on a sample, each layer timed there
report            what came of it
exported          layers of exported programs
command           ``sparseconv torch-report``
methods           training methods of sparseconv.pruning on a model's layers
parametrizations  masks of sparseconv.pruning as parametrizations of weights
modules           Conv1d ... Linear: subclasses of torch.nn's
functional        conv1d ... linear: arguments as in torch.nn.functional
packed            the same with a PackedWeight, for inference
ops               the operators torch.ops.sparseconv.*: kernels, fakes
derivatives       their gradients and directional derivatives
calls             functions of the core called with tensors; checks of tensors
saved             what waits for the backward pass, compressed
relu_inputs       whether a ReLU masks a gradient before anybody sees it
shapes            shapes and strides of results
================  =============================================================================================

Tensors are CPU tensors, and threads those of PyTorch: `torch.set_num_threads` counts.
"""

from .. import cpu
from .conversion import Config, convert, convert_, revert_, sparsity_report
from .functional import (
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    linear,
)
from .methods import attach, detach
from .modules import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d, Linear
from .parametrizations import NMWeight, TopKWeight, TransposableNMWeight
from .report import LayerReport, PassReport, Report

__all__ = [
    "Config",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "LayerReport",
    "Linear",
    "NMWeight",
    "PassReport",
    "Report",
    "TopKWeight",
    "TransposableNMWeight",
    "attach",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "convert",
    "convert_",
    "detach",
    "linear",
    "revert_",
    "sparsity_report",
]

if hasattr(cpu, "_prefer_threads"):
    cpu._prefer_threads("openmp")
