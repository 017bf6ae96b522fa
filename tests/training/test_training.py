"""The demo's layers have the gradients of their functions, training learns, and the report keeps its promises.

One file, since network, loop and report are tested on the same short runs.
"""

import io
import json
import sys

import numpy as np
import pytest
from small_training import directional_derivative, stripes

from sparseconv.__main__ import main
from sparseconv._core.progress import Progress
from sparseconv.pruning import SWAT, Method
from sparseconv.training import methods, network, report, train
from sparseconv.training.measure import measure
from sparseconv.training.record import recorded


def check_layer(layer, x, rng):
    """Gradients of <layer(x), g> towards random directions, for the input and every parameter."""
    grad_output = rng.standard_normal(layer.forward(x.copy()).shape)
    grad_x = layer.backward(grad_output.copy())
    gradients = dict(getattr(layer, "gradients", {}))
    arrays = {"x": (x, grad_x)} | {name: (getattr(layer, name), grad) for name, grad in gradients.items()}
    for name, (array, gradient) in arrays.items():
        if gradient is None:
            continue
        assert gradient.shape == array.shape, name
        direction = rng.standard_normal(array.shape)
        numerical = directional_derivative(lambda: np.vdot(layer.forward(x.copy()), grad_output), array, direction)
        assert numerical == pytest.approx(np.vdot(gradient, direction), rel=1e-6, abs=1e-7), name


@pytest.mark.parametrize("kernel", [1, 3])
def test_convolution_gradients(kernel):
    rng = np.random.default_rng(2)
    layer = network.Convolution(3, 5, kernel, rng=rng, dtype=np.float64)
    layer.bias += rng.standard_normal(5)
    check_layer(layer, rng.standard_normal((2, 6, 4, 3)), rng)
    assert set(layer.gradients) == {"weight", "bias"}
    assert set(layer.calls) == {"forward", "backward_data", "backward_weight"}


def test_first_convolution_has_no_backward_data():
    rng = np.random.default_rng(2)
    layer = network.Convolution(1, 4, rng=rng, first=True, dtype=np.float64)
    check_layer(layer, rng.standard_normal((2, 4, 4, 1)), rng)
    assert set(layer.calls) == {"forward", "backward_weight"}


def test_linear_gradients():
    rng = np.random.default_rng(3)
    layer = network.Linear(24, 5, rng=rng, dtype=np.float64)
    check_layer(layer, rng.standard_normal((3, 2, 4, 3)), rng)
    assert set(layer.gradients) == {"weight", "bias"}


@pytest.mark.parametrize("layer", [network.ReLU(), network.MaxPool()])
def test_gradients_without_parameters(layer):
    rng = np.random.default_rng(4)
    check_layer(layer, rng.standard_normal((2, 4, 6, 3)), rng)


def test_max_pool():
    x = np.random.default_rng(5).integers(-2, 2, (3, 4, 6, 5)).astype(np.float32)  # many ties
    layer = network.MaxPool()
    squares = x.reshape(3, 2, 2, 3, 2, 5)
    np.testing.assert_array_equal(layer.forward(x), squares.max(axis=(2, 4)))
    grad_x = layer.backward(np.full((3, 2, 3, 5), 7, np.float32)).reshape(squares.shape)
    np.testing.assert_array_equal(np.count_nonzero(grad_x, axis=(2, 4)), 1)
    winners = (squares * (grad_x == 7)).sum(axis=(2, 4))
    np.testing.assert_array_equal(winners, squares.max(axis=(2, 4)))
    with pytest.raises(ValueError, match=r"\(4, 5\), expected even"):
        layer.forward(x[:, :, :5])


def test_relu_works_in_place():
    x = np.array([[-1, 0, 2]], np.float32)
    layer = network.ReLU()
    assert layer.forward(x) is x
    assert x.tolist() == [[0, 0, 2]]
    grad_output = np.ones_like(x)
    assert layer.backward(grad_output) is grad_output
    assert grad_output.tolist() == [[0, 0, 1]]


