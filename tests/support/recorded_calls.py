"""Calls of the test suite's problems, for call_recorder.py: every kernel of every family, with small integers."""

import itertools

import numpy as np
import pytest
from cases import (
    FEW_CASES,
    PASSES,
    SKIPS,
    TRANSPOSED,
    Case,
    call,
    in_layout,
    operands,
    prepared,
    sparse_ints,
    to_layout,
)
from comparisons import assert_exact
from stochastic_oracle import second_key_of, uniform
from weight_patterns import PATTERNS

import sparseconv as sc
from sparseconv import pruning

MASKS = {"floats": lambda array: array, "bools": lambda array: array != 0, "bits": sc.masks.nonzero_mask}

CASES = (
    *FEW_CASES,
    Case(17, 24, (6, 7), (3, 3), padding=1, kind=1),
    Case(40, 33, (6, 7), (3, 3), padding=1),
    Case(40, 33, (7, 9), (3, 3), stride=2, padding=1, kind=1),
    Case(17, 24, (5, 6), (1, 1)),
    Case(16, 40, (8, 6), (3, 3), stride=2, dilation=3, padding=2, kind=2),
    Case(16, 24, (14, 14), (3, 3), batch=8, padding=1, kind=1),  # weights are packed ahead
    Case(8, 8, (3, 70), (1, 7), padding=(0, 3)),
)

NARROW = (
    Case(40, 40, (6, 9), (3, 3), padding=1, groups=40, kind=1),
    Case(24, 24, (6, 9), (3, 3), padding=1, groups=24),
    Case(24, 24, (9, 8), (3, 3), stride=2, padding=1, groups=24, kind=2),
    Case(17, 17, (7, 13), (5, 5), stride=2, padding=2, groups=17, kind=1),
    Case(20, 20, (9, 12), (2, 3), stride=(1, 3), dilation=(2, 2), padding=1, groups=20),
    Case(10, 10, (4, 9), (3, 3), padding=1, groups=5, kind=1),
    Case(24, 24, (4, 9), (3, 3), padding=1, groups=6, kind=1),
    Case(40, 40, (7, 8), (3, 3), stride=2, padding=1, groups=5, kind=1),
    Case(48, 48, (4, 6), (3, 3), padding=1, groups=3),
    Case(12, 18, (4, 7), (3, 3), padding=1, groups=6, kind=2),
    Case(3, 48, (4, 7), (3, 3), padding=1, groups=3, kind=1),
    Case(2, 2, (2500,), (3,), padding=1, groups=2),
    Case(16, 16, (60, 60), (3, 3), batch=5, padding=1, groups=16, kind=1),
    Case(24, 24, (3, 4, 5), (3, 3, 3), padding=1, groups=24, kind=1),
)


def record_passes(recorder, cases=(*CASES, *TRANSPOSED[:4])):
    for case in cases:
        for name in PASSES:
            first, second, expected = prepared(case, name, 0.5)
            for skip in SKIPS[name][1:]:
                recorder.name = f"{name} {case} {skip}"
                assert_exact(call(sc, case, name, first, second, skip=skip), expected)


def record_epilogues(recorder):
    case = Case(17, 48, (5, 14), (3, 3), padding=1, kind=1)
    x, weight = in_layout(case, "forward", *operands(case, "forward", 0.5))
    bias = sparse_ints((case.out_c,), 0, 9)
    for skip in SKIPS["forward"][1:]:
        recorder.name = f"bias, relu and its mask, {skip}"
        y, mask = call(sc, case, "forward", x, weight, bias=bias, skip=skip, activation="relu", return_mask=True)
        assert 0.2 < np.unpackbits(mask).mean() < 0.8
        assert np.count_nonzero(y) == np.unpackbits(mask).sum()


def record_residuals(recorder):
    """In every family, in vectors and through transposes, over themselves, at other strides."""
    cases = (
        Case(17, 48, (5, 14), (3, 3), padding=1, kind=1), Case(17, 33, (5, 14), (3, 3), padding=1),
        Case(33, 17, (6, 9), (3, 2), dilation=2, padding=((2, 1), (0, 3)), kind=2), TRANSPOSED[2], TRANSPOSED[5],
        Case(40, 40, (6, 9), (3, 3), padding=1, groups=40, kind=1), Case(24, 24, (4, 9), (3, 3), groups=6),
        Case(70, 33, (1, 1), (1, 1), batch=1),
    )  # fmt: skip
    for case in cases:
        x, weight = in_layout(case, "forward", *operands(case, "forward", 0.5))
        bias = sparse_ints((case.out_c,), 0, 9)
        residual = to_layout(5 * sparse_ints(case.out_shape, 0.3, 8), case.layout)
        for skip in SKIPS["forward"][1:]:
            recorder.name = f"residual {case} {skip}"
            words = {"bias": bias, "skip": skip, "activation": "relu"}
            expected = np.maximum(call(sc, case, "forward", x, weight, bias=bias, skip=skip) + residual, 0)
            assert_exact(call(sc, case, "forward", x, weight, residual=residual, **words), expected)
            other = residual.copy(order="F")
            assert_exact(call(sc, case, "forward", x, weight, residual=other, **words), expected)
            out = residual.copy()
            assert_exact(call(sc, case, "forward", x, weight, residual=out, out=out, **words), expected)


