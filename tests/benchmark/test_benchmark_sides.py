"""Both sides of a comparison: their operands, that they compute the same, and how they are timed."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from sparseconv.benchmark import measure, peers
from sparseconv.benchmark.layers import parse
from sparseconv.benchmark.operands import MASKS, PASSES, ZEROS_IN, random_operands

pytestmark = pytest.mark.usefixtures("unchanged_process")


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_random_operands(layout):
    layer = parse("32,16,12x10 3x3/2 n3")
    operands = random_operands(layer, {"grad_output": 0.75}, batch=2, layout=layout)
    assert operands.x.shape == ((3, 12, 10, 32) if layout == "NHWC" else (3, 32, 12, 10))
    assert operands.grad_output.shape == ((3, 6, 5, 16) if layout == "NHWC" else (3, 16, 6, 5))
    assert operands.weight.shape == (16, 32, 3, 3)
    assert operands.sparsity("grad_output") == pytest.approx(0.75, abs=0.05)
    assert operands.sparsity("input") < 0.001
    assert {array.dtype for array in (operands.x, operands.weight, operands.grad_output)} == {np.dtype(np.float32)}


def test_zeros_of_weights():
    """Scattered, in whole slices of one channel to one filter, or in whole filters; exactly so many of these."""
    weight = {
        place: random_operands(parse("24,16,4 3x3 g2"), {place: 0.75}, batch=1, layout="NHWC").weight
        for place in ("weight", "channel", "filters")
    }
    assert {one.shape for one in weight.values()} == {(16, 12, 3, 3)}
    assert np.mean(weight["weight"] == 0) == pytest.approx(0.75, abs=0.05)
    zero_slices = {place: np.mean((one == 0).all(axis=(2, 3))) for place, one in weight.items()}
    assert zero_slices["weight"] < 0.3  # of 9 weights each: 0.75**9 is 0.08
    assert zero_slices["channel"] == zero_slices["filters"] == 0.75
    zero_filters = {place: np.count_nonzero((one == 0).all(axis=(1, 2, 3))) for place, one in weight.items()}
    assert zero_filters["filters"] == 12
    assert zero_filters["channel"] < 6
    for place in ("channel", "filters"):  # no other zeros
        assert np.mean(weight[place] == 0) == pytest.approx(0.75, abs=0.002)


@pytest.mark.parametrize("place", ZEROS_IN)
def test_zeros_are_where_they_are_asked_for(place):
    arrays = {"input": "x", "output": "x", "grad_output": "grad_output"}
    for which, operand in ZEROS_IN[place].items():
        assert measure.Settings(zeros_in=place).sparse_operand(which) == operand
        operands = random_operands(parse("32,16,12 3x3"), {operand: 0.5}, batch=2, layout="NHWC")
        assert operands.sparsity(operand) == pytest.approx(0.5, abs=0.05)
        for name in ("x", "weight", "grad_output"):
            expected = 0.5 if name == arrays.get(operand, "weight") else 0
            assert np.mean(getattr(operands, name) == 0) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("peer", peers.PEERS)
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("which", PASSES)
@pytest.mark.parametrize("text", ["5,7,6 3x3", "8,12,9x6 3x5/2", "8,8,9 3x3 d2 g2", "3,5,8 1x1 n1", "4,4,9 2x2/3 p1"])
def test_sides_agree(peer, layout, which, text):
    if peer == "torch":
        pytest.importorskip("torch")
    operands = random_operands(parse(text), {"input": 0.5, "grad_output": 0.5}, batch=2, layout=layout)
    result = np.asarray(peers.ours(which, operands, threads=1)())
    np.testing.assert_allclose(result, dense_result(peer, which, operands), rtol=1e-5, atol=1e-4)


def dense_result(peer, which, operands):
    """What the peer computes, in our layout."""
    other = peers.PEERS[peer](which, operands, threads=1)()
    if peer == "torch":
        if isinstance(other, tuple):
            other = other[PASSES.index(which) - 1]
        if operands.layout == "NHWC" and which != "backward_weight":
            other = other.permute(0, 2, 3, 1)
        other = other.numpy()
    return other


@pytest.mark.parametrize("mask", ["float", "bits"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("place", MASKS)
def test_masked_sides_agree(place, layout, mask):
    """The peer computes everything; ours is zero where the mask is."""
    (which,) = ZEROS_IN[place]
    operands = random_operands(parse("8,12,9x6 3x5/2"), {place: 0.5}, batch=2, layout=layout)
    result = np.asarray(peers.ours(which, operands, threads=1, mask=mask)())
    needed = (operands.x if place == "output" else operands.weight) != 0
    assert not result[~needed].any()
    np.testing.assert_allclose(result[needed], dense_result("dense", which, operands)[needed], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("which", ZEROS_IN["weight"])
@pytest.mark.parametrize("place", ["weight", "channel"])
def test_packed_side_agrees(place, which):
    operands = random_operands(parse("8,12,9x6 3x5/2 g2"), {place: 0.8}, batch=2, layout="NHWC")
    result = peers.ours(which, operands, threads=1, skip="weight", packed=True)()
    np.testing.assert_allclose(result, dense_result("dense", which, operands), rtol=1e-5, atol=1e-4)


def test_more_keywords():
    operands = random_operands(parse("5,7,6 3x3"), {}, batch=2, layout="NHWC")
    _, mask = peers.ours("forward", operands, threads=1, activation="relu", return_mask=True)()
    assert mask.dtype == np.uint8


def test_pairs_are_taken_in_turn():
    calls = []
    seconds = measure.fastest_of_pairs(lambda: calls.append("a"), lambda: calls.append("b"), 0)
    assert calls == ["a", "b"] * 6  # once unmeasured
    assert all(0 <= one < 60 for one in seconds)


def test_skip_words(monkeypatch):
    skips = []
    monkeypatch.setattr(measure, "ours", lambda which, operands, *, skip, **more: skips.append(skip) or int)
    operands = random_operands(parse("5,7,6 3x3"), {}, batch=1, layout="NHWC")
    for settings in (
        measure.Settings(skip="none"),
        measure.Settings(skip="sparse"),
        measure.Settings(skip="sparse", zeros_in="grad_output"),
    ):
        for which in PASSES:
            measure.compare(which, operands, replace(settings, seconds=0))
    assert skips == ["none"] * 3 + ["input", "grad_output", "input"] + ["input", "grad_output", "grad_output"]


def test_what_ours_is_given(monkeypatch):
    """Masks where the zeros are those of a mask, packed weights where asked for, and the word that names the zeros."""
    given = []
    monkeypatch.setattr(measure, "ours", lambda which, operands, **options: given.append(options) or int)
    operands = random_operands(parse("5,7,6 3x3"), {}, batch=1, layout="NHWC")
    for settings in (
        measure.Settings(),
        measure.Settings(zeros_in="output"),
        measure.Settings(zeros_in="filters", mask="bits"),
        measure.Settings(zeros_in="weight"),
        measure.Settings(zeros_in="channel", packed=True),
    ):
        which = next(iter(ZEROS_IN[settings.zeros_in]))
        measure.compare(which, operands, replace(settings, skip="sparse", seconds=0))
        given[-1] |= {"given": settings.given}
    words = ("skip", "mask", "packed", "given")
    assert [tuple(one[word] for word in words) for one in given] == [
        ("input", None, False, "array"),
        ("output", "float", False, "float"),
        ("auto", "bits", False, "bits"),
        ("weight", None, False, "array"),
        ("weight", None, True, "packed"),
    ]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_keep_memory():
    """Behind keep_memory(), arrays of 64 MB reuse the pages of those before."""
    source = """
import resource
import numpy as np
from sparseconv.benchmark.measure import keep_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        np.empty(1 << 24, np.float32)[::1024] = 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if keep_memory():
    faults()
    print(faults())
"""
    environment = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    if not done.stdout:
        pytest.skip("this C library has no mallopt")
    assert int(done.stdout) < 1000  # 65,536 pages are touched
