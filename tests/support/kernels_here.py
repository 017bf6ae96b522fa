"""Kernels of all families on every instruction set of this CPU, beside the oracle. test_older_cpus.py emulates others.

Prints the instruction sets, what was compared, and digests of what no oracle here says: those must be the same
everywhere. With `--all`: every case of the test suite instead of a few.
"""

import argparse
import hashlib

import numpy as np
from cases import CASES, FEW_CASES, PASSES, SKIPS, TRANSPOSED, call, in_layout, operands, prepared, sparse_ints
from comparisons import assert_exact

import sparseconv as sc
from sparseconv import cpu, pruning, reference


def passes(cases, sparsities):
    compared = 0
    for case in cases:
        for name in PASSES:
            for sparsity in sparsities:
                first, second, expected = prepared(case, name, sparsity)
                for skip in SKIPS[name]:
                    for threads in (1, 3):
                        actual = call(sc, case, name, first, second, skip=skip, num_threads=threads)
                        assert_exact(actual, expected, f"{cpu.isa()} {name} {case} {skip} {sparsity}")
                        compared += 1
    return compared


def needed_outputs(cases):
    for case in cases:
        first, second, expected = prepared(case, "backward_data", 0.5)
        needed = np.nan_to_num(in_layout(case, "forward", *operands(case, "forward", 0.5))[0])
        for skip in ("none", "grad_output", "output"):
            actual = call(sc, case, "backward_data", first, second, skip=skip, output_mask=needed)
            assert_exact(actual, np.where(needed != 0, expected, np.float32(0)), f"{cpu.isa()} {case} {skip}")


def epilogue(case):
    x, weight = in_layout(case, "forward", *operands(case, "forward", 0.5))
    bias = sparse_ints((case.out_c,), 0, 9)
    expected = call(reference, case, "forward", x, weight, bias=bias, activation="relu")
    for skip in SKIPS["forward"]:
        y, mask = call(sc, case, "forward", x, weight, bias=bias, skip=skip, activation="relu", return_mask=True)
        assert_exact(y, expected)
        assert_exact(mask, sc.masks.nonzero_mask(expected))


def digests():
    """What has no oracle here: masks and pruned arrays, packed arrays, sums of floats that are rounded alike."""
    normal = np.random.default_rng(8).standard_normal((64, 520)).astype(np.float32)
    results = {
        "topk": pruning.topk_mask(normal, 0.7),
        "nm": pruning.nm_mask(normal, 2, 4),
        "transposable": pruning.transposable_nm_mask(normal, 4, 8, "exact"),
        "greedy": pruning.transposable_nm_mask(normal, 2, 4, "greedy"),
        "stochastic": pruning.stochastic_prune(normal, 0.9, rng=1)[0],
        "above": sc.masks.above(normal, 0.5, 1),
        "relu": sc.masks.relu(normal)[1],
        "grad_bias": sc.grad_bias(np.round(normal[:, :512].reshape(8, 64, 8, 8) * 4)),
        "compressed": sc.decompress(sc.compress(sc.masks.relu(normal)[0])),
    }
    assert all(np.count_nonzero(result) for result in results.values())
    return {
        name: hashlib.sha256(np.ascontiguousarray(result).tobytes()).hexdigest()[:16]
        for name, result in results.items()
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--all", action="store_true")
    every = parser.parse_args().all
    print(*cpu.available_isas())
    for isa in cpu.available_isas():
        with cpu.use_isa(isa):
            cases = (*CASES, *TRANSPOSED) if every else (*FEW_CASES, *TRANSPOSED[:2])
            compared = passes(cases, (0.0, 0.5, 0.9) if every else (0.5,))
            needed_outputs(FEW_CASES[:5])
            epilogue(FEW_CASES[1])
            print(isa, compared, *(f"{name}={digest}" for name, digest in digests().items()))


if __name__ == "__main__":
    main()
