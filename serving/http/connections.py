"""Limits the connections of this process: their number, their request heads, and clients that stop reading.

uvicorn has no such limits. It looks up the class of its connections by name; `replace_uvicorn_protocol` puts our
subclass in the place of uvicorn's class.
"""

import logging
import os
import socket
from importlib.metadata import version
from importlib.util import find_spec

import psutil
from uvicorn.config import HTTP_PROTOCOLS

from serving.http.settings import Settings

logger = logging.getLogger("bentoml.mnist-gan")

RESERVED_FILES = 64
"""Number of file descriptors that connections may not use: metrics, traces and served files need them."""
DEFAULT_MAX_CONNECTIONS = 4_096
"""Default limit of the connections of a process. With it, incomplete request heads use at most 256 MiB."""

UVICORN_DEFAULT = "uvicorn.protocols.http.auto:AutoHTTPProtocol"
LIMITED_PROTOCOL = "serving.http.http_protocol:LimitedProtocol"
"""Import paths of uvicorn's default class for connections and of our subclass."""


def replace_uvicorn_protocol() -> None:
    """Makes uvicorn use `LimitedProtocol` for its connections. Must be called before BentoML configures uvicorn.

    Raises:
        RuntimeError: the installed uvicorn lacks a method that the class overrides.
    """
    if find_spec("httptools") is None:  # there is no httptools for Windows
        logger.warning("httptools is not installed: request heads and connections are not limited")
        return
    from serving.http.http_protocol import LimitedProtocol

    missing = LimitedProtocol.missing_uvicorn_methods()
    if HTTP_PROTOCOLS.get("auto") not in (UVICORN_DEFAULT, LIMITED_PROTOCOL):
        missing.append('HTTP_PROTOCOLS["auto"]')
    if missing:
        raise RuntimeError(
            f"uvicorn {version('uvicorn')} lacks {', '.join(missing)}, which serving/http/http_protocol.py needs; "
            "install the version in requirements.lock"
        )
    HTTP_PROTOCOLS["auto"] = LIMITED_PROTOCOL


def limit_connections(settings: Settings) -> None:
    """Applies the settings to the connections of this process. Must be called before the first one is accepted."""
    _disconnect_stalled_readers(settings.timeout_seconds)
    if HTTP_PROTOCOLS["auto"] == LIMITED_PROTOCOL:
        from serving.http.http_protocol import LimitedProtocol

        LimitedProtocol.head_seconds = settings.head_timeout_seconds
        LimitedProtocol.max_connections = _max_connections(settings.max_connections)


def _max_connections(setting: int | None) -> int:
    """Returns the setting or its default, reduced to the number that the limit of open files allows."""
    import resource  # not available on Windows

    open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if open_files == resource.RLIM_INFINITY:
        return setting or DEFAULT_MAX_CONNECTIONS
    possible = max(1, open_files - psutil.Process().num_fds() - RESERVED_FILES)
    if setting and setting > possible:
        logger.warning(
            "MNIST_GAN_MAX_CONNECTIONS is %d, but a limit of %d open files allows %d connections; raise it (ulimit -n)",
            setting,
            open_files,
            possible,
        )
    return min(setting or DEFAULT_MAX_CONNECTIONS, possible)


def _disconnect_stalled_readers(seconds: float) -> None:
    """Makes the kernel close a connection when sent data stays unacknowledged for this time.

    uvicorn never closes such a connection, not even when the service stops. The option is set on the listening socket;
    accepted connections inherit it.
    """
    if not hasattr(socket, "TCP_USER_TIMEOUT"):  # available on Linux only
        return
    for connection in psutil.Process().net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN:
            with socket.socket(fileno=os.dup(connection.fd)) as listener:
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * seconds))
