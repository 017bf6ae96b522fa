"""Modules: torch.nn's own with other arithmetic.

Each class here is the subclass of one of torch.nn. Parameters, constructor, state_dict and hooks are inherited; only
the call of the convolution is ours. A module of torch.nn becomes one of ours, and back, by a change of its class:
parameters, hooks, buffers of pruning and everybody's references to the module stay what they are.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as theirs
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrize

from . import functional as ours

if TYPE_CHECKING:
    from ..typing import Activation, Keep, Skip

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Linear",
    "become",
    "counterpart",
    "operate",
    "plain_class",
]

DEFAULTS = {"activation": None, "skip": "auto", "threshold": 0.0, "keep": "dense", "input_is_relu": None}


def convolve(
    module: Any, function: Any, input: Tensor, weight: Tensor, bias: Tensor | None, **options: Any
) -> Tensor:
    """What `_conv_forward` of torch.nn does, with any function for the convolution."""
    padding = module.padding
    if module.padding_mode != "zeros":
        input = theirs.pad(input, module._reversed_padding_repeated_twice, mode=module.padding_mode)
        padding = (0,) * len(module.kernel_size)
    return function(input, weight, bias, module.stride, padding, module.dilation, module.groups, **options)


def convolve_transposed(
    module: Any, function: Any, input: Tensor, weight: Tensor, bias: Tensor | None, output_size: Any = None,
    **options: Any,
) -> Tensor:  # fmt: skip
    """What `forward` of torch.nn's transposed convolutions does, with any function."""
    if module.padding_mode != "zeros":  # torch's constructors refuse it; attributes can still be set
        raise ValueError(f"padding_mode: got {module.padding_mode!r}, expected 'zeros' in a transposed convolution")
    output_padding = module._output_padding(
        input, output_size, module.stride, module.padding, module.kernel_size, len(module.kernel_size), module.dilation
    )
    return function(
        input, weight, bias, module.stride, module.padding, output_padding, module.groups, module.dilation, **options
    )


def multiply(
    module: Any, function: Any, input: Tensor, weight: Tensor, bias: Tensor | None, **options: Any
) -> Tensor:
    return function(input, weight, bias, **options)


class _Words:
    """The keywords of our operators as attributes of a module.

    They are class attributes until they are set, so that a module of torch.nn needs nothing but another class.
    """

    activation: Activation | None = None
    skip: Skip = "auto"
    threshold: float = 0.0
    keep: Keep = "dense"
    input_is_relu: bool | None = None

    plain: ClassVar[type[nn.Module]]  # the class of torch.nn
    operation: ClassVar[Any]  # how it calls a function
    ours: ClassVar[Any]  # our function, and torch's
    theirs: ClassVar[Any]

    def options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in DEFAULTS}

    def set_options(self, options: dict[str, Any]) -> None:
        """Checks the keywords and makes attributes of those that are not the defaults."""
        unknown = set(options) - set(DEFAULTS)
        if unknown:
            raise TypeError(f"{type(self).__name__}: got the keyword {min(unknown)!r}, expected {', '.join(DEFAULTS)}")
        for name, value in options.items():
            if value != DEFAULTS[name]:
                setattr(self, name, value)

    def extra_repr(self) -> str:
        given = [f"{name}={value!r}" for name, value in self.options().items() if value != DEFAULTS[name]]
        return ", ".join([super().extra_repr(), *given])  # type: ignore[misc]  # of the class of torch.nn


def _constructor(plain: type[nn.Module]) -> Any:
    def __init__(self: Any, *arguments: Any, **options: Any) -> None:
        ours = {name: options.pop(name) for name in DEFAULTS if name in options}
        plain.__init__(self, *arguments, **options)
        self.set_options(ours)

    return __init__


