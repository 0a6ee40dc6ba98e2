"""The BentoML service: batches of latents in, images out, from one model file and onnxruntime.

    MNIST_GAN_MODEL=generator.onnx bentoml serve

Without MNIST_GAN_MODEL it serves the newest mnist-gan of the BentoML model store, and where that is empty the generator
that ships with this repository. Images are addressable: the same model, seed, index and labels give the same image,
whatever else a request asks for and whatever else is being served.
"""

import asyncio
import gc
import logging
import math
import os
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import bentoml
import numpy as np
import onnxruntime
from bentoml.exceptions import ServiceUnavailable
from bentoml.models import BentoModel
from bentoml.validators import ContentType
from numpy.typing import NDArray
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from models.artifact import CUDA, Addressed, Generator, Given, Images
from models.errors import InputError, ModelFileError
from models.latents import END, interpolate
from models.store import MODEL_NAME, SHIPPED
from models.threads import available_cpus
from serving import bentoml_internals, images, logs, requests, startup
from serving.admission import FREE, Admission
from serving.batcher import Batcher, Labels
from serving.connections import limit_connections, replace_uvicorn_protocol
from serving.direct import Direct
from serving.errors import ErrorShape
from serving.image import image
from serving.images import NPY, NPZ, PNG, png_sheet
from serving.memory import keep_freed_memory
from serving.metrics import metrics
from serving.pages import pages
from serving.settings import SETTINGS

startup.prepare()
logger = logging.getLogger("bentoml.mnist-gan")

SEND_SECONDS = 5
"""That a collector of traces may take at the end."""
GPU_THREADS = 2
"""One draws latents while the GPU works for the other."""
LIGHT = {PNG: 1 << 15, NPZ: 1 << 18, NPY: 1 << 18}
"""Pixels that are encoded in a quarter of a millisecond: on the event loop, if the images are made there."""
MODERATE = {PNG: 1 << 22, NPZ: 1 << 30, NPY: 1 << 30}
"""Pixels that are encoded in some 20 ms: by the thread that makes the images. More, and animations, would hold up other
people's, and get threads of their own."""
LARGE = 1 << 24
"""Pixels of a picture; those that have more are encoded one at a time: each takes hundreds of MB."""


def newest_in_store() -> Path | None:
    """The newest model file in the BentoML model store; in a Bento that is its own."""
    try:
        return Path(bentoml.models.get(f"{MODEL_NAME}:latest").path_of("generator.onnx"))
    except bentoml.exceptions.NotFound:
        return None


def model_file() -> Path:
    """The file to serve: $MNIST_GAN_MODEL, else the newest in the BentoML model store, else the one that ships."""
    path = os.environ.get("MNIST_GAN_MODEL")
    return Path(path) if path else newest_in_store() or SHIPPED


def open_model(path: Path, device: str) -> Generator:
    """
    Raises:
        ModelFileError: the file fails a check, or there is no GPU and one was asked for.
    """
    if device == "cuda" or (device == "auto" and CUDA in onnxruntime.get_available_providers()):
        try:
            return Generator.open(path, CUDA)
        except ModelFileError as error:
            if device == "cuda":
                raise
            logger.warning("no GPU is used: %s", error)
    return Generator.open(path)


def _array(rows: list[list[float]]) -> NDArray[np.floating]:
    try:
        return np.array(rows)
    except ValueError:
        raise InputError("latents", "rows must be of one length") from None


def _tracing() -> dict[str, Any]:
    if not SETTINGS.traces_endpoint:
        return {"excluded_urls": [".*"]}  # or each request would cost five spans that nobody reads
    collector = {"protocol": "http", "endpoint": SETTINGS.traces_endpoint}
    return {"exporter_type": "otlp", "sample_rate": SETTINGS.traces_share, "otlp": collector}


