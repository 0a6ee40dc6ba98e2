"""Starts the servers that the serving benchmarks compare, and stops those that are not measured."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx

from benchmarks.process_usage import process_tree
from tools.ports import free_port

ROOT = Path(__file__).parents[1]
SERVERS = ("ours", "fastapi", "litserve")
Server = Literal["ours", "fastapi", "litserve"]
TITLES = {"ours": "this project", "fastapi": "FastAPI", "litserve": "LitServe"}
COLOURS = {"ours": "tab:blue", "fastapi": "tab:orange", "litserve": "tab:green"}
PACKAGES = ("onnxruntime", "bentoml", "uvicorn", "fastapi", "litserve", "pillow", "numpy")
"""Packages whose versions are part of the results."""
START_SECONDS = 120
"""Maximum time until a server responds."""


@dataclass(frozen=True)
class RunningServer:
    """A server that runs only within `measured`."""

    port: int
    process: subprocess.Popen

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Lets the server run; it is stopped with SIGSTOP before and afterwards, so that it takes no time of others."""
        self._send(signal.SIGCONT)
        try:
            yield
        finally:
            self._send(signal.SIGSTOP)

    def kill(self) -> None:
        self._send(signal.SIGKILL)
        self.process.wait()

    def _send(self, number: int) -> None:
        """Sends a signal to the server and all its descendants."""
        for process_id in process_tree(self.process.pid):  # BentoML's workers are not in its process group
            os.kill(process_id, number)


@contextmanager
def running(name: str, model: Path, folder: Path, before: Path | None = None) -> Iterator[RunningServer]:
    """Starts a server, waits for its first response, and stops it until it is measured.

    Args:
        name: one of SERVERS, or "before": this project's service in another checkout.
        model: the model file.
        folder: folder for the log and the BentoML store.
        before: the other checkout.
    """
    port, model = free_port(), model.resolve()
    command = [sys.executable, "-m", "benchmarks.serving_peers", name, str(port), model]
    if name in ("ours", "before"):
        command = [Path(sys.executable).parent / "bentoml", "serve", "--port", str(port)]
    if name == "before" and before and model.is_relative_to(ROOT):
        model = before.resolve() / model.relative_to(ROOT)  # its own copy: the format of the card may differ
    environment = os.environ | {"MNIST_GAN_MODEL": str(model), "BENTOML_HOME": str(folder / name)}
    log = folder / f"{name}.log"
    with log.open("w") as stream:
        checkout = before if name == "before" else ROOT
        process = subprocess.Popen(command, cwd=checkout, env=environment, stdout=stream, stderr=stream)
    server = RunningServer(port, process)
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                httpx.post(f"http://127.0.0.1:{port}/generate", json={"n": 1}, timeout=30).raise_for_status()
                break
            except httpx.HTTPError:
                if time.monotonic() > deadline or process.poll() is not None:
                    sys.exit(f"{name} does not respond:\n{log.read_text()}")
                time.sleep(0.5)
        with server.measured():
            pass  # stops it
        yield server
    finally:
        server.kill()
