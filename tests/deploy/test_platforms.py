"""The pinned packages of the images exist for x86-64 and for arm64."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools.service_process import ROOT

UV = Path(sys.executable).with_name("uv")
PLATFORMS = [f"{machine}-manylinux_2_40" for machine in ("x86_64", "aarch64")]
"""Platform tags for uv. The images' base, Debian 13, has glibc 2.41, so it takes manylinux_2_40 wheels."""


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("image", ["cpu", "cuda"])
def test_every_pinned_package_of_an_image_has_a_wheel_for_the_platform(platform, image, tmp_path):
    if not UV.exists():
        pytest.skip("the uv that make setup installs is needed")
    command = [UV, "pip", "install", "--dry-run", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    command += ["--python-version=3.13", f"--python-platform={platform}", f"--target={tmp_path}"]
    command += [f"--requirements={ROOT}/serving/http/requirements-{image}.txt"]
    done = subprocess.run(command, capture_output=True, text=True)
    if "Failed to fetch" in done.stderr:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    assert "Would download" in done.stderr or "Would install" in done.stderr
