"""Runs benchmarks/soak.py for three minutes; the benchmark itself takes an hour."""

import json
import os
import subprocess
import sys

import pytest

from tests.serving.http.server import ROOT


@pytest.mark.slow
def test_a_service_under_load_for_minutes_loses_no_request_and_does_not_grow(tmp_path):
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
