"""Whole training runs: loss curves, files, options, errors and dry runs."""

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
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from models.checkpoint import find_checkpoints, load_checkpoint
from models.common.errors import MnistGanError
from models.common.image_files import grid
from models.export.exporter import export
from models.onnx_file.generator import Generator
from tests.conftest import small_config, small_run
from training.command_line import parse
from training.dry_run import dry_run
from training.errors import RunError
from training.loop import train
from training.presets import PRESETS
from training.train import main

TRAIN = Path(sys.executable).parent / "train"


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run: Path) -> list[float]:
    return [epoch[name] for epoch in metrics(run) for name in ("loss_discriminator", "loss_generator")]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run).part("generator")


GOLDEN = {
    "unconditional": [0.919463, 0.76576, 0.659067, 0.76096],
    "conditional": [0.968169, 0.65778, 0.726197, 0.694365],
}


@pytest.mark.parametrize("kind", GOLDEN)
def test_the_seeded_loss_curve_is_the_stored_one(runs, kind):
    """The tolerance is far above the rounding differences between processors and far below those between recipes."""
    assert losses(runs[kind]) == pytest.approx(GOLDEN[kind], rel=1e-3)


GOLDEN_PRESETS = {
    "fast": [1.5056, -0.073225, 1.385255, -0.197302],
    "r3gan": [0.711569, 0.755073, 0.674276, 0.77845],
}


@pytest.mark.parametrize("preset", GOLDEN_PRESETS)
def test_the_seeded_loss_curve_of_a_convolutional_preset_is_the_stored_one(tmp_path, preset):
    """Trains with all options of the preset, except for smaller networks and images."""
    small = {
        "generator_widths": (8, 8),
        "discriminator_widths": (8, 8),
        "image_size": 16,
        "images": 2 * 7 * 256,
        "batch_size": 256,
        "burn_in": PRESETS[preset].get("burn_in", 0) // 300,
    }
    small_run(tmp_path / "run", **PRESETS[preset] | small)
    assert losses(tmp_path / "run") == pytest.approx(GOLDEN_PRESETS[preset], rel=1e-3)


def test_the_same_seed_gives_the_same_bits_and_another_seed_gives_others(runs, tmp_path):
    small_run(tmp_path / "same")
    small_run(tmp_path / "other", seed=1)
    assert losses(tmp_path / "same") == losses(runs["unconditional"])
    for name, weight in weights(runs["unconditional"]).items():
        assert torch.equal(weight, weights(tmp_path / "same")[name])
        assert not torch.equal(weight, weights(tmp_path / "other")[name])


def test_a_run_writes_its_configuration_metrics_samples_and_tensorboard_log(runs):
    run = runs["unconditional"]
    config = json.loads((run / "config.json").read_text())
    assert (config["preset"], config["epochs"], config["device"], config["precision"]) == ("mlp", 2, "cpu", "fp32")
    assert [epoch["images_seen"] for epoch in metrics(run)] == [28 * 64, 2 * 28 * 64]
    assert [file.name for file in sorted((run / "samples").iterdir())] == ["epoch-0001.png", "epoch-0002.png"]
    assert list((run / "tensorboard").iterdir())


def test_the_sample_grids_show_the_first_images_of_seed_0_of_the_model_file(runs, files):
    """The grid shows images 0 to 63, with lines of 2 pixels between and around them."""
    images, _ = Generator.open(files["conditional"]).images(seed=0, first=0, n=64)
    with Image.open(runs["conditional"] / "samples" / "epoch-0002.png") as samples:
        for i in range(64):
            row, column = divmod(i, 8)
            left, top = 2 + 30 * column, 2 + 30 * row
            cell = samples.convert("L").crop((left, top, left + 28, top + 28))
            expected = grid(images[i : i + 1])
            assert max(abs(a - b) for a, b in zip(cell.tobytes(), expected.tobytes(), strict=True)) <= 1


def test_a_run_is_never_overwritten(runs):
    before = weights(runs["unconditional"])
    with pytest.raises(RunError, match="already contains a run"):
        small_run(runs["unconditional"])
    assert all(torch.equal(weight, before[name]) for name, weight in weights(runs["unconditional"]).items())


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 0.05), ("fp16", 0.02)])
def test_losses_in_mixed_precision_are_close_to_fp32(runs, tmp_path, precision, tolerance):
    small_run(tmp_path / "run", precision=precision)
    assert losses(tmp_path / "run") == pytest.approx(losses(runs["unconditional"]), rel=tolerance)
    assert {weight.dtype for weight in weights(tmp_path / "run").values()} == {torch.float32}


def test_the_generator_loss_is_negative_for_minimax_and_positive_for_non_saturating(runs, tmp_path):
    small_run(tmp_path / "run", loss="minimax")
    assert metrics(tmp_path / "run")[0]["loss_generator"] < 0 < metrics(runs["unconditional"])[0]["loss_generator"]


