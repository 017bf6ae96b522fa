"""JAX: a small network trained on the bundled images, with convolutions that skip zeros, under jit and grad.

    pip install '.[jax]' && python examples/train_jax.py
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

import sparseconv.data
import sparseconv.jax as scj


def initial(key, *shapes):
    keys = jax.random.split(key, len(shapes))
    scales = [(2 / np.prod(shape[1:])) ** 0.5 for shape in shapes]
    return [s * jax.random.normal(k, shape) for s, k, shape in zip(scales, keys, shapes, strict=True)]


def network(weights, x):
    """(N, 28, 28, 1) images to (N, 10) scores."""
    first, second, third, last = weights
    x = scj.conv2d(x, first, padding=1, layout="NHWC", activation="relu")
    x = scj.conv2d(x, second, stride=2, padding=1, layout="NHWC", activation="relu", input_is_relu=True)
    x = scj.conv2d(x, third, stride=2, padding=1, layout="NHWC", activation="relu", input_is_relu=True)
    return scj.linear(x.mean((1, 2)), last)


def loss(weights, x, labels):
    scores = jax.nn.log_softmax(network(weights, x))
    return -jnp.take_along_axis(scores, labels[:, None], 1).mean()


@jax.jit
def step(weights, x, labels):
    value, gradients = jax.value_and_grad(loss)(weights, x, labels)
    return [w - 0.3 * g for w, g in zip(weights, gradients, strict=True)], value


def main(steps=200, batch=32):
    images, labels, test_images, test_labels = sparseconv.data.load()
    images, test_images = (np.float32(one)[..., None] / 255 for one in (images, test_images))
    labels = labels.astype(np.int32)
    weights = initial(jax.random.key(0), (32, 1, 3, 3), (64, 32, 3, 3), (64, 64, 3, 3), (10, 64))
    for i in range(steps):
        chosen = np.arange(i * batch, (i + 1) * batch) % len(images)
        weights, value = step(weights, images[chosen], labels[chosen])
        if i % 50 == 0 or i == steps - 1:
            print(f"step {i}: loss {value:.3f}")
    right = np.argmax(jax.jit(network)(weights, test_images), axis=1) == test_labels
    print(f"test accuracy {right.mean():.3f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
