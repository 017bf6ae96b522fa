"""The asv suite: every benchmark runs, and asv accepts the suite. How fast anything is does not matter here."""

import importlib
import itertools
import json
import os
import subprocess
import sys

import pytest
from places import ROOT

from sparseconv import cpu
from sparseconv.benchmark import regret
from sparseconv.benchmark.layers import SETS, parse

pytestmark = pytest.mark.skipif(not (ROOT / "bench").exists(), reason="this source archive has no asv suite")


@pytest.fixture
def suite(monkeypatch):
    """Import a module of the suite as asv does: bench/ is a package in the root of the project."""
    monkeypatch.syspath_prepend(ROOT)
    return lambda name: importlib.import_module(f"bench.{name}")


@pytest.fixture
def convolutions(suite, monkeypatch):
    """The passes, each ratio as quick as can be, and without effects that outlive a test."""
    module = suite("convolutions")
    monkeypatch.setattr(module, "SECONDS", 0)
    monkeypatch.setattr(module, "keep_memory", lambda: True)
    monkeypatch.setattr(module, "prepare_torch", lambda isa: "")
    before = cpu.isa()
    yield module
    cpu.use_isa(before)


@pytest.fixture
def overheads(suite, monkeypatch):
    """What is there beside the arithmetic, as quick as can be, too."""
    module = suite("overheads")
    monkeypatch.setattr(module, "SECONDS", 0)
    monkeypatch.setattr(module, "keep_memory", lambda: True)
    return module


@pytest.mark.parametrize("name", ["Forward", "BackwardData", "BackwardWeight"])
@pytest.mark.parametrize("peer", ["dense", "torch"])
def test_ratio(convolutions, name, peer):
    if peer == "torch":
        pytest.importorskip("torch")
    benchmark = getattr(convolutions, name)()
    parameters = peer, "8,8,5 3x3", cpu.isa(), 0.5, 1
    assert len(parameters) == len(benchmark.params) == len(benchmark.param_names)
    benchmark.setup(*parameters)
    assert benchmark.track_ratio(*parameters) > 0


def test_regret(convolutions, monkeypatch):
    benchmark = convolutions.Regret()
    parameters = "backward_weight", "8,8,5 3x3", cpu.isa(), 0.5
    assert len(parameters) == len(benchmark.params) == len(benchmark.param_names)
    benchmark.setup(*parameters)
    monkeypatch.setattr(regret, "fastest", lambda calls, seconds: [3.0, 4.0, 2.0, *[5.0] * (len(calls) - 3)])
    assert benchmark.track_ratio(*parameters) == 1.5


@pytest.mark.parametrize("which", ["forward", "backward_data", "backward_weight"])
def test_blocks(convolutions, which):
    benchmark, layer = convolutions.Blocks(), "128,128,6 3x3"
    found = {}
    for size in benchmark.sizes:
        parameters = which, layer, cpu.isa(), size
        assert len(parameters) == len(benchmark.params) == len(benchmark.param_names)
        benchmark.setup(*parameters)
        found[size] = benchmark.track_size(*parameters)
    assert 0 < found["channel_block"] <= 256
    assert 0 < found["lane_vectors"] <= 8
    assert found["scratch_bytes"] > 0


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("BackwardDataNeeded", "float mask"),
        ("BackwardDataNeeded", "bit mask"),
        ("BackwardWeightFilters", "float mask"),
        ("ForwardWeights", "plain"),
        ("ForwardWeights", "packed"),
        ("BackwardDataWeights", "packed"),
    ],
)
def test_ratio_of_forms(convolutions, name, form):
    pytest.importorskip("torch")
    benchmark = getattr(convolutions, name)()
    parameters = "8,8,5 3x3", cpu.isa(), 0.5, form
    assert len(parameters) == len(benchmark.params) == len(benchmark.param_names)
    assert form in benchmark.params[-1]
    benchmark.setup(*parameters)
    assert benchmark.settings.given == {"float mask": "float", "bit mask": "bits", "plain": "array"}.get(form, form)
    assert benchmark.operands.sparsity(benchmark.zeros_in) == pytest.approx(0.5, abs=0.1)
    assert benchmark.track_ratio(*parameters) > 0


def test_parameters(convolutions):
    """The usual lists are short enough: see bench/README.md."""
    assert set(map(parse, convolutions.LAYERS)) <= set(map(parse, SETS["all"] + SETS["prototype"]))
    assert 0 in convolutions.SPARSITIES
    assert len(list(itertools.product(*convolutions.Forward.params))) <= 100
    assert set(convolutions.SKIPPED_LAYERS) <= set(SETS["all"])
    names = ("BackwardDataNeeded", "ForwardWeights", "BackwardDataWeights", "BackwardWeightFilters")
    lists = (getattr(convolutions, name).params for name in names)
    assert sum(len(list(itertools.product(*params))) for params in lists) <= 60


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"isa": "mmx"}, "does not run mmx"),
        ({"threads": 1025}, "fewer than 1025 CPUs"),
        ({"peer": "torch"}, "torch is not installed"),
    ],
)
def test_not_available(convolutions, monkeypatch, change, message):
    """asv shows NotImplementedError as n/a."""
    monkeypatch.setattr(convolutions, "default_peer", lambda: "dense")
    parameters = {"peer": "dense", "layer": "8,8,5 3x3", "isa": cpu.isa(), "sparsity": 0.5, "threads": 1} | change
    with pytest.raises(NotImplementedError, match=message):
        convolutions.Forward().setup(*parameters.values())


