"""The file of ``sparseconv tune``: whose factors are in use, and that no file makes a call fail. Nothing is timed."""

import json
import math
import os
import stat
import subprocess
import sys
import threading
import warnings

import children
import numpy as np
import pytest
import simulated
from test_hostile_files import MUTANTS, little_memory, mutant

import sparseconv as sc
from sparseconv import cpu
from sparseconv.__main__ import main
from sparseconv._core import tuned
from sparseconv._core.tuned import FAMILIES, LEAST, MOST, Factors

FOUND = {"rows": Factors(1.25, 0.8), "gradient_one_tap": Factors(0.9, 1.5)}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty cache folder, which this process reads."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tuned, "enabled", True)
    tuned.forget()
    yield tmp_path
    monkeypatch.undo()
    tuned.forget()


def loaded():
    """The factors in use, read anew; warnings are errors, unless a test waits for one."""
    tuned.forget()
    return dict(tuned.in_use())


def written(**changes):
    """A file of this computer, with changes of its only entry."""
    assert tuned.save(FOUND, cpu.isa())
    with open(tuned.file(), encoding="utf-8") as file:
        data = json.load(file)
    data["entries"][0] |= changes
    put(json.dumps(data))


def put(content):
    os.makedirs(os.path.dirname(tuned.file()), exist_ok=True)
    with open(tuned.file(), "wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode())


def speedup(which="conv2d", kernel=3, **options):
    x = np.ones((2, 64, 14, 14), np.float32)
    arrays = (x, np.ones((64, 64, kernel, kernel), np.float32)) if which == "conv2d" else (x, x, kernel)
    return sc.plan(which, *arrays, padding=kernel // 2, skip="input", **options).speedup


# --- whose factors they are ---


def test_no_file():
    assert loaded() == {}
    assert tuned.factors("rows") == (1, 1)
    assert not os.path.exists(tuned.file())


def test_round_trip(folder):
    assert tuned.save(FOUND, cpu.isa())
    assert loaded() == FOUND
    assert tuned.factors("rows") == FOUND["rows"]
    assert tuned.factors("rows_one_tap") == (1, 1)
    assert os.listdir(folder / "sparseconv") == ["tuned.json"]


@pytest.mark.parametrize("key, value", [
    ("version", "9.9"), ("cpu", "another"), ("caches", "L1d 1K"), ("seen", "another 1 1"), ("isa", "mmx"),
])  # fmt: skip
def test_another_cpu_or_version(key, value):
    """Ignored in silence, and kept for those whose it is."""
    written(**{key: value})
    assert loaded() == {}
    assert tuned.save({"rows": Factors(0.7)}, cpu.isa())
    assert loaded() == {"rows": Factors(0.7)}
    with open(tuned.file(), encoding="utf-8") as file:
        assert [entry[key] == value for entry in json.load(file)["entries"]] == [True, False]


def test_instruction_sets(isa):
    """Each has its own, and to tune one leaves those of the others."""
    isas = cpu.available_isas()
    for number, name in enumerate(isas):
        assert tuned.save({"rows": Factors(1.1 + number / 10)}, name)
    assert loaded() == {"rows": Factors(1.1 + isas.index(isa) / 10)}


@pytest.mark.parametrize("name", simulated.VENDORS)
def test_a_simulated_cpu_has_its_defaults(name):
    """Unless it is the real one, in which nothing differs."""
    written()
    before = tuned._seen()
    with simulated.vendor(name):
        assert dict(tuned.in_use()) == (FOUND if tuned._seen() == before else {})
    assert dict(tuned.in_use()) == FOUND


def test_an_entry_is_replaced():
    for each in (1.1, 1.2, 1.3):
        assert tuned.save({"rows": Factors(each)}, cpu.isa())
    assert loaded() == {"rows": Factors(1.3)}
    with open(tuned.file(), encoding="utf-8") as file:
        assert len(json.load(file)["entries"]) == 1


def test_defaults_need_no_entry():
    """And a file without entries is none."""
    assert not tuned.save({"rows": Factors()}, cpu.isa())
    assert not os.path.exists(tuned.file())
    written(isa="mmx")
    assert tuned.save(FOUND, cpu.isa())
    assert not tuned.save({}, cpu.isa())
    assert loaded() == {}
    assert os.path.exists(tuned.file())


def test_the_file_stays_small():
    """Of many CPUs the newest are kept, and none of a size that would not be read."""
    for number in range(2 * tuned.MOST_ENTRIES):
        tuned.save(FOUND, f"isa{number}")
    tuned.save(FOUND, cpu.isa())
    assert loaded() == FOUND
    with open(tuned.file(), encoding="utf-8") as file:
        entries = json.load(file)["entries"]
    assert [entry["isa"] for entry in entries[:-1]] == [f"isa{number}" for number in range(17, 32)]
    put(json.dumps({"format": 1, "entries": [{"isa": "a" * 7000}, {"isa": "b" * 7000}]}))
    tuned.save(FOUND, cpu.isa())
    tuned.save(FOUND, "other")
    tuned.save(FOUND, "third")
    assert os.path.getsize(tuned.file()) <= tuned.MOST_BYTES
    assert loaded() == FOUND


def test_environment_variable(folder):
    code = """
from sparseconv._core import tuned
tuned.save({"rows": tuned.Factors(1.5)}, sc.cpu.isa())
print(list(tuned.in_use()))
"""
    for value, expected in (("0", []), ("", ["rows"]), ("1", ["rows"])):
        assert children.run(code, SPARSECONV_TUNE=value, XDG_CACHE_HOME=str(folder)) == [str(expected)]
        assert tuned._read(tuned.file())


def test_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tuned.sys, "platform", "linux")
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert tuned.file() == str(tmp_path / "home" / ".cache" / "sparseconv" / "tuned.json")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(tuned.sys, "platform", "darwin")
    assert tuned.file() == str(tmp_path / "home" / "Library" / "Caches" / "sparseconv" / "tuned.json")
    monkeypatch.setattr(tuned.os.path, "expanduser", lambda path: path)  # nobody's home
    assert tuned.file() == ""
    assert loaded() == {}
    assert not tuned.remove()
    with pytest.raises(ValueError, match="no home folder"):
        tuned.check_writable()


# --- what they change ---


@pytest.mark.parametrize("family", FAMILIES)
def test_factors_of_a_family(isa, family):
    """They change what plans promise of its kernels and of no others, and not what comes out."""
    calls = {name: ("conv2d" if "rows" in name else "conv2d_backward_weight", 1 if "tap" in name else 3)
             for name in FAMILIES}  # fmt: skip
    before = {name: speedup(*call) for name, call in calls.items()}
    x, weight = np.ones((2, 64, 14, 14), np.float32), np.ones((64, 64, 3, 3), np.float32)
    result = sc.conv2d(x, weight, skip="input")
    for factors in (Factors(each=1.5), Factors(fixed=1.5)):
        with tuned.trying({family: factors}):
            after = {name: speedup(*call) for name, call in calls.items()}
            np.testing.assert_array_equal(sc.conv2d(x, weight, skip="input"), result)
        assert after[family] < before[family]
        assert {name for name in FAMILIES if after[name] != before[name]} == {family}
    assert speedup(*calls[family]) == before[family], "what was tried is gone"


def test_a_choice_follows_the_file():
    """Also that of a call that was bound before."""
    x, weight = np.ones((2, 64, 14, 14), np.float32), np.ones((64, 64, 3, 3), np.float32)
    x[:, 8:] = 0
    before = sc.plan("conv2d", x, weight, padding=1)
    tuned.save({"rows": Factors(MOST, MOST)}, cpu.isa())
    dear = sc.plan("conv2d", x, weight, padding=1)
    tuned.save({"rows": Factors(LEAST, LEAST)}, cpu.isa())
    cheap = sc.plan("conv2d", x, weight, padding=1)
    assert cheap.skip == "input" and cheap.speedup > before.speedup
    assert dear.speedup < before.speedup or dear.skip == before.skip == "none"
    tuned.remove()
    assert sc.plan("conv2d", x, weight, padding=1) == before


# --- files that are damaged, or that lie ---

NUMBERS = {
    "text": '"1.1"', "NaN": "NaN", "infinity": "Infinity", "minus infinity": "-Infinity", "null": "null",
    "bool": "true", "list": "[1]", "huge": "9" * 400, "digits": "9" * 5000,
}  # fmt: skip
FILES = {
    "empty": b"", "text": b"no JSON", "bytes": b"\xff\xfe\x00", "zeros": bytes(100), "cut": b'{"format": 1, "entri',
    "a list": b"[]", "a number": b"1", "null": b"null", "another format": b'{"format": 2, "entries": []}',
    "no entries": b'{"format": 1}', "entries that are an object": b'{"format": 1, "entries": {}}',
    "entries that are none": b'{"format": 1, "entries": [1]}', "nested": b"[" * 16000, "long": b" " * 20000,
    "nested objects": b'{"format": 1, "entries": [{"a": ' + b'{"a":' * 3000, "huge": b"[" + b"1," * 10_000_000,
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_damaged_file(name):
    put(FILES[name])
    ignored(name)


@pytest.mark.parametrize("name", NUMBERS)
def test_factors_that_are_none(name):
    written()
    with open(tuned.file(), encoding="utf-8") as file:
        text = file.read()
    assert "1.25" in text
    put(text.replace("1.25", NUMBERS[name]))
    ignored(name)


@pytest.mark.parametrize("factors", [None, 1, [], "rows", {"rows": 1}, {"rows": {"each": 1}}, {"rows": [1, 1]}])
def test_factors_of_another_form(factors):
    written(factors=factors)
    ignored(str(factors))


def ignored(what):
    """One warning, that names the file; calls do not fail, and take the defaults."""
    before = speedup_without_file()
    tuned.forget()
    with pytest.warns(RuntimeWarning, match="is ignored") as caught:
        assert speedup() == before, what
        speedup("conv2d_backward_weight")
        assert dict(tuned.in_use()) == {}
    assert len(caught) == 1
    assert str(caught[0].message).startswith(tuned.file())
    assert len(str(caught[0].message)) < 500
    tuned.forget()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert speedup() == before, what
    assert tuned.save(FOUND, cpu.isa()), "a new one takes its place"
    assert loaded() == FOUND


def speedup_without_file():
    with tuned.trying({}):
        return speedup()


def test_factors_out_of_bounds():
    """Within them, without a warning."""
    written(factors={"rows": {"each": 1e300, "fixed": -5}, "gradient": {"each": 0, "fixed": 1}, "unknown": "?"})
    assert loaded() == {"rows": Factors(MOST, LEAST), "gradient": Factors(LEAST, 1.0)}
    assert all(math.isfinite(number) for pair in tuned.in_use().values() for number in pair)


def test_no_regular_file(folder):
    os.makedirs(tuned.file())
    with pytest.warns(RuntimeWarning, match="is ignored"):
        assert loaded() == {}
    os.rmdir(tuned.file())
    os.mkfifo(tuned.file())  # which nobody writes to
    with pytest.warns(RuntimeWarning, match="no regular file"):
        assert loaded() == {}
    os.unlink(tuned.file())
    os.symlink(os.devnull, tuned.file())
    with pytest.warns(RuntimeWarning, match="no regular file"):
        assert loaded() == {}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read():
    written()
    os.chmod(tuned.file(), 0)
    with pytest.warns(RuntimeWarning, match="PermissionError"):
        assert loaded() == {}


def test_a_computer_that_says_nothing(monkeypatch):
    """An error while the file is compared with this computer is no error of the call."""
    written()
    monkeypatch.setattr("sparseconv._core.machine.caches", lambda: 1 / 0)
    with pytest.warns(RuntimeWarning, match="ZeroDivisionError"):
        assert loaded() == {}


# --- writing ---


def test_two_writers(folder):
    """A reader sees the file of one or of the other, and nothing is left behind."""
    ends = 0.7, 1.4
    code = """
from sparseconv._core import tuned
for _ in range(50):
    tuned.save({"rows": tuned.Factors(%s)}, "avx2")
"""
    writers = [subprocess.Popen([sys.executable, "-c", code % end], stderr=subprocess.PIPE, text=True) for end in ends]
    seen = []
    while any(writer.poll() is None for writer in writers):
        seen.extend(entry["factors"]["rows"]["each"] for entry in tuned._read(tuned.file()))
    for writer in writers:
        assert (writer.stderr.read(), writer.returncode) == ("", 0)
        writer.stderr.close()
    assert seen and set(seen) <= set(ends)
    assert os.listdir(folder / "sparseconv") == ["tuned.json"]


def test_a_write_that_fails(folder, monkeypatch):
    """The old file stays, and nothing beside it."""
    written()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(tuned.os, "replace", full)
        with pytest.raises(ValueError, match=r"^tune: cannot write .*tuned\.json: No space left on device; --dry-run"):
            tuned.save({"rows": Factors(0.7)}, cpu.isa())
    assert loaded() == FOUND
    assert os.listdir(folder / "sparseconv") == ["tuned.json"]


@pytest.mark.parametrize("kind", ["a file in its place", "read-only"])
def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, kind):
    place = tmp_path / "place"
    if kind == "read-only":
        place.mkdir()
        place.chmod(stat.S_IRUSR | stat.S_IXUSR)
        if os.access(place, os.W_OK):
            pytest.skip("root may write everywhere")
    else:
        place.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(place))
    assert loaded() == {}
    for write in (tuned.check_writable, lambda: tuned.save(FOUND, cpu.isa())):
        with pytest.raises(ValueError, match=r"^tune: cannot write .*tuned\.json: [A-Z].*--dry-run"):
            write()


