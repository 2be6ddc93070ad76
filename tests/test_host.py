"""The cores and the memory that this process may use."""

from pathlib import Path

import pytest

from m2sd_cli import host

MEMINFO = "MemTotal:       16000000 kB\nMemFree:  1000 kB\nMemAvailable:   12000000 kB\nHugePages_Total:       0\n"


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make folders like /proc and /sys/fs/cgroup of a computer without limits."""
    monkeypatch.setattr(host, "PROC", tmp_path / "proc")
    monkeypatch.setattr(host, "CGROUP", tmp_path / "cgroup")
    write(tmp_path, {"proc/meminfo": MEMINFO, "proc/cpuinfo": "model name\t: EPYC 9\n", "proc/self/cgroup": "0::/\n"})
    return tmp_path


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_a_computer_without_limits(system: Path) -> None:
    write(system, {"cgroup/cpu.max": "max 100000\n", "cgroup/memory.max": "max\n"})
    assert host.cpu_model() == "EPYC 9"
    assert host.core_limit() is None
    assert host.memory() == (16_000_000 * 1024, 12_000_000 * 1024)


def test_the_tightest_group_of_version_2_counts_and_pages_of_files_are_free(system: Path) -> None:
    write(
        system,
        {
            "proc/self/cgroup": "0::/job/step\n",
            "cgroup/job/step/cpu.max": "max 100000\n",
            "cgroup/job/cpu.max": "150000 100000\n",
            "cgroup/job/memory.max": "4000000000\n",
            "cgroup/job/memory.current": "3000000000\n",
            "cgroup/job/memory.stat": "anon 1\nfile 700000000\nshmem 200000000\n",
        },
    )
    assert host.core_limit() == 1.5
    assert host.memory() == (4_000_000_000, 1_500_000_000)


def test_groups_of_version_1_within_a_container(system: Path) -> None:
    write(
        system,
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/docker/1\n3:memory:/docker/1\n",
            "cgroup/cpu/cpu.cfs_quota_us": "200000\n",
            "cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "cgroup/memory/memory.limit_in_bytes": "2000000000\n",
            "cgroup/memory/memory.usage_in_bytes": "500000000\n",
        },
    )
    assert host.core_limit() == 2
    assert host.memory() == (2_000_000_000, 1_500_000_000)
    write(system, {"cgroup/memory/memory.stat": "cache 10\nrss 20\ntotal_cache 400000000\n"})
    assert host.memory() == (2_000_000_000, 1_900_000_000)
    write(system, {"cgroup/cpu/cpu.cfs_quota_us": "-1\n"})
    assert host.core_limit() is None


def test_a_system_without_these_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "PROC", tmp_path / "proc")
    assert (host.core_limit(), host.memory()) == (None, None)
    assert isinstance(host.cpu_model(), str)
