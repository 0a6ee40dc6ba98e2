"""Open Inference Protocol over HTTP, which KServe, Triton and other model servers and their clients speak.

    GET  /v2, /v2/health/live, /v2/health/ready
    GET  /v2/models/{model}[/versions/1], and the same with /ready and /config
    POST /v2/models/{model}[/versions/1]/infer
    POST /v2/repository/index

`tensors` has the format of the messages.
"""

import secrets
from collections.abc import Mapping
from functools import partial
from typing import Any

import bentoml
import numpy as np
from pydantic import TypeAdapter
from starlette.responses import JSONResponse, Response

from models.common.version import version as project_version
from models.onnx_file.card import Card
from models.onnx_file.generator import Generator
from models.onnx_file.latent_sources import LatentBatch
from models.onnx_file.latents import INDEX_LIMIT
from models.onnx_file.store import MODEL_NAME
from serving.http.engine import LatentSource
from serving.http.errors import RequestError
from serving.http.loaded_model import LoadedModel
from serving.http.protocols.routing import Call, Handler, Protocol, Route, find_model
from serving.http.protocols.tensors import (
    INPUTS,
    LENGTH_HEADER,
    OCTET_STREAM,
    OUTPUT,
    OUTPUT_TYPE,
    InferRequest,
    Message,
    RequestParameters,
    Tensors,
    read_message,
)
from serving.http.request_body import BodyLimits
from serving.http.request_fields import input_errors_as_400
from serving.http.settings import Settings

VERSION = "1"
"""The only version of each model. `parameters.file_sha256` in the metadata identifies the model file."""
PLATFORM = "onnxruntime_onnx"
MODEL_PATHS = ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
ERROR = "InferenceError"
"""Name of the JSON schema of errors."""
REFERENCE = "#/components/schemas/{model}"


def protocol(settings: Settings) -> Protocol:
    """Returns the routes. Health routes need no token."""
    default = next(iter(settings.models))

    def light(template: str, handler: Handler, summary: str, statuses: tuple[int, ...], free: bool = False) -> Route:
        """Returns a route that does not use the engine."""
        return Route(
            template,
            handler,
            partial(_describe_light, template, default, summary),
            http_method="POST" if handler is repository_index else "GET",
            needs_token=not free,
            uses_engine=False,
            error_statuses=statuses,
        )

    routes = [
        Route(
            f"{path}/infer",
            partial(infer, f"{path}/infer", settings),
            partial(_describe_infer, f"{path}/infer", default),
            http_method="POST",
            body_limits=partial(_body_limits, settings),
            error_statuses=(400, 404, 413, 415, 429, 500, 503, 504),
        )
        for path in MODEL_PATHS
    ]
    for path in MODEL_PATHS:
        statuses = (404, 500, 503)
        routes += [
            light(f"{path}/ready", model_ready, "Check whether a model is ready", statuses, free=True),
            light(path, model_metadata, "Get the inputs and outputs of a model", statuses),
            light(f"{path}/config", model_config, "Get the configuration of a model, as Triton describes it", statuses),
        ]
    routes += [
        light("/v2/health/live", live, "Check liveness", (500,), free=True),
        light("/v2/health/ready", ready, "Check readiness", (500, 503), free=True),
        light("/v2", server_metadata, "Get the name and version of the service", (500,)),
        light("/v2/repository/index", repository_index, "List the models", (500,)),
    ]
    return Protocol(
        "Open Inference Protocol",
        "The protocol of KServe and Triton over HTTP.",
        ("/v2",),
        routes,
        error_content=lambda error: {"error": f"{error.field}: {error.message}" if error.field else error.message},
        error_schema=ERROR,
        schemas=_schemas(),
    )


async def live(call: Call) -> Response:
    """Responds that the process is running."""
    return JSONResponse({"live": True})


async def ready(call: Call) -> Response:
    """Responds whether all models have been opened, with the status 503 if not."""
    if not bentoml.get_current_service().__is_ready__():
        raise RequestError(503, "The service could not open its model file; its log has the reason")
    return JSONResponse({"ready": True})


async def server_metadata(call: Call) -> Response:
    """Responds with the name and version of the service, and the extensions of the protocol that it has."""
    extensions = ["binary_tensor_data", "model_configuration", "model_repository"]
    return JSONResponse({"name": MODEL_NAME, "version": project_version(), "extensions": extensions})


