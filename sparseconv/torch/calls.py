"""Calls of the core with tensors, prepared once for all that are alike.

The core keeps what the forms of arrays and all options lead to (`_core/call.py`). Tensors have their forms in other
words, so what it keeps is found here again by these, and with it the form of the result: 2 us instead of 6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import cpu
from .._core import caches
from .._core.operations import Operation

DTYPES = (torch.float32, torch.float64)
NAMES = {"x": "input"}  # of arguments, where torch's differ from the core's
MOST = 4096  # calls that are kept


class Result(NamedTuple):
    """The form of a result, and the function of the core that computes it."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    function: Callable[..., Any]


class Prepared(NamedTuple):
    """A prepared call: the form of its result, the operation, and its operands."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    operation: Operation
    operands: tuple[str, ...]


_kept: dict[tuple, Prepared] = {}
caches.empties(_kept.clear)  # else their tables would stay, and all caches be emptied by every call


def run(
    key: tuple, operands: dict[str, Tensor | None], result: Callable[[], Result], options: dict[str, Any],
    threshold: float, num_threads: int | None,
) -> Tensor:  # fmt: skip
    """The result of a function of the core.

    `key` is hashable, and with the forms of the operands says all that `result` and `options` say.
    """
    arrays, forms, address = {}, [key], 0
    sample, *_ = operands.values()
    for name, tensor in operands.items():
        if tensor is not None:
            if tensor.dtype not in DTYPES and name != "output_mask":
                check(NAMES.get(name, name), tensor)
            forms += name, tensor.shape, tensor.stride(), tensor.dtype
            arrays[name] = tensor.detach().numpy()
            address |= tensor.data_ptr()
    key = tuple(forms)
    threads = torch.get_num_threads() if num_threads is None else cpu.checked_threads(num_threads)
    prepared = None if threshold or address & 3 else _kept.get(key)
    if prepared is None:
        check_all({NAMES.get(name, name): tensor for name, tensor in operands.items() if name != "output_mask"})
        return _prepare(key, sample, arrays, result(), options, threshold, threads)
    output = sample.new_empty_strided(prepared.shape, prepared.strides)
    ordered = {name: arrays[name] for name in prepared.operands}
    prepared.operation.run(ordered, output.numpy(), threads, 0.0, False)
    if caches.full:
        caches.empty()
    return output


def _prepare(
    key: tuple, sample: Tensor, arrays: dict[str, Any], result: Result, options: dict[str, Any], threshold: float,
    threads: int,
) -> Tensor:  # fmt: skip
    """The same, checked by the core; kept, unless an operand had to be copied."""
    output = sample.new_empty_strided(result.shape, result.strides)
    with torch_names():
        call = result.function(**arrays, **options, threshold=threshold, num_threads=threads, out=output.numpy())
    if not threshold and all(call.operands[name] is array for name, array in arrays.items()):
        if len(_kept) >= MOST:
            _kept.clear()
        _kept[key] = Prepared(result.shape, result.strides, call.operation, tuple(call.operands))
    call.run()
    return output


def compute(function: Callable[..., Any], **options: Any) -> Any:
    """What a function of the core gives for arrays, packed weights or compressed arrays; for calls of other kinds."""
    with torch_names():
        return function(**options).run()


@contextmanager
def torch_names() -> Iterator[None]:
    """Errors of the core name the arguments as torch does."""
    try:
        yield
    except (TypeError, ValueError) as error:
        name, colon, rest = str(error).partition(":")
        raise type(error)(f"{NAMES.get(name, name)}{colon}{rest}") from None


def check(name: str, tensor: Tensor) -> None:
    """Whether a tensor, or a fake, is one that kernels take."""
    if tensor.is_quantized:
        raise TypeError(f"{name}: got a quantized tensor, expected torch.float32 or torch.float64 (.dequantize())")
    if tensor.layout is not torch.strided:
        raise TypeError(f"{name}: got a tensor of layout {tensor.layout}, expected a dense one (.to_dense())")
    if tensor.device.type not in ("cpu", "meta"):
        raise TypeError(f"{name}: got a tensor on {tensor.device}, expected one in CPU memory (.cpu())")
    if tensor.dtype not in DTYPES:
        raise TypeError(
            f"{name}: got dtype {tensor.dtype}, expected torch.float32 or torch.float64 (.float(), or torch.autocast, "
            "under which these operators compute in float32)"
        )


def check_all(tensors: dict[str, Tensor | None]) -> None:
    """Whether all of a call's tensors, or fakes, are such, of one dtype and in one place."""
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    for name, tensor in given.items():
        check(name, tensor)
    first, *others = given
    for name in others:
        if given[name].dtype != given[first].dtype:
            raise TypeError(f"{name}: got dtype {given[name].dtype}, expected {given[first].dtype} as {first} has")
        if given[name].device != given[first].device:
            raise TypeError(f"{name}: got a tensor on {given[name].device}, expected {given[first].device} as {first}")
