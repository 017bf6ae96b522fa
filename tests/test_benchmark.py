"""``sparseconv bench``: layers parse, both sides compute the same, tables and files hold what was measured.

Nothing here depends on how fast anything is.
"""

import csv
import io
import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from sparseconv import cpu
from sparseconv.__main__ import main
from sparseconv.benchmark import activations, command, measure, peers, report
from sparseconv.benchmark.layers import NETWORKS, SETS, Layer, parse, select
from sparseconv.benchmark.operands import MASKS, PASSES, SPARSE_OPERANDS, ZEROS_IN, random_operands

TINY = ["5,7,6 3x3", "18,20,4 1x1"]


@pytest.fixture(autouse=True)
def unchanged_process(monkeypatch):
    """What the command does to its process for good must not reach other tests."""
    monkeypatch.setattr(command, "keep_memory", lambda: True)
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    if cpu.isa() in peers.ONEDNN_ISAS:  # a run of the tests with SPARSECONV_ISA
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", peers.ONEDNN_ISAS[cpu.isa()])
    torch = sys.modules.get("torch")
    threads = torch and torch.get_num_threads()
    yield
    if torch:
        torch.set_num_threads(threads)


def bench(*arguments):
    return main(["bench", "--seconds", "0", "--batch", "2", *arguments])


# --- layers ---


@pytest.mark.parametrize("name", SETS)
def test_sets(name):
    layers = select([name])
    assert [str(layer) for layer in layers] == list(SETS[name])
    assert all(layer.problem(2).macs > 0 for layer in layers)


def test_all_is_the_union():
    assert set(SETS["all"]) == {text for counts in NETWORKS.values() for text in counts}
    assert len(set(SETS["all"])) == len(SETS["all"])


def resnet(blocks, bottleneck):
    """Every convolution of a ResNet behind the first layer, built as the network is, stride in the 3x3 layers."""
    channels, size = 64, 56
    for stage, count in enumerate(blocks):
        width = 64 << stage
        out = 4 * width if bottleneck else width
        for block in range(count):
            stride = 2 if stage and not block else 1
            behind = size // stride
            if stride > 1 or channels != out:
                yield Layer(channels, out, (size, size), (1, 1), stride)
            if bottleneck:
                yield Layer(channels, width, (size, size), (1, 1))
                yield Layer(width, width, (size, size), (3, 3), stride)
                yield Layer(width, out, (behind, behind), (1, 1))
            else:
                yield Layer(channels, width, (size, size), (3, 3), stride)
                yield Layer(width, width, (behind, behind), (3, 3))
            channels, size = out, behind


def vgg16():
    channels, first = 64, True
    for stage, (out, count) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]):
        for _ in range(count):
            if not first:
                yield Layer(channels, out, (224 >> stage,) * 2, (3, 3))
            channels, first = out, False


@pytest.mark.parametrize(
    ("name", "network"),
    [("vgg16", vgg16()), ("resnet34", resnet([3, 4, 6, 3], False)), ("resnet50", resnet([3, 4, 6, 3], True))],
)
def test_networks(name, network):
    counts = {}
    for layer in network:
        counts[str(layer)] = counts.get(str(layer), 0) + 1
    assert counts == NETWORKS[name]


@pytest.mark.parametrize(
    ("text", "layer", "out_size"),
    [
        ("64,128,56 3x3/2", Layer(64, 128, (56, 56), (3, 3), 2), (28, 28)),
        ("8,4,17x35 1x7", Layer(8, 4, (17, 35), (1, 7), padding=(0, 3)), (17, 35)),
        ("8,4,9 3x3 p0 d2 g4 n1", Layer(8, 4, (9, 9), (3, 3), 1, (0, 0), 2, 4, 1), (5, 5)),
        ("3,64,224 7x7/2", Layer(3, 64, (224, 224), (7, 7), 2, (3, 3)), (112, 112)),
    ],
)
def test_layer_text(text, layer, out_size):
    assert parse(text) == layer
    assert str(layer) == text
    assert layer.out_size == out_size


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("64,64 3x3", "got '64,64 3x3', expected \"IN,OUT,SIZE ROWSxCOLUMNS"),
        ("64,64,56 3x3 q2", "got '64,64,56 3x3 q2', expected"),
        ("0,64,56 3x3", "expected sizes of at least 1"),
        ("64,64,56 3x3/0", "expected sizes of at least 1"),
        ("64,64,56 3x3 n0", "expected a batch of at least 1"),
        ("64,64,56 3x3 g3", "expected channels that 3 groups divide"),
        ("64,64,2 5x5 p0", "whose kernel does not fit into the padded map"),
    ],
)
def test_wrong_layer_text(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse(text)


def test_select():
    assert select(["prototype", *TINY])[-2:] == [parse(text) for text in TINY]
    assert len(select(["resnet34", "all"])) == len(SETS["all"])
    kernels = {layer.kernel_text for layer in select(["resnet50"], ["3x3"])}
    assert kernels == {"3x3"}
    assert [str(layer) for layer in select(["resnet34"], ["1x1/2", "0"])] == [
        "64,64,56 3x3", "64,128,56 1x1/2", "128,256,28 1x1/2", "256,512,14 1x1/2",
    ]  # fmt: skip
    assert {layer.stride for layer in select(["all"], ["/2"])} == {2}
    with pytest.raises(ValueError, match=r"layers: got 'alexnet', expected vgg16, .*, or \"IN,OUT"):
        select(["alexnet"])
    with pytest.raises(ValueError, match="only: got '3x', expected a kernel"):
        select(["vgg16"], ["3x"])
    with pytest.raises(ValueError, match="layers: none of vgg16 is 1x1 or /2"):
        select(["vgg16"], ["1x1", "/2"])


# --- both sides ---


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
    operands = random_operands(parse(TINY[0]), {}, batch=2, layout="NHWC")
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
    operands = random_operands(parse(TINY[0]), {}, batch=1, layout="NHWC")
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
    operands = random_operands(parse(TINY[0]), {}, batch=1, layout="NHWC")
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


# --- the command ---


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


# --- real zeros ---


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
