"""The same of PyTorch's tensors and of JAX's arrays, and of the packages for them."""

from typing import assert_type

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor, nn

import sparseconv as sc
import sparseconv.jax as scj
import sparseconv.torch as sct
from sparseconv import pruning
from sparseconv.typing import Array, Bits

x, w = torch.rand(1, 32, 8, 8), torch.rand(16, 32, 3, 3)


def arrays_of_others() -> None:
    y, bits = sc.conv2d(x, w, activation="relu", return_mask=True, out=torch.empty(1, 16, 6, 6))
    assert_type(y, np.ndarray)
    assert_type(bits, Bits)
    sc.conv2d_backward_data(torch.from_numpy(y), w, x.shape, output_mask=x > 0) + 1
    parameter: Array = nn.Parameter(w)
    sc.pack_weight(parameter, mask=pruning.topk_mask(w, 0.5))
    sc.linear(jnp.ones((3, 4)), np.ones((2, 4), np.float32))


def functions() -> None:
    y = sct.conv2d(x, w, padding=1, activation="relu", keep="compressed", skip="input")
    assert_type(y, Tensor)
    (y + 1).sum().backward()
    sct.conv2d(x, sc.pack_weight(w), None, (1, 1), "same") + sct.conv1d(x, w) + sct.conv3d(x, w)
    sct.conv_transpose2d(x, w, padding=1, output_padding=1) + sct.conv_transpose1d(x, w) + sct.conv_transpose3d(x, w)
    sct.linear(x, nn.Parameter(w), input_is_relu=True, num_threads=1) + 1

    sct.conv2d(x, w, skip="grad_output")  # type: ignore[arg-type]
    sct.conv2d(x, w, keep="sparse")  # type: ignore[arg-type]
    sct.conv2d(x, w, padding="full")  # type: ignore[arg-type]
    sct.conv2d(x, w, activation="gelu")  # type: ignore[arg-type]
    sct.conv2d(x.numpy(), w)  # type: ignore[arg-type]
    sct.conv2d(x, w, layout="NHWC")  # type: ignore[call-arg]
    sct.conv_transpose2d(x, w, padding="same")  # type: ignore[arg-type]
    sct.linear(x, w, padding=1)  # type: ignore[call-arg]


def modules() -> None:
    layer = sct.Conv2d(32, 16, 3, padding="same", bias=False, activation="relu", skip="input")
    assert_type(layer.weight, Tensor)
    layer.threshold = 0.5
    model = nn.Sequential(
        layer, sct.Conv1d(1, 1, 1, dtype=torch.float32), sct.Conv3d(1, 1, (1, 2, 3), padding_mode="circular"),
        sct.ConvTranspose1d(1, 1, 1), sct.ConvTranspose2d(1, 1, 2, stride=2, output_padding=1),
        sct.ConvTranspose3d(1, 1, 1, keep="compressed"), sct.Linear(3, 4, bias=False, skip="weight"),
    )  # fmt: skip
    report = sct.convert_(model, x, config=sct.Config(skip="weight", margin=0.1), filter_fn=lambda layer, name: True)
    assert_type(report, sct.Report)
    assert_type(report.layers, list[sct.LayerReport])
    copy, report = sct.convert(model, (x,), fold=True)
    assert_type(copy, nn.Module)
    assert_type(sct.revert_(model), nn.Module)
    assert_type(sct.sparsity_report(model, {"input": x}), sct.Report)
    assert_type(sct.attach(model, pruning.SWAT(0.8), gradients="output"), list[str])
    assert_type(sct.detach(model), list[str])
    nn.Sequential(sct.TopKWeight(0.5), sct.NMWeight(2, 4, axis=0), sct.TransposableNMWeight(2, 4, method="exact"))

    sct.Conv2d(32, 16)  # type: ignore[call-arg]
    sct.Conv2d(32, 16, 3, activation="gelu")  # type: ignore[arg-type]
    sct.Conv2d(32, 16, 3, padding="full")  # type: ignore[arg-type]
    sct.Conv2d(32, 16, 3, skips="input")  # type: ignore[call-arg]
    sct.ConvTranspose2d(32, 16, 3, padding="same")  # type: ignore[arg-type]
    sct.Linear(3, 4, keep="sparse")  # type: ignore[arg-type]
    sct.Config(skip="output")  # type: ignore[arg-type]
    sct.convert_(x)  # type: ignore[arg-type]
    sct.attach(model, pruning.SWAT(0.8), gradients="weight")  # type: ignore[arg-type]
    sct.TransposableNMWeight(2, 4, method="best")  # type: ignore[arg-type]


def jax_functions() -> None:
    a, b = jnp.ones((1, 8, 8, 32)), jnp.ones((16, 32, 3, 3))
    y = scj.conv2d(a, b, padding=1, layout="NHWC", activation="relu", input_is_relu=True)
    assert_type(y, jax.Array)
    (y + scj.conv1d(a, b) + scj.conv3d(a, b) + scj.linear(a, b)).sum()
    (scj.conv_transpose1d(a, b) + scj.conv_transpose2d(a, b) + scj.conv_transpose3d(a, b, layout="NDHWC")).sum()
    jax.jit(jax.grad(lambda weight: scj.conv2d(a, weight).sum()))(b)

    scj.conv2d(a, b, layout="NWC")  # type: ignore[arg-type]
    scj.conv2d(a, b, skip="output")  # type: ignore[arg-type]
    scj.conv2d(a, b, padding="full")  # type: ignore[arg-type]
    scj.conv2d(a, "b")  # type: ignore[arg-type]
    scj.linear(a, b, layout="NHWC")  # type: ignore[call-arg]
