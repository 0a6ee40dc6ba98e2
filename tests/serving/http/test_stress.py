"""The service under invalid input, overload and lost connections. Each test prints its counts."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from models.onnx_file.store import SHIPPED
from tests.serving.http.messages import error_code, error_of
from tests.serving.http.processes import open_files, resident_bytes, worker_ids
from tools.service_process import ROOT, serving

FAST = SHIPPED.with_stem("mnist-fast")
ROUTES = ("/generate", "/dataset", "/write", "/interpolate", "/decode", "/card")
VALUES = (None, -1, 0, 1.5, 2**53, 10**30, "x", "", [], {}, [[]], True, "9" * 10_000, "\u0000", [1, "a", None])
FIELDS = (
    "n",
    "seed",
    "first",
    "labels",
    "truncation",
    "columns",
    "scale",
    "text",
    "from",
    "to",
    "latents",
    "frames",
    "q",
)


def size(whole: int, quick: int | None = None):
    """Parametrizes a test with its amount of work: `whole` if it is slow, and `quick` if it is not."""
    amounts = [pytest.param(whole, marks=pytest.mark.slow)]
    return pytest.mark.parametrize("amount", amounts if quick is None else [quick, *amounts])


def malformed(rng: random.Random) -> bytes:
    """Returns a random body that is invalid in most cases."""
    fields = {rng.choice(FIELDS): rng.choice(VALUES) for _ in range(rng.randint(1, 3))}
    text = json.dumps(fields).encode()
    if rng.random() < 0.01:
        return text + bytes(5 << 20)
    return rng.choice(
        (
            lambda: text,
            lambda: text[: rng.randrange(len(text))],
            lambda: bytes(rng.randbytes(rng.randrange(1, 200))),
            lambda: b"\x93NUMPY" + rng.randbytes(rng.randrange(100)),
            lambda: b"[" * rng.randrange(1, 100_000),
            lambda: b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
            lambda: b'{"n": 1, "n": -1}',
        )
    )()


@size(10_000, quick=400)
def test_malformed_bodies_are_rejected_and_leave_no_memory_or_files_behind(tmp_path, amount):
    rng, seen = random.Random(amount), Counter()
    with serving(tmp_path, MNIST_GAN_MODEL=str(FAST)) as (client, server):
        for _ in range(50):
            client.post("/generate", content=malformed(rng))
        memory, files_before = resident_bytes(server), open_files(server)
        for _ in range(amount):
            response = client.post(rng.choice(ROUTES), content=malformed(rng))
            seen[response.status_code] += 1
            assert response.status_code in (200, 400, 413), response.text
            if response.status_code != 200:
                error_of(response)  # checks the format
                assert len(response.text) < 1_000
        assert client.post("/generate", json={"n": 4}).status_code == 200
        assert resident_bytes(server) < memory + (100 << 20)
        assert open_files(server) < files_before + 20
    print(f"tried {amount:,}: {dict(seen)}")
    assert seen[400] > amount / 2


@pytest.mark.slow
def test_the_memory_of_too_large_bodies_is_freed(tmp_path):
    with serving(tmp_path, MNIST_GAN_MODEL=str(FAST)) as (client, server):
        before = 0
        for number in range(150):
            if number == 10:
                before = resident_bytes(server)
            assert client.post("/generate", content=bytes(5 << 20)).status_code == 413
        assert resident_bytes(server) < before + (40 << 20)


@size(60)
def test_ten_times_the_allowed_load_is_rejected_and_the_service_recovers(tmp_path, amount):
    seen: Counter[int] = Counter()
    settings = {"MNIST_GAN_MAX_REQUESTS": "8", "MNIST_GAN_MODEL": str(FAST)}
    with serving(tmp_path, **settings) as (client, server):
        client.post("/dataset", json={"n": 1_000})
        memory, end = resident_bytes(server), time.monotonic() + amount

        def send_requests(_: int) -> None:
            with httpx.Client(base_url=client.base_url, timeout=60) as sender:
                while time.monotonic() < end:
                    response = sender.post("/dataset", json={"n": 1_000, "seed": 1})
                    seen[response.status_code] += 1
                    if response.status_code == 429:
                        assert response.headers["retry-after"]
                        assert error_code(response) == (429, "overloaded")
                        time.sleep(0.05)

        with ThreadPoolExecutor(80) as pool:
            list(pool.map(send_requests, range(80)))
        start = time.monotonic()
        assert client.post("/generate", json={"n": 4}).status_code == 200
        print(f"80 clients for {amount} s: {dict(seen)}; then one request took {time.monotonic() - start:.2f} s")
        assert seen.keys() == {200, 429}
        assert resident_bytes(server) < memory + (300 << 20)


@size(2_000)
def test_disconnected_clients_leave_no_files_behind_and_do_not_change_the_images_of_others(tmp_path, amount):
    rng = random.Random(0)
    rejected = 0

    def images() -> bytes:
        """Requests images, again after each 429: requests of disconnected clients fill the queue for a moment."""
        nonlocal rejected
        while (response := client.post("/dataset", json={"n": 300, "seed": 5})).status_code == 429:
            rejected += 1
            assert rejected < 60
            time.sleep(float(response.headers["retry-after"]))
        assert response.status_code == 200, response.text
        return response.content

    with serving(tmp_path, MNIST_GAN_MODEL=str(FAST)) as (client, server):
        expected = images()
        files_before = open_files(server)
        body = json.dumps({"n": 10_000}).encode()
        head = f"POST /dataset HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        for _ in range(amount):
            with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
                whole = head + body
                connection.sendall(whole[: rng.choice((10, len(head), len(whole) - 3, len(whole)))])
                if rng.random() < 0.1:
                    assert images() == expected
        deadline = time.monotonic() + 60
        while open_files(server) > files_before + 5:
            assert time.monotonic() < deadline, f"{open_files(server)} open files, {files_before} before"
            time.sleep(0.2)
        assert images() == expected
    print(f"disconnected: {amount:,}; rejected because the queue was full: {rejected}")


@pytest.mark.slow
def test_sigterm_under_load_completes_the_accepted_requests(tmp_path):
    seen: list[int] = []
    with serving(tmp_path, MNIST_GAN_MODEL=str(FAST)) as (client, server):
        connections = [httpx.Client(base_url=client.base_url, timeout=60) for _ in range(6)]
        for connection in connections:
            connection.get("/livez")

        def send_request(connection: httpx.Client) -> None:
            seen.append(connection.post("/dataset", json={"n": 5_000}).status_code)

        threads = [threading.Thread(target=send_request, args=(connection,)) for connection in connections]
        for thread in threads:
            thread.start()
        time.sleep(0.3)  # all requests have arrived, and the last one takes seconds
        server.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert server.wait(timeout=30) in (0, -signal.SIGTERM)
    print(f"statuses of 6 accepted requests: {seen}")
    assert seen == [200] * 6


@pytest.mark.slow
def test_the_service_continues_if_its_model_file_is_damaged_or_removed(tmp_path):
    model = tmp_path / "model.onnx"
    model.write_bytes(FAST.read_bytes())
    with serving(tmp_path, MNIST_GAN_MODEL=str(model)) as (client, _):
        before = client.post("/generate", json={"seed": 1}).content
        model.write_bytes(b"damaged")
        assert client.post("/generate", json={"seed": 1}).content == before
        model.unlink()
        assert client.post("/generate", json={"seed": 1}).content == before


def wait_for_worker(server: subprocess.Popen) -> int:
    """Waits until the server has a worker. Returns its process id."""
    deadline = time.monotonic() + 30
    while (number := worker_ids(server)[0]) == server.pid:  # the worker has not been started yet
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return number


@pytest.mark.slow
def test_a_killed_worker_is_replaced_while_the_other_one_serves(tmp_path):
    seen: Counter[str] = Counter()
    with serving(tmp_path, MNIST_GAN_MODEL=str(FAST), MNIST_GAN_WORKERS="2") as (client, server):
        deadline = time.monotonic() + 30
        while (tmp_path / "service.log").read_text().count("initialized") < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        killed = wait_for_worker(server)
        os.kill(killed, signal.SIGKILL)
        end = time.monotonic() + 30
        while len(worker_ids(server)) < 2 or killed in worker_ids(server):
            assert time.monotonic() < end
            try:
                seen[str(client.post("/generate", json={"n": 4}).status_code)] += 1
            except httpx.TransportError:
                seen["lost"] += 1
            time.sleep(0.02)
    print(f"responses while one of two workers was missing: {dict(seen)}")
    log = (tmp_path / "service.log").read_text()
    assert re.search(rf"worker [12] died: process {killed} was killed by SIGKILL; process \d+ replaces it", log)
    assert seen["200"] > 0
    assert seen["lost"] <= 1  # the connection of the killed worker
    assert seen.keys() <= {"200", "lost"}


@pytest.mark.slow
def test_in_a_container_the_service_ends_with_its_only_worker(tmp_path):
    with serving(tmp_path, MNIST_GAN_MODEL=str(FAST), BENTOML_CONTAINERIZED="true") as (_, server):
        os.kill(wait_for_worker(server), signal.SIGKILL)
        assert server.wait(timeout=30) != 0
    assert "it is not replaced in a container" in (tmp_path / "service.log").read_text()


def test_a_port_in_use_aborts_the_start_with_a_message(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [Path(sys.executable).parent / "bentoml", "serve", "--port", str(taken.getsockname()[1])]
        environment = os.environ | {"BENTOML_HOME": str(tmp_path), "MNIST_GAN_MODEL": str(FAST)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "Address already in use" in done.stderr


@size(1_000)
def test_slow_uploads_do_not_occupy_request_slots(tmp_path, amount):
    settings = {"MNIST_GAN_MODEL": str(FAST), "MNIST_GAN_MAX_REQUESTS": "4", "MNIST_GAN_TIMEOUT_SECONDS": "5"}
    seen: Counter[int] = Counter()
    with serving(tmp_path, **settings) as (client, server):
        memory = resident_bytes(server)
        head = b"POST /generate HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
        slow = [socket.create_connection((client.base_url.host, client.base_url.port)) for _ in range(amount)]
        for connection in slow:
            connection.sendall(head)
        for second in range(3):
            for connection in slow:
                connection.sendall(b" ")
            for seed in range(5):
                seen[client.post("/generate", json={"n": 4, "seed": seed + second}).status_code] += 1
            time.sleep(0.5)
        grown = resident_bytes(server) - memory
        for connection in slow:
            connection.settimeout(30)
            assert connection.recv(100).startswith(b"HTTP/1.1 504 ")
            connection.close()
    print(f"responses during {amount:,} slow uploads: {dict(seen)}, {grown >> 20} MiB more")
    assert seen == {200: 15}
    assert grown < 100 << 20


@size(200)
def test_clients_that_do_not_read_are_disconnected_and_their_memory_is_limited(tmp_path, amount):
    settings = {"MNIST_GAN_MODEL": str(FAST), "MNIST_GAN_MAX_REQUESTS": "8", "MNIST_GAN_TIMEOUT_SECONDS": "4"}
    with serving(tmp_path, **settings) as (client, server):
        client.post("/dataset", json={"n": 10_000})
        memory, files_before = resident_bytes(server), open_files(server)
        body = b'{"n": 10000}'
        whole = b"POST /dataset HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        readers = []
        for _ in range(amount):
            reader = socket.create_connection((client.base_url.host, client.base_url.port))
            reader.sendall(whole)
            readers.append(reader)
        time.sleep(3)
        grown = resident_bytes(server) - memory
        deadline = time.monotonic() + 30
        while open_files(server) > files_before + 2:
            assert time.monotonic() < deadline, "the connections are still open"
            for reader in readers:  # rejected clients have a short response and stay connected
                reader.setblocking(False)
                with suppress(BlockingIOError, ConnectionError):
                    if reader.recv(100, socket.MSG_PEEK).startswith(b"HTTP/1.1 429"):
                        reader.close()
                        readers.remove(reader)
            time.sleep(0.2)
        assert client.post("/generate", json={"n": 4}).status_code == 200
    print(f"{amount} clients that requested 7.8 MB and read nothing: {grown >> 20} MiB more")
    assert grown < 200 << 20
