"""A program that uses the public functions as users do: test_typing.py has mypy look at it, nobody runs it.

What must be an error has a `type: ignore` with the error's code, and mypy says which of these are not needed.
"""

from array import array
from typing import assert_type

import numpy as np

import sparseconv as sc
from sparseconv import pruning
from sparseconv.typing import Array, Bits, Bools, Layout2d, Mask, Operand, Padding, Size, Skip, Weight

rng = np.random.default_rng(0)
x = rng.standard_normal((1, 8, 8, 32), np.float32)
w = rng.standard_normal((16, 32, 3, 3), np.float32)
bias = np.zeros(16, np.float32)
flag = bool(rng.integers(2))
word = str(rng.integers(2))


def forward() -> None:
    y = sc.conv2d(x, w, padding=1)
    y + 1
    sc.conv2d(x, w, padding=1, residual=y, activation="relu", out=y)
    sc.conv2d(x, w, padding=1, residual=1.0)  # type: ignore[call-overload]
    y.sum().item()
    assert_type(y, np.ndarray)
    y, bits = sc.conv2d(x, w, bias, padding=1, layout="NHWC", activation="relu", return_mask=True)
    assert_type(y, np.ndarray)
    assert_type(bits, Bits)
    assert_type(sc.conv2d(x, w, activation="relu", return_mask=False), np.ndarray)
    either = sc.conv2d(x, w, activation="relu", return_mask=flag)
    y = either[0] if isinstance(either, tuple) else either
    single: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = sc.conv2d(x, w)  # whoever knows the dtype may say so
    del single
    sc.conv2d(x, w, stride=2, padding="same", dilation=(1, 2), groups=1, layout="NCHW16c", skip="input", threshold=0.5)
    sc.conv2d(x, w, stride=np.int64(2), padding=((0, 1), (1, 0)), precision="high", num_threads=2, out=np.empty(3))
    sc.conv2d(x, w, padding=[1, 1], input_mask=bits, skip="weight", activation=None)
    sc.conv2d(memoryview(bytearray(4)).cast("f"), array("f"), input_mask=sc.compress(x))
    sc.conv1d(x, w, layout="NWC") + sc.conv3d(x, w, layout="NDHWC")
    sc.conv_transpose2d(x, w, output_padding=1, padding="valid") - 1
    sc.conv_transpose1d(x, w, layout="NCW16c") - sc.conv_transpose3d(x, w, layout="NCDHW")
    sc.linear(x, w) @ x
    y, bits = sc.linear(x, w, bias, activation="relu", return_mask=True)
    y, bits = sc.conv1d(x, w, activation="relu", return_mask=True)
    y, bits = sc.conv3d(x, w, activation="relu", return_mask=True)
    y, bits = sc.conv_transpose1d(x, w, activation="relu", return_mask=True)
    y, bits = sc.conv_transpose2d(x, w, activation="relu", return_mask=True)
    y, bits = sc.conv_transpose3d(x, w, activation="relu", return_mask=True)

    sc.conv2d(x)  # type: ignore[call-overload]
    sc.conv2d(x, w, skip="grad_output")  # type: ignore[call-overload]
    sc.conv2d(x, w, skip="inputs")  # type: ignore[call-overload]
    sc.conv2d(x, w, skip=word)  # type: ignore[call-overload]
    sc.conv2d(x, w, layout="NWC")  # type: ignore[call-overload]
    sc.conv1d(x, w, layout="NHWC")  # type: ignore[call-overload]
    sc.conv2d(x, w, activation="gelu")  # type: ignore[call-overload]
    sc.conv2d(x, w, precision="low")  # type: ignore[call-overload]
    sc.conv2d(x, w, padding="full")  # type: ignore[arg-type]
    sc.conv2d(x, w, padding=1.5)  # type: ignore[call-overload]
    sc.conv2d(x, w, stride="same")  # type: ignore[arg-type]
    sc.conv2d(x, w, stride=None)  # type: ignore[call-overload]
    sc.conv2d(x, w, bias, 1)  # type: ignore[call-overload]
    sc.conv2d(x, w, paddings=1)  # type: ignore[call-overload]
    sc.conv2d([[[[1.0]]]], w)  # type: ignore[call-overload]
    sc.conv2d("x.npy", w)  # type: ignore[call-overload]
    sc.conv2d(sc.compress(x), w)  # type: ignore[call-overload]
    sc.conv2d(x, w, input_mask=True)  # type: ignore[call-overload]
    sc.conv2d(x, w, threshold="0.5")  # type: ignore[call-overload]
    sc.conv_transpose2d(x, w, padding="same")  # type: ignore[arg-type]
    sc.linear(x, w, padding=1)  # type: ignore[call-overload]
    sc.linear(x, w, skip="grad_output")  # type: ignore[call-overload]
    sc.conv2d(x, w, activation="relu", return_mask=True) + 1  # type: ignore[operator]


