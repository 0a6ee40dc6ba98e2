"""Metrics of several servers on one machine, of several workers, and on a full disk."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from models.onnx_file.store import SHIPPED
from serving.http import metrics
from serving.http.startup import Workers
from tests.conftest import file_limit
from tools.service_process import serving

TWO_WORKERS = {"MNIST_GAN_WORKERS": "2", "MNIST_GAN_THREADS": "1"}


def generated_images(client: httpx.Client) -> float:
    """Returns the sum of `mnist_gan_images_total` over all routes."""
    lines = client.get("/metrics").raise_for_status().text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("mnist_gan_images_total"))


@pytest.mark.slow
def test_servers_with_one_bentoml_home_keep_their_own_metrics_and_remove_their_folders(tmp_path):
    temporary = tmp_path / "temporary"
    unused = temporary / f"{metrics.FOLDER_PREFIX}unused"
    unused.mkdir(parents=True)
    common = {
        "MNIST_GAN_MODEL": str(SHIPPED),
        "BENTOML_HOME": str(tmp_path / "bentoml"),
        "TMPDIR": str(temporary),
    }
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    with serving(tmp_path / "first", **common, **TWO_WORKERS) as (first, _):
        assert not unused.exists()
        for _ in range(4):  # either worker may get a request
            first.post("/generate", json={"n": 5}).raise_for_status()
        with serving(tmp_path / "second", **common) as (second, _):
            second.post("/generate", json={"n": 3}).raise_for_status()
            assert generated_images(second) == 3
            assert generated_images(first) == 20
            assert len([*temporary.glob(f"{metrics.FOLDER_PREFIX}*")]) == 1
    assert not [*temporary.glob(f"{metrics.FOLDER_PREFIX}*")]


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB that is full."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted: {mounted.stderr.strip()}")
    try:
        for name in ("bentos", "models"):  # a start creates these folders
            (folder / name).mkdir()
        with suppress(OSError), (folder / "full").open("wb", buffering=0) as stream:
            while True:
                stream.write(bytes(4096))
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.slow
def test_the_service_works_with_a_full_disk_at_bentoml_home(tmp_path, full_disk):
    environment = {"MNIST_GAN_MODEL": str(SHIPPED), "BENTOML_HOME": str(full_disk)}
    with serving(tmp_path, **environment) as (client, _):
        client.post("/generate", json={"n": 5}).raise_for_status()
        assert generated_images(client) == 5


@pytest.mark.slow
def test_workers_that_cannot_allocate_files_serve_without_metrics_and_log_it_once(tmp_path):
    environment = {"MNIST_GAN_MODEL": str(SHIPPED), **TWO_WORKERS}
    with file_limit(metrics.FILE_BYTES // 2), serving(tmp_path, **environment) as (client, _):
        log = tmp_path / "service.log"
        deadline = time.monotonic() + 60
        while log.read_text().count("serving ") < 2:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        for _ in range(4):
            client.post("/generate", json={"n": 5}).raise_for_status()
        assert generated_images(client) == 0
        assert client.get("/readyz").status_code == 200
    reports = [line for line in log.read_text().splitlines() if "are not reported" in line]
    assert len(reports) == 2
    assert all("File too large" in line for line in reports)


def test_a_metrics_folder_is_removed_once_it_is_no_longer_locked(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    first, lock = metrics.make_folder()
    second, _ = metrics.make_folder()
    assert Path(first).exists()
    os.close(lock)  # the end of the process does this
    metrics.make_folder()
    assert not Path(first).exists()
    assert Path(second).exists()


class Process:
    """Replacement for a process of circus."""

    def __init__(self, number: int):
        self.wid = number


class Watcher:
    """Replacement for the watcher of circus, with the attributes that the hooks use."""

    def __init__(self, workers: int, respawn: bool = True):
        self.numprocesses = workers
        self.respawn = respawn
        self.processes: dict[int, Process] = {}
        self.env: dict[str, str] = {}
        self.stopping = False

    def is_stopping(self) -> bool:
        return self.stopping

    def spawn(self, hooks: dict, number: int, pid: int) -> str:
        """Starts a process. Returns the number of replaced workers in its environment."""
        assert hooks["before_spawn"](watcher=self, arbiter=None, hook_name="before_spawn")
        self.processes[pid] = Process(number)
        assert hooks["after_spawn"](watcher=self, arbiter=None, hook_name="after_spawn", pid=pid)
        return self.env[metrics.WORKERS_REPLACED]

    def reap(self, hooks: dict, pid: int, exit_code: int | None) -> None:
        """Removes a process that has ended."""
        del self.processes[pid]
        hooks["after_reap"](
            watcher=self, arbiter=None, hook_name="after_reap", process_pid=pid, exit_code=exit_code, time=0.0
        )


def test_a_replaced_worker_is_counted_and_logged_with_its_number_and_process_ids(caplog):
    hooks, watcher = Workers("").hooks(), Watcher(2)
    assert [watcher.spawn(hooks, 1, 101), watcher.spawn(hooks, 2, 102)] == ["0", "0"]
    assert not caplog.messages
    watcher.reap(hooks, 102, -9)
    assert watcher.spawn(hooks, 2, 103) == "1"
    watcher.reap(hooks, 103, 3)
    assert watcher.spawn(hooks, 2, 104) == "2"
    assert caplog.messages == [
        "worker 2 died: process 102 was killed by SIGKILL; process 103 replaces it",
        "worker 2 died: process 103 ended with exit code 3; process 104 replaces it",
    ]


def test_a_worker_that_ends_because_the_server_stops_is_not_logged(caplog):
    hooks, watcher = Workers("").hooks(), Watcher(1, respawn=False)
    watcher.spawn(hooks, 1, 101)
    watcher.stopping = True
    watcher.reap(hooks, 101, 0)
    assert not caplog.messages


def test_a_worker_that_dies_in_a_container_is_logged_but_not_replaced(caplog):
    hooks, watcher = Workers("").hooks(), Watcher(1, respawn=False)
    watcher.spawn(hooks, 1, 101)
    watcher.reap(hooks, 101, -11)
    assert caplog.messages == ["worker 1 died: process 101 was killed by SIGSEGV; it is not replaced in a container"]
