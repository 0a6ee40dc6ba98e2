"""What can be set, by environment variables: read once, when the service is loaded."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Self


class SettingError(ValueError):
    """A variable whose value means nothing."""


def _variable(name: str, default: Any, read: Callable[[str], Any]) -> Any:
    return field(default=default, metadata={"name": f"MNIST_GAN_{name}", "read": read})


def _above_zero(text: str) -> float:
    if not 0 < (number := float(text)) < float("inf"):
        raise ValueError
    return number


def _count(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError
        return text

    return read


def _share(text: str) -> float:
    if not 0 <= (number := float(text)) <= 1:
        raise ValueError
    return number


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


@dataclass(frozen=True)
class Settings:
    """Each is read from the environment variable that is named beside it, where that is set and not empty."""

    api_token: str | None = _variable("API_TOKEN", None, str)
    """What callers must send as `Authorization: Bearer ...`; None asks for nothing."""
    cors_origins: tuple[str, ...] = _variable("CORS_ORIGINS", (), _words)
    """Web sites whose pages may call the service; `*` is all of them."""
    device: str = _variable("DEVICE", "auto", _one_of("auto", "cpu", "cuda"))
    """That runs the network; `auto` is the GPU if onnxruntime can use one, and `cuda` refuses to do without."""
    workers: int = _variable("WORKERS", 1, _count)
    """Processes, each with a copy of the model."""
    threads: int | None = _variable("THREADS", None, _count)
    """Threads of each process that run the network in parallel; None is one for each CPU that the process may use (the
    least of its affinity and its cgroup's quota), or two for a GPU."""
    max_sheet_images: int = _variable("MAX_SHEET_IMAGES", 1_024, _count)
    """Of a /generate, or of a /decode to a sheet."""
    max_array_images: int = _variable("MAX_ARRAY_IMAGES", 10_000, _count)
    """Of a /dataset, or of a /decode from an array."""
    max_body_bytes: int = _variable("MAX_BODY_BYTES", 32 << 20, _count)
    """Of an array of latents."""
    max_json_bytes: int = _variable("MAX_JSON_BYTES", 4 << 20, _count)
    """Of any other body: reading it holds up everybody else."""
    max_requests: int = _variable("MAX_REQUESTS", 256, _count)
    """That are answered at a time, by each process; one more is told to come back."""
    max_waiting_images: int = _variable("MAX_WAITING_IMAGES", 50_000, _count)
    """That wait to be made, in each process; who asks for more while others wait is told to come back."""
    max_connections: int | None = _variable("MAX_CONNECTIONS", None, _count)
    """Limit of the connections of each process; None is the lesser of 4,096 and what the limit of open files allows."""
    head_timeout_seconds: float = _variable("HEAD_TIMEOUT_SECONDS", 10.0, _above_zero)
    """Time that a client may take to send a request head."""
    timeout_seconds: float = _variable("TIMEOUT_SECONDS", 60.0, _above_zero)
    """After which a request is given up."""

    access_log: bool = _variable("ACCESS_LOG", False, lambda text: _one_of("0", "1")(text) == "1")
    """1 logs a line a request."""
    log_format: str = _variable("LOG_FORMAT", "text", _one_of("text", "json"))
    """`text`, or `json`: one object a line."""
    traces_endpoint: str | None = _variable("TRACES_ENDPOINT", None, str)
    """Of an OpenTelemetry collector, as in `http://collector:4318/v1/traces`; None traces nothing."""
    traces_share: float = _variable("TRACES_SHARE", 1.0, _share)
    """Of the requests that are traced, from 0 to 1."""

    @classmethod
    def from_environment(cls) -> Self:
        """Raises:
        SettingError: a variable cannot be read; the message names it.
        """
        values = {}
        for setting in fields(cls):
            name, read = setting.metadata["name"], setting.metadata["read"]
            if text := os.environ.get(name):
                try:
                    values[setting.name] = read(text)
                except ValueError:
                    raise SettingError(f"{name}: {text!r} is not one; its default is {setting.default}") from None
        return cls(**values)


SETTINGS = Settings.from_environment()
