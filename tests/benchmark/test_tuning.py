"""``sparseconv tune``: factors that are found again in times that follow from them. Nothing is really timed."""

import json
import os

import pytest

from sparseconv import cpu
from sparseconv.__main__ import main
from sparseconv._core import tuned
from sparseconv._core.tuned import FAMILIES, LEAST, MOST, NEUTRAL, Factors
from sparseconv.benchmark import tuning
from sparseconv.benchmark.layers import parse
from sparseconv.benchmark.measure import Settings
from sparseconv.benchmark.operands import PASSES
from sparseconv.benchmark.regret import plan_for
from sparseconv.benchmark.tuning import Terms, Timing

LAYERS = ("64,64,7 3x3", "32,96,9 3x3/2", "64,128,7 1x1", "48,48,9 1x1")
SPARSITIES = (0.2, 0.6, 0.9)
TRUTH = {
    "rows": Factors(1.3, 0.8), "rows_one_tap": Factors(0.8, 1.5), "gradient": Factors(0.7, 1.2),
    "gradient_one_tap": Factors(1.2, 0.7),
}  # fmt: skip
TERMS = Terms(0.9, 0.2, 0.05)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty cache folder, few small layers, and no change of this process."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tuned, "enabled", True)
    monkeypatch.setattr(tuning, "keep_memory", lambda: True)
    for name, value in {"LAYERS": LAYERS, "SPARSITIES": SPARSITIES, "BATCH": 2}.items():
        monkeypatch.setattr(tuning, name, value)
    tuned.forget()
    yield tmp_path
    monkeypatch.undo()
    tuned.forget()


def computer(monkeypatch, truth, disturbed=()):
    """A computer on which calls take what plans promise with these factors, but for some that take ten times as long.

    A call gives its seconds in the place of its result, and the timer takes them for its time.
    """
    calls = []

    def ours(which, operands, *, skip, threads):
        seconds = 0.001
        if skip != "none":
            with tuned.trying(truth):
                seconds /= plan_for(which, operands, skip=skip, threads=threads).speedup
            calls.append(which)
        return lambda: 10 * seconds if len(calls) in disturbed and skip != "none" else seconds

    monkeypatch.setattr(tuning, "ours", ours)
    monkeypatch.setattr(tuning, "fastest", lambda calls, seconds: [call() for call in calls])


def timings():
    return list(tuning.measure_timings(map(parse, LAYERS), PASSES, SPARSITIES, Settings(batch=2)))


def timing(ratio, terms=TERMS, sparsity=0.5, layer="16,16,6 3x3", which="forward"):
    """One where skipping takes this share of the dense time."""
    return Timing(parse(layer), which, sparsity, {"none": 1.0, "input": ratio}, {"input": terms})


# --- the fit ---


def test_factors_are_found_again(isa, monkeypatch):
    computer(monkeypatch, TRUTH)
    families = tuning._by_family(timings())
    assert tuple(families) == FAMILIES
    assert [len(families[family]) for family in FAMILIES] == [12, 12, 6, 6]
    for family, members in families.items():
        assert tuning.verdict(members).kept == pytest.approx(TRUTH[family], abs=0.011), family


def test_disturbed_times(monkeypatch):
    """Some that are wrong by far change nothing: what counts is the mean of absolute errors."""
    computer(monkeypatch, TRUTH, disturbed=(2, 7))
    rows = tuning._by_family(timings())["rows"]
    assert tuning.fit(rows) == pytest.approx(TRUTH["rows"], abs=0.011)


def test_factors_stay_within_bounds(monkeypatch):
    computer(monkeypatch, {family: Factors(3.0, 0.1) for family in FAMILIES})
    for members in tuning._by_family(timings()).values():
        assert all(LEAST <= factor <= MOST for factor in tuning.fit(members))


def test_times_that_say_little():
    """One share of zeros tells nothing of the two factors apart, and 2% is noise."""
    usual = TERMS.cost(NEUTRAL)
    assert tuning.fit([timing(usual)] * 5) == NEUTRAL
    assert tuning.fit([timing(usual * 1.02)] * 5) == tuning.fit([timing(usual * 0.98)] * 5) == NEUTRAL
    assert tuning.fit([timing(usual * 1.2)] * 5).fixed == pytest.approx(1, abs=0.05)


