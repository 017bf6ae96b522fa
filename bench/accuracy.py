"""How far results are from exact ones, ours and oneDNN's: `python -m bench.accuracy --csv FILE`.

Weights and gradients are normally distributed, activations uniform and at least 0, zeros at random places. Exact is
what PyTorch computes in float64. A largest error is relative to the largest exact result, a mean one (root of the mean
square) to the mean of the results.
"""

import argparse
import csv
from dataclasses import replace

import numpy as np
import torch

import sparseconv
from sparseconv.benchmark.layers import SETS, parse
from sparseconv.benchmark.operands import PASSES, SPARSE_OPERANDS, random_operands
from sparseconv.benchmark.peers import onednn, ours

COLUMNS = ("pass", "layer", "sparsity", "isa", "batch", "largest", "peer_largest", "mean", "peer_mean")


def operands_of(text, which, sparsity, batch):
    """Operands with signs, of which the one that a pass looks at has zeros."""
    drawn = random_operands(parse(text), {SPARSE_OPERANDS[which][0]: sparsity}, batch=batch, layout="NHWC")
    normal = np.random.default_rng(1).standard_normal
    gradient = normal(drawn.grad_output.shape, np.float32) * (drawn.grad_output != 0)
    return replace(drawn, weight=normal(drawn.weight.shape, np.float32), grad_output=gradient)


def exact(which, operands):
    """The result in float64, as NumPy arrays of our layout."""
    wide = {name: getattr(operands, name).astype(np.float64) for name in ("x", "weight", "grad_output")}
    return result(onednn(which, replace(operands, **wide), threads=torch.get_num_threads())(), which)


def result(value, which):
    """What a call gave, ours or PyTorch's, in our layout."""
    if isinstance(value, (tuple, list)):
        value = next(one for one in value if one is not None)
    if isinstance(value, torch.Tensor):
        value = value.numpy() if which == "backward_weight" else value.permute(0, 2, 3, 1).numpy()
    return value


def errors(value, reference):
    """The largest and the mean error."""
    difference = value - reference
    return np.abs(difference).max() / np.abs(reference).max(), np.sqrt((difference**2).mean() / (reference**2).mean())


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", nargs="+", default=list(SETS["prototype"]))
    parser.add_argument("--sparsities", nargs="+", type=float, default=[0, 0.8])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--csv", required=True)
    arguments = parser.parse_args(argv)
    with open(arguments.csv, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for which in PASSES:
            for text in arguments.layers:
                for sparsity in arguments.sparsities:
                    operands = operands_of(text, which, sparsity, arguments.batch)
                    reference = exact(which, operands)
                    sides = [ours(which, operands, threads=1), onednn(which, operands, threads=1)]
                    (largest, mean), (peer_largest, peer_mean) = (
                        errors(result(call(), which), reference) for call in sides
                    )
                    found = largest, peer_largest, mean, peer_mean
                    numbers = [f"{number:.3g}" for number in found]
                    writer.writerow([which, text, sparsity, sparseconv.cpu.isa(), arguments.batch, *numbers])
                    print(f"{which:16} {text:20} {sparsity:4.0%}", *numbers, flush=True)


if __name__ == "__main__":
    main()
