"""Whether the gradient of a tensor is masked by a ReLU before anybody can see it.

The backward pass of a layer whose input came out of a ReLU may leave out the gradient where that input is zero: the
ReLU's own backward pass makes zeros of it anyway. That may be done only where nobody looks at the gradient in between.
`watch` finds the ReLU in the autograd graph, in forward; `Watch.unseen` looks again in backward, when all hooks that
will ever run are there. What is looked for:

- hooks of the tensor (register_hook, register_multi_grad_hook) and retain_grad;
- hooks of the ReLU's node (register_hook, register_prehook). torch has no function that lists hooks, but every handle
  refers to the dict that all hooks of one kind share: we register one, keep the dict, and remove our hook;
- ``inputs=``: torch.autograd.grad and backward(inputs=) may ask for the gradient of the tensor itself. They capture it
  on its way, and nothing says which nodes are captured. But they do not run nodes that lead to no input. `PROBE` is a
  leaf that every such layer has as an input and that nobody asks for: its node runs only where all nodes do;
- hooks of the layer's own node, which are given the gradient that the layer has computed;
- create_graph: everything is computed, so that derivatives of all orders are those of the full gradient.

Modules' hooks (register_full_backward_hook) put a node of their own between, so no ReLU is found.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch

LEAST = 1 << 14  # elements of a tensor that is worth watching: that takes 5 us, and as many gradients 2 us or more

with torch.inference_mode(False):
    PROBE = torch.empty(0, device="cpu", requires_grad=True)
_PROBE_NODE = torch.autograd.graph.get_gradient_edge(PROBE).node  # the tensor itself does not keep it
_runs: Callable[[Any], bool] | None = getattr(torch._C, "_will_engine_execute_node", None)


class Watch:
    """A ReLU's result, and the hooks of it and of its node."""

    __slots__ = ("hooks", "tensor")

    def __init__(self, tensor: torch.Tensor, node: Any) -> None:
        if tensor._backward_hooks is None:
            tensor.register_hook(_no_hook).remove()
        self.tensor = weakref.ref(tensor)
        self.hooks = (tensor._backward_hooks, _shared_dict(node.register_prehook), _shared_dict(node.register_hook))

    def unseen(self, layer: Any) -> bool:
        """Whether, in the backward pass of a layer's node, the gradient reaches the ReLU's mask without being seen."""
        if torch.compiler.is_compiling():  # compiled autograd: the answer would be kept for other passes
            return False
        if torch.is_grad_enabled() or any(self.hooks) or not _runs(_PROBE_NODE):
            return False
        if _shared_dict(layer.register_hook):
            return False
        tensor = self.tensor()  # without it there is no .grad either
        return tensor is None or not tensor.retains_grad


class Unseen:
    """In the place of a watch where it is known that nobody will see the gradient."""

    __slots__ = ()

    def unseen(self, layer: Any) -> bool:
        return True


def leave_unseen(node: Any) -> None:
    """Turns the promise of a layer's ``input_is_relu=True`` into what `watch` finds: then zeros are not owed.

    `node` is the layer's in the graph, or that of a view of its result.
    """
    while node is not None and getattr(node, "watched", None) is not True:
        node = next((before for before, _ in node.next_functions), None)
    if node is not None:
        node.watched = Unseen()


def watch(tensor: torch.Tensor) -> Watch | None:
    """A watch over a tensor that a ReLU has made, as its node in the graph says; None for others."""
    node = tensor.grad_fn
    if node is None or _runs is None:
        return None
    if type(node).__name__ != "ReluBackward0" and not getattr(node, "masks_by_result", False):
        return None
    return Watch(tensor, node)


def watch_large(tensor: torch.Tensor) -> Watch | None:
    """The same where it is worth its time."""
    return watch(tensor) if tensor.numel() >= LEAST else None


def _no_hook(grad: torch.Tensor) -> None:
    """Never runs."""


def _shared_dict(register: Callable) -> Any:
    handle = register(_no_hook)
    hooks = handle.hooks_dict_ref()
    handle.remove()
    return hooks
