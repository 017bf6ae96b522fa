"""What a shape that does not fit was probably meant as: the end of an error message, "" without an idea."""

from __future__ import annotations

import numpy as np

from .layout import Layout, others

LARGEST_KERNEL = 15  # per dimension: a weight in another order is recognised by a kernel up to here
# Other orders of a weight, for so many spatial dimensions: what it is, and the axes that make (out, in, *kernel) of it.
ORDERS = {
    "(*kernel, in, out)": lambda dims: (dims + 1, dims, *range(dims)),
    "(out, *kernel, in)": lambda dims: (0, dims + 1, *range(1, dims + 1)),
    "(in, out, *kernel)": lambda dims: (1, 0, *range(2, dims + 2)),
}


def rank(name: str, shape: tuple[int, ...], layout: Layout) -> str:
    """What makes an array of so many dimensions: an image needs a batch, blocks of channels their layout."""
    blocked = layout.kind == "blocked"
    for other in others(layout):
        if blocked != (other.kind == "blocked") and len(shape) == other.rank and (shape[-1] == 16) != blocked:
            return f"; did you mean layout={other.name!r}?"
    return f"; a single image is a batch of one: {name}[None]" if len(shape) == layout.rank - 1 else ""


def channels(
    shape: tuple[int, ...], layout: Layout, weight: tuple[int, ...] | None, axis: int, groups: int, expected: int
) -> str:
    """Another layout, weights in another order, or forgotten groups, for an array whose channels do not fit.

    `axis` is that of the weight's sizes which decides about the channels, 1 times `groups`.
    """
    for other in others(layout):
        if len(shape) == other.rank and other.kind != "blocked" and other.channels(shape) == expected:
            return f"; did you mean layout={other.name!r}?"
    if weight is None:
        return ""
    got, ideas = layout.channels(shape), []
    meant = got // weight[1]
    if axis == 1 and got and got % weight[1] == 0 and weight[0] % meant == 0 and meant != groups:
        ideas.append(f"did you mean groups={meant}")
    if axis == 1 and weight[-2:] == (got, 1) and _is_kernel(weight[:-2]):
        axes = (layout.dims, layout.dims + 1, *range(layout.dims))
        turn = f"weight.transpose{axes}, groups={got}"
        ideas.append(f"is the weight depthwise, (*kernel, channels, 1) (then pass {turn})")
    for name, axes_of in ORDERS.items():
        axes = axes_of(layout.dims)
        turned = tuple(weight[at] for at in axes)
        if turned[axis] * (groups if axis == 1 else 1) == got and _is_kernel(turned[2:]) and turned[0] % groups == 0:
            ideas.append(f"is the weight {name} (then pass weight.transpose{axes})")
    return f"; {' or '.join(ideas[:2])}?" if ideas else ""


def gradient(shape: tuple[int, ...], layout: Layout, expected: tuple[int, ...], source: str) -> str:
    """Another layout of a gradient; or what its spatial sizes follow from, where only these do not fit."""
    for other in others(layout):
        if shape == other.shape(expected[0], layout.channels(expected), layout.size(expected)):
            return f"; did you mean layout={other.name!r}?"
    if len(shape) == len(expected) and layout.channels(shape) == layout.channels(expected) and shape[0] == expected[0]:
        return f", which follows from {source}, stride, padding and dilation: are they those of the forward call?"
    return ""


def also_fits(array: np.ndarray, layout: Layout) -> str:
    """The layout with channels last, if an array with channels first is of a shape that it can have as well; or "".

    Not where its channels lie side by side already: such a view was made on purpose.
    """
    shape, strides = array.shape, array.strides
    if layout.kind != "first" or shape[1] != shape[-1] or shape[1] == 1 or strides[1] < strides[-1]:
        return ""
    return next(other.name for other in others(layout) if other.kind == "last")


def _is_kernel(sizes: tuple[int, ...]) -> bool:
    """Whether these could be the sizes of a kernel: small, and as far as there are several, equal."""
    return all(size <= LARGEST_KERNEL for size in sizes) and len(set(sizes)) <= 1
