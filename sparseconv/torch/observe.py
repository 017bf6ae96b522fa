"""Running a model on a sample, and timing each of its layers there, on the operands that arrive.

A layer is timed inside the model's own run: its forward pass by a forward hook, its backward passes when the gradient
of its result arrives. So nothing is kept longer than the run keeps it, and zeros are those of the moment.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import sparseconv
from sparseconv.benchmark.measure import fastest_of_pairs

from . import relu_inputs
from .modules import convolve, convolve_transposed, counterpart, operate
from .relu_inputs import leave_unseen, watch
from .report import LayerReport, PassReport

__all__ = ["Observer", "preserved", "run", "step"]


def run(model: nn.Module, sample: Any) -> Any:
    """The model's output for a sample: a tensor, a tuple of arguments, a dict of keywords, or a function.

    Raises
    ------
    TypeError
        Another kind of sample.
    ValueError
        A tensor that is not on the CPU, or a sample that the model rejects.
    """
    if callable(sample) and not isinstance(sample, Tensor):
        return sample(model) if _takes_argument(sample) else sample()
    if isinstance(sample, Tensor):
        arguments: tuple = (sample,)
        keywords: dict = {}
    elif isinstance(sample, tuple | list):
        arguments, keywords = tuple(sample), {}
    elif isinstance(sample, dict):
        arguments, keywords = (), sample
    else:
        raise TypeError(
            f"sample: got {type(sample).__name__}, expected a tensor, a tuple of arguments, a dict of keywords, or a "
            "function that runs the model"
        )
    for tensor in pytree.tree_leaves((arguments, keywords)):
        if isinstance(tensor, Tensor) and tensor.device.type != "cpu":
            raise ValueError(f"sample: got a tensor on {tensor.device}, expected tensors on the CPU: use .cpu()")
    try:
        return model(*arguments, **keywords)
    except Exception as error:
        raise ValueError(
            f"sample: got {_describe(sample)}, which the model rejects ({type(error).__name__}: {error}); expected "
            f"what {type(model).__name__}.forward{_signature(model)} takes"
        ) from error


def _takes_argument(function: Callable) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some builtins have none
        return True
    return any(one.kind not in (one.KEYWORD_ONLY, one.VAR_KEYWORD) for one in parameters)


def _signature(model: nn.Module) -> str:
    try:
        return str(inspect.signature(model.forward))
    except (TypeError, ValueError):
        return "()"


def _describe(sample: Any) -> str:
    def describe(leaf: Any) -> str:
        if isinstance(leaf, Tensor):
            return f"{str(leaf.dtype).removeprefix('torch.')} tensor {tuple(leaf.shape)}"
        return type(leaf).__name__

    if isinstance(sample, dict):
        return ", ".join(f"{name}={describe(leaf)}" for name, leaf in sample.items())
    return ", ".join(map(describe, pytree.tree_leaves(sample))) or "nothing"


def step(model: nn.Module, sample: Any, backward: bool) -> Any:
    """One run of the model and, with `backward`, the gradients of its parameters; returns the output.

    A scalar output is taken as the loss. Other outputs get random gradients, without zeros, of the size that a mean
    would have. To be called inside `preserved`, which puts `.grad` back.
    """
    with torch.set_grad_enabled(backward):
        output = run(model, sample)
    if not backward:
        return output
    outputs = [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor) and leaf.requires_grad]
    if not outputs:
        return output
    scalar = len(outputs) == 1 and outputs[0].numel() == 1
    generator = torch.Generator().manual_seed(0)
    gradients = [
        torch.ones_like(one) if scalar
        else torch.randn(one.shape, generator=generator).to(one.dtype) / max(one.numel(), 1)
        for one in outputs
    ]  # fmt: skip
    parameters = [one for one in model.parameters() if one.requires_grad]
    if any(one._post_accumulate_grad_hooks for one in parameters):  # an optimiser may wait there for gradients
        torch.autograd.grad(outputs, parameters, gradients, allow_unused=True)
    else:
        torch.autograd.backward(outputs, gradients)
        for one in parameters:
            one.grad = None
    return output


@contextlib.contextmanager
def preserved(model: nn.Module, sample: Any) -> Iterator[None]:
    """Puts back what runs change: buffers, gradients, random numbers, and parameters if the sample is a function."""
    kept = [*model.buffers()]
    if callable(sample) and not isinstance(sample, Tensor):
        kept += model.parameters()  # it may take a step of an optimiser
    values = [(one, one.detach().clone()) for one in kept]
    gradients = [(one, one.grad) for one in model.parameters()]
    for one, _ in gradients:
        one.grad = None
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            with torch.no_grad():
                for one, value in values:
                    one.copy_(value)
            for one, gradient in gradients:
                one.grad = gradient


def in_one_batch(module: nn.Module, tensor: Tensor) -> Tensor:
    """A tensor (T, N, C, ...) of time steps as the batch that a layer for several steps makes of it."""
    more = 0 if isinstance(module, nn.Linear) else tensor.dim() - module.weight.dim()
    return tensor.flatten(0, more) if more > 0 else tensor


class Observer:
    """Hooks on layers that time them while the model runs.

    Parameters
    ----------
    layers : dict of {name: module}
    options : dict
        Keywords of our operators.
    seconds : float
        For each pass of each layer, at least; 5 pairs of calls are made in any case.
    """

    def __init__(self, layers: dict[str, nn.Module], options: dict[str, Any], seconds: float, backward: bool) -> None:
        self.layers, self.options, self.seconds, self.backward = layers, options, seconds, backward
        self.reports: dict[str, LayerReport] = {}

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        handles = [
            module.register_forward_hook(self._hook(name), with_kwargs=True) for name, module in self.layers.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, name: str) -> Callable:
        def hook(module: nn.Module, arguments: tuple, keywords: dict, output: Any) -> None:
            input, *more = arguments if arguments else (keywords["input"],)
            more += [value for key, value in keywords.items() if key == "output_size"]
            self._forward(name, module, input, more, output)

        return hook

    def _forward(self, name: str, module: nn.Module, input: Tensor, more: list, output: Tensor) -> None:
        report = self.reports.setdefault(
            name, LayerReport(name, counterpart(module).plain.__name__, False, "", tuple(module.weight.shape))
        )
        report.calls += 1
        report.input_shape = tuple(input.shape)
        unsupported = [str(one.dtype) for one in (input, output) if one.dtype != torch.float32]
        if unsupported or not input.numel():
            report.reason = f"its input is {unsupported[0] if unsupported else 'empty'}"
            return
        relu = None if input.grad_fn is None else watch(input)
        is_relu = relu is not None and not any(relu.hooks)
        report.input_is_relu |= is_relu
        as_it_is = isinstance(module, nn.Linear) or input.dim() == module.weight.dim()  # of a view no ReLU is known
        found = is_relu and as_it_is and input.numel() >= relu_inputs.LEAST
        input = in_one_batch(module, input)
        calls = Calls(module, input, more, self.options, found)
        _average(report, "input", _zeros(input))
        _average(report, "weight", _zeros(calls.weight))
        _add(report, "forward", *self._time("forward", calls), calls.plan("forward"))
        if self.backward and output.requires_grad:
            output.register_hook(lambda gradient: self._backward(report, calls, gradient))

    def _backward(self, report: LayerReport, calls: Calls, gradient: Tensor) -> None:
        gradient = in_one_batch(calls.module, gradient.detach())
        _average(report, "grad_output", _zeros(gradient))
        calls.gradient = gradient
        for which in calls.backward_passes:
            _add(report, which, *self._time(which, calls), calls.plan(which))

    def _time(self, which: str, calls: Calls) -> tuple[float, float]:
        with torch.set_grad_enabled(self.backward):
            return fastest_of_pairs(calls.call(which, ours=False), calls.call(which, ours=True), self.seconds)


class Calls:
    """The passes of one call of a layer, by torch and by us, on detached operands."""

    def __init__(self, module: nn.Module, input: Tensor, more: list, options: dict[str, Any], found: bool) -> None:
        """`found`: the converted layer will find out by itself that a ReLU has made its input."""
        self.found = found and options["input_is_relu"] is None
        self.module, self.more = module, more
        self.options = options | {"input_is_relu": True} if self.found else options
        self.input = input.detach()
        self.input_needs_gradient = input.requires_grad
        with torch.no_grad():  # parametrizations compute it
            self.weight = module.weight.detach()
        self.weight_needs_gradient = any(
            one.requires_grad for name, one in module.named_parameters() if "bias" not in name
        )
        self.bias = None if module.bias is None else module.bias.detach()
        self.gradient: Tensor | None = None

    @property
    def backward_passes(self) -> list[str]:
        needed = {"backward_data": self.input_needs_gradient, "backward_weight": self.weight_needs_gradient}
        return [which for which, needs in needed.items() if needs]

    def call(self, which: str, *, ours: bool) -> Callable[[], Any]:
        options = self.options if ours else {}

        def forward(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return operate(self.module, ours, input, weight, bias, *self.more, **options)

        if which == "forward":
            input = self.input.requires_grad_(False)
            weight, bias = self.weight, self.bias
            if torch.is_grad_enabled():  # saving operands is part of the time
                weight = weight.detach().requires_grad_(self.weight_needs_gradient)
            return lambda: forward(input, weight, bias)
        input, weight = self.input.detach(), self.weight.detach()
        bias = None if self.bias is None else self.bias.detach()
        sources = [input] if which == "backward_data" else [weight] if bias is None else [weight, bias]
        for source in sources:
            source.requires_grad_()
        with torch.enable_grad():
            output = forward(input, weight, bias)
        if ours and self.found:
            leave_unseen(output.grad_fn)
        return lambda: torch.autograd.grad(output, sources, self.gradient, retain_graph=True)

    def plan(self, which: str) -> sparseconv.Plan:
        """The library's own plan, for the names of the kernel and of what it skips."""
        arrays = {"x": self.input, "weight": self.weight, "grad_output": self.gradient}
        return plan(self.module, which, arrays, self.more, self.options)


