"""What the computer is: for ``sparseconv info``, and for whoever reads its output in a report."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

CPUS = Path("/sys/devices/system/cpu")
CPUINFO = Path("/proc/cpuinfo")
# Of x86-64, and of aarch64.
SIGNATURE = frozenset({
    "vendor_id", "cpu family", "model", "model name", "stepping",
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision",
})  # fmt: skip


def cpu_model() -> str:
    """The name that the CPU gives itself, or its architecture."""
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string") or platform.machine()
    facts = _facts(_text(CPUINFO))
    implementer = " ".join(f"{name} {facts[name]}" for name in ("CPU implementer", "CPU part") if name in facts)
    return facts.get("model name") or facts.get("Model") or implementer or platform.processor() or platform.machine()


def cpu_signature() -> str:
    """What tells a CPU from others that can have the same name, such as "AMD EPYC" of Zen 3 and of Zen 4.

    Read from what Linux says of the first CPU alone: with 256 of them all of it takes milliseconds.
    """
    if sys.platform == "darwin":
        return f"{cpu_model()}, {platform.machine()}"  # 5 ms
    try:
        with open(CPUINFO, "rb") as stream:
            text = stream.read(4096).decode(errors="replace")
    except OSError:
        return platform.machine()
    facts = _facts(text.partition("\n\n")[0])
    return ", ".join(value for name, value in facts.items() if name in SIGNATURE) or platform.machine()


def cores() -> str:
    """Logical CPUs, physical cores where the system tells, and how many of the former this process may use."""
    siblings = {_text(path) for path in CPUS.glob("cpu[0-9]*/topology/thread_siblings_list")} - {""}
    parts = [f"{os.cpu_count() or 1} logical"]
    if siblings:
        parts.append(f"{len(siblings)} physical")
    if hasattr(os, "sched_getaffinity"):
        parts.append(f"{len(os.sched_getaffinity(0))} for this process")
    return ", ".join(parts)


def caches() -> str:
    """Sizes of the first CPU's caches, or "unknown"."""
    if sys.platform == "darwin":
        sizes = {name: _sysctl(f"hw.{key}") for name, key in (("L1d", "l1dcachesize"), ("L2", "l2cachesize"))}
        return ", ".join(f"{name} {int(size) // 1024}K" for name, size in sizes.items() if size) or "unknown"
    found = []
    for folder in sorted((CPUS / "cpu0" / "cache").glob("index*")):
        level, kind, size = (_text(folder / name) for name in ("level", "type", "size"))
        if level and size and kind != "Instruction":
            found.append(f"L{level}{'d' if kind == 'Data' else ''} {size}")
    return ", ".join(found) or "unknown"


def installed(package: str) -> str | None:
    """The version of an installed package, which is not imported; None if there is none."""
    from importlib import metadata  # 18 ms, which the first call of who has tuned constants need not wait for

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _facts(text: str) -> dict[str, str]:
    """What /proc/cpuinfo says, of several CPUs the first."""
    facts: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    return facts


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _sysctl(name: str) -> str:
    import subprocess  # 8 ms, the same

    try:
        return subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
