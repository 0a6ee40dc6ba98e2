import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from models import checkpoint as checkpoints
from serving.images import sheet
from tests.conftest import small_run
from training.loop import RunError

TRAIN = Path(sys.executable).parent / "train"


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run: Path) -> list[float]:
    return [epoch[name] for epoch in metrics(run) for name in ("loss_discriminator", "loss_generator")]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return checkpoints.load(run).generator.state_dict()


GOLDEN = {
    "unconditional": [1.019102, 0.77084, 0.680197, 0.770064],
    "conditional": [1.048984, 0.662693, 0.750503, 0.694007],
}


@pytest.mark.parametrize("kind", GOLDEN)
def test_the_seeded_loss_curve_is_the_stored_one(runs, kind):
    """Processors sum in other orders: the tolerance is far above that, and far below what another recipe would do."""
    assert losses(runs[kind]) == pytest.approx(GOLDEN[kind], rel=1e-3)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(runs, tmp_path):
    small_run(tmp_path / "same")
    small_run(tmp_path / "other", seed=1)
    assert losses(tmp_path / "same") == losses(runs["unconditional"])
    for name, weight in weights(runs["unconditional"]).items():
        assert torch.equal(weight, weights(tmp_path / "same")[name])
        assert not torch.equal(weight, weights(tmp_path / "other")[name])


def test_a_run_tells_its_whole_story(runs):
    run = runs["unconditional"]
    config = json.loads((run / "config.json").read_text())
    assert (config["preset"], config["epochs"], config["device"], config["precision"]) == ("mlp", 2, "cpu", "fp32")
    assert [epoch["images_seen"] for epoch in metrics(run)] == [28 * 64, 2 * 28 * 64]
    assert [file.name for file in sorted((run / "samples").iterdir())] == ["epoch-0001.png", "epoch-0002.png"]
    assert list((run / "tensorboard").iterdir())


def test_the_sheets_show_the_addresses_that_the_model_file_will_show(runs, files):
    """Images 0 to 63 of seed 0, in a grid with a line of 2 pixels around each."""
    from models.artifact import Generator

    images, _ = Generator.open(files["conditional"]).images(seed=0, first=0, n=64)
    with Image.open(runs["conditional"] / "samples" / "epoch-0002.png") as grid:
        for i in range(64):
            row, column = divmod(i, 8)
            left, top = 2 + 30 * column, 2 + 30 * row
            cell = grid.convert("L").crop((left, top, left + 28, top + 28))
            expected = sheet(images[i : i + 1])
            assert max(abs(a - b) for a, b in zip(cell.tobytes(), expected.tobytes(), strict=True)) <= 1


def test_a_run_is_never_written_over(runs):
    before = (runs["unconditional"] / "generator.safetensors").read_bytes()
    with pytest.raises(RunError, match="holds a run already"):
        small_run(runs["unconditional"])
    assert (runs["unconditional"] / "generator.safetensors").read_bytes() == before


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 0.05), ("fp16", 0.02)])
def test_mixed_precision_follows_fp32(runs, tmp_path, precision, tolerance):
    small_run(tmp_path / "run", precision=precision)
    assert losses(tmp_path / "run") == pytest.approx(losses(runs["unconditional"]), rel=tolerance)
    assert {weight.dtype for weight in weights(tmp_path / "run").values()} == {torch.float32}


def test_minimax_and_non_saturating_differ_in_the_generator_loss(runs, tmp_path):
    small_run(tmp_path / "run", loss="minimax")
    assert metrics(tmp_path / "run")[0]["loss_generator"] < 0 < metrics(runs["unconditional"])[0]["loss_generator"]


def test_a_run_that_diverges_stops_and_says_so(tmp_path):
    with pytest.raises(RunError, match="not finite"):
        small_run(tmp_path / "run", lr=1e38)
    assert not (tmp_path / "run" / "generator.safetensors").exists()


def test_a_batch_larger_than_the_data_is_told(tmp_path):
    with pytest.raises(RunError, match="--batch-size 2000 is more than the 1,797 images"):
        small_run(tmp_path / "run", batch_size=2000)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_one_line(tmp_path):
    options = ["--dataset", "uci-digits", "--device", "cuda", "--out", tmp_path / "run"]
    failed = subprocess.run([TRAIN, *options], capture_output=True, text=True, timeout=120)
    assert failed.returncode == 1
    assert failed.stderr == "train: --device cuda, but PyTorch sees no GPU; use --device auto or cpu\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_before_the_run_ends(tmp_path, number):
    run = tmp_path / "run"
    options = ["--dataset", "uci-digits", "--epochs", "100000", "--out", run]
    with subprocess.Popen([TRAIN, *options], stdout=subprocess.PIPE, text=True) as process:
        while "epoch   1" not in process.stdout.readline():
            pass
        time.sleep(0.3)
        process.send_signal(number)
        said = process.stdout.read()
    assert process.returncode == 128 + number
    assert f"{number.name}: saved {run}" in " ".join(said.split())
    loaded = checkpoints.load(run)
    assert loaded.training.images_seen >= metrics(run)[-1]["images_seen"]
    assert all(math.isfinite(weight.sum()) for weight in loaded.generator.state_dict().values())