def plan(module: nn.Module, which: str, tensors: dict[str, Tensor], more: list, ours: dict) -> sparseconv.Plan:
    kind = counterpart(module)
    options: dict[str, Any] = {"num_threads": torch.get_num_threads()}
    if which == "forward" or ours["skip"] in ("auto", "none"):
        options["skip"] = ours["skip"]
    name = kind.theirs.__name__ if kind.operation is not convolve else f"conv{len(module.kernel_size)}d"
    x, weight = tensors["x"].detach(), tensors["weight"].detach()
    if kind.operation is convolve:

        def taken(input: Tensor, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> None:
            nonlocal x
            x = input
            options.update(stride=stride, padding=padding, dilation=dilation, groups=groups)

        convolve(module, taken, x, weight, None)
        x = x if x.dim() == len(module.kernel_size) + 2 else x.unsqueeze(0)
    elif kind.operation is convolve_transposed:

        def taken(
            input: Tensor, weight: Any, bias: Any, stride: Any, padding: Any, output_padding: Any, groups: int,
            dilation: Any,
        ) -> None:  # fmt: skip
            options.update(stride=stride, padding=padding, dilation=dilation, groups=groups)
            if which == "forward":
                options["output_padding"] = output_padding

        convolve_transposed(module, taken, x, weight, None, *more)
        name = f"conv_transpose{len(module.kernel_size)}d"
        x = x if x.dim() == len(module.kernel_size) + 2 else x.unsqueeze(0)
    if which == "forward":
        return sparseconv.plan(name, x.numpy(), weight.numpy(), **options)
    gradient = tensors["grad_output"]
    if gradient.dim() < x.dim():
        gradient = gradient.unsqueeze(0)
    gradient = gradient.numpy()
    if which == "backward_data":
        shape = () if name == "linear" else (tuple(x.shape),)
        mask = {"output_mask": x.numpy()} if ours.get("input_is_relu") else {}
        return sparseconv.plan(f"{name}_backward_data", gradient, weight.numpy(), *shape, **mask, **options)
    kernel = () if name == "linear" else (tuple(module.kernel_size),)
    return sparseconv.plan(f"{name}_backward_weight", x.numpy(), gradient, *kernel, **options)


def _zeros(tensor: Tensor) -> float:
    return 1 - torch.count_nonzero(tensor).item() / max(tensor.numel(), 1)


def _average(report: LayerReport, operand: str, zeros: float) -> None:
    """The mean over the calls of a layer."""
    before = report.zeros.get(operand, zeros)
    report.zeros[operand] = before + (zeros - before) / report.calls


def _add(report: LayerReport, which: str, theirs: float, ours: float, made: sparseconv.Plan) -> None:
    done = report.passes.setdefault(which, PassReport(0.0, 0.0, made.kernel, made.skip))
    done.torch_seconds += theirs
    done.seconds += ours
