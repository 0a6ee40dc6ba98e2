"""The versions of Python that `make setup` accepts are the ones that pyproject.toml declares."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="make is needed")

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture
def setup(tmp_path):
    """Returns a function that runs `make setup` with an interpreter that reports a version and cannot create an
    environment, and returns what is printed to standard error."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}

    def run(version: str) -> str:
        python = tmp_path / "python"
        pretend = f"import sys; sys.version_info = (*map(int, '{version}'.split('.')), 0); sys.version = '{version}.0'"
        python.write_text(
            f'#!/bin/sh\n[ "$1" = -c ] || exit 3\nexec {sys.executable} -c "{pretend}; exec(sys.argv[1])" "$2"\n'
        )
        python.chmod(0o755)
        command = ["make", "setup", f"PYTHON={python}"]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True).stderr

    return run


@pytest.mark.parametrize("version", ["3.10", "3.15"])
def test_make_setup_rejects_other_versions_in_one_line(setup, tmp_path, version):
    message, *others = setup(version).splitlines()
    expected = f"Python 3.11 to 3.14 is needed, {tmp_path}/python is {version}.0: try make PYTHON=python3.13"
    assert message == expected
    assert len(others) == 1, "make itself reports the failed target"


def test_make_setup_and_the_metadata_agree_on_the_versions(setup):
    candidates = [f"3.{minor}" for minor in range(9, 18)]
    accepted = [version for version in candidates if "is needed" not in setup(version)]
    required = SpecifierSet(PROJECT["requires-python"])
    assert accepted == [version for version in candidates if f"{version}.1" in required]
    classifiers = "\n".join(PROJECT["classifiers"])
    assert accepted == re.findall(r"Python :: (3\.\d+)$", classifiers, re.MULTILINE)
