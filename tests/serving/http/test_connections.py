"""Limits of request heads and connections, by raw sockets against the real server."""

import json
import re
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPResponse

import httpx
import pytest

from models.onnx_file.store import SHIPPED
from serving.http import connections
from tests.serving.http.test_stress import handles, resident
from tools.service_process import serving

FAST = str(SHIPPED.with_stem("mnist-fast"))
MOST = 8
HEAD_SECONDS = 1.5
OPEN_FILES = 256
CARD = b"GET /card HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /generate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
LIVE = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
BODY = b'{"n": 1}'


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A server that accepts few connections and little time for a head."""
    settings = {"MNIST_GAN_MAX_CONNECTIONS": str(MOST), "MNIST_GAN_HEAD_TIMEOUT_SECONDS": str(HEAD_SECONDS)}
    with serving(tmp_path_factory.mktemp("small"), MNIST_GAN_MODEL=FAST, **settings) as started:
        yield started


@pytest.fixture(scope="module")
def few_files(tmp_path_factory):
    """A server with a low limit of file descriptors, and its log."""
    folder = tmp_path_factory.mktemp("few")
    with serving(folder, open_files=OPEN_FILES, MNIST_GAN_MODEL=FAST, MNIST_GAN_MAX_CONNECTIONS="100000") as (
        client,
        server,
    ):
        yield client, server, folder / "service.log"


def connect(client: httpx.Client) -> socket.socket:
    return socket.create_connection((client.base_url.host, client.base_url.port), timeout=20)


def rest(connection: socket.socket) -> bytes:
    """Everything until the server closes the connection."""
    received = b""
    with suppress(ConnectionResetError):
        while piece := connection.recv(1 << 16):
            received += piece
    connection.close()
    return received


def exchange(client: httpx.Client, *pieces: bytes) -> bytes:
    """Everything that the server sends until it closes the connection."""
    connection = connect(client)
    with suppress(ConnectionError):
        for piece in pieces:
            connection.sendall(piece)
    return rest(connection)


def ask(connection: socket.socket, request: bytes) -> int:
    """Status of the response to one request on a connection that stays open."""
    connection.sendall(request)
    response = HTTPResponse(connection)
    response.begin()
    response.read()
    return response.status


def error(response: bytes) -> dict[str, str]:
    """The error of the last response, in the format of the project."""
    head, body = response[response.rindex(b"HTTP/1.1 ") :].split(b"\r\n\r\n", 1)
    assert b"connection: close" in head
    assert b"content-type: application/json" in head
    assert f"content-length: {len(body)}".encode() in head
    found = json.loads(body)["error"]
    assert found.keys() == {"code", "message", "field"}
    return found


def statuses(response: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", response)]


HEADS = {
    "a long field": CARD + b"a: " + b"x" * (64 << 10) + b"\r\n\r\n",
    "a long name of a field": CARD + b"x" * (64 << 10) + b": a\r\n\r\n",
    "many fields": CARD + b"".join(b"x-%d: a\r\n" % number for number in range(100)) + b"\r\n",
    "many short fields": CARD + b"x:\r\n" * 10_000 + b"\r\n",
    "a long path": b"GET /" + b"x" * (64 << 10) + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "a long query": b"GET /card?" + b"x" * (64 << 10) + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "many fields before a body": POST + b"a: b\r\n" * 101 + b"Content-Length: 8\r\n\r\n" + BODY,
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())
def test_a_head_over_a_limit_is_refused_and_its_connection_closed(small, head):
    client, _ = small
    response = exchange(client, head)
    assert statuses(response) == [431]
    assert error(response)["code"] == "head_too_large"


def test_refused_heads_are_counted(small):
    client, _ = small

    def counted() -> float:
        found = re.search(r'mnist_gan_rejected_total\{reason="head_too_large"\} (\S+)', client.get("/metrics").text)
        return float(found[1]) if found else 0

    before = counted()
    exchange(client, HEADS["a long field"])
    assert counted() == before + 1


@pytest.mark.parametrize(
    "fields", [b"a: " + b"x" * 65_000, b"".join(b"x-%d: a\r\n" % number for number in range(96)) + b"b: c"]
)
def test_a_head_within_the_limits_is_accepted(small, fields):
    client, _ = small
    assert statuses(exchange(client, CARD + fields + b"\r\nConnection: close\r\n\r\n")) == [200]


@pytest.mark.parametrize("endless", [b"a: " + b"x" * (1 << 20), b"a: b\r\n" * (1 << 17)], ids=["field", "fields"])
def test_an_endless_head_takes_no_memory(small, endless):
    client, server = small
    exchange(client, CARD, endless)
    before = resident(server)
    for _ in range(4):
        assert error(exchange(client, CARD, *[endless] * 64))["code"] == "head_too_large"
    assert resident(server) < before + (8 << 20)


TAILS = {
    "a long extension": b"1;" + b"x" * (100 << 10),
    "many trailers": b"8\r\n" + BODY + b"\r\n0\r\n" + b"x: a\r\n" * 102,
    "a long trailer": b"8\r\n" + BODY + b"\r\n0\r\nx: " + b"a" * (100 << 10),
}


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS.keys())
def test_what_surrounds_the_chunks_of_a_body_is_limited(small, tail):
    client, server = small
    before = resident(server)
    for more in (0, 32):
        response = exchange(client, CHUNKED, tail, *[b"x" * (1 << 20)] * more)
        assert error(response)["code"] == "head_too_large"
    assert resident(server) < before + (8 << 20)


def test_a_body_of_small_chunks_with_extensions_and_trailers_is_read(small):
    client, _ = small
    body = BODY.ljust(20_000)
    chunks = b"".join(b"1;a=b\r\n%c\r\n" % byte for byte in body) + b"0\r\nx: a\r\n\r\n"
    assert statuses(exchange(client, CHUNKED + chunks + CARD + b"Connection: close\r\n\r\n")) == [200, 200]


def test_a_connection_that_does_not_complete_a_head_in_time_is_closed(small):
    client, _ = small
    slow = {name: connect(client) for name in ("silent", "half", "slow", "empty", "second", "after an error")}
    start = time.monotonic()
    slow["half"].sendall(CARD)
    slow["slow"].sendall(CARD + b"a: ")
    slow["empty"].sendall(b"\r\n")
    slow["after an error"].sendall(POST.replace(b"generate", b"livez") + b"Content-Length: 1000000\r\n\r\n")
    assert ask(slow["second"], CARD + b"\r\n") == 200
    slow["second"].sendall(b"G")
    for _ in range(5):
        for name, byte in (("slow", b"x"), ("empty", b"\r\n"), ("after an error", b"x")):
            with suppress(ConnectionError):
                slow[name].sendall(byte)
        time.sleep(HEAD_SECONDS / 5)
    received = {name: rest(connection) for name, connection in slow.items()}
    assert time.monotonic() - start < 10 * HEAD_SECONDS
    assert received["silent"] == received["empty"] == b""
    for name in ("half", "slow", "second"):
        assert statuses(received[name]) == [408], name
        assert error(received[name])["code"] == "head_timeout"
    assert len(statuses(received["after an error"])) == 1


def test_a_connection_with_requests_stays_open_longer_than_a_head_may_take(small):
    client, _ = small
    with connect(client) as connection:
        for _ in range(6):
            assert ask(connection, CARD + b"\r\n") == 200
            time.sleep(HEAD_SECONDS / 4)


@pytest.mark.parametrize(
    "head", [b"\0\0\0\0", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nbad header\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n"]
)
def test_a_broken_head_is_refused_in_the_format_of_the_project(small, head):
    client, _ = small
    response = exchange(client, head)
    assert statuses(response) == [400]
    assert error(response)["code"] == "invalid_input"


def test_a_broken_chunk_is_refused_in_the_format_of_the_project(small):
    client, _ = small
    response = exchange(client, CHUNKED, b"x\r\n")
    assert statuses(response) == [400]
    assert error(response)["code"] == "invalid_input"
    assert client.get("/readyz").status_code == 200


def test_requests_before_a_broken_one_are_answered_first(small):
    client, _ = small
    whole = POST + b"Content-Length: 8\r\n\r\n" + BODY
    response = exchange(client, whole * 2 + b"\0")
    assert statuses(response) == [200, 200, 400]
    assert error(response)["code"] == "invalid_input"


def test_the_number_of_pipelined_requests_is_limited(small):
    client, server = small
    before = resident(server)
    whole = POST + b"Content-Length: 8\r\n\r\n" + BODY
    response = exchange(client, whole + LIVE * 100_000)
    assert statuses(response) == [200] * 101 + [429]
    assert error(response)["code"] == "overloaded"
    assert resident(server) < before + (8 << 20)


@pytest.mark.parametrize(("head", "status"), [(LIVE, 200), (POST + b"\r\n", 413)], ids=["/livez", "/generate"])
def test_a_body_that_nobody_reads_is_cut_off_after_the_response(few_files, head, status):
    """The client receives the response although it goes on sending, and cannot send for long."""
    client, _, _ = few_files
    connection = connect(client)
    connection.sendall(head.removesuffix(b"\r\n") + b"Content-Length: 100000000000\r\n\r\n")
    sent = 0
    with suppress(ConnectionError):
        while sent < 1 << 30:
            sent += connection.send(bytes(1 << 16))
            time.sleep(0.001)
    assert sent < 1 << 30
    connection.close()
    whole = head.removesuffix(b"\r\n") + b"Content-Length: 99999999999\r\n\r\n" + bytes(40 << 20)
    assert statuses(exchange(client, whole)) == [status]


def test_an_upgrade_is_ignored(small):
    client, _ = small
    upgrade = CARD + b"Connection: Upgrade, close\r\nUpgrade: %b\r\nSec-WebSocket-Key: eA==\r\n\r\n"
    for protocol in (b"h2c", b"websocket"):
        assert statuses(exchange(client, upgrade % protocol)) == [200]


def test_at_the_bound_the_connection_that_has_been_idle_longest_is_closed(small):
    client, _ = small
    with ExitStack() as stack:
        opened = [stack.enter_context(connect(client)) for _ in range(MOST)]
        assert ask(opened[0], LIVE) == 200
        last = stack.enter_context(connect(client))
        assert opened[1].recv(1) == b""
        for connection in (last, opened[0], *opened[2:]):
            assert ask(connection, LIVE) == 200


def test_a_new_connection_is_rejected_while_every_other_one_has_a_request_in_progress(small):
    client, _ = small
    whole = POST.replace(b"generate", b"dataset") + b'Content-Length: 11\r\nConnection: close\r\n\r\n{"n": 4000}'
    working = [connect(client) for _ in range(MOST)]
    for connection in working:
        connection.sendall(whole)
    time.sleep(0.2)
    assert rest(connect(client)) == b""
    for connection in working:
        head, body = rest(connection).split(b"\r\n\r\n", 1)
        assert b" 200 OK" in head
        assert f"content-length: {len(body)}".encode() in head
    assert client.get("/readyz").status_code == 200


CLIENTS = {
    "send nothing": b"",
    "send half a head": CARD,
    "send a byte a second": CARD + b"a: ",
    "send half a body": POST + b"Content-Length: 100\r\n\r\n",
}


@pytest.mark.parametrize(("name", "sent"), CLIENTS.items(), ids=CLIENTS.keys())
def test_health_checks_are_answered_among_thousands_of_clients_that(few_files, name, sent):
    client, server, log = few_files
    opened: list[socket.socket] = []
    with ExitStack() as stack, enough_files():
        for _ in range(20):
            for _ in range(100):
                opened.append(stack.enter_context(connect(client)))
                with suppress(ConnectionError):
                    opened[-1].sendall(sent)
            if "byte" in name:
                for connection in opened:
                    with suppress(ConnectionError):
                        connection.send(b"x")
            for request in (LIVE, LIVE.replace(b"live", b"ready")):
                with connect(client) as probe:
                    assert ask(probe, request) == 200
            assert handles(server) < OPEN_FILES
    assert log.read_text().count("those that have been idle longest are closed") == 1


@contextmanager
def enough_files() -> Iterator[None]:
    """Lets this process open enough sockets."""
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limit, min(4_096, most)), most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))


def test_a_limit_of_connections_above_the_limit_of_open_files_is_reported(few_files):
    *_, log = few_files
    assert f"MNIST_GAN_MAX_CONNECTIONS is 100000, but a limit of {OPEN_FILES} open files" in log.read_text()


def test_a_uvicorn_without_what_is_replaced_ends_the_start_with_its_name(monkeypatch):
    monkeypatch.delitem(connections.HTTP_PROTOCOLS, "auto")
    with pytest.raises(RuntimeError, match=r"uvicorn \S+ has changed: .*HTTP_PROTOCOLS"):
        connections.replace_uvicorn_protocol()


def test_without_httptools_it_is_reported_that_there_are_no_limits(monkeypatch, caplog):
    monkeypatch.setattr(connections, "find_spec", lambda _: None)
    before = dict(connections.HTTP_PROTOCOLS)
    connections.replace_uvicorn_protocol()
    assert before == connections.HTTP_PROTOCOLS
    assert "httptools is not installed" in caplog.text
