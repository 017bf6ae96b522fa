"""Training to the end (bench/training.py): the same beginning for all methods, zeros of every layer and pass, runs that
are not made twice, and the report's figures. How fast and how well anything trains does not matter here."""

import importlib
import json

import pytest
from places import ROOT

torch = pytest.importorskip("torch")

from sparseconv.torch import LayerReport, Report  # noqa: E402

pytestmark = pytest.mark.skipif(not (ROOT / "bench").exists(), reason="this source archive has no bench folder")

SMALL = ["--images", "96", "--epochs", "2", "--batch", "16", "--warm-up", "1", "--evaluations", "2", "--threads", "1"]


@pytest.fixture(scope="module")
def bench():
    """Import a module of bench/ as a package in the root of the project."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        yield lambda name: importlib.import_module(f"bench.{name}")


@pytest.fixture(scope="module")
def training(bench):
    threads, module = torch.get_num_threads(), bench("training")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "RATE", 0.01)  # its own is for a thousand steps
        yield module
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def stored(training, tmp_path_factory):
    """A file with one run of every method on both models."""
    path = tmp_path_factory.mktemp("training") / "runs.jsonl"
    training.main([*SMALL, "--seeds", "1", "--out", str(path)])
    return path


@pytest.fixture(scope="module")
def runs(training, stored):
    return {(run["model"], run["method"]): run for run in training.read(stored)}


def test_every_method_runs_on_every_model(training, runs):
    assert set(runs) == {(model, method) for model in training.MODELS for method in training.METHODS}
    for run in runs.values():
        assert [point[1] for point in run["points"]] == [48, 96, 144, 192]
        seconds = [point[0] for point in run["points"]]
        assert seconds == sorted(seconds) and seconds[0] > 0 and run["seconds"] == seconds[-1]
        assert all(0 <= point[2] <= 1 for point in run["points"])
        assert (run["conversion"] is None) == (run["method"] == "torch") == (run["conversion_seconds"] == 0)


def test_the_same_beginning(training, runs, tmp_path):
    """Methods share weights and order of images; seeds do not."""
    for model in training.MODELS:
        beginnings = {(run["initial"], run["order"]) for key, run in runs.items() if key[0] == model}
        assert len(beginnings) == 1
    path = tmp_path / "other.jsonl"
    training.main([*SMALL, "--seeds", "2", "--models", "vgg", "--methods", "torch", "--out", str(path)])
    first, second = training.read(path)
    assert (first["initial"], first["order"]) == (runs["vgg", "torch"]["initial"], runs["vgg", "torch"]["order"])
    assert first["initial"] != second["initial"] and first["order"] != second["order"]


@pytest.mark.parametrize("model", ["vgg", "resnet"])
def test_zeros_of_each_layer_and_pass(training, runs, model):
    layers = training.convolutions(training.MODELS[model]())
    assert len(layers) >= 4
    for method in training.METHODS:
        run = runs[model, method]
        assert list(run["multiply_adds"]) == layers
        assert len(run["zeros"]) == 2
        for zeros in run["zeros"]:
            assert list(zeros["forward"]) == list(zeros["backward_weight"]) == layers
            assert list(zeros["backward_data"]) == layers[1:]  # images need no gradient
            shares = [share for which in zeros.values() for layer in which.values() for share in layer]
            assert all(0 <= share <= 1 for share in shares)
            for layer in layers[1:]:
                x, weight = zeros["forward"][layer]
                gradient, same_weight, same_x = zeros["backward_data"][layer]
                saved, same_gradient = zeros["backward_weight"][layer]
                assert (weight, x, gradient) == (same_weight, same_x, same_gradient)
                assert 0.1 < x < 0.95  # behind a ReLU, in some cases with pooling
                expected = {"swat": 0.8, "nm": 0.5}.get(method, 0)
                assert weight == pytest.approx(expected, abs=0.01)
                # at least SWAT's share; ties of a threshold and thresholds of earlier steps make it differ
                assert saved > 0.6 if method == "swat" else saved == x
                if model == "resnet":  # batch normalisation leaves none, pruning makes some
                    assert (gradient > 0.2) == (method == "stochastic")
                else:
                    assert gradient > 0.2


def test_pruned_gradients_have_more_zeros(runs):
    """Those that go on to the layer before."""
    zeros = {method: runs["vgg", method]["zeros"][-1]["backward_data"] for method in ("converted", "stochastic")}
    for layer in ("2", "5"):
        assert zeros["stochastic"][layer][0] > zeros["converted"][layer][0] + 0.01


def test_needed_gradients(training):
    """Layers right behind a ReLU are told so where that is asked for, unless thresholds are taken of what they give."""
    report = Report([LayerReport(name, "Conv2d", True, "", input_is_relu=name != "5") for name in ("0", "2", "5", "7")])

    def told(method, needed):
        model = training.vgg()
        training.Pruning(method, model, 0, report, needed)
        return [name for name, module in model.named_modules() if getattr(module, "input_is_relu", False)]

    assert told("swat", True) == told("nm", True) == ["2", "7"]
    assert told("swat", False) == told("stochastic", True) == []


def test_runs_are_not_made_twice(training, stored, capsys):
    before = stored.read_text(encoding="utf-8")
    training.main([*SMALL, "--seeds", "1", "--out", str(stored)])
    assert stored.read_text(encoding="utf-8") == before
    assert capsys.readouterr().out == ""


def test_a_file_is_gone_on_with(training, tmp_path):
    path = tmp_path / "runs.jsonl"
    command = [*SMALL, "--seeds", "2", "--models", "vgg", "--methods", "torch", "nm", "--out", str(path), "--runs", "1"]
    for count in (1, 2, 3):
        training.main(command)
        assert len(training.read(path)) == count
    done = [(run["method"], run["seed"]) for run in training.read(path)]
    assert done == [("torch", 0), ("nm", 0), ("nm", 1)]  # whole seeds first; each begins with another method


def test_other_settings_are_refused(training, stored):
    with pytest.raises(ValueError, match="out: has a run with epochs 2, expected 1 as in this one"):
        training.main([*SMALL, "--epochs", "1", "--out", str(stored)])
    with pytest.raises(ValueError, match="warm_up: got 50, expected at least 1 and fewer than the 12 steps"):
        training.main([*SMALL, "--warm-up", "50", "--models", "vgg"])


def made(method, seed, points):
    """A run by hand."""
    zeros = {
        "forward": {"0": [0.0, 0.0], "1": [0.5, 0.8], "2": [0.75, 0.4]},
        "backward_data": {"1": [0.2, 0.8, 0.5], "2": [0.6, 0.4, 0.75]},
        "backward_weight": {"0": [0.0, 0.1], "1": [0.5, 0.2], "2": [0.75, 0.6]},
    }
    first = {which: {layer: [0.0] * len(shares) for layer, shares in one.items()} for which, one in zeros.items()}
    return {
        "model": "vgg", "method": method, "seed": seed, "points": points, "seconds": points[-1][0],
        "step_seconds": points[-1][0] / 400,
        "conversion_seconds": 0.5, "zeros": [first, zeros], "multiply_adds": {"0": 9, "1": 300, "2": 100},
    }  # fmt: skip


BY_HAND = [
    made("torch", 0, [[10, 100, 0.8], [20, 200, 0.92]]),
    made("torch", 1, [[12, 100, 0.7], [24, 200, 0.9]]),
    made("converted", 0, [[5, 100, 0.8], [10, 200, 0.92]]),  # twice as fast
    made("converted", 1, [[3, 100, 0.7], [6, 200, 0.9]]),  # four times
    made("swat", 0, [[10, 100, 0.6], [20, 200, 0.7]]),  # never there
]


def cells(text):
    """The rows of a Markdown table, without head."""
    return [[word.strip() for word in line.strip("|").split("|")] for line in text.splitlines()[2:]]


def test_figures_of_the_report(bench):
    report = bench("training_report")
    methods = report.by_method(BY_HAND, "vgg")
    assert report.target(methods, 0.01) == pytest.approx(0.9)
    assert report.seconds_to(BY_HAND[0], 0.9) == pytest.approx(10 + 10 * 0.1 / 0.12)
    assert report.seconds_to(BY_HAND[0], 0.4) == pytest.approx(5)
    assert report.seconds_to(BY_HAND[4], 0.9) is None
    torch_row, converted, swat = cells(report.times(BY_HAND, "vgg", 0.02))
    assert torch_row[:3] == ["PyTorch", "91.00 ± 1.41", "22.0 ± 2.8"]
    assert converted[4] == converted[6] == converted[8] == "3.00 ± 1.41" and converted[9] == "2 of 2"
    assert torch_row[5] == "55.0 ± 7.1" and torch_row[4] == torch_row[6] == torch_row[8] == "1"
    assert swat[4:] == ["1.00", "50.0", "1.00", "", "", "0 of 1"]  # one seed has both, and it never comes to 89%


def test_zeros_of_the_report(bench):
    report = bench("training_report")
    rows = cells(report.zeros(BY_HAND, "vgg"))
    assert len(rows) == 3
    # 300 and 100 multiply-adds; the first layer does not count
    expected = [(3 * first + second) / 4 for first, second in ((0.5, 0.75), (0.8, 0.4), (0.2, 0.6))]
    assert rows[0][1:4] == [f"{share:.0%}" for share in expected]
    first, middle, last = cells(report.layer_zeros(BY_HAND, "vgg"))[:3]
    assert first == ["converted", "`0`", "0%, 0% → 0%, 0%", "", "0%, 0% → 0%, 10%"]
    assert middle[2:] == ["0%, 0% → 50%, 80%", "0%, 0% → 20%, 80%", "0%, 0% → 50%, 20%"]
    assert last[1] == "`2`"


def test_command_and_picture(bench, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    file, pictures = tmp_path / "runs.jsonl", [tmp_path / "one.svg", tmp_path / "two.svg"]
    file.write_text("\n".join(map(json.dumps, BY_HAND)), encoding="utf-8")
    for picture in pictures:
        bench("training_report").main([str(file), "--layers", "--picture", str(picture)])
    out = capsys.readouterr().out
    assert out.count("**vgg**") == 2 and "3.00 ± 1.41" in out
    first, second = (picture.read_text(encoding="utf-8") for picture in pictures)
    assert first == second
    for word in ("seconds of training", "test accuracy, %", "converted", "SWAT, 80%"):
        assert word in first


def test_nothing_to_compare_with(bench, tmp_path):
    file = tmp_path / "runs.jsonl"
    file.write_text(json.dumps(BY_HAND[-1]), encoding="utf-8")
    with pytest.raises(SystemExit, match="has no run of torch"):
        bench("training_report").main([str(file)])


def test_page_says_what_is_stored(training, bench):
    """The tables of docs/training.md are those of the stored runs."""
    stored, page = ROOT / "bench" / "results" / "zen5" / "training.jsonl", ROOT / "docs" / "training.md"
    if not stored.exists() or not page.exists():
        pytest.skip("this source archive has no results")
    runs, text, report = training.read(stored), page.read_text(encoding="utf-8"), bench("training_report")
    models = {run["model"] for run in runs}
    assert models == set(training.MODELS)
    for model in models:
        for table in (report.times(runs, model), report.zeros(runs, model), report.layer_zeros(runs, model)):
            assert table in text
