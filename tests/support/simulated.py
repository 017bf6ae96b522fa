"""Another CPU than this machine's: its vendor and L1, and tile registers (amx_emulated.py) below the public functions.

What a test asserts must hold on every machine, so each machine tests all of them. With ``SPARSECONV_TEST_CPU=intel``,
``amd``, ``zen5`` or ``other`` the whole suite runs as on a CPU of that vendor, with ``amx`` or ``amx_fp16`` as on one
of Intel's with AMX: then the `isa` fixture has one more instruction set of that name. Child processes run on the real
CPU.
"""

import contextlib
import os
import tempfile
from pathlib import Path

from amx_emulated import emulation
from task_structs import forget_plans

from sparseconv import cpu
from sparseconv._core import _cpu

FAMILIES = {"intel": 6, "amd": 25, "zen5": 26, "other": 0}
L1_BYTES = {"intel": 48 * 1024, "amd": 32 * 1024, "zen5": 48 * 1024, "other": 0}
VENDORS = tuple(FAMILIES)  # what vendor() says but for "zen5", which is AMD's
WANTED = os.environ.get("SPARSECONV_TEST_CPU", "")
TILES = ("amx", "amx_fp16")
if WANTED not in ("", *TILES, *VENDORS):
    raise ValueError(f"SPARSECONV_TEST_CPU: got {WANTED!r}, expected one of {', '.join((*TILES, *VENDORS))}")
HAS_AMX = "amx" in cpu.available_isas()  # really: this is imported before begin() is called
SIMULATED_AMX = WANTED in TILES and not HAS_AMX


@contextlib.contextmanager
def vendor(name):
    """While it lasts, costs are those on a CPU of this vendor."""
    before = _cpu.vendor, _cpu.family, _cpu.l1_bytes
    _become(name)
    forget_plans()
    try:
        yield
    finally:
        _cpu.vendor, _cpu.family, _cpu.l1_bytes = before
        forget_plans()


def _become(name):
    _cpu.vendor, _cpu.family = lambda: "amd" if name == "zen5" else name, lambda: FAMILIES[name]
    _cpu.l1_bytes = lambda: L1_BYTES[name]


def begin():
    """What the whole session needs, before tests are collected. Returns what must be kept."""
    if not WANTED:
        return None
    _become("intel" if WANTED in TILES else WANTED)
    if not SIMULATED_AMX:
        return None
    with tempfile.TemporaryDirectory() as folder:
        built = emulation(Path(folder))  # stays loaded without its file
    _cpu.simulate_tiles(built.tiles(WANTED == "amx_fp16"))
    return built