def test_cross_entropy():
    rng = np.random.default_rng(6)
    scores, labels = rng.standard_normal((4, 3)), np.array([0, 2, 1, 2])
    loss, gradient = network.softmax_cross_entropy(scores, labels)
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    assert loss == pytest.approx(-np.log(probabilities[np.arange(4), labels]).mean())
    direction = rng.standard_normal(scores.shape)
    numerical = directional_derivative(lambda: network.softmax_cross_entropy(scores, labels)[0], scores, direction)
    assert numerical == pytest.approx(np.vdot(gradient, direction), rel=1e-7)
    loss, gradient = network.softmax_cross_entropy(np.array([[1e4, 0]], np.float32), np.array([0]))
    assert loss == 0
    assert gradient.tolist() == [[0, 0]]


def test_network_gradients():
    rng = np.random.default_rng(7)
    small = network.build((8, 8), 3, widths=(4, 6), rng=rng, dtype=np.float64)
    for layer in small.weighted.values():
        layer.bias += rng.standard_normal(layer.bias.shape)  # keeps away from the corner of the ReLU
    x, labels = rng.random((3, 8, 8, 1)), np.array([2, 0, 1])
    small.step(x, labels)
    gradients = {name: dict(layer.gradients) for name, layer in small.weighted.items()}
    assert list(gradients) == ["conv1", "conv2", "conv3", "conv4", "linear"]
    for name, layer in small.weighted.items():
        for parameter in ("weight", "bias"):
            array = getattr(layer, parameter)
            direction = rng.standard_normal(array.shape)
            numerical = directional_derivative(lambda: small.step(x, labels)[0], array, direction)
            expected = np.vdot(gradients[name][parameter], direction)
            assert numerical == pytest.approx(expected, rel=1e-5, abs=1e-8), (name, parameter)


def test_initialisation():
    layer = network.Convolution(16, 64, rng=8)
    assert layer.weight.dtype == np.float32
    assert layer.weight.std() == pytest.approx(np.sqrt(2 / (16 * 9)), rel=0.05)
    assert not layer.bias.any()
    np.testing.assert_array_equal(layer.weight, network.Convolution(16, 64, rng=8).weight)
    with pytest.raises(ValueError, match=r"\(28, 30\), expected multiples of 4"):
        network.build((28, 30), 10)


def test_sgd():
    layer = network.Linear(2, 1, rng=9, dtype=np.float64)
    weight, bias = layer.weight.copy(), layer.bias.copy()
    layer.gradients = {"weight": np.array([[1.0, -2.0]]), "bias": np.array([3.0])}
    optimizer = network.SGD([layer], momentum=0.5, weight_decay=0.1)
    velocity = 0
    for _ in range(2):
        optimizer.step(0.2)
        velocity = 0.5 * velocity + layer.gradients["weight"] + 0.1 * weight
        weight = weight - 0.2 * velocity
    np.testing.assert_allclose(layer.weight, weight, rtol=1e-14)
    np.testing.assert_allclose(layer.bias, bias - 0.2 * (3 + 4.5), rtol=1e-14)


def trained(*, seed=11, num_threads=None, skip="auto", progress=None):
    small = network.build((8, 8), 2, widths=(4, 8), rng=seed, num_threads=num_threads)
    small.use(Method(), skip)
    settings = {"epochs": 8, "batch": 16, "learning_rate": 0.05, "rng": seed, "progress": progress}
    return small, train.fit(small, stripes(), stripes(), **settings)


def test_training_learns():
    _, history = trained()
    assert [epoch["epoch"] for epoch in history] == list(range(1, 9))
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert history[-1]["test_accuracy"] > 0.9
    assert all(epoch["seconds"] > 0 for epoch in history)


