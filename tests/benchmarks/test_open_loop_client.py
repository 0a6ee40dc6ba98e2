"""The client of the open-loop benchmark, against small servers."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import numpy as np

from benchmarks.open_loop_client import Client, Sample, run

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
REJECTED = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"


def measure(
    respond: Callable[[int], Awaitable[bytes]], use: Callable[[Client], Awaitable[list[Sample]]]
) -> list[Sample]:
    """Runs a server that responds to its i-th request with `respond(i)`; b"" closes the connection."""
    count = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                count += 1
                if not (response := await respond(count - 1)):
                    break
                writer.write(response)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    async def main() -> list[Sample]:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        client = Client(server.sockets[0].getsockname()[1], REQUEST)
        samples = await use(client)
        client.close()
        server.close()
        return samples

    return run(main())


def test_requests_arrive_as_planned_while_the_server_stalls_and_their_latency_counts_from_then():
    async def stall_at_the_first(i: int) -> bytes:
        if i == 0:
            time.sleep(0.3)  # blocks the event loop, which the server and the client share
        return OK

    samples = measure(stall_at_the_first, lambda client: client.open_loop(np.full(30, 0.01)))
    assert len(samples) == 30
    arrivals = sorted(sample.arrived for sample in samples)
    assert np.allclose(np.diff(arrivals), 0.01)
    assert sum(sample.seconds > 0.05 for sample in samples) > 15


def test_rejections_and_closed_connections_are_reported():
    async def respond(i: int) -> bytes:
        return (OK, REJECTED, b"")[i % 3]

    samples = measure(respond, lambda client: client.open_loop(np.full(9, 0.02)))
    outcomes = sorted((sample.status, sample.retry_after) for sample in samples)
    assert outcomes == [(0, False)] * 3 + [(200, False)] * 3 + [(429, True)] * 3


def test_a_closed_loop_never_has_more_requests_in_progress_than_connections():
    in_progress = most = 0

    async def respond(_: int) -> bytes:
        nonlocal in_progress, most
        in_progress += 1
        most = max(most, in_progress)
        await asyncio.sleep(0.001)
        in_progress -= 1
        return OK

    samples = measure(respond, lambda client: client.closed_loop(4, 0.3))
    assert len(samples) > 10
    assert most == 4
