"""The metrics on toy images, whose class is the position of a bright quadrant."""

import numpy as np
import pytest
import torch
from torch import Tensor

from models.onnx_file.card import Dataset
from training.data import LabelledImages
from training.evaluation.classifier import ClassifierOutput
from training.evaluation.metric_context import MetricContext, accuracy_lower_bound
from training.evaluation.metrics import METRICS, MetricError, Sample, measure
from training.evaluation.neighbours import nearest_images
from training.evaluation.real_images import shuffled, split_in_half

CLASSES = 4


def digits(labels: Tensor, seed: int = 0) -> Tensor:
    """Noise images, uint8 (n, 1, 8, 8), in which the brightest quadrant is the class."""
    images = torch.randint(0, 100, (len(labels), 1, 8, 8), generator=torch.Generator().manual_seed(seed))
    for image, label in zip(images, labels.tolist(), strict=True):
        row, column = divmod(label, 2)
        image[0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 150
    return images.to(torch.uint8)


def predict(images: Tensor) -> ClassifierOutput:
    """Predicts the brightest quadrant with a probability of 70 %; the features are the means of the quadrants."""
    quadrants = torch.nn.functional.avg_pool2d(images.float(), 4).flatten(1)
    probabilities = np.full((len(images), CLASSES), 0.1)
    probabilities[np.arange(len(images)), quadrants.argmax(1)] = 0.7
    return ClassifierOutput(quadrants.double().numpy(), probabilities)


def dataset(n: int, seed: int) -> LabelledImages:
    labels = torch.arange(n) % CLASSES
    return LabelledImages(
        digits(labels, seed), labels, Dataset("toys", "0" * 64, (1, 8, 8), tuple("abcd"), (n // CLASSES,) * CLASSES)
    )


@pytest.fixture(scope="module")
def context() -> MetricContext:
    return MetricContext(
        predict, train=dataset(4_000, seed=1), test=dataset(2_000, seed=2), class_shares=np.full(CLASSES, 0.25)
    )


def value(name: str, context: MetricContext, images: Tensor, labels: Tensor | None = None) -> float:
    return measure(METRICS[name], Sample(context, images, labels)).value


@pytest.mark.parametrize("counts", [(25, 25, 25, 25), (40, 30, 20, 10), (50, 50, 0, 0), (100, 0, 0, 0)])
def test_class_balance_is_the_divergence_of_the_histogram(context, counts):
    images = digits(torch.repeat_interleave(torch.arange(CLASSES), torch.tensor(counts)))
    expected = sum(count / 100 * np.log(count / 25) for count in counts if count)
    assert value("class_balance", context, images) == pytest.approx(expected, abs=1e-12)
    assert value("modes", context, images) == sum(count > 0 for count in counts)


def test_correct_labels_agree_with_the_predictions(context):
    assert value("label_agreement", context, context.test.images, context.test.labels) == 1


def test_shuffled_labels_agree_by_chance(context):
    shuffled = context.test.labels[torch.randperm(2_000, generator=torch.Generator().manual_seed(0))]
    agreement = measure(METRICS["label_agreement"], Sample(context, context.test.images, shuffled))
    assert agreement.value == pytest.approx(1 / CLASSES, abs=4 * agreement.standard_error)
    assert agreement.standard_error == pytest.approx((0.25 * 0.75 / 2_000) ** 0.5, rel=0.05)


def test_confidence_is_the_probability_of_the_predicted_class(context):
    assert value("confidence", context, context.test.images) == pytest.approx(0.7)


@pytest.mark.parametrize("name", ["fid", "kid"])
def test_images_are_near_themselves_and_far_from_their_negatives(context, name):
    images = context.test.images[:400]
    same, inverted = value(name, context, images), value(name, context, 255 - images)
    assert abs(same) < inverted / 100


@pytest.mark.parametrize("name", ["precision", "recall", "density", "coverage"])
def test_real_images_overlap_and_their_negatives_do_not(context, name):
    assert value(name, context, context.train.images[:2_000]) > 0.8
    assert value(name, context, 255 - context.train.images[:2_000]) == 0


def test_training_images_are_recognized_as_copies(context):
    copies = context.train.images[500:700]
    assert value("memorised", context, copies) == 1
    assert value("nearest", context, copies) == pytest.approx(0, abs=1e-2)
    assert Sample(context, copies, None).nearest_training_images[1].tolist() == list(range(500, 700))


def test_one_percent_of_the_test_images_count_as_copies(context):
    assert value("memorised", context, context.test.images) == pytest.approx(0.01, abs=0.002)


def test_the_nearest_image_equals_a_brute_force_search():
    images, candidates = (torch.randint(0, 256, (n, 1, 5, 5), dtype=torch.uint8) for n in (300, 70))
    distances, indices = nearest_images(images, candidates)
    expected = torch.cdist(images.flatten(1).double() / 255, candidates.flatten(1).double() / 255).min(1)
    assert indices.tolist() == expected.indices.tolist()
    assert distances == pytest.approx(expected.values.numpy(), rel=1e-4)


def test_images_with_correct_labels_have_a_high_accuracy_score(context):
    images, labels = context.train.images[:1_000], context.train.labels[:1_000]
    shuffled = labels[torch.randperm(1_000, generator=torch.Generator().manual_seed(0))]
    assert value("accuracy_score", context, images, labels) > 0.9
    assert value("accuracy_score", context, images, shuffled) < 0.6


@pytest.mark.parametrize("name", ["label_agreement", "accuracy_score"])
def test_metrics_that_need_labels_are_errors_without_labels(context, name):
    with pytest.raises(MetricError, match="needs labels"):
        value(name, context, context.test.images)


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.min_images > 1])
def test_too_few_images_are_an_error(context, name):
    needs = METRICS[name].min_images
    with pytest.raises(MetricError, match=f"needs {needs:,} images, but there are {needs - 1:,}"):
        value(name, context, context.test.images[: needs - 1], context.test.labels[: needs - 1])


def test_the_first_images_of_a_shuffled_set_have_all_classes():
    """The first images of the original set have one class."""
    labels = torch.arange(2_000) // 500
    images = digits(labels)
    data = LabelledImages(images, labels, Dataset("toys", "0" * 64, (1, 8, 8), tuple("abcd"), (500,) * CLASSES))
    mixed = shuffled(data)
    assert torch.bincount(mixed.labels[:200]).tolist() == pytest.approx([50] * CLASSES, abs=20)
    assert torch.equal(mixed.labels, shuffled(data).labels)
    assert torch.equal(mixed.images.flatten(1).sort(0).values, images.flatten(1).sort(0).values)


def test_the_halves_of_a_set_are_disjoint_and_have_the_same_classes():
    labels = torch.tensor([0] * 100 + [1] * 7 + [2] * 40)
    numbers = torch.arange(147, dtype=torch.uint8)[:, None, None, None]
    data = LabelledImages(numbers, labels, Dataset("toys", "0" * 64, (1, 1, 1), tuple("abc"), (100, 7, 40)))
    first, second = split_in_half(data)
    assert sorted(torch.cat((first.images, second.images)).flatten().tolist()) == list(range(147))
    for half in (first, second):
        assert torch.bincount(half.labels).tolist() == pytest.approx([50, 3.5, 20], abs=0.5)
        assert torch.equal(half.labels, labels[half.images.flatten().long()])
        assert half.images.flatten()[:20].float().std() > 20, "the first images must be a random subset"


@pytest.mark.parametrize(("accuracy", "n", "expected"), [(1, 6, 0.6), (0.5, 10_000, 0.49), (0, 10, 0)])
def test_the_lower_bound_of_an_accuracy_is_lower_for_few_images(accuracy, n, expected):
    assert accuracy_lower_bound(accuracy, n) == pytest.approx(expected, abs=1e-4)


def test_a_classifier_must_be_better_than_halfway_between_chance_and_certainty(context):
    def problem(accuracy: float) -> str | None:
        """Problem of a classifier with this accuracy on four equally frequent classes."""
        wrong = np.arange(2_000) >= accuracy * 2_000
        probabilities = np.eye(CLASSES)[(context.test.labels.numpy() + wrong) % CLASSES]
        return MetricContext(
            lambda images: ClassifierOutput(np.zeros((2_000, 1)), probabilities),
            context.train,
            context.test,
            context.class_shares,
        ).classifier_problem

    assert "its accuracy on 2,000 held-out real images is 25.00%" in (problem(0.25) or "")
    assert problem(0.62)
    assert problem(0.66) is None
    assert problem(1.0) is None
