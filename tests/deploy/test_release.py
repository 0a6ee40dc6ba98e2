"""`make release`."""

import hashlib
import shutil
import subprocess
from pathlib import Path
from zipfile import ZipFile

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def release(dist: Path) -> dict[str, bytes]:
    if not (ROOT / ".venv/bin/bentoml").exists() or not shutil.which("make"):
        pytest.skip("it takes make, and the environment that make sets up")
    # What setup makes is there already: these tests run in it.
    command = ["make", "--assume-old=.venv/ready-cpu", "--assume-old=.venv/ready-gpu", "release", f"DIST={dist}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return {file.name: file.read_bytes() for file in dist.iterdir() if not file.name.startswith(".")}


def test_a_release_has_a_wheel_a_bento_and_their_hashes_and_the_wheel_is_the_same_twice(tmp_path):
    one, two = release(tmp_path / "one"), release(tmp_path / "two")
    (wheel,) = (name for name in one if name.endswith(".whl"))
    (bento,) = (name for name in one if name.endswith(".bento"))
    assert one[wheel] == two[wheel]
    told = dict(reversed(line.split()) for line in one["SHA256SUMS"].decode().splitlines())
    assert told == {name: hashlib.sha256(one[name]).hexdigest() for name in (wheel, bento)}
    packed = ZipFile(tmp_path / "one" / wheel).namelist()
    assert {name.partition("/")[0] for name in packed if "dist-info" not in name} == {"models", "training", "serving"}