def record_thresholds(recorder):
    for name in PASSES:
        recorder.name = f"threshold {name}"
        for case in FEW_CASES[:3]:
            first, second = in_layout(case, name, *operands(case, name, 0.3))
            call(sc, case, name, first, second, threshold=2)  # some elements are equal to it
            first.flat[::97] = np.nan
            call(sc, case, name, first, second, threshold=0.5)


def record_zero_weights(recorder):
    """More weights than channels, taps and lists of any length, lanes of any number of images."""
    for case in (*FEW_CASES, Case(20, 18, (4, 31), (3, 3), batch=17, padding=1), TRANSPOSED[2]):
        for name in ("forward", "backward_data"):
            for pattern, make in PATTERNS.items():
                recorder.name = f"{pattern} {name} {case}"
                source, _ = in_layout(case, name, *operands(case, name, 0.1))
                weight = make(case.weight_shape, 0.5)
                weight[1], weight[-1].flat[0] = 0, 1e-40
                call(sc, case, name, source, sc.pack_weight(weight, groups=case.groups), skip="weight")
    recorder.name = "not finite"
    weight[0, 0], weight[-1, -1] = np.inf, np.nan
    sc.pack_weight(weight)


def record_views(recorder):
    recorder.name = "views"
    case = FEW_CASES[0]
    x, weight = operands(case, "forward", 0.5)
    grads = operands(case, "backward_data", 0.5)[0]
    room = np.full((2, 11, 29, 2 * case.in_c + 1), np.float32(1e9))
    moved = room[:, 1::2, 1::2, ::2].transpose(0, 3, 1, 2)[:, : case.in_c]
    moved[...] = x
    for skip in SKIPS["forward"]:
        out = np.zeros((2, 5, 14, 3 * case.out_c), np.float32)[..., ::3].transpose(0, 3, 1, 2)
        sc.conv2d(moved, weight[:, ::-1], padding=1, skip=skip, out=out)
    out = np.zeros((33, 3, 17, 3), np.float32).transpose(0, 2, 1, 3)
    sc.conv2d_backward_weight(moved, grads, 3, padding=1, out=out)


def record_output_masks(recorder):
    for case in FEW_CASES:
        first, second = in_layout(case, "backward_data", *operands(case, "backward_data", 0.5))
        needed = np.nan_to_num(in_layout(case, "forward", *operands(case, "forward", 0.5))[0])
        for skip, (kind, make) in itertools.product(("none", "grad_output", "output"), MASKS.items()):
            recorder.name = f"output_mask {kind} {case} {skip}"
            call(sc, case, "backward_data", first, second, skip=skip, output_mask=make(needed))
    recorder.name = "output_mask of a weight"
    case = FEW_CASES[0]
    x, grads = operands(case, "backward_weight", 0.5)
    mask = np.zeros(case.weight_shape, bool)
    mask[:20, 3:] = True
    mask[1::2, :, 1] = False
    for skip in SKIPS["backward_weight"][1:]:
        sc.conv2d_backward_weight(x, grads, 3, padding=1, skip=skip, output_mask=mask)


def record_operand_masks(recorder):
    """Masks leave out some elements that are not zero, so that reading the values instead would be seen."""
    scalars = [("forward", 0, "input"), ("backward_data", 0, "grad_output")]
    scalars += [("backward_weight", 0, "input"), ("backward_weight", 1, "grad_output")]
    orders = ((0, 1, 2, 3), (0, 2, 3, 1))
    for (name, place, scalar), (kind, make) in itertools.product(scalars, MASKS.items()):
        for case in (*FEW_CASES, Case(72, 17, (2, 70), (3, 3), batch=1, padding=1)):
            arrays = [np.nan_to_num(array) for array in in_layout(case, name, *operands(case, name, 0.3))]
            mask = np.where(np.random.default_rng(7).random(arrays[place].shape) < 0.6, arrays[place], 0)
            recorder.name = f"{scalar}_mask {kind} {name} {case}"
            call(sc, case, name, *arrays, skip=scalar, **{f"{scalar}_mask": make(mask)})
        for order in orders:  # masks whose memory is in another order than that of the operand
            recorder.name = f"{scalar}_mask {kind} {name} {order}"
            other = mask.transpose(order).copy().transpose(np.argsort(order))
            given = make(other) if kind != "bits" else make(mask)
            arrays[place] = arrays[place].transpose(order[::-1]).copy().transpose(np.argsort(order[::-1]))
            call(sc, case, name, *arrays, skip=scalar, **{f"{scalar}_mask": given})
    recorder.name = "input_mask and return_mask"
    case = Case(33, 64, (5, 14), (3, 3), padding=1, kind=1)
    x, weight = in_layout(case, "forward", *operands(case, "forward", 0.5))
    call(sc, case, "forward", x, weight, input_mask=x > 0, skip="input", activation="relu", return_mask=True)


