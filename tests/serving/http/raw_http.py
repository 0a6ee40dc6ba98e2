"""HTTP/1.1 over plain sockets, for tests that send what no HTTP client would send."""

import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPResponse
from pathlib import Path
from subprocess import Popen

import httpx

from models.onnx_file.store import SHIPPED
from tools.service_process import serving

FAST_MODEL = str(SHIPPED.with_stem("mnist-fast"))
MAX_CONNECTIONS = 8
HEAD_SECONDS = 1.5

CARD = b"GET /card HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /generate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
"""Request heads without the empty line that ends them."""
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
LIVE = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
BODY = b'{"n": 1}'


@contextmanager
def serving_with_low_limits(folder: Path) -> Iterator[tuple[httpx.Client, Popen]]:
    """Starts a server that allows few connections and little time for a head."""
    settings = {"MNIST_GAN_MAX_CONNECTIONS": str(MAX_CONNECTIONS), "MNIST_GAN_HEAD_TIMEOUT_SECONDS": str(HEAD_SECONDS)}
    with serving(folder, MNIST_GAN_MODEL=FAST_MODEL, **settings) as started:
        yield started


def connect(client: httpx.Client) -> socket.socket:
    """Opens a new connection to the server of an HTTP client."""
    return socket.create_connection((client.base_url.host, client.base_url.port), timeout=20)


def receive_all(connection: socket.socket) -> bytes:
    """Returns everything that the server sends until it closes the connection."""
    received = b""
    with suppress(ConnectionResetError):
        while data := connection.recv(1 << 16):
            received += data
    connection.close()
    return received


def exchange(client: httpx.Client, *pieces: bytes) -> bytes:
    """Sends the pieces on a new connection. Returns everything that the server sends until it closes the connection."""
    connection = connect(client)
    with suppress(ConnectionError):
        for piece in pieces:
            connection.sendall(piece)
    return receive_all(connection)


def request_status(connection: socket.socket, request: bytes) -> int:
    """Sends a request on a connection that stays open. Returns the status of the response."""
    connection.sendall(request)
    response = HTTPResponse(connection)
    response.begin()
    response.read()
    return response.status


def statuses(responses: bytes) -> list[int]:
    """Returns the status of each response in the received data."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", responses)]


def last_error_code(responses: bytes) -> str:
    """Checks that the last response is an error in the service's JSON format. Returns its code."""
    head, body = responses[responses.rindex(b"HTTP/1.1 ") :].split(b"\r\n\r\n", 1)
    assert b"connection: close" in head
    assert b"content-type: application/json" in head
    assert f"content-length: {len(body)}".encode() in head
    error = json.loads(body)["error"]
    assert error.keys() == {"code", "message", "field"}
    return error["code"]
