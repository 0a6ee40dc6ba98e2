"""The command: prepares the environment, runs the stages one after the other, and writes their results.

Exit codes: 0 if every stage passed or was skipped, 1 if one failed, 2 if nothing can be checked on this machine.
"""

import argparse
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

from benchmarks.gpu_check import environment
from benchmarks.gpu_check.report import StageResult, markdown, replace_text
from benchmarks.gpu_check.settings import Settings
from training.data_dir import default_data_dir

ROOT = Path(__file__).parents[2]
MAX_FILE_BYTES = 16 * 2**20
"""Larger files are deleted at the end, because hosts that lend GPUs may limit the size of results."""
POLL_SECONDS = 0.5
MIN_SECONDS = 5.0
"""A stage for which less time is left is skipped."""
NOTHING_TO_CHECK = 2


@dataclass(frozen=True)
class Stage:
    module: str
    """Name of a module with a function `run(settings, record)`."""
    seconds: float
    """Weight of the stage when the time is divided; time that a stage leaves unused goes to the stages after it."""


STAGES = {
    "correctness": Stage("benchmarks.gpu_check.correctness", 110),
    "speed": Stage("benchmarks.gpu_check.speed", 110),
    "quality": Stage("benchmarks.gpu_check.quality", 250),
    "serving": Stage("benchmarks.gpu_check.serving", 40),
    "profile": Stage("benchmarks.gpu_check.profile", 30),
}
"""Stages in the order in which they run: the most important first, in case the run is interrupted."""


@dataclass(frozen=True)
class Options:
    out: Path
    minutes: float
    device: Literal["cuda", "cpu"]
    tiny: bool
    data_dir: Path
    stages: tuple[str, ...]
    bundle: Path


def parse(arguments: Sequence[str] | None = None) -> Options:
    parser = argparse.ArgumentParser("gpu_check", description="Checks everything that needs a GPU.")
    parser.add_argument("--out", type=Path, default=Path("gpu-check"), help="folder for at most eight files")
    parser.add_argument("--minutes", type=float, default=9.0, help="time for all stages together (default: 9)")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), metavar="STAGE",
                        help=f"stages to run: {', '.join(STAGES)} (default: all)")  # fmt: skip
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="run every stage at a minimal size, to try the check")
    parser.add_argument(
        "--bundle", type=Path, default=environment.BUNDLE, help="folder that `make gpu-bundle` has written"
    )
    parser.add_argument("--data-dir", type=Path, help="folder of MNIST (default: the bundle's, else $MNIST_GAN_DATA)")
    given = parser.parse_args(arguments)
    if not 0 < given.minutes < float("inf"):
        parser.error(f"--minutes must be finite and greater than 0, got {given.minutes}")
    bundled = given.bundle / "data"
    data_dir = given.data_dir or (bundled if bundled.is_dir() else default_data_dir())
    stages = tuple(name for name in STAGES if name in given.stages)
    return Options(
        given.out.resolve(), given.minutes, given.device, given.tiny, data_dir.resolve(), stages, given.bundle.resolve()
    )


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        try:
            packages = Path(folder, "packages")
            variables = environment.prepare(options.bundle, packages)
            machine = find_machine(options.device, variables)
        except environment.MissingPackageError as error:
            print(f"gpu_check: {error}", file=sys.stderr)
            sys.exit(NOTHING_TO_CHECK)
        if machine is None:
            print(
                "gpu_check: PyTorch sees no GPU on this machine; --device cpu --tiny tries the script without one",
                file=sys.stderr,
            )
            sys.exit(NOTHING_TO_CHECK)
        stages = {name: STAGES[name] for name in options.stages}
        sys.exit(0 if check(options, stages, machine, variables, Path(folder)) else 1)


def find_machine(device: str, variables: Mapping[str, str]) -> dict[str, str] | None:
    """Describes the hardware and the versions; None if there is no such device."""
    code = (
        "import json, sys, torch; from benchmarks.machine import machine; device = sys.argv[1]; "
        "print(json.dumps(machine(device) if device == 'cpu' or torch.cuda.is_available() else None))"
    )
    done = subprocess.run([sys.executable, "-c", code, device], env=variables, capture_output=True, text=True)
    if done.returncode:
        raise environment.MissingPackageError(f"PyTorch cannot be used: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout)


def check(
    options: Options,
    stages: Mapping[str, Stage],
    machine: Mapping[str, str],
    variables: Mapping[str, str],
    folder: Path,
) -> bool:
    """Runs stages one after the other, each in a fresh process, and writes the results as they come.

    Args:
        folder: an empty folder for the files of running stages.

    Returns:
        whether no stage failed.
    """
    options.out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {
        "status": "running",
        "command": "python -m benchmarks.gpu_check " + " ".join(sys.argv[1:]),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine,
        "tiny": options.tiny,
        "stages": {},
    }
    share = options.minutes * 60 / sum(stage.seconds for stage in stages.values())
    deadline = time.time()
    with (options.out / "gpu-check.log").open("w") as log:
        for name, stage in stages.items():
            deadline += stage.seconds * share
            settings = Settings(options.device, options.tiny, options.data_dir, options.out, deadline)
            for result in _run_stage(stage, settings, variables, folder / f"{name}.json", log):
                report["stages"][name] = asdict(result)
                _write(options.out, report)
            print(f"{name}: {result.status} in {result.seconds:.0f} s {result.message}".rstrip(), flush=True)
    failed = any(stage["status"] == "failed" for stage in report["stages"].values())
    report["status"] = "failed" if failed else "passed"
    report["left_out"] = _drop_large_files(options.out)
    _write(options.out, report)
    print(f"{options.out}: {report['status']}; gpu-check.md has the table, gpu-check.json all results")
    return not failed


def _run_stage(
    stage: Stage, settings: Settings, variables: Mapping[str, str], path: Path, log: TextIO
) -> Iterator[StageResult]:
    """Yields the stage's result after each new row, and once more when the process has ended."""
    if settings.seconds_left < MIN_SECONDS:
        yield StageResult("skipped", "no time is left")
        return
    started, printed = time.time(), 0
    command = [sys.executable, "-m", "benchmarks.gpu_check.stage", stage.module, path, settings.to_json()]
    # A session of its own, so that its child processes can be killed together with it.
    process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=log, stderr=log, start_new_session=True)
    result = StageResult()
    ended = late = False
    try:
        while not ended:
            with suppress(subprocess.TimeoutExpired):
                process.wait(POLL_SECONDS)
            late = late or settings.seconds_left <= 0
            if late:
                _kill(process)
            ended = process.poll() is not None  # before the file is read, so that no row is missed
            if path.exists():
                result = StageResult.read(path)
            result.seconds = time.time() - started
            if ended and result.status == "running":
                end = "ran out of time" if late else f"ended with code {process.returncode}; gpu-check.log says why"
                result.status, result.message = "failed", f"the stage's process {end}"
            if ended or len(result.rows) > printed:
                for row in result.rows[printed:]:
                    print(f"  {row}", flush=True)
                printed = len(result.rows)
                yield result
    finally:
        _kill(process)


def _kill(process: subprocess.Popen) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _write(out: Path, report: dict[str, Any]) -> None:
    replace_text(out / "gpu-check.json", json.dumps(report, indent=2) + "\n")
    replace_text(out / "gpu-check.md", markdown(report) + "\n")


def _drop_large_files(out: Path) -> list[str]:
    large = [file for file in out.iterdir() if file.is_file() and file.stat().st_size > MAX_FILE_BYTES]
    for file in large:
        file.unlink()
    return [file.name for file in large]


if __name__ == "__main__":
    main()