def test_training_is_reproducible():
    first, second, dense = trained(num_threads=1)[0], trained(num_threads=2)[0], trained(skip="none")[0]
    other = trained(seed=12)[0]
    for name, layer in first.weighted.items():
        np.testing.assert_array_equal(layer.weight, second.weighted[name].weight)
        np.testing.assert_allclose(layer.weight, dense.weighted[name].weight, atol=1e-3)
        assert not np.array_equal(layer.weight, other.weighted[name].weight)


@pytest.mark.parametrize("name", methods.NAMES)
def test_divergence_is_an_error(name):
    """Whoever notices first: the loss, or a method that cannot order NaN."""
    small = network.build((8, 8), 2, widths=(16, 16), rng=6)
    small.use(methods.make(name, 0.5, small, 6))
    with pytest.raises(FloatingPointError, match="learning rate below 1e"):
        train.fit(small, stripes(), stripes(), epochs=9, batch=16, learning_rate=1e30)


def test_accuracy():
    class Threshold:
        def forward(self, x, *, training):
            assert not training
            return np.stack([0.5 - x[:, 0, 0, 0], x[:, 0, 0, 0] - 0.5], axis=1)

    images = np.zeros((5, 2, 2), np.uint8)
    images[3:] = 255
    assert train.accuracy(Threshold(), images, np.array([0, 0, 1, 1, 1]), batch=2) == 0.8
    x = train.to_input(images)
    assert (x.shape, x.dtype, x.min(), x.max()) == ((5, 2, 2, 1), np.float32, 0, 1)


def test_measure():
    small, _ = trained()
    weights = small.weighted["conv2"].weight.copy()
    images, labels = stripes(32)
    measured = measure(small, train.to_input(images), labels, batch=16, repeats=2)
    np.testing.assert_array_equal(small.weighted["conv2"].weight, weights)
    passes = [(row["layer"], row["pass"]) for row in measured["layers"]]
    assert ("conv1", "backward_data") not in passes
    assert len(passes) == len(set(passes)) == 3 * 5 - 1
    rows = dict(zip(passes, measured["layers"], strict=True))
    assert rows["conv2", "backward_data"]["zeros"]["grad_output"] >= 0.75  # behind max-pooling
    zeros = 1 - np.count_nonzero(images[:16]) / images[:16].size, 1 - np.count_nonzero(images[16:]) / images[16:].size
    assert rows["conv1", "forward"]["zeros"]["input"] == pytest.approx(np.mean(zeros))
    assert rows["conv2", "forward"]["multiply_adds"] == 16 * 8 * 8 * 4 * 4 * 9
    assert rows["linear", "backward_data"]["multiply_adds"] == 16 * 2 * 128
    for row in measured["layers"]:
        assert 0 <= row["zero_fraction"] <= 1
        assert row["speedup"] == pytest.approx(row["seconds_dense"] / row["seconds"])
        assert row["skip"] in (*row["zeros"], "none", "weight")
    convolutions = [row for row in measured["layers"] if row["layer"] != "linear"]
    assert measured["convolutions"]["seconds"] == pytest.approx(sum(row["seconds"] for row in convolutions))
    assert measured["step"]["seconds"] > 0


def test_measure_under_a_method():
    """Zeros are those that the passes skip: of packed weights, and what the threshold takes of saved inputs."""
    small = network.build((8, 8), 2, widths=(16, 16), rng=6)
    small.use(SWAT(0.75, dense=["conv1"]))
    images, labels = stripes(16)
    measured = measure(small, train.to_input(images), labels, batch=16, repeats=2)
    zeros = {(row["layer"], row["pass"]): row["zeros"] for row in measured["layers"]}
    for layer in ("conv2", "conv3", "conv4"):
        assert zeros[layer, "forward"]["weight"] == pytest.approx(0.75, abs=1e-3)
        assert zeros[layer, "backward_data"]["weight"] == pytest.approx(0.75, abs=1e-3)
        assert zeros[layer, "backward_weight"]["input"] == pytest.approx(0.75, abs=1e-3)
        assert zeros[layer, "forward"]["input"] < 0.7
    assert zeros["conv1", "forward"]["weight"] == 0
    assert small.method.sparsity == 0.75
    assert {layer.skip for layer in small.weighted.values()} == {"auto"}