def record_spikes(recorder):
    """Zeros and ones as bools and as bits."""
    for case in (*CASES[::4], Case(17, 48, (5, 14), (3, 3), padding=1, kind=1), Case(70, 33, (9, 4), (1, 1), kind=1)):
        for name in ("forward", "backward_weight"):
            x, other = in_layout(case, name, *operands(case, name, 0.5))
            for spikes in (x > 0, sc.pack_spikes(x > 0)):
                recorder.name = f"spikes {name} {case} {type(spikes).__name__}"
                expected = call(sc, case, name, (x > 0).astype(np.float32), other, skip="none")
                assert_exact(call(sc, case, name, spikes, other, skip="input"), expected)


def record_denormals(recorder):
    recorder.name = "denormals"
    x, weight = operands(FEW_CASES[0], "forward", 0.5)
    for skip in SKIPS["forward"]:
        sc.conv2d(np.where(x == 0, np.float32(1e-40), x), weight, padding=1, skip=skip)
    sc.conv2d(np.full_like(x, 1e-40), np.full_like(weight, np.inf), padding=1, skip="input")


def record_groups(recorder):
    """Narrow groups of every kind: packed and in place, vectors that overlap, phases, several segments and parts."""
    for case in NARROW:
        for name in PASSES:
            first, second, expected = prepared(case, name, 0.3)
            recorder.name = f"narrow groups {name} {case}"
            assert_exact(call(sc, case, name, first, second, skip="none"), expected)
    case = Case(32, 32, (5, 14), (3, 3), padding=1, groups=2, kind=1)
    x, weight = in_layout(case, "forward", *operands(case, "forward", 0.5))
    recorder.name = "narrow groups, bias, relu and its mask"
    bias = sparse_ints((32,), 0, 9)
    call(sc, case, "forward", x, weight, bias=bias, skip="none", activation="relu", return_mask=True)


def record_group_views(recorder):
    """Narrow groups whose lanes do not lie side by side, on either side of the kernel."""
    for case in (NARROW[1], NARROW[5], NARROW[7], NARROW[12]):
        for name in PASSES:
            first, second = operands(case, name, 0.3)
            recorder.name = f"views of narrow groups {name} {case}"
            room = np.full((*first.shape[::-1], 3), np.float32(1e9))
            moved = room[..., 1].T
            moved[...] = first
            call(sc, case, name, moved, second, skip="none", layout="NCHW")
            shape = {"forward": case.out_shape, "backward_data": case.x_shape}.get(name, case.weight_shape)
            out = np.zeros((*shape[::-1], 2), np.float32)[..., 0].T
            call(sc, case, name, first, second, skip="none", layout="NCHW", out=out)


def record_pixel_masks(recorder):
    """One value for all channels of a pixel, in memory of any order."""
    for case in (FEW_CASES[0], FEW_CASES[1], Case(72, 17, (2, 70), (3, 3), batch=1, padding=1)):
        x, weight = in_layout(case, "forward", *operands(case, "forward", 0.3))
        pixels = sparse_ints((case.batch, *case.in_size), 0.5, 3)
        for kind in ("floats", "bools"):
            recorder.name = f"pixel mask {kind} {case}"
            for mask in (pixels, np.repeat(pixels, 3, axis=-1)[..., ::3]):
                call(sc, case, "forward", x, weight, skip="input", input_mask=MASKS[kind](mask))
    recorder.name = "bits of whole words of channels"
    case = Case(128, 17, (3, 7), (3, 3), padding=1, kind=1)
    x, weight = in_layout(case, "forward", *operands(case, "forward", 0.3))
    call(sc, case, "forward", x, weight, skip="input", input_mask=sc.masks.nonzero_mask(x))


def record_bias_gradients(recorder):
    for case in FEW_CASES:
        recorder.name = f"grad_bias {case}"
        sc.grad_bias(in_layout(case, "backward_data", *operands(case, "backward_data", 0.3))[0], layout=case.layout)


