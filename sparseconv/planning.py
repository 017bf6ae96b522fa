"""What a call would run, and why, as users ask for it."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ._core import hints, layout, prepare, shape_hints
from ._core.choice import Plan as Plan


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
    name = _operation_name(operation)
    try:
        inspect.signature(getattr(sys.modules[__package__], name)).bind(*args, **keywords)
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from None
    match = re.fullmatch(r"(conv(?:_transpose)?)([123])d(_backward_data|_backward_weight)?", name)
    if not match:
        return getattr(prepare, name)(*args, **keywords).plan(name)
    kind, dims, rest = match.groups()
    named = "layout" in keywords
    order = keywords.setdefault("layout", f"NC{layout.SPATIAL[int(dims)]}")
    call = getattr(prepare, kind + (rest or ""))(int(dims), *args, **keywords)
    made = call.plan(name)
    notice = "" if named else _ambiguous(call.operands, layout.parse(order, int(dims)))
    return replace(made, reason=f"{made.reason}; {notice}") if notice else made


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


def _ambiguous(operands: dict[str, Any], order: layout.Layout) -> str:
    """What is said of an array that the layout taken by default may be wrong for."""
    name, array = next(iter(operands.items()))
    other = shape_hints.also_fits(array, order)
    if not other:
        return ""
    return f"{name} of shape {array.shape} fits layout={other!r} as well as {order.name!r}: name the one that is meant"