def test_measure_takes_turns(monkeypatch):
    """Each side goes first in half of the pairs that count; the sides are a method's calls and dense ones."""
    turns = []
    seconds = {"auto": 1.0, "none": 3.0}

    def timed(function):
        function()
        return seconds[turns[-1]]

    def noted(run, name):
        return lambda self, **options: [turns.append(name), run(self, **options)][1]

    original = network.Call.run
    monkeypatch.setattr("sparseconv.training.measure._seconds", timed)
    monkeypatch.setattr(network.Call, "run", noted(original, "auto"))
    monkeypatch.setattr(network.Call, "run_dense", noted(network.Call.run_dense, "none"))
    small = network.build((8, 8), 2, widths=(16,), rng=6)
    images, labels = stripes(4)
    measured = measure(small, train.to_input(images), labels, batch=4, repeats=2)
    rounds = ["none", "auto", "auto", "none", "none", "auto"]
    calls = 3 * 3 - 1
    assert turns[-7 * calls :] == (["auto", *rounds]) * calls  # first one that makes the array for results
    for row in measured["layers"]:
        assert (row["seconds"], row["seconds_dense"], row["speedup"]) == (1, 3, 3)


def report_row(name, which, multiply_adds, zeros, skip):
    fraction = zeros.get(skip, 0.9)
    return {
        "layer": name, "pass": which, "multiply_adds": multiply_adds, "zeros": zeros, "skip": skip,
        "zero_fraction": fraction,
    }  # fmt: skip


