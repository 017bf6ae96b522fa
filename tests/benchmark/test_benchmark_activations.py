"""Real zeros: what ``sparseconv train --save-activations`` records and ``sparseconv bench --activations`` measures."""

import csv
import io
import re
import sys

import numpy as np
import pytest
from commands import bench

from sparseconv.__main__ import main
from sparseconv.benchmark import activations, measure, peers
from sparseconv.benchmark.layers import parse
from sparseconv.benchmark.operands import PASSES, SPARSE_OPERANDS, random_operands

pytestmark = pytest.mark.usefixtures("unchanged_process")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A file of the demo's activations."""
    folder = tmp_path_factory.mktemp("recorded")
    file = folder / "new" / "activations"
    arguments = "train --limit 24 --epochs 1 --batch 12 --threads 1 --quiet --save-activations"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", io.StringIO())
        assert main([*arguments.split(), str(file), "--output", str(folder)]) == 0
    return file


def test_recorded(recorded):
    saved = activations.load(recorded)
    assert [one.name for one in saved] == [f"conv{number}" for number in range(1, 7)]
    assert set(saved[0].passes) == {"forward", "backward_weight"}  # nobody needs the gradient of the images
    assert all(set(one.passes) == set(PASSES) for one in saved[1:])
    assert str(saved[2].operands.layer) == "32,64,14 3x3"
    for one in saved:
        assert len(one.operands.x) == 12
        assert 0.2 < one.operands.sparsity("input") < 0.95
    assert saved[1].operands.sparsity("grad_output") >= 0.75  # behind max-pooling
    before, after = (saved[index].operands for index in (0, 1))
    output = np.asarray(peers.ours("forward", before, threads=1)())  # the second layer reads ReLU of it; bias apart
    assert np.corrcoef(np.maximum(output, 0).ravel(), after.x.ravel())[0, 1] > 0.9


def test_bench_recorded(recorded, capsys, tmp_path):
    file = tmp_path / "times.csv"
    assert bench("--activations", str(recorded), "--against", "dense", "--csv", str(file)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "batch 12" in lines[0]
    assert lines[2].split()[-3:] == ["zeros", "real", "random"]
    rows = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 2 * (6 * 3 - 1)
    assert [row["zeros"] for row in rows[:2]] == ["real", "random"]
    assert [row["name"] for row in rows[:4]] == ["conv1", "conv1", "conv2", "conv2"]
    saved = {one.name: one.operands for one in activations.load(recorded)}
    for row in rows:
        expected = max(saved[row["name"]].sparsity(operand) for operand in SPARSE_OPERANDS[row["pass"]])
        assert float(row["sparsity"]) == pytest.approx(expected, abs=1e-3)
        assert row["zeros_in"] == "+".join(SPARSE_OPERANDS[row["pass"]])


def test_bench_recorded_masks(recorded, capsys, tmp_path):
    """What a layer read is the mask of its gradient."""
    file = tmp_path / "times.csv"
    arguments = ["--activations", str(recorded), "--against", "dense"]
    assert bench(*arguments, "--zeros-in", "output", "--mask", "bits", "--csv", str(file)) == 0
    rows = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
    assert [row["name"] for row in rows[::2]] == [f"conv{number}" for number in range(2, 7)]
    assert {(row["pass"], row["zeros_in"], row["given"]) for row in rows} == {
        ("backward_data", "grad_output+output", "bits")
    }
    assert bench(*arguments, "--zeros-in", "weight") == 1
    expected = "zeros-in: got weight with --activations, expected input, grad_output, output"
    assert expected in capsys.readouterr().err


def test_random_twin_of_recorded_zeros(recorded, monkeypatch):
    """The random zeros beside real ones are as many, in the same operands."""
    seen = []
    monkeypatch.setattr(measure, "compare", lambda which, operands, settings: seen.append(operands) or (1.0, 1.0))
    list(measure.measure_saved(activations.load(recorded), PASSES, measure.Settings()))
    for real, random in zip(seen[::2], seen[1::2], strict=True):
        assert (real.x.shape, real.grad_output.shape) == (random.x.shape, random.grad_output.shape)
        for operand in ("input", "grad_output"):
            assert random.sparsity(operand) == pytest.approx(real.sparsity(operand), abs=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv1/layer": None}, "without a layer"),
        ({"conv1/weight": None}, "got conv1 without weight"),
        ({"conv1/layer": "a 3x3 layer"}, "layer: got 'a 3x3 layer', expected"),
        ({"conv1/passes": ["sideways"]}, "got conv1/passes ('sideways',), expected some of forward"),
        ({"conv1/input": np.zeros((2, 6, 6, 4), np.float32)}, "float32 (2, 6, 6, 4), expected float32 (2, 6, 6, 5)"),
        ({"conv1/input": np.zeros((2, 6, 6, 5))}, "got conv1/input of float64"),
    ],
)
def test_wrong_file(tmp_path, change, message):
    operands = random_operands(parse("5,7,6 3x3"), {}, batch=2, layout="NHWC")
    file = tmp_path / "one.npz"
    activations.save([activations.Saved("conv1", operands, PASSES)], file)
    (back,) = activations.load(file)
    np.testing.assert_array_equal(back.operands.grad_output, operands.grad_output)
    with np.load(file) as entries:
        entries = dict(entries) | change
    np.savez(file, **{name: value for name, value in entries.items() if value is not None})
    with pytest.raises(ValueError, match=re.escape(message)):
        activations.load(file)


def test_no_npz(tmp_path):
    (tmp_path / "text").write_text("no zip archive")
    with pytest.raises(ValueError, match="expected a file of 'sparseconv train --save-activations FILE'"):
        activations.load(tmp_path / "text")
