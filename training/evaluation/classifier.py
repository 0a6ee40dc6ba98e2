"""The context: a small digit classifier, whose features and opinions the metrics are made of.

    python -m training.evaluation.classifier --data-dir data --out training/evaluation/mnist-classifier.safetensors

trains the one that is pinned for MNIST (about half an hour on one CPU core). Figures can only be compared under one
context, so `load_pinned_classifier` refuses any other weights than those whose SHA-256 is written here.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import tyro
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

from models.common.errors import MnistGanError
from models.common.files import write_atomically
from models.common.threads import set_threads
from training.data import LabelledImages, load_dataset
from training.data_dir import default_data_dir

PINNED = Path(__file__).with_name("mnist-classifier.safetensors")
PINNED_SHA256 = "3bdf2b865dd3d262eea76755b25b51d26b56d4b7f0daa6243a9ade0468a64eb7"

FEATURES = 128
_WIDTHS = (24, 48, 48, 96, FEATURES)
_STRIDES = (1, 2, 1, 2, 1)
_BATCH = 128
_EPOCHS = 10
MIN_STEPS = 300
"""Steps below which small data sets are shown more often: after the 20 of ten epochs of 300 images, a classifier of
three simple shapes was at chance, after 100 it was right about all."""
_PEAK_LR = 4e-3
_WARMUP = 0.25
_WEIGHT_DECAY = 0.05
_ROTATION = math.radians(12)
_SHIFT = 0.12
"""Of half the edge."""
_ZOOM = 0.12
_SHEAR = 0.15


class ClassifierError(MnistGanError):
    """A classifier that metrics cannot depend on: its weights are not the pinned ones, or it separates no classes."""


class Classifier(nn.Module):
    """image uint8 (n, channels, height, width) -> features (n, 128), logits (n, classes)."""

    def __init__(self, channels: int, classes: int):
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, stride in zip((channels, *_WIDTHS), _WIDTHS, _STRIDES, strict=False):
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        self.convolutions = nn.Sequential(*layers)
        self.output = nn.Linear(FEATURES, classes)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.forward_float(image.float() / 255)

    def forward_float(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, for float images in [0, 1]."""
        features = self.convolutions(image.contiguous(memory_format=torch.channels_last)).mean((2, 3))
        return features, self.output(features)


@dataclass(frozen=True)
class Reading:
    """What a classifier sees in a set of images."""

    features: np.ndarray
    """float64 (n, 128)."""
    probabilities: np.ndarray
    """float64 (n, classes)."""

    @property
    def labels(self) -> np.ndarray:
        """int64 (n,): the likeliest class of each."""
        return self.probabilities.argmax(1)


@torch.inference_mode()
def classify(classifier: Classifier, images: Tensor) -> Reading:
    """Classifies images, uint8 (n, channels, height, width)."""
    features, logits = zip(*(classifier.eval()(chunk) for chunk in images.split(512)), strict=True)
    return Reading(torch.cat(features).double().numpy(), torch.cat(logits).double().softmax(1).numpy())


def classify_stacked(classifier: Classifier, images: Tensor) -> Reading:
    """Reads images of several digits, one a channel: their features side by side, the classes of all digits together.

    Returns:
        features float64 (n, channels * 128), probabilities float64 (n, classes ** channels).
    """
    readings = [classify(classifier, images[:, [channel]]) for channel in range(images.shape[1])]
    probabilities = readings[0].probabilities
    for reading in readings[1:]:
        probabilities = (probabilities[:, :, None] * reading.probabilities[:, None]).reshape(len(images), -1)
    return Reading(np.concatenate([reading.features for reading in readings], 1), probabilities)


