"""The command line: what it prints and where, and its exit codes."""

import json
import os
import platform
import re
import subprocess
import sys

import numpy as np
import pytest

import sparseconv
from sparseconv import cpu
from sparseconv.__main__ import main
from sparseconv._core import machine
from sparseconv.benchmark import command


def test_info(capsys):
    assert main(["info"]) == 0
    captured = capsys.readouterr()
    lines = [line for line in captured.out.splitlines() if not line.startswith(("build", "available"))]
    facts = dict(line.split(maxsplit=1) for line in lines)
    assert facts["version"] == sparseconv.__version__
    assert facts["isa"] == cpu.isa()
    assert facts["threads"] == str(cpu.num_threads())
    assert facts["python"] == platform.python_version()
    assert facts["numpy"] == np.__version__
    assert captured.out.count("\nbuild ") >= 1
    assert captured.err == ""


def test_info_json(capsys):
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["version"] == sparseconv.__version__
    assert facts["isa"] == cpu.isa()
    assert facts["available_isas"] == list(cpu.available_isas())
    assert facts["isa"] in facts["available_isas"]
    assert facts["threads"] == cpu.num_threads()
    assert facts["team"] == cpu.threads()
    assert facts["build"]


def test_module_runs():
    done = subprocess.run([sys.executable, "-m", "sparseconv", "info", "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["numpy"] == np.__version__


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        (["info", "--xml"], "unrecognized arguments: --xml"),
        (["train", "--epochs", "0"], "--epochs: got '0', expected a positive integer"),
        (["train", "--epochs", "1.5"], "--epochs: got '1.5', expected a positive integer"),
        (["train", "--batch", "many"], "--batch: got 'many', expected a positive integer"),
        (["train", "--threads", "-1"], "--threads: got '-1', expected a positive integer"),
        (["train", "--limit", "0"], "--limit: got '0', expected a positive integer"),
        (["train", "--seed", "-1"], "--seed: got '-1', expected an integer, at least 0"),
        (["train", "--learning-rate", "nan"], "--learning-rate: got 'nan', expected a positive number"),
        (["train", "--sparsity", "1"], "--sparsity: got '1', expected a number in [0, 1)"),
        (["train", "--sparsity", "-1"], "--sparsity: got '-1', expected a number in [0, 1)"),
        (["train", "--sparsity", "nan"], "--sparsity: got 'nan', expected a number in [0, 1)"),
        (["train", "--method", "foo"], "--method: invalid choice: 'foo' (choose from"),
        (["train", "--method"], "--method: expected at least one argument"),
        (["tune", "--isa", "mmx"], "--isa: invalid choice: 'mmx' (choose from"),
        (["tune", "--seconds", "-1"], "--seconds: got '-1', expected a number of at least 0"),
        (["tune", "--dry-run", "--remove"], "--remove: not allowed with argument --dry-run"),
        (["train", "--learning-rate", "0"], "--learning-rate: got '0', expected a positive number"),
    ],
)
def test_wrong_usage(capsys, arguments, message):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("arguments", [["--help"], ["info", "--help"], ["train", "--help"], ["tune", "--help"]])
def test_help(capsys, arguments):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 0
    assert capsys.readouterr().out.startswith("usage: sparseconv")


def test_missing_data(capsys, tmp_path):
    assert main(["train", "--data", str(tmp_path), "--output", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("sparseconv: error: ")
    assert "train-images-idx3-ubyte" in captured.err
    assert captured.out == ""


def test_output_is_no_directory(capsys, tmp_path):
    (tmp_path / "file").touch()
    assert main(["train", "--limit", "10", "--output", str(tmp_path / "file")]) == 1
    assert "file" in capsys.readouterr().err


def test_interrupt(capsys, monkeypatch):
    def interrupt(directory):
        raise KeyboardInterrupt

    monkeypatch.setattr("sparseconv.data.load", interrupt)
    assert main(["train"]) == 130
    assert capsys.readouterr().err == "sparseconv: interrupted\n"


def test_version(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"sparseconv {sparseconv.__version__}\n"


def test_info_of_the_computer(capsys):
    """What a bug report needs; PyTorch is looked up, not imported."""
    run = "import sys; from sparseconv.__main__ import main; main(['info', '--json'])"
    code = f"{run}; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["cpu"] == machine.cpu_model()
    assert facts["cores"].startswith(f"{os.cpu_count()} logical")
    assert facts["caches"] == machine.caches()
    assert facts["torch"] == machine.installed("torch")
    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["torch", *(facts["torch"] or "not installed").split()] for line in lines)


def test_nobody_reads_the_rest():
    """`sparseconv info | head -1`: no traceback, and the exit code that a shell gives for SIGPIPE."""
    reader = "import os, sys; sys.stdin.close(); os.close(0)"
    command = [sys.executable, "-m", "sparseconv", "train", "--help"]
    with subprocess.Popen([sys.executable, "-c", reader], stdin=subprocess.PIPE) as head:
        head.wait()
        done = subprocess.run([*command[:3], "info"], stdout=head.stdin, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 141
    assert done.stderr == ""


def test_batch_is_larger_than_the_data(capsys, tmp_path):
    assert main(["train", "--limit", "20", "--batch", "30", "--output", str(tmp_path / "new")]) == 1
    captured = capsys.readouterr()
    assert captured.err == "sparseconv: error: --batch: got 30, expected at most 20, as many images as there are\n"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("option", ["--csv", "--plot"])
@pytest.mark.parametrize("place, fragment", [
    ("missing/times.svg", "whose folder .* is not there"), ("folder.svg", "which is a folder, expected a file"),
])  # fmt: skip
def test_results_that_cannot_be_written(capsys, tmp_path, monkeypatch, option, place, fragment):
    """They are refused before anything is measured."""
    if option == "--plot":
        pytest.importorskip("matplotlib")
    (tmp_path / "folder.svg").mkdir()
    monkeypatch.setattr(command, "measure", lambda *_: pytest.fail("measured"))
    assert main(["bench", "--against", "dense", option, str(tmp_path / place)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.match(rf"sparseconv: error: {option}: got \S+, {fragment}", captured.err)


def test_picture_of_no_format(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    assert main(["bench", "--plot", str(tmp_path / "picture.foo")]) == 1
    assert "picture.foo', expected a name that ends with .svg, .png or .pdf" in capsys.readouterr().err


def test_help_says_what_the_prototype_is(capsys):
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    assert "prototype, the default, is one layer of each kind" in " ".join(capsys.readouterr().out.split())
