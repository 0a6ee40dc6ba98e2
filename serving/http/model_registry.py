"""The models of one process, by their names."""

import asyncio
import logging
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from models.common.errors import ModelFileError
from models.onnx_file.card import Card
from models.onnx_file.generator import Generator
from models.onnx_file.session import CUDA
from serving.http.errors import RequestError
from serving.http.loaded_model import LoadedModel
from serving.http.malloc import return_freed_memory
from serving.http.metrics import metrics
from serving.http.model_file import model_file

logger = logging.getLogger("bentoml.mnist-gan")


class ModelRegistry:
    """Opens all models of the service, finds the model of a request, and replaces models while the service runs.

    Args:
        sources: model files or tags of the BentoML store, by the names of the models. The first model is the default.
            None means the newest model of the store, or the pretrained generator if there is none.
        open_file: opens and checks a model file; raises ModelFileError if it cannot be served.
    """

    def __init__(self, sources: Mapping[str, str | None], open_file: Callable[[Path], Generator]):
        self.default = next(iter(sources))
        """Name of the model for requests that name none."""
        self._open_file = open_file
        self._models: dict[str, LoadedModel | None] = dict.fromkeys(sources)
        """The models by name. None: the file could not be opened."""
        self._loading: str | None = None
        """Name of the model whose new file is being opened."""
        for name, source in sources.items():
            try:
                path = model_file(source)
                self._serve(self._open(name, path), path)
            except ModelFileError as error:
                logger.error("not ready: %s", error)

    @property
    def ready(self) -> bool:
        """Whether all models have been opened."""
        return None not in self._models.values()

    @property
    def default_card(self) -> Card | None:
        """The card of the default model, or None if its file could not be opened."""
        model = self._models[self.default]
        return model.card if model else None

    @property
    def gpu(self) -> bool:
        """Whether a GPU runs one of the models."""
        return any(model and model.generator.provider == CUDA for model in self._models.values())

    def get(self, name: str | None = None) -> LoadedModel:
        """Returns the model for a request.

        A request must call this once and use the returned object until its response is complete, because another
        request may replace the model meanwhile.

        Args:
            name: the name in the request; None for the default model.

        Raises:
            RequestError: 400 if no model has this name, 503 if its file could not be opened.
        """
        model = self._models.get(self.default if name is None else name)
        if model is None:
            raise self._missing(name)
        return model

    def describe(self, name: str) -> dict[str, Any]:
        """Describes a model for clients.

        Returns:
            name: the name of the model.
            default: whether requests that name no model are for this one.
            state: "ready"; "loading" while its new file is being opened, during which the present file is served; or
                "failed" if its file could not be opened.
            card_name, file_sha256: name and hash in the card of the file that is served; None if there is none.
        """
        card = model.card if (model := self._models[name]) else None
        return {
            "name": name,
            "default": name == self.default,
            "state": "loading" if name == self._loading else "ready" if card else "failed",
            "card_name": card and card.name,
            "file_sha256": card and card.file_sha256,
        }

    def describe_all(self) -> list[dict[str, Any]]:
        """Describes all models, the default first."""
        return [self.describe(name) for name in self._models]

    async def replace(self, name: str, path: Path) -> None:
        """Opens and checks a model file, and then serves it instead of the present file of a model.

        The present file is served until all checks of the new one have passed. Requests that began with it end with it.
        If the task is cancelled, for example because its client disconnects, the file is still loaded.

        Raises:
            RequestError: 409 if another file is being loaded; 400 if the file fails a check, so that the present file
                stays.
        """
        if self._loading:
            raise RequestError(409, f"A file for the model {self._loading} is being loaded; try again when it is done")
        self._loading = name
        await asyncio.shield(asyncio.create_task(self._load(name, path)))

    async def _load(self, name: str, path: Path) -> None:
        try:
            model = await asyncio.to_thread(self._open, name, path)
        except ModelFileError as error:
            logger.error("the model %s was not replaced: %s", name, error)
            raise RequestError(400, f"The file was not loaded: {error}", "source") from None
        finally:
            self._loading = None
        if previous := self._models[name]:
            metrics().model_info.remove(*_info(previous))
            loop = asyncio.get_running_loop()
            # The memory of the previous model is freed when the last request that uses it ends, in whatever thread.
            return_memory = partial(loop.run_in_executor, None, return_freed_memory)
            weakref.finalize(previous, loop.call_soon_threadsafe, return_memory).atexit = False
        self._serve(model, path)

    def _open(self, name: str, path: Path) -> LoadedModel:
        return LoadedModel(name, self._open_file(path))

    def _missing(self, name: str | None) -> RequestError:
        if name is None or name in self._models:
            return RequestError(503, "The service could not open its model file; its log has the reason")
        return RequestError(400, f"There is no model {name!r}; the models are {', '.join(self._models)}", "model")

    def _serve(self, model: LoadedModel, path: Path) -> None:
        """Makes a model available to requests."""
        self._models[model.name] = model
        metrics().model_info.labels(*_info(model)).set(1)
        logger.info("serving %s from %s as %s with %s", model.card.name, path, model.name, model.generator.provider)


def _info(model: LoadedModel) -> tuple[str, ...]:
    """Returns the labels of a model in the metric `mnist_gan_model_info`."""
    card = model.card
    return model.name, card.name, card.file_sha256, card.dataset.name, card.precision
