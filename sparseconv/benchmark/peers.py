"""One pass of a layer as a call without arguments: by this library, by its dense kernels, by oneDNN through PyTorch."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import sparseconv
from sparseconv.benchmark.operands import Operands

__all__ = ["PEERS", "default_peer", "ours", "prepare_torch"]

# The highest instruction set that oneDNN may use against one of ours; without an entry, whatever it likes.
ONEDNN_ISAS = {"avx2": "AVX2", "scalar": "SSE41"}


def ours(
    which: str, operands: Operands, *, threads: int, skip: str = "auto", mask: str | None = None, packed: bool = False,
    functions: Any = sparseconv, **options: Any,
) -> Callable[[], object]:  # fmt: skip
    """A call of this library, through its public function.

    Parameters
    ----------
    which
        The pass: "forward", "backward_data" or "backward_weight".
    operands
    threads
    skip
    mask
        What says which results are needed: "float", an array of their shape (backward_data: the input;
        backward_weight: the weight), "bits", the bit mask of it, or nothing.
    packed
        Whether the call gets a `PackedWeight`. Plain weights it packs itself, and that counts.
    functions
        What has the public functions; something that plans has functions of the same names.
    options
        More keywords of the function.
    """
    layer, x, grad_output = operands.layer, operands.x, operands.grad_output
    weight: Any = operands.weight
    options |= layer.options | {"layout": operands.layout, "skip": skip, "num_threads": threads}
    if mask:
        options["output_mask"] = _mask(x if which == "backward_data" else weight, mask)
    if packed:
        weight = sparseconv.pack_weight(weight, groups=layer.groups)
    if which == "forward":
        return lambda: functions.conv2d(x, weight, **options)
    if which == "backward_data":
        return lambda: functions.conv2d_backward_data(grad_output, weight, x.shape, **options)
    return lambda: functions.conv2d_backward_weight(x, grad_output, layer.kernel, **options)


def _mask(array: np.ndarray, kind: str) -> np.ndarray:
    return sparseconv.masks.nonzero_mask(array) if kind == "bits" else array


def dense(which: str, operands: Operands, *, threads: int) -> Callable[[], object]:
    """The same by our dense kernels."""
    return ours(which, operands, threads=threads, skip="none")


def onednn(which: str, operands: Operands, *, threads: int) -> Callable[[], object]:
    """The same by oneDNN, which PyTorch calls; "NHWC" is its channels_last, the faster of its two layouts.

    PyTorch 2.13 takes something else for pointwise layers of fewer than 16 images on one thread: a matrix product.
    """
    import torch

    torch.set_num_threads(threads)
    channels_last = operands.layout == "NHWC"
    layer, options = operands.layer, operands.layer.options
    x, grad_output = (
        torch.from_numpy(array).permute(0, 3, 1, 2) if channels_last else torch.from_numpy(array)
        for array in (operands.x, operands.grad_output)
    )
    weight = torch.from_numpy(operands.weight)
    if channels_last:
        weight = weight.contiguous(memory_format=torch.channels_last)
    if which == "forward":
        return lambda: torch.nn.functional.conv2d(x, weight, **options)
    wanted = [which == "backward_data", which == "backward_weight", False]
    geometry = [layer.stride] * 2, layer.padding, [layer.dilation] * 2, False, [0, 0], layer.groups
    return lambda: torch.ops.aten.convolution_backward(grad_output, x, weight, None, *geometry, wanted)


PEERS = {"torch": onednn, "dense": dense}


def default_peer() -> str:
    """oneDNN where PyTorch is installed, otherwise our own dense kernels."""
    return "torch" if importlib.util.find_spec("torch") else "dense"


def prepare_torch(isa: str) -> str:
    """Import torch such that oneDNN does not go beyond this instruction set, and return what it is.

    Its idle threads are told to sleep: by default, they go on spinning for milliseconds after a call, on the cores
    where our call comes next (64,64,56 3x3, batch 4, 2 threads: ours 2.7 instead of 1.6 ms; theirs 4.2 either way).

    Raises
    ------
    ValueError
        If torch is not installed, or has been imported already without that limit: oneDNN reads it only once.
    """
    limit = ONEDNN_ISAS.get(isa)
    if limit and os.environ.get("ONEDNN_MAX_CPU_ISA") != limit:
        if "torch" in sys.modules:
            raise ValueError(f"isa: torch is imported already; to compare on {isa}, set ONEDNN_MAX_CPU_ISA={limit}")
        os.environ["ONEDNN_MAX_CPU_ISA"] = limit
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        import torch
    except ImportError:
        raise ValueError('against: torch is not installed; pip install torch, or compare with "dense"') from None
    return f"oneDNN of PyTorch {torch.__version__}" + (f", at most {limit}" if limit else "")