def test_comparison():
    """Shares weigh each pass with its multiply-adds; what no kernel skips is not skipped; differences are points."""
    rows = [
        report_row("a", "forward", 100, {"input": 0.5, "weight": 0.8}, "weight"),
        report_row("a", "backward_weight", 100, {"input": 0.8, "grad_output": 0.1}, "input"),
        report_row("b", "forward", 300, {"input": 0.4, "weight": 0.2}, "none"),
        report_row("b", "backward_data", 300, {"grad_output": 0.6, "weight": 0.2}, "grad_output"),
        report_row("b", "backward_weight", 300, {"input": 0.4, "grad_output": 0.5}, "grad_output"),
    ]
    whole, part = ({"seconds": one / 1000, "seconds_dense": 0.06, "speedup": 60 / one} for one in (40, 15))
    runs = [
        {"method": name, "layers": rows, "test_accuracy": accuracy, "step": whole, "convolutions": part}
        for name, accuracy in (("none", 0.88), ("swat", 0.866))
    ]
    lines = report.comparison({"runs": runs}).splitlines()
    shares = ["35.0%", "50.0%", "40.0%", "44.5%"]  # skipped: (80 + 80 + 0 + 180 + 150) / 1100
    assert lines[2].split() == ["none", *shares, "88.0%", "+0.0", "40.0", "1.50", "15.0", "4.00"]
    assert lines[3].split() == ["swat", *shares, "86.6%", "-1.4", "40.0", "1.50", "15.0", "4.00"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """One tiny run of the command: its exit code and output directory."""
    output = tmp_path_factory.mktemp("demo") / "new"
    with pytest.MonkeyPatch.context() as patch:
        stdout, stderr = io.StringIO(), io.StringIO()
        patch.setattr(sys, "stdout", stdout)
        patch.setattr(sys, "stderr", stderr)
        code = main([*"train --limit 24 --epochs 1 --batch 12 --threads 1 --output".split(), str(output)])
    return code, output, stdout.getvalue(), stderr.getvalue()


def test_command(demo):
    code, _, stdout, stderr = demo
    assert code == 0
    lines = stdout.splitlines()
    assert lines[0].split()[:2] == ["layer", "pass"]
    assert sum(line.startswith("conv") and "x3x3" in line for line in lines) == 6 * 3 - 1
    assert lines[-3].startswith("test accuracy: ")
    assert lines[-1].startswith("convolutions of a training step: ")
    assert "epoch 1: loss" in stderr
    assert "\r" not in stderr  # no bar without a terminal


def test_command_with_methods(tmp_path, capsys):
    """All are compared with none, which comes first; what is saved is what the network read, not what a method kept."""
    saved = tmp_path / "zeros.npz"
    options = "--limit 12 --epochs 1 --batch 12 --quiet --method swat none stochastic swat --sparsity 0.3 --output"
    assert main(["train", *options.split(), str(tmp_path), "--save-activations", str(saved)]) == 0
    result = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert result["sparsity"] == 0.3
    settings = [(run["method"], run["settings"]) for run in result["runs"]]
    stochastic = "StochasticGradientPruning(0.3, window=4)"
    assert settings == [("none", "Method()"), ("swat", "SWAT(0.3, period=1)"), ("stochastic", stochastic)]
    assert capsys.readouterr().out.endswith(f"\n\n{report.comparison(result)}\n")
    assert saved.exists()


def test_recorded_operands_are_whole():
    small, (images, labels) = network.build((8, 8), 2, widths=(16, 16), rng=6), stripes(4)
    small.use(SWAT(0.5, compress=True))
    small.step(train.to_input(images), labels)
    for one in recorded(small):
        assert one.operands.x is small.weighted[one.name].x


def test_report_json(demo):
    result = json.loads((demo[1] / "report.json").read_text(encoding="utf-8"))
    assert result["epochs"] == 1
    assert result["batch"] == 12
    assert result["threads"] == 1
    assert result["seed"] == 0
    assert result["train_images"] == result["test_images"] == 24
    assert {"version", "isa", "learning_rate", "sparsity", "parameters", "seconds"} <= result.keys()
    (run,) = result["runs"]
    assert (run["method"], run["settings"]) == ("none", "Method()")
    assert run["test_accuracy"] == run["history"][-1]["test_accuracy"]
    assert set(run["convolutions"]) == set(run["step"]) == {"seconds", "seconds_dense", "speedup"}
    assert set(run["layers"][0]) == {
        "layer",
        "pass",
        "operation",
        "weight_shape",
        "multiply_adds",
        "zeros",
        "zero_fraction",
        "skip",
        "kernel",
        "reason",
        "expected_speedup",
        "seconds",
        "seconds_dense",
        "speedup",
    }
    assert demo[2] == f"{report.table(run)}\n\n{report.summary(run)}\n"


def interrupt_at(monkeypatch, step, where="step"):
    """Ctrl-C in the so-many-th step of training, counted over all methods."""
    whole, calls = getattr(network.Network, where), []

    def interrupted(self, *arguments, **options):
        calls.append(self)
        if len(calls) == step:
            raise KeyboardInterrupt
        return whole(self, *arguments, **options)

    monkeypatch.setattr(network.Network, where, interrupted)


TRAIN = "train --limit 24 --batch 12 --epochs 3 --threads 1 --output"


@pytest.mark.parametrize("step, epochs", [(2, 1), (3, 1), (4, 2), (6, 3)])
def test_interrupted_training(capsys, monkeypatch, tmp_path, step, epochs):
    """What was learned until then is tested and reported, as a part of an epoch if need be; nothing is measured."""
    interrupt_at(monkeypatch, step)
    assert main([*TRAIN.split(), str(tmp_path)]) == 130
    captured = capsys.readouterr()
    assert captured.err.endswith("sparseconv: interrupted\n")
    assert f"interrupted in epoch {epochs} of 3" in captured.err
    result = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert result["interrupted"] is True
    (run,) = result["runs"]
    assert [one["epoch"] for one in run["history"]] == list(range(1, epochs + 1))
    assert run["test_accuracy"] == run["history"][-1]["test_accuracy"]
    assert 0 <= run["test_accuracy"] <= 1 and 0 <= run["history"][-1]["train_accuracy"] <= 1
    assert "layers" not in run
    assert captured.out == f"{report.text(result)}\n"
    assert f"test accuracy: {run['test_accuracy']:.1%}" in captured.out
    assert not (tmp_path / "report.png").exists()


def test_interrupted_before_the_first_step(capsys, monkeypatch, tmp_path):
    interrupt_at(monkeypatch, 1)
    assert main([*TRAIN.split(), str(tmp_path)]) == 130
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "sparseconv: interrupted\n")
    assert not list(tmp_path.iterdir())


