"""The BentoML service: one class whose methods are the routes of the HTTP API.

    MNIST_GAN_MODEL=generator.onnx bentoml serve

Without MNIST_GAN_MODEL, the service uses the newest mnist-gan of the BentoML model store. If the store has none, it
uses the generator that is included in this repository. An image depends only on the model, the seed, the index, the
label and the truncation, not on other requests.

Each method receives the checked fields of its request (`request_fields`), builds the latents and chooses an encoding
(`encodings`). The `Renderer` makes the response from the two. docs/architecture.md shows the whole path of a request.
"""

import gc
import secrets
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any, Literal

import bentoml
import numpy as np
from bentoml.models import BentoModel
from bentoml.validators import ContentType
from numpy.typing import NDArray

from models.onnx_file.latent_sources import LatentBatch
from models.onnx_file.latents import INDEX_LIMIT
from models.onnx_file.latents import interpolate as interpolate_latents
from models.onnx_file.store import MODEL_NAME
from serving.http import bentoml_internals, logs, pages, protocols, request_fields, startup, tracing
from serving.http.application import BENTOML_PATHS, Application
from serving.http.connections import limit_connections, replace_uvicorn_protocol
from serving.http.container import image
from serving.http.cors import EXPOSED_HEADERS, Cors
from serving.http.encodings import NPZ, PNG, Animation, CrossFade, Encoding, Npy, Npz, PngGrid
from serving.http.engine import LatentSource
from serving.http.loaded_model import LoadedModel
from serving.http.malloc import keep_freed_memory
from serving.http.model_file import newest_in_store, open_model
from serving.http.model_loading import LoadMethod
from serving.http.model_registry import ModelRegistry
from serving.http.pages import PAGES
from serving.http.protocols.routing import template_of
from serving.http.rendering import Renderer
from serving.http.settings import SETTINGS

startup.prepare()