def test_a_worse_fit_is_refused():
    """Most layers take longer than expected; with factors for them "auto" would lose in one where skipping gains."""
    slow = [timing(0.6, Terms(0.3, 0.1, 0.0), 0.8)] * 5
    gains = timing(0.5, Terms(0.8, 0.19, 0.0), 0.2)
    assert tuning.fit([*slow, gains]) != NEUTRAL
    found = tuning.verdict([*slow, gains])
    assert found.fitted != NEUTRAL and found.kept == NEUTRAL
    assert tuning.verdict(slow).kept == tuning.fit(slow)


def test_factors_of_single_layers_are_refused():
    """What fits two layers in opposite ways says nothing of a third one."""
    texts = ("16,16,6 3x3", "16,32,6 3x3")
    opposite = [
        timing(Terms(share, 0.1, 0.1).cost(Factors(each)), Terms(share, 0.1, 0.1), layer=text)
        for text, each in zip(texts, (1.5, 0.7), strict=True)
        for share in (0.5, 0.6, 0.7)
    ]
    one_more = [*opposite, opposite[0]]
    assert tuning.fit(one_more).each == pytest.approx(1.5, abs=0.05)
    assert tuning.verdict(one_more).kept == NEUTRAL
    alike = [
        timing(Terms(share, 0.1, 0.1).cost(Factors(1.5)), Terms(share, 0.1, 0.1), layer=text)
        for text in texts
        for share in (0.5, 0.6, 0.7)
    ]
    assert tuning.verdict(alike).kept == tuning.fit(alike)
    assert tuning.fit(alike).each == pytest.approx(1.5, abs=0.05)


def test_half_of_the_way():
    slow = [timing(0.64, Terms(0.3, 0.1, 0.0), 0.8)] * 5
    gains = timing(0.5, Terms(0.6, 0.14, 0.0), 0.2)  # is chosen up to a factor of 1.35
    found = tuning.verdict([*slow, gains])
    assert found.fitted == (1.6, 1.6)
    assert found.kept == pytest.approx((1.6**0.5, 1.6**0.5), abs=0.001)


# --- what is expected ---


@pytest.mark.parametrize("which", PASSES)
def test_choices_and_promises_are_those_of_plans(isa, which):
    """Of any factors, although only three plans of each call were asked for their weights."""
    for layer in map(parse, LAYERS):
        for sparsity in SPARSITIES:
            measured = tuning._timing(layer, which, sparsity, Settings(batch=2, seconds=0))
            operands = tuning.random_operands(
                layer, {tuning.SPARSE_OPERANDS[which][0]: sparsity}, batch=2, layout="NHWC"
            )
            for factors in (NEUTRAL, Factors(0.6, 1.6), Factors(1.4, 0.7)):
                with tuned.trying(dict.fromkeys(FAMILIES, factors)):
                    plan = plan_for(which, operands, threads=1)
                found = measured.regret(factors)
                assert found.chosen == plan.skip
                assert found.promised == pytest.approx(plan.speedup)


def test_regret():
    right, wrong = timing(0.5, Terms(0.4, 0.1, 0.0)), timing(1.5, Terms(0.4, 0.1, 0.0))
    assert (right.regret(NEUTRAL).ratio, right.regret(NEUTRAL).kept) == (1.0, 1.0)
    assert (wrong.regret(NEUTRAL).ratio, wrong.regret(NEUTRAL).best) == (1.5, "none")
    assert wrong.regret(Factors(2.5, 1.0)).chosen == "none"
    assert wrong.regret(Factors(2.5, 1.0)).ratio == 1.0


# --- the command ---


def tune(*arguments):
    return main(["tune", "--seconds", "0", *arguments])


def test_command(capsys, monkeypatch):
    computer(monkeypatch, TRUTH)
    assert tune() == 0
    captured = capsys.readouterr()
    title, head, *lines = captured.out.splitlines()
    assert title == f'what "auto" loses by its choice, before and after; {cpu.isa()}, 1 thread, batch 2, NHWC'
    assert head.split()[:4] == ["kernels", "cells", "each", "fixed"]
    assert [line[:18].strip() for line in lines] == [*(family.replace("_", " ") for family in FAMILIES), "all"]
    assert captured.err.splitlines() == [
        "times 36 convolutions, one thread, for about 0 s", f"wrote {tuned.file()}",
    ]  # fmt: skip
    assert set(tuned.in_use()) == set(FAMILIES)
    for family, factors in tuned.in_use().items():
        assert factors == pytest.approx(TRUTH[family], abs=0.011)
    last = lines[-1].split("|")
    assert last[0].split() == ["all", "36"]
    assert last[1].split()[1] == "1.000" and last[3].split()[1] == "100%"


