"""Limits of the connections of this process: their number, their request heads, and clients that stop reading.

uvicorn has no such limits, and selects the class of a connection by name. `replace_uvicorn_protocol` names ours.
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
"""File descriptors kept free for everything except connections: metrics, traces, files that are served."""
MOST_CONNECTIONS = 4_096
"""Default limit where the limit of open files is high. Unfinished heads then take at most 256 MiB."""

UVICORN_DEFAULT = "uvicorn.protocols.http.auto:AutoHTTPProtocol"
OURS = "serving.http.http_protocol:LimitedProtocol"


def replace_uvicorn_protocol() -> None:
    """Makes uvicorn use our class for HTTP connections. It must run before BentoML configures uvicorn.

    Raises:
        RuntimeError: this version of uvicorn lacks something that the class overrides.
    """
    if find_spec("httptools") is None:  # it is not installed on Windows
        logger.warning("httptools is not installed: request heads and connections are not limited")
        return
    from serving.http.http_protocol import LimitedProtocol

    missing = LimitedProtocol.missing_in_uvicorn()
    if HTTP_PROTOCOLS.get("auto") not in (UVICORN_DEFAULT, OURS):
        missing.append('HTTP_PROTOCOLS["auto"]')
    if missing:
        raise RuntimeError(
            f"uvicorn {version('uvicorn')} has changed: serving/http/http_protocol.py needs {', '.join(missing)}; "
            "install the version that requirements.lock names"
        )
    HTTP_PROTOCOLS["auto"] = OURS


def limit_connections(settings: Settings) -> None:
    """Applies the settings to the connections of this process. It must run before the first one is accepted."""
    _disconnect_stalled_readers(settings.timeout_seconds)
    if HTTP_PROTOCOLS["auto"] == OURS:
        from serving.http.http_protocol import LimitedProtocol

        LimitedProtocol.head_seconds = settings.head_timeout_seconds
        LimitedProtocol.max_connections = _max_connections(settings.max_connections)


def _max_connections(wanted: int | None) -> int:
    import resource  # Windows does not have it

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return wanted or MOST_CONNECTIONS
    possible = max(1, files - psutil.Process().num_fds() - RESERVED_FILES)
    if wanted and wanted > possible:
        logger.warning(
            "MNIST_GAN_MAX_CONNECTIONS is %d, but a limit of %d open files (ulimit -n) allows %d connections",
            wanted,
            files,
            possible,
        )
    return min(wanted or MOST_CONNECTIONS, possible)


def _disconnect_stalled_readers(seconds: float) -> None:
    """Makes the kernel close a connection whose client has acknowledged nothing for so long.

    Neither uvicorn nor a stop of the service would end it. Accepted connections inherit the option of the socket that
    listens.
    """
    if not hasattr(socket, "TCP_USER_TIMEOUT"):  # only Linux has it
        return
    for connection in psutil.Process().net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN:
            with socket.socket(fileno=os.dup(connection.fd)) as listening:
                listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * seconds))
