"""Reports: `sparsity_report`, tables, data; ``sparseconv torch-report``; layers of exported programs."""

import json
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import sparseconv.torch as sct  # noqa: E402
from sparseconv.__main__ import main  # noqa: E402
from sparseconv.torch import exported, observe  # noqa: E402
from sparseconv.torch.report import LayerReport, PassReport, Report  # noqa: E402

SHAPE = (2, 3, 10, 9)
IMAGES = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
QUICK = sct.Config(seconds=0.0)

MODULE = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))

made = make()
number = 3
"""


def layers():
    """One of each kind of layer."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding="same", groups=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=2),
        nn.ReLU(), nn.ConvTranspose2d(8, 6, 3, stride=2, output_padding=1, dilation=2, bias=False), nn.ReLU(),
        nn.Flatten(2), nn.Conv1d(6, 4, 3), nn.ConvTranspose1d(4, 2, 3), nn.Unflatten(2, (1, 1, -1)),
        nn.Conv3d(2, 3, 1), nn.ConvTranspose3d(3, 2, (1, 1, 2)), nn.Flatten(2), nn.Linear(197, 5),
    ).eval()  # fmt: skip


@pytest.fixture
def model_module(tmp_path, monkeypatch):
    """A folder with a module that makes models, as a user would have it."""
    (tmp_path / "user_model.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("user_model", None)


def test_report_of_all_kinds_of_layers():
    model = layers()
    report = sct.sparsity_report(model, IMAGES, config=sct.Config(seconds=0.0, backward=True))
    assert not any(type(one).__module__.startswith("sparseconv") for one in model.modules())
    assert [layer.module for layer in report.layers] == [
        "Conv2d", "Conv2d", "ConvTranspose2d", "Conv1d", "ConvTranspose1d", "Conv3d", "ConvTranspose3d", "Linear",
    ]  # fmt: skip
    for layer in report.layers[1:]:
        assert set(layer.passes) == {"forward", "backward_data", "backward_weight"}
        assert all(one.speedup > 0 and one.kernel for one in layer.passes.values())
    assert 0.3 < report.layers[1].zeros["input"] < 0.7
    assert 0.2 < report.layers[1].zeros["grad_output"] < 0.8
    assert report.layers[1].passes["backward_data"].skip in ("grad_output", "output", "none")


def test_kernels_are_those_of_the_plan(monkeypatch):
    monkeypatch.setattr(observe, "fastest_of_pairs", lambda first, second, seconds: (1.0, 1.0))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.Flatten())
    x = torch.zeros(2, 32, 16, 16)
    x[:, ::8] = 1.0
    report = sct.sparsity_report(model, x, config=QUICK)
    assert report.layers[0].zeros["input"] == pytest.approx(7 / 8)
    assert report.layers[0].passes["forward"].kernel == "rows_skip"
    assert report.layers[1].passes["backward_data"].kernel in ("rows_output", "rows_dense", "rows_tiles")


def test_table():
    report = Report(
        [
            LayerReport(
                "conv", "Conv2d", True, "faster", (8, 3, 3, 3), (2, 3, 10, 9), 1, {"input": 0.61},
                passes={"forward": PassReport(0.004, 0.002, "rows_skip", "input")}, folded="norm+relu",
                seconds_before=0.004, seconds_after=0.002,
            ),
            LayerReport("fc", "Linear", False, "filter_fn", (5, 8)),
        ],
        threads=2, isa="avx2", model_seconds_before=0.01, model_seconds_after=0.005, notes=["a note"],
    )  # fmt: skip
    lines = str(report).splitlines()
    assert lines[0] == "1 of 2 layers with sparseconv (avx2, 2 threads)"
    assert lines[2].split() == [
        "conv", "2x3x10x9", "8x3x3x3", "61%", "rows_skip", "2.00", "4.00", "2.00", "sparseconv", "(+norm+relu)",
    ]  # fmt: skip
    assert lines[3].split() == ["fc", "5x8", "torch:", "filter_fn"]
    assert lines[4] == "whole model: 10.00 ms before, 5.00 ms after: 2.00 times as fast"
    assert lines[5] == "a note"
    assert "zeros dy" not in lines[1]


