"""bench/cost_model/: work is counted exactly, and fits keep what docs/cost_model.md promises. Nothing is timed."""

import itertools
import math
import re
import subprocess
import sys

import pytest
from places import ROOT

import sparseconv as sc
from sparseconv import cpu
from sparseconv.benchmark.layers import NETWORKS, parse
from sparseconv.benchmark.operands import random_operands

sys.path.append(str(ROOT))  # bench/ is a package in the root of the project
try:
    from bench.cost_model import __main__ as command
    from bench.cost_model import errors, fitting, scaling, stored
    from bench.cost_model.calls import CONSTANTS, PASSES, work
    from bench.cost_model.fitting import fitted, predict
    from bench.cost_model.processors import PROCESSORS, ZEN4, ZEN5
finally:
    sys.path.remove(str(ROOT))

COMMAND = ROOT / "bench" / "cost_model"
PAGE = ROOT / "docs" / "cost_model.md"

STORED = ROOT / "bench" / "results" / "zen5" / "layers.csv"

pytestmark = pytest.mark.skipif(not STORED.exists(), reason="this source archive has no stored times")


def met(size, out_size, kernel, stride, padding):
    """(output, tap) pairs of one dimension that meet no padding, counted one by one."""
    pairs = itertools.product(range(out_size), range(kernel))
    return sum(0 <= out * stride + tap - padding < size for out, tap in pairs)


def counted(text, which, zeros, batch):
    return work(parse(text), which, zeros, ZEN5, batch=batch)


# --- counts ---


def test_a_dense_pointwise_layer():
    done = counted("16,64,4 1x1", "forward", 0.0, 1)
    assert done.kernel == "rows_dense"
    assert done.counts["dense_madds"] == 16 * 16 * 64 / 16  # pixels x channels x vectors of filters
    assert done.counts["sums"] == 16 * 4  # one block of channels
    assert done.counts["stored"] == 16 * 64 * 4 / 64  # lines of the result
    assert done.counts["streamed"] == 0
    assert done.counts["packed"] == pytest.approx(0.75 * 16 * 64)
    assert "skip_madds" not in done.counts


def test_a_skipping_layer():
    """64 channels in two words; of 3 x 3 taps on 8 x 8 pixels, rows of padding are not swept, columns of it are."""
    done = counted("64,64,8 3x3", "forward", 0.75, 2)
    assert done.kernel == "rows_skip"
    rows = 2 * met(8, 8, 3, 1, 1)  # of two images, with each tap
    assert rows == 2 * 22
    assert done.counts["words"] == rows * 8 * 2
    assert done.counts["nonzeros"] == 0.25 * rows * 8 * 64
    assert done.counts["skip_madds"] == 0.25 * rows * 8 * 3 * 64 * 4
    assert done.counts["sums"] == rows * 8 * 2 * 4
    assert done.counts["looked"] == 2 * 8 * 8 * 64 / 16
    assert done.counts["memory_lines"] == 0  # all of it fits into caches


@pytest.mark.parametrize("text", ["64,64,8 3x3", "48,80,9 3x3/2", "32,32,7 5x5/3", "64,32,6 1x1", "64,32,6 1x1/2"])
@pytest.mark.parametrize("which", ["forward", "backward_data", "backward_weight"])
def test_dense_multiply_adds(text, which):
    """Those that meet no padding, each with all vectors of lanes."""
    layer, batch = parse(text), 3
    done = work(layer, which, 0.0, ZEN4, batch=batch)
    assert done.kernel.endswith("_dense")
    (height, width), (out_height, out_width) = layer.in_size, layer.out_size
    pairs = math.prod(
        met(size, out, kernel, layer.stride, padding)
        for size, out, kernel, padding in (
            (height, out_height, layer.kernel[0], layer.padding[0]),
            (width, out_width, layer.kernel[1], layer.padding[1]),
        )
    )
    lanes = layer.in_c if which == "backward_data" else layer.out_c
    other = layer.out_c if which == "backward_data" else layer.in_c
    expected = batch * pairs * other * math.ceil(lanes / 16)
    if which == "backward_weight":  # either operand can lie in the lanes
        expected = batch * pairs * min(a * math.ceil(b / 16) for a, b in itertools.permutations((other, lanes)))
    assert done.counts["dense_madds"] == pytest.approx(expected)


