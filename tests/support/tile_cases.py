"""What the tests of tile kernels share: larger problems, errors beside PyTorch's, and that tiles compute."""

import contextlib
import dataclasses
import functools

import numpy as np
import pytest
from cases import Case, call, operands, oracle, sparse_floats
from plans import Planner

import sparseconv as sc

# More than one chunk, segment, lane block, channel tile; each a different way through _core/amx.py.
BIG_CASES = (
    Case(64, 96, (30, 30), (3, 3), padding=1, kind=1),  # several chunks, weights split ahead
    Case(160, 40, (9, 70), (3, 3), batch=3, stride=2, padding=1),  # strides, chunks of several images
    Case(288, 272, (7, 7), (3, 3), batch=3, padding=1, kind=1),  # weights split for each chunk
    Case(48, 80, (60, 61), (1, 1), batch=3, kind=1),  # one long row in segments
    Case(512, 33, (3, 400), (1, 5), padding=(0, 2)),  # rows longer than a chunk
    Case(70, 150, (19, 12), (3, 2), dilation=2, groups=2, padding=2, kind=2),
)


@contextlib.contextmanager
def active(built, fp16=False):
    """The package as on AMX, on one thread: some call runs in the emulation."""
    calls = len(built.calls)
    with built.active(fp16=fp16):
        yield
    assert len(built.calls) > calls


@functools.cache
def error_of_torch(case, name, make=sparse_floats):
    """Largest error over the largest result of PyTorch's float32 convolution, channels last as the kernels here.

    On one thread: several add parts of a long sum over positions, and lose less, the less the more they are.
    """
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    first, second, exact = floats(case, name, make)
    one, two = (torch.from_numpy(array).contiguous(memory_format=torch.channels_last) for array in (first, second))
    try:
        if name == "forward":
            result = torch.nn.functional.conv2d(one, two, **case.options)
        elif name == "backward_data":
            result = torch.nn.grad.conv2d_input(case.x_shape, two, one, **case.options)
        else:
            result = torch.nn.grad.conv2d_weight(one, case.weight_shape, two, **case.options)
    finally:
        torch.set_num_threads(threads)
    return np.abs(result.numpy() - exact).max() / np.abs(exact).max()


@functools.cache
def floats(case, name, make=sparse_floats):
    """Channels-first operands, and the float64 result, channels first. `make`: as in `operands`."""
    first, second = operands(case, name, 0.0, 5, make)
    plain = dataclasses.replace(case, kind=0)
    return first, second, oracle(plain, name, first.astype(np.float64), second.astype(np.float64))


def on_tiles(built, case, name, first, second):
    """The dense pass, once it was seen that tiles compute it: all but batches of no image and narrow groups."""
    before = len(built.calls)
    actual = call(sc, case, name, first, second, skip="none")
    kernel = call(Planner(), case, name, first, second, skip="none").kernel
    assert kernel.endswith("tiles") or case.groups > 1 or not case.batch
    assert len(built.calls) == before + kernel.endswith("tiles")
    return actual


def special(case, name, values, seed=3):
    """Operands of a pass, integers but for some elements of the first that are `values`."""
    first, second = operands(case, name, 0.0, seed)
    first = first.copy()
    rng = np.random.default_rng(seed)
    first.flat[rng.choice(first.size, len(values), replace=False)] = values
    return first, second
