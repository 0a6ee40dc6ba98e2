"""How much the FID ratio of a model file depends on the classifier whose features it uses.

    python -m benchmarks.classifiers models/pretrained/*.onnx --json classifiers.json --picture least-certain.png

Trains two kinds of classifiers for MNIST, each with and without distorted images: the network of the pinned classifier,
which averages its features over the image, and one that keeps the position of each feature. Measures the FID ratio of
each model file with each of them, for all images and without those whose requested class is least certain. The picture
shows the 100 images of each model whose requested class is least certain for the pinned classifier.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from rich.progress import Progress
from torch import Tensor, nn

from benchmarks.report import print_table, write_json
from models.common.commands import command
from models.common.files import write_atomically
from models.common.image_files import grid, png
from training.data import LabelledImages
from training.data_dir import default_data_dir
from training.evaluation.classifier import (
    FEATURES,
    Classifier,
    classify,
    load_pinned_classifier,
    train_classifier,
)
from training.evaluation.feature_metrics import frechet_distance
from training.evaluation.real_images import load_real_images, shuffled
from training.evaluation.sources import open_sources

SHAPE = (1, 28, 28)
PINNED = "pinned"
"""Name of the classifier whose weights are in the repository."""


class PositionClassifier(Classifier):
    """A network with two convolutions and two linear layers, so that features depend on positions in the image."""

    def __init__(self, channels: int, classes: int):
        nn.Module.__init__(self)
        self.features = nn.Sequential(
            *(nn.Conv2d(channels, 16, 5, 2, 2), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(32 * 7 * 7, FEATURES), nn.ReLU()),
        )
        self.output = nn.Linear(FEATURES, classes)

    def forward_float(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Maps float images (n, channels, 28, 28) in [0, 1] to features (n, 128) and logits (n, classes)."""
        features = self.features(image)
        return features, self.output(features)


@dataclass(frozen=True)
class Options:
    """Measures the FID ratio of model files with several classifiers."""

    models: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Model files of class-conditional generators for MNIST."""
    data_dir: Path = field(default_factory=default_data_dir)
    n: int = 10_000
    """Number of images of each model."""
    epochs: int = 3
    """Number of passes over the training images for each classifier. The pinned classifier was trained for 10."""
    least_certain: float = 0.04
    """Share of the images that the second ratio leaves out."""
    json: Path | None = None
    """JSON file to write the measurements to."""
    picture: Path | None = None
    """PNG file to write the least certain images to."""


def classifiers(train: LabelledImages, epochs: int) -> Iterator[tuple[str, Classifier]]:
    """Yields the pinned classifier and the newly trained ones, each with a description."""
    yield PINNED, load_pinned_classifier()
    with Progress(transient=True) as progress:
        for network, description in ((Classifier, "averaged features"), (PositionClassifier, "positions kept")):
            for distorted in (True, False):
                name = f"{description}, {'distorted' if distorted else 'original'} images"
                # The seed differs from that of the pinned classifier.
                yield name, train_classifier(train, epochs, 1, progress, name, network, distorted)


@command("benchmarks.classifiers")
def main(options: Options) -> None:
    torch.set_num_threads(1)
    real = load_real_images("mnist", options.data_dir, SHAPE)
    sample = shuffled(real.train).images[: options.n]
    generated = {source.name: source.take(options.n) for source in open_sources(options.models)}
    rows, results, sheets = [], {}, []
    for name, classifier in classifiers(real.train, options.epochs):
        test = classify(classifier, real.test.images)
        accuracy = float((test.labels == real.test.labels.numpy()).mean())
        real_fid, _ = frechet_distance(test.features, classify(classifier, sample).features)
        results[name] = {"accuracy": accuracy, "real_fid": real_fid}
        cells = []
        for model, (images, labels) in generated.items():
            output = classify(classifier, images)
            certainty = output.probabilities[np.arange(options.n), labels.numpy()]
            order = np.argsort(certainty)
            if name == PINNED:
                sheets.append(np.asarray(grid(images.numpy()[order[:100]], columns=10)))
            kept = order[round(options.least_certain * options.n) :]
            ratio, without = (
                frechet_distance(test.features, features)[0] / real_fid
                for features in (output.features, output.features[kept])
            )
            results[name][model] = {"fid_ratio": ratio, "fid_ratio_without_least_certain": without}
            cells.append(f"{ratio:.2f} ({without:.2f})")
        rows.append([name, f"{accuracy:.2%}", *cells])
    columns = ("classifier", "accuracy", *generated)
    print_table(columns, rows, f"FID ratio (without the least certain {options.least_certain:.0%})")
    write_json(options.json, options, {"classifiers": results})
    if options.picture:
        sheet = grid(np.stack(sheets)[:, None], columns=len(sheets), scale=2, padding=4, grey=128)
        write_atomically(options.picture, png(sheet))


if __name__ == "__main__":
    main(tyro.cli(Options, config=(tyro.conf.HelptextFromCommentsOff,)))