def test_a_gradient_that_skips():
    done = counted("64,64,8 3x3", "backward_weight", 0.75, 1)
    assert done.kernel == "gradient_skip"
    assert done.counts["skip_madds"] == 0.25 * 8 * 8 * 64 * 9 * 4
    assert done.counts["nonzeros"] == 0.25 * 8 * 8 * 64 * 2  # two blocks of two vectors
    assert done.counts["words"] == 2 * 64 * 2  # 8 rows of 8 columns and two more: 80 positions, in two words
    assert done.counts["sums"] == 64 * 9 * 4
    assert done.counts["lanes"] == 10 * 10 * 4
    assert done.counts["scalars"] == 8 * 8 * 64 / 16


def test_a_gradient_of_words_of_channels():
    done = counted("128,128,14 1x1", "backward_weight", 0.95, 16)
    assert done.kernel == "gradient_points"
    positions = 16 * 14 * 14
    assert done.counts["point_madds"] == pytest.approx(0.05 * positions * 128 * 8)
    assert done.counts["point_words"] == positions * 2 * 2
    assert done.counts["point_lanes"] == positions * 2 * 8


def test_bytes():
    """Small operands stay in L3; of large ones all is read, and what a stride leaves out is not."""
    assert counted("64,64,56 3x3", "forward", 0.5, 1).counts["memory_lines"] == 0
    done = counted("64,64,224 3x3", "forward", 0.0, 16)
    x, weight = 16 * 224 * 224 * 64 * 4, 9 * 64 * 64 * 4
    assert done.counts["memory_lines"] == (x + weight) / 64
    assert done.counts["streamed"] == x / 64
    assert done.bytes == x + weight + x
    strided = counted("512,1024,112 1x1/2", "forward", 0.0, 16)
    pixels = 16 * 56 * 56
    assert strided.counts["memory_lines"] == (pixels * 512 + 512 * 1024) * 4 / 64


def test_gaps_of_strided_results():
    done = counted("64,128,56 1x1/2", "backward_data", 0.8, 16)
    assert done.counts["gaps"] == 16 * 56 * 56 * 64 * 4 / 64 * 3 / 4
    assert counted("64,128,56 3x3/2", "backward_data", 0.8, 16).counts["gaps"] == 0


@pytest.mark.skipif(cpu.isa() != "avx512", reason="counts are those of AVX-512")
@pytest.mark.parametrize("text", ["64,64,14 3x3", "64,128,14 3x3/2", "128,64,14 1x1", "128,256,14 1x1/2"])
@pytest.mark.parametrize("zeros", [0.0, 0.7, 0.97])
def test_the_library_runs_what_is_counted(text, zeros, monkeypatch):
    layer = parse(text)
    for name, value in {"vendor": "amd", "family": 26}.items():
        monkeypatch.setattr(sc._core._cpu, name, lambda value=value: value)
    with cpu.use_isa("avx512"):
        operands = random_operands(layer, {"input": zeros}, batch=4, layout="NHWC")
        options = {"layout": "NHWC", "num_threads": 1, **layer.options}
        plan = sc.plan("conv2d", operands.x, operands.weight, **options)
        gradient = sc.plan(
            "conv2d_backward_weight", operands.x, operands.grad_output, kernel_size=layer.kernel, **options
        )
    assert work(layer, "forward", zeros, ZEN5, batch=4).kernel == plan.kernel
    assert work(layer, "backward_weight", zeros, ZEN5, batch=4).kernel == gradient.kernel


def test_other_cpus_leave_no_trace():
    from sparseconv._core import _cpu

    before = _cpu.vendor(), _cpu.family(), _cpu.current(), _cpu.registers()
    with ZEN4.simulated():
        assert (_cpu.vendor(), _cpu.family(), _cpu.current()) == ("amd", 25, "avx512")
    assert (_cpu.vendor(), _cpu.family(), _cpu.current(), _cpu.registers()) == before


# --- predictions ---


