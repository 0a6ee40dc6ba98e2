"""Memory and processor time of a process and all its descendants, read from /proc. Linux only."""

import os
from collections.abc import Callable
from pathlib import Path


def process_tree(root: int) -> list[int]:
    """Returns the ids of a process and of all its descendants."""
    children = Path(f"/proc/{root}/task/{root}/children").read_text().split()
    return [root, *(process for child in children for process in process_tree(int(child)))]


def proportional_mib(root: int) -> float:
    """Returns the proportional set size of a process tree in MiB: memory that processes share counts once."""
    return _sum_mib(root, lambda process: f"/proc/{process}/smaps_rollup", "Pss")


def status_mib(root: int, field: str) -> float:
    """Returns the sum of a field of /proc/PID/status, such as VmRSS, over a process tree in MiB."""
    return _sum_mib(root, lambda process: f"/proc/{process}/status", field)


def cpu_seconds(root: int) -> float:
    """Returns the user and system time that the live processes of a tree have used."""

    def ticks(process: int) -> int:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    return sum(map(ticks, process_tree(root))) / os.sysconf("SC_CLK_TCK")


def main_thread_milliseconds(root: int) -> float:
    """Returns the processor time that the main threads of a process tree have used."""
    schedstats = (Path(f"/proc/{process}/task/{process}/schedstat") for process in process_tree(root))
    return sum(int(path.read_text().split()[0]) for path in schedstats) / 1e6


def reset_peak_memory(root: int) -> None:
    """Resets the peak resident set size (VmHWM) of each process of a tree to its present size."""
    for process in process_tree(root):
        Path(f"/proc/{process}/clear_refs").write_text("5")


def open_files(root: int) -> int:
    """Returns the number of open file descriptors of a process tree."""
    return sum(len(list(Path(f"/proc/{process}/fd").iterdir())) for process in process_tree(root))


def _sum_mib(root: int, path: Callable[[int], str], field: str) -> float:
    def kibibytes(process: int) -> int:
        lines = Path(path(process)).read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))

    return sum(map(kibibytes, process_tree(root))) / 1024
