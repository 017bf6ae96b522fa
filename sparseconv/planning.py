"""What a call would run, and why, as users ask for it."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from ._core import hints, layout, operations, shape_hints
from ._core.call import Call, checked
from ._core.choice import Plan as Plan
from ._core.operands import OPERANDS


def plan(operation: str | Callable[..., Any], *args: object, **keywords: object) -> Plan:
    """What a call would run, and why; nothing is computed.

    Parameters
    ----------
    operation : str or function
        A public function or its name: "conv2d", "conv2d_backward_weight", "conv_transpose1d", "linear", ...
    *args, **keywords
        The arguments of that function. They are checked as the call itself would.

    Returns
    -------
    Plan
        Kernel, measured densities, expected speed-up over the dense kernel, tiles, memory; ``print`` shows it.

    Raises
    ------
    TypeError, ValueError
        If there is no such operation; and whatever the operation would raise.

    Notes
    -----
    Where no layout is named and the array fits channels last as well (as many channels as columns), `reason` says so: a
    call takes it for channels first in silence.

    Examples
    --------
    >>> import numpy as np, sparseconv as sc
    >>> x, w = np.zeros((1, 64, 56, 56), np.float32), np.ones((64, 64, 3, 3), np.float32)
    >>> sc.plan("conv2d", x, w, padding=1).kernel
    'rows_skip'
    """
    name, call, _, _ = checked_call(operation, args, keywords)
    planned = call.plan(name)
    notice = ""
    if name.startswith("conv") and "layout" not in keywords:
        notice = _ambiguous(call.operands, call.operation.problem.dims)
    return replace(planned, reason=f"{planned.reason}; {notice}") if notice else planned


Check = Callable[[dict[str, Any], Any], Any]  # of operands by name, and `out`


def checked_call(
    operation: str | Callable[..., Any], args: tuple, keywords: dict[str, Any]
) -> tuple[str, Call, Check, tuple[str, ...]]:
    """(Name, the call, how it is checked again with other arrays, its operands in public order) of a public call."""
    name = _operation_name(operation)
    signature = inspect.signature(getattr(sys.modules[__package__], name))
    try:
        given = signature.bind(*args, **keywords).arguments
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from None
    match = re.fullmatch(r"(conv(?:_transpose)?)([123])d(_backward_data|_backward_weight)?", name)
    if match:
        kind, dims, rest = match.groups()
        check = partial(checked, getattr(operations, kind + (rest or "")), int(dims))
        given.setdefault("layout", f"NC{layout.SPATIAL[int(dims)]}")
    else:
        check = partial(checked, getattr(operations, name), 0)
    operands = {name: given.pop(name) for name in signature.parameters if name in OPERANDS and name in given}
    names = tuple(name for name, array in operands.items() if array is not None)
    out = given.pop("out", None)

    def again(arrays: dict[str, Any], out: Any) -> Call:
        return check(arrays, **given, out=out)

    return name, again(operands, out), again, names


def _operation_name(operation: str | Callable[..., Any]) -> str:
    """The name of a convolution or linear function, given by itself or by name."""
    expected = "expected a convolution or linear function of sparseconv, or its name"
    names = vars(sys.modules[__package__])
    public = {name: one for name, one in names.items() if re.match("conv|linear", name) and callable(one)}
    if isinstance(operation, str):
        if operation in public:
            return operation
        raise ValueError(f"operation: got {operation!r}, {expected}{hints.word(operation, tuple(public))}")
    for name, function in public.items():
        if operation is function:
            return name
    if callable(operation):
        raise ValueError(f"operation: got {getattr(operation, '__name__', operation)!r}, {expected}")
    raise TypeError(f"operation: got {type(operation).__name__}, {expected}, in front of its arguments")


def _ambiguous(operands: dict[str, Any], dims: int) -> str:
    """What is said of an array that the layout taken by default may be wrong for."""
    name, array = next(iter(operands.items()))
    order = layout.parse(f"NC{layout.SPATIAL[dims]}", dims)
    other = array.ndim == order.rank and shape_hints.also_fits(array, order)  # bits of spikes lie flat
    if not other:
        return ""
    return f"{name} of shape {array.shape} fits layout={other!r} as well as {order.name!r}: name the one that is meant"
