"""`keep="compressed"`: what a layer keeps for its backward pass, as bit masks and nonzero values.

Pack and unpack hooks of single saved tensors (torch.autograd.graph) do it, so all else about saved tensors stays: they
are freed after backward, a second backward says so, and derivatives of higher order find the graph again. Like every
packed tensor they are copies: to change the input in place afterwards is allowed, and gradients are those of the values
that were there. Where other hooks are in force - checkpoints, torch.autograd.graph.save_on_cpu - these have the say.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from .. import compressed, masks
from . import shapes

_top_hooks = torch._C._autograd._top_saved_tensors_default_hooks


def compress(node: Any, num_threads: int | None) -> None:
    """Keeps the input of a layer's node compressed, and of its result the mask alone."""
    if _top_hooks(True) is not None:
        return
    kept, _, result = node._raw_saved_tensors
    if node.keeps_input:
        kept.register_hooks(partial(_pack, num_threads=num_threads), _unpack)
    if node.masks_by_result:
        result.register_hooks(_pack_mask, _unpack_mask)


def _pack(tensor: torch.Tensor, num_threads: int | None) -> tuple[compressed.CompressedArray, tuple[int, ...]]:
    threads = num_threads or torch.get_num_threads()
    strides = shapes.kept_dense_strides(tensor.shape, tensor.stride())
    return compressed.compress(tensor.detach().numpy(), num_threads=threads), strides


def _unpack(packed: tuple[compressed.CompressedArray, tuple[int, ...]]) -> torch.Tensor:
    array, strides = packed
    dtype = torch.float32 if array.dtype == np.float32 else torch.float64
    tensor = torch.empty_strided(array.shape, strides, dtype=dtype, device="cpu")
    array.to_dense(out=tensor.numpy(), num_threads=torch.get_num_threads())
    return tensor


def _pack_mask(tensor: torch.Tensor) -> tuple[np.ndarray, tuple[int, ...], tuple[int, ...], torch.dtype]:
    """One bit for each element, in the order of memory."""
    strides = shapes.kept_dense_strides(tensor.shape, tensor.stride())
    flat = tensor.detach().as_strided((tensor.numel(),), (1,)).numpy()
    return masks.nonzero_mask(flat), tensor.shape, strides, tensor.dtype


def _unpack_mask(packed: tuple[np.ndarray, tuple[int, ...], tuple[int, ...], torch.dtype]) -> torch.Tensor:
    """Ones where the result was not zero."""
    bits, shape, strides, dtype = packed
    tensor = torch.empty_strided(shape, strides, dtype=dtype, device="cpu")
    flat = tensor.as_strided((tensor.numel(),), (1,)).numpy()
    np.copyto(flat, masks.unpack(bits, flat.shape))
    return tensor
