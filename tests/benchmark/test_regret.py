"""``sparseconv bench --regret``: what "auto" loses by its choice. Nothing here depends on how fast anything is."""

import csv
from types import SimpleNamespace

import pytest
from commands import bench

from sparseconv import cpu
from sparseconv._core import _cpu
from sparseconv.benchmark import measure, regret
from sparseconv.benchmark.layers import parse
from sparseconv.benchmark.operands import PASSES

pytestmark = pytest.mark.usefixtures("unchanged_process")
LAYER = parse("16,16,6 3x3")


def cell(sparsity=0.5, promised=2.0, chosen="input", **seconds):
    return regret.Regret(LAYER, "forward", sparsity, chosen, promised, seconds)


def measured(monkeypatch, times, which="forward", **settings):
    """The cell of one layer whose calls take these seconds, in their order; without tile registers."""
    told = iter(times)
    monkeypatch.setattr(regret, "has_tiles", lambda: False)
    monkeypatch.setattr(regret, "fastest", lambda calls, seconds: [(call(), next(told))[1] for call in calls])
    [[found]] = regret.measure_regret([LAYER], [which], [0.9], measure.Settings(batch=2, **settings))
    return found


def test_a_wrong_choice():
    wrong = cell(auto=3.0, none=2.0, input=3.1)
    assert (wrong.best, wrong.ratio) == ("none", 1.5)
    assert wrong.kept == pytest.approx(2 / 3 / 2)
    assert str(wrong) == 'forward 16,16,6 3x3 at 50%: 1.50, "auto" took input, none was faster'


def test_a_right_choice():
    right = cell(auto=1.0, none=2.0, input=1.01)
    assert (right.best, right.wrong, right.ratio, right.kept) == ("auto", False, 1.0, 1.0)
    slow = cell(auto=1.25, none=2.0, input=1.0)
    assert (slow.best, slow.wrong, slow.ratio) == ("input", False, 1.25)
    assert str(slow) == "forward 16,16,6 3x3 at 50%: 1.25 to decide"


def test_summary():
    cells = [
        cell(auto=3.0, none=2.0, input=3.1), cell(auto=1.0, none=2.0, input=1.0),
        cell(auto=1.2, none=1.0, input=5.0, chosen="none"),
    ]  # fmt: skip
    first, worst, other, promises = regret.summary(cells)
    assert first == "3 cells: mean 1.233, worst 1.50, 2 above 1.05, 1 of them by a wrong choice"
    assert other.strip() == str(cells[2])
    assert worst.strip() == str(cells[0])
    assert promises.startswith("where zeros are skipped, 1 of 2 speed-ups are within 10%")
    assert "(0.33 to 1.00 of it, median 0.67)" in promises
    assert len(regret.summary(cells[2:])) == 2, "nothing is promised where nothing is skipped"


def test_all_choices_are_timed(monkeypatch):
    """Every operand that the pass could skip; `kept` compares with the dense kernel, which "none" is."""
    found = measured(monkeypatch, [1.0, 3.0, 2.0, 2.5], "backward_weight")
    assert found.seconds == {"auto": 1.0, "none": 3.0, "input": 2.0, "grad_output": 2.5}
    assert found.chosen in ("none", "input")
    assert found.kept == 3.0 / found.promised
    masked = measured(monkeypatch, [1.0] * 4, "backward_data", zeros_in="output")
    assert list(masked.seconds) == ["auto", "none", "grad_output", "output"]
    weights = measured(monkeypatch, [1.0] * 4, zeros_in="channel", packed=True)
    assert list(weights.seconds) == ["auto", "none", "input", "weight"]


def test_vectors_are_a_choice_beside_tiles(monkeypatch):
    """On CPUs with tile registers the dense vector kernels of the instruction set below, which "auto" may not take."""
    first, *others = cpu.available_isas()
    if not others:
        pytest.skip("one instruction set alone")
    used = []
    monkeypatch.setattr(regret, "ours", lambda which, operands, **options: lambda: used.append(cpu.isa()))
    monkeypatch.setattr(regret, "plan_for", lambda *arguments, **options: SimpleNamespace(skip="none", speedup=1.0))
    monkeypatch.setattr(regret, "fastest", lambda calls, seconds: [call() or 1.0 for call in calls])
    monkeypatch.setattr(regret, "has_tiles", lambda: True)
    with cpu.use_isa(first):
        [[found]] = regret.measure_regret([LAYER], ["forward"], [0.5], measure.Settings(batch=2))
        assert list(found.seconds) == ["auto", "none", "input", f"none ({others[0]})"]
        assert used == [first] * 3 + [others[0]]
        assert cpu.isa() == first


def test_command(capsys, tmp_path):
    file = tmp_path / "regret.csv"
    words = "--regret", "--layers", "5,7,6 3x3", "18,20,4 1x1", "--sparsities", "0,.9", "--csv", str(file)
    assert bench(*words) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    title, *lines = captured.out.splitlines()
    assert title == f'time of skip="auto" / the fastest choice; {cpu.isa()}, 1 thread(s), batch 2, NHWC'
    assert [line.split()[0] for line in lines[:9]] == [word for which in PASSES for word in (which, "5,7,6", "18,20,4")]
    assert all(len(line.split("|")[1].split()) == 2 for line in lines[:9])
    assert lines[9].startswith("12 cells: mean ")
    rows = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
    assert list(rows[0]) == list(regret.COLUMNS)
    tiles = _cpu.has_tiles()
    assert len(rows) == 2 * 2 * ((3 + tiles) + (3 + tiles) + (4 + tiles))
    assert {row["choice"] for row in rows if row["pass"] == "forward"} >= {"auto", "none", "input"}
    assert all(float(row["seconds"]) > 0 for row in rows)
    assert {(row["pass"], row["zeros_in"], row["given"]) for row in rows} == {
        ("forward", "input", "array"), ("backward_data", "grad_output", "array"), ("backward_weight", "input", "array")
    }  # fmt: skip
    for row in rows:
        same = [one for one in rows if all(one[key] == row[key] for key in ("pass", "layer", "sparsity"))]
        assert len({one["choice"] for one in same}) == len(same)


@pytest.mark.parametrize(
    ("option", "value"), [("--against", "dense"), ("--skip", "none"), ("--plot", "a.svg"), ("--activations", "a.npz")]
)
def test_options_that_mean_nothing_there(option, value, capsys):
    assert bench("--regret", option, value) != 0
    assert f"{option[2:]}: got {value} with --regret, expected no {option}" in capsys.readouterr().err
