"""Augmentation: what it does to images, its gradients, the adaptive probability, and its place in the training step."""

import json
import math
import typing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import affine_grid, grid_sample
from torch.utils._python_dispatch import TorchDispatchMode

from tests.conftest import small_config, small_run
from tests.training.combinations import DISCRIMINATORS, PAIRWISE, tiny_config
from tests.training.data.examples import write_image
from training import augmentation
from training.augmentation import AUGMENTATIONS, Augmentation, adapt, overfitting, warp
from training.batches import Batches
from training.config import AugmentationOptions, Config
from training.data import load_dataset
from training.distributed import Group
from training.dry_run import dry_run
from training.loop import train

SHAPES = [(1, 28, 28), (3, 12, 30), (3, 9, 8)]
PROBABILITIES = {"diff": None, "ada": torch.tensor(0.7)}


def augment(name: str, images: torch.Tensor, probability: float | None = None, seed: int = 0) -> torch.Tensor:
    """Augments images with seeded random numbers; `probability` replaces the one of `PROBABILITIES`."""
    uniform = torch.rand(len(images), AUGMENTATIONS[name].draws, generator=torch.Generator().manual_seed(seed))
    given = PROBABILITIES[name] if probability is None else torch.tensor(probability)
    return AUGMENTATIONS[name].function(images, uniform.to(images.dtype), given)