class _Conv(_Words):
    operation = staticmethod(convolve)

    if TYPE_CHECKING:  # what `_constructor` makes of torch.nn's

        def __init__(
            self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, ...],
            stride: int | tuple[int, ...] = 1, padding: int | tuple[int, ...] | Literal["same", "valid"] = 0,
            dilation: int | tuple[int, ...] = 1, groups: int = 1, bias: bool = True,
            padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
            device: torch.device | str | None = None, dtype: torch.dtype | None = None, *,
            activation: Activation | None = None, skip: Skip = "auto", threshold: float = 0.0, keep: Keep = "dense",
            input_is_relu: bool | None = None,
        ) -> None: ...  # fmt: skip

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return convolve(self, self.ours, input, weight, bias, **self.options())


class _ConvTranspose(_Words):
    operation = staticmethod(convolve_transposed)

    if TYPE_CHECKING:
        weight: Tensor  # as in torch.nn
        bias: Tensor | None

        def __init__(
            self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, ...],
            stride: int | tuple[int, ...] = 1, padding: int | tuple[int, ...] = 0,
            output_padding: int | tuple[int, ...] = 0, groups: int = 1, bias: bool = True,
            dilation: int | tuple[int, ...] = 1, padding_mode: Literal["zeros"] = "zeros",
            device: torch.device | str | None = None, dtype: torch.dtype | None = None, *,
            activation: Activation | None = None, skip: Skip = "auto", threshold: float = 0.0, keep: Keep = "dense",
            input_is_relu: bool | None = None,
        ) -> None: ...  # fmt: skip

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        return convolve_transposed(self, self.ours, input, self.weight, self.bias, output_size, **self.options())


class Conv1d(_Conv, nn.Conv1d):
    """As torch.nn.Conv1d, with the zeros left out; see `Conv2d`."""

    plain, ours, theirs = nn.Conv1d, staticmethod(ours.conv1d), staticmethod(theirs.conv1d)
    if not TYPE_CHECKING:
        __init__ = _constructor(nn.Conv1d)


class Conv2d(_Conv, nn.Conv2d):
    """As torch.nn.Conv2d, with the zeros left out.

    Parameters
    ----------
    *arguments, **options
        Those of torch.nn.Conv2d, all padding modes included.
    activation, skip, threshold, keep, input_is_relu
        Those of `sparseconv.torch.conv2d`. They are attributes, too, and may be set later.

    Notes
    -----
    Parameters are float32 on the CPU (float64 is computed, slowly). state_dict is that of torch.nn.Conv2d.
    """

    plain, ours, theirs = nn.Conv2d, staticmethod(ours.conv2d), staticmethod(theirs.conv2d)
    if not TYPE_CHECKING:
        __init__ = _constructor(nn.Conv2d)


class Conv3d(_Conv, nn.Conv3d):
    """As torch.nn.Conv3d, with the zeros left out; see `Conv2d`."""

    plain, ours, theirs = nn.Conv3d, staticmethod(ours.conv3d), staticmethod(theirs.conv3d)
    if not TYPE_CHECKING:
        __init__ = _constructor(nn.Conv3d)


class ConvTranspose1d(_ConvTranspose, nn.ConvTranspose1d):
    """As torch.nn.ConvTranspose1d, with the zeros left out; see `Conv2d`."""

    plain, ours, theirs = (
        nn.ConvTranspose1d, staticmethod(ours.conv_transpose1d), staticmethod(theirs.conv_transpose1d),
    )  # fmt: skip
    if not TYPE_CHECKING:
        __init__ = _constructor(nn.ConvTranspose1d)


class ConvTranspose2d(_ConvTranspose, nn.ConvTranspose2d):
    """As torch.nn.ConvTranspose2d, with the zeros left out; see `Conv2d`."""

    plain, ours, theirs = (
        nn.ConvTranspose2d, staticmethod(ours.conv_transpose2d), staticmethod(theirs.conv_transpose2d),
    )  # fmt: skip
    if not TYPE_CHECKING:
        __init__ = _constructor(nn.ConvTranspose2d)


class ConvTranspose3d(_ConvTranspose, nn.ConvTranspose3d):
    """As torch.nn.ConvTranspose3d, with the zeros left out; see `Conv2d`."""

    plain, ours, theirs = (
        nn.ConvTranspose3d, staticmethod(ours.conv_transpose3d), staticmethod(theirs.conv_transpose3d),
    )  # fmt: skip
    if not TYPE_CHECKING:
        __init__ = _constructor(nn.ConvTranspose3d)