async def repository_index(call: Call) -> Response:
    """Responds with the names and states of all models."""
    return JSONResponse(
        [
            {
                "name": model["name"],
                "version": VERSION,
                "state": "READY" if model["file_sha256"] else "UNAVAILABLE",
                "reason": "" if model["file_sha256"] else "The service could not open the model file",
            }
            for model in bentoml.get_current_service().models.describe_all()
        ]
    )


async def model_ready(call: Call) -> Response:
    """Responds whether a model can be used; errors report why not."""
    model = _model(call)
    return JSONResponse({"name": model.name, "ready": True})


async def model_metadata(call: Call) -> Response:
    """Responds with the inputs and outputs of a model."""
    model = _model(call)
    shapes = _shapes(model.card)
    return JSONResponse(
        {
            "name": model.name,
            "versions": [VERSION],
            "platform": PLATFORM,
            "inputs": [
                {"name": name, "datatype": INPUTS[name][0], "shape": shape}
                for name, shape in shapes.items()
                if name in INPUTS
            ],
            "outputs": [{"name": OUTPUT, "datatype": OUTPUT_TYPE, "shape": shapes[OUTPUT]}],
            "parameters": {"file_sha256": model.card.file_sha256},
        }
    )


async def model_config(call: Call) -> Response:
    """Responds with the configuration of a model in the form of Triton."""
    model = _model(call)
    shapes = _shapes(model.card)
    return JSONResponse(
        {
            "name": model.name,
            "platform": PLATFORM,
            "backend": "onnxruntime",
            "max_batch_size": 0,  # the shapes contain the batch
            "input": [
                {"name": name, "data_type": f"TYPE_{INPUTS[name][0]}", "dims": shape}
                for name, shape in shapes.items()
                if name in INPUTS
            ],
            "output": [{"name": OUTPUT, "data_type": f"TYPE_{OUTPUT_TYPE}", "dims": shapes[OUTPUT]}],
            "parameters": {"file_sha256": {"string_value": model.card.file_sha256}},
        }
    )


async def infer(template: str, settings: Settings, call: Call) -> Response:
    """Decodes the latents of a request, or those of a seed, and responds with the images.

    Args:
        template: template of the path, for the metrics.
        settings: limits.
        call: the request.

    Raises:
        RequestError: 400 if the request is invalid, 404 if there is no such model.
    """
    model = _model(call)
    _, renderer = find_model(model.name)
    message = read_message(call.body, call.headers, settings.max_json_bytes)
    source, seed = _source(model.generator, message)
    binary = message.wants_binary
    limit = settings.max_array_images if binary and not message.has_json_data else settings.max_sheet_images
    if len(source) > limit:
        hint = "" if limit == settings.max_array_images else "; send and request raw bytes for more"
        raise RequestError(400, f"The request is for {len(source):,} images; at most {limit:,} are allowed{hint}")
    head: dict[str, Any] = {"model_name": model.name, "model_version": VERSION}
    if message.request.id is not None:
        head["id"] = message.request.id
    headers = {}
    if seed is not None:
        head["parameters"] = {"seed": seed}
        headers["X-Seed"] = str(seed)
    accepted = call.headers.get(b"accept-encoding", b"").strip().lower()
    # Clients that list several encodings do so for all requests. Compression takes longer than a fast network.
    compression = {b"gzip": "gzip", b"deflate": "deflate"}.get(accepted)
    tensors = Tensors(head, (len(source), *model.card.image_shape), binary, compression)  # type: ignore[arg-type]
    return await renderer.respond(template, model, source, tensors, headers | tensors.headers())


