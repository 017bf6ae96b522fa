"""What the zeros of a training step are worth: every convolution with and without skipping, on the same tensors."""

import math
import statistics
import time

import numpy as np

import sparseconv
from sparseconv.pruning import Method

__all__ = ["measure"]

_PASSES = ("forward", "backward_data", "backward_weight")
_OPERANDS = {
    "forward": ("input", "weight"),
    "backward_data": ("grad_output", "weight"),
    "backward_weight": ("input", "grad_output"),
}


def measure(network, images, labels, *, batch, repeats=6):
    """Take training steps, without moving the weights, and time each of their library calls in two ways.

    A call is timed with what the training method makes of its operands and ``skip="auto"``, and with whole operands and
    ``skip="none"``, in turns, so that both see the same tensors, caches and clock rate; results go into one array, so
    that fresh memory's page faults are not timed. Whole steps, NumPy's part and the method's own included, are timed in
    the same manner, but as they are. All are medians: what a method does in few of the steps, as the search for masks
    in every 40th, does not show.

    Parameters
    ----------
    network : Network
        Trained: the zeros are those of its present weights and its training method.
    images : (N, H, W, C) float32
    labels : (N,) int
    batch : int
    repeats : int
        Pairs of timings per call and batch; an even number treats both sides alike, as they take turns in going first.

    Returns
    -------
    dict
        "layers" : one dict per layer and pass: "layer", "pass", "operation", "weight_shape", "multiply_adds" (of a
        batch), "zeros" (fraction of zeros of each operand that can be skipped), "zero_fraction" (that of "skip", the
        operand that is skipped), "skip", "kernel", "reason", "expected_speedup", "seconds", "seconds_dense", "speedup".
        "convolutions" : "seconds", "seconds_dense" and "speedup" of all convolutions of a step.
        "step" : the same of whole steps.
    """
    method = network.method
    seconds, zeros, steps = {}, {}, []
    for start in range(0, len(images), batch):
        x, y = images[start : start + batch], labels[start : start + batch]
        steps += _interleaved(
            lambda x=x, y=y: _step(network, method, "auto", x, y),
            lambda x=x, y=y: _step(network, Method(), "none", x, y),
            repeats,
        )
        _step(network, method, "auto", x, y)
        for name, which, call in _calls(network):
            out = call.run()
            pairs = _interleaved(lambda: call.run(out=out), lambda: call.run_dense(out=out), repeats)  # noqa: B023
            seconds.setdefault((name, which), []).extend(pairs)
            for operand, fraction in _zeros(which, call).items():
                zeros.setdefault((name, which, operand), []).append(fraction)
    layers = []
    for name, which, call in _calls(network):
        plan = sparseconv.plan(call.operation, *call.operands, **call.options)
        fractions = {operand: statistics.fmean(zeros[name, which, operand]) for operand in _OPERANDS[which]}
        weight_shape = network.weighted[name].weight.shape
        layers.append(
            {
                "layer": name,
                "pass": which,
                "operation": call.operation,
                "weight_shape": list(weight_shape),
                "multiply_adds": math.prod(call.operands[0].shape[:-1]) * math.prod(weight_shape),
                "zeros": fractions,
                "zero_fraction": fractions.get(plan.skip, max(fractions.values())),
                "skip": plan.skip,
                "kernel": plan.kernel,
                "reason": plan.reason,
                "expected_speedup": float(plan.speedup),
                **_comparison(seconds[name, which]),
            }
        )
    convolutions = [row for row in layers if row["operation"].startswith("conv2d")]
    total, total_dense = (sum(row[key] for row in convolutions) for key in ("seconds", "seconds_dense"))
    return {
        "layers": layers,
        "convolutions": {"seconds": total, "seconds_dense": total_dense, "speedup": total_dense / total},
        "step": _comparison(steps),
    }


def _calls(network):
    """(layer, pass, call) of everything that the latest step asked of the library."""
    for name, layer in network.weighted.items():
        for which in _PASSES:
            if which in layer.calls:
                yield name, which, layer.calls[which]


def _step(network, method, skip, x, labels):
    network.use(method, skip)
    network.step(x, labels)


def _interleaved(function, dense, repeats):
    """(seconds of function, seconds of dense), taken in turns, each once unmeasured before."""
    pairs = []
    for repeat in range(repeats + 1):
        first, second = (function, dense) if repeat % 2 else (dense, function)
        pair = {first: _seconds(first), second: _seconds(second)}
        pairs.append((pair[function], pair[dense]))
    return pairs[1:]


def _seconds(function):
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def _zeros(which, call):
    """Fraction of zeros of every operand that the pass can skip; they come first among the operands."""
    threshold = call.options.get("threshold", 0.0)  # of the first, in backward_weight alone
    return {
        operand: _zero_fraction(array, 0.0 if number else threshold)
        for number, (operand, array) in enumerate(zip(_OPERANDS[which], call.operands, strict=False))
    }


def _zero_fraction(array, threshold):
    if isinstance(array, np.ndarray):
        return float(np.mean(np.abs(array) <= threshold))
    return 1 - array.density


def _comparison(pairs):
    seconds, seconds_dense = (statistics.median(times) for times in zip(*pairs, strict=True))
    return {"seconds": seconds, "seconds_dense": seconds_dense, "speedup": seconds_dense / seconds}
