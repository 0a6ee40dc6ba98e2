"""Nothing that the project starts looks a host name up or leaves a file in the user's cache."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from devtools.service_process import serving
from models.onnx_file.store import SHIPPED

BIN = Path(sys.executable).parent
STRACE = shutil.which("strace")
"""Sees the look-ups of onnxruntime too, which is C++; without it, only those of Python are recorded."""
SWITCHES = ("ORT_DISABLE_TELEMETRY", "BENTOML_DO_NOT_TRACK")
QUERY = r"\1\0\0\1\0\0\0\0\0\0"
"""Header of a query to a name server, without its id, as strace prints it."""

# Python imports a module of this name when it starts.
RECORDER = """
import os, socket
original = socket.getaddrinfo
def recorded(host, *arguments, **options):
    with open(os.environ["RECORDED_LOOKUPS"], "a") as stream:
        print(host, file=stream)
    return original(host, *arguments, **options)
socket.getaddrinfo = recorded
"""


class Recording:
    """Environment and command that record look-ups and have a home folder of their own."""

    def __init__(self, folder: Path):
        self.home = folder / "home"
        self.lookups = folder / "lookups"
        self.trace = folder / "trace"
        modules = folder / "modules"
        for made in (self.home, modules):
            made.mkdir()
        (modules / "sitecustomize.py").write_text(RECORDER)
        self.environment = {
            "BENTOML_HOME": str(folder / "bentoml"),
            "HOME": str(self.home),
            "MPLCONFIGDIR": str(folder / "matplotlib"),  # for matplotlib's cache of fonts
            "PYTHONPATH": str(modules),
            "RECORDED_LOOKUPS": str(self.lookups),
            "XDG_CACHE_HOME": str(self.home / ".cache"),
        }
        calls = "trace=connect,sendto,sendmmsg,sendmsg"
        # With -D the command is this process's child, not strace's, and receives its signals.
        self.prefix = [STRACE, "-D", "-f", "-qq", "-s", "200", "-e", calls, "-o", str(self.trace)] if STRACE else []

    def run(self, *command: object) -> None:
        done = subprocess.run(
            [*self.prefix, *map(str, command)],
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr

    def check(self) -> None:
        """Asserts that no host but this one was looked up and nothing was left in the cache of the user."""
        own = {"127.0.0.1", "::1", "localhost", "0.0.0.0", socket.gethostname(), socket.getfqdn()}
        looked_up = {*self.lookups.read_text().split()} if self.lookups.exists() else set()
        assert looked_up <= own
        queries = [line for line in lines(self.trace) if QUERY in line]
        foreign = [line for line in queries if socket.gethostname() not in line]  # circus looks its own host up
        assert not foreign
        assert not [*self.home.glob(".cache/**/*")]


def lines(path: Path) -> list[str]:
    return path.read_text(errors="replace").splitlines() if path.exists() else []


@pytest.fixture
def recording(tmp_path, monkeypatch) -> Recording:
    for name in SWITCHES:  # the tests set them
        monkeypatch.delenv(name, raising=False)
    if STRACE is None:
        print("strace is not installed: look-ups of libraries in C++ are not recorded")
    return Recording(tmp_path)


@pytest.mark.slow
def test_training_looks_no_name_up(recording, tmp_path):
    recording.run(BIN / "train", "--dataset", "uci-digits", "--dry-run", "--out", tmp_path / "run")
    recording.check()


@pytest.mark.slow
def test_exporting_and_registering_look_no_name_up(recording, runs, tmp_path):
    recording.run(BIN / "export-onnx", runs["conditional"], "--out", tmp_path / "a.onnx", "--name", "a")
    recording.check()


@pytest.mark.slow
def test_evaluating_looks_no_name_up(recording, files):
    fast = ("--n", 256, "--fit-classifier", "--allow-weak-classifier", "--figures", "fid")
    recording.run(BIN / "evaluate", files["conditional"], *fast)
    recording.check()


def test_sampling_looks_no_name_up(recording, tmp_path):
    recording.run(BIN / "sample", SHIPPED, "--n", 4, "--out", tmp_path / "grid.png")
    recording.check()


def test_the_service_looks_no_name_up(recording, tmp_path):
    with serving(tmp_path, prefix=recording.prefix, **recording.environment, MNIST_GAN_MODEL=str(SHIPPED)) as (
        client,
        _,
    ):
        client.post("/generate").raise_for_status()
    recording.check()