def test_a_run_that_diverges_stops_with_an_error(tmp_path):
    with pytest.raises(RunError, match=r"diverged after .* images: loss_discriminator .* no checkpoint was saved yet"):
        small_run(tmp_path / "run", lr=1e38)
    assert not find_checkpoints(tmp_path / "run")


def test_the_folder_of_a_run_without_a_checkpoint_can_be_reused(runs, tmp_path):
    for failure in ({"lr": 1e38}, {"lr_warmup": 10**6}):
        with pytest.raises(RunError, match=r"diverged|--lr-warmup"):
            small_run(tmp_path / "run", **failure)
    (tmp_path / "run" / "metrics.jsonl").write_text('{"images_seen": 5, "loss_generator": 1}\n')
    with SummaryWriter(tmp_path / "run" / "tensorboard") as stale:
        stale.add_scalar("loss_generator", 1, 5)
    time.sleep(1.1)  # TensorBoard orders its files by the second in their names
    small_run(tmp_path / "run")
    assert losses(tmp_path / "run") == losses(runs["unconditional"])
    shown = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [event.step for event in shown.Scalars("loss_generator")] == [28 * 64, 2 * 28 * 64]
    with pytest.raises(RunError, match="already contains a run"):
        small_run(tmp_path / "run")


def test_a_batch_larger_than_the_data_is_an_error(tmp_path):
    with pytest.raises(RunError, match="--batch-size 2000 is more than the 1,797 images"):
        small_run(tmp_path / "run", batch_size=2000)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_reported_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train", "--device=cuda", f"--out={tmp_path / 'run'}"])
    with pytest.raises(SystemExit, match="1"):
        main()
    assert capsys.readouterr().err.startswith("train: --device cuda, but PyTorch finds no GPU")


@pytest.mark.slow
def test_ctrl_c_saves_a_checkpoint_before_the_run_ends(tmp_path):
    run, number = tmp_path / "run", signal.SIGINT
    options = ["--dataset", "uci-digits", "--epochs", "100000", "--out", run]
    with subprocess.Popen([TRAIN, *options], stdout=subprocess.PIPE, text=True) as process:
        while "epoch   1" not in process.stdout.readline():
            pass
        time.sleep(0.3)
        process.send_signal(number)
        output = process.stdout.read()
    assert process.returncode == 128 + number
    assert f"{number.name}: saved a checkpoint of {run}" in " ".join(output.split())
    assert load_checkpoint(run).training.images_seen >= metrics(run)[-1]["images_seen"]
    assert all(math.isfinite(weight.sum()) for weight in weights(run).values())


