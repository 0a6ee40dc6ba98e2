"""The quality check of `export-onnx`: untrained and collapsed generators are refused, early ones only warned of."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import bentoml
import pytest

from models.checkpoint import load_checkpoint, save_checkpoint
from models.export.exporter import export
from models.networks import GENERATORS, build_generator
from models.onnx_file.card import Dataset
from models.onnx_file.generator import Generator
from models.onnx_file.store import SHIPPED
from tests.conftest import small_run
from training import export_onnx
from training.quality_check import check_quality


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Returns a function that runs export-onnx and returns its output, or its error message if it fails."""

    def run(run: Path, out: Path, *options: str, fails: bool = False) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["export-onnx", str(run), f"--out={out}", *options])
        if fails:
            with pytest.raises(SystemExit, match="1"):
                export_onnx.main()
        else:
            export_onnx.main()
        captured = capsys.readouterr()
        return captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def collapsed(tmp_path_factory) -> Path:
    """A run whose generator has collapsed to one image, because its learning rate is a hundred times too high."""
    folder = tmp_path_factory.mktemp("collapsed") / "run"
    small_run(folder, conditional=True, epochs=30, lr=2e-2)
    return folder


def stored() -> list:
    return [model.tag for model in bentoml.models.list()]


def test_a_collapsed_generator_is_refused_with_the_measurements_and_nothing_is_written(command, collapsed, tmp_path):
    before = stored()
    _, error = command(collapsed, tmp_path / "a.onnx", fails=True)
    message = error.splitlines()[-1]
    assert message.startswith("export-onnx: quality: ")
    assert "share of near-identical images 1, at most 0.5 is required" in message
    assert "share of latents with one image for two classes 1, at most 0.5 is required" in message
    assert message.endswith("give --allow-low-quality to write the file nevertheless")
    assert list(tmp_path.iterdir()) == []
    assert stored() == before


def test_a_file_of_low_quality_can_be_written_is_marked_and_is_not_registered(command, collapsed, tmp_path):
    before = stored()
    out = tmp_path / "a.onnx"
    output, _ = command(collapsed, out, "--allow-low-quality", f"--report={tmp_path / 'a.json'}")
    assert "not registered: the quality check failed" in output
    assert stored() == before
    check = Generator.open(out).card.quality_check
    assert not check.passed
    assert check.measurements["share of near-identical images"].value > 0.99
    report = json.loads((tmp_path / "a.json").read_text())["quality_check"]
    assert (report["passed"], report["images"]) == (False, 1_000)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [0, 10])
@pytest.mark.parametrize("architecture", GENERATORS)
def test_an_untrained_generator_of_mnist_is_refused(command, tmp_path, architecture, classes):
    shipped = load_checkpoint(SHIPPED.with_suffix(".safetensors"))
    widths = (64, 32, 16) if architecture == "residual" else (64, 32)
    config = replace(shipped.generator, architecture=architecture, classes=classes, widths=widths)
    tensors = {f"generator.{name}": weight for name, weight in build_generator(config).state_dict().items()}
    save_checkpoint(replace(shipped, tensors=tensors, generator=config), tmp_path / "run")
    _, error = command(tmp_path / "run", tmp_path / "a.onnx", fails=True)
    assert "export-onnx: quality: " in error
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.slow
def test_the_textbook_gan_of_two_epochs_passes_with_a_warning(command, mnist, tmp_path):
    small_run(
        tmp_path / "run",
        dataset="mnist",
        data_dir=mnist,
        latent_dim=100,
        generator_widths=(256, 512),
        discriminator_widths=(512, 256),
    )
    output, error = command(tmp_path / "run", tmp_path / "a.onnx", "--no-register")
    assert "export-onnx: warning: ratio of contrast to the data 0." in error
    assert Generator.open(tmp_path / "a.onnx").card.quality_check.passed
    assert "quality of 1,000 images" in output


@pytest.mark.parametrize("name", ["mnist", "mnist-fast"])
def test_a_pretrained_generator_passes_without_a_warning(name):
    check = check_quality(Generator.open(SHIPPED.with_stem(name)))
    assert (check.passed, check.warnings()) == (True, [])
    assert check.measurements["label agreement"].value > 0.98


def test_statistics_that_an_older_checkpoint_lacks_are_skipped():
    shipped = load_checkpoint(SHIPPED.with_suffix(".safetensors"))
    older = replace(shipped, dataset=replace(shipped.dataset, pixel_mean=None, pixel_contrast=None))
    check = check_quality(export(older).generator)
    assert (check.passed, check.warnings()) == (True, [])
    assert check.measurements["label agreement"].value > 0.98
    assert check.measurements["ratio of contrast to the data"].value is None
    assert "unknown" in str(check)


def test_training_stores_the_statistics_of_the_data_and_an_older_checkpoint_may_lack_them(runs):
    dataset = load_checkpoint(runs["conditional"]).dataset
    assert dataset.pixel_mean == pytest.approx(40.6, abs=0.1)
    assert dataset.pixel_contrast == pytest.approx(75.8, abs=0.1)
    older = replace(dataset, pixel_mean=None, pixel_contrast=None)
    assert older == dataset, "a run that was started before can be resumed"


def test_a_data_set_without_classifier_and_statistics_is_checked_by_its_images_alone(runs):
    checkpoint = load_checkpoint(runs["unconditional"])
    unknown = Dataset("mine", None, checkpoint.dataset.image_shape, (), None)
    check = check_quality(export(replace(checkpoint, dataset=unknown), name="mine").generator)
    known = {name for name, measured in check.measurements.items() if measured.value is not None}
    assert known == {"share of constant images", "share of near-identical images"}
    assert "unknown" in str(check)
