"""A small convolutional network in NumPy and sparseconv: layers with a forward and a backward pass, loss and optimiser.

Activations are (N, H, W, C) arrays ("NHWC"). Every use of the library is kept as a `Call`, so that a measurement can
repeat exactly the calls of a training step, on the same tensors.
"""

import math
from dataclasses import dataclass

import numpy as np

import sparseconv
from sparseconv.pruning import Method

__all__ = ["SGD", "Call", "Convolution", "Linear", "MaxPool", "Network", "ReLU", "build", "softmax_cross_entropy"]


@dataclass(frozen=True)
class Call:
    """One call of the library: the function's name, its operands and options."""

    operation: str
    operands: tuple
    options: dict
    whole: tuple  # the operands as they are without a training method

    def run(self, **overrides):
        """Call the function, with some of the options replaced."""
        return getattr(sparseconv, self.operation)(*self.operands, **{**self.options, **overrides})

    def run_dense(self, **overrides):
        """Call the function without a training method and without skipping."""
        options = {key: value for key, value in self.options.items() if key != "threshold"}
        return getattr(sparseconv, self.operation)(*self.whole, **{**options, **overrides, "skip": "none"})


class _Weighted:
    """What the layers with weights share: parameters, their gradients, the passes, and the latest call of each.

    A training method decides what the passes read: `x`, `weight` and gradients themselves, or what it makes of them.
    """

    def __init__(self, weight_shape, scale, rng, dtype):
        rng = np.random.default_rng(rng)
        self.name = ""
        self.weight = scale * rng.standard_normal(weight_shape, dtype=dtype)
        self.bias = np.zeros(weight_shape[0], dtype)
        self.gradients = {}
        self.calls = {}
        self.method = Method()
        self.skip = "auto"
        self.num_threads = None

    def _forward(self, operation, x, *, training, **options):
        """Run forward; keep what the backward passes need."""
        used = self.method.before_forward(self.name, self.weight, training=training)
        y = self._run("forward", operation, (x, used, self.bias), (x, self.weight, self.bias), **options)
        if training:
            self.x, self.used = x, used
            self.kept, self.kept_options = self.method.after_forward(self.name, x)
        return y

    def _backward_weight(self, operation, grad_output, *sizes, **options):
        """Store the gradients of weight and bias."""
        whole = self.x, grad_output, *sizes
        self.gradients["weight"] = self._run(
            "backward_weight", operation, (self.kept, *whole[1:]), whole, **options, **self.kept_options
        )
        self.gradients["bias"] = sparseconv.grad_bias(grad_output, layout=options.get("layout", "NC"))

    def _backward_data(self, operation, grad_output, *sizes, **options):
        """Return the gradient of the input, for the layers before this one."""
        operands, whole = (grad_output, self.used, *sizes), (grad_output, self.weight, *sizes)
        grad_x = self._run("backward_data", operation, operands, whole, **options)
        return self.method.before_backward(self.name, grad_x)

    def _run(self, name, operation, operands, whole, **options):
        options |= {"skip": self.skip, "num_threads": self.num_threads}
        self.calls[name] = Call(operation, operands, options, whole)
        return self.calls[name].run()


class Convolution(_Weighted):
    """Convolution of stride 1 whose output has the size of its input, with a bias.

    Parameters
    ----------
    in_c, out_c : int
        Input and output channels.
    kernel : int
        Height and width of the kernel, odd.
    rng : numpy.random.Generator or seed
        Draws the weights: He's initialisation, normal with variance 2 / (in_c * kernel ** 2).
    first : bool
        The network's first layer: nobody needs the gradient of its input.
    dtype : dtype
        float32, or float64 for checking gradients.
    """

    def __init__(self, in_c, out_c, kernel=3, *, rng=None, first=False, dtype=np.float32):
        scale = math.sqrt(2 / (in_c * kernel**2))
        super().__init__((out_c, in_c, kernel, kernel), scale, rng, dtype)
        self.first = first
        self.geometry = {"padding": "same", "layout": "NHWC"}

    def forward(self, x, *, training=True):
        """(N, H, W, in_c) -> (N, H, W, out_c)."""
        return self._forward("conv2d", x, training=training, **self.geometry)

    def backward(self, grad_output):
        """Store the gradients of weight and bias; return the gradient of the input, None for the first layer."""
        self._backward_weight("conv2d_backward_weight", grad_output, self.weight.shape[2:], **self.geometry)
        if self.first:
            return None
        return self._backward_data("conv2d_backward_data", grad_output, self.x.shape, **self.geometry)


