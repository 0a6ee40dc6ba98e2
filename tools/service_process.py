"""Starts the real server for tests and benchmarks, with the command that a user runs."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx

from tools.ports import free_port

ROOT = Path(__file__).parents[1]
READY_SECONDS = 60
"""Maximum time until the server responds."""


@contextmanager
def serving(
    tmp_path: Path,
    bento: Path = ROOT,
    open_files: int | None = None,
    prefix: Sequence[str] = (),
    **environment: str,
) -> Iterator[tuple[httpx.Client, subprocess.Popen]]:
    """Runs `bentoml serve` on a free port. Yields a client and the server process, and stops the server afterwards.

    Args:
        tmp_path: folder for the log, service.log, and by default for the BentoML store.
        bento: folder of a Bento, or the root of this repository, where bentofile.yaml names the service.
        open_files: maximum number of open files of each process of the server; None keeps the present limit.
        prefix: command and arguments that precede the command of the server.
        environment: additional environment variables.
    """
    for attempt in range(3):
        server, port = start(tmp_path / "service.log", environment, bento, open_files, prefix)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                if not wait_until_alive(client, server, tmp_path / "service.log") and attempt < 2:
                    continue  # another process took the port in the meantime
                yield client, server
                return
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=30)


def start(
    log: Path,
    environment: dict[str, str],
    bento: Path = ROOT,
    open_files: int | None = None,
    prefix: Sequence[str] = (),
) -> tuple[subprocess.Popen, int]:
    """Starts a server on a free port. See `serving` for the arguments."""
    port = free_port()
    environment = {"BENTOML_HOME": str(log.parent / "bentoml")} | environment
    with log.open("w") as stream:
        command = [*prefix, Path(sys.executable).parent / "bentoml", "serve", bento, "--port", str(port)]
        folder = ROOT if bento == ROOT else log.parent  # a Bento must not import from the repository
        limit = open_files and partial(resource.setrlimit, resource.RLIMIT_NOFILE, (open_files, open_files))
        environment = os.environ | environment
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=stream, stderr=stream, preexec_fn=limit)
        return server, port


def wait_until_alive(client: httpx.Client, server: subprocess.Popen, log: Path) -> bool:
    """Waits until the server responds. Returns False if another process has its port."""
    deadline = time.monotonic() + READY_SECONDS
    while "Address already in use" not in log.read_text():
        try:
            client.get("/livez").raise_for_status()
            return True
        except httpx.TransportError:
            assert time.monotonic() < deadline, log.read_text()
            assert server.poll() is None, log.read_text()
            time.sleep(0.05)
    return False
