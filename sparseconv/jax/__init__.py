"""sparseconv for JAX: convolutions and linear layers that skip zeros, under `jit`, `grad` and `vmap`, on the CPU.

    import sparseconv.jax as scj
    y = scj.conv2d(x, weight, bias, padding=1, layout="NHWC", activation="relu")

The functions have the names and options of the public ones and take JAX arrays or tracers. Their derivatives of any
order come from the backward passes (`layers.py`); forward mode (`jax.jvp`) is not there. A compiled program calls the
kernels through XLA's foreign function interface (`_ffi.py`), without copies. Installed by ``pip install '.[jax]'``,
imported on demand; nothing else in the package imports JAX.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jax import Array
from jax.typing import ArrayLike

from .layers import apply

if TYPE_CHECKING:
    from ..typing import Activation, Layout1d, Layout2d, Layout3d, Padding, PaddingTransposed, Precision, Size, Skip

__all__ = ["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear"]


def conv2d(
    x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, *, stride: Size = 1, padding: Padding = 0,
    dilation: Size = 1, groups: int = 1, layout: Layout2d | None = None, activation: Activation | None = None,
    skip: Skip = "auto", input_is_relu: bool = False, precision: Precision = "highest", num_threads: int | None = None,
) -> Array:  # fmt: skip
    """Two-dimensional convolution of JAX arrays; the others differ in the number of spatial dimensions alone.

    Parameters
    ----------
    x : (N, C, H, W) float32 or float64 jax.Array
        In `layout`.
    weight : (K, C/groups, R, S) jax.Array, same dtype
        In this order in every layout. Flax keeps (R, S, C/groups, K): ``kernel.transpose(3, 2, 0, 1)``.
    bias : (K,) jax.Array, same dtype, optional
    stride, padding, dilation, groups, layout, activation, precision, num_threads
        As in `sparseconv.conv2d`; `layout` is "NCHW" unless "NHWC" or "NCHW16c" is given.
    skip : {"auto", "none", "input", "weight"}
        What the forward pass exploits, as in `sparseconv.conv2d`. Backward passes decide for themselves ("auto"), and
        are dense for "none".
    input_is_relu : bool
        A promise that `x` is what a ReLU returned and is used for nothing that the ReLU's own derivative would not see:
        the gradient of `x` is then computed only where `x` is not zero and is 0 elsewhere, which is what is left of it
        behind that ReLU anyway. JAX cannot tell, so it is not assumed. Such a gradient has no derivatives of its own.

    Returns
    -------
    (N, K, OH, OW) jax.Array
        In `layout`.

    Raises
    ------
    TypeError, ValueError
        While tracing, as `sparseconv.conv2d` does.

    Notes
    -----
    `jax.vmap` over samples alone becomes one larger batch; where weights are mapped, too, calls follow one another.
    Under `jax.jit` a call costs some 20 us beside its kernel, outside of it what JAX takes to dispatch.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, sparseconv.jax as scj
    >>> x, w = jnp.ones((1, 8, 8, 32)), jnp.ones((16, 32, 3, 3))
    >>> scj.conv2d(x, w, padding=1, layout="NHWC").shape
    (1, 8, 8, 16)
    >>> jax.grad(lambda w: scj.conv2d(x, w, layout="NHWC").sum())(w).shape
    (16, 32, 3, 3)
    """
    return apply(
        "conv", 2, x, weight, bias, activation, skip, input_is_relu, stride=stride, padding=padding,
        dilation=dilation, groups=groups, layout=layout, precision=precision, num_threads=num_threads,
    )  # fmt: skip


def conv1d(
    x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, *, stride: Size = 1, padding: Padding = 0,
    dilation: Size = 1, groups: int = 1, layout: Layout1d | None = None, activation: Activation | None = None,
    skip: Skip = "auto", input_is_relu: bool = False, precision: Precision = "highest", num_threads: int | None = None,
) -> Array:  # fmt: skip
    """One-dimensional convolution: x (N, C, W), weight (K, C/groups, S). See `conv2d`."""
    return apply(
        "conv", 1, x, weight, bias, activation, skip, input_is_relu, stride=stride, padding=padding,
        dilation=dilation, groups=groups, layout=layout, precision=precision, num_threads=num_threads,
    )  # fmt: skip


def conv3d(
    x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, *, stride: Size = 1, padding: Padding = 0,
    dilation: Size = 1, groups: int = 1, layout: Layout3d | None = None, activation: Activation | None = None,
    skip: Skip = "auto", input_is_relu: bool = False, precision: Precision = "highest", num_threads: int | None = None,
) -> Array:  # fmt: skip
    """Three-dimensional convolution: x (N, C, D, H, W), weight (K, C/groups, T, R, S). See `conv2d`."""
    return apply(
        "conv", 3, x, weight, bias, activation, skip, input_is_relu, stride=stride, padding=padding,
        dilation=dilation, groups=groups, layout=layout, precision=precision, num_threads=num_threads,
    )  # fmt: skip


def conv_transpose2d(
    x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, *, stride: Size = 1, padding: PaddingTransposed = 0,
    output_padding: Size = 0, dilation: Size = 1, groups: int = 1, layout: Layout2d | None = None,
    activation: Activation | None = None, skip: Skip = "auto", input_is_relu: bool = False,
    precision: Precision = "highest", num_threads: int | None = None,
) -> Array:  # fmt: skip
    """Two-dimensional transposed convolution: weight (C, K/groups, R, S), as in `sparseconv.conv_transpose2d`.

    All else as in `conv2d`.
    """
    return apply(
        "conv_transpose", 2, x, weight, bias, activation, skip, input_is_relu, stride=stride, padding=padding,
        output_padding=output_padding, dilation=dilation, groups=groups, layout=layout, precision=precision,
        num_threads=num_threads,
    )  # fmt: skip


def conv_transpose1d(
    x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, *, stride: Size = 1, padding: PaddingTransposed = 0,
    output_padding: Size = 0, dilation: Size = 1, groups: int = 1, layout: Layout1d | None = None,
    activation: Activation | None = None, skip: Skip = "auto", input_is_relu: bool = False,
    precision: Precision = "highest", num_threads: int | None = None,
) -> Array:  # fmt: skip
    """One-dimensional transposed convolution: weight (C, K/groups, S). See `conv_transpose2d`."""
    return apply(
        "conv_transpose", 1, x, weight, bias, activation, skip, input_is_relu, stride=stride, padding=padding,
        output_padding=output_padding, dilation=dilation, groups=groups, layout=layout, precision=precision,
        num_threads=num_threads,
    )  # fmt: skip


def conv_transpose3d(
    x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, *, stride: Size = 1, padding: PaddingTransposed = 0,
    output_padding: Size = 0, dilation: Size = 1, groups: int = 1, layout: Layout3d | None = None,
    activation: Activation | None = None, skip: Skip = "auto", input_is_relu: bool = False,
    precision: Precision = "highest", num_threads: int | None = None,
) -> Array:  # fmt: skip
    """Three-dimensional transposed convolution: weight (C, K/groups, T, R, S). See `conv_transpose2d`."""
    return apply(
        "conv_transpose", 3, x, weight, bias, activation, skip, input_is_relu, stride=stride, padding=padding,
        output_padding=output_padding, dilation=dilation, groups=groups, layout=layout, precision=precision,
        num_threads=num_threads,
    )  # fmt: skip


def linear(
    x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, *, activation: Activation | None = None,
    skip: Skip = "auto", input_is_relu: bool = False, precision: Precision = "highest", num_threads: int | None = None,
) -> Array:  # fmt: skip
    """Linear layer: x (..., in), weight (out, in), bias (out,), as in `sparseconv.linear`; keywords as in `conv2d`."""
    return apply(
        "linear", 0, x, weight, bias, activation, skip, input_is_relu, precision=precision, num_threads=num_threads
    )
