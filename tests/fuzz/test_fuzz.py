"""Random calls of every public function against the oracle: the short form of ``python tests/fuzz``."""

import dataclasses
import inspect
import re

import numpy as np
import pytest
from fuzz_calls import Out, drawn, judge
from fuzz_run import fuzz, line

import sparseconv as sc
from sparseconv import masks

SEED, CALLS = 1, 400


def test_calls(isa):
    wrong = [line(SEED, index, isa, call, error) for _, index, call, error in fuzz(SEED, range(CALLS), [isa]) if error]
    assert not wrong, "\n" + "\n".join(wrong)


def test_every_function_is_drawn():
    """And most of what is drawn has a result that says something."""
    calls = [drawn(SEED, index) for index in range(CALLS)]
    names = {name for call in calls for name in call.name.split(", ")}
    functions = {name for name in sc.__all__ if inspect.isfunction(getattr(sc, name))}
    functions -= {"plan", "prepare", "get_include"}  # which give no arrays
    assert (functions | {f"masks.{name}" for name in masks.__all__}) - names <= {"pack_weight"}, "weights are packed"
    assert sum(call.forced for call in calls) < 0.15 * CALLS
    words = " ".join(call.details for call in calls)
    for word in "PackedWeight CompressedArray return_mask threshold output_mask residual out= float64".split():
        assert word in words, f"no call has {word}"


def test_draws_are_repeated():
    assert [str(drawn(7, index)) for index in range(30)] == [str(drawn(7, index)) for index in range(30)]
    assert str(drawn(7, 0)) != str(drawn(8, 0))


def other(value):
    """The value with another element in the middle."""
    value = np.array(value)
    flat = value.reshape(-1)
    one = flat[flat.size // 2]
    if value.dtype.kind == "f":
        flat[flat.size // 2] = -1 - np.nan_to_num(one)
    else:
        flat[flat.size // 2] = ~one if value.dtype == bool else one ^ 1
    return value


@pytest.mark.parametrize("index", range(60))
def test_one_wrong_element_is_found(monkeypatch, index):
    """In each part of the result."""
    monkeypatch.setattr(Out, "given", lambda self: {})
    monkeypatch.setattr(Out, "check", lambda self, result: None)
    call = drawn(SEED, index)
    result = call.run(None)
    places = range(len(result)) if isinstance(result, tuple) else (None,)
    for place in places:
        if np.size(result if place is None else result[place]) == 0:
            continue

        def run(threads, place=place):
            result = call.run(threads)
            if place is None:
                return other(result)
            return tuple(other(one) if at == place else one for at, one in enumerate(result))

        with pytest.raises(AssertionError):
            judge(dataclasses.replace(call, run=run))


def test_writing_around_out_is_found():
    rng = np.random.default_rng(0)
    outs = [out for out in (Out(rng, (3, 4), np.float32) for _ in range(40)) if out.array is not None]
    assert len(outs) > 5
    for out in outs:
        given = out.given()["out"]
        given[...] = 1
        out.check(given)
        used = np.zeros(out.buffer.size, bool)
        places = (np.arange(out.buffer.size)[out.buffer == 1], used)
        used[places[0]] = True
        out.buffer[np.argmin(used)] = 2
        with pytest.raises(AssertionError, match="around out"):
            out.check(given)


def test_an_index_names_its_call():
    call = drawn(SEED, 3)
    text = line(SEED, 3, "scalar", call, AssertionError("two\nlines"))
    assert re.match(rf"python tests/fuzz --seed {SEED} --index 3 --isa scalar  # AssertionError: two lines -- ", text)
    assert "\n" not in text and call.name in text