@bentoml.asgi_app(pages)
@bentoml.service(
    name=MODEL_NAME,
    image=image(),
    workers=SETTINGS.workers,
    logging={"access": {"enabled": False}},  # for ours, which can be JSON
    tracing=_tracing(),
)
class MnistGan:
    """Generated digits, addressable by seed and index."""

    stored = BentoModel(f"{MODEL_NAME}:latest") if newest_in_store() else None
    """What `bentoml build` packs, and `model_file` then finds; where the store is empty, the Bento has what ships."""

    def __init__(self) -> None:
        limit_connections(SETTINGS)
        keep_freed_memory()
        self._generator: Generator | None = None
        try:
            path = model_file()
            self._generator = open_model(path, SETTINGS.device)
            cpus = available_cpus()
            runs = SETTINGS.threads or (GPU_THREADS if self._generator.provider == CUDA else cpus)
            self._batcher = Batcher(self._generator, runs, SETTINGS.max_waiting_images)
            self._encoders = ThreadPoolExecutor(SETTINGS.threads or cpus, "encoder")
            self._large = ThreadPoolExecutor(1, "large")
            card = self._generator.card
            metrics().model_info.labels(card.name, card.file_sha256, card.dataset.name, card.precision).set(1)
            logger.info("serving %s from %s with %s", card.name, path, self._generator.provider)
            gc.freeze()  # what is loaded by now stays; to look through it for garbage would take 30 ms at a time
        except ModelFileError as error:
            logger.error("not ready: %s", error)

    @bentoml.on_shutdown
    async def send_traces(self) -> None:
        """What has not been sent yet: the process ends by a signal, which leaves no time for it later."""
        if SETTINGS.traces_endpoint:
            provider = bentoml_internals.tracer_provider()
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.to_thread(provider.shutdown), SEND_SECONDS)

    def __is_ready__(self) -> bool:
        return self._generator is not None

    @property
    def generator(self) -> Generator:
        if self._generator is None:
            raise ServiceUnavailable("no model")
        return self._generator

    @bentoml.api(input_spec=requests.Generate)
    async def generate(self, columns: int | None, scale: int, **address: Any) -> Annotated[bytes, ContentType(PNG)]:
        """Makes images, laid out on a sheet."""
        with requests.refusing():
            asked = self._addressed(**address)
        return await self._answer("/generate", asked, lambda made, _: png_sheet(made, columns, scale), PNG, scale)

    @bentoml.api(input_spec=requests.Dataset)
    async def dataset(self, **address: Any) -> Annotated[bytes, ContentType(NPZ)]:
        """Makes images, and their labels if the generator is class-conditional, as a NumPy .npz file."""
        with requests.refusing():
            asked = self._addressed(**address)
        answer = await self._answer("/dataset", asked, images.npz, NPZ)
        answer.headers["Content-Disposition"] = f'attachment; filename="{MODEL_NAME}-{asked.seed}.npz"'
        return answer

    @bentoml.api(input_spec=requests.Write)
    async def write(
        self, text: str, seed: int | None, truncation: float, scale: int
    ) -> Annotated[bytes, ContentType(PNG)]:
        """Writes a text in generated handwriting, as one strip."""
        n = len(text)
        with requests.refusing(labels="text"):
            asked = self._addressed(seed, first=0, n=n, labels=self.generator.card.spell(text), truncation=truncation)
        return await self._answer("/write", asked, lambda made, _: png_sheet(made, n, scale), PNG, scale)

    @bentoml.api(input_spec=requests.Interpolate)
    async def interpolate(
        self,
        start: requests.Address,
        end: requests.Address,
        frames: int,
        format: Literal["png", "gif", "webp"],
        truncation: float,
        scale: int,
    ) -> Annotated[bytes, ContentType(PNG)]:
        """Goes from one image to another: a strip, or an animation there and back."""
        ends = []
        for name, at in (("from", start), ("to", end)):
            labels = f"{name}.labels" if at.label is None else f"{name}.label"
            with requests.refusing(labels=labels, first=f"{name}.index"):
                ends.append(self.generator.draw(at.seed, at.index, 1, at.asked_labels(), truncation))
        (one, label), (other, last) = ends
        latents = interpolate(one[0], other[0], frames)
        if label is None or last is None or label == last:
            asked = Given(latents, None if label is None else np.repeat(label, frames))
        else:  # once as each class, to fade from one to the other
            asked = Given(np.tile(latents, (2, 1)), np.repeat(np.concatenate((label, last)), frames))

        def drawn(made: Images, _: Labels) -> bytes:
            if len(made) > frames:
                made = images.fade(made[:frames], made[frames:])
            return png_sheet(made, frames, scale) if format == "png" else images.animation(made, scale, format)

        return await self._answer("/interpolate", asked, drawn, f"image/{format}", scale)

    @bentoml.api(input_spec=requests.Decode)
    async def decode(
        self,
        latents: list[list[float]] | NDArray[np.floating],
        labels: str | list[str | int] | None,
        columns: int | None,
        scale: int,
    ) -> Annotated[bytes, ContentType(PNG)]:
        """Turns latents of your own into a sheet; or an .npy body of latents into an .npy file of images."""
        with requests.refusing():
            array = latents if isinstance(latents, np.ndarray) else _array(latents)
            cycled = None if labels is None else self.generator.cycle(labels, 0, len(array))
            asked = Given(*self.generator.check(array, cycled))
        if array is latents:
            return await self._answer("/decode", asked, lambda made, _: images.npy(made), NPY)
        return await self._answer("/decode", asked, lambda made, _: png_sheet(made, columns, scale), PNG, scale)

    @bentoml.api(input_spec=requests.Nothing)
    async def card(self) -> Any:
        """What the model says of itself."""
        card = self.generator.card
        return Response(card.to_json(), media_type="application/json", headers={"X-Model": card.file_sha256})

    def _addressed(self, seed: int | None, **address: Any) -> Addressed:
        return self.generator.addressed(secrets.randbelow(END) if seed is None else seed, **address)

    async def _answer(
        self,
        route: str,
        asked: Addressed | Given,
        encode: Callable[[Images, Labels], bytes],
        media_type: str,
        scale: int = 1,
    ) -> Any:
        """What the routes say they return, bytes, is for BentoML's Python client."""

        def timed(made: Images, labels: Labels) -> bytes:
            with metrics().encode_seconds.labels(route).time():
                return encode(made, labels)

        pixels = len(asked) * math.prod(self.generator.card.image_shape) * scale**2
        if pixels > MODERATE.get(media_type, 0):
            made = await self._batcher.decode(asked, lambda *made: made)
            pool = self._large if pixels > LARGE else self._encoders
            body = await asyncio.get_running_loop().run_in_executor(pool, timed, *made)
        else:
            body = await self._batcher.decode(asked, timed, heavy=pixels > LIGHT[media_type])
        metrics().images.labels(route).inc(len(asked))
        headers = {"X-Model": self.generator.card.file_sha256}
        if isinstance(asked, Addressed):
            headers["X-Seed"] = str(asked.seed)
        return Response(body, media_type=media_type, headers=headers)


CORS = {
    "allow_origins": SETTINGS.cors_origins,
    "allow_methods": ["GET", "POST"],
    "allow_headers": ["*"],
    "expose_headers": ["X-Seed", "X-Model"],
}
# MnistGan is a bentoml.Service by now, whatever its decorator promises.
MIDDLEWARE: tuple[tuple[Any, dict[str, Any]], ...] = (
    *(((logs.RequestLog, {}),) if SETTINGS.access_log else ()),
    *(((CORSMiddleware, CORS),) if SETTINGS.cors_origins else ()),
    (Admission, {"settings": SETTINGS}),
    (Direct, {"methods": MnistGan.apis.values()}),  # type: ignore[attr-defined]
    (ErrorShape, {}),
)
"""The first is outermost."""
for middleware, options in MIDDLEWARE:
    MnistGan.add_asgi_middleware(middleware, **options)  # type: ignore[attr-defined]

replace_uvicorn_protocol()
bentoml_internals.drop_timeout()
bentoml_internals.count_only({*FREE, *(method.route for method in MnistGan.apis.values())})  # type: ignore[attr-defined]
