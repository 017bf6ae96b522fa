"""Random calls of every public function against the oracle: the short form of ``python tests/fuzz``."""

import dataclasses
import inspect
import re

import numpy as np
import pytest
from fuzz_calls import drawn
from fuzz_results import Out, judge
from fuzz_run import Plan, fuzz, line, told
from fuzz_strange import beyond_numbers, strange

import sparseconv as sc
from sparseconv import cpu, masks

SEED, CALLS, BLOCK, SHOWN = 1, 5000, 500, 400


@pytest.mark.parametrize("first", range(0, CALLS, BLOCK))
def test_calls(first):
    """On each instruction set of the machine the same calls, which are drawn once."""
    plan = Plan(SEED, tuple(cpu.available_isas()))
    calls = fuzz(plan, range(first, first + BLOCK))
    wrong = [line(plan, index, isa, told(call, error)) for isa, index, call, error in calls if error]
    assert not wrong, "\n" + "\n".join(wrong)


def test_every_function_is_drawn():
    """And most of what is drawn has a result that says something."""
    calls = [drawn(SEED, index) for index in range(SHOWN)]
    words = " ".join(call.details for call in calls)
    names = {name for call in calls for name in call.name.split(", ")} | ({"prepare"} if "prepared" in words else set())
    functions = {name for name in sc.__all__ if inspect.isfunction(getattr(sc, name))}
    functions -= {"plan", "get_include"}  # which give no arrays
    functions -= {"pack_weight", "pack_spikes"}  # which make operands of others
    assert functions | {f"masks.{name}" for name in masks.__all__} <= names
    assert sum(call.forced for call in calls) < 0.15 * SHOWN
    wanted = "PackedWeight CompressedArray Spikes return_mask threshold output_mask residual out= float64 strange"
    for word in wanted.split():
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
    text = line(Plan(SEED, ()), 3, "scalar", told(call, AssertionError("two\nlines")))
    assert re.match(rf"python tests/fuzz --seed {SEED} --index 3 --isa scalar  # AssertionError: two lines -- ", text)
    assert "\n" not in text and call.name in text


def test_what_strange_values_give():
    """Against products that are added one by one, all of them or those without a skipped zero."""
    rng = np.random.default_rng(0)
    seen = set()
    for skipped in (None, 0, 1) * 20:
        a, b = (strange(rng, rng.integers(-1, 2, shape).astype(np.float64)) for shape in ((5, 6), (6, 4)))
        with np.errstate(all="ignore"):
            products = a[:, :, None] * b
            for place, zero in enumerate(((a == 0)[:, :, None], b == 0)):
                products = np.where(zero & (place == skipped), 0, products)
            expected = products.sum(axis=1)
        actual = np.broadcast_to(beyond_numbers(np.matmul, a, b, skipped), expected.shape)
        assert np.array_equal(actual, np.where(np.isfinite(expected), 0, expected), equal_nan=True)
        seen |= set(actual[~np.isnan(actual)].tolist()) | ({"NaN"} if np.isnan(actual).any() else set())
    assert seen == {0, np.inf, -np.inf, "NaN"}