@bentoml.service(
    name=MODEL_NAME,
    image=image(),
    workers=SETTINGS.workers,
    logging={"access": {"enabled": False}},  # serving.http.logs has one that can write JSON
    tracing=tracing.options(SETTINGS),
)
class MnistGan:
    """Generates images. A seed and an index identify each of them."""

    stored = BentoModel(f"{MODEL_NAME}:latest") if newest_in_store() else None
    """Model that `bentoml build` packs into the Bento. None if the store is empty; the Bento then serves the generator
    that is included in this repository."""

    def __init__(self) -> None:
        limit_connections(SETTINGS)
        keep_freed_memory()
        self.models = ModelRegistry(
            SETTINGS.models,
            partial(
                open_model,
                device=SETTINGS.device,
                public_key=SETTINGS.public_key,
                allowed_hashes=SETTINGS.model_sha256,
            ),
        )
        self._renderer = Renderer(SETTINGS, self.models.gpu)
        gc.freeze()  # a full collection that examines all loaded modules blocks the process for 30 ms

    @bentoml.on_shutdown
    async def send_traces(self) -> None:
        """Exports the traces that have not been sent yet."""
        await tracing.export_rest(SETTINGS)

    def __is_ready__(self) -> bool:
        return self.models.ready

    @property
    def renderer(self) -> Renderer:
        """Makes the responses with images."""
        return self._renderer

    @bentoml.api(input_spec=request_fields.Generate)
    async def generate(
        self, model: str | None, columns: int | None, scale: int, **latent_fields: Any
    ) -> Annotated[bytes, ContentType(PNG)]:
        """Generates images and returns them as one PNG grid."""
        loaded = self.models.get(model)
        return await self._respond_seeded("/generate", loaded, PngGrid(columns, scale), **latent_fields)

    @bentoml.api(input_spec=request_fields.GenerateDataset)
    async def dataset(self, model: str | None, **latent_fields: Any) -> Annotated[bytes, ContentType(NPZ)]:
        """Generates images, and labels if the generator is class-conditional, as a NumPy .npz file."""
        response = await self._respond_seeded("/dataset", self.models.get(model), Npz(), **latent_fields)
        name = f"{MODEL_NAME}-{response.headers['X-Seed']}.npz"
        response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
        return response

    @bentoml.api(input_spec=request_fields.Write)
    async def write(
        self, model: str | None, text: str, scale: int, **latent_fields: Any
    ) -> Annotated[bytes, ContentType(PNG)]:
        """Generates one image for each character of a text and returns them as one PNG row."""
        loaded = self.models.get(model)
        with request_fields.input_errors_as_400(labels="text"):
            labels = loaded.card.class_indices_by_character(text)
        row = PngGrid(len(text), scale)
        return await self._respond_seeded("/write", loaded, row, first=0, n=len(text), labels=labels, **latent_fields)

    @bentoml.api(input_spec=request_fields.Interpolate)
    async def interpolate(
        self,
        model: str | None,
        start: request_fields.ImageReference,
        end: request_fields.ImageReference,
        frames: int,
        format: Literal["png", "gif", "webp"],
        truncation: float,
        scale: int,
    ) -> Annotated[bytes, ContentType(PNG)]:
        """Interpolates between two images. Returns a PNG row, or an animation that plays forward and backward."""
        loaded = self.models.get(model)
        ends = []
        for field, reference in (("from", start), ("to", end)):
            labels_field = f"{field}.labels" if reference.label is None else f"{field}.label"
            with request_fields.input_errors_as_400(labels=labels_field, first=f"{field}.index"):
                ends.append(
                    loaded.generator.draw(reference.seed, reference.index, 1, reference.given_labels(), truncation)
                )
        (start_latent, start_label), (end_latent, end_label) = ends
        latents = interpolate_latents(start_latent[0], end_latent[0], frames)
        encoding = PngGrid(frames, scale) if format == "png" else Animation(format, scale)
        if start_label is None or end_label is None or start_label == end_label:
            source = LatentBatch(latents, None if start_label is None else np.repeat(start_label, frames))
            return await self._respond("/interpolate", loaded, source, encoding)
        # A label cannot be interpolated. Each frame is decoded in both classes, and the images are cross-faded.
        labels = np.repeat(np.concatenate((start_label, end_label)), frames)
        source = LatentBatch(np.tile(latents, (2, 1)), labels)
        return await self._respond("/interpolate", loaded, source, CrossFade(encoding))

    @bentoml.api(input_spec=request_fields.Decode)
    async def decode(
        self,
        model: str | None,
        latents: list[list[float]] | NDArray[np.floating],
        labels: str | list[str | int] | None,
        columns: int | None,
        scale: int,
    ) -> Annotated[bytes, ContentType(PNG)]:
        """Decodes latents that the client sends: a JSON list into a PNG grid, an .npy array into an .npy array."""
        loaded = self.models.get(model)
        encoding = Npy() if isinstance(latents, np.ndarray) else PngGrid(columns, scale)
        with request_fields.input_errors_as_400():
            array = request_fields.latents_array(latents)
            cycled = None if labels is None else loaded.generator.cycle(labels, 0, len(array))
            source = LatentBatch(*loaded.generator.check(array, cycled))
        return await self._respond("/decode", loaded, source, encoding)

    @bentoml.api(input_spec=request_fields.ModelFields)
    async def card(self, model: str | None) -> Any:
        """Returns the card of the model: what it is, how it was trained and how it was checked."""
        return pages.card(model)

    async def _respond_seeded(
        self, route: str, model: LoadedModel, encoding: Encoding, seed: int | None, **latent_fields: Any
    ) -> Any:
        """Responds with images of a seed, which X-Seed reports. Chooses a random seed if the request has none."""
        seed = secrets.randbelow(INDEX_LIMIT) if seed is None else seed
        with request_fields.input_errors_as_400():
            source = model.generator.seeded_latents(seed, **latent_fields)
        return await self._respond(route, model, source, encoding, {"X-Seed": str(seed)})

    async def _respond(
        self,
        route: str,
        model: LoadedModel,
        source: LatentSource,
        encoding: Encoding,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> Any:
        """Returns a Starlette response. The routes declare `bytes`, because BentoML's client reads their signatures."""
        return await self._renderer.respond(route, model, source, encoding, headers)


CORS = {
    "allow_origins": SETTINGS.cors_origins,
    "allow_methods": ["GET", "POST"],
    "allow_headers": ["*"],
    "expose_headers": EXPOSED_HEADERS,
}
PROTOCOLS = protocols.enabled(SETTINGS)
# mypy takes MnistGan for the class. The decorator has replaced it by a bentoml.Service, which has `apis`.
METHODS = (*MnistGan.apis.values(), *map(LoadMethod, SETTINGS.models))  # type: ignore[attr-defined]
MIDDLEWARE: tuple[tuple[Any, dict[str, Any]], ...] = (
    *(((logs.RequestLog, {}),) if SETTINGS.access_log else ()),
    *(((Cors, CORS),) if SETTINGS.cors_origins else ()),
    (Application, {"settings": SETTINGS, "methods": METHODS, "pages": PAGES, "protocols": PROTOCOLS}),
)
"""ASGI middleware and its options, outermost first."""
for middleware, options in MIDDLEWARE:
    MnistGan.add_asgi_middleware(middleware, **options)  # type: ignore[attr-defined]

replace_uvicorn_protocol()
bentoml_internals.drop_timeout()
bentoml_internals.count_only(
    {*BENTOML_PATHS, *PAGES, *(method.route for method in METHODS)}, partial(template_of, PROTOCOLS)
)