@pytest.mark.parametrize("generator", ["mlp", "dcgan", pytest.param("residual", marks=pytest.mark.slow)])
@pytest.mark.parametrize("discriminator", ["mlp", "dcgan", pytest.param("residual", marks=pytest.mark.slow)])
@pytest.mark.parametrize("conditional", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_any_generator_trains_against_any_discriminator(tmp_path, generator, discriminator, conditional):
    small_run(
        tmp_path / "run",
        generator=generator,
        generator_widths=(8, 8),
        discriminator=discriminator,
        discriminator_widths=(8, 8),
        conditional=conditional,
        ema_half_life=100,
        images=192,
    )
    assert math.isfinite(sum(losses(tmp_path / "run")))
    export(load_checkpoint(tmp_path / "run"))


def test_the_ema_is_exported_if_the_run_keeps_one(tmp_path):
    small_run(tmp_path / "run", ema_half_life=1_000)
    checkpoint = load_checkpoint(tmp_path / "run")
    ema, raw = checkpoint.part("ema"), checkpoint.part("generator")
    assert not any(torch.equal(ema[name], raw[name]) for name in raw)
    assert all(torch.equal(weight, ema[name]) for name, weight in checkpoint.build().state_dict().items())


def test_the_ema_follows_its_half_life(tmp_path):
    """Checks ema = beta ema + (1 - beta) weights for the one step between two checkpoints."""
    small_run(tmp_path / "run", ema_half_life=50, epochs=3, batch_size=1797)
    before, after = (load_checkpoint(path) for path in find_checkpoints(tmp_path / "run"))
    beta = 0.5 ** (1797 / 50)
    for name, weight in after.part("generator").items():
        expected = torch.lerp(before.part("ema")[name], weight, 1 - beta)
        torch.testing.assert_close(after.part("ema")[name], expected)


def test_the_learning_rate_follows_its_schedule(tmp_path):
    small_run(tmp_path / "run", epochs=4, lr_schedule="linear", lr_end=0.5)
    total = 4 * 28 * 64
    expected = [2e-4 * (1 - 0.5 * epoch["images_seen"] / total) for epoch in metrics(tmp_path / "run")]
    assert [epoch["lr"] for epoch in metrics(tmp_path / "run")] == pytest.approx(expected)


def test_a_run_can_start_from_the_weights_of_another(runs, tmp_path):
    small_run(tmp_path / "tuned", init=runs["conditional"], conditional=True, lr=1e-12, epochs=1)
    for name, weight in weights(tmp_path / "tuned").items():
        torch.testing.assert_close(weight, weights(runs["conditional"])[name], atol=1e-6, rtol=1e-3)
    with pytest.raises(RunError, match=r"its generator is mlp, this run has dcgan; add --generator mlp"):
        small_run(tmp_path / "other", init=runs["conditional"], generator="dcgan")


def test_init_lists_the_tensors_that_it_copies_and_those_that_it_initializes_anew(runs, tmp_path, capsys):
    """The other run has no classes, so the layers that take an embedding have another shape."""
    small_run(tmp_path / "other", init=runs["conditional"], lr=1e-12, epochs=1)
    output = capsys.readouterr().out
    start = f"--init {runs['conditional']}: "
    assert f"{start}copied 5 tensors of the generator: hidden.0.bias, hidden.2.weight, hidden.2.bias, output." in output
    anew = "initialized 1 tensor of the generator anew: hidden.0.weight (has 32x16, had 32x26)"
    assert start + anew in output
    assert f"{start}initialized 1 tensor of the discriminator anew: hidden.0.weight (has 64x784, had 64x794)" in output
    before, after = weights(runs["conditional"]), weights(tmp_path / "other")
    torch.testing.assert_close(after["hidden.2.weight"], before["hidden.2.weight"], atol=1e-6, rtol=1e-3)


def test_init_from_networks_without_a_common_tensor_is_rejected(runs, tmp_path):
    sizes = {"latent_dim": 7, "generator_widths": (9, 10), "discriminator_widths": (11, 12), "image_size": 8}
    with pytest.raises(RunError, match="no tensor of its generator has the name and the shape"):
        small_run(tmp_path / "other", init=runs["conditional"], **sizes)


def test_a_run_ends_after_the_given_number_of_images(tmp_path):
    small_run(tmp_path / "run", images=1_000)
    assert [epoch["images_seen"] for epoch in metrics(tmp_path / "run")] == [16 * 64]


def test_minutes_become_a_number_of_images_that_the_config_stores(tmp_path):
    small_run(tmp_path / "run", minutes=0.02)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["minutes"] == 0.02
    assert metrics(tmp_path / "run")[-1]["images_seen"] == math.ceil(config["images"] / 64) * 64


def test_the_gif_has_one_frame_per_epoch(runs):
    with Image.open(runs["unconditional"] / "samples.gif") as gif:
        assert gif.n_frames == 2


@pytest.mark.parametrize("preset", PRESETS)
def test_a_dry_run_describes_the_networks_and_writes_nothing(tmp_path, preset):
    config = parse(["--preset", preset, "--dataset", "uci-digits", "--out", str(tmp_path / "run")]).config
    output = dry_run(config)
    assert f'"preset": "{preset}"' in output
    assert f"generator ({config.generator}): " in output
    if preset == "mlp":
        assert "generator (mlp): 559,632 parameters, 558,080 multiply-adds per image" in output
        assert "discriminator (mlp): 533,505 parameters, 532,736 multiply-adds per image" in output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("differences", "message"),
    [
        (
            {"generator": "dcgan", "generator_widths": (64, 32, 16, 8), "image_size": 9},
            r"halve image_shape \(1, 9, 9\)",
        ),
        ({"discriminator": "dcgan", "discriminator_widths": (8,) * 6}, "halve image_shape"),
        ({"batch_size": 2_000}, "--batch-size 2000 is more than the 1,797 images"),
        ({"lr_warmup": 10**6}, "--lr-warmup 1,000,000 must be below"),
        ({"evaluate_every": 1}, "--evaluate-every: uci-digits has no test split"),
        ({"init": "nowhere"}, "nowhere"),
        ({"latent_dim": 70_000}, "could not be exported: its latent is 70,000, at most 65,536 is allowed"),
        ({"generator_widths": (20_000, 20_000)}, "could not be exported: its weights take"),
        ({"generator_widths": (10**9, 10**9)}, "could not be exported|overflow"),
        ({"generator": "dcgan", "generator_widths": (8, 80_000)}, "could not be exported: it computes"),
        ({"discriminator_widths": (10**9, 10**9)}, "memory|allocate|overflow"),
    ],
)
def test_a_run_and_its_dry_run_fail_with_the_same_error_and_write_nothing(tmp_path, differences, message):
    if "init" in differences:
        differences = {"init": tmp_path / "nowhere"}
    config = small_config(tmp_path / "run", **differences)
    messages = []
    for command in (train, dry_run):
        with pytest.raises(MnistGanError, match=message) as caught:
            command(config)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert "\n" not in messages[0]
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_into_the_folder_of_a_run_is_an_error(runs):
    with pytest.raises(RunError, match="already contains a run"):
        dry_run(small_config(runs["unconditional"]))
