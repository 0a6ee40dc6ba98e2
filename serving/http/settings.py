"""Settings of the service: environment variables, read and validated once, when the service is loaded.

To add a setting, add a field to `Settings` and a row to the table in docs/operations.md.
"""

import os
import re
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import click
from pydantic import AnyUrl, BeforeValidator, Field, TypeAdapter, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from models.onnx_file.store import MODEL_NAME
from serving.http import logs
from serving.http.metrics import WORKERS_REPLACED

PREFIX = "MNIST_GAN_"
OTHER_VARIABLES = ("CONTAINER_BASE", "DATA", "IMAGE", WORKERS_REPLACED.removeprefix(PREFIX))
"""Variables of other parts of the project, without the prefix."""
IGNORED_VARIABLES = re.compile(
    r"TEST_\w+"  # set for the tests
    # Service links: Kubernetes sets these in each pod for each service, so also for mnist-gan or mnist-gan-NAME.
    r"|(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
MAX_TOKEN_LENGTH = 8_192
"""Maximum length of the token. Servers and proxies reject longer header fields."""

PROTOCOLS = ("inference", "images", "openai")
"""Names of the protocols that the service speaks in addition to its own; serving/http/protocols has their modules."""
MODEL_NAMES = re.compile(r"[A-Za-z0-9][-._A-Za-z0-9]{0,63}")
"""Names by which requests choose a model."""

_URL: TypeAdapter[AnyUrl] = TypeAdapter(AnyUrl)


class StartupError(click.ClickException):
    """The service cannot start. `bentoml serve` prints the message without a traceback and exits with code 1."""


class SettingError(StartupError):
    """One or more environment variables are invalid. The message has one line for each."""


def _parse_models(text: str) -> dict[str, str]:
    if not {",", "="} & set(text) or Path(text).is_file():
        return {MODEL_NAME: text}
    models: dict[str, str] = {}
    for part in text.split(","):
        name, _, source = (piece.strip() for piece in part.partition("="))
        if not MODEL_NAMES.fullmatch(name) or not source:
            raise ValueError(
                f"is not an existing file, and {part.strip()!r} is not NAME=FILE or NAME=TAG; write for example "
                "digits=a.onnx,letters=b.onnx, with letters, digits, '-', '_' and '.' in the names"
            )
        if name in models:
            raise ValueError(f"has the name {name} twice; each model needs a name of its own")
        models[name] = source
    return models


def _parse_folder(text: str) -> Path:
    if not (folder := Path(text)).is_dir():
        raise ValueError("is not a folder")
    return folder.resolve()


def _parse_token(text: str) -> str:
    token = text.strip()  # a secret that was created from a file ends in a newline
    if not token:
        raise ValueError("is empty; unset the variable to accept requests without a token")
    if not re.fullmatch(r"[!-~]+", token):  # ASCII without spaces and control characters
        raise ValueError("has a space, a control character or a non-ASCII character; clients cannot send such a token")
    if len(token) > MAX_TOKEN_LENGTH:
        raise ValueError(f"has {len(token):,} characters; at most {MAX_TOKEN_LENGTH:,} are allowed")
    return token


def _parse_url(text: str) -> AnyUrl:
    try:
        return _URL.validate_python(text)
    except ValidationError:
        raise ValueError("is not a URL") from None


def _parse_origin(text: str) -> str:
    """Returns an origin as browsers send it: in lower case and punycode, without a default port."""
    if text in ("*", "null"):  # browsers send `null` for pages from local files
        return text
    try:
        url = _parse_url(text)
    except ValueError:
        url = None
    if url is None or not url.host or "*" in url.host:
        raise ValueError(f"contains {text!r}, which is not an origin; write for example https://a.example")
    if url.path not in (None, "/") or url.query is not None or url.fragment is not None or url.username or url.password:
        raise ValueError(f"contains {text!r}; an origin has only a scheme, a host and optionally a port")
    return str(url).rstrip("/")


def _parse_origins(text: str) -> tuple[str, ...]:
    origins = tuple(dict.fromkeys(map(_parse_origin, text.replace(",", " ").split())))
    if "*" in origins and len(origins) > 1:
        raise ValueError("contains * and other origins; * allows all origins, so remove the others")
    return origins


def _parse_public_key(text: str) -> Path:
    if not Path(text).is_file():
        raise ValueError("is not a file; give the path of a PEM file with a public key")
    return Path(text)


def _parse_hashes(text: str) -> tuple[str, ...]:
    hashes = tuple(dict.fromkeys(text.lower().replace(",", " ").split()))
    for value in hashes:
        if not re.fullmatch("[0-9a-f]{64}", value):
            raise ValueError(
                f"contains {value!r:.80}, which is not a hash of 64 hexadecimal digits; `verify-model FILE` prints it"
            )
    return hashes


def _parse_traces_endpoint(text: str) -> str:
    url = _parse_url(text)
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("is not an HTTP URL; write for example http://collector:4318/v1/traces")
    if url.path in (None, "/"):
        raise ValueError("has no path; collectors usually receive traces at /v1/traces")
    return text


def _parse_protocols(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.replace(",", " ").split()))
    if names == ("none",):
        return ()
    if unknown := [name for name in names if name not in PROTOCOLS]:
        known = ", ".join(PROTOCOLS)
        raise ValueError(f"contains {unknown[0]!r}; write a list of {known}, or none")
    return names