@pytest.mark.parametrize("shape", SHAPES)
def test_warping_samples_as_pytorch_does(shape):
    images, matrix = torch.randn(20, *shape), torch.randn(20, 2, 3)
    matrix[:, :, 2] *= 4
    height, width = shape[1:]
    # affine_grid takes coordinates from -1 to 1 on each axis.
    pixels = torch.tensor([width / 2, height / 2])
    normalized = matrix * torch.tensor([[width / 2, height / 2, 1]]) / pixels[:, None]
    grid = affine_grid(normalized, [20, *shape], align_corners=False)
    torch.testing.assert_close(
        warp(images, matrix), grid_sample(images, grid, align_corners=False), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_a_probability_of_0_leaves_an_image_as_it_is(shape):
    images = torch.rand(50, *shape) * 2 - 1
    torch.testing.assert_close(augment("ada", images, probability=0.0), images, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_ada_changes_about_as_many_images_as_its_probability_says(shape):
    images = torch.rand(2_000, *shape) * 2 - 1
    for probability in (0.02, 0.1):
        changed = ((augment("ada", images, probability) - images).abs() > 1e-5).flatten(1).any(1).float().mean()
        # mirroring and inverting have half the probability
        changes, halves = (4, 1) if shape[0] == 1 else (8, 2)
        assert changed == pytest.approx(1 - (1 - probability) ** changes * (1 - probability / 2) ** halves, abs=0.03)


@pytest.mark.parametrize("shape", SHAPES)
def test_diff_moves_by_whole_pixels_and_covers_up_to_a_quarter_of_the_image(shape):
    channels, height, width = shape
    images = torch.ones(300, *shape)
    grey = augment("diff", images)[:, 0] == 0
    covered = grey.flatten(1).sum(1)
    hole = round(height / 2) * round(width / 2)
    moved = height * width - (height - round(height / 8)) * (width - round(width / 8))
    assert covered.max() <= hole + moved
    assert covered.min() >= hole / 5
    assert len(set(map(tuple, grey.flatten(1).int().tolist()))) > 100
    if channels == 1:
        assert set(augment("diff", images).unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_grey_pictures_in_rgb_stay_grey(name):
    images = torch.rand(50, 1, 16, 16).expand(-1, 3, -1, -1)
    changed = augment(name, images)
    torch.testing.assert_close(changed, changed[:, :1].expand(-1, 3, -1, -1), rtol=0, atol=1e-5)


def test_a_hue_that_is_rotated_by_a_third_of_a_circle_exchanges_the_colours():
    image = torch.tensor([0.2, -0.4, 0.1]).view(1, 3, 1, 1)
    centred = image - image.mean()
    rotated = augmentation._rotate_hue(centred, torch.tensor([2 * math.pi / 3]))
    torch.testing.assert_close(rotated.flatten(), centred.flatten().roll(1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_gradient_reaches_the_original_image(name):
    images = torch.rand(4, 3, 6, 5, dtype=torch.float64, requires_grad=True)

    def changed(images: torch.Tensor) -> torch.Tensor:
        return augment(name, images)

    assert torch.autograd.gradcheck(changed, images)
    assert torch.autograd.gradgradcheck(changed, images)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmenting_and_adapting_never_wait_for_the_device(name):
    """Reading a value of a tensor on the host would synchronize, and fail while a CUDA graph is captured."""

    class NoReads(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            assert function._overloadpacket not in (
                torch.ops.aten._local_scalar_dense,
                torch.ops.aten.nonzero,
                torch.ops.aten.masked_select,
            ), function
            return function(*arguments, **keywords or {})

    images, probability = torch.rand(4, 3, 8, 8, requires_grad=True), torch.tensor(0.5)
    with NoReads():
        augment(name, images).sum().backward()
        adapt(probability, overfitting(torch.randn(4), torch.randn(4), only_differences=False), images=4)


@pytest.mark.parametrize(
    ("real", "fake", "only_differences", "expected"),
    [
        ([2.0, 1.0, 3.0, -1.0], [0.0] * 4, False, 0.5),
        ([12.0, 11.0], [13.0, 10.0], False, 1),
        ([12.0, 11.0], [13.0, 10.0], True, 0),
        ([math.nan, 1.0], [0.0, 0.0], False, 0),
    ],
)
def test_the_overfitting_statistic(real, fake, only_differences, expected):
    assert overfitting(torch.tensor(real), torch.tensor(fake), only_differences) == expected


def test_the_probability_follows_the_statistic_within_its_limits():
    probability = torch.zeros(())
    adapt(probability, torch.tensor(0.1), images=1_000)
    assert probability == 0
    adapt(probability, torch.tensor(0.9), images=1_000)
    assert probability == pytest.approx(1_000 / augmentation.ADAPTATION_IMAGES)
    adapt(probability, torch.tensor(0.9), images=10**6)
    assert probability == pytest.approx(augmentation.MAX_PROBABILITY)


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("combination", [combination for combination, _ in PAIRWISE], ids="-".join)
def test_augmentation_trains_with_each_precision_penalty_loss_and_discriminator(tmp_path, name, combination):
    train(replace(tiny_config(tmp_path / "run", combination, images=192), augment=name))
    (metrics,) = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert all(math.isfinite(value) for value in metrics.values())
    assert (metrics["penalty"] > 0) == (combination[1] != "none")
    assert metrics["gradient_generator"] > 0
    assert ("overfitting" in metrics) == ("augment_probability" in metrics) == AUGMENTATIONS[name].adaptive


@pytest.mark.parametrize("loss", ["hinge", "relativistic"])
@pytest.mark.parametrize("discriminator", DISCRIMINATORS)
def test_the_discriminator_sees_only_augmented_images(tmp_path, monkeypatch, loss, discriminator):
    """If every image becomes the same, the logits of real and generated images are equal, and there is nothing to
    learn for the generator."""
    monkeypatch.setitem(AUGMENTATIONS, "diff", Augmentation(lambda images, uniform, probability: images * 0, draws=1))
    run = tmp_path / "run"
    small_run(run, **DISCRIMINATORS[discriminator], loss=loss, augment="diff", images=64, discriminator_widths=(4, 4))
    (metrics,) = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    assert metrics["logit_real"] == pytest.approx(metrics["logit_fake"], abs=1e-6)
    assert metrics["gradient_generator"] == 0


@pytest.mark.parametrize("generator_data", ["same", "fresh"])
def test_mirrored_batches_contain_each_image_or_its_mirror_image(generator_data):
    config = small_config(Path("unused"), generator_data=generator_data, mirror=True)
    data = load_dataset("uci-digits", Path())
    mirrored = Batches(data, config, Group()).at(640)
    plain = Batches(data, replace(config, mirror=False), Group()).at(640)
    for part in ("discriminator", "generator")[: 1 + (generator_data == "fresh")]:
        changed, original = getattr(mirrored, part), getattr(plain, part)
        assert torch.equal(changed.latents, original.latents)
        assert torch.equal(changed.labels, original.labels)
        is_same = (changed.images == original.images).flatten(1).all(1)
        is_mirror = (changed.images == original.images.flip(-1)).flatten(1).all(1)
        assert (is_same | is_mirror).all()
        assert 16 < is_mirror.sum() < 48


def folder_config(folder: Path, images: int = 6, **differences) -> Config:
    for i in range(images):
        write_image(folder / "cats" / f"{i}.png")
    return small_config(
        folder / "run", dataset="folder", data_dir=folder, image_size=8, batch_size=2, images=4, **differences
    )


@pytest.mark.parametrize(
    ("augment", "line"),
    [
        ("auto", "ada, because the folder has fewer than 5,000 images; --augment none turns it off"),
        ("diff", "augmentation of the images: diff\n"),
        ("none", None),
    ],
)
def test_auto_augments_a_folder_with_few_images_and_reports_it(tmp_path, augment, line):
    output = dry_run(folder_config(tmp_path, augment=augment))
    assert f'"augment": "{"ada" if augment == "auto" else augment}"' in output
    assert line in output if line else "augmentation" not in output


def test_auto_augments_neither_larger_folders_nor_other_data_sets(tmp_path, monkeypatch):
    monkeypatch.setattr("training.setup.FEW_IMAGES", 6)
    for config in (folder_config(tmp_path), small_config(tmp_path / "run")):
        assert '"augment": "none"' in dry_run(config)


def test_a_run_from_before_there_was_augmentation_continues_without(tmp_path):
    values = small_config(tmp_path).to_dict()
    del values["augment"], values["mirror"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    config = Config.load(tmp_path)
    assert (config.augment, config.mirror) == ("none", False)


def test_each_augmentation_can_be_chosen():
    choices = typing.get_args(typing.get_type_hints(AugmentationOptions)["augment"])
    assert {*choices} == {"auto", "none", *AUGMENTATIONS}
