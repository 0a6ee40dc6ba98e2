"""The commands and the service look up no foreign host name and leave no file in the user's cache."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from models.onnx_file.store import SHIPPED
from tools.service_process import serving

BIN = Path(sys.executable).parent
STRACE = shutil.which("strace")
"""Path of strace, which also records look-ups of C++ libraries such as onnxruntime; None records only Python's."""
SWITCHES = ("ORT_DISABLE_TELEMETRY", "BENTOML_DO_NOT_TRACK")
QUERY = r"\1\0\0\1\0\0\0\0\0\0"
"""Header of a query to a name server, without its id, as strace prints it."""

# Python imports a module of the name sitecustomize when it starts.
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
    """Runs commands with a home folder of their own and records the host names that they look up."""

    def __init__(self, folder: Path):
        self.home = folder / "home"
        self.lookups = folder / "lookups"
        self.trace = folder / "trace"
        modules = folder / "modules"
        self.home.mkdir()
        modules.mkdir()
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
        # With -D the command, not strace, is the child of this process and receives its signals.
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
        """Asserts that only names of this host were looked up and that the user's cache is empty."""
        own = {"127.0.0.1", "::1", "localhost", "0.0.0.0", socket.gethostname(), socket.getfqdn()}
        looked_up = {*self.lookups.read_text().split()} if self.lookups.exists() else set()
        assert looked_up <= own
        queries = [line for line in lines(self.trace) if QUERY in line]
        foreign = [line for line in queries if socket.gethostname() not in line]  # circus looks up its own host
        assert not foreign
        assert not [*self.home.glob(".cache/**/*")]


def lines(path: Path) -> list[str]:
    return path.read_text(errors="replace").splitlines() if path.exists() else []


@pytest.fixture
def recording(tmp_path, monkeypatch) -> Recording:
    for name in SWITCHES:  # tests/__init__.py sets them
        monkeypatch.delenv(name, raising=False)
    if STRACE is None:
        print("strace is not installed: look-ups of libraries in C++ are not recorded")
    return Recording(tmp_path)


@pytest.mark.slow
def test_training_looks_up_no_host_name(recording, tmp_path):
    recording.run(BIN / "train", "--dataset", "uci-digits", "--dry-run", "--out", tmp_path / "run")
    recording.check()


@pytest.mark.slow
def test_exporting_and_registering_look_up_no_host_name(recording, tmp_path):
    checkpoint = SHIPPED.with_name("mnist-fast.safetensors")
    recording.run(BIN / "export-onnx", checkpoint, "--out", tmp_path / "a.onnx", "--name", "a")
    recording.check()


@pytest.mark.slow
def test_evaluating_looks_up_no_host_name(recording, files):
    fast = ("--n", 256, "--fit-classifier", "--allow-weak-classifier", "--metrics", "fid")
    recording.run(BIN / "evaluate", files["conditional"], *fast)
    recording.check()


def test_sampling_looks_up_no_host_name(recording, tmp_path):
    recording.run(BIN / "sample", SHIPPED, "--n", 4, "--out", tmp_path / "grid.png")
    recording.check()


@pytest.mark.slow
def test_the_service_looks_up_no_host_name(recording, tmp_path):
    with serving(tmp_path, prefix=recording.prefix, **recording.environment, MNIST_GAN_MODEL=str(SHIPPED)) as (
        client,
        _,
    ):
        client.post("/generate").raise_for_status()
    recording.check()
