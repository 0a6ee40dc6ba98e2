"""A model in memory, with everything that a request needs to know about it."""

import time

from models.onnx_file.generator import Generator
from serving.http.metrics import metrics

INLINE_BUDGET_SECONDS = 0.001
"""Longest estimated time for which decoding may block the event loop."""


class LoadedModel:
    """An opened model file under the name by which requests choose it.

    The object does not change. Replacing a model puts another object into the registry; a request keeps the one that it
    began with until its response is complete.

    Args:
        name: the name of the model, which is also its label in the metrics.
        generator: the opened file.
    """

    def __init__(self, name: str, generator: Generator):
        self.name = name
        self.generator = generator
        self.card = generator.card
        self.max_inline_images = min(generator.rows_per_run, int(INLINE_BUDGET_SECONDS / _seconds_per_image(generator)))
        """Maximum number of images that are decoded on the event loop."""
        self.queued_images = metrics().queued_images.labels(name)
        self.queue_seconds = metrics().queue_seconds.labels(name)
        self.batch_images = metrics().batch_images.labels(name)
        self.model_seconds = metrics().model_seconds.labels(name)


def _seconds_per_image(generator: Generator) -> float:
    """Returns the time to draw and decode one image in a batch of at most 16: the fastest of three runs."""
    n, seconds = min(16, generator.rows_per_run), []
    for _ in range(3):
        start = time.perf_counter()
        generator.images(0, 0, n)
        seconds.append(time.perf_counter() - start)
    return min(seconds) / n