@pytest.mark.parametrize("processor", PROCESSORS, ids=lambda processor: processor.folder)
@pytest.mark.parametrize("which", ["forward", "backward_data", "backward_weight"])
@pytest.mark.parametrize("text", ["64,64,56 3x3", "128,128,56 3x3/2", "256,64,56 1x1", "512,2048,7 1x1"])
def test_more_zeros_take_less(processor, which, text):
    shares = (0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
    calls = [work(parse(text), which, zeros, processor) for zeros in shares]
    times = [predict(call, fitted(processor), processor).seconds for call in calls]
    assert times == sorted(times, reverse=True)
    assert times[0] > 1.2 * times[-1]


@pytest.mark.parametrize("which", ["forward", "backward_data", "backward_weight"])
@pytest.mark.parametrize("text", ["64,64,56 3x3", "128,128,56 3x3/2", "256,64,56 1x1", "512,2048,7 1x1"])
def test_more_cores_take_no_longer(which, text):
    times = [
        predict(work(parse(text), which, 0.6, ZEN5, threads, 64), fitted(ZEN5), ZEN5).seconds
        for threads in (1, 2, 4, 8, 16, 32, 64)
    ]
    assert times == sorted(times, reverse=True)
    assert times[-1] > times[0] / 80  # a little more than 64 times faster: each core brings its caches


def test_memory_bounds_what_many_cores_do():
    done = work(parse("256,64,56 1x1"), "forward", 0.95, ZEN5, 64, 256)
    fast, slow = (predict(done, fitted(ZEN5), ZEN5._replace(memory=memory)) for memory in (1e15, 1e9))
    assert fast.bound == "cores"
    assert slow.bound == "memory"
    assert slow.seconds == pytest.approx(done.bytes / 1e9, rel=1e-3)


def test_a_fit_finds_constants_that_made_the_times():
    """Times that are made with constants of our own: predictions come back."""
    own = {
        family: {name: 1.3 * cycles for name, cycles in constants.items()}
        for family, constants in fitting.expected(ZEN5).items()
    }
    cells = stored.network_cells(ZEN5)[::3]
    made = [cell._replace(seconds=predict(fitting.work_of(cell), own, ZEN5).seconds) for cell in cells]
    found = fitting.fit(made)
    for cell in made:
        assert predict(fitting.work_of(cell), found, ZEN5).seconds == pytest.approx(cell.seconds, rel=0.03)


def test_multiply_adds_are_expected_as_often_as_a_cpu_does_them():
    for family, constants in CONSTANTS.items():
        slow, fast = fitting.expected(ZEN4)[family], fitting.expected(ZEN5)[family]
        assert slow.keys() == fast.keys() == constants.keys()
        assert {name for name in slow if slow[name] == 2 * fast[name]} == {n for n in slow if n.endswith("_madds")}
        assert all(slow[name] in (fast[name], 2 * fast[name]) for name in slow)


def test_stored_times_are_brought_to_the_fastest_peer(tmp_path):
    path = tmp_path / "layers.csv"
    path.write_text(
        "pass,layer,sparsity,peer_seconds,speedup\n"
        'forward,"8,8,8 3x3",0,2.0,1.0\nforward,"8,8,8 3x3",0.5,1.0,2.0\nforward,"8,8,9 3x3",0,3.0,1.0\n'
    )
    cells = stored.csv_cells(ZEN5, path)
    assert [(cell.zeros, cell.seconds) for cell in cells] == [(0.0, 1.0), (0.5, 0.5), (0.0, 3.0)]


def test_zen4_is_read_from_the_page():
    cells = stored.page_cells(ZEN4, ROOT / "docs" / "numbers.md")
    layers = {layer for network in ("vgg16", "resnet34", "resnet50") for layer in NETWORKS[network]}
    assert {cell.layer for cell in cells} == layers
    assert len(cells) == 3 * 36 * 7
    one = next(c for c in cells if (c.which, c.layer, c.zeros) == ("forward", "64,64,224 3x3", 0.0))
    macs = 16 * 224 * 224 * 64 * 64 * 9
    assert one.seconds == pytest.approx(2e-9 * macs / 114 / 0.99)
    strided = [c for c in cells if c.which == "backward_weight" and " 1x1/2" in c.layer]
    assert len(strided) == 6 * 7
    assert set(stored.network_cells(ZEN4)) == set(cells) - set(strided)


def test_what_is_outdated_of_zen5():
    left_out = set(stored.csv_cells(ZEN5, STORED)) - set(stored.network_cells(ZEN5))
    assert {(cell.which, cell.layer) for cell in left_out} == stored.DENSE_NOW
    assert {fitting.work_of(cell).kernel for cell in left_out} == {"rows_dense"}


# --- what the page says ---


def test_the_page_has_the_tables_of_the_command():
    """All constants and errors on the page are what the fit gives; the last digit may differ with NumPy's build."""
    page = {key(line): numbers(line) for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:2] == "| "}
    made = [line for line in (*errors.constant_table(), *errors.error_table(), *errors.pass_table()) if line]
    assert len(made) > 40
    for line in made:
        assert page[key(line)] == pytest.approx(numbers(line), abs=1.01, rel=0.02), line


