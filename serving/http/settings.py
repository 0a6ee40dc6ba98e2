"""Settings of the service: environment variables, read once and checked when the service is loaded.

A new setting is one line in `Settings` and one row of the table in docs/operations.md.
"""

import os
import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self

from pydantic import AnyUrl, BeforeValidator, Field, TypeAdapter, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from serving.http import logs
from serving.http.metrics import WORKERS_REPLACED

PREFIX = "MNIST_GAN_"
OTHERS = ("CONTAINER_BASE", "DATA", "IMAGE", "MODEL", WORKERS_REPLACED.removeprefix(PREFIX))
"""Variables of other parts of the project, without the prefix."""
FOREIGN = re.compile(
    r"TEST_\w+"  # variables of the tests
    # Service links: Kubernetes sets them in each pod for each service, so for one called mnist-gan or mnist-gan-NAME.
    r"|(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
MAX_TOKEN_LENGTH = 8_192
"""Servers and proxies refuse longer header lines."""

_URL: TypeAdapter[AnyUrl] = TypeAdapter(AnyUrl)


class SettingError(logs.StartError):
    """One or more invalid variables; the message has one line for each."""


def _token(text: str) -> str:
    """The strip removes the newline at the end of a secret that was made from a file."""
    token = text.strip()
    if not token:
        raise ValueError("is empty: unset the variable to ask for no token")
    if not re.fullmatch(r"[!-~]+", token):  # ASCII without spaces and control characters
        raise ValueError("has a space, a control character or a character outside ASCII: no client can send it")
    if len(token) > MAX_TOKEN_LENGTH:
        raise ValueError(f"has {len(token):,} characters, at most {MAX_TOKEN_LENGTH:,} allowed")
    return token


def _url(text: str) -> AnyUrl:
    try:
        return _URL.validate_python(text)
    except ValidationError:
        raise ValueError("is no URL") from None


def _origin(word: str) -> str:
    """The form in which a browser sends an origin: lower case, punycode, without a default port."""
    if word in ("*", "null"):  # browsers send `null` for pages that are local files
        return word
    try:
        url = _url(word)
    except ValueError:
        url = None
    if url is None or not url.host or "*" in url.host:
        raise ValueError(f"has {word!r}, which is no origin such as https://a.example")
    if url.path not in (None, "/") or url.query is not None or url.fragment is not None or url.username or url.password:
        raise ValueError(f"has {word!r}: an origin is only a scheme, a host and perhaps a port")
    return str(url).rstrip("/")


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(dict.fromkeys(map(_origin, text.replace(",", " ").split())))
    if "*" in origins and len(origins) > 1:
        raise ValueError("has * next to other origins: * allows all origins, so leave the others out")
    return origins


def _collector(text: str) -> str:
    url = _url(text)
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("is no http or https URL such as http://collector:4318/v1/traces")
    if url.path in (None, "/"):
        raise ValueError("has no path: collectors receive traces at /v1/traces")
    return text


Bytes = Annotated[int, Field(ge=1, le=1 << 40)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Parallel = Annotated[int, Field(ge=1, le=1_024)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


class Settings(BaseSettings):
    """Each setting is read from the environment variable of its name in upper case after MNIST_GAN_.

    White space around a value is removed. A variable that is empty counts as unset, except for the token: a secret that
    is empty by mistake must not open the service to everybody.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", validate_default=False)

    api_token: Annotated[str, BeforeValidator(_token)] | None = Field(default=None, repr=False)
    """Token that clients must send as `Authorization: Bearer ...`; None asks for none."""
    cors_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_origins)] = ()
    """Origins of web pages that may call the service; `*` allows all."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device that runs the network; `auto` is the GPU if onnxruntime can use one, `cuda` refuses to run without one."""
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Number of worker processes, each with a copy of the model."""
    threads: Parallel | None = None
    """Threads of each process that run the network in parallel; None is one for each CPU that the process may use (the
    least of its affinity and its cgroup's quota), or two for a GPU."""
    max_sheet_images: Count = 1_024
    """Maximum number of images per /generate request, or per /decode request that returns a grid."""
    max_array_images: Count = 10_000
    """Maximum number of images per /dataset request, or per /decode request with an array."""
    max_body_bytes: Bytes = 32 << 20
    """Maximum size of a body that is an array of latents."""
    max_json_bytes: Bytes = 4 << 20
    """Maximum size of any other body; parsing it blocks the event loop."""
    max_requests: Count = 256
    """Maximum number of requests that each process handles at a time; it rejects further ones with a 429."""
    max_waiting_images: Count = 50_000
    """Maximum number of queued images in each process; a request that exceeds it is rejected with a 429."""
    max_connections: Count | None = None
    """Maximum number of connections of each process; None is the lesser of 4,096 and what `ulimit -n` allows."""
    max_response_bytes: Bytes = 256 << 20
    """Maximum size of a response, in bytes of uncompressed pixels."""
    max_total_response_bytes: Bytes = 1 << 30
    """Maximum number of bytes that all responses of a process hold together while they are made and sent."""
    head_timeout_seconds: Seconds = 10.0
    """Time that a client may take to send a request head."""
    timeout_seconds: Seconds = 60.0
    """Time after which a request is cancelled, and in which a client must accept 256 KiB of the response."""
    response_timeout_seconds: Seconds = 300.0
    """Time in which a client must accept the whole response."""

    access_log: bool = False
    """Whether each request is logged."""
    log_format: Literal["text", "json"] = "text"
    """Format of the log: `text`, or `json` with one object per line."""
    traces_endpoint: Annotated[str, BeforeValidator(_collector)] | None = None
    """URL of an OpenTelemetry collector, such as `http://collector:4318/v1/traces`; None exports no traces."""
    traces_share: Share = 1.0
    """Share of the requests that are traced, from 0 to 1."""

    @model_validator(mode="before")
    @classmethod
    def _normalise(cls, values: dict[str, Any]) -> dict[str, Any]:
        stripped = {name: value.strip() if isinstance(value, str) else value for name, value in values.items()}
        return {name: value for name, value in stripped.items() if value != "" or name == "api_token"}

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        for part, whole in (("max_json_bytes", "max_body_bytes"), ("max_response_bytes", "max_total_response_bytes")):
            if getattr(self, part) > getattr(self, whole):
                raise ValueError(
                    f"{variable(part)}: {getattr(self, part)} is more than {variable(whole)}, {getattr(self, whole)}, "
                    "which none may exceed"
                )
        return self

    @classmethod
    def from_environment(cls) -> Self:
        """
        Raises:
            SettingError: variables are invalid; the message names each in a line of its own.
        """
        try:
            return cls()
        except ValidationError as error:
            raise SettingError("\n".join(map(_line, error.errors()))) from None  # the cause would print the token

    @classmethod
    def variables(cls) -> dict[str, FieldInfo]:
        """The settings by the names of their environment variables."""
        return {variable(name): field for name, field in cls.model_fields.items()}

    def warnings(self) -> Iterator[str]:
        """Describes variables that have no effect, one a message."""
        known = [*self.variables(), *(PREFIX + name for name in OTHERS)]
        for name in sorted(os.environ):
            if name.startswith(PREFIX) and name not in known and not FOREIGN.fullmatch(name.removeprefix(PREFIX)):
                near = get_close_matches(name, known, n=1)
                yield f"{name} is no setting and has no effect" + (f"; did you mean {near[0]}?" if near else "")
        if "traces_share" in self.model_fields_set and not self.traces_endpoint:
            yield f"{variable('traces_share')} has no effect without {variable('traces_endpoint')}"


def variable(name: str) -> str:
    """Name of the environment variable of a setting."""
    return PREFIX + name.upper()


def _line(error: Any) -> str:
    """One line on an invalid variable, with its value unless that is the token."""
    message = str(error["ctx"]["error"]) if error["type"] == "value_error" else error["msg"].removeprefix("Input ")
    if not error["loc"]:  # it is about several, and names them
        return message
    name = error["loc"][0]
    value = "the value" if name == "api_token" else repr(error["input"])
    return f"{variable(name)}: {value} {message}; the default is {Settings.model_fields[name].default!r}"


def _load() -> Settings:
    try:
        return Settings.from_environment()
    except SettingError:
        logs.set_up(json_lines=os.environ.get(variable("log_format"), "").strip() == "json")
        raise


SETTINGS = _load()
