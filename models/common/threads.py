"""Number of CPUs that this process may use, and number of threads that it should start.

Nothing here imports torch or NumPy: both read OMP_NUM_THREADS when they are loaded, so it has to be set before.
"""

import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from models.common.errors import InputError

ROOT = Path("/")
IDLE_SECONDS = 0.3
"""Time over which the idle CPUs are counted; the kernel counts in steps of 0.01 s."""
MAX_THREADS = 1_024
_MOUNTS = {2: ("", "unified"), 1: ("cpu", "cpu,cpuacct")}
"""Folders of /sys/fs/cgroup that hold the CPU quotas, by the version of the cgroup interface."""


@dataclass(frozen=True)
class Threads:
    """Number of threads, and why it is this number."""

    number: int
    reason: str

    def __str__(self) -> str:
        return f"CPU threads: {self.number} ({self.reason})"


def available_cpus(root: Path = ROOT) -> int:
    """Number of CPUs that this process may use: the least of its CPU affinity and of its cgroups' quotas, rounded up.

    Args:
        root: folder that holds `proc` and `sys`.
    """
    return max(1, min([len(_affinity()), *(math.ceil(quota) for quota in _quotas(root))]))


def idle_cpus(root: Path = ROOT) -> int:
    """Number of available CPUs that other processes leave idle, measured over `IDLE_SECONDS`; at least 1.

    All available CPUs count as idle where the system reports no CPU times, which only Linux does.
    """
    before = _cpu_times(root)
    time.sleep(IDLE_SECONDS)
    after = _cpu_times(root)
    busy = sum(_busy_share(before.get(cpu, times), times) for cpu, times in after.items() if cpu in _affinity())
    return max(1, min(available_cpus(root), round(len(_affinity()) - busy)))


def set_threads(asked: int | None = None, stored: int | None = None, root: Path = ROOT) -> Threads:
    """Chooses the number of CPU threads and sets OMP_NUM_THREADS to it. Call it before torch or NumPy is loaded.

    The idle CPUs are the default because threads of OpenMP spin while they wait for each other: with more threads than
    idle CPUs, a thread that waits keeps the others from running (benchmarks/results/openmp-threads.md).

    Args:
        asked: number that the user gave as --threads.
        stored: number that the run used before it was interrupted.

    Raises:
        InputError: `asked` is out of range.
    """
    if asked is not None and not 1 <= asked <= MAX_THREADS:
        raise InputError("threads", f"must be from 1 to {MAX_THREADS:,}, got {asked}")
    threads = _choose(asked, stored, root)
    if threads.reason != "OMP_NUM_THREADS":
        os.environ["OMP_NUM_THREADS"] = str(threads.number)
    return threads


def _choose(asked: int | None, stored: int | None, root: Path) -> Threads:
    if asked is not None:
        return Threads(asked, "--threads")
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # one number for each nesting level
    if first.isdigit() and int(first):
        return Threads(int(first), "OMP_NUM_THREADS")
    available = available_cpus(root)
    if stored is not None:
        return Threads(min(stored, available), "as at the start of the run" if stored <= available else "all available")
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if processes > 1:  # the idle CPUs cannot be counted while the other processes of the run start
        return Threads(max(1, available // processes), f"{available} available CPUs for {processes} processes")
    idle = idle_cpus(root)
    return Threads(idle, f"{idle} of {available} available CPUs idle")


def _affinity() -> set[int]:
    # Only Linux has an affinity.
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _quotas(root: Path) -> Iterator[float]:
    """CPU quotas, in CPUs, of the cgroups that hold this process."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        hierarchy, controllers, path = line.split(":", 2)
        if hierarchy != "0" and "cpu" not in controllers.split(","):
            continue
        # A limit of a group holds for all groups within it. In a container, the files of its own group may lie at the
        # root of the mount although /proc names the path on the host.
        group = PurePosixPath(path.strip("/"))
        for mount in _MOUNTS[2 if hierarchy == "0" else 1]:
            for parent in (group, *group.parents):
                folder = root / "sys/fs/cgroup" / mount / parent
                limit = _read(folder / "cpu.max").split() or [
                    *_read(folder / "cpu.cfs_quota_us").split(),
                    *_read(folder / "cpu.cfs_period_us").split(),
                ]
                if len(limit) == 2 and limit[0].isdigit():  # neither "max" nor -1, which are no limit
                    yield int(limit[0]) / int(limit[1])


def _cpu_times(root: Path) -> dict[int, list[int]]:
    """Times of each CPU since the start of the machine: user, nice, system, idle, iowait, irq, softirq, steal."""
    rows = (line.split() for line in _read(root / "proc/stat").splitlines())
    return {int(row[0][3:]): [*map(int, row[1:9])] for row in rows if row and row[0][:3] == "cpu" and row[0][3:]}


def _busy_share(before: list[int], after: list[int]) -> float:
    spent = [late - early for early, late in zip(before, after, strict=True)]
    return 1 - sum(spent[3:5]) / sum(spent) if sum(spent) > 0 else 0.0


def _read(path: Path) -> str:
    """Text of a file; empty where there is none that can be read."""
    try:
        return path.read_text()
    except OSError:
        return ""
