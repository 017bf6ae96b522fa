"""How much CPU time the cgroups of this process leave it (Linux): containers, services and batch jobs are limited so.

A quota may stand at the process's own group or at any group above it, in the one hierarchy of version 2 (cpu.max) or
in that of version 1 which has the controller "cpu" (cpu.cfs_quota_us, cpu.cfs_period_us); hybrid systems have both. The
file mountinfo says where a hierarchy can be seen, and from which of its groups on; the file cgroup says which group is
the process's own. Both name groups from the root of the process's cgroup namespace. See cgroups(7) and proc(5).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def cpu_quota(process: Path = Path("/proc/self"), root: Path = Path("/")) -> float | None:
    """CPUs' worth of time per period: the smallest quota of all groups of the process, None without any.

    `root` is where mount points begin.
    """
    quotas = [one for folder in _groups(process, root) for one in (_version_2(folder), _version_1(folder)) if one]
    return min(quotas, default=None)


def _groups(process: Path, root: Path) -> Iterator[Path]:
    """The folders of the process's own groups and of all groups above them that can be seen."""
    try:
        own = dict(_memberships(_text(process / "cgroup")))
        mounts = list(_mounts(_text(process / "mountinfo")))
    except (OSError, ValueError):
        yield from (root / "sys/fs/cgroup", root / "sys/fs/cgroup/cpu")
        return
    for version, first, point in mounts:
        group = own.get(version)
        if group is None:
            continue
        folder = root / point.lstrip("/")
        try:
            below = PurePosixPath(group).relative_to(first).parts
        except ValueError:  # a mount of other groups than ours, as seen from here
            if ".." not in PurePosixPath(group).parts:  # it was made outside: what is there is what we are in
                yield folder
            continue
        if ".." in below:  # above all that is mounted
            continue
        yield folder
        for name in below:
            folder /= name
            yield folder


def _memberships(text: str) -> Iterator[tuple[int, str]]:
    """(version, group) from lines such as ``0::/user.slice`` and ``4:cpu,cpuacct:/docker/17``."""
    for line in text.splitlines():
        number, controllers, group = line.split(":", 2)
        if number == "0" and not controllers:
            yield 2, group
        elif "cpu" in controllers.split(","):
            yield 1, group


def _mounts(text: str) -> Iterator[tuple[int, str, str]]:
    """(version, the group that is mounted, mount point) of every hierarchy that can have quotas."""
    for line in text.splitlines():
        mount, _, system = line.partition(" - ")
        first, point = (_unescaped(word) for word in mount.split(" ")[3:5])
        kind, _, options = system.split(" ", 2)
        if kind == "cgroup2":
            yield 2, first, point
        elif kind == "cgroup" and "cpu" in options.split(","):
            yield 1, first, point


def _unescaped(word: str) -> str:
    """A word of mountinfo, which writes white space and backslashes as three octal digits."""
    for letter in " \t\n\\":
        word = word.replace(f"\\{ord(letter):03o}", letter)
    return word


def _version_2(folder: Path) -> float | None:
    return _share(folder, "cpu.max")


def _version_1(folder: Path) -> float | None:
    return _share(folder, "cpu.cfs_quota_us", "cpu.cfs_period_us")


def _share(folder: Path, *names: str) -> float | None:
    """Quota over period, the two numbers of these files; None where there is no quota ("max", -1) or no file."""
    try:
        quota, period = map(int, " ".join(_text(folder / name) for name in names).split())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 and period > 0 else None


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="surrogateescape")
