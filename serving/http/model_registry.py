"""The models of one process, by their names."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.common.errors import ModelFileError
from models.onnx_file.card import Card
from models.onnx_file.generator import Generator
from models.onnx_file.session import CUDA
from serving.http.errors import RequestError
from serving.http.loaded_model import LoadedModel
from serving.http.metrics import metrics
from serving.http.model_file import model_file, open_model

logger = logging.getLogger("bentoml.mnist-gan")


class ModelRegistry:
    """Opens all models of the service and finds the model of a request.

    Args:
        sources: model files or tags of the BentoML store, by the names of the models. The first model is the default.
            None means the newest model of the store, or the pretrained generator if there is none.
        device: see `open_model`.
    """

    def __init__(self, sources: Mapping[str, str | None], device: str):
        self.default = next(iter(sources))
        """Name of the model for requests that name none."""
        self._device = device
        self._models: dict[str, LoadedModel | None] = dict.fromkeys(sources)
        """The models by name. None: the file could not be opened."""
        for name, source in sources.items():
            try:
                path = model_file(source)
                self._serve(name, path, open_model(path, device))
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

    def describe(self) -> list[dict[str, Any]]:
        """Returns name, state and hash of each model, for GET /models."""
        return [
            {
                "name": name,
                "default": name == self.default,
                "state": "ready" if model else "failed",
                "card_name": model and model.card.name,
                "file_sha256": model and model.card.file_sha256,
            }
            for name, model in self._models.items()
        ]

    def _missing(self, name: str | None) -> RequestError:
        if name is None or name in self._models:
            return RequestError(503, "The service could not open its model file; its log has the reason")
        return RequestError(400, f"There is no model {name!r}; the models are {', '.join(self._models)}", "model")

    def _serve(self, name: str, path: Path, generator: Generator) -> None:
        """Makes a model available to requests."""
        self._models[name] = LoadedModel(name, generator)
        card = generator.card
        metrics().model_info.labels(name, card.name, card.file_sha256, card.dataset.name, card.precision).set(1)
        logger.info("serving %s as %s from %s with %s", card.name, name, path, generator.provider)
