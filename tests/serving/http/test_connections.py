"""Limits of connections: their number, the time for a head, and bodies that nobody reads."""

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from serving.http import connections
from tests.serving.http.processes import open_files
from tests.serving.http.raw_http import (
    CARD,
    FAST_MODEL,
    HEAD_SECONDS,
    LIVE,
    MAX_CONNECTIONS,
    POST,
    connect,
    exchange,
    last_error_code,
    receive_all,
    request_status,
    serving_with_low_limits,
    statuses,
)
from tools.service_process import serving

OPEN_FILES = 256


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with serving_with_low_limits(tmp_path_factory.mktemp("service")) as started:
        yield started


@pytest.fixture(scope="module")
def few_files(tmp_path_factory):
    """A client, its server, which has a low limit of open files, and the path of the log."""
    folder = tmp_path_factory.mktemp("few")
    with serving(folder, open_files=OPEN_FILES, MNIST_GAN_MODEL=FAST_MODEL, MNIST_GAN_MAX_CONNECTIONS="100000") as (
        client,
        server,
    ):
        yield client, server, folder / "service.log"


@pytest.mark.slow
def test_a_connection_that_does_not_complete_a_head_in_time_is_closed(service):
    client, _ = service
    opened = {
        name: connect(client) for name in ("silent", "half", "slow", "empty lines", "second head", "after an error")
    }
    start = time.monotonic()
    opened["half"].sendall(CARD)
    opened["slow"].sendall(CARD + b"a: ")
    opened["empty lines"].sendall(b"\r\n")
    opened["after an error"].sendall(POST.replace(b"generate", b"livez") + b"Content-Length: 1000000\r\n\r\n")
    assert request_status(opened["second head"], CARD + b"\r\n") == 200
    opened["second head"].sendall(b"G")
    for _ in range(5):
        for name, data in (("slow", b"x"), ("empty lines", b"\r\n"), ("after an error", b"x")):
            with suppress(ConnectionError):
                opened[name].sendall(data)
        time.sleep(HEAD_SECONDS / 5)
    received = {name: receive_all(connection) for name, connection in opened.items()}
    assert time.monotonic() - start < 10 * HEAD_SECONDS
    assert received["silent"] == received["empty lines"] == b""
    for name in ("half", "slow", "second head"):
        assert statuses(received[name]) == [408], name
        assert last_error_code(received[name]) == "head_timeout"
    assert len(statuses(received["after an error"])) == 1


def test_a_connection_with_requests_stays_open_longer_than_the_head_timeout(service):
    client, _ = service
    with connect(client) as connection:
        for _ in range(6):
            assert request_status(connection, CARD + b"\r\n") == 200
            time.sleep(HEAD_SECONDS / 4)


@pytest.mark.slow
@pytest.mark.parametrize(("head", "status"), [(LIVE, 200), (POST + b"\r\n", 413)], ids=["/livez", "/generate"])
def test_a_client_that_keeps_sending_a_body_gets_the_response_and_is_disconnected(few_files, head, status):
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
    request = head.removesuffix(b"\r\n") + b"Content-Length: 99999999999\r\n\r\n" + bytes(40 << 20)
    assert statuses(exchange(client, request)) == [status]


def test_above_the_maximum_the_longest_idle_connection_is_closed(service):
    client, _ = service
    with ExitStack() as stack:
        opened = [stack.enter_context(connect(client)) for _ in range(MAX_CONNECTIONS)]
        assert request_status(opened[0], LIVE) == 200
        last = stack.enter_context(connect(client))
        assert opened[1].recv(1) == b""
        for connection in (last, opened[0], *opened[2:]):
            assert request_status(connection, LIVE) == 200


def test_a_new_connection_is_closed_if_all_others_have_a_request_in_progress(service):
    client, _ = service
    request = POST.replace(b"generate", b"dataset") + b'Content-Length: 11\r\nConnection: close\r\n\r\n{"n": 4000}'
    busy = [connect(client) for _ in range(MAX_CONNECTIONS)]
    for connection in busy:
        connection.sendall(request)
    time.sleep(0.2)
    assert receive_all(connect(client)) == b""
    for connection in busy:
        head, body = receive_all(connection).split(b"\r\n\r\n", 1)
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
def test_health_checks_succeed_despite_thousands_of_slow_clients(few_files, name, sent):
    client, server, log = few_files
    opened: list[socket.socket] = []
    with ExitStack() as stack, high_limit_of_open_files():
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
                    assert request_status(probe, request) == 200
            assert open_files(server) < OPEN_FILES
    assert log.read_text().count("closing idle connections first") == 1


@contextmanager
def high_limit_of_open_files() -> Iterator[None]:
    """Allows this process to open up to 4,096 files and sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(4_096, hard)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_maximum_of_connections_above_the_limit_of_open_files_is_reported(few_files):
    *_, log = few_files
    assert f"MNIST_GAN_MAX_CONNECTIONS is 100000, but a limit of {OPEN_FILES} open files" in log.read_text()


def test_a_uvicorn_that_lacks_a_required_name_aborts_the_start_with_this_name(monkeypatch):
    monkeypatch.delitem(connections.HTTP_PROTOCOLS, "auto")
    with pytest.raises(RuntimeError, match=r"uvicorn \S+ lacks .*HTTP_PROTOCOLS"):
        connections.replace_uvicorn_protocol()


def test_without_httptools_a_warning_says_that_nothing_is_limited(monkeypatch, caplog):
    monkeypatch.setattr(connections, "find_spec", lambda _: None)
    before = dict(connections.HTTP_PROTOCOLS)
    connections.replace_uvicorn_protocol()
    assert before == connections.HTTP_PROTOCOLS
    assert "httptools is not installed" in caplog.text