class Linear(_Weighted):
    """Fully connected layer with a bias; an input of more than two dimensions is flattened.

    Parameters
    ----------
    in_c, out_c : int
        Input and output features.
    rng : numpy.random.Generator or seed
        Draws the weights: normal with variance 1 / in_c, because no ReLU follows.
    dtype : dtype
        float32, or float64 for checking gradients.
    """

    def __init__(self, in_c, out_c, *, rng=None, dtype=np.float32):
        super().__init__((out_c, in_c), math.sqrt(1 / in_c), rng, dtype)

    def forward(self, x, *, training=True):
        """(N, ...) -> (N, out_c)."""
        self.in_shape = x.shape
        return self._forward("linear", x.reshape(len(x), math.prod(x.shape[1:])), training=training)

    def backward(self, grad_output):
        """Store the gradients of weight and bias; return the gradient of the input."""
        self._backward_weight("linear_backward_weight", grad_output)
        return self._backward_data("linear_backward_data", grad_output).reshape(self.in_shape)


class ReLU:
    """max(x, 0), in place: whoever made the array, a convolution or a pooling, does not need it any more."""

    def forward(self, x, *, training=True):
        """Set the negative elements of x to zero and return x."""
        self.output = np.maximum(x, 0, out=x)
        return x

    def backward(self, grad_output):
        """Set the gradient to zero where the output is zero and return it."""
        return np.multiply(grad_output, self.output > 0, out=grad_output)


