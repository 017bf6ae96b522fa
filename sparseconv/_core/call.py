"""From public arguments to a checked call, and what is done with it.

`checked` takes the arguments of any public operation (conv.py, transpose.py, linear.py) and returns a `Call` to run or
to look at. Arrays are reduced to their forms; what forms and options decide is checked by operations.py and becomes a
prepared operation. These are kept: a call with equal forms and options finds its own again, in 2 us instead of 20, and
with it the kernels that it ran before. That is the one look-up on a call's way. What is left to do every time depends
on addresses: alignment, and whether `out` may be written to. Nothing is written before all that is done. No operation
depends on `threshold`, `return_mask` or `num_threads`, which are checked every time and given to its kernel.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import cpu, masks
from ..compressed import CompressedArray
from ..packed import PackedWeight
from ..spikes import Spikes
from . import _cpu, _weights, arrays, caches, checks, layout, operations
from .arrays import Form
from .bound import Bound
from .choice import Choice, Plan
from .foreign import Compressed
from .operands import GRAD_OUTPUT, INPUT, KNOWN, OPERANDS, Operands
from .operations import Operation
from .spiking import Spiking

PLAIN = frozenset({int, str, type(None)})
MASKS = frozenset({"output_mask", *KNOWN})
OPTIONAL = MASKS | {"bias", "residual"}  # operands that need not be there
ABOUT = {operand.known: operand.name for operand in (INPUT, GRAD_OUTPUT)}
SIZES = ("input_shape", "kernel_size")  # options that are shapes
TAKES_COMPRESSED = frozenset({
    operations.conv_backward_weight, operations.conv_transpose_backward_weight, operations.linear_backward_weight
})  # fmt: skip
TAKES_SPIKES = frozenset({
    operations.conv, operations.conv_backward_weight, operations.linear, operations.linear_backward_weight
})  # fmt: skip


class Call(NamedTuple):
    """One checked call: a prepared operation and its arrays."""

    operation: Operation
    operands: Operands
    out: np.ndarray
    threads: int
    threshold: float
    return_mask: bool = False
    guard: _weights.Guard | None = None  # of a packed weight, which must not change meanwhile

    def run(self) -> Any:
        """Does it; returns the result, and its mask if that is wanted."""
        return run(*self)

    def decide(self) -> tuple[Choice, Bound]:
        """What it would skip, and the kernel for it."""
        with self.guard or contextlib.nullcontext():
            decided = self.operation.decide(self.operands, self.threads, self.threshold)
        if caches.full:
            caches.empty()
        return decided

    def plan(self, name: str, decided: tuple[Choice, Bound] | None = None) -> Plan:
        """Says what it would do, if that is not decided yet; `name` is that of the public function."""
        choice, kernel = decided or self.decide()
        once, each = kernel.task.scratch_bytes if kernel.task else (0, 0)
        reason = f"{choice.reason}; {kernel.note}" if kernel.note else choice.reason
        return Plan(
            name, str(self.operation.problem), kernel.kernel, choice.skip, choice.density, choice.speedup, reason,
            kernel.blocking, _cpu.current(), kernel.threads, once + kernel.threads * each,
        )  # fmt: skip


def run(
    operation: Operation, operands: Operands, out: np.ndarray, threads: int, threshold: float,
    return_mask: bool = False, guard: _weights.Guard | None = None,
) -> Any:  # fmt: skip
    """Does a checked call, whose parts `Call` names; returns the result, and its mask if that is wanted."""
    if guard is None:
        bits = operation.run(operands, out, threads, threshold, return_mask)
    else:
        with guard:
            bits = operation.run(operands, out, threads, threshold, return_mask)
    if caches.full:
        caches.empty()
    if not return_mask:
        return out
    return out, masks.nonzero_mask(out) if bits is None else bits


def checked(
    make: Callable[..., Operation], dims: int, operands: Operands, *, out: Any = None, num_threads: Any = None,
    threshold: Any = 0.0, return_mask: Any = False, **options: Any,
) -> Call:  # fmt: skip
    """A checked call of an operation of operations.py with so many spatial dimensions (0: linear layers).

    `operands` are all that the public function takes, by name; those that may be missing can be None.
    """
    usable = arrays.addressable if dims else arrays.in_rows  # copies arrays whose memory kernels cannot read
    for name in SIZES:
        if isinstance(options.get(name), tuple):
            options[name] = tuple(options[name])  # in the place of its subclasses, such as the shapes of tensors
    taken, used, guard, ndim = {}, {}, None, 0  # ndim: of the first operand
    forms: list[tuple] = []
    told: dict[str, tuple[int, ...]] = {}  # shapes of the arrays that compressed masks are about
    cuts = (type(threshold) is not float or threshold) and options.get("skip") == "weight"  # kernels get a copy
    for name, value in operands.items():
        if value is None and name in OPTIONAL:
            continue
        if name == "weight" and isinstance(value, PackedWeight):
            guard, taken[name] = value.guard, _unpacked(value, options)
            array = taken[name]
            used[name] = value if array.dtype == np.float32 else array
        else:
            if isinstance(value, Compressed):
                if name in MASKS:
                    told[name] = value.shape
                elif isinstance(value, Spikes) and name == "x" and make in TAKES_SPIKES:
                    taken[name] = used[name] = value.bits
                    ndim = ndim or value.ndim
                    forms.append(arrays.contiguous(value.shape, value.bits.dtype))
                    continue
                elif isinstance(value, CompressedArray) and make in TAKES_COMPRESSED:
                    value = value.to_dense(num_threads=num_threads)
            taken[name] = array = arrays.take_mask(name, value) if name in MASKS else arrays.take_operand(name, value)
            if name in MASKS and array.ndim == ndim - 1 and array.dtype != np.uint8:
                array = np.asarray(array, order="C")  # a value per pixel or row: few, and then in rows for sure
            used[name] = array = np.ascontiguousarray(array) if name == "weight" and cuts else usable(array)
        ndim = ndim or array.ndim
        forms.append((array.shape, array.strides, array.dtype))
    target = None
    if out is not None:
        out = arrays.take_out(out)
        target = (out.shape, out.strides, out.dtype)
    values = tuple(options.values())
    find = _kept if _plain(values) else _kept.__wrapped__
    asked = make, dims, tuple(used), tuple(forms), target, tuple(options), values
    try:
        operation = find(*asked)
    except ValueError as error:
        raise _in_another_layout(error, *asked) from None
    for name, shape in told.items():  # bits of other shapes can be as many
        about = operation.result.shape if name == "output_mask" else forms[tuple(used).index(ABOUT[name])][0]
        checks.sizes(name, shape, about)
    threads = cpu.checked_threads(num_threads)
    if type(threshold) is not float or threshold:
        threshold = checks.threshold(threshold, options.get("skip", "auto"))
        known = next((name for name in KNOWN if name in used), None)
        if threshold and known:
            raise ValueError(f"threshold: got {threshold} with {known}, expected 0 where a mask says what is zero")
        if threshold and isinstance(operation, Spiking):
            raise ValueError(f"threshold: got {threshold}, expected 0 with an x of zeros and ones")
        if threshold and options.get("skip") == "weight":
            used["weight"], guard = _thresholded(used["weight"], threshold), None
    if out is None:
        out = arrays.empty(operation.result.shape, operation.result.dtype)
    else:
        arrays.check_memory(out, taken)
    if return_mask is not False:
        return_mask = _wants_mask(return_mask, options)
    return Call(operation, used, out, threads, threshold, return_mask, guard)


def named(make: Callable[..., Operation], dims: int, **arguments: Any) -> Call:
    """`checked` for arguments that are all given by name."""
    operands = {name: arguments.pop(name) for name in OPERANDS if name in arguments}
    return checked(make, dims, operands, **arguments)


def _in_another_layout(error: ValueError, make: Callable[..., Operation], dims: int, *rest: Any) -> ValueError:
    """The error, and another layout in which all arguments would fit, if there is one."""
    *forms, names, values = rest
    options = dict(zip(names, values, strict=True))
    if "did you mean" in str(error) or options.get("layout") not in layout.names(dims):
        return error
    attempt: Any = _kept.__wrapped__
    for other in layout.others(layout.parse(options["layout"], dims)):
        try:
            attempt(make, dims, *forms, names, tuple((options | {"layout": other.name}).values()))
        except (TypeError, ValueError):
            continue
        return ValueError(f"{str(error).removesuffix('?')}; did you mean layout={other.name!r}?")
    return error


def _wants_mask(return_mask: Any, options: dict[str, Any]) -> bool:
    """Whether the result of a layer comes with its mask."""
    if checks.flag("return_mask", return_mask) and options.get("activation") != "relu":
        raise ValueError("return_mask: got True without an activation, expected activation='relu' with it")
    return return_mask


def _thresholded(weight: np.ndarray | PackedWeight, threshold: float) -> np.ndarray:
    """A copy with zeros for small weights: unlike activations they are few, and packed before use anyway."""
    dense = weight.to_dense() if isinstance(weight, PackedWeight) else weight
    return np.where(np.abs(dense) <= dense.dtype.type(threshold), dense.dtype.type(0), dense)


def _unpacked(weight: PackedWeight, options: dict[str, Any]) -> np.ndarray:
    """The dense weight, if it was packed for the groups of this call."""
    groups = options.get("groups", 1)
    if weight.groups != groups:
        raise ValueError(f"weight: got a PackedWeight of {weight.groups} groups, expected {groups}, those of the call")
    return weight.dense


def _plain(values: tuple) -> bool:
    """Whether equal options mean the same: 1, True and 1.0 are equal, but only the first is a stride."""
    for value in values:
        if type(value) not in PLAIN and (type(value) is not tuple or not _plain(value)):
            return False
    return True


@caches.kept(4096)
def _kept(
    make: Callable[..., Operation], dims: int, operands: tuple, forms: tuple, target: tuple | None, names: tuple,
    values: tuple,
) -> Operation:  # fmt: skip
    """The operation for operands of these forms and these options."""
    out = None if target is None else Form(*target)
    given = {operand: Form(*form) for operand, form in zip(operands, forms, strict=True)}
    return make(dims, **given, out=out, **dict(zip(names, values, strict=True)))
