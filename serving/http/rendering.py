"""Makes the response to a request from its latents: decodes and encodes them within the memory limits."""

import asyncio
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import Enum

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from models.common.array_types import Images
from models.common.threads import available_cpus
from serving.http.budget import Budget, Reservation
from serving.http.encodings import NPY, NPZ, PNG, Encoding
from serving.http.engine import Engine, Labels, LatentSource
from serving.http.errors import RequestError
from serving.http.loaded_model import LoadedModel
from serving.http.metrics import metrics
from serving.http.settings import Settings

SECONDS_PER_BYTE = {PNG: 7.5e-9, NPZ: 0.9e-9, NPY: 0.9e-9, "application/octet-stream": 0.9e-9}
"""Encoding time per byte of pixels, by media type, on one core of an AMD EPYC.

The value for PNG is that of grids of 28 x 28 images at the default scale of 2. Measured for 1,000 such images, it was
6.7 ns at scale 2, 13 ns at scale 1 and 5 ns at scale 4.

Media types that are not listed, such as animations, take much longer and always use the encoder pool.
"""
EVENT_LOOP_BUDGET_SECONDS = 0.00025
"""Longest estimated time of an encoding that runs on the event loop."""
ENGINE_THREAD_BUDGET_SECONDS = 0.03
"""Longest estimated time of an encoding that runs in an engine thread; it delays the batches of other requests."""
GPU_THREADS = 2
"""Default number of engine threads on a GPU: one draws latents while the GPU decodes for the other."""


class Place(Enum):
    """Place where the encoding of a response runs."""

    EVENT_LOOP = "event loop"
    ENGINE_THREAD = "engine thread"
    ENCODER_POOL = "encoder pool"


def encoding_place(pixel_bytes: int, media_type: str) -> Place:
    """Decides where a response is encoded, by its estimated encoding time.

    A hand-over to another thread and back takes about 0.1 ms, so short encodings run where the images were decoded.

    Args:
        pixel_bytes: size of the response before compression.
        media_type: media type of the response.
    """
    seconds = pixel_bytes * SECONDS_PER_BYTE.get(media_type, math.inf)
    if seconds <= EVENT_LOOP_BUDGET_SECONDS:
        return Place.EVENT_LOOP
    return Place.ENGINE_THREAD if seconds <= ENGINE_THREAD_BUDGET_SECONDS else Place.ENCODER_POOL


class Renderer:
    """Makes all responses with images of one process.

    Args:
        settings: number of threads, and limits of the queue and of the responses.
        gpu: whether a GPU runs the networks.
    """

    def __init__(self, settings: Settings, gpu: bool):
        cpus = available_cpus()
        threads = settings.threads or (GPU_THREADS if gpu else cpus)
        self._engine = Engine(threads, settings.max_waiting_images)
        self._encoders = ThreadPoolExecutor(settings.threads or cpus, "encoder")
        self._max_response_bytes = settings.max_response_bytes
        self._budget = Budget(settings.max_total_response_bytes, "responses")

    def pixel_bytes(self, model: LoadedModel, source: LatentSource, encoding: Encoding) -> int:
        """Returns the number of pixel bytes of a response, before compression.

        Raises:
            RequestError: 400 if the response would be too large.
        """
        pixel_bytes = encoding.pixel_bytes(len(source), model.card.image_shape)
        if pixel_bytes > self._max_response_bytes:
            raise RequestError(
                400,
                f"The response would have {pixel_bytes:,} bytes of pixels; the limit is {self._max_response_bytes:,}. "
                "Request fewer images or a smaller scale",
            )
        return pixel_bytes

    async def respond(
        self, route: str, model: LoadedModel, source: LatentSource, encoding: Encoding, headers: Mapping[str, str]
    ) -> Response:
        """Decodes the latents of a request and encodes the images.

        Args:
            route: the path, for the metrics.
            model: the model that decodes them.
            source: the latents and labels.
            encoding: encoding of the images.
            headers: additional response headers; X-Model is always added.

        Raises:
            RequestError: 400 if the response would be too large; 429 if too many images are queued, or if all responses
                together would be too large.
        """
        pixel_bytes = self.pixel_bytes(model, source, encoding)

        def encode(images: Images, labels: Labels) -> bytes:
            with metrics().encode_seconds.labels(route, model.name).time():
                return encoding.encode(images, labels)

        reservation = self._budget.reserve()
        reservation.resize(pixel_bytes)
        try:
            place = encoding_place(pixel_bytes, encoding.media_type)
            if place is Place.ENCODER_POOL:
                images, labels = await self._engine.decode(model, source)
                body = await asyncio.get_running_loop().run_in_executor(self._encoders, encode, images, labels)
            else:
                body = await self._engine.decode(model, source, encode, in_thread=place is Place.ENGINE_THREAD)
            reservation.resize(len(body))
        except BaseException:
            reservation.resize(0)
            raise
        metrics().images.labels(route, model.name).inc(len(source))
        headers = {"X-Model": model.card.file_sha256, **headers}
        return _HeldResponse(reservation, body, encoding.media_type, headers)


class _HeldResponse(Response):
    """A response that keeps its memory reserved in the budget until it has been sent or the client has disconnected."""

    def __init__(self, reservation: Reservation, body: bytes, media_type: str, headers: dict[str, str]):
        super().__init__(body, media_type=media_type, headers=headers)
        self._reservation = reservation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._reservation:
            await super().__call__(scope, receive, send)
