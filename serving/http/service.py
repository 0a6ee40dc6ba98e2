"""The BentoML service: its routes, from one model file and onnxruntime.

    MNIST_GAN_MODEL=generator.onnx bentoml serve

Without MNIST_GAN_MODEL it serves the newest mnist-gan of the BentoML model store, or the generator that ships with
this repository if the store has none. The same model, seed, index and labels give the same image, whatever else is
requested.
"""

import gc
import logging
import secrets
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

import bentoml
import numpy as np
from bentoml.models import BentoModel
from bentoml.validators import ContentType
from numpy.typing import NDArray

from models.common.errors import ModelFileError
from models.onnx_file.generator import Generator
from models.onnx_file.latent_sources import LatentBatch
from models.onnx_file.latents import INDEX_LIMIT, interpolate
from models.onnx_file.store import MODEL_NAME
from serving.http import bentoml_internals, logs, pages, request_fields, startup, tracing
from serving.http.application import BENTOML_PATHS, Application
from serving.http.connections import limit_connections, replace_uvicorn_protocol
from serving.http.container import image
from serving.http.cors import EXPOSED_HEADERS, Cors
from serving.http.encodings import NPZ, PNG, Animation, Encoding, Fade, Npy, Npz, PngGrid
from serving.http.engine import LatentSource
from serving.http.errors import RequestError
from serving.http.malloc import keep_freed_memory
from serving.http.metrics import metrics
from serving.http.model_file import model_file, newest_in_store, open_model
from serving.http.pages import PAGES
from serving.http.rendering import Renderer
from serving.http.settings import SETTINGS

startup.prepare()
logger = logging.getLogger("bentoml.mnist-gan")


