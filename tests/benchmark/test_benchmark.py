"""``sparseconv bench``: tables and files hold what was measured.

Nothing here depends on how fast anything is.
"""

import csv
import subprocess
import sys

import pytest
from commands import bench

from sparseconv import cpu
from sparseconv.benchmark import command, measure, peers, report
from sparseconv.benchmark.layers import SETS, parse
from sparseconv.benchmark.operands import PASSES, ZEROS_IN

TINY = ["5,7,6 3x3", "18,20,4 1x1"]
pytestmark = pytest.mark.usefixtures("unchanged_process")


@pytest.mark.parametrize("against", peers.PEERS)
def test_command(against, capsys, tmp_path):
    if against == "torch":
        pytest.importorskip("torch")
    file = tmp_path / "times.csv"
    assert (
        bench("--layers", *TINY, "9,9,5 3x3/2", "--against", against, "--sparsities", "0,.5", "--csv", str(file)) == 0
    )
    captured = capsys.readouterr()
    assert captured.err == ""
    head, memory, *lines = captured.out.splitlines()
    assert {"torch": "oneDNN", "dense": 'skip="none"'}[against] in head
    assert f"{cpu.isa()}, 1 thread(s), batch 2, NHWC, skip auto" in head
    assert memory == "malloc keeps freed memory: no page faults in the times"
    starts = [line.split("|")[0].split() for line in lines if line]
    assert [words[0] for words in starts] == [
        word for which in PASSES for word in (which, "5,7,6", "18,20,4", "9,9,5", "mean", "mean")
    ]
    assert starts[4] == ["mean", "of", "3x3", "(2)"]
    rows = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
    assert list(rows[0]) == list(report.COLUMNS)
    assert len(rows) == 3 * 3 * 2
    assert [row["pass"] for row in rows[::6]] == list(PASSES)
    assert {(row["layer"], row["kernel_size"], row["stride"]) for row in rows} == {
        ("5,7,6 3x3", "3x3", "1"),
        ("18,20,4 1x1", "1x1", "1"),
        ("9,9,5 3x3/2", "3x3", "2"),
    }
    assert {row["peer"] for row in rows} == {against}
    assert {(row["isa"], row["threads"], row["batch"], row["zeros"]) for row in rows} == {
        (cpu.isa(), "1", "2", "random")
    }
    for row in rows:
        assert float(row["speedup"]) == pytest.approx(float(row["peer_seconds"]) / float(row["seconds"]), rel=1e-3)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_command_options(layout, capsys):
    before = cpu.isa()
    arguments = (
        "--against dense --passes backward_weight,forward --sparsities .5 --threads 2 --skip sparse --isa scalar"
    )
    assert bench(*arguments.split(), "--layers", "8,8,9 3x3 g2", "--layout", layout, "--zeros-in", "grad_output") == 0
    out = capsys.readouterr().out
    assert f"scalar, 2 thread(s), batch 2, {layout}, skip sparse" in out
    assert [line.split()[0] for line in out.splitlines()[2:] if line] == [
        "backward_weight", "8,8,9", "forward", "8,8,9",
    ]  # fmt: skip
    assert cpu.isa() == before


@pytest.mark.parametrize("skip", ["auto", "sparse"])
@pytest.mark.parametrize(
    ("arguments", "text", "given"),
    [
        (["output"], "output (mask: float)", "float"),
        (["output", "--mask", "bits"], "output (mask: bits)", "bits"),
        (["filters"], "filters (mask: float)", "float"),
        (["weight"], "weight (packed in the call)", "array"),
        (["channel", "--packed"], "channel (packed before)", "packed"),
    ],
)
def test_command_zeros(arguments, text, given, skip, capsys, tmp_path):
    """Without --passes, the passes that have such zeros; the file says where the zeros were."""
    file = tmp_path / "times.csv"
    rest = f"--against dense --sparsities 0,.5 --skip {skip} --csv".split()
    assert bench("--layers", "18,20,4 3x3 g2", "--zeros-in", *arguments, *rest, str(file)) == 0
    head, _, *lines = capsys.readouterr().out.splitlines()
    assert head.endswith(f", skip {skip}, zeros in {text}")
    assert [line.split()[0] for line in lines[::3]] == list(ZEROS_IN[arguments[0]])
    rows = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
    assert [row["pass"] for row in rows[::2]] == list(ZEROS_IN[arguments[0]])
    assert {(row["zeros_in"], row["given"], row["skip"]) for row in rows} == {(arguments[0], given, skip)}
    assert [row["sparsity"] for row in rows[:2]] == ["0", "0.5"]


