"""What users of sparse operands meet, timed: ``python bench/sparse_users.py`` prints the table of docs/reliability.md.

Each row is one call on one thread with ``skip="auto"``, against the dense kernel of this library (``skip="none"``) and
against PyTorch's channels_last. The three are called in turn, and the fastest call of each counts. Weights are given as
PackedWeight where they are what is sparse, as whoever prunes would do.
"""

import argparse
import os
import time

import numpy as np

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

import sparseconv as sc
from sparseconv.benchmark.measure import keep_memory

MAP = ("NHWC", (8, 28, 28, 128), (128, 128, 3, 3))
VOLUME = ("NDHWC", (1, 24, 24, 24, 64), (64, 64, 3, 3, 3))


def floats(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def scattered(array, zeros, seed=9):
    return np.where(np.random.default_rng(seed).random(array.shape) < zeros, np.float32(0), array)


def inside(shape, zeros, block, seed=9):
    """Whether a pixel or voxel is not in one of the blocks that are empty; one for all channels."""
    coarse = np.random.default_rng(seed).random((shape[0], *(-(-size // block) for size in shape[1:-1]))) >= zeros
    for axis in range(1, coarse.ndim):
        coarse = coarse.repeat(block, axis)
    return coarse[tuple(slice(size) for size in shape[:-1])]


def one_nonzero(array):
    left = np.zeros_like(array)
    left.flat[array.size // 2] = 1
    return left


def calls(pass_, problem, x, w, g, packed=False, needed=None):
    """(ours, dense, PyTorch's) of a pass on these operands; `needed` is a mask of the result."""
    layout, shape, weight_shape = problem
    dims = len(shape) - 2
    options = {"padding": 1, "layout": layout, "num_threads": 1}
    mask = {} if needed is None else {"output_mask": needed}
    sparse = sc.pack_weight(w) if packed else w
    if pass_ == "forward":
        function, plain, first = getattr(sc, f"conv{dims}d"), (x, w), (x, sparse)
    elif pass_ == "backward_data":
        function, plain, first = getattr(sc, f"conv{dims}d_backward_data"), (g, w, shape), (g, sparse, shape)
    else:
        function, plain = getattr(sc, f"conv{dims}d_backward_weight"), (x, g, weight_shape)
        first = plain
    last = torch.channels_last if dims == 2 else torch.channels_last_3d
    tx, tg = (torch.from_numpy(np.moveaxis(one, -1, 1)) for one in (x, g))
    tw = torch.from_numpy(w).contiguous(memory_format=last)

    def theirs():
        if pass_ == "forward":
            return (torch.nn.functional.conv2d if dims == 2 else torch.nn.functional.conv3d)(tx, tw, padding=1)
        wanted = [pass_ == "backward_data", pass_ == "backward_weight", False]
        geometry = [1] * dims, [1] * dims, [1] * dims, False, [0] * dims, 1
        return torch.ops.aten.convolution_backward(tg, tx, tw, None, *geometry, wanted)

    return (
        lambda: function(*first, **options, **mask), lambda: function(*plain, **options, skip="none"), theirs,
    )  # fmt: skip


def rows():
    """(what is met, pass, calls)."""
    x, w, g = floats(MAP[1], 1), floats(MAP[2], 2), floats(MAP[1], 3)
    zero_x, zero_w = np.zeros_like(x), np.zeros_like(w)
    for what, sparse_x, sparse_g in (
        ("nothing but zeros", zero_x, zero_x), ("one nonzero", one_nonzero(x), one_nonzero(g)),
    ):  # fmt: skip
        yield f"activations: {what}", "forward", calls("forward", MAP, sparse_x, w, g)
        yield f"activations: {what}", "backward_weight", calls("backward_weight", MAP, sparse_x, w, g)
        yield f"gradients: {what}", "backward_data", calls("backward_data", MAP, x, w, sparse_g)
        yield f"gradients: {what}", "backward_weight", calls("backward_weight", MAP, x, w, sparse_g)
    for what, sparse_w in (
        ("nothing but zeros", zero_w), ("one nonzero", one_nonzero(w)), ("99.9% zeros", scattered(w, 0.999)),
    ):  # fmt: skip
        yield f"weights: {what}", "forward", calls("forward", MAP, x, sparse_w, g, packed=True)
        yield f"weights: {what}", "backward_data", calls("backward_data", MAP, x, sparse_w, g, packed=True)
        yield f"weights: {what}", "backward_weight", calls("backward_weight", MAP, x, w, g, needed=sparse_w)
    x, w, g = floats(VOLUME[1], 1), floats(VOLUME[2], 2), floats(VOLUME[1], 3)
    left = inside(x.shape, 0.85, 4)[..., None]
    for pass_ in ("forward", "backward_data", "backward_weight"):
        yield "volumes: 85% empty", pass_, calls(pass_, VOLUME, x * left, w, g * left)
    x, w, g = floats(MAP[1], 1), floats(MAP[2], 2), floats(MAP[1], 3)
    left = inside(x.shape, 0.6, 4)[..., None]
    for pass_ in ("forward", "backward_data", "backward_weight"):
        yield "blocks of 4 x 4: 60% masked", pass_, calls(pass_, MAP, x * left, w, g * left)
    needed = inside(x.shape, 0.6, 4, 10)
    yield "the same, of the result", "backward_data", calls("backward_data", MAP, x, w, g, needed=needed)
    for size in (16, 64):  # of a block of filters, by 16 channels
        grid = np.arange(128 // size * 8) % 5 < 2
        filters = np.repeat(np.repeat(np.random.default_rng(9).permutation(grid).reshape(-1, 8), size, 0), 16, 1)
        filters = np.ascontiguousarray(np.broadcast_to(filters[..., None, None], w.shape))
        what = f"blocks of {size} filters x 16 channels: {1 - filters.mean():.0%} masked"
        yield what, "backward_weight", calls("backward_weight", MAP, x, w, g, needed=filters)



def fastest(functions, seconds):
    best = [float("inf")] * len(functions)
    for function in functions:
        function()
    end, turns = time.perf_counter() + seconds, 0
    while turns < 5 or time.perf_counter() < end:
        for side, function in enumerate(functions):
            start = time.perf_counter()
            function()
            best[side] = min(best[side], time.perf_counter() - start)
        turns += 1
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="for each row")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    print(f"{sc.cpu.isa()}, PyTorch {torch.__version__}; maps 128,128,28 3x3, batch 8; volumes 64,64,24 3x3x3, batch 1")
    print("| zeros | pass | ms | dense ms | PyTorch ms | times dense | times PyTorch |\n|---|---|---|---|---|---|---|")
    slower = 0
    for what, pass_, functions in rows():
        ours, dense, theirs = fastest(functions, options.seconds)
        slower += ours > min(dense, theirs)
        print(
            f"| {what} | {pass_} | {ours * 1e3:.2f} | {dense * 1e3:.1f} | {theirs * 1e3:.1f} | {dense / ours:.1f} | "
            f"{theirs / ours:.1f} |", flush=True,
        )  # fmt: skip
    print(f"{slower} slower than dense or PyTorch")


if __name__ == "__main__":
    main()
