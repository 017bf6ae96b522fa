"""The training loop, and the whole demo around it: train, test, measure."""

import math
import time

import numpy as np

import sparseconv
from sparseconv import cpu
from sparseconv._core.progress import Progress
from sparseconv.benchmark import activations
from sparseconv.training import methods
from sparseconv.training.measure import measure
from sparseconv.training.network import SGD, build
from sparseconv.training.record import recorded

__all__ = ["accuracy", "fit", "run", "to_input"]

_EPOCH = "epoch {epoch}: loss {loss:.3f}, train {train_accuracy:.1%}, test {test_accuracy:.1%}, {seconds:.1f} s"


def to_input(images):
    """(N, H, W) uint8 -> (N, H, W, 1) float32 between 0 and 1; black stays zero."""
    return np.multiply(images, np.float32(1 / 255))[..., np.newaxis]


def accuracy(network, images, labels, *, batch=200):
    """Fraction of the images whose highest score is that of their label."""
    right = 0
    for start in range(0, len(images), batch):
        scores = network.forward(to_input(images[start : start + batch]), training=False)
        right += np.count_nonzero(scores.argmax(axis=1) == labels[start : start + batch])
    return right / len(images)


def fit(network, train, test, *, epochs, batch, learning_rate, rng=None, progress=None, history=None):
    """Train by gradient descent on shuffled, randomly mirrored images; test after every epoch.

    The learning rate rises during the first 5 % of the steps and falls along a cosine to zero.

    Parameters
    ----------
    network : Network
        Trained in place.
    train, test : (images, labels)
        (N, H, W) uint8 and (N,) integers.
    epochs, batch : int
    learning_rate : float
        The highest.
    rng : numpy.random.Generator or seed
        Shuffles and mirrors.
    progress : Progress, optional
    history : list, optional
        Takes what is returned as it comes, for whoever interrupts the training.

    Returns
    -------
    history : list of dict
        Per epoch: "epoch", mean "loss", "train_accuracy" (of the batches as they came), "test_accuracy", "seconds"
        (training only).

    Raises
    ------
    FloatingPointError
        If the loss is no longer finite.
    """
    rng = np.random.default_rng(rng)
    progress = progress or Progress(quiet=True)
    images, labels = train
    optimizer = SGD(network.weighted.values())
    steps_per_epoch = -(-len(images) // batch)
    steps, step, history = epochs * steps_per_epoch, 0, [] if history is None else history
    diverged = f"training diverged: try a learning rate below {learning_rate}"
    for epoch in range(1, epochs + 1):
        started, losses, right = time.perf_counter(), [], 0
        order = rng.permutation(len(images))
        try:
            for start in range(0, len(images), batch):
                chosen = order[start : start + batch]
                x = to_input(_mirrored(images[chosen], rng))
                try:
                    with np.errstate(over="ignore", invalid="ignore"):  # the loss tells
                        loss, scores = network.step(x, labels[chosen])
                except ValueError as error:  # or a method that cannot order NaN
                    if step == 0:
                        raise
                    raise FloatingPointError(diverged) from error
                if not math.isfinite(loss):
                    raise FloatingPointError(diverged)
                optimizer.step(learning_rate * _schedule(step / steps))
                losses.append(loss)
                right += np.count_nonzero(scores.argmax(axis=1) == labels[chosen])
                step += 1
                progress.advance(step / steps, f"epoch {epoch}/{epochs}, loss {loss:.3f}")
        finally:
            if losses:  # of an epoch that was interrupted, too
                history.append(
                    {
                        "epoch": epoch,
                        "loss": float(np.mean(losses)),
                        "train_accuracy": right / min(len(images), len(losses) * batch),
                        "test_accuracy": None,
                        "seconds": time.perf_counter() - started,
                    }
                )
        history[-1]["test_accuracy"] = accuracy(network, *test)
        progress.say(_EPOCH.format(**history[-1]))
    return history


def run(
    data, *, epochs, batch, learning_rate, names=("none",), sparsity=0.8, seed=0, num_threads=None,
    save_activations=None, progress=None,
):  # fmt: skip
    """Train the demo's network with one training method after the other, test it, and measure what its zeros are worth.

    Parameters
    ----------
    data : tuple
        What `sparseconv.data.load` returns.
    epochs, batch : int
    learning_rate : float
    names : sequence of str
        Training methods, of `methods.NAMES`; each begins with the same network and sees the same images.
    sparsity : float
        What methods aim at.
    seed : int
        Everything random follows from it, and nothing from the number of threads.
    num_threads : int, optional
    save_activations : path, optional
        Where the operands of the convolutions of the network trained last go, for one batch; see
        `benchmark.activations`.
    progress : Progress, optional

    Returns
    -------
    report : dict
        See `sparseconv.training.report`; JSON can hold it. After a KeyboardInterrupt it is "interrupted": the latest of
        its runs lacks what was not reached.

    Raises
    ------
    KeyboardInterrupt
        Before the first step.
    """
    started = time.perf_counter()
    progress = progress or Progress(quiet=True)
    runs, interrupted = [], False
    for name in names:
        if len(names) > 1:
            progress.say(f"method {name}:")
        try:
            network, result = _run(
                data, name, sparsity, epochs=epochs, batch=batch, learning_rate=learning_rate, seed=seed,
                num_threads=num_threads, progress=progress,
            )  # fmt: skip
        except KeyboardInterrupt:
            if not runs:  # nothing that a report could show
                raise
            interrupted = True
            break
        runs.append(result)
        interrupted = "layers" not in result
        if interrupted:
            break
    train_images, train_labels, test_images, _ = data
    if save_activations:
        network.step(to_input(train_images[:batch]), train_labels[:batch])
        activations.save(recorded(network), save_activations)
    return {
        "version": sparseconv.__version__,
        "isa": cpu.isa(),
        "threads": num_threads or cpu.num_threads(),
        "seed": seed,
        "epochs": epochs,
        "batch": batch,
        "learning_rate": learning_rate,
        "sparsity": sparsity,
        "train_images": len(train_images),
        "test_images": len(test_images),
        "parameters": sum(layer.weight.size + layer.bias.size for layer in network.weighted.values()),
        "runs": runs,
        "interrupted": interrupted,
        "seconds": time.perf_counter() - started,
    }


def _run(data, name, sparsity, *, epochs, batch, learning_rate, seed, num_threads, progress):
    """The trained network of one method, and its part of the report."""
    train_images, train_labels, test_images, test_labels = data
    rng = np.random.default_rng(seed)
    classes = int(max(train_labels.max(), test_labels.max())) + 1
    network = build(train_images.shape[1:], classes, rng=rng, num_threads=num_threads)
    network.use(methods.make(name, sparsity, network, seed))
    result = {"method": name, "settings": repr(network.method), "history": []}
    history = result["history"]
    try:
        fit(
            network,
            (train_images, train_labels),
            (test_images, test_labels),
            epochs=epochs,
            batch=batch,
            learning_rate=learning_rate,
            rng=rng,
            progress=progress,
            history=history,
        )
        progress.say("measuring with and without skipping ...")
        result |= measure(network, to_input(train_images[: 3 * batch]), train_labels[: 3 * batch], batch=batch)
    except KeyboardInterrupt:
        if not history:
            raise
        progress.say(f"interrupted in epoch {history[-1]['epoch']} of {epochs}: testing what was learned ...")
        history[-1]["test_accuracy"] = accuracy(network, test_images, test_labels)
    return network, result | {"test_accuracy": history[-1]["test_accuracy"]}


def _mirrored(images, rng):
    """Mirror half of the images, left to right."""
    return np.where(rng.random(len(images))[:, None, None] < 0.5, images[..., ::-1], images)


def _schedule(done):
    """Learning rate, as a fraction of the highest, when this fraction of the steps is done."""
    warm_up = 0.05
    return min(done / warm_up + 0.01, 1.0) * 0.5 * (1 + math.cos(math.pi * done))
