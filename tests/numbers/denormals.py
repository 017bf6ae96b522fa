"""Whether denormals slow calls down: ``python tests/numbers/denormals.py``.

Each call is timed with normal numbers, and with arrays of the same zeros in which one operand, or each result, is
denormal, in turns. The median ratio of the two is printed; more than 1.10 is a failure. No test asserts
this, since it is a time.
"""

import argparse
import sys
import time

import numpy as np

import sparseconv as sc
from sparseconv import cpu, masks, pruning

MOST = 1.10


def sparse(shape, seed, zeros):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape).astype(np.float32)
    values += np.copysign(np.float32(0.1), values)
    return np.where(rng.random(shape) < zeros, np.float32(0), values)


def calls():
    """name -> (function of two operands, the operands)."""
    x, w, dy = sparse((4, 32, 28, 28), 1, 0.5), sparse((32, 32, 3, 3), 2, 0), sparse((4, 32, 28, 28), 3, 0.5)
    pruned, depth = sparse((32, 32, 3, 3), 4, 0.9), sparse((32, 1, 3, 3), 5, 0)
    options = {"padding": 1, "num_threads": 1}
    found = {}
    for skip in ("none", "input", "weight"):
        weight = pruned if skip == "weight" else w
        found[f"conv2d, skip={skip}"] = (lambda a, b, skip=skip: sc.conv2d(a, b, skip=skip, **options)), x, weight
    found["conv2d, depthwise"] = (lambda a, b: sc.conv2d(a, b, groups=32, **options)), x, depth
    for skip in ("none", "grad_output", "weight"):
        weight = pruned if skip == "weight" else w
        found[f"backward_data, skip={skip}"] = (
            lambda a, b, skip=skip: sc.conv2d_backward_data(a, b, x.shape, skip=skip, **options), dy, weight
        )  # fmt: skip
    found["backward_data, skip=output"] = (
        lambda a, b: sc.conv2d_backward_data(a, b, x.shape, skip="output", output_mask=x, **options), dy, w
    )  # fmt: skip
    for skip in ("none", "input", "grad_output"):
        found[f"backward_weight, skip={skip}"] = (
            lambda a, b, skip=skip: sc.conv2d_backward_weight(a, b, 3, skip=skip, **options), x, dy
        )  # fmt: skip
    rows, matrix = sparse((512, 256), 6, 0.5), sparse((256, 256), 7, 0)
    found["linear"] = (lambda a, b: sc.linear(a, b, num_threads=1)), rows, matrix
    found["grad_bias"] = (lambda a, b: sc.grad_bias(a, num_threads=1)), dy, dy
    found["masks.nonzero_mask"] = (lambda a, b: masks.nonzero_mask(a)), x, x
    found["masks.relu"] = (lambda a, b: masks.relu(a)), x, x
    found["compress"] = (lambda a, b: sc.compress(a, num_threads=1)), x, x
    found["topk_threshold"] = (lambda a, b: pruning.topk_threshold(a, 0.9, num_threads=1)), x, x
    found["nm_mask"] = (lambda a, b: pruning.nm_mask(a, 2, 4, 1, num_threads=1)), w, w
    found["stochastic_prune"] = (lambda a, b: pruning.stochastic_prune(a, 0.9, rng=1, num_threads=1)), x, x
    return found


def variants(first, second):
    """Operands with denormals: of one operand all, of one operand every other one; results between 1e-45 and 1e-38."""
    tiny, some = np.float32(1e-39), np.random.default_rng(0).random(first.shape) < 0.5
    yield "first operand", first * tiny, second
    yield "half of the first", np.where(some, first * tiny, first), second
    if second is not first:
        yield "second operand", first, second * tiny
        yield "results", first * np.float32(1e-20), second * np.float32(1e-21)


def seconds_of(function, operands):
    start = time.thread_time()  # calls have one thread: what others do with the cores matters less
    function(*operands)
    return time.thread_time() - start


def ratio(function, plain, odd, seconds):
    """The median of CPU times in turns."""
    found, end = [], time.perf_counter() + seconds
    while len(found) < 5 or time.perf_counter() < end:
        found.append(seconds_of(function, odd) / seconds_of(function, plain))
    return float(np.median(found))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=0.5, help="for each ratio")
    parser.add_argument("--isa", nargs="+", default=cpu.available_isas(), help="instruction sets")
    options = parser.parse_args()
    worst, count, slow = {}, 0, 0
    for isa in options.isa:
        with cpu.use_isa(isa):
            for name, (function, first, second) in calls().items():
                for what, *odd in variants(first, second):
                    value = ratio(function, (first, second), odd, options.seconds)
                    for _ in range(3):  # another program may have been in the way
                        if value > MOST:
                            value = min(value, ratio(function, (first, second), odd, 4 * options.seconds))
                    count, slow = count + 1, slow + (value > MOST)
                    worst[isa] = max(worst.get(isa, (0,)), (value, name, what))
                    if value > MOST:
                        print(f"{isa}, {name}, {what}: {value:.2f}", flush=True)
    for isa, (value, name, what) in worst.items():
        print(f"{isa}: at most {value:.2f} ({name}, {what})")
    print(f"{count} ratios, {slow} above {MOST}")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