def test_json(capsys, monkeypatch):
    computer(monkeypatch, TRUTH)
    assert tune("--json", "--quiet") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    facts = json.loads(captured.out)
    assert (facts["isa"], facts["file"], facts["written"]) == (cpu.isa(), tuned.file(), True)
    assert facts["factors"]["rows"]["kept"] == tuned.factors("rows")._asdict()
    assert list(facts["losses"]) == [*FAMILIES, "all"]
    assert facts["losses"]["all"]["cells"] == 36
    assert facts["losses"]["all"]["after"]["mean"] <= facts["losses"]["all"]["before"]["mean"]


def test_another_instruction_set(capsys, monkeypatch):
    computer(monkeypatch, TRUTH)
    *_, last = cpu.available_isas()
    assert tune("--isa", last, "--quiet") == 0
    assert f"; {last}, 1 thread" in capsys.readouterr().out
    with cpu.use_isa(last):
        assert tuned.in_use()
    if last != cpu.isa():
        assert not tuned.in_use()


def test_dry_run(capsys, monkeypatch, folder):
    computer(monkeypatch, TRUTH)
    assert tune("--dry-run") == 0
    assert capsys.readouterr().err.splitlines()[-1] == "dry run: nothing is written"
    assert os.listdir(folder) == []
    assert not tuned.in_use()


def test_the_defaults_are_right(capsys, monkeypatch):
    """Then an earlier file goes: it was of other times."""
    computer(monkeypatch, TRUTH)
    assert tune() == 0
    computer(monkeypatch, {})
    assert tune() == 0
    assert capsys.readouterr().err.splitlines()[-1] == "the defaults are as good: nothing to write"
    assert not os.path.exists(tuned.file())


def test_factors_in_use_do_not_count(monkeypatch, capsys):
    """Before means the defaults, whatever was tuned earlier: the same times give the same factors."""
    computer(monkeypatch, TRUTH)
    assert tune("--json", "--quiet") == 0
    first = capsys.readouterr().out
    assert tuned.in_use()
    assert tune("--json", "--quiet") == 0
    assert capsys.readouterr().out == first


def test_remove(capsys, monkeypatch):
    monkeypatch.setattr(tuning, "measure_timings", lambda *_: pytest.fail("measured"))
    assert tune("--remove") == 0
    assert capsys.readouterr().out == f"there is no {tuned.file()}\n"
    tuned.save(TRUTH, cpu.isa())
    assert tune("--remove") == 0
    assert capsys.readouterr().out == f"removed {tuned.file()}\n"
    assert not os.path.exists(tuned.file()) and not tuned.in_use()
    assert tune("--remove", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"file": tuned.file(), "removed": False}


def test_a_folder_that_cannot_be_written(capsys, monkeypatch, tmp_path):
    """Said before anything is measured; what --dry-run is for."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(tuning, "measure_timings", lambda *_: pytest.fail("measured"))
    assert tune() == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"sparseconv: error: tune: cannot write {tuned.file()}: ")
    assert "--dry-run" in captured.err


def test_what_the_environment_ignores(capsys, monkeypatch):
    computer(monkeypatch, TRUTH)
    monkeypatch.setattr(tuned, "enabled", False)
    assert tune() == 0
    assert capsys.readouterr().err.splitlines()[-1] == f"wrote {tuned.file()}, which SPARSECONV_TUNE=0 ignores"


def test_interrupted(capsys, monkeypatch, folder):
    """Nothing is written."""

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "fastest", interrupted)
    assert tune() == 130
    assert not os.path.exists(tuned.file())


def test_real_times():
    """Whatever they are, the command ends well."""
    assert tune("--dry-run", "--quiet") == 0


def test_bench_says_it(capsys, monkeypatch):
    from commands import bench

    from sparseconv.benchmark import command

    monkeypatch.setattr(command, "keep_memory", lambda: True)
    tuned.save(TRUTH, cpu.isa())
    words = "--regret", "--layers", "5,7,6 3x3", "--sparsities", ".5", "--passes", "forward"
    assert bench(*words) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith(", NHWC, constants of 'sparseconv tune'")
