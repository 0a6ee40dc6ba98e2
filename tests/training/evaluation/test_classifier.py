"""The pinned classifier, and metrics measured with it on real digits, noise and shuffled labels."""

import re

import numpy as np
import pytest
import torch

from training import data
from training.evaluation import classifier
from training.evaluation.classifier import (
    Classifier,
    ClassifierError,
    ClassifierOutput,
    classify,
    classify_stacked,
    load_pinned_classifier,
)
from training.evaluation.evaluator import EvaluationReport, evaluate_sources
from training.evaluation.sources import open_sources

N = 2_000


@pytest.fixture(scope="module")
def report(mnist, tmp_path_factory) -> EvaluationReport:
    """Report on three sources: training images, the same images with shuffled labels, and noise."""
    folder = tmp_path_factory.mktemp("arrays")
    train = data.load_dataset("mnist", mnist)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(1))[:N]
    images, labels = train.images[order, 0].numpy(), train.labels[order].numpy()
    random = np.random.default_rng(0)
    np.savez(folder / "real.npz", images=images, labels=labels)
    np.savez(folder / "shuffled.npz", images=images, labels=random.permutation(labels))
    np.savez(folder / "noise.npz", images=random.integers(0, 256, images.shape, np.uint8))
    paths = [folder / f"{name}.npz" for name in ("real", "shuffled", "noise")]
    return evaluate_sources(open_sources(paths), mnist, "mnist", N, ("fid", "modes", "label_agreement"))


@pytest.fixture
def by_name(report) -> dict:
    """Results and metrics of each source, in one dictionary per source."""
    return {name: source | source["metrics"] for name, source in report.to_dict()["sources"].items()}


def test_the_pinned_classifier_has_a_high_test_accuracy(report):
    assert report.test_sample.context.classifier_accuracy >= 0.995


def test_real_images_are_near_the_real_data_baseline(by_name):
    assert by_name["real.npz"]["fid_ratio"] < 1.5
    assert by_name["real.npz"]["label_agreement"]["value"] > 0.99
    assert by_name["real.npz"]["modes"]["value"] == 10


def test_noise_is_far_from_the_real_data_baseline(by_name):
    assert by_name["noise.npz"]["fid_ratio"] > 100


def test_shuffled_labels_agree_by_chance_and_do_not_change_the_fid(by_name):
    assert by_name["shuffled.npz"]["label_agreement"]["value"] == pytest.approx(0.1, abs=0.03)
    assert by_name["shuffled.npz"]["fid"] == by_name["real.npz"]["fid"]


def test_the_pinned_classifier_is_small():
    assert classifier.PINNED.stat().st_size <= 2 * 2**20
    assert load_pinned_classifier().training is False


def test_changed_weights_are_rejected(toy, tmp_path):
    load_pinned_classifier()
    file = bytearray(classifier.PINNED.read_bytes())
    file[-1] ^= 1
    toy.setattr(classifier, "PINNED", tmp_path / "changed.safetensors")
    classifier.PINNED.write_bytes(file)
    with pytest.raises(
        ClassifierError, match=f"{re.escape(str(classifier.PINNED))}: has the SHA-256 .* restore the original file"
    ):
        load_pinned_classifier()


def test_a_missing_file_of_weights_is_named(toy, error_of_evaluate, tmp_path):
    np.savez(tmp_path / "digits.npz", images=np.zeros((10, 28, 28), np.uint8))
    classifier.PINNED.unlink()
    assert f"{classifier.PINNED}: No such file" in error_of_evaluate(tmp_path / "digits.npz")


def test_the_output_does_not_depend_on_the_batch():
    images, network = torch.randint(0, 256, (600, 1, 8, 8), dtype=torch.uint8), Classifier(1, 10)
    together, alone = classify(network, images), classify(network, images[-1:])
    assert together.features.shape == (600, 128)
    assert together.probabilities.sum(1) == pytest.approx(np.ones(600))
    assert together.features[-1] == pytest.approx(alone.features[0], rel=1e-4, abs=1e-6)


def test_the_class_of_a_stacked_image_is_the_number_that_its_digits_form():
    network = Classifier(1, 10)
    network.output.weight.data *= 1_000  # Make the predictions differ between images.
    images = torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8)
    digits: list[ClassifierOutput] = [classify(network, images[:, [channel]]) for channel in range(3)]
    stacked = classify_stacked(network, images)
    assert stacked.features.shape == (20, 3 * 128)
    assert stacked.probabilities.shape == (20, 1_000)
    assert stacked.probabilities.sum(1) == pytest.approx(np.ones(20))
    assert stacked.labels.tolist() == (100 * digits[0].labels + 10 * digits[1].labels + digits[2].labels).tolist()


def test_training_a_classifier_twice_gives_the_same_weights():
    digits = data.load_dataset("uci-digits", classifier.PINNED.parent, image_size=8)
    first, second = (classifier.train_classifier(digits, epochs=1).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
