"""Shards: their images, resuming, and identical bytes whichever process writes them."""

import json
import signal
import socket
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.onnx_file.generator import Generator
from models.onnx_file.latents import LATENTS_VERSION
from serving.offline.manifest import ShardPlan
from tests.conftest import run_with_file_limit
from tests.serving.offline.test_sample import SAMPLE, error_line, sample


def shards(model: Path, out: Path, *arguments: object) -> dict[str, bytes]:
    """Runs `sample` and returns the files that it wrote, by name."""
    done = sample(model, "--out", out, *arguments)
    assert done.returncode == 0, done.stderr
    return read(out)


def read(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@given(st.integers(0, 2**52), st.integers(1, 10**9), st.integers(1, 500))
def test_shards_cover_each_index_once_and_differ_by_at_most_one_image(first, n, count):
    plan = ShardPlan("0" * 64, LATENTS_VERSION, 0, first, max(n, count), None, 1.0, "npz", count)
    spans = [plan.span(shard) for shard in range(count)]
    assert spans[0].start == first
    assert spans[-1].stop == first + plan.n
    assert all(span.stop == following.start for span, following in pairwise(spans))
    assert max(map(len, spans)) - min(map(len, spans)) <= 1


def test_shards_have_the_images_of_seed_and_indices_for_any_number_of_processes(files, tmp_path):
    arguments = ("--n", "9k", "--shards", 2, "--seed", 3, "--first", 7, "--labels", "380")
    written = shards(files["conditional"], tmp_path / "one", *arguments, "--processes", 1)
    assert shards(files["conditional"], tmp_path / "two", *arguments, "--processes", 2) == written
    assert list(written) == ["00000-of-00002.npz", "00001-of-00002.npz", "manifest.json"]
    images, labels = Generator.open(files["conditional"]).images(3, 7, 9_000, "380")
    parts = [np.load(tmp_path / "one" / name) for name in list(written)[:2]]
    np.testing.assert_array_equal(np.concatenate([part["images"] for part in parts]), images[:, 0])
    np.testing.assert_array_equal(np.concatenate([part["labels"] for part in parts]), labels)


def start(model: Path, out: Path, *arguments: object) -> tuple[subprocess.Popen, list[psutil.Process]]:
    """Starts `sample`. Returns the process and its children once the first worker runs."""
    command = [SAMPLE, model, "--out", out, *arguments]
    running = subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # Shells start background jobs with SIGINT ignored, and the tests may run in one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    children: list[psutil.Process] = []
    while len(children) < 2:  # the resource tracker of multiprocessing, and a worker
        assert running.poll() is None
        time.sleep(0.01)
        children = psutil.Process(running.pid).children(recursive=True)
    return running, children


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_workers_of_a_killed_run_end_and_finished_shards_are_kept(files, tmp_path, number):
    arguments = ("--n", "60k", "--shards", 12, "--processes", 1)
    out = tmp_path / "killed"
    running, children = start(files["unconditional"], out, *arguments)
    while not (out / "00002-of-00012.npz").exists():
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(number)
    running.communicate()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []

    # Simulates a run that was killed before any entry was in the manifest.
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps(manifest | {"shards": {}}))
    finished = sorted(out.glob("*.npz"))
    assert 3 <= len(finished) < 12
    finished[1].write_bytes(b"damaged")
    resumed = sample(files["unconditional"], "--out", out, *arguments)
    assert resumed.stdout.count("already exists") == len(finished) - 1
    assert read(out) == shards(files["unconditional"], tmp_path / "whole", *arguments)


@pytest.mark.slow
def test_finished_shards_of_another_plan_are_not_kept(files, tmp_path):
    arguments = (files["unconditional"], "--n", 20, "--shards", 2, "--out", tmp_path)
    assert sample(*arguments, "--seed", 1).returncode == 0
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    for name, shard in manifest["shards"].items():
        (tmp_path / f".{name}.json").write_text(json.dumps({"plan": manifest["plan"], "shard": shard}))
    plan = manifest["plan"] | {"seed": 0}
    (tmp_path / "manifest.json").write_text(json.dumps({"plan": plan, "shards": {}}))
    assert sample(*arguments, "--seed", 0).stdout.count("written") == 2


@pytest.mark.parametrize("delay", [0, 0.5])
def test_ctrl_c_ends_all_processes_with_one_line(files, tmp_path, delay):
    arguments = ("--n", "10M", "--shards", 2, "--processes", 2)
    running, children = start(files["unconditional"], tmp_path / "a", *arguments)
    time.sleep(delay)
    for process in (*children, running):  # a terminal sends the signal to all
        process.send_signal(signal.SIGINT)
    _, stderr = running.communicate(timeout=60)
    assert (running.returncode, stderr) == (130, "sample: interrupted\n")
    assert psutil.wait_procs(children, timeout=60)[1] == []
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["manifest.json"]


def test_a_second_run_in_the_same_folder_is_rejected(files, tmp_path):
    running, _ = start(files["unconditional"], tmp_path, "--n", "10M", "--shards", 1)
    error = error_line(files["unconditional"], "--out", tmp_path, "--n", "10M", "--shards", 1)
    running.kill()
    running.communicate()
    assert f"{tmp_path} is in use by process {running.pid} on {socket.gethostname()}" in error


