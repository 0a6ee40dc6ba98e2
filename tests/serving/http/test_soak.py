"""Runs `benchmarks.soak` for three minutes; as a benchmark it takes an hour."""

import json
import os
import subprocess
import sys

import pytest

from tools.service_process import ROOT


@pytest.mark.slow
def test_no_request_fails_and_memory_does_not_grow_during_mixed_requests(tmp_path):
    command = [sys.executable, "-m", "benchmarks.soak", "--minutes", "3", "--json", tmp_path / "soak.json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    intervals = json.loads((tmp_path / "soak.json").read_text())["intervals"]
    assert all(sum(interval["requests"].values()) > 0 for interval in intervals)
    middle, last = intervals[len(intervals) // 2], intervals[-1]
    assert last["mib_median"] < middle["mib_median"] + 50
    assert last["open_files_max"] < middle["open_files_max"] + 20
