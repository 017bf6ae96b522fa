"""The trials of threads and processes in short; ``python tests/threads`` is the long form."""

import pytest
import trials
from children import LINUX, needs_fork

from sparseconv import cpu

# AMX may be simulated, and not in children.
ISA = next(name for name in cpu.available_isas() if not name.startswith("amx"))


@pytest.mark.parametrize("interval", [0.005, 1e-6])
def test_many_python_threads(interval):
    trials.many_python_threads(ISA, 30, interval)


def test_numbers_of_threads():
    trials.numbers_of_threads(ISA, 20)


@needs_fork
def test_forks_during_a_call():
    trials.forks_during_a_call(5)


@pytest.mark.parametrize("name", trials.ENDINGS)
def test_ending(name):
    trials.ending(name)


@pytest.mark.skipif(not LINUX, reason="preloads a library")
def test_threads_that_fail(tmp_path):
    if trials.library_without_threads(tmp_path) is None:
        pytest.skip("needs a C compiler")
    trials.threads_that_fail(tmp_path)


@needs_fork
def test_alarms():
    trials.alarms(1)


@needs_fork
def test_interrupts():
    """Each ends the call, and the next one is right. How soon is measured by the long form."""
    assert len(trials.interrupts(3, 2)) == 3
