"""Memory and files of the processes of a server. Only on Linux."""

import os
import subprocess
from pathlib import Path


def worker_ids(server: subprocess.Popen) -> list[int]:
    """Returns the process ids of the workers, or of the server itself if it has no separate workers."""
    listed = subprocess.run(
        ["pgrep", "-f", "_bentoml_impl.worker", "-P", str(server.pid)], capture_output=True, text=True
    )
    return [int(number) for number in listed.stdout.split()] or [server.pid]


def resident_bytes(server: subprocess.Popen) -> int:
    """Returns the resident memory of all workers together."""
    pages = [int(Path(f"/proc/{number}/statm").read_text().split()[1]) for number in worker_ids(server)]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE")


def open_files(server: subprocess.Popen) -> int:
    """Returns the number of open files, connections included, of all workers together."""
    return sum(len(list(Path(f"/proc/{number}/fd").iterdir())) for number in worker_ids(server))