def test_data():
    report = sct.convert_(layers(), IMAGES, config=QUICK)
    data = json.loads(json.dumps(report.to_dict()))
    assert len(data["layers"]) == len(report.layers)
    assert data["layers"][1]["passes"]["forward"]["kernel"] == report.layers[1].passes["forward"].kernel
    assert data["threads"] == torch.get_num_threads()


# --- exported programs ---


def test_layers_of_exported_programs():
    model = layers()
    expected = model(IMAGES)
    program = torch.export.export(model, (IMAGES,)).module()
    found = exported.with_layers(program)
    assert torch.equal(found(IMAGES), expected)
    kinds = [type(one) for one in found.modules() if "Conv" in type(one).__name__ or type(one) is nn.Linear]
    assert sorted(one.__name__ for one in kinds) == sorted(
        ["Conv2d", "Conv2d", "ConvTranspose2d", "Conv1d", "ConvTranspose1d", "Conv3d", "ConvTranspose3d", "Linear"]
    )
    assert sct.convert_(found).converted == 8
    torch.testing.assert_close(found(IMAGES), expected)


def test_weights_that_are_computed_stay_functions():
    class Computed(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))

        def forward(self, x):
            return nn.functional.conv2d(x, self.weight * 2)

    program = torch.export.export(Computed(), (IMAGES,)).module()
    assert torch.equal(exported.with_layers(program)(IMAGES), program(IMAGES))
    with pytest.raises(ValueError, match="none of the layers"):
        sct.convert_(program)


# --- the command ---


def test_command_with_a_function(model_module, capsys):
    assert main(["torch-report", "user_model:make", "--sample", "2x3x10x9", "--seconds", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "of 2 layers" in lines[0]
    assert [line.split()[:3] for line in lines[2:4]] == [["0", "2x3x10x9", "8x3x3x3"], ["3", "2x8x8x7", "4x8x3x3"]]


def test_command_in_training_mode_and_json(model_module, capsys):
    np.save("images.npy", IMAGES.numpy())
    arguments = ["--sample", "images.npy", "--seconds", "0", "--train", "--json", "--channels-last", "--threads", "1"]
    threads = torch.get_num_threads()
    try:
        assert main(["torch-report", "user_model:made", *arguments]) == 0
    finally:
        torch.set_num_threads(threads)
    data = json.loads(capsys.readouterr().out)
    assert data["threads"] == 1
    assert set(data["layers"][1]["passes"]) == {"forward", "backward_data", "backward_weight"}


def test_command_with_an_exported_program(tmp_path, capsys):
    file, sample = tmp_path / "model.pt2", tmp_path / "sample.pt"
    torch.export.save(torch.export.export(layers(), (IMAGES,)), file)
    torch.save(IMAGES, sample)
    assert main(["torch-report", str(file), "--sample", str(sample), "--seconds", "0"]) == 0
    assert "of 8 layers" in capsys.readouterr().out


def test_command_with_folding(model_module, capsys):
    assert main(["torch-report", "user_model:make", "--sample", "2,3,10,9", "--seconds", "0", "--fold"]) == 0
    assert "whole model" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.pt2", "--sample", "1x3x8x8"], "nothing.pt2, which is no file"),
        (["user_model", "--sample", "1x3x8x8"], "expected a file that ends with .pt2, or module:function"),
        (["user_model:other", "--sample", "1x3x8x8"], "cannot be imported"),
        (["no_such_module:make", "--sample", "1x3x8x8"], "cannot be imported"),
        (["user_model:make", "--sample", "1x4x8x8"], "which the model rejects"),
        (["user_model:make", "--sample", "some.txt"], "expected a shape as 8x3x224x224"),
        (["user_model:make", "--sample", "missing.npy"], "missing.npy"),
        (["user_model:number", "--sample", "1x3x8x8"], "expected a torch.nn.Module"),
    ],
)
def test_command_with_bad_input(arguments, message, model_module, capsys):
    assert main(["torch-report", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("sparseconv: error: ")
    assert message in error