@bentoml.service(
    name=MODEL_NAME,
    image=image(),
    workers=SETTINGS.workers,
    logging={"access": {"enabled": False}},  # serving.http.logs has one that can write JSON
    tracing=tracing.options(SETTINGS),
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
            self._renderer = Renderer(self._generator, SETTINGS)
            card = self._generator.card
            metrics().model_info.labels(card.name, card.file_sha256, card.dataset.name, card.precision).set(1)
            logger.info("serving %s from %s with %s", card.name, path, self._generator.provider)
            gc.freeze()  # otherwise each full collection would examine all loaded modules, which takes 30 ms
        except ModelFileError as error:
            logger.error("not ready: %s", error)

    @bentoml.on_shutdown
    async def send_traces(self) -> None:
        """Exports the traces that are still held."""
        await tracing.export_rest(SETTINGS)

    def __is_ready__(self) -> bool:
        return self._generator is not None

    @property
    def generator(self) -> Generator:
        """The model.

        Raises:
            RequestError: 503, no model could be opened.
        """
        if self._generator is None:
            raise RequestError(503, "No model is being served; the log of the service has the reason")
        return self._generator

    @bentoml.api(input_spec=request_fields.Generate)
    async def generate(self, columns: int | None, scale: int, **seeded: Any) -> Annotated[bytes, ContentType(PNG)]:
        """Makes images and arranges them in a grid."""
        return await self._respond_seeded("/generate", PngGrid(columns, scale), **seeded)

    @bentoml.api(input_spec=request_fields.Dataset)
    async def dataset(self, **seeded: Any) -> Annotated[bytes, ContentType(NPZ)]:
        """Makes images, and their labels if the generator is class-conditional, as a NumPy .npz file."""
        response = await self._respond_seeded("/dataset", Npz(), **seeded)
        name = f"{MODEL_NAME}-{response.headers['X-Seed']}.npz"
        response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
        return response

    @bentoml.api(input_spec=request_fields.Write)
    async def write(self, text: str, scale: int, **seeded: Any) -> Annotated[bytes, ContentType(PNG)]:
        """Writes a text in generated handwriting, as one row of images."""
        with request_fields.input_errors_as_400(labels="text"):
            labels = self.generator.card.class_indices_by_character(text)
        grid = PngGrid(len(text), scale)
        return await self._respond_seeded("/write", grid, first=0, n=len(text), labels=labels, **seeded)

    @bentoml.api(input_spec=request_fields.Interpolate)
    async def interpolate(
        self,
        start: request_fields.ImageReference,
        end: request_fields.ImageReference,
        frames: int,
        format: Literal["png", "gif", "webp"],
        truncation: float,
        scale: int,
    ) -> Annotated[bytes, ContentType(PNG)]:
        """Goes from one image to another, as a row of images or as an animation forward and back."""
        ends = []
        for name, at in (("from", start), ("to", end)):
            labels = f"{name}.labels" if at.label is None else f"{name}.label"
            with request_fields.input_errors_as_400(labels=labels, first=f"{name}.index"):
                ends.append(self.generator.draw(at.seed, at.index, 1, at.given_labels(), truncation))
        (first, label), (last, last_label) = ends
        latents = interpolate(first[0], last[0], frames)
        encoding = PngGrid(frames, scale) if format == "png" else Animation(format, scale)
        if label is None or last_label is None or label == last_label:
            source = LatentBatch(latents, None if label is None else np.repeat(label, frames))
            return await self._respond("/interpolate", source, encoding)
        # Every frame is decoded in both classes, to fade from one class to the other.
        source = LatentBatch(np.tile(latents, (2, 1)), np.repeat(np.concatenate((label, last_label)), frames))
        return await self._respond("/interpolate", source, Fade(encoding))

    @bentoml.api(input_spec=request_fields.Decode)
    async def decode(
        self,
        latents: list[list[float]] | NDArray[np.floating],
        labels: str | list[str | int] | None,
        columns: int | None,
        scale: int,
    ) -> Annotated[bytes, ContentType(PNG)]:
        """Decodes latents of the client into a grid, or an .npy body of latents into an .npy file of images."""
        encoding = Npy() if isinstance(latents, np.ndarray) else PngGrid(columns, scale)
        with request_fields.input_errors_as_400():
            array = request_fields.array(latents)
            cycled = None if labels is None else self.generator.cycle(labels, 0, len(array))
            source = LatentBatch(*self.generator.check(array, cycled))
        return await self._respond("/decode", source, encoding)

    @bentoml.api(input_spec=request_fields.NoFields)
    async def card(self) -> Any:
        """Describes the model."""
        return pages.card()

    async def _respond_seeded(self, route: str, encoding: Encoding, seed: int | None, **seeded: Any) -> Any:
        """Responds with images by seed and index. Chooses a seed if the request has none."""
        seed = secrets.randbelow(INDEX_LIMIT) if seed is None else seed
        with request_fields.input_errors_as_400():
            source = self.generator.seeded_latents(seed, **seeded)
        return await self._respond(route, source, encoding, {"X-Seed": str(seed)})

    async def _respond(
        self, route: str, source: LatentSource, encoding: Encoding, headers: Mapping[str, str] = MappingProxyType({})
    ) -> Any:
        """Returns a Starlette response. The routes declare its body, for the schema that BentoML's client reads."""
        return await self._renderer.respond(route, source, encoding, headers)


CORS = {
    "allow_origins": SETTINGS.cors_origins,
    "allow_methods": ["GET", "POST"],
    "allow_headers": ["*"],
    "expose_headers": EXPOSED_HEADERS,
}
# MnistGan is a bentoml.Service by now, whatever its decorator promises.
MIDDLEWARE: tuple[tuple[Any, dict[str, Any]], ...] = (
    *(((logs.RequestLog, {}),) if SETTINGS.access_log else ()),
    *(((Cors, CORS),) if SETTINGS.cors_origins else ()),
    (Application, {"settings": SETTINGS, "methods": MnistGan.apis.values(), "pages": PAGES}),  # type: ignore[attr-defined]
)
"""ASGI middleware, the outermost first."""
for middleware, options in MIDDLEWARE:
    MnistGan.add_asgi_middleware(middleware, **options)  # type: ignore[attr-defined]

replace_uvicorn_protocol()
bentoml_internals.drop_timeout()
bentoml_internals.count_only({*BENTOML_PATHS, *PAGES, *(method.route for method in MnistGan.apis.values())})  # type: ignore[attr-defined]
