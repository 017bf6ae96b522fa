"""How work is cut: equal shares for threads, weights packed once, lanes that are read where they lie."""

from math import ceil, prod

import numpy as np
import pytest
from cases import sparse_floats, sparse_ints
from comparisons import assert_exact, assert_same_bits
from task_structs import forget_plans

import sparseconv as sc
from sparseconv import reference
from sparseconv._core import _cpu, arrays, blocking, gradient, rows
from sparseconv.benchmark.layers import NETWORKS, parse

BATCH = 8
LAYERS = [parse(text) for text in NETWORKS["resnet50"]]
THREADS = (2, 3, 4, 8, 16)


def blocking_of(operation, *arguments, layer, **options):
    return sc.plan(operation, *arguments, **layer.options, layout="NHWC", **options).blocking


def zeros(*shape):
    return np.zeros(shape, np.float32)  # memory that nobody touches


def rows_work(layer, backward, skip, threads):
    """(chunks, shares of each chunk's lane blocks, lane blocks, whether weights are packed ahead)."""
    x, g = zeros(BATCH, *layer.in_size, layer.in_c), zeros(BATCH, *layer.out_size, layer.out_c)
    w, size, lanes = zeros(*layer.weight_shape), layer.out_size, layer.out_c
    if backward:
        size, lanes, options = layer.in_size, layer.in_c, {"output_mask": x} if skip == "output" else {}
        sizes = blocking_of(
            "conv2d_backward_data", g, w, x.shape, layer=layer, skip=skip, num_threads=threads, **options
        )
    else:
        sizes = blocking_of("conv2d", x, w, layer=layer, skip=skip, num_threads=threads)
    pointwise = layer.kernel == (1, 1) and layer.stride == 1  # merged to one row
    chunks = sizes["segments"] * (1 if pointwise else ceil(BATCH * size[0] / sizes["chunk_rows"]))
    return chunks, sizes["lane_groups"], ceil(ceil(lanes / 16) / sizes["lane_vectors"]), sizes["pack_ahead"]


@pytest.mark.parametrize("skip", ["input", "grad_output", "output"])
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_rows_are_shared_equally(isa, layer, skip):
    """Threads have equally many items, or so many that one more does not matter; heavy weights are not packed twice."""
    for threads in THREADS:
        size = layer.out_size if skip == "input" else layer.in_size
        chunks, shares, blocks, ahead = rows_work(layer, skip != "input", skip, threads)
        items = chunks * shares
        assert items % threads == 0 or items >= 3 * threads or shares == blocks, (threads, chunks, shares)
        if not ahead and blocks >= threads:
            assert chunks <= 1 + BATCH * prod(size) // rows.HEAVY_COLUMNS, threads
        chunks, shares, *_ = rows_work(layer, skip != "input", skip, 1)
        assert shares == 1


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_gradients_are_shared_equally(isa, layer):
    x, g = zeros(BATCH, *layer.in_size, layer.in_c), zeros(BATCH, *layer.out_size, layer.out_c)
    for threads in THREADS:
        options = layer.options | {"layout": "NHWC", "skip": "input", "num_threads": threads}
        plan = sc.plan("conv2d_backward_weight", x, g, layer.kernel, **options)
        sizes = plan.blocking
        blocks = ceil(ceil(layer.out_c / 16) / sizes["lane_vectors"])
        items = ceil(blocks / sizes["lane_blocks"]) * ceil(layer.in_c / sizes["channel_block"])
        least = gradient.WORD if plan.kernel == "gradient_points" else gradient.MIN_CHANNELS
        most = blocks * ceil(layer.in_c / least)
        assert items % threads == 0 or items >= 4 * threads or items == most, threads


@pytest.mark.parametrize("total, most", [(448, 19), (7, 2), (1, 5), (13, 100), (392, 64), (0, 3)])
@pytest.mark.parametrize("wanted", [2, 4, 8])
def test_shared(total, most, wanted):
    part = blocking.shared(total, most, wanted)
    assert 1 <= part <= max(1, most)
    parts = ceil(total / part)
    assert parts * part >= total
    assert total < wanted or ceil(total / (ceil(ceil(total / most) / wanted) * wanted)) == part
    assert blocking.shared(total, most, 1) == blocking.even(total, most)


def aligned(array, floats=0):
    """A copy at so many floats behind a cache line."""
    flat = arrays.empty((array.size + floats,), array.dtype)
    copy = flat[floats:].reshape(array.shape)
    copy[...] = array
    assert copy.ctypes.data % 64 == 4 * floats
    return copy


