"""Runs the tests of tests/gpu and records each as a row with its measured value and the allowed maximum."""

import os
from typing import Any

import pytest

from benchmarks.gpu_check.report import Recorder
from benchmarks.gpu_check.settings import Settings

TESTS = "tests/gpu"


def run(settings: Settings, record: Recorder) -> None:
    os.environ["MNIST_GAN_TEST_DEVICE"] = settings.device
    code = pytest.main([TESTS, "-q", "-p", "no:cacheprovider"], plugins=[_Rows(record)])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"pytest ended with {pytest.ExitCode(code)!r}; gpu-check.log says why")


class _Rows:
    """A pytest plugin that records each test as it ends."""

    def __init__(self, record: Recorder):
        self.record = record

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return  # a set-up or tear-down that passed
        name = report.nodeid.split("::")[-1].removeprefix("test_").replace("_", " ")
        measured: dict[str, Any] = dict(report.user_properties)
        bound = f"at most {measured['bound']:.3g}" if "bound" in measured else ""
        if report.skipped:
            note = str(report.longrepr[-1]) if isinstance(report.longrepr, tuple) else ""
            self.record.row(name, status="skipped", note=note.removeprefix("Skipped: "))
        elif report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            note = " ".join(str(crash.message if crash else report.longrepr).split())[:300]
            self.record.row(name, measured.get("value"), status="failed", bound=bound, note=note)
        else:
            self.record.row(name, measured.get("value"), status="passed", bound=bound)
