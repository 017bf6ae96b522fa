"""The soak test in short, and that it sees what it is for: ``python tests/soak --minutes 30`` is the long form."""

import sys

import numpy as np
import pytest
import soak_run
from soak_run import growth, soak

import sparseconv as sc
from sparseconv import cpu

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read in /proc")


def test_soak():
    before = cpu.isa(), cpu.num_threads()
    state, started, samples = soak(0.5, 4, 7, every=0.1, calls=150)
    assert not state.failures, "\n".join(state.failures)
    assert state.calls >= 150
    assert started >= 4
    assert state.ended == state.begun >= 1
    assert state.compared > 0
    assert samples
    assert (cpu.isa(), cpu.num_threads()) == before


def test_a_wrong_result_is_found(monkeypatch):
    right, calls = sc.conv2d, []

    def sometimes_wrong(*arguments, **options):
        result = right(*arguments, **options)
        calls.append(result)
        if len(calls) % 5 == 0 and isinstance(result, np.ndarray) and result.size:
            result.flat[0] += 1
        return result

    monkeypatch.setattr(sc, "conv2d", sometimes_wrong)
    state, *_ = soak(0, 2, 7, calls=1000)
    assert state.failures


def test_growth_is_found():
    flat = [100 + at % 3 for at in range(40)]
    assert abs(growth(flat)) < 3
    assert growth([*range(20), *[20] * 20]) < 3  # caches that fill at the beginning
    assert growth([100 + 2 * at for at in range(40)]) == 20


def test_an_index_names_its_call():
    state = soak_run.Soak(3)
    state.judge = lambda call: 1 / 0
    state.work()
    assert len(state.failures) == soak_run.CALLS_OF_A_THREAD
    assert state.failures[4].startswith("--seed 3 --index 4  # ")
