"""The same endpoints with BentoML's adaptive batching, as its documentation has it, for `benchmarks/serving.py`.

    MNIST_GAN_MODEL=models/pretrained/mnist-fast.onnx bentoml serve benchmarks.serving_adaptive:Adaptive

A batchable method takes one array, and answers for all who came together; it is a service of its own, called from the
one that draws latents and encodes images.
"""

import asyncio
import os
from typing import Annotated

import bentoml
import numpy as np
from bentoml.validators import ContentType

from benchmarks.serving_peers import Model

PATH = os.environ["MNIST_GAN_MODEL"]
MOST = 256
"""Rows of a batch."""
PLAIN = {"logging": {"access": {"enabled": False}}}


@bentoml.service(**PLAIN)
class Network:
    def __init__(self) -> None:
        self.model = Model(PATH)

    @bentoml.api(batchable=True, max_batch_size=MOST)
    def run(self, rows: np.ndarray) -> np.ndarray:
        """Latents with their labels behind them, float32 (n, D + 1)."""
        return self.model.decode(np.ascontiguousarray(rows[:, :-1]), rows[:, -1].astype(np.int64))


@bentoml.service(**PLAIN)
class Adaptive:
    network = bentoml.depends(Network)

    def __init__(self) -> None:
        self.model = Model(PATH)

    async def draw(self, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        latents, labels = self.model.latents(n, seed)
        rows = np.concatenate((latents, labels[:, None].astype(np.float32)), axis=1)
        runs = [self.network.to_async.run(rows[i : i + MOST]) for i in range(0, n, MOST)]
        return np.concatenate(await asyncio.gather(*runs)), labels

    @bentoml.api
    async def generate(self, n: int = 16, seed: int = 0) -> Annotated[bytes, ContentType("image/png")]:
        images, _ = await self.draw(n, seed)
        return await asyncio.to_thread(self.model.sheet, images)

    @bentoml.api
    async def dataset(self, n: int = 1_000, seed: int = 0) -> Annotated[bytes, ContentType("application/x-npz")]:
        return await asyncio.to_thread(self.model.arrays, *await self.draw(n, seed))