@pytest.mark.parametrize(
    "name", ["Masks", "Compressed", "Packing", "Threshold", "ReturnMask", "Call", "Prepared", "Import", "Memory"]
)
def test_overheads(overheads, name):
    run(getattr(overheads, name))


@pytest.mark.parametrize("name", ["TopK", "SmallTopK", "NM", "Stochastic"])
def test_pruning(suite, monkeypatch, name):
    module = suite("pruning")
    monkeypatch.setattr(module, "SECONDS", 0)
    monkeypatch.setattr(module, "SIZE", 10_000)
    monkeypatch.setattr(module, "keep_memory", lambda: True)
    run(getattr(module, name))


def run(benchmark):
    """All methods of a benchmark, with its first parameters."""
    lists = getattr(benchmark, "params", ())
    combinations = list(itertools.product(*lists if lists and isinstance(lists[0], tuple) else (lists,)))
    parameters = combinations[0] if lists else ()
    instance = benchmark()
    if hasattr(instance, "setup"):
        instance.setup(*parameters)
    methods = [method for method in dir(instance) if method.startswith(("time", "track", "peakmem"))]
    assert methods
    for method in methods:
        statements = getattr(instance, method)(*parameters)
        if method.startswith("timeraw"):
            for statement in [statements] if isinstance(statements, str) else statements:
                exec(statement, {})
    if hasattr(instance, "teardown"):
        instance.teardown()


def test_threshold_and_exact_zeros_are_the_same(overheads):
    benchmark = overheads.Threshold()
    for which in benchmark.params[0]:
        benchmark.setup(which, "8,8,5 3x3")
        with_threshold, exact = (call() for call in benchmark.calls)
        assert (with_threshold == exact).all()


def test_asv(tmp_path):
    """asv finds every benchmark and runs one; its results and the machine's description go elsewhere."""
    pytest.importorskip("asv")
    settings = json.loads((ROOT / "asv.conf.json").read_text(encoding="utf-8"))
    settings |= {key: str(tmp_path / key) for key in ("results_dir", "html_dir", "env_dir")}
    settings |= {key: str(ROOT / settings[key]) for key in ("repo", "benchmark_dir")}
    (tmp_path / "asv.conf.json").write_text(json.dumps(settings), encoding="utf-8")
    environment = os.environ | {"HOME": str(tmp_path), "ASV_PYTHONPATH": str(ROOT)}

    def asv(*arguments):
        command = [sys.executable, "-m", "asv", "--config", str(tmp_path / "asv.conf.json"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "No problems found" in asv("check", "-E", "existing")
    asv("machine", "--yes")
    assert "failed" not in asv("run", "--quick", "--python=same", "-b", "Call")


@pytest.fixture
def threads(suite, monkeypatch):
    """What threads bring, as quick as can be."""
    module = suite("threads")
    monkeypatch.setattr(module, "SECONDS", 0)
    monkeypatch.setattr(module, "ROUNDS", 1)
    monkeypatch.setattr(module, "CALLS", 1)
    monkeypatch.setattr(module, "LAYERS", ("64,64,56 1x1", "512,2048,7 1x1"))
    monkeypatch.setattr(module, "keep_memory", lambda: True)
    monkeypatch.setattr(module.cpu, "num_threads", lambda: 2)
    return module


@pytest.mark.parametrize("team", ["own", "openmp"])
@pytest.mark.parametrize("name, parameter", [("SecondThread", "forward"), ("SecondThread", "backward_data"),
                                             ("BesideTorch", "relu"), ("BesideTorch", "batch_norm")])  # fmt: skip
def test_threads(threads, team, name, parameter):
    if team == "openmp" or name == "BesideTorch":
        torch = pytest.importorskip("torch")
        before = torch.get_num_threads()
    usual = cpu.threads()  # another one once sparseconv.torch was imported
    benchmark = getattr(threads, name)()
    benchmark.setup(team, parameter)
    assert cpu.threads() == team
    assert benchmark.track_ratio(team, parameter) > 0
    benchmark.teardown(team, parameter)
    assert cpu.threads() == usual
    if team == "openmp" or name == "BesideTorch":
        torch.set_num_threads(before)


def test_threads_that_are_not_there(threads, monkeypatch):
    """Shown as "n/a"."""
    monkeypatch.setattr(threads.cpu, "num_threads", lambda: 1)
    with pytest.raises(NotImplementedError, match="fewer than 2 CPUs"):
        threads.SecondThread().setup("own", "forward")
