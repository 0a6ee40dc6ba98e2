"""The small image classifier from whose features and class probabilities most metrics are computed.

This command trains the pinned classifier for MNIST, in about half an hour on one CPU core:

    python -m training.evaluation.classifier --data-dir data --out training/evaluation/mnist-classifier.safetensors

Metrics can only be compared if they were measured with the same classifier, so `load_pinned_classifier` checks
the SHA-256 of the weights.
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
"""Number of features of an image."""
_WIDTHS = (24, 48, 48, 96, FEATURES)
_STRIDES = (1, 2, 1, 2, 1)
_BATCH = 128
_EPOCHS = 10
MIN_STEPS = 300
"""Minimum number of optimizer steps of a classifier for a user's data set; small data sets get more epochs. With 300
images of three simple shapes, the accuracy was at chance after 20 steps (10 epochs) and 100 % after 100 steps."""
_PEAK_LR = 4e-3
_WARMUP = 0.25
"""Share of the steps in which the learning rate rises to its peak."""
_WEIGHT_DECAY = 0.05
_MAX_ROTATION = math.radians(12)
_MAX_SHIFT = 0.12
"""Largest shift of an augmented image, as a share of half its edge."""
_MAX_ZOOM = 0.12
_MAX_SHEAR = 0.15


class ClassifierError(MnistGanError):
    """The classifier cannot be used for metrics: its file was changed, or it does not separate the classes."""


class Classifier(nn.Module):
    """A convolutional network with five layers, global average pooling and a linear output layer."""

    def __init__(self, channels: int, classes: int):
        """Initializes the weights at random, from PyTorch's global random state.

        Args:
            channels: number of image channels.
            classes: number of classes.
        """
        super().__init__()
        layers: list[nn.Module] = []
        for width_in, width, stride in zip((channels, *_WIDTHS), _WIDTHS, _STRIDES, strict=False):
            layers += [nn.Conv2d(width_in, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)]
            layers += [nn.ReLU(inplace=True)]
        self.convolutions = nn.Sequential(*layers)
        self.output = nn.Linear(FEATURES, classes)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Maps images, uint8 (n, channels, height, width), to features (n, 128) and logits (n, classes)."""
        return self.forward_float(image.float() / 255)

    def forward_float(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Does the same as `forward` for float images with values in [0, 1]."""
        features = self.convolutions(image.contiguous(memory_format=torch.channels_last)).mean((2, 3))
        return features, self.output(features)


@dataclass(frozen=True)
class ClassifierOutput:
    """Features and class probabilities of a set of images."""

    features: np.ndarray
    """float64 (n, 128), or (n, channels * 128) for stacked digits; at least 0."""
    probabilities: np.ndarray
    """float64 (n, classes); each row has sum 1."""

    @property
    def labels(self) -> np.ndarray:
        """Most probable class of each image, int64 (n,)."""
        return self.probabilities.argmax(1)


@torch.inference_mode()
def classify(classifier: Classifier, images: Tensor) -> ClassifierOutput:
    """Runs the classifier on images, uint8 (n, channels, height, width), in batches of 512.

    Switches the classifier to evaluation mode.
    """
    features, logits = zip(*(classifier.eval()(batch) for batch in images.split(512)), strict=True)
    return ClassifierOutput(torch.cat(features).double().numpy(), torch.cat(logits).double().softmax(1).numpy())


def classify_stacked(classifier: Classifier, images: Tensor) -> ClassifierOutput:
    """Classifies images that have one digit in each channel, by classifying each channel alone.

    The features of the channels are concatenated. The class of an image is the number that its digits form, first
    channel first; its probability is the product of the probabilities of the digits.

    Args:
        classifier: a classifier for images of one channel.
        images: uint8 (n, channels, height, width).

    Returns:
        features float64 (n, channels * 128), probabilities float64 (n, classes ** channels).
    """
    outputs = [classify(classifier, images[:, [channel]]) for channel in range(images.shape[1])]
    probabilities = outputs[0].probabilities
    for output in outputs[1:]:
        probabilities = (probabilities[:, :, None] * output.probabilities[:, None]).reshape(len(images), -1)
    return ClassifierOutput(np.concatenate([output.features for output in outputs], 1), probabilities)


def train_classifier(
    data: LabelledImages,
    epochs: int = _EPOCHS,
    seed: int = 0,
    progress: Progress | None = None,
    task: str = "classifier",
    network: type[Classifier] = Classifier,
    distorted: bool = True,
) -> Classifier:
    """Trains a classifier on labelled images, by default with random rotations, shifts, zooms and shears.

    AdamW with a one-cycle learning rate (Smith and Topin, 2017, "Super-convergence"). The same arguments give
    the same weights on one machine with one number of threads. The global random state is not changed.

    Args:
        data: images and labels, on the CPU.
        epochs: number of passes over the images. Images that do not fill a last batch of 128 are skipped in each pass.
        seed: seed of the initial weights, the order of the images and the distortions.
        progress: shows a progress bar; None shows nothing.
        task: description of the progress bar.
        network: class of the classifier.
        distorted: whether images are distorted at random.

    Returns:
        the classifier in evaluation mode.
    """
    random = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = network(data.info.image_shape[0], len(data.info.class_names))
    classifier.to(memory_format=torch.channels_last).train()
    size = min(_BATCH, len(data))
    steps = epochs * (len(data) // size)
    optimizer = torch.optim.AdamW(classifier.parameters(), weight_decay=_WEIGHT_DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _PEAK_LR, steps, pct_start=_WARMUP)
    batches = _batches(len(data), size, epochs, random)
    for index in progress.track(batches, total=steps, description=task) if progress else batches:
        images = data.images[index].float() / 255
        _, logits = classifier.forward_float(_distort(images, random) if distorted else images)
        optimizer.zero_grad()
        cross_entropy(logits, data.labels[index]).backward()
        optimizer.step()
        schedule.step()
    return classifier.eval()


def enough_epochs(n: int) -> int:
    """Returns the number of epochs over n images: 10, or more if `MIN_STEPS` optimizer steps need more."""
    return max(_EPOCHS, math.ceil(MIN_STEPS / max(1, n // _BATCH)))


def load_pinned_classifier() -> Classifier:
    """Loads the classifier with which all metrics for MNIST are measured.

    Raises:
        ClassifierError: the SHA-256 of its file is not the pinned one.
        FileNotFoundError: the file does not exist.
    """
    file = PINNED.read_bytes()
    if (sha256 := hashlib.sha256(file).hexdigest()) != PINNED_SHA256:
        raise ClassifierError(
            f"{PINNED}: has the SHA-256 {sha256} instead of {PINNED_SHA256}; metrics would not be comparable, so "
            "restore the original file"
        )
    classifier = Classifier(channels=1, classes=10)
    classifier.load_state_dict(safetensors.torch.load(file))
    return classifier.to(memory_format=torch.channels_last).eval()


def _batches(n: int, size: int, epochs: int, random: torch.Generator) -> Iterator[Tensor]:
    """Yields `epochs` random permutations of n indices as tensors of `size` indices, without incomplete ones."""
    for _ in range(epochs):
        yield from torch.randperm(n, generator=random)[: n // size * size].split(size)


def _distort(images: Tensor, random: torch.Generator) -> Tensor:
    """Applies a random affine map to each image, float (n, channels, height, width)."""
    angle, zoom_x, zoom_y, shear, shift_x, shift_y = torch.rand(6, len(images), generator=random) * 2 - 1
    angle, zoom_x, zoom_y = angle * _MAX_ROTATION, 1 + zoom_x * _MAX_ZOOM, 1 + zoom_y * _MAX_ZOOM
    rows = (
        torch.stack((zoom_x * angle.cos(), shear * _MAX_SHEAR - angle.sin(), shift_x * _MAX_SHIFT), 1),
        torch.stack((angle.sin(), zoom_y * angle.cos(), shift_y * _MAX_SHIFT), 1),
    )
    grid = affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    # "border" repeats the pixels of the edge; zeros would draw a black frame around images with a bright background.
    return grid_sample(images, grid, padding_mode="border", align_corners=False)


@dataclass(frozen=True)
class _Options:
    """Trains the pinned classifier for MNIST, and prints its test accuracy and the SHA-256 of its file."""

    out: Path
    """Safetensors file to write."""
    data_dir: Path = field(default_factory=default_data_dir)
    """Folder of the data sets; $MNIST_GAN_DATA, else `data`."""
    epochs: int = _EPOCHS
    """Number of passes over the training images."""
    seed: int = 0
    """Seed of the initial weights, the order of the images and the distortions."""


def main() -> None:
    options = tyro.cli(_Options)
    torch.set_num_threads(set_threads().number)
    with Progress() as progress:
        classifier = train_classifier(load_dataset("mnist", options.data_dir), options.epochs, options.seed, progress)
    test = load_dataset("mnist", options.data_dir, split="test")
    accuracy = (classify(classifier, test.images).labels == test.labels.numpy()).mean()
    metadata = {"test_accuracy": f"{accuracy:.4f}", "epochs": str(options.epochs), "seed": str(options.seed)}
    # safetensors stores contiguous tensors only; `load_pinned_classifier` restores the channels-last format.
    file = safetensors.torch.save(
        {name: weight.contiguous() for name, weight in classifier.state_dict().items()}, metadata
    )
    write_atomically(options.out, file)
    print(f"{options.out}: test accuracy {accuracy:.2%}, SHA-256 {hashlib.sha256(file).hexdigest()}")


if __name__ == "__main__":
    main()
