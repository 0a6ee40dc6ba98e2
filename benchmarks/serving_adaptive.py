"""The service's endpoints with BentoML's adaptive batching as its documentation shows it, for `benchmarks.serving`.

    MNIST_GAN_MODEL=models/pretrained/mnist-fast.onnx bentoml serve benchmarks.serving_adaptive:Adaptive

A batchable method receives the rows of all requests of a batch in one array and returns one array. It belongs to a
service of its own, which the service that draws latents and encodes images calls.
"""

import asyncio
import os
from typing import Annotated

import bentoml
import numpy as np
from bentoml.validators import ContentType

from benchmarks.serving_peers import Model

PATH = os.environ["MNIST_GAN_MODEL"]
MAX_BATCH_SIZE = 256
"""Maximum number of rows in a batch."""
NO_ACCESS_LOG = {"logging": {"access": {"enabled": False}}}


@bentoml.service(**NO_ACCESS_LOG)
class Network:
    """Runs the network on batches that BentoML collects."""

    def __init__(self) -> None:
        self.model = Model(PATH)

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH_SIZE)
    def run(self, rows: np.ndarray) -> np.ndarray:
        """Runs the network on float32 rows (n, D + 1), each a latent followed by its label."""
        return self.model.decode(np.ascontiguousarray(rows[:, :-1]), rows[:, -1].astype(np.int64))


@bentoml.service(**NO_ACCESS_LOG)
class Adaptive:
    """Draws latents, calls `Network`, and encodes the images."""

    network = bentoml.depends(Network)

    def __init__(self) -> None:
        self.model = Model(PATH)

    async def draw(self, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        latents, labels = self.model.latents(n, seed)
        rows = np.concatenate((latents, labels[:, None].astype(np.float32)), axis=1)
        runs = [self.network.to_async.run(rows[i : i + MAX_BATCH_SIZE]) for i in range(0, n, MAX_BATCH_SIZE)]
        return np.concatenate(await asyncio.gather(*runs)), labels

    @bentoml.api
    async def generate(self, n: int = 16, seed: int = 0) -> Annotated[bytes, ContentType("image/png")]:
        images, _ = await self.draw(n, seed)
        return await asyncio.to_thread(self.model.png_grid, images)

    @bentoml.api
    async def dataset(self, n: int = 1_000, seed: int = 0) -> Annotated[bytes, ContentType("application/x-npz")]:
        return await asyncio.to_thread(self.model.npz, *await self.draw(n, seed))