def key(line):
    """What names a row of these tables: its first two cells, as far as they are words."""
    return tuple(word.strip() for word in line.strip("|").split("|")[:2] if "%" not in word)


def numbers(line):
    return [float(number) for number in re.findall(r"\d+\.?\d*", line)]


def test_most_unseen_cells_are_within_15_percent():
    for processor, least in ((ZEN4, 0.95), (ZEN5, 0.91)):
        found = {what: errors.errors(pairs) for what, pairs in errors.ratios(processor).items()}
        assert found["each layer once"].cells == found["nothing"].cells > 700
        assert found["each layer once"].within >= least
        assert found["zeros"].within >= 0.93
        assert min(one.within for one in found.values()) >= 0.85
    others = found["other layers"]
    assert others.cells == 210
    assert others.within >= 0.89


def test_errors_of_ratios():
    one = errors.errors([(None, ratio) for ratio in (1.0, 1.1, 1 / 1.1, 2.0, 0.5)])
    assert one.cells == 5
    assert one.within == 0.6
    assert one.median == pytest.approx(0.1)
    assert one.worst == pytest.approx(1.0)


def test_all_reduce():
    assert scaling.all_reduce(1e9, 1, 1e9) == 0
    assert scaling.all_reduce(1e9, 2, 1e9, latency=0) == pytest.approx(1.0)
    assert scaling.all_reduce(1e9, 4, 1e9, latency=1e-3) == pytest.approx(1.5 + 6e-3)


# --- the command ---


def run(*arguments):
    return subprocess.run([sys.executable, str(COMMAND), *arguments], capture_output=True, text=True, cwd=ROOT)


def test_predict():
    done = run("--predict", "256,256,14x14,3x3/1", "--zeros", ".7", "--threads", "16")
    assert done.returncode == 0, done.stderr
    head, *lines = done.stdout.splitlines()
    assert head.startswith("256,256,14 3x3, 70% zeros, batch 16, Zen 5")
    assert "extrapolated, not measured" in head
    for which, line in zip(PASSES, lines, strict=True):
        name, milliseconds, unit, kernel = line.split()[:4]
        assert (name, unit) == (which, "ms")
        assert "skip" in kernel
        call = predict(work(parse("256,256,14 3x3"), which, 0.7, ZEN5, 16), fitted(ZEN5), ZEN5)
        assert float(milliseconds) == pytest.approx(1e3 * call.seconds, abs=1e-3)


def test_one_thread_is_not_extrapolated(capsys):
    command.main(["--predict", "64,64,56 3x3", "--cpu", "zen4"])
    assert "extrapolated" not in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--network", "--cluster"])
def test_more_cores_are_marked(capsys, option):
    command.main([option, "resnet34", "--cores", "2", "16"])
    title, _, _, _, *rows = capsys.readouterr().out.rstrip().splitlines()
    assert title.endswith("extrapolated, not measured:")
    assert len(rows) == 2 * len(scaling.ZEROS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--predict", "256,256"], "layer: got '256,256', expected"),
        (["--predict", "64,64,8 3x3", "--zeros", "2"], "zeros: got 2.0, expected a share from 0 to 1"),
        (["--predict", "64,64,8 3x3", "--threads", "0"], "threads, batch: got 0 and 16, expected at least 1"),
        (["--predict", "64,64,8 3x3 g64"], "expected one without groups"),
        (["--predict", "64,64,8 3x3", "--cpu", "zen9"], "invalid choice: 'zen9'"),
        (["--network", "alexnet"], "invalid choice: 'alexnet'"),
        (["--network", "resnet50", "--cores", "0"], "--cores: got 0, expected at least 1"),
        (["--network", "resnet50", "--batch", "0"], "threads, batch: got 1 and 0, expected at least 1"),
        (["--network", "resnet50", "--bandwidth", "-1"], "--bandwidth: got -1.0, expected GB/s above 0"),
    ],
)
def test_bad_arguments(capsys, arguments, words):
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_a_bad_pass():
    with pytest.raises(ValueError, match="pass: got 'back', expected forward"):
        work(parse("64,64,8 3x3"), "back", 0.5, ZEN5)


def test_picture(tmp_path):
    pytest.importorskip("matplotlib")
    paths = tmp_path / "one.svg", tmp_path / "two.svg"
    for path in paths:
        errors.save_picture(path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert "unseen cells" in paths[0].read_text(encoding="utf-8")
