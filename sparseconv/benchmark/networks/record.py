"""What each convolution of a network reads in a training step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from sparseconv.benchmark.activations import Saved
from sparseconv.benchmark.layers import Layer
from sparseconv.benchmark.networks.trained import Trained
from sparseconv.benchmark.operands import PASSES, Operands
from sparseconv.torch.relu_inputs import watch

__all__ = ["Recorded", "record"]


@dataclass(frozen=True)
class Recorded:
    """One layer of a training step, and whether a ReLU masks the gradient of its input."""

    saved: Saved
    behind_relu: bool


def record(trained: Trained) -> list[Recorded]:
    """All convolutions of a step, in the order in which they run; operands are NHWC."""
    layers = {module: name for name, module in trained.model.named_modules() if isinstance(module, nn.Conv2d)}
    inputs: dict[str, tuple[nn.Conv2d, Tensor, bool]] = {}
    gradients: dict[str, Tensor] = {}

    def hook(module: nn.Module, arguments: tuple, output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        name, (x,) = layers[module], arguments
        inputs[name] = module, x, watch(x) is not None
        output.register_hook(lambda gradient: gradients.__setitem__(name, gradient))

    handles = [module.register_forward_hook(hook) for module in layers]
    try:
        trained.loss(trained.model(trained.images)).backward()
    finally:
        for handle in handles:
            handle.remove()
        trained.model.zero_grad(set_to_none=True)
    return [_recorded(name, *inputs[name], gradients[name]) for name in inputs]


def _recorded(name: str, module: nn.Conv2d, x: Tensor, behind_relu: bool, gradient: Tensor) -> Recorded:
    layer = Layer(
        module.in_channels,
        module.out_channels,
        (x.shape[2], x.shape[3]),
        (module.kernel_size[0], module.kernel_size[1]),
        module.stride[0],
        module.padding,
    )
    arrays = {
        name: tensor.detach().permute(0, 2, 3, 1).contiguous().numpy()
        for name, tensor in (("x", x), ("grad_output", gradient))
    }
    operands = Operands(layer, "NHWC", weight=module.weight.detach().contiguous().numpy(), **arrays)
    passes = PASSES if x.requires_grad else tuple(which for which in PASSES if which != "backward_data")
    return Recorded(Saved(name, operands, passes), behind_relu)
