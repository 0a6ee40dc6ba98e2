"""The service under bad input, too much load and lost connections, by real clients; each test prints its counts."""

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
    """Parametrizes a test with its amount of work: all of it in the slow tests, and a little in the fast ones."""
    amounts = [pytest.param(whole, marks=pytest.mark.slow)]
    return pytest.mark.parametrize("amount", amounts if quick is None else [quick, *amounts])


def workers(server: subprocess.Popen) -> list[int]:
    """Processes that answer, of a server."""
    listed = subprocess.run(
        ["pgrep", "-f", "_bentoml_impl.worker", "-P", str(server.pid)], capture_output=True, text=True
    )
    return [int(number) for number in listed.stdout.split()] or [server.pid]


def resident(server: subprocess.Popen) -> int:
    """Bytes of memory, of all its processes."""
    pages = [int(Path(f"/proc/{number}/statm").read_text().split()[1]) for number in workers(server)]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE")


def handles(server: subprocess.Popen) -> int:
    return sum(len(list(Path(f"/proc/{number}/fd").iterdir())) for number in workers(server))


def malformed(rng: random.Random) -> bytes:
    """A body that is wrong in one of many ways."""
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
def test_malformed_bodies_are_refused_in_the_one_shape_and_leave_no_trace(tmp_path, amount):
    rng, seen = random.Random(amount), Counter()
    with serving(tmp_path, MNIST_GAN_MODEL=str(FAST)) as (client, server):
        for _ in range(50):
            client.post("/generate", content=malformed(rng))
        memory, open_files = resident(server), handles(server)
        for _ in range(amount):
            answer = client.post(rng.choice(ROUTES), content=malformed(rng))
            seen[answer.status_code] += 1
            assert answer.status_code in (200, 400, 413), answer.text
            if answer.status_code != 200:
                assert answer.json()["error"].keys() == {"code", "message", "field"}
                assert len(answer.text) < 1_000
        assert client.post("/generate", json={"n": 4}).status_code == 200
        assert resident(server) < memory + (100 << 20)
        assert handles(server) < open_files + 20
    print(f"tried {amount:,}: {dict(seen)}")
    assert seen[400] > amount / 2


def test_bodies_over_the_limit_are_forgotten_once_they_are_refused(tmp_path):
    with serving(tmp_path, MNIST_GAN_MODEL=str(FAST)) as (client, server):
        before = 0
        for number in range(150):
            if number == 10:
                before = resident(server)
            assert client.post("/generate", content=bytes(5 << 20)).status_code == 413
        assert resident(server) < before + (40 << 20)


@size(60)
def test_ten_times_too_much_is_refused_politely_and_good_requests_are_still_answered(tmp_path, amount):
    seen: Counter[int] = Counter()
    settings = {"MNIST_GAN_MAX_REQUESTS": "8", "MNIST_GAN_MODEL": str(FAST)}
    with serving(tmp_path, **settings) as (client, server):
        client.post("/dataset", json={"n": 1_000})
        memory, end = resident(server), time.monotonic() + amount

        def ask(_: int) -> None:
            with httpx.Client(base_url=client.base_url, timeout=60) as one:
                while time.monotonic() < end:
                    answer = one.post("/dataset", json={"n": 1_000, "seed": 1})
                    seen[answer.status_code] += 1
                    if answer.status_code == 429:
                        assert answer.headers["retry-after"]
                        assert answer.json()["error"]["code"] == "overloaded"
                        time.sleep(0.05)

        with ThreadPoolExecutor(80) as pool:
            list(pool.map(ask, range(80)))
        start = time.monotonic()
        assert client.post("/generate", json={"n": 4}).status_code == 200
        print(f"asked by 80 for {amount} s: {dict(seen)}; answered {time.monotonic() - start:.2f} s after")
        assert seen.keys() == {200, 429}
        assert resident(server) < memory + (300 << 20)


@size(2_000)
def test_callers_who_leave_cost_nothing_and_harm_nobody(tmp_path, amount):
    rng = random.Random(0)
    with serving(tmp_path, MNIST_GAN_MODEL=str(FAST)) as (client, server):
        expected = client.post("/dataset", json={"n": 300, "seed": 5}).content
        open_files = handles(server)
        body = json.dumps({"n": 10_000}).encode()
        head = f"POST /dataset HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        for _ in range(amount):
            with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
                whole = head + body
                connection.sendall(whole[: rng.choice((10, len(head), len(whole) - 3, len(whole)))])
                if rng.random() < 0.1:
                    assert client.post("/dataset", json={"n": 300, "seed": 5}).content == expected
        deadline = time.monotonic() + 60
        while handles(server) > open_files + 5:
            assert time.monotonic() < deadline, f"{handles(server)} handles, {open_files} before"
            time.sleep(0.2)
        assert client.post("/dataset", json={"n": 300, "seed": 5}).content == expected
    print(f"left: {amount:,}")


@pytest.mark.slow
def test_sigterm_in_the_middle_of_load_answers_what_was_accepted(tmp_path):
    seen: list[int] = []
    with serving(tmp_path, MNIST_GAN_MODEL=str(FAST)) as (client, server):
        connections = [httpx.Client(base_url=client.base_url, timeout=60) for _ in range(6)]
        for connection in connections:
            connection.get("/livez")

        def ask(connection: httpx.Client) -> None:
            seen.append(connection.post("/dataset", json={"n": 5_000}).status_code)

        asking = [threading.Thread(target=ask, args=(connection,)) for connection in connections]
        for thread in asking:
            thread.start()
        time.sleep(0.3)  # all are in, and the last has seconds to go
        server.send_signal(signal.SIGTERM)
        for thread in asking:
            thread.join()
        assert server.wait(timeout=30) in (0, -signal.SIGTERM)
    print(f"accepted 6, answered {seen}")
    assert seen == [200] * 6


