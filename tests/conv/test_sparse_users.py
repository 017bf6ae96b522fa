"""What users of sparse operands meet: nothing but zeros, one nonzero, volumes of scans, masks of blocks, weights of
which a thousandth is left. Integers, exact, every pass and every way of skipping.

How fast that is: ``bench/sparse_users.py``.
"""

from dataclasses import replace

import numpy as np
import pytest
from cases import PASSES, SKIPS, Case, call, in_layout, operands, oracle, result_in_layout, sparse_ints, to_layout
from comparisons import assert_exact

import sparseconv as sc

CASES = (
    Case(40, 33, (9, 14), (3, 3), padding=1),
    Case(33, 40, (9, 14), (3, 3), stride=2, padding=1, kind=1),
    Case(64, 48, (7, 7), (1, 1), kind=1),
    Case(32, 36, (7, 9), (3, 3), padding=1, groups=2, kind=2),
    Case(24, 24, (9, 9), (3, 3), padding=1, groups=24, kind=1),
    Case(17, 20, (5, 6, 7), (3, 3, 3), padding=1, kind=1),
    Case(24, 40, (5, 7), (4, 4), stride=2, padding=1, transposed=True),
)


def emptied(array, place):
    """Zeros but for one element: the first, the last, one in the middle; or none."""
    left = np.zeros_like(array)
    if place is not None:
        at = {"first": 0, "middle": array.size // 2, "last": -1}[place]
        left.flat[at] = 3
    return left


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_nothing_but_zeros_and_one_nonzero(isa, case, name):
    """In either operand, or in both."""
    pair = operands(case, name, 0.2)
    for place in (None, "first", "middle", "last"):
        for which in ((0,), (1,), (0, 1)):
            plain = [emptied(one, place) if at in which else one for at, one in enumerate(pair)]
            expected = oracle(case, name, *plain)
            assert expected.any() == (place is not None) or len(which) == 2 or case.stride == 2
            given = in_layout(case, name, *plain)
            for skip in SKIPS[name]:
                out = np.full_like(expected, 7)
                call(sc, case, name, *given, skip=skip, out=out)
                assert_exact(out, expected, f"{place} {which} {skip}")
            if name != "backward_weight":
                packed = sc.pack_weight(plain[1], groups=case.groups)
                actual = call(sc, case, name, given[0], packed, skip="weight")
                assert_exact(actual, expected, f"{place} {which} packed")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_masks_of_nothing_and_of_one(isa, case):
    """Of what is needed: all else is zero."""
    for name in ("backward_data", "backward_weight"):
        pair = operands(case, name, 0.2)
        given, whole = in_layout(case, name, *pair), oracle(case, name, *pair)
        for place in (None, "first", "middle", "last"):
            needed = emptied(whole, place)
            for mask in (needed, needed != 0, sc.masks.nonzero_mask(needed)):
                for skip in (*SKIPS[name], *(["output"] if name == "backward_data" else [])):
                    out = np.full_like(whole, 7)
                    call(sc, case, name, *given, skip=skip, output_mask=mask, out=out)
                    assert_exact(out, np.where(needed != 0, whole, np.float32(0)), f"{name} {place} {skip}")


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("kind", range(3))
def test_volumes(isa, name, kind):
    """Scans: 85% of the voxels are empty in all channels, most of them together."""
    case = Case(20, 24, (7, 11, 12), (3, 3, 3), padding=1, batch=1, kind=kind)
    rng = np.random.default_rng(0)
    first, second = operands(case, name, 0.1)
    inside = np.zeros(first.shape[2:], bool)
    inside[2:6, 3:9, 4:11] = rng.random((4, 6, 7)) < 0.8
    assert 0.83 < 1 - inside.mean() < 0.87
    first = first * inside
    expected = oracle(case, name, first, second)
    given = in_layout(case, name, first, second)
    voxels = np.broadcast_to(inside, (1, *inside.shape))
    mask = {"forward": "input_mask", "backward_data": "grad_output_mask", "backward_weight": "input_mask"}[name]
    for skip in SKIPS[name]:
        assert_exact(call(sc, case, name, *given, skip=skip), expected, skip)
        if kind < 2:
            assert_exact(call(sc, case, name, *given, skip=skip, **{mask: voxels}), expected, f"{skip} {mask}")


def blocks(shape, size, share, seed):
    """Bools of blocks of `size` voxels or pixels a side, a `share` of which is False; the same in all channels."""
    rng = np.random.default_rng(seed)
    coarse = [-(-length // size) for length in shape[2:]]
    kept = np.ones(np.prod(coarse), bool)
    kept[rng.permutation(kept.size)[: round(share * kept.size)]] = False
    kept = kept.reshape(coarse)
    for axis in range(len(coarse)):
        kept = kept.repeat(size, axis)
    return np.broadcast_to(kept[tuple(map(slice, shape[2:]))], shape)


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("kind", range(3))
def test_masks_of_blocks(isa, name, kind):
    """60% of the blocks are masked: in the operand, and in what is needed."""
    case = Case(36, 40, (16, 20), (3, 3), padding=1, kind=kind)
    first, second = operands(case, name, 0.2)
    kept = blocks(first.shape, 4, 0.6, 1)
    assert 0.55 < 1 - kept.mean() < 0.65
    first = first * kept
    given, expected = in_layout(case, name, first, second), oracle(case, name, first, second)
    word = "grad_output_mask" if name == "backward_data" else "input_mask"
    in_memory = to_layout(kept.astype(np.float32), case.layout) != 0
    for skip in SKIPS[name]:
        assert_exact(call(sc, case, name, *given, skip=skip), expected, skip)
        assert_exact(call(sc, case, name, *given, skip=skip, **{word: in_memory}), expected, f"{skip} {word}")
    if name == "forward":
        return
    if name == "backward_data":
        needed = result_in_layout(case, name, blocks(case.x_shape, 4, 0.6, 2).astype(np.float32)) != 0
    else:  # blocks of filters and channels
        needed = blocks((1, 1, *case.weight_shape[:2]), 4, 0.6, 2)[0, 0][..., None, None]
        needed = np.ascontiguousarray(np.broadcast_to(needed, case.weight_shape))
    for skip in (*SKIPS[name], *(["output"] if name == "backward_data" else [])):
        actual = call(sc, case, name, *given, skip=skip, output_mask=needed)
        assert_exact(actual, np.where(needed, expected, np.float32(0)), f"{skip} output_mask")


STEPS, KEPT = 100, 0.001


@pytest.mark.parametrize("kind", range(2))
def test_training_of_a_thousandth_of_the_weights(isa, kind):
    """100 steps of two layers at 99.9% zeros: the weights that NumPy's training has, bit for bit.

    All numbers are small multiples of powers of two, so that no sum is rounded in either.
    """
    channels = (48, 64), (64, 48)
    layers = [Case(*both, (5, 6), (3, 3), batch=3, padding=1, kind=kind) for both in channels]
    rng = np.random.default_rng(0)
    masks = [rng.random(case.weight_shape) < KEPT for case in layers]
    for mask in masks:
        assert 0.0005 < mask.mean() < 0.002
    start = [np.where(mask, rng.integers(1, 9, mask.shape) / 4, 0).astype(np.float32) for mask in masks]
    target = sparse_ints(layers[1].out_shape, 0.5, 8)

    def train(module, step):
        """The weights after so many steps, and the losses; `module` and `step` compute the passes."""
        weights, losses = [one.copy() for one in start], []
        for number in range(STEPS):
            x = sparse_ints(layers[0].x_shape, 0.5, number)
            hidden = np.maximum(step(module, layers[0], "forward", x, weights[0]), 0)
            error = step(module, layers[1], "forward", hidden, weights[1]) - target
            losses.append(float((error.astype(np.float64) ** 2).mean()))
            error = np.clip(np.round(error), -4, 4)
            back = step(module, layers[1], "backward_data", error, weights[1], hidden) * (hidden > 0)
            gradients = (
                step(module, layers[0], "backward_weight", x, np.clip(np.round(back), -4, 4), masks[0]),
                step(module, layers[1], "backward_weight", np.clip(np.round(hidden), 0, 8), error, masks[1]),
            )
            for weight, gradient, mask in zip(weights, gradients, masks, strict=True):
                weight -= np.where(mask, np.sign(gradient) / 16, 0).astype(np.float32)
                np.clip(weight, -4, 4, out=weight)
        return weights, losses

    def by_numpy(module, case, name, first, second, needed=None):
        plain = replace(case, kind=0)
        return oracle(plain, name, first, second)

    def by_us(module, case, name, first, second, needed=None):
        more = {}
        if name == "backward_data":
            more["output_mask"] = to_layout(needed, case.layout)
        elif name == "backward_weight":
            more["output_mask"] = needed
        given = in_layout(case, name, first, second)
        if name != "backward_weight":
            given = given[0], sc.pack_weight(second, mask=second != 0)
        result = call(module, case, name, *given, num_threads=2, **more)
        return result if name == "backward_weight" else np.moveaxis(result, -1, 1) if kind else result

    weights, losses = train(sc, by_us)
    expected, same_losses = expected_training(train, by_numpy)
    for weight, other, mask in zip(weights, expected, masks, strict=True):
        assert_exact(weight, other)
        assert not weight[~mask].any()
    assert losses == same_losses
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    assert any((weight != first).mean() > KEPT / 4 for weight, first in zip(weights, start, strict=True))


_EXPECTED = []


def expected_training(train, by_numpy):
    """Computed once for all instruction sets and layouts."""
    if not _EXPECTED:
        _EXPECTED.append(train(sc.reference, by_numpy))
    return _EXPECTED[0]