def test_summary():
    def row(text, which="forward", **times):
        return [measure.Cell(parse(text), which, 2, 0.5, 1.0, speedup) for speedup in times.values()]

    lines = report.summary([row("8,8,8 3x3", a=2, b=3), row("8,9,8 3x3", a=8, b=3), row("8,8,8 1x1", a=4, b=1)])
    assert [line.split("|")[1].split() for line in lines] == [["4.00", "3.00"], ["4.00", "2.08"]]
    # of ResNet-34's 35 layers, six are alike and three times as fast as the peer's; ours all take as long
    rows = [row(text, a=3.0 if text == "64,64,56 3x3" else 1.0) for text in SETS["resnet34"]]
    whole = report.summary(rows)[-1]
    assert whole.startswith("resnet34 as a whole")
    assert float(whole.split("|")[1]) == pytest.approx((6 * 3 + 29) / 35, abs=0.01)


def test_picture(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    file = tmp_path / "speedup.svg"
    assert bench("--layers", *TINY, "--against", "dense", "--sparsities", "0,.5", "--plot", str(file)) == 0
    text = file.read_text(encoding="utf-8")
    for word in (*PASSES, "3x3 (1 layers)", "1x1 (1 layers)", "zeros, %", "speed-up"):
        assert word in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers", "alexnet"], "layers: got 'alexnet', expected vgg16, resnet34,"),
        (["--layers", "64,64 3x3"], "layer: got '64,64 3x3', expected"),
        (["--only", "5x5"], "layers: none of prototype is 5x5"),
        (["--only", "wide"], "only: got 'wide', expected a kernel"),
        (["--activations", "missing.npz"], "missing.npz"),
        (
            ["--zeros-in", "output", "--passes", "forward,backward_data"],
            "passes: got forward,backward_data with --zeros-in output, expected some of backward_data",
        ),
        (
            ["--zeros-in", "weight", "--passes", "backward_weight"],
            "passes: got backward_weight with --zeros-in weight, expected some of forward,backward_data",
        ),
        (["--mask", "bits"], "mask: got bits with --zeros-in input, expected --zeros-in output or filters"),
        (["--packed", "--zeros-in", "output"], "packed: got --zeros-in output, expected weight or channel"),
        (["--layers", "5,7,6 3x3", "--csv", "no/such/folder.csv"], "no/such/folder.csv"),
    ],
)
def test_errors(capsys, arguments, message):
    assert bench("--against", "dense", *arguments) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("sparseconv: error: ")
    assert message in captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--passes", "sideways"], "--passes: got 'sideways', expected some of forward,backward_data,backward_weight"),
        (["--sparsities", "0,2"], "--sparsities: got '0,2', expected fractions of zeros from 0 to 1"),
        (["--sparsities", "half"], "--sparsities: got 'half', expected fractions of zeros"),
        (["--threads", "0"], "--threads: got '0', expected a positive integer"),
        (["--seconds", "-1"], "--seconds: got '-1', expected a number of at least 0"),
        (["--against", "mkl"], "--against: invalid choice: 'mkl'"),
        (["--isa", "mmx"], "--isa: invalid choice: 'mmx'"),
        (["--zeros-in", "bias"], "--zeros-in: invalid choice: 'bias'"),
        (["--mask", "bool"], "--mask: invalid choice: 'bool'"),
    ],
)
def test_wrong_usage(capsys, arguments, message):
    with pytest.raises(SystemExit) as exit_:
        bench(*arguments)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_without_torch(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    assert bench("--layers", TINY[0], "--against", "torch") == 1
    assert "against: torch is not installed; pip install torch" in capsys.readouterr().err
    assert bench("--layers", TINY[0], "--sparsities", "0") == 0
    assert "dense GF/s" in capsys.readouterr().out


def test_without_matplotlib(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert bench("--layers", TINY[0], "--plot", "picture.svg") == 1
    captured = capsys.readouterr()
    assert "plot: matplotlib is not installed; pip install 'sparseconv[plot]'" in captured.err
    assert captured.out == ""


def test_torch_is_imported_too_early(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", object())
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "ALL")
    with pytest.raises(ValueError, match="torch is imported already; to compare on avx2, set ONEDNN_MAX_CPU_ISA=AVX2"):
        peers.prepare_torch("avx2")


def test_torch_is_imported_only_when_asked():
    source = (
        "import sys; from sparseconv.__main__ import main; "
        "main('bench --against dense --seconds 0 --batch 1 --sparsities 0 --layers 4,4,4,1x1'.split()); "
        "sys.exit(bool({'torch', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_interrupt_keeps_the_times(capsys, tmp_path, monkeypatch):
    """What was measured until a Ctrl-C is in the file."""
    file, whole = tmp_path / "times.csv", command.measure

    def rows(*arguments):
        yield next(whole(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "measure", rows)
    arguments = ("--against", "dense", "--sparsities", "0,.5", "--csv", str(file))
    assert bench("--layers", *TINY, *arguments) == 130
    assert len(list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))) == 2
    assert capsys.readouterr().err.endswith("sparseconv: interrupted\n")