def train_classifier(
    data: LabelledImages,
    epochs: int = _EPOCHS,
    seed: int = 0,
    progress: Progress | None = None,
    task: str = "classifier",
) -> Classifier:
    """Trains a classifier on labelled images that are turned, moved, zoomed and sheared a little each time.

    Adam with decoupled weight decay under a one-cycle learning rate (Smith and Topin, 2017, "Super-convergence").
    """
    random = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = Classifier(data.info.image_shape[0], len(data.info.class_names))
    classifier.to(memory_format=torch.channels_last).train()
    size = min(_BATCH, len(data))
    steps = epochs * (len(data) // size)
    optimizer = torch.optim.AdamW(classifier.parameters(), weight_decay=_WEIGHT_DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _PEAK_LR, steps, pct_start=_WARMUP)
    batches = _batches(len(data), size, epochs, random)
    for index in progress.track(batches, total=steps, description=task) if progress else batches:
        _, logits = classifier.forward_float(_distort(data.images[index].float() / 255, random))
        optimizer.zero_grad()
        cross_entropy(logits, data.labels[index]).backward()
        optimizer.step()
        schedule.step()
    return classifier.eval()


def enough_epochs(n: int) -> int:
    """Number of epochs over n images in which a classifier takes at least `MIN_STEPS` steps."""
    return max(_EPOCHS, math.ceil(MIN_STEPS / max(1, n // _BATCH)))


def load_pinned_classifier() -> Classifier:
    """The classifier that every metric for MNIST is measured with.

    Raises:
        ClassifierError: its file is not the one that it should be.
    """
    file = PINNED.read_bytes()
    if (sha256 := hashlib.sha256(file).hexdigest()) != PINNED_SHA256:
        raise ClassifierError(
            f"{PINNED}: its SHA-256 is {sha256}, it should be {PINNED_SHA256}: metrics would not be comparable; "
            "restore the file"
        )
    classifier = Classifier(channels=1, classes=10)
    classifier.load_state_dict(safetensors.torch.load(file))
    return classifier.to(memory_format=torch.channels_last).eval()


def _batches(n: int, size: int, epochs: int, random: torch.Generator) -> Iterator[Tensor]:
    for _ in range(epochs):
        yield from torch.randperm(n, generator=random)[: n // size * size].split(size)


def _distort(images: Tensor, random: torch.Generator) -> Tensor:
    """A random affine map of each image, float (n, channels, height, width)."""
    turn, zoom_x, zoom_y, shear, move_x, move_y = torch.rand(6, len(images), generator=random) * 2 - 1
    turn, zoom_x, zoom_y = turn * _ROTATION, 1 + zoom_x * _ZOOM, 1 + zoom_y * _ZOOM
    rows = (
        torch.stack((zoom_x * turn.cos(), shear * _SHEAR - turn.sin(), move_x * _SHIFT), 1),
        torch.stack((turn.sin(), zoom_y * turn.cos(), move_y * _SHIFT), 1),
    )
    grid = affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    # Beyond the edge the image goes on as it ends, so that no frame is drawn around one that is not black there.
    return grid_sample(images, grid, padding_mode="border", align_corners=False)


@dataclass(frozen=True)
class _Options:
    """Trains the classifier that is pinned for MNIST."""

    out: Path
    """The safetensors file."""
    data_dir: Path = field(default_factory=default_data_dir)
    epochs: int = _EPOCHS
    seed: int = 0


def main() -> None:
    options = tyro.cli(_Options)
    torch.set_num_threads(set_threads().number)
    with Progress() as progress:
        classifier = train_classifier(load_dataset("mnist", options.data_dir), options.epochs, options.seed, progress)
    test = load_dataset("mnist", options.data_dir, split="test")
    accuracy = (classify(classifier, test.images).labels == test.labels.numpy()).mean()
    facts = {"test_accuracy": f"{accuracy:.4f}", "epochs": str(options.epochs), "seed": str(options.seed)}
    # As plain arrays: safetensors keeps no memory format.
    file = safetensors.torch.save(
        {name: weight.contiguous() for name, weight in classifier.state_dict().items()}, facts
    )
    write_atomically(options.out, file)
    print(f"{options.out}: {accuracy:.2%} of the test images right; SHA-256 {hashlib.sha256(file).hexdigest()}")


if __name__ == "__main__":
    main()