def test_interrupted_measurement(capsys, monkeypatch, tmp_path):
    """The training was done: its history is whole."""
    interrupt_at(monkeypatch, 7)
    assert main([*TRAIN.split(), str(tmp_path)]) == 130
    result = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert [one["epoch"] for one in result["runs"][0]["history"]] == [1, 2, 3]
    assert result["interrupted"] is True


def test_interrupted_comparison(capsys, monkeypatch, tmp_path):
    """The method that was measured already is reported in full."""
    options = [*TRAIN.split(), str(tmp_path), "--method", "stochastic"]
    start = network.Network.use

    def use(self, method, skip="auto"):
        if type(method).__name__ == "StochasticGradientPruning":
            raise KeyboardInterrupt
        return start(self, method, skip)

    monkeypatch.setattr(network.Network, "use", use)
    assert main(options) == 130
    result = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert result["interrupted"] is True
    assert [run["method"] for run in result["runs"]] == ["none"]
    assert result["runs"][0]["layers"]
    assert report.table(result["runs"][0]) in capsys.readouterr().out


def test_an_earlier_report_is_kept(capsys, tmp_path):
    (tmp_path / "report.json").write_text("first", encoding="utf-8")
    (tmp_path / "report-1.png").write_bytes(b"of somebody")
    options = "train --limit 12 --epochs 1 --quiet --output".split()
    assert main([*options, str(tmp_path)]) == 0
    assert "the earlier report.json is now" in capsys.readouterr().err
    assert (tmp_path / "report-2.json").read_text(encoding="utf-8") == "first"
    assert (tmp_path / "report-1.png").read_bytes() == b"of somebody"
    second = (tmp_path / "report.json").read_bytes()
    assert json.loads(second)["interrupted"] is False
    assert main([*options, str(tmp_path)]) == 0
    assert (tmp_path / "report-3.json").read_bytes() == second
    assert (tmp_path / "report-2.json").read_text(encoding="utf-8") == "first"


def test_report_picture(demo):
    pytest.importorskip("matplotlib")
    assert (demo[1] / "report.png").read_bytes().startswith(b"\x89PNG")


def test_no_picture_without_matplotlib(demo, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = json.loads((demo[1] / "report.json").read_text(encoding="utf-8"))
    assert report.save_picture(result, tmp_path) is None
    assert not list(tmp_path.iterdir())


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("no_colour", ["", "1"])
def test_progress_bar(monkeypatch, no_colour):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("NO_COLOR", no_colour)
    monkeypatch.setenv("TERM", "xterm")
    with Progress() as progress:
        progress.advance(0.5, "half")
        progress.say("done")
    text = sys.stderr.getvalue()
    assert f"{'#' * 15}{'-' * 15}" in text
    assert " 50% half" in text
    assert text.endswith("done\n\r\033[K")
    assert ("\033[32m" in text) == (not no_colour)


@pytest.mark.parametrize(("stream", "quiet"), [(io.StringIO, False), (Terminal, True)])
def test_no_progress_bar(monkeypatch, stream, quiet):
    monkeypatch.setattr(sys, "stderr", stream())
    progress = Progress(quiet=quiet)
    progress.advance(0.5, "half")
    assert sys.stderr.getvalue() == ""
    progress.say("done")
    assert sys.stderr.getvalue() == ("" if quiet else "done\n")
