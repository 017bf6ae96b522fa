"""The operands of a training step's convolutions, for ``sparseconv bench --activations``."""

from sparseconv.benchmark.activations import Saved
from sparseconv.benchmark.layers import Layer
from sparseconv.benchmark.operands import Operands
from sparseconv.training.network import Convolution

__all__ = ["recorded"]


def recorded(network):
    """Return what the convolutions read in the network's latest step, as a list of `Saved`."""
    return [_recorded(name, layer) for name, layer in network.weighted.items() if isinstance(layer, Convolution)]


def _recorded(name, convolution):
    x, grad_output = convolution.calls["backward_weight"].whole[:2]
    out_c, in_c, *kernel = convolution.weight.shape
    layer = Layer(in_c, out_c, x.shape[1:3], tuple(kernel))
    return Saved(name, Operands(layer, "NHWC", x, convolution.weight, grad_output), tuple(convolution.calls))