def backward() -> None:
    dy, mask = rng.standard_normal((1, 8, 8, 16), np.float32), sc.masks.nonzero_mask(x)
    dx = sc.conv2d_backward_data(dy, w, x.shape, padding=1, layout="NHWC", skip="output", output_mask=mask)
    assert_type(dx, np.ndarray)
    assert_type(dx * 2, np.ndarray)
    sc.conv2d_backward_data(dy, sc.pack_weight(w), [1, 8, 8, 32], grad_output_mask=dy != 0, out=dx)
    dw = sc.conv2d_backward_weight(sc.compress(x), dy, 3, padding=1, layout="NHWC", skip="grad_output")
    assert_type(dw, np.ndarray)
    dw -= 0.1 * sc.conv2d_backward_weight(x, dy, w.shape, input_mask=mask, output_mask=w != 0)
    sc.conv1d_backward_data(dy, w, x.shape) + sc.conv3d_backward_data(dy, w, x.shape)
    sc.conv1d_backward_weight(x, dy, 3) + sc.conv3d_backward_weight(x, dy, (3, 3, 3))
    sc.conv_transpose1d_backward_data(dy, w, x.shape) + sc.conv_transpose1d_backward_weight(x, dy, 3)
    sc.conv_transpose2d_backward_data(dy, w, x.shape) + sc.conv_transpose2d_backward_weight(x, dy, 3)
    sc.conv_transpose3d_backward_data(dy, w, x.shape) + sc.conv_transpose3d_backward_weight(x, dy, 3)
    sc.linear_backward_data(dy, w, skip="weight") + sc.linear_backward_weight(x, dy, skip="input")
    assert_type(sc.grad_bias(dy, layout="NHWC"), np.ndarray)

    sc.conv2d_backward_data(dy, w)  # type: ignore[call-arg]
    sc.conv2d_backward_data(dy, w, 8)  # type: ignore[arg-type]
    sc.conv2d_backward_data(dy, w, x.shape, skip="input")  # type: ignore[arg-type]
    sc.conv2d_backward_data(sc.compress(dy), w, x.shape)  # type: ignore[arg-type]
    sc.conv2d_backward_weight(x, dy, 3, skip="weight")  # type: ignore[arg-type]
    sc.conv2d_backward_weight(x, dy, "3x3")  # type: ignore[arg-type]
    sc.conv2d_backward_weight(x, dy, 3, activation="relu")  # type: ignore[call-arg]
    sc.conv_transpose2d_backward_data(dy, w, x.shape, padding="same")  # type: ignore[arg-type]
    sc.linear_backward_weight(x, dy, skip="output")  # type: ignore[arg-type]
    sc.grad_bias(dy, layout="NCHW8c")  # type: ignore[arg-type]


def weights_masks_and_plans() -> None:
    packed = sc.pack_weight(w, groups=1, mask=pruning.topk_mask(w, 0.9), threshold=0.1)
    assert_type(packed, sc.PackedWeight)
    packed.update(w, mask=w > 0)
    assert_type(packed.shape, tuple[int, ...])
    assert_type(packed.density + packed.nbytes, float)
    assert_type(packed.to_dense(), np.ndarray)
    sc.conv2d(x, packed, skip="weight") + 1

    compressed = sc.compress(x, num_threads=1)
    assert_type(compressed, sc.CompressedArray)
    assert_type(compressed.mask, Bits)
    assert_type(compressed.to_dense(), np.ndarray)
    sc.decompress(compressed, out=np.empty_like(x)) + 1

    y, bits = sc.masks.relu(x, out=x)
    assert_type(y, np.ndarray)
    assert_type(bits, Bits)
    assert_type(sc.masks.unpack(bits, x.shape), Bools)
    assert_type(sc.masks.pack(x > 0), Bits)
    assert_type(sc.masks.density(x) + sc.masks.vector_density(x, 8), float)

    plan = sc.plan(sc.conv2d, x, w, padding=1)
    assert_type(plan, sc.Plan)
    plan = sc.plan("linear_backward_weight", x, x)
    assert_type(plan.speedup, float)
    assert_type(plan.density["input"], float)

    sc.pack_weight(packed)  # type: ignore[arg-type]
    sc.pack_weight(w, 1)  # type: ignore[call-arg]
    sc.decompress(x)  # type: ignore[arg-type]
    sc.compress(compressed)  # type: ignore[arg-type]
    sc.masks.relu(x, x)  # type: ignore[call-arg]
    sc.plan(3, x, w)  # type: ignore[arg-type]
    plan.skip = "none"  # type: ignore[misc]
    sc.conv4d(x, w)  # type: ignore[attr-defined]