def record_linear(recorder):
    recorder.name = "linear"
    x, weight = sparse_ints((9, 70), 0.5, 5), sparse_ints((37, 70), 0.3, 6)
    for skip in SKIPS["forward"][1:]:
        y = sc.linear(x, weight, bias=sparse_ints((37,), 0, 7), skip=skip)
    sc.linear_backward_weight(x, y)


def record_pruning(recorder):
    for dtype, (n, m) in itertools.product((np.float32, np.float64), ((2, 4), (3, 8), (8, 16), (16, 32))):
        w = np.random.default_rng(m).standard_normal((35, 70)).astype(dtype)
        ties = np.round(w)
        for axis in (0, 1):
            recorder.name = f"nm_mask {n}:{m} {w.dtype} {axis}"
            pruning.nm_mask(w, n, m, axis, pad=True)
            pruning.nm_mask(ties, n, m, axis, pad=True)
        for method in ("exact", "greedy", "entropy"):
            recorder.name = f"transposable {n}:{m} {w.dtype} {method}"
            pruning.transposable_nm_mask(w, n, m, method, pad=True)


def record_topk(recorder):
    """Up to 512 elements are sorted; 2^14 are an item, and large arrays take several passes."""
    normal = np.random.default_rng(8).standard_normal(40_000, np.float32)
    infinite = normal[:3000].copy()
    infinite[::5], infinite[1::7] = np.inf, -np.inf
    scales = np.float32(10) ** np.arange(-42, 38, 0.002, np.float32)  # subnormal ones, too
    arrays = {
        "large": normal, "scaled": normal * scales, "zeros": np.where(np.abs(normal) < 0.4, 0, normal)[:20_011],
        "ties": np.round(normal[:33_001] * 2), "infinite": infinite, "tiny": normal[:1], "few": normal[:37],
    }  # fmt: skip
    for name, x in arrays.items():
        recorder.name = f"topk {name}"
        for sparsity in (0, 0.3, 0.9):
            pruning.topk_mask(x, sparsity)
        threshold = pruning.topk_threshold(x, 0.5)
        recorder.name = f"above_mask {name}"
        sc.masks.above(x, threshold, 1)
    x = normal.copy()
    x[-1] = np.nan
    recorder.name = "topk of NaN"
    with pytest.raises(ValueError, match="NaN"):
        pruning.topk_mask(x, 0.5)
    recorder.name = "above_mask of NaN"
    sc.masks.above(x, 0.5, 1)


def record_stochastic(recorder):
    """Both passes of a call, the one that measures and the one that prunes; 2^15 elements are an item."""
    sizes = (1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 1000, (2 << 15) + 77)
    for dtype, size in itertools.product((np.float32, np.float64), sizes):
        g = np.random.default_rng(size).standard_normal(size).astype(dtype)
        recorder.name = f"stochastic_prune {size} {g.dtype}"
        pruning.stochastic_prune(g, 0.9, rng=size)
        recorder.name += " in place"
        pruning.stochastic_prune(g, 0.7, rng=size, out=g)
    for dtype in (np.float32, np.float64):
        g, limits = np.random.default_rng(9).standard_normal(500).astype(dtype), np.finfo(dtype)
        for scale in (limits.tiny, limits.max / 8):  # |g| is subnormal in part; tau is almost the largest number
            recorder.name = f"stochastic_prune {g.dtype} {scale}"
            pruning.stochastic_prune(g * scale, 0.99, rng=1)
        recorder.name = f"stochastic_prune {g.dtype} of many scales"  # another order of adding has another sum
        scales = np.exp2(np.linspace(-40, 10, 70_000)).astype(dtype)
        pruning.stochastic_prune(np.resize(g, scales.size) * scales, 0.9, rng=1)
        recorder.name = f"stochastic_prune {g.dtype} at what is drawn"
        pruner = pruning.GradientPruner(0.9, 1, rng=2)  # its threshold is from before
        pruner.prune(g)
        drawn = uniform(g.size, second_key_of(2)).astype(dtype) * dtype(pruner.thresholds[0])
        drawn[::2] = np.nextafter(drawn[::2], dtype(np.inf))
        assert pruner.prune(drawn).density == 0.5
        g[3], g[70], g[71], g[100:200] = np.nan, np.inf, -np.inf, 0
        recorder.name = f"stochastic_prune {g.dtype} not finite"
        pruner.prune(g)
        pruner.prune(g, out=g)


RECORDINGS = (
    record_passes, record_epilogues, record_residuals, record_thresholds, record_zero_weights, record_views,
    record_output_masks, record_operand_masks, record_pixel_masks, record_spikes, record_denormals, record_groups,
    record_group_views, record_bias_gradients, record_linear, record_pruning, record_topk, record_stochastic,
)  # fmt: skip