class Linear(_Words, nn.Linear):
    """As torch.nn.Linear, with the zeros left out; see `Conv2d`."""

    plain, ours, theirs = nn.Linear, staticmethod(ours.linear), staticmethod(theirs.linear)
    operation = staticmethod(multiply)
    if TYPE_CHECKING:

        def __init__(
            self, in_features: int, out_features: int, bias: bool = True, device: torch.device | str | None = None,
            dtype: torch.dtype | None = None, *,
            activation: Activation | None = None, skip: Skip = "auto", threshold: float = 0.0, keep: Keep = "dense",
            input_is_relu: bool | None = None,
        ) -> None: ...  # fmt: skip
    else:
        __init__ = _constructor(nn.Linear)

    def forward(self, input: Tensor) -> Tensor:
        return self.ours(input, self.weight, self.bias, **self.options())


OURS: tuple[Any, ...] = (Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d, Linear)
COUNTERPARTS: dict[type, Any] = {kind.plain: kind for kind in OURS}
COOPERATIVE = frozenset({"spikingjelly"})  # its layers fold time into the batch and call super().forward


def plain_class(module: nn.Module) -> type:
    """The class of a module without the one that torch.nn.utils.parametrize puts in front of it."""
    return type(module).__bases__[0] if parametrize.is_parametrized(module) else type(module)


def counterpart(module: nn.Module) -> Any:
    """Our class for a module of torch.nn, or of a subclass that leaves the arithmetic to it, or of ours; else None."""
    found = plain_class(module)
    if found in OURS or "plain" in vars(found):
        return found
    return COUNTERPARTS.get(found) or _combined(found)


@lru_cache(maxsize=256)
def _combined(kind: type) -> Any:
    """A subclass of torch.nn's with our arithmetic below its own code; None where that code may do anything.

    It comes before ours in the order of bases, so its `super().forward` is ours. That is all of it where a subclass has
    no forward of its own, and for packages whose forward is known to end there.
    """
    base = next((one for one in COUNTERPARTS if issubclass(kind, one)), None)
    if base is None or issubclass(kind, (_Words, LazyModuleMixin)):
        return None
    known = kind.__module__.partition(".")[0] in COOPERATIVE
    ours = COUNTERPARTS[base]
    same = [name for name in ("forward", "_conv_forward") if getattr(kind, name, None) is getattr(base, name, None)]
    if len(same) < 2 and not (known and (ours.operation is not convolve or "_conv_forward" in same)):
        return None
    own = {"plain": kind, "__module__": kind.__module__, "__doc__": kind.__doc__, "__reduce_ex__": _reduced}
    return type(kind.__name__, (kind, ours), own)


def _reduced(module: nn.Module, protocol: int) -> tuple:
    """A module of a combined class, as pickle and copy write it down: the class is made again."""
    return _rebuilt, (counterpart(module).plain,), module.__getstate__()


def _rebuilt(kind: type) -> nn.Module:
    combined = _combined(kind)
    return combined.__new__(combined)


def operate(
    module: nn.Module, ours: bool, input: Tensor, weight: Tensor, bias: Tensor | None, *more: Any, **options: Any
) -> Tensor:
    """One call of a module's convolution with other operands, by our function or by torch's."""
    kind = counterpart(module)
    return kind.operation(module, kind.ours if ours else kind.theirs, input, weight, bias, *more, **options)


def become(module: nn.Module, target: type) -> None:
    """Gives a module another class, the one of its parametrizations put in front again."""
    if not parametrize.is_parametrized(module):
        module.__class__ = target
        return
    front = type(module)  # has a property for each parametrized parameter
    own = {name: value for name, value in vars(front).items() if name not in ("__dict__", "__weakref__")}
    module.__class__ = type(f"Parametrized{target.__name__}", (target,), own)


def as_torch(module: nn.Module) -> None:
    """Makes a module of ours one of torch.nn again; our attributes go."""
    for name in DEFAULTS:
        module.__dict__.pop(name, None)
    become(module, counterpart(module).plain)