def machine() -> None:
    with sc.cpu.use_isa("scalar"), sc.cpu.use_threads("own") as chosen:
        assert_type(chosen, sc.cpu.use_threads)
        assert_type(sc.cpu.isa(), str)
    assert_type(sc.cpu.available_isas(), list[str])
    sc.cpu.use_threads(sc.cpu.threads())
    sc.cpu.set_num_threads(None)
    assert_type(sc.cpu.num_threads(), int)

    sc.cpu.use_threads("omp")  # type: ignore[arg-type]
    sc.cpu.set_num_threads("2")  # type: ignore[arg-type]
    sc.cpu.use_isa(512)  # type: ignore[arg-type]


def prune() -> None:
    assert_type(pruning.topk_mask(w, 0.9), Bools)
    assert_type(pruning.topk_threshold(x, 0.5, num_threads=1), float)
    assert_type(pruning.channel_mask(w, 0.5), Bools)
    assert_type(pruning.nm_mask(w, 2, 4, axis=1), Bools)
    assert_type(pruning.transposable_nm_mask(w, 2, 4, "greedy", pad=True), Bools)
    top = pruning.TopK(0.5, period=4)
    assert_type(top.mask(x), Bools)
    sc.conv2d(x, w, threshold=top.threshold(x))
    pruned = pruning.GradientPruner(0.9, 4, rng=np.random.default_rng(1)).prune(x, out=x)
    assert_type(pruned, pruning.Pruned)
    gradients, density, threshold = pruning.stochastic_prune(x, 0.9, rng=3)
    assert_type(gradients, np.ndarray)
    assert_type(density + threshold, float)
    assert_type(pruning.repair_weights(w, w > 0, x, padding="same"), np.ndarray)
    layers = pruning.network("resnet50", "imagenet")
    layers.append(pruning.Layer("last", (10, 512), 1, (1,), kind="linear"))
    assert_type(layers[0].batch_norm + layers[0].output_size[0], int)
    share = pruning.sparsity_distribution(layers, 0.9, "erk")
    assert_type(pruning.training_flops(layers, share)["training"], float)
    assert_type(pruning.mask_diversity(16, 2, 4) + pruning.unstructured_to_nm(0.5, 8), int)

    method: pruning.Method = pruning.SWAT(0.8, dense=["first"])
    method = pruning.TransposableNM(2, 4, method="exact")
    method = pruning.StochasticGradientPruning(0.9, rng=0)
    used = method.before_forward("layer", w)
    sc.conv2d(x, used)
    kept, options = method.after_forward("layer", x)
    sc.conv2d_backward_weight(kept, method.before_backward("layer", x), 3, **options)

    pruning.topk_mask(w)  # type: ignore[call-arg]
    pruning.topk_mask([1.0, 2.0], 0.5)  # type: ignore[arg-type]
    pruning.transposable_nm_mask(w, 2, 4, "best")  # type: ignore[arg-type]
    pruning.network("alexnet", "imagenet")  # type: ignore[arg-type]
    pruning.sparsity_distribution(layers, 0.9, "random")  # type: ignore[arg-type]
    pruning.GradientPruner(0.9)  # type: ignore[call-arg]
    pruning.SWAT(dense="first")  # type: ignore[call-arg]
    pruning.Layer("last", (10, 512), 1, 1, kind="pool")  # type: ignore[arg-type]


def block(
    x: Array, weight: Weight, *, padding: Padding = 0, stride: Size = 1, layout: Layout2d = "NCHW", skip: Skip = "auto",
    mask: Mask | None = None,
) -> np.ndarray:  # fmt: skip
    """A function of a user that passes arguments on."""
    return sc.conv2d(x, weight, padding=padding, stride=stride, layout=layout, skip=skip, input_mask=mask)


def gradient(kept: Operand, dy: Operand) -> np.ndarray:
    """The same of operands that may be compressed."""
    return sc.conv2d_backward_weight(kept, dy, 3)