def test_the_file_is_read_quickly(folder):
    """Nothing is imported for it but json; what says which CPU it is takes part in the first call."""
    code = """
from sparseconv._core import tuned
before = set(sys.modules)
tuned.in_use()
print(sorted(name.partition(".")[0] for name in set(sys.modules) - before if "json" not in name))
"""
    tuned.save(FOUND, cpu.isa())
    if sys.platform != "darwin":  # which asks another program
        assert children.run(code, XDG_CACHE_HOME=str(folder), SPARSECONV_TUNE="1") == ["['sparseconv']"]
    os.unlink(tuned.file())
    assert children.run(code, XDG_CACHE_HOME=str(folder), SPARSECONV_TUNE="1") == ["[]"]


def test_mutants(folder):
    """Of a valid file: never an error, and never a factor out of bounds."""
    tuned.save(FOUND, cpu.isa())
    with open(tuned.file(), "rb") as file:
        content = file.read()
    kept = 0
    for seed in range(MUTANTS):
        put(mutant(content, seed))
        with little_memory(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = loaded()
        kept += bool(found)
        assert found.keys() <= set(FAMILIES)
        assert all(LEAST <= factor <= MOST for pair in found.values() for factor in pair)
    assert 0 < kept < MUTANTS


def test_threads_that_choose_first():
    """Each of them finds the factors, whoever reads the file."""
    written()
    tuned.forget()
    found, barrier = [], threading.Barrier(4)

    def choose():
        barrier.wait()
        found.append(dict(tuned.in_use()))

    workers = [threading.Thread(target=choose) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == [FOUND] * 4


# --- `sparseconv info` ---


def info(capsys):
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert main(["info"]) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("tuned")]
    return facts["tuned"], line.split(maxsplit=1)[1]


def test_info(capsys, monkeypatch):
    assert info(capsys) == (None, "no")
    written()
    tuned.forget()
    fact, text = info(capsys)
    assert fact == {"file": tuned.file(), "factors": {name: pair._asdict() for name, pair in FOUND.items()}}
    assert text == f"by {tuned.file()}"
    with monkeypatch.context() as patched:
        patched.setattr(tuned, "enabled", False)
        assert info(capsys) == (None, "no")
    put("damaged")
    tuned.forget()
    with pytest.warns(RuntimeWarning, match="is ignored"):
        assert info(capsys) == (None, "no")
