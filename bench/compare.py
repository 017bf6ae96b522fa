"""Interleaved comparison against oneDNN (through torch, channels_last): one process, same threads, minima of pairs.

    python bench/compare.py --passes forward,backward_data,backward_weight --sparsities 0,.5,.8,.9 --layers resnet

Prints oneDNN's time divided by ours per layer, pass and sparsity, through the public API, NHWC arrays, plain weights
on both sides (packing counts). Run it with MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000, otherwise page
faults of results over 32 MB make the peer look slower than it is.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import numpy as np

# (channels, filters, size, kernel, stride); shapes of VGG16, ResNet-34 and ResNet-50
LAYERS = {
    "prototype": [
        (64, 64, 56, 3, 1), (128, 128, 28, 3, 1), (256, 256, 14, 3, 1), (512, 512, 7, 3, 1), (256, 256, 56, 3, 1),
        (64, 256, 56, 1, 1), (256, 64, 56, 1, 1), (512, 128, 28, 1, 1), (256, 1024, 14, 1, 1), (512, 2048, 7, 1, 1),
        (128, 128, 56, 3, 2),
    ],
    "vgg": [
        (64, 64, 224, 3, 1), (64, 128, 112, 3, 1), (128, 128, 112, 3, 1), (128, 256, 56, 3, 1), (256, 256, 56, 3, 1),
        (256, 512, 28, 3, 1), (512, 512, 28, 3, 1), (512, 512, 14, 3, 1),
    ],
}  # fmt: skip


def best_of_pairs(ours: Callable, theirs: Callable, rounds: int, seconds: float) -> tuple[float, float]:
    """Minimum times of two functions called in turn, at least `rounds` times or for `seconds`."""
    best = [float("inf"), float("inf")]
    for call in (ours, theirs):
        call()
    end, done = time.perf_counter() + seconds, 0
    while done < rounds or (time.perf_counter() < end and done < 50):
        for index, call in enumerate((ours, theirs)):
            start = time.perf_counter()
            call()
            best[index] = min(best[index], time.perf_counter() - start)
        done += 1
    return best[0], best[1]


def pair(layer: tuple, name: str, sparsity: float, batch: int, skip: str, threads: int) -> tuple[Callable, Callable]:
    """Our call and torch's for one layer, pass and sparsity of i.i.d. zeros."""
    import torch

    import sparseconv as sc

    channels, filters, size, kernel, stride = layer
    rng = np.random.default_rng(0)
    padding, out = kernel // 2, (size + 2 * (kernel // 2) - kernel) // stride + 1

    def zeros(*shape: int) -> np.ndarray:
        values = rng.standard_normal(shape, np.float32)
        values[rng.random(shape, np.float32) < sparsity] = 0
        return values

    dense_x = name == "backward_data"
    x_shape, dy_shape = (batch, size, size, channels), (batch, out, out, filters)
    x = rng.standard_normal(x_shape, np.float32) if dense_x else zeros(*x_shape)
    dy = zeros(*dy_shape) if dense_x else rng.standard_normal(dy_shape, np.float32)
    w = rng.standard_normal((filters, channels, kernel, kernel), np.float32)
    tx, tdy = (torch.from_numpy(a).permute(0, 3, 1, 2) for a in (x, dy))
    tw = torch.from_numpy(w).to(memory_format=torch.channels_last)
    keywords = {"stride": stride, "padding": padding, "layout": "NHWC", "skip": skip, "num_threads": threads}
    pads, steps = [padding] * 2, [stride] * 2
    if name == "forward":
        return (
            lambda: sc.conv2d(x, w, **keywords),
            lambda: torch.nn.functional.conv2d(tx, tw, stride=stride, padding=padding),
        )
    mask = [name == "backward_data", name == "backward_weight", False]
    peer = torch.ops.aten.convolution_backward
    theirs = lambda: peer(tdy, tx, tw, None, steps, pads, [1, 1], False, [0, 0], 1, mask)  # noqa: E731
    if name == "backward_data":
        return lambda: sc.conv2d_backward_data(dy, w, x.shape, **keywords), theirs
    return lambda: sc.conv2d_backward_weight(x, dy, kernel, **keywords), theirs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", default="forward,backward_data,backward_weight")
    parser.add_argument("--sparsities", default="0,.5,.8,.9")
    parser.add_argument("--layers", default="prototype", choices=LAYERS)
    parser.add_argument("--only", type=int, nargs="*", help="indices into the layer list")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--skip", default="auto", help="auto, none, or sparse: the operand of the pass")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="per cell")
    options = parser.parse_args()
    import torch

    import sparseconv as sc

    torch.set_num_threads(options.threads)
    if "MALLOC_MMAP_MAX_" not in os.environ:
        print("warning: MALLOC_MMAP_MAX_ is not set: page faults flatter us on big results")
    sparsities = [float(text) for text in options.sparsities.split(",")]
    print(f"isa {sc.cpu.isa()}, {options.threads} thread(s), batch {options.batch}, skip {options.skip}")
    layers = LAYERS[options.layers]
    for name in options.passes.split(","):
        print(f"{name:16s} oneDNN GF/s |" + "".join(f"{value:7.2f}" for value in sparsities))
        ratios = []
        for layer in [layers[i] for i in options.only] if options.only else layers:
            row = []
            for sparsity in sparsities:
                skip = options.skip
                if skip == "sparse":
                    skip = "grad_output" if name == "backward_data" else "input"
                calls = pair(layer, name, sparsity, options.batch, skip, options.threads)
                ours, theirs = best_of_pairs(*calls, 5, options.seconds)
                row.append(theirs / ours)
            ratios.append(row)
            channels, filters, size, kernel, stride = layer
            flops = 2 * options.batch * channels * filters * kernel**2 * ((size - 1) // stride + 1) ** 2
            text = f"{channels},{filters},{size} {kernel}x{kernel}/{stride}"
            print(f"{text:18s} {flops / theirs / 1e9:10.0f} |" + "".join(f"{value:7.2f}" for value in row), flush=True)
        print(f"{'geometric mean':29s} |" + "".join(f"{value:7.2f}" for value in np.exp(np.log(ratios).mean(0))))


if __name__ == "__main__":
    main()
