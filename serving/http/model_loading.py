"""POST /models/NAME/load: replaces the file of a model while the service runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field
from starlette.responses import JSONResponse

from models.common.errors import ModelFileError
from serving.http.errors import RequestError
from serving.http.model_file import TAG, model_file
from serving.http.request_fields import RequestFields
from serving.http.settings import SETTINGS, variable

MAX_SOURCE = 4_096
"""Maximum length of a path or a tag in a request."""


class LoadFields(RequestFields):
    """The file to load."""

    source: str = Field(
        min_length=1,
        max_length=MAX_SOURCE,
        description="Path of a model file below the folder of MNIST_GAN_LOAD_FOLDER, or a tag of the BentoML model "
        "store with its version.",
        examples=["letters.onnx", "mnist-gan:latest"],
    )


@dataclass(frozen=True)
class LoadMethod:
    """Handles POST /models/NAME/load. It has the attributes of BentoML's `APIMethod` that `Application` uses."""

    name: str
    """Name of the model to replace."""
    input_spec: ClassVar[type[RequestFields]] = LoadFields

    @property
    def route(self) -> str:
        """The path of the request."""
        return f"/models/{self.name}/load"

    async def func(self, service: Any, source: str) -> JSONResponse:
        """Opens and checks the file, serves it from then on, and returns the description of the model.

        Raises:
            RequestError: 403 if loading is not enabled; 409 if the service has several workers, or another file is
                being loaded; 400 if the file is not allowed or fails a check.
        """
        if SETTINGS.load_folder is None:
            raise RequestError(403, f"Loading models is disabled; {variable('load_folder')} of the service enables it")
        if SETTINGS.workers > 1:
            raise RequestError(
                409,
                f"Each of the {SETTINGS.workers} workers has its own copy of the model, and only one of them would "
                f"load the file; restart the service with another {variable('model')} instead",
            )
        await service.models.replace(self.name, allowed_file(source, SETTINGS.load_folder))
        return JSONResponse(service.models.describe(self.name))


def allowed_file(source: str, folder: Path) -> Path:
    """Returns the path of a file that a request may load.

    Args:
        source: path of a file, absolute or relative to the folder; or a tag of the BentoML model store if the folder
            has no such file.
        folder: absolute path of the allowed folder, without symbolic links.

    Raises:
        RequestError: 400 if there is no such file and no such tag, or the file is outside the folder. Symbolic links
            are followed first. The message does not reveal which files exist outside the folder.
    """
    try:
        path = (folder / source).resolve()
        if path.is_relative_to(folder) and path.is_file():
            return path
        if TAG.fullmatch(source):
            return model_file(source)
    except (OSError, ValueError, ModelFileError):  # ValueError: null characters
        pass
    raise RequestError(
        400,
        f"{source[:100]!r} is neither a file below the folder of {variable('load_folder')} nor a model of the BentoML "
        "model store",
        "source",
    )