def test_a_worker_that_is_killed_is_reported_in_one_line(files, tmp_path):
    running, children = start(files["unconditional"], tmp_path, "--n", "10M", "--shards", 1, "--processes", 1)
    max(children, key=lambda child: child.pid).kill()
    _, stderr = running.communicate(timeout=60)
    assert (running.returncode, stderr) == (
        1,
        "sample: a worker process was killed, perhaps because memory ran out; run the same command again to resume\n",
    )


@pytest.mark.parametrize(
    "format", ["npz", *(pytest.param(each, marks=pytest.mark.slow) for each in ("webdataset", "parquet"))]
)
def test_a_full_disk_is_reported_in_one_line_and_leaves_no_partial_shard(files, tmp_path, format):
    pytest.importorskip({"webdataset": "webdataset", "parquet": "pyarrow"}.get(format, "numpy"))
    command = [SAMPLE, files["conditional"], "--out", tmp_path, "--n", 3_000, "--shards", 1, "--format", format]
    failed = run_with_file_limit(command, 100_000)
    ending = {"npz": "npz", "webdataset": "tar", "parquet": "parquet"}[format]
    assert failed.stderr == f"sample: {tmp_path}/00000-of-00001.{ending}: File too large\n"
    assert failed.returncode == 1
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


@pytest.mark.slow
def test_a_damaged_shard_is_written_again(files, tmp_path):
    written = shards(files["unconditional"], tmp_path, "--n", 20, "--shards", 2)
    (tmp_path / "00001-of-00002.npz").write_bytes(b"damaged")
    assert shards(files["unconditional"], tmp_path, "--n", 20, "--shards", 2) == written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shards", 0], "--shards: must be from 1 to 64, got 0"),
        (["--shards", 65], "--shards: must be from 1 to 64, got 65"),
        (["--shards", 1, "--processes", 0], "--processes: must be from 1 to 1,024, got 0"),
        (["--shards", 1, "--labels", "x"], "--labels: 'x' is not a class"),
        (["--shards", 1, "--first", 2**53 - 3], "--first"),
    ],
)
def test_invalid_options_are_rejected_before_anything_is_written(files, tmp_path, arguments, message):
    assert message in error_line(files["conditional"], "--out", tmp_path / "a", *arguments)
    assert not (tmp_path / "a").exists()


def test_a_folder_with_shards_of_another_plan_is_not_changed(files, tmp_path):
    before = shards(files["unconditional"], tmp_path, "--n", 20, "--shards", 2)
    error = error_line(files["unconditional"], "--out", tmp_path, "--n", 20, "--shards", 2, "--seed", 1)
    assert "its shards have seed 0, not 1; choose another folder" in error
    assert read(tmp_path) == before


@pytest.mark.slow
def test_webdataset_can_read_its_shards(files, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    arguments = ("--n", 30, "--shards", 2, "--format", "webdataset")
    written = shards(files["conditional"], tmp_path / "a", *arguments)
    assert shards(files["conditional"], tmp_path / "b", *arguments) == written
    paths = [str(tmp_path / "a" / name) for name in written if name.endswith(".tar")]
    read_back = list(webdataset.WebDataset(paths, shardshuffle=False).decode("l8"))
    images, labels = Generator.open(files["conditional"]).images(0, 0, 30)
    assert [sample["__key__"] for sample in read_back] == [f"{i:016}" for i in range(30)]
    np.testing.assert_array_equal(np.stack([sample["png"] for sample in read_back]), images[:, 0])
    assert [sample["cls"] for sample in read_back] == labels.tolist()


@pytest.mark.slow
def test_pyarrow_can_read_its_shards(files, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    arguments = ("--n", 30, "--shards", 2, "--format", "parquet")
    written = shards(files["conditional"], tmp_path / "a", *arguments)
    assert shards(files["conditional"], tmp_path / "b", *arguments) == written
    tables = [parquet.read_table(tmp_path / "a" / name) for name in written if name.endswith(".parquet")]
    rows = [row for table in tables for row in table.to_pylist()]
    _, labels = Generator.open(files["conditional"]).images(0, 0, 30)
    assert [row["label"] for row in rows] == labels.tolist()
    assert rows[29]["image"]["bytes"].startswith(b"\x89PNG")
    assert rows[29]["image"]["path"] == "0000000000000029.png"


@pytest.mark.slow
def test_ray_writes_the_same_bytes_as_local_processes(files, tmp_path):
    pytest.importorskip("ray", reason="ray is not installed: pip install '.[ray]'")
    arguments = ("--n", "20k", "--shards", 4)
    alone = shards(files["conditional"], tmp_path / "alone", *arguments)
    command = [
        sys.executable,
        "-m",
        "serving.offline.sample",
        files["conditional"],
        "--out",
        tmp_path / "ray",
        *arguments,
    ]
    subprocess.run([*map(str, command), "--ray", "local"], check=True, timeout=300, capture_output=True)
    assert read(tmp_path / "ray") == alone