@pytest.mark.slow
def test_a_model_that_is_removed_or_damaged_while_it_is_served_is_served_on(tmp_path):
    model = tmp_path / "model.onnx"
    model.write_bytes(FAST.read_bytes())
    with serving(tmp_path, MNIST_GAN_MODEL=str(model)) as (client, _):
        before = client.post("/generate", json={"seed": 1}).content
        model.write_bytes(b"damaged")
        assert client.post("/generate", json={"seed": 1}).content == before
        model.unlink()
        assert client.post("/generate", json={"seed": 1}).content == before


def worker_of(server: subprocess.Popen) -> int:
    deadline = time.monotonic() + 30
    while (number := workers(server)[0]) == server.pid:  # it has none for the moment
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return number


@pytest.mark.slow
def test_a_killed_worker_is_replaced_while_the_other_one_answers(tmp_path):
    seen: Counter[str] = Counter()
    with serving(tmp_path, MNIST_GAN_MODEL=str(FAST), MNIST_GAN_WORKERS="2") as (client, server):
        deadline = time.monotonic() + 30
        while (tmp_path / "service.log").read_text().count("initialized") < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        killed = worker_of(server)
        os.kill(killed, signal.SIGKILL)
        end = time.monotonic() + 30
        while len(workers(server)) < 2 or killed in workers(server):
            assert time.monotonic() < end
            try:
                seen[str(client.post("/generate", json={"n": 4}).status_code)] += 1
            except httpx.TransportError:
                seen["lost"] += 1
            time.sleep(0.02)
    print(f"while one of two workers was dead: {dict(seen)}")
    log = (tmp_path / "service.log").read_text()
    assert re.search(rf"worker [12] died: process {killed} was killed by SIGKILL; process \d+ replaces it", log)
    assert seen["200"] > 0
    assert seen["lost"] <= 1  # the connection that the dead one held
    assert seen.keys() <= {"200", "lost"}


@pytest.mark.slow
def test_in_a_container_the_service_ends_with_its_only_worker_for_whoever_runs_it_to_start_anew(tmp_path):
    with serving(tmp_path, MNIST_GAN_MODEL=str(FAST), BENTOML_CONTAINERIZED="true") as (_, server):
        os.kill(worker_of(server), signal.SIGKILL)
        assert server.wait(timeout=30) != 0
    assert "it is not replaced in a container" in (tmp_path / "service.log").read_text()


def test_a_port_in_use_ends_the_start_with_word_of_it(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [Path(sys.executable).parent / "bentoml", "serve", "--port", str(taken.getsockname()[1])]
        environment = os.environ | {"BENTOML_HOME": str(tmp_path), "MNIST_GAN_MODEL": str(FAST)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "Address already in use" in done.stderr


@size(1_000)
def test_slow_bodies_take_nobodys_place(tmp_path, amount):
    settings = {"MNIST_GAN_MODEL": str(FAST), "MNIST_GAN_MAX_REQUESTS": "4", "MNIST_GAN_TIMEOUT_SECONDS": "5"}
    seen: Counter[int] = Counter()
    with serving(tmp_path, **settings) as (client, server):
        memory = resident(server)
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
        grown = resident(server) - memory
        for connection in slow:
            connection.settimeout(30)
            assert connection.recv(100).startswith(b"HTTP/1.1 504 ")
            connection.close()
    print(f"beside {amount:,} slow bodies: {dict(seen)}, {grown >> 20} MiB more")
    assert seen == {200: 15}
    assert grown < 100 << 20


@size(200)
def test_who_does_not_take_his_answer_is_cut_off_and_what_he_holds_is_limited(tmp_path, amount):
    settings = {"MNIST_GAN_MODEL": str(FAST), "MNIST_GAN_MAX_REQUESTS": "8", "MNIST_GAN_TIMEOUT_SECONDS": "4"}
    with serving(tmp_path, **settings) as (client, server):
        client.post("/dataset", json={"n": 10_000})
        memory, open_files = resident(server), handles(server)
        body = b'{"n": 10000}'
        whole = b"POST /dataset HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        takers = []
        for _ in range(amount):
            taker = socket.create_connection((client.base_url.host, client.base_url.port))
            taker.sendall(whole)
            takers.append(taker)
        time.sleep(3)
        grown = resident(server) - memory
        deadline = time.monotonic() + 30
        while handles(server) > open_files + 2:
            assert time.monotonic() < deadline, "they are still held"
            for taker in takers:  # those that were refused have their answer, and wait
                taker.setblocking(False)
                with suppress(BlockingIOError, ConnectionError):
                    if taker.recv(100, socket.MSG_PEEK).startswith(b"HTTP/1.1 429"):
                        taker.close()
                        takers.remove(taker)
            time.sleep(0.2)
        assert client.post("/generate", json={"n": 4}).status_code == 200
    print(f"{amount} who asked for 7.8 MB and took nothing: {grown >> 20} MiB more")
    assert grown < 200 << 20