class MaxPool:
    """Maximum of each 2x2 square, taken over its rows, then over its columns; height and width must be even.

    The gradient goes to exactly one winner of each square (of equals, the upper, then the left one).
    """

    def forward(self, x, *, training=True):
        """(N, H, W, C) -> (N, H / 2, W / 2, C)."""
        batch, in_h, in_w, in_c = x.shape
        if in_h % 2 or in_w % 2:
            raise ValueError(f"x: got spatial size {(in_h, in_w)}, expected even sizes")
        rows = x.reshape(batch, in_h // 2, 2, in_w, in_c)
        upper, lower = rows[:, :, 0], rows[:, :, 1]
        self.upper_wins = upper >= lower
        columns = np.maximum(upper, lower).reshape(batch, in_h // 2, in_w // 2, 2, in_c)
        left, right = columns[..., 0, :], columns[..., 1, :]
        self.left_wins = left >= right
        return np.maximum(left, right)

    def backward(self, grad_output):
        """(N, H / 2, W / 2, C) -> (N, H, W, C), at least three quarters of it zero."""
        batch, out_h, out_w, out_c = grad_output.shape
        columns = np.empty((batch, out_h, out_w, 2, out_c), grad_output.dtype)
        np.multiply(grad_output, self.left_wins, out=columns[..., 0, :])
        np.multiply(grad_output, ~self.left_wins, out=columns[..., 1, :])
        columns = columns.reshape(self.upper_wins.shape)
        rows = np.empty((batch, out_h, 2, 2 * out_w, out_c), grad_output.dtype)
        np.multiply(columns, self.upper_wins, out=rows[:, :, 0])
        np.multiply(columns, ~self.upper_wins, out=rows[:, :, 1])
        return rows.reshape(batch, 2 * out_h, 2 * out_w, out_c)


class Network:
    """Layers in a row.

    Parameters
    ----------
    layers : dict of str to layer
        In the order of the forward pass.
    num_threads : int, optional
        For the calls of the library; its default otherwise.
    """

    def __init__(self, layers, *, num_threads=None):
        self.layers = layers
        self.weighted = {name: layer for name, layer in layers.items() if isinstance(layer, _Weighted)}
        for name, layer in self.weighted.items():
            layer.name = name
            layer.num_threads = num_threads
        self.use(Method())

    def use(self, method, skip="auto"):
        """Make every layer use this training method, and every call of the library this value of `skip`."""
        method.check_layers(self.weighted)
        self.method = method
        for layer in self.weighted.values():
            layer.method, layer.skip = method, skip

    def forward(self, x, *, training=True):
        """(N, H, W, C) -> (N, classes), the scores of the classes; no backward pass follows unless training."""
        for layer in self.layers.values():
            x = layer.forward(x, training=training)
        return x

    def backward(self, grad_output):
        """Fill every layer's `gradients` from the gradient of the scores."""
        for layer in reversed(self.layers.values()):
            grad_output = layer.backward(grad_output)

    def step(self, x, labels):
        """Forward and backward pass of one batch; return the loss and the scores."""
        scores = self.forward(x)
        loss, grad_scores = softmax_cross_entropy(scores, labels)
        self.backward(grad_scores)
        return loss, scores


def softmax_cross_entropy(scores, labels):
    """Return the mean cross-entropy of the softmax of the scores, zero without scores, and its gradient.

    Parameters
    ----------
    scores : (N, classes) float
    labels : (N,) int

    Returns
    -------
    loss : float
    grad_scores : (N, classes)
    """
    if not len(labels):
        return 0.0, np.zeros_like(scores)
    image = np.arange(len(labels))
    shifted = scores - scores.max(axis=1, keepdims=True)
    log_probability = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    grad_scores = np.exp(log_probability)
    grad_scores[image, labels] -= 1
    return -float(log_probability[image, labels].mean()), grad_scores / len(labels)


class SGD:
    """Stochastic gradient descent with momentum; weight decay acts on weights, not on biases.

    Parameters
    ----------
    layers : iterable of Convolution and Linear
    momentum, weight_decay : float
    """

    def __init__(self, layers, *, momentum=0.9, weight_decay=5e-4):
        self.layers = list(layers)
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.velocities = [
            {"weight": np.zeros_like(layer.weight), "bias": np.zeros_like(layer.bias)} for layer in self.layers
        ]

    def step(self, learning_rate):
        """Move every parameter, in place, along its velocity."""
        for layer, velocities in zip(self.layers, self.velocities, strict=True):
            velocities["weight"] *= self.momentum
            velocities["weight"] += layer.gradients["weight"] + self.weight_decay * layer.weight
            velocities["bias"] *= self.momentum
            velocities["bias"] += layer.gradients["bias"]
            layer.weight -= learning_rate * velocities["weight"]
            layer.bias -= learning_rate * velocities["bias"]


def build(image_shape, classes, *, widths=(32, 64, 128), rng=None, num_threads=None, dtype=np.float32):
    """Build the demo's network: two 3x3 convolutions of each width, with max-pooling in between, and a linear layer.

    Max-pooling comes before the ReLU behind it: the two commute, and the ReLU then has a quarter of the elements.

    Parameters
    ----------
    image_shape : (H, W)
        Divisible by 2 as often as there are poolings, one less than widths.
    classes : int
    widths : tuple of int
        Channels of each pair of convolutions.
    rng : numpy.random.Generator or seed
        Draws the weights.
    num_threads : int, optional
    dtype : dtype
        float32, or float64 for checking gradients.

    Returns
    -------
    Network
    """
    rng = np.random.default_rng(rng)
    factor = 2 ** (len(widths) - 1)
    if image_shape[0] % factor or image_shape[1] % factor:
        raise ValueError(f"image_shape: got {tuple(image_shape)}, expected multiples of {factor}")
    layers, in_c = {}, 1
    for stage, out_c in enumerate(widths):
        if stage:
            layers[f"pool{stage}"] = MaxPool()
            layers[f"relu{2 * stage}"] = ReLU()
        layers[f"conv{2 * stage + 1}"] = Convolution(in_c, out_c, rng=rng, first=not stage, dtype=dtype)
        layers[f"relu{2 * stage + 1}"] = ReLU()
        layers[f"conv{2 * stage + 2}"] = Convolution(out_c, out_c, rng=rng, dtype=dtype)
        in_c = out_c
    layers[f"relu{2 * len(widths)}"] = ReLU()
    features = in_c * (image_shape[0] // factor) * (image_shape[1] // factor)
    layers["linear"] = Linear(features, classes, rng=rng, dtype=dtype)
    return Network(layers, num_threads=num_threads)
