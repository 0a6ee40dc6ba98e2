"""The BentoML service: batches of latents in, images out, from one model file and onnxruntime.

    MNIST_GAN_MODEL=generator.onnx bentoml serve

Without MNIST_GAN_MODEL it serves the newest mnist-gan of the BentoML model store, and where that is empty the generator
that ships with this repository. Images are addressable: the same model, seed, index and labels give the same image,
whatever else a request asks for and whatever else is being served.
"""

import logging
import os
import secrets
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Annotated, Any, Literal

import bentoml
import numpy as np
from bentoml.exceptions import ServiceUnavailable
from bentoml.validators import ContentType
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from models.artifact import Generator, Images
from models.errors import InputError, ModelFileError
from models.latents import END, interpolate
from models.store import MODEL_NAME, SHIPPED
from serving import images, requests
from serving.admission import Admission, given_up
from serving.batcher import Batcher
from serving.errors import ErrorShape, GivenUpError, quiet_refusals
from serving.settings import SETTINGS

PNG, NPZ, NPY = "image/png", "application/x-npz", "application/x-npy"

logger = logging.getLogger("bentoml.mnist-gan")


def model_file() -> Path:
    """The file to serve: $MNIST_GAN_MODEL, else the newest in the BentoML model store, else the one that ships."""
    if path := os.environ.get("MNIST_GAN_MODEL"):
        return Path(path)
    try:
        return Path(bentoml.models.get(f"{MODEL_NAME}:latest").path_of("generator.onnx"))
    except bentoml.exceptions.NotFound:
        return SHIPPED


def _array(rows: list[list[float]]) -> NDArray[np.floating]:
    try:
        return np.array(rows)
    except ValueError:
        raise InputError("latents", "rows must be of one length") from None


def _chosen(seed: int | None) -> int:
    return secrets.randbelow(END) if seed is None else seed


def get_card(_: Request) -> Response:
    return bentoml.get_current_service().card.local()


def not_ready(_: Request, __: Exception) -> Response:
    return Response(status_code=503)


# BentoML's own routes are POST; the card is also there for whoever opens it in a browser.
pages = Starlette(routes=[Route("/card", get_card)], exception_handlers={ServiceUnavailable: not_ready})


@bentoml.asgi_app(pages)
@bentoml.service(
    name=MODEL_NAME,
    workers=SETTINGS.workers,
    threads=SETTINGS.max_requests,  # which wait for the batcher's, most of the time
    traffic={"timeout": 60 + SETTINGS.timeout_seconds},  # ours comes first, and stops the work as well
)
class MnistGan:
    """Generated digits, addressable by seed and index."""

    def __init__(self) -> None:
        quiet_refusals()
        self._generator: Generator | None = None
        try:
            path = model_file()
            self._generator = Generator.open(path)
            self._batcher = Batcher(self._generator, SETTINGS.threads, SETTINGS.max_waiting_images)
            logger.info("serving %s from %s", self._generator.card.name, path)
        except ModelFileError as error:
            logger.error("not ready: %s", error)

    def __is_ready__(self) -> bool:
        return self._generator is not None

    @property
    def generator(self) -> Generator:
        if self._generator is None:
            raise ServiceUnavailable("no model")
        return self._generator

    @bentoml.api(input_spec=requests.Generate)
    def generate(self, columns: int | None, scale: int, **address: Any) -> Annotated[bytes, ContentType(PNG)]:
        """Makes images, laid out on a sheet."""
        seed, made, _ = self._make(**address)
        return self._answer(images.png(images.sheet(made, columns, scale)), PNG, {"X-Seed": str(seed)})

    @bentoml.api(input_spec=requests.Dataset)
    def dataset(self, **address: Any) -> Annotated[bytes, ContentType(NPZ)]:
        """Makes images, and their labels if the generator is class-conditional, as a NumPy .npz file."""
        seed, made, labels = self._make(**address)
        name = f'attachment; filename="{MODEL_NAME}-{seed}.npz"'
        return self._answer(images.npz(made, labels), NPZ, {"X-Seed": str(seed), "Content-Disposition": name})

    @bentoml.api(input_spec=requests.Write)
    def write(self, text: str, seed: int | None, truncation: float, scale: int) -> Annotated[bytes, ContentType(PNG)]:
        """Writes a text in generated handwriting, as one strip."""
        seed = _chosen(seed)
        with requests.refusing(labels="text"):
            made = self._decode(*self.generator.draw(seed, 0, len(text), list(text), truncation))
        return self._answer(images.png(images.sheet(made, len(text), scale)), PNG, {"X-Seed": str(seed)})

    @bentoml.api(input_spec=requests.Interpolate)
    def interpolate(
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
            with requests.refusing(labels=f"{name}.label", first=f"{name}.index"):
                labels = None if at.label is None else [at.label]
                ends.append(self.generator.draw(at.seed, at.index, 1, labels, truncation))
        (one, label), (other, last) = ends
        latents = interpolate(one[0], other[0], frames)
        made = self._of_class(latents, label)
        if label is not None and label != last:
            made = images.fade(made, self._of_class(latents, last))
        if format == "png":
            return self._answer(images.png(images.sheet(made, frames, scale)), PNG)
        return self._answer(images.animation(made, scale, format), f"image/{format}")

    @bentoml.api(input_spec=requests.Decode)
    def decode(
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
            made = self._decode(array, cycled)
        if array is latents:
            return self._answer(images.npy(made), NPY)
        return self._answer(images.png(images.sheet(made, columns, scale)), PNG)

    @bentoml.api(input_spec=requests.Nothing)
    def card(self) -> dict[str, Any]:
        """What the model says of itself."""
        return self._answer(self.generator.card.to_json().encode(), "application/json")

    def _of_class(self, latents: NDArray[np.float32], label: NDArray[np.int64] | None) -> Images:
        return self._decode(latents, None if label is None else np.repeat(label, len(latents)))

    def _make(self, seed: int | None, **address: Any) -> tuple[int, Images, NDArray[np.int64] | None]:
        seed = _chosen(seed)
        with requests.refusing():
            latents, labels = self.generator.draw(seed, **address)
        return seed, self._decode(latents, labels), labels

    def _decode(self, latents: NDArray[np.floating], labels: NDArray[np.int64] | None) -> Images:
        try:
            return self._batcher.decode(latents, labels, given_up())
        except CancelledError:
            raise GivenUpError("nobody waits for it") from None

    def _answer(self, body: bytes, media_type: str, headers: dict[str, str] | None = None) -> Any:
        """A response, which BentoML passes on as it is; what the routes say they return is for the OpenAPI page."""
        headers = {"X-Model": self.generator.card.file_sha256, **(headers or {})}
        return Response(body, media_type=media_type, headers=headers)


for middleware, options in (
    (
        CORSMiddleware,
        {
            "allow_origins": SETTINGS.cors_origins,
            "allow_methods": ["GET", "POST"],
            "allow_headers": ["*"],
            "expose_headers": ["X-Seed", "X-Model"],
        },
    ),
    (Admission, {"settings": SETTINGS}),
    (ErrorShape, {}),
):
    MnistGan.add_asgi_middleware(middleware, **options)  # type: ignore[attr-defined]  # it is a bentoml.Service by now