Bytes = Annotated[int, Field(ge=1, le=1 << 40)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Threads = Annotated[int, Field(ge=1, le=1_024)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Settings(BaseSettings):
    """Settings of the service. Field `name` is read from the environment variable `MNIST_GAN_NAME`.

    White space around a value is removed. An empty variable counts as unset, except for the token: a secret that is
    empty by mistake must not give everybody access.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", validate_default=False)

    model: Annotated[dict[str, str], NoDecode, BeforeValidator(_parse_models)] | None = None
    """Model files, or tags of the BentoML model store, by the names of the models; written as one file or tag, or as
    `NAME=FILE,NAME=TAG`. The first model is the default. None means the newest model of the store, or the pretrained
    generator if there is none."""
    load_folder: Annotated[Path, BeforeValidator(_parse_folder)] | None = None
    """Folder below which POST /models/NAME/load may load files. None disables that route."""
    api_token: Annotated[str, BeforeValidator(_parse_token)] | None = Field(default=None, repr=False)
    """Token that clients must send as `Authorization: Bearer TOKEN`; None accepts requests without a token."""
    cors_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parse_origins)] = ()
    """Origins of web pages that may call the service, separated by commas; `*` allows all origins."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device that runs the network. `auto` uses a GPU if onnxruntime finds one; with `cuda` and no GPU, the service
    does not become ready."""
    public_key: Annotated[Path, BeforeValidator(_parse_public_key)] | None = None
    """PEM file of the public key that must have signed the model file. The signature is the file next to it whose name
    ends in `.sig`. Without a valid one, the service does not become ready. None checks no signature."""
    model_sha256: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parse_hashes)] = ()
    """Values of the card's `file_sha256`, separated by commas. A model file with another one is not served. It is not
    what `sha256sum` prints."""
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Number of worker processes, each with a copy of the model."""
    threads: Threads | None = None
    """Number of batches that each process decodes in parallel. None means one per CPU that the process may use (the
    minimum of its affinity and its cgroup quota), or 2 with a GPU."""
    max_sheet_images: Count = 1_024
    """Maximum number of images per /generate request, and per /decode request with a JSON body."""
    max_array_images: Count = 10_000
    """Maximum number of images per /dataset request, and per /decode request with an .npy body."""
    max_body_bytes: Bytes = 32 << 20
    """Maximum size of an .npy request body in bytes, after decompression."""
    max_json_bytes: Bytes = 4 << 20
    """Maximum size of a JSON request body in bytes, after decompression. Parsing it blocks the event loop."""
    max_requests: Count = 256
    """Maximum number of requests in progress in each process. Further requests are rejected with status 429."""
    max_waiting_images: Count = 50_000
    """Maximum number of queued images in each process. A request beyond it is rejected with status 429, unless
    the queue is empty."""
    max_connections: Count | None = None
    """Maximum number of connections of each process. None means 4,096, or fewer if `ulimit -n` is low."""
    max_response_bytes: Bytes = 256 << 20
    """Maximum size of a response in bytes of uncompressed pixels."""
    max_total_response_bytes: Bytes = 1 << 30
    """Maximum memory in bytes for all responses of a process that are being computed or sent."""
    head_timeout_seconds: Seconds = 10.0
    """Time that a client has to send a request head."""
    timeout_seconds: Seconds = 60.0
    """Time to receive the body and compute the response; after that, the request is cancelled with status 504. It
    is also the time in which a client must accept each 256 KiB of the response."""
    response_timeout_seconds: Seconds = 300.0
    """Time in which a client must accept a whole response."""

    protocols: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parse_protocols)] = PROTOCOLS
    """Protocols that the service speaks in addition to its own, separated by commas: `inference` (Open
    Inference Protocol), `images` (images by URL) and `openai` (OpenAI Images); `none` turns all off."""
    public_images: bool = False
    """Whether images by URL need no token. An image on a web page cannot send one."""

    access_log: bool = False
    """Whether to log one line per request."""
    log_format: Literal["text", "json"] = "text"
    """Format of the log: `text`, or `json` for one JSON object per line."""
    traces_endpoint: Annotated[str, BeforeValidator(_parse_traces_endpoint)] | None = None
    """URL of an OpenTelemetry collector, such as `http://collector:4318/v1/traces`; None exports no traces."""
    traces_share: Fraction = 1.0
    """Fraction of the requests to trace, from 0 to 1."""

    @model_validator(mode="before")
    @classmethod
    def _normalize(cls, values: dict[str, Any]) -> dict[str, Any]:
        stripped = {name: value.strip() if isinstance(value, str) else value for name, value in values.items()}
        return {name: value for name, value in stripped.items() if value != "" or name == "api_token"}

    @model_validator(mode="after")
    def _check_relations(self) -> Self:
        for part, whole in (("max_json_bytes", "max_body_bytes"), ("max_response_bytes", "max_total_response_bytes")):
            if getattr(self, part) > getattr(self, whole):
                raise ValueError(
                    f"{variable(part)}: {getattr(self, part)} exceeds {variable(whole)} ({getattr(self, whole)}); "
                    f"lower {variable(part)} or raise {variable(whole)}"
                )
        if self.load_folder and not self.api_token:
            raise ValueError(f"{variable('load_folder')} needs {variable('api_token')}; set it to a secret text")
        return self

    @classmethod
    def from_environment(cls) -> Self:
        """Reads the settings from the environment variables of this process.

        Raises:
            SettingError: one or more variables are invalid.
        """
        try:
            return cls()
        except ValidationError as error:
            raise SettingError("\n".join(map(_describe, error.errors()))) from None  # the cause would print the token

    @property
    def models(self) -> dict[str, str | None]:
        """Files or tags of all models by name, the default first. None means the file that is served by default."""
        return {**self.model} if self.model else {MODEL_NAME: None}

    @classmethod
    def variables(cls) -> dict[str, FieldInfo]:
        """Returns the fields by the names of their environment variables."""
        return {variable(name): field for name, field in cls.model_fields.items()}

    def warnings(self) -> Iterator[str]:
        """Yields one message for each variable with the prefix MNIST_GAN_ that is unknown or has no effect."""
        known = [*self.variables(), *(PREFIX + name for name in OTHER_VARIABLES)]
        for name in sorted(os.environ):
            if not name.startswith(PREFIX) or name in known or IGNORED_VARIABLES.fullmatch(name.removeprefix(PREFIX)):
                continue
            similar = get_close_matches(name, known, n=1)
            yield f"{name} is not a setting and has no effect" + (f"; did you mean {similar[0]}?" if similar else "")
        if self.public_images and "images" not in self.protocols:
            yield f"{variable('public_images')} has no effect without images in {variable('protocols')}"
        if "traces_share" in self.model_fields_set and not self.traces_endpoint:
            yield f"{variable('traces_share')} has no effect without {variable('traces_endpoint')}"
        if self.load_folder and self.workers > 1:
            yield f"{variable('load_folder')} has no effect with several workers, which share no model"


def variable(name: str) -> str:
    """Returns the name of the environment variable of a setting."""
    return PREFIX + name.upper()


def _describe(error: Any) -> str:
    """Describes an error of pydantic in one line: variable, value (unless it is the token), reason and default."""
    message = str(error["ctx"]["error"]) if error["type"] == "value_error" else error["msg"].removeprefix("Input ")
    if not error["loc"]:  # from `_check_relations`, whose messages name the variables
        return message
    name = error["loc"][0]
    value = "the value" if name == "api_token" else repr(error["input"])
    default = Settings.model_fields[name].default
    default = ",".join(default) if isinstance(default, tuple) else default
    return f"{variable(name)}: {value} {message} (default: {'unset' if default in (None, '') else default})"


def _load() -> Settings:
    try:
        return Settings.from_environment()
    except SettingError:
        logs.configure(json_lines=os.environ.get(variable("log_format"), "").strip() == "json")
        raise


SETTINGS = _load()
