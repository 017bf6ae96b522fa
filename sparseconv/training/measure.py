"""What the zeros of a training step are worth: every convolution with and without skipping, on the same tensors."""

import statistics
import time

import numpy as np

import sparseconv

__all__ = ["measure"]

_PASSES = ("forward", "backward_data", "backward_weight")
_OPERANDS = {
    "forward": ("input",),
    "backward_data": ("grad_output",),
    "backward_weight": ("input", "grad_output"),
}


def measure(network, images, labels, *, batch, repeats=6):
    """Take training steps, without moving the weights, and time each of their library calls in two ways.

    A call is timed with ``skip="auto"`` and with ``skip="none"`` in turns, so that both see the same tensors, caches
    and clock rate; results go into one array, so that fresh memory's page faults are not timed. Whole steps, NumPy's
    part included, are timed in the same manner, but as they are.

    Parameters
    ----------
    network : Network
        Trained: the zeros are those of its present weights.
    images : (N, H, W, C) float32
    labels : (N,) int
    batch : int
    repeats : int
        Pairs of timings per call and batch; an even number treats both sides alike, as they take turns in going first.

    Returns
    -------
    dict
        "layers" : one dict per layer and pass: "layer", "pass", "operation", "weight_shape", "zeros" (fraction of zeros
        of each operand that can be skipped), "zero_fraction" (that of "skip", the operand that is skipped), "skip",
        "kernel", "reason", "expected_speedup", "seconds", "seconds_dense", "speedup".
        "convolutions" : "seconds", "seconds_dense" and "speedup" of all convolutions of a step.
        "step" : the same of whole steps.
    """
    seconds, steps = {}, ([], [])
    zeros = {}
    for start in range(0, len(images), batch):
        x, y = images[start : start + batch], labels[start : start + batch]
        for pair in _interleaved(lambda skip, x=x, y=y: _step(network, skip, x, y), repeats):
            for times, value in zip(steps, pair, strict=True):
                times.append(value)
        _step(network, "auto", x, y)
        for name, which, call in _calls(network):
            out = call.run()
            pairs = _interleaved(lambda skip, call=call, out=out: call.run(skip=skip, out=out), repeats)
            seconds.setdefault((name, which), []).extend(pairs)
            for operand, fraction in _zeros(which, call).items():
                zeros.setdefault((name, which, operand), []).append(fraction)
    layers = []
    for name, which, call in _calls(network):
        plan = sparseconv.plan(call.operation, *call.args, **call.options)
        fractions = {operand: statistics.fmean(zeros[name, which, operand]) for operand in _OPERANDS[which]}
        layers.append(
            {
                "layer": name,
                "pass": which,
                "operation": call.operation,
                "weight_shape": list(network.weighted[name].weight.shape),
                "zeros": fractions,
                "zero_fraction": fractions.get(plan.skip, max(fractions.values())),
                "skip": plan.skip,
                "kernel": plan.kernel,
                "reason": plan.reason,
                "expected_speedup": float(plan.speedup),
                **_comparison(*zip(*seconds[name, which], strict=True)),
            }
        )
    convolutions = [row for row in layers if row["operation"].startswith("conv2d")]
    total, total_dense = (sum(row[key] for row in convolutions) for key in ("seconds", "seconds_dense"))
    return {
        "layers": layers,
        "convolutions": {"seconds": total, "seconds_dense": total_dense, "speedup": total_dense / total},
        "step": _comparison(*steps),
    }


def _calls(network):
    """(layer, pass, call) of everything that the latest step asked of the library."""
    for name, layer in network.weighted.items():
        for which in _PASSES:
            if which in layer.calls:
                yield name, which, layer.calls[which]


def _step(network, skip, x, labels):
    network.set_skip(skip)
    network.step(x, labels)
    network.set_skip("auto")


def _interleaved(function, repeats):
    """Time function("auto") and function("none") in turns, each once unmeasured before."""
    pairs = []
    for repeat in range(repeats + 1):
        order = ("auto", "none") if repeat % 2 else ("none", "auto")
        pair = {skip: _seconds(function, skip) for skip in order}
        pairs.append((pair["auto"], pair["none"]))
    return pairs[1:]


def _seconds(function, skip):
    started = time.perf_counter()
    function(skip)
    return time.perf_counter() - started


def _zeros(which, call):
    """Fraction of zeros of every operand that the pass can skip; they come first among the arguments."""
    arrays = zip(_OPERANDS[which], call.args, strict=False)
    return {operand: 1 - np.count_nonzero(array) / array.size for operand, array in arrays}


def _comparison(seconds, seconds_dense):
    seconds, seconds_dense = statistics.median(seconds), statistics.median(seconds_dense)
    return {"seconds": seconds, "seconds_dense": seconds_dense, "speedup": seconds_dense / seconds}
