"""The command line: what it prints and where, and its exit codes."""

import json
import platform
import subprocess
import sys

import numpy as np
import pytest

import sparseconv
from sparseconv import cpu
from sparseconv.__main__ import main


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


@pytest.mark.parametrize("arguments", [["--help"], ["info", "--help"], ["train", "--help"]])
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
    assert main(["train"]) == 1
    assert capsys.readouterr().err == "sparseconv: interrupted\n"
