"""Counts the CPUs that this process may use, and chooses the number of threads.

This module imports neither torch nor NumPy: both read OMP_NUM_THREADS when they are imported, so it must be set before.
"""

import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from models.common.errors import InputError

ROOT = Path("/")
"""Folder that holds `proc` and `sys`. Tests pass another one."""
IDLE_SECONDS = 0.3
"""Duration of the measurement of idle CPUs. The kernel counts CPU time in steps of 0.01 s."""
MAX_THREADS = 1_024
"""Largest value of --threads."""
_MOUNTS = {2: ("", "unified"), 1: ("cpu", "cpu,cpuacct")}
"""Folders below /sys/fs/cgroup with the CPU quotas, for each version of the cgroup interface."""


@dataclass(frozen=True)
class Threads:
    """The chosen number of threads."""

    number: int
    reason: str
    """Where the number comes from, such as "--threads" or "2 of 4 available CPUs idle"."""

    def __str__(self) -> str:
        return f"CPU threads: {self.number} ({self.reason})"


def available_cpus(root: Path = ROOT) -> int:
    """Returns the number of CPUs that this process may use, at least 1.

    It is the smallest of the number of CPUs in the affinity mask and the cgroup quotas, rounded up.

    Args:
        root: folder that holds `proc` and `sys`.
    """
    return max(1, min([len(_affinity()), *(math.ceil(quota) for quota in _quotas(root))]))


def idle_cpus(root: Path = ROOT) -> int:
    """Measures for `IDLE_SECONDS` how many of the available CPUs are idle; returns at least 1.

    On systems other than Linux, which report no CPU times in /proc, all available CPUs count as idle.
    """
    before = _cpu_times(root)
    time.sleep(IDLE_SECONDS)
    after = _cpu_times(root)
    busy = sum(_busy_share(before.get(cpu, times), times) for cpu, times in after.items() if cpu in _affinity())
    return max(1, min(available_cpus(root), round(len(_affinity()) - busy)))


def set_threads(asked: int | None = None, stored: int | None = None, root: Path = ROOT) -> Threads:
    """Chooses the number of CPU threads and sets OMP_NUM_THREADS to it. Call it before torch or NumPy is imported.

    In order of precedence: `asked`, a number in OMP_NUM_THREADS, `stored`, an equal share of the CPUs for each process
    of torchrun (LOCAL_WORLD_SIZE), the number of idle CPUs. More threads than idle CPUs would be slow: OpenMP threads
    spin while they wait, and so occupy a CPU that another thread needs (benchmarks/results/openmp-threads.md).

    Args:
        asked: value of --threads. None: the option was not given.
        stored: number that the run used before it was interrupted, reduced to the available CPUs. None: a new run.
        root: folder that holds `proc` and `sys`.

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
        return Threads(
            min(stored, available), "the same as at the start of the run" if stored <= available else "all available"
        )
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if processes > 1:  # the idle CPUs cannot be counted while the other processes of the run start
        return Threads(max(1, available // processes), f"{available} available CPUs for {processes} processes")
    idle = idle_cpus(root)
    return Threads(idle, f"{idle} of {available} available CPUs idle")


def _affinity() -> set[int]:
    """Numbers of the CPUs on which the scheduler may run this process. Only Linux reports them."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _quotas(root: Path) -> Iterator[float]:
    """Yields the CPU quota, in CPUs, of each cgroup with a quota that contains this process."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        hierarchy, controllers, path = line.split(":", 2)
        if hierarchy != "0" and "cpu" not in controllers.split(","):
            continue
        # The quota of a group limits all groups inside it. In a container, the files of its own group may be at the
        # root of the mount, although /proc reports the path on the host.
        group = PurePosixPath(path.strip("/"))
        for mount in _MOUNTS[2 if hierarchy == "0" else 1]:
            for parent in (group, *group.parents):
                folder = root / "sys/fs/cgroup" / mount / parent
                limit = _read(folder / "cpu.max").split() or [
                    *_read(folder / "cpu.cfs_quota_us").split(),
                    *_read(folder / "cpu.cfs_period_us").split(),
                ]
                if len(limit) == 2 and limit[0].isdigit():  # "max" and -1 mean that there is no quota
                    yield int(limit[0]) / int(limit[1])


def _cpu_times(root: Path) -> dict[int, list[int]]:
    """Returns the ticks of each CPU since boot: user, nice, system, idle, iowait, irq, softirq, steal."""
    rows = (line.split() for line in _read(root / "proc/stat").splitlines())
    return {int(row[0][3:]): [*map(int, row[1:9])] for row in rows if row and row[0][:3] == "cpu" and row[0][3:]}


def _busy_share(before: list[int], after: list[int]) -> float:
    """Share of the time between two readings of `_cpu_times` in which a CPU was neither idle nor in iowait."""
    spent = [late - early for early, late in zip(before, after, strict=True)]
    return 1 - sum(spent[3:5]) / sum(spent) if sum(spent) > 0 else 0.0


def _read(path: Path) -> str:
    """Returns the text of a file, or an empty text if the file cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""
