"""Worst errors of every pass beside those of PyTorch (oneDNN): ``python tests/numbers/errors.py``.

Both compute the same float32 data; both are compared with float64. An error is in units of u S: u is 2**-24, S the sum
of the magnitudes of the products that the result is the sum of. So 1 is one rounding of a sum without cancellation, and
n + 1 is what is proven for n products in any order.
"""

import argparse
import sys

import numpy as np
import torch

import sparseconv as sc
from sparseconv import cpu, reference

UNIT = 2.0**-24
LAYERS = ((64, 64, 28, 3), (256, 256, 14, 3), (512, 512, 7, 3), (512, 128, 28, 1), (2048, 512, 7, 1), (3, 64, 56, 7))
KINDS = ("normal", "positive", "ReLU", "wide")
SKIPS = {
    "forward": ("none", "input", "weight"), "backward_data": ("none", "grad_output", "weight"),
    "backward_weight": ("none", "input", "grad_output"),
}  # fmt: skip


def numbers(kind, shape, rng):
    """Normal numbers, all positive ones, half zeros, or magnitudes over eight powers of ten."""
    values = rng.standard_normal(shape).astype(np.float32)
    if kind == "positive":
        return np.abs(values)
    if kind == "ReLU":
        return np.maximum(values, 0)
    return values * np.float32(10) ** rng.uniform(-4, 4, shape).astype(np.float32) if kind == "wide" else values


def in_torch(pass_, x, w, dy, pad):
    x, w, dy = (torch.from_numpy(array).to(memory_format=torch.channels_last) for array in (x, w, dy))
    if pass_ == "forward":
        return torch.nn.functional.conv2d(x, w, padding=pad).numpy()
    if pass_ == "backward_data":
        return torch.nn.grad.conv2d_input(x.shape, w, dy, padding=pad).numpy()
    return torch.nn.grad.conv2d_weight(x, w.shape, dy, padding=pad).numpy()


def computed(module, pass_, x, w, dy, pad, **options):
    if pass_ == "forward":
        return module.conv2d(x, w, padding=pad, **options)
    if pass_ == "backward_data":
        return module.conv2d_backward_data(dy, w, x.shape, padding=pad, **options)
    return module.conv2d_backward_weight(x, dy, w.shape, padding=pad, **options)


def worst(actual, exact, magnitude):
    error = np.abs(actual - exact) / np.where(magnitude > 0, magnitude, 1) / UNIT
    return float(error.max())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    isas = [isa for isa in cpu.available_isas() if isa != "scalar"]
    most = {}  # (pass, kind of numbers) -> worst by who computes
    for channels, filters, size, taps in LAYERS:
        for kind in KINDS:
            rng = np.random.default_rng((options.seed, channels, filters, size, taps, KINDS.index(kind)))
            pad = taps // 2
            x = numbers(kind, (options.batch, channels, size, size), rng)
            w = numbers("normal" if kind == "ReLU" else kind, (filters, channels, taps, taps), rng)
            dy = numbers("normal" if kind == "ReLU" else kind, (options.batch, filters, size, size), rng)
            for pass_, skips in SKIPS.items():
                wide = [array.astype(np.float64) for array in (x, w, dy)]
                exact = computed(reference, pass_, *wide, pad)
                magnitude = computed(reference, pass_, *map(np.abs, wide), pad)
                found = most.setdefault((pass_, kind), {})
                found["oneDNN"] = max(found.get("oneDNN", 0), worst(in_torch(pass_, x, w, dy, pad), exact, magnitude))
                for isa in isas:
                    with cpu.use_isa(isa):
                        for skip in skips:
                            result = computed(sc, pass_, x, w, dy, pad, skip=skip, num_threads=1)
                            error = worst(result, exact, magnitude)
                            found[isa] = max(found.get(isa, 0), error)
            print(f"{channels}, {filters}, {size}, {taps}x{taps}, {kind}: done", file=sys.stderr, flush=True)
    names = ["oneDNN", *isas]
    print("| pass | numbers |", " | ".join(names), "|")
    print("|---|---|" + "---|" * len(names))
    above = 0
    for (pass_, kind), found in most.items():
        print(f"| {pass_} | {kind} |", " | ".join(f"{found[name]:.2f}" for name in names), "|")
        above += sum(found[isa] > found["oneDNN"] for isa in isas)
    worsts = {name: max(found[name] for found in most.values()) for name in names}
    print("| all | all |", " | ".join(f"{worsts[name]:.2f}" for name in names), "|")
    print(f"{above} of {len(most) * len(isas)} above oneDNN's")
    return 1 if any(worsts[isa] > worsts["oneDNN"] for isa in isas) else 0


if __name__ == "__main__":
    sys.exit(main())
