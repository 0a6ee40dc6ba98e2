"""benchmarks/soak.py for minutes; as a benchmark it takes an hour."""

import json
import os
import subprocess
import sys

import pytest

from devtools.service_process import ROOT


@pytest.mark.slow
def test_a_service_that_is_asked_for_minutes_loses_nothing_and_does_not_grow(tmp_path):
    command = [sys.executable, ROOT / "benchmarks/soak.py", "--minutes", "3", "--json", tmp_path / "soak.json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    parts = json.loads((tmp_path / "soak.json").read_text())["parts"]
    assert all(sum(part["asked"].values()) > 0 for part in parts)
    half, last = parts[len(parts) // 2], parts[-1]
    assert last["mebibytes"] < half["mebibytes"] + 50
    assert last["handles"] < half["handles"] + 20