@pytest.mark.parametrize("lanes, groups", [(32, 1), (64, 1), (128, 1), (256, 1), (128, 2), (60, 1)])
@pytest.mark.parametrize(
    "kernel, padding, stride", [((1, 1), (0, 0), 1), ((1, 1), (0, 0), 2), ((1, 3), (0, 1), 1), ((3, 3), (1, 1), 1)]
)
def test_lanes_in_place(isa, lanes, groups, kernel, padding, stride):
    """Pixels of whole cache lines are read where they lie, other ones are copied: the same result, bit for bit."""
    x = sparse_ints((3, 13, 11, 48 * groups), 0.5, 1)
    size = [(n + 2 * p - k) // stride + 1 for n, k, p in zip((13, 11), kernel, padding, strict=True)]
    g = sparse_ints((3, *size, lanes * groups), 0.1, 2)
    options = {"layout": "NHWC", "groups": groups, "stride": stride, "padding": padding}
    expected = reference.conv2d_backward_weight(x, g, kernel, **options)
    for skip in ("none", "input", "grad_output"):
        for floats in (0, 4):
            made = sc.conv2d_backward_weight(aligned(x, floats), aligned(g, floats), kernel, skip=skip, **options)
            assert_exact(made, expected)
    x, g = sparse_floats(x.shape, 0.5, 3), sparse_floats(g.shape, 0.1, 4)
    for skip in ("none", "input", "grad_output"):
        made = [
            sc.conv2d_backward_weight(
                aligned(x, floats), aligned(g, floats), kernel, skip=skip, num_threads=threads, **options
            )
            for floats in (0, 4)
            for threads in (1, 3)
        ]
        for other in made[1:]:
            assert_same_bits(other, made[0])


# --- backward_weight with six accumulators ---


def gradient_plan(layer, skip="none", density=0.0):
    x = sparse_floats((2, *layer.in_size, layer.in_c), 1 - density, 1)
    grad = zeros(2, *layer.out_size, layer.out_c)
    options = {**layer.options, "layout": "NHWC", "skip": skip, "num_threads": 1}
    return sc.plan("conv2d_backward_weight", x, grad, layer.kernel, **options)


@pytest.mark.parametrize("l1_bytes", [0, 32 * 1024, 48 * 1024])
def test_lanes_and_channels_of_a_dense_gradient_share_l1(isa, monkeypatch, l1_bytes):
    """A line of channels for each position, and a vector of lanes, where there is one."""
    monkeypatch.setattr(_cpu, "l1_bytes", lambda: l1_bytes)
    forget_plans()
    for text in ("128,128,28 3x3", "512,512,7 3x3", "256,512,14 3x3/2", "64,64,28 3x3"):
        layer = parse(text)
        plan = gradient_plan(layer)
        if plan.kernel != "gradient_dense":
            continue  # tiles
        sizes = plan.blocking
        lanes = 4 * 16 * sizes["lane_vectors"] * sizes["chunk_rows"] * sizes["segment"]
        if _cpu.registers()[2] == 1 and layer.in_c > 64:
            assert 2 * lanes <= (l1_bytes or 32 * 1024)
            assert 3 * lanes > (l1_bytes or 32 * 1024) / 2, "a chunk is not much smaller than it may be"
        else:
            assert lanes <= gradient.LANE_TILE_BYTES
    forget_plans()


def test_threads_change_no_bit_of_a_dense_gradient(isa):
    """Chunks follow from all channels, not from those of a thread's block."""
    x, grad = (sparse_floats((3, 9, 11, 130), 0.0, seed) for seed in (1, 2))
    options = {"padding": 1, "layout": "NHWC", "skip": "none"}
    results = [sc.conv2d_backward_weight(x, grad, 3, **options, num_threads=threads) for threads in (1, 2, 3, 8)]
    assert np.count_nonzero(results[0]) == results[0].size
    for result in results[1:]:
        assert_same_bits(result, results[0])


def test_strided_layers_promise_less_with_six_accumulators(isa):
    """Strands of one tap are visited as often as those of two."""
    plans = [gradient_plan(parse(text), "input", 0.3) for text in ("128,256,28 3x3", "128,256,28 3x3/2")]
    if {plan.kernel for plan in plans} != {"gradient_skip"} or plans[0].blocking["listed"]:
        return  # lists
    speedups = [plan.speedup for plan in plans]
    if _cpu.registers()[2] == 1:
        assert 1 < speedups[1] < 0.8 * speedups[0]
    else:
        assert speedups[1] > 0.8 * speedups[0]
