"""CPU quotas of cgroups, in trees of files as container engines, systemd and batch systems make them."""

import os

import pytest

from sparseconv import cpu
from sparseconv._core import cgroups

V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
OTHER_MOUNTS = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n23 22 0:5 / /my\\040data rw - cgroups cgroup cpu\n"


def v1_mount(root="/", point="/sys/fs/cgroup/cpu,cpuacct"):
    return f"33 25 0:29 {root} {point} rw,relatime shared:15 - cgroup cgroup rw,cpu,cpuacct\n"


@pytest.fixture
def quota(tmp_path):
    """Writes a tree and asks it: `limits` are the contents of files below the root."""

    def ask(memberships, mounts, limits):
        process = tmp_path / "proc"
        process.mkdir()
        (process / "cgroup").write_text(memberships)
        (process / "mountinfo").write_text(OTHER_MOUNTS + mounts)
        for name, text in limits.items():
            file = tmp_path / "root" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return cgroups.cpu_quota(process, tmp_path / "root")

    return ask


def v1(folder, quota, period=100000):
    return {f"{folder}/cpu.cfs_quota_us": f"{quota}\n", f"{folder}/cpu.cfs_period_us": f"{period}\n"}


def test_service_of_systemd(quota):
    """The quota stands at the scope, not at the root, which has no cpu.max."""
    group = "/system.slice/run-u17.scope"
    assert quota(f"0::{group}\n", V2_MOUNT, {f"sys/fs/cgroup{group}/cpu.max": "150000 100000\n"}) == 1.5


@pytest.mark.parametrize("smallest", ["a", "a/b", "a/b/c"])
def test_smallest_on_the_path(quota, smallest):
    limits = {f"sys/fs/cgroup/{group}/cpu.max": "800000 100000\n" for group in ("a", "a/b", "a/b/c")}
    limits[f"sys/fs/cgroup/{smallest}/cpu.max"] = "100000 50000\n"
    limits["sys/fs/cgroup/a/sibling/cpu.max"] = limits["sys/fs/cgroup/a/b/c/d/cpu.max"] = "1000 100000\n"
    assert quota("0::/a/b/c\n", V2_MOUNT, limits) == 2


def test_no_quota(quota):
    limits = {"sys/fs/cgroup/a/cpu.max": "max 100000\n", "sys/fs/cgroup/a/b/cpu.weight": "100\n"}
    assert quota("0::/a/b\n", V2_MOUNT, limits) is None


def test_container_with_a_namespace(quota):
    """The container's group is the root of what it sees."""
    assert quota("0::/\n", V2_MOUNT, {"sys/fs/cgroup/cpu.max": "250000 100000\n"}) == 2.5


@pytest.mark.parametrize(
    "group, root, place",
    [
        ("/docker/17", "/docker/17", ""),  # a container that sees the names of its host
        ("/docker/17/worker", "/docker/17", "/worker"),
        ("/../worker", "/..", "/worker"),  # a mount from above the root of the namespace
        ("/user", "/elsewhere", ""),  # made before the namespace
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_mount_of_a_part(quota, group, root, place, version):
    if version == 1:
        limits = v1(f"sys/fs/cgroup/cpu,cpuacct{place}", 300000)
        assert quota(f"4:cpu,cpuacct:{group}\n0::/\n", v1_mount(root), limits) == 3
    else:
        mount = V2_MOUNT.replace(" / /sys", f" {root} /sys")
        assert quota(f"0::{group}\n", mount, {f"sys/fs/cgroup{place}/cpu.max": "300000 100000"}) == 3


def test_outside_of_what_is_mounted(quota):
    """The process was moved out of its namespace: limits of groups that it is not in do not count."""
    assert quota("0::/../other\n", V2_MOUNT, {"sys/fs/cgroup/cpu.max": "100000 100000\n"}) is None


def test_version_1(quota):
    base = "sys/fs/cgroup/cpu,cpuacct"
    limits = v1(base, -1) | v1(f"{base}/slurm", 400000) | v1(f"{base}/slurm/job_1", 100000, 40000)
    assert quota("7:memory:/x\n4:cpu,cpuacct:/slurm/job_1\n1:cpuset:/\n", v1_mount(), limits) == 2.5


def test_hybrid(quota):
    """Version 2 for systemd's own use, version 1 for the controllers; and the other way round."""
    hybrid = v1_mount() + V2_MOUNT.replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified ")
    limits = v1("sys/fs/cgroup/cpu,cpuacct/a", 200000) | {"sys/fs/cgroup/unified/a/cpu.max": "max 100000\n"}
    assert quota("4:cpu,cpuacct:/a\n0::/a\n", hybrid, limits) == 2


@pytest.mark.parametrize("first, second", [(100000, 300000), (300000, 100000)])
def test_hybrid_with_two_quotas(quota, first, second):
    hybrid = v1_mount() + V2_MOUNT.replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified ")
    limits = v1("sys/fs/cgroup/cpu,cpuacct/a", first) | {"sys/fs/cgroup/unified/b/cpu.max": f"{second} 100000\n"}
    assert quota("4:cpu,cpuacct:/a\n0::/b\n", hybrid, limits) == 1


def test_names_with_colons_and_spaces(quota):
    mount = V2_MOUNT.replace("/sys/fs/cgroup ", "/c\\040g\\134 ")
    assert quota("0::/a:b/c d\n", mount, {"c g\\/a:b/c d/cpu.max": "100000 100000"}) == 1


@pytest.mark.parametrize("text", ["", "max", "100000", "100000 0\n", "0 100000\n", "-1 100000\n", "a b\n", "1 2 3\n"])
def test_what_is_no_quota(quota, text):
    assert quota("0::/\n", V2_MOUNT, {"sys/fs/cgroup/cpu.max": text}) is None


@pytest.mark.parametrize("limits", [{"sys/fs/cgroup/cpu.max": "200000 100000"}, v1("sys/fs/cgroup/cpu", 200000), {}])
def test_without_proc(tmp_path, limits):
    for name, text in limits.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cgroups.cpu_quota(tmp_path / "proc", tmp_path) == (2 if limits else None)


def test_nonsense_in_proc(tmp_path):
    (tmp_path / "cgroup").write_text("what\n")
    (tmp_path / "mountinfo").write_text("is this\n")
    assert cgroups.cpu_quota(tmp_path, tmp_path) is None


@pytest.mark.parametrize("quota, expected", [(None, 8), (0.2, 1), (1.5, 2), (2.0, 2), (64.0, 8)])
def test_threads_follow(monkeypatch, quota, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(cgroups, "cpu_quota", lambda: quota)
    assert cpu._usable_cpus() == expected
