import os
import sys

# Before NumPy and PyTorch, for child processes as well: threads that wait for each other burn the cores that they need.
# The oracle's products are small.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ["SPARSECONV_TUNE"] = "0"  # what tests assert of choices holds with everyone's constants

import poison
import pytest
import simulated
from amx_emulated import emulation
from hypothesis import HealthCheck, settings

from sparseconv import cpu
from sparseconv.benchmark import command, peers

pytest.register_assert_rewrite("children", "cases", "comparisons", "output_masks")

# The `isa` fixture is meant to hold for all examples of a test.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, max_examples=300)
settings.load_profile("ci" if os.environ.get("CI") else "default")


SIMULATION = simulated.begin()


@pytest.fixture(params=simulated.VENDORS)
def vendor(request):
    """Run the test as on a CPU of each vendor."""
    with simulated.vendor(request.param):
        yield request.param


@pytest.fixture(scope="session", autouse=poison.WANTED)
def poisoned_session():
    """All tests with NaN in memory that nobody has written."""
    with poison.poisoned() as fills:
        yield
        assert fills() > 0, "no scratch memory was poisoned"


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The AMX kernels on emulated tile registers."""
    return emulation(tmp_path_factory.mktemp("amx"))


@pytest.fixture(params=cpu.available_isas())
def isa(request):
    """Run the test once on every instruction set of this machine."""
    with cpu.use_isa(request.param):
        yield request.param


@pytest.fixture
def unchanged_process(monkeypatch):
    """What ``sparseconv bench`` does to its process for good must not reach other tests."""
    monkeypatch.setattr(command, "keep_memory", lambda: True)
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    if cpu.isa() in peers.ONEDNN_ISAS:  # a run of the tests with SPARSECONV_ISA
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", peers.ONEDNN_ISAS[cpu.isa()])
    torch = sys.modules.get("torch")
    threads = torch and torch.get_num_threads()
    yield
    if torch:
        torch.set_num_threads(threads)
