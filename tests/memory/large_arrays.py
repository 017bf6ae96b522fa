"""Arrays of more than 2**31 elements in every pass, in less than 2 GB: ``python tests/memory/large_arrays.py``.

Nobody has written most of their memory, so it takes no room; or their elements are the same again and again. Each call
runs in a process of its own, and is one line: what it took, and whether the result is right. ``--quick`` leaves out
those that read all elements.
"""

import argparse
import mmap
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import sparseconv as sc
from sparseconv import masks, pruning

MOST = 2 << 20  # kB
SIDE = 46342  # its square has more than 2**31 elements
FAR = SIDE - 1
NORESERVE = 0x4000  # Linux: memory that is promised to nobody


def zeros(*shape, dtype=np.float32):
    """Zeros that take no memory."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NORESERVE)
    array = np.frombuffer(memory, dtype).reshape(shape)
    assert array.size > 2**31
    return array


def again(value, *shape):
    array = np.broadcast_to(np.float32(value), shape)
    assert array.size > 2**31
    return array


def far_apart(*shape):
    """An array to write to whose elements lie more than 2**31 elements from each other along each axis."""
    steps = [2**31 + 16]
    for size in reversed(shape[1:]):
        steps.append(steps[-1] * size)
    memory = mmap.mmap(-1, 4 * (steps[-1] * shape[0]), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NORESERVE)
    return np.ndarray(shape, np.float32, memory, 0, [4 * step for step in reversed(steps)])


def ones(*shape, value=1):
    return np.full(shape, value, np.float32)


def corner(layout="NCHW", channels=1):
    """An image whose last row and column have the only nonzeros, 3; and a window of stride FAR that meets them."""
    shape = {"NCHW": (1, channels, SIDE, SIDE), "NHWC": (1, SIDE, SIDE, channels)}[layout]
    x = zeros(*shape)
    (x[0, :, FAR, FAR] if layout == "NCHW" else x[0, FAR, FAR])[...] = 3
    return x


# --- elements far away, few of which are reached ---


def forward(layout, skip):
    y = sc.conv2d(corner(layout), ones(1, 1, 1, 1, value=2), stride=FAR, layout=layout, skip=skip)
    return y.reshape(2, 2), [[0, 0], [0, 6]]


def forward_blocked():
    x = zeros(1, 1, 11586, 11586, 16)
    x[0, 0, -1, -1] = 3
    return sc.conv2d(x, ones(16, 16, 1, 1), stride=11585, layout="NCHW16c")[0, 0, :, :, 5], [[0, 0], [0, 48]]


def forward_1d():
    x = zeros(1, 1, 2**31 + 1)
    x[..., -1] = 3
    return sc.conv1d(x, ones(1, 1, 1), stride=2**31), [[[0, 3]]]


def forward_3d():
    x = zeros(1, 1, 1300, 1300, 1300)
    x[..., -1, -1, -1] = 3
    return sc.conv3d(x, ones(1, 1, 1, 1, 1), stride=1299).reshape(-1), [0] * 7 + [3]


def forward_result():
    out = far_apart(2, 3, 2, 2)
    sc.conv2d(ones(2, 5, 2, 2), ones(3, 5, 1, 1, value=2), out=out)
    return out, np.full(out.shape, 10)


def backward_data(skip):
    grad = corner()
    dx = sc.conv2d_backward_data(grad, ones(1, 1, 1, 1, value=2), (1, 1, 2, 2), padding=((FAR - 1, 0),) * 2, skip=skip)
    return dx.reshape(2, 2), [[0, 0], [0, 6]]


def backward_data_result():
    out, mask = far_apart(1, 2, 2, 2), ones(1, 2, 2, 2)
    mask[0, 0] = 0
    sc.conv2d_backward_data(ones(1, 3, 2, 2), ones(3, 2, 1, 1), out.shape, output_mask=mask, skip="output", out=out)
    return out, mask * 3


def backward_weight(skip):
    x, grad = corner(), ones(1, 1, 2, 2, value=5)
    return sc.conv2d_backward_weight(x, grad, 1, stride=FAR, skip=skip), [[[[15]]]]


def backward_weight_result():
    out = far_apart(2, 3, 1, 2)
    sc.conv2d_backward_weight(ones(1, 3, 4, 5), ones(1, 2, 4, 4), (1, 2), out=out)
    return out, np.full(out.shape, 16)


def transposed():
    y = sc.conv_transpose2d(corner(), ones(1, 1, 1, 1, value=2), padding=((FAR - 1, 0),) * 2)
    return y.reshape(2, 2), [[0, 0], [0, 6]]


def transposed_backward():
    dx = sc.conv_transpose2d_backward_data(corner(), ones(1, 1, 1, 1, value=2), (1, 1, 2, 2), stride=FAR)
    return dx.reshape(2, 2), [[0, 0], [0, 6]]


def depthwise():
    x = zeros(1, 32768, 257, 257)
    x[0, -1, -1, -1] = 3
    y = sc.conv2d(x, ones(32768, 1, 1, 1), stride=256, groups=32768)
    return y[0, -2:].reshape(-1), [0] * 7 + [3]


QUICK = {
    "forward, NCHW": lambda: forward("NCHW", "auto"),
    "forward, NHWC": lambda: forward("NHWC", "auto"),
    "forward, skip input": lambda: forward("NHWC", "input"),
    "forward, skip weight": lambda: forward("NCHW", "weight"),
    "forward, NCHW16c": forward_blocked,
    "forward, 1d": forward_1d,
    "forward, 3d": forward_3d,
    "forward, depthwise": depthwise,
    "forward, result": forward_result,
    "backward_data": lambda: backward_data("none"),
    "backward_data, skip grad_output": lambda: backward_data("grad_output"),
    "backward_data, skip weight": lambda: backward_data("weight"),
    "backward_data, result": backward_data_result,
    "backward_weight": lambda: backward_weight("none"),
    "backward_weight, skip input": lambda: backward_weight("input"),
    "backward_weight, skip grad_output": lambda: backward_weight("grad_output"),
    "backward_weight, result": backward_weight_result,
    "conv_transpose2d": transposed,
    "conv_transpose2d_backward_data": transposed_backward,
}


# --- all elements are read ---


def forward_all():
    x = zeros(1, 64, 5800, 5800)
    x[0, -1, -1, -1] = 3
    return sc.conv2d(x, ones(1, 64, 1, 1), skip="input")[0, 0, -2:, -2:], [[0, 0], [0, 3]]


def backward_data_all():
    grad = zeros(1, 64, 5800, 5800)
    grad[0, -1, -1, -1] = 3
    dx = sc.conv2d_backward_data(grad, ones(64, 1, 1, 1), (1, 1, 5800, 5800), skip="grad_output")
    return dx[0, 0, -2:, -2:], [[0, 0], [0, 3]]


def backward_weight_all():
    return sc.conv2d_backward_weight(corner(), again(5, 1, 1, SIDE, SIDE), 1), [[[[15]]]]


def linear_all():
    x = zeros(2**27 + 1, 16)
    x[-1] = 3
    return sc.linear(x, ones(1, 16))[-2:, 0], [0, 48]


def linear_weight():
    weight = zeros(SIDE, SIDE)
    weight[-1] = 2
    return sc.linear(ones(1, SIDE), weight)[0, -2:], [0, 2 * SIDE]


def linear_weight_backward():
    weight = zeros(SIDE, SIDE)
    weight[-1] = 2
    return sc.linear_backward_data(ones(1, SIDE), weight)[0, -2:], [2, 2]


def linear_backward_weight_all():
    x = zeros(2**27 + 1, 16)
    x[-1] = 3
    return sc.linear_backward_weight(x, np.broadcast_to(np.float32(5), (2**27 + 1, 1)))[0], [15] * 16


def grad_bias_all():
    grad = corner()
    grad[0, 0, :3, 7] = 1
    return sc.grad_bias(grad), [6]


def nonzero_mask_all():
    bits = masks.nonzero_mask(corner())
    last = SIDE * SIDE - 1
    return np.array([bits[last // 8] >> last % 8 & 1, np.count_nonzero(bits)]), [1, 1]


def density_all():
    return np.array([masks.density(corner()) * SIDE**2]), [1]


def compress_all():
    made = sc.compress(corner())
    return np.array([made.values[0], len(made.values)]), [3, 1]


def topk_all():
    return np.array([pruning.topk_threshold(corner(), 0.5)]), [0]


ALL = {
    "forward, all elements": forward_all,
    "backward_data, all elements": backward_data_all,
    "backward_weight, all elements": backward_weight_all,
    "linear, all elements": linear_all,
    "linear, weight": linear_weight,
    "linear_backward_data, weight": linear_weight_backward,
    "linear_backward_weight, all elements": linear_backward_weight_all,
    "grad_bias, all elements": grad_bias_all,
    "masks.nonzero_mask": nonzero_mask_all,
    "masks.density": density_all,
    "compress": compress_all,
    "pruning.topk_threshold": topk_all,
}


def peak_kilobytes():
    """The most memory that this program has had; ru_maxrss begins with that of the process that started it."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1])


def run(name):
    """One call, in this process."""
    start = time.perf_counter()
    result, expected = (QUICK | ALL)[name]()
    seconds, peak = time.perf_counter() - start, peak_kilobytes()
    right = np.array_equal(np.asarray(result, np.float64), np.asarray(expected, np.float64))
    verdict = "right" if right else f"WRONG: got {result}, expected {expected}"
    verdict += "" if peak < MOST else ": TOO MUCH MEMORY"
    print(f"{name}: {seconds:.2f} s, {peak / 1024:.0f} MB, {verdict}", flush=True)
    return right and peak < MOST


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="only calls that read few elements, all in one process")
    parser.add_argument("--only", help="this call, in this process")
    options = parser.parse_args()
    if options.only:
        return 0 if run(options.only) else 1
    if options.quick:
        right = [run(name) for name in QUICK]
        return 0 if all(right) else 1
    codes = [subprocess.run([sys.executable, __file__, "--only", name]).returncode for name in QUICK | ALL]
    print(f"{len(codes)} calls, {sum(map(bool, codes))} failures")
    return 1 if any(codes) else 0


if __name__ == "__main__":
    sys.exit(main())