def _source(generator: Generator, message: Message) -> tuple[LatentSource, int | None]:
    """Returns the latents and labels of a request, and the seed if they are drawn from one."""
    latents, labels = message.tensors.get("latent"), message.tensors.get("label")
    parameters = message.request.parameters or RequestParameters()
    drawing = {name: getattr(parameters, name) for name in ("seed", "n", "first", "truncation")}
    given = [name for name, value in drawing.items() if value is not None]
    if labels is not None and labels.ndim != 1:
        raise RequestError(400, f"The input label must have the shape [n], got {list(labels.shape)}")
    if latents is not None:
        if given:
            raise RequestError(400, f"Send either the input latent or the parameter {given[0]}")
        with input_errors_as_400(latents="latent", labels="label"):
            return LatentBatch(*generator.check(latents, labels)), None
    if not {"seed", "n"} & set(given):
        raise RequestError(400, "The input latent is missing; send it, or the parameter seed or n to draw latents")
    first = drawing["first"] or 0
    n = drawing["n"] or (1 if labels is None else max(1, len(labels)))
    classes = None
    if labels is not None:
        if len(labels) != n:
            raise RequestError(400, f"The input label has {len(labels):,} values for n = {n:,} images")
        classes = np.roll(labels, first % n).tolist()  # the generator takes label i % n for the image with index i
    seed = secrets.randbelow(INDEX_LIMIT) if drawing["seed"] is None else drawing["seed"]
    with input_errors_as_400(labels="label"):
        return generator.seeded_latents(seed, first, n, classes, drawing["truncation"] or 1.0), seed


def _model(call: Call) -> LoadedModel:
    """Returns the model that the path names."""
    model, _ = find_model(call.values["model"])
    if (version := call.values.get("version", VERSION)) != VERSION:
        raise RequestError(404, f"The model {model.name} has no version {version!r:.80}; its only version is {VERSION}")
    return model


def _shapes(card: Card) -> dict[str, list[int]]:
    """Returns the shapes of the inputs and of the output by name; -1 stands for the number of images."""
    labels = {"label": [-1]} if card.conditional else {}
    return {"latent": [-1, card.latent_dim], **labels, OUTPUT: [-1, *card.image_shape]}


def _body_limits(settings: Settings, headers: Mapping[bytes, bytes]) -> BodyLimits:
    """Returns the limits of a body: raw bytes may be as long as an .npy body."""
    limit = settings.max_body_bytes if LENGTH_HEADER in headers else settings.max_json_bytes
    rule = (
        f"JSON may have at most {settings.max_json_bytes:,} bytes, and JSON with raw bytes at most "
        f"{settings.max_body_bytes:,}; send large inputs as raw bytes"
    )
    return BodyLimits(limit, limit, rule)


def _schemas() -> dict[str, Any]:
    """Returns the JSON schemas of a request and of an error."""
    request = TypeAdapter(InferRequest).json_schema(ref_template=REFERENCE)
    error = {
        "type": "object",
        "properties": {"error": {"type": "string"}},
        "required": ["error"],
        "additionalProperties": False,
    }
    return {**request.pop("$defs"), "InferRequest": request, ERROR: error}


def _describe_light(template: str, default: str, summary: str, card: Card | None) -> dict[str, Any]:
    """Describes a route that returns JSON."""
    content: dict[str, Any] = {"application/json": {"schema": {}}}
    return {
        "summary": summary,
        "parameters": _path_parameters(template, default),
        "responses": {"200": {"description": "Success", "content": content}},
    }


def _describe_infer(template: str, default: str, card: Card | None) -> dict[str, Any]:
    """Describes the route that generates images."""
    example: dict[str, Any] = {"parameters": {"seed": 7, "n": 2}}
    binary = {"type": "string", "format": "binary"}
    return {
        "summary": "Generate images",
        "description": (
            "Decodes the input `latent`, FP32 [n, latent size], with the input `label`, INT64 [n], if the model is "
            "class-conditional; or draws the latents by the parameters `seed`, `first`, `n` and `truncation`. The "
            "output is `image`, UINT8 [n, channels, height, width]."
        ),
        "parameters": _path_parameters(template, default),
        "requestBody": {
            "content": {
                "application/json": {"schema": {"$ref": REFERENCE.format(model="InferRequest")}, "example": example},
                OCTET_STREAM: {"schema": binary},
            },
            "required": True,
        },
        "responses": {
            "200": {
                "description": "Success",
                "headers": {
                    "X-Model": {"description": "`file_sha256` of the model.", "schema": {"type": "string"}},
                    "X-Seed": {"description": "Seed, if latents were drawn.", "schema": {"type": "integer"}},
                },
                "content": {"application/json": {"schema": {}}, OCTET_STREAM: {"schema": binary}},
            }
        },
    }


def _path_parameters(template: str, default: str) -> list[dict[str, Any]]:
    examples = {"model": (default, "Name of the model."), "version": (VERSION, f"Version; only {VERSION} exists.")}
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": description,
            "schema": {"type": "string"},
            "example": example,
        }
        for name, (example, description) in examples.items()
        if f"{{{name}}}" in template
    ]
