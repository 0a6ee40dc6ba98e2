"""Deadlines that move, and clients that disconnect."""

import asyncio
from collections.abc import Callable

import pytest

from serving.http.deadline import Deadline, Exchange
from serving.http.errors import CLIENT_CLOSED_REQUEST


def collect_loop_errors() -> list[dict]:
    """Returns a list to which the running event loop adds each error of a callback or task from now on."""
    reported: list[dict] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    return reported


async def sleep_within(deadline: Deadline, prepare: Callable[[], object]) -> None:
    """Calls `prepare` and sleeps for 100 s or until the deadline."""
    async with deadline:
        prepare()
        await asyncio.sleep(100)


@pytest.mark.parametrize("seconds", [0, 10])
def test_a_deadline_that_is_moved_while_it_expires_raises_only_the_timeout(seconds):
    async def move_while_expiring() -> None:
        reported, deadline = collect_loop_errors(), Deadline(0)
        # The callback of the timeout was scheduled first; the cancelled task runs after both.
        with pytest.raises(TimeoutError):
            await sleep_within(deadline, lambda: asyncio.get_running_loop().call_soon(deadline.move, seconds))
        assert reported == []

    asyncio.run(move_while_expiring())


def test_a_moved_deadline_expires_at_its_new_time():
    async def move() -> float:
        deadline, start = Deadline(100), asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            await sleep_within(deadline, lambda: deadline.move(0.05))
        return asyncio.get_running_loop().time() - start

    assert 0.04 < asyncio.run(move()) < 10


@pytest.mark.parametrize("timeout", [10, 0.099, 0.1, 0.101])
def test_a_client_that_disconnects_while_the_deadline_expires_causes_one_error(timeout):
    async def disconnect() -> int:
        reported, disconnected = collect_loop_errors(), asyncio.Event()

        async def receive() -> dict:
            await disconnected.wait()
            return {"type": "http.disconnect"}

        async def send(_: object) -> None:
            pass

        exchange = Exchange(receive, send, timeout, response_timeout=10)
        with pytest.raises(TimeoutError), exchange.cancel_on_disconnect():
            await sleep_within(exchange.deadline, lambda: asyncio.get_running_loop().call_later(0.1, disconnected.set))
        assert reported == []
        return exchange.timeout_error().status

    status = asyncio.run(disconnect())
    assert status == CLIENT_CLOSED_REQUEST if timeout == 10 else status in (504, CLIENT_CLOSED_REQUEST)


def test_the_response_timeout_applies_although_each_piece_is_accepted_in_time():
    async def send_slowly() -> int:
        accepted = 0

        async def receive() -> dict:
            return await asyncio.get_running_loop().create_future()

        async def send(_: object) -> None:
            nonlocal accepted
            await asyncio.sleep(0.05)
            accepted += 1

        exchange = Exchange(receive, send, timeout=5, response_timeout=0.3)

        async def respond() -> None:
            async with exchange.deadline:
                await exchange.send({"type": "http.response.body", "body": bytes(100 << 20)})

        with pytest.raises(TimeoutError):
            await respond()
        return accepted

    assert 1 <= asyncio.run(send_slowly()) <= 6
