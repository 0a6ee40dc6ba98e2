"""A lock lets one process at a time write into a folder."""

import os
import socket
import subprocess
import sys

import pytest

from models.common.lock import LOCK, LockedError, lock_folder

pytest.importorskip("fcntl", reason="Windows has no locks")

HOLD = (
    "import sys; from pathlib import Path; from models.common.lock import lock_folder\n"
    "with lock_folder(Path(sys.argv[1])):\n"
)
HOLD += "    print('locked', flush=True); sys.stdin.read()"


def hold(folder) -> subprocess.Popen:
    command = [sys.executable, "-c", HOLD, folder]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    return process


def test_the_error_of_a_second_process_names_the_process_id_and_the_host_of_the_first(tmp_path):
    with hold(tmp_path) as first:
        with pytest.raises(LockedError, match=f"in use by process {first.pid} on {socket.gethostname()}"):
            lock_folder(tmp_path).__enter__()
        first.stdin.close()
        assert first.wait(60) == 0
    with lock_folder(tmp_path):
        assert (tmp_path / LOCK).read_text() == f"process {os.getpid()} on {socket.gethostname()}"


def test_a_killed_process_releases_its_lock(tmp_path):
    with hold(tmp_path) as first:
        first.kill()
        first.wait(60)
        assert (tmp_path / LOCK).exists()
    with lock_folder(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_that_the_lock_created_is_deleted_and_others_are_kept(tmp_path):
    (tmp_path / "there").mkdir()
    for name in ("there", "used", "empty"):
        with lock_folder(tmp_path / name):
            if name == "used":
                (tmp_path / name / "file").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there", "used"]


def test_an_error_inside_the_context_is_raised_and_releases_the_lock(tmp_path):
    for _ in range(2):
        with pytest.raises(FileNotFoundError), lock_folder(tmp_path):
            (tmp_path / "nothing").read_bytes()
